"""How hard a task must be to ask of a small model's state what a workload asks of the full one's.

The pressure on a recurrent layer is how many associations it must keep for each one it can keep:

    pressure = associations / key channels

A head whose state is K x V keeps K values under orthogonal keys without mixing them up; H heads
keep H K if they divide the keys among them. `key_channels` is H K: the usual kv / d_k where there
is one head. The full model must keep one association for every TOKENS_PER_ASSOCIATION tokens of the
workload's context target; the proxy gets pressure times its own key channels, at the nearest rung
of PRESSURES. docs/proxy_tasks.md has the evidence for the rule, and where it ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, final

from hybridsim.components import require_positive
from hybridsim.dtypes import Dtypes
from hybridsim.errors import SpecError, bad_value, unknown
from hybridsim.mixers import MixerSettings, mixer_cost
from hybridsim.spec.schema import ModelSpec
from hybridsim.train.proxy import PRESSURES
from hybridsim.train.tasks.base import Task
from hybridsim.train.tasks.forgetting import ForgettingRecall
from hybridsim.train.tasks.in_context_recall import InContextRecall
from hybridsim.train.tasks.mqar import MultiQueryRecall
from hybridsim.train.tasks.needle import Needle
from hybridsim.train.tasks.palindrome import Palindrome
from hybridsim.train.tasks.selective_copy import SelectiveCopy
from hybridsim.train.tasks.variable_tracking import VariableTracking
from hybridsim.workload import Workload

# Zoology (arXiv 2312.04927, Table 1) splits the tokens of the Pile into those that a bigram seen
# before gives away, and the rest; its perplexities on both and on all make the former 6.3 to 7.1 %.
TOKENS_PER_ASSOCIATION = 16

_KEY_CHANNELS: dict[str, Callable[[Any], int]] = {
    "linear_attention": lambda s: s.num_heads * s.feature_dim,
    "gla": lambda s: s.key_dim,
    "deltanet": lambda s: s.key_dim,
    "gated_deltanet": lambda s: s.num_v_heads * s.head_k_dim,
    "kda": lambda s: s.num_heads * s.head_dim,
    "lightning": lambda s: s.num_heads * s.head_dim,
    "mamba1": lambda s: s.state_size,  # one head: a value is all channels
    "mamba2": lambda s: s.num_heads * s.state_size,
}


def key_channels(settings: MixerSettings, hidden_size: int) -> int | None:
    """Return how many associations a layer's recurrent state keeps, None where it has none.

    Raises:
        SpecError: the mixer has a state and no rule says what it keeps.
    """
    if not mixer_cost(settings, hidden_size).cache(Dtypes()).recurrent_bytes:
        return None
    if settings.kind not in _KEY_CHANNELS:
        raise unknown("mixer", settings.kind, _KEY_CHANNELS, "rule for what its state keeps")
    return _KEY_CHANNELS[settings.kind](settings)


@final
@dataclass(frozen=True)
class Pressure:
    """What a workload asks of a model's state.

    Attributes:
        letter: the recurrent layers that keep least, by their mixer's letter.
        associations: what the context target holds.
        key_channels: what one such layer keeps.
    """

    letter: str
    associations: float
    key_channels: int

    @property
    def ratio(self) -> float:
        """Associations for each that is kept."""
        return self.associations / self.key_channels

    @property
    def rung(self) -> float:
        """The nearest of PRESSURES, on a logarithmic scale."""
        return min(PRESSURES, key=lambda rung: abs(math.log2(self.ratio / rung)))

    @property
    def is_beyond(self) -> bool:
        """Whether the full model faces more than the hardest proxy: its loss is a lower bound."""
        return self.ratio > math.sqrt(2) * PRESSURES[-1]


def pressure_on(spec: ModelSpec, workload: Workload) -> Pressure | None:
    """Return what a workload asks of a spec's smallest recurrent state; None if it has none."""
    smallest = smallest_state(spec)
    if smallest is None:
        return None
    letter, channels = smallest
    return Pressure(letter, workload.context_target / TOKENS_PER_ASSOCIATION, channels)


def smallest_state(spec: ModelSpec) -> tuple[str, int] | None:
    """Return the letter and the key channels of the recurrent layers that keep least, or None."""
    letters = sorted({m for letter in spec.layer_letters for m in spec.layer_mixers(letter)})
    kept = {m: key_channels(spec.mixers[m], spec.hidden_size) for m in letters}
    channels, letter = min(((n, m) for m, n in kept.items() if n), default=(None, ""))
    return None if channels is None else (letter, channels)


