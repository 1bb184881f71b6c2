"""A search space as data (conf/space): what may vary, and what every candidate must keep to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridsim.components import require_choice
from hybridsim.errors import SpecError, bad_value
from hybridsim.fields import parse_dataclass

FREE, PERIODIC, FIXED = PLACEMENTS = ("free", "periodic", "fixed")


@dataclass(frozen=True)
class Constraints:
    """Limits that are part of the space: no candidate outside them is ever proposed.

    Attributes:
        fits: the device's usable memory holds the workload's sequences at its context target.
        parameters_within: largest relative difference of the parameters from the base's.
        active_parameters_within: the same for those a token meets.
        cache_bytes_max: of one sequence at the context target.
        cache_share_max: of that cache in the all-full twin's, 0 to 1.
        ttft_s_max: time to the first token, one prompt by itself.
        tpot_s_max: mean time of a decode step of all the workload's sequences.
    """

    fits: bool = True
    parameters_within: float | None = None
    active_parameters_within: float | None = None
    cache_bytes_max: float | None = None
    cache_share_max: float | None = None
    ttft_s_max: float | None = None
    tpot_s_max: float | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name != "fits" and value is not None and value < 0:
                raise bad_value(name, value, "must be at least 0")


@dataclass(frozen=True)
class SpaceSettings:
    """A space as data.

    Attributes:
        name: how commands call it.
        title: how tables call it.
        placement: "free" (any letter anywhere), "periodic" (a unit repeated to the end) or "fixed"
            (the base's pattern: only choices vary).
        letters: of the layers that vary; null: those of the base's mixing layers and its full
            attention.
        mixers: further mixers by letter, as in a spec.
        first: letters that the first layers must have.
        last: letters that the last layers must have.
        full_layers_min, full_layers_max: how many layers of full attention there may be.
        max_period: longest unit of a periodic placement, in layers.
        choices: fields of the spec and the values they may take (`mixers.F.kv_lora_rank: [256,
            512]`), or a name and mappings of fields that change together.
        constraints: see Constraints.
    """

    name: str
    title: str = ""
    placement: str = FREE
    letters: str | None = None
    mixers: dict[str, Any] = field(default_factory=dict)
    first: str = ""
    last: str = ""
    full_layers_min: int = 0
    full_layers_max: int | None = None
    max_period: int = 8
    choices: dict[str, Any] = field(default_factory=dict)
    constraints: Constraints = field(default_factory=Constraints)

    def __post_init__(self) -> None:
        require_choice("placement", self.placement, PLACEMENTS)
        if self.full_layers_min < 0:
            raise bad_value("full_layers_min", self.full_layers_min, "must be at least 0")
        if self.full_layers_max is not None and self.full_layers_max < self.full_layers_min:
            raise bad_value(
                "full_layers_max",
                self.full_layers_max,
                f"must be at least full_layers_min = {self.full_layers_min}",
            )
        if self.max_period < 1:
            raise bad_value("max_period", self.max_period, "must be at least 1")
        for name, options in self.choices.items():
            _check_options(name, options)


def _check_options(name: str, options: Any) -> None:
    key = f"choices.{name}"
    if not isinstance(options, list | tuple) or not options:
        raise bad_value(key, options, "must be a list of values, or of mappings of fields")
    joint = [isinstance(option, Mapping) for option in options]
    if any(joint) and not all(joint):
        raise bad_value(key, options, "mixes values with mappings of fields")
    if not any(joint) and "." not in name and not name.islower():
        raise SpecError(f"{key}: must be a field of a spec, such as mixers.F.kv_lora_rank")


def parse_space(mapping: Mapping[str, Any]) -> SpaceSettings:
    """Return the settings that a mapping describes; SpecError for anything wrong."""
    settings: SpaceSettings = parse_dataclass(SpaceSettings, mapping, "space")
    return settings
