"""Studies: what they try, keep, answer, and how they go on or end in one line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from spaces import served, space_of, tiny

from hybridsim import load_spec
from hybridsim.errors import HybridsimError
from hybridsim.options import read_option
from hybridsim.spec.parse import parse_spec
from hybridsim.spec.schema import ModelSpec
from search.answer import with_advice
from search.candidate import Candidate, parse_key
from search.engine import Engine
from search.evaluate import Evaluator
from search.exact import CostTable, representative
from search.fidelity import survivors
from search.importance import layer_importance
from search.liveness import HISTORY, Patience
from search.objectives import Value, find_objective
from search.pareto import non_dominated
from search.quality import Fidelity, Quality, Scores, SurrogateQuality
from search.records import Tried
from search.report import report
from search.run import Search, open_search
from search.samplers import SamplerSettings, make_sampler
from search.space import Space
from search.study import open_storage, open_study

FIELDS: dict[str, Any] = {
    "workload": read_option("workload", "agent_128k"),
    "hardware": read_option("hardware", "h200"),
    "space": read_option("space", "placement"),
    "sampler": {"kind": "pattern"},
    "dtypes": {},
    "objectives": ["decode_latency", "quality"],
    "quality": "surrogate",
    "quality_weights": {},
    "fidelities": [],
    "device": "cpu",
    "storage": None,
    "study": "tried",
}


@pytest.fixture(autouse=True)
def _studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDSIM_STUDIES", str(tmp_path))


def open_one(spec: ModelSpec | None = None, overrides: Sequence[str] = (), **fields: Any) -> Search:
    given = {**FIELDS, **fields}
    return open_search(spec or load_spec("kimi_linear"), given, 0, overrides)


def limited(**limits: Any) -> dict[str, Any]:
    space = read_option("space", "placement")
    return {**space, "constraints": {**space["constraints"], **limits}}


class CountingQuality(Quality):
    """Surrogate scores; remembers what was asked for, and fails where told to."""

    tasks = SurrogateQuality.tasks
    fidelities = (Fidelity("short", 1), Fidelity("long", 3))

    def __init__(self, space: Space, fail_at: int = -1, wait_s: float = 0.0) -> None:
        self._inner, self._wait_s = SurrogateQuality(space), wait_s
        self.asked: Counter[tuple[Candidate, int]] = Counter()
        self.fail_at = fail_at

    def scores(self, candidates: Sequence[Candidate], fidelity: int) -> list[Scores]:
        self.asked.update((candidate, fidelity) for candidate in candidates)
        if len(self.asked) > self.fail_at > 0:
            self.fail_at = -1
            raise KeyboardInterrupt
        time.sleep(self._wait_s)
        return self._inner.scores(candidates, fidelity)


def engine_of(
    folder: Path, quality: CountingQuality, space: Space, kind: str = "pattern", **options: Any
) -> Engine:
    objectives = [find_objective(name) for name in ("decode_latency", "quality")]
    evaluator = Evaluator(space, objectives, quality)
    sampler = make_sampler(SamplerSettings(kind), 0, space=space)
    directions = [o.direction for o in objectives]
    study = open_study("tried", directions, sampler, open_storage(None, folder))
    return Engine(study, evaluator, **options)


def test_no_candidate_is_paid_for_twice(tmp_path: Path) -> None:
    space = space_of()
    quality = CountingQuality(space)
    found = engine_of(tmp_path, quality, space, batch_size=5).run(40)
    assert max(quality.asked.values()) == 1
    proposed = [one for one in found if one.fidelity == 0 and not one.baseline]
    assert len(proposed) == len({one.candidate for one in proposed}) == 40
    assert sum(quality.asked.values()) == len(found)


def test_what_a_lost_worker_left_is_evaluated_once_by_another(tmp_path: Path) -> None:
    space = space_of()
    quality = CountingQuality(space)
    lost = engine_of(tmp_path, quality, space)
    trial = lost.study.ask()
    candidate = space.suggest(trial)
    assert lost._claims(trial, f"{candidate.key} 0")
    hasty = Patience(heartbeat_s=0.01, grace_s=0.02)
    found = engine_of(tmp_path, quality, space, patience=hasty).run(20, baselines=False)
    assert quality.asked[candidate, 0] == 1
    (again,) = (one for one in found if one.candidate == candidate and one.fidelity == 0)
    assert lost.study.trials[again.number].system_attrs[HISTORY] == [trial.number]


@pytest.mark.parametrize("kind", ["pattern", "random"])
def test_three_workers_end_at_exactly_the_trials_wanted(kind: str, tmp_path: Path) -> None:
    space = space_of()
    quality = CountingQuality(space, wait_s=0.02)
    workers = [engine_of(tmp_path, quality, space, kind=kind, batch_size=4) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        ran = [pool.submit(one.run, 17, baselines=False) for one in workers]
    for one in ran:
        assert sum(t.fidelity == 0 for t in one.result()) == 17
    assert max(quality.asked.values()) == 1
    assert {len(t.values) for t in workers[0].study.get_trials() if t.values is not None} == {2}
    assert all(t.state.is_finished() for t in workers[0].study.get_trials())


def test_survivors_are_trained_longer_and_the_front_longest(tmp_path: Path) -> None:
    space = space_of()
    found = engine_of(tmp_path, CountingQuality(space), space).run(32, baselines=False)
    longer = {one.candidate: one for one in found if one.fidelity == 1}
    by_number = {one.number: one for one in found}
    assert len(longer) >= 32 // 4
    for one in longer.values():
        before = by_number[one.promoted_from]
        assert (before.candidate, before.fidelity) == (one.candidate, 0)
        gap = [t.values["quality"].high - t.values["quality"].low for t in (one, before)]
        assert gap[0] < gap[1]
    last = {one.candidate: one for one in found}
    values = [[t.values["decode_latency"].value, -t.values["quality"].value] for t in last.values()]
    front = non_dominated(np.array(values))
    assert all(t.fidelity == 1 for t, on in zip(last.values(), front, strict=True) if on)


def test_a_quarter_survives() -> None:
    def one(number: int, cost: float, quality: float) -> Tried:
        made = {"cost": Value(cost), "quality": Value(quality, quality, quality, "proxy")}
        return Tried(number, Candidate(f"L{number}"), 0, made)

    found = [one(i, float(i), 0.5) for i in range(7)] + [one(7, 9.0, 0.9)]
    chosen = survivors(found, {"cost": 1.0, "quality": -1.0}, 0)
    assert {t.number for t in chosen} == {0, 7}
    assert survivors(found[:3], {"cost": 1.0, "quality": -1.0}, 0) == []


def test_an_interrupted_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    space = space_of()
    first = CountingQuality(space, fail_at=12)
    with pytest.raises(KeyboardInterrupt):
        engine_of(tmp_path, first, space, batch_size=4).run(24, baselines=False)
    second = CountingQuality(space)
    found = engine_of(tmp_path, second, space, batch_size=4).run(24, baselines=False)
    assert sum(one.fidelity == 0 for one in found) == 24
    finished_first = set(first.asked) - set(second.asked)
    assert len(finished_first) >= 8
    cut_short = set(first.asked) & set(second.asked)
    assert 0 < len(cut_short) <= 4
    assert max(Counter((t.candidate, t.fidelity) for t in found).values()) == 1


def test_a_small_space_is_enumerated() -> None:
    search = open_one(tiny(4), space=limited(fits=False))
    document = search.run(100, 8, baselines=False)
    assert document["candidates"] == document["space_size"] == 16


def test_a_document_has_what_was_asked_for() -> None:
    search = open_one()
    document = search.run(60, 4, baselines=True)
    search.write(document, pictures=True)
    assert document["schema"] == "hybridsim/search/1"
    assert [o["name"] for o in document["objectives"]] == ["decode_latency", "quality"]
    assert 0 < document["hypervolume"] < 1
    for row in document["frontier"]:
        assert 0 <= row["probability"] <= 1
        for value in row["values"].values():
            assert value["provenance"]
        assert row["values"]["quality"]["low"] < row["values"]["quality"]["high"]
    assert {gain["baseline"] for gain in document["gains"]} == {"ladder", "periodic"}
    assert (document["advice"] is None) == all(gain["resolved"] for gain in document["gains"])
    assert len(document["importance"]) == 27
    assert document["rank_agreement"]["decode_latency"]["spearman"] > 0.9
    assert sum(row["trials"] for row in document["ledger"]) == document["trials"]
    for name in ("pareto.png", "hypervolume.png", "importance.png", "importance.csv"):
        assert (search.folder / name).stat().st_size > 100
    rows = pd.read_parquet(search.folder / "trials.parquet")
    assert len(rows) == document["trials"] == len(json.loads(
        (search.folder / "trials.json").read_text()))  # fmt: skip
    assert json.loads((search.folder / "frontier.json").read_text()) == document


def test_no_figure_is_cut_at_80_columns() -> None:
    document = open_one().run(12, 4, baselines=True)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(report(document))
    text = console.export_text()
    assert all(len(line) <= 80 for line in text.splitlines())
    for row in document["frontier"]:
        quality = row["values"]["quality"]
        assert f"[{quality['low']:.3f}, {quality['high']:.3f}]" in text
        assert f"trial {row['trial']}: {row['full_layers']} full, {row['ratio']}" in text
    for gain in document["gains"]:
        assert f"[{gain['low']:+.4f}, {gain['high']:+.4f}]" in text
        assert f"of {gain['baseline_evaluations']} tried" in text


def test_a_trial_is_a_spec() -> None:
    choices = {"mixers.F.kv_lora_rank": [512, 256]}
    search = open_one(space={**limited(), "choices": choices})
    document = search.run(20, 4, baselines=False)
    search.write(document, pictures=False)
    for row in document["frontier"]:
        spec = load_spec(f"study/tried/{row['trial']}")
        assert spec.layer_letters == row["layers"]
        assert spec.mixers["F"].kv_lora_rank == row["changes"]["mixers.F.kv_lora_rank"]
    changed = load_spec(f"study/tried/{row['trial']}", ["vocab_size=1000"])
    assert changed.vocab_size == 1000
    import yaml

    written = parse_spec(yaml.safe_load(search.recommended_spec(document)))
    assert written.layer_letters == document["recommended"]["layers"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("study/none/1", "study=none: no such study"),
        ("study/tried/999", "spec=study/tried/999: no such finished trial"),
        ("study/tried/best", "the last part must be a trial's number"),
    ],
)
def test_a_trial_that_is_not_there_is_one_line(name: str, message: str) -> None:
    search = open_one()
    search.write(search.run(2, 2, baselines=False), pictures=False)
    with pytest.raises(HybridsimError, match=message):
        load_spec(name)


def test_costs_alone_are_exact() -> None:
    names = ["decode_latency", "prefill_latency", "parameters"]
    search = open_one(tiny(9), objectives=names, quality="none", space=limited(fits=False))
    document = search.run(5, 1, baselines=True)
    assert document["enumerated"] == {"classes": 10, "placements": 2**9}
    evaluator = Evaluator(search.space, [find_objective(name) for name in names])
    everything = list(search.space.candidates())
    values = np.array([[evaluator.costs(c)[n].value for n in names] for c in everything])
    front = {tuple(row) for row in values[non_dominated(values)]}
    found = {tuple(row["values"][n]["value"] for n in names) for row in document["frontier"]}
    assert found == front


def test_looked_up_costs_are_those_of_each_candidate() -> None:
    space = space_of(tiny(9), full_layers_max=5)
    objectives = [find_objective(name) for name in ("decode_latency", "cache_bytes")]
    evaluator = Evaluator(space, objectives)
    table = CostTable(evaluator)
    codes = np.random.default_rng(0).integers(0, 2, size=(200, 9)).astype(np.uint8)
    found = table.look_up(codes, ())
    for row, values in zip(codes, found, strict=True):
        candidate = Candidate("".join(space.letters[i] for i in row))
        if candidate in space:
            costs = evaluator.costs(candidate)
            assert values.tolist() == [o.sign * costs[o.name].value for o in objectives]
        else:
            assert np.isnan(values).all()
    for one in table.classes:
        assert space.counts(representative(space, one).letters) == one.counts


def test_importance_finds_the_layer_that_matters() -> None:
    space = space_of(tiny(12))
    objective = find_objective("quality")
    draw = np.random.default_rng(0)
    found = []
    for number in range(80):
        full = draw.random(12) < 0.4
        quality = 0.5 + 0.2 * full[4] - 0.2 * full[9] + 0.01 * draw.standard_normal()
        letters = "".join("LF"[int(f)] for f in full)
        found.append(Tried(number, Candidate(letters), 0, {"quality": Value(quality)}))
    rows = layer_importance(space, found, objective)
    assert max(rows, key=lambda row: row.effect).layer == 5
    assert min(rows, key=lambda row: row.effect).layer == 10
    assert rows[4].low > 0 > rows[9].high
    assert layer_importance(space, found[:5], objective) == []


# Known designs from requirements alone: costs exact, quality the stated surrogate.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "limits", "fewest", "most"),
    [
        ({"recall": 0.8, "language": 0.2}, {"cache_share_max": 0.25}, 1 / 7, 1 / 4),  # 6:1 to 3:1
        ({"language": 1.0}, {}, 0.0, 1 / 6),  # few
        ({"recall": 0.8, "language": 0.2}, {}, 1 / 4, 1 / 2),  # 3:1 to 1:1
    ],
    ids=["recall-quarter-cache", "language", "recall-no-limit"],
)
def test_known_designs_follow_from_requirements(
    weights: dict[str, float], limits: dict[str, float], fewest: float, most: float
) -> None:
    for seed in range(5):
        given = {**FIELDS, "quality_weights": weights, "space": limited(**limits)}
        given["study"] = f"seed_{seed}"
        search = open_search(load_spec("kimi_linear"), given, seed, [])
        chosen = search.run(100, 4, baselines=False)["recommended"]
        assert fewest <= chosen["full_layers"] / 27 <= most, chosen["layers"]


def test_advice_is_the_base_ratio_where_qualities_tell_nothing_apart() -> None:
    space = space_of()

    def row(trial: int, full: int, quality: float) -> dict[str, Any]:
        values = {"decode_latency": {"value": float(full)}, "quality": {"value": quality}}
        return {"trial": trial, "full_layers": full, "values": values}

    worst, middle, best = row(0, 0, 0.5), row(1, 14, 0.7), row(2, 20, 0.9)
    document = {"gains": [{"resolved": False}], "frontier": [worst, middle, best], "advice": None}
    assert with_advice({**document, "recommended": worst}, space)["advice"] == "use LLLF"
    assert with_advice({**document, "recommended": middle}, space)["advice"] == "use LF"
    resolved = {**document, "gains": [{"resolved": True}], "recommended": worst}
    assert with_advice(resolved, space)["advice"] is None


def test_another_definition_is_refused() -> None:
    open_one().run(2, 1, baselines=False)
    chat = read_option("workload", "chat")
    with pytest.raises(HybridsimError, match="study=tried: was made with workload=agent_128k"):
        open_one(overrides=["workload=chat"], workload=chat)
    # Not asked for: the study's own workload stands.
    assert open_one(workload=chat).definition.workload["name"] == "agent_128k"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"objectives": ["speed"]}, "objectives=speed: no such objective"),
        ({"objectives": []}, "objectives=.*give at least one"),
        ({"objectives": ["quality", "quality"]}, "names one twice"),
        ({"objectives": ["quality:mqar"]}, "no such task"),
        ({"quality": "none"}, "quality needs quality=proxy or quality=surrogate"),
        ({"quality": "good"}, "quality=good: must be one of"),
        ({"pressure": 3}, "pressure=3: must be one of 0.5, 1, 2, 4, workload, or null"),
        ({"pressure": 2}, "pressure=2: is of trainings; needs quality=proxy"),
        ({"quality_weights": {"maths": 1}}, "quality_weights=maths: no such task"),
        ({"quality_weights": {"recall": -1}}, "quality_weights.recall=-1"),
        ({"study": "a/b"}, "study=a/b: must be letters"),
        ({"storage": "grpc://nowhere"}, "storage=grpc://nowhere: must be grpc://HOST:PORT"),
        ({"storage": "sqlite:////nowhere/x.db"}, "study storage sqlite:////nowhere/x.db: "),
        ({"storage": "mydb://x"}, "study storage mydb://x: "),
        ({"storage": "oracle://x/y"}, "study storage oracle://x/y: needs the package oracledb"),
        ({"storage": "studies.db"}, "storage=studies.db: must be FILE.journal, grpc://HOST:PORT"),
        ({"space": limited(cache_bytes_max=1)}, "no candidate; refused by"),
        ({"space": {**limited(), "placement": "fixed"}}, "holds one candidate"),
    ],
)
def test_a_study_that_cannot_be_is_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(HybridsimError, match=message) as error:
        open_one(**fields).run(2, 1, baselines=False)
    assert "\n" not in str(error.value)


def test_studies_without_a_name_are_not_the_same_one() -> None:
    assert len({open_one(study=None).name for _ in range(2)}) == 2


def test_a_storage_that_is_not_there_leaves_no_study(tmp_path: Path) -> None:
    with pytest.raises(HybridsimError, match="unable to open"):
        open_one(storage="sqlite:////nowhere/x.db")
    assert not list(tmp_path.rglob("study.json"))
    # The next one may be of something else.
    workload = read_option("workload", "chat")
    assert open_one(overrides=["workload=chat"], workload=workload).definition.workload == workload


def test_a_storage_without_the_folders_trials_is_refused(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/x.db"
    search = open_one(storage=storage)
    search.write(search.run(3, 1, baselines=False), pictures=False)
    written = (search.folder / "trials.json").read_text()
    forgotten = open_one()
    with pytest.raises(HybridsimError, match=r"finished trials, but .*study\.journal has none"):
        forgotten.run(4, 1, baselines=False)
    assert (search.folder / "trials.json").read_text() == written
    assert open_one(storage=storage).run(4, 1, baselines=False)["candidates"] == 4


def test_an_interrupt_writes_what_was_found(caplog: pytest.LogCaptureFixture) -> None:
    search = open_one()
    search.evaluator.quality = CountingQuality(search.space, fail_at=3)
    with pytest.raises(KeyboardInterrupt):
        search.run(8, 1, baselines=False)
    assert "interrupted; 3 finished trials are kept, study=tried goes on" in caplog.text
    assert len(json.loads((search.folder / "trials.json").read_text())) == 3


def test_a_password_is_not_shown() -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/studies"
    with pytest.raises(HybridsimError, match=r"postgresql\+psycopg://me:\*\*\*@") as error:
        open_one(storage=url)
    assert "secret" not in str(error.value)


def test_a_corrupt_study_file_names_its_line() -> None:
    search = open_one()
    search.run(2, 1, baselines=False)
    journal = search.folder / "study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([*lines[:5], "{broken\n", *lines[5:]]))
    with pytest.raises(HybridsimError, match="line 6 is not a record"):
        open_one()
    (search.folder / "study.json").write_text("{")
    with pytest.raises(HybridsimError, match="is not a study's definition"):
        open_one()


@pytest.mark.parametrize("record", ['{"op_code": 99}', '{"op_code": 5}'])
def test_a_record_that_cannot_be_replayed_is_one_line(record: str) -> None:
    search = open_one()
    search.run(2, 1, baselines=False)
    with (search.folder / "study.journal").open("a") as file:
        file.write(f"{record}\n")
    with pytest.raises(HybridsimError, match=r"study\.journal: its records do not fit") as error:
        open_one()
    assert "\n" not in str(error.value)


def test_a_record_that_was_cut_short_is_taken_back() -> None:
    search = open_one()
    before = search.run(4, 1, baselines=False)["trials"]
    journal = search.folder / "study.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code": 4, "wor')
    after = open_one().run(6, 1, baselines=False)
    assert after["trials"] > before
    assert all(json.loads(line) for line in journal.read_text().splitlines())


FULL_DISK = """
import resource, sys
from hybridsim.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.argv = ["hybridsim", "search", "study=full", "trials=60", "pictures=false",
            "quality=surrogate"]
