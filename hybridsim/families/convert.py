"""A published config.json to a spec, and a spec to a config.json. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hybridsim.errors import SpecError
from hybridsim.families import FAMILIES, family
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader, value_of
from hybridsim.spec.parse import parse_spec
from hybridsim.spec.schema import ModelSpec

CONFIG = "config.json"
# What decides how a layer is computed or stored, not what it computes; no config.json says it.
EXECUTION = ("chunk_size", "index_key_dtype")
_UNSOURCED = ("kind", "name")
SHOWN = 5  # differences listed in a message before it is cut


@dataclass(frozen=True)
class Imported:
    """A spec that was read from a config.json.

    Attributes:
        spec: the checked spec.
        fields: its fields as read, each a plain value or a Figure that says where it is from.
        family: the family that read it.
        notes: what was left out on purpose.
    """

    spec: ModelSpec
    fields: dict[str, Any]
    family: Family
    notes: list[str]


def read_config_file(path: str | Path) -> dict[str, Any]:
    """Return the fields of a config.json, given itself or the folder it lies in.

    Raises:
        SpecError: there is no such file, or it is not a JSON mapping.
    """
    file = Path(path) / CONFIG if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise SpecError(f"config={path}: no such file, nor a folder with a {CONFIG}")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SpecError(f"config={file}: is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise SpecError(f"config={file}: must hold a JSON mapping")
    return content


def import_config(config: str | Path | Mapping[str, Any], name: str = "") -> Imported:
    """Return the spec that a published config.json means.

    Args:
        config: a config.json, a folder with one, or its fields.
        name: the spec's name; by default that of the folder, or the model type.

    Raises:
        SpecError: the family is not known, or a field that might change the computation is not.
    """
    given = config if isinstance(config, Mapping) else read_config_file(config)
    text, notes = _text_part(given)
    if "model_type" not in text:
        raise SpecError(f"config.model_type: missing (known: {', '.join(sorted(FAMILIES))})")
    found = family(str(text["model_type"]))
    reader = ConfigReader(text)
    spec_fields = {"name": name or _default_name(config, found), **found.read(reader)}
    # How weights are stored; what they compute is the architecture's.
    reader.ignore("quantization_config", note="the checkpoint's weights are stored quantized")
    reader.finish()
    spec = parse_spec(value_of(spec_fields))
    return Imported(spec, spec_fields, found, [*notes, *reader.all_notes()])


def import_fields(config: str | Path) -> dict[str, Any]:
    """Return the fields of the spec that a config.json means, as plain values."""
    fields_read: dict[str, Any] = value_of(import_config(config).fields)
    return {**fields_read, "sources": {"config": str(config)}}


def _text_part(given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of the language model, and what was left out."""
    nested = given.get("text_config")
    if not isinstance(nested, Mapping):
        return dict(given), []
    # Tying stands beside the text part in some configs and inside it in others.
    tied = {
        key: given[key] for key in ("tie_word_embeddings",) if key in given and key not in nested
    }
    return {**nested, **tied}, ["the text part; everything beside text_config is left out"]


def _default_name(config: Any, found: Family) -> str:
    if isinstance(config, str | Path):
        path = Path(config).resolve()
        folder = path if path.is_dir() else path.parent
        stem = folder.name if path.name in (folder.name, CONFIG) else path.stem
        if stem not in ("config", ""):
            return "".join(char if char.isalnum() else "_" for char in stem).strip("_").lower()
    return found.model_type


@dataclass(frozen=True)
class Exported:
    """A config.json that means a spec.

    Attributes:
        config: its fields.
        family: the family that wrote it.
        notes: settings that no config.json carries.
    """

    config: dict[str, Any]
    family: Family
    notes: list[str]


def export_config(spec: ModelSpec, model_type: str = "") -> Exported:
    """Return a config.json that the reference implementation loads as the spec's model.

    What is written is read again, so that nothing is lost quietly.

    Args:
        spec: the spec.
        model_type: the family to write; by default the first that can express the spec.

    Raises:
        SpecError: no family, or not that one, can express the spec; the message says why.
    """
    if model_type:
        return _written(spec, family(model_type))
    reasons = []
    for found in _candidates(spec):
        try:
            return _written(spec, found)
        except SpecError as error:
            reasons.append(f"{found.model_type}: {error}")
    if not reasons:
        kinds = ", ".join(sorted(_kinds(spec)))
        raise SpecError(f"spec={spec.name}: no family of the reference has all of {kinds}")
    raise SpecError(f"spec={spec.name}: no family can express it; " + "; ".join(reasons))


def _kinds(spec: ModelSpec) -> set[str]:
    mixers = {spec.mixers[m].kind for x in spec.layer_letters for m in spec.layer_mixers(x)}
    letters = set(spec.layer_letters + spec.ffn_letters)
    return mixers | {s.kind for letter, s in spec.ffns.items() if letter in letters}


