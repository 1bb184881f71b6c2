"""Which experts a batch of tokens touches: expected numbers, for uniform and for skewed routing."""

from __future__ import annotations

import math
from functools import lru_cache

from hybridsim.errors import bad_value


@lru_cache(maxsize=65536)
def expected_experts(num_experts: int, per_token: int, tokens: int, skew: float = 0.0) -> float:
    """Return the expected number of distinct experts that `tokens` tokens choose.

    Each token takes `per_token` different experts, independently of other tokens: an expert with
    inclusion probability p is missed by all of them with probability (1 - p)^tokens.

    Args:
        num_experts: E.
        per_token: k; at most E.
        tokens: tokens routed together, over all sequences of the batch.
        skew: exponent s of a Zipf popularity: expert i is preferred in proportion to i^-s; 0 is
            uniform routing, where the result is E (1 - (1 - k/E)^tokens) exactly.
    """
    if skew == 0:
        return num_experts * (1 - (1 - per_token / num_experts) ** tokens)
    probabilities = inclusion_probabilities(num_experts, per_token, skew)
    return sum(1 - (1 - p) ** tokens for p in probabilities)


@lru_cache(maxsize=256)
def inclusion_probabilities(num_experts: int, per_token: int, skew: float) -> tuple[float, ...]:
    """Return the probability that one token takes expert i, for Zipf popularities; they sum to k.

    Taking the k largest of log w_i + Gumbel noise (a softmax router with noisy logits) includes
    expert i with probability close to 1 - exp(-c w_i), c such that the sum is k (the limit of
    successive sampling: Rosen, Annals of Mathematical Statistics 43 (1972) 373-397).

    Raises:
        SpecError: `skew` is negative.
    """
    if skew < 0:
        raise bad_value("routing_skew", skew, "must be at least 0 (0 is uniform routing)")
    if per_token == num_experts:
        return (1.0,) * num_experts
    weights = [(i + 1) ** -skew for i in range(num_experts)]
    low, high = 0.0, 1.0
    while _included(weights, high) < per_token:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _included(weights, middle) < per_token else (low, middle)
    return tuple(1 - math.exp(-high * w) for w in weights)


def _included(weights: list[float], scale: float) -> float:
    return sum(1 - math.exp(-scale * w) for w in weights)
