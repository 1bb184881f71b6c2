"""Random numbers by counter: the same on every device, whatever is drawn beside them.

A number is a hash of (seed, split, task, sequence, call, place); there is no generator whose state
could depend on the order of work or on the device. Only integer operations and IEEE additions,
multiplications and divisions are used, so a CPU and a GPU agree to the bit.

The hash is the output function of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom
number generators, OOPSLA 2014), in torch's int64, whose products and sums wrap at 2^64.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import final

import torch
from torch import Tensor

_WEYL = 0x9E3779B97F4A7C15 - 2**64  # 2^64 / golden ratio, odd: SplitMix64's increment
_FIRST_FACTOR = 0xBF58476D1CE4E5B9 - 2**64
_SECOND_FACTOR = 0x94D049BB133111EB - 2**64
_WORD = 2**32  # integers, choices and coins use the upper half of a hash


def mix(z: Tensor) -> Tensor:
    """Return SplitMix64's output for each state, a bijection of 64-bit words held as int64."""
    z = (z ^ _shifted(z, 30)) * _FIRST_FACTOR
    z = (z ^ _shifted(z, 27)) * _SECOND_FACTOR
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Return z shifted right with zeros coming in; int64's own shift copies the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _key(*parts: int | str) -> int:
    """Return one 64-bit word, as int64, for a path of integers and names."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@final
class Draws:
    """What is random in B sequences, one row of every result each.

    Calls are numbered: the same calls in the same order give the same numbers. A row depends on its
    own number alone, so that a batch cut differently has the same rows.

    Args:
        path: what the numbers belong to: seed, split, task.
        first: number of the first sequence.
        count: sequences B.
        device: where results are.
    """

    def __init__(
        self, path: Sequence[int | str], first: int, count: int, device: torch.device | str
    ) -> None:
        self.device = torch.device(device)
        self.count = count
        rows = torch.arange(first + 1, first + count + 1, device=self.device)
        self._keys = mix(rows * _WEYL + _key(*path))
        self._calls = 0

    def words(self, *shape: int) -> Tensor:
        """Return uniform 64-bit words as int64, [B, *shape]."""
        self._calls += 1
        keys = mix(self._keys + _key(self._calls))
        places = torch.arange(1, math.prod(shape) + 1, device=self.device) * _WEYL
        return mix(keys[:, None] + places).view(self.count, *shape)

    def integers(self, high: int, *shape: int) -> Tensor:
        """Return integers in [0, high), [B, *shape]; uniform within high / 2^32. high < 2^31."""
        return (self._halves(*shape) * high) >> 32

    def coins(self, probability: float, *shape: int) -> Tensor:
        """Return true with a probability, bool [B, *shape]."""
        return self._halves(*shape) < round(probability * _WORD)

    def choices(self, weights: Sequence[float], *shape: int) -> Tensor:
        """Return indices drawn with probabilities proportional to `weights`, [B, *shape]."""
        bounds = _bounds(tuple(weights), self.device)
        return torch.searchsorted(bounds, self._halves(*shape), right=True)

    def distinct(self, count: int, high: int) -> Tensor:
        """Return `count` different integers of [0, high) in random order, [B, count].

        Every ordered sample is equally likely: the places of the smallest of `high` random numbers,
        whose last bits are the place itself and so never tie.
        """
        mask = (1 << max(1, (high - 1).bit_length())) - 1
        ranks = (_shifted(self.words(high), 1) & ~mask) | torch.arange(high, device=self.device)
        return torch.topk(ranks, count, largest=False, sorted=True).values & mask

    def permutation(self, size: int) -> Tensor:
        """Return an order of [0, size), [B, size]."""
        return self.distinct(size, size)

    def weighted_distinct(self, count: int, weights: Sequence[float]) -> Tensor:
        """Return `count` different indices drawn one after another by weight, [B, count].

        Each is drawn from those left with probabilities proportional to their weights. The same law
        is that of which exponential clocks of these rates ring first (Efraimidis and Spirakis,
        2006).
        """
        clocks = self.exponentials(len(weights)) / _rates(tuple(weights), self.device)
        return torch.sort(clocks, dim=1, stable=True).indices[:, :count]

    def exponentials(self, *shape: int) -> Tensor:
        """Return exponential variables of mean 1, float64 [B, *shape]."""
        bits = _shifted(self.words(*shape), 12)
        return -_log((bits.double() + 0.5) * 2.0**-52)

    def _halves(self, *shape: int) -> Tensor:
        return _shifted(self.words(*shape), 32)


@lru_cache(maxsize=64)
def _rates(weights: tuple[float, ...], device: torch.device) -> Tensor:
    return torch.tensor(weights, dtype=torch.float64, device=device)


@lru_cache(maxsize=64)
def _bounds(weights: tuple[float, ...], device: torch.device) -> Tensor:
    """Return the upper ends of the weights' shares of [0, 2^32), all but the last."""
    total, upto, bounds = math.fsum(weights), 0.0, []
    for weight in weights[:-1]:
        upto += weight
        bounds.append(round(upto / total * _WORD))
    return torch.tensor(bounds, dtype=torch.int64, device=device)


def _log(x: Tensor) -> Tensor:
    """Return the natural logarithm, by steps that every device rounds alike (torch.log differs).

    x = m 2^e with m in [sqrt(1/2), sqrt(2)), and ln m = 2 artanh s = 2 s (1 + s^2/3 + s^4/5 + ...)
    with s = (m - 1) / (m + 1), |s| < 0.172: eleven terms reach float64's precision.
    """
    m, e = torch.frexp(x)
    is_small = m < math.sqrt(0.5)
    m, e = torch.where(is_small, 2 * m, m), e - is_small.to(e.dtype)
    s = (m - 1) / (m + 1)
    square, total = s * s, torch.zeros_like(s)
    for k in range(10, -1, -1):
        total = total * square
        total = total + 1 / (2 * k + 1)
    return e.double() * math.log(2) + 2 * s * total
