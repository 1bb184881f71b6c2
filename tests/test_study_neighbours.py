"""What other tools make of our studies: Optuna's dashboard, pandas, notebooks."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest

from hybridsim import load_records
from hybridsim.errors import HybridsimError
from search.notebook import load_study

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of studies with one that was searched."""
    folder = tmp_path_factory.mktemp("studies")
    command = [sys.executable, "-m", "hybridsim", "search", "study=small", "quality=surrogate"]
    command += ["base=kimi_linear_tiny", "trials=10", "pictures=false"]
    env = os.environ | {"HYBRIDSIM_STUDIES": str(folder), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def asked(app: Any, path: str) -> Any:
    """Return what a web application answers, as JSON."""
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    environ |= {"PATH_INFO": path, "REQUEST_METHOD": "GET", "wsgi.input": BytesIO()}
    statuses: list[str] = []
    parts = app(environ, lambda status, headers, exc_info=None: statuses.append(status))
    body = b"".join(parts)
    assert statuses == ["200 OK"], body
    return json.loads(body)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:bottle")
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_the_dashboard_opens_a_study(studies: Path) -> None:
    """As `optuna-dashboard STUDY.journal` does: its storage of a path, its application."""
    from optuna_dashboard import wsgi
    from optuna_dashboard._storage_url import get_storage

    storage = get_storage(str(studies / "small" / "study.journal"))
    app = wsgi(storage)
    (summary,) = asked(app, "/api/studies")["study_summaries"]
    assert summary["study_name"] == "small"
    assert summary["directions"] == ["minimize", "maximize"]
    detail = asked(app, f"/api/studies/{summary['study_id']}")
    done = [trial for trial in detail["trials"] if trial["state"] == "Complete"]
    rows = json.loads((studies / "small" / "trials.json").read_text())
    assert {trial["number"] for trial in done} == {row["trial"] for row in rows}
    values = {trial["number"]: trial["values"] for trial in done}
    for row in rows:
        assert values[row["trial"]] == pytest.approx([row["decode_latency"], row["quality"]])


def test_a_study_shows_itself_in_a_notebook(studies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDSIM_STUDIES", str(studies))
    view = load_study("small")
    html = view._repr_html_()
    assert view.document["frontier"][0]["layers"] in html
    picture = html.partition("data:image/png;base64,")[2].partition('"')[0]
    assert base64.b64decode(picture).startswith(b"\x89PNG")
    with pytest.raises(HybridsimError, match=r"study=none: .* cannot be read"):
        load_study("none")


def test_a_study_loads_in_pandas(studies: Path) -> None:
    table = load_records(studies / "small" / "frontier.json")
    document = json.loads((studies / "small" / "frontier.json").read_text())
    assert table["trial"].tolist() == [row["trial"] for row in document["frontier"]]
    assert (table["values_decode_latency_value"] > 0).all()
