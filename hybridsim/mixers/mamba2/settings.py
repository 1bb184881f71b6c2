"""Settings of Mamba-2."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from hybridsim.components import require_choice, require_multiple, require_positive
from hybridsim.errors import bad_value
from hybridsim.mixers.base import MixerSettings

NORMS = ("after_gate", "before_gate", "none")


@dataclass(frozen=True)
class Mamba2Settings(MixerSettings):
    """A state-space mixer whose decay is one number per head and token.

    Attributes:
        num_heads: heads H, a multiple of `num_groups`.
        head_dim: channels P of a head.
        state_size: numbers S that each channel of a head keeps.
        num_groups: groups G of heads that share B and C, as query heads share keys in GQA.
        conv_size: taps of the causal convolution on x, B and C.
        conv_bias: the convolution has a bias.
        bias: the projection in has a bias.
        output_bias: the projection out has a bias.
        activation: applied after the convolution.
        norm: the RMS norm of the output comes "after_gate", norm(y * silu(z)), or "before_gate",
            norm(y) * silu(z), or is left out, "none": y * silu(z).
        norm_groups: equal parts of the output that are normalised each by itself; null takes
            `num_groups`, 1 normalises the whole width.
        dt_min: smallest time step.
        dt_max: largest time step, null for none.
        chunk_size: tokens C of one chunk of the parallel form.
        input_scale: factor on the mixer's input; it and the next are muP's (Falcon-H1).
        output_scale: factor on its output.
        z_scale: factor on the projected gate z.
        x_scale: factor on the projected x.
        b_scale: factor on the projected B.
        c_scale: factor on the projected C.
        dt_scale: factor on the projected time step.
    """

    kind: ClassVar[str] = "mamba2"

    num_heads: int
    head_dim: int
    state_size: int
    num_groups: int = 1
    conv_size: int = 4
    conv_bias: bool = True
    bias: bool = False
    output_bias: bool = False
    activation: str = "silu"
    norm: str = "after_gate"
    norm_groups: int | None = None
    dt_min: float = 0.0
    dt_max: float | None = None
    chunk_size: int = 256
    input_scale: float = 1.0
    output_scale: float = 1.0
    z_scale: float = 1.0
    x_scale: float = 1.0
    b_scale: float = 1.0
    c_scale: float = 1.0
    dt_scale: float = 1.0

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            state_size=self.state_size,
            num_groups=self.num_groups,
            conv_size=self.conv_size,
            chunk_size=self.chunk_size,
        )
        require_positive(
            input_scale=self.input_scale,
            output_scale=self.output_scale,
            z_scale=self.z_scale,
            x_scale=self.x_scale,
            b_scale=self.b_scale,
            c_scale=self.c_scale,
            dt_scale=self.dt_scale,
        )
        require_choice("activation", self.activation, ("silu", "gelu"))
        require_choice("norm", self.norm, NORMS)
        require_multiple("num_heads", self.num_heads, "num_groups", self.num_groups)
        self._check_norm_groups()
        self._check_time_steps()

    def _check_norm_groups(self) -> None:
        if self.norm_groups is None:
            return
        require_positive(norm_groups=self.norm_groups)
        if self.inner_dim % self.norm_groups:
            raise bad_value(
                "norm_groups",
                self.norm_groups,
                f"must divide num_heads * head_dim = {self.inner_dim}",
            )

    def _check_time_steps(self) -> None:
        if not 0 <= self.dt_min < math.inf:
            raise bad_value("dt_min", self.dt_min, "must be at least 0")
        if self.dt_max is not None and not self.dt_max > self.dt_min:
            raise bad_value("dt_max", self.dt_max, f"must be above dt_min={self.dt_min}, or null")

    def canonical(self) -> Mamba2Settings:
        groups = None if self.norm == "none" else self.norm_groups or self.num_groups
        return replace(self, norm_groups=groups)

    @property
    def inner_dim(self) -> int:
        """Width of all heads."""
        return self.num_heads * self.head_dim

    @property
    def group_dim(self) -> int:
        """Width of B (or C): the states of all groups."""
        return self.num_groups * self.state_size

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution runs over: x, B, C."""
        return self.inner_dim + 2 * self.group_dim

    @property
    def projection_widths(self) -> tuple[int, int, int, int, int]:
        """Widths of z, x, B, C and dt, in the order of the projection in."""
        return self.inner_dim, self.inner_dim, self.group_dim, self.group_dim, self.num_heads

    @property
    def projection_scales(self) -> tuple[float, float, float, float, float]:
        """Factors on z, x, B, C and dt."""
        return self.z_scale, self.x_scale, self.b_scale, self.c_scale, self.dt_scale
