"""How FLOPs are counted: every choice on which the literature differs, as an option with a name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hybridsim.errors import unknown

_ALLOWED = {
    "attention": ("causal", "full_square"),
    "linear_attention": ("executed", "published"),
    "triangular_solve": (True, False),
    "selective_scan": (True, False),
    "logits": ("all", "last"),
}


@dataclass(frozen=True)
class FlopConventions:
    """What a FLOP figure includes. A multiply-add is always 2 FLOPs.

    Attributes:
        attention: "causal" charges the pairs (query, visible key) of softmax attention and of
            indexers; "full_square" charges every pair that is scored before masking.
        linear_attention: "executed" counts the products our chunked form runs, intra-chunk blocks
            whole; "published" uses the authors' formula where one exists (Kimi Linear eq. 13 for
            delta rules, causal halves for other linear attention and Mamba-2). Prefill only.
        triangular_solve: whether the delta rules' per-chunk solve is counted (n^2 per column).
        selective_scan: whether Mamba's scan is counted (9 a token, channel and state); it is all
            elementwise, and all that the layer does between its projections.
        logits: "all" counts the language-model head at every position (a forward pass as trained or
            scored), "last" at the last one only (a prefill as served).
    """

    attention: str = "causal"
    linear_attention: str = "executed"
    triangular_solve: bool = True
    selective_scan: bool = True
    logits: str = "all"

    def __post_init__(self) -> None:
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise unknown(name, getattr(self, name), map(str, allowed), "choice")

    @property
    def causal(self) -> bool:
        """Whether only visible pairs are charged."""
        return self.attention == "causal"

    def describe(self) -> dict[str, object]:
        """Return every convention, the fixed ones too, for records and tables."""
        return {
            "multiply_add_flops": 2,
            **asdict(self),
            "intra_chunk": "whole blocks",
            "elementwise": "not counted (norms, activations, softmax, decays, residual adds),"
            " but for the selective scan",
        }


# What a device executes when it serves: modelled times and the FLOPs beside them.
SERVED = FlopConventions(logits="last")

# What a stock counter sees on a reference implementation: every score, no solve, no scan.
FULL_SQUARE = FlopConventions(attention="full_square", triangular_solve=False, selective_scan=False)

Shape = tuple[int, ...]
# An operator's arguments (tensors as their shapes), its result's shape, conventions -> FLOPs
FlopRule = Callable[[Sequence[Any], Shape, FlopConventions], int]
