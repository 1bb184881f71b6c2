"""Whole models against the sums of their blocks, all timed in one run.

    python benchmarks/blocks_vs_models.py whole   # the full 48B Kimi Linear: an H200
    python benchmarks/blocks_vs_models.py slices  # 2 to 4 layers of each reference spec: an H100
    python benchmarks/blocks_vs_models.py tiny --device cpu

    --only SPEC,SPEC   of the slices
    --seconds 240      after which nothing more begins
    --record FILE      rows that are there already are kept (default: outputs/benchmarks/...)

Blocks are timed as a sweep times them, one by one on a cold cache. A model is timed as its blocks
are: its step as a captured graph, with the logits of the last position, on a cold cache, with
several sets of tokens; decode after a cache of random content. The sum is what a profile would say.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

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

from hybridsim.cost.op import Deployment
from hybridsim.dtypes import Dtypes
from hybridsim.graph import build_graph
from hybridsim.measure.estimate import MEASURED, BlockTimes
from hybridsim.measure.missing import missing_tasks
from hybridsim.measure.model_times import ModelTimes
from hybridsim.measure.plan import Task
from hybridsim.measure.point import Point
from hybridsim.measure.progress import compile_progress
from hybridsim.measure.run import Bench, Limits
from hybridsim.measure.session import begin_session, make_timer
from hybridsim.measure.store import OK, Journal, Row, read_store
from hybridsim.measure.timing import Captured, Subject, measure
from hybridsim.measure.warmup import warm_up
from hybridsim.model.model import HybridLM
from hybridsim.spec.schema import ModelSpec

SAMPLING_S = 0.3


class Run:
    """One run: device, number formats, block times and rows so far."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.began, self.seconds = time.monotonic(), args.seconds
        self.device = args.device
        dtype = "bf16" if self.device == "cuda" else "fp32"
        self.dtypes = Dtypes(weights=dtype, activations=dtype, kv=dtype, conv_state=dtype)
        self.timer = make_timer(self.device)
        self.session = begin_session(self.timer, args.revision)
        path = Path(args.record or f"outputs/benchmarks/blocks_vs_models_{args.cases}.json")
        self.record = Record(
            path,
            self.session.title,
            self.session.versions,
            args.revision,
            flops_per_s=self.session.flops_per_s,
            bytes_per_s=self.session.bytes_per_s,
        )
        journal = Journal(path.with_suffix(".jsonl"))
        limits = Limits(sampling_s=SAMPLING_S, deadline=self.began + self.seconds)
        store = read_store([journal.path])
        self.bench = Bench(self.session, self.timer, journal, store, self.dtypes, limits)

    def late(self) -> bool:
        return time.monotonic() - self.began > self.seconds

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:4.0f} s] {text}", file=sys.stderr, flush=True)

    def tasks(self, case: Case) -> list[Task]:
        """Return the blocks' points that a case still needs."""
        return self.bench.missing(missing_tasks(case.load(), self.record.missing(case)))

    def warm_up(self, cases: Iterable[Case]) -> None:
        if self.device == "cuda":
            with compile_progress() as told:
                warm_up([t for case in cases for t in self.tasks(case)], self.dtypes, told)

    def compare(self, case: Case) -> None:
        """Time a case's blocks, then the model, and write its rows."""
        points = self.record.missing(case)
        if not points or self.late():
            return
        self.bench.run(self.tasks(case), self._note)
        self.say(f"{case.title}: blocks timed")
        spec = case.load()
        model = random_model(spec, self.device, self.dtypes.weights)
        for point in points:
            if self.late():
                break
            row = self.record.add(case, point, self._figures(spec, model, point))
            self.say(line(row))
            free(self.device)
        del model
        free(self.device)

    def _note(self, task: Task, row: Row) -> None:
        if row.status != OK:
            self.say(f"{row.part} {row.phase} {row.batch} x {row.context}: {row.status} {row.note}")

    def _figures(self, spec: ModelSpec, model: HybridLM, point: Point) -> dict[str, Any]:
        times = BlockTimes(self.bench.store, self.dtypes)
        hardware = self.session.ceilings.hardware()
        found = ModelTimes(build_graph(spec), Deployment(self.dtypes), hardware, times).estimate(
            point.phase, point.batch, point.context
        )
        if found.provenance != MEASURED:
            return {"failure": "not all blocks were timed"}
        try:
            whole = self._whole(model, point)
        except RuntimeError as error:  # out of memory among them
            return {"failure": first_line(error)}
        return {
            **whole,
            "sum_s": found.latency_s,
            "error": found.latency_s / whole["model_s"] - 1,
        }

    def _whole(self, model: HybridLM, point: Point) -> dict[str, Any]:
        step = ModelStep(model, point)
        subject: Subject = step
        if self.device == "cuda":
            subject = Captured(step)
        timing = measure(subject, self.timer, limit_s=SAMPLING_S)
        overhead_s = self.timer.overhead_s if subject is not step else 0.0
        finite = bool(step.logits.isfinite().all())
        experts = step.chosen_experts()
        return {
            "model_s": timing.latency_s - overhead_s,
            "spread": timing.spread,
            "experts": experts,
            "finite": finite,
        }


def line(row: dict[str, Any]) -> str:
    start = start_of(row)
    if "failure" in row:
        return f"{start}  {row['failure']}"
    experts = "" if row["experts"] is None else f"  {row['experts']:.0f} experts"
    model_ms, sum_ms = 1e3 * row["model_s"], 1e3 * row["sum_s"]
    return f"{start} {model_ms:10.3f} {sum_ms:10.3f} {row['error']:+8.1%}{experts}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cases", choices=CASES)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", default="")
    parser.add_argument("--seconds", type=float, default=240.0)
    parser.add_argument("--record")
    parser.add_argument("--revision", help="of git, where the copy that runs is no checkout")
    run = Run(args := parser.parse_args())
    cases = chosen(CASES[args.cases], args.only)
    run.warm_up(cases)
    for case in cases:
        run.compare(case)
    print("model                    phase    sequences x context   model ms     sum ms    error")
    for row in run.record.rows:
        print(line(row))
    run.record.print_summary()


if __name__ == "__main__":
    main()
