"""Our operators beside flash-linear-attention's own calls of the kernels that they run.

    python benchmarks/fla_calls.py [--out FILE] [--only TEXT] [--seconds 120]

Needs a CUDA device and fla. The same inputs in bf16, in the same run, as CUDA graphs: a prefill of
8,192 tokens, and one token of 1 and of 32 sequences. What is beyond 1.00 times is what our choice
of a kernel, its checks and its conversions cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from kernels import Asked, Inputs, Row, Run, normal, options, run_rows
from torch import Tensor

from hybridsim.kernels import choice
from hybridsim.mixers.deltanet.ops import deltanet
from hybridsim.mixers.gated_deltanet.ops import gated_delta_rule
from hybridsim.mixers.gla.ops import gated_linear_attention
from hybridsim.mixers.kda.ops import kimi_delta_attention
from hybridsim.mixers.lightning.ops import lightning_attention
from hybridsim.mixers.mamba2.ops import state_space

HEADS, DIM, CHUNK = 32, 128, 64
SIZES = ((1, 8192), (1, 1), (32, 1))  # sequences, tokens of each


def heads(batch: int, tokens: int, width: int = DIM) -> Tensor:
    return normal(batch, tokens, HEADS, width)


def scalars(batch: int, tokens: int) -> Tensor:
    return normal(batch, tokens, HEADS)


def state(batch: int) -> Tensor:
    return 0.1 * normal(batch, HEADS, DIM, DIM, dtype=torch.float32)


def kernel(folder: str, chunk: str, step: str, tokens: int) -> Callable[..., Any]:
    from importlib import import_module

    return getattr(import_module(f"fla.ops.{folder}"), step if tokens == 1 else chunk)


@dataclass(frozen=True)
class Operator:
    """An operator of ours, and fla's call.

    Attributes:
        draw: inputs of (sequences, tokens).
        ours: of these inputs: outputs.
        theirs: of the tokens: fla's function of these inputs.
    """

    draw: Callable[[int, int], Inputs]
    ours: Run
    theirs: Callable[[int], Run]


def _inside() -> dict[str, Any]:
    return {
        "A_log": normal(HEADS, dtype=torch.float32),
        "output_final_state": True,
        "use_qk_l2norm_in_kernel": True,
        "use_gate_in_kernel": True,
        "use_beta_sigmoid_in_kernel": True,
    }


def kda() -> Operator:
    options, bias = _inside(), normal(HEADS * DIM, dtype=torch.float32)

    def ours(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, s: Tensor) -> Tensor:
        return kimi_delta_attention(
            q, k, v, g, beta, options["A_log"], bias, s,
            lower_bound=None, negative_eigenvalues=False, chunk_size=CHUNK,
        )[0]  # fmt: skip

    def theirs(tokens: int) -> Run:
        call = kernel("kda", "chunk_kda", "fused_recurrent_kda", tokens)
        return lambda q, k, v, g, beta, s: call(
            q, k, v, g, beta, dt_bias=bias, initial_state=s, **options
        )

    def draw(b: int, t: int) -> Inputs:
        return (*(heads(b, t) for _ in range(4)), scalars(b, t), state(b))

    return Operator(draw, ours, theirs)


def gdn() -> Operator:
    options, bias = _inside(), normal(HEADS, dtype=torch.float32)

    def ours(q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, s: Tensor) -> Tensor:
        return gated_delta_rule(
            q, k, v, g, beta, options["A_log"], bias, s,
            negative_eigenvalues=False, chunk_size=CHUNK,
        )[0]  # fmt: skip

    def theirs(tokens: int) -> Run:
        names = ("chunk_gated_delta_rule", "fused_recurrent_gated_delta_rule")
        call = kernel("gated_delta_rule", *names, tokens)
        return lambda q, k, v, g, beta, s: call(
            q, k, v, g, beta=beta, dt_bias=bias, initial_state=s, **options
        )

    def draw(b: int, t: int) -> Inputs:
        return (*(heads(b, t) for _ in range(3)), scalars(b, t), scalars(b, t), state(b))

    return Operator(draw, ours, theirs)


def delta_rule() -> Operator:
    def theirs(tokens: int) -> Run:
        call = kernel("delta_rule", "chunk_delta_rule", "fused_recurrent_delta_rule", tokens)
        return lambda q, k, v, beta, s: call(
            q, k, v, beta, scale=1.0, initial_state=s, output_final_state=True
        )

    def draw(b: int, t: int) -> Inputs:
        q, k = (F.normalize(heads(b, t), dim=-1) for _ in range(2))
        return q, k, heads(b, t), scalars(b, t).sigmoid(), state(b)

    return Operator(
        draw,
        lambda q, k, v, beta, s: deltanet(q, k, v, beta, s, chunk_size=CHUNK, like=v)[0],
        theirs,
    )


def gla() -> Operator:
    def theirs(tokens: int) -> Run:
        call = kernel("gla", "chunk_gla", "fused_recurrent_gla", tokens)
        gate = "gk" if tokens == 1 else "g"
        return lambda q, k, v, g, s: call(
            q, k, v, **{gate: g}, scale=1.0, initial_state=s, output_final_state=True
        )

    def draw(b: int, t: int) -> Inputs:
        decay = F.logsigmoid(heads(b, t).float()) / 16
        return DIM**-0.5 * heads(b, t), heads(b, t), heads(b, t), decay, state(b)

    return Operator(
        draw,
        lambda q, k, v, g, s: gated_linear_attention(q, k, v, g, s, chunk_size=CHUNK, like=v)[0],
        theirs,
    )


def lightning() -> Operator:
    slopes = torch.linspace(0.01, 0.5, HEADS, device="cuda")

    def theirs(tokens: int) -> Run:
        call = kernel("simple_gla", "chunk_simple_gla", "fused_recurrent_simple_gla", tokens)
        return lambda q, k, v, s: call(
            q, k, v, None, -slopes, scale=1.0, initial_state=s, output_final_state=True
        )

    def draw(b: int, t: int) -> Inputs:
        return DIM**-0.5 * heads(b, t), heads(b, t), heads(b, t), state(b)

    return Operator(
        draw,
        lambda q, k, v, s: lightning_attention(q, k, v, slopes, s, chunk_size=CHUNK, like=v)[0],
        theirs,
    )


def mamba2() -> Operator:
    """One group's B and C for all heads; spreading them over the heads is timed in both."""
    rate = -torch.linspace(0.1, 2.0, HEADS, device="cuda")

    def theirs(tokens: int) -> Run:
        call = kernel("simple_gla", "chunk_simple_gla", "fused_recurrent_simple_gla", tokens)

        def run(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, s: Tensor) -> Any:
            q, k = (each.expand(-1, -1, HEADS, -1).contiguous() for each in (c, b))
            options = {"scale": 1.0, "initial_state": s, "output_final_state": True}
            return call(q, k, (x * dt[..., None]).to(x.dtype), dt * rate, **options)

        return run

    def draw(b: int, t: int) -> Inputs:
        groups = [DIM**-0.5 * normal(b, t, 1, DIM) for _ in range(2)]
        return heads(b, t, DIM), F.softplus(scalars(b, t).float() - 2), *groups, state(b)

    return Operator(
        draw,
        lambda x, dt, b, c, s: state_space(x, dt, rate, b, c, s, chunk_size=CHUNK, like=x)[0],
        theirs,
    )


