"""Language modelling on the bytes of a text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, TypeAlias, final

import numpy as np
import torch
from torch import Tensor

from hybridsim.components import require_at_least
from hybridsim.errors import bad_value
from hybridsim.train.tasks.base import IGNORED, Batch, Split, Task, eased
from hybridsim.train.tasks.draws import Draws

Bytes: TypeAlias = "np.ndarray[tuple[int], np.dtype[np.uint8]]"


@final
@dataclass(frozen=True)
class TextModelling(Task):
    """The next byte of a text that the user gives.

    The first part of the file is trained on, the last is held out, so that no window of one lies in
    the other (a text that repeats itself word for word is its owner's to mend). A window starts
    anywhere in its part. Every next byte is a target; scored are those with `warmup` bytes before.

        "the cat sat": reads "the cat sa", targets "he cat sat"

    Source: bytes as tokens, as in ByT5 (arXiv 2105.13626) and enwik8.

    Attributes:
        path: the file.
        warmup: positions at the start of a window that are trained on and not scored.
        held_out_fraction: part of the file, at its end, that is held out.
    """

    kind: ClassVar[str] = "text"
    stresses: ClassVar[str] = "language modelling: what most tokens need, which recall is not"
    source: ClassVar[str] = "the user's text"

    path: str = ""
    vocab_size: int = 256
    length: int = 256
    warmup: int = 16
    held_out_fraction: float = 0.1

    def _check(self) -> None:
        require_at_least(256, vocab_size=self.vocab_size)
        require_at_least(0, warmup=self.warmup)
        require_at_least(self.warmup + 1, length=self.length)
        if not 0 < self.held_out_fraction < 1:
            raise bad_value("held_out_fraction", self.held_out_fraction, "must be in (0, 1)")
        if not Path(self.path).is_file():
            raise bad_value("path", self.path or "''", "no such file; give a text's path")
        shortest = min(len(self._part("train")), len(self._part("held_out")))
        if self.length >= shortest:
            allowed = f"must be below {shortest}, the bytes of the text's shorter split"
            raise bad_value("length", self.length, allowed)

    @property
    def chance(self) -> float:
        """The share of the most frequent byte in what is held out."""
        held_out = self._part("held_out")
        return float(np.bincount(held_out).max() / len(held_out))

    @property
    def sequence_bits(self) -> float:
        return math.inf  # the parts are apart

    def curriculum(self, progress: float) -> TextModelling:
        """Return windows of a quarter of the length up to all."""
        least = max(self.warmup + 1, self.length // 4)
        return replace(self, length=eased(self.length, least, progress))

    def _part(self, split: Split) -> Bytes:
        return _part(self.path, _version(self.path), self.held_out_fraction, split)

    def _generate(self, draws: Draws, split: Split) -> Batch:
        version = _version(self.path)
        text = _sent(self.path, version, self.held_out_fraction, split, draws.device)
        starts = draws.integers(len(text) - self.length, 1)
        window = starts + torch.arange(self.length, device=draws.device)
        tokens, targets = text[window].long(), text[window + 1].long()
        answers = targets.clone()
        answers[:, : self.warmup] = IGNORED
        return Batch(tokens, targets, answers)


def _version(path: str) -> int:
    """Return what changes when the file does, so that no stale bytes are kept."""
    return Path(path).stat().st_mtime_ns


@lru_cache(maxsize=8)
def _part(path: str, version: int, held_out_fraction: float, split: Split) -> Bytes:
    """Return the bytes of a split."""
    text = np.frombuffer(Path(path).read_bytes(), dtype=np.uint8)
    border = round(len(text) * (1 - held_out_fraction))
    return text[:border] if split == "train" else text[border:]


@lru_cache(maxsize=8)
def _sent(
    path: str, version: int, held_out_fraction: float, split: Split, device: torch.device
) -> Tensor:
    """Return the bytes of a split on a device, sent there once."""
    return torch.from_numpy(_part(path, version, held_out_fraction, split).copy()).to(device)
