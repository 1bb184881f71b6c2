"""Linear layers that do not wait for each other, run together where a kernel can."""

from __future__ import annotations

from torch import Tensor, nn

from hybridsim.kernels.choice import choose


def linears(*pairs: tuple[nn.Linear, Tensor]) -> tuple[Tensor, ...]:
    """Return each layer of its input: one launch for a step's few rows, else layer by layer.

    Args:
        pairs: layers and what goes in, [..., I] each, of as many rows.
    """
    kernel = None
    # Another class than nn.Linear computes something else with its weight.
    if all(type(layer) is nn.Linear for layer, _ in pairs):
        kernel = choose(
            "linears",
            *(x for _, x in pairs),
            *(layer.weight for layer, _ in pairs),
            rows=pairs[0][1].numel() // pairs[0][1].shape[-1],
            dtypes={tensor.dtype for layer, x in pairs for tensor in (layer.weight, x)},
        )
    if kernel is None:
        return tuple(layer(x) for layer, x in pairs)
    layers = [layer for layer, _ in pairs]
    made: tuple[Tensor, ...] = kernel(
        [x for _, x in pairs],
        [layer.weight for layer in layers],
        [layer.bias for layer in layers],
    )
    return made


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return the layer of its input, as `linears` does."""
    return linears((layer, x))[0]
