"""Closed form == fvcore == torch's counter, on every shipped spec; the unknown is refused."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from cases import ALL_CASES, UNSHIPPED
from torch import nn

from hybridsim import load_spec
from hybridsim.conventions import FULL_SQUARE, FlopConventions
from hybridsim.cost.model import ModelCosts
from hybridsim.counters import operators
from hybridsim.counters.flop_counter import count_decomposed, count_flop_counter
from hybridsim.counters.fvcore_count import count_fvcore, count_module
from hybridsim.errors import UncountedOperatorError
from hybridsim.ffn import ffn_settings_class
from hybridsim.graph import build_graph
from hybridsim.mixers import MixerSettings
from hybridsim.spec.load import spec_names
from hybridsim.spec.parse import parse_spec
from hybridsim.spec.schema import ModelSpec
from hybridsim.steps import Step, decode, prefill

SPECS: list[Any] = [*spec_names(), *UNSHIPPED.values()]
IDS = [*spec_names(), *UNSHIPPED]
STEPS = [prefill(4096), prefill(77), decode(4096), decode(50), Step(33, 100)]
STEP_IDS = ["prefill4096", "prefill77", "decode4096", "decode50", "continue33"]


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_three_ways_agree(spec: Any, step: Step) -> None:
    graph = build_graph(parse_spec(spec) if isinstance(spec, dict) else load_spec(spec))
    costs = ModelCosts.of(graph)
    # To the unit: the bar is 0.5 %, but nothing here is approximate.
    for conventions in (FlopConventions(), FULL_SQUARE):
        wanted = costs.forward_flops(step, conventions)
        assert count_fvcore(graph, step, conventions) == wanted
        assert count_flop_counter(graph, step, conventions) == wanted


@pytest.mark.parametrize("step", [prefill(77), decode(50), Step(33, 100)], ids=str)
@pytest.mark.parametrize("mixer", [s for _, s in ALL_CASES], ids=[n for n, _ in ALL_CASES])
def test_three_ways_agree_on_every_option_of_a_mixer(mixer: MixerSettings, step: Step) -> None:
    spec = ModelSpec("one_layer", 32, 1, 16, 512, "M", ".", mixers={"M": mixer})
    graph = build_graph(spec)
    for conventions in (FlopConventions(), FULL_SQUARE):
        wanted = ModelCosts.of(graph).forward_flops(step, conventions)
        assert count_fvcore(graph, step, conventions) == wanted
        assert count_flop_counter(graph, step, conventions) == wanted


@pytest.mark.parametrize("step", STEPS, ids=STEP_IDS)
@pytest.mark.parametrize("spec", SPECS, ids=IDS)
def test_full_squares_are_what_torch_counts_in_the_parts(spec: Any, step: Step) -> None:
    """No rule of ours but that of grouped products: our operators are taken apart."""
    graph = build_graph(parse_spec(spec) if isinstance(spec, dict) else load_spec(spec))
    assert count_decomposed(graph, step) == ModelCosts.of(graph).forward_flops(step, FULL_SQUARE)


def test_batches_and_last_logits_are_counted_too() -> None:
    graph = build_graph(load_spec("kimi_linear_tiny"))
    served = FlopConventions(logits="last")
    wanted = 3 * ModelCosts.of(graph).forward_flops(prefill(100), served)
    assert count_fvcore(graph, prefill(100), served, batch_size=3) == wanted
    assert count_flop_counter(graph, prefill(100), served, batch_size=3) == wanted


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *product(
            ("kimi_linear_tiny", "qwen3_next_tiny", "minimax_m3_tiny"),
            ("hybridsim::grouped_linear", "aten::linear"),
        ),
        ("jamba_tiny", "hybridsim::selective_scan"),
    ],
)
def test_without_a_rule_there_is_an_error_not_a_zero(
    name: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(operators.RULES, rule)
    graph = build_graph(load_spec(name))
    with pytest.raises(UncountedOperatorError, match=rule):
        count_fvcore(graph, prefill(32), FlopConventions())


def test_an_error_while_counting_leaves_the_callers_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(operators.RULES, "aten::linear")
    with pytest.raises(UncountedOperatorError) as raised:
        count_fvcore(build_graph(load_spec("jamba_tiny")), prefill(32), FlopConventions())
    # The traceback keeps every frame of the counting alive.
    assert raised.value.__traceback__ is not None
    assert torch.empty(1).device.type == "cpu"
    assert torch.is_grad_enabled()


def test_experts_of_widths_that_a_grouped_product_refuses_are_counted() -> None:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 7}
    ffns = {"E": ffn_settings_class("moe")(**experts)}
    graph = build_graph(ModelSpec("odd", 17, 1, 16, 512, "E", ".", ffns=ffns))
    for step in (prefill(9), decode(9)):
        wanted = ModelCosts.of(graph).forward_flops(step, FULL_SQUARE)
        assert count_fvcore(graph, step, FULL_SQUARE) == wanted
        assert count_flop_counter(graph, step, FULL_SQUARE) == wanted
        assert count_decomposed(graph, step) == wanted


def test_an_operator_nobody_listed_is_an_error() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.fft.fft(x).real

    with pytest.raises(UncountedOperatorError, match=r"operators=aten::fft_fft"):
        count_module(Spectrum(), (torch.zeros(4, 8),), FlopConventions())


def test_fvcore_counts_two_flops_a_multiply_add() -> None:
    layer = nn.Linear(8, 16, bias=False)
    counted = count_module(layer, (torch.zeros(4, 8),), FlopConventions())
    assert sum(counted.values()) == 2 * 4 * 8 * 16


def test_a_shared_selection_of_one_token_is_counted_after_a_cache() -> None:
    """A layer on its own gets the selection that another would make, at every pass it runs."""
    sizes = {
        "kind": "sparse_mla",
        "num_heads": 1,
        "kv_lora_rank": 4,
        "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 0,
        "v_head_dim": 4,
        "q_lora_rank": 4,
        "index_num_heads": 1,
        "index_head_dim": 4,
        "index_topk": 1,
    }
    spec = {
        "name": "shared",
        "hidden_size": 4,
        "num_layers": 2,
        "vocab_size": 8,
        "native_context": 8,
        "layer_pattern": "XS",
        "ffn_pattern": "..",
        "mixers": {"X": sizes, "S": sizes | {"indexer_type": "shared"}},
    }
    graph = build_graph(parse_spec(spec))
    wanted = ModelCosts.of(graph).forward_flops(decode(3), FlopConventions())
    assert count_flop_counter(graph, decode(3), FlopConventions()) == wanted
    assert count_fvcore(graph, decode(3), FlopConventions()) == wanted
