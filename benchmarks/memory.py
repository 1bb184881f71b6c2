"""The memory that a profile predicts, against what the allocator of the device saw.

    python benchmarks/memory.py whole      # the full 48B Kimi Linear: an H200
    python benchmarks/memory.py slices     # 2 to 4 layers of each reference spec: an H100

    --only SPEC,SPEC   of the slices
    --seconds 120      after which nothing more begins
    --record FILE      rows that are there already are kept (default: outputs/benchmarks/...)

Predicted are weights, cache, state and the activations of the largest pass (docs/conventions.md).
Measured is torch.cuda.max_memory_allocated over a prompt of one pass into an empty cache, or over
the capture of a step after a full one; nothing is taken off, workspaces of libraries neither.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from whole_models import (
    CASES,
    Case,
    ModelStep,
    Record,
    chosen,
    first_line,
    free,
    random_model,
    start_of,
)

from hybridsim.cost.model import MemoryBytes, ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.dtypes import Dtypes
from hybridsim.graph import build_graph
from hybridsim.measure.missing import missing_tasks
from hybridsim.measure.point import DECODE, PREFILL, Point
from hybridsim.measure.progress import compile_progress
from hybridsim.measure.timing import Captured
from hybridsim.measure.warmup import warm_up
from hybridsim.model.model import HybridLM
from hybridsim.origin import versions
from hybridsim.spec.schema import ModelSpec

POINTS = (
    Point(PREFILL, 1, 8192),
    Point(PREFILL, 1, 32768),
    Point(DECODE, 1, 131072),
    Point(DECODE, 32, 8192),
)


def predicted(spec: ModelSpec, point: Point) -> MemoryBytes:
    """Return the closed form: a prompt in one pass, or a step after a cache."""
    tokens = point.batch * point.context if point.phase == PREFILL else 1
    costs = ModelCosts.of(build_graph(spec))
    return costs.memory(point.context, point.batch, Deployment(prefill_chunk_tokens=tokens))


def allocated_bytes(model: HybridLM, point: Point) -> int:
    """Return the most that was allocated at once while a step ran."""
    step = ModelStep(model, point)
    step.prepare(0)
    step.run()  # kernels are tuned, which takes memory of its own
    del step.logits
    free("cuda")
    torch._C._cuda_clearCublasWorkspaces()  # one a stream, and every capture has a new one
    torch.cuda.reset_peak_memory_stats()
    if point.phase == DECODE:
        Captured(step).run()
    else:
        step.run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def figures(spec: ModelSpec, model: HybridLM, point: Point) -> dict[str, Any]:
    found = predicted(spec, point)
    try:
        seen = allocated_bytes(model, point)
    except RuntimeError as error:  # out of memory among them
        return {"failure": first_line(error)}
    return {
        "predicted_bytes": found.total_bytes,
        "activation_bytes": found.activation_bytes,
        "allocated_bytes": seen,
        "error": found.total_bytes / seen - 1,
    }


def line(row: dict[str, Any]) -> str:
    if "failure" in row:
        return f"{start_of(row)}  {row['failure']}"
    both = (row["predicted_bytes"], row["allocated_bytes"])
    columns = " ".join(f"{n / 1e9:10.3f}" for n in both)
    return f"{start_of(row)} {columns} {row['error']:+8.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", choices=("whole", "slices"))
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--record")
    parser.add_argument("--revision", help="of git, where the copy that runs is no checkout")
    args = parser.parse_args()
    began = time.monotonic()
    path = Path(args.record or f"outputs/benchmarks/memory_{args.cases}.json")
    found = versions(("torch", "triton", "fla-core"))
    record = Record(path, torch.cuda.get_device_name(), found, args.revision)
    cases = [replace(case, points=POINTS) for case in chosen(CASES[args.cases], args.only)]
    compile_kernels(cases, record)
    for case in cases:
        measure(case, record, began + args.seconds)
    print("model                    phase    sequences x context    predicted  allocated    error")
    for row in record.rows:
        print(line(row))
    record.print_summary()


def compile_kernels(cases: list[Case], record: Record) -> None:
    """Compile side by side what the cases' blocks run."""
    wanted = [(case.load(), record.missing(case)) for case in cases]
    tasks = [task for spec, points in wanted for task in missing_tasks(spec, points)]
    with compile_progress() as told:
        warm_up(tasks, Dtypes(), told)


def measure(case: Case, record: Record, deadline: float) -> None:
    """Measure what a case still needs, as far as the time allows."""
    points = record.missing(case)
    if not points or time.monotonic() > deadline:
        return
    spec = case.load()
    model = random_model(spec, "cuda", "bf16")
    for point in points:
        if time.monotonic() > deadline:
            break
        row = record.add(case, point, figures(spec, model, point))
        print(line(row), file=sys.stderr, flush=True)
        free("cuda")
    del model
    free("cuda")


if __name__ == "__main__":
    main()
