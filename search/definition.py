"""What a study is of, as data: study.json. Going on with a study reads it again. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hybridsim.cost.op import Deployment
from hybridsim.dtypes import Dtypes
from hybridsim.errors import HybridsimError, bad_value
from hybridsim.fields import parse_dataclass
from hybridsim.hardware import parse_hardware
from hybridsim.measure.model_times import device_times
from hybridsim.origin import git_revision, versions
from hybridsim.spec.parse import parse_spec
from hybridsim.train.proxy import check_pressure
from hybridsim.workload import parse_workload
from search.objectives import Objective, find_objective
from search.quality import PROXY, QUALITIES
from search.settings import parse_space
from search.space import Serve, Space

SCHEMA = "hybridsim/study/1"
FILE = "study.json"


@dataclass(frozen=True)
class Definition:
    """Everything that makes two trials of a study comparable.

    Attributes:
        spec: fields of the base.
        space: what may vary.
        workload: what it is served for.
        hardware: on what.
        dtypes: number formats.
        objectives: names.
        quality: "proxy", "surrogate" or "none".
        quality_weights: of tasks; empty for all alike.
        fidelities: names of the proxies, the shortest first.
        device: of the trainings: "auto", "cpu" or "cuda".
        pressure: that the proxies' tasks put on the base's state, see `check_pressure`.
        proxies: what the proxies' settings were, in short; "" where nothing is trained.
    """

    spec: dict[str, Any]
    space: dict[str, Any]
    workload: dict[str, Any]
    hardware: dict[str, Any]
    dtypes: dict[str, Any]
    objectives: tuple[str, ...]
    quality: str
    quality_weights: dict[str, Any] = field(default_factory=dict)
    fidelities: tuple[str, ...] = ()
    device: str = "auto"
    pressure: Any = None
    proxies: str = ""

    def __post_init__(self) -> None:
        if self.quality not in QUALITIES:
            raise bad_value("quality", self.quality, f"must be one of {', '.join(QUALITIES)}")
        if check_pressure(self.pressure) is not None and self.quality != PROXY:
            raise bad_value("pressure", self.pressure, "is of trainings; needs quality=proxy")
        if not self.objectives:
            raise bad_value("objectives", list(self.objectives), "give at least one")
        if len(set(self.objectives)) < len(self.objectives):
            raise bad_value("objectives", list(self.objectives), "names one twice")

    def found_objectives(self) -> list[Objective]:
        """Return the objectives; SpecError for one that does not exist."""
        return [find_objective(name) for name in self.objectives]

    def make_space(self) -> Space:
        """Return the space; SpecError where something does not fit."""
        dtypes: Dtypes = parse_dataclass(Dtypes, self.dtypes, "dtypes")
        hardware, deployment = parse_hardware(self.hardware), Deployment(dtypes=dtypes)
        serve = Serve(
            parse_workload(self.workload), hardware, deployment, device_times(hardware, deployment)
        )
        return Space(parse_spec(self.spec), parse_space(self.space), serve)


def parse_definition(mapping: Mapping[str, Any], key: str = "") -> Definition:
    """Return the definition that a mapping describes; SpecError for anything wrong."""
    definition: Definition = parse_dataclass(Definition, mapping, key)
    return definition


def settle(given: Definition, folder: Path, overrides: Iterable[str]) -> Definition:
    """Return the definition of the study in a folder: what was given, or what it was made with.

    Raises:
        HybridsimError: the user asks for something else than the study was made with.
    """
    if not (folder / FILE).is_file():
        return given
    made = read_definition(folder)
    roots = {override.lstrip("+~").partition("=")[0].partition(".")[0] for override in overrides}
    for f in fields(Definition):
        ours, theirs = _plain(getattr(given, f.name)), _plain(getattr(made, f.name))
        if f.name in roots and ours != theirs:
            raise HybridsimError(
                f"study={folder.name}: was made with {f.name}={_short(theirs)},"
                f" not {_short(ours)}; give another study=NAME"
            )
    return made


def read_definition(folder: Path) -> Definition:
    """Return the definition of the study in a folder.

    Raises:
        HybridsimError: there is none, or it is not one.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return parse_definition(content["definition"])
    except FileNotFoundError:
        raise HybridsimError(f"study={folder.name}: no such study ({path} is missing)") from None
    except (ValueError, KeyError, TypeError) as error:
        raise HybridsimError(f"study file {path}: is not a study's definition ({error})") from None


def write_definition(folder: Path, definition: Definition, sampler: Mapping[str, Any]) -> None:
    """Write study.json where it is missing."""
    if (folder / FILE).is_file():
        return
    document = {
        "schema": SCHEMA,
        "definition": asdict(definition),
        "sampler": dict(sampler),
        "versions": versions(),
        "git_revision": git_revision(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, indent=2) + "\n"
    whole = folder / f".{FILE}.new"
    whole.write_text(text, encoding="utf-8")
    whole.replace(folder / FILE)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _short(value: Any) -> str:
    if isinstance(value, Mapping) and "name" in value:
        return str(value["name"])
    text = str(value)
    return text if len(text) < 80 else text[:77] + "..."
