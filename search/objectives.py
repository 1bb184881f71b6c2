"""What is wanted, by name: unit, direction, cost class, and how it is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hybridsim.errors import SpecError, unknown
from hybridsim.measure.estimate import Estimate, weakest
from hybridsim.measure.point import DECODE, PREFILL
from hybridsim.profiler.serving import SECONDS_PER_HOUR, Serving
from hybridsim.workload import Workload

MINIMIZE, MAXIMIZE = "minimize", "maximize"
CLOSED_FORM, ESTIMATED, TRAINED = "closed form", "estimated", "trained"  # cost classes
EXACT = "exact"
QUALITY = "quality"
TASK_SEPARATOR = ":"


@dataclass(frozen=True)
class Value:
    """One objective of one candidate.

    Attributes:
        value: the figure, in the objective's unit.
        low, high: its 90 % interval; None where nothing is known to draw it from.
        provenance: "exact", "measured", "interpolated", "extrapolated", "modelled", or what gave a
            quality: "proxy" or "surrogate".
    """

    value: float
    low: float | None = None
    high: float | None = None
    provenance: str = EXACT


@dataclass(frozen=True)
class Objective:
    """One thing that is wanted.

    Attributes:
        name: how commands call it.
        unit: of its values.
        direction: "minimize" or "maximize".
        cost_class: "closed form" (microseconds), "estimated" (from the device's rows where it has
            some, else the roofline), or "trained" (seconds to minutes a candidate).
        title: one line for people.
        compute: from a served candidate and a workload; None for what is trained.
    """

    name: str
    unit: str
    direction: str
    cost_class: str
    title: str
    compute: Callable[[Serving, Workload], Value] | None = None

    @property
    def sign(self) -> float:
        """What makes less the better of the value."""
        return 1.0 if self.direction == MINIMIZE else -1.0


def _time(estimate: Estimate) -> Value:
    return Value(estimate.latency_s, estimate.low_s, estimate.high_s, estimate.provenance)


def _prefill_latency(serving: Serving, workload: Workload) -> Value:
    return _time(serving.estimate(PREFILL, 1, workload.prompt_tokens))


def _decode_latency(serving: Serving, workload: Workload) -> Value:
    return _time(serving.mean_decode(workload))


def _tokens_per_s(serving: Serving, workload: Workload) -> Value:
    batch = serving.largest_batch_size(workload.total_tokens)
    if batch == 0:
        return Value(0.0)
    step = serving.estimate(DECODE, batch, workload.total_tokens)
    low = None if step.high_s is None else batch / step.high_s
    high = None if step.low_s is None else batch / step.low_s
    return Value(batch / step.latency_s, low, high, step.provenance)


def _cache_bytes(serving: Serving, workload: Workload) -> Value:
    return Value(float(serving.cache_bytes(workload.context_target)))


def _memory_bytes(serving: Serving, workload: Workload) -> Value:
    memory = serving.memory(workload.context_target, workload.concurrency)
    return Value(float(memory["total_bytes"]))


def _parameters(serving: Serving, workload: Workload) -> Value:
    return Value(float(serving.costs.parameters.total))


def _usd_per_million_tokens(serving: Serving, workload: Workload) -> Value:
    price = serving.hardware.total_price_usd_per_hour
    if price is None:
        raise SpecError(
            f"hardware.price_usd_per_hour=null: {serving.hardware.name} has no published price;"
            " give one for the objective usd_per_million_tokens"
        )
    first, later = _prefill_latency(serving, workload), _decode_latency(serving, workload)
    usd_per_s = price / SECONDS_PER_HOUR * 1e6 / workload.total_tokens
    steps = workload.output_tokens / workload.concurrency

    def usd(ttft_s: float | None, tpot_s: float | None) -> float | None:
        if ttft_s is None or tpot_s is None:
            return None
        return usd_per_s * (ttft_s + steps * tpot_s)

    value = usd(first.value, later.value)
    assert value is not None
    origin = weakest([first.provenance, later.provenance])
    return Value(value, usd(first.low, later.low), usd(first.high, later.high), origin)


_COSTS = [
    Objective(
        "prefill_latency",
        "s",
        MINIMIZE,
        ESTIMATED,
        "time to the first token: one prompt by itself",
        _prefill_latency,
    ),
    Objective(
        "decode_latency",
        "s",
        MINIMIZE,
        ESTIMATED,
        "time of a decode step of all sequences, mean over the answer",
        _decode_latency,
    ),
    Objective(
        "tokens_per_s",
        "tokens/s",
        MAXIMIZE,
        ESTIMATED,
        "decoded tokens a second at the largest batch that fits",
        _tokens_per_s,
    ),
    Objective(
        "cache_bytes",
        "B",
        MINIMIZE,
        CLOSED_FORM,
        "cache and state of one sequence at the context target",
        _cache_bytes,
    ),
    Objective(
        "memory_bytes",
        "B",
        MINIMIZE,
        CLOSED_FORM,
        "weights, caches and activations of all sequences at the context target",
        _memory_bytes,
    ),
    Objective("parameters", "", MINIMIZE, CLOSED_FORM, "all parameters", _parameters),
    Objective(
        "usd_per_million_tokens",
        "USD",
        MINIMIZE,
        ESTIMATED,
        "price of a million tokens of the workload, prompts and answers",
        _usd_per_million_tokens,
    ),
]
OBJECTIVES = {
    **{objective.name: objective for objective in _COSTS},
    QUALITY: Objective(QUALITY, "", MAXIMIZE, TRAINED, "weighted quality of the workload's tasks"),
}


def find_objective(name: str) -> Objective:
    """Return the objective of that name; `quality:TASK` is the quality of one task.

    Raises:
        SpecError: there is none.
    """
    kind, separator, task = name.partition(TASK_SEPARATOR)
    if separator and kind == QUALITY and task:
        return Objective(name, "", MAXIMIZE, TRAINED, f"quality of the task {task}")
    if name not in OBJECTIVES:
        raise unknown("objectives", name, [*OBJECTIVES, f"{QUALITY}:TASK"], "objective")
    return OBJECTIVES[name]
