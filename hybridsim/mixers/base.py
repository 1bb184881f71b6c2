"""The contract of a token mixer's settings and closed-form costs. No torch.

A mixer is a folder: `settings.py` (this file's MixerSettings), `cost.py` (MixerCost), `ops.py` (the
recurrence as functions of tensors) and `module.py` (the nn.Module), and one row of the table in
`hybridsim/mixers/__init__.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes
from hybridsim.steps import Step

KERNEL_CHUNK = 64  # tokens


@dataclass(frozen=True)
class MixerSettings(ABC):
    """Settings of one kind of mixer: a frozen dataclass that checks itself.

    Attributes:
        kind: the word that selects the mixer in a spec.
        is_full_attention: whether a layer of these settings attends to every token it has seen,
            which makes it a candidate for the all-full twin of a hybrid.
    """

    kind: ClassVar[str]

    @property
    def is_full_attention(self) -> bool:
        return False

    @property
    def selects(self) -> int | None:
        """Tokens that the mixer selects for a query and that later layers may share, or None."""
        return None

    @property
    def borrows(self) -> int | None:
        """Tokens a query takes from the selection of an earlier layer; None where it takes none."""
        return None

    def full_twin(self) -> MixerSettings | None:
        """Return the same mixer with its sparsity taken away, where that makes full attention."""
        return self if self.is_full_attention else None

    def canonical(self) -> MixerSettings:
        """Return the one form of all settings that mean the same computation."""
        return self


@dataclass(frozen=True)
class CacheShape:
    """What one layer keeps for one sequence.

    Attributes:
        bytes_per_token: keys, values, latents and index keys of one token.
        window_tokens: tokens that are kept at most; None keeps all.
        recurrent_bytes: recurrent state, whatever the context.
        conv_bytes: columns kept by short convolutions, whatever the context.
    """

    bytes_per_token: int = 0
    window_tokens: int | None = None
    recurrent_bytes: int = 0
    conv_bytes: int = 0

    @property
    def state_bytes(self) -> int:
        """Bytes whatever the context: recurrent and convolution state."""
        return self.recurrent_bytes + self.conv_bytes

    def kv_bytes(self, context_tokens: int) -> int:
        """Return the bytes of the per-token part after `context_tokens`."""
        tokens = (
            context_tokens
            if self.window_tokens is None
            else min(context_tokens, self.window_tokens)
        )
        return tokens * self.bytes_per_token


class MixerCost(ABC):
    """Closed-form costs of one mixer layer; everything per sequence, forward only.

    Subclasses give the weights as shapes, and the cost of what happens between the projections
    (the "core"). Parameters, projection FLOPs and traffic follow from the shapes.
    """

    def __init__(self, settings: MixerSettings, hidden_size: int) -> None:
        self.settings = settings
        self.hidden_size = hidden_size

    @property
    @abstractmethod
    def linears(self) -> dict[str, tuple[int, int]]:
        """Weight matrices by name, as (inputs, outputs); each is applied once to each new token."""

    @property
    @abstractmethod
    def vectors(self) -> dict[str, int]:
        """Other parameters by name: biases, norms, convolution kernels, decay rates."""

    @abstractmethod
    def cache(self, dtypes: Dtypes) -> CacheShape:
        """Return what the layer keeps for one sequence."""

    @abstractmethod
    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        """Return the FLOPs between the projections."""

    @abstractmethod
    def core_elements(self, step: Step) -> int:
        """Return the activations that a fused core reads and writes, cache and state left out."""

    def cache_read_tokens(self, step: Step) -> int:
        """Return how many cached tokens' entries one step reads: all that are kept, by default."""
        window = self.cache(Dtypes()).window_tokens
        return step.past_tokens if window is None else min(step.past_tokens, window)

    def cache_read_bytes(self, step: Step, dtypes: Dtypes) -> int:
        """Return the bytes of cache and state that one sequence's step reads."""
        cache = self.cache(dtypes)
        state = cache.state_bytes if step.past_tokens else 0
        return self.cache_read_tokens(step) * cache.bytes_per_token + state

    def cache_write_bytes(self, step: Step, dtypes: Dtypes) -> int:
        """Return the bytes of cache and state that one sequence's step writes."""
        cache = self.cache(dtypes)
        return cache.kv_bytes(step.new_tokens) + cache.state_bytes

    @cached_property
    def linear_parameters(self) -> int:
        """Parameters in weight matrices."""
        return sum(math.prod(shape) for shape in self.linears.values())

    @cached_property
    def parameters(self) -> int:
        """All parameters of the layer's mixer, its norm before it left out."""
        return self.linear_parameters + sum(self.vectors.values())

    def idle_linears(self, step: Step) -> tuple[str, ...]:
        """Return the names of weight matrices that a step does not need."""
        return ()

    def step_parameters(self, step: Step) -> int:
        """Return the parameters that a step reads."""
        return self.parameters - sum(math.prod(self.linears[n]) for n in self.idle_linears(step))

    def projection_flops(self, step: Step) -> int:
        """Return the FLOPs of one sequence's projections."""
        idle = sum(math.prod(self.linears[name]) for name in self.idle_linears(step))
        return 2 * step.new_tokens * (self.linear_parameters - idle)

    def forward_flops(self, step: Step, conventions: FlopConventions) -> int:
        """Return the FLOPs of one sequence's step: projections and core."""
        return self.projection_flops(step) + self.core_flops(step, conventions)

    def activation_elements(self, step: Step) -> int:
        """Return the activations read and written, in and out of each projection and the core."""
        widths = sum(inputs + outputs for inputs, outputs in self.linears.values())
        return step.new_tokens * widths + self.core_elements(step)

    @cached_property
    def peak_elements_per_token(self) -> int:
        """Activations alive at once inside the mixer in a prefill, its output included.

        Per new token, in numbers of `dtypes.activations`; what is kept in fp32 counts twice, as
        beside bf16. Every projection's output, unless a mixer knows better. Ours say what the
        kernels on a GPU allocate (`benchmarks/memory.py`).
        """
        return sum(outputs for _, outputs in self.linears.values())


def chunk_elements(num_heads: int, head_k_dim: int, head_v_dim: int, matrices: int) -> int:
    """Return what a chunked recurrence keeps beside vectors, per token, in half precision.

    The state before every chunk, and `matrices` of chunk x chunk numbers; flash-linear-attention's
    chunks are of KERNEL_CHUNK tokens.
    """
    states = num_heads * head_k_dim * head_v_dim // KERNEL_CHUNK
    return states + matrices * num_heads * KERNEL_CHUNK
