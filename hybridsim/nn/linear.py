"""Linear layers that do not wait for each other, run together where a kernel can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from hybridsim.kernels.arguments import Norm
from hybridsim.kernels.choice import choose
from hybridsim.nn.norm import RMSNorm


def linears(*pairs: tuple[nn.Linear, Tensor]) -> tuple[Tensor, ...]:
    """Return each layer of its input: one launch for a step's few rows, else layer by layer.

    Args:
        pairs: layers and what goes in, [..., I] each, of as many rows.
    """
    kernel = kernel_of("linears", [layer for layer, _ in pairs], *(x for _, x in pairs))
    if kernel is None:
        return tuple(layer(x) for layer, x in pairs)
    layers = [layer for layer, _ in pairs]
    made: tuple[Tensor, ...] = kernel(
        [x for _, x in pairs],
        [layer.weight for layer in layers],
        [layer.bias for layer in layers],
    )
    return made


def kernel_of(
    operation: str, layers: Sequence[nn.Module], *inputs: Tensor, **sizes: Any
) -> Callable[..., Any] | None:
    """Return what runs an operation with these layers on few rows, None where their own calls do.

    Args:
        operation: a key of `choice.TABLE`.
        layers: another class than nn.Linear computes something else with its weight.
        inputs: [..., I] each, of as many rows.
        sizes: what the operation's candidates ask for besides rows and dtypes.
    """
    if not all(type(layer) is nn.Linear for layer in layers):
        return None
    weights: list[Any] = [layer.weight for layer in layers]
    return choose(
        operation,
        *inputs,
        *weights,
        rows=inputs[0].numel() // inputs[0].shape[-1],
        dtypes={tensor.dtype for tensor in (*inputs, *weights)},
        **sizes,
    )


def norm_of(norm: RMSNorm) -> Norm:
    """Return a norm as kernels take it."""
    return Norm(norm.weight, norm.settings.eps, norm.settings.unit_offset)


def normed_linears(norm: RMSNorm, x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
    """Return each layer of norm(x): one launch for a step's few rows."""
    kernel = kernel_of("normed_linears", layers, x) if norm.groups == 1 else None
    if kernel is None:
        inside = norm(x)
        return linears(*((layer, inside) for layer in layers))
    weights, biases = [layer.weight for layer in layers], [layer.bias for layer in layers]
    made: tuple[Tensor, ...] = kernel(x, norm_of(norm), weights, biases)
    return made


def added_linear(layer: nn.Linear, x: Tensor, residual: Tensor) -> Tensor:
    """Return residual + layer(x): one launch for a step's few rows."""
    kernel = kernel_of("added_linear", [layer], x)
    if kernel is None:
        return residual + linear(layer, x)
    made: Tensor = kernel(x, layer.weight, layer.bias, residual)
    return made


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return the layer of its input, as `linears` does."""
    return linears((layer, x))[0]
