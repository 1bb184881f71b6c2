"""Costs of a whole model: sums over the ops of its graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.cost.op import Deployment, OpCost, op_bytes, op_cost
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.graph import EMBEDDING, FFN, HEAD, ModelGraph, Op
from hybridsim.steps import Step


@dataclass(frozen=True)
class Parameters:
    """Parameters of a model, and those a token meets in the three conventions in use.

    Attributes:
        total: all, tied embeddings once, router offsets (buffers) left out.
        active: a token's experts instead of all experts; embedding and head included.
        active_excluding_input_embedding: also without the embedding table, unless it is the head.
        active_excluding_embeddings: also without the head.
    """

    total: int
    active: int
    active_excluding_input_embedding: int
    active_excluding_embeddings: int


@dataclass(frozen=True)
class MemoryBytes:
    """Bytes a deployment needs at once."""

    weights_bytes: float
    kv_cache_bytes: int
    state_bytes: int
    activation_bytes: float

    @property
    def total_bytes(self) -> float:
        """All of them."""
        return self.weights_bytes + self.kv_cache_bytes + self.state_bytes + self.activation_bytes


class ModelCosts:
    """Closed-form costs of the ops of a graph, each with how often it occurs."""

    def __init__(self, ops: Mapping[Op, int]) -> None:
        self.ops = dict(ops)
        self._costs: list[tuple[OpCost, int]] = [(op_cost(op), n) for op, n in self.ops.items()]

    @classmethod
    def of(cls, graph: ModelGraph) -> ModelCosts:
        """Return the costs of a graph."""
        return cls(graph.op_counts())

    @cached_property
    def parameters(self) -> Parameters:
        """Parameters in every convention."""
        active = sum(n * cost.active_parameters for cost, n in self._costs)
        outside = {
            op.kind: op_cost(op).parameters for op in self.ops if op.kind in (EMBEDDING, HEAD)
        }
        tied = outside[HEAD] == 0
        without_input = active if tied else active - outside[EMBEDDING]
        return Parameters(
            total=sum(n * cost.parameters for cost, n in self._costs),
            active=active,
            active_excluding_input_embedding=without_input,
            active_excluding_embeddings=active - outside[EMBEDDING] - outside[HEAD],
        )

    def parameters_by_part(self) -> Counter[str]:
        """Return the parameters of each kind of mixer, feed-forward and other op."""
        parts: Counter[str] = Counter()
        for op, n in self.ops.items():
            parts[op.part] += n * op_cost(op).parameters
        return parts

    def kv_bytes_per_token(self, dtypes: Dtypes) -> int:
        """Return the bytes that every further token adds to the cache; windowed layers add none."""
        return sum(
            n * cache.bytes_per_token
            for cost, n in self._costs
            if (cache := cost.cache(dtypes)).window_tokens is None
        )

    def window_bytes(self, dtypes: Dtypes) -> int:
        """Return the bytes that the windowed layers of one sequence keep once they are full."""
        caches = [(cost.cache(dtypes), n) for cost, n in self._costs]
        return sum(
            n * cache.kv_bytes(cache.window_tokens)
            for cache, n in caches
            if cache.window_tokens is not None
        )

    def kv_cache_bytes(self, context_tokens: int, dtypes: Dtypes) -> int:
        """Return the bytes of keys, values, latents and index keys of one sequence."""
        return sum(n * cost.cache(dtypes).kv_bytes(context_tokens) for cost, n in self._costs)

    def state_bytes(self, dtypes: Dtypes) -> int:
        """Return the bytes of recurrent and convolution state of one sequence."""
        return sum(n * cost.cache(dtypes).state_bytes for cost, n in self._costs)

    def cache_bytes(self, context_tokens: int, dtypes: Dtypes) -> int:
        """Return everything that one sequence keeps."""
        return self.kv_cache_bytes(context_tokens, dtypes) + self.state_bytes(dtypes)

    def forward_flops(self, step: Step, conventions: FlopConventions) -> int:
        """Return the FLOPs of one sequence's step."""
        return sum(n * cost.flops(step, conventions) for cost, n in self._costs)

    def cache_traffic_bytes(self, step: Step, dtypes: Dtypes) -> int:
        """Return the bytes of cache and state that one sequence's step reads and writes."""
        return sum(n * cost.cache_bytes(step, dtypes) for cost, n in self._costs)

    def moved_bytes(self, step: Step, batch_size: int, deployment: Deployment) -> float:
        """Return the bytes that a step of `batch_size` sequences moves."""
        return sum(n * op_bytes(op, step, batch_size, deployment) for op, n in self.ops.items())

    def weights_bytes(self, dtypes: Dtypes) -> float:
        """Return the bytes of all parameters."""
        return bytes_of(self.parameters.total, dtypes.weights)

    def memory(self, context_tokens: int, batch_size: int, deployment: Deployment) -> MemoryBytes:
        """Return what `batch_size` sequences of `context_tokens` need at once.

        Activations are those of the largest pass, a prefill chunk or one token a sequence, where
        most are alive: in a mixer beside the residual stream and its norm, in a feed-forward
        beside the layer's input too, or in the logits of the last position of each sequence.
        """
        dtypes = deployment.dtypes
        tokens = max(batch_size, min(batch_size * context_tokens, deployment.prefill_chunk_tokens))
        head = next(op for op in self.ops if op.kind == HEAD)
        widest = max(
            (3 if op.kind == FFN else 2) * head.hidden_size + cost.peak_elements_per_token
            for op, (cost, _) in zip(self.ops, self._costs, strict=True)
        )
        elements = max(tokens * widest, batch_size * head.vocab_size)
        return MemoryBytes(
            weights_bytes=self.weights_bytes(dtypes),
            kv_cache_bytes=batch_size * self.kv_cache_bytes(context_tokens, dtypes),
            state_bytes=batch_size * self.state_bytes(dtypes),
            activation_bytes=bytes_of(elements, dtypes.activations),
        )
