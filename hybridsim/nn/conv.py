"""The short causal depthwise convolution of linear attention."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridsim.kernels.choice import choose
from hybridsim.nn.activation import PLAIN
from hybridsim.nn.cache import RecurrentCache
from hybridsim.nn.library import is_batched, operator


def _shape(padded: Tensor, weight: Tensor) -> Tensor:
    batch, columns, channels = padded.shape
    return padded.new_empty(batch, columns - weight.shape[1] + 1, channels)


@operator("causal_conv1d(Tensor padded, Tensor weight) -> Tensor", _shape)
def causal_conv1d(padded: Tensor, weight: Tensor) -> Tensor:
    """Return y_t = sum_i weight[:, i] x_{t - W + 1 + i}, each channel by itself.

    Args:
        padded: [B, W - 1 + T, channels], the columns before the first token in front.
        weight: [channels, W].
    """
    if is_batched(padded, weight):  # where a grouped convolution of all models would be slow
        tokens = padded.shape[1] - weight.shape[1] + 1
        taps = [padded[:, i : i + tokens] * weight[:, i] for i in range(weight.shape[1])]
        return functools.reduce(torch.add, taps)
    return F.conv1d(padded.mT, weight[:, None], groups=weight.shape[0]).mT


class ShortConvolution(nn.Module):
    """Convolves the last `conv_size` tokens of each channel, then applies an activation."""

    def __init__(
        self, channels: int, conv_size: int, *, bias: bool = False, activation: str = "silu"
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.empty(channels, conv_size))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None

    def forward(self, x: Tensor, cache: RecurrentCache | None) -> Tensor:
        """Map x [B, T, channels]; the cache gives the columns before and takes the last ones."""
        past = cache.conv if cache is not None else None
        if past is not None and x.shape[1] == 1:
            step = choose("short_conv_step", x, self.weight, activation=self.activation)
            if step is not None:  # which moves the columns on in place
                moved: Tensor = step(x[:, 0], past, self.weight, self.bias, self.activation)
                return moved[:, None]
        kernel = choose("short_convolution", x, self.weight, activation=self.activation)
        if kernel is not None:
            out: Tensor = kernel(x, self.weight, self.bias, past, self.activation)
            if cache is not None:
                cache.conv = self._last_columns(x, past)
            return out
        padded = torch.cat((self._columns_before(x, past), x), dim=1)
        if cache is not None:
            cache.conv = self._last_columns(x, past)
        out = causal_conv1d(padded, self.weight)
        return PLAIN[self.activation](out if self.bias is None else out + self.bias)

    def split(self, parts: Sequence[Tensor], cache: RecurrentCache | None) -> tuple[Tensor, ...]:
        """Map parts [B, T, channels of the part], which together are x, as `forward` maps x.

        A kernel takes them one by one, so that long prompts are neither joined nor cut apart.
        """
        widths = [part.shape[-1] for part in parts]
        kernel = None
        if parts[0].shape[1] > 1:
            kernel = choose("short_convolution", parts[0], self.weight, activation=self.activation)
        if kernel is None:
            joined: Tensor = self(torch.cat(tuple(parts), dim=-1), cache)
            return tuple(joined.split(widths, dim=-1))
        past = cache.conv if cache is not None else None
        pasts = [None] * len(parts) if past is None else past.split(widths, dim=-1)
        biases = [None] * len(parts) if self.bias is None else self.bias.split(widths)
        given = zip(parts, self.weight.split(widths), biases, pasts, strict=True)
        if cache is not None:
            last = [self._last_columns(x, before) for x, before in zip(parts, pasts, strict=True)]
            cache.conv = torch.cat(last, dim=-1)
        return tuple(kernel(*each, self.activation) for each in given)

    def _columns_before(self, x: Tensor, past: Tensor | None) -> Tensor:
        if past is not None:
            return past
        return x.new_zeros(x.shape[0], self.weight.shape[1] - 1, x.shape[2])

    def _last_columns(self, x: Tensor, past: Tensor | None) -> Tensor:
        """Return a copy of the columns that the next pass needs, [B, conv_size - 1, channels]."""
        kept = self.weight.shape[1] - 1
        if x.shape[1] >= kept:
            return x[:, x.shape[1] - kept :].clone()
        return torch.cat((self._columns_before(x, past), x), dim=1)[:, -kept:].clone()
