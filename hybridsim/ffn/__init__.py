"""The one table of feed-forwards: kind -> folder. Adding one is one folder and one row.

Settings and costs import no torch; `ffn_class` imports a module when a model is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING

from hybridsim.ffn.base import FfnCost, FfnSettings

if TYPE_CHECKING:
    from hybridsim.nn.feed_forward import FeedForward

__all__ = ["FFNS", "FfnCost", "FfnSettings", "ffn_class", "ffn_cost", "ffn_settings_class"]


@dataclass(frozen=True)
class FfnEntry:
    """One row of the table: the package, how its classes begin, and what tables call it."""

    folder: str
    prefix: str
    title: str


FFNS: dict[str, FfnEntry] = {
    "dense": FfnEntry("hybridsim.ffn.dense", "Dense", "dense MLP"),
    "moe": FfnEntry("hybridsim.ffn.moe", "MoE", "mixture of experts"),
}


@lru_cache(maxsize=None)
def _class(kind: str, module: str, suffix: str) -> type:
    entry = FFNS[kind]
    found: type = getattr(import_module(f"{entry.folder}.{module}"), entry.prefix + suffix)
    return found


def ffn_settings_class(kind: str) -> type[FfnSettings]:
    """Return the settings dataclass of a kind of feed-forward."""
    return _class(kind, "settings", "Settings")


@lru_cache(maxsize=4096)
def ffn_cost(settings: FfnSettings, hidden_size: int) -> FfnCost:
    """Return the closed-form costs of a feed-forward with these settings at this model width."""
    cost: FfnCost = _class(settings.kind, "cost", "Cost")(settings, hidden_size)
    return cost


def ffn_class(kind: str) -> type[FeedForward]:
    """Return the nn.Module of a kind of feed-forward; imports torch."""
    return _class(kind, "module", "")
