"""Plain mappings to settings dataclasses and back, with one clear line for anything wrong."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hybridsim.errors import SpecError, near_miss

_TYPE_NAMES = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


def parse_dataclass(cls: type[Any], mapping: Any, key: str) -> Any:
    """Return an instance of the settings class `cls` from a mapping of its fields.

    Args:
        cls: a dataclass that checks itself.
        mapping: its fields; nested dataclasses are mappings.
        key: what messages call the mapping, "" for the top.

    Raises:
        SpecError: a field is missing, unknown, of the wrong type or out of range.
    """
    given = require_mapping(mapping, key)
    names = {f.name for f in fields(cls)}
    for name in given:
        if name not in names:
            raise SpecError(
                f"{joined(key, name)}: no such field{near_miss(str(name), names)}"
                f" (known: {', '.join(sorted(names))})"
            )
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]
    values = {}
    for f in fields(cls):
        if f.name in given:
            values[f.name] = _convert(given[f.name], hints[f.name], joined(key, f.name))
        elif f.default is MISSING and f.default_factory is MISSING:
            raise SpecError(f"{joined(key, f.name)}: missing; give {_expected(hints[f.name])}")
    try:
        return cls(**values)
    except SpecError as error:
        raise SpecError(joined(key, str(error))) from None


def joined(key: str, name: object) -> str:
    """Return the dotted name of a field."""
    return f"{key}.{name}" if key else str(name)


def require_mapping(value: Any, key: str) -> Mapping[str, Any]:
    """Return `value` if it is a mapping; raise SpecError otherwise."""
    if not isinstance(value, Mapping):
        raise SpecError(f"{key}={value}: expected a mapping of fields")
    return value


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls)


def _expected(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return f"a list, each {_expected(get_args(hint)[0])}"
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    names = [_TYPE_NAMES.get(o, "a mapping of fields") for o in options if o is not NoneType]
    return " or ".join([*names, "null"] if NoneType in options else names)


def _convert(value: Any, hint: Any, key: str) -> Any:
    """Return `value` as the type `hint`; no number is read from text, nor truth from a number."""
    if get_origin(hint) in (Union, UnionType):
        if value is None and NoneType in get_args(hint):
            return None
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    if hint is Any:
        return value
    if get_origin(hint) is dict:
        given = require_mapping({} if value is None else value, key)
        return {k: _convert(v, get_args(hint)[1], joined(key, k)) for k, v in given.items()}
    if get_origin(hint) is tuple:
        return _convert_list(value, hint, key)
    if is_dataclass(hint):
        return value if isinstance(value, hint) else parse_dataclass(hint, value, key)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(value, key)
    if hint is str and isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    if type(value) is not hint:
        raise SpecError(f"{key}={value}: expected {_expected(hint)}")
    return value


def _finite(value: int | float, key: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpecError(f"{key}={value}: must be a finite number")
    return number


def _convert_list(value: Any, hint: Any, key: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise SpecError(f"{key}={value}: expected {_expected(hint)}")
    return tuple(_convert(one, get_args(hint)[0], f"{key}[{i}]") for i, one in enumerate(value))


def settings_dict(settings: Any) -> dict[str, Any]:
    """Return the mapping that parses back to a settings dataclass, its `kind` first."""
    mapping: dict[str, Any] = {"kind": settings.kind} if hasattr(settings, "kind") else {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        mapping[f.name] = settings_dict(value) if is_dataclass(value) else value
    return mapping


def filled(cls: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the mapping of a settings class with every optional field written out."""
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type]
    for f in fields(cls):
        options = get_args(hints[f.name]) or (hints[f.name],)
        nested = next((option for option in options if is_dataclass(option)), None)
        value = given.get(f.name)
        if value is None and f.default_factory is not MISSING and nested is not None:
            value = {}
        if nested is not None and isinstance(value, Mapping):
            given[f.name] = filled(nested, dict(value))  # type: ignore[arg-type]
        elif f.name not in given and f.default is not MISSING:
            given[f.name] = f.default
        elif f.name not in given and f.default_factory is not MISSING:
            given[f.name] = f.default_factory()
    return given


def digest(document: Any, digits: int = 16) -> str:
    """Return a short name for what plain data says: the start of its JSON's SHA-256."""
    text = json.dumps(document, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
