"""Every feed-forward of the table: the equation token by token, and costed as it is."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import ALL_FFN_CASES, FFN_CASES
from closeness import assert_close
from torch import Tensor

from hybridsim.conventions import FlopConventions
from hybridsim.counters.fvcore_count import count_module
from hybridsim.errors import SpecError
from hybridsim.ffn import FFNS, FfnSettings, ffn_class, ffn_cost
from hybridsim.ffn.dense.module import Dense
from hybridsim.ffn.dense.settings import DenseSettings
from hybridsim.ffn.moe.module import MoE
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.nn.feed_forward import FeedForward

WIDTH = 16
CASES = pytest.mark.parametrize(
    "settings", [s for _, s in ALL_FFN_CASES], ids=[n for n, _ in ALL_FFN_CASES]
)


def build(settings: FfnSettings) -> FeedForward:
    ffn = ffn_class(settings.kind)(settings, WIDTH).double()
    with torch.no_grad():
        for tensor in [*ffn.parameters(), *ffn.buffers()]:
            tensor.normal_(0, 0.3)
    return ffn


def activated(name: str, gate: Tensor, up: Tensor, limit: float | None = None) -> Tensor:
    if limit is not None:
        opened = [min(float(g * g.sigmoid()), limit) for g in gate]
        clipped = [max(min(float(u), limit), -limit) for u in up]
        products = [g * u for g, u in zip(opened, clipped, strict=True)]
        return torch.tensor(products, dtype=up.dtype)
    if name == "swiglu_oai":
        gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
        return gate * torch.sigmoid(1.702 * gate) * (up + 1)
    if name == "gelu_tanh":
        inner = (2 / torch.pi) ** 0.5 * (gate + 0.044715 * gate**3)
        return 0.5 * gate * (1 + inner.tanh()) * up
    return gate * gate.sigmoid() * up


def dense_reference(ffn: Dense, s: DenseSettings, x: Tensor) -> Tensor:
    bias = {n: p for n, p in ffn.named_parameters() if n.endswith("bias")}
    if s.gated:
        both = ffn.gate_up_proj.weight @ x + bias.get("gate_up_proj.bias", 0)
        gate, up = both[: s.intermediate_size], both[s.intermediate_size :]
        inner = activated(s.activation, gate * s.gate_scale, up, s.activation_limit)
    else:
        inner = ffn.up_proj.weight @ x + bias.get("up_proj.bias", 0)
        exact = 0.5 * inner * (1 + torch.erf(inner / 2**0.5))
        inner = exact if s.activation == "gelu" else inner.clamp(min=0) ** 2
    return (ffn.down_proj.weight @ inner + bias.get("down_proj.bias", 0)) * s.down_scale


def expert_reference(ffn: MoE, s: MoESettings, e: int, x: Tensor) -> Tensor:
    experts, up = ffn.experts, "gate_up_proj" if s.gated else "up_proj"
    inner = x @ getattr(experts, up)[e]
    if s.expert_bias:
        inner = inner + getattr(experts, f"{up}_bias")[e]
    if s.gated:
        gate, up_part = inner[: s.intermediate_size], inner[s.intermediate_size :]
        inner = activated(s.activation, gate, up_part, s.activation_limit)
    else:
        inner = inner.clamp(min=0) ** 2
    out = inner @ experts.down_proj[e]
    return out + experts.down_proj_bias[e] if s.expert_bias else out


def moe_reference(ffn: MoE, s: MoESettings, x: Tensor) -> Tensor:
    logits = F.linear(x, ffn.router.weight, ffn.router.bias)
    scores = logits.softmax(-1) if s.router == "softmax" else logits.sigmoid()
    offset = 0 if ffn.score_correction_bias is None else ffn.score_correction_bias
    chosen = (scores + offset).topk(s.num_experts_per_tok).indices.tolist()
    total = sum(scores[e] for e in chosen) if s.norm_topk_prob else 1
    routed = x if s.latent_size is None else ffn.latent_in_proj.weight @ x
    out = sum(
        scores[e] / total * s.routed_scaling_factor * expert_reference(ffn, s, e, routed)
        for e in chosen
    )
    out = out if s.latent_size is None else ffn.latent_out_proj.weight @ out
    if s.num_shared_experts:
        shared = dense_reference(ffn.shared_expert, ffn.shared_expert.settings, x)
        gate = (ffn.shared_expert_gate.weight @ x).sigmoid() if s.shared_expert_gate else 1
        out = out + shared * gate
    return out


def test_every_feed_forward_has_cases() -> None:
    assert set(FFN_CASES) == set(FFNS)


@CASES
def test_the_equation_token_by_token(settings: FfnSettings) -> None:
    ffn, x = build(settings), 3 * torch.randn(2, 13, WIDTH, dtype=torch.float64)
    reference = {"dense": dense_reference, "moe": moe_reference}[settings.kind]
    with torch.no_grad():
        wanted = torch.stack([reference(ffn, settings, token) for token in x.flatten(0, 1)])
        assert_close("out", ffn(x).flatten(0, 1), wanted, 1e-12)


def test_softmax_over_the_chosen_is_the_normalised_softmax() -> None:
    settings = FFN_CASES["moe"]["biases"]
    ffn, x = build(settings), torch.randn(WIDTH, dtype=torch.float64)
    logits = F.linear(x, ffn.router.weight, ffn.router.bias)
    best = logits.topk(2)
    scores = logits.softmax(-1)[best.indices]
    torch.testing.assert_close(best.values.softmax(-1), scores / scores.sum())


@CASES
def test_parameters_are_those_of_the_closed_form(settings: FfnSettings) -> None:
    ffn, cost = build(settings), ffn_cost(settings, WIDTH)
    built = {n.removesuffix(".weight"): p.numel() for n, p in ffn.named_parameters()}
    routed = {name: i * o for name, (i, o) in cost.expert_linears.items()} | cost.expert_vectors
    wanted = {name: i * o for name, (i, o) in cost.linears.items()} | cost.vectors
    wanted |= {name: cost.num_experts * one for name, one in routed.items()}
    assert built == wanted
    assert sum(built.values()) == cost.parameters


@CASES
def test_flops_are_those_of_the_closed_form(settings: FfnSettings) -> None:
    counted = count_module(build(settings), (torch.zeros(2, 9, WIDTH).double(),), FlopConventions())
    assert sum(counted.values()) == 18 * ffn_cost(settings, WIDTH).forward_flops_per_token


def test_biases_are_active_and_touched_but_no_flops() -> None:
    s = FFN_CASES["moe"]["biases"]
    with_bias = ffn_cost(s, WIDTH)
    plain = ffn_cost(MoESettings(s.num_experts, s.num_experts_per_tok, s.intermediate_size), WIDTH)
    one = 2 * s.intermediate_size + WIDTH
    assert with_bias.parameters == plain.parameters + 5 + 5 * one
    assert with_bias.active_parameters == plain.active_parameters + 5 + 2 * one
    touched = with_bias.touched_parameters(1, 0.0) - plain.touched_parameters(1, 0.0)
    assert touched == pytest.approx(5 + 2 * one)
    assert with_bias.forward_flops_per_token == plain.forward_flops_per_token


@CASES
def test_gradients_reach_every_parameter(settings: FfnSettings) -> None:
    ffn = build(settings)
    ffn(torch.randn(4, 40, WIDTH, dtype=torch.float64)).square().sum().backward()
    for name, parameter in ffn.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_a_factor_on_a_gate_needs_a_gate() -> None:
    with pytest.raises(SpecError, match=r"gate_scale=0\.5: needs gated=true"):
        DenseSettings(8, gated=False, gate_scale=0.5)
    with pytest.raises(SpecError, match=r"down_scale=0\.0: must be above 0"):
        DenseSettings(8, down_scale=0.0)
    with pytest.raises(SpecError, match="activation=swiglu_oai: needs gated=true"):
        DenseSettings(8, activation="swiglu_oai", gated=False)
    with pytest.raises(SpecError, match="activation=swiglu_oai: needs gated=true"):
        MoESettings(4, 2, 8, activation="swiglu_oai", gated=False)


def test_a_limit_needs_a_gate_without_one_of_its_own() -> None:
    with pytest.raises(SpecError, match=r"activation_limit=0\.0: must be above 0"):
        DenseSettings(8, activation_limit=0.0)
    with pytest.raises(SpecError, match=r"activation_limit=4\.0: needs gated=true"):
        DenseSettings(8, gated=False, activation_limit=4.0)
    with pytest.raises(SpecError, match=r"shared_activation_limit=4\.0: activation=swiglu_oai has"):
        MoESettings(4, 2, 8, activation="swiglu_oai", shared_activation_limit=4.0)
