"""Errors against flash-linear-attention as Markdown: python tests/fla_matrix.py, on a GPU."""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context

import fla_layers
import fla_ops
import torch
from fla_layers import LAYERS, layer_errors
from fla_ops import BF16, FP32, LENGTHS, OPS, gradient_error, op_errors
from tuning import tune_little

NAMES = {FP32: "fp32", BF16: "bf16"}
OP_COLUMNS = (
    "chunk fp32",
    "chunk bf16",
    "recurrent fp32",
    "recurrent bf16",
    "gradient fp32",
    "naive fp32",
)
LAYER_COLUMNS = ("prefill fp32", "prefill bf16", "decode fp32", "decode bf16", "gradient fp32")

HEADER = """\
## flash-linear-attention

Our forms in plain torch against the kernels and layers of fla-core {fla} (Triton {triton}, torch
{torch}) on {device}; made by `python tests/fla_matrix.py`, and `tests/test_fla.py` holds fp32 below
{fp32} and bf16 below {bf16}. fp32: the largest difference over the largest value, Triton's products
in full float32. bf16: inputs (and weights) in bf16, the norm of the difference over the norm. `-`:
fla has no such form; its chunked DeltaNet takes no float32.

Operators, {lengths} tokens, {heads} heads of {key} x {value}, the worse of outputs and last state
and the worst length. Recurrent is token by token; gradients are those of every input; naive is
fla's own reference in plain torch against our chunked form.
"""

LAYERS_HEADER = """
Layers with the same weights, width {width}: a prefill of {tokens} tokens, and {short} tokens and
then {decoded} one at a time; the gradient is the input's.
"""


def worst_op_errors(name: str) -> dict[str, float]:
    """Return the errors of an operator by column, over all lengths."""
    found: dict[str, list[float]] = defaultdict(list)
    for tokens in LENGTHS:
        for dtype, suffix in NAMES.items():
            for what, value in op_errors(name, dtype, tokens).items():
                found[f"{what} {suffix}"].append(value)
        found["gradient fp32"].append(gradient_error(name, tokens))
    return {column: max(values) for column, values in found.items()}


def all_layer_errors(name: str) -> dict[str, float]:
    """Return the errors of a layer by column."""
    return {
        f"{what} {suffix}": value
        for dtype, suffix in NAMES.items()
        for what, value in layer_errors(name, dtype).items()
    }


def measure(what: str, name: str) -> dict[str, float] | str:
    """Return the errors of an operator or a layer by column, or why there are none."""
    warnings.simplefilter("ignore")
    try:
        return worst_op_errors(name) if what == "mixer" else all_layer_errors(name)
    except Exception as error:  # the other rows are still wanted
        return f"{type(error).__name__}: {str(error).strip().splitlines()[-1]}"


def measure_all() -> dict[tuple[str, str], dict[str, float] | str]:
    """Return the errors of every row; a process each, since it is compilers that take the time."""
    rows = [("mixer", name) for name in OPS] + [("layer", name) for name in LAYERS]
    spawn = get_context("spawn")
    with ProcessPoolExecutor(len(rows), mp_context=spawn, initializer=tune_little) as pool:
        found = {row: pool.submit(measure, *row) for row in rows}
        return {row: future.result() for row, future in found.items()}


def print_table(
    first: str, columns: tuple[str, ...], found: dict[tuple[str, str], dict[str, float] | str]
) -> None:
    """Print one table."""
    print(f"\n| {first} | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for (what, name), errors in found.items():
        if what != first:
            continue
        if isinstance(errors, str):
            cells = [errors, *[""] * (len(columns) - 1)]
        else:
            cells = [f"{errors[c]:.1e}" if c in errors else "-" for c in columns]
        print(f"| {name} | " + " | ".join(cells) + " |")


def beyond_bounds(found: dict[tuple[str, str], dict[str, float] | str]) -> bool:
    """Whether a row failed or is beyond the bound of its dtype."""
    bounds = {NAMES[dtype]: bound for dtype, bound in fla_ops.BOUNDS.items()}
    return any(
        isinstance(errors, str)
        or any(not value <= bounds[column.rpartition(" ")[2]] for column, value in errors.items())
        for errors in found.values()
    )


def main() -> int:
    """Print both tables; return 1 where something is beyond its bound."""
    header = HEADER.format(
        fla=version("fla-core"),
        triton=version("triton"),
        torch=torch.__version__,
        device=torch.cuda.get_device_name() if fla_ops.DEVICE == "cuda" else fla_ops.DEVICE,
        fp32=fla_ops.BOUNDS[FP32],
        bf16=fla_ops.BOUNDS[BF16],
        lengths=" and ".join(map(str, LENGTHS)),
        heads=fla_ops.H,
        key=fla_ops.K,
        value=fla_ops.V,
    )
    print(header, end="")
    found = measure_all()
    print_table("mixer", OP_COLUMNS, found)
    shape = {"tokens": fla_layers.TOKENS, "short": fla_layers.SHORT}
    decoded = {"width": fla_layers.WIDTH, "decoded": fla_layers.DECODED}
    print(LAYERS_HEADER.format(**shape, **decoded), end="")
    print_table("layer", LAYER_COLUMNS, found)
    return int(beyond_bounds(found))


if __name__ == "__main__":
    sys.exit(main())
