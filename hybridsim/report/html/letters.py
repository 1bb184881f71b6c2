"""What the letters of a spec's layer pattern mean, for strips and for the explorer."""

from __future__ import annotations

from collections.abc import Iterable

from hybridsim.ffn import FFNS
from hybridsim.mixers import MIXERS
from hybridsim.spec.schema import ModelSpec

FULL, CHEAP, OTHER = "full", "cheap", "other"

Letters = dict[str, dict[str, str]]  # letter -> title and role


def meanings(spec: ModelSpec) -> Letters:
    """Return title and role of each letter: full attention, a cheaper mixer, or something else."""
    found: Letters = {
        letter: {
            "title": MIXERS[settings.kind].title,
            "role": FULL if settings.is_full_attention else CHEAP,
        }
        for letter, settings in spec.mixers.items()
    }
    for letter, parts in spec.parallel.items():
        titles = " + ".join(MIXERS[spec.mixers[part].kind].title for part in parts)
        found[letter] = {"title": titles, "role": CHEAP}
    for letter, settings in spec.ffns.items():
        found[letter] = {"title": FFNS[settings.kind].title, "role": OTHER}
    return found


def used(spec: ModelSpec) -> Letters:
    """Return the meanings of the letters in the spec's pattern, in the order of first use."""
    known = meanings(spec)
    return {letter: known[letter] for letter in dict.fromkeys(spec.layer_letters)}


def commonest(letters: str, among: Iterable[str]) -> str | None:
    """Return the letter that stands most often, the first of `among` where none stands at all."""
    return max(among, key=letters.count, default=None)
