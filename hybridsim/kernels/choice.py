"""Which implementation of an operation runs where: one table, read at every call.

A caller asks for an operation with the tensors it has. It gets the first candidate that is
installed, differentiable where gradients are wanted, and made for such tensors; or None, and then
runs its own reference. On CPUs and on the meta device the reference always runs, so that what
counters trace is what the costs describe.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

REFERENCE = "reference"
OURS = "triton (ours)"
FLA_SINCE = (0, 6)  # whose arguments fla_calls has
HALVES = (torch.bfloat16, torch.float16)
_EXPERT_ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu", "relu2", "identity", "swiglu_oai")
MOST_ROWS = 4  # tokens of linears: products with more vectors want tensor cores
# Tokens times experts of each, of moe_small: beyond, comparing all slots costs more than a sort.
MOST_SLOTS = 256


@dataclass(frozen=True)
class Call:
    """What a choice depends on.

    Attributes:
        tensor: the first of the call's tensors: device, dtype and shape.
        gradient: whether a gradient is wanted of any of them.
        forced: whether one implementation was asked for.
        sizes: what else the operation's candidates ask for.
    """

    tensor: Tensor
    gradient: bool
    forced: bool
    sizes: dict[str, Any]


@dataclass(frozen=True)
class Candidate:
    """One implementation of an operation.

    Attributes:
        package: what must be installed: "fla" or "triton".
        function: its module and name, after "hybridsim.kernels.".
        differentiable: whether autograd can follow it.
        accepts: whether it is made for a call.
        parts: the operations that it does in one, where it is not alone: it leaves them to their
            own candidates where an implementation of one of them was asked for.
    """

    package: str
    function: str
    differentiable: bool
    accepts: Callable[[Call], bool]
    parts: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """How outputs name it."""
        return f"fla {fla_version()}" if self.package == "fla" else OURS

    def load(self) -> Callable[..., Any]:
        """Import the function."""
        module, _, name = self.function.rpartition(".")
        found: Callable[..., Any] = getattr(
            import_module("hybridsim.kernels" + (f".{module}" if module else "")), name
        )
        return found


def _half(call: Call) -> bool:
    """Half precision, or float32 where torch may round products to TF32, as fla does."""
    rounded = call.forced or torch.get_float32_matmul_precision() != "highest"
    return call.tensor.dtype in HALVES or (call.tensor.dtype == torch.float32 and rounded)


def _narrow(call: Call) -> bool:
    return call.tensor.dtype in (*HALVES, torch.float32)


def _wide(call: Call) -> bool:
    return call.tensor.dtype == torch.float32


def _heads(call: Call, largest_key: int = 256) -> bool:
    """Head sizes that a tensor core's product takes."""
    sizes: tuple[int, int] = (call.sizes["key_dim"], call.sizes["value_dim"])
    return 16 <= sizes[0] <= largest_key and 16 <= sizes[1] <= 512


def _chunks(call: Call) -> bool:
    return _half(call) and _heads(call)


@lru_cache(maxsize=None)
def gated_gradients_are_wrong() -> bool:
    """Whether Triton miscompiles fla's gradient of gated chunks here, as fla itself refuses to run.

    Source: fla issue 640: Triton from 3.4.0, before 3.7.1, on Hopper.
    """
    if not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] != 9:
        return False
    numbers = tuple(int(part) for part in version("triton").split("+")[0].split(".")[:3])
    return (3, 4, 0) <= numbers < (3, 7, 1)


def _gated_chunks(call: Call) -> bool:
    return _chunks(call) and not (call.gradient and gated_gradients_are_wrong())


def _simple_chunks(call: Call) -> bool:
    """As gated chunks where decays vary; the gradient wants an even number of value channels."""
    if call.gradient and call.sizes["value_dim"] % 2:
        return False
    return _gated_chunks(call) if call.sizes["gated"] else _chunks(call)


def _steps(call: Call) -> bool:
    """Recurrent kernels multiply element by element, in float32."""
    return _narrow(call) and bool(call.sizes["key_dim"] <= 256)


def _halves_only(call: Call) -> bool:
    return call.tensor.dtype in HALVES and _heads(call)


def _few_slots(call: Call) -> bool:
    known = call.sizes["activation"] in _EXPERT_ACTIVATIONS
    return known and _narrow(call) and bool(call.sizes["slots"] <= MOST_SLOTS)


def _few_rows(call: Call) -> bool:
    """Rows and weights of one dtype, few enough to be bound by the weights' bytes."""
    return _narrow(call) and len(call.sizes["dtypes"]) == 1 and call.sizes["rows"] <= MOST_ROWS


