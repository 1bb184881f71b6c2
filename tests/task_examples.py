"""The examples of docs/proxy_tasks.md, printed: `python tests/task_examples.py`."""

from __future__ import annotations

from typing import Any

from hybridsim.train.tasks import IGNORED, parse_task

EXAMPLES: dict[str, dict[str, Any]] = {
    "mqar": {"vocab_size": 32, "length": 16, "num_pairs": 3},
    "forgetting_recall": {"vocab_size": 32, "length": 18, "num_pairs": 3, "num_updates": 2},
    "in_context_recall": {"vocab_size": 8, "length": 18},
    "fuzzy_recall": {"vocab_size": 9, "length": 24, "motif_tokens": 2},
    "noisy_recall": {"vocab_size": 12, "length": 18, "noise_vocab_size": 4, "noise_fraction": 0.4},
    "selective_copy": {"vocab_size": 10, "length": 16, "num_copied": 4},
    "compression": {"vocab_size": 10, "length": 12},
    "memorization": {"vocab_size": 21, "length": 10},
    "palindrome": {"vocab_size": 10, "length": 12},
    "stacks": {"vocab_size": 16, "length": 24, "num_stacks": 2},
    "pointer_chase": {
        "vocab_size": 16,
        "length": 22,
        "num_nodes": 5,
        "max_hops": 3,
        "num_queries": 4,
        "name_vocab_size": 12,
    },
    "variable_tracking": {"vocab_size": 33, "length": 26, "num_chains": 2, "num_hops": 1},
    "needle": {"vocab_size": 33, "length": 20, "num_keys": 2, "value_tokens": 2},
    "grammar": {"vocab_size": 24, "length": 30, "num_types": 3, "max_words": 2},
}


def example(kind: str) -> str:
    """Return the first training sequence of seed 0: what is read above what is scored there."""
    batch = parse_task({"kind": kind, **EXAMPLES[kind]}).sample(0, 0, 1)
    tokens = [str(token) for token in batch.tokens[0].tolist()]
    answers = ["." if a == IGNORED else str(a) for a in batch.answers[0].tolist()]
    widths = [max(len(t), len(a)) for t, a in zip(tokens, answers, strict=True)]
    rows = []
    for name, words in (("reads ", tokens), ("scored", answers)):
        rows.append(
            f"{name}  " + " ".join(w.rjust(n) for w, n in zip(words, widths, strict=True)).rstrip()
        )
    return "\n".join(rows)


if __name__ == "__main__":
    for kind, settings in EXAMPLES.items():
        given = ", ".join(f"{key}: {value}" for key, value in settings.items())
        print(f"# {kind}: {{{given}}}\n{example(kind)}\n")
