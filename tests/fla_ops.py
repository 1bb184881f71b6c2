"""Our operators beside those of flash-linear-attention (fla), and how far they differ.

fla's kernels need Triton and a GPU; nothing of it is imported before a case runs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridsim.mixers.deltanet.ops import chunk_deltanet, recurrent_deltanet
from hybridsim.mixers.gated_deltanet.ops import chunk_gated_delta_rule
from hybridsim.mixers.gla.ops import chunk_gla, recurrent_gla
from hybridsim.mixers.kda.ops import chunk_kda
from hybridsim.mixers.lightning.ops import chunk_lightning, recurrent_lightning
from hybridsim.mixers.linear_attention.ops import (
    chunk_linear_attention,
    recurrent_linear_attention,
)
from hybridsim.mixers.mamba2.ops import chunk_ssd, recurrent_ssd
from hybridsim.nn.activation import elu1
from hybridsim.nn.delta_rule import recurrent_delta_rule

# float32 products in float32: by default Triton rounds their factors to 10 bits.
os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")

DEVICE = "cuda"
B, H, K, V = 2, 4, 64, 32
FP32, BF16 = torch.float32, torch.bfloat16
BOUNDS = {FP32: 1e-3, BF16: 2e-2}
LENGTHS = (63, 1000)
KEPT_IN_FP32 = ("g", "dt", "rate", "state")  # beside bf16 inputs

Inputs = dict[str, Tensor]
Form = Callable[[Inputs], tuple[Tensor, Tensor]]


def error(got: Tensor, wanted: Tensor, dtype: torch.dtype) -> float:
    """Return how far a tensor is from the wanted one; both must be finite.

    In float32 that is the largest difference over the largest wanted value. In bf16 it is the norm
    of the difference over the norm: both sides round by themselves, and where a head's output is
    nearly zero its normalisation turns one rounding into a large number.
    """
    assert got.shape == wanted.shape
    assert got.isfinite().all()
    assert wanted.isfinite().all()
    got, wanted = got.double(), wanted.double()
    if dtype == FP32:
        return ((got - wanted).abs().max() / wanted.abs().max()).item()
    return ((got - wanted).norm() / wanted.norm()).item()


def fla_op(folder: str, name: str) -> Callable[..., Any]:
    """Return a function of fla.ops."""
    return getattr(import_module(f"fla.ops.{folder}"), name)


@dataclass(frozen=True)
class OpCase:
    """One recurrence in our forms and in fla's, over the same inputs.

    Attributes:
        make: inputs of so many tokens, in float32 on the CPU.
        ours_chunk, ours_recurrent: our chunked form, and our step over all tokens.
        fla_chunk, fla_recurrent: fla's kernels.
        fla_naive: fla's reference in plain torch, where it has one.
        chunk_dtypes: what fla's chunked kernel takes.
    """

    make: Callable[[int], Inputs]
    ours_chunk: Form
    ours_recurrent: Form
    fla_chunk: Form
    fla_recurrent: Form
    fla_naive: Form | None = None
    chunk_dtypes: tuple[torch.dtype, ...] = (FP32, BF16)


def inputs_of(*names: str, features: bool = False, normalized: bool = False) -> Any:
    """Return what makes inputs of so many tokens: q, k, v, state and the `names`."""

    def make(tokens: int) -> Inputs:
        generator = torch.Generator().manual_seed(tokens)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        q, k, v = normal(B, tokens, H, K), normal(B, tokens, H, K), normal(B, tokens, H, V)
        state = normal(B, H, K, V)
        if features:
            q, k, state = elu1(q), elu1(k), elu1(state)
        else:
            k = F.normalize(k, dim=-1)
        if normalized:
            state = torch.cat((state, elu1(normal(B, H, K, 1))), dim=-1)
        extra = {
            "g": lambda: F.logsigmoid(normal(B, tokens, H)),
            "g_channels": lambda: F.logsigmoid(normal(B, tokens, H, K)),
            "beta": lambda: normal(B, tokens, H).sigmoid(),
        }
        chosen = {name.partition("_")[0]: extra[name]() for name in names}
        return {"q": q, "k": k, "v": v, **chosen, "state": state}

    return make


def ours(function: Callable[..., tuple[Tensor, Tensor]], **options: Any) -> Form:
    """Return our chunked form of inputs whose q is not scaled yet."""
    return lambda x: function(**(x | {"q": x["q"] * K**-0.5}), **options)


def stepped(step: Callable[..., tuple[Tensor, Tensor]], *names: str) -> Form:
    """Return our step over all tokens, with these inputs of each."""

    def form(x: Inputs) -> tuple[Tensor, Tensor]:
        x = x | {"q": x["q"] * K**-0.5}
        state, outputs = x["state"], []
        for t in range(x["q"].shape[1]):
            out, state = step(*(x[name][:, t] for name in names), state)
            outputs.append(out)
        return torch.stack(outputs, dim=1), state

    return form


def theirs(folder: str, name: str, rename: dict[str, str] | None = None, **options: Any) -> Form:
    """Return fla's form; it scales q by itself."""
    names = {"state": "initial_state"} | (rename or {})

    def form(x: Inputs) -> tuple[Tensor, Tensor]:
        given = {names.get(key, key): value for key, value in x.items()}
        return fla_op(folder, name)(**given, output_final_state=True, **options)

    return form


