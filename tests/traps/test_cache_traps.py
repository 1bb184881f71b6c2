"""Cache and state: what went wrong elsewhere, computed beside what is right.

Sources of the peers' figures: tests/facts/peers.json; of the claims: tests/facts/claims.json.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from shipped import costs

from hybridsim import load_spec
from hybridsim.cost.crossover import crossover_tokens
from hybridsim.cost.op import Deployment
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.hardware import parse_hardware
from hybridsim.mixers import mixer_cost, settings_class
from hybridsim.options import read_option
from hybridsim.steps import decode

BF16 = Dtypes()
MILLION = 1 << 20
H200 = parse_hardware(read_option("hardware", "h200"))


def cached_in_every_layer(layers: int, kv_heads: int, head_dim: int) -> int:
    """Return the bytes a token of a calculator that takes each layer for attention, in bf16."""
    return 2 * layers * kv_heads * head_dim * 2


def test_a_hybrid_is_not_charged_as_if_every_layer_cached(peers: dict[str, Any]) -> None:
    times = peers["every_layer_caches"]["times_the_cache"]
    kimi = cached_in_every_layer(27, 32, 2304 // 32)
    assert kimi / costs("kimi_linear").kv_bytes_per_token(BF16) == pytest.approx(
        times["kimi_linear"][0], abs=0.05
    )
    for head_dim, wanted in zip((2048 // 16, 256), times["qwen3_next"], strict=True):
        theirs = cached_in_every_layer(48, 2, head_dim)
        assert theirs / costs("qwen3_next").kv_bytes_per_token(BF16) == wanted
    # Ours is that of the layers that attend, alone.
    for name in ("kimi_linear", "qwen3_next"):
        spec = load_spec(name)
        layer = mixer_cost(spec.mixers["F"], spec.hidden_size).cache(BF16).bytes_per_token
        assert costs(name).kv_bytes_per_token(BF16) == spec.layer_letters.count("F") * layer


def test_mla_is_not_charged_as_mha(peers: dict[str, Any]) -> None:
    ours = costs("deepseek_v3").kv_bytes_per_token(BF16)
    assert ours == 61 * 2 * (512 + 64)
    theirs = cached_in_every_layer(61, 128, 7168 // 128)
    wanted = peers["mla_cached_as_mha"]["times_the_cache"]["deepseek_v3"]
    assert theirs / ours == pytest.approx(wanted, abs=0.05)


def test_mla_is_not_attention_with_two_heads(peers: dict[str, Any]) -> None:
    theirs = cached_in_every_layer(61, 2, 7168 // 128)
    wanted = peers["mla_cached_as_two_heads"]["times_the_cache"]["deepseek_v3"]
    ours = costs("deepseek_v3").kv_bytes_per_token(BF16)
    assert theirs / ours == pytest.approx(wanted, abs=0.005)


@pytest.mark.parametrize(("name", "kv_heads"), [("qwen3_next", 2), ("qwen3_235b", 4)])
def test_explicit_head_dim_wins(name: str, kv_heads: int) -> None:
    spec = load_spec(name)
    attention = spec.mixers["F"]
    divided = spec.hidden_size // attention.num_heads
    layers = spec.layer_letters.count("F")
    ours = costs(name).kv_bytes_per_token(BF16)
    assert ours == cached_in_every_layer(layers, kv_heads, attention.head_dim)
    assert ours == 2 * cached_in_every_layer(layers, kv_heads, divided)


def test_a_cache_has_bytes_layers_and_shared_heads() -> None:
    """The survey's "batch x n x heads x d x 2" is keys and values of one layer, in elements."""
    spec, n = load_spec("qwen3_next"), 4096
    attention = spec.mixers["F"]
    survey = n * attention.num_heads * attention.head_dim * 2
    ours = costs("qwen3_next").kv_cache_bytes(n, BF16)
    shared = attention.num_kv_heads / attention.num_heads
    assert ours == survey * 2 * spec.layer_letters.count("F") * shared


def test_state_has_its_dtype_conv_and_layers() -> None:
    found = costs("kimi_linear")
    per_layer, conv = 32 * 128 * 128, 3 * 3 * 32 * 128  # kernel - 1 columns of q, k and v
    assert found.state_bytes(BF16) == 20 * (4 * per_layer + 2 * conv)
    survey = 2 * per_layer  # heads x d x d in bf16, of one layer, without the convolution
    assert found.state_bytes(BF16) / survey == pytest.approx(41.4, abs=0.05)
    halved = found.state_bytes(replace(BF16, state="bf16"))
    assert halved == 20 * (2 * per_layer + 2 * conv)


def test_state_does_not_grow_with_the_context() -> None:
    for name in ("kimi_linear", "qwen3_next", "minimax_m1"):
        found = costs(name)
        grown = found.cache_bytes(2 * MILLION, BF16) - found.cache_bytes(MILLION, BF16)
        assert grown == MILLION * found.kv_bytes_per_token(BF16)


