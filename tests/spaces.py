"""Spaces that tests of the search share."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from hybridsim import load_spec
from hybridsim.cost.op import Deployment
from hybridsim.hardware import parse_hardware
from hybridsim.options import read_option
from hybridsim.spec.schema import ModelSpec
from hybridsim.workload import parse_workload
from search.settings import Constraints, SpaceSettings
from search.space import Serve, Space

UNLIMITED = Constraints(fits=False)


@lru_cache(maxsize=None)
def served(workload: str = "agent_128k", hardware: str = "h200") -> Serve:
    return Serve(
        parse_workload(read_option("workload", workload)),
        parse_hardware(read_option("hardware", hardware)),
        Deployment(),
    )


def space_of(base: str | ModelSpec = "kimi_linear", **settings: Any) -> Space:
    """Return a space around a base; without limits where none are given."""
    spec = load_spec(base) if isinstance(base, str) else base
    given = {"constraints": UNLIMITED, **settings}
    return Space(spec, SpaceSettings(name="tried", **given), served())


def tiny(num_layers: int = 7) -> ModelSpec:
    """Return Kimi Linear's structure with so many layers."""
    spec = load_spec("kimi_linear_tiny")
    return replace(spec, num_layers=num_layers, layer_pattern="L" * (num_layers - 1) + "F")
