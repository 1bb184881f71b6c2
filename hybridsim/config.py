"""From what Hydra composed to typed arguments: the only place that knows both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from hybridsim.errors import SpecError, unknown
from hybridsim.spec.parse import parse_spec
from hybridsim.spec.schema import ModelSpec

FORMATS = ("text", "json")


def plain(config: DictConfig) -> dict[str, Any]:
    """Return the composed config as plain Python, interpolations resolved."""
    content = OmegaConf.to_container(config, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def take_spec(fields: dict[str, Any]) -> ModelSpec:
    """Return the checked spec of a command's config, and take it out of the fields."""
    spec = fields.pop("spec", None)
    if not isinstance(spec, Mapping):
        raise SpecError(f"spec={spec}: give the name of a spec")
    return parse_spec(spec)


def take_format(fields: dict[str, Any], allowed: tuple[str, ...] = FORMATS) -> str:
    """Return the output format of a command's config, and take it out of the fields."""
    chosen = str(fields.pop("format", allowed[0]))
    if chosen not in allowed:
        raise unknown("format", chosen, allowed, "format")
    return chosen


def take_switch(fields: dict[str, Any], key: str) -> bool:
    """Return a true-or-false field of a command's config, and take it out of the fields."""
    value = fields.pop(key)
    if not isinstance(value, bool):
        raise SpecError(f"{key}={value}: expected true or false")
    return value


def take_texts(fields: dict[str, Any], key: str) -> tuple[str, ...]:
    """Return a list of texts of a command's config, and take it out of the fields."""
    values = fields.pop(key)
    if not isinstance(values, list) or not all(isinstance(v, str | int) for v in values):
        raise SpecError(f"{key}={values}: expected a list of texts, e.g. {key}=[a,b]")
    return tuple(map(str, values))


def output_dir() -> str:
    """Return the folder of this run."""
    return str(HydraConfig.get().runtime.output_dir)


def task_overrides() -> list[str]:
    """Return what the user changed on the command line."""
    return [str(override) for override in HydraConfig.get().overrides.task]


def is_multirun() -> bool:
    """Whether this run is a job of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)
