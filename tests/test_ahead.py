"""Kernels compiled ahead of their first use: which they are, and that they are found again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from hybridsim import kernels, load_spec
from hybridsim.dtypes import Dtypes
from hybridsim.kernels import ahead, choice
from hybridsim.measure import warmup
from hybridsim.measure.block import Block, model_blocks
from hybridsim.measure.missing import missing_tasks
from hybridsim.measure.plan import Task
from hybridsim.measure.point import DECODE, PREFILL, Point
from hybridsim.measure.subject import build_block, make_subject

needs_triton = pytest.mark.skipif(not kernels.available(), reason="Triton is not installed")


def block_of(part: str) -> Block:
    return next(b for b in model_blocks(load_spec("kimi_linear")) if b.part == part)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A device to compile for, which nothing can run on, and an empty cache."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    if choice.interpreted():
        pytest.skip("kernels of this process run in the interpreter")
    found = SimpleNamespace(multi_processor_count=132)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: found)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    stub = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
    )
    before = driver._active
    driver.set_active(stub)
    yield
    driver._active = before


def traced(part: str, *points: Point) -> list[ahead.Job]:
    jobs: list[ahead.Job] = []
    block = block_of(part)
    with ahead.traced(jobs.append):
        module = build_block(block, "meta", "bf16")
        for point in points:
            make_subject(module, block, point).run()
    return jobs


def test_representatives_are_the_ends_of_every_batch() -> None:
    mla = block_of("mla")
    points = [Point(DECODE, b, c) for b in (1, 8) for c in (1024, 4096, 65536)]
    tasks = [Task(mla, p) for p in [*points, Point(PREFILL, 1, 4096)]]
    found = warmup.representatives([*tasks, *tasks])
    assert found == {
        mla: [
            Point(DECODE, 1, 1024),
            Point(DECODE, 1, 65536),
            Point(DECODE, 8, 1024),
            Point(DECODE, 8, 65536),
            Point(PREFILL, 1, 4096),
        ]
    }


@pytest.mark.parametrize("name", ["kimi_linear", "minimax_m3", "deepseek_v32", "qwen3_next"])
def test_every_block_runs_on_the_meta_device(name: str) -> None:
    tasks = missing_tasks(load_spec(name), [Point(DECODE, 2, 300), Point(PREFILL, 2, 300)])
    for block, points in warmup.representatives(tasks).items():
        module = build_block(block, "meta", "bf16")
        for point in points:
            make_subject(module, block, point).run()


def test_without_triton_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "available", lambda: False)
    tasks = [Task(block_of("mla"), Point(DECODE, 1, 1024))]
    assert warmup.warm_up(tasks, Dtypes()) == (0, 0)


def test_meta_tensors_choose_kernels_only_in_a_trace() -> None:
    x = torch.empty(4, device="meta")
    assert not choice.on_gpu(x)
    with choice.tracing():
        assert choice.on_gpu(x)
    assert not choice.on_gpu(x)


@needs_triton
def test_a_trace_finds_kernels_once_and_launches_none(hopper: None) -> None:
    point = Point(DECODE, 1, 4096)
    names = [job.name for job in traced("mla", point)]
    assert "_kernel" in names  # latents
    assert "_combine_kernel" in names
    assert "_norm_kernel" in names
    assert len(traced("mla", point, point)) == len(names)


@needs_triton
def test_what_was_compiled_ahead_is_what_is_launched(
    hopper: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from triton import knobs
    from triton.runtime.jit import JITFunction

    point = Point(DECODE, 2, 0)
    answers: list[str] = []
    lines = [json.dumps(job.__dict__) for job in traced("moe", point)]
    ahead.serve(lines, answers.append)
    assert answers == ['""'] * len(lines)
    assert len(lines) >= 4
    for function in set(_kernels_of("experts", "pointwise", "router", "activation", "products")):
        function.device_caches.clear()
    hits: list[bool] = []
    monkeypatch.setattr(
        knobs.compilation, "listener", lambda **event: hits.append(event["cache_hit"])
    )
    run = JITFunction.run

    def compile_only(function: Any, *args: Any, warmup: bool, **kwargs: Any) -> Any:
        return run(function, *args, warmup=True, **kwargs)

    monkeypatch.setattr(JITFunction, "run", compile_only)
    with choice.tracing():
        make_subject(build_block(block_of("moe"), "meta", "bf16"), block_of("moe"), point).run()
    assert len(hits) == len(lines)
    assert all(hits)


def _kernels_of(*modules: str) -> Iterator[Any]:
    from importlib import import_module

    from triton.runtime.jit import JITFunction

    for module in modules:
        found = vars(import_module(f"hybridsim.kernels.{module}")).values()
        yield from (f for f in found if isinstance(f, JITFunction))


@needs_triton
def test_a_kernel_that_does_not_compile_is_an_answer(hopper: None) -> None:
    job = traced("mla", Point(DECODE, 1, 4096))[0]
    answers: list[str] = []
    wrong = ahead.Job(job.module, "no_such_kernel", job.specialization)
    ahead.serve([json.dumps(wrong.__dict__)], answers.append)
    assert "AttributeError" in json.loads(answers[0])


@needs_triton
def test_workers_that_are_gone_do_not_hang(hopper: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of a machine without a GPU answer with errors; dead ones with nothing."""
    start = ahead._start_worker

    def dead() -> Any:
        process = start()
        process.kill()
        return process

    monkeypatch.setattr(ahead, "_start_worker", dead)
    counts: list[tuple[int, int]] = []
    points = {block_of("mla"): [Point(DECODE, 1, 4096)]}
    compiled, known = ahead.compile_all(
        lambda: warmup.trace(points, Dtypes()), 2, lambda *now: counts.append(now)
    )
    assert compiled == 0
    assert known >= 3
    assert counts


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")  # fla's import warns about what it was not compiled for
def test_a_measurement_compiles_nothing_after_its_warm_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from triton import knobs

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    asked = [Point(DECODE, 3, 1024), Point(PREFILL, 1, 4096)]
    tasks = [t for t in missing_tasks(load_spec("kimi_linear"), asked) if not t.block.is_routed]
    compiled, known = warmup.warm_up(tasks, Dtypes())
    assert compiled == known > 40  # with the few configurations that tests try
    missed: list[tuple[str, str]] = []  # what was compiled for the first use, and its form

    def compiled_now(*, src: Any, cache_hit: bool, **_: Any) -> None:
        if not cache_hit:
            missed.append((src.name, f"{src.constants} {src.attrs}"))

    monkeypatch.setattr(knobs.compilation, "listener", compiled_now)
    for task in tasks:
        make_subject(build_block(task.block, "cuda", "bf16"), task.block, task.point).run()
    torch.cuda.synchronize()
    assert missed == []
