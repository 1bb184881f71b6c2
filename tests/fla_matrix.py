"""Errors against flash-linear-attention as Markdown: python tests/fla_matrix.py, on a GPU."""

from __future__ import annotations

import warnings
from collections import defaultdict
from importlib.metadata import version

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


def print_table(first: str, columns: tuple[str, ...], rows: dict[str, dict[str, float]]) -> None:
    """Print one table."""
    print(f"\n| {first} | " + " | ".join(columns) + " |")
    print("| --- |" + " ---: |" * len(columns))
    for name, errors in rows.items():
        cells = (f"{errors[c]:.1e}" if c in errors else "-" for c in columns)
        print(f"| {name} | " + " | ".join(cells) + " |")


def main() -> None:
    """Print both tables."""
    warnings.simplefilter("ignore")
    tune_little()
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
    print_table("mixer", OP_COLUMNS, {name: worst_op_errors(name) for name in OPS})
    shape = {"tokens": fla_layers.TOKENS, "short": fla_layers.SHORT}
    decoded = {"width": fla_layers.WIDTH, "decoded": fla_layers.DECODED}
    print(LAYERS_HEADER.format(**shape, **decoded), end="")
    print_table("layer", LAYER_COLUMNS, {name: all_layer_errors(name) for name in LAYERS})


if __name__ == "__main__":
    main()
