"""How fast costs alone are searched: candidates a second, and all 2^27 of Kimi Linear.

    python benchmarks/search_speed.py

On one core. The front by classes is exact by construction (search/costs.py); here every one of the
2^27 placements is also looked up and compared by brute force, and both fronts must be the same.
"""

from __future__ import annotations

import os
import platform
import random
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from hybridsim import load_spec
from hybridsim.cost.op import Deployment
from hybridsim.hardware import parse_hardware
from hybridsim.options import read_option
from hybridsim.origin import versions
from hybridsim.workload import parse_workload
from search.evaluate import Evaluator
from search.exact import CostTable
from search.objectives import find_objective
from search.pareto import Array, non_dominated
from search.settings import parse_space
from search.space import Serve, Space

OBJECTIVES = ("decode_latency", "prefill_latency", "parameters")
SCALAR, VECTOR = 20_000, 1_000_000
CHUNK = 1 << 21


def space() -> Space:
    serve = Serve(
        parse_workload(read_option("workload", "agent_128k")),
        parse_hardware(read_option("hardware", "h200")),
        Deployment(),
    )
    return Space(load_spec("kimi_linear"), parse_space(read_option("space", "placement")), serve)


def brute_force(table: CostTable, layers: int) -> Array:
    """Return the front's values over all placements of two letters, each looked up and compared."""
    values = np.array([table.values[table.class_row((layers - n, n))] for n in range(layers + 1)])
    columns = [np.ascontiguousarray(column) for column in values.T]
    front, beaten = values[:0], np.zeros(0)
    for start in range(0, 1 << layers, CHUNK):
        number_full = np.bitwise_count(np.arange(start, start + CHUNK, dtype=np.uint32))
        left = [column[number_full] for column in columns]
        for index in np.argsort(-beaten):  # who beat most so far leaves least to compare
            limits = zip(left, front[index], strict=True)
            better = np.logical_or.reduce([column < limit for column, limit in limits])
            beaten[index] += len(better) - np.count_nonzero(better)
            left = [column[better] for column in left]
        if len(left[0]):
            both = np.concatenate([front, np.unique(np.stack(left, axis=1), axis=0)])
            front = np.unique(both[non_dominated(both)], axis=0)
            beaten = np.zeros(len(front))
    return front


def main() -> None:
    start = time.process_time()
    searched = space()
    evaluator = Evaluator(searched, [find_objective(name) for name in OBJECTIVES])
    table = CostTable(evaluator)
    front = table.front()
    classes_s = time.process_time() - start

    draw = random.Random(0)
    candidates = [searched.random(draw) for _ in range(SCALAR)]
    start = time.process_time()
    for candidate in candidates:
        evaluator.costs(candidate)
    scalar_s = time.process_time() - start

    codes = np.random.default_rng(0).integers(0, 2, (VECTOR, 27), dtype=np.uint8)
    start = time.process_time()
    table.look_up(codes, ())
    vector_s = time.process_time() - start

    start = time.process_time()
    forced = brute_force(table, 27)
    forced_s = time.process_time() - start
    expected = np.unique(table.values[[table.class_row(one.counts) for one in front]], axis=0)
    assert np.array_equal(forced, expected), "the two fronts differ"

    found = versions()
    print(
        f"one core of {platform.machine()}, Python {found['python']}; {len(OBJECTIVES)} objectives"
    )
    print(f"scalar:      {SCALAR / scalar_s:12,.0f} candidates/s")
    print(f"vectorised:  {VECTOR / vector_s:12,.0f} candidates/s")
    print(f"exact front of 2^27 placements: {classes_s:.2f} s by {len(table.classes)} classes,")
    print(
        f"  {forced_s:.2f} s by looking up and comparing every one; {len(forced)} points, the same"
    )


if __name__ == "__main__":
    main()
