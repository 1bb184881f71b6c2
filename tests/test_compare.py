"""Comparisons: ratios, whether hybrids pay off, served figures beside predicted ones."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from measured import sweep, write_store
from rich.console import Console
from shipped import costs

from hybridsim import load_spec, profile
from hybridsim.commands.compare import compare
from hybridsim.config import plain
from hybridsim.conventions import SERVED
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import step_time
from hybridsim.errors import HybridsimError
from hybridsim.hardware import parse_hardware
from hybridsim.options import read_option
from hybridsim.paths import CONF_DIR
from hybridsim.profiler.comparison import comparison_document, enough_devices
from hybridsim.profiler.served import read_benchmark, served_record
from hybridsim.report.comparison import comparison_report, flat_rows
from hybridsim.steps import decode, prefill
from hybridsim.workload import parse_workload

QUICK: dict[str, Any] = {"flops": {"count": False}, "contexts": [4096]}
H200 = parse_hardware(read_option("hardware", "h200"))
# Of another name, so that no measured rows are used: times by hand are rooflines.
IDEAL = replace(H200, name="ideal")


def documents(*specs: str, **settings: Any) -> list[dict[str, Any]]:
    return [profile(spec, **{"hardware": IDEAL, **QUICK, **settings}).document for spec in specs]


def test_ratios_are_to_the_first_of_the_same_workload() -> None:
    runs = [
        *documents("kimi_linear", "kimi_linear_mla", workload="chat"),
        *documents("kimi_linear", "kimi_linear_mla", workload="agent_128k"),
    ]
    found = comparison_document(runs)
    assert (found["schema"], found["baseline"]) == ("hybridsim/compare/1", "kimi_linear")
    rows = found["rows"]
    for row in rows[::2]:
        assert {v for v in row["ratios"].values() if v is not None} == {1}
    assert rows[3]["ratios"]["kv_bytes_per_token"] == pytest.approx(27 / 7)
    assert rows[3]["ratios"]["ttft_s"] == rows[3]["ttft_s"] / rows[2]["ttft_s"] > 1
    assert rows[3]["ratios"]["state_bytes_per_sequence"] == 0
    assert rows[1]["ratios"]["output_usd_per_million_tokens"] is None  # no price of an H200
    assert rows[2]["crossover_memory_tokens"] == 1884
    assert found["verdict"] == " ".join(row["verdict"] for row in rows)


def by_hand_s(name: str, batch: int) -> float:
    """A request of agent_128k: its prompt, and its part of 4,096 steps at their mean context."""
    found, deployment = costs(name), Deployment(conventions=SERVED)
    prompt = step_time(found.ops, prefill(120_000), 1, deployment, H200).latency_s
    steps = [
        step_time(found.ops, decode(120_000 + n), batch, deployment, H200).latency_s
        for n in (0, 4095)
    ]
    return prompt + 4096 * sum(steps) / 2 / batch


def test_what_pays_off_is_device_time_of_a_request_at_the_utilisation() -> None:
    (document,) = documents("kimi_linear", workload="agent_128k", utilisation=0.25)
    found, load = document["payoff"], document["workload"]
    assert found["batch_size"] == load["largest_batch_size"] // 4
    twin = parse_workload(read_option("workload", "agent_128k"))
    assert found["twin_batch_size"] < found["batch_size"] / 3
    assert twin.total_tokens == 124_096
    ours = by_hand_s("kimi_linear", found["batch_size"])
    theirs = by_hand_s("kimi_linear_mla", found["twin_batch_size"])
    assert found["device_s_per_request"] == pytest.approx(ours, rel=1e-6)
    assert found["gain"] == pytest.approx(theirs / ours, rel=1e-6)
    assert found["pays_off"] == "yes"


def test_from_which_prompt_on_it_pays_off() -> None:
    """At the crossing the two take the same time; a token further the hybrid takes less."""
    (at_chat,) = documents("kimi_linear", workload="chat")
    crossing = at_chat["payoff"]["from_tokens"]
    assert at_chat["payoff"]["pays_off"] == "no"
    assert crossing > 1024
    chat = read_option("workload", "chat")
    for more, wanted in ((0, "no"), (1, "yes")):
        workload = chat | {"prompt_tokens": crossing + more, "context_target": 1 << 20}
        (found,) = documents("kimi_linear", workload=workload)
        assert found["payoff"]["pays_off"] == wanted
        assert found["payoff"]["from_tokens"] == crossing


def test_its_own_twin_and_models_too_large_say_so() -> None:
    own, large = documents("minimax_m2", "minimax_m1", workload="chat")
    assert own["payoff"]["reason"] == "its own all-full twin"
    assert large["payoff"]["reason"] == "does not fit the device"
    verdicts = [row["verdict"] for row in comparison_document([own, large])["rows"]]
    assert verdicts[0] == "minimax_m2, chat: its own all-full twin."
    assert verdicts[1] == "minimax_m1, chat: does not fit the device."


def test_intervals_of_measured_times_reach_the_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_store(tmp_path, "h200", sweep("kimi_linear"), 0.01)
    monkeypatch.setenv("HYBRIDSIM_MEASUREMENTS", str(tmp_path))
    (document,) = documents("kimi_linear", workload="agent_128k", hardware="h200")
    found = document["payoff"]
    assert found["provenance"] != "modelled"
    assert found["gain_low"] < found["gain"] < found["gain_high"]
    verdict = comparison_document([document])["verdict"]
    assert f"{found['gain']:.2f} ({found['gain_low']:.2f} to {found['gain_high']:.2f})" in verdict


def test_quality_is_that_of_the_last_training_with_the_name() -> None:
    score = {"mean": 0.9, "low": 0.8, "high": 0.95, "seeds": [0.9], "chance": 0.1}
    head = {"schema": "hybridsim/train/1", "proxy": {"name": "quick"}}
    first = {"spec": "kimi_linear", "scores": {"recall": None}, "summary": None}
    last = {
        "spec": {"name": "kimi_linear", "layer_pattern": "(LLLF)*6 LLF"},
        "scores": {"recall": score, "stacks": None},
        "summary": {"mean": 0.9, "low": 0.8, "high": 0.95},
    }
    other = last | {"spec": {"name": "kimi_linear", "layer_pattern": "(F)*"}}
    trained = [head | one for one in (first, last, other)]
    rows = comparison_document(documents("kimi_linear", "kimi_linear_mla"), trained)["rows"]
    assert rows[0]["quality"]["summary"] == last["summary"]
    assert rows[0]["quality"]["scores"]["recall"] == score
    assert rows[1]["quality"] is None
    flat = flat_rows({"rows": rows})
    assert [row["quality"] for row in flat] == [0.9, None]
    shown = StringIO()
    report = comparison_report({"rows": rows})
    Console(file=shown, width=200).print(report)
    assert "0.900 (0.800 to 0.950)" in shown.getvalue()


def test_as_many_devices_as_hold_every_model() -> None:
    specs = [load_spec(name) for name in ("kimi_linear", "minimax_m1")]
    workloads = [parse_workload(read_option("workload", "agent_128k"))]
    found = enough_devices(specs, workloads, H200, Deployment())
    assert found.num_devices == 8  # 912 GB of weights on 141 GB each
    assert enough_devices(specs[:1], workloads, H200, Deployment()) == H200


VLLM = {
    "date": "20261101-120000",
    "backend": "vllm",
    "model_id": "moonshotai/Kimi-Linear-48B-A3B-Instruct",
    "num_prompts": 40,
    "peak_memory_gib": "110.5",
    "request_rate": "inf",
    "max_concurrency": 4,
    "duration": 100.0,
    "completed": 40,
    "total_input_tokens": 40 * 8192,
    "total_output_tokens": 40 * 256,
    "output_throughput": 500.0,
    "mean_ttft_ms": 250.0,
    "median_ttft_ms": 200.0,
    "mean_tpot_ms": 7.0,
    "median_tpot_ms": 6.0,
}
SGLANG = {
    "backend": "sglang",
    "dataset_name": "random",
    "request_rate": "inf",
    "max_concurrency": None,
    "random_input_len": 1024,
    "completed": 8,
    "total_input_tokens": 8 * 1024,
    "total_output_tokens": 8 * 128,
    "output_throughput": 900.0,
    "median_ttft_ms": 80.0,
    "median_tpot_ms": 5.0,
    "concurrency": 7.6,
}


def test_vllm_results_are_set_beside_predictions(tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    file.write_text(json.dumps(VLLM))
    benchmark = read_benchmark(file)
    assert (benchmark.prompt_tokens, benchmark.output_tokens) == (8192, 256)
    assert benchmark.concurrency == 4
    document = profile("kimi_linear", workload=benchmark.workload, **QUICK).document
    figures = served_record(benchmark, document)["figures"]
    assert figures["ttft_s"]["served"] == 0.2
    assert figures["ttft_s"]["predicted"] == document["workload"]["ttft_s"]
    assert figures["ttft_s"]["ratio"] == document["workload"]["ttft_s"] / 0.2 < 1
    assert figures["decode_tokens_per_s"]["served"] == pytest.approx(4 / 0.006)
    assert figures["peak_memory_bytes"]["served"] == 110.5 * (1 << 30)
    assert read_benchmark(file, 120).peak_memory_bytes == 120 * (1 << 30)


def test_sglang_results_are_the_last_line(tmp_path: Path) -> None:
    file = tmp_path / "bench.jsonl"
    file.write_text(json.dumps(SGLANG | {"completed": 1}) + "\n" + json.dumps(SGLANG) + "\n")
    benchmark = read_benchmark(file)
    assert (benchmark.engine, benchmark.completed, benchmark.concurrency) == ("sglang", 8, 8)
    assert benchmark.prompt_tokens == 1024
    assert benchmark.peak_memory_bytes is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is neither a JSON object nor lines of them"),
        ("[1]", "is neither a JSON object"),
        (json.dumps(VLLM | {"completed": 0}), "completed=0: expected a number above 0"),
        (json.dumps({"completed": 1}), "total_input_tokens=None: expected a number above 0"),
        (json.dumps(VLLM | {"peak_memory_gib": "much"}), "peak_memory_gib=much: expected a number"),
    ],
)
def test_wrong_benchmarks_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "bench.json"
    file.write_text(text)
    with pytest.raises(HybridsimError, match=message):
        read_benchmark(file)
    with pytest.raises(HybridsimError, match="cannot be read"):
        read_benchmark(tmp_path / "none.json")


WRONG = {
    "no specs": (["specs=[]"], "specs=[]: give at least one spec"),
    "not a list": (["specs=kimi_linear"], "specs=kimi_linear: expected a list of texts"),
    "unknown spec": (["specs=[kimi_liner]"], "no such spec; did you mean 'kimi_linear'?"),
    "unknown workload": (["workloads=[chta]"], "no such workload; did you mean 'chat'?"),
    "utilisation": (["utilisation=0"], "utilisation=0.0: must be above 0, at most 1"),
    "too many served": (["specs=[gla_tiny]", "served=[a,b]"], "at most one for each of specs"),
    "served nowhere": (["specs=[gla_tiny]", "served=[a.json]"], "served=a.json: cannot be read"),
    "trained nowhere": (["trained=[a.json]"], "trained=a.json: cannot be read"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_comparisons_are_one_line(case: str) -> None:
    overrides, message = WRONG[case]
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        fields = plain(compose("compare", overrides))
    with pytest.raises(HybridsimError) as raised:
        compare({key: fields[key] for key in fields if key not in ("format", "pictures")})
    assert message in str(raised.value)
