"""A report of every kind of record: its files, and its page in a browser."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from browser import Watched
from report_records import write_claims, write_study, write_training, write_validation

from hybridsim.errors import HybridsimError
from hybridsim.report.html.page import MAX_BYTES
from hybridsim.report.html.runs import find_runs
from hybridsim.report.html.sections import builders, sections
from hybridsim.report.html.study_rows import StudyRows

TRIALS = 2000
LOAD_MS = 1000
NAVIGATION = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def command(folder: Path, *args: str) -> str:
    line = [sys.executable, "-m", "hybridsim.__main__", *args]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    write_study(made / "outputs/studies/made_up", TRIALS)
    write_training(made / "outputs/train/one")
    write_validation(made / "outputs/validate/one")
    write_claims(made / "outputs/claims/one")
    fast = ["flops.count=false", "pictures=false", "contexts=[1024,65536,1048576]"]
    command(made, "profile", "spec=kimi_linear", "workload=agent_128k", *fast)
    command(made, "profile", "-m", "spec=kimi_linear,qwen3_next", *fast[:2], "contexts=[4096]")
    return made


@pytest.fixture(scope="module")
def report(folder: Path) -> dict[str, Any]:
    out = command(folder, "report", "outputs", "explore=[qwen3_next]", "format=json")
    document: dict[str, Any] = json.loads(out)
    return document


@pytest.fixture(scope="module")
def watched(browser: Any) -> Watched:
    return Watched(browser)


@pytest.fixture(scope="module")
def url(folder: Path, report: dict[str, Any]) -> str:
    return (folder / report["html"]).as_uri()


def test_the_record_says_what_is_in_it(report: dict[str, Any]) -> None:
    kinds = [section["id"].split("-")[1] for section in report["sections"]]
    assert sorted(kinds) == ["claims", "compare", "profile", "search", "train", "validate"]
    assert report["explored"][:1] == ["kimi_linear"]
    assert "qwen3_next" in report["explored"]
    assert report["bytes"] < MAX_BYTES
    lines = [run["command"] for run in report["runs"]]
    assert any(line.startswith("hybridsim profile spec=kimi_linear workload=") for line in lines)
    assert any(
        line.startswith("hybridsim profile -m spec=kimi_linear,qwen3_next") for line in lines
    )


def test_every_figure_and_table_is_a_file_too(folder: Path, report: dict[str, Any]) -> None:
    root = (folder / report["html"]).parent
    figures = [name for section in report["sections"] for name in section["figures"]]
    tables = [name for section in report["sections"] for name in section["tables"]]
    assert len(figures) >= 12
    for name in figures:
        for end in ("png", "svg", "json"):
            assert (root / f"{name}.{end}").stat().st_size > 500, name
    for name in tables:
        assert len(pd.read_csv(root / f"{name}.csv")) == len(
            pd.read_parquet(root / f"{name}.parquet")
        )


def test_the_page_is_quick_quiet_and_alone(watched: Watched, url: str) -> None:
    times = []
    for _ in range(5):
        opened = watched.open(url)
        times.append(opened.evaluate(NAVIGATION))
    opened.wait_for_selector("html[data-drawn]", state="attached")
    assert min(times) < LOAD_MS
    assert watched.complaints == []
    assert all(one.startswith(("file:", "data:")) for one in watched.requests)


def test_every_figure_is_drawn(watched: Watched, url: str, report: dict[str, Any]) -> None:
    opened = watched.open(url)
    opened.wait_for_selector("html[data-drawn]", state="attached")
    files_only = {"pareto"}
    for section in report["sections"]:
        for name in section["figures"]:
            if name.split("/")[1] in files_only:
                continue
            marks = opened.locator(f"[id='figure-{name}'] svg").first
            assert marks.locator("path, rect").count() >= 3, name
    for section in report["sections"]:
        assert opened.locator(f"section[id='{section['id']}'] table.data").count() >= 1
    assert watched.complaints == []


def test_the_reader_chooses_axes(watched: Watched, url: str) -> None:
    opened = watched.open(f"{url}?axes")
    figure = opened.locator("figure[id$='/pareto']")
    before = figure.locator("svg").first.get_attribute("aria-label")
    opened.select_option("select[name='x axis']", "cache_bytes")
    after = figure.locator("svg").first.get_attribute("aria-label")
    assert "decode latency" in before
    assert "cache bytes" in after
    assert "pareto." in opened.evaluate("location.hash")
    points = figure.locator("svg path[d^='M']").count()
    opened.uncheck("input[name=dominated]")
    assert figure.locator("svg path[d^='M']").count() < points / 10
    # The address keeps the choice.
    opened.reload()
    opened.wait_for_selector("html[data-ready]", state="attached")
    assert "cache bytes" in figure.locator("svg").first.get_attribute("aria-label")
    assert watched.complaints == []


def test_keys_go_along_the_frontier(watched: Watched, url: str) -> None:
    opened = watched.open(f"{url}?keys")
    drawing = opened.locator("figure[id$='/pareto'] svg").first
    drawing.focus()
    told = []
    for _ in range(3):
        opened.keyboard.press("ArrowRight")
        told.append(opened.locator("figure[id$='/pareto'] .tip").text_content())
    assert len(set(told)) == 3
    assert all("full layers" in text and "made up" in text for text in told)
    assert opened.locator("figure[id$='/pareto'] .tip .strip rect").count() == 27
    opened.keyboard.press("Escape")
    assert opened.locator("figure[id$='/pareto'] .tip").count() == 0


def test_a_phone_has_no_sideways_scroll(browser: Any, url: str) -> None:
    phone = Watched(browser, width=390, height=800)
    opened = phone.open(url)
    opened.wait_for_selector("html[data-drawn]", state="attached")
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    assert phone.complaints == []


def test_tables_sort_and_narrow_down(watched: Watched, url: str) -> None:
    opened = watched.open(f"{url}?tables")
    table = opened.locator("[id$='/sweep']")
    table.get_by_role("button", name="decode step").click()
    table.get_by_role("button", name="decode step").click()
    assert "1M" in table.locator("tbody tr").first.text_content()
    opened.locator("details summary", has_text="All candidates").click()
    trials = opened.locator("[id$='/pareto-trials']")
    assert trials.locator("tbody tr").count() == 15
    trials.get_by_role("button", name="Show all").click()
    assert trials.locator("tbody tr").count() == TRIALS


def test_a_frontier_of_many_trials_is_thinned_but_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hybridsim.report.html.study_rows.MAX_TRIALS", 100)
    document = write_study(tmp_path / "study", 300)
    (run,) = find_runs([tmp_path / "study"], builders())
    study = StudyRows(run)
    shown = study.thinned()
    assert len(shown) == 100 < len(study.trials)
    assert {r["trial"] for r in document["frontier"]} <= {r["trial"] for r in shown}
    (section,) = sections([run])
    assert "are in the CSV only" in section.data()["pareto"]["note"]


def test_text_from_records_is_text(tmp_path: Path) -> None:
    """What a record says is never read as HTML."""
    document = write_training(tmp_path / "train")
    document["device"] = "</script><script>alert(1)</script>"
    (tmp_path / "train/train.json").write_text(json.dumps(document))
    command(tmp_path, "report", "train", "explore=[]", "pictures=false", "output=r.html")
    text = (tmp_path / "r.html").read_text()
    assert "</script><script>alert" not in text
    assert text.count("</script>") == 2


WRONG = {
    "missing": (["nowhere"], "runs=nowhere: no such folder or file"),
    "empty": (["empty"], "no record of a run there (known: claims, compare"),
    "broken": (["broken"], "cannot be read as JSON"),
    "list": (["runs=abc"], "runs=abc: expected a list"),
    "there": (["output=there.html", "explore=[]"], "is there already; overwrite=true replaces it"),
    "spec": (["explore=[kimi_liner]"], "did you mean 'kimi_linear'?"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/profile.json").write_text("{")
    (tmp_path / "there.html").write_text("mine")
    args, message = WRONG[name]
    line = [sys.executable, "-m", "hybridsim.__main__", "report", *args]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "there.html").read_text() == "mine"


def test_a_real_search_is_reported(watched: Watched, tmp_path: Path) -> None:
    asked = ["workload=agent_128k", "trials=24", "quality=surrogate", "pictures=false"]
    command(tmp_path, "search", "study=real", "base=kimi_linear", *asked)
    out = command(tmp_path, "report", "outputs/studies/real", "explore=[]", "format=json")
    document = json.loads(out)
    (section,) = document["sections"]
    found = json.loads((tmp_path / "outputs/studies/real/frontier.json").read_text())
    assert document["explored"] == ["kimi_linear"]
    assert document["runs"][0]["command"].startswith("hybridsim search study=real spec=kimi_linear")
    names = {name.split("/")[1] for name in (*section["figures"], *section["tables"])}
    assert names >= {"pareto", "hypervolume", "frontier", "trials", "gains", "ledger"}
    opened = watched.open((tmp_path / document["html"]).as_uri())
    opened.wait_for_selector("html[data-drawn]", state="attached")
    rows = opened.locator("[id$='/frontier'] tbody tr")
    assert rows.count() == min(15, len(found["frontier"]))
    assert rows.first.locator(".strip rect").count() == 27
    drawn = opened.locator("figure[id$='/pareto']").text_content() or ""
    for name in ("published design", "kimi_linear", "3:1 as Qwen3-Next", "7:1 as Jamba"):
        assert name in drawn
    assert watched.complaints == []


def test_a_page_too_large_is_an_error(tmp_path: Path) -> None:
    from hybridsim.report.html.page import page

    with pytest.raises(HybridsimError, match="3,000,000 at most"):
        page("t", "", [], {"nodes": ["x" * MAX_BYTES]}, "0")
