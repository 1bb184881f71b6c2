"""Four full-size layers of Kimi Linear at 32k tokens: ours, the hardware's limit, transformers.

    python benchmarks/decode.py [--device cpu --spec kimi_linear_tiny --context 96] [--record FILE]

The layers (LLLF, dense then experts) hold the same weights in both. Prefill is timed with the
logits of the last position, decode with a captured graph over a static cache (ours) and with the
model's own eager loop (transformers, with flash-linear-attention where it is installed). The
roofline is, for decode, the closed form's bytes over the measured bandwidth and, for prefill,
the closed form's FLOPs over the measured rate of a large matrix product. A row that fails prints
why, and the others follow.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridsim import load_spec
from hybridsim.conventions import FlopConventions
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.families.convert import export_config
from hybridsim.graph import build_graph
from hybridsim.kernels import choice
from hybridsim.kernels.tuning import compile_side_by_side
from hybridsim.measure.session import make_timer, measure_ceilings
from hybridsim.model.build import empty_model, initialize
from hybridsim.model.decode import DecodeRunner
from hybridsim.model.model import HybridLM
from hybridsim.origin import git_revision, versions
from hybridsim.spec.schema import ModelSpec
from hybridsim.steps import decode, prefill

SLICE = ["num_layers=4", "layer_pattern=LLLF", "ffn_pattern=D (E)*3"]
BATCHES = (1, 32)
SPARE = 128  # tokens that steps may add to the context
KERNELS_SHOWN = 14
Row = dict[str, Any]

# Names inside the reference, where they are not ours; several are concatenated.
MIXER = {
    "A_log": "forget_gate.A_log",
    "dt_bias": "forget_gate.dt_bias",
    "f_a_proj.weight": "forget_gate.f_a_proj.weight",
    "f_b_proj.weight": "forget_gate.f_b_proj.weight",
    "kv_a_proj.weight": "kv_a_proj_with_mqa.weight",
    "kv_a_norm.weight": "kv_a_layernorm.weight",
}
FFN = {
    "gate_up_proj.weight": "gate_proj.weight + up_proj.weight",
    "shared_expert.gate_up_proj.weight": (
        "shared_experts.gate_proj.weight + shared_experts.up_proj.weight"
    ),
    "shared_expert.down_proj.weight": "shared_experts.down_proj.weight",
    "router.weight": "gate.weight",
    "score_correction_bias": "gate.e_score_correction_bias",
}
TOP = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
NORMS = {
    "mixer_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}


def reference_name(name: str) -> str:
    """Return the reference's name or names of one of our tensors."""
    if name in TOP:
        return TOP[name]
    layer, rest = name.removeprefix("layers.").split(".", 1)
    if rest in NORMS:
        return f"model.layers.{layer}.{NORMS[rest]}"
    if rest.startswith("mixers."):
        rest, part, table = rest.split(".", 2)[2], "self_attn", MIXER
    else:
        rest, part, table = rest.removeprefix("ffn."), "mlp", FFN
    parts = table.get(rest, rest).split(" + ")
    return " + ".join(f"model.layers.{layer}.{part}.{p}" for p in parts)


@torch.no_grad()
def copy_weights(model: HybridLM, reference: Any) -> None:
    found = reference.state_dict()
    for name, target in model.state_dict(keep_vars=True).items():
        tensor = torch.cat([found[part] for part in reference_name(name).split(" + ")])
        if ".experts." in name:  # stacked, and stored the other way round
            tensor = tensor.mT
        target.copy_(tensor.reshape(target.shape))


def build_reference(spec: ModelSpec, device: str, dtype: torch.dtype) -> Any:
    import transformers

    config = transformers.KimiLinearConfig(**export_config(spec, "kimi_linear").config)
    config._attn_implementation = "sdpa"
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return transformers.KimiLinearForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


