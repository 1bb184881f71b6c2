"""How near our kernels come to the device's limits, and to what else computes the same.

    python benchmarks/kernels.py [--out FILE] [--only TEXT] [--cuts] [--seconds 160]

Needs a CUDA device. Each row checks one kernel at one shape against a reference in float32, times
it, and divides by its roofline: the fewest bytes over the rate of a large copy or read, or its
FLOPs over the rate of a large matrix product, all measured in the same run. `--cuts` also tries
other ways to cut the kernels. Times are medians of CUDA graph replays, each on a cold L2 and on
another of several inputs. A row that fails shows its error; rows that no longer fit into --seconds
are marked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridsim import kernels
from hybridsim.ffn.moe.module import Experts
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.kernels import choice
from hybridsim.measure.session import make_timer, measure_ceilings
from hybridsim.mixers.block_sparse import ops as block_ops
from hybridsim.mixers.sparse_mla import ops as dsa_ops
from hybridsim.nn.quantize import dequantize, quantize
from hybridsim.origin import git_revision, versions

try:
    from fla.modules import causal_conv1d as fla_conv
    from fla.modules.norm import fused_norm_gate, layernorm
except ImportError:
    fla_conv = fla_norm = None
else:
    fla_norm = SimpleNamespace(
        rms_norm=layernorm.rms_norm, rms_norm_gated=fused_norm_gate.rms_norm_gated
    )

SAMPLES = 21
INPUT_SETS = 3
FLUSHED_BYTES = 256 * 2**20
TOLERANCE = 2e-2
BF16 = torch.bfloat16

Inputs = tuple[Any, ...]
Run = Callable[..., Any]


@dataclass
class Row:
    """One kernel at one shape.

    Attributes:
        kernel: its name.
        shape: what a reader needs to know of the shape.
        draw: makes one set of inputs.
        run: the kernel on a set of inputs.
        reference: the wanted output, from the same inputs.
        least_bytes: each input read once, each output written once.
        flops: a multiply-add is 2.
        rivals: others that compute the same.
        sets: input sets that are timed in turn.
    """

    kernel: str
    shape: str
    draw: Callable[[], Inputs]
    run: Run
    reference: Run
    least_bytes: float
    flops: float = 0
    rivals: dict[str, Run] = field(default_factory=dict)
    sets: int = INPUT_SETS


class Timer:
    """Times functions as CUDA graphs on a cold L2."""

    def __init__(self) -> None:
        self.flushed = torch.ones(FLUSHED_BYTES // 4, device="cuda")
        self.total = torch.zeros((), device="cuda")

    def median_s(self, run: Run, sets: list[Inputs]) -> tuple[float, float]:
        """Return the median time of a call, and half the range of the middle half over it."""
        graphs = [self._captured(run, inputs) for inputs in sets]
        marks = []
        for sample in range(SAMPLES + 2):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.sum(self.flushed, dim=0, out=self.total)  # written lines would have to leave
            begin.record()
            graphs[sample % len(graphs)].replay()
            end.record()
            marks.append((begin, end))
        torch.cuda.synchronize()
        times = sorted(begin.elapsed_time(end) / 1e3 for begin, end in marks[2:])
        middle = statistics.median(times)
        return middle, (times[3 * SAMPLES // 4] - times[SAMPLES // 4]) / 2 / middle

    def _captured(self, run: Run, inputs: Inputs) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                run(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run(*inputs)
        return graph


def normal(*shape: int, dtype: torch.dtype = BF16) -> Tensor:
    return torch.randn(*shape, device="cuda", dtype=dtype)


def length_of(tokens: int) -> Tensor:
    return torch.tensor([tokens], dtype=torch.int32, device="cuda")


def ceilings(timer: Timer) -> dict[str, float]:
    """Return the device's rates and the time of a graph of one tiny kernel."""
    rates = measure_ceilings(make_timer("cuda"))
    empty, _ = timer.median_s(lambda x: x.add_(1), [(torch.zeros(1, device="cuda"),)])
    return {
        "matmul_flops_per_s": rates["flops_per_s"]["bf16"],
        "bytes_per_s": rates["bytes_per_s"],
        "smallest_graph_s": empty,
    }


