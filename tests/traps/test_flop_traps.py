"""Counting FLOPs: what went wrong elsewhere, computed beside what is right.

Sources of the peers' figures: tests/facts/peers.json; of the claims: tests/facts/claims.json.
"""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from shipped import costs
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from hybridsim import load_spec, profile
from hybridsim.conventions import FULL_SQUARE, SERVED, FlopConventions
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import op_cost
from hybridsim.counters.fvcore_count import count_fvcore, count_module
from hybridsim.counters.pieces import model_pieces
from hybridsim.errors import UncountedOperatorError
from hybridsim.graph import FFN, build_graph
from hybridsim.mixers import mixer_cost, settings_class
from hybridsim.steps import decode, prefill

MILLION = 1 << 20
CAUSAL = FlopConventions()


def stock_fvcore(module: nn.Module, *inputs: Tensor) -> int:
    """Return what fvcore counts with its own rules."""
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    return int(FlopCountAnalysis(module, inputs).total())


def routed_flops(name: str, tokens: int) -> int:
    """Return the FLOPs of the routed experts alone."""
    total = 0
    for op, layers in costs(name).ops.items():
        if op.kind == FFN and op.settings.kind == "moe":
            met = op.settings.num_experts_per_tok * op_cost(op).cost.expert_parameters
            total += layers * tokens * 2 * met
    return total


@pytest.mark.parametrize("name", ["deepseek_v3", "kimi_linear", "qwen3_next"])
def test_grouped_experts_are_not_zero_flops(name: str, peers: dict[str, Any]) -> None:
    ours = costs(name).forward_flops(prefill(4096), FULL_SQUARE)
    lost = peers["grouped_products_count_as_zero"]["change"][name]
    assert -routed_flops(name, 4096) / ours == pytest.approx(lost, abs=6e-4)
    # torch's counter on the same layers, as it comes: either it has learnt grouped products by now,
    # or it is short of exactly the experts.
    stock = 0
    for piece in model_pieces(build_graph(load_spec(name)), prefill(4096), 1, FULL_SQUARE):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            piece.module(piece.input)
        stock += piece.times * counter.get_total_flops()
    assert stock in (ours, ours - routed_flops(name, 4096))


def test_attention_on_a_cpu_is_not_zero_flops() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return scaled_dot_product_attention(x, x, x, is_causal=True)

    x = torch.zeros(1, 2, 8, 16)
    with FlopCounterMode(display=False) as counter:
        Attention()(x)
    assert (counter.get_total_flops(), stock_fvcore(Attention(), x)) == (0, 0)
    settings = settings_class("attention")(num_heads=2, num_kv_heads=2, head_dim=16)
    ours = mixer_cost(settings, 32).core_flops(prefill(8), FULL_SQUARE)
    assert ours == 2 * 2 * (2 * 8 * 8 * 16)  # score and value, a multiply-add is 2


def test_macs_are_not_flops() -> None:
    layer, x = nn.Linear(8, 16, bias=False), torch.zeros(4, 8)
    multiply_adds = stock_fvcore(layer, x)  # what fvcore calls FLOPs
    ours = sum(count_module(layer, (x,), CAUSAL).values())
    assert (multiply_adds, ours) == (4 * 8 * 16, 2 * 4 * 8 * 16)
    assert CAUSAL.describe()["multiply_add_flops"] == 2


