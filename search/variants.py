"""The specs that a space's choices make of its base: each mixer, expert and width that may vary."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

from hybridsim.errors import SpecError
from hybridsim.spec.parse import parse_spec, spec_dict
from hybridsim.spec.schema import ModelSpec
from search.settings import SpaceSettings

MAX_VARIANTS = 4096


class Variants:
    """A base with the space's mixers added, and what the choices change in it.

    Args:
        base: the spec that the search starts from.
        settings: mixers and choices.

    Raises:
        SpecError: a choice names a field that is not there, or there are too many of them.
    """

    def __init__(self, base: ModelSpec, settings: SpaceSettings) -> None:
        self._fields = spec_dict(base)
        for letter, mixer in settings.mixers.items():
            if letter in self._fields["mixers"]:
                raise SpecError(f"space.mixers.{letter}: the base has a mixer {letter} already")
            self._fields["mixers"][letter] = dict(mixer)
        self.choices = {name: _changes(name, opts) for name, opts in settings.choices.items()}
        self.sizes = [len(options) for options in self.choices.values()]
        self.varied = [index for index, size in enumerate(self.sizes) if size > 1]
        self.count = prod(self.sizes)
        if self.count > MAX_VARIANTS:
            raise SpecError(
                f"space.choices: {self.count:,} combinations; must be at most {MAX_VARIANTS:,}"
            )
        self._specs: dict[tuple[int, ...], ModelSpec] = {}
        self.spec(self.base_options)

    @cached_property
    def base_options(self) -> tuple[int, ...]:
        """For each choice the option that leaves the base as it is, else the first."""
        return tuple(self._unchanged(options) for options in self.choices.values())

    def _unchanged(self, options: list[dict[str, Any]]) -> int:
        for index, changes in enumerate(options):
            if all(_get(self._fields, key) == value for key, value in changes.items()):
                return index
        return 0

    def all_options(self) -> list[tuple[int, ...]]:
        """Return every combination of options."""
        return list(product(*map(range, self.sizes)))

    def changes(self, options: tuple[int, ...]) -> dict[str, Any]:
        """Return the fields that a combination of options sets."""
        made: dict[str, Any] = {}
        for index, choice in zip(options, self.choices.values(), strict=True):
            made.update(choice[index])
        return made

    def spec(self, options: tuple[int, ...]) -> ModelSpec:
        """Return the base with a combination of options, its own pattern kept."""
        if options not in self._specs:
            fields = _copied(self._fields)
            for key, value in self.changes(options).items():
                _set(fields, key, value)
            self._specs[options] = parse_spec(fields)
        return self._specs[options]

    def letters_of(self, choice: str) -> frozenset[str] | None:
        """Return the mixers and feed-forwards that a choice is about, None for the whole model."""
        letters = set()
        for key in {key for changes in self.choices[choice] for key in changes}:
            group, _, rest = key.partition(".")
            if group not in ("mixers", "ffns"):
                return None
            letters.add(rest.partition(".")[0])
        return frozenset(letters)


def _changes(name: str, options: list[Any]) -> list[dict[str, Any]]:
    return [dict(o) if isinstance(o, Mapping) else {name: o} for o in options]


def _copied(value: Any) -> Any:
    return {k: _copied(v) for k, v in value.items()} if isinstance(value, Mapping) else value


def _get(fields: Mapping[str, Any], key: str) -> Any:
    value: Any = fields
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise SpecError(f"space.choices: {key} is not a field of the base")
        value = value[part]
    return value


def _set(fields: dict[str, Any], key: str, value: Any) -> None:
    _get(fields, key)
    *path, last = key.split(".")
    for part in path:
        fields = fields[part]
    fields[last] = value
