"""The record of a profile: its contract, and that every figure is labelled."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hybridsim import profile
from hybridsim.errors import SpecError

UNMEASURED = "h800"  # a device of which no rows are shipped
CONTRACT: dict[str, Any] = {
    "spec": ("name", "layer_pattern", "num_layers", "native_context"),
    "parameters": (
        "total",
        "active",
        "active_excluding_input_embedding",
        "active_excluding_embeddings",
    ),
    "cache": ("kv_bytes_per_token", "state_bytes_per_sequence", "kv_dtype", "state_dtype"),
    "flops": ("prompt_tokens", "closed_form", "fvcore", "flop_counter", "conventions"),
    "crossover_tokens": ("memory", "decode_bytes", "prefill_flops", "decode_latency"),
    "workload": ("ttft_s", "tpot_s", "provenance"),
    "hardware": ("name", "sources"),
    "versions": ("hybridsim", "torch", "fvcore"),
}
POINT: dict[str, Any] = {
    "prefill": ("flops", "bytes", "latency_s", "provenance"),
    "decode": ("flops", "bytes", "latency_s", "tokens_per_s", "provenance"),
    "memory": (
        "weights_bytes",
        "kv_cache_bytes",
        "state_bytes",
        "activation_bytes",
        "total_bytes",
        "fits",
    ),
}


@pytest.fixture(scope="module")
def found() -> Any:
    return profile("kimi_linear", hardware=UNMEASURED, contexts=[4096, 131072], batch_sizes=[1, 8])


def test_the_contract(found: Any) -> None:
    document = json.loads(json.dumps(found.document, allow_nan=False))
    assert document["schema"] == "hybridsim/profile/1"
    for part, keys in CONTRACT.items():
        assert set(keys) <= set(document[part]), part
    assert len(document["points"]) == 4
    for point in document["points"]:
        assert {"context_tokens", "batch_size"} <= set(point)
        for part, keys in POINT.items():
            assert set(keys) <= set(point[part]), part


def test_kimi_linears_own_figures(found: Any) -> None:
    document = found.document
    assert document["spec"]["layer_pattern"] == "LLLF" * 6 + "LLF"
    assert document["spec"]["all_full_twin"] == "F" * 27
    assert document["parameters"]["total"] == 49_122_675_072
    assert document["cache"]["kv_bytes_per_token"] == 8064
    assert document["cache"]["state_bytes_per_sequence"] == 43_417_600
    flops = document["flops"]
    assert flops["closed_form"] == flops["fvcore"] == flops["flop_counter"]
    assert flops["full_square"]["closed_form"] == flops["full_square"]["flop_counter"]
    assert flops["full_square"]["closed_form"] == pytest.approx(28.242e12, rel=0.005)


def test_memory_adds_up_and_every_time_is_modelled(found: Any) -> None:
    for point in found.document["points"]:
        memory, batch = point["memory"], point["batch_size"]
        parts = ("weights_bytes", "kv_cache_bytes", "state_bytes", "activation_bytes")
        assert memory["total_bytes"] == sum(memory[part] for part in parts)
        assert memory["kv_cache_bytes"] == batch * point["context_tokens"] * 8064
        assert memory["state_bytes"] == batch * 43_417_600
        assert point["prefill"]["provenance"] == point["decode"]["provenance"] == "modelled"
        assert point["decode"]["tokens_per_s"] == batch / point["decode"]["latency_s"]


def test_tables_add_up_to_the_totals(found: Any) -> None:
    document = found.document
    for rows in (found.nodes, document["kinds"]):
        assert sum(row["parameters"] for row in rows) == document["parameters"]["total"]
        assert sum(row["kv_bytes_per_token"] for row in rows) == 8064
        assert sum(row["state_bytes"] for row in rows) == 43_417_600
    ttft = sum(row["prefill_latency_s"] for row in found.nodes)
    assert ttft == pytest.approx(document["workload"]["ttft_s"])
    assert all(row["latency_provenance"] == "modelled" for row in found.nodes)
    assert [row["twin_cache_bytes_per_sequence"] for row in found.sweep] == [
        n * 27 * 1152 for n in (4096, 4096, 131072, 131072)
    ]


def test_overrides_are_applied_and_recorded() -> None:
    document = profile(
        "qwen3_next",
        overrides=["mixers.L.chunk_size=32"],
        hardware="cpu",
        workload="million",
        contexts=[1024],
        flops={"count": False},
        dtypes={"kv": "fp8", "state": "bf16"},
    ).document
    assert document["overrides"] == ["mixers.L.chunk_size=32"]
    assert document["spec"]["fields"]["mixers"]["L"]["chunk_size"] == 32
    assert document["flops"]["fvcore"] is None
    assert document["cache"]["kv_bytes_per_token"] == 24_576 // 2
    assert document["hardware"]["name"] == "cpu"


def test_published_formulas_are_not_counted_against_other_products() -> None:
    flops = profile(
        "kimi_linear", contexts=[1024], conventions={"linear_attention": "published"}
    ).document["flops"]
    assert flops["fvcore"] is None
    assert flops["conventions"]["linear_attention"] == "published"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"contexts": [-5]}, r"contexts=\[-5\]: -5 must be at least 1"),
        ({"contexts": 4096}, r"contexts=4096: expected a list, each an integer"),
        ({"context": [1]}, r"context: no such field; did you mean 'contexts'"),
        ({"dtypes": {"kv": "fp6"}}, r"dtypes\.kv=fp6: no such dtype"),
        ({"conventions": {"logits": "some"}}, r"conventions\.logits=some: no such choice"),
        ({"flops": {"prompt_tokens": 0}}, r"flops\.prompt_tokens=0: must be at least 1"),
        ({"memory_utilization": 0}, r"memory_utilization=0\.0: must be above 0"),
    ],
)
def test_wrong_settings_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        profile("kimi_linear", **settings)


def test_a_model_without_attention_has_no_twin() -> None:
    document = profile(
        "kimi_linear",
        overrides=["layer_pattern=L*27", "~mixers.F"],
        contexts=[4096],
        flops={"count": False},
    ).document
    assert document["spec"]["all_full_twin"] is None
    assert document["crossover_tokens"]["memory"] is None
    assert document["cache"]["kv_bytes_per_token"] == 0


def test_a_windowed_model_is_compared_with_its_unwindowed_self() -> None:
    document = profile(
        "qwen3_32b",
        overrides=["mixers.F.window=4096"],
        contexts=[4096],
        flops={"count": False},
    ).document
    assert document["cache"]["kv_bytes_per_token"] == 0
    assert document["cache"]["window_bytes_per_sequence"] == 4096 * 262_144
    assert document["crossover_tokens"]["memory"] == 4096
