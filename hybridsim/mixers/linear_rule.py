"""FLOPs of linear attention without the delta rule, shared by the mixers that use it. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from hybridsim.conventions import FlopConventions
from hybridsim.steps import Step


@dataclass(frozen=True)
class LinearRule:
    """Sizes of one head's linear attention.

    Attributes:
        key_dim: K, rows of the state.
        value_dim: V, columns of the state.
        chunk_size: C, tokens of a chunk.
        block_size: tokens of a sub-block where a decay per channel forbids one C x C product,
            else None.
    """

    key_dim: int
    value_dim: int
    chunk_size: int
    block_size: int | None = None

    def flops(self, step: Step, conventions: FlopConventions) -> int:
        """Return the FLOPs of one head for a step of one sequence.

        One token writes k v^T and reads S^T q, 2 K V each; decays are elementwise and not counted.
        """
        state = 4 * self.key_dim * self.value_dim
        if step.is_single:
            return state
        if conventions.linear_attention == "published":
            # The causal half of what a chunk's tokens do among themselves, MiniMax-01's formula.
            inside = self.chunk_size * (self.key_dim + self.value_dim)
            return step.new_tokens * (state + inside)
        count, size = step.chunks(self.chunk_size, self.block_size or 1)
        return count * (size * state + self.inside_flops(size))

    def inside_flops(self, size: int) -> int:
        """Return the FLOPs of scores, and of scores times values, inside a chunk of `size` tokens.

        With sub-blocks only the scores on and below the diagonal are formed.
        """
        pairs = size * size if self.block_size is None else size * (size + self.block_size) // 2
        return 2 * pairs * self.key_dim + 2 * size * size * self.value_dim