class Bench:
    """One run: device, sizes, and the rows so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device, self.context = args.device, args.context
        self.record = Path(args.record)
        self.facts: dict[str, Any] = {}
        self.spec = load_spec(args.spec, [] if args.spec.endswith("_tiny") else SLICE)
        self.costs = ModelCosts.of(build_graph(self.spec))
        self.deployment = Deployment(conventions=FlopConventions(logits="last"))
        self.dtype = torch.bfloat16 if self.on_gpu else torch.float32
        self.rows: dict[str, Row] = {}
        self.kernels: dict[str, list[tuple[str, float, int]]] = {}
        self.kernels_shown = False
        self.started = time.perf_counter()

    @property
    def on_gpu(self) -> bool:
        return bool(self.device == "cuda")

    def tokens(self, batch: int, count: int) -> Tensor:
        return torch.randint(0, self.spec.vocab_size, (batch, count), device=self.device)

    def clock(self) -> float:
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter()

    def milliseconds(self, work: Callable[[], Any], repeats: int, warm_up: int = 1) -> float:
        """Return the median time of one call, warm, synchronised with the device."""
        times = []
        for _ in range(warm_up + repeats):
            start = self.clock()
            work()
            times.append(self.clock() - start)
        return 1e3 * statistics.median(times[warm_up:])

    def replays(self, work: Callable[[], Any], repeats: int) -> float:
        """Return the median time of one of several calls that follow each other on the device."""
        if not self.on_gpu:
            return self.milliseconds(work, repeats)
        for _ in range(3):
            work()
        marks = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
        marks[0].record()
        for mark in marks[1:]:
            work()
            mark.record()
        torch.cuda.synchronize()
        spans = itertools.pairwise(marks)
        return statistics.median(one.elapsed_time(two) for one, two in spans)

    def attempt(self, row: str, column: str, work: Callable[[], Any]) -> None:
        """Fill one figure of a row, or its error."""
        try:
            value: Any = work()
        except Exception as error:
            lines = str(error).strip().splitlines() or [""]
            value = f"{type(error).__name__}: {lines[0][:120]}"
        self.rows.setdefault(row, {})[column] = value
        self.say(f"{row} {column}: {value}")
        self.write()
        self.free()

    def say(self, text: str) -> None:
        print(f"[{time.perf_counter() - self.started:4.0f} s] {text}", flush=True)

    def write(self) -> None:
        """Write what is known so far: a run that is stopped has not been for nothing."""
        record = {
            "spec": self.spec.name,
            "context_tokens": self.context,
            "device": torch.cuda.get_device_name() if self.on_gpu else "cpu",
            "versions": versions(("torch", "triton", "transformers", "fla-core")),
            "git_revision": git_revision(),
            "date": datetime.now(UTC).date().isoformat(),
            **self.facts,
            "rows": self.rows,
            "kernels": choice.report(),
            "kernel_times": {name: times[:40] for name, times in self.kernels.items()},
            "peak_bytes": torch.cuda.max_memory_allocated() if self.on_gpu else None,
        }
        self.record.parent.mkdir(parents=True, exist_ok=True)
        self.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")

    def free(self) -> None:
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()

    def note_kernels(self, name: str, work: Callable[[], Any], calls: int) -> None:
        """Keep where the device's time goes: kernel, milliseconds a call, launches a call."""
        if not self.on_gpu:
            return
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA]) as run:
            for _ in range(calls):
                work()
            torch.cuda.synchronize()
        found = [
            (event.key[:90], event.self_device_time_total / 1e3 / calls, event.count / calls)
            for event in run.key_averages()
            if event.self_device_time_total > 0
        ]
        self.kernels[name] = sorted(found, key=lambda item: -item[1])


def time_reference(bench: Bench, reference: Any) -> None:
    """Prefill and eager decode steps of transformers' model."""
    prompt = bench.tokens(1, bench.context)
    kept: list[Any] = []

    def run(**inputs: Any) -> Any:
        with torch.inference_mode():
            return reference(**inputs, use_cache=True, logits_to_keep=1)

    def prefill_ms() -> float:
        value = bench.milliseconds(lambda: run(input_ids=prompt), 3)
        kept.append(run(input_ids=prompt).past_key_values)
        return value

    def decode_ms(batch: int) -> float:
        cache = kept[0]
        if batch > 1:
            with torch.inference_mode():
                repeat_cache(cache, batch)
        step = bench.tokens(batch, 1)
        return bench.milliseconds(lambda: run(input_ids=step, past_key_values=cache), 8, 2)

    bench.attempt("prefill", "transformers_ms", prefill_ms)
    for batch in BATCHES:
        bench.attempt(f"decode, batch {batch}", "transformers_ms", lambda b=batch: decode_ms(b))


def repeat_cache(cache: Any, batch: int) -> None:
    """Give a cache of one sequence `batch` of them."""
    for layer in cache.layers:
        for name in ("keys", "values"):
            if isinstance(getattr(layer, name, None), Tensor):
                setattr(layer, name, getattr(layer, name).repeat_interleave(batch, dim=0))
        for name in ("conv_states", "recurrent_states"):
            states = getattr(layer, name, {})
            for key, state in states.items():
                if isinstance(state, Tensor):
                    states[key] = state.repeat_interleave(batch, dim=0)


def time_ours(bench: Bench, model: HybridLM) -> None:
    """Prefill, and decode steps as a captured graph."""
    prompt, kept = bench.tokens(1, bench.context), []

    def prefill_ms() -> float:
        runner = DecodeRunner(model, 1, bench.context + SPARE)
        kept.append(runner)

        def work() -> None:
            runner.reset()
            runner.prefill(prompt)

        value = bench.milliseconds(work, 3)
        bench.note_kernels("prefill", work, 1)
        return value

    def decode_ms(batch: int) -> float:
        if batch == 1:
            runner = kept[0]
        else:
            kept.clear()
            bench.free()
            runner = DecodeRunner(model, batch, bench.context + SPARE)
            fill(runner, bench.context)
        steps = [bench.tokens(batch, 1) for _ in range(20)]
        value = bench.replays(lambda: runner.step(steps[runner.past_tokens % len(steps)]), 20)
        bench.note_kernels(f"decode, batch {batch}", runner.step, 5)
        return value

    bench.attempt("prefill", "ours_ms", prefill_ms)
    for batch in BATCHES:
        bench.attempt(f"decode, batch {batch}", "ours_ms", lambda b=batch: decode_ms(b))


