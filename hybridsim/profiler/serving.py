"""Modelled serving: points of a sweep over contexts, and the figures of a workload."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

from hybridsim.conventions import SERVED
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import (
    MODELLED,
    fits,
    largest_batch_size,
    mean_decode_latency_s,
    step_time,
)
from hybridsim.hardware import Hardware
from hybridsim.steps import decode, prefill
from hybridsim.workload import Workload

SECONDS_PER_HOUR = 3600

Point = dict[str, Any]


class Serving:
    """A model on a device, as an engine serves it: logits at the last position only."""

    def __init__(
        self,
        costs: ModelCosts,
        deployment: Deployment,
        hardware: Hardware,
        native_context: float = math.inf,
    ) -> None:
        self.costs = costs
        self.native_context = native_context
        self.deployment = replace(deployment, conventions=SERVED)
        self.hardware = hardware

    def cache_bytes(self, context_tokens: int) -> int:
        """Return everything that one sequence keeps."""
        return self.costs.cache_bytes(context_tokens, self.deployment.dtypes)

    def point(self, context_tokens: int, batch_size: int) -> Point:
        """Return prefill, decode and memory of `batch_size` sequences of `context_tokens`.

        Prefill reads the whole context; decode adds one token to each sequence after it.
        """
        read, write = (
            step_time(self.costs.ops, step, batch_size, self.deployment, self.hardware)
            for step in (prefill(context_tokens), decode(context_tokens))
        )
        return {
            "context_tokens": context_tokens,
            "batch_size": batch_size,
            "prefill": {
                "flops": read.flops,
                "bytes": round(read.moved_bytes),
                "latency_s": read.latency_s,
                "provenance": MODELLED,
            },
            "decode": {
                "flops": write.flops,
                "bytes": round(write.moved_bytes),
                "latency_s": write.latency_s,
                "tokens_per_s": batch_size / write.latency_s,
                "provenance": MODELLED,
            },
            "memory": self.memory(context_tokens, batch_size),
        }

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
        ttft_s = step_time(
            self.costs.ops, prefill(workload.prompt_tokens), 1, self.deployment, self.hardware
        ).latency_s
        tpot_s = mean_decode_latency_s(
            self.costs,
            workload.prompt_tokens,
            workload.output_tokens,
            concurrency,
            self.deployment,
            self.hardware,
        )
        per_million = {
            "prompt": ttft_s / workload.prompt_tokens * 1e6,
            "output": tpot_s / concurrency * 1e6,
        }
        request_device_s = ttft_s + workload.output_tokens * tpot_s / concurrency
        return {
            **asdict(workload),
            "ttft_s": ttft_s,
            "tpot_s": tpot_s,
            "decode_tokens_per_s": concurrency / tpot_s,
            "output_tokens_per_s": workload.output_tokens / request_device_s,
            "memory": self.memory(workload.total_tokens, concurrency),
            "largest_batch_size": self._largest_batch_size(workload.total_tokens),
            "largest_batch_size_at_context_target": self._largest_batch_size(
                workload.context_target
            ),
            "device_s_per_million_tokens": {
                part: self.hardware.num_devices * time_s for part, time_s in per_million.items()
            },
            "cost_usd_per_million_tokens": {
                part: self._usd(time_s) for part, time_s in per_million.items()
            },
            "beyond_native_context": workload.total_tokens > self.native_context,
            "provenance": MODELLED,
        }

    def _largest_batch_size(self, context_tokens: int) -> int:
        return largest_batch_size(self.costs, context_tokens, self.deployment, self.hardware)

    def _usd(self, time_s: float) -> float | None:
        """Return what all devices cost in that time."""
        price = self.hardware.total_price_usd_per_hour
        return None if price is None else time_s / SECONDS_PER_HOUR * price