def test_an_unknown_kernel_is_an_error_not_a_zero() -> None:
    library = torch.library.Library("trap", "FRAGMENT")
    library.define("kernel(Tensor x, Tensor y) -> Tensor")
    library.impl("kernel", torch.mm, "CompositeExplicitAutograd")

    class Kernel(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.trap.kernel(x, x)

    x = torch.zeros(8, 8)
    assert stock_fvcore(Kernel(), x) == 0
    with pytest.raises(UncountedOperatorError, match=r"operators=trap::kernel"):
        count_module(Kernel(), (x,), CAUSAL)


def test_short_convolutions_do_not_stop_the_counter() -> None:
    # fvcore cannot trace torch's convolution on the meta device, and with it no Qwen3-Next.
    with torch.device("meta"):
        conv, x = nn.Conv1d(8, 8, 4, groups=8, padding=3), torch.empty(1, 8, 16)
    with pytest.raises(TypeError, match="cond must be a bool"):
        stock_fvcore(conv, x)
    layers = load_spec("qwen3_next").with_patterns(layer_pattern="L*48")
    graph, step = build_graph(layers), prefill(64)
    assert count_fvcore(graph, step, CAUSAL) == ModelCosts.of(graph).forward_flops(step, CAUSAL)


def test_forward_and_backward_are_not_added_together(peers: dict[str, Any]) -> None:
    spec, step = load_spec("qwen3_next"), prefill(64)
    gdn, attention = (mixer_cost(spec.mixers[letter], spec.hidden_size) for letter in "LF")
    for cost in (gdn, attention):
        projections = cost.forward_flops(step, CAUSAL) - cost.core_flops(step, CAUSAL)
        assert projections == 2 * 64 * cost.linear_parameters
    per_parameter = peers["flops_per_parameter"]
    theirs = (
        per_parameter["attention"] * attention.linear_parameters
        + per_parameter["gated_deltanet"] * gdn.linear_parameters
    )
    ours = 2 * (attention.linear_parameters + gdn.linear_parameters)
    # Twice too much, and neither a forward pass nor a step of training (6 a parameter).
    assert 1.8 < theirs / ours < 2.0


def test_full_squares_and_causal_halves_are_not_mixed_in_one_table() -> None:
    hybrid, twin, step = costs("kimi_linear"), costs("kimi_linear_mla"), prefill(MILLION)
    ratios = [
        twin.forward_flops(step, theirs) / hybrid.forward_flops(step, ours)
        for theirs, ours in (
            (CAUSAL, CAUSAL),
            (FULL_SQUARE, FULL_SQUARE),
            (FULL_SQUARE, CAUSAL),
        )
    ]
    assert ratios[2] > 1.9 * ratios[0]  # the hybrid looks twice as good as it is
    assert ratios[1] < 3.9
    flops = profile("kimi_linear_tiny", contexts=[64], flops={"prompt_tokens": 64}).document[
        "flops"
    ]
    assert flops["conventions"]["attention"] == "causal"
    assert flops["full_square"]["closed_form"] != flops["closed_form"]


def test_flops_depend_on_the_sequence(peers: dict[str, Any]) -> None:
    found = costs("llama31_8b")
    theirs = peers["flops_are_parameters"]["flops_per_parameter"] * (
        found.parameters.active_excluding_input_embedding
    )
    short, long = (found.forward_flops(prefill(n), CAUSAL) / n for n in (512, 131072))
    assert short == pytest.approx(theirs, rel=0.02)
    assert long > 3 * theirs


def test_gqa_does_not_cut_attention_flops() -> None:
    grouped, full = (
        mixer_cost(settings_class("attention")(num_heads=32, num_kv_heads=k, head_dim=128), 4096)
        for k in (2, 32)
    )
    for step in (prefill(4096), decode(4096)):
        assert grouped.core_flops(step, CAUSAL) == full.core_flops(step, CAUSAL)
    as_if_fewer_heads = full.core_flops(decode(4096), CAUSAL) * 2 // 32
    assert as_if_fewer_heads == 4 * 2 * 128 * 4097 != grouped.core_flops(decode(4096), CAUSAL)


def test_mla_decodes_on_the_latents() -> None:
    """One token costs 2 (2 R + rope) a pair and head, not the 2 (nope + rope + v) of a prefill."""
    cost = mixer_cost(load_spec("deepseek_v3").mixers["F"], 7168)
    slope = cost.core_flops(decode(4096), CAUSAL) - cost.core_flops(decode(4095), CAUSAL)
    as_mha = 2 * 128 * (128 + 64 + 128)
    assert slope == 2 * 128 * 1088 == 3.4 * as_mha


def test_sparse_attention_is_still_quadratic(claims: dict[str, Any]) -> None:
    assert "indexer still O(L" in claims["DS-01"]["value"]
    dense, sparse = (
        [costs(name).forward_flops(prefill(n << 24), SERVED) for n in (1, 2)]
        for name in ("deepseek_v3", "deepseek_v32")
    )
    assert sparse[1] / sparse[0] > 3.9  # linear would be 2
    # A smaller constant: 5 times in a prefill, 17 times in decode.
    quadratic = [twice - 2 * once for once, twice in (dense, sparse)]
    assert quadratic[0] / quadratic[1] == pytest.approx(5, rel=0.01)
    decoded = [
        costs(name).forward_flops(decode(2 * MILLION), SERVED)
        - costs(name).forward_flops(decode(MILLION), SERVED)
        for name in ("deepseek_v3", "deepseek_v32")
    ]
    assert decoded[0] / decoded[1] == pytest.approx(17, rel=0.01)


def test_a_served_prompt_needs_the_logits_of_one_position() -> None:
    found, spec = costs("kimi_linear"), load_spec("kimi_linear")
    all_positions, last = (
        found.forward_flops(prefill(4096), conventions) for conventions in (CAUSAL, SERVED)
    )
    assert all_positions - last == 2 * 4095 * spec.hidden_size * spec.vocab_size
    assert all_positions / last > 1.1


def test_a_flop_ratio_is_not_a_speedup(claims: dict[str, Any]) -> None:
    """Measured prefill gains stay below the FLOP ratio at every length (KL-04)."""
    data = claims["KL-04"]["data"]
    for context, mla_s, kimi_s in zip(data["ctx"], data["mla_s"], data["kimi_s"], strict=True):
        twin, ours = (
            costs(name).forward_flops(prefill(context), SERVED)
            for name in ("kimi_linear_mla", "kimi_linear")
        )
        assert mla_s / kimi_s < twin / ours
    assert twin / ours == pytest.approx(3.65, abs=0.01)
    assert mla_s / kimi_s == pytest.approx(2.87, abs=0.01)


def test_more_than_ten_times_is_an_asymptote(claims: dict[str, Any]) -> None:
    """ ">10x beyond 32K" against Qwen3-32B (QN-01) is the ratio of geometries, met near 128K."""
    assert claims["QN-01"]["value"].startswith(">10x")
    ratios = [
        costs("qwen3_32b").forward_flops(prefill(n), SERVED)
        / costs("qwen3_next").forward_flops(prefill(n), SERVED)
        for n in (32768, 131072, 1 << 34)
    ]
    assert ratios[0] < 10 < ratios[1] < ratios[2]
    assert ratios[2] == pytest.approx(64 * 64 * 128 / (12 * 16 * 256), rel=1e-3)


def test_one_twentieth_of_the_compute_leaves_the_full_layers_out(claims: dict[str, Any]) -> None:
    """M3 is said to need 1/20 of M2's compute a token at 1M (M3-02): 1/7.4 with its full layers."""
    assert "1/20" in claims["M3-02"]["value"]
    m2, m3 = (costs(n).forward_flops(decode(MILLION), SERVED) for n in ("minimax_m2", "minimax_m3"))
    assert m2 / m3 == pytest.approx(7.4, abs=0.1)
    spec = load_spec("minimax_m3")
    full, sparse = (
        mixer_cost(spec.mixers[letter], spec.hidden_size).core_flops(decode(MILLION), CAUSAL)
        for letter in "FX"
    )
    m2_core = 62 * mixer_cost(load_spec("minimax_m2").mixers["F"], 3072).core_flops(
        decode(MILLION), CAUSAL
    )
    assert m2_core / (3 * full + 57 * sparse) == pytest.approx(9.5, abs=0.1)
    assert m2_core / (57 * sparse) > 20
