"""Solvers of the proxy tasks, written from their descriptions: plain lists, no code of the tasks.

Each gets a task's settings, what has been read up to and with the position, and the position; it
returns the token to say there. None where it does not know.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

Oracle = Callable[[Any, list[int], int], int | None]


def mqar(task: Any, read: list[int], at: int) -> int | None:
    half = task.vocab_size // 2
    context = read[: 2 * task.num_pairs]
    pairs = dict(zip(context[::2], context[1::2], strict=False))
    return pairs.get(read[-1]) if pairs.get(read[-1], 0) >= half else None


def forgetting_recall(task: Any, read: list[int], at: int) -> int | None:
    context = read[: 2 * (task.num_pairs + task.num_updates)]
    values: dict[int, int] = {}
    for key, value in zip(context[::2], context[1::2], strict=False):
        values[key] = value
    return values.get(read[-1])


def in_context_recall(task: Any, read: list[int], at: int) -> int | None:
    before = read[: len(read) - len(read) % 2]
    return dict(zip(before[::2], before[1::2], strict=True)).get(read[-1])


def fuzzy_recall(task: Any, read: list[int], at: int) -> int | None:
    """Cut what was read into keys and values: the two have tokens of their own."""
    symbols = (task.vocab_size - 1) // 2
    motifs: list[tuple[bool, list[int]]] = []
    for token in read:
        is_value = token >= symbols
        if not motifs or motifs[-1][0] != is_value:
            motifs.append((is_value, []))
        motifs[-1][1].append(token)
    said = motifs.pop()[1] if motifs[-1][0] else []
    key = motifs.pop()[1] if motifs else []
    known: dict[tuple[int, ...], list[int]] = {}
    for (_, one), (_, value) in zip(motifs[::2], motifs[1::2], strict=False):
        known.setdefault(tuple(one), value)
    value = known.get(tuple(key), [])
    return value[len(said)] if len(said) < len(value) else None


def selective_copy(task: Any, read: list[int], at: int) -> int | None:
    if task.vocab_size - 1 not in read:
        return None
    mark = read.index(task.vocab_size - 1)
    symbols = [token for token in read[:mark] if token]
    answer = len(read) - mark - 2
    return symbols[answer] if answer < len(symbols) else None


def compression(task: Any, read: list[int], at: int) -> int | None:
    """What a state that holds all that was read knows."""
    return read[at - task.length] if task.length - at <= len(read) else None


def palindrome(task: Any, read: list[int], at: int) -> int | None:
    if task.vocab_size - 1 not in read:
        return None
    mark = read.index(task.vocab_size - 1)
    said = len(read) - mark - 1
    return read[mark - 1 - said] if said < mark else None


def stacks(task: Any, read: list[int], at: int) -> int | None:
    piles: dict[int, list[int]] = {}
    for verb, stack, element in zip(read[:-2:3], read[1:-1:3], read[2::3], strict=False):
        if verb == 1:
            piles.setdefault(stack, []).append(element)
        elif piles.get(stack):
            piles[stack].pop()
    pile = piles.get(read[-1], [])
    return pile[-1] if pile else None


def pointer_chase(task: Any, read: list[int], at: int) -> int | None:
    w = task.name_tokens
    names = [tuple(read[i : i + w]) for i in range(0, 2 * task.num_nodes * w, w)]
    following = dict(zip(names[::2], names[1::2], strict=True))
    asked = read[2 * task.num_nodes * w :]
    query = asked[len(asked) - 1 - (len(asked) - 1) % (2 * w + 1) :]
    if not query or query[0] <= task.name_vocab_size:
        return None
    node = tuple(query[1 : 1 + w])
    for _ in range(query[0] - task.name_vocab_size):
        if node not in following:
            return None
        node = following[node]
    return node[len(query) - 1 - w]


def variable_tracking(task: Any, read: list[int], at: int) -> int | None:
    values: dict[int, int] = {}
    for i, token in enumerate(read[:-2]):
        if token == 1:
            values[read[i + 1]] = values.get(read[i + 2], read[i + 2])
    return values.get(read[-1])


def needle(task: Any, read: list[int], at: int) -> int | None:
    if 2 not in read:
        return None
    ask = len(read) - 1 - read[::-1].index(2)
    key, said = read[ask + 1], len(read) - ask - 2
    digits: list[int] = []
    for i in range(ask):
        if read[i] == 1 and read[i + 1] == key:
            digits += read[i + 2 : i + 2 + task.value_tokens]
    return digits[said] if said < len(digits) else None


def grammar(task: Any, read: list[int], at: int) -> int | None:
    """Count brackets; endings of words are known by heart from what is trained on."""
    innermost = _innermost(read)
    if read[-1] == 2:
        return innermost
    ending = _endings(task).get(read[-1])
    return innermost if ending == AS_THE_PHRASE else ending


AS_THE_PHRASE = -1


def _innermost(read: list[int]) -> int | None:
    """Return the type of the phrase that is open, its own closing bracket left out."""
    opened: list[int] = []
    for verb, kind in pairwise(read):
        if verb == 1:
            opened.append(kind)
        elif verb == 2 and opened:
            opened.pop()
    return opened[-1] if opened else None


@cache
def _endings(task: Any) -> dict[int, int]:
    """Return each word's ending, AS_THE_PHRASE where it is always the phrase's type."""
    seen: dict[int, set[tuple[int, int | None]]] = {}
    for row in task.sample(5, 0, 256, split="train").tokens.tolist():
        for place in range(0, len(row) - 1, 2):
            if row[place] > 2:
                found = (row[place + 1], _innermost(row[:place]))
                seen.setdefault(row[place], set()).add(found)
    return {
        word: AS_THE_PHRASE if all(e == t for e, t in found) else next(iter(found))[0]
        for word, found in seen.items()
    }


def text(task: Any, read: list[int], at: int) -> int | None:
    """Whoever knows the text by heart needs some bytes to find the place."""
    known, recent = Path(task.path).read_bytes(), bytes(read[-16:])
    found = known.find(recent)
    if len(recent) < 16 or found < 0 or found + 16 >= len(known):
        return None
    return known[found + 16]


def memorization(task: Any, read: list[int], at: int) -> int | None:
    return _facts(task).get(read[-2]) if len(read) > 1 else None


def _facts(task: Any) -> dict[int, int]:
    """Facts learnt from what is trained on."""
    batch = task.sample(5, 0, 256, split="train")
    used = task.length - task.length % 2
    keys, values = batch.tokens[:, :used:2], batch.targets[:, 1:used:2]
    return dict(zip(keys.flatten().tolist(), values.flatten().tolist(), strict=True))


ORACLES: dict[str, Oracle] = {
    "mqar": mqar,
    "forgetting_recall": forgetting_recall,
    "in_context_recall": in_context_recall,
    "noisy_recall": in_context_recall,
    "fuzzy_recall": fuzzy_recall,
    "selective_copy": selective_copy,
    "compression": compression,
    "memorization": memorization,
    "palindrome": palindrome,
    "stacks": stacks,
    "pointer_chase": pointer_chase,
    "variable_tracking": variable_tracking,
    "needle": needle,
    "grammar": grammar,
    "text": text,
}