OPERATORS: dict[str, Callable[[], Operator]] = {
    "kda": kda,
    "gated_delta_rule": gdn,
    "delta_rule": delta_rule,
    "gla": gla,
    "lightning": lightning,
    "mamba2": mamba2,
}


def rows() -> Iterator[Row]:
    for name, make in OPERATORS.items():
        operator = make()
        for batch, tokens in SIZES:
            yield row(name, operator, batch, tokens)


def row(name: str, operator: Operator, batch: int, tokens: int) -> Row:
    """Return a row; the reference is our operator in plain torch on a short piece of the input."""
    call = operator.theirs(tokens)

    def reference(*inputs: Tensor) -> Tensor:
        short = [x if x.dim() == 4 and x.shape[2:] == (DIM, DIM) else x[:, :256] for x in inputs]
        with choice.forcing("reference"):
            return operator.ours(*(x.float() for x in short))

    return Row(
        name,
        f"B{batch} T{tokens} H{HEADS}x{DIM}",
        lambda: operator.draw(batch, tokens),
        operator.ours,
        reference,
        2 * batch * HEADS * DIM * (4 * tokens + 4 * DIM),  # q, k, v, outputs; states in and out
        rivals={"fla": lambda *inputs: call(*inputs)[0]},
    )


def main() -> None:
    asked = options(__doc__, "fla_calls.json").parse_args(namespace=Asked())
    run_rows([rows], asked)


if __name__ == "__main__":
    main()