def _recall(pairs: int, max_length: int) -> Task:
    length = 4 * pairs  # the tightest that holds context and queries, as measured
    return MultiQueryRecall(vocab_size=_power_above(length), length=length, num_pairs=pairs)


def _forgetting(pairs: int, max_length: int) -> Task:
    keys = max(1, pairs // 2)  # half of what is written overwrites the other half
    length = 6 * keys
    return ForgettingRecall(
        vocab_size=_power_above(length), length=length, num_pairs=keys, num_updates=keys
    )


def _in_context(pairs: int, max_length: int) -> Task:
    return InContextRecall(vocab_size=2 * max(2, pairs), length=8 * max(2, pairs))


def _copy(pairs: int, max_length: int) -> Task:
    return SelectiveCopy(length=4 * pairs, num_copied=pairs)


def _palindrome(pairs: int, max_length: int) -> Task:
    return Palindrome(length=2 * pairs)


def _variables(pairs: int, max_length: int) -> Task:
    chains = max(1, pairs // 4)
    vocab_size = _power_above(3 * 4 * chains + 3)
    return VariableTracking(vocab_size=vocab_size, length=32 * chains, num_chains=chains)


def _needle(pairs: int, max_length: int) -> Task:
    # As long as the full model's context for each key channel, which most proxies cannot be.
    return Needle(length=min(max_length, TOKENS_PER_ASSOCIATION * pairs))


@final
@dataclass(frozen=True)
class Rule:
    """How a kind of task is made to ask for so many associations.

    Attributes:
        task: from associations and the longest length.
        sizes: fields of the task that decide how many it asks for, and its length.
        asks: how many a task asks for.
    """

    task: Callable[[int, int], Task]
    sizes: tuple[str, ...]
    asks: Callable[[Any], float]


PRESSED: dict[str, Rule] = {
    "mqar": Rule(_recall, ("length", "num_pairs"), lambda t: t.num_pairs),
    "forgetting_recall": Rule(
        _forgetting,
        ("length", "num_pairs", "num_updates"),
        lambda t: t.num_pairs + t.num_updates,
    ),
    "in_context_recall": Rule(_in_context, ("length", "vocab_size"), lambda t: t.vocab_size // 2),
    "selective_copy": Rule(_copy, ("length", "num_copied"), lambda t: t.num_copied),
    "palindrome": Rule(_palindrome, ("length",), lambda t: t.length // 2),
    "variable_tracking": Rule(
        _variables, ("length", "num_chains", "num_hops"), lambda t: t.num_variables
    ),
    "needle": Rule(_needle, ("length",), lambda t: t.length / TOKENS_PER_ASSOCIATION),
}


def task_at(kind: str, pressure: float, key_channels: int, max_length: int = 1024) -> Task:
    """Return a task that asks a layer with so many key channels to keep `pressure` times as much.

    Args:
        kind: one of PRESSED; the others have no capacity that a setting controls.
        pressure: associations for each that is kept.
        key_channels: of one layer of the proxy, see the module.
        max_length: longest sequence; only `needle` is cut to it.

    Raises:
        SpecError: there is no such task, or it is longer.
    """
    if kind not in PRESSED:
        raise unknown("task", kind, PRESSED, "task whose pressure can be set")
    require_positive(pressure=pressure, key_channels=key_channels)
    task = PRESSED[kind].task(max(1, round(pressure * key_channels)), max_length)
    if task.length > max_length:
        raise bad_value(
            "pressure",
            f"{pressure:g}",
            f"{kind} has {task.length} tokens then; at most {max_length}",
        )
    return task


def associations(task: Task) -> float | None:
    """Return how many associations a task asks to be kept; None for one that has no rule."""
    return PRESSED[task.kind].asks(task) if task.kind in PRESSED else None


def resized(task: Task, pressure: float, key_channels: int, max_length: int) -> Task:
    """Return a task as it is, at another pressure: other sizes, all else its own.

    Its vocabulary stays where it is large enough for the new sizes, else it is that of `task_at`.

    Args:
        task: of a kind in PRESSED.
        pressure, key_channels, max_length: see `task_at`.

    Raises:
        SpecError: it would be too long, or its own settings leave no room.
    """
    made = task_at(task.kind, pressure, key_channels, max_length)
    sizes = {name: getattr(made, name) for name in PRESSED[task.kind].sizes}
    try:
        return replace(task, **sizes)
    except SpecError:
        return replace(task, **{**sizes, "vocab_size": made.vocab_size})


def _power_above(length: int) -> int:
    """Return a vocabulary larger than the sequence is long, as Zoology requires."""
    return max(256, 1 << length.bit_length())
