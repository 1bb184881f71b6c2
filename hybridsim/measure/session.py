"""What a session of measurements has in common: device, versions, the rates it reaches."""

from __future__ import annotations

import platform
import statistics
from datetime import UTC, datetime
from typing import Any

import torch

from hybridsim.errors import HybridsimError
from hybridsim.measure.store import Session
from hybridsim.measure.timing import CudaTimer, HostTimer, Subject, Timer
from hybridsim.nn.fp8 import scaled_product
from hybridsim.nn.quantize import quantize_rows
from hybridsim.options import option_names
from hybridsim.origin import git_revision, versions

TORCH_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device_name(title: str) -> str:
    """Return the name in conf/hardware of a device that torch calls `title`, else its own words.

    "NVIDIA H100 80GB HBM3" is h100, "NVIDIA A100-SXM4-80GB" a100, and "NVIDIA GeForce RTX 4090"
    rtx4090.
    """
    joined = "".join(c for c in title.lower() if c.isalnum())
    words = title.lower().replace("-", " ").split()
    for name in sorted(option_names("hardware"), key=len, reverse=True):
        if name in words or (name.startswith("rtx") and name in joined):
            return name
    return joined or "unknown"


def local_device(kind: str) -> tuple[str, str]:
    """Return name and title of the device of this machine.

    Args:
        kind: "cuda" or "cpu".

    Raises:
        HybridsimError: there is none.
    """
    if kind == "cpu":
        return "cpu", f"{platform.machine()}, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        raise HybridsimError(f"device={kind}: torch sees no CUDA device here; device=cpu is one")
    try:
        title = torch.cuda.get_device_name()
        torch.zeros(1, device="cuda").add_(1)
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        raise HybridsimError(f"device={kind}: the CUDA device does not work ({text})") from None
    return device_name(title), title


def make_timer(kind: str) -> Timer:
    """Return the timer of a kind of device."""
    return CudaTimer() if kind == "cuda" else HostTimer()


def begin_session(timer: Timer, revision: str | None = None) -> Session:
    """Return a new session with the device's measured rates.

    Args:
        timer: of the device.
        revision: git revision, where the running copy is no checkout.
    """
    kind = timer.device.type
    device, title = local_device(kind)
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = versions(("torch", "triton", "fla-core"))
    found |= {"revision": revision or git_revision()}
    if kind == "cuda":
        found |= {"cuda": torch.version.cuda, "driver": _driver()}
    rates = measure_ceilings(timer)
    memory = torch.cuda.get_device_properties(timer.device).total_memory if kind == "cuda" else 0
    return Session(
        id=f"{device}-{started}",
        device=device,
        title=title,
        started=started,
        versions=found,
        timer_s=timer.overhead_s,
        memory_bytes=memory,
        **rates,
    )


def _driver() -> str | None:
    """Return the driver's version where its interface gives it."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # absent or not answering: the version is for the record only
        return None


def measure_ceilings(timer: Timer, product_size: int = 0, copy_bytes: int = 0) -> dict[str, Any]:
    """Return `flops_per_s` by format and `bytes_per_s`, from medians over large products and moves.

    The bandwidth is the larger of a copy's rate, read and written bytes together, and a read's: a
    memory bus that turns between reading and writing is slower than one that only reads.

    Args:
        timer: of the device.
        product_size: n of an n x n x n product; 0 takes 8192 on a GPU, 512 on a CPU.
        copy_bytes: of one buffer; 0 takes 2 GiB on a GPU, 64 MiB on a CPU.
    """
    gpu = timer.device.type == "cuda"
    size = product_size or (8192 if gpu else 512)
    copied = copy_bytes or (1 << 31 if gpu else 1 << 26)
    formats = ("bf16", "fp16") if gpu else ("bf16", "fp32")
    runs = 20 if gpu else 5
    flops = {}
    for name in formats:
        product = _Product(timer.device, size, TORCH_DTYPES[name])
        flops[name] = 2 * size**3 / _median_s(product, timer, runs)
    if gpu and torch.cuda.get_device_capability(timer.device) >= (9, 0):
        flops["fp8"] = 2 * size**3 / _median_s(_Fp8Product(timer.device, size), timer, runs)
    copy_s, read_s = (_median_s(move(timer.device, copied), timer, runs) for move in (_Copy, _Read))
    return {"flops_per_s": flops, "bytes_per_s": max(2 * copied / copy_s, copied / read_s)}


def _median_s(subject: Subject, timer: Timer, runs: int) -> float:
    timer.times_s(subject, [0] * runs)  # clocks rise, libraries load
    return statistics.median(timer.times_s(subject, [0] * runs))


class _Product(Subject):
    """One n x n x n product of random matrices."""

    def __init__(self, device: torch.device, size: int, dtype: torch.dtype) -> None:
        self.a, self.b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        self.out = torch.empty(size, size, device=device, dtype=dtype)

    def prepare(self, index: int) -> None:
        pass

    def run(self) -> None:
        torch.mm(self.a, self.b, out=self.out)


class _Fp8Product(Subject):
    """One n x n x n product of rounded matrices, a scale a row of each."""

    def __init__(self, device: torch.device, size: int) -> None:
        wide = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
        self.a, self.b = (quantize_rows(x) for x in wide)

    def prepare(self, index: int) -> None:
        pass

    def run(self) -> None:
        scaled_product(*self.a, *self.b, torch.bfloat16)


class _Copy(Subject):
    """One copy from device memory to device memory."""

    def __init__(self, device: torch.device, size: int) -> None:
        self.source = torch.ones(size // 4, dtype=torch.float32, device=device)
        self.target = torch.empty_like(self.source)

    def prepare(self, index: int) -> None:
        pass

    def run(self) -> None:
        self.target.copy_(self.source)


class _Read(Subject):
    """One sum over device memory."""

    def __init__(self, device: torch.device, size: int) -> None:
        self.source = torch.ones(size // 4, dtype=torch.float32, device=device)
        self.total = torch.zeros((), device=device)

    def prepare(self, index: int) -> None:
        pass

    def run(self) -> None:
        torch.sum(self.source, dim=0, out=self.total)
