"""Lessons run as they are read: every block of Python, from the first to the last."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from test_plugins import EXAMPLE, ROOT, write_metadata

from hybridsim.mixers.table import GROUP

LESSONS = ROOT / "docs" / "lessons"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMES = sorted(path.name for path in LESSONS.glob("[0-9]*.md"))


def test_the_list_names_every_lesson_and_its_links_lead_somewhere() -> None:
    listed = re.findall(r"^\d\. \[.*\]\((.*)\)$", (LESSONS / "README.md").read_text(), re.MULTILINE)
    assert listed == NAMES
    for path in LESSONS.glob("*.md"):
        for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
            assert (LESSONS / link).exists(), f"{path.name}: {link}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment in which the example's mixer is installed."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    write_metadata(site, project["name"], project["entry-points"][GROUP], project["version"])
    path = os.pathsep.join(map(str, (site, EXAMPLE, ROOT)))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_lesson_runs(name: str, environment: dict[str, str], tmp_path: Path) -> None:
    blocks = BLOCK.findall((LESSONS / name).read_text())
    assert len(blocks) >= 3
    script = tmp_path / "lesson.py"
    script.write_text("\n".join(blocks))
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
