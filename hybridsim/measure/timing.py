"""Timing one piece of work: warm-up, cold caches, several inputs, as many runs as it takes."""

from __future__ import annotations

import math
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

FLUSH_FACTOR = 4  # bytes read between runs, over those of the last cache
CPU_CACHE_BYTES = 1 << 24
SAMPLES_AT_ONCE = 5
MIN_SAMPLES, MAX_SAMPLES = 10, 100
SAMPLE_S = 200e-6  # a sample is as many runs as take this long: an event's clock is coarse
MAX_RUNS_A_SAMPLE = 16
SPREAD = 0.03
OVERHEAD_ATTEMPTS = 5
CLOCKS_RISE_S = 0.2  # of work, after which an idle device runs at full speed


class Subject(ABC):
    """What is timed.

    Attributes:
        num_inputs: input sets; a sample runs over all of them equally often.
    """

    num_inputs: int = 1

    @abstractmethod
    def prepare(self, index: int) -> None:
        """Set the input and put caches back; not timed."""

    @abstractmethod
    def run(self) -> None:
        """Do the work once."""


class Timer(ABC):
    """Times runs of a subject with cold caches.

    The last-level cache is filled by reading, not by writing: lines that were written would have to
    leave it first, on the time of what runs next. In a model a block finds other blocks' weights
    there, which leave without a trace too.

    Attributes:
        overhead_s: what timing adds to a captured run.
    """

    overhead_s: float = 0.0

    def __init__(self, device: torch.device, cache_bytes: int) -> None:
        self.device = device
        elements = FLUSH_FACTOR * cache_bytes // 4
        self._flushed = torch.ones(elements, dtype=torch.float32, device=device)
        self._sum = torch.zeros((), device=device)

    def flush(self) -> None:
        """Leave nothing of what ran before in the last-level cache."""
        torch.sum(self._flushed, dim=0, out=self._sum)

    @abstractmethod
    def times_s(self, subject: Subject, indices: Sequence[int]) -> list[float]:
        """Return the time of one run with each of these input sets."""


class HostTimer(Timer):
    """Times work that is done when the call returns."""

    def __init__(self, cache_bytes: int = CPU_CACHE_BYTES) -> None:
        super().__init__(torch.device("cpu"), cache_bytes)

    def times_s(self, subject: Subject, indices: Sequence[int]) -> list[float]:
        times = []
        for index in indices:
            subject.prepare(index)
            self.flush()
            start = time.perf_counter()
            subject.run()
            times.append(time.perf_counter() - start)
        return times


class CudaTimer(Timer):
    """Times work on a GPU by events around each run.

    Reading the flushed buffer takes longer than submitting a run, so that the device never waits
    for the host between the events of a captured run.
    """

    def __init__(self) -> None:
        device = torch.device("cuda", torch.cuda.current_device())
        super().__init__(device, torch.cuda.get_device_properties(device).L2_cache_size)
        self.overhead_s = self._overhead_s()

    def times_s(self, subject: Subject, indices: Sequence[int]) -> list[float]:
        pairs = []
        for index in indices:
            subject.prepare(index)
            self.flush()
            pair = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            pair[0].record()
            subject.run()
            pair[1].record()
            pairs.append(pair)
        torch.cuda.synchronize()
        return [start.elapsed_time(end) * 1e-3 for start, end in pairs]

    def _overhead_s(self, kernels: int = 33) -> float:
        """Return what events and the start of a graph add to a run.

        A graph of n small kernels takes overhead + n t; one of a single kernel gives the overhead.
        It is the least of several attempts on a device whose clocks have risen: whatever disturbs
        the single kernel more than the many would be taken off every row.
        """
        x = torch.zeros(1, device=self.device)
        one, many = (Captured(_Adds(x, n)) for n in (1, kernels))
        self._raise_clocks()
        found = []
        for _ in range(OVERHEAD_ATTEMPTS):
            one_s, many_s = (statistics.median(self.times_s(g, [0] * 30)) for g in (one, many))
            found.append(one_s - (many_s - one_s) / (kernels - 1))
        return max(0.0, min(found))

    def _raise_clocks(self) -> None:
        began = time.perf_counter()
        while time.perf_counter() - began < CLOCKS_RISE_S:
            self.flush()
            torch.cuda.synchronize()


