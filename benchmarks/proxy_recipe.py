"""Which training recipe lets the quick proxy tell patterns apart: a sweep of recipes.

    python benchmarks/proxy_recipe.py --device cuda

Trains all-full, 3:1, all-linear and window patterns, three seeds each, with every optimizer, rate,
share of it for projections out, and budget; prints intervals, and whether neighbours overlap.
Writes proxy_recipe.json into outputs/benchmarks/.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from typing import Any

from hybridsim.train.arena import arena_spec
from hybridsim.train.devices import device_title
from hybridsim.train.proxy import load_proxy
from hybridsim.train.run import ProxyRun

PATTERNS = ("FFFF", "KKKF", "KKKK", "WWWW")
OPTIMIZERS = ("adamw", "muon")
RATES = (3e-3, 1e-2, 3e-2)
SHARES = (1.0, 0.1, 0.03, 0.01)  # of the rate, for the projections out of sublayers
STEPS = (220, 440, 880)


def scores(optimizer: str, rate: float, share: float, steps: int, device: str) -> dict[str, Any]:
    """Return the recall of each pattern under one recipe."""
    overrides = [f"training.optimizer={optimizer}", f"training.learning_rate={rate}",
                 f"training.steps={steps}", f"training.output_rate_share={share}"]  # fmt: skip
    proxy = load_proxy("quick", overrides).only(("recall",))
    run = ProxyRun(proxy, device=device, folder=Path("outputs/benchmarks/recipes"))
    found = run.train([arena_spec(letters) for letters in PATTERNS])
    run.forget()
    result: dict[str, Any] = {"optimizer": optimizer, "rate": rate, "share": share, "steps": steps}
    ranges = []
    for letters, trained in zip(PATTERNS, found, strict=True):
        score = trained.profile.scores["recall"]
        result[letters] = None if score is None else score.document()
        ranges.append((0.0, 1.0) if score is None else (score.low, score.high))
    gaps = [upper[0] > lower[1] for upper, lower in itertools.pairwise(ranges)]
    return {**result, "separated": gaps, "wall_s": sum(run.ledger.wall_s.values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    path = Path("outputs/benchmarks/proxy_recipe.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for recipe in itertools.product(OPTIMIZERS, RATES, SHARES, STEPS):
        row = scores(*recipe, device)
        rows.append(row)
        shown = {k: row[k] and [round(row[k][end], 3) for end in ("low", "high")] for k in PATTERNS}
        print(*recipe, shown, row["separated"], f"{row['wall_s']:.0f} s", flush=True)
        document = {"device": device_title(device), "recipes": rows}
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
