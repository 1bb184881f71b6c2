"""Costs of the shipped specs, by name."""

from __future__ import annotations

from functools import lru_cache

from hybridsim import load_spec
from hybridsim.cost.model import ModelCosts
from hybridsim.graph import build_graph


@lru_cache(maxsize=None)
def costs(name: str) -> ModelCosts:
    return ModelCosts.of(build_graph(load_spec(name)))