@torch.inference_mode()
def fill(runner: DecodeRunner, tokens: int) -> None:
    """Fill a cache with random numbers, as if it had seen so many tokens."""
    for layer in runner.cache.layers.values():
        for tensor in layer.tensors():
            tensor.normal_(0, 0.1)
    runner.cache.stretch(tokens)


@torch.inference_mode()
def compare_logits(bench: Bench, model: HybridLM, reference: Any) -> dict[str, float]:
    """Return how far both are from each other, and from our model in float32, which it becomes.

    A difference of two bf16 models says little alone: where experts score alike, a rounding chooses
    another one. The distances from float32 say whether one of them rounds more than the other.
    """
    tokens = bench.tokens(2, min(bench.context, 512))
    theirs, ours = reference(input_ids=tokens).logits.double(), model(tokens).double()
    exact = model.float()(tokens).double()

    def distance(one: Tensor, two: Tensor) -> float:
        return float((one - two).norm() / two.norm())

    return {
        "ours_from_theirs": distance(ours, theirs),
        "ours_from_float32": distance(ours, exact),
        "theirs_from_float32": distance(theirs, exact),
    }


def finish(bench: Bench, bandwidth: float, matrix_rate: float) -> None:
    """Add what the limits and the ratios are."""
    costs, deployment = bench.costs, bench.deployment
    for name, row in bench.rows.items():
        if name == "prefill":
            flops = costs.forward_flops(prefill(bench.context), deployment.conventions)
            row["roofline_ms"] = 1e3 * flops / matrix_rate
        else:
            batch = int(name.rpartition(" ")[2])
            moved = costs.moved_bytes(decode(bench.context), batch, deployment)
            row["roofline_ms"] = 1e3 * moved / bandwidth
        ours, theirs = row.get("ours_ms"), row.get("transformers_ms")
        if isinstance(ours, float):
            row["times_roofline"] = ours / row["roofline_ms"]
            row["share_of_roofline"] = row["roofline_ms"] / ours
        if isinstance(ours, float) and isinstance(theirs, float):
            row["times_faster"] = theirs / ours


def print_table(bench: Bench, bandwidth: float, matrix_rate: float) -> None:
    for name, kernels in [] if bench.kernels_shown else bench.kernels.items():
        total = sum(ms for _, ms, _ in kernels)
        launches = sum(count for _, _, count in kernels)
        print(f"\n{name}: {total:.3f} ms on the device, {launches:.0f} launches")
        for kernel, ms, count in kernels[:KERNELS_SHOWN]:
            print(f"  {ms:9.4f} ms {count:7.1f}  {kernel}")
    print("\n" + ", ".join(f"{k}: {v}" for k, v in choice.report().items()))
    print(f"\nmemory {bandwidth / 1e12:.2f} TB/s, matrix product {matrix_rate / 1e12:.0f} TFLOP/s")
    columns = ("ours_ms", "roofline_ms", "times_roofline", "transformers_ms", "times_faster")
    heads = ("ours ms", "roofline ms", "x roofline", "transformers ms", "x faster")
    print(f"{bench.spec.name}, {bench.context} tokens".ljust(28), *(f"{h:>16}" for h in heads))
    for name, row in bench.rows.items():
        cells = [row.get(column) for column in columns]
        shown = [f"{c:16.3f}" if isinstance(c, float) else f"{str(c)[:16]:>16}" for c in cells]
        print(name.ljust(28), *shown)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--spec", default="kimi_linear", help="or kimi_linear_tiny")
    parser.add_argument("--context", type=int, default=32768)
    parser.add_argument("--record", default="outputs/benchmarks/decode.json")
    parser.add_argument("--alone", action="store_true", help="without transformers")
    bench = Bench(args := parser.parse_args())
    torch.manual_seed(0)
    if bench.on_gpu:
        compile_side_by_side()
    rates = measure_ceilings(make_timer(bench.device))
    bandwidth, matrix_rate = rates["bytes_per_s"], rates["flops_per_s"]["bf16"]
    bench.facts = {"bytes_per_s": bandwidth, "matrix_flops_per_s": matrix_rate}
    model = empty_model(bench.spec, bench.device, dtype="bf16" if bench.on_gpu else "fp32").eval()
    reference: Any = None
    if args.alone:
        initialize(model, 0)
    else:
        reference = build_reference(bench.spec, bench.device, bench.dtype)
        copy_weights(model, reference)
    bench.say("models built")
    time_ours(bench, model)
    finish(bench, bandwidth, matrix_rate)
    print_table(bench, bandwidth, matrix_rate)
    if reference is not None:
        bench.attempt("logits", "distances", lambda: compare_logits(bench, model, reference))
        bench.facts["logits"] = bench.rows.pop("logits")["distances"]
        del model
        bench.free()
        time_reference(bench, reference)
        finish(bench, bandwidth, matrix_rate)
        bench.kernels_shown = True
        print_table(bench, bandwidth, matrix_rate)
    bench.write()


if __name__ == "__main__":
    main()
