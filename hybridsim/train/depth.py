"""Layer patterns of one depth as patterns of another: ratio and relative placement are kept."""

from __future__ import annotations

from collections import Counter


def resample_layers(letters: str, depth: int) -> str:
    """Return a pattern of `depth` letters with the ratio and relative placement of `letters`.

    Three steps, in this order:

    1. How many layers a letter gets is its share of the depth, by largest remainders, and at least
       one each where the depth has room.
    2. A repeated unit stays one: a pattern that repeats a unit but for one layer in ten (at least
       one) repeats it at the new depth too, provided that gives the counts of step 1. So
       `(LLLF)*6 LLF` at 4 layers is LLLF, and LLLF at 48 is (LLLF)*12. A pattern
       with a letter that stands once is, made deeper, a unit by itself.
    3. Otherwise the letters are placed by the quantiles of where they stand: the i-th of n layers
       of a kind stands where the (i + 1/2) / n quantile of the kind's relative depths is.

    Args:
        letters: one a layer.
        depth: layers of the result.
    """
    if depth == len(letters):
        return letters
    counts = apportion(Counter(letters), depth)
    return _repeated_unit(letters, depth, counts) or _by_quantiles(letters, depth, counts)


def apportion(counts: Counter[str], total: int) -> Counter[str]:
    """Return `total` split as `counts` is, by largest remainders, one for each kind first.

    With fewer places than kinds the commonest have them.
    """
    kinds = sorted(counts, key=lambda kind: (-counts[kind], kind))[:total]
    whole = sum(counts[kind] for kind in kinds)
    shares = {kind: counts[kind] * total / whole for kind in kinds}
    found = Counter({kind: max(1, int(shares[kind])) for kind in kinds})
    while found.total() < total:
        found[max(kinds, key=lambda kind: shares[kind] - found[kind])] += 1
    while found.total() > total:
        larger = [kind for kind in kinds if found[kind] > 1]
        found[min(larger, key=lambda kind: shares[kind] - found[kind])] -= 1
    return found


def _repeated_unit(letters: str, depth: int, counts: Counter[str]) -> str | None:
    """Return the shortest repeated unit of `letters` at another depth, None where there is none."""
    if depth > len(letters):
        once = 1 in Counter(letters).values()
        sizes = [n for n in range(1, len(letters) + once) if not len(letters) % n]
        units = (letters[:size] for size in sizes)
        exact = (unit for unit in units if _tiled(unit, len(letters)) == letters)
        return next((_tiled(unit, depth) for unit in exact), None)
    for size in range(1, (len(letters) + 1) // 2 + 1):
        unit = letters[:size]
        wrong = sum(a != b for a, b in zip(letters, _tiled(unit, len(letters)), strict=True))
        found = _tiled(unit, depth)
        if wrong <= max(1, len(letters) // 10) and Counter(found) == counts:
            return found
    return None


def _tiled(unit: str, depth: int) -> str:
    return (unit * -(-depth // len(unit)))[:depth]


def _by_quantiles(letters: str, depth: int, counts: Counter[str]) -> str:
    """Return the letters in the order of the relative depths that their quantiles have."""
    placed = []
    for kind, count in counts.items():
        centres = [(i + 0.5) / len(letters) for i, letter in enumerate(letters) if letter == kind]
        placed += [(_quantile(centres, (i + 0.5) / count), kind) for i in range(count)]
    return "".join(kind for _, kind in sorted(placed))


def _quantile(centres: list[float], share: float) -> float:
    """Return a quantile of points that each hold an equal share, linear between their middles.

    Before the first middle and after the last it goes on as steeply as beside them.
    """
    at = share * len(centres) - 0.5
    if len(centres) == 1:
        return centres[0]
    below = min(max(int(at // 1), 0), len(centres) - 2)
    return centres[below] + (at - below) * (centres[below + 1] - centres[below])
