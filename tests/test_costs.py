"""Closed forms against published figures, and claims of the literature reproduced."""

from __future__ import annotations

import math
from typing import Any

import pytest
from shipped import costs

from hybridsim import load_spec
from hybridsim.conventions import FULL_SQUARE, FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.ffn import ffn_cost
from hybridsim.graph import MIXER
from hybridsim.mixers import mixer_cost, settings_class
from hybridsim.mixers.delta_rule import DeltaRule
from hybridsim.spec.load import spec_names
from hybridsim.steps import Step, decode, prefill

BF16 = Dtypes()
DETAILED = (
    "kimi_linear",
    "qwen3_next",
    "qwen3_235b",
    "deepseek_v3",
    "deepseek_v32",
    "minimax_m1",
    "minimax_m2",
    "minimax_m3",
    "qwen3_5_35b",
    "kimi_k2",
    "jamba",
    "nemotron_h_8b",
    "falcon_h1_34b",
    "gemma3_27b",
    "gpt_oss_120b",
)
LADDER = ("deltanet_340m", "gla_340m")
PUBLISHED = (*DETAILED, *LADDER, "llama31_8b", "qwen3_32b", "qwen3_1_7b")
MILLION = 1 << 20


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_and_active_parameters_to_the_unit(name: str, models: dict[str, Any]) -> None:
    wanted, found = models[name], costs(name).parameters
    assert found.total == wanted["total"]
    for convention in ("active", "active_excluding_input_embedding", "active_excluding_embeddings"):
        if convention in wanted:
            assert getattr(found, convention) == wanted[convention]


@pytest.mark.parametrize("name", [*DETAILED, *LADDER])
def test_parts_to_the_unit(name: str, models: dict[str, Any]) -> None:
    parts = costs(name).parameters_by_part()
    assert parts["embedding"] == models[name]["embedding"]
    kinds = {settings.kind for settings in load_spec(name).mixers.values()}
    assert sum(parts[kind] for kind in kinds) == models[name]["mixers"]


@pytest.mark.parametrize("name", DETAILED)
def test_cache_and_state_to_the_byte(name: str, models: dict[str, Any]) -> None:
    wanted, found = models[name], costs(name)
    assert found.kv_bytes_per_token(BF16) == wanted["kv_bytes_per_token"]
    assert found.state_bytes(BF16) == wanted["state_bytes_per_sequence"]
    assert found.window_bytes(BF16) == wanted.get("window_bytes_per_sequence", 0)


@pytest.mark.parametrize(("name", "gib_at_128k"), [("gemma3_27b", 10.406), ("gpt_oss_120b", 4.504)])
def test_windowed_layers_stop_growing(
    name: str, gib_at_128k: float, models: dict[str, Any]
) -> None:
    found, window = costs(name), models[name]["window_bytes_per_sequence"]
    for context in (4096, 131072):
        grown = context * models[name]["kv_bytes_per_token"]
        assert found.cache_bytes(context, BF16) == grown + window
    assert found.cache_bytes(131072, BF16) / 2**30 == pytest.approx(gib_at_128k, abs=5e-4)


@pytest.mark.parametrize("name", ["gpt_oss_120b"])
def test_routed_experts_to_the_unit(name: str, models: dict[str, Any]) -> None:
    spec = load_spec(name)
    cost = ffn_cost(spec.ffns["E"], spec.hidden_size)
    routed = spec.num_layers * cost.num_experts * cost.expert_parameters
    assert routed == models[name]["routed_experts"]


@pytest.mark.parametrize("name", ["ring_mini_linear", "ring_flash_linear"])
def test_ring_to_the_digits_published(name: str, models: dict[str, Any]) -> None:
    # No class of transformers builds them, so the totals are as the authors rounded them.
    wanted, found = models[name], costs(name)
    assert load_spec(name).layer_letters == wanted["layer_pattern"]
    assert found.parameters.total == pytest.approx(wanted["published_total"], rel=2e-3)
    assert found.parameters.active == pytest.approx(wanted["published_active"], rel=7e-3)
    # Flash counts 6.157 B without embedding and head; the authors say 6.1 B.
    inner = wanted["published_active_excluding_embeddings"]
    assert found.parameters.active_excluding_embeddings == pytest.approx(inner, rel=0.01)
    assert found.kv_bytes_per_token(BF16) == wanted["kv_bytes_per_token"]
    assert found.state_bytes(BF16) == wanted["state_bytes_per_sequence"]


