"""The contract of a family: how its config.json reads, how its tensors are named. No torch.

Names are a mapping from a parameter of ours, below its module (a kind of mixer or feed-forward, or
the layer), to tensors of the checkpoint, below the layer:

    "a.weight"            that tensor
    "a.weight + b.weight" both, one after the other along the first axis
    "{expert}"            one tensor for each routed expert, stacked
    "a.weight | b.weight" the first of several names that is there: writers differ
    Arranged(...)         tensors whose numbers stand in another order there

Stacked experts are [E, outputs, inputs] there and [E, inputs, outputs] here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridsim.families.config import ConfigReader
from hybridsim.spec.schema import ModelSpec


@dataclass(frozen=True)
class Arranged:
    """Tensors that need more than concatenation.

    Attributes:
        source: their names, as above.
        arrange: from the tensor found (concatenated, stacked) and the settings of the mixer or
            feed-forward, the parameter of ours; experts are not transposed for it.
    """

    source: str
    arrange: Callable[[Any, Any], Any]


Names = Mapping[str, "str | Arranged"]

MODEL: Names = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
LAYER: Names = {
    "mixer_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}


@dataclass(frozen=True)
class Family:
    """One family of published models.

    Attributes:
        model_type: what its config.json calls it.
        architecture: the reference implementation's class.
        read: from the fields of a config.json, the fields of a spec, each a plain value or a
            Figure. Raises SpecError for what it cannot express.
        write: from a spec, the fields of a config.json that mean it; what they cannot express is
            found by reading them again.
        mixers: kind of mixer -> names of its tensors.
        ffns: kind of feed-forward -> names of its tensors.
        other_types: further values of model_type that mean the same.
        model: names outside the layers.
        layer: names of a layer's norms.
        layers: what stands before a layer's number.
        derived: ends of names of tensors that hold no weights: the model computes them.
        left_out: beginnings of names of tensors that are no part of the model: vision towers,
            multi-token prediction.
        aliases: parts of names that some writers use, with the published ones.
    """

    model_type: str
    architecture: str
    read: Callable[[ConfigReader], dict[str, Any]]
    write: Callable[[ModelSpec], dict[str, Any]]
    mixers: Mapping[str, Names]
    ffns: Mapping[str, Names]
    other_types: tuple[str, ...] = ()
    model: Names = field(default_factory=lambda: MODEL)
    layer: Names = field(default_factory=lambda: LAYER)
    layers: str = "model.layers."
    derived: tuple[str, ...] = ("rotary_emb.inv_freq",)
    left_out: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)

    def published_name(self, name: str) -> str:
        """Return the published name of a tensor of a checkpoint."""
        for alias, published in self.aliases.items():
            name = name.replace(alias, published)
        return name


def same(prefix: str, *names: str) -> dict[str, str]:
    """Return names that are ours with a prefix."""
    return {name: f"{prefix}.{name}" for name in names}
