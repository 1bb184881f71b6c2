"""How far a proxy can be trusted is said wherever its scores are shown."""

from __future__ import annotations

import io
import json
import math
import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from report_records import write_validation
from rich.console import Console
from test_proxy_quality import FakeRun

from hybridsim import load_spec
from hybridsim.errors import HybridsimError
from hybridsim.options import read_option
from hybridsim.paths import CONF_DIR
from hybridsim.report.html import reliability as page
from hybridsim.report.html.runs import Run, find_runs
from hybridsim.report.html.sections import builders, sections
from hybridsim.report.html.study import command
from hybridsim.train import reliability
from hybridsim.train.arena import PATTERNS
from hybridsim.train.proxy import load_proxy
from hybridsim.train.reliability import VERDICTS, Finding, document_of, summary_line
from search.answer import of_proxies
from search.notebook import load_study
from search.report import report
from search.run import open_search

FIGURES = {
    "retest": "test-retest Kendall tau 0.91 between means of 3 seeds (made up)",
    "budget": "rank correlation 0.88 with 4x the steps over 20 patterns (made up)",
}


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Ship a made-up record of the quick proxy, as large as a validation's own."""
    findings = [Finding(name, "?", VERDICTS[0], text) for name, text in FIGURES.items()]
    findings += [
        Finding(f"X-{n}", "?", VERDICTS[1 + n % 2], "; ".join(f"{p} 0.50" for p in PATTERNS))
        for n in range(11)
    ]
    more = {"device": "a made-up device", "ledgers": [{"tokens": n} for n in range(2000)]}
    document = document_of("quick", findings, **more)
    monkeypatch.setattr(reliability, "DATA_DIR", tmp_path)
    (tmp_path / "reliability_quick.json").write_text(json.dumps(document))
    return document


def test_the_line_says_which_settings_are_not_the_validated_ones(
    record: dict[str, Any], tmp_path: Path
) -> None:
    proxy = replace(load_proxy("quick"), grid=True)
    record["settings"] = asdict(replace(proxy, grid=True))
    (tmp_path / "reliability_quick.json").write_text(json.dumps(record))
    plain = summary_line("quick")
    for same in (proxy, proxy.only(("recall",)), replace(proxy, workers=1)):
        assert summary_line("quick", asdict(same)) == plain
    longer = replace(proxy, training=replace(proxy.training, steps=1000), seeds=5)
    found = summary_line("quick", asdict(longer))
    assert "(a made-up device, measured with other training and seeds): " in found
    unmeasured = summary_line("quick", asdict(replace(proxy, grid=False)))
    assert "measured with other learning rates (proxy.grid=true measures them)): " in unmeasured
    harder = {**proxy.tasks, "recall": {**proxy.tasks["recall"], "num_pairs": 8}}
    counted = asdict(replace(proxy, speed_tasks=()))
    assert "(a made-up device, measured with other tasks): " in summary_line("quick", counted)
    other = asdict(replace(proxy, tasks=harder))
    assert "(a made-up device, measured with other tasks): " in summary_line("quick", other)
    assert "(a made-up device, at its own pressure): " in summary_line("quick", other, True)


def test_the_shipped_validation_is_of_the_shipped_settings() -> None:
    """But for the steps of the task that does not count, 400 then, and the learning rates."""
    proxy = replace(load_proxy("quick"), grid=True)
    assert "(NVIDIA H200, measured with other speed tasks): " in summary_line(
        "quick", asdict(proxy)
    )
    fuzzy = proxy.tasks["fuzzy_recall"]
    training = {name: value for name, value in fuzzy["training"].items() if name != "steps"}
    then = replace(proxy, tasks={**proxy.tasks, "fuzzy_recall": {**fuzzy, "training": training}})
    for same in (then, proxy.only(proxy.counted_tasks())):
        assert summary_line("quick", asdict(same)) == summary_line("quick")


def test_an_order_of_nothing_but_ties_is_no_number() -> None:
    finding = Finding(
        "retest", "?", VERDICTS[1], "-", {"rho": math.nan, "each": {"10x": [1.0, -math.inf]}}
    )
    (found,) = document_of("quick", [finding])["findings"]
    assert found["values"] == {"rho": None, "each": {"10x": [1.0, None]}}


def test_the_line_has_counts_and_the_two_figures_that_matter(record: dict[str, Any]) -> None:
    line = summary_line("quick")
    assert line == (
        "reliability of the proxy quick (a made-up device): 2 reproduced, 6 not reproduced,"
        f" 5 not resolved; {FIGURES['retest']}; {FIGURES['budget']}"
    )


def test_a_record_of_other_checks_has_its_counts(record: dict[str, Any], tmp_path: Path) -> None:
    some = document_of("quick", [Finding("SYS-01", "?", VERDICTS[0], "-")], device="x")
    (tmp_path / "reliability_quick.json").write_text(json.dumps(some))
    assert summary_line("quick").endswith("(x): 1 reproduced, 0 not reproduced, 0 not resolved")