def _few_gated(call: Call) -> bool:
    return _few_rows(call) and call.sizes["activation"] in _EXPERT_ACTIVATIONS


def _small_heads(call: Call) -> bool:
    """A step of few sequences whose heads' states one program each holds."""
    small = call.sizes["key_dim"] <= 128 and call.sizes["rank"] <= 256
    return _few_rows(call) and bool(small)


def _few_routed(call: Call) -> bool:
    """Few rows, with what else a mixture's step asks of its experts."""
    return _few_rows(call) and _few_slots(call) and bool(call.sizes["num_experts"] <= 1024)


def _few_experts(call: Call) -> bool:
    """One group of experts, whose scores one program holds."""
    return call.tensor.dtype == torch.float32 and bool(call.sizes["num_experts"] <= 1024)


def _activated(call: Call) -> bool:
    return _narrow(call) and call.sizes["activation"] in ("silu", "identity")


def _silu(call: Call) -> bool:
    return _narrow(call) and bool(call.sizes["activation"] == "silu")


def _plain_norm(call: Call) -> bool:
    """One group, normalised before the gate."""
    return _narrow(call) and call.sizes["groups"] == 1 and not call.sizes["gate_first"]


TABLE: dict[str, tuple[Candidate, ...]] = {
    "chunk_kda": (Candidate("fla", "fla_calls.chunk_kda", True, _chunks),),
    "recurrent_kda": (Candidate("fla", "fla_calls.recurrent_kda", False, _steps),),
    "chunk_gated_delta_rule": (
        Candidate("fla", "fla_calls.chunk_gated_delta_rule", True, _gated_chunks),
    ),
    "recurrent_gated_delta_rule": (
        Candidate("fla", "fla_calls.recurrent_gated_delta_rule", False, _steps),
    ),
    "chunk_delta_rule": (Candidate("fla", "fla_calls.chunk_delta_rule", True, _halves_only),),
    "recurrent_delta_rule": (Candidate("fla", "fla_calls.recurrent_delta_rule", False, _steps),),
    "chunk_gla": (Candidate("fla", "fla_calls.chunk_gla", True, _chunks),),
    "recurrent_gla": (Candidate("fla", "fla_calls.recurrent_gla", False, _steps),),
    "chunk_simple_gla": (Candidate("fla", "fla_calls.chunk_simple_gla", True, _simple_chunks),),
    "recurrent_simple_gla": (Candidate("fla", "fla_calls.recurrent_simple_gla", False, _steps),),
    "selective_scan": (Candidate("triton", "selective_scan", False, _wide),),
    "short_convolution": (Candidate("fla", "fla_calls.short_convolution", True, _activated),),
    "short_conv_step": (Candidate("triton", "short_conv_step", False, _activated),),
    "rms_norm": (Candidate("triton", "rms_norm", False, _narrow),),
    "gated_rms_norm": (
        Candidate("triton", "gated_rms_norm", False, _narrow),
        Candidate("fla", "fla_calls.gated_rms_norm", True, _plain_norm),
    ),
    "linears": (Candidate("triton", "linears", False, _few_rows),),
    "normed_linears": (
        Candidate("triton", "normed_linears", False, _few_rows, ("rms_norm", "linears")),
    ),
    "gated_linears": (
        Candidate(
            "triton", "normed_linears", False, _few_gated, ("rms_norm", "linears", "silu_mul")
        ),
    ),
    "added_linear": (Candidate("triton", "added_linear", False, _few_rows, ("linears",)),),
    "kda_step": (
        Candidate(
            "triton",
            "kda_step",
            False,
            _small_heads,
            ("linears", "short_conv_step", "recurrent_kda", "gated_rms_norm"),
        ),
    ),
    "absorb": (Candidate("triton", "absorb", False, _few_rows, ("rms_norm", "rotate")),),
    "latent_values": (Candidate("triton", "latent_values", False, _few_rows, ("absorb",)),),
    "route_beside": (
        Candidate("triton", "route_beside", False, _few_routed, ("route", "linears", "moe_small")),
    ),
    "silu_mul": (Candidate("triton", "silu_mul", False, _silu),),
    "index_scores": (Candidate("triton", "index_scores", False, _narrow),),
    "selected_attention": (Candidate("triton", "selected_attention", False, _narrow),),
    "block_attention": (Candidate("triton", "block_attention", False, _narrow),),
    "rotate": (Candidate("triton", "rotate", False, _narrow),),
    "route": (Candidate("triton", "route", False, _few_experts),),
    "sum_of_rows": (Candidate("triton", "sum_of_rows", False, _narrow),),
    "decode_attention": (Candidate("triton", "decode_attention", False, _narrow),),
    "latent_decode_attention": (Candidate("triton", "latent_decode_attention", False, _narrow),),
    "quantize_rows": (Candidate("triton", "quantize_rows", False, _narrow),),
    "likeliest": (Candidate("triton", "likeliest", False, _narrow),),
    "moe_small": (Candidate("triton", "moe_small", False, _few_slots),),
}

