"""The cost of one op of the graph, whatever its kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.errors import bad_value
from hybridsim.ffn import FfnCost, FfnSettings, ffn_cost
from hybridsim.graph import ADD, EMBEDDING, HEAD, NORM, Op
from hybridsim.mixers import CacheShape, MixerCost, MixerSettings, mixer_cost
from hybridsim.steps import Step

MAX_ROUTING_SKEW = 10  # beyond, one expert takes everything


@dataclass(frozen=True)
class Deployment:
    """How a model is served, apart from the device.

    Attributes:
        dtypes: number formats.
        conventions: what counts as a FLOP.
        routing_skew: exponent of the experts' Zipf popularity; 0 is uniform (see routing.py).
        prefill_chunk_tokens: tokens of all sequences that one prefill pass takes at most; it bounds
            the memory of activations.
        memory_utilization: the part of the device's memory that may be used.
    """

    dtypes: Dtypes = field(default_factory=Dtypes)
    conventions: FlopConventions = field(default_factory=FlopConventions)
    routing_skew: float = 0.0
    prefill_chunk_tokens: int = 8192
    memory_utilization: float = 0.9

    def __post_init__(self) -> None:
        if not 0 <= self.routing_skew <= MAX_ROUTING_SKEW:
            raise bad_value(
                "routing_skew", self.routing_skew, f"must be 0 (uniform) to {MAX_ROUTING_SKEW}"
            )
        if self.prefill_chunk_tokens < 1:
            raise bad_value("prefill_chunk_tokens", self.prefill_chunk_tokens, "must be at least 1")
        if not 0 < self.memory_utilization <= 1:
            raise bad_value(
                "memory_utilization", self.memory_utilization, "must be above 0, at most 1"
            )


class OpCost(ABC):
    """Closed-form costs of one op; per sequence unless a batch is given, forward only."""

    parameters: int = 0
    peak_elements_per_token: int = 0

    @property
    def active_parameters(self) -> int:
        """Parameters that one token meets."""
        return self.parameters

    def cache(self, dtypes: Dtypes) -> CacheShape:
        """Return what the op keeps for one sequence."""
        return CacheShape()

    def flops(self, step: Step, conventions: FlopConventions) -> int:
        """Return the FLOPs of one sequence's step."""
        return 0

    def weight_elements(self, step: Step, batch_size: int, deployment: Deployment) -> float:
        """Return the parameters that a step of the whole batch reads."""
        return self.parameters

    @abstractmethod
    def activation_elements(self, step: Step, conventions: FlopConventions) -> int:
        """Return the activations that one sequence's step reads and writes."""

    def cache_bytes(self, step: Step, dtypes: Dtypes) -> int:
        """Return the bytes of cache and state that one sequence's step reads and writes."""
        return 0


class _EmbeddingCost(OpCost):
    def __init__(self, op: Op) -> None:
        self.op = op
        self.parameters = op.vocab_size * op.hidden_size

    def weight_elements(self, step: Step, batch_size: int, deployment: Deployment) -> float:
        # One row a token, at most all of them.
        rows = min(self.op.vocab_size, step.new_tokens * batch_size)
        return rows * self.op.hidden_size

    def activation_elements(self, step: Step, conventions: FlopConventions) -> int:
        return step.new_tokens * self.op.hidden_size


class _NormCost(OpCost):
    def __init__(self, op: Op) -> None:
        self.parameters = op.hidden_size

    def activation_elements(self, step: Step, conventions: FlopConventions) -> int:
        return step.new_tokens * 2 * self.parameters


class _AddCost(OpCost):
    def __init__(self, op: Op) -> None:
        self.op = op

    def activation_elements(self, step: Step, conventions: FlopConventions) -> int:
        return step.new_tokens * (self.op.inputs + 1) * self.op.hidden_size


class _HeadCost(OpCost):
    def __init__(self, op: Op) -> None:
        self.op = op
        self.matrix = op.vocab_size * op.hidden_size
        self.parameters = 0 if op.tied else self.matrix

    def scored_tokens(self, step: Step, conventions: FlopConventions) -> int:
        """Return the positions whose logits are computed."""
        return 1 if conventions.logits == "last" else step.new_tokens

    def flops(self, step: Step, conventions: FlopConventions) -> int:
        return 2 * self.matrix * self.scored_tokens(step, conventions)

    def weight_elements(self, step: Step, batch_size: int, deployment: Deployment) -> float:
        return self.matrix

    def activation_elements(self, step: Step, conventions: FlopConventions) -> int:
        width = self.op.hidden_size + self.op.vocab_size
        return width * self.scored_tokens(step, conventions)


class _MixerOpCost(OpCost):
    def __init__(self, cost: MixerCost) -> None:
        self.cost = cost
        self.parameters = cost.parameters
        self.peak_elements_per_token = cost.peak_elements_per_token

    def cache(self, dtypes: Dtypes) -> CacheShape:
        return self.cost.cache(dtypes)

    def flops(self, step: Step, conventions: FlopConventions) -> int:
        return self.cost.forward_flops(step, conventions)

    def weight_elements(self, step: Step, batch_size: int, deployment: Deployment) -> float:
        return self.cost.step_parameters(step)

    def activation_elements(self, step: Step, conventions: FlopConventions) -> int:
        return self.cost.activation_elements(step)

    def cache_bytes(self, step: Step, dtypes: Dtypes) -> int:
        return self.cost.cache_read_bytes(step, dtypes) + self.cost.cache_write_bytes(step, dtypes)


class _FfnOpCost(OpCost):
    def __init__(self, cost: FfnCost) -> None:
        self.cost = cost
        self.parameters = cost.parameters
        self.peak_elements_per_token = cost.peak_elements_per_token

    @property
    def active_parameters(self) -> int:
        return self.cost.active_parameters

    def flops(self, step: Step, conventions: FlopConventions) -> int:
        return step.new_tokens * self.cost.forward_flops_per_token

    def weight_elements(self, step: Step, batch_size: int, deployment: Deployment) -> float:
        tokens = step.new_tokens * batch_size
        return self.cost.touched_parameters(tokens, deployment.routing_skew)

    def activation_elements(self, step: Step, conventions: FlopConventions) -> int:
        return step.new_tokens * self.cost.activation_elements_per_token


_PLAIN: dict[str, type[OpCost]] = {
    EMBEDDING: _EmbeddingCost,
    NORM: _NormCost,
    ADD: _AddCost,
    HEAD: _HeadCost,
}


@lru_cache(maxsize=65536)
def op_cost(op: Op) -> OpCost:
    """Return the closed-form costs of an op."""
    if isinstance(op.settings, MixerSettings):
        return _MixerOpCost(mixer_cost(op.settings, op.hidden_size))
    if isinstance(op.settings, FfnSettings):
        return _FfnOpCost(ffn_cost(op.settings, op.hidden_size))
    return _PLAIN[op.kind](op)  # type: ignore[call-arg]


def op_bytes(op: Op, step: Step, batch_size: int, deployment: Deployment) -> float:
    """Return the bytes that a step of `batch_size` sequences moves: weights once, the rest each."""
    cost, dtypes = op_cost(op), deployment.dtypes
    weights = bytes_of(cost.weight_elements(step, batch_size, deployment), dtypes.weights)
    elements = cost.activation_elements(step, deployment.conventions)
    return weights + batch_size * (
        bytes_of(elements, dtypes.activations) + cost.cache_bytes(step, dtypes)
    )
