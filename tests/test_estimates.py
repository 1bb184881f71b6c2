"""Times between measured ones: on rows of a known law with known noise."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from measured import (
    BF16,
    LAUNCH_S,
    MODEL,
    SESSION,
    a_row,
    make_store,
    sweep,
    truth_s,
    write_store,
)

from hybridsim import load_spec, profile
from hybridsim.cost.op import Deployment
from hybridsim.errors import HybridsimError
from hybridsim.graph import build_graph
from hybridsim.hardware import parse_hardware
from hybridsim.measure import missing
from hybridsim.measure.block import Block, model_blocks
from hybridsim.measure.estimate import (
    EXTRAPOLATED,
    HEADS,
    INTERPOLATED,
    MEASURED,
    BlockTimes,
    Estimate,
    conformal_quantile,
    total,
    weakest,
)
from hybridsim.measure.missing import missing_tasks
from hybridsim.measure.model_times import ModelTimes, device_times
from hybridsim.measure.plan import Task
from hybridsim.measure.point import DECODE, PREFILL, Point, pieces
from hybridsim.measure.store import (
    FOLDER_VARIABLE,
    OK,
    Store,
    block_record,
    read_store,
    row_record,
    session_record,
)
from hybridsim.measure.surface import Surface, monotone
from hybridsim.options import read_option

H100 = parse_hardware(read_option("hardware", "h100"))


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return sweep("kimi_linear", "qwen3_next", "deepseek_v3")


@pytest.fixture(scope="module")
def exact(tasks: list[Task]) -> BlockTimes:
    return BlockTimes(make_store(tasks), BF16)


@pytest.fixture(scope="module")
def noisy(tasks: list[Task]) -> BlockTimes:
    return BlockTimes(make_store(tasks, 0.02), BF16)


def block_of(part: str) -> Block:
    return next(b for b in model_blocks(load_spec("kimi_linear")) if b.part == part)


def found_of(times: BlockTimes, block: Block, point: Point) -> Estimate:
    estimate = times.estimate(block, point)
    assert estimate is not None
    return estimate


# Between rows.


def test_rows_come_back_to_the_digit(tasks: list[Task], noisy: BlockTimes) -> None:
    rows = [row for row in noisy.store.rows.values() if not row.repeat]
    assert len(rows) > 250
    for row in rows:
        estimate = found_of(noisy, noisy.store.blocks[row.block], row.point)
        assert estimate.latency_s == row.latency_s
        assert estimate.provenance == MEASURED
        assert estimate.backends == {f"{row.part}: ours"}


def test_surfaces_meet_their_rows_and_the_law_between(exact: BlockTimes) -> None:
    """Launch and rate are not those of the closed form, and follow from the rows."""
    errors = []
    for table in exact.tables():
        for key, time in table.times.items():
            assert table.whole.at(*key).latency_s == pytest.approx(time, rel=1e-9)
        batches, contexts = table.whole.batches.sizes, table.whole.contexts.sizes
        for batch in {batches[0], *(b + 1 for b in batches[:-1])}:
            for context in {contexts[0], *(c * 3 // 2 for c in contexts[:-1])}:
                value = table.whole.at(batch, context)
                if not value.octaves:
                    point = Point(table.phase, batch, context, table.skew)
                    errors.append(abs(value.latency_s / truth_s(table.block, point) - 1))
    assert len(errors) >= 300
    assert sorted(errors)[len(errors) // 2] < 0.02
    assert max(errors) < 0.15


@pytest.mark.parametrize("part", ["mla", "kda", "moe", "embedding"])
@pytest.mark.parametrize("phase", [PREFILL, DECODE])
def test_times_never_fall_with_batch_or_context(noisy: BlockTimes, part: str, phase: str) -> None:
    (table,) = (
        t for t in noisy.tables() if (t.block, t.phase, t.skew) == (block_of(part), phase, 0.0)
    )
    batches = [1, 2, 3, 5, 8, 13, 32, 50, 128, 300]
    contexts = [round(700 * 1.37**n) for n in range(26)]
    for batch in batches:
        times = [table.whole.at(batch, context).latency_s for context in contexts]
        assert all(b >= a * (1 - 1e-12) for a, b in pairwise(times)), batch
    for context in contexts:
        times = [table.whole.at(batch, context).latency_s for batch in batches]
        assert all(b >= a * (1 - 1e-12) for a, b in pairwise(times)), context


def test_a_time_between_two_is_launch_and_rate() -> None:
    surface = Surface({(1, 10): 30.0, (1, 40): 60.0}, lambda b, c: 1.0 + c * b)
    assert surface.at(1, 20).latency_s == pytest.approx(20 + 20)
    assert surface.at(1, 80).latency_s == pytest.approx(20 + 80)
    assert (surface.at(1, 80).octaves, surface.at(1, 20).octaves) == (1.0, 0.0)
    # A batch of which nothing is known grows with the closed form.
    assert surface.at(2, 10).latency_s == pytest.approx(30 * 21 / 11)
    assert surface.at(2, 10).octaves == 1.0


def test_growth_outside_is_bounded() -> None:
    steep = Surface({(1, 10): 1.0, (1, 11): 60.0}, lambda b, c: float(c * b))
    assert steep.at(1, 44).latency_s == pytest.approx(60 * 4**1.5)
    flat = Surface({(1, 10): 60.0, (1, 11): 60.0}, lambda b, c: float(c * b))
    assert flat.at(1, 44).latency_s == pytest.approx(60 * 4**0.5)


def test_monotone_leaves_what_is() -> None:
    grid = [[1.0, 2.0, 4.0], [1.0, 3.0, 5.0]]
    assert monotone(grid) == grid
    mended = monotone([[1.0, 4.0, 2.0], [2.0, 1.0, 9.0]])
    assert all(a <= b for row in mended for a, b in pairwise(row))
    assert all(a <= b for a, b in zip(*mended, strict=True))


# Labels.


def test_labels_say_what_a_time_is_from(exact: BlockTimes) -> None:
    mla, moe = block_of("mla"), block_of("moe")
    cases = [
        (mla, Point(DECODE, 1, 1 << 16), MEASURED),
        (mla, Point(DECODE, 1, 50_000), INTERPOLATED),
        (mla, Point(DECODE, 3, 5_000), INTERPOLATED),
        (mla, Point(DECODE, 1, 1 << 21), EXTRAPOLATED),
        (mla, Point(DECODE, 500, 4096), EXTRAPOLATED),
        (mla, Point(PREFILL, 1, 1 << 20), MEASURED),
        (moe, Point(PREFILL, 1, 1 << 20), MEASURED),  # 32 passes
        (moe, Point(PREFILL, 1, 100_000), INTERPOLATED),  # three passes and a rest
        (moe, Point(DECODE, 8, 777), MEASURED),
        (moe, Point(DECODE, 8, 777, 1.0), MEASURED),
        (moe, Point(DECODE, 8, 777, 0.5), INTERPOLATED),
        (moe, Point(DECODE, 8, 777, 2.0), EXTRAPOLATED),
    ]
    for block, point, wanted in cases:
        estimate = found_of(exact, block, point)
        assert estimate.provenance == wanted, point
        assert estimate.low_s is not None
        assert estimate.high_s is not None
        assert estimate.low_s <= estimate.latency_s <= estimate.high_s


def test_passes_add_up(exact: BlockTimes) -> None:
    kda = block_of("kda")
    one = found_of(exact, kda, Point(PREFILL, 1, 32768))
    many = found_of(exact, kda, Point(PREFILL, 1, 1 << 20))
    assert many.latency_s == pytest.approx(32 * one.latency_s)
    assert many.high_s == pytest.approx(32 * (one.high_s or 0.0))


def test_skew_touches_fewer_experts(exact: BlockTimes) -> None:
    moe = block_of("moe")
    times = [found_of(exact, moe, Point(DECODE, 32, 0, skew)).latency_s for skew in (0, 0.5, 1, 2)]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 4


def test_blocks_and_formats_without_rows_have_no_estimate(exact: BlockTimes) -> None:
    other = next(b for b in model_blocks(load_spec("minimax_m1")) if b.part == "lightning")
    assert exact.estimate(other, Point(DECODE, 1, 0)) is None
    narrow = BlockTimes(exact.store, replace(BF16, kv="fp8"))
    assert narrow.estimate(block_of("mla"), Point(DECODE, 1, 4096)) is None
    assert narrow.estimate(block_of("moe"), Point(DECODE, 1, 4096)) is not None


# Intervals.


def test_conformal_quantiles() -> None:
    assert conformal_quantile([float(n) for n in range(1, 100)]) == 90.0
    assert conformal_quantile([1.0] * 8) is None
    assert conformal_quantile([3.0, *[1.0] * 8]) == 3.0


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_intervals_cover_held_out_rows(tasks: list[Task], noise: float) -> None:
    found = BlockTimes(make_store(tasks, noise, seed=3), BF16).coverage()
    seen = {(record["provenance"], record["phase"]): record for record in found}
    assert set(seen) == {
        (p, phase) for p in (MEASURED, INTERPOLATED, EXTRAPOLATED) for phase in (PREFILL, DECODE)
    }
    for key, record in seen.items():
        assert 0.85 <= record["coverage"] <= 0.95, key
        assert record["held_out"] >= 15
    assert seen[MEASURED, DECODE]["half_width"] == pytest.approx(
        1.645 * math.sqrt(2) * noise, rel=0.5
    )


def test_intervals_cover_the_truth_at_points_that_were_never_rows(tasks: list[Task]) -> None:
    """Points on no row's context and batch, against the law itself with noise of its own."""
    times, draw = BlockTimes(make_store(tasks, 0.02, seed=5), BF16), random.Random(11)
    covered = []
    for table in times.tables():
        if table.skew or table.block.kind == "head":
            continue
        for _ in range(12):
            batch = draw.choice([1, 3, 6, 20, 40]) if table.phase == DECODE else 1
            context = round(1024 * 2 ** draw.uniform(0, 5))
            point = Point(table.phase, batch, context)
            estimate = found_of(times, table.block, point)
            if estimate.provenance == INTERPOLATED:
                ((_, asked),) = pieces(table.block, point)
                seen = truth_s(table.block, asked) * math.exp(draw.gauss(0, 0.02))
                assert estimate.low_s is not None
                assert estimate.high_s is not None
                covered.append(estimate.low_s <= seen <= estimate.high_s)
    assert len(covered) > 150
    assert sum(covered) / len(covered) >= 0.85


