"""Read a spec by name or from a file, with Hydra's inheritance and overrides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hybridsim.errors import SpecError
from hybridsim.hydra_errors import explain
from hybridsim.paths import CONF_DIR, SPECS_DIR
from hybridsim.spec import source
from hybridsim.spec.overrides import quote_patterns
from hybridsim.spec.parse import parse_spec
from hybridsim.spec.schema import ModelSpec


def load_spec(spec: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> ModelSpec:
    """Return a checked spec.

    Args:
        spec: a shipped name (`kimi_linear`), the path of a YAML file, of a published config.json or
            of a checkpoint folder, or the fields themselves.
        overrides: Hydra overrides without the leading `spec.`, e.g. `["layer_pattern=LLLF*6 LLF"]`.

    Raises:
        SpecError: there is no such spec, an override does not fit, or the spec is not valid.
    """
    if isinstance(spec, Mapping):
        if overrides:
            raise SpecError(f"overrides={list(overrides)}: change the mapping itself instead")
        return parse_spec(spec)
    name = _located(spec)
    dotted = quote_patterns(f"{_marks(o)}spec.{o.lstrip('+~')}" for o in overrides)
    try:
        with fresh_hydra():
            source.register()
            with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
                found = compose("spec_only", [f"spec='{name}'", *dotted])
        content = OmegaConf.to_container(found.spec, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        line = explain(error, {"spec": spec_names()})
        raise SpecError(line or str(error)) from None
    assert isinstance(content, dict)
    return parse_spec({str(key): value for key, value in content.items()})


def spec_names() -> list[str]:
    """Return the names of the shipped specs, sorted."""
    return sorted(path.stem for path in SPECS_DIR.glob("*.yaml"))


def _located(spec: str | Path) -> str:
    """Return a spec's name as it is, and the full path of one that is given by path."""
    path = Path(spec).expanduser()
    if source.study_trial(str(spec)):
        return str(spec)
    if path.suffix not in (".yaml", ".yml", ".json") and path.name == str(spec):
        return str(spec)
    if path.suffix == ".yml":
        raise SpecError(f"spec={spec}: the name of a spec's file must end in .yaml")
    if source.find_by_path(str(path)) is None:
        raise SpecError(f"spec={spec}: no such file, nor a folder with a {source.CONFIG}")
    return str(path.resolve())


def _marks(override: str) -> str:
    """Return the leading +, ++ or ~ of an override."""
    return override[: len(override) - len(override.lstrip("+~"))]


@contextmanager
def fresh_hydra() -> Iterator[None]:
    """Let a composition run inside a Hydra application, and leave that one as it was."""
    instance = GlobalHydra.instance()
    outer = instance.hydra
    instance.clear()
    try:
        yield
    finally:
        instance.hydra = outer