def _candidates(spec: ModelSpec) -> list[Family]:
    """Return the families that have every kind of mixer and feed-forward the spec uses.

    One that the spec is named after comes first, then those with the fewest other kinds: some
    families can say the same (Qwen3-Next and Qwen3.5 with experts).
    """
    kinds = _kinds(spec)
    known = {name: family(name) for name in dict.fromkeys(FAMILIES)}
    distinct = {found.model_type: found for found in known.values()}
    able = [f for f in distinct.values() if kinds <= {*f.mixers, *f.ffns}]
    return sorted(
        able,
        key=lambda f: (
            not spec.name.startswith(f.model_type),
            len({*f.mixers, *f.ffns} - kinds),
        ),
    )


def _written(spec: ModelSpec, found: Family) -> Exported:
    config = {
        "architectures": [found.architecture],
        "model_type": found.model_type,
        **found.write(spec),
    }
    back = import_config(json.loads(json.dumps(config)), spec.name).spec
    differences, notes = [], []
    for key, (ours, theirs) in model_differences(spec, back).items():
        if key.rpartition(".")[2] in EXECUTION:
            notes.append(f"{key}={ours}: not a field of config.json, reads as {theirs}")
        else:
            differences.append(f"{key}={ours} would read as {theirs}")
    if differences:
        more = f" and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
        raise SpecError(f"cannot express {'; '.join(differences[:SHOWN])}{more}")
    return Exported(config, found, notes)


def model_differences(left: ModelSpec, right: ModelSpec) -> dict[str, tuple[Any, Any]]:
    """Return where two specs describe different models, whatever their letters: key -> both values.

    A difference between two layers is named after the first layer that shows it.
    """
    different: dict[str, tuple[Any, Any]] = {}
    for name in (
        "hidden_size",
        "num_layers",
        "vocab_size",
        "native_context",
        "norm",
        "residual",
        "embedding_scale",
        "round_embedding_scale",
        "logit_scale",
        "tie_word_embeddings",
    ):
        _compare(f"spec.{name}", getattr(left, name), getattr(right, name), different)
    if left.num_layers == right.num_layers:
        for layer in range(left.num_layers):
            _compare_layer(layer, left, right, different)
    return different


def _compare_layer(
    layer: int, left: ModelSpec, right: ModelSpec, different: dict[str, tuple[Any, Any]]
) -> None:
    letter = left.layer_letters[layer]
    parts = [_layer_parts(spec, layer) for spec in (left, right)]
    for (ours, part), (_, other) in zip(*parts, strict=False):
        _compare(f"spec.{ours}", part, other, different)
    if len(parts[0]) != len(parts[1]):
        names = tuple([name for name, _ in side] for side in parts)
        different.setdefault(f"spec.layer_pattern.{letter}", (names[0], names[1]))


def _layer_parts(spec: ModelSpec, layer: int) -> list[tuple[str, Any]]:
    """Return names and settings of what a layer is made of, in order."""
    letter, ffn = spec.layer_letters[layer], spec.ffn_letters[layer]
    parts: list[tuple[str, Any]] = [
        (f"mixers.{m}", spec.mixers[m].canonical()) for m in spec.layer_mixers(letter)
    ]
    parts += [(f"ffns.{f}", spec.ffns[f].canonical()) for f in (letter, ffn) if f in spec.ffns]
    return [*parts, (f"norm_placement.{letter}", spec.layer_norms(letter))]


def _compare(key: str, ours: Any, theirs: Any, different: dict[str, tuple[Any, Any]]) -> None:
    if ours == theirs:
        return
    if type(ours) is not type(theirs) or not hasattr(ours, "__dataclass_fields__"):
        shown = [getattr(value, "kind", value) for value in (ours, theirs)]
        different.setdefault(key, (shown[0], shown[1]))
        return
    for field in fields(ours):
        mine, other = getattr(ours, field.name), getattr(theirs, field.name)
        _compare(f"{key}.{field.name}", mine, other, different)


def spec_text(imported: Imported, source: str) -> str:
    """Return a spec file whose comments say which key of config.json each value is read from."""
    lines = [
        f"# Read from {source}, {imported.family.architecture}.",
        "# Behind a value stands the key of config.json it was read from, or `the architecture`",
        "# where each model of the family has it.",
        *(f"# Left out: {note}." for note in imported.notes),
        *_yaml_lines(imported.fields, 0),
        "sources:",
        f"  config: {json.dumps(source)}",
    ]
    return "\n".join(lines) + "\n"


def _yaml_lines(fields_read: Mapping[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in fields_read.items():
        head = f"{'  ' * depth}{key}:"
        if isinstance(value, Mapping):
            lines += [head, *_yaml_lines(value, depth + 1)] if value else [f"{head} {{}}"]
        else:
            # JSON's scalars and lists are YAML's.
            text = f"{head} {json.dumps(value_of(value))}"
            source = getattr(value, "source", "" if key in _UNSOURCED else "the architecture")
            lines.append(f"{text:<40s}  # {source}" if source else text)
    return lines