class _Adds(Subject):
    """Some of the smallest kernels, one after the other."""

    def __init__(self, x: torch.Tensor, count: int) -> None:
        self.x, self.count = x, count

    def prepare(self, index: int) -> None:
        pass

    def run(self) -> None:
        for _ in range(self.count):
            self.x.add_(1)


class Captured(Subject):
    """A subject whose run is captured in a CUDA graph, and replayed.

    Raises:
        RuntimeError: its run does what a capture cannot, such as waiting for the device.
    """

    WARM_UP_RUNS = 2  # kernels are compiled and tuned before the capture, which must do neither

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.num_inputs = subject.num_inputs
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(self.WARM_UP_RUNS):
                subject.prepare(0)
                subject.run()
            subject.prepare(0)
        torch.cuda.current_stream().wait_stream(stream)
        before = torch.cuda.current_stream()
        self.graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(self.graph):
                subject.run()
        except BaseException:
            # A capture that fails leaves its own stream as the current one.
            torch.cuda.set_stream(before)
            raise

    def prepare(self, index: int) -> None:
        self.subject.prepare(index)

    def run(self) -> None:
        self.graph.replay()


@dataclass(frozen=True)
class Timing:
    """The time of one run.

    Attributes:
        latency_s: median of the samples.
        spread: interquartile range over median; None of a single run.
        runs: timed runs, over all samples.
    """

    latency_s: float
    spread: float | None
    runs: int


def spread_of(samples: Sequence[float]) -> float:
    """Return the interquartile range over the median; the whole range of fewer than four."""
    if len(samples) < 4:
        return (max(samples) - min(samples)) / statistics.median(samples)
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / statistics.median(samples)


def measure(
    subject: Subject,
    timer: Timer,
    *,
    limit_s: float = 1.0,
    wanted_spread: float = SPREAD,
    warm: bool = False,
    now: Callable[[], float] = time.perf_counter,
) -> Timing:
    """Return the time of one run, from samples until they agree.

    A sample is the mean of runs over all input sets. Samples are taken until their spread is at
    most `wanted_spread`, MAX_SAMPLES are there, or `limit_s` is over. Work of which one run takes
    longer than the limit is timed once.

    Args:
        subject: the work.
        timer: of the device that it runs on.
        limit_s: seconds that sampling may take.
        wanted_spread: where sampling may stop.
        warm: whether its kernels are compiled and tuned; else it runs once before.
        now: the clock of the limit.
    """
    if not warm:
        timer.times_s(subject, [0])
    first = timer.times_s(subject, [0])[0]
    if first > limit_s:
        return Timing(first, None, 1)
    began = now()
    sets = subject.num_inputs
    rounds = min(math.ceil(SAMPLE_S / max(first, 1e-7) / sets), max(1, MAX_RUNS_A_SAMPLE // sets))
    indices = list(range(sets)) * max(1, rounds)
    samples: list[float] = []
    while not _enough(samples, wanted_spread):
        # No more at once than the time that is left allows.
        left = limit_s - (now() - began)
        fitting = int(left / (first * len(indices)))
        if samples and fitting < 1:
            break
        count = max(1, min(SAMPLES_AT_ONCE, fitting))
        times = timer.times_s(subject, indices * count)
        samples += [
            statistics.fmean(times[i * len(indices) : (i + 1) * len(indices)]) for i in range(count)
        ]
    spread = spread_of(samples) if len(samples) > 1 else None
    return Timing(statistics.median(samples), spread, len(samples) * len(indices))


def _enough(samples: Sequence[float], wanted_spread: float) -> bool:
    if len(samples) < MIN_SAMPLES:
        return False
    return len(samples) >= MAX_SAMPLES or spread_of(samples) <= wanted_spread
