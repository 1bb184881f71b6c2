"""Designs that a search begins with: ladders, periodic patterns, what was published. No torch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, product
from typing import TYPE_CHECKING

from search.candidate import Candidate

if TYPE_CHECKING:
    from search.space import Space

PERIODS = (4, 8, 2, 6, 3, 12, 5, 16, 24)
OPTIONS_TRIED = 9  # combinations of options, the base's first
# Shares of full layers, those of published hybrids first: an eighth, a quarter, a twelfth ...
SHARES = (1 / 8, 1 / 4, 1 / 12, 1 / 6, 1 / 3, 1 / 5, 1 / 2, 1 / 24)


def ladder(space: Space) -> list[Candidate]:
    """Return the centred uniform ladder: for each number of full layers, those spread evenly.

    The i-th of n full layers is at (i + 1/2) N / n of the N free layers, rounded down.
    """
    if space.patterns is not None or len(space.letters) < 2:
        return []
    found = []
    for n in _rungs(len(space.free)):
        for cheap, full in _pairs(space):
            found.append(_mix(space, cheap, full, centred(n, len(space.free))))
    return _feasible(space, found)


def periodic(space: Space) -> list[Candidate]:
    """Return periodic patterns: a full layer at the end of every unit, and in its middle."""
    if space.patterns is not None:
        return _feasible(space, space.listed)
    size = len(space.free)
    found = []
    for period, middle in product(PERIODS, (False, True)):
        offset = period // 2 if middle else period - 1
        for cheap, full in _pairs(space):
            found.append(_mix(space, cheap, full, range(offset, size, period)))
    return _feasible(space, found)


def published(space: Space) -> list[Candidate]:
    """Return the base's own pattern, where the space has it."""
    letters = space.base.layer_letters
    taken = [letters[i] for i in space.free]
    return _feasible(space, [space.fill(taken)] if set(taken) <= set(space.letters) else [])


def designs(space: Space) -> list[Candidate]:
    """Return all of them once: the published one, then ladder and periodic patterns in turn."""
    ordered = [*published(space), *_in_turn(ladder(space), periodic(space))]
    return list(dict.fromkeys(ordered))


def centred(count: int, size: int) -> list[int]:
    """Return `count` of `size` places, spread evenly and centred."""
    return [int((i + 0.5) * size / count) for i in range(count)]


def _pairs(space: Space) -> list[tuple[str, str]]:
    """Return which letters stand for cheap and full: each cheap one with each full one."""
    cheap = [c for c in space.letters if c not in space.full_letters]
    full = list(space.full_letters)
    if not cheap or not full:
        return [(space.letters[0], other) for other in space.letters[1:]]
    return list(product(cheap, full))


def _mix(space: Space, cheap: str, full: str, places: list[int] | range) -> str:
    chosen = frozenset(places)
    return space.fill([full if i in chosen else cheap for i in range(len(space.free))])


def _feasible(space: Space, patterns: list[str]) -> list[Candidate]:
    """Return the candidates of these patterns, with the base's options where those are feasible."""
    found = []
    for letters in patterns:
        tries = (Candidate(letters, o) for o in (space.variants.base_options, *space.all_options))
        found += [space.canonical(one) for one in islice(tries, OPTIONS_TRIED) if one in space][:1]
    return list(dict.fromkeys(found))


def _rungs(size: int) -> list[int]:
    """Return 0 to `size`: the first shares in use, both ends, then the others from few to many."""
    used = [round(share * size) for share in SHARES]
    return list(dict.fromkeys([*used[:4], 0, *used[4:], size, *range(size + 1)]))


def _in_turn(first: list[Candidate], second: list[Candidate]) -> Iterator[Candidate]:
    for index in range(max(len(first), len(second))):
        yield from first[index : index + 1]
        yield from second[index : index + 1]