def test_too_few_rows_widen_the_interval() -> None:
    mla = block_of("mla")
    few = BlockTimes(make_store([Task(mla, Point(DECODE, 1, c)) for c in (4096, 65536)]), BF16)
    estimate = found_of(few, mla, Point(DECODE, 1, 16384))
    assert estimate.provenance == INTERPOLATED
    assert estimate.high_s is not None
    assert estimate.high_s / estimate.latency_s >= math.exp(0.15) * (1 - 1e-9)


def test_sums_are_as_weak_as_their_weakest_part() -> None:
    one = Estimate(1.0, 0.9, 1.2, MEASURED, frozenset({"a"}))
    two = Estimate(2.0, 1.0, 4.0, EXTRAPOLATED, frozenset({"b"}))
    found = total([(3, one), (1, two)])
    assert asdict(found) == {
        "latency_s": 5.0,
        "low_s": pytest.approx(3.7),
        "high_s": pytest.approx(7.6),
        "provenance": EXTRAPOLATED,
        "backends": {"a", "b"},
    }
    assert total([(1, one), (1, Estimate(1.0))]).high_s is None
    assert weakest([MEASURED, "modelled", INTERPOLATED]) == "modelled"


# Other numbers of heads.


def heads_of(count: int) -> Block:
    spec = load_spec("kimi_linear", [f"mixers.L.num_heads={count}", f"mixers.F.num_heads={count}"])
    return next(block for block in model_blocks(spec) if block.part == "mla")


