"""The contract of a proxy task: settings that generate sequences whose answers are known."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self, final

import torch
from torch import Tensor

from hybridsim.components import require_at_least, require_choice
from hybridsim.errors import bad_value
from hybridsim.train.tasks.draws import Draws

IGNORED = -100  # a target that no loss and no score sees, as torch's cross entropy has it
BLANK = 0  # stands where a task has nothing to say

Split = Literal["train", "held_out"]
SPLITS = ("train", "held_out")

# Two sets of 2^20 and 2^10 sequences of 2^40 share one with probability 2^-10.
MIN_SEQUENCE_BITS = 40


@final
@dataclass(frozen=True)
class Batch:
    """Sequences and what a model must say.

    Attributes:
        tokens: int64 [B, T], what the model reads.
        targets: int64 [B, T], what it must output at each position (nothing is shifted), or
            IGNORED; the loss.
        answers: int64 [B, T], those of the targets that are scored. The targets themselves, except
            in language modelling, where much of what is trained on cannot be known.
    """

    tokens: Tensor
    targets: Tensor
    answers: Tensor


@dataclass(frozen=True)
class Task(ABC):
    """Settings of one kind of task: a frozen dataclass that checks itself.

    Every task takes any vocabulary and length above its smallest: what is left at the end is blank
    and unscored, and so tasks of the same `vocab_size` and `length` share one batch shape and one
    model.

    Attributes:
        kind: the word that selects the task.
        stresses: what a model needs for it, in a few words.
        source: where the definition is from.
        reads_at: "each" if the output at a position is the target's there; "last" if all targets
            are read off the hidden state at the last position (see `compression`).
        vocab_size: tokens are in [0, vocab_size).
        length: positions T of a sequence.
    """

    kind: ClassVar[str]
    stresses: ClassVar[str]
    source: ClassVar[str]
    reads_at: ClassVar[Literal["each", "last"]] = "each"

    vocab_size: int
    length: int

    def __post_init__(self) -> None:
        require_at_least(2, vocab_size=self.vocab_size, length=self.length)
        self._check()

    @abstractmethod
    def _check(self) -> None:
        """Raise SpecError unless sequences of these settings exist."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """Expected score of the best model that says the same whatever it reads."""

    @property
    def guess(self) -> float:
        """Expected score of a model that knows which tokens can be the answer here, and no more.

        The floor to compare with where it is above `chance`: picking any value seen in the context
        needs no memory of what belongs to which key.
        """
        return self.chance

    @property
    @abstractmethod
    def sequence_bits(self) -> float:
        """-log2, at least, of how likely two sequences are equal: what keeps the splits apart."""

    @abstractmethod
    def curriculum(self, progress: float) -> Self:
        """Return the easier version to train on when `progress` of the curriculum is done.

        Args:
            progress: 0 at the start, 1 when the settings themselves are reached.
        """

    @abstractmethod
    def _generate(self, draws: Draws, split: Split) -> Batch:
        """Return the sequences whose random numbers, apart in each split, are `draws`."""

    @final
    def sample(
        self,
        seed: int,
        index: int,
        batch_size: int,
        device: torch.device | str = "cpu",
        split: Split = "train",
    ) -> Batch:
        """Return the sequences number `index * batch_size` and on of a seed and split.

        The same numbers on every device and for every way of cutting the sequences into batches.

        Raises:
            SpecError: a number is out of range, or held-out sequences would often be trained on.
        """
        require_choice("split", split, SPLITS)
        require_at_least(0, seed=seed, index=index)
        require_at_least(1, batch_size=batch_size)
        if split == "held_out":
            self._require_unseen()
        path = (seed, split, self.kind)
        return self._generate(Draws(path, index * batch_size, batch_size, device), split)

    def _require_unseen(self) -> None:
        if self.sequence_bits < MIN_SEQUENCE_BITS:
            raise bad_value(
                "length",
                self.length,
                f"{self.kind} has 2^{self.sequence_bits:.0f} sequences of these settings; held-out"
                f" ones are unseen from 2^{MIN_SEQUENCE_BITS} on",
            )

    @final
    def score(self, predictions: Tensor, answers: Tensor) -> Tensor:
        """Return the share of scored positions that are right, float64 [B].

        A sequence without a scored position gives NaN: it has no score.

        Args:
            predictions: tokens the model would output, [B, T].
            answers: `Batch.answers`, [B, T].
        """
        is_scored = answers != IGNORED
        is_right = (predictions == answers) & is_scored
        return is_right.sum(1).double() / is_scored.sum(1).double()


def blanks(draws: Draws, length: int) -> tuple[Tensor, Tensor]:
    """Return blank tokens and ignored targets, [B, T] each."""
    shape = (draws.count, length)
    tokens = torch.full(shape, BLANK, dtype=torch.int64, device=draws.device)
    return tokens, torch.full_like(tokens, IGNORED)


def eased(full: int, start: int, progress: float) -> int:
    """Return the whole number `progress` of the way from `start` up to `full`."""
    if not 0 <= progress <= 1:
        raise bad_value("progress", progress, "must be in [0, 1]")
    return full if start >= full else start + int((full - start) * progress)
