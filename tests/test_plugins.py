"""Mixers of installed packages: the worked example as users have it, and packages that are broken.

Nothing is installed: a folder with a package's metadata on the path is what an installer leaves.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hybridsim.conventions import FlopConventions
from hybridsim.counters import operators
from hybridsim.errors import PluginError, SpecError
from hybridsim.mixers import SHIPPED, MixerEntry, MixerSettings
from hybridsim.mixers.table import GROUP, MixerTable

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "retention_mixer"


def write_metadata(site: Path, name: str, points: dict[str, str], version: str = "0.1") -> None:
    """Write what pip leaves in site-packages for a package with these entry points."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"[{GROUP}]", *(f"{kind} = {value}" for kind, value in points.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment in which the example is installed."""
    site = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    write_metadata(site, project["name"], project["entry-points"][GROUP], project["version"])
    path = [str(site), str(EXAMPLE), str(EXAMPLE / "tests"), str(ROOT)]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(path),
        "HYBRIDSIM_SPECS": str(EXAMPLE / "specs"),
        "HYBRIDSIM_MIXER_CASES": "retention_cases:CASES",
        "COLUMNS": "160",
    }


def python(
    folder: Path, environment: dict[str, str], *args: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def hybridsim(folder: Path, environment: dict[str, str], *args: str) -> str:
    done = python(folder, environment, "-m", "hybridsim.__main__", *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_is_profiled(environment: dict[str, str], tmp_path: Path) -> None:
    args = ["profile", "spec=retnet_tiny", "format=json", "pictures=false", "contexts=[1000]"]
    record = json.loads(hybridsim(tmp_path, environment, *args))
    flops = record["flops"]
    assert flops["closed_form"] == flops["fvcore"] == flops["flop_counter"]
    assert flops["full_square"]["closed_form"] == flops["full_square"]["flop_counter"]
    assert flops["decode"]["closed_form"] == flops["decode"]["fvcore"]
    # Six layers of 4 heads of 16 x 32 numbers in fp32.
    assert record["cache"]["state_bytes_per_sequence"] == 6 * 4 * 16 * 32 * 4
    assert record["parameters"]["by_part"]["retention"] == 6 * (64 * (2 * 64 + 3 * 128) + 32)
    assert record["versions"]["retention-mixer"] == "0.1"


def test_the_example_is_described_without_torch(
    environment: dict[str, str], tmp_path: Path
) -> None:
    assert "retention (arXiv 2307.08621)" in hybridsim(
        tmp_path, environment, "describe", "spec=retnet_tiny"
    )
    code = (
        "import sys; from hybridsim import load_spec; from hybridsim.graph import build_graph;"
        "from hybridsim.cost.model import ModelCosts;"
        "print(ModelCosts.of(build_graph(load_spec('retnet_tiny'))).parameters.total);"
        "assert 'torch' not in sys.modules"
    )
    done = python(tmp_path, environment, "-c", code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


def test_a_near_miss_offers_the_examples_kind(environment: dict[str, str], tmp_path: Path) -> None:
    args = ["describe", "spec=retnet_tiny", "spec.mixers.R.kind=retentoin"]
    done = python(tmp_path, environment, "-m", "hybridsim.__main__", *args)
    assert done.returncode == 1
    assert "no such kind; did you mean 'retention'?" in done.stderr


@pytest.mark.slow
def test_the_tests_over_every_mixer_pass_on_the_example(environment: dict[str, str]) -> None:
    files = ["test_mixers.py", "test_counters.py"]
    paths = [*(str(ROOT / "tests" / file) for file in files), str(EXAMPLE / "tests")]
    options = ["-q", "-p", "no:cacheprovider", "-k", "retention or every_mixer_has_cases"]
    done = python(ROOT, environment, "-m", "pytest", *options, *paths)
    assert done.returncode == 0, done.stdout
    found = re.search(r"(\d+) passed", done.stdout)
    assert found is not None
    assert int(found[1]) >= 50, done.stdout
    assert "skipped" not in done.stdout


def test_what_the_guide_shows_is_in_the_example() -> None:
    """Every block of code in the guide stands word for word in the file named above it."""
    guide = (ROOT / "docs" / "adding_a_mixer.md").read_text()
    blocks = re.findall(r"`(retention_mixer/[^`]+)`[^`]*?```\w+\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) >= 6
    for name, block in blocks:
        text = (EXAMPLE.parent / name).read_text()
        # "..." stands for lines left out.
        for part in re.split(r"^ *\.\.\.\n", block, flags=re.MULTILINE):
            assert part.strip("\n") in text, f"{name}: {part}"


# ---- packages that are broken ----

SETTINGS = """
from dataclasses import dataclass
from typing import ClassVar
from hybridsim.mixers import MixerSettings

@dataclass(frozen=True)
class ToySettings(MixerSettings):
    kind: ClassVar[str] = "toy"
    num_heads: int = 1
"""
ENTRY = 'from hybridsim.mixers import MixerEntry\nENTRY = MixerEntry("toy", "Toy", "toy", "here")\n'


def table_with(
    site: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], **packages: dict[str, str]
) -> MixerTable:
    """Return a table that finds these packages, and the module `toy` with these files."""
    for name, points in packages.items():
        write_metadata(site, name, points)
    for name, text in files.items():
        (site / "toy").mkdir(exist_ok=True)
        (site / "toy" / name).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        monkeypatch.delitem(sys.modules, name)
    return MixerTable(SHIPPED)


def load(table: MixerTable) -> type[MixerSettings]:
    return table.part("toy", "settings", "Settings", MixerSettings)


def test_a_package_adds_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"__init__.py": ENTRY, "settings.py": SETTINGS}
    table = table_with(tmp_path, monkeypatch, files, maker={"toy": "toy:ENTRY"})
    assert set(table) == {*SHIPPED, "toy"}
    assert len(table) == len(SHIPPED) + 1
    assert "toy" not in sys.modules  # listing the kinds imports no package
    assert table.plugins == {}
    assert load(table).__name__ == "ToySettings"
    assert set(table.plugins) == {"toy"}
    assert table.distributions == ["maker"]
    with pytest.raises(KeyError):
        table["tou"]


BROKEN = {
    "no module": ({}, "toy:ENTRY", r"ModuleNotFoundError: No module named 'toy'"),
    "no object": ({"__init__.py": ""}, "toy:ENTRY", r"AttributeError: .*'ENTRY'"),
    "no entry": ({"__init__.py": "ENTRY = 3"}, "toy:ENTRY", r"toy:ENTRY is no MixerEntry but int"),
    "syntax": ({"__init__.py": "def :"}, "toy:ENTRY", r"SyntaxError"),
    "no settings": ({"__init__.py": ENTRY}, "toy:ENTRY", r"No module named 'toy\.settings'"),
    "no class": (
        {"__init__.py": ENTRY, "settings.py": ""},
        "toy:ENTRY",
        r"has no attribute 'ToySettings'",
    ),
    "wrong class": (
        {"__init__.py": ENTRY, "settings.py": "class ToySettings: kind = 'toy'"},
        "toy:ENTRY",
        r"ToySettings is no MixerSettings",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_package_is_named_in_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, value, message = BROKEN[case]
    table = table_with(tmp_path, monkeypatch, files, maker={"toy": value})
    assert table["kda"] is SHIPPED["kda"]  # others are not harmed
    with pytest.raises(PluginError, match=message) as raised:
        load(table)
    assert str(raised.value).startswith("plug-in maker 0.1: kind toy (toy:ENTRY): ")
    assert "\n" not in str(raised.value)


def test_the_kind_is_that_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hybridsim.mixers as mixers

    files = {"__init__.py": ENTRY, "settings.py": SETTINGS.replace('"toy"', '"boy"')}
    table = table_with(tmp_path, monkeypatch, files, maker={"toy": "toy:ENTRY"})
    monkeypatch.setattr(mixers, "MIXERS", table)
    with pytest.raises(PluginError, match=r"maker 0\.1: .*ToySettings\.kind is 'boy'"):
        mixers.settings_class("toy")


def test_a_shipped_kind_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_with(tmp_path, monkeypatch, {}, maker={"kda": "toy:ENTRY"})
    # Even where another shipped mixer is asked for: which kda would be meant is not clear.
    with pytest.raises(PluginError, match=r"maker 0\.1: kind kda .*hybridsim itself provides that"):
        table["lightning"]


def test_two_packages_of_one_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = {"first": {"toy": "toy:ENTRY"}, "second": {"toy": "toy:ENTRY"}}
    table = table_with(tmp_path, monkeypatch, {}, **two)
    with pytest.raises(PluginError, match=r"(first|second) 0\.1 provides that kind too"):
        list(table)


def test_rules_of_a_package_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "__init__.py": "from hybridsim.mixers import MixerEntry\n"
        "ENTRY = MixerEntry('toy', 'Toy', 'toy', 'here',"
        " flop_rules={'toy::mix': lambda args, out, conventions: 7},"
        " free_operators=frozenset({'aten::roll'}))\n"
        "THIEF = MixerEntry('toy', 'Toy', 'toy', 'here', flop_rules={'aten::mm': None})\n"
    }
    points = {"toy": "toy:ENTRY", "thief": "toy:THIEF"}
    table = table_with(tmp_path, monkeypatch, files, maker=points)
    monkeypatch.setattr(operators, "MIXERS", table)
    assert "toy::mix" not in operators.flop_rules()  # not before the kind is used
    assert isinstance(table["toy"], MixerEntry)
    assert operators.flop_rules()["toy::mix"]([], (), FlopConventions()) == 7
    operators.check_known(["toy::mix", "aten::roll", "aten::mm"])
    assert table["thief"].flop_rules.keys() == {"aten::mm"}
    with pytest.raises(PluginError, match=r"maker 0\.1: kind thief: its rule for aten::mm"):
        operators.flop_rules()


def test_a_broken_package_on_the_command_line(tmp_path: Path) -> None:
    site = tmp_path / "site"
    write_metadata(site, "maker", {"toy": "toy:ENTRY"})
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    args = ["-m", "hybridsim.__main__", "describe", "spec=qwen3_1_7b", "spec.mixers.F.kind=toy"]
    done = python(tmp_path, environment, *args)
    assert done.returncode == 1
    assert "plug-in maker 0.1: kind toy (toy:ENTRY): ModuleNotFoundError" in done.stderr
    assert "Traceback" not in done.stderr
    hybridsim(tmp_path, environment, "describe", "spec=qwen3_1_7b")  # others are not harmed


def test_help_looks_for_no_package(tmp_path: Path) -> None:
    write_metadata(tmp_path, "maker", {"kda": "toy:ENTRY"})
    code = (
        "import sys; sys.argv = ['hybridsim', '--help']; from hybridsim.cli import main; main();"
        "assert 'hybridsim.mixers' not in sys.modules"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = python(tmp_path, environment, "-c", code)
    assert done.returncode == 0, done.stderr
    assert "usage: hybridsim COMMAND" in done.stdout


def test_an_unknown_kind_is_still_the_specs_mistake() -> None:
    from hybridsim import load_spec

    with pytest.raises(SpecError, match="no such kind"):
        load_spec("qwen3_1_7b", ["mixers.F.kind=retentions"])
