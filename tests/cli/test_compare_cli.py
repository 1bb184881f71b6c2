"""`hybridsim compare` and `hybridsim claims` as processes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pandas as pd
import pytest
from test_cli import ok, only_run, run

SIX = "specs=[kimi_linear,qwen3_next,minimax_m1,minimax_m2,minimax_m3,deepseek_v32]"


def test_six_systems_for_two_workloads_in_one_command(tmp_path: Path) -> None:
    began = time.monotonic()
    done = ok(tmp_path, "compare", SIX, "workloads=[chat,agent_128k]", "format=json")
    assert time.monotonic() - began < 60  # about 7 s of work, however busy the machine
    document = json.loads(done.stdout)
    assert document["schema"] == "hybridsim/compare/1"
    assert document["baseline"] == "kimi_linear"
    rows = document["rows"]
    assert [row["workload"] for row in rows] == ["chat"] * 6 + ["agent_128k"] * 6
    assert {row["num_devices"] for row in rows} == {16}
    assert all(row["fits"] for row in rows)
    assert rows[6]["pays_off"] == "yes"
    assert "kimi_linear, agent_128k: pays off" in document["verdict"]
    folder = only_run(tmp_path, "compare")
    assert json.loads((folder / "comparison.json").read_text()) == document
    table = pd.read_parquet(folder / "comparison.parquet")
    assert table["ratio_parameters"].iloc[1] == pytest.approx(79_674_391_296 / 49_122_675_072)
    assert (folder / "ttft.png").stat().st_size > 10_000


def test_compare_prints_tables_served_figures_and_verdicts(tmp_path: Path) -> None:
    result = {
        "backend": "vllm",
        "completed": 4,
        "max_concurrency": 2,
        "total_input_tokens": 4096,
        "total_output_tokens": 400,
        "output_throughput": 99.0,
        "median_ttft_ms": 50.0,
        "median_tpot_ms": 9.0,
    }
    (tmp_path / "bench.json").write_text(json.dumps(result))
    done = ok(
        tmp_path,
        "compare",
        "specs=[kimi_linear,kimi_linear_mla]",
        "served=[bench.json]",
        "utilisation=0.25",
        "pictures=false",
    )
    for text in ("31,104 (3.86x)", "agent_128k on 1 x h200", "Served against predicted", "peak"):
        assert text in done.stdout
    assert "kimi_linear, agent_128k: pays off" in done.stdout
    assert "at 25% of the largest batch" in " ".join(done.stdout.split())


def test_a_wrong_comparison_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "compare", "specs=[kimi_liner]")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("hybridsim compare: ")
    assert "no such spec; did you mean 'kimi_linear'?" in line
    assert not list(tmp_path.glob("outputs/compare/*"))


def test_claims_as_table_json_and_markdown(tmp_path: Path) -> None:
    document = json.loads(ok(tmp_path, "claims", "format=json").stdout)
    assert document["schema"] == "hybridsim/claims/1"
    assert len(document["claims"]) >= 30
    keys = {"id", "published", "ours", "verdict", "arithmetic", "source"}
    assert all(keys <= set(claim) for claim in document["claims"])
    folder = only_run(tmp_path, "claims")
    assert json.loads((folder / "claims.json").read_text()) == document
    assert len(pd.read_csv(folder / "claims.csv")) > 80
    markdown = ok(tmp_path, "claims", "only=[KL-01,M1-01]", "format=markdown").stdout
    assert markdown.startswith(
        "# Claims of the literature, recomputed\n\n2 claims: 2 contradicted."
    )
    text = ok(tmp_path, "claims", "only=[KL-01]").stdout
    assert "CONTRADICTED" in text
    assert "74.07 %" in text
    wrong = run(tmp_path, "claims", "only=[KL-99]")
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("hybridsim claims: only=KL-99: no such claim")


def test_export_for_vllm_and_the_page(tmp_path: Path) -> None:
    done = ok(tmp_path, "export", "spec=kimi_linear", "target=vllm", "output=config.json")
    assert "vllm serve . --load-format dummy" in done.stdout
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["linear_attn_config"]["full_attn_layers"][-1] == 27
    page = ok(tmp_path, "export", "spec=gla_tiny", "format=markdown", "output=page.md").stdout
    assert page == (tmp_path / "page.md").read_text()
    assert "no config.json: spec=gla_tiny: no family of the reference has all of" in page
    wrong = run(tmp_path, "export", "target=sglang")
    assert wrong.returncode == 1
    assert "target=sglang: no such target (known: transformers, vllm)" in wrong.stderr
