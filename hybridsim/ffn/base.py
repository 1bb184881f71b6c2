"""The contract of a feed-forward's settings and closed-form costs. No torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from hybridsim.routing import expected_experts


@dataclass(frozen=True)
class FfnSettings(ABC):
    """Settings of one kind of feed-forward: a frozen dataclass that checks itself."""

    kind: ClassVar[str]

    def canonical(self) -> FfnSettings:
        """Return the one form of all settings that mean the same computation."""
        return self


class FfnCost(ABC):
    """Closed-form costs of one feed-forward layer, forward only.

    Subclasses give the weights as shapes: those that every token meets, and those of one routed
    expert with how many experts there are and how many a token meets. Biases are vectors: they are
    parameters and bytes, but no FLOPs.
    """

    num_experts: int = 0
    num_experts_per_tok: int = 0

    def __init__(self, settings: FfnSettings, hidden_size: int) -> None:
        self.settings = settings
        self.hidden_size = hidden_size

    @property
    @abstractmethod
    def linears(self) -> dict[str, tuple[int, int]]:
        """Weight matrices that every token meets, by name, as (inputs, outputs)."""

    @property
    def vectors(self) -> dict[str, int]:
        """Other parameters that every token meets, by name: biases."""
        return {}

    @property
    def expert_linears(self) -> dict[str, tuple[int, int]]:
        """Weight matrices of one routed expert, by name, as (inputs, outputs)."""
        return {}

    @property
    def expert_vectors(self) -> dict[str, int]:
        """Other parameters of one routed expert, by name: biases."""
        return {}

    @cached_property
    def expert_parameters(self) -> int:
        """Parameters of one routed expert."""
        return _weights(self.expert_linears) + sum(self.expert_vectors.values())

    @cached_property
    def common_parameters(self) -> int:
        """Parameters that every token meets."""
        return _weights(self.linears) + sum(self.vectors.values())

    @cached_property
    def parameters(self) -> int:
        """All parameters of the layer's feed-forward, its norm before it left out."""
        return self.common_parameters + self.num_experts * self.expert_parameters

    @cached_property
    def active_parameters(self) -> int:
        """Parameters that one token meets."""
        return self.common_parameters + self.num_experts_per_tok * self.expert_parameters

    def touched_parameters(self, tokens: int, skew: float) -> float:
        """Return the expected parameters that `tokens` tokens together need from memory."""
        if not self.num_experts:
            return self.common_parameters
        touched = expected_experts(self.num_experts, self.num_experts_per_tok, tokens, skew)
        return self.common_parameters + touched * self.expert_parameters

    @cached_property
    def forward_flops_per_token(self) -> int:
        """FLOPs of one token: 2 per weight met."""
        return 2 * (
            _weights(self.linears) + self.num_experts_per_tok * _weights(self.expert_linears)
        )

    @cached_property
    def activation_elements_per_token(self) -> int:
        """Activations read and written per token: each matrix product's inputs and outputs."""
        shared = sum(i + o for i, o in self.linears.values())
        routed = sum(i + o for i, o in self.expert_linears.values())
        return shared + self.num_experts_per_tok * routed

    @property
    @abstractmethod
    def peak_elements_per_token(self) -> int:
        """Activations alive at once inside the feed-forward in a prefill, its output included.

        Per token, in numbers of `dtypes.activations`: what is allocated on a GPU
        (`benchmarks/memory.py`).
        """


def alive_inner(activation: str, gated: bool) -> int:
    """Return how many tensors of the inner width are alive while the activation is computed.

    SiLU and its product are one kernel: gate, up, and what comes out. Others leave their steps.
    """
    if activation == "swiglu_oai":  # both limited, the factor, its sigmoid, a product
        return 7
    if gated:
        return 3 if activation == "silu" else 4
    return 3 if activation == "relu2" else 2


def _weights(linears: dict[str, tuple[int, int]]) -> int:
    return sum(math.prod(shape) for shape in linears.values())
