"""Compiling Triton kernels ahead of their first use: by many processes, without running them.

A model's step on the meta device launches nothing, but says which kernels it would launch, with
which arguments (`traced`). Autotuned kernels say so for every configuration that they try. Worker
processes then compile those specialisations (`compile_all`), and Triton's cache on the disk hands
them to whichever process launches them first: TRITON_CACHE_DIR, by default ~/.triton/cache.

What a trace misses is compiled at its first use, as always.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any

from hybridsim.cores import cores
from hybridsim.kernels import choice

MOST_WORKERS = 16
SLOWEST_S = 120.0  # one kernel; a worker that takes longer is given up
GONE = "the compiling process is gone"


@dataclass(frozen=True)
class Job:
    """One kernel to be compiled.

    Attributes:
        module: where it is defined.
        name: its name there.
        specialization: types, constants and options, as Triton writes them.
    """

    module: str
    name: str
    specialization: str


@contextmanager
def traced(found: Callable[[Job], None]) -> Iterator[None]:
    """Inside, kernels are not launched but handed on; meta tensors stand for those of the GPU.

    Args:
        found: called with every job, once each.
    """
    from triton import knobs
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    seen: set[tuple[str, str, str]] = set()
    run, tune = JITFunction.run, Autotuner.run

    def collect(*, key: str, fn: Any, compile: dict[str, Any], **rest: Any) -> bool:
        place = (fn.module, fn.name, str(key))
        if place not in seen:
            seen.add(place)
            found(Job(fn.module, fn.name, compile["specialization_data"]))
        return True  # and so it is not compiled here

    def run_nothing(function: Any, *args: Any, warmup: bool, **kwargs: Any) -> Any:
        return run(function, *args, warmup=True, **kwargs)

    def try_all(tuner: Any, *args: Any, **kwargs: Any) -> None:
        tuner.nargs = dict(zip(tuner.arg_names, args, strict=False))
        for config in tuner.prune_configs(kwargs):
            tuner.fn.run(*args, **kwargs, **config.all_kwargs())

    before = knobs.runtime.jit_cache_hook
    knobs.runtime.jit_cache_hook = collect
    JITFunction.run, Autotuner.run = run_nothing, try_all
    try:
        with choice.tracing():
            yield
    finally:
        JITFunction.run, Autotuner.run = run, tune
        knobs.runtime.jit_cache_hook = before


def compile_job(job: Job) -> None:
    """Compile a kernel in this process, into Triton's cache."""
    from triton.runtime.jit import JITFunction

    function = getattr(import_module(job.module), job.name)
    while not isinstance(function, JITFunction):  # autotuners and heuristics around it
        function = function.fn
    function.preload(job.specialization)


class Compilers:
    """Worker processes that compile what they are given, each one kernel at a time.

    Args:
        count: processes.
        done: called after every job with its error, empty where there is none; from other threads.
    """

    def __init__(self, count: int, done: Callable[[str], None]) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._done = done
        self._processes = [_start_worker() for _ in range(count)]
        self._threads = [
            threading.Thread(target=self._serve, args=(process,), daemon=True)
            for process in self._processes
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Have a job compiled."""
        self._jobs.put(job)

    def finish(self) -> None:
        """Wait until every job is done."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """End the processes, whatever they are at."""
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):  # what was not written yet has no reader
                        pipe.close()

    def _serve(self, process: subprocess.Popen[str]) -> None:
        while (job := self._jobs.get()) is not None:
            error = _answer(process, job)
            self._done(error)
            if error == GONE:
                return  # the others go on


def _start_worker() -> subprocess.Popen[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )


def _answer(process: subprocess.Popen[str], job: Job) -> str:
    """Return what a worker says to a job; one that is gone, or hangs, compiles nothing more."""
    assert process.stdin is not None
    assert process.stdout is not None
    watch = threading.Timer(SLOWEST_S, process.kill)
    watch.start()
    try:
        process.stdin.write(json.dumps(asdict(job)) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except (OSError, ValueError):  # its pipe is closed
        line = ""
    finally:
        watch.cancel()
    return str(json.loads(line)) if line else GONE


def compile_all(
    trace: Callable[[], None],
    workers: int,
    told: Callable[[int, int], None] = lambda compiled, known: None,
) -> tuple[int, int]:
    """Compile every kernel that a trace would launch; return how many were, of how many.

    The workers begin while the trace goes on.

    Args:
        trace: runs steps on the meta device.
        workers: processes.
        told: called after every job with the numbers so far; from other threads.
    """
    known = compiled = 0
    compilers: Compilers | None = None
    lock = threading.Lock()

    def done(error: str) -> None:
        nonlocal compiled
        with lock:
            compiled += not error
            told(compiled, known)

    def found(job: Job) -> None:
        nonlocal known, compilers
        known += 1
        compilers = compilers or Compilers(workers, done)
        compilers.submit(job)

    try:
        with traced(found):
            trace()
        if compilers is not None:
            compilers.finish()
    finally:
        if compilers is not None:
            compilers.stop()
    return compiled, known


def num_workers() -> int:
    """Return how many processes compile side by side on this machine."""
    return min(MOST_WORKERS, cores())


def serve(lines: Iterable[str], answer: Callable[[str], None]) -> None:
    """Compile the jobs of these lines, and answer each with its error, or nothing."""
    for line in lines:
        try:
            compile_job(Job(**json.loads(line)))
            error = ""
        except Exception as problem:  # whoever launches the kernel meets it again
            error = f"{type(problem).__name__}: {problem}"
        answer(json.dumps(error))


def main() -> None:
    """Serve as a worker: jobs on standard input, answers on what was standard output."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # compilers print

    def answer(text: str) -> None:
        out.write(text + "\n")
        out.flush()

    serve(sys.stdin, answer)


if __name__ == "__main__":
    main()