main()
"""


@pytest.mark.slow
def test_a_full_disk_keeps_finished_trials(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK.format(limit=150_000)],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("hybridsim search: study storage")
    assert "cannot be written (File too large); finished trials are kept" in last
    assert "Traceback" not in done.stderr
    found = open_one(study="full").run(40, 1, baselines=False)
    assert found["trials"] >= 40


@pytest.mark.slow
def test_command_prints_one_document(tmp_path: Path) -> None:
    script = "import sys; from hybridsim.cli import main; sys.argv[0] = 'hybridsim'; main()"
    command = [sys.executable, "-c", script, "search", "base=kimi_linear", "trials=12",
               "study=one", "format=json", "output=best.yaml", "quality=surrogate"]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["study"] == "one"
    spec = load_spec(tmp_path / "best.yaml")
    assert spec.layer_letters == document["recommended"]["layers"]


def test_keys_of_candidates() -> None:
    for candidate in (Candidate("LLF"), Candidate("LLF", (0, 2))):
        assert parse_key(candidate.key) == candidate


def test_surrogate_is_labelled_and_follows_its_sources() -> None:
    space = space_of()
    quality = SurrogateQuality(space)
    exact = {n: quality.exact(Candidate(_spread(n))) for n in (0, 2, 7, 13, 27)}
    assert exact[2]["recall"] < exact[7]["recall"] < exact[13]["recall"]
    language = [found["language"] for found in exact.values()]
    assert max(language) - min(language) < 0.035
    assert max(exact, key=lambda n: exact[n]["language"]) in (7, 13)
    scores = quality.scores([Candidate(_spread(7))], 0)[0]
    assert scores["recall"].provenance == "surrogate"
    assert quality.scores([Candidate(_spread(7))], 0)[0] == scores


def _spread(count: int) -> str:
    places = {int((i + 0.5) * 27 / count) for i in range(count)} if count else set()
    return "".join("F" if i in places else "L" for i in range(27))


def test_studies_of_other_devices_model_their_times() -> None:
    serve = served()
    twice = replace(serve, hardware=replace(serve.hardware, num_devices=2))
    space = Space(load_spec("kimi_linear"), space_of().settings, twice)
    one, two = (
        s.costs(()).serving((20, 7)).mean_decode(serve.workload) for s in (space_of(), space)
    )
    assert two.latency_s == pytest.approx(one.latency_s / 2)


SEARCH = """
import sys
from hybridsim.cli import main
sys.argv = ["hybridsim", "search", "quality=surrogate", "format=json", "pictures=false",
            "baselines=false", "trials=3", "study=open", *{overrides}]
