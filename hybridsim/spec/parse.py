"""Plain mappings to ModelSpec and back, with one clear line for anything wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from hybridsim.errors import SpecError, near_miss
from hybridsim.ffn import FFNS, ffn_settings_class
from hybridsim.mixers import MIXERS, settings_class
from hybridsim.spec.schema import ModelSpec

_TYPE_NAMES = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}


def parse_spec(mapping: Mapping[str, Any], key: str = "spec") -> ModelSpec:
    """Return the checked spec that a mapping describes.

    Args:
        mapping: the fields of ModelSpec; mixers and feed-forwards are mappings with a `kind`.
        key: what messages call the mapping.

    Raises:
        SpecError: a field is missing, unknown, of the wrong type or out of range.
    """
    given = dict(_mapping(mapping, key))
    for group, table, cls in (
        ("mixers", MIXERS, settings_class),
        ("ffns", FFNS, ffn_settings_class),
    ):
        if given.get(group) is None:
            given.pop(group, None)
            continue
        parts = _mapping(given[group], f"{key}.{group}")
        given[group] = {
            letter: _parse_part(part, f"{key}.{group}.{letter}", table, cls)
            for letter, part in parts.items()
        }
    spec: ModelSpec = parse_dataclass(ModelSpec, given, key)
    return spec


def _parse_part(value: Any, key: str, table: Mapping[str, Any], cls: Any) -> Any:
    part = dict(_mapping(value, key))
    kind = part.pop("kind", None)
    if kind is None:
        raise SpecError(f"{key}.kind: missing (known: {', '.join(sorted(table))})")
    if kind not in table:
        raise SpecError(
            f"{key}.kind={kind}: no such kind{near_miss(str(kind), table)}"
            f" (known: {', '.join(sorted(table))})"
        )
    return parse_dataclass(cls(kind), part, key)


def parse_dataclass(cls: type[Any], mapping: Any, key: str) -> Any:
    """Return an instance of the settings class `cls` from a mapping of its fields."""
    given = _mapping(mapping, key)
    names = {f.name for f in fields(cls)}
    for name in given:
        if name not in names:
            raise SpecError(
                f"{key}.{name}: no such field{near_miss(str(name), names)}"
                f" (known: {', '.join(sorted(names))})"
            )
    hints = _hints(cls)
    values = {}
    for f in fields(cls):
        if f.name in given:
            values[f.name] = _convert(given[f.name], hints[f.name], f"{key}.{f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise SpecError(f"{key}.{f.name}: missing; give {_expected(hints[f.name])}")
    try:
        return cls(**values)
    except SpecError as error:
        raise SpecError(f"{key}.{error}") from None


@lru_cache(maxsize=None)
def _hints(cls: type[Any]) -> dict[str, Any]:
    return get_type_hints(cls)


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{key}={value}: expected a mapping of fields")
    return value


def _expected(hint: Any) -> str:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    names = [_TYPE_NAMES.get(o, "a mapping of fields") for o in options if o is not NoneType]
    return " or ".join([*names, "null"] if NoneType in options else names)


def _convert(value: Any, hint: Any, key: str) -> Any:
    """Return `value` as the type `hint`; numbers are not read from texts, nor truth from numbers."""
    if get_origin(hint) in (Union, UnionType):
        if value is None and NoneType in get_args(hint):
            return None
        (hint,) = (option for option in get_args(hint) if option is not NoneType)
    if get_origin(hint) is dict:
        return dict(_mapping({} if value is None else value, key))
    if is_dataclass(hint):
        if isinstance(value, hint):
            return value
        return parse_dataclass(hint, value, key)  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is str and isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    if type(value) is not hint:
        raise SpecError(f"{key}={value}: expected {_expected(hint)}")
    return value


def settings_dict(settings: Any) -> dict[str, Any]:
    """Return the mapping that parses back to a settings dataclass, its `kind` first."""
    mapping: dict[str, Any] = {"kind": settings.kind} if hasattr(settings, "kind") else {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        mapping[f.name] = settings_dict(value) if is_dataclass(value) else value
    return mapping


def spec_dict(spec: ModelSpec) -> dict[str, Any]:
    """Return the mapping that parses back to the spec; plain types only."""
    mapping = {f.name: getattr(spec, f.name) for f in fields(spec)}
    mapping["mixers"] = {letter: settings_dict(s) for letter, s in spec.mixers.items()}
    mapping["ffns"] = {letter: settings_dict(s) for letter, s in spec.ffns.items()}
    mapping["norm"] = settings_dict(spec.norm)
    mapping["residual"] = settings_dict(spec.residual)
    return mapping


def with_defaults(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec mapping with every optional field written out, so that all can be overridden.

    What is wrong in the mapping is left as it is, for `parse_spec` to report.
    """
    full = _fill(ModelSpec, dict(mapping))
    for group, table, cls in (
        ("mixers", MIXERS, settings_class),
        ("ffns", FFNS, ffn_settings_class),
    ):
        parts = full.get(group)
        if isinstance(parts, Mapping):
            full[group] = {
                letter: _fill(cls(part["kind"]), dict(part))
                if isinstance(part, Mapping) and part.get("kind") in table
                else part
                for letter, part in parts.items()
            }
    return full


def _fill(cls: type[Any], given: dict[str, Any]) -> dict[str, Any]:
    hints = _hints(cls)
    for f in fields(cls):
        options = get_args(hints[f.name]) or (hints[f.name],)
        nested = next((option for option in options if is_dataclass(option)), None)
        value = given.get(f.name)
        if nested is not None and (isinstance(value, Mapping) or f.default_factory is not MISSING):
            given[f.name] = _fill(nested, dict(value or {}))  # type: ignore[arg-type]
        elif f.name not in given and f.default is not MISSING:
            given[f.name] = f.default
        elif f.name not in given and f.default_factory is not MISSING:
            given[f.name] = f.default_factory()
    return given
