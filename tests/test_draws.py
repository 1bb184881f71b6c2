"""Random numbers by counter: the published hash, uniform, independent, exact samples."""

from __future__ import annotations

import math
from collections import Counter
from itertools import permutations

import pytest
import torch

from hybridsim.train.tasks.draws import _WEYL, Draws, mix

COUNT = 40000


def draws(*path: int | str, count: int = COUNT, device: str = "cpu") -> Draws:
    return Draws(path or ("test",), 0, count, device)


def chi_square_p(counts: list[int], expected: list[float]) -> float:
    """Return the probability of a worse fit, by Wilson and Hilferty's normal approximation."""
    assert len(counts) == len(expected)
    statistic = sum((c - e) ** 2 / e for c, e in zip(counts, expected, strict=True))
    freedom = len(counts) - 1
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2))


def test_the_hash_is_splitmix64() -> None:
    """The first outputs for seed 1234567 of the authors' prng.di.unimi.it/splitmix64.c."""
    states = 1234567 + _WEYL * torch.arange(1, 6)
    assert [word % 2**64 for word in mix(states).tolist()] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@pytest.mark.parametrize("high", [2, 3, 10, 257])
def test_integers_are_uniform(high: int) -> None:
    counts = torch.bincount(draws().integers(high, 4).flatten(), minlength=high).tolist()
    assert len(counts) == high
    assert 1e-4 < chi_square_p(counts, [4 * COUNT / high] * high) < 1 - 1e-4


def test_every_bit_of_a_word_is_a_fair_coin() -> None:
    words = draws().words(2).flatten()
    for bit in range(64):
        ones = int(((words >> bit) & 1).sum())
        assert abs(ones - COUNT) < 5 * math.sqrt(2 * COUNT / 4)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("mqar", 0, "train"), ("mqar", 1, "train")),
        (("mqar", 0, "train"), ("mqar", 0, "held_out")),
        (("mqar", 0, "train"), ("stacks", 0, "train")),
        (("a", 1, 2), ("a", 12, "")),
    ],
)
def test_numbers_of_two_paths_are_independent(
    one: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    joint = draws(*one).integers(8, 1) * 8 + draws(*other).integers(8, 1)
    counts = torch.bincount(joint.flatten(), minlength=64).tolist()
    assert 1e-4 < chi_square_p(counts, [COUNT / 64] * 64) < 1 - 1e-4


def test_calls_places_and_rows_are_independent() -> None:
    source = draws()
    first, second = source.integers(8, 2), source.integers(8, 2)
    pairs = {
        "calls": (first[:, 0], second[:, 0]),
        "places": (first[:, 0], first[:, 1]),
        "rows": (first[:-1, 0], first[1:, 0]),
    }
    for name, (a, b) in pairs.items():
        counts = torch.bincount(a * 8 + b, minlength=64).tolist()
        assert 1e-4 < chi_square_p(counts, [len(a) / 64] * 64) < 1 - 1e-4, name


def test_a_bit_of_the_row_changes_half_of_the_bits() -> None:
    words = draws().words(1)[:, 0]
    for shift in (1, 2, 64, 4096):
        changed = words[:-shift] ^ words[shift:]
        ones = sum(int(((changed >> bit) & 1).sum()) for bit in range(64))
        assert ones / len(changed) == pytest.approx(32, abs=5 * 4 / math.sqrt(len(changed)))


def test_every_order_is_equally_likely() -> None:
    counts = Counter(map(tuple, draws().permutation(4).tolist()))
    assert set(counts) == set(permutations(range(4)))
    assert 1e-4 < chi_square_p(list(counts.values()), [COUNT / 24] * 24) < 1 - 1e-4


@pytest.mark.parametrize(("count", "high"), [(2, 5), (3, 5), (1, 6)])
def test_every_sample_without_replacement_is_equally_likely(count: int, high: int) -> None:
    counts = Counter(map(tuple, draws().distinct(count, high).tolist()))
    every = list(permutations(range(high), count))
    assert set(counts) == set(every)
    expected = [COUNT / len(every)] * len(every)
    assert 1e-4 < chi_square_p([counts[one] for one in every], expected) < 1 - 1e-4


@pytest.mark.parametrize("high", [1, 2, 1000, 65536])
def test_samples_of_any_size_have_no_number_twice(high: int) -> None:
    sample = draws(count=3).permutation(high).sort(dim=1).values
    assert torch.equal(sample, torch.arange(high).expand(3, high))


def test_weighted_samples_are_drawn_one_after_another() -> None:
    """P(a, b) = w_a / W * w_b / (W - w_a), the law of numpy.random.choice without replacement."""
    weights = [5.0, 3.0, 1.0, 0.5]
    total = sum(weights)
    counts = Counter(map(tuple, draws().weighted_distinct(2, weights).tolist()))
    every = list(permutations(range(4), 2))
    law = [weights[a] / total * weights[b] / (total - weights[a]) for a, b in every]
    expected = [COUNT * p for p in law]
    assert 1e-4 < chi_square_p([counts[one] for one in every], expected) < 1 - 1e-4


def test_choices_and_coins_have_their_probabilities() -> None:
    weights = [1 / rank for rank in range(1, 20)]
    counts = torch.bincount(draws().choices(weights, 3).flatten(), minlength=19).tolist()
    expected = [3 * COUNT * w / sum(weights) for w in weights]
    assert 1e-4 < chi_square_p(counts, expected) < 1 - 1e-4
    heads = int(draws().coins(0.2, 3).sum())
    assert abs(heads - 0.2 * 3 * COUNT) < 5 * math.sqrt(0.16 * 3 * COUNT)
    assert not draws().coins(0.0, 3).any()
    assert draws().coins(1.0, 3).all()


def test_exponentials_are_exponential() -> None:
    times = draws().exponentials(1)[:, 0]
    assert times.dtype == torch.float64
    # Equally likely classes between the quantiles -ln(1 - k/50).
    bounds = torch.tensor([-math.log1p(-k / 50) for k in range(1, 50)], dtype=torch.float64)
    counts = torch.bincount(torch.bucketize(times, bounds), minlength=50).tolist()
    assert 1e-4 < chi_square_p(counts, [COUNT / 50] * 50) < 1 - 1e-4


def test_the_logarithm_is_one() -> None:
    source = draws("log")
    times, words = source.exponentials(1), draws("log").words(1)
    uniform = (((words >> 12) & ((1 << 52) - 1)).double() + 0.5) * 2.0**-52
    torch.testing.assert_close(times, -uniform.log(), rtol=1e-13, atol=1e-15)


@pytest.mark.gpu
def test_a_gpu_draws_the_same() -> None:
    cpu, gpu = draws(count=5000), draws(count=5000, device="cuda")
    assert torch.equal(cpu.words(7), gpu.words(7).cpu())
    assert torch.equal(cpu.integers(1000, 7), gpu.integers(1000, 7).cpu())
    assert torch.equal(cpu.distinct(20, 300), gpu.distinct(20, 300).cpu())
    assert torch.equal(cpu.exponentials(50), gpu.exponentials(50).cpu())
    weights = [g ** (0.01 - 1) for g in range(1, 200)]
    assert torch.equal(cpu.weighted_distinct(32, weights), gpu.weighted_distinct(32, weights).cpu())
    assert torch.equal(cpu.choices(weights, 9), gpu.choices(weights, 9).cpu())