main()
"""


def searched(folder: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", SEARCH.format(overrides=list(overrides))],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_mappings_that_are_empty_are_filled_on_the_command_line(tmp_path: Path) -> None:
    done = searched(
        tmp_path,
        "quality_weights={recall: 0.8, language: 0.2}",
        "space.choices={mixers.F.kv_lora_rank: [256, 512]}",
        "sampler.options.num_designs=2",
    )
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.glob("outputs/search/*"))  # all it wrote is in the study's folder
    origin = json.loads(done.stdout)["origin"]
    assert origin["quality_weights"] == {"recall": 0.8, "language": 0.2}
    assert origin["sampler"]["options"] == {"num_designs": 2}
    study = json.loads((tmp_path / "open" / "study.json").read_text())["definition"]
    assert study["space"]["choices"] == {"mixers.F.kv_lora_rank": [256, 512]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("quality_weights={recal: 1}", "quality_weights=recal: no such task"),
        ("sampler.options.num_desings=2", "num_desings"),
        ("space.choices={mixers.F.rank: [1]}", "mixers.F.rank"),
        ("space.full_layers_max=0", "holds one candidate"),
        ("base=study/open", "give a trial of the study too, as in spec=study/open/42"),
    ],
)
def test_what_the_command_refuses_is_one_line(override: str, message: str, tmp_path: Path) -> None:
    done = searched(tmp_path, override)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("hybridsim search: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
