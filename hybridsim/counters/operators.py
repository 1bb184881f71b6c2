"""The table of operators: how many FLOPs each does, or why it does none.

A counter meets operators by name. One that is in none of the groups below is an error: it might do
arithmetic that nobody counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from hybridsim.conventions import FlopConventions, FlopRule, Shape
from hybridsim.errors import PluginError, UncountedOperatorError
from hybridsim.mixers import MIXERS


def _product(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    """Every result is a dot product along the last axis of the first factor."""
    return 2 * math.prod(out) * int(args[0][-1])


def _added_product(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    return _product(args[1:], out, conventions)


def _grouped_linear(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    rows, inputs = args[0]
    return int(2 * rows * inputs * out[-1])


def _triangular_solve(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    """n^2 FLOPs a column: n^2 / 2 multiply-adds of a substitution."""
    return math.prod(out) * int(args[0][-1]) if conventions.triangular_solve else 0


def _convolution(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    return 2 * math.prod(out) * int(args[1][-1])


def _visible(new: int, seen: int) -> range:
    """Return how many tokens each of the last `new` of `seen` tokens sees."""
    return range(seen - new + 1, seen + 1)


def _causal_attention(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    (batch, new, heads, key_dim), seen = args[0], args[1][1]
    window = args[4] if len(args) > 4 and args[4] is not None else seen
    if conventions.causal or new == 1:
        pairs = sum(min(visible, window) for visible in _visible(new, seen))
    else:
        pairs = new * seen
    return int(2 * batch * heads * pairs * (key_dim + out[-1]))


def _pairs(new: int, seen: int, conventions: FlopConventions) -> int:
    return sum(_visible(new, seen)) if conventions.causal else new * seen


def _index_scores(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    (batch, new, heads, width), seen = args[0], args[1][1]
    return int(2 * batch * heads * (width + 1) * _pairs(new, seen, conventions))


def _selected_attention(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    (batch, new, heads, width), seen, topk = args[0], args[1][1], args[2][2]
    pairs = new * topk
    if conventions.causal:
        pairs = sum(min(visible, topk) for visible in _visible(new, seen))
    return int(2 * batch * heads * pairs * (width + out[-1]))


def _block_scores(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    (batch, new, heads, width), seen = args[0], args[1][1]
    return int(2 * batch * heads * width * _pairs(new, seen, conventions))


def _block_attention(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    (batch, new, heads, width), seen = args[0], args[1][1]
    blocks, block_size = args[3][3], args[4]
    pairs = new * blocks * block_size
    if conventions.causal:
        pairs = sum(_in_blocks(visible, blocks, block_size) for visible in _visible(new, seen))
    return int(4 * batch * heads * width * pairs)


def _in_blocks(visible: int, blocks: int, block_size: int) -> int:
    """Return the visible keys in `blocks` blocks, the query's own and others before it."""
    before, own = divmod(visible - 1, block_size)
    return min(before, blocks - 1) * block_size + own + 1


def _selective_scan(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    """Elementwise throughout: 9 FLOPs a token, channel and state (state-spaces/mamba issue 110)."""
    if not conventions.selective_scan:
        return 0
    (batch, tokens, channels), (_, state_size) = args[0], args[2]
    return int(9 * batch * tokens * channels * state_size)


RULES: dict[str, FlopRule] = {
    "aten::linear": _product,
    "aten::matmul": _product,
    "aten::mm": _product,
    "aten::bmm": _product,
    "aten::addmm": _added_product,
    "aten::baddbmm": _added_product,
    "aten::linalg_solve_triangular": _triangular_solve,
    "aten::_grouped_mm": _grouped_linear,
    "hybridsim::grouped_linear": _grouped_linear,
    "hybridsim::causal_conv1d": _convolution,
    "hybridsim::causal_attention": _causal_attention,
    "hybridsim::index_scores": _index_scores,
    "hybridsim::selected_attention": _selected_attention,
    "hybridsim::block_scores": _block_scores,
    "hybridsim::block_attention": _block_attention,
    "hybridsim::selective_scan": _selective_scan,
}

# Counted by torch's own rules where the counter decomposes our operators (see flop_counter.py).
TORCH_RULES = frozenset(
    {
        "aten::convolution",
        "aten::_scaled_dot_product_flash_attention",
        "aten::_scaled_dot_product_efficient_attention",
        "aten::_scaled_dot_product_cudnn_attention",
    }
)

# One operation or a few per element. By convention not counted: below 1 % of any model here, and
# fused into its neighbours by any engine.
ELEMENTWISE = frozenset(
    f"aten::{name}"
    for name in (
        "abs add add_ addcmul amax bitwise_and bitwise_not bitwise_or clamp clamp_min cos cumsum "
        "div div_ eq exp floor_divide ge gelu gt layer_norm le log logical_and logical_not "
        "logical_or lt masked_fill masked_fill_ max mean mul mul_ native_layer_norm ne neg pow "
        "reciprocal relu remainder rsqrt sigmoid silu sin softmax softplus sqrt square sub sum "
        "tanh tril triu __and__ __or__ _softmax rsub where pad constant_pad_nd scatter_add "
        "_safe_softmax log_sigmoid log_sigmoid_forward"
    ).split()
)

# Copies, views, choices and bookkeeping.
MOVEMENT = frozenset(
    f"aten::{name}"
    for name in (
        "_assert_scalar _reshape_alias _to_copy _unsafe_view alias arange argsort as_strided "
        "broadcast_tensors cat chunk clone contiguous copy copy_ detach embedding empty "
        "empty_like empty_strided expand expand_as fill_ flatten full full_like gather index "
        "index_copy index_copy_ index_put index_put_ index_select item lift_fresh mT movedim "
        "narrow new_empty new_full new_ones new_zeros numpy_T ones ones_like permute repeat "
        "repeat_interleave reshape scalar_tensor ScalarImplicit scatter scatter_ select size "
        "slice slice_scatter sort split split_with_sizes squeeze stack t to topk transpose "
        "type_as unbind unflatten unfold unsqueeze view view_as zero_ zeros zeros_like Int Bool "
        "matrix_H adjoint resolve_conj resolve_neg set_ _local_scalar_dense index_fill resize_ "
        "zeros_ is_same_size dim numel select_scatter split_copy"
    ).split()
)

FREE = ELEMENTWISE | MOVEMENT


def flop_rules() -> dict[str, FlopRule]:
    """Return the rules of the table, and those that installed packages' mixers in use bring.

    Raises:
        PluginError: a package has a rule for an operator that the table knows already.
    """
    rules = dict(RULES)
    for kind, entry in MIXERS.plugins.items():
        for name in entry.flop_rules:
            if name in rules or name in TORCH_RULES or name in FREE:
                raise PluginError(
                    f"plug-in {MIXERS.provider(kind)}: kind {kind}: its rule for {name} is not its"
                    " own: there is one already"
                )
        rules.update(entry.flop_rules)
    return rules


def free_operators() -> frozenset[str]:
    """Return the operators that count for nothing, those of installed packages' mixers too."""
    return FREE.union(*(entry.free_operators for entry in MIXERS.plugins.values()))


def check_known(names: Iterable[str]) -> None:
    """Raise UncountedOperatorError for operators that are in no group of the table."""
    known = flop_rules().keys() | TORCH_RULES | free_operators()
    unknown = sorted(set(names) - known)
    if unknown:
        raise UncountedOperatorError(
            f"operators={', '.join(unknown)}: no rule says how many FLOPs they do; add one to"
            " hybridsim/counters/operators.py, or to the entry of the package that brings them"
        )