def test_ring_minis_total_summed_by_hand() -> None:
    width, heads, inner, vocab = 2048, 16, 16 * 128, 157_184
    norms, qk_norms = 2 * width, 2 * 128
    linear = width * 3 * inner + width * inner + inner + inner * width + qk_norms
    full = width * (heads + 2 * 4) * 128 + inner * width + qk_norms
    experts = 256 * width + (256 + 1) * 3 * width * 512
    layers = 16 * linear + 4 * full + 20 * norms + 3 * width * 5120 + 19 * experts
    assert costs("ring_mini_linear").parameters.total == 2 * vocab * width + layers + width
    assert costs("ring_mini_linear").parameters.total == 16_423_443_456


def test_tied_embeddings_are_counted_once_and_always_met() -> None:
    found = costs("qwen3_1_7b").parameters
    assert found.active == found.active_excluding_input_embedding == found.total
    assert found.active_excluding_embeddings == found.total - 151936 * 2048


@pytest.mark.parametrize("name", ["kimi_linear", "qwen3_next", "deepseek_v3", "llama31_8b"])
def test_full_square_flops_against_the_reference_implementation(
    name: str, full_square: dict[str, Any]
) -> None:
    found = costs(name).forward_flops(prefill(4096), FULL_SQUARE) / 1e12
    assert found == pytest.approx(full_square[name], rel=0.005)
    if name != "kimi_linear":
        assert found == pytest.approx(full_square[name], abs=6e-4)  # to the digits given


def test_kimi_linears_gap_is_the_scores_inside_a_chunk(full_square: dict[str, Any]) -> None:
    # The reference charges q k^T and k k^T over all C^2 pairs of a chunk; with sub-blocks of 16
    # ours forms C (C + 16) / 2 of them. That one operator is the whole gap, to the digits given.
    chunk, block, key_dim, heads = 64, 16, 128, 32
    spec = load_spec("kimi_linear")
    skipped = chunk**2 - chunk * (chunk + block) // 2
    per_layer = 4096 // chunk * heads * 2 * 2 * key_dim * skipped
    found = costs("kimi_linear").forward_flops(prefill(4096), FULL_SQUARE)
    explained = found + spec.layer_letters.count("L") * per_layer
    assert explained / 1e12 == pytest.approx(full_square["kimi_linear"], abs=6e-4)


def test_kl_01_cache_reduction() -> None:
    ours, twin = costs("kimi_linear"), costs("kimi_linear_mla")
    per_token = 1 - ours.kv_bytes_per_token(BF16) / twin.kv_bytes_per_token(BF16)
    assert per_token == pytest.approx(1 - 7 / 27)
    at_128k = 1 - ours.cache_bytes(131072, BF16) / twin.cache_bytes(131072, BF16)
    assert at_128k == pytest.approx(0.730, abs=5e-4)
    assert ours.cache_bytes(131072, BF16) / 2**30 == pytest.approx(1.025, abs=5e-4)
    assert twin.cache_bytes(131072, BF16) / 2**30 == pytest.approx(3.797, abs=5e-4)
    assert 1 - ours.cache_bytes(MILLION, BF16) / twin.cache_bytes(MILLION, BF16) == pytest.approx(
        0.739, abs=5e-4
    )


