"""Serving: points of a sweep over contexts, and the figures of a workload.

Times are from the device's rows where it has some, else modelled.
"""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any, Protocol

from hybridsim.conventions import SERVED
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import (
    StepTime,
    answer_weights,
    fits,
    largest_batch_size,
    step_time,
)
from hybridsim.hardware import Hardware
from hybridsim.measure.estimate import Estimate, total, weakest
from hybridsim.measure.point import DECODE, PREFILL
from hybridsim.steps import decode, prefill
from hybridsim.workload import Workload

SECONDS_PER_HOUR = 3600

Point = dict[str, Any]


class StepTimes(Protocol):
    """What gives the times of a model's steps."""

    def estimate(self, phase: str, batch_size: int, context_tokens: int) -> Estimate:
        """Return the time of a prefill of, or of a decode step after, `context_tokens` each."""


def time_record(estimate: Estimate, name: str = "") -> dict[str, Any]:
    """Return a time's keys in records, beginning with a name where one is given."""
    time, start = (f"{name}", f"{name}_") if name else ("latency", "")
    return {
        f"{time}_s": estimate.latency_s,
        f"{time}_low_s": estimate.low_s,
        f"{time}_high_s": estimate.high_s,
        f"{start}provenance": estimate.provenance,
        f"{start}backend": "; ".join(sorted(estimate.backends)) or None,
    }


class Serving:
    """A model on a device, as an engine serves it: logits at the last position only.

    Args:
        costs: closed forms.
        deployment: how it is served.
        hardware: the device.
        native_context: tokens that the model was trained for.
        times: from the device's rows; None models every time.
    """

    def __init__(
        self,
        costs: ModelCosts,
        deployment: Deployment,
        hardware: Hardware,
        native_context: float = math.inf,
        times: StepTimes | None = None,
    ) -> None:
        self.costs = costs
        self.native_context = native_context
        self.deployment = replace(deployment, conventions=SERVED)
        self.hardware = hardware
        self.times = times

    def cache_bytes(self, context_tokens: int) -> int:
        """Return everything that one sequence keeps."""
        return self.costs.cache_bytes(context_tokens, self.deployment.dtypes)

    def point(self, context_tokens: int, batch_size: int) -> Point:
        """Return prefill, decode and memory of `batch_size` sequences of `context_tokens`.

        Prefill reads the whole context; decode adds one token to each sequence after it.
        """
        return {
            "context_tokens": context_tokens,
            "batch_size": batch_size,
            "prefill": self._phase(PREFILL, batch_size, context_tokens),
            "decode": self._phase(DECODE, batch_size, context_tokens),
            "memory": self.memory(context_tokens, batch_size),
        }

    def _phase(self, phase: str, batch_size: int, context_tokens: int) -> dict[str, Any]:
        step = self._step(phase, batch_size, context_tokens)
        estimate = self.estimate(phase, batch_size, context_tokens)
        record = {"flops": step.flops, "bytes": round(step.moved_bytes), **time_record(estimate)}
        if phase == DECODE:
            record["tokens_per_s"] = batch_size / estimate.latency_s
        return record

    def _step(self, phase: str, batch_size: int, context_tokens: int) -> StepTime:
        step = prefill(context_tokens) if phase == PREFILL else decode(context_tokens)
        return step_time(self.costs.ops, step, batch_size, self.deployment, self.hardware)

    def estimate(self, phase: str, batch_size: int, context_tokens: int) -> Estimate:
        """Return the time of a prefill of, or of a decode step after, `context_tokens` each."""
        if self.times is not None:
            return self.times.estimate(phase, batch_size, context_tokens)
        return Estimate(self._step(phase, batch_size, context_tokens).latency_s)

    def mean_decode(self, workload: Workload) -> Estimate:
        """Return the time of one decode step of all sequences, averaged over an answer."""
        positions = answer_weights(workload.output_tokens)
        return total(
            [
                (weight, self.estimate(DECODE, workload.concurrency, workload.prompt_tokens + n))
                for weight, n in positions
            ]
        )

    def request(self, workload: Workload, batch_size: int) -> Estimate:
        """Return the device time of one request served with others, without queueing.

        Its prompt by itself, and its part of the decode steps of `batch_size` sequences together.
        """
        first = self.estimate(PREFILL, 1, workload.prompt_tokens)
        later = self.mean_decode(replace(workload, concurrency=batch_size))
        return total([(1, first), (workload.output_tokens / batch_size, later)])

    def memory(self, context_tokens: int, batch_size: int) -> dict[str, Any]:
        """Return the bytes of each part, and whether the usable memory holds them."""
        memory = self.costs.memory(context_tokens, batch_size, self.deployment)
        parts = {name: round(value) for name, value in asdict(memory).items()}
        return {
            **parts,
            "total_bytes": sum(parts.values()),
            "fits": fits(self.costs, context_tokens, batch_size, self.deployment, self.hardware),
        }

    def workload(self, workload: Workload) -> dict[str, Any]:
        """Return TTFT, TPOT, throughput, memory and cost of a workload, without queueing.

        TTFT is the prefill of one prompt by itself. TPOT is the mean decode step of all sequences
        together. A request's share of the device: its prompt, and its part of its decode steps.
        """
        concurrency = workload.concurrency
        first = self.estimate(PREFILL, 1, workload.prompt_tokens)
        later = self.mean_decode(workload)
        ttft_s, tpot_s = first.latency_s, later.latency_s
        per_million = {
            "prompt": ttft_s / workload.prompt_tokens * 1e6,
            "output": tpot_s / concurrency * 1e6,
        }
        request_device_s = self.request(workload, concurrency).latency_s
        largest = self.largest_batch_size(workload.total_tokens)
        return {
            **asdict(workload),
            **time_record(first, "ttft"),
            **time_record(later, "tpot"),
            "decode_tokens_per_s": concurrency / tpot_s,
            "output_tokens_per_s": workload.output_tokens / request_device_s,
            "memory": self.memory(workload.total_tokens, concurrency),
            "largest_batch_size": largest,
            "largest_batch_size_at_context_target": self.largest_batch_size(
                workload.context_target
            ),
            "decode_tokens_per_s_at_largest_batch": self._decode_tokens_per_s(workload, largest),
            "device_s_per_million_tokens": {
                part: self.hardware.num_devices * time_s for part, time_s in per_million.items()
            },
            "cost_usd_per_million_tokens": {
                part: self._usd(time_s) for part, time_s in per_million.items()
            },
            "beyond_native_context": workload.total_tokens > self.native_context,
            "provenance": weakest([first.provenance, later.provenance]),
        }

    def _decode_tokens_per_s(self, workload: Workload, batch_size: int) -> float | None:
        """Return the rate of decoding with so many sequences; None where none fits."""
        if not batch_size:
            return None
        step = self.mean_decode(replace(workload, concurrency=batch_size))
        return batch_size / step.latency_s

    def largest_batch_size(self, context_tokens: int) -> int:
        """Return the most sequences of `context_tokens` that fit; 0 where not even one does."""
        return largest_batch_size(self.costs, context_tokens, self.deployment, self.hardware)

    def _usd(self, time_s: float) -> float | None:
        """Return what all devices cost in that time."""
        price = self.hardware.total_price_usd_per_hour
        return None if price is None else time_s / SECONDS_PER_HOUR * price
