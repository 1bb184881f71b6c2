"""The models that a validation compares: one model of every mixer, and patterns of them. No torch.

All mixers have heads of the same sizes, so that their twins' recurrent states are equally large:
H K V numbers a layer. Mamba-2 has the model's width inside (not twice it), and the window keeps
keys and values of V / 2 tokens, as many numbers as a state.
"""

from __future__ import annotations

from dataclasses import replace

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
from hybridsim.train.proxy import ProxySettings

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


def arena_spec(letters: str) -> ModelSpec:
    """Return a model of full size with a pattern of the arena's mixers, one letter a layer."""
    return ModelSpec(
        name=letters,
        hidden_size=HEADS * CHANNELS,
        num_layers=len(letters),
        vocab_size=32000,
        native_context=131072,
        layer_pattern=letters,
        ffn_pattern=".*",
        mixers={letter: MIXERS[letter] for letter in sorted(set(letters))},
    )


def with_steps(proxy: ProxySettings, factor: float, **training: float) -> ProxySettings:
    """Return the proxy with a budget of `factor` times its steps, its curriculum as it was.

    Looks at the validation sequences are as many as before.
    """
    tasks = {}
    for name in proxy.tasks:
        own = proxy.task_training(name)
        fields = {**(proxy.tasks[name].get("training") or {}), **training}
        longer = {
            "steps": round(own.steps * factor),
            "evaluate_every": max(1, round(own.evaluate_every * factor)),
        }
        tasks[name] = {**proxy.tasks[name], "training": {**fields, **longer}}
    return replace(proxy, tasks=tasks)