def test_kl_11_flops_of_the_authors() -> None:
    kda = DeltaRule(128, 128, 64).published_flops_per_token()
    assert kda == 126_976
    spec, published = load_spec("kimi_linear"), FlopConventions(linear_attention="published")
    conv = 2 * 4 * 3 * 4096  # the authors leave the short convolution out
    per_token = mixer_cost(spec.mixers["L"], 2304).core_flops(prefill(4096), published) / 4096
    assert per_token == 32 * 126_976 + conv
    # Same-head attention, 2 T^2 d_h per head, and MLA, T^2 (192 + 128): per token and head 2 d_h N
    # and 320 N.
    mla = mixer_cost(spec.mixers["F"], 2304)
    slope = mla.core_flops(prefill(MILLION), published) / MILLION**2 / 32
    assert slope == pytest.approx(320, rel=1e-5)
    assert math.ceil(kda / 256) == 496
    assert math.ceil(kda / slope) == 397


def test_m3_03_block_sparse_attention_flops() -> None:
    spec = load_spec("minimax_m3")
    step, conventions = prefill(MILLION), FlopConventions()
    full, sparse = (
        mixer_cost(spec.mixers[letter], spec.hidden_size).core_flops(step, conventions)
        for letter in "FX"
    )
    assert full / MILLION == pytest.approx(17.18e9, rel=1e-3)
    # The claim's arithmetic lets every query see all 2,048 selected keys; early ones see fewer, and
    # each sees half of its own block: 28.44 becomes 28.54.
    assert full / sparse == pytest.approx(28.44, rel=0.005)


def test_m1_02_softmax_terms_of_the_quadratic_curves() -> None:
    def softmax_term(name: str, layers: int) -> int:
        settings = load_spec(name).mixers["F"]
        key = getattr(settings, "qk_head_dim", None) or settings.head_dim
        value = getattr(settings, "v_head_dim", None) or settings.head_dim
        return layers * settings.num_heads * (key + 2 * value)  # their weight; d_qk + d_v is usual

    layers = {
        n: load_spec(n).layer_letters.count("F")
        for n in ("deepseek_v3", "qwen3_235b", "minimax_m1")
    }
    assert softmax_term("deepseek_v3", layers["deepseek_v3"]) == 61 * 128 * 448
    assert softmax_term("qwen3_235b", layers["qwen3_235b"]) == 94 * 64 * 384
    # The curve counts 8 softmax layers; the configuration has 10.
    assert layers["minimax_m1"] == 10
    assert softmax_term("minimax_m1", 8) == 8 * 64 * 384

    def flops(linear: float, name: str, count: int, tokens: int) -> float:
        return linear * tokens + softmax_term(name, count) / 1e16 * tokens**2

    tokens = 100_000
    r1 = flops(7.5408e-6, "deepseek_v3", 61, tokens)
    assert flops(1.0453e-5, "minimax_m1", 8, tokens) / r1 == pytest.approx(0.292, abs=5e-4)
    assert flops(1.0453e-5, "minimax_m1", 10, tokens) / r1 == pytest.approx(0.304, abs=5e-4)


def test_qn_01_asymptotic_ratios() -> None:
    next_, dense = costs("qwen3_next"), costs("qwen3_32b")
    step, conventions = prefill(1 << 34), FlopConventions()
    ratio = dense.forward_flops(step, conventions) / next_.forward_flops(step, conventions)
    assert ratio == pytest.approx(64 * 64 * 128 / (12 * 16 * 256), rel=1e-3)
    kv = dense.kv_bytes_per_token(BF16) / next_.kv_bytes_per_token(BF16)
    assert kv == pytest.approx(10.667, abs=1e-3)


def test_m01_08_a_million_tokens_fit_eight_80_gb_devices() -> None:
    found, eight_bit = costs("minimax_m1"), Dtypes(weights="int8")
    total = found.weights_bytes(eight_bit) + found.cache_bytes(MILLION, eight_bit)
    assert total / 1e9 == pytest.approx(499.3, abs=0.2)
    assert total < 8 * 80e9
    # At 16 bits they do not.
    assert found.weights_bytes(BF16) > 8 * 80e9


