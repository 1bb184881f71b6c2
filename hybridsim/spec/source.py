"""Hydra plugins: folders of spec files become the config group `spec`, read only when chosen."""

from __future__ import annotations

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import OmegaConf

from hybridsim.errors import SpecError
from hybridsim.paths import SPECS_DIR
from hybridsim.spec.parse import with_defaults

GROUP = "spec"
SUFFIX = ".yaml"
CONFIG = "config.json"

STUDY = re.compile(r"study/(?P<name>[^/]+)/(?P<trial>[^/]+)")  # a trial of a search

USER_FOLDERS_VARIABLE = "HYBRIDSIM_SPECS"


class SpecSource(ConfigSource):
    """Search-path entry `spec://FOLDER`: FOLDER/NAME.yaml is the option `spec=NAME`."""

    @staticmethod
    def scheme() -> str:
        return "spec"

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _file(self, config_path: str) -> Path | None:
        group, _, name = self._normalize_file_name(config_path).partition("/")
        if group != GROUP or not name:
            return None
        if is_path(name):
            return find_by_path(name)
        file = self._folder / name
        return file if file.is_file() else None

    def _study(self, config_path: str) -> re.Match[str] | None:
        group, _, name = self._normalize_file_name(config_path).partition("/")
        return study_trial(name.removesuffix(SUFFIX)) if group == GROUP else None

    def load_config(self, config_path: str) -> ConfigResult:
        if found := self._study(config_path):
            # By name: searches are built on specs.
            rebuild = import_module("search.rebuild")
            mapping = with_defaults(rebuild.trial_fields(found["name"], found["trial"]))
            content, header = OmegaConf.create(mapping), self._get_header_dict("")
            return ConfigResult(self.provider, f"spec://{self.path}", content, header)
        file = self._file(config_path)
        if file is None:
            raise ConfigLoadError(f"Config not found: {config_path}")
        mapping = read_spec_file(file)
        if is_path(config_path.partition("/")[2]):
            mapping = _siblings_first(mapping, file.parent)
        header = self._get_header_dict(file.read_text(encoding="utf-8"))
        return ConfigResult(self.provider, f"spec://{self.path}", OmegaConf.create(mapping), header)

    def available(self) -> bool:
        return self._folder.is_dir()

    def is_group(self, config_path: str) -> bool:
        return config_path in ("", GROUP)

    def is_config(self, config_path: str) -> bool:
        return self._study(config_path) is not None or self._file(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        if config_path == "":
            return [GROUP] if results_filter in (None, ObjectType.GROUP) else []
        if config_path != GROUP or results_filter == ObjectType.GROUP:
            return []
        return sorted(p.stem for p in self._folder.glob("*.yaml"))


def study_trial(name: str) -> re.Match[str] | None:
    """Return the study and trial that a choice of spec names (study/NAME/42), None for another."""
    return None if find_by_path(name) else STUDY.fullmatch(name)


def is_path(name: str) -> bool:
    """Whether a choice of spec is a path, and not the name of one in a folder of specs."""
    return "/" in name or name.removesuffix(SUFFIX).endswith(".json")


def find_by_path(name: str) -> Path | None:
    """Return the spec file or config.json that a path is, with or without `.yaml`, or holds."""
    for path in (Path(name).expanduser(), Path(name.removesuffix(SUFFIX)).expanduser()):
        if path.is_file():
            return path
        if (path / CONFIG).is_file():
            return path / CONFIG
    return None


def _siblings_first(mapping: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the mapping with what it inherits from named from the root of the configs.

    A file given by path inherits from the files beside it before the named specs.
    """

    def rooted(base: Any) -> Any:
        if not isinstance(base, str) or base == "_self_":
            return base
        beside = folder / f"{base}{SUFFIX}"
        return f"/{GROUP}/{beside.resolve() if beside.is_file() else base}@_here_"

    defaults = [rooted(base) for base in mapping.get("defaults", [])]
    return {**mapping, "defaults": defaults} if defaults else mapping


def read_spec_file(file: Path) -> dict[str, Any]:
    """Return the mapping in a spec file; one that inherits from no other gets every default.

    A published config.json is read as the spec it means.

    Raises:
        SpecError: the file is not YAML, or not a mapping; a config.json does not read.
    """
    if file.suffix == ".json":
        # By name: families are built on specs.
        convert = import_module("hybridsim.families.convert")
        return with_defaults(convert.import_fields(file))
    try:
        content = OmegaConf.to_container(OmegaConf.load(file))
    except Exception as error:  # the YAML parser and OmegaConf have no common base
        raise SpecError(f"spec={file.stem}: {file} is not YAML: {_one_line(error)}") from None
    if not isinstance(content, dict):
        raise SpecError(f"spec={file.stem}: {file} must hold a mapping of fields")
    mapping = {str(name): value for name, value in content.items()}
    return mapping if "defaults" in mapping else with_defaults(mapping)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class SpecSearchPath(SearchPathPlugin):
    """Adds the user's folders (HYBRIDSIM_SPECS) and then the shipped specs to every command."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        user = [p for p in os.environ.get(USER_FOLDERS_VARIABLE, "").split(os.pathsep) if p]
        for folder in [*user, str(SPECS_DIR)]:
            search_path.append(provider="hybridsim", path=f"spec://{folder}")


def register() -> None:
    """Make Hydra know both plugins; doing so again changes nothing."""
    for plugin in (SpecSource, SpecSearchPath):
        Plugins.instance().register(plugin)
