"""The published configurations are what their README says; their totals can be counted again."""

from __future__ import annotations

import hashlib
import json

import pytest
from facts.count_configs import FOLDER, TOTALS, config_files, count, read_config

README = (FOLDER / "README.md").read_text(encoding="utf-8")
TOTAL_OF = json.loads(TOTALS.read_text(encoding="utf-8"))["totals"]
NAMES = [path.stem for path in config_files()]

# The reference warns about what is on purpose here: rotary sizes, kernels that are not installed.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_file_has_a_row_and_a_total() -> None:
    assert sorted(TOTAL_OF) == NAMES
    rows = [line.split("|") for line in README.splitlines() if line.startswith("| ")]
    listed = {name.strip(): row for row in rows for name in row[1].split(",")}
    for name in NAMES:
        assert f"{TOTAL_OF[name]['total']:,}" in listed[name][-2], name


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("kimi_linear", "a6ac3c2c4b5aa72370f9727f49ffa4432715d20061889acdb37c688be853096e"),
        ("qwen3_next", "2d483c7cabad7c8704478ed4038fa7e7b2eff840bc00a118eccbe38e2b488303"),
    ],
)
def test_files_with_a_recorded_hash_are_byte_for_byte(name: str, digest: str) -> None:
    assert hashlib.sha256((FOLDER / f"{name}.json").read_bytes()).hexdigest() == digest


@pytest.mark.parametrize("name", NAMES)
def test_totals_are_those_that_transformers_builds(name: str) -> None:
    built, total = count(read_config(FOLDER / f"{name}.json"))
    assert (built, total) == (TOTAL_OF[name]["class"], TOTAL_OF[name]["total"])
