"""Weights in fp8: a module's layers replaced by such that hold theirs rounded."""

from __future__ import annotations

from torch import nn

from hybridsim.ffn.moe.module import Experts
from hybridsim.nn.fp8 import Fp8Embedding, Fp8Linear, is_aligned
from hybridsim.nn.quantize import FP8

# Layers that stay as they are, as engines leave them: a router's scores decide between experts, and
# MLA's second half is applied to queries and outputs head by head, for which torch has no scaled
# product.
WIDE = ("router", "kv_b_proj")


def round_weights(module: nn.Module) -> nn.Module:
    """Hold the weights of a module in fp8, see nn.fp8; return it.

    What stays wide, `wide_weights` tells: WIDE, convolutions, and matrices of sizes that torch's
    scaled products do not take. Vectors stay too.
    """
    for parent in list(module.modules()):
        if isinstance(parent, Experts):
            if is_aligned(*parent.down_proj.shape[1:]):
                parent.round_to_fp8()
            continue
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Embedding):
                setattr(parent, name, Fp8Embedding(child))
            elif isinstance(child, nn.Linear) and _is_rounded(name, child):
                setattr(parent, name, Fp8Linear(child))
    return module


def _is_rounded(name: str, linear: nn.Linear) -> bool:
    return name not in WIDE and is_aligned(linear.in_features, linear.out_features)


def wide_weights(module: nn.Module) -> list[str]:
    """Return the names of a module's matrices that are not in fp8."""
    return [
        name.removesuffix(".weight")
        for name, parameter in module.named_parameters()
        if parameter.dim() > 1 and parameter.dtype != FP8
    ]