def test_without_a_record_it_was_not_measured(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(reliability, "DATA_DIR", tmp_path)
    wanted = "of the proxy deep: not measured; hybridsim validate proxy=deep does it"
    assert summary_line("deep").endswith(wanted)


@pytest.mark.usefixtures("record")
def test_a_study_of_proxies_says_it_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridsim.train.run.ProxyRun", FakeRun)
    document = searched(tmp_path, monkeypatch, "proxy", ["quick", "standard", "deep"], trials=3)
    used = [row["fidelity"] for row in document["ledger"] if row["trials"]]
    assert used == ["quick", "standard", "deep"]
    assert document["reliability"] == [summary_line(name) for name in used]
    assert FIGURES["retest"] in document["reliability"][0]
    assert "not measured" in document["reliability"][-1]
    printed = shown(document)
    assert all(line in printed for line in document["reliability"])
    line = "pressure on the state, quick: recall asks 2; agent_128k asks 2 of kimi_linear"
    assert [pressure["proxy"] for pressure in document["pressure"]] == used
    assert line in printed
    view = load_study("tried")._repr_html_()
    assert line in view
    assert FIGURES["budget"] in view
    (run,) = find_runs([tmp_path / "studies/tried"], builders())
    (section,) = sections([run])
    assert any(FIGURES["budget"] in line for line in section.lead)
    assert tuple(line.split(": ", 1)) in section.facts


def test_only_proxies_that_trained_something_are_told_of() -> None:
    names = ("quick", "standard", "deep")
    quality = SimpleNamespace(reliability=lambda fidelity: names[fidelity])
    evaluator: Any = SimpleNamespace(trained=["quality"], quality=quality)
    tried: Any = [SimpleNamespace(fidelity=fidelity) for fidelity in (2, 0, 0)]
    assert of_proxies(evaluator, tried, lambda q, n: q.reliability(n)) == ["quick", "deep"]


@pytest.mark.usefixtures("record")
def test_a_study_keeps_the_pressure_it_was_made_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridsim.train.run.ProxyRun", FakeRun)
    made = searched(tmp_path, monkeypatch, "proxy", ["quick"], pressure="workload")
    again = searched(tmp_path, monkeypatch, "proxy", ["quick"], trials=3)
    for document in (made, again):
        assert document["pressure"][0]["tasks"] == {"recall": 2.0}
        assert "(a made-up device, at its own pressure)" in document["reliability"][0]
    with pytest.raises(HybridsimError, match="was made with pressure=workload, not 4"):
        searched(tmp_path, monkeypatch, "proxy", ["quick"], pressure=4)
    (run,) = find_runs([tmp_path / "studies/tried"], builders())
    assert " quality=proxy pressure=workload seed=0 " in command(run)


@pytest.mark.usefixtures("record")
def test_a_study_does_not_go_on_with_other_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridsim.train.run.ProxyRun", FakeRun)
    searched(tmp_path, monkeypatch, "proxy", ["quick"])
    searched(tmp_path, monkeypatch, "proxy", ["quick"], trials=3)
    longer = load_proxy("quick", ["training.steps=500"])
    monkeypatch.setattr("search.proxy_quality.load_proxy", lambda name: longer)
    told = "study=tried: was made with other settings of its proxies quick; give another study=NAME"
    with pytest.raises(HybridsimError, match=told):
        searched(tmp_path, monkeypatch, "proxy", ["quick"], trials=4)


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize(
    ("quality", "objectives"),
    [("surrogate", ["decode_latency", "quality"]), ("proxy", ["decode_latency", "cache_bytes"])],
)
def test_without_trainings_there_is_nothing_to_trust(
    quality: str, objectives: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = searched(tmp_path, monkeypatch, quality, ["quick"], objectives=objectives)
    assert document["reliability"] == document["pressure"] == []
    assert "reliability" not in shown(document)


def searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quality: str, fidelities: list[str],
    objectives: tuple[str, ...] | list[str] = ("decode_latency", "quality"), trials: int = 2,
    pressure: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the document of a small study with its folder written."""
    monkeypatch.setenv("HYBRIDSIM_STUDIES", str(tmp_path / "studies"))
    fields = {
        **{key: read_option(key, name) for key, name in
           {"workload": "agent_128k", "hardware": "h200", "space": "placement"}.items()},
        "sampler": {"kind": "random"}, "dtypes": {}, "objectives": objectives, "quality": quality,
        "pressure": pressure, "fidelities": fidelities, "device": "cpu", "storage": None,
        "study": "tried",
    }  # fmt: skip
    overrides = [] if pressure is None else [f"pressure={pressure}"]
    search = open_search(load_spec("kimi_linear"), fields, 0, overrides)
    document = search.run(trials, 1, baselines=False)
    search.write(document, pictures=False)
    return document


def shown(document: dict[str, Any]) -> str:
    console = Console(width=1000, record=True, file=io.StringIO())
    console.print(report(document))
    return console.export_text()


def test_records_are_in_the_wheel() -> None:
    """The wheel has every file of the package that git does not ignore."""
    name = "hybridsim/train/data/reliability_quick.json"
    root = CONF_DIR.parent
    if not (root / ".git").exists():
        pytest.skip("not a checkout")
    ignored = subprocess.run(["git", "check-ignore", "-q", name], cwd=root, check=False)
    assert ignored.returncode == 1


def test_the_page_of_a_validation_says_what_it_did_not_measure(tmp_path: Path) -> None:
    write_validation(tmp_path / "whole")
    document = json.loads((tmp_path / "whole" / "validate.json").read_text())
    leads = [
        page.section(Run(tmp_path, {**document, **more})).lead
        for more in ({}, {"not_measured": ["budget", "ZOO-03"]})
    ]
    assert [len(lead) for lead in leads] == [1, 2]
    assert leads[1][1] == "Not measured: budget, ZOO-03."