def with_normalizer(form: Form) -> Form:
    """Return fla's form of normalised linear attention, with our state: z as its last column."""

    def normalized(x: Inputs) -> tuple[Tensor, Tensor]:
        state = x["state"]
        split = (state[..., :-1].contiguous(), state[..., -1][:, None].contiguous())
        out, (kv, z) = form(x | {"state": split})
        return out, torch.cat((kv, z[:, 0, ..., None].to(kv.dtype)), dim=-1)

    return normalized


def heads_first(form: Form) -> Form:
    """Return a form of fla's that takes [B, H, T, X] over tensors of [B, T, H, X]."""

    def swapped(x: Inputs) -> tuple[Tensor, Tensor]:
        out, state = form({n: t if n == "state" else t.transpose(1, 2) for n, t in x.items()})
        return out.transpose(1, 2), state

    return swapped


def _linear_attention(normalize: bool) -> OpCase:
    wrap = with_normalizer if normalize else lambda form: form
    step = lambda *x: recurrent_linear_attention(*x, normalize=normalize)  # noqa: E731
    kernel = lambda name: wrap(theirs("linear_attn", name, normalize=normalize))  # noqa: E731
    return OpCase(
        inputs_of(features=True, normalized=normalize),
        ours(chunk_linear_attention, normalize=normalize, chunk_size=64),
        stepped(step, "q", "k", "v"),
        kernel("chunk_linear_attn"),
        kernel("fused_recurrent_linear_attn"),
        wrap(theirs("linear_attn.naive", "naive_recurrent_linear_attn", normalize=normalize)),
    )


