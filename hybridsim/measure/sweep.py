"""Measure the blocks of many specs within a budget of time.

    python -m hybridsim.measure.sweep specs=kimi_linear,qwen3_next out=FOLDER budget_s=420

Options, each KEY=VALUE:
    specs      names or paths, the most important first (default: the reference specs)
    fine       of these, those with every power of two of contexts (default: the two Kimi Linears)
    variants   also mixers with other head counts (default: true)
    out        folder of the journal DEVICE.jsonl; finished points in it and shipped ones are left
    device     cuda or cpu (default: cuda)
    dtype      of weights and activations (default: bf16); products in fp8 leave the rest in bf16
    kv         of keys, values and latents in the cache (default: as dtype)
    budget_s   seconds after which nothing more begins (default: 420)
    cap_s      seconds of one run beyond which a point is marked and not run (default: 25)
    sampling_s seconds of sampling a point (default: 0.6)
    warm_up    whether to compile all kernels side by side first (default: true)
    revision   git revision to note where the copy that runs is no checkout
    again      also what shipped rows have (default: false)
    phase      prefill or decode (default: both)
    max_batch  sequences of a point at most (default: all), as after a change of few-row kernels

The points are measured in a process of their own: one that dies or hangs costs the point that it
was at, which is marked, and another goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hybridsim.dtypes import BYTES_PER_ELEMENT, Dtypes
from hybridsim.errors import HybridsimError, near_miss, unknown
from hybridsim.measure.plan import Task, sweep_tasks
from hybridsim.measure.point import DECODE, PREFILL
from hybridsim.measure.store import OK, SHIPPED, Journal, Store, read_store
from hybridsim.spec.load import load_spec
from hybridsim.spec.schema import ModelSpec

if TYPE_CHECKING:
    from hybridsim.measure.timing import Timer

REFERENCE_SPECS = (
    "kimi_linear,kimi_linear_mla,qwen3_next,deepseek_v3,minimax_m3,llama31_8b,qwen3_235b,"
    "minimax_m1,minimax_m2,deepseek_v32"
)
FINE_SPECS = "kimi_linear,kimi_linear_mla"
# Other head counts of the same mixers: whether times carry over from one block to another.
VARIANTS = (
    ("kimi_linear", ["mixers.L.num_heads=16", "mixers.F.num_heads=16"]),
    ("kimi_linear", ["mixers.L.num_heads=64", "mixers.F.num_heads=64"]),
    ("qwen3_next", ["mixers.L.num_v_heads=64", "mixers.F.num_heads=32"]),
    ("llama31_8b", ["mixers.F.num_heads=64"]),
)
DEFAULTS = {
    "specs": REFERENCE_SPECS,
    "fine": FINE_SPECS,
    "variants": "true",
    "out": "outputs/measurements",
    "device": "cuda",
    "dtype": "bf16",
    "kv": "",
    "budget_s": "420",
    "cap_s": "25",
    "sampling_s": "0.6",
    "warm_up": "true",
    "revision": "",
    "again": "false",
    "phase": "",
    "max_batch": "1e6",
}
MAX_RESTARTS = 6
DEVICE_LOST = 75  # exit code of a worker whose device failed: another process may have it again
HANG_S = 200.0  # without progress, beyond the longest runs: kernels are compiled and tuned
WORKER = "HYBRIDSIM_SWEEP_WORKER"


@dataclass(frozen=True)
class Options:
    """The options of a sweep, see the module."""

    specs: tuple[str, ...]
    fine: tuple[str, ...]
    variants: bool
    out: Path
    device: str
    dtypes: Dtypes
    budget_s: float
    cap_s: float
    sampling_s: float
    warm_up: bool
    revision: str | None
    again: bool
    phase: str
    max_batch: float


def parse_options(arguments: list[str]) -> Options:
    """Return the options of a command line; HybridsimError for anything wrong."""
    given = dict(DEFAULTS)
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if not separator:
            raise HybridsimError(f"{argument}: give KEY=VALUE (known: {', '.join(DEFAULTS)})")
        if key not in DEFAULTS:
            raise HybridsimError(f"{argument}: no such option{near_miss(key, DEFAULTS)}")
        given[key] = value
    if given["device"] not in ("cuda", "cpu"):
        raise unknown("device", given["device"], ("cuda", "cpu"), "device")
    if given["phase"] not in ("", PREFILL, DECODE):
        raise unknown("phase", given["phase"], (PREFILL, DECODE), "phase")
    dtype, kv = given["dtype"], given["kv"] or given["dtype"]
    for key, value in (("dtype", dtype), ("kv", kv)):
        if value not in BYTES_PER_ELEMENT:
            raise unknown(key, value, BYTES_PER_ELEMENT, "dtype")
    columns = "bf16" if dtype == "fp8" else dtype
    return Options(
        specs=_names(given["specs"]),
        fine=_names(given["fine"]),
        variants=_switch(given, "variants"),
        out=Path(given["out"]),
        device=given["device"],
        dtypes=Dtypes(weights=dtype, activations=dtype, kv=kv, conv_state=columns),
        budget_s=_number(given, "budget_s"),
        cap_s=_number(given, "cap_s"),
        sampling_s=_number(given, "sampling_s"),
        warm_up=_switch(given, "warm_up"),
        revision=given["revision"] or None,
        again=_switch(given, "again"),
        phase=given["phase"],
        max_batch=_number(given, "max_batch"),
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _switch(given: Mapping[str, str], key: str) -> bool:
    if given[key] not in ("true", "false"):
        raise HybridsimError(f"{key}={given[key]}: expected true or false")
    return given[key] == "true"


def _number(given: Mapping[str, str], key: str) -> float:
    try:
        value = float(given[key])
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise HybridsimError(f"{key}={given[key]}: expected a number above 0")
    return value


def planned_tasks(options: Options, memory_bytes: float) -> list[Task]:
    """Return the tasks of a sweep in their order."""
    specs = [load_spec(name) for name in options.specs]
    fine = [spec for name, spec in zip(options.specs, specs, strict=True) if name in options.fine]
    variants: list[ModelSpec] = []
    if options.variants:
        variants = [load_spec(s, changes) for s, changes in VARIANTS if s in options.specs]
    tasks = sweep_tasks(specs, fine, variants, options.dtypes, memory_bytes)
    return [
        task
        for task in tasks
        if options.phase in ("", task.point.phase) and task.point.batch <= options.max_batch
    ]


def work(options: Options) -> None:
    """Measure what is missing, in this process, once no other one measures on the device.

    Raises:
        HybridsimError: another process measured on the device for the whole budget of time.
    """
    from hybridsim.measure.lock import device_lock
    from hybridsim.measure.session import local_device, make_timer

    deadline = time.monotonic() + options.budget_s
    device, _ = local_device(options.device)
    timer = make_timer(options.device)
    with device_lock(timer.device, timeout_s=options.budget_s):
        _measure(options, device, timer, deadline)


def _measure(options: Options, device: str, timer: Timer, deadline: float) -> None:
    from hybridsim.measure.progress import MeasureProgress, compile_progress
    from hybridsim.measure.run import Bench, Limits
    from hybridsim.measure.session import begin_session
    from hybridsim.measure.warmup import warm_up

    journal = Journal(options.out / f"{device}.jsonl")
    session = begin_session(timer, options.revision)
    shipped = [] if options.again else [SHIPPED / f"{device}.jsonl"]
    store = read_store([*shipped, journal.path])
    limits = Limits(options.cap_s, options.sampling_s, deadline)
    bench = Bench(session, timer, journal, store, options.dtypes, limits)
    tasks = bench.missing(planned_tasks(options, session.memory_bytes))
    print(f"{session.title}: {len(tasks)} points to measure", file=sys.stderr)
    if options.device == "cuda" and options.warm_up:
        with compile_progress() as told:
            warm_up(tasks, options.dtypes, told)
    with MeasureProgress(len(tasks)) as progress:
        bench.run(tasks, progress.done)


def _work_or_lose(options: Options) -> None:
    from hybridsim.measure.run import DeviceLostError

    try:
        work(options)
    except DeviceLostError as error:
        print(f"sweep: {error}", file=sys.stderr)
        sys.exit(DEVICE_LOST)


def supervise(arguments: list[str], options: Options) -> int:
    """Run workers until one is done; return the exit code."""
    began = time.monotonic()
    for start in range(MAX_RESTARTS):
        left = options.budget_s - (time.monotonic() - began)
        if left <= 0:
            return 0
        given = [a for a in arguments if not a.startswith("budget_s=")]
        if start:  # the kernels of a worker that died are compiled already
            given.append("warm_up=false")
        code = _worker(given, left, options)
        if code != DEVICE_LOST and not (code and mark_dead(options.out, code)):
            return code
    return 1


def _worker(arguments: list[str], budget_s: float, options: Options) -> int:
    """Run one worker; return its exit code, or minus the signal that ended it."""
    command = [sys.executable, "-m", "hybridsim.measure.sweep", *arguments, f"budget_s={budget_s}"]
    with subprocess.Popen(command, env=os.environ | {WORKER: "1"}) as process:
        try:
            while process.poll() is None:
                time.sleep(0.5)
                if _is_hung(options):
                    process.kill()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            process.wait()
            raise
        return process.wait()


def _is_hung(options: Options) -> bool:
    from hybridsim.measure.run import RUNNING

    path = options.out / RUNNING
    try:
        age_s = time.time() - path.stat().st_mtime
    except OSError:
        return False
    return age_s > 3 * options.cap_s + HANG_S


def mark_dead(out: Path, code: int) -> bool:
    """Note the point at which a worker died; return whether there was one."""
    from hybridsim.measure.run import RUNNING

    path = out / RUNNING
    if not path.is_file():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    record["note"] = f"the process ended with {code}"
    device = record["session"].partition("-")[0]
    Journal(out / f"{device}.jsonl").append(record)
    path.unlink()
    return True


def summary(out: Path) -> str:
    """Return a table of what a folder holds: rows by part and status."""
    lines = []
    for path in sorted(out.glob("*.jsonl")):
        store: Store = read_store([path])
        rows = list(store.rows.values())
        good = [row for row in rows if row.status == OK]
        tight = sum(1 for row in good if row.spread is not None and row.spread <= 0.03)
        lines.append(f"{path}: {len(rows)} rows, {len(good)} timed, {tight} with spread <= 3 %")
        session = store.latest_session()
        if session is not None:
            rates = ", ".join(f"{k} {v / 1e12:.1f} TFLOP/s" for k, v in session.flops_per_s.items())
            lines.append(
                f"  {session.title}: {rates}, memory {session.bytes_per_s / 1e12:.2f} TB/s,"
                f" timer {session.timer_s * 1e6:.1f} us"
            )
        counts = Counter((row.part, row.phase, row.mode or row.status) for row in rows)
        for (part, phase, mode), count in sorted(counts.items()):
            lines.append(f"  {part:16s} {phase:8s} {mode:14s} {count:4d}")
        notes = Counter(f"{row.part} {row.phase}: {row.note}" for row in rows if row.note)
        lines += [f"  {count:4d} x {note}" for note, count in notes.most_common(20)]
    return "\n".join(lines)


def main() -> None:
    """Run the sweep."""
    arguments = sys.argv[1:]
    if arguments in (["--help"], ["-h"]):
        print(__doc__)
        return
    try:
        options = parse_options(arguments)
        if os.environ.get(WORKER):
            _work_or_lose(options)
            return
        code = supervise(arguments, options)
    except HybridsimError as error:
        sys.exit(f"sweep: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print(summary(options.out))
    sys.exit(code)


if __name__ == "__main__":
    main()
