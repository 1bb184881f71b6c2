"""Settings of Mamba."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import require_positive
from hybridsim.mixers.base import MixerSettings


@dataclass(frozen=True)
class Mamba1Settings(MixerSettings):
    """A selective state space model: each channel has a state of its own.

    Attributes:
        inner_dim: channels D that are scanned, `expand` times the model's width in configurations.
        state_size: numbers S of one channel's state.
        dt_rank: width between the channels and their step sizes ("auto" in configurations is a
            sixteenth of the model's width, rounded up).
        conv_size: taps of the causal convolution before the scan.
        conv_bias: whether the convolution has a bias.
        proj_bias: whether the projections into and out of the layer have biases.
        inner_norms: RMS norms on step sizes, B and C before they are used (Jamba).
        chunk_size: tokens C of one chunk of the parallel form.
    """

    kind: ClassVar[str] = "mamba1"

    inner_dim: int
    dt_rank: int
    state_size: int = 16
    conv_size: int = 4
    conv_bias: bool = True
    proj_bias: bool = False
    inner_norms: bool = False
    chunk_size: int = 64

    def __post_init__(self) -> None:
        require_positive(
            inner_dim=self.inner_dim,
            dt_rank=self.dt_rank,
            state_size=self.state_size,
            conv_size=self.conv_size,
            chunk_size=self.chunk_size,
        )
