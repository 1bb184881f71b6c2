"""What a profile covers and how it counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from hybridsim.conventions import FlopConventions
from hybridsim.cost.op import Deployment
from hybridsim.dtypes import Dtypes
from hybridsim.errors import bad_value

DEFAULT_CONTEXTS = tuple(1 << power for power in range(10, 21))  # 1k to 1M


@dataclass(frozen=True)
class FlopCountSettings:
    """The forward pass on which closed form and counters are compared.

    Attributes:
        prompt_tokens: tokens of the pass.
        count: run the counters too; without them only closed forms are given (and torch stays out).
    """

    prompt_tokens: int = 4096
    count: bool = True

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1:
            raise bad_value("prompt_tokens", self.prompt_tokens, "must be at least 1")


@dataclass(frozen=True)
class ProfileSettings:
    """What a profile covers and how it counts.

    Attributes:
        contexts: prompt lengths of the sweep, in tokens.
        batch_sizes: sequences served together, each with every context.
        flops: the pass that is counted three ways.
        dtypes: number formats.
        conventions: what counts as a FLOP.
        routing_skew, prefill_chunk_tokens, memory_utilization: see Deployment.
        utilisation: the part of the largest batch that fits which is served at once, when a model
            is held against its all-full twin; see payoff.py.
    """

    contexts: tuple[int, ...] = DEFAULT_CONTEXTS
    batch_sizes: tuple[int, ...] = (1,)
    flops: FlopCountSettings = field(default_factory=FlopCountSettings)
    dtypes: Dtypes = field(default_factory=Dtypes)
    conventions: FlopConventions = field(default_factory=FlopConventions)
    routing_skew: float = 0.0
    prefill_chunk_tokens: int = 8192
    memory_utilization: float = 0.9
    utilisation: float = 0.5

    def __post_init__(self) -> None:
        for name in ("contexts", "batch_sizes"):
            values = getattr(self, name)
            if not values:
                raise bad_value(name, "[]", "give at least one number")
            for value in values:
                if value < 1:
                    raise bad_value(name, list(values), f"{value} must be at least 1")
        if not 0 < self.utilisation <= 1:
            raise bad_value("utilisation", self.utilisation, "must be above 0, at most 1")
        self.deployment()  # checks the rest

    def deployment(self) -> Deployment:
        """Return how the model is served."""
        return Deployment(
            self.dtypes,
            self.conventions,
            self.routing_skew,
            self.prefill_chunk_tokens,
            self.memory_utilization,
        )
