"""Times, traffic and labels: what went wrong elsewhere, computed beside what is right.

Sources of the peers' figures: tests/facts/peers.json.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from shipped import costs

from hybridsim import load_spec, profile
from hybridsim.cost.crossover import crossover_tokens
from hybridsim.cost.op import Deployment
from hybridsim.hardware import parse_hardware
from hybridsim.options import read_option
from hybridsim.profiler.serving import Serving
from hybridsim.routing import expected_experts
from hybridsim.steps import decode
from hybridsim.workload import parse_workload

H200 = parse_hardware(read_option("hardware", "h200"))
UNCOUNTED = {"flops": {"count": False}}


def labels(found: Any) -> set[str]:
    """Return every value of a key that says where figures come from."""
    if isinstance(found, list):
        return set().union(*map(labels, found))
    if not isinstance(found, dict):
        return set()
    own = {value for key, value in found.items() if key.endswith("provenance")}
    return own.union(*map(labels, found.values()))


def test_extrapolation_is_not_labelled_measured() -> None:
    record = profile(
        "qwen3_next", hardware="h800", workload="million", contexts=[1 << 20], **UNCOUNTED
    )
    document = json.loads(json.dumps(record.document))
    assert document["workload"]["beyond_native_context"] is True
    payoff = document.pop("payoff")  # nothing fits: no figure, so nowhere that it is from
    assert payoff["gain"] is payoff["provenance"] is None
    assert labels(document) == {"modelled", "closed form, exact"}
    assert {row["latency_provenance"] for row in record.nodes} == {"modelled"}
    within = profile("qwen3_next", workload="chat", contexts=[1024], **UNCOUNTED).document
    assert within["workload"]["beyond_native_context"] is False


def test_skewed_routing_touches_fewer_experts() -> None:
    uniform, skewed = (expected_experts(512, 10, 64, skew) for skew in (0.0, 1.0))
    assert skewed < 0.7 * uniform
    moved = [
        costs("qwen3_next").moved_bytes(decode(4096), 64, Deployment(routing_skew=skew))
        for skew in (0.0, 1.0)
    ]
    assert moved[1] < 0.75 * moved[0]


def test_a_batch_touches_more_experts_than_a_token() -> None:
    """Weights read by a batch are not the active parameters of one token."""
    found = costs("qwen3_next")
    one, many = (found.moved_bytes(decode(4096), batch, Deployment()) for batch in (1, 64))
    cache = found.cache_traffic_bytes(decode(4096), Deployment().dtypes)
    as_if_active_only = one + 63 * cache
    assert many > 5 * as_if_active_only
    assert expected_experts(512, 10, 64) == pytest.approx(512 * (1 - (1 - 10 / 512) ** 64))


def test_waiting_is_not_in_the_time_to_first_token() -> None:
    fields = read_option("workload", "retrieval_32k")
    serving = Serving(costs("kimi_linear"), Deployment(), H200)
    alone, crowded = (
        serving.workload(parse_workload(fields | {"concurrency": c})) for c in (1, 64)
    )
    assert alone["ttft_s"] == crowded["ttft_s"]
    assert alone["tpot_s"] < crowded["tpot_s"]


@pytest.mark.parametrize("name", ["h100", "h200"])
def test_rates_with_sparsity_are_not_taken_for_dense_ones(name: str, peers: dict[str, Any]) -> None:
    sparse = peers["nvidia_bf16_with_sparsity"][name]
    device = parse_hardware(read_option("hardware", name))
    assert device.peak_flops["bf16"] == pytest.approx(sparse / 2, rel=1e-3)
    assert device.peak_flops["fp8"] == pytest.approx(sparse, rel=1e-3)


def test_weights_hide_the_crossover() -> None:
    """Cache and state alone cross at 3,767 tokens; the step that a user waits for, far later."""
    found = crossover_tokens(load_spec("kimi_linear"), Deployment(), H200)
    assert found["decode_bytes"] == pytest.approx(3768, abs=2)
    assert found["decode_latency"] is not None
    assert found["decode_latency"] > 5 * found["decode_bytes"]


def test_a_state_dtype_is_a_choice_that_shows() -> None:
    """fp32 states double what bf16 ones take; the record says which was meant."""
    narrow = {"state": "bf16"}
    wide, half = (
        profile("qwen3_next", contexts=[1024], dtypes=dtypes, **UNCOUNTED).document["cache"]
        for dtypes in ({}, narrow)
    )
    assert (wide["state_dtype"], half["state_dtype"]) == ("fp32", "bf16")
    conv = 36 * 3 * 8192 * 2
    recurrent = [cache["state_bytes_per_sequence"] - conv for cache in (wide, half)]
    assert recurrent[0] == 2 * recurrent[1] == 36 * 32 * 128 * 128 * 4


def test_what_does_not_fit_is_said_not_to_fit() -> None:
    """A time on a device that cannot hold the model stands beside `fits: false`."""
    serving = Serving(costs("deepseek_v3"), Deployment(), H200)
    assert serving.point(4096, 1)["memory"]["fits"] is False
    sixteen = Serving(costs("deepseek_v3"), Deployment(), replace(H200, num_devices=16))
    assert sixteen.point(4096, 1)["memory"]["fits"] is True