def test_jamba_style_cache_arithmetic() -> None:
    def gib(layers: int, num_heads: int, num_kv_heads: int) -> float:
        settings = settings_class("attention")(
            num_heads=num_heads, num_kv_heads=num_kv_heads, head_dim=128
        )
        return layers * mixer_cost(settings, 4096).cache(BF16).kv_bytes(256 * 1024) / 2**30

    assert gib(4, 32, 8) == 4.0  # Jamba: 4 of 32 layers attend
    assert gib(32, 32, 8) == 32.0  # Mixtral
    assert gib(32, 32, 32) == 128.0  # Llama-2-7B


def test_jamba_01_cache_of_256k_tokens() -> None:
    found = costs("jamba")
    kv_bytes = 256 * 1024 * found.kv_bytes_per_token(BF16)
    assert kv_bytes == 4 * 2**30
    assert found.cache_bytes(256 * 1024, BF16) == kv_bytes + 16_056_320


def test_the_selective_scan_is_counted_or_by_choice_not() -> None:
    cost = mixer_cost(load_spec("jamba").mixers["L"], 4096)
    counted, left_out = FlopConventions(), FlopConventions(selective_scan=False)
    for step in (prefill(1000), decode(1000)):
        scan = cost.core_flops(step, counted) - cost.core_flops(step, left_out)
        assert scan == step.new_tokens * 9 * 8192 * 16


@pytest.mark.parametrize("name", ["nemotron_h_8b", "falcon_h1_34b"])
def test_state_of_a_mamba2_layer_against_the_cache_of_an_attention_layer(
    name: str, models: dict[str, Any]
) -> None:
    spec = load_spec(name)
    state, attention = (
        mixer_cost(spec.mixers[letter], spec.hidden_size).cache(BF16) for letter in "MF"
    )
    assert state.recurrent_bytes == models[name]["recurrent_bytes_per_layer"]
    found = state.state_bytes // attention.bytes_per_token
    assert found == models[name]["crossover_tokens"]


def test_deepseek_v32_adds_only_the_indexers() -> None:
    added = costs("deepseek_v32").parameters.total - costs("deepseek_v3").parameters.total
    assert added == 61 * 13_959_424


@pytest.mark.parametrize("name", spec_names())
def test_prefill_and_decode_add_up(name: str) -> None:
    """Scored pairs of a prefill are those of its tokens one by one, for exact causal mixers."""
    found, conventions = costs(name), FlopConventions()
    for op in found.ops:
        if op.kind == MIXER and op.settings.kind == "attention":
            cost = mixer_cost(op.settings, op.hidden_size)
            whole = cost.core_flops(prefill(300), conventions)
            assert whole == sum(cost.core_flops(decode(n), conventions) for n in range(300))


def test_a_window_bounds_cache_pairs_and_reads() -> None:
    settings = settings_class("attention")(num_heads=4, num_kv_heads=2, head_dim=16, window=10)
    cost, causal = mixer_cost(settings, 64), FlopConventions()
    per_pair = 4 * 4 * 16
    assert cost.core_flops(prefill(25), causal) == per_pair * (sum(range(1, 11)) + 15 * 10)
    assert cost.core_flops(decode(3), causal) == per_pair * 4
    assert cost.core_flops(decode(99), causal) == per_pair * 10
    assert cost.cache(BF16).kv_bytes(1000) == 10 * bytes_of(2 * 2 * 16, "bf16")
    assert cost.cache_read_bytes(decode(99), BF16) == 10 * 128


def test_block_sparse_pairs_against_counting_them() -> None:
    spec = load_spec("minimax_m3_tiny")
    settings = spec.mixers["X"]
    cost, causal = mixer_cost(settings, 64), FlopConventions()
    size, top = settings.block_size, settings.topk_blocks
    for step in (prefill(33), prefill(300), decode(32), decode(255), Step(77, 100)):
        pairs = 0
        for position in range(step.past_tokens, step.total_tokens):
            blocks = min(position // size, top - 1)
            pairs += blocks * size + position % size + 1
        if step.total_tokens <= settings.selected_tokens:
            pairs = step.scored_pairs(causal=True)
        assert cost.attended_pairs(step, causal) == pairs