_forced: dict[str, str] = {}
_ran: dict[str, set[str]] = {}
_tracing = False


def choose(operation: str, *tensors: Tensor | None, **sizes: Any) -> Callable[..., Any] | None:
    """Return the implementation of an operation for these tensors, None for the reference.

    Args:
        operation: a key of the table.
        tensors: what goes in; the first has the operation's dtype.
        sizes: what the candidates ask for besides.
    """
    given = [tensor for tensor in tensors if tensor is not None]
    gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given)
    call = Call(given[0], gradient, bool(_wanted(operation)), sizes)
    for candidate in TABLE[operation]:
        if _runs(operation, candidate, call):
            note(operation, candidate.label)
            return _loaded(candidate)
    if not any(candidate.parts for candidate in TABLE[operation]):  # else the parts say what ran
        note(operation, REFERENCE)
    return None


def allowed(operation: str) -> bool:
    """Return whether anything but the reference may run: `forcing` may forbid it."""
    return _wanted(operation) != REFERENCE


def _wanted(operation: str) -> str:
    return _forced.get(operation, _forced.get("*", ""))


def _runs(operation: str, candidate: Candidate, call: Call) -> bool:
    wanted = _wanted(operation)
    if any(
        name not in ("", candidate.package) for name in (wanted, *map(_wanted, candidate.parts))
    ):
        return False
    if call.gradient and not candidate.differentiable:
        return False
    there = on_gpu(call.tensor) or (bool(wanted) and interpreted() and call.tensor.is_cpu)
    return there and installed(candidate.package) and candidate.accepts(call)


def on_gpu(tensor: Tensor) -> bool:
    """Return whether kernels of a GPU run on a tensor, or are traced on it."""
    return tensor.is_cuda or (_tracing and tensor.is_meta)


def is_tracing() -> bool:
    """Return whether meta tensors stand for those of a GPU."""
    return _tracing


@contextmanager
def tracing() -> Iterator[None]:
    """Inside, meta tensors choose what tensors of the GPU here would (see `ahead`)."""
    global _tracing
    _tracing = True
    try:
        yield
    finally:
        _tracing = False


@lru_cache(maxsize=None)
def _loaded(candidate: Candidate) -> Callable[..., Any]:
    return candidate.load()


@lru_cache(maxsize=None)
def installed(package: str) -> bool:
    """Return whether a package of kernels can be imported here, in a version that has them."""
    names = {"fla": ("fla.ops", "fla.modules"), "triton": ("triton",)}
    try:
        for name in names[package]:
            import_module(name)
    except Exception:  # whatever a broken installation raises, the reference runs
        return False
    return package != "fla" or _version_numbers(fla_version()) >= FLA_SINCE


def _version_numbers(text: str) -> tuple[int, ...]:
    """Return major and minor number of a version, (0, 0) of what is none."""
    parts = text.split(".")[:2]
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else (0, 0)


@lru_cache(maxsize=None)
def fla_version() -> str:
    """Return the version of flash-linear-attention."""
    try:
        return version("fla-core")
    except PackageNotFoundError:
        return "unknown"


def interpreted() -> bool:
    """Return whether Triton's interpreter runs its kernels, on the CPU; only where forced to."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@contextmanager
def forcing(implementation: str, *operations: str) -> Iterator[None]:
    """Inside, run only one implementation of these operations, or of all, or else the reference.

    Args:
        implementation: "reference", "fla" or "triton".
        operations: keys of the table; none for all.
    """
    before = dict(_forced)
    _forced.update(dict.fromkeys(operations or ("*",), implementation))
    try:
        yield
    finally:
        _forced.clear()
        _forced.update(before)


def note(operation: str, label: str) -> None:
    """Remember that an implementation of an operation was chosen."""
    _ran.setdefault(operation, set()).add(label)


def report() -> dict[str, str]:
    """Return what has been chosen so far: operation -> implementations."""
    return {name: ", ".join(sorted(labels)) for name, labels in sorted(_ran.items())}


def clear_report() -> None:
    """Forget what has been chosen."""
    _ran.clear()
