"""Patterns on a command line: quoted, since Hydra reads parentheses as a function call."""

from __future__ import annotations

import re
from collections.abc import Iterable

_PATTERN_KEY = re.compile(r"^[+~]*(?:[\w.]+\.)?(?:layer|ffn)_pattern$")
_HYDRA_FUNCTION = re.compile(r"^(?:choice|shuffle|sort|range|interval|glob|tag|extend_list)\s*\(")


def quote_patterns(overrides: Iterable[str]) -> list[str]:
    """Return the overrides with each pattern in quotes; a comma still separates sweep values."""
    return [_quoted(override) for override in overrides]


def _quoted(override: str) -> str:
    key, equals, value = override.partition("=")
    if not (equals and value and _PATTERN_KEY.match(key)):
        return override
    if value[0] in "'\"[{$" or _HYDRA_FUNCTION.match(value):
        return override
    quoted = ",".join(f"'{one}'" for one in value.split(","))
    return f"{key}={quoted}"
