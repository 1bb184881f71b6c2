"""What the page's explorer knows: closed forms of models, devices, and how figures are defined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from hybridsim.cost.crossover import DEFINITIONS, SEARCHED_TOKENS
from hybridsim.cost.forms import model_forms
from hybridsim.cost.op import Deployment
from hybridsim.cost.trace import Forms
from hybridsim.dtypes import BYTES_PER_ELEMENT
from hybridsim.errors import SpecError
from hybridsim.hardware import Hardware, parse_hardware
from hybridsim.options import option_names, read_option
from hybridsim.report.html.letters import CHEAP, FULL, commonest, meanings
from hybridsim.spec.schema import ModelSpec

Record = dict[str, Any]

FIRST_DEVICE = "h200"
TINY = "_tiny"


def explorer_data(
    specs: Sequence[tuple[str, ModelSpec]], devices: Sequence[Hardware] = ()
) -> Record:
    """Return everything the explorer needs, as plain data.

    Args:
        specs: models with the titles that they are chosen by; the first is shown first.
        devices: those of the records; the shipped ones come after them.
    """
    forms, deployment = Forms(), Deployment()
    models = [
        {"key": title, "title": title, **_model(spec, forms, deployment)} for title, spec in specs
    ]
    known = {device.name: device for device in (*devices, *shipped_devices())}
    return {
        "nodes": forms.nodes,
        "models": models,
        "devices": {name: _device(device) for name, device in known.items()},
        "first_device": devices[0].name if devices else FIRST_DEVICE,
        "bytes_per_element": BYTES_PER_ELEMENT,
        "deployment": {
            "dtypes": {
                name: getattr(deployment.dtypes, name)
                for name in ("weights", "activations", "kv", "state")
            },
            "prefill_chunk_tokens": deployment.prefill_chunk_tokens,
            "memory_utilization": deployment.memory_utilization,
        },
        "definitions": DEFINITIONS,
        "searched_tokens": SEARCHED_TOKENS,
    }


def shipped_devices() -> list[Hardware]:
    """Return the devices of conf/hardware whose rates are in their files."""
    found = [read_option("hardware", name) for name in option_names("hardware")]
    return [parse_hardware(fields) for fields in found if fields.get("memory_bytes") is not None]


def _device(device: Hardware) -> Record:
    fields = asdict(device)
    kept = ("title", "peak_flops", "memory_bytes", "bandwidth_bytes_per_s", "num_devices")
    return {key: fields[key] for key in kept}


def _model(spec: ModelSpec, forms: Forms, deployment: Deployment) -> Record:
    cheap, full = _ladder_letters(spec)
    # A pattern with a cheap layer has the twin that the explorer compares with.
    wide = _with_a_cheap_layer(spec, cheap) if cheap is not None else spec
    letters = meanings(wide)
    if full is not None and full not in letters:
        twin = wide.all_full_twin()
        assert twin is not None
        letters = {**letters, full: {**meanings(twin)[full], "role": FULL}}
    return {
        "description": spec.description,
        "letters": letters,
        "full_letter": full,
        "cheap_letter": cheap,
        **model_forms(wide, forms, deployment),
        "layer_pattern": spec.layer_letters,
    }


def _ladder_letters(spec: ModelSpec) -> tuple[str | None, str | None]:
    """Return the commonest cheap letter, and the one of the twin's attention."""
    cheap = [letter for letter, meaning in meanings(spec).items() if meaning["role"] == CHEAP]
    chosen = commonest(spec.layer_letters, cheap)
    if chosen is None:
        return None, _only_full(spec)
    try:
        twin = _with_a_cheap_layer(spec, chosen).all_full_twin()
    except SpecError:  # several kinds of attention could be the twin's
        return chosen, None
    if twin is None:
        return chosen, None
    return chosen, twin.layer_letters[_first_mixing(spec)]


def _only_full(spec: ModelSpec) -> str | None:
    full = [letter for letter, meaning in meanings(spec).items() if meaning["role"] == FULL]
    return commonest(spec.layer_letters, full)


def _first_mixing(spec: ModelSpec) -> int:
    """Return the first layer that mixes tokens."""
    return next(i for i, letter in enumerate(spec.layer_letters) if letter not in spec.ffns)


def _with_a_cheap_layer(spec: ModelSpec, cheap: str) -> ModelSpec:
    at, letters = _first_mixing(spec), spec.layer_letters
    return replace(spec, layer_pattern=letters[:at] + cheap + letters[at + 1 :])