def smooth_s(block: Block, point: Point) -> float:
    """A law of which relatives have the same constants."""
    work = MODEL.work(block, point)
    return work.num_ops * LAUNCH_S + work.bound_s / 0.7


def heads_store(*counts: int) -> Store:
    points = [Point(DECODE, b, c) for b in (1, 8) for c in (1024, 4096, 16384, 65536)]
    store = Store()
    store.add(session_record(SESSION))
    for block in map(heads_of, counts):
        store.add(block_record(block))
        for point in points:
            store.add(row_record(a_row(block, point, smooth_s(block, point))))
    return store


@pytest.mark.parametrize(("count", "provenance"), [(32, INTERPOLATED), (96, EXTRAPOLATED)])
def test_other_numbers_of_heads_are_between_their_relatives(count: int, provenance: str) -> None:
    times, block = BlockTimes(heads_store(16, 64), BF16), heads_of(count)
    for point in (Point(DECODE, 1, 4096), Point(DECODE, 8, 30_000)):
        found = found_of(times, block, point)
        assert found.provenance == provenance
        assert found.latency_s == pytest.approx(smooth_s(block, point), rel=0.05)
        assert found.high_s is not None
        assert found.high_s > found.latency_s


def test_a_single_relative_is_extrapolated_and_none_is_modelled() -> None:
    times = BlockTimes(heads_store(32), BF16)
    assert found_of(times, heads_of(48), Point(DECODE, 1, 4096)).provenance == EXTRAPOLATED
    (other,) = (b for b in model_blocks(load_spec("deepseek_v3")) if b.part == "mla")
    assert times.estimate(other, Point(DECODE, 1, 4096)) is None


