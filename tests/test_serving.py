"""Roofline, memory, crossovers, workloads: against arithmetic done by hand here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from shipped import costs

from hybridsim import load_spec
from hybridsim.conventions import FULL_SQUARE, SERVED
from hybridsim.cost.crossover import crossover_tokens, last_crossing, mixing_flops
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.cost.patterns import PatternCosts, PatternPoint
from hybridsim.cost.roofline import fits, largest_batch_size, op_time, step_time
from hybridsim.dtypes import Dtypes
from hybridsim.errors import SpecError
from hybridsim.graph import build_graph
from hybridsim.hardware import Hardware, parse_hardware
from hybridsim.options import option_names, read_option
from hybridsim.profiler.cpu import measure_cpu
from hybridsim.profiler.serving import Serving
from hybridsim.steps import decode, prefill
from hybridsim.workload import parse_workload

H200 = parse_hardware(read_option("hardware", "h200"))
DEVICES = [name for name in option_names("hardware") if name != "cpu"]


@pytest.mark.parametrize("name", DEVICES)
def test_devices_are_complete_and_sourced(name: str) -> None:
    device = parse_hardware(read_option("hardware", name))
    assert device.name == name
    assert {"bf16", "fp32"} <= set(device.peak_flops)
    assert device.sources["peak_flops"]
    assert device.sources["memory"]
    assert 1e13 < device.peak_flops["bf16"] < 1e16
    assert 1e10 < device.memory_bytes < 1e12
    assert 1e11 < device.bandwidth_bytes_per_s < 1e13


def test_this_cpu_is_measured() -> None:
    device = parse_hardware(measure_cpu(read_option("hardware", "cpu")))
    assert 1e8 < device.peak_flops["fp32"] < 1e14
    assert 1e8 < device.bandwidth_bytes_per_s < 1e13
    assert device.memory_bytes > 1e8


def test_the_roofline_is_the_slower_of_compute_and_traffic() -> None:
    found = costs("llama31_8b")
    ffn = next(op for op in found.ops if op.kind == "ffn")
    weights = 3 * 4096 * 14336
    one = op_time(ffn, decode(0), 1, Deployment(), H200)
    activations = (4096 + 2 * 14336) + (14336 + 4096)
    assert one.moved_bytes == 2 * (weights + activations)
    assert one.flops == 2 * weights
    assert one.bound == "bandwidth"
    assert one.latency_s == pytest.approx(one.moved_bytes / 4.8e12)
    many = op_time(ffn, prefill(8192), 1, Deployment(), H200)
    assert many.bound == "compute"
    assert many.latency_s == pytest.approx(2 * weights * 8192 / 989.4e12)


def test_decode_of_a_dense_model_reads_weights_and_cache_once() -> None:
    """Twin of the sum: all weights but unused embedding rows, and the whole cache, from totals."""
    found = costs("llama31_8b")
    moved = found.moved_bytes(decode(8192), 4, Deployment())
    weights = 2 * (found.parameters.total - (128256 - 4) * 4096)
    cache = 4 * 8192 * found.kv_bytes_per_token(Dtypes())
    assert moved == pytest.approx(weights + cache, rel=0.002)
    assert moved > weights + cache


def test_the_linear_state_is_read_and_written() -> None:
    found, dtypes = costs("kimi_linear"), Dtypes()
    n = 100_000
    traffic = found.cache_traffic_bytes(decode(n), dtypes)
    assert traffic == 2 * 43_417_600 + (n + 1) * 8064


def test_kimi_linear_crossovers() -> None:
    found = crossover_tokens(load_spec("kimi_linear"), Deployment(), H200)
    assert found["memory"] == (2_097_152 + 73_728) // 1152 == 1884
    assert found["decode_bytes"] == pytest.approx(2 * 1884.4, abs=2)
    # Kimi Linear's own layers have more weights than MLA, so totals cross later than mixing alone.
    assert found["prefill_flops_mixing"] < found["prefill_flops"]
    assert found["decode_bytes"] < found["decode_latency"]


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("qwen3_next", 1048),
        ("minimax_m1", 1024),
        ("jamba", 140),
        ("ring_mini_linear", 512),
        ("ring_flash_linear", 1024),
    ],
)
def test_published_memory_crossovers(name: str, tokens: int) -> None:
    assert crossover_tokens(load_spec(name), Deployment(), H200)["memory"] == tokens


def test_a_full_model_has_no_crossover_and_sparsity_saves_no_memory() -> None:
    assert set(crossover_tokens(load_spec("qwen3_32b"), Deployment(), H200).values()) == {None}
    sparse = crossover_tokens(load_spec("deepseek_v32"), Deployment(), H200)
    assert sparse["memory"] is None
    assert sparse["decode_bytes"] is not None


def test_last_crossing() -> None:
    assert last_crossing(lambda n: n - 1000) == 1000
    assert last_crossing(lambda n: 1) == 0
    assert last_crossing(lambda n: -1) is None
    assert last_crossing(lambda n: 1 if n < 5 or n > 70_000 else -1) == 70_000
    crossing = crossover_tokens(load_spec("kimi_linear"), Deployment(), H200)["decode_latency"]
    assert crossing is not None
    twin = ModelCosts.of(build_graph(load_spec("kimi_linear").all_full_twin()))
    served = replace(Deployment(), conventions=SERVED)

    def saving(n: int) -> float:
        theirs = step_time(twin.ops, decode(n), 1, served, H200).latency_s
        return theirs - step_time(costs("kimi_linear").ops, decode(n), 1, served, H200).latency_s

    assert saving(crossing) <= 0 < saving(crossing + 1)


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    found, deployment = costs("kimi_linear"), Deployment()
    batch = largest_batch_size(found, 131072, deployment, H200)
    assert fits(found, 131072, batch, deployment, H200)
    assert not fits(found, 131072, batch + 1, deployment, H200)
    activations = found.memory(131072, batch, deployment).activation_bytes
    left = 0.9 * 141e9 - 2 * 49_122_675_072 - activations
    assert batch == int(left / (131072 * 8064 + 43_417_600))
    assert largest_batch_size(costs("deepseek_v3"), 1024, deployment, H200) == 0


def test_devices_add_up_ideally() -> None:
    eight = replace(H200, num_devices=8)
    one = step_time(costs("qwen3_next").ops, decode(4096), 1, Deployment(), H200)
    many = step_time(costs("qwen3_next").ops, decode(4096), 1, Deployment(), eight)
    assert many.latency_s == pytest.approx(one.latency_s / 8)
    assert largest_batch_size(
        costs("deepseek_v3"), 1024, Deployment(), replace(H200, num_devices=16)
    )


def test_a_dtype_without_a_rate_is_an_error() -> None:
    deployment = Deployment(dtypes=Dtypes(weights="fp4", activations="fp4"))
    with pytest.raises(SpecError, match=r"dtypes\.activations=fp4: h200 has no fp4 rate"):
        step_time(costs("kimi_linear").ops, decode(1), 1, deployment, H200)


def test_narrow_weights_save_bytes_not_flops() -> None:
    ops = costs("llama31_8b").ops
    plain, narrow = (
        step_time(ops, prefill(8192), 1, Deployment(dtypes=Dtypes(weights=w)), H200)
        for w in ("bf16", "fp4")
    )
    assert narrow.moved_bytes < plain.moved_bytes
    assert narrow.latency_s == pytest.approx(plain.latency_s, rel=0.02)


def test_what_is_counted_does_not_change_the_time() -> None:
    squares = Deployment(conventions=FULL_SQUARE)
    for deployment in (squares, Deployment()):
        point = Serving(costs("kimi_linear"), deployment, H200).point(65536, 1)
        assert point["prefill"]["latency_s"] == pytest.approx(0.697, abs=1e-3)


@pytest.mark.parametrize("name", ["kimi_linear_tiny", "qwen3_next_tiny", "minimax_m1_tiny"])
@pytest.mark.parametrize("cost", ["prefill_flops", "prefill_flops_mixing"])
def test_padded_prompts_cross_several_times_and_the_last_counts(name: str, cost: str) -> None:
    spec = load_spec(name)
    twin = spec.all_full_twin()
    assert twin is not None
    ours, theirs = (ModelCosts.of(build_graph(s)) for s in (spec, twin))

    def paid(found: ModelCosts, n: int) -> int:
        if cost == "prefill_flops":
            return found.forward_flops(prefill(n), SERVED)
        return mixing_flops(found, n, Deployment())

    dearer = [n for n in range(1, 2000) if paid(ours, n) >= paid(theirs, n)]
    found = crossover_tokens(spec, Deployment(), H200)[cost]
    assert found == max(dearer, default=0)


def test_workload_figures_by_hand() -> None:
    priced = replace(H200, price_usd_per_hour=3.6)
    serving = Serving(costs("kimi_linear"), Deployment(), priced)
    load = parse_workload(read_option("workload", "retrieval_32k"))
    found = serving.workload(load)
    assert found["ttft_s"] == serving.point(32000, 1)["prefill"]["latency_s"]
    steps = [serving.point(32000 + i, 8)["decode"]["latency_s"] for i in range(512)]
    assert found["tpot_s"] == pytest.approx(sum(steps) / 512, rel=1e-9)
    assert found["cost_usd_per_million_tokens"]["output"] == pytest.approx(
        found["tpot_s"] / 8 * 1e6 / 3600 * 3.6
    )
    assert found["output_tokens_per_s"] < found["decode_tokens_per_s"]
    assert serving.workload(load)["provenance"] == "modelled"


def test_patterns_cost_what_their_specs_cost() -> None:
    spec = load_spec("kimi_linear")
    patterns = PatternCosts(
        spec, context_tokens=50_000, batch_size=4, deployment=Deployment(), hardware=H200
    )
    for pattern in ("(LLLF)*6 LLF", "F*27", "L*27", "LF*13 L", "L" * 13 + "F" + "L" * 13):
        found = patterns.evaluate(pattern)
        whole = ModelCosts.of(build_graph(spec.with_patterns(layer_pattern=pattern)))
        serving = Serving(whole, Deployment(), H200).point(50_000, 4)
        wanted: dict[str, Any] = {
            "parameters": whole.parameters.total,
            "active_parameters": whole.parameters.active,
            "kv_bytes_per_token": whole.kv_bytes_per_token(Dtypes()),
            "state_bytes": whole.state_bytes(Dtypes()),
            "cache_bytes": 4 * whole.cache_bytes(50_000, Dtypes()),
            "prefill_flops": serving["prefill"]["flops"],
            "decode_flops": serving["decode"]["flops"],
        }
        for name, value in wanted.items():
            assert getattr(found, name) == value, name
        for part in ("prefill", "decode"):
            assert getattr(found, f"{part}_latency_s") == pytest.approx(serving[part]["latency_s"])
            assert getattr(found, f"{part}_bytes") == pytest.approx(serving[part]["bytes"], abs=1)
    assert len(PatternPoint.__slots__) == 11


def test_patterns_refuse_what_specs_refuse() -> None:
    patterns = PatternCosts(
        load_spec("kimi_linear"),
        context_tokens=8,
        batch_size=1,
        deployment=Deployment(),
        hardware=H200,
    )
    for pattern, message in (
        ("Q*27", "no such letter"),
        ("LF*3", "expands to 6"),
        ("L-", "bad character"),
    ):
        with pytest.raises(SpecError, match=message):
            patterns.evaluate(pattern)


def test_wrong_devices_and_workloads_are_one_line() -> None:
    fields = read_option("hardware", "h200")
    for change, message in (
        ({"peak_flops": {"fp6": 1.0}}, r"hardware\.peak_flops\.fp6=1\.0: no such dtype"),
        (
            {"peak_flops": {"bf16": -1.0}},
            r"hardware\.peak_flops\.bf16=-1\.0: must be a number above 0",
        ),
        ({"memory_bytes": 0}, r"hardware\.memory_bytes=0\.0: must be above 0"),
        (
            {"bandwidth": 1},
            r"hardware\.bandwidth: no such field; did you mean 'bandwidth_bytes_per_s'",
        ),
    ):
        with pytest.raises(SpecError, match=message):
            parse_hardware(fields | change)
    with pytest.raises(SpecError, match=r"hardware=h2000: no such hardware; did you mean 'h200'"):
        read_option("hardware", "h2000")
    with pytest.raises(SpecError, match=r"workload\.context_target=100: must be at least"):
        parse_workload(read_option("workload", "chat") | {"context_target": 100})


def test_hardware_needs_a_positive_price_or_none() -> None:
    with pytest.raises(SpecError, match=r"price_usd_per_hour=-1\.0"):
        parse_hardware(read_option("hardware", "h200") | {"price_usd_per_hour": -1.0})
    assert isinstance(H200, Hardware)
