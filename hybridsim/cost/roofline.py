"""Time of a step on a device: each op is bound by compute or by bandwidth, and times add up.

A modelled lower bound: matrix products at the device's peak, bytes at its full bandwidth, no launch
overhead, no overlap between ops, fused cores (scores never leave the chip).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment, op_bytes, op_cost
from hybridsim.graph import Op
from hybridsim.hardware import Hardware
from hybridsim.steps import Step

MODELLED = "modelled"


@dataclass(frozen=True)
class OpTime:
    """One op's share of a step of a whole batch.

    Attributes:
        flops: of all sequences.
        moved_bytes: of all sequences, weights once.
        latency_s: the longer of compute and traffic.
        bound: "compute" or "bandwidth".
    """

    flops: int
    moved_bytes: float
    latency_s: float
    bound: str


@dataclass(frozen=True)
class StepTime:
    """A step of a whole batch, summed over the ops."""

    flops: int
    moved_bytes: float
    latency_s: float


def op_time(
    op: Op, step: Step, batch_size: int, deployment: Deployment, hardware: Hardware
) -> OpTime:
    """Return one op's FLOPs, bytes and time for a step of `batch_size` sequences."""
    flops = batch_size * op_cost(op).flops(step, deployment.conventions)
    moved = op_bytes(op, step, batch_size, deployment)
    compute_s = flops / hardware.total_flops_per_s(deployment.dtypes.products)
    traffic_s = moved / hardware.total_bandwidth_bytes_per_s
    bound = "compute" if compute_s > traffic_s else "bandwidth"
    return OpTime(flops, moved, max(compute_s, traffic_s), bound)


def step_time(
    ops: Mapping[Op, int], step: Step, batch_size: int, deployment: Deployment, hardware: Hardware
) -> StepTime:
    """Return a step's FLOPs, bytes and time over all ops."""
    times = [(op_time(op, step, batch_size, deployment, hardware), n) for op, n in ops.items()]
    return StepTime(
        flops=sum(n * t.flops for t, n in times),
        moved_bytes=sum(n * t.moved_bytes for t, n in times),
        latency_s=sum(n * t.latency_s for t, n in times),
    )


def answer_weights(output_tokens: int) -> list[tuple[float, int]]:
    """Return weights and positions of an answer over which the mean of its steps is taken.

    The latency is piecewise linear in the context, so Simpson's rule over the first, middle and
    last position of the answer is exact but where a bound or a sparse layer's limit is crossed.
    Where two positions are in the middle, their mean stands for it.
    """
    last = output_tokens - 1
    return [(1 / 6, 0), (1 / 3, last // 2), (1 / 3, output_tokens // 2), (1 / 6, last)]


def fits(
    costs: ModelCosts,
    context_tokens: int,
    batch_size: int,
    deployment: Deployment,
    hardware: Hardware,
) -> bool:
    """Return whether the usable memory holds `batch_size` sequences of `context_tokens`."""
    usable = hardware.total_memory_bytes * deployment.memory_utilization
    return costs.memory(context_tokens, batch_size, deployment).total_bytes <= usable


def largest_batch_size(
    costs: ModelCosts, context_tokens: int, deployment: Deployment, hardware: Hardware
) -> int:
    """Return the most sequences of `context_tokens` that fit; 0 where not even one does."""
    if not fits(costs, context_tokens, 1, deployment, hardware):
        return 0
    low, high = 1, 2
    while fits(costs, context_tokens, high, deployment, hardware):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if fits(costs, context_tokens, middle, deployment, hardware):
            low = middle
        else:
            high = middle
    return low