def _step_gdn(q: Tensor, k: Tensor, v: Tensor, g: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    return recurrent_delta_rule(q, k, v, g[..., None], *rest)


# fla's slopes are 8 h / H, weaker in later layers; MiniMax's, which our mixer has, powers of 2. A
# late layer, because fla's chunked kernel forms exp(slope * padding) for a short last chunk, which
# overflows with the slopes of early ones: its last state is NaN there.
LAYER, LAYERS = 7, 8


def _slopes(x: Tensor) -> Tensor:
    heads = torch.arange(x.shape[-2], dtype=x.dtype, device=x.device)
    return 8 / x.shape[-2] * (1 - LAYER / LAYERS) * heads


def _chunk_lightning(**x: Any) -> tuple[Tensor, Tensor]:
    return chunk_lightning(**x, slopes=_slopes(x["q"]), chunk_size=64)


def _step_lightning(q: Tensor, k: Tensor, v: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    return recurrent_lightning(q, k, v, _slopes(q), state)


def ssd_inputs(tokens: int) -> Inputs:
    """Return inputs of Mamba-2 in two groups of heads."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "x": normal(B, tokens, H, V),
        "dt": F.softplus(normal(B, tokens, H) - 2),
        "rate": -normal(H).exp(),
        "b": normal(B, tokens, 2, K) * K**-0.5,
        "c": normal(B, tokens, 2, K),
        "state": normal(B, H, K, V),
    }


def as_simple_gla(name: str, folder: str = "simple_gla") -> Form:
    """Return fla's linear attention with a decay per head, which Mamba-2 is over C, B and dt x."""

    def form(x: Inputs) -> tuple[Tensor, Tensor]:
        q, k = (x[n].repeat_interleave(H // 2, dim=2) for n in ("c", "b"))
        v = (x["x"] * x["dt"][..., None]).to(q.dtype)
        options = {"scale": 1.0, "initial_state": x["state"], "output_final_state": True}
        return fla_op(folder, name)(q=q, k=k, v=v, g=x["rate"] * x["dt"], **options)

    return form


def _step_over_ssd(x: Inputs) -> tuple[Tensor, Tensor]:
    state, outputs = x["state"], []
    for t in range(x["x"].shape[1]):
        token = (x["x"][:, t], x["dt"][:, t], x["rate"], x["b"][:, t], x["c"][:, t])
        out, state = recurrent_ssd(*token, state)
        outputs.append(out)
    return torch.stack(outputs, dim=1), state


OPS: dict[str, OpCase] = {
    "linear_attention": _linear_attention(normalize=False),
    "linear_attention, normalised": _linear_attention(normalize=True),
    "gla": OpCase(
        inputs_of("g_channels"),
        ours(chunk_gla, chunk_size=64),
        stepped(recurrent_gla, "q", "k", "v", "g"),
        theirs("gla", "chunk_gla"),
        theirs("gla", "fused_recurrent_gla", {"g": "gk"}),
        theirs("gla.naive", "naive_recurrent_gla", {"g": "gk"}),
    ),
    "deltanet": OpCase(
        inputs_of("beta"),
        ours(chunk_deltanet, chunk_size=64),
        stepped(recurrent_deltanet, "q", "k", "v", "beta"),
        theirs("delta_rule", "chunk_delta_rule"),
        theirs("delta_rule", "fused_recurrent_delta_rule"),
        heads_first(theirs("delta_rule.naive", "delta_rule_recurrence")),
        chunk_dtypes=(BF16,),
    ),
    "gated_deltanet": OpCase(
        inputs_of("g", "beta"),
        ours(chunk_gated_delta_rule, chunk_size=64),
        stepped(_step_gdn, "q", "k", "v", "g", "beta"),
        theirs("gated_delta_rule", "chunk_gated_delta_rule"),
        theirs("gated_delta_rule", "fused_recurrent_gated_delta_rule"),
        theirs("gated_delta_rule.naive", "naive_recurrent_gated_delta_rule"),
    ),
    "kda": OpCase(
        inputs_of("g_channels", "beta"),
        ours(chunk_kda, chunk_size=64),
        stepped(recurrent_delta_rule, "q", "k", "v", "g", "beta"),
        theirs("kda", "chunk_kda"),
        theirs("kda", "fused_recurrent_kda"),
        theirs("kda.naive", "naive_recurrent_kda"),
    ),
    "lightning": OpCase(
        inputs_of(),
        ours(_chunk_lightning),
        stepped(_step_lightning, "q", "k", "v"),
        theirs("lightning_attn", "chunk_lightning_attn", layer_idx=LAYER, num_layers=LAYERS),
        theirs(
            "lightning_attn", "fused_recurrent_lightning_attn", layer_idx=LAYER, num_layers=LAYERS
        ),
    ),
    "mamba2": OpCase(
        ssd_inputs,
        lambda x: chunk_ssd(**x, chunk_size=64),
        _step_over_ssd,
        as_simple_gla("chunk_simple_gla"),
        as_simple_gla("fused_recurrent_simple_gla"),
        as_simple_gla("naive_recurrent_simple_gla", "simple_gla.naive"),
    ),
}


def prepared(inputs: Inputs, dtype: torch.dtype, *, wide: bool) -> Inputs:
    """Return the inputs on the device, rounded to the dtype; kept in float32 where `wide`."""
    moved = {}
    for name, tensor in inputs.items():
        rounded = tensor if name in KEPT_IN_FP32 else tensor.to(dtype)
        moved[name] = (rounded.float() if wide else rounded).to(DEVICE)
    return moved


def op_errors(name: str, dtype: torch.dtype, tokens: int) -> dict[str, float]:
    """Return how far our forms are from fla's: outputs and last state, the larger of the two.

    Ours computes in float32 from the rounded inputs, as the mixers do.
    """
    case = OPS[name]
    inputs = case.make(tokens)
    mine, fla = prepared(inputs, dtype, wide=True), prepared(inputs, dtype, wide=False)
    pairs = {"recurrent": (case.ours_recurrent, case.fla_recurrent)}
    if dtype in case.chunk_dtypes:
        pairs["chunk"] = (case.ours_chunk, case.fla_chunk)
    if case.fla_naive is not None and dtype == FP32:
        pairs["naive"] = (case.ours_chunk, case.fla_naive)
    with torch.no_grad():
        return {
            what: worst(our_form(mine), fla_form(fla), dtype)
            for what, (our_form, fla_form) in pairs.items()
        }


def worst(got: Iterable[Tensor], wanted: Iterable[Tensor], dtype: torch.dtype) -> float:
    """Return the largest of the errors."""
    return max(error(a, b, dtype) for a, b in zip(got, wanted, strict=True))


def gradient_error(name: str, tokens: int) -> float:
    """Return the largest error of the inputs' gradients, our chunked form against fla's, float32.

    The gradients are those of a random functional of outputs and last state; fla's recurrent form
    is taken where its chunked one takes no float32.
    """
    case = OPS[name]
    reference = case.fla_chunk if FP32 in case.chunk_dtypes else case.fla_recurrent
    inputs = case.make(tokens)
    gradients = []
    for form in (case.ours_chunk, reference):
        leaves = {n: x.requires_grad_() for n, x in prepared(inputs, FP32, wide=True).items()}
        generator = torch.Generator().manual_seed(1)
        total = sum(
            (x * torch.randn(x.shape, generator=generator).to(DEVICE)).sum() for x in form(leaves)
        )
        gradients.append(torch.autograd.grad(total, list(leaves.values())))
    return worst(*gradients, FP32)
