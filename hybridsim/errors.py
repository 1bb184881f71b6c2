"""Errors that a user can mend: each is one line naming the key, the value and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HybridsimError(ValueError):
    """A mistake in what the user gave; its text is one line and is shown without a traceback."""

    def __init__(self, text: str) -> None:
        # What the user gave may have line breaks, and is part of the text.
        super().__init__("\\n".join(text.splitlines()))


class SpecError(HybridsimError):
    """A spec that does not describe a model."""


class UncountedOperatorError(HybridsimError):
    """An operator does arithmetic and no counting rule exists for it."""


class PluginError(HybridsimError):
    """An installed package offers hybridsim something that cannot be used."""


def bad_value(key: str, value: object, allowed: str) -> SpecError:
    """Return the error for `key=value` that states what is allowed instead."""
    return SpecError(f"{key}={value}: {allowed}")


def near_miss(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` where a known word is close to `word`, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(key: str, value: object, known: Iterable[str], noun: str) -> SpecError:
    """Return the error for a value outside a closed set of names."""
    names = sorted(known)
    return SpecError(
        f"{key}={value}: no such {noun}{near_miss(str(value), names)} (known: {', '.join(names)})"
    )
