"""Settings of DeepSeek sparse attention."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from hybridsim.components import require_choice, require_positive
from hybridsim.errors import bad_value
from hybridsim.mixers.mla.settings import MultiHeadLatentAttentionSettings

FULL, SHARED = INDEXER_TYPES = ("full", "shared")


@dataclass(frozen=True)
class SparseLatentAttentionSettings(MultiHeadLatentAttentionSettings):
    """MLA over the tokens that a lightning indexer scores highest.

    Attributes:
        index_num_heads: query heads of the indexer; they share one key per token.
        index_head_dim: channels of an index query or key.
        index_topk: tokens that a query attends to at most.
        index_key_dtype: format of cached index keys: "fp8", with one fp32 scale per 128 numbers,
            or null, that of the rest of the cache.
        index_rope_interleaved: the indexer rotates pairs of neighbours (GLM-5), not halves
            (DeepSeek).
        indexer_type: "full", or "shared": no indexer, but the tokens that the last layer with one
            selected (GLM-5.2; arXiv 2603.12201).
    """

    kind: ClassVar[str] = "sparse_mla"

    index_num_heads: int = 64
    index_head_dim: int = 128
    index_topk: int = 2048
    index_key_dtype: str | None = "fp8"
    index_rope_interleaved: bool = False
    indexer_type: str = FULL

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            index_num_heads=self.index_num_heads,
            index_head_dim=self.index_head_dim,
            index_topk=self.index_topk,
        )
        require_choice("indexer_type", self.indexer_type, INDEXER_TYPES)
        if self.q_lora_rank is None:
            raise bad_value(
                "q_lora_rank", None, "the indexer reads the query's bottleneck; give a rank"
            )
        if self.index_key_dtype not in ("fp8", None):
            raise bad_value("index_key_dtype", self.index_key_dtype, "must be fp8, or null")
        if self.rope is not None and self.index_head_dim < self.qk_rope_head_dim:
            raise bad_value(
                "index_head_dim",
                self.index_head_dim,
                f"must be at least qk_rope_head_dim={self.qk_rope_head_dim}",
            )

    @property
    def is_full_attention(self) -> bool:
        return False

    @property
    def has_indexer(self) -> bool:
        """Whether the layer selects tokens itself."""
        return self.indexer_type == FULL

    @property
    def selects(self) -> int | None:
        return self.index_topk if self.has_indexer else None

    @property
    def borrows(self) -> int | None:
        return None if self.has_indexer else self.index_topk

    def full_twin(self) -> MultiHeadLatentAttentionSettings:
        shared = {f.name: getattr(self, f.name) for f in fields(MultiHeadLatentAttentionSettings)}
        return MultiHeadLatentAttentionSettings(**shared)
