"""Peak rates of this CPU, measured on the spot in about a second."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

PRODUCT_SIZE = 1024  # n of the timed n x n matrix product
COPY_BYTES = 1 << 28
REPEATS = 5


def measure_cpu(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of conf/hardware/cpu.yaml with what is null in them measured."""
    import torch

    rates = dict(fields.get("peak_flops") or {})
    for dtype, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        rates.setdefault(dtype, _product_flops_per_s(kind))
    measured = {
        "title": f"{fields['title']} ({platform.machine()}, {torch.get_num_threads()} threads)",
        "peak_flops": rates,
        "memory_bytes": float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "bandwidth_bytes_per_s": _copy_bytes_per_s(),
    }
    return fields | {
        k: v for k, v in measured.items() if fields.get(k) is None or k in ("title", "peak_flops")
    }


def _product_flops_per_s(dtype: Any) -> float:
    import torch

    a, b = (torch.randn(PRODUCT_SIZE, PRODUCT_SIZE).to(dtype) for _ in range(2))
    return 2 * PRODUCT_SIZE**3 / _median_s(lambda: a @ b)


def _copy_bytes_per_s() -> float:
    import torch

    source = torch.ones(COPY_BYTES, dtype=torch.uint8)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / _median_s(lambda: target.copy_(source))


def _median_s(work: Callable[[], object]) -> float:
    work()  # first use of code and pages
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)