def softmax_mix(q: Tensor, keys: Tensor, values: Tensor, scale: float, sinks: Any = None) -> Tensor:
    """Return attention of q [B, H, K] over keys, values [B, S, H_kv, .] in float32, by key head."""
    group = q.shape[1] // keys.shape[2]
    out = []
    for head in range(keys.shape[2]):
        query = q[:, head * group : (head + 1) * group].float()
        scores = query @ keys[:, :, head].float().mT * scale
        if sinks is not None:
            column = sinks[head * group : (head + 1) * group].float()[None, :, None]
            scores = torch.cat((scores, column.expand(len(q), -1, 1)), -1)
        weights = scores.softmax(-1)[..., : keys.shape[1]]
        out.append(weights @ values[:, :, head].float())
    return torch.cat(out, 1)


def latent_rows(cuts: bool) -> Iterator[Row]:
    from hybridsim.kernels.latent import Tiles

    tried = {
        "": None,
        " h32 t64 w4": Tiles(32, 64, 4, 3),
        " h32 t32 w4 2/SM": Tiles(32, 32, 4, 3, 2),
        " h64 t32 w8": Tiles(64, 32, 8, 4),
        " h64 t64 w8": Tiles(64, 64, 8, 2),
    }
    for heads, batch, tokens in ((32, 1, 2**20), (32, 1, 2**17), (32, 1, 2**15), (32, 32, 2**15),
                                 (128, 1, 2**17)):  # fmt: skip
        for label, tiles in tried.items():
            if label and not (cuts and (heads, batch) == (32, 1)):
                continue
            yield latent_row(heads, batch, tokens, label, tiles)


def latent_row(heads: int, batch: int, tokens: int, label: str, tiles: Any) -> Row:
    scale, length = 192**-0.5, length_of(tokens)

    def matmuls(q: Tensor, latents: Tensor) -> Tensor:
        scores = (q @ latents.mT) * scale
        return scores.softmax(-1, dtype=torch.float32).to(BF16) @ latents[..., :512]

    def run(q: Tensor, latents: Tensor) -> Tensor:
        return kernels.latent_decode_attention(q, latents, length, scale, 512, tiles)

    return Row(
        "latent_decode" + label,
        f"B{batch} H{heads} S{tokens}",
        lambda: (normal(batch, heads, 576), normal(batch, tokens, 576)),
        run,
        lambda q, c: softmax_mix(q, c[:, :, None], c[:, :, None, :512], scale),
        2 * batch * (tokens * 576 + heads * (576 + 512)),
        2 * batch * heads * tokens * (576 + 512),
        {} if label else {"two matmuls": matmuls},
        2 if batch * tokens * 576 * 2 > 2**30 else INPUT_SETS,
    )


def decode_rows() -> Iterator[Row]:
    # heads, key heads, channels, batch, tokens, window
    yield decode_row(32, 8, 128, 1, 2**17)
    yield decode_row(32, 8, 128, 32, 2**13)
    yield decode_row(16, 2, 256, 1, 2**17)
    yield decode_row(16, 2, 256, 16, 2**15)
    yield decode_row(32, 32, 128, 1, 2**17)
    yield decode_row(64, 8, 64, 1, 2**17)
    yield decode_row(64, 8, 64, 16, 2**13, 128, True)


