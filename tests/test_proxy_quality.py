"""Qualities from proxy trainings: one training a twin, pooled errors, kept between runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from spaces import space_of

from hybridsim.errors import HybridsimError
from hybridsim.train.proxy import ProxySettings, load_proxy
from hybridsim.train.quality import QualityProfile, score_of
from search.candidate import Candidate
from search.pareto import Z_90
from search.proxy_quality import ProxyQuality

# At four layers, as the quick proxy has, the first two have one twin and the last another.
ALIKE = [Candidate("LLLF" * 6 + "LLF"), Candidate("LLLF" * 6 + "LLL")]
OTHER = Candidate("LF" * 13 + "L")


class FakeRun:
    """Gives scores by the share of full layers of the twin's model, and counts trainings."""

    trained: list[str] = []
    tasks: list[dict[str, Any]] = []  # of each run

    def __init__(self, proxy: ProxySettings, **_: Any) -> None:
        self.proxy = proxy
        FakeRun.tasks.append(proxy.tasks)

    def train(self, specs: list[Any]) -> list[Any]:
        made = []
        for spec in specs:
            FakeRun.trained.append(spec.layer_letters)
            middle = spec.layer_letters.count("F") / 27
            unlearnt = dict.fromkeys(self.proxy.tasks, score_of([None, None, None], 0.0))
            recall = score_of([middle, middle + 0.1, middle + 0.2], 0.0)
            scores = {**unlearnt, "recall": recall}
            made.append(SimpleNamespace(profile=QualityProfile(scores)))
        return made

    def forget(self) -> None:
        """Nothing is kept of a made-up training."""


@pytest.fixture
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRun.trained, FakeRun.tasks = [], []
    monkeypatch.setattr("hybridsim.train.run.ProxyRun", FakeRun)


@pytest.mark.usefixtures("_fake")
def test_candidates_with_one_twin_are_trained_once(tmp_path: Path) -> None:
    quality = ProxyQuality(space_of(), ["quick"], tmp_path, "cpu")
    first, second, other = quality.scores([*ALIKE, OTHER], 0)
    assert first == second != other
    assert len(FakeRun.trained) == 2
    # Another process finds what was trained in the folder.
    again = ProxyQuality(space_of(), ["quick"], tmp_path, "cpu")
    assert again.scores([*ALIKE, OTHER], 0) == [first, second, other]
    assert len(FakeRun.trained) == 2


@pytest.mark.usefixtures("_fake")
def test_intervals_are_of_the_pooled_spread(tmp_path: Path) -> None:
    quality = ProxyQuality(space_of(), ["quick"], tmp_path, "cpu")
    for scores in quality.scores([ALIKE[0], OTHER], 0):
        value = scores["recall"]
        assert value.provenance == "proxy"
        assert value.high - value.value == pytest.approx(Z_90 * 0.1 / 3**0.5)
        # No training ended: nothing was learnt.
        assert scores["language"].value == 0.0


@pytest.mark.usefixtures("_fake")
def test_another_length_is_another_training(tmp_path: Path) -> None:
    quality = ProxyQuality(space_of(), ["quick", "standard"], tmp_path, "cpu")
    assert quality.tasks == ("recall", "language")  # fuzzy recall says how soon, not what
    assert set(load_proxy("quick").tasks) == {*quality.tasks, "fuzzy_recall"}
    quality.scores([OTHER], 0)
    quality.scores([OTHER], 1)
    assert len(FakeRun.trained) == 2
    assert [tuple(tasks) for tasks in FakeRun.tasks] == 2 * [quality.tasks]


@pytest.mark.usefixtures("_fake")
def test_all_candidates_get_the_tasks_of_the_bases_pressure(tmp_path: Path) -> None:
    """At 4: 64 pairs on the 16 key channels of the base's twin."""
    quality = ProxyQuality(space_of(), ["quick"], tmp_path, "cpu", 4)
    quality.scores([ALIKE[0], OTHER, Candidate("F" * 27)], 0)
    assert len(FakeRun.trained) == 3
    assert [tasks["recall"]["num_pairs"] for tasks in FakeRun.tasks] == [64]
    assert quality.pressure(0)["line"] == "recall asks 4; agent_128k asks 2 of kimi_linear"
    # Scores at another pressure are of other trainings.
    other = ProxyQuality(space_of(), ["quick"], tmp_path, "cpu")
    other.scores([OTHER], 0)
    assert len(FakeRun.trained) == 4
    assert FakeRun.tasks[-1] == load_proxy("quick").only(other.tasks).tasks
    assert other.pressure(0)["line"] == "recall asks 2; agent_128k asks 2 of kimi_linear"


def test_pressure_is_on_the_tasks_that_are_trained(tmp_path: Path) -> None:
    """Deep's tracking of variables, which no other has counted, would be too long."""
    quality = ProxyQuality(space_of(), ["quick", "standard", "deep"], tmp_path, "cpu", 4)
    lines = [quality.pressure(fidelity)["line"] for fidelity in range(3)]
    assert lines == 3 * ["recall asks 4; agent_128k asks 2 of kimi_linear"]


@pytest.mark.parametrize(
    ("proxies", "message"),
    [([], "give the name of a proxy"), (["quik"], "proxy=quik: .*did you mean 'quick'")],
)
def test_a_proxy_that_is_not_there_is_one_line(
    proxies: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(HybridsimError, match=message):
        ProxyQuality(space_of(), proxies, tmp_path, "cpu")


@pytest.mark.slow
def test_real_trainings_score_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = load_proxy("quick")
    few = {"steps": 10, "evaluate_every": 5, "curriculum_steps": 0, "output_rate_share": 1.0}
    training = replace(quick.training, **few)
    short = replace(quick.only(("recall",)), training=training, seeds=2)
    monkeypatch.setattr("search.proxy_quality.load_proxy", lambda name: short)
    quality = ProxyQuality(space_of(), ["quick"], tmp_path, "cpu")
    for scores in quality.scores([ALIKE[0], OTHER], 0):
        assert set(scores) == {"recall"}
        assert 0 <= scores["recall"].value <= 1
        assert scores["recall"].low < scores["recall"].high
