"""The one table of token mixers: kind -> folder. Adding a mixer is one folder and one row.

Installed packages add kinds of their own, see table.py. Settings and costs import no torch;
`mixer_class` imports a mixer's module when a model is built.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from hybridsim.mixers.base import CacheShape, MixerCost, MixerSettings
from hybridsim.mixers.table import MixerEntry, MixerTable

if TYPE_CHECKING:
    from hybridsim.nn.mixer import SequenceMixer

__all__ = [
    "MIXERS",
    "SHIPPED",
    "CacheShape",
    "MixerCost",
    "MixerEntry",
    "MixerSettings",
    "mixer_class",
    "mixer_cost",
    "settings_class",
]


SHIPPED: dict[str, MixerEntry] = {
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


MIXERS = MixerTable(SHIPPED)


@lru_cache(maxsize=None)
def settings_class(kind: str) -> type[MixerSettings]:
    """Return the settings dataclass of a kind of mixer."""
    found: type[MixerSettings] = MIXERS.part(kind, "settings", "Settings", MixerSettings)
    with MIXERS.blaming(kind):
        if found.kind != kind:
            raise ValueError(f"{found.__name__}.kind is {found.kind!r}")
    return found


@lru_cache(maxsize=None)
def _cost_class(kind: str) -> type[MixerCost]:
    return MIXERS.part(kind, "cost", "Cost", MixerCost)


@lru_cache(maxsize=4096)
def mixer_cost(settings: MixerSettings, hidden_size: int) -> MixerCost:
    """Return the closed-form costs of a mixer with these settings in a model of this width."""
    return _cost_class(settings.kind)(settings, hidden_size)


@lru_cache(maxsize=None)
def mixer_class(kind: str) -> type[SequenceMixer]:
    """Return the nn.Module of a kind of mixer; imports torch."""
    return MIXERS.part(kind, "module", "", None)