def test_blocks_left_out_as_a_whole_have_errors_of_their_own() -> None:
    found = BlockTimes(heads_store(16, 32, 64), BF16)
    left_out = [r for r in found.residuals if r.left_out == HEADS]
    assert len(left_out) == 3 * 8
    assert {r.provenance for r in left_out} == {INTERPOLATED, EXTRAPOLATED}
    assert {r["from_other_blocks"] for r in found.coverage()} == {False, True}
    assert found.half_width(INTERPOLATED, DECODE, related=True) >= 0.15  # fewer than nine


# A model's times.


def test_a_model_is_the_sum_of_its_blocks(exact: BlockTimes) -> None:
    spec = load_spec("kimi_linear")
    times = ModelTimes(build_graph(spec), Deployment(), H100, exact)
    for phase in (PREFILL, DECODE):
        found = times.estimate(phase, 1, 131072)
        parts = [
            n * found_of(exact, block, Point(phase, 1, 131072)).latency_s
            for block, n in model_blocks(spec).items()
        ]
        assert found.latency_s == pytest.approx(sum(parts))
        assert found.provenance == MEASURED
        assert "kda: ours" in found.backends


def test_a_block_without_rows_is_modelled_with_the_others_slowness(exact: BlockTimes) -> None:
    spec = load_spec("kimi_linear", ["mixers.L.gate_rank=64"])
    times = ModelTimes(build_graph(spec), Deployment(), H100, exact)
    found = times.estimate(DECODE, 1, 4096)
    assert found.provenance == "modelled"
    assert found.high_s is not None
    assert found.high_s > 1.3 * found.latency_s
    plain = ModelTimes(build_graph(spec), Deployment(), H100, None).estimate(DECODE, 1, 4096)
    assert (plain.low_s, plain.high_s, plain.provenance) == (None, None, "modelled")
    assert plain.latency_s < found.latency_s


# The store that a profile uses.


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tasks: list[Task]) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr("hybridsim.measure.store.SHIPPED", tmp_path / "none")
    write_store(tmp_path, "h100", tasks, 0.01)
    return tmp_path


FAST: Mapping[str, Any] = {"flops": {"count": False}, "hardware": "h100"}


def test_a_profile_uses_the_rows_of_its_device(folder: Path) -> None:
    contexts = [1 << power for power in range(12, 21)]
    found = profile("kimi_linear", contexts=contexts, **FAST)
    document = json.loads(json.dumps(found.document, allow_nan=False))
    for point in document["points"]:
        for phase in (PREFILL, DECODE):
            record = point[phase]
            assert record["provenance"] == MEASURED
            assert record["latency_low_s"] < record["latency_s"] < record["latency_high_s"]
            assert record["backend"].count("kda: ours") == 1
    load = document["workload"]
    assert load["ttft_low_s"] < load["ttft_s"] < load["ttft_high_s"]
    assert {load["ttft_provenance"], load["tpot_provenance"]} <= {MEASURED, INTERPOLATED}
    for part in ("prefill", "decode"):
        nodes = sum(row[f"{part}_latency_s"] for row in found.nodes)
        assert nodes == pytest.approx(sum(row[f"{part}_latency_s"] for row in document["kinds"]))
    assert sum(row["prefill_latency_s"] for row in found.nodes) == pytest.approx(load["ttft_s"])
    assert document["measurements"]["sessions"][0]["id"] == SESSION.id
    assert {row["twin_decode_provenance"] for row in found.sweep} == {MEASURED}


