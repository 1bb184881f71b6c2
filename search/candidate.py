"""A candidate: one letter a layer, and one option of each choice. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Candidate:
    """One point of a space.

    Attributes:
        letters: the layer pattern, one letter a layer.
        options: for each choice of the space, in its order, the index of the option taken.
    """

    letters: str
    options: tuple[int, ...] = ()

    @property
    def key(self) -> str:
        """A text that only this candidate has."""
        return "|".join([self.letters, ",".join(map(str, self.options))]).rstrip("|")


def parse_key(key: str) -> Candidate:
    """Return the candidate that a key is of."""
    letters, _, options = key.partition("|")
    return Candidate(letters, tuple(int(o) for o in options.split(",") if o))
