"""Settings of block-sparse grouped-query attention."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

from hybridsim.components import require_at_least, require_positive
from hybridsim.errors import bad_value
from hybridsim.mixers.attention.settings import AttentionSettings


@dataclass(frozen=True)
class BlockSparseAttentionSettings(AttentionSettings):
    """GQA over the blocks of keys that an indexer scores highest, one choice per key head.

    Attributes:
        index_num_heads: query heads of the indexer, equal to `num_kv_heads`; they share one key per
            token.
        index_head_dim: channels of an index query or key.
        block_size: keys of a block.
        topk_blocks: blocks that a query attends to at most.
        local_blocks: of these, blocks that end at the query and are always taken.
    """

    kind: ClassVar[str] = "block_sparse"

    index_num_heads: int = 4
    index_head_dim: int = 128
    block_size: int = 128
    topk_blocks: int = 16
    local_blocks: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(
            index_head_dim=self.index_head_dim,
            block_size=self.block_size,
            topk_blocks=self.topk_blocks,
        )
        require_at_least(1, local_blocks=self.local_blocks)
        if self.local_blocks > self.topk_blocks:
            raise bad_value(
                "local_blocks", self.local_blocks, f"must be at most topk_blocks={self.topk_blocks}"
            )
        if self.index_num_heads != self.num_kv_heads:
            raise bad_value(
                "index_num_heads",
                self.index_num_heads,
                f"must equal num_kv_heads={self.num_kv_heads}",
            )
        if self.window is not None:
            raise bad_value(
                "window", self.window, "block-sparse attention has no window; give null"
            )
        if self.sinks:
            raise bad_value("sinks", True, "block-sparse attention has no sinks; give false")
        if self.rope is not None:
            self.rope.check_head(self.index_head_dim)

    @property
    def is_full_attention(self) -> bool:
        return False

    @property
    def selected_tokens(self) -> int:
        """Keys that a query attends to at most."""
        return self.block_size * self.topk_blocks

    def full_twin(self) -> AttentionSettings:
        return AttentionSettings(
            **{f.name: getattr(self, f.name) for f in fields(AttentionSettings)}
        )