def decode_row(
    heads: int, key_heads: int, channels: int, batch: int, tokens: int,
    window: int | None = None, with_sinks: bool = False,
) -> Row:  # fmt: skip
    scale, length, seen = channels**-0.5, length_of(tokens), min(tokens, window or tokens)
    sinks = normal(heads) if with_sinks else None

    def sdpa(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        key, value = (x[:, -seen:].transpose(1, 2) for x in (keys, values))
        q = q[:, :, None]
        return F.scaled_dot_product_attention(q, key, value, scale=scale, enable_gqa=True)

    return Row(
        "decode_attention",
        f"B{batch} H{heads}/{key_heads}x{channels} S{tokens}" + (f" w{window}" if window else ""),
        lambda: (
            normal(batch, heads, channels),
            normal(batch, tokens, key_heads, channels),
            normal(batch, tokens, key_heads, channels),
        ),
        lambda q, k, v: kernels.decode_attention(q, k, v, length, scale, window, sinks),
        lambda q, k, v: softmax_mix(q, k[:, -seen:], v[:, -seen:], scale, sinks),
        2 * batch * 2 * channels * (seen * key_heads + heads),
        4 * batch * heads * seen * channels,
        {} if with_sinks else {"SDPA": sdpa},
    )


def moe_rows() -> Iterator[Row]:
    for tokens in (1, 4, 16, 32):
        yield moe_row("Kimi", tokens, MoESettings(256, 8, 1024), 2304)
    yield moe_row("Qwen3-Next", 1, MoESettings(512, 10, 512), 2048)
    yield moe_row("DeepSeek-V3, 64 of 256", 1, MoESettings(64, 8, 2048), 7168)


def moe_row(name: str, tokens: int, settings: MoESettings, width: int) -> Row:
    with torch.device("cuda"):
        experts = Experts(settings, width).to(BF16)
    for parameter in experts.parameters():
        torch.nn.init.normal_(parameter, std=width**-0.5)
    up, down = experts.gate_up_proj.detach(), experts.down_proj.detach()
    top, inner = settings.num_experts_per_tok, settings.intermediate_size

    def draw() -> Inputs:
        scores = torch.rand(tokens, settings.num_experts, device="cuda")
        weights, chosen = scores.topk(top, sorted=False)
        return normal(tokens, width), weights, chosen

    def reference(x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        out = torch.zeros(tokens, width, device="cuda")
        for token in range(tokens):
            for weight, expert in zip(weights[token], chosen[token].tolist(), strict=True):
                gate, value = (x[token].float() @ up[expert].float()).chunk(2)
                out[token] += weight * ((F.silu(gate) * value) @ down[expert].float())
        return out

    def grouped(x: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        with choice.forcing(choice.REFERENCE, "moe_small"):
            out: Tensor = experts(x, weights, chosen)
        return out

    # Uniform routing touches E (1 - (1 - k / E)^N) experts.
    share = 1 - (1 - top / settings.num_experts) ** tokens
    return Row(
        "moe_small",
        f"{name}, {tokens} tokens",
        draw,
        lambda x, w, e: kernels.moe_small(x, up, down, w, e, "silu"),
        reference,
        2 * settings.num_experts * share * 3 * width * inner,
        2 * tokens * top * 3 * width * inner,
        {"sort, grouped_mm": grouped},
    )


def sparse_rows() -> Iterator[Row]:
    yield selected_row(1, 1, 2**17)
    yield selected_row(16, 1, 2**15)
    yield selected_row(1, 2048, 2**15)
    yield block_row(1, 1, 2**17)
    yield block_row(16, 1, 2**15)
    yield block_row(1, 2048, 2**15)
    yield index_row(1, 1, 2**17, True)
    yield index_row(1, 1, 2**20, True)
    yield index_row(1, 1024, 2**15, True)
    yield index_row(1, 1024, 2**15, False)


def first_queries(run: Run, count: int = 16) -> Run:
    """Return a reference that looks at the first queries alone: it gathers much for each."""
    return lambda q, cache, *others: run(q[:, :count], cache, *[x[:, :count] for x in others])


def selected_row(batch: int, queries: int, tokens: int) -> Row:
    heads, count, scale = 128, 2048, 192**-0.5

    def draw() -> Inputs:
        chosen = torch.randint(0, tokens, (batch, queries, count), device="cuda")
        return normal(batch, queries, heads, 576), normal(batch, tokens, 576), chosen

    return Row(
        "selected_attention",
        f"B{batch} T{queries} H{heads} k{count} S{tokens}",
        draw,
        lambda q, c, i: kernels.selected_attention(q, c, i, scale, 512),
        first_queries(
            lambda q, c, i: dsa_ops.selected_attention(q.float(), c.float(), i, 512, scale)
        ),
        2 * batch * (min(queries * count, tokens) * 576 + queries * heads * (576 + 512)),
        2 * batch * queries * heads * count * (576 + 512),
    )


def block_row(batch: int, queries: int, tokens: int) -> Row:
    heads, key_heads, width, size, count = 64, 4, 128, 128, 16
    past, scale = tokens - queries, width**-0.5

    def draw() -> Inputs:
        scores = torch.rand(batch, queries, key_heads, past // size, device="cuda")
        chosen = scores.topk(count, sorted=False).indices
        keys, values = (normal(batch, tokens, key_heads, width) for _ in range(2))
        return normal(batch, queries, heads, width), (keys, values), chosen

    def reference(q: Tensor, cache: Any, chosen: Tensor) -> Tensor:
        keys, values = (x[:, : past + q.shape[1]].float() for x in cache)
        return block_ops.block_attention(q.float(), keys, values, chosen, size, scale)

    seen = min(queries * count * size, tokens) * key_heads
    return Row(
        "block_attention",
        f"B{batch} T{queries} H{heads}/{key_heads}x{width} {count}x{size} S{tokens}",
        draw,
        lambda q, c, i: kernels.block_attention(q, *c, i, size, past, scale),
        first_queries(reference),
        2 * batch * 2 * width * (seen + queries * heads),
        4 * batch * queries * heads * count * size * width,
    )


def index_row(batch: int, queries: int, tokens: int, rounded: bool) -> Row:
    heads, width = 64, 128

    def draw() -> Inputs:
        keys, scales = normal(batch, tokens, width), None
        if rounded:
            keys, scales = quantize(keys)
            scales = scales[..., 0].contiguous()
        weights = normal(batch, queries, heads, dtype=torch.float32)
        return normal(batch, queries, heads, width), keys, weights, scales

    def run(q: Tensor, keys: Tensor, weights: Tensor, scales: Tensor | None) -> Tensor:
        return kernels.index_scores(q, keys, weights, scales=scales)

    def wanted(q: Tensor, keys: Tensor, weights: Tensor, scales: Tensor | None) -> Tensor:
        seen = tokens - queries + 4  # that the first four queries see
        keys = keys.float() if scales is None else dequantize(keys, scales[..., None])
        q, weights = q[:, :4].float(), weights[:, :4]
        return dsa_ops.index_scores(q, keys[:, :seen], weights)[..., : tokens - queries + 1]

    visible = tokens - queries / 2
    return Row(
        "index_scores",
        f"B{batch} T{queries} H{heads}x{width} S{tokens} {'fp8' if rounded else 'bf16'}",
        draw,
        run,
        wanted,
        batch * (tokens * width * (1 if rounded else 2) + queries * (tokens * 4 + heads * width)),
        2 * batch * queries * heads * (width + 1) * visible,
    )


def pointwise_rows() -> Iterator[Row]:
    for rows, width in ((1, 2304), (2**15, 2304), (32, 128), (2**20, 128)):
        yield norm_row(rows, width, False)
    yield norm_row(1, 2304, True)
    yield norm_row(2**15, 2304, True)
    yield gated_norm_row(32, 128)
    yield gated_norm_row(2**20, 128)
    yield gate_row(1, 9216)
    yield gate_row(2**15, 9216)
    yield conv_row(1, 12288)
    yield conv_row(128, 12288)


def norm_row(rows: int, width: int, residual: bool) -> Row:
    weight, eps = normal(width), 1e-6
    rivals: dict[str, Run] = {}
    if not residual:
        rivals["torch"] = lambda x: F.rms_norm(x, (width,), weight, eps)
    if fla_norm is not None:
        rivals["fla"] = lambda x, *r: fla_norm.rms_norm(
            x, weight, None, *r, eps=eps, prenorm=bool(r)
        )

    def run(x: Tensor, *added: Tensor) -> Tensor:
        out = kernels.rms_norm(x, weight, eps, False, *added)
        return out[0] if added else out

    def wanted(x: Tensor, *added: Tensor) -> Tensor:
        return F.rms_norm(sum((r.float() for r in added), x.float()), (width,), weight.float(), eps)

    return Row(
        "rms_norm" + (" + residual" if residual else ""),
        f"{rows} x {width}",
        lambda: tuple(normal(rows, width) for _ in range(1 + residual)),
        run,
        wanted,
        2 * rows * width * (4 if residual else 2),
        rivals=rivals,
    )


def gated_norm_row(rows: int, width: int) -> Row:
    weight, eps = normal(width), 1e-6
    rivals: dict[str, Run] = {}
    if fla_norm is not None:
        rivals["fla"] = lambda x, g: fla_norm.rms_norm_gated(x, g, weight, None, "swish", eps=eps)
    return Row(
        "gated_rms_norm",
        f"{rows} x {width}",
        lambda: (normal(rows, width), normal(rows, width)),
        lambda x, g: kernels.gated_rms_norm(x, g, weight, eps),
        lambda x, g: F.rms_norm(x.float(), (width,), weight.float(), eps) * F.silu(g.float()),
        2 * rows * width * 3,
        rivals=rivals,
    )


def gate_row(rows: int, inner: int) -> Row:
    def plain(x: Tensor) -> Tensor:
        gate, up = x.chunk(2, -1)
        return F.silu(gate) * up

    return Row(
        "silu_mul",
        f"{rows} x 2 x {inner}",
        lambda: (normal(rows, 2 * inner),),
        kernels.silu_mul,
        lambda x: plain(x.float()),
        2 * rows * inner * 3,
        rivals={"torch": plain},
    )


def conv_row(batch: int, channels: int) -> Row:
    weight, size = normal(channels, 4), 4

    def wanted(x: Tensor, state: Tensor, wide_state: Tensor) -> Tensor:
        # The kernel has moved the state on: its last column is x.
        columns = torch.cat((wide_state[:, :, 1:], x[:, :, None]), 2).float()
        return F.silu((columns * weight.float()).sum(-1))

    def draw() -> Inputs:
        state = normal(batch, size - 1, channels)
        wide_state = torch.cat((normal(batch, 1, channels), state), 1).mT.contiguous()
        return normal(batch, channels), state, wide_state

    rivals: dict[str, Run] = {}
    if fla_conv is not None:
        rivals["fla"] = lambda x, s, w: fla_conv.causal_conv1d_update(
            x[:, None], w, weight=weight, activation="silu"
        )
    return Row(
        "short_conv_step",
        f"B{batch} C{channels} W{size}",
        draw,
        lambda x, s, w: kernels.short_conv_step(x, s, weight),
        wanted,
        2 * batch * channels * (2 * size) + 2 * channels * size,
        rivals=rivals,
    )


def all_rows(cuts: bool) -> Iterator[Callable[[], Iterator[Row]]]:
    yield lambda: latent_rows(cuts)
    yield decode_rows
    yield moe_rows
    yield sparse_rows
    yield pointwise_rows


def measured(row: Row, timer: Timer, rates: dict[str, float]) -> dict[str, Any]:
    """Return a row's figures, or its error in their place."""
    floor_s = max(row.least_bytes / rates["bytes_per_s"], row.flops / rates["matmul_flops_per_s"])
    bound = "bytes" if row.least_bytes / rates["bytes_per_s"] == floor_s else "FLOPs"
    found: dict[str, Any] = {
        "kernel": row.kernel, "shape": row.shape, "roofline_s": floor_s, "bound": bound,
        "bytes": row.least_bytes, "flops": row.flops, "rivals_s": {},
    }  # fmt: skip
    try:
        sets = [row.draw() for _ in range(row.sets)]
        wanted = row.reference(*sets[0])  # first: some kernels write their states
        got = row.run(*sets[0]).float()
        got = got[tuple(slice(n) for n in wanted.shape)]  # a reference may look at a part
        found["error"] = ((got - wanted).abs().max() / wanted.abs().max()).item()
        del got, wanted
        found["time_s"], found["spread"] = timer.median_s(row.run, sets)
        for name, rival in row.rivals.items():
            found["rivals_s"][name], _ = timer.median_s(rival, sets)
    except Exception as problem:  # one row's failure must not cost the others
        found["failure"] = f"{type(problem).__name__}: {problem}"
        traceback.print_exc()
    return found


def show(found: dict[str, Any]) -> None:
    head = f"{found['kernel']:44s} {found['shape']:30s}"
    if "time_s" not in found:
        print(head, found["failure"].splitlines()[0][:120], flush=True)
        return
    time_s, floor_s = found["time_s"], found["roofline_s"]
    wrong = "" if found["error"] <= TOLERANCE else "  WRONG"
    rivals = "  ".join(f"{n} {1e6 * s:.1f}" for n, s in found["rivals_s"].items())
    print(
        f"{head} {1e6 * time_s:9.1f} {100 * found['spread']:5.1f}% {1e6 * floor_s:9.1f} "
        f"{found['bound']:5s} {time_s / floor_s:6.2f} {found['error']:9.1e}{wrong}  {rivals}"
        + ("  " + found["failure"].splitlines()[0][:100] if "failure" in found else ""),
        flush=True,
    )


class Asked(argparse.Namespace):
    """The options that benchmarks of kernels share."""

    out: Path
    only: str
    seconds: float
    revision: str


def run_rows(groups: Iterable[Callable[[], Iterator[Row]]], asked: Asked) -> None:
    """Measure and print rows one after the other; the record holds what is done so far."""
    started = time.perf_counter()
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    timer = Timer()
    rates = ceilings(timer)
    record: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(("torch", "triton", "fla-core")),
        "git_revision": asked.revision or git_revision(),
        "rates": rates,
        "rows": [],
    }
    print(
        f"{record['device']}, torch {torch.__version__}, "
        f"matrix product {rates['matmul_flops_per_s'] / 1e12:.0f} TFLOP/s, "
        f"memory {rates['bytes_per_s'] / 1e12:.2f} TB/s, "
        f"smallest graph {1e6 * rates['smallest_graph_s']:.1f} us"
    )
    print(
        f"{'kernel':44s} {'shape':30s} {'us':>9s} {'spread':>6s} {'floor us':>9s} {'bound':5s} "
        f"{'ratio':>6s} {'error':>9s}  others, us"
    )
    out = asked.out
    out.parent.mkdir(parents=True, exist_ok=True)
    for group in groups:
        for row in group():
            if asked.only not in row.kernel:
                continue
            if time.perf_counter() - started > asked.seconds:
                found = {"kernel": row.kernel, "shape": row.shape, "failure": "out of time"}
            else:
                found = measured(row, timer, rates)
            show(found)
            record["rows"].append(found)
            record["seconds"] = time.perf_counter() - started
            out.write_text(json.dumps(record, indent=1) + "\n")
            torch.cuda.empty_cache()
    wrong = [r for r in record["rows"] if "failure" in r or not r["error"] <= TOLERANCE]
    print(f"{len(record['rows'])} rows, {len(wrong)} failed, {record['seconds']:.0f} s, {out}")


def options(description: str | None, out: str) -> argparse.ArgumentParser:
    """Return a parser with the options that benchmarks of kernels share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--out", type=Path, default=Path("outputs/benchmarks") / out)
    parser.add_argument("--only", default="", help="kernels whose name has this text")
    parser.add_argument("--seconds", type=float, default=160, help="start no row after")
    parser.add_argument("--revision", default="", help="git revision, where no checkout runs")
    return parser


def main() -> None:
    parser = options(__doc__, "kernels.json")
    parser.add_argument("--cuts", action="store_true", help="try other cuts too")
    asked = parser.parse_args(namespace=Asked())
    run_rows(all_rows(asked.cuts), asked)


if __name__ == "__main__":
    main()
