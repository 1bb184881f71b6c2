"""The compiled models on a CUDA device: every implementation there is the reference."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest
import torch
from cases import ALL_CASES, UNSHIPPED, UNUSUAL_SPEC
from closeness import assert_close
from torch import Tensor

# float32 products in float32: by default Triton rounds their factors to 10 bits.
os.environ.setdefault("TRITON_F32_DEFAULT", "ieee")

from hybridsim import build_model
from hybridsim.components import NormSettings, RopeSettings
from hybridsim.ffn.moe.module import Experts
from hybridsim.ffn.moe.ops import grouped_linear
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.kernels import choice
from hybridsim.mixers import MixerSettings, mixer_class, settings_class
from hybridsim.model.build import initialize
from hybridsim.model.decode import DecodeRunner
from hybridsim.nn.attention import causal_attention
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.spec.load import spec_names

# Rotary angles are float32 whatever the model's dtype, and the devices' cosines differ in the last
# bit: 6e-8 of a channel. Models without rotation agree to 1e-8.
ROTATED = 1e-6
FP32, BF16 = 1e-3, 2e-2

# Libraries warn about what they will change and what they were not compiled for.
pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]

TINY = [name for name in spec_names() if name.endswith("_tiny")]
RUNNABLE: list[Any] = [*TINY, UNUSUAL_SPEC]
WIDTH = 256


@pytest.fixture(autouse=True)
def _as_users_run() -> Iterator[None]:
    torch.use_deterministic_algorithms(False)
    yield
    choice.clear_report()


def norm_error(got: Tensor, wanted: Tensor) -> float:
    assert got.isfinite().all()
    return ((got.double() - wanted.double()).norm() / wanted.double().norm()).item()


def _case(kind: str, **fields: Any) -> MixerSettings:
    return settings_class(kind)(**fields)


HEADS = {"num_heads": 4, "head_k_dim": 64, "head_v_dim": 128}
LATENT = {
    "num_heads": 16,
    "q_lora_rank": 96,
    "kv_lora_rank": 128,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
    "rope": RopeSettings(interleaved=True),
}
GROUPED = {"num_heads": 8, "num_kv_heads": 2, "head_dim": 64}

# Mixers of the sizes that kernels are made for, and what each must run there: prefill, then a step.
SIZED: dict[str, tuple[MixerSettings, str, str]] = {
    "attention": (
        _case("attention", **GROUPED, qk_norm="head", output_gate=True, rope=RopeSettings()),
        "causal_attention",
        "decode_attention",
    ),
    "windowed": (
        _case("attention", **GROUPED, window=37, sinks=True, bias=True),
        "causal_attention",
        "decode_attention",
    ),
    "mla": (_case("mla", **LATENT), "causal_attention", "latent_decode_attention"),
    "sparse_mla": (
        _case("sparse_mla", **LATENT, index_num_heads=16, index_head_dim=64, index_topk=48),
        "selected_attention",
        "index_scores",
    ),
    "block_sparse": (
        _case(
            "block_sparse",
            **GROUPED,
            index_num_heads=2,
            index_head_dim=64,
            block_size=16,
            topk_blocks=4,
        ),
        "block_attention",
        "block_attention",
    ),
    "kda": (
        _case("kda", num_heads=4, head_dim=64, gate_rank=32),
        "chunk_kda",
        "recurrent_kda",
    ),
    "kda, bounded": (
        _case("kda", num_heads=2, head_dim=128, gate_rank=None, gate_lower_bound=-5.0),
        "chunk_kda",
        "recurrent_kda",
    ),
    "kda, negative": (
        _case("kda", num_heads=4, head_dim=64, gate_rank=32, negative_eigenvalues=True),
        "chunk_kda",
        "recurrent_kda",
    ),
    "gated_deltanet": (
        _case(
            "gated_deltanet",
            num_heads=2,
            num_v_heads=4,
            head_k_dim=64,
            head_v_dim=64,
            negative_eigenvalues=True,
        ),
        "chunk_gated_delta_rule",
        "recurrent_gated_delta_rule",
    ),
    "deltanet": (
        _case("deltanet", **HEADS, output_gate=True),
        "chunk_delta_rule",
        "recurrent_delta_rule",
    ),
    "gla": (_case("gla", **HEADS, conv_size=4), "chunk_gla", "recurrent_gla"),
    "lightning": (
        _case("lightning", num_heads=4, head_dim=64, num_norm_groups=2, rope=RopeSettings()),
        "chunk_simple_gla",
        "recurrent_simple_gla",
    ),
    "mamba2": (
        _case("mamba2", num_heads=8, head_dim=64, state_size=64, num_groups=2),
        "chunk_simple_gla",
        "recurrent_simple_gla",
    ),
    "mamba1": (
        _case("mamba1", inner_dim=256, dt_rank=16, inner_norms=True),
        "selective_scan",
        "selective_scan",
    ),
    "linear_attention": (
        _case("linear_attention", **HEADS),
        "chunk_simple_gla",
        "recurrent_simple_gla",
    ),
}
SELECTING = ("sparse_mla", "block_sparse")  # where one rounding more or less changes the choice
BY_FLA = [name for name, (_, operation, _) in SIZED.items() if operation.startswith("chunk_")]


def build(settings: MixerSettings, width: int = WIDTH) -> SequenceMixer:
    place = MixerPlace(width, NormSettings(), layer=1, num_layers=4)
    mixer = mixer_class(settings.kind)(settings, place)
    initialize(mixer, seed=0)
    for name, parameter in mixer.named_parameters():
        if name.endswith((".bias", "sinks")):  # zero until trained
            torch.nn.init.normal_(parameter, std=0.5)
    return mixer.cuda()


@torch.no_grad()
def prefill_and_steps(mixer: SequenceMixer, x: Tensor, steps: int) -> Tensor:
    """Return outputs of a prompt in two parts, and of single tokens after it."""
    start = x.shape[1] - steps
    cache, outputs, at = mixer.new_cache(0), [], 0
    for part in x.split([start - 30, 30, *[1] * steps], dim=1):
        outputs.append(mixer(part, cache, at))
        at += part.shape[1]
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("name", [name for name in SIZED if name not in SELECTING])
def test_kernels_in_bf16_are_the_reference(name: str) -> None:
    settings, prefilling, stepping = SIZED[name]
    mixer = build(settings)
    decays = {n: p.clone() for n, p in mixer.named_parameters() if n in ("A_log", "dt_bias")}
    mixer = mixer.bfloat16()
    for n, kept in decays.items():  # which stay in float32 in a model
        getattr(mixer, n).data = kept
    x = torch.randn(2, 210, WIDTH, device="cuda").bfloat16()
    with choice.forcing("reference"):
        wanted = prefill_and_steps(copy.deepcopy(mixer).float(), x.float(), 8)
    choice.clear_report()
    got = prefill_and_steps(mixer, x, 8)
    assert choice.report()[prefilling] != choice.REFERENCE
    assert choice.report()[stepping] != choice.REFERENCE
    assert norm_error(got[:, :-8], wanted[:, :-8]) < BF16
    assert norm_error(got[:, -8:], wanted[:, -8:]) < BF16


FP32_CASES = {**dict(ALL_CASES), **{f"sized-{name}": case[0] for name, case in SIZED.items()}}


@pytest.mark.parametrize("settings", FP32_CASES.values(), ids=FP32_CASES)
def test_kernels_in_fp32_are_the_reference(settings: MixerSettings) -> None:
    mixer = build(settings)
    x = torch.randn(2, 210, WIDTH, device="cuda")
    # Index keys round to the same fp8 in the same dtype only.
    dtype = torch.float32 if settings.kind in SELECTING else torch.float64
    with choice.forcing("reference"):
        wanted = prefill_and_steps(copy.deepcopy(mixer).to(dtype), x.to(dtype), 8).double()
    assert_close("out", prefill_and_steps(mixer, x, 8).double(), wanted, FP32)


@pytest.mark.parametrize("name", [name for name in BY_FLA if name != "deltanet"])
def test_gradients_through_fla_are_the_references(name: str) -> None:
    if name in ("gated_deltanet", "mamba2") and choice.gated_gradients_are_wrong():
        pytest.skip("fla refuses this gradient: Triton miscompiles it on Hopper (fla issue 640)")
    settings, operation, _ = SIZED[name]
    mixer = build(settings)
    x = torch.randn(2, 130, WIDTH, device="cuda")
    weights = torch.randn(2, 130, WIDTH, device="cuda")
    gradients = []
    for implementation in ("fla", "reference"):
        inputs, model = x.clone().requires_grad_(), copy.deepcopy(mixer)
        choice.clear_report()
        with choice.forcing(implementation):
            (model(inputs) * weights).sum().backward()
        assert (choice.report()[operation] == choice.REFERENCE) == (implementation == "reference")
        found = {n: p.grad for n, p in model.named_parameters()}
        gradients.append({**found, "input": inputs.grad})
    for which, wanted in gradients[1].items():
        assert_close(f"d {which}", gradients[0][which], wanted, FP32)


def test_gradients_through_flas_deltanet_are_the_references() -> None:
    mixer = build(SIZED["deltanet"][0]).bfloat16()
    x = torch.randn(2, 130, WIDTH, device="cuda").bfloat16()
    weights = torch.randn(2, 130, WIDTH, device="cuda")
    gradients = []
    for implementation, dtype in (("fla", torch.bfloat16), ("reference", torch.float32)):
        inputs = x.to(dtype, copy=True).requires_grad_()
        with choice.forcing(implementation):
            (copy.deepcopy(mixer).to(dtype)(inputs).float() * weights).sum().backward()
        gradients.append(inputs.grad)
    assert norm_error(*gradients) < BF16


# queries, keys, heads, key heads, width of values, window, sinks
ATTENTIONS = {
    "square": (200, 200, 8, 2, 64, None, False),
    "later": (70, 200, 8, 2, 64, None, False),
    "later, one head each": (70, 200, 4, 4, 32, None, False),
    "window": (200, 200, 8, 2, 64, 33, False),
    "window, later": (70, 110, 8, 2, 64, 40, False),
    "sinks": (200, 200, 8, 2, 64, None, True),
    "window and sinks": (200, 230, 8, 2, 64, 30, True),
}


@pytest.mark.parametrize("case", ATTENTIONS.values(), ids=ATTENTIONS)
def test_attention_of_several_queries(case: Any) -> None:
    new, seen, heads, key_heads, width, window, with_sinks = case
    q = torch.randn(2, new, heads, 64, device="cuda").bfloat16()
    k = torch.randn(2, seen, key_heads, 64, device="cuda").bfloat16()
    v = torch.randn(2, seen, key_heads, width, device="cuda").bfloat16()
    sinks = torch.randn(heads, device="cuda") if with_sinks else None
    with torch.no_grad():
        got = causal_attention(q, k, v, 0.2, window, sinks)
        with choice.forcing("reference"):
            doubled = None if sinks is None else sinks.double()
            wanted = causal_attention(q.double(), k.double(), v.double(), 0.2, window, doubled)
    assert norm_error(got, wanted) < BF16


@pytest.mark.parametrize("spec", RUNNABLE, ids=[*TINY, "unusual"])
def test_logits_are_those_of_the_cpu(spec: Any) -> None:
    model = build_model(spec, device="cpu").double()
    tokens = torch.randint(0, model.spec.vocab_size, (2, 75))
    with torch.no_grad():
        wanted = model(tokens)
        there = copy.deepcopy(model).cuda()
        cache = there.new_cache()
        parts = [there(tokens[:, :50].cuda(), cache)]
        parts += [there(tokens[:, t : t + 1].cuda(), cache) for t in range(50, 75)]
        assert_close("one pass", there(tokens.cuda()).cpu(), wanted, ROTATED)
        assert_close("prefill and decode", torch.cat(parts, dim=1).cpu(), wanted, ROTATED)


def steps_of(runner: DecodeRunner, tokens: Tensor, prompt: int) -> Tensor:
    """Return the logits after a prompt and after each token that follows it."""
    logits = [runner.prefill(tokens[:, :prompt]).clone()]
    logits += [runner.step(tokens[:, t : t + 1]).clone() for t in range(prompt, tokens.shape[1])]
    return torch.cat(logits, dim=1)


@pytest.mark.parametrize("spec", [*TINY, *UNSHIPPED.values()], ids=[*TINY, *UNSHIPPED])
def test_captured_steps_are_the_model(spec: Any) -> None:
    model = build_model(spec, device="cpu").double().cuda()
    tokens = torch.randint(0, model.spec.vocab_size, (3, 50), device="cuda")
    with torch.no_grad():
        wanted = model(tokens)[:, 34:]
    runner = DecodeRunner(model, 3, 60)
    for _ in range(2):  # the second time after a reset
        assert_close("logits", steps_of(runner, tokens, 35), wanted, ROTATED)
        runner.reset()


@pytest.mark.parametrize("name", SIZED)
def test_captured_steps_over_kernels_are_eager_ones(name: str) -> None:
    settings = SIZED[name][0]
    spec = {
        "name": "sized",
        "hidden_size": WIDTH,
        "num_layers": 2,
        "vocab_size": 512,
        "native_context": 4096,
        "layer_pattern": "L L",
        "ffn_pattern": "D E",
        "mixers": {"L": {"kind": settings.kind, **asdict(settings)}},
        "ffns": {
            "D": {"kind": "dense", "intermediate_size": 512},
            "E": {
                "kind": "moe",
                "num_experts": 16,
                "num_experts_per_tok": 2,
                "intermediate_size": 128,
                "router": "sigmoid",
                "score_correction_bias": True,
                "num_shared_experts": 1,
            },
        },
    }
    model = build_model(spec, device="cuda")
    tokens = torch.randint(0, 512, (2, 140), device="cuda")
    captured, eager = (
        steps_of(DecodeRunner(model, 2, 150, captured=flag), tokens, 130) for flag in (True, False)
    )
    assert norm_error(captured, eager) < FP32


@pytest.mark.parametrize("name", TINY)
def test_bf16_models_run_and_train(name: str) -> None:
    model = build_model(name, device="cuda")
    assert next(model.parameters()).dtype == torch.bfloat16
    tokens = torch.randint(0, model.spec.vocab_size, (2, 129), device="cuda")
    logits = model(tokens[:, :-1]).float()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for n, p in model.named_parameters()
        if ".indexer." not in n
    )


def test_grouped_products_are_the_loops() -> None:
    counts = torch.tensor([3, 0, 40, 1, 84], device="cuda")
    x = torch.randn(128, 64, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(5, 64, 32, device="cuda", dtype=torch.bfloat16) / 8
    looped = grouped_linear(x.double(), weight.double(), counts)
    assert_close("out", grouped_linear(x, weight, counts).double(), looped, 1e-2)


@pytest.mark.parametrize("tokens", [3, 400])
def test_experts_of_few_tokens_and_of_many(tokens: int) -> None:
    settings = MoESettings(num_experts=12, num_experts_per_tok=4, intermediate_size=128)
    experts = Experts(settings, WIDTH).cuda()
    initialize(experts, seed=0)
    x = torch.randn(tokens, WIDTH, device="cuda").bfloat16()
    weights = torch.rand(tokens, 4, device="cuda")
    chosen = torch.rand(tokens, 12, device="cuda").topk(4).indices
    with torch.no_grad():
        half = copy.deepcopy(experts).bfloat16()
        with choice.forcing("reference"):
            wanted = half.double()(x.double(), weights.double(), chosen)
        got = half.bfloat16()(x, weights, chosen)
    assert norm_error(got, wanted) < BF16
