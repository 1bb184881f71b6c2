from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_training import TINY, members

from hybridsim.cores import cores
from hybridsim.errors import HybridsimError
from hybridsim.spec.load import load_spec
from hybridsim.train import run as run_module
from hybridsim.train import workers
from hybridsim.train.chunk import Chunk, Done, Setup
from hybridsim.train.overview import Overview
from hybridsim.train.proxy import ProxySettings
from hybridsim.train.run import ProxyRun
from hybridsim.train.trainer import OUT_OF_MEMORY, TRAINED, Look, Outcome
from hybridsim.train.workers import close_pool, process_count

LANGUAGE = {"kind": "grammar", "vocab_size": 32, "length": 48, "training": {"steps": 4}}
TWO_TASKS = replace(TINY, tasks={"language": LANGUAGE, **TINY.tasks})


@pytest.fixture(scope="module", autouse=True)
def _no_processes_left() -> Iterator[None]:
    yield
    close_pool()


def run_of(folder: Path, proxy: ProxySettings = TWO_TASKS, **options: Any) -> ProxyRun:
    return ProxyRun(proxy, device="cpu", folder=folder, **options)


def chunks(count: int) -> list[Chunk]:
    return [Chunk((member,), "recall", "recall") for member in members(seeds=count)]


def test_results_do_not_depend_on_how_many_processes_train(tmp_path: Path) -> None:
    looks: list[Look] = []
    alone, beside = run_of(tmp_path / "1"), run_of(
        tmp_path / "2", replace(TWO_TASKS, workers=2), on_look=looks.append
    )  # fmt: skip
    specs = [load_spec("gla_tiny"), load_spec("kimi_linear_tiny")]
    ones, twos = alone.train(specs), beside.train(specs)
    assert [found.outcomes for found in twos] == [found.outcomes for found in ones]
    assert list(twos[0].outcomes) == list(TWO_TASKS.tasks)
    assert [found.profile for found in twos] == [found.profile for found in ones]
    assert [run.ledger.processes for run in (alone, beside)] == [1, 2]
    for field in ("models", "failed", "steps", "tokens", "notes"):
        assert getattr(alone.ledger, field) == getattr(beside.ledger, field)
    steps = [look.step for look in looks]
    assert steps == sorted(steps)
    assert (steps[-1], looks[-1].steps) == (4 * (6 + 4), 4 * (6 + 4))
    assert len(list((tmp_path / "2" / "checkpoints").iterdir())) == 2 * TWO_TASKS.seeds * 2
    beside.forget()
    assert not list((tmp_path / "2" / "checkpoints").iterdir())


def test_what_is_finished_is_not_trained_again(tmp_path: Path) -> None:
    """Interrupted in its last training, a run goes on with that one alone."""

    def late(look: Look) -> None:
        if look.step == look.steps - 2:
            raise KeyboardInterrupt

    specs = [load_spec("gla_tiny")]
    with pytest.raises(KeyboardInterrupt):
        run_of(tmp_path, TWO_TASKS, on_look=late).train(specs)
    looks: list[Look] = []
    again = run_of(tmp_path, TWO_TASKS, on_look=looks.append)
    assert again.train(specs)[0].outcomes == run_of(tmp_path / "whole").train(specs)[0].outcomes
    assert len(looks) == 2  # of ten: the interrupted one, which was not saved, and the last


def test_a_container_has_the_cores_of_its_quota(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "cpu.max"
    monkeypatch.setattr("hybridsim.cores.CPU_MAX", file)
    free = cores()
    for text, found in (("max 100000", free), ("100000 100000", 1), ("20000 100000", 1)):
        file.write_text(text)
        assert cores() == min(free, found)


def test_a_process_that_dies_ends_the_command_which_then_goes_on(tmp_path: Path) -> None:
    proxy = replace(TWO_TASKS, workers=2)
    whole = run_of(tmp_path / "whole", TWO_TASKS).train([load_spec("gla_tiny")])[0]

    def kill(look: Look) -> None:
        for process in multiprocessing.active_children():
            process.kill()

    with pytest.raises(HybridsimError, match=r"ended from outside.*proxy\.workers=1"):
        run_of(tmp_path, proxy, on_look=kill).train([load_spec("gla_tiny")])
    assert not multiprocessing.active_children()
    assert list((tmp_path / "checkpoints").glob("*.pt"))
    again = run_of(tmp_path, proxy).train([load_spec("gla_tiny")])[0]
    assert again.outcomes == whole.outcomes


def test_an_error_in_a_process_is_the_one_that_it_would_be_here(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("no folder")
    for wanted in (1, 2):
        with pytest.raises(FileExistsError):
            run_of(tmp_path, replace(TINY, workers=wanted)).train([load_spec("gla_tiny")])
    assert not multiprocessing.active_children()


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    def interrupt(look: Look) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_of(tmp_path, replace(TINY, workers=2), on_look=interrupt).train([load_spec("gla_tiny")])
    assert not multiprocessing.active_children()


def test_as_many_processes_as_have_a_core_and_enough_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "cores", lambda: 4)
    training = replace(TINY.training, steps=10_000)
    long = replace(TINY, training=training)
    cases = [(TINY, 8, 1), (long, 8, 4), (long, 3, 3), (long, 1, 1),
             (replace(TINY, workers=2), 8, 2), (replace(long, workers=1), 8, 1),
             (replace(long, workers=6), 8, 6)]  # fmt: skip
    for proxy, count, expected in cases:
        assert process_count(Setup(proxy, "cpu", tmp_path), chunks(count)) == expected
        assert process_count(Setup(proxy, "cuda", tmp_path), chunks(count)) == 1
    monkeypatch.setattr(multiprocessing, "parent_process", lambda: "another")
    assert process_count(Setup(long, "cpu", tmp_path), chunks(8)) == 1


def test_what_does_not_fit_beside_others_is_tried_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crowded(setup: Setup, given: list[Chunk], *more: Any) -> Iterator[tuple[int, Done]]:
        for number, chunk in enumerate(given):
            yield number, Done([Outcome(chunk.members[0], OUT_OF_MEMORY, cause="crowded")])

    monkeypatch.setattr(run_module, "train_chunks", crowded)
    proxy = replace(TINY, workers=2)
    (found,) = run_of(tmp_path, proxy).train([load_spec("gla_tiny")])
    assert [o.status for o in found.outcomes["recall"]] == [TRAINED, TRAINED]


def test_an_overview_adds_up_the_looks_of_all_chunks() -> None:
    seen: list[Look] = []
    overview = Overview([6, 6, 4], seen.append)
    overview.look(1, Look("recall", 2, 6, 0.5, 1))
    overview.look(0, Look("recall", 4, 6, 0.25, 1))
    overview.look(1, Look("recall", 4, 6, 1.0, 0))  # learnt: it needs no more steps
    overview.end(1)
    overview.end(2)  # finished before
    overview.look(0, Look("recall", 6, 6, 0.75, 1))
    assert seen == [
        Look("recall", 2, 16, 0.5, 1),
        Look("recall", 6, 16, 0.5, 2),
        Look("recall", 10, 16, 1.0, 1),
        Look("recall", 16, 16, 1.0, 1),
    ]
