"""Shared fixtures: facts with their sources, and uninitialised memory that shows."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from browser import opened_browser
from hypothesis import HealthCheck, settings
from tuning import tune_little

torch.set_num_threads(1)  # tests run beside each other
# Their times mean nothing, so that none has to wait until another one has measured.
os.environ["HYBRIDSIM_LOCKS"] = tempfile.mkdtemp(prefix="hybridsim-locks-")

# The same examples in every run, however busy the machine.
settings.register_profile(
    "hybridsim", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("hybridsim")

tune_little()

FACTS = Path(__file__).parent / "facts"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--random-specs",
        type=int,
        default=500,
        help="how many random specs tests/test_random_specs.py draws",
    )


def pytest_configure(config: pytest.Config) -> None:
    examples = config.getoption("--random-specs")
    settings.register_profile("random_specs", settings.default, max_examples=examples)


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Any:
    """Fill uninitialised tensors with NaN, so that reading one fails a test."""
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def browser() -> Any:
    """One headless Chromium for all tests that open pages."""
    with opened_browser() as found:
        yield found


@pytest.fixture(scope="session")
def models() -> dict[str, Any]:
    """Published figures by spec, see tests/facts/models.json for their sources."""
    return json.loads((FACTS / "models.json").read_text())["models"]


@pytest.fixture(scope="session")
def full_square() -> dict[str, Any]:
    """Published full-square FLOPs at 4,096 tokens, in TFLOP."""
    return json.loads((FACTS / "models.json").read_text())["full_square_flops_at_4096"]


@pytest.fixture(scope="session")
def claims() -> dict[str, Any]:
    """Published claims by identifier, see tests/facts/claims.json."""
    return json.loads((FACTS / "claims.json").read_text())["claims"]


@pytest.fixture(scope="session")
def peers() -> dict[str, Any]:
    """Figures of other tools with their reasons, see tests/facts/peers.json."""
    return json.loads((FACTS / "peers.json").read_text())
