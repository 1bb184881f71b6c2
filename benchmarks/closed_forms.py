"""How fast closed forms are: specs a second when only the pattern changes, and when all does.

    python benchmarks/closed_forms.py

Prints ratios measured in one run on one core, and the machine and versions they hold for.
"""

from __future__ import annotations

import platform
import random
import statistics
import time
from collections.abc import Callable

from hybridsim import load_spec
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.cost.patterns import PatternCosts
from hybridsim.cost.roofline import step_time
from hybridsim.graph import build_graph
from hybridsim.hardware import parse_hardware
from hybridsim.options import read_option
from hybridsim.origin import versions
from hybridsim.steps import decode, prefill

PATTERNS = 20_000
WHOLE_SPECS = 200
REPEATS = 5
CONTEXT, BATCH = 131_072, 8


def rate(count: int, work: Callable[[], None]) -> float:
    """Return how often a second the work's unit was done: the median of a few runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return count / statistics.median(times)


def main() -> None:
    spec, deployment = load_spec("kimi_linear"), Deployment()
    device = parse_hardware(read_option("hardware", "h200"))
    draw = random.Random(0)
    patterns = ["".join(draw.choice("LF") for _ in range(27)) for _ in range(PATTERNS)]

    def fast() -> None:
        costs = PatternCosts(
            spec, context_tokens=CONTEXT, batch_size=BATCH, deployment=deployment, hardware=device
        )
        for pattern in patterns:
            costs.evaluate(pattern)

    def whole() -> None:
        for pattern in patterns[:WHOLE_SPECS]:
            costs = ModelCosts.of(build_graph(spec.with_patterns(layer_pattern=pattern)))
            for step in (prefill(CONTEXT), decode(CONTEXT)):
                step_time(costs.ops, step, BATCH, deployment, device)

    quick, slow = rate(PATTERNS, fast), rate(WHOLE_SPECS, whole)
    found = versions()
    print(f"one core of {platform.machine()}, Python {found['python']}")
    print(f"pattern changes (11 figures each): {quick:12,.0f} specs/s")
    print(f"spec, graph and sums made anew:    {slow:12,.0f} specs/s")
    print(f"ratio:                             {quick / slow:12.1f}")


if __name__ == "__main__":
    main()
