"""Plain mappings to ModelSpec and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from hybridsim.errors import SpecError, near_miss
from hybridsim.ffn import FFNS, ffn_settings_class
from hybridsim.fields import filled, parse_dataclass, require_mapping, settings_dict
from hybridsim.mixers import MIXERS, settings_class
from hybridsim.spec.schema import ModelSpec

# field of a spec -> (table of kinds, settings class of a kind)
_GROUPS: dict[str, tuple[Mapping[str, Any], Any]] = {
    "mixers": (MIXERS, settings_class),
    "ffns": (FFNS, ffn_settings_class),
}


def parse_spec(mapping: Mapping[str, Any], key: str = "spec") -> ModelSpec:
    """Return the checked spec that a mapping describes.

    Args:
        mapping: the fields of ModelSpec; mixers and feed-forwards are mappings with a `kind`.
        key: what messages call the mapping.

    Raises:
        SpecError: a field is missing, unknown, of the wrong type or out of range.
    """
    given = dict(require_mapping(mapping, key))
    for group, (table, cls) in _GROUPS.items():
        found = given.get(group)
        parts = require_mapping({} if found is None else found, f"{key}.{group}")
        given[group] = {
            letter: _parse_part(part, f"{key}.{group}.{letter}", table, cls)
            for letter, part in parts.items()
        }
    spec: ModelSpec = parse_dataclass(ModelSpec, given, key)
    return spec


def _parse_part(value: Any, key: str, table: Mapping[str, Any], cls: Any) -> Any:
    part = dict(require_mapping(value, key))
    kind = part.pop("kind", None)
    known = ", ".join(sorted(table))
    if kind is None:
        raise SpecError(f"{key}.kind: missing (known: {known})")
    if not _is_kind(kind, table):
        raise SpecError(
            f"{key}.kind={kind}: no such kind{near_miss(str(kind), table)} (known: {known})"
        )
    return parse_dataclass(cls(kind), part, key)


def _is_kind(value: Any, table: Mapping[str, Any]) -> bool:
    return isinstance(value, str) and value in table


def spec_dict(spec: ModelSpec) -> dict[str, Any]:
    """Return the mapping that parses back to the spec; plain types only."""
    mapping = {f.name: getattr(spec, f.name) for f in fields(spec)}
    for group in _GROUPS:
        mapping[group] = {letter: settings_dict(s) for letter, s in mapping[group].items()}
    mapping["norm"] = settings_dict(spec.norm)
    mapping["residual"] = settings_dict(spec.residual)
    return mapping


def with_defaults(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec mapping with every optional field written out, so that all can be overridden.

    What is wrong in the mapping is left as it is, for `parse_spec` to report.
    """
    full = filled(ModelSpec, dict(mapping))
    for group, (table, cls) in _GROUPS.items():
        parts = full.get(group)
        if isinstance(parts, Mapping):
            full[group] = {
                letter: filled(cls(part["kind"]), dict(part))
                if isinstance(part, Mapping) and _is_kind(part.get("kind"), table)
                else part
                for letter, part in parts.items()
            }
    return full
