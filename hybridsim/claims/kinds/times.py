"""Times, rates and prices on a device: rooflines, and its measured rows where they are asked for.

A roofline is a bound: no launch overhead, no communication, every rate at its peak.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar

from hybridsim.claims.figure import ROOFLINE, Kind, Ours
from hybridsim.claims.kinds.flops import last_token_flops
from hybridsim.claims.subject import Subject
from hybridsim.components import require_choice
from hybridsim.conventions import SERVED
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import MODELLED, largest_batch_size
from hybridsim.dtypes import Dtypes
from hybridsim.hardware import Hardware, parse_hardware
from hybridsim.measure.estimate import Estimate, weakest
from hybridsim.measure.model_times import ModelTimes, device_times
from hybridsim.measure.point import DECODE, PHASES, PREFILL
from hybridsim.options import read_option
from hybridsim.profiler.serving import SECONDS_PER_HOUR, Serving
from hybridsim.steps import decode, prefill
from hybridsim.workload import Workload, parse_workload


def device(name: str, num_devices: int = 1) -> Hardware:
    """Return a shipped device, or several taken as one."""
    return replace(parse_hardware(read_option("hardware", name)), num_devices=num_devices)


@lru_cache(maxsize=64)
def model_times(
    subject: Subject, hardware: str, num_devices: int, measured: bool
) -> ModelTimes | None:
    """Return a model's times on a device; None where rows are asked for and it has none."""
    chosen, deployment = device(hardware, num_devices), Deployment()
    rows = device_times(chosen, deployment) if measured else None
    if measured and rows is None:
        return None
    return ModelTimes(subject.graph, deployment, chosen, rows)


