"""The one table of token mixers: kind -> folder. Adding a mixer is one folder and one row.

Settings and costs import no torch; `mixer_class` imports a mixer's module when a model is built.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING

from hybridsim.mixers.base import CacheShape, MixerCost, MixerSettings

if TYPE_CHECKING:
    from hybridsim.nn.mixer import SequenceMixer

__all__ = [
    "MIXERS",
    "CacheShape",
    "MixerCost",
    "MixerSettings",
    "mixer_class",
    "mixer_cost",
    "settings_class",
]


@dataclass(frozen=True)
class MixerEntry:
    """One row of the table.

    Attributes:
        folder: the package of the mixer, with `settings`, `cost`, `ops` and `module` inside.
        prefix: how its classes begin: PREFIXSettings, PREFIXCost and the module PREFIX.
        title: what tables and diagrams call it.
        source: where it is defined.
    """

    folder: str
    prefix: str
    title: str
    source: str


MIXERS: dict[str, MixerEntry] = {
    "attention": MixerEntry(
        "hybridsim.mixers.attention",
        "Attention",
        "softmax attention (MHA, GQA, windowed)",
        "arXiv 1706.03762, 2305.13245",
    ),
    "mla": MixerEntry(
        "hybridsim.mixers.mla",
        "MultiHeadLatentAttention",
        "multi-head latent attention",
        "arXiv 2405.04434, section 2.1",
    ),
    "sparse_mla": MixerEntry(
        "hybridsim.mixers.sparse_mla",
        "SparseLatentAttention",
        "DeepSeek sparse attention over MLA",
        "DeepSeek-V3.2-Exp report",
    ),
    "block_sparse": MixerEntry(
        "hybridsim.mixers.block_sparse",
        "BlockSparseAttention",
        "block-sparse GQA",
        "arXiv 2606.13392",
    ),
    "linear_attention": MixerEntry(
        "hybridsim.mixers.linear_attention",
        "LinearAttention",
        "linear attention",
        "arXiv 2006.16236, 2009.14794",
    ),
    "gla": MixerEntry(
        "hybridsim.mixers.gla",
        "GatedLinearAttention",
        "gated linear attention",
        "arXiv 2312.06635",
    ),
    "deltanet": MixerEntry("hybridsim.mixers.deltanet", "DeltaNet", "DeltaNet", "arXiv 2406.06484"),
    "gated_deltanet": MixerEntry(
        "hybridsim.mixers.gated_deltanet", "GatedDeltaNet", "Gated DeltaNet", "arXiv 2412.06464"
    ),
    "kda": MixerEntry(
        "hybridsim.mixers.kda", "KimiDeltaAttention", "Kimi Delta Attention", "arXiv 2510.26692"
    ),
    "lightning": MixerEntry(
        "hybridsim.mixers.lightning",
        "LightningAttention",
        "lightning attention",
        "arXiv 2405.17381, 2501.08313",
    ),
    "mamba1": MixerEntry("hybridsim.mixers.mamba1", "Mamba1", "Mamba", "arXiv 2312.00752"),
    "mamba2": MixerEntry("hybridsim.mixers.mamba2", "Mamba2", "Mamba-2", "arXiv 2405.21060"),
}


@lru_cache(maxsize=None)
def _class(kind: str, module: str, suffix: str) -> type:
    entry = MIXERS[kind]
    found: type = getattr(import_module(f"{entry.folder}.{module}"), entry.prefix + suffix)
    return found


def settings_class(kind: str) -> type[MixerSettings]:
    """Return the settings dataclass of a kind of mixer."""
    return _class(kind, "settings", "Settings")


@lru_cache(maxsize=4096)
def mixer_cost(settings: MixerSettings, hidden_size: int) -> MixerCost:
    """Return the closed-form costs of a mixer with these settings in a model of this width."""
    cost: MixerCost = _class(settings.kind, "cost", "Cost")(settings, hidden_size)
    return cost


def mixer_class(kind: str) -> type[SequenceMixer]:
    """Return the nn.Module of a kind of mixer; imports torch."""
    return _class(kind, "module", "")