def test_three_to_one_is_74_percent_not_75(claims: dict[str, Any]) -> None:
    assert claims["KL-01"]["value"] == "up to 75%"
    ours, twin = costs("kimi_linear"), costs("kimi_linear_mla")
    saved = 1 - ours.kv_bytes_per_token(BF16) / twin.kv_bytes_per_token(BF16)
    assert saved == pytest.approx(20 / 27)  # 20 linear to 7 full layers
    assert round(100 * saved, 1) == 74.1


def test_states_eat_the_saving_at_short_contexts() -> None:
    ours, twin = costs("kimi_linear"), costs("kimi_linear_mla")

    def saved(n: int) -> float:
        return 1 - ours.cache_bytes(n, BF16) / twin.cache_bytes(n, BF16)

    assert saved(1024) < 0 < saved(4096) < 0.41
    assert saved(131072) == pytest.approx(0.730, abs=5e-4)


def test_crossover_in_traffic_is_twice_that_in_memory() -> None:
    """A state is read and written each step, a cache read and one token of it written."""
    for name in ("kimi_linear", "qwen3_next", "minimax_m1"):
        found = crossover_tokens(load_spec(name), Deployment(), H200)
        memory, traffic = found["memory"], found["decode_bytes"]
        assert memory is not None
        assert traffic is not None
        assert traffic == pytest.approx(2 * memory, abs=2)


def test_states_are_written_as_well_as_read() -> None:
    found, n = costs("minimax_m1"), 100_000
    read_only = found.state_bytes(BF16) + n * found.kv_bytes_per_token(BF16)
    traffic = found.cache_traffic_bytes(decode(n), BF16)
    one_token = found.kv_bytes_per_token(BF16)
    assert traffic == read_only + found.state_bytes(BF16) + one_token


@pytest.mark.parametrize(("dtype", "tokens"), [("fp32", 128), ("bf16", 64)])
def test_crossover_depends_on_the_attention_that_is_replaced(dtype: str, tokens: int) -> None:
    """ "Between 1k and 4k tokens" holds for grouped and latent attention, not against plain MHA."""
    linear = settings_class("lightning")(num_heads=32, head_dim=128)
    state = mixer_cost(linear, 4096).cache(replace(BF16, state=dtype)).state_bytes
    for kv_heads, wanted in ((32, tokens), (4, 8 * tokens)):
        full = settings_class("attention")(num_heads=32, num_kv_heads=kv_heads, head_dim=128)
        assert state / mixer_cost(full, 4096).cache(BF16).bytes_per_token == wanted


def test_a_window_stops_growing() -> None:
    found, per_layer = costs("gpt_oss_120b"), cached_in_every_layer(1, 8, 64)
    assert found.kv_bytes_per_token(BF16) == 18 * per_layer  # half of the layers
    assert found.window_bytes(BF16) == 18 * 128 * per_layer
    as_if_full = 131072 * cached_in_every_layer(36, 8, 64)
    assert as_if_full / found.kv_cache_bytes(131072, BF16) == pytest.approx(2, rel=1e-3)
    assert found.kv_cache_bytes(100, BF16) == 100 * 36 * per_layer  # within the window, as full


def test_parallel_layers_cache_like_any_attention() -> None:
    """Attention beside a recurrent mixer keeps its whole cache: no layer ratio shrinks it."""
    found = costs("falcon_h1_34b")
    ours = cached_in_every_layer(72, 4, 128)
    assert found.kv_bytes_per_token(BF16) == ours == 147_456
    per_layer, conv = 32 * 128 * 256, 3 * (4096 + 2 * 2 * 256)
    assert found.state_bytes(BF16) == 72 * (4 * per_layer + 2 * conv)


def test_sparse_attention_saves_no_cache() -> None:
    dense, sparse = (costs(n).kv_bytes_per_token(BF16) for n in ("deepseek_v3", "deepseek_v32"))
    index_key = 128 + 4  # fp8, and an fp32 scale: not 128, nor 256 as in bf16
    assert sparse == dense + 61 * index_key
    spec = load_spec("minimax_m3")
    keys_and_values = cached_in_every_layer(spec.num_layers, 4, 128)
    bf16_index_key = bytes_of(128, "bf16")
    assert costs("minimax_m3").kv_bytes_per_token(BF16) == keys_and_values + 57 * bf16_index_key


def test_sixfold_decoding_is_not_in_the_bytes(claims: dict[str, Any]) -> None:
    """At 1M tokens the bytes allow 27/7; the published 6.24x (KL-02) needs larger batches."""
    data = claims["KL-02"]["data"]
    published = data["mla_ms"][-1] / data["kimi_ms"][-1]
    twin, ours = (
        costs(name).cache_traffic_bytes(decode(MILLION), BF16)
        for name in ("kimi_linear_mla", "kimi_linear")
    )
    assert twin / ours < 27 / 7 < published
    assert published == pytest.approx(6.24, abs=0.01)
