"""Measuring blocks: what they are, what is timed, what is kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch

from hybridsim import load_spec
from hybridsim.components import NormSettings, RopeSettings
from hybridsim.cost.model import ModelCosts
from hybridsim.dtypes import Dtypes
from hybridsim.errors import HybridsimError
from hybridsim.ffn import FFNS, ffn_settings_class
from hybridsim.graph import build_graph
from hybridsim.measure import run, sweep
from hybridsim.measure.block import (
    FIXED,
    SWITCHES,
    Block,
    canonical,
    graph_blocks,
    model_blocks,
    parse_block,
)
from hybridsim.measure.plan import Task, core_points, sweep_tasks
from hybridsim.measure.point import DECODE, PASS_TOKENS, PREFILL, Point, pieces
from hybridsim.measure.run import RUNNING, Bench, Limits
from hybridsim.measure.session import begin_session, device_name
from hybridsim.measure.store import (
    DOES_NOT_FIT,
    FAILED,
    OK,
    OUT_OF_MEMORY,
    TOO_SLOW,
    Journal,
    Row,
    Session,
    Store,
    read_store,
    row_record,
    session_record,
)
from hybridsim.measure.subject import build_block, make_subject
from hybridsim.measure.timing import HostTimer, Subject, measure, spread_of
from hybridsim.mixers import MIXERS, settings_class
from hybridsim.model.build import build_model
from hybridsim.routing import expected_experts
from hybridsim.spec.load import spec_names
from hybridsim.spec.schema import ResidualSettings

TINY = [name for name in spec_names() if name.endswith("_tiny")]
FP32 = Dtypes(weights="fp32", activations="fp32", kv="fp32", conv_state="fp32")
SESSION = Session(
    "cpu-1", "cpu", "here", "2026-01-01T00:00:00Z", {"torch": "1"}, {"fp32": 1e11}, 1e10
)


@pytest.fixture(autouse=True)
def _any_algorithm() -> None:
    torch.use_deterministic_algorithms(False)


def block_of(spec: str, part: str) -> Block:
    return next(block for block in model_blocks(load_spec(spec)) if block.part == part)


# What a block is.


def test_signatures_are_those_of_the_shipped_rows() -> None:
    """A change here orphans every row that was measured: add fields with defaults instead."""
    found = {b.part: b.signature for b in model_blocks(load_spec("kimi_linear"))}
    assert found == {
        "embedding": "0b4fe1560e86",
        "kda": "d2cf6cfdca61",
        "dense": "c3e9bad365b7",
        "moe": "d908198b43cc",
        "mla": "1fb004493ce3",
        "head": "822c40d12c37",
    }


@pytest.mark.parametrize("name", spec_names())
def test_blocks_come_back_from_their_description(name: str) -> None:
    for block in model_blocks(load_spec(name)):
        again = parse_block(json.loads(json.dumps(block.description)))
        assert again == block
        assert again.signature == block.signature
        assert canonical(block) == block


@pytest.mark.parametrize("name", spec_names())
def test_blocks_are_the_whole_graph(name: str) -> None:
    graph = build_graph(load_spec(name))
    found = graph_blocks(graph)
    assert sorted(n for _, nodes in found for n in nodes) == sorted(graph.dag.nodes)
    for block, nodes in found:
        assert len(nodes) == sum(block.ops.values())
    if not graph.spec.tie_word_embeddings:
        total = ModelCosts.of(graph).parameters.total
        assert sum(block.parameters for block, _ in found) == total


def test_what_cannot_change_a_time_changes_no_signature() -> None:
    plain = {b.signature for b in model_blocks(load_spec("deepseek_v3"))}
    changed = load_spec(
        "deepseek_v3",
        [
            "norm.eps=1e-3",
            "mixers.F.rope.theta=7",
            "mixers.F.rope.scaling=none",
            "ffns.E.routed_scaling_factor=9",
            "tie_word_embeddings=true",
        ],
    )
    assert {b.signature for b in model_blocks(changed)} == plain
    for change in ("mixers.F.num_heads=64", "hidden_size=4096", "ffns.E.num_experts_per_tok=4"):
        other = {b.signature for b in model_blocks(load_spec("deepseek_v3", [change]))}
        assert other != plain, change


def test_specs_share_blocks() -> None:
    hybrid, twin = (set(model_blocks(load_spec(s))) for s in ("kimi_linear", "kimi_linear_mla"))
    assert twin < hybrid


def test_every_real_number_of_the_settings_has_a_place() -> None:
    """A new factor must say whether it can change a time."""
    classes: list[Any] = [NormSettings, ResidualSettings, Block]
    classes += [settings_class(kind) for kind in MIXERS]
    classes += [ffn_settings_class(kind) for kind in FFNS]
    for cls in classes:
        hints = get_type_hints(cls)
        for f in fields(cls):
            options = get_args(hints[f.name]) or (hints[f.name],)
            if float in options:
                assert f.name in {**FIXED, **SWITCHES}, f"{cls.__name__}.{f.name}"
            # Rotation is rebuilt from its sizes.
            assert not any(is_dataclass(o) and o is not RopeSettings for o in options) or (
                f.name in ("norm", "residual")
            )


# Where it is timed.


@pytest.mark.parametrize("part", ["kda", "mla", "moe", "embedding", "head"])
@pytest.mark.parametrize(("batch", "context"), [(1, 4096), (3, 100_000), (20, 5000), (1, 1 << 20)])
def test_pieces_are_all_tokens(part: str, batch: int, context: int) -> None:
    block = block_of("kimi_linear", part)
    found = pieces(block, Point(PREFILL, batch, context, 1.0))
    tokens = sum(count * point.tokens for count, point in found)
    assert tokens == (batch if part == "head" else batch * context)
    for _, point in found:
        assert point.tokens <= PASS_TOKENS or (part == "mla" and point.batch == 1)
        assert point.skew == (1.0 if part == "moe" else 0.0)


def test_decode_has_no_context_where_none_matters() -> None:
    asked = Point(DECODE, 4, 70_000, 1.0)
    expected = {"kda": 0, "mla": 70_000, "moe": 0, "head": 0}
    for part, context in expected.items():
        ((count, point),) = pieces(block_of("kimi_linear", part), asked)
        assert (count, point.context) == (1, context)
    ((_, windowed),) = pieces(
        next(b for b in model_blocks(load_spec("gemma3_27b")) if b.window), asked
    )
    assert windowed.context == 1024


def test_a_sweep_has_at_least_600_points_and_the_best_first() -> None:
    options = sweep.parse_options([])
    tasks = sweep.planned_tasks(options, 80e9)
    assert len(tasks) == len(set(tasks)) >= 700
    kimi = model_blocks(load_spec("kimi_linear"))
    assert {task.block for task in tasks[:60]} >= set(kimi)
    # Every power of two of Kimi Linear, which a default profile asks for.
    there = {(task.block, task.point) for task in tasks}
    for block in kimi:
        for context in (1 << p for p in range(10, 21)):
            for phase in (PREFILL, DECODE):
                for _, point in pieces(block, Point(phase, 1, context)):
                    assert (block, point) in there, (block.part, point)


def test_a_sweep_may_be_of_one_phase_and_of_few_sequences() -> None:
    whole = sweep.planned_tasks(sweep.parse_options(["specs=kimi_linear"]), 80e9)
    options = sweep.parse_options(["specs=kimi_linear", "phase=decode", "max_batch=4"])
    found = sweep.planned_tasks(options, 80e9)
    assert found == [t for t in whole if t.point.phase == DECODE and t.point.batch <= 4]
    assert 0 < len(found) < len(whole)


# What is timed.


@pytest.mark.parametrize("name", TINY)
def test_every_block_runs_at_every_kind_of_point(name: str) -> None:
    for block in model_blocks(load_spec(name)):
        module = build_block(block, "cpu", "fp32")
        for asked in (Point(DECODE, 2, 70), Point(PREFILL, 2, 33)):
            for _, point in pieces(block, asked):
                step = make_subject(module, block, point)
                for index in range(step.num_inputs):
                    step.prepare(index)
                    step.run()
                if block.is_routed:
                    assert step.experts is not None


def test_a_blocks_module_is_the_models_layer() -> None:
    """The same weights by name and shape, so that the sum of blocks is the model."""
    model = build_model("qwen3_next_tiny", device="cpu")
    whole = sorted((tuple(p.shape), p.dtype) for p in model.parameters())
    parts = []
    for block, count in model_blocks(model.spec).items():
        shapes = [(tuple(p.shape), p.dtype) for p in build_block(block, "cpu", "fp32").parameters()]
        parts += shapes * count
    assert sorted(parts, key=str) == sorted(whole, key=str)


def test_decode_steps_see_the_same_cache_each_time() -> None:
    block = block_of("kimi_linear_tiny", "mla")
    step: Any = make_subject(build_block(block, "cpu", "fp32"), block, Point(DECODE, 2, 50))
    (cache,) = step.cache.cache.layers.values()
    assert [b.storage.shape[:2] for b in cache.buffers()] == [(2, 51)]
    outputs = []
    for _ in range(3):
        step.prepare(1)
        assert step.cache.cache.past_tokens == 50
        with torch.inference_mode():
            outputs.append(step.module(step.input, step.cache.cache, None)[0].clone())
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])
    assert all(t.count_nonzero() > 0.99 * t.numel() for t in cache.tensors())


@pytest.mark.parametrize("skew", [0.0, 1.0])
@pytest.mark.parametrize("tokens", [4, 64])
def test_routing_is_drawn_as_the_costs_expect(skew: float, tokens: int) -> None:
    spec = load_spec("kimi_linear_tiny", ["ffns.E.num_experts=32", "ffns.E.num_experts_per_tok=4"])
    block = next(b for b in model_blocks(spec) if b.is_routed)
    module = build_block(block, "cpu", "fp32")
    # A skew of a single token is none; more draws than one point has narrow the mean.
    draws = [make_subject(module, block, Point(DECODE, tokens, 0, skew)) for _ in range(1)]
    found = draws[0].experts
    assert found == pytest.approx(expected_experts(32, 4, tokens, skew), rel=0.12)


def test_grouped_routing_draws_inside_its_groups() -> None:
    block = block_of("deepseek_v32_tiny", "moe")
    step = make_subject(build_block(block, "cpu", "fp32"), block, Point(DECODE, 1, 0))
    assert step.experts == block.branches[0].num_experts_per_tok  # type: ignore[attr-defined]


# Timing.


class Counted(Subject):
    """Takes a given time by a clock of its own."""

    def __init__(self, times: Sequence[float], num_inputs: int = 1) -> None:
        self.times, self.num_inputs, self.count = list(times), num_inputs, 0

    def prepare(self, index: int) -> None:
        pass

    def run(self) -> None:
        pass


class Scripted(HostTimer):
    """A timer that reads times from the subject."""

    def times_s(self, subject: Any, indices: Sequence[int]) -> list[float]:
        found = [
            subject.times[(subject.count + i) % len(subject.times)] for i in range(len(indices))
        ]
        subject.count += len(indices)
        return found


def test_steady_work_needs_few_samples_and_unsteady_work_more() -> None:
    steady = measure(Counted([1e-3]), Scripted(), limit_s=1e9)
    assert (steady.latency_s, steady.spread, steady.runs) == (1e-3, 0.0, 10)
    unsteady = measure(Counted([1e-3, 2e-3, 3e-3]), Scripted(), limit_s=1e9)
    assert unsteady.runs == 100
    assert unsteady.spread == pytest.approx(1.0, abs=0.01)


def test_samples_run_over_all_inputs() -> None:
    found = measure(Counted([1e-3, 3e-3], num_inputs=2), Scripted(), limit_s=1e9)
    assert found.latency_s == pytest.approx(2e-3)
    assert found.spread == pytest.approx(0.0)


def test_long_work_runs_once_more_after_its_warm_up_only() -> None:
    subject = Counted([7.0])
    found = measure(subject, Scripted(), limit_s=1.0)
    assert (found.latency_s, found.spread, found.runs) == (7.0, None, 1)
    assert subject.count == 2
    subject = Counted([7.0])
    measure(subject, Scripted(), limit_s=1.0, warm=True)
    assert subject.count == 1


def test_spread_is_the_middle_half() -> None:
    assert spread_of([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    assert spread_of([2.0, 3.0]) == pytest.approx(0.4)


# What is kept.


def make_bench(folder: Path, limits: Limits | None = None) -> Bench:
    path = folder / "cpu.jsonl"
    timer = HostTimer(1 << 12)
    limits = limits or Limits(sampling_s=0.005)
    return Bench(SESSION, timer, Journal(path), read_store([path]), FP32, limits)


def tiny_tasks(part: str = "kda") -> list[Task]:
    block = block_of("kimi_linear_tiny", part)
    return [Task(block, Point(DECODE, batch, 0 if part != "mla" else 9)) for batch in (1, 2, 3)]


def run_all(bench: Bench, tasks: list[Task]) -> list[Row]:
    rows: list[Row] = []
    bench.run(bench.missing(tasks), lambda task, row: rows.append(row))
    return rows


def test_rows_are_written_read_and_skipped(tmp_path: Path) -> None:
    rows = run_all(make_bench(tmp_path), tiny_tasks())
    assert [row.status for row in rows] == [OK] * 3
    store = read_store([tmp_path / "cpu.jsonl"])
    assert set(store.rows.values()) == set(rows)
    assert store.blocks == {rows[0].block: tiny_tasks()[0].block}
    assert store.sessions == {SESSION.id: SESSION}
    assert run_all(make_bench(tmp_path), tiny_tasks()) == []
    assert not (tmp_path / RUNNING).exists()


def test_other_versions_measure_again(tmp_path: Path) -> None:
    run_all(make_bench(tmp_path), tiny_tasks())
    bench = make_bench(tmp_path)
    bench.session = replace(SESSION, id="cpu-2", versions={"torch": "2"})
    assert len(bench.missing(tiny_tasks())) == 3


def test_an_interrupt_loses_nothing_that_was_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, seen = make_bench(tmp_path), []

    def interrupted(task: Task, row: Row) -> None:
        seen.append(row)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench.run(tiny_tasks(), interrupted)
    path = tmp_path / "cpu.jsonl"
    with path.open("a") as file:
        file.write('{"type":"row","block":"cut')  # the write that was interrupted
    again = make_bench(tmp_path)
    assert len(again.store.rows) == 2
    assert len(run_all(again, tiny_tasks())) == 1
    assert len(read_store([path]).rows) == 3


def test_a_broken_line_elsewhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"type":"row"\n{}\n')
    with pytest.raises(HybridsimError, match="line 1 is not a record"):
        read_store([tmp_path / "x.jsonl"])


def failing(error: Exception, when: Callable[[Point], bool]) -> Any:
    def made(module: Any, block: Block, point: Point, **options: Any) -> Any:
        if when(point):
            raise error
        return make_subject(module, block, point, **options)

    return made


def test_out_of_memory_and_errors_are_marked_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: Exception = torch.OutOfMemoryError("CUDA out of memory")
    monkeypatch.setattr(run, "make_subject", failing(error, lambda p: p.batch == 2))
    rows = run_all(make_bench(tmp_path), tiny_tasks())
    assert [row.status for row in rows] == [OK, OUT_OF_MEMORY, OK]
    assert rows[1].latency_s is None
    error = RuntimeError("bad kernel\nwith more lines")
    monkeypatch.setattr(run, "make_subject", failing(error, lambda p: p.batch == 3))
    rows = run_all(make_bench(tmp_path / "b"), tiny_tasks("mla"))
    assert [row.status for row in rows] == [OK, OK, FAILED]
    assert rows[2].note == "RuntimeError: bad kernel"
    # Marks count as there: the next run does not try again.
    assert run_all(make_bench(tmp_path), tiny_tasks()) == []


def test_a_prompt_that_does_not_fit_at_once_is_taken_in_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridsim.measure.subject.PASS_TOKENS", 16)
    monkeypatch.setattr(run, "PASS_TOKENS", 16)

    def made(module: Any, block: Block, point: Point, *, passes: bool, **options: Any) -> Any:
        if not passes:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return make_subject(module, block, point, passes=passes, **options)

    monkeypatch.setattr(run, "make_subject", made)
    (row,) = run_all(
        make_bench(tmp_path), [Task(block_of("kimi_linear_tiny", "mla"), Point(PREFILL, 1, 40))]
    )
    assert (row.status, row.mode) == (OK, "passes")


def test_passes_give_what_one_pass_gives() -> None:
    block = block_of("kimi_linear_tiny", "mla")
    module = build_block(block, "cpu", "fp32")
    outs = []
    for passes in (False, True):
        step: Any = make_subject(module, block, Point(PREFILL, 1, 40), passes=passes)
        step.pass_tokens = 16 if passes else 40
        kept: list[torch.Tensor] = []
        step.module.register_forward_hook(lambda m, i, out, kept=kept: kept.append(out[0]))
        step.run()
        outs.append(torch.cat(kept[-3:] if passes else kept[-1:], dim=1))
    assert torch.allclose(outs[0], outs[1], atol=1e-5)


def test_what_cannot_fit_or_takes_too_long_is_marked_without_a_run(tmp_path: Path) -> None:
    block = block_of("kimi_linear", "mla")
    bench = make_bench(tmp_path, Limits(cap_s=1.0))
    bench.session = replace(SESSION, memory_bytes=10**9)
    tasks = [Task(block, Point(DECODE, 128, 1 << 20)), Task(block, Point(PREFILL, 1, 4096))]
    small, slow = (
        run_all(bench, [tasks[0]]),
        run_all(make_bench(tmp_path / "b", Limits(1.0)), tasks[1:]),
    )
    assert small[0].status == DOES_NOT_FIT
    assert slow[0].status == TOO_SLOW
    assert len(make_bench(tmp_path / "b").missing(tasks[1:])) == 1  # with more time, tried again


def test_nothing_begins_after_the_deadline(tmp_path: Path) -> None:
    assert run_all(make_bench(tmp_path, Limits(deadline=0.0)), tiny_tasks()) == []


def test_formats_that_cannot_be_built_are_refused(tmp_path: Path) -> None:
    for changes in ({"kv": "fp8"}, {"weights": "fp8"}, {"state": "bf16"}):
        with pytest.raises(HybridsimError, match=f"dtypes.{next(iter(changes))}="):
            run.require_measurable(replace(FP32, **changes))


def a_row(**changes: Any) -> Row:
    values = {"block": "b", "part": "p", "phase": DECODE, "batch": 1, "context": 0}
    return Row(**(values | {"dtypes": "bf16 bf16", "session": "cpu-1"} | changes))


def test_the_latest_row_with_a_time_counts() -> None:
    store = Store()
    later = replace(SESSION, id="cpu-2", started="2026-02-01T00:00:00Z")
    for session in (later, SESSION):
        store.add(session_record(session))
    store.add(row_record(a_row(session="cpu-2", latency_s=2.0)))
    store.add(row_record(a_row(latency_s=1.0)))
    store.add(row_record(a_row(session="cpu-2", status=FAILED)))
    (row,) = store.rows.values()
    assert row.latency_s == 2.0


def test_devices_have_the_names_of_their_options() -> None:
    titles = {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H200": "h200",
        "NVIDIA H20": "h20",
        "NVIDIA A100-SXM4-80GB": "a100",
        "NVIDIA GeForce RTX 4090": "rtx4090",
        "Radeon": "radeon",
    }
    assert {title: device_name(title) for title in titles} == titles


def test_a_session_measures_the_device() -> None:
    session = begin_session(HostTimer(1 << 12))
    assert session.device == "cpu"
    assert min(session.flops_per_s.values()) > 1e8
    assert session.bytes_per_s > 1e8
    assert session.versions["torch"] == torch.__version__
    assert session.versions["revision"]


# The sweep.

SWEEP = ["specs=gla_tiny", "fine=", "device=cpu", "dtype=fp32", "cap_s=0.05", "sampling_s=0.002"]


def run_sweep(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hybridsim.measure.sweep", *args]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_sweep_measures_resumes_and_sums_up(tmp_path: Path) -> None:
    first = run_sweep(tmp_path, *SWEEP, "out=m", "budget_s=60", "variants=false")
    assert first.returncode == 0, first.stderr
    assert "timed" in first.stdout
    rows = read_store([tmp_path / "m" / "cpu.jsonl"]).rows
    assert len(rows) > 20
    second = run_sweep(tmp_path, *SWEEP, "out=m", "budget_s=60", "variants=false")
    left = [row for row in rows.values() if row.status == TOO_SLOW]
    assert f"{len(left)} points to measure" in second.stderr


def test_a_worker_that_dies_costs_one_point(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    bench = make_bench(folder)
    bench._mark_running(tiny_tasks()[0])
    assert sweep.mark_dead(folder, -9)
    assert not sweep.mark_dead(folder, -9)
    (row,) = read_store([folder / "cpu.jsonl"]).rows.values()
    assert (row.status, row.note) == (FAILED, "the process ended with -9")
    assert len(make_bench(folder).missing(tiny_tasks())) == 2


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["specs=kimi_liner"], "no such spec"),
        (["budget=3"], "no such option; did you mean 'budget_s'?"),
        (["budget_s=soon"], "expected a number above 0"),
        (["max_batch=0"], "expected a number above 0"),
        (["phase=train"], "prefill"),
        (["device=tpu"], "no such device"),
        (["variants=perhaps"], "expected true or false"),
        (["dtype=fp6"], "no such dtype"),
        (["dtype=fp9"], "sweep: dtype=fp9: "),
        (["kv=fp6"], "sweep: kv=fp6: no such dtype"),
    ],
)
def test_wrong_options_are_one_line(args: list[str], message: str, tmp_path: Path) -> None:
    done = run_sweep(tmp_path, *SWEEP, *args)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_without_a_gpu_one_line_says_so(tmp_path: Path) -> None:
    done = run_sweep(tmp_path, "specs=gla_tiny", "out=m")
    assert done.returncode == 1
    assert "torch sees no CUDA device here" in done.stderr
    assert "Traceback" not in done.stderr


def test_variants_bring_mixers_of_other_head_counts() -> None:
    tasks = sweep_tasks(
        [load_spec("kimi_linear")],
        [],
        [load_spec("kimi_linear", ["mixers.L.num_heads=16"])],
        Dtypes(),
        80e9,
    )
    heads = {
        task.block.branches[0].num_heads  # type: ignore[union-attr]
        for task in tasks
        if task.block.part == "kda"
    }
    assert heads == {16, 32}
    kda = block_of("kimi_linear", "kda")
    assert core_points(kda)
    assert os.environ.get(sweep.WORKER) is None