@dataclass(frozen=True)
class TimeRatio(Kind):
    """A baseline's time for one step over a model's.

    Attributes:
        baseline, model: the two.
        phase: "prefill" of the context or one "decode" step after it.
        context_tokens: of each sequence.
        hardware: a shipped device.
        batch_sizes: sequences; with several, the range over them.
        measured: from the device's rows; else the roofline.
    """

    unit: ClassVar[str] = "x"
    baseline: Subject
    model: Subject
    phase: str
    context_tokens: int
    hardware: str = "h100"
    batch_sizes: tuple[int, ...] = (1,)
    measured: bool = False

    def __post_init__(self) -> None:
        require_choice("phase", self.phase, PHASES)

    def compute(self) -> Ours | str:
        times = [
            model_times(s, self.hardware, 1, self.measured) for s in (self.baseline, self.model)
        ]
        if times[0] is None or times[1] is None:
            return f"measured rows of {self.hardware}; it has none"
        pairs = [self._pair(times[0], times[1], batch) for batch in self.batch_sizes]
        origin = weakest(e.provenance for pair in pairs for e in pair)
        if self.measured and origin == MODELLED:
            return f"measured rows of {self.hardware} for every block of the two models"
        ratios = [_interval(*pair) for pair in pairs]
        text = "; ".join(map(self._text, self.batch_sizes, pairs))
        low, high = min(r[0] for r in ratios), max(r[1] for r in ratios)
        middle = sorted(pair[0].latency_s / pair[1].latency_s for pair in pairs)[len(pairs) // 2]
        ranged = self.measured or len(pairs) > 1
        return Ours(
            middle,
            f"{self.phase} at {self.context_tokens:,} tokens on {self.hardware}, {origin}: {text}",
            origin if self.measured else ROOFLINE,
            low=low if ranged else None,
            high=high if ranged else None,
            is_interval=self.measured and len(pairs) == 1,
        )

    def _pair(self, theirs: ModelTimes, ours: ModelTimes, batch: int) -> tuple[Estimate, Estimate]:
        baseline, model = (
            times.estimate(self.phase, batch, self.context_tokens) for times in (theirs, ours)
        )
        return baseline, model

    @staticmethod
    def _text(batch: int, pair: tuple[Estimate, Estimate]) -> str:
        theirs, ours = (estimate.latency_s for estimate in pair)
        ratio = theirs / ours
        return f"batch {batch}: {theirs * 1e3:.4g} / {ours * 1e3:.4g} ms = {ratio:.2f}x"


def _interval(theirs: Estimate, ours: Estimate) -> tuple[float, float]:
    """Return what the ratio of two times lies between, whichever way their errors go."""
    low = (theirs.low_s or theirs.latency_s) / (ours.high_s or ours.latency_s)
    high = (theirs.high_s or theirs.latency_s) / (ours.low_s or ours.latency_s)
    return low, high


@dataclass(frozen=True)
class ThroughputRatio(Kind):
    """Decoded tokens a second at the largest batch that fits, model over baseline."""

    unit: ClassVar[str] = "x"
    model: Subject
    baseline: Subject
    context_tokens: int
    hardware: str
    num_devices: int = 1

    def compute(self) -> Ours | str:
        rates = []
        for subject in (self.model, self.baseline):
            batch = largest_batch_size(
                subject.costs,
                self.context_tokens,
                Deployment(),
                device(self.hardware, self.num_devices),
            )
            if not batch:
                return (
                    f"more than {self.num_devices} x {self.hardware}: {subject.title} is too large"
                )
            times = model_times(subject, self.hardware, self.num_devices, False)
            assert times is not None
            step_s = times.estimate(DECODE, batch, self.context_tokens).latency_s
            rates.append((batch / step_s, batch, step_s))
        parts = [f"{batch} / {step_s * 1e3:.4g} ms" for _, batch, step_s in rates]
        ratio = rates[0][0] / rates[1][0]
        text = (
            f"sequences of {self.context_tokens:,} tokens on {self.num_devices} x {self.hardware}"
            f" a step: ({parts[0]}) / ({parts[1]}) = {ratio:.2f}x"
        )
        return Ours(ratio, text, ROOFLINE)


@dataclass(frozen=True)
class RequestRatio(Kind):
    """The device time of a request at the largest batch that fits, baseline over model.

    Its prompt, and its part of the decode steps; the range is over workloads.
    """

    unit: ClassVar[str] = "x"
    baseline: Subject
    model: Subject
    workloads: tuple[str, ...]
    hardware: str
    num_devices: int = 1

    def compute(self) -> Ours:
        found = {}
        for name in self.workloads:
            workload = parse_workload(read_option("workload", name))
            theirs, ours = (self._request_s(s, workload) for s in (self.baseline, self.model))
            found[f"{name} {theirs:.3g} / {ours:.3g} s"] = theirs / ours
        text = "; ".join(f"{words} = {ratio:.2f}x" for words, ratio in found.items())
        ratios = sorted(found.values())
        return Ours(
            ratios[len(ratios) // 2],
            f"device time of a request on {self.num_devices} x {self.hardware}: {text}",
            ROOFLINE,
            low=ratios[0],
            high=ratios[-1],
        )

    def _request_s(self, subject: Subject, workload: Workload) -> float:
        serving = Serving(subject.costs, Deployment(), device(self.hardware, self.num_devices))
        batch = serving.largest_batch_size(workload.total_tokens)
        return serving.request(workload, max(1, batch)).latency_s


@dataclass(frozen=True)
class PositionPrice(Kind):
    """The least price of a million tokens at a position: FLOPs at peak or bytes at bandwidth.

    Attributes:
        model: the model; its weights are shared by a batch without end.
        phase: "prefill": the last token of a prompt; "decode".
        context_tokens: the position.
        hardware: a shipped device.
        usd_per_hour: what one costs.
        dtypes: number formats; products run at the rate of the widest.
    """

    unit: ClassVar[str] = "USD"
    model: Subject
    phase: str
    context_tokens: int
    hardware: str
    usd_per_hour: float
    dtypes: Dtypes = field(default_factory=Dtypes)

    def __post_init__(self) -> None:
        require_choice("phase", self.phase, PHASES)

    def compute(self) -> Ours:
        chosen = device(self.hardware)
        flops = last_token_flops(self.model, self.phase, self.context_tokens)
        rate = chosen.total_flops_per_s(self.dtypes.products)
        compute_s = flops / rate
        moved, traffic_s = 0, 0.0
        if self.phase == DECODE:
            moved = self.model.costs.cache_traffic_bytes(decode(self.context_tokens), self.dtypes)
            traffic_s = moved / chosen.total_bandwidth_bytes_per_s
        usd = max(compute_s, traffic_s) * 1e6 / SECONDS_PER_HOUR * self.usd_per_hour
        text = f"{flops / 1e12:.3f} TFLOP / {rate / 1e12:.0f} TFLOP/s = {compute_s * 1e3:.3f} ms"
        if moved:
            text += f", {moved / 1e9:.2f} GB of cache = {traffic_s * 1e3:.3f} ms"
        price = f"${self.usd_per_hour:g}/h / 3600 s"
        return Ours(usd, f"{text}; longer one x 1e6 x {price} = ${usd:.3f}", ROOFLINE)


@dataclass(frozen=True)
class CoreTimeRatio(Kind):
    """The time of one layer's core under a roofline, baseline's letter over model's.

    Projections are left out: FLOPs between them at peak, or cache bytes at bandwidth.
    """

    unit: ClassVar[str] = "x"
    model: Subject
    letter: str
    baseline_letter: str
    phase: str
    context_tokens: int
    hardware: str

    def compute(self) -> Ours:
        theirs, ours = (self._core_s(letter) for letter in (self.baseline_letter, self.letter))
        text = (
            f"one layer at {self.context_tokens:,} tokens on {self.hardware}:"
            f" {theirs * 1e3:.4g} / {ours * 1e3:.4g} ms = {theirs / ours:.2f}x"
        )
        return Ours(theirs / ours, text, ROOFLINE)

    def _core_s(self, letter: str) -> float:
        chosen, cost, dtypes = device(self.hardware), self.model.mixer_cost(letter), Dtypes()
        step = (prefill if self.phase == PREFILL else decode)(self.context_tokens)
        compute_s = cost.core_flops(step, SERVED) / chosen.total_flops_per_s("bf16")
        moved = cost.cache_read_bytes(step, dtypes) + cost.cache_write_bytes(step, dtypes)
        return max(compute_s, moved / chosen.total_bandwidth_bytes_per_s)


@dataclass(frozen=True)
class DecodeRates(Kind):
    """How much decoded tokens a second differ between models, fastest over slowest.

    At one batch size, and at one context, on one device.
    """

    unit: ClassVar[str] = "x"
    models: tuple[Subject, ...]
    context_tokens: int
    batch_size: int
    hardware: str

    def compute(self) -> Ours:
        rates, texts = [], []
        for subject in self.models:
            times = model_times(subject, self.hardware, 1, False)
            assert times is not None
            step_s = times.estimate(DECODE, self.batch_size, self.context_tokens).latency_s
            rates.append(self.batch_size / step_s)
            cache = subject.costs.cache_bytes(self.context_tokens, Dtypes())
            texts.append(
                f"{subject.title}: {subject.costs.parameters.total / 1e9:.3f}B parameters,"
                f" {cache / 1e6:.1f} MB a sequence, {rates[-1]:,.0f} tokens/s"
            )
        spread = max(rates) / min(rates)
        return Ours(spread, f"{'; '.join(texts)}: {spread:.3f}x", ROOFLINE)


@dataclass(frozen=True)
class PromptRate(Kind):
    """The most prompt tokens a second and device: FLOPs of a prefill at peak."""

    unit: ClassVar[str] = "tokens/s"
    model: Subject
    context_tokens: int
    hardware: str
    dtype: str = "bf16"

    def compute(self) -> Ours:
        flops = self.model.costs.forward_flops(prefill(self.context_tokens), SERVED)
        peak = device(self.hardware).total_flops_per_s(self.dtype)
        rate = self.context_tokens * peak / flops
        text = (
            f"{peak / 1e12:.0f} TFLOP/s ({self.dtype}) / {flops / self.context_tokens / 1e9:.1f}"
            f" GFLOP a token = {rate:,.0f} tokens/s"
        )
        return Ours(rate, text, ROOFLINE)


@dataclass(frozen=True)
class DecodeRateBound(Kind):
    """The most decoded tokens a second and device whatever the batch: FLOPs of a token at peak."""

    unit: ClassVar[str] = "tokens/s"
    model: Subject
    context_tokens: int
    hardware: str
    dtype: str = "bf16"

    def compute(self) -> Ours:
        flops = self.model.costs.forward_flops(decode(self.context_tokens), SERVED)
        peak = device(self.hardware).total_flops_per_s(self.dtype)
        text = f"{peak / 1e12:.0f} TFLOP/s ({self.dtype}) / {flops / 1e9:.1f} GFLOP a token"
        return Ours(peak / flops, f"{text} = {peak / flops:,.0f} tokens/s", ROOFLINE)


@dataclass(frozen=True)
class ImpliedRate(Kind):
    """The bytes a second that a published time for one token implies, cache reads alone."""

    unit: ClassVar[str] = "TB/s"
    model: Subject
    context_tokens: int
    published_s: float

    def compute(self) -> Ours:
        moved = self.model.costs.kv_cache_bytes(self.context_tokens, Dtypes())
        rate = moved / self.published_s
        text = f"{moved / 1e9:.3f} GB of cache / {self.published_s * 1e3:g} ms"
        return Ours(rate, f"{text} = {rate / 1e12:.2f} TB/s")
