"""Settings of every proxy task that its tests run over."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

TASK_CASES: dict[str, list[dict[str, Any]]] = {
    "mqar": [
        {},
        {"num_pairs": 8, "num_passes": 2, "power_a": 1.0, "random_non_queries": True},
        {"vocab_size": 64, "length": 34, "num_pairs": 8},
    ],
    "forgetting_recall": [{}, {"num_pairs": 9, "num_updates": 3, "vocab_size": 65, "length": 61}],
    "in_context_recall": [{}, {"vocab_size": 32, "length": 65}],
    "noisy_recall": [{}, {"noise_fraction": 0.8, "noise_vocab_size": 3, "vocab_size": 20}],
    "fuzzy_recall": [{}, {"motif_tokens": 1, "length": 64}, {"motif_tokens": 4, "vocab_size": 11}],
    "selective_copy": [{}, {"num_copied": 30, "length": 61}],
    "compression": [{}],
    "memorization": [{}, {"vocab_size": 21, "length": 33, "facts_seed": 3}],
    "palindrome": [{}, {"length": 31, "vocab_size": 12}],
    "stacks": [{}, {"num_stacks": 3, "vocab_size": 16, "length": 100}],
    "pointer_chase": [
        {},
        {"name_tokens": 3, "name_vocab_size": 6, "length": 160, "max_hops": 8, "vocab_size": 15},
        {"min_hops": 5, "max_hops": 5, "num_nodes": 12, "length": 70},
    ],
    "variable_tracking": [{}, {"num_chains": 2, "num_hops": 5, "length": 60}],
    "needle": [
        {},
        {"num_keys": 6, "num_values": 2, "num_queries": 3, "value_tokens": 2},
        {"num_keys": 9, "value_tokens": 1, "length": 64},
    ],
    "grammar": [{}, {"num_types": 5, "max_words": 6, "vocab_size": 40, "language_seed": 2}],
    "text": [{}, {"length": 100, "held_out_fraction": 0.3}],
}

ALL_TASK_CASES = [
    (f"{kind}{i or ''}", kind, given)
    for kind, cases in TASK_CASES.items()
    for i, given in enumerate(cases)
]


def write_text(path: Path) -> Path:
    """Write words that are never the same: 16 bytes of them occur only once."""
    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(8000)]
    path.write_text(" ".join(words))
    return path
