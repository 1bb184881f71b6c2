"""Expected experts touched, against drawing them."""

from __future__ import annotations

import pytest
import torch

from hybridsim.errors import SpecError
from hybridsim.ffn import ffn_cost, ffn_settings_class
from hybridsim.routing import expected_experts, inclusion_probabilities

E, K = 64, 6


def drawn(tokens: int, skew: float, trials: int = 400) -> float:
    """Return the mean number of experts touched when every token takes its k best noisy scores."""
    log_weights = -skew * torch.arange(1, E + 1).log()
    touched = 0
    for _ in range(trials):
        noise = -torch.log(-torch.log(torch.rand(tokens, E)))
        chosen = (log_weights + noise).topk(K, dim=-1).indices
        touched += chosen.unique().numel()
    return touched / trials


@pytest.mark.parametrize("tokens", [1, 4, 16, 64])
@pytest.mark.parametrize("skew", [0.0, 0.5, 1.0])
def test_expected_experts_are_those_drawn(tokens: int, skew: float) -> None:
    torch.manual_seed(0)
    assert expected_experts(E, K, tokens, skew) == pytest.approx(drawn(tokens, skew), rel=0.04)


def test_uniform_routing_is_exact() -> None:
    assert expected_experts(256, 8, 1) == pytest.approx(8)
    assert expected_experts(256, 8, 32) == pytest.approx(256 * (1 - (1 - 8 / 256) ** 32))


def test_skew_touches_fewer_experts() -> None:
    touched = [expected_experts(256, 8, 32, skew) for skew in (0.0, 0.5, 1.0, 2.0)]
    assert touched == sorted(touched, reverse=True)
    assert sum(inclusion_probabilities(256, 8, 1.3)) == pytest.approx(8)
    with pytest.raises(SpecError, match="routing_skew=-1"):
        inclusion_probabilities(8, 2, -1.0)


def test_moe_bytes_follow_the_experts_touched() -> None:
    settings = ffn_settings_class("moe")(num_experts=E, num_experts_per_tok=K, intermediate_size=32)
    cost = ffn_cost(settings, 16)
    one = 3 * 16 * 32
    assert cost.expert_parameters == one
    assert cost.touched_parameters(1, 0.0) == pytest.approx(16 * E + K * one)
    assert cost.touched_parameters(10**6, 0.0) == pytest.approx(cost.parameters)
