"""Activations inside kernels, by the names that the feed-forwards use."""

from __future__ import annotations

import triton
import triton.language as tl

from hybridsim.components import OAI_ALPHA, OAI_LIMIT

SUPPORTED = ("silu", "gelu", "gelu_tanh", "relu", "relu2", "identity", "swiglu_oai")

_ALPHA = tl.constexpr(OAI_ALPHA)
_LIMIT = tl.constexpr(OAI_LIMIT)


@triton.jit
def activate(x, NAME: tl.constexpr):
    """Return the activation of x, in float32."""
    if NAME == "silu":
        x = x * tl.sigmoid(x)
    elif NAME == "gelu":
        x = 0.5 * x * (1 + tl.erf(x * 0.7071067811865476))
    elif NAME == "gelu_tanh":
        # 0.5 (1 + tanh(u)) is sigmoid(2 u).
        x = x * tl.sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x))
    elif NAME == "relu":
        x = tl.maximum(x, 0.0)
    elif NAME == "relu2":
        x = tl.maximum(x, 0.0)
        x = x * x
    else:
        tl.static_assert(NAME == "identity")
    return x


@triton.jit
def activate_gated(gate, up, NAME: tl.constexpr, LIMIT: tl.constexpr):
    """Return act(gate) * up; with a limit L, min(act(gate), L) * clip(up, -L, L)."""
    # One result, not an early return: what follows one is compiled all the same.
    if NAME == "swiglu_oai":
        gate = tl.minimum(gate, _LIMIT)
        up = tl.minimum(tl.maximum(up, -_LIMIT), _LIMIT)
        out = gate * tl.sigmoid(_ALPHA * gate) * (up + 1)
    else:
        out = activate(gate, NAME)
        if LIMIT is not None:
            out = tl.minimum(out, LIMIT)
            up = tl.minimum(tl.maximum(up, -LIMIT), LIMIT)
        out = out * up
    return out
