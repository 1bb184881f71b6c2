"""FLOPs of the gated delta rule's forms, shared by the mixers that use it. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from hybridsim.conventions import FlopConventions
from hybridsim.steps import Step


@dataclass(frozen=True)
class DeltaRule:
    """Sizes of one head's delta rule.

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
        """Return the FLOPs of one head for a step of one sequence."""
        if step.is_single:
            return self.recurrent_flops()
        if conventions.linear_attention == "published":
            return step.new_tokens * self.published_flops_per_token()
        count, size = step.chunks(self.chunk_size, self.block_size or 1)
        return count * self.chunk_flops(size, conventions.triangular_solve)

    def recurrent_flops(self) -> int:
        """Return the FLOPs of one token: read S^T k, write k delta^T, read S^T q, 2 K V each.

        The decay of the state, K V multiplications, is elementwise and not counted.
        """
        return 6 * self.key_dim * self.value_dim

    def chunk_flops(self, size: int, triangular_solve: bool) -> int:
        """Return the FLOPs of one chunk of `size` tokens.

        Scores q k^T and k k^T; output from the old state, correction of the values, new state
        (2 C K V each); scores times corrected values; and the solve for both right-hand sides,
        C^2 FLOPs a column.
        """
        k, v = self.key_dim, self.value_dim
        # With sub-blocks only those on and below the diagonal are formed.
        pairs = size * size if self.block_size is None else size * (size + self.block_size) // 2
        solve = size * size * (k + v) if triangular_solve else 0
        return 2 * 2 * k * pairs + 6 * size * k * v + 2 * size * size * v + solve

    def published_flops_per_token(self) -> int:
        """Return 6 K V + 3 C K + C^2, Kimi Linear's eq. 13 per token (arXiv 2510.26692, 6.3)."""
        return 6 * self.key_dim * self.value_dim + self.chunk_size * (
            3 * self.key_dim + self.chunk_size
        )


def short_conv_flops(step: Step, channels: int, conv_size: int) -> int:
    """Return the FLOPs of a depthwise causal convolution: one multiply-add a tap and channel."""
    return 2 * conv_size * channels * step.new_tokens
