"""Settings of multi-head latent attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import RopeSettings, require_at_least, require_positive
from hybridsim.mixers.base import MixerSettings


@dataclass(frozen=True)
class MultiHeadLatentAttentionSettings(MixerSettings):
    """Keys and values of all heads are rebuilt from one cached latent per token.

    Attributes:
        num_heads: heads H.
        kv_lora_rank: width R of the cached latent.
        q_lora_rank: width of the query's bottleneck, or null for a direct projection.
        qk_nope_head_dim: channels of a query or key head rebuilt from the latent.
        qk_rope_head_dim: channels shared by all heads and cached beside the latent.
        v_head_dim: channels of a value head.
        rope: rotary encoding of the shared channels, or null: they stay, unrotated (Kimi Linear).
        head_gate: a sigmoid gate on each head's output, one number a head (Ling 3.0).
        norm_eps: added to the mean square in the bottlenecks' norms; null takes the model's.
    """

    kind: ClassVar[str] = "mla"

    num_heads: int
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    q_lora_rank: int | None = None
    rope: RopeSettings | None = None
    head_gate: bool = False
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            kv_lora_rank=self.kv_lora_rank,
            qk_nope_head_dim=self.qk_nope_head_dim,
            v_head_dim=self.v_head_dim,
        )
        require_at_least(0, qk_rope_head_dim=self.qk_rope_head_dim)
        if self.q_lora_rank is not None:
            require_positive(q_lora_rank=self.q_lora_rank)
        if self.norm_eps is not None:
            require_positive(norm_eps=self.norm_eps)
        if self.rope is not None:
            require_positive(qk_rope_head_dim=self.qk_rope_head_dim)
            self.rope.check_head(self.qk_rope_head_dim)

    @property
    def qk_head_dim(self) -> int:
        """Channels of a query or key head."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def latent_dim(self) -> int:
        """Numbers cached per token: the latent and the shared channels."""
        return self.kv_lora_rank + self.qk_rope_head_dim

    @property
    def is_full_attention(self) -> bool:
        return True
