"""The command line as people use it: processes in an empty folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pandas as pd
import pytest
import torch
from measured import sweep, write_store

FAST = ["flops.count=false", "pictures=false", "contexts=[4096]"]


def run(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hybridsim.__main__", *args]
    found = os.environ | {"COLUMNS": "160", **env}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=300, env=found, check=False
    )


def ok(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    done = run(folder, *args, **env)
    assert done.returncode == 0, done.stderr
    return done


def only_run(folder: Path, command: str) -> Path:
    (made,) = (folder / "outputs" / command).iterdir()
    return made


WRONG = {
    "bad letter": (["spec.layer_pattern=(LLQF)*6 LLF"], "letter 'Q' at position 4"),
    "bad character": (["spec.layer_pattern=LL-F"], "bad character '-'"),
    "unbalanced group": (["spec.layer_pattern=(LLLF*6 LLF"], "unbalanced '(' at position 1"),
    "closed too often": (["spec.layer_pattern=LLLF)*6"], "unbalanced ')' at position 5"),
    "length": (["spec.layer_pattern=LLLF*3"], "expands to 12 letters, but num_layers is 27"),
    "empty pattern": (["spec.layer_pattern="], "empty; give one letter a layer"),
    "heads": (
        ["spec=qwen3_next", "spec.mixers.F.num_kv_heads=3"],
        "must be a multiple of num_kv_heads=3",
    ),
    "top-k": (["spec.ffns.E.num_experts_per_tok=300"], "must be at most num_experts=256"),
    "groups": (["spec=deepseek_v3", "spec.ffns.E.topk_groups=9"], "must be at most num_groups=8"),
    "rank 0": (["spec.mixers.F.kv_lora_rank=0"], "kv_lora_rank=0: must be at least 1"),
    "rotary": (["spec=minimax_m1", "spec.mixers.F.rope.rotary_dim=63"], "must be an even number"),
    "unknown spec": (["spec=kimi_liner"], "no such spec; did you mean 'kimi_linear'?"),
    "unknown hardware": (["hardware=h20O"], "no such hardware; did you mean 'h20'?"),
    "unknown workload": (["workload=chta"], "no such workload; did you mean 'chat'?"),
    "unknown key": (["contxts=[1]"], "contxts: no such key"),
    "unknown field": (["+spec.mixers.L.headdim=3"], "no such field; did you mean 'head_dim'?"),
    "unknown kind": (["spec.mixers.L.kind=kdaa"], "no such kind; did you mean 'kda'?"),
    "negative context": (["contexts=[-5]"], "contexts=[-5]: -5 must be at least 1"),
    "not a list": (["contexts=4096"], "expected a list, each an integer"),
    "not an integer": (["spec.hidden_size=wide"], "spec.hidden_size=wide: expected an integer"),
    "not a switch": (["pictures=maybe"], "pictures=maybe: expected true or false"),
    "not YAML": (["spec=broken"], "is not YAML"),
    "not a mapping": (["spec=list"], "must hold a mapping of fields"),
    "missing field": (["spec=part"], "spec.num_layers: missing; give an integer"),
    "dtype": (["dtypes.kv=fp6"], "dtypes.kv=fp6: no such dtype"),
    "not finite": (["hardware.memory_bytes=inf"], "memory_bytes=inf: must be a finite number"),
    "skew": (["routing_skew=nan"], "routing_skew=nan: must be a finite number"),
    "no rate": (["dtypes.activations=fp4", "dtypes.weights=fp4"], "h200 has no fp4 rate"),
    "format": (["format=xml"], "format=xml: no such format (known: json, text)"),
    "batch": (["batch_sizes=[]"], "batch_sizes=[]: give at least one number"),
    "utilization": (["memory_utilization=1.5"], "must be above 0, at most 1"),
    "workload sizes": (
        ["workload.prompt_tokens=9000"],
        "must be at least prompt_tokens + output_tokens",
    ),
    "syntax": (["contexts=[1,2"], "contexts=[1,2: not an override Hydra can read"),
}


@pytest.fixture(scope="module")
def wrong_specs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("specs")
    (folder / "broken.yaml").write_text("name: [broken\n  x: {")
    (folder / "list.yaml").write_text("- 1\n- 2\n")
    (folder / "part.yaml").write_text("name: part\nhidden_size: 64\n")
    return folder


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(name: str, tmp_path: Path, wrong_specs: Path) -> None:
    args, message = WRONG[name]
    done = run(tmp_path, "profile", *FAST[:2], *args, HYBRIDSIM_SPECS=str(wrong_specs))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("hybridsim profile: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr


def test_an_unknown_command_has_a_near_miss(tmp_path: Path) -> None:
    done = run(tmp_path, "profil")
    assert done.returncode == 1
    assert "no command 'profil'; did you mean 'profile'?" in done.stderr


def test_json_is_one_document_and_nothing_else(tmp_path: Path) -> None:
    done = ok(
        tmp_path,
        "profile",
        "spec=kimi_linear",
        "format=json",
        "contexts=[4096]",
        "batch_sizes=[1,8]",
    )
    document = json.loads(done.stdout)
    assert document["parameters"]["total"] == 49_122_675_072
    assert document["flops"]["closed_form"] == document["flops"]["fvcore"]
    assert [point["batch_size"] for point in document["points"]] == [1, 8]
    folder = only_run(tmp_path, "profile")
    assert json.loads((folder / "profile.json").read_text()) == document
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "cache.png",
        "prefill.png",
        "decode.png",
        "breakdown.png",
        "nodes.csv",
        "nodes.parquet",
    }
    nodes = pd.read_parquet(folder / "nodes.parquet")
    assert nodes["parameters"].sum() == 49_122_675_072
    assert len(pd.read_csv(folder / "nodes.csv")) == len(nodes)


def test_the_terminal_report(tmp_path: Path) -> None:
    done = ok(tmp_path, "profile", "spec=kimi_linear", *FAST)
    for text in ("49,122,675,072", "8,064 B", "43,417,600 B", "1,884", "modelled", "Kimi Delta"):
        assert text in done.stdout
    assert "written to outputs" in done.stderr.replace(str(tmp_path) + "/", "")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("measurements")
    write_store(folder, "h800", sweep("kimi_linear"), 0.01)
    return folder


def test_rows_of_the_device_are_used_by_themselves(tmp_path: Path, measured: Path) -> None:
    args = ["profile", "hardware=h800", "flops.count=false", "contexts=[4096,50000,1048576]"]
    rows = {"HYBRIDSIM_MEASUREMENTS": str(measured)}
    document = json.loads(ok(tmp_path, *args, "format=json", **rows).stdout)
    assert document["schema"] == "hybridsim/profile/1"
    for phase in ("prefill", "decode"):
        found = [point[phase] for point in document["points"]]
        wanted = ["measured", "interpolated", "measured"]
        assert [record["provenance"] for record in found] == wanted
        assert all(r["latency_low_s"] < r["latency_s"] < r["latency_high_s"] for r in found)
    folder = only_run(tmp_path, "profile")
    assert (folder / "decode.png").is_file()
    sweep_table = pd.read_csv(folder / "sweep.csv")
    assert sweep_table["twin_decode_provenance"].iloc[0] == "measured"
    text = ok(tmp_path, *args, "pictures=false", **rows).stdout
    assert "M measured, I interpolated, X extrapolated, R modelled" in text
    assert re.search(r"ms M \+-\d+%", text)
    assert "rows of NVIDIA H100 80GB HBM3 (torch 1, 2026-01-01)" in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_measuring_without_the_device_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path, "profile", "measure=true", "hardware=h100", *FAST)
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "hybridsim profile: measure=true: hardware=h100 has to be here, but torch sees no CUDA"
        " device here; hardware=cpu measures this CPU"
    )


def test_measuring_on_the_cpu(tmp_path: Path) -> None:
    args = ["profile", "spec=gla_tiny", "hardware=cpu", "measure=true", "flops.count=false"]
    args += ["contexts=[16,64]", "workload.prompt_tokens=64", "workload.output_tokens=3"]
    args += ["workload.concurrency=2", "pictures=false", "format=json"]
    args += [f"dtypes.{name}=fp32" for name in ("weights", "activations", "kv", "conv_state")]
    done = ok(tmp_path, *args)
    document = json.loads(done.stdout)
    assert {
        p[phase]["provenance"] for p in document["points"] for phase in ("prefill", "decode")
    } == {"measured"}
    assert document["workload"]["provenance"] == "measured"
    assert (tmp_path / "outputs" / "measurements" / "cpu.jsonl").is_file()


def test_every_field_is_an_override(tmp_path: Path) -> None:
    changes = [
        "spec.layer_pattern=(LLLLLLLLF)*3",
        "spec.mixers.L.chunk_size=128",
        "hardware=mi300x",
        "hardware.num_devices=2",
        "dtypes.kv=fp8",
        "workload.concurrency=3",
    ]
    document = json.loads(ok(tmp_path, "profile", *changes, *FAST, "format=json").stdout)
    assert document["spec"]["layer_pattern"] == "LLLLLLLLF" * 3
    assert document["cache"]["kv_bytes_per_token"] == 3 * 576
    assert document["hardware"]["num_devices"] == 2
    assert document["workload"]["concurrency"] == 3
    # Hydra's own quotes, which `quote_patterns` put around the pattern.
    assert document["overrides"][0] == "spec.layer_pattern='(LLLLLLLLF)*3'"


def test_a_users_folder_of_specs(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "sparse.yaml").write_text(
        "defaults: [kimi_linear, _self_]\nname: sparse\nlayer_pattern: L*26 F\n"
    )
    done = ok(tmp_path, "profile", "spec=sparse", *FAST, "format=json", HYBRIDSIM_SPECS=str(folder))
    assert json.loads(done.stdout)["cache"]["kv_bytes_per_token"] == 1152


def test_a_sweep_gathers_one_comparison(tmp_path: Path) -> None:
    done = ok(
        tmp_path,
        "profile",
        "-m",
        "spec=kimi_linear,qwen3_next",
        "workload=chat,agent_128k",
        "format=json",
        "flops.count=false",
        "contexts=[4096]",
    )
    document = json.loads(done.stdout)
    assert document["schema"] == "hybridsim/compare/1"
    pairs = [(row["spec"], row["workload"]) for row in document["rows"]]
    assert pairs == [
        ("kimi_linear", "chat"),
        ("kimi_linear", "agent_128k"),
        ("qwen3_next", "chat"),
        ("qwen3_next", "agent_128k"),
    ]
    folder = only_run(tmp_path, "profile")
    assert (folder / "ttft.png").stat().st_size > 10_000
    assert len(pd.read_parquet(folder / "comparison.parquet")) == 4
    assert (folder / "3" / "profile.json").is_file()


def test_a_failed_job_loses_nothing_of_the_sweep(tmp_path: Path) -> None:
    done = run(tmp_path, "profile", "-m", "spec.vocab_size=100,-1,200", *FAST)
    assert done.returncode == 1
    assert "job 1 failed: spec.vocab_size=-1: must be at least 1" in done.stderr
    assert "Traceback" not in done.stderr
    rows = json.loads((only_run(tmp_path, "profile") / "comparison.json").read_text())["rows"]
    assert len(rows) == 2
    assert [row["overrides"] for row in rows] == ["spec.vocab_size=100", "spec.vocab_size=200"]


def test_a_sweep_by_optuna(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "profile",
        "-m",
        "hydra/sweeper=hybridsim",
        "spec.vocab_size=100,-1,200",
        "hydra.sweeper.objectives={workload.tpot_s:minimize,parameters.total:maximize}",
        'hydra.sweeper.constraints={parameters.total:"<= 50e9"}',
        "format=json",
        *FAST,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert len(document["rows"]) == 2
    (failed,) = document["failed_jobs"]
    assert failed.endswith("spec.vocab_size=-1: must be at least 1")
    trials = pd.read_csv(only_run(tmp_path, "profile") / "trials.csv")
    assert sorted(trials["state"]) == ["complete", "complete", "fail"]
    assert set(trials["spec.vocab_size"]) == {100, -1, 200}
    wrong = run(tmp_path, "profile", "-m", "hydra/sweeper=hybridsim", "workload=chat", *FAST)
    assert wrong.returncode == 1
    assert wrong.stderr.splitlines()[-1].startswith("hybridsim profile: nothing to sweep")


def test_describe(tmp_path: Path) -> None:
    done = ok(tmp_path, "describe", "spec=minimax_m3")
    for text in ("FFFXXX", "block-sparse GQA", "426,174,565,632", "4-60"):
        assert text in done.stdout
    folder = only_run(tmp_path, "describe")
    assert (folder / "graph.svg").read_text().startswith("<svg")
    assert (folder / "graph.mmd").read_text().startswith("flowchart TD")
    svg = ok(tmp_path, "describe", "spec=kimi_linear_tiny", "format=svg").stdout
    assert svg.startswith("<svg")
    mermaid = ok(tmp_path, "describe", "spec=kimi_linear_tiny", "format=mermaid").stdout
    assert "layers_0_mixer_norm --> layers_0_mixers_L" in mermaid


@pytest.mark.parametrize(
    ("args", "forbidden"),
    [
        (["--help"], {"torch", "hydra", "omegaconf"}),
        (["profile", "--help"], {"torch", "pandas", "matplotlib"}),
        (["describe", "--help"], {"torch", "pandas", "matplotlib"}),
        (["compare", "--help"], {"torch", "pandas", "matplotlib"}),
        (["claims", "--help"], {"torch", "pandas", "matplotlib"}),
        (["claims", "only=[KL-01]"], {"torch", "matplotlib"}),
        (["compare", "specs=[gla_tiny]", "pictures=false"], {"torch", "matplotlib"}),
        (["profile", "--cfg", "job"], {"torch", "pandas", "matplotlib"}),
        (["describe", "spec=qwen3_next"], {"torch", "matplotlib"}),
        (["profile", "flops.count=false", "pictures=false"], {"torch", "matplotlib"}),
    ],
)
def test_what_is_not_needed_is_not_imported(
    args: list[str], forbidden: set[str], tmp_path: Path
) -> None:
    script = (
        "import sys; sys.argv = ['hybridsim', *sys.argv[1:]]\n"
        "from hybridsim.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print('IMPORTED', *sorted(m for m in sys.modules if '.' not in m))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    imported = set(done.stdout.rpartition("IMPORTED")[2].split())
    assert imported & forbidden == set()


def test_help_names_commands_groups_and_options(tmp_path: Path) -> None:
    for name in ("describe", "profile", "--multirun"):
        assert name in ok(tmp_path, "--help").stdout
    text = ok(tmp_path, "profile", "--help").stdout
    for name in ("kimi_linear", "h200", "agent_128k", "contexts", "memory_utilization"):
        assert name in text


def test_completion_offers_commands_and_options(tmp_path: Path) -> None:
    def offered(line: str) -> list[str]:
        done = ok(tmp_path, "-sc", "query=bash", COMP_LINE=line, COMP_POINT=str(len(line)))
        return done.stdout.split()

    assert "profile" in offered("hybridsim pro")
    assert "spec=qwen3_next" in offered("hybridsim profile spec=qwen3_n")
    assert "hardware=h200" in offered("hybridsim profile hardware=h2")


def test_installing_brings_no_reference_implementation() -> None:
    asked = [line for line in requires("hybridsim") or [] if line.startswith("transformers")]
    assert asked
    assert all('extra == "dev"' in line.replace("'", '"') for line in asked)


CONFIGS = Path(__file__).parents[1] / "facts" / "configs"


def test_import_writes_a_spec_that_profiles(tmp_path: Path) -> None:
    done = ok(tmp_path, "import", str(CONFIGS / "kimi_linear.json"), "name=mine")
    assert "49,122,675,072" in done.stdout
    assert "(LLLF)*6 LLF" in (tmp_path / "mine.yaml").read_text()
    found = json.loads(ok(tmp_path, "profile", "spec=./mine.yaml", "format=json", *FAST).stdout)
    assert found["parameters"]["total"] == 49_122_675_072
    again = run(tmp_path, "import", str(CONFIGS / "kimi_linear.json"), "name=mine")
    assert again.returncode == 1
    assert "output=mine.yaml: is there already" in again.stderr


def test_import_of_an_edited_config_fails_closed(tmp_path: Path) -> None:
    config = json.loads((CONFIGS / "qwen3_next.json").read_text()) | {"linear_gate_twist": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = run(tmp_path, "import", ".", "name=edited")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "config.linear_gate_twist=2: not a known field" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "edited.yaml").exists()


def test_export_prints_a_config_and_says_what_it_cannot(tmp_path: Path) -> None:
    done = ok(tmp_path, "export", "spec=qwen3_next", "format=json")
    assert json.loads(done.stdout)["architectures"] == ["Qwen3NextForCausalLM"]
    (tmp_path / "config.json").write_text(done.stdout)
    ok(tmp_path, "describe", "spec=./config.json")
    refused = run(tmp_path, "export", "spec=qwen3_next", "spec.mixers.F.window=512")
    assert refused.returncode == 1
    assert "spec.mixers.F.window=512" in refused.stderr


WRONG_CHECKPOINTS = {
    "import nothing": (["import"], "config: missing"),
    "import nowhere": (["import", "nowhere"], "config=nowhere: no such file"),
    "generate nothing": (["generate"], "model: missing"),
    "generate without prompt": (["generate", "model=."], "prompt: missing"),
    "generate nowhere": (["generate", "model=nowhere", "prompt=[1]"], "no such file"),
    "no tokens": (["generate", "model=.", "prompt=[1]", "max_new_tokens=0"], "at least 1"),
    "family": (["export", "family=gpt9"], "config.model_type=gpt9: no such family"),
    "spec by path": (["describe", "spec=./nowhere"], "spec=./nowhere: no such file"),
}


@pytest.mark.parametrize("case", WRONG_CHECKPOINTS)
def test_wrong_checkpoints_are_one_line(case: str, tmp_path: Path) -> None:
    args, message = WRONG_CHECKPOINTS[case]
    done = run(tmp_path, *args)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"hybridsim {args[0]}: ")
    assert message in line
