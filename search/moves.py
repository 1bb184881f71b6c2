"""Small changes of a candidate: swap, shift, ratio, rotation, paint, option. No torch."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from search.candidate import Candidate

if TYPE_CHECKING:
    from search.space import Space

ATTEMPTS = 8


def swap(letters: list[str], known: str, draw: Random) -> None:
    """Exchange two layers that differ."""
    at = draw.randrange(len(letters))
    others = [i for i, letter in enumerate(letters) if letter != letters[at]]
    if others:
        other = draw.choice(others)
        letters[at], letters[other] = letters[other], letters[at]


def shift(letters: list[str], known: str, draw: Random) -> None:
    """Move a layer by one or two places, past layers that differ from it."""
    reach = draw.choice((-2, -1, 1, 2))
    places = [
        i
        for i in range(len(letters))
        if 0 <= i + reach < len(letters) and letters[i] != letters[i + reach]
    ]
    if places:
        at = draw.choice(places)
        letters[at], letters[at + reach] = letters[at + reach], letters[at]


def ratio(letters: list[str], known: str, draw: Random) -> None:
    """Give a layer another letter; every change of one letter into another is as likely."""
    present = sorted(set(letters))
    old = draw.choice(present)
    new = [letter for letter in known if letter != old]
    if new:
        places = [i for i, letter in enumerate(letters) if letter == old]
        letters[draw.choice(places)] = draw.choice(new)


def rotate(letters: list[str], known: str, draw: Random) -> None:
    """Move every layer by one place, the last to the front or the first to the end."""
    reach = draw.choice((-1, 1))
    letters[:] = letters[-reach:] + letters[:-reach]


def paint(letters: list[str], known: str, draw: Random) -> None:
    """Give all layers of one letter within a stretch of up to a quarter another one."""
    start = draw.randrange(len(letters))
    end = start + draw.randint(2, max(2, len(letters) // 4))
    old = letters[start]
    others = [letter for letter in known if letter != old]
    if others:
        new = draw.choice(others)
        letters[start:end] = [new if letter == old else letter for letter in letters[start:end]]


# move -> how often, relative to the others
MOVES: dict[Callable[[list[str], str, Random], None], int] = {
    swap: 2,
    shift: 3,
    ratio: 4,
    rotate: 1,
    paint: 2,
}
_DECK = [move for move, times in MOVES.items() for _ in range(times)]
STEPS = (1, 1, 1, 2, 2, 3)  # how many moves a mutation makes, drawn from these
OPTION_CHANCE = 0.4  # of another option, where there are choices


def mutated(space: Space, candidate: Candidate, draw: Random) -> Candidate:
    """Return a feasible candidate one to three moves away; another at random where none is."""
    for _ in range(ATTEMPTS):
        changed = _changed(space, candidate, draw)
        if changed != candidate and changed in space:
            return space.canonical(changed)
    return space.random(draw)


def _changed(space: Space, candidate: Candidate, draw: Random) -> Candidate:
    options = candidate.options
    varied = space.variants.varied
    if varied and draw.random() < OPTION_CHANCE:
        options = _other_option(space, options, varied, draw)
        if draw.random() < 0.5:
            return Candidate(candidate.letters, options)
    if space.patterns is not None:
        return Candidate(draw.choice(space.listed), options)
    letters = [candidate.letters[i] for i in space.free]
    for _ in range(draw.choice(STEPS)):
        draw.choice(_DECK)(letters, space.letters, draw)
    return Candidate(space.fill(letters), options)


def _other_option(
    space: Space, options: tuple[int, ...], varied: list[int], draw: Random
) -> tuple[int, ...]:
    at = draw.choice(varied)
    count = space.variants.sizes[at]
    other = (options[at] + draw.randrange(1, count)) % count
    return (*options[:at], other, *options[at + 1 :])
