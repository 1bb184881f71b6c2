"""Settings of linear attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import require_at_least, require_choice, require_positive
from hybridsim.errors import bad_value
from hybridsim.mixers.base import MixerSettings

FEATURE_MAPS = ("elu1", "relu", "identity", "performer")


@dataclass(frozen=True)
class LinearAttentionSettings(MixerSettings):
    """Attention whose weights are products of features, so that a sum over the past is enough.

    Attributes:
        num_heads: heads H.
        head_k_dim: channels K of a query or key head.
        head_v_dim: channels V of a value head.
        feature_map: applied to queries and keys: "elu1" (elu + 1, arXiv 2006.16236), "relu",
            "identity", or "performer" (positive random features, arXiv 2009.14794).
        num_features: random features of the performer map, else null.
        feature_seed: draws the random features, together with the layer's index.
        normalize: divide by the sum of a query's weights. The sum of past features is then one
            more column of the state.
        output_norm: normalise each head's output, as the layers without `normalize` do.
        chunk_size: tokens C of one chunk of the parallel form.
    """

    kind: ClassVar[str] = "linear_attention"

    num_heads: int
    head_k_dim: int
    head_v_dim: int
    feature_map: str = "elu1"
    num_features: int | None = None
    feature_seed: int = 0
    normalize: bool = True
    output_norm: bool = False
    chunk_size: int = 64

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            head_k_dim=self.head_k_dim,
            head_v_dim=self.head_v_dim,
            chunk_size=self.chunk_size,
        )
        require_at_least(0, feature_seed=self.feature_seed)
        require_choice("feature_map", self.feature_map, FEATURE_MAPS)
        if (self.feature_map == "performer") != (self.num_features is not None):
            allowed = "at least 1" if self.feature_map == "performer" else "null"
            raise bad_value(
                "num_features",
                self.num_features,
                f"must be {allowed} with feature_map={self.feature_map}",
            )
        if self.num_features is not None:
            require_positive(num_features=self.num_features)
        if self.normalize and self.feature_map == "identity":
            raise bad_value(
                "normalize", self.normalize, "must be false with feature_map=identity: weights of"
                " both signs may sum to zero",
            )  # fmt: skip

    @property
    def key_dim(self) -> int:
        """Width of all query (or key) heads."""
        return self.num_heads * self.head_k_dim

    @property
    def value_dim(self) -> int:
        """Width of all value heads."""
        return self.num_heads * self.head_v_dim

    @property
    def feature_dim(self) -> int:
        """Features of a query or key head: the rows of the state."""
        return self.head_k_dim if self.num_features is None else self.num_features

    @property
    def state_columns(self) -> int:
        """Columns of the state: the values' channels, and the normaliser."""
        return self.head_v_dim + (1 if self.normalize else 0)