@pytest.mark.parametrize(
    "changes", [{"num_devices": 2}, {"bandwidth_bytes_per_s": 1e12}, {"name": "h200"}]
)
def test_rows_of_another_device_do_not_count(folder: Path, changes: dict[str, Any]) -> None:
    assert device_times(H100, Deployment()) is not None
    assert device_times(replace(H100, **changes), Deployment()) is None


def test_cpu_rows_are_of_this_machine(folder: Path) -> None:
    cpu = parse_hardware(
        {
            "name": "cpu",
            "title": "this CPU (x86_64, 2 threads)",
            "peak_flops": {"bf16": 1e11},
            "memory_bytes": 1e10,
            "bandwidth_bytes_per_s": 1e10,
        }
    )
    text = (folder / "h100.jsonl").read_text()
    for title, there in (("x86_64, 2 threads", True), ("x86_64, 4 threads", False)):
        (folder / "cpu.jsonl").write_text(text.replace(SESSION.title, title))
        assert (device_times(cpu, Deployment()) is not None) is there


# Measuring what lacks.


def test_what_lacks_is_every_block_at_every_piece() -> None:
    spec = load_spec("kimi_linear")
    found = missing_tasks(spec, [Point(DECODE, 1, 5000), Point(PREFILL, 1, 40_000)])
    seen = {(task.block.part, task.point) for task in found}
    assert ("mla", Point(DECODE, 1, 5000)) in seen
    assert ("kda", Point(DECODE, 1, 0)) in seen
    assert ("kda", Point(PREFILL, 1, 40_000 - 32_768)) in seen
    assert len(found) == len(set(found))


def test_measure_then_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    fp32 = {"weights": "fp32", "activations": "fp32", "kv": "fp32", "conv_state": "fp32"}
    load = {
        "name": "short",
        "title": "short",
        "prompt_tokens": 64,
        "output_tokens": 2,
        "concurrency": 2,
        "context_target": 128,
    }
    asked: dict[str, Any] = {
        "hardware": "cpu",
        "workload": load,
        "contexts": [32],
        "dtypes": fp32,
        "flops": {"count": False},
    }
    first = profile("gla_tiny", measure=True, **asked).document
    assert first["points"][0]["decode"]["provenance"] == MEASURED
    assert first["workload"]["provenance"] == MEASURED
    lines = len((tmp_path / "cpu.jsonl").read_text().splitlines())
    profile("gla_tiny", measure=True, **asked)
    again = (tmp_path / "cpu.jsonl").read_text().splitlines()
    assert len(again) == lines + 1  # the second session


def test_measuring_needs_the_device() -> None:
    with pytest.raises(HybridsimError, match=r"measure=true: hardware\.num_devices=2"):
        profile("gla_tiny", hardware=replace(H100, num_devices=2), measure=True)
    with pytest.raises(HybridsimError, match=r"dtypes\.kv=int8: measured only as bf16 or fp8"):
        profile("gla_tiny", measure=True, dtypes={"kv": "int8"})


def test_another_device_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(missing, "local_device", lambda kind: ("h200", "NVIDIA H200"))
    with pytest.raises(
        HybridsimError, match=r"hardware=h100, but the device here is h200 \(NVIDIA"
    ):
        profile("gla_tiny", hardware="h100", measure=True)


def test_an_interrupt_says_where_its_rows_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    done: list[Any] = []

    def second(self: Any, task: Task, row: Any) -> None:
        done.append(row)
        if len(done) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("hybridsim.measure.progress.MeasureProgress.done", second)
    cpu = parse_hardware(read_option("hardware", "h100") | {"name": "cpu"})
    spec, fp32 = load_spec("gla_tiny"), replace(BF16, weights="fp32", activations="fp32", kv="fp32")
    asked = [Point(DECODE, 1, 16), Point(PREFILL, 1, 16)]
    with pytest.raises(HybridsimError, match=r"interrupted; what was measured is in .*cpu\.jsonl"):
        missing.measure_missing(spec, cpu, asked, fp32)
    kept = [r for r in read_store([tmp_path / "cpu.jsonl"]).rows.values() if r.status == OK]
    assert len(kept) == 2
