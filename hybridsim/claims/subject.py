"""A model that a claim is about, by name, with its closed forms."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from hybridsim.cost.model import ModelCosts
from hybridsim.graph import ModelGraph, build_graph
from hybridsim.mixers import MixerCost, MixerSettings, mixer_cost
from hybridsim.spec.load import load_spec
from hybridsim.spec.schema import ModelSpec


@dataclass(frozen=True)
class Subject:
    """A shipped spec, with changes where the claim is about a model that is not shipped.

    Attributes:
        spec: name of a shipped spec.
        overrides: changes to it, as in `load_spec`.
        name: what tables call it; by default the spec's name.
    """

    spec: str
    overrides: tuple[str, ...] = ()
    name: str = ""

    @property
    def title(self) -> str:
        """What texts call it."""
        return self.name or self.spec

    @property
    def model(self) -> ModelSpec:
        """The checked spec."""
        return _model(self.spec, self.overrides)

    @property
    def graph(self) -> ModelGraph:
        """Its graph."""
        return _graph(self.spec, self.overrides)

    @property
    def costs(self) -> ModelCosts:
        """Its closed forms."""
        return _costs(self.spec, self.overrides)

    def mixer(self, letter: str) -> MixerSettings:
        """Return the settings of a mixer letter."""
        return self.model.mixers[letter]

    def mixer_cost(self, letter: str) -> MixerCost:
        """Return the closed forms of one layer of a mixer letter."""
        return mixer_cost(self.mixer(letter), self.model.hidden_size)

    def num_layers_of(self, letters: str) -> int:
        """Return how many layers have one of the letters."""
        return sum(letter in letters for letter in self.model.layer_letters)


@lru_cache(maxsize=256)
def _model(spec: str, overrides: tuple[str, ...]) -> ModelSpec:
    return load_spec(spec, overrides)


@lru_cache(maxsize=256)
def _graph(spec: str, overrides: tuple[str, ...]) -> ModelGraph:
    return build_graph(_model(spec, overrides))


@lru_cache(maxsize=256)
def _costs(spec: str, overrides: tuple[str, ...]) -> ModelCosts:
    return ModelCosts.of(_graph(spec, overrides))
