"""The models that a validation compares: one model of every mixer, and patterns of them. No torch.

All mixers have heads of the same sizes, so that their recurrent states are equally large: H K V
numbers a layer. Mamba-2 has the model's width inside (not twice it), and the window keeps keys and
values of V / 2 tokens, as many numbers as a state. (At a proxy's sizes heads may take less than the
width: then those two keep more.) `state_models` are equally large as trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

from hybridsim.components import RopeSettings
from hybridsim.mixers import MixerSettings
from hybridsim.mixers.attention.settings import AttentionSettings
from hybridsim.mixers.deltanet.settings import DeltaNetSettings
from hybridsim.mixers.gated_deltanet.settings import GatedDeltaNetSettings
from hybridsim.mixers.gla.settings import GatedLinearAttentionSettings
from hybridsim.mixers.kda.settings import KimiDeltaAttentionSettings
from hybridsim.mixers.lightning.settings import LightningAttentionSettings
from hybridsim.mixers.mamba2.settings import Mamba2Settings
from hybridsim.spec.schema import ModelSpec
from hybridsim.train.proxy import ModelSize, ProxySettings

HEADS, CHANNELS = 16, 128

MIXERS: dict[str, MixerSettings] = {
    "F": AttentionSettings(HEADS, HEADS, CHANNELS, rope=RopeSettings()),
    "W": AttentionSettings(HEADS, HEADS, CHANNELS, window=128, rope=RopeSettings()),
    "K": KimiDeltaAttentionSettings(HEADS, CHANNELS, gate_rank=CHANNELS),
    "G": GatedDeltaNetSettings(HEADS, HEADS, CHANNELS, CHANNELS),
    "D": DeltaNetSettings(HEADS, CHANNELS, CHANNELS),
    "A": GatedLinearAttentionSettings(HEADS, CHANNELS, CHANNELS),
    "M": Mamba2Settings(2 * HEADS, CHANNELS // 2, CHANNELS),
    "N": LightningAttentionSettings(HEADS, CHANNELS),
}
KINDS = {
    "F": "full attention", "W": "window", "K": "KDA", "G": "gated delta rule", "D": "delta rule",
    "A": "GLA", "M": "Mamba-2", "N": "lightning",
}  # fmt: skip
# At four layers: what is ranked. The first are those that the checks of published results read.
PATTERNS = (
    "FFFF", "GGGG", "DDDD", "AAAA", "MMMM", "WWWW", "NNNN", "KKKK",
    "KKKF", "FKKK", "KFKF", "WWWF", "NNNF", "GGGF", "KFKK", "WFWW", "MMMF", "DDDF", "FMMM", "GGFG",
)  # fmt: skip


def arena_spec(letters: str, **others: MixerSettings) -> ModelSpec:
    """Return a model of full size with a pattern of the arena's mixers, one letter a layer.

    Args:
        letters: the pattern.
        others: mixers in place of the arena's, by letter.
    """
    mixers = {**MIXERS, **others}
    return ModelSpec(
        name=letters,
        hidden_size=HEADS * CHANNELS,
        num_layers=len(letters),
        vocab_size=32000,
        native_context=131072,
        layer_pattern=letters,
        ffn_pattern=".*",
        mixers={letter: mixers[letter] for letter in sorted(set(letters))},
    )


# Zoology's published models, of two layers: width 64 and one head of attention, on its own tasks;
# and, for recall against state, mixers that keep 512 numbers a layer: two heads of 16 x 16, or keys
# and values of 8 tokens of width 32, or, as published, Mamba-2 with twice the width inside and few
# key channels, 8, which all its heads share.
ATTENTION_SIZE = ModelSize(hidden_size=64, num_layers=2, num_heads=1, head_dim=64, ffn_ratio=0)
STATE_SIZE = ModelSize(
    hidden_size=32, num_layers=2, num_heads=2, head_dim=16, ffn_ratio=0, chunk_size=64, min_window=8
)
WIDE_MAMBA2 = Mamba2Settings(HEADS // 2, 4 * CHANNELS, CHANNELS)


@final
@dataclass(frozen=True)
class SizedModels:
    """Models that are trained at one size.

    Attributes:
        size: of the twins.
        specs: by letter of the mixer in every layer.
    """

    size: ModelSize
    specs: dict[str, ModelSpec]


def attention_models() -> SizedModels:
    """Return Zoology's attention."""
    return SizedModels(ATTENTION_SIZE, {"F": arena_spec("FF")})


def state_models(letters: Sequence[str]) -> list[SizedModels]:
    """Return models of equally large recurrent states, or windows."""
    alike = {letter: arena_spec(2 * letter) for letter in letters if letter != "M"}
    mamba2 = SizedModels(replace(STATE_SIZE, head_dim=8), {"M": arena_spec("MM", M=WIDE_MAMBA2)})
    return [SizedModels(STATE_SIZE, alike), *([mamba2] if "M" in letters else [])]


def with_steps(proxy: ProxySettings, factor: float) -> ProxySettings:
    """Return the proxy with a budget of `factor` times its steps, its curriculum as it was.

    Looks at the validation sequences are as many as before.
    """
    tasks = {}
    for name in proxy.tasks:
        own = proxy.task_training(name)
        fields = proxy.tasks[name].get("training") or {}
        longer = {
            "steps": round(own.steps * factor),
            "evaluate_every": max(1, round(own.evaluate_every * factor)),
        }
        tasks[name] = {**proxy.tasks[name], "training": {**fields, **longer}}
    return replace(proxy, tasks=tasks)
