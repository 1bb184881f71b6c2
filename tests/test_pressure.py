"""Pressure on a state: what it keeps, what a workload asks, tasks that ask as much, the page."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import ALL_CASES
from task_examples import EXAMPLES, example
from task_oracles import ORACLES

from hybridsim import load_spec
from hybridsim.dtypes import Dtypes
from hybridsim.errors import SpecError
from hybridsim.mixers import MixerSettings, mixer_cost
from hybridsim.options import read_option
from hybridsim.train.pressed import press, pressure_record
from hybridsim.train.proxy import PRESSURES, check_pressure, load_proxy
from hybridsim.train.tasks import IGNORED, TASKS, parse_task
from hybridsim.train.tasks.pressure import (
    PRESSED,
    Pressure,
    associations,
    key_channels,
    pressure_on,
    resized,
    task_at,
)
from hybridsim.workload import Workload, parse_workload

PAGE = (Path(__file__).parents[1] / "docs" / "proxy_tasks.md").read_text()


def workload(name: str) -> Workload:
    return parse_workload(read_option("workload", name))


def value_columns(settings: Any) -> int:
    """Return the columns of a head's state, from the settings' own fields."""
    if settings.kind == "linear_attention":
        return settings.head_v_dim + int(settings.normalize)
    if settings.kind == "mamba1":
        return int(settings.inner_dim)
    return getattr(settings, "head_v_dim", None) or settings.head_dim


@pytest.mark.parametrize("settings", [s for _, s in ALL_CASES], ids=[n for n, _ in ALL_CASES])
def test_key_channels_times_value_columns_are_the_state(settings: MixerSettings) -> None:
    numbers = mixer_cost(settings, 32).cache(Dtypes(state="fp32")).recurrent_bytes / 4
    channels = key_channels(settings, 32)
    assert (channels is None) == (numbers == 0)
    if channels is not None:
        assert channels * value_columns(settings) == numbers


def test_kimi_linear_keeps_half_of_what_128k_tokens_hold() -> None:
    """32 heads of 128 key channels; one association for every 16 of 131,072 tokens."""
    found = pressure_on(load_spec("kimi_linear"), workload("agent_128k"))
    assert found == Pressure("L", 8192.0, 4096)
    assert (found.ratio, found.rung, found.is_beyond) == (2.0, 2.0, False)


def test_a_model_without_a_recurrent_state_is_under_no_pressure() -> None:
    assert pressure_on(load_spec("llama31_8b"), workload("million")) is None
    only_full = load_spec("kimi_linear", ["layer_pattern=(F)*27"])
    assert pressure_on(only_full, workload("million")) is None


def test_the_smallest_state_in_use_counts() -> None:
    spec = load_spec(
        "kimi_linear", ["+mixers.S={kind: gla, num_heads: 4, head_k_dim: 64, head_v_dim: 64}"]
    )
    assert pressure_on(spec, workload("chat")).key_channels == 4096  # type: ignore[union-attr]
    used = load_spec(
        "kimi_linear",
        [
            "+mixers.S={kind: gla, num_heads: 4, head_k_dim: 64, head_v_dim: 64}",
            "layer_pattern=(LLSF)*6 LLF",
        ],
    )
    assert pressure_on(used, workload("chat")) == Pressure("S", 512.0, 256)


@pytest.mark.parametrize(
    ("ratio", "rung", "is_beyond"),
    [
        (0.001, 0.5, False),
        (0.7, 0.5, False),
        (0.72, 1, False),
        (2.8, 2, False),
        (2.9, 4, False),
        (5.6, 4, False),
        (5.7, 4, True),
        (1000, 4, True),
    ],
)
def test_the_rung_is_the_nearest_in_logarithms(ratio: float, rung: float, is_beyond: bool) -> None:
    found = Pressure("L", 64 * ratio, 64)
    assert (found.rung, found.is_beyond) == (rung, is_beyond)


@pytest.mark.parametrize("kind", PRESSED)
def test_a_pressed_task_is_a_task_and_grows_with_the_pressure(kind: str) -> None:
    lengths = []
    for pressure in PRESSURES:
        task = task_at(kind, pressure, 16)
        assert task.kind == kind
        batch = task.sample(0, 0, 2)
        for row, at in (batch.answers != IGNORED).nonzero().tolist():
            read = batch.tokens[row, : at + 1].tolist()
            assert ORACLES[kind](task, read, at) == int(batch.answers[row, at])
        lengths.append(task.length)
    assert lengths == sorted(set(lengths))


@pytest.mark.parametrize(
    ("pressure", "channels", "pairs"), [(0.5, 64, 32), (2, 16, 32), (4, 64, 256)]
)
def test_recall_has_as_many_pairs_as_asked_for(pressure: float, channels: int, pairs: int) -> None:
    task = task_at("mqar", pressure, channels)
    vocab_size = max(256, 8 * pairs)
    wanted = {"num_pairs": pairs, "length": 4 * pairs, "vocab_size": vocab_size}
    assert task == parse_task({"kind": "mqar", **wanted})


def test_pressure_out_of_reach_is_one_line() -> None:
    with pytest.raises(SpecError, match=r"^pressure=8: mqar has 2048 tokens then; at most 1024$"):
        task_at("mqar", 8, 64)
    with pytest.raises(SpecError, match=r"^task=stacks: no such task whose pressure can be set"):
        task_at("stacks", 1, 64)
    with pytest.raises(SpecError, match=r"^pressure=0: must be at least 1$|must be above 0$"):
        task_at("mqar", 0.0, 64)
    assert task_at("needle", 4, 64, max_length=256).length == 256


@pytest.mark.parametrize("kind", sorted(set(PRESSED) - {"needle"}))
@pytest.mark.parametrize("pressure", PRESSURES)
def test_a_task_says_what_it_asks(kind: str, pressure: float) -> None:
    assert associations(task_at(kind, pressure, 16)) == 16 * pressure
    assert associations(resized(TASKS[kind](), pressure, 16, 1024)) == 16 * pressure


def test_tasks_without_a_rule_ask_nothing_that_is_known() -> None:
    asked = {kind for kind in TASKS if kind != "text" and associations(TASKS[kind]()) is not None}
    assert asked == set(PRESSED)


# A proxy under pressure


def test_a_proxy_at_its_own_pressure_is_itself() -> None:
    """Its recall asks 32 pairs of 16 key channels (quick), 32 of 32 (standard)."""
    kimi, chat = load_spec("kimi_linear"), workload("chat")
    quick, standard = load_proxy("quick"), load_proxy("standard")
    assert press(quick, 2, kimi, chat) == quick
    assert press(standard, 1, kimi, chat).tasks["recall"] == standard.tasks["recall"]
    assert press(quick, None, kimi, chat) is quick


def test_pressure_changes_sizes_alone() -> None:
    """At 4 for 16 key channels: 64 pairs, which 63 keys of a vocabulary of 128 cannot be."""
    quick = load_proxy("quick", ["training.steps=7"])
    quick = replace(
        quick, tasks={**quick.tasks, "recall": {**quick.tasks["recall"], "power_a": 0.5}}
    )
    pressed = press(quick, 4, load_spec("kimi_linear"), workload("chat"))
    sizes = {"num_pairs": 64, "length": 256, "vocab_size": 512}
    assert pressed.tasks["recall"] == {**quick.tasks["recall"], **sizes}
    assert {**vars(pressed), "tasks": None} == {**vars(quick), "tasks": None}
    assert pressed.tasks["language"] == quick.tasks["language"]


@pytest.mark.parametrize("name", ["quick", "standard"])
@pytest.mark.parametrize("pressure", PRESSURES)
def test_every_task_of_a_pressed_proxy_can_be_trained(name: str, pressure: float) -> None:
    proxy = press(load_proxy(name), pressure, load_spec("kimi_linear"), workload("chat"))
    for task in proxy.tasks:
        batch = proxy.task(task).sample(0, 0, 2, split="held_out")
        assert (batch.answers != IGNORED).any()


def test_a_workload_presses_on_the_proxy_as_on_the_full_model() -> None:
    kimi = load_spec("kimi_linear")
    for name, pairs in (("chat", 8), ("retrieval_32k", 8), ("agent_128k", 32), ("million", 64)):
        pressed = press(load_proxy("quick"), "workload", kimi, workload(name))
        assert pressed.tasks["recall"]["num_pairs"] == pairs


@pytest.mark.parametrize(("spec", "channels"), [("nemotron_h_8b", 128), ("qwen3_next", 32)])
def test_the_twins_own_state_is_pressed_on(spec: str, channels: int) -> None:
    """Mamba-2's 16 heads of 8; gated delta rule's value heads are twice the proxy's 2."""
    given = (load_spec(spec), workload("chat"))
    pressed = press(load_proxy("quick"), 2, *given)
    assert pressed.tasks["recall"]["num_pairs"] == 2 * channels
    record = pressure_record(2, pressed, *given)
    assert (record["key_channels"], record["tasks"]) == (channels, {"recall": 2.0})


@pytest.mark.parametrize(
    ("spec", "load", "line"),
    [
        ("kimi_linear", "agent_128k", "recall asks 2; agent_128k asks 2 of kimi_linear"),
        ("kimi_linear", "million", "recall asks 2; million asks 16 of kimi_linear,"
         " more than the hardest (4)"),
        ("llama31_8b", "chat", "recall asks -; chat asks - of llama31_8b,"
         " which has no recurrent state"),
    ],
)  # fmt: skip
def test_the_record_says_both_pressures(spec: str, load: str, line: str) -> None:
    record = pressure_record(None, load_proxy("quick"), load_spec(spec), workload(load))
    assert record["line"] == line
    assert (record["workload_asks"] is None) == (record["tasks"]["recall"] is None)


def test_an_all_full_model_gets_the_tasks_of_the_proxys_own_sizes() -> None:
    pressed = press(load_proxy("quick"), 4, load_spec("llama31_8b"), workload("chat"))
    assert pressed.tasks["recall"]["num_pairs"] == 4 * 16


@pytest.mark.parametrize("value", [3, 0, -1, True, "1/2", "worload", [1], math.nan])
def test_another_pressure_is_one_line(value: Any) -> None:
    allowed = "must be one of 0.5, 1, 2, 4, workload, or null"
    with pytest.raises(SpecError, match=f"{allowed}$") as error:
        check_pressure(value)
    assert str(error.value).startswith(f"pressure={value}: ")


@pytest.mark.parametrize(
    ("proxy", "tasks", "spec", "pressure", "message"),
    [
        ("quick", ("recall",), "llama31_8b", "workload",
         r"^pressure=workload: llama31_8b has no recurrent state; give one of 0.5, 1, 2, 4"),
        ("quick", ("language",), "kimi_linear", 2,
         r"^pressure=2: none of the proxy's tasks language has a pressure"),
        ("deep", ("tracking",), "kimi_linear", 4,
         r"^pressure of proxy=deep, task tracking: pressure=4: variable_tracking has 4096 tokens"
         r" then; at most 2048$"),
    ],
)  # fmt: skip
def test_a_pressure_that_cannot_be_is_one_line(
    proxy: str, tasks: tuple[str, ...], spec: str, pressure: Any, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        press(load_proxy(proxy).only(tasks), pressure, load_spec(spec), workload("chat"))


@pytest.mark.slow
def test_the_command_trains_under_pressure(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hybridsim", "train", "spec=kimi_linear_tiny", "format=json",
               "tasks=[recall]", "pressure=4", "proxy.training.steps=2", "proxy.seeds=1",
               "pictures=false", "device=cpu"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    document = json.loads(done.stdout)
    assert document["pressure"]["option"] == 4
    assert document["pressure"]["tasks"] == {"recall": 4.0}
    assert document["proxy"]["tasks"]["recall"]["num_pairs"] == 64
    assert document["pressure"]["line"].startswith("recall asks 4; chat asks ")


def rows(first: str) -> list[list[str]]:
    """Return the cells of the page's table whose header begins with a word."""
    table = re.search(rf"^\| {first} \|.*\n\|[-|: ]*\|\n((?:\|.*\n)*)", PAGE, re.MULTILINE)
    assert table is not None
    lines = table.group(1).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_page_lists_every_task_with_its_figures() -> None:
    listed = {row[0].strip("`"): row[1:] for row in rows("task")}
    assert list(listed) == list(TASKS)
    for kind, (chance, guess, stresses, source) in listed.items():
        assert (stresses, source) == (TASKS[kind].stresses, TASKS[kind].source)
        if kind == "text":
            continue
        task = parse_task({"kind": kind})
        assert chance == f"{task.chance:.4f}"
        assert guess == ("-" if task.guess == task.chance else f"{task.guess:.4f}")


def test_the_page_shows_what_tasks_generate() -> None:
    assert set(EXAMPLES) == set(TASKS) - {"text"}
    for kind in EXAMPLES:
        assert example(kind) in PAGE


def test_the_page_has_the_pressures_of_published_models() -> None:
    names = ["chat", "retrieval_32k", "agent_128k", "document_200k", "million"]
    found = rows("spec")
    assert len(found) > 5
    for name, channels, *ratios in found:
        spec = load_spec(name)
        pressures = [pressure_on(spec, workload(one)) for one in names]
        assert all(p is not None and f"{p.key_channels:,}" == channels for p in pressures)
        assert ratios == [f"{p.ratio:,.4g}" for p in pressures if p is not None]


def test_the_share_of_recalled_tokens_follows_from_the_published_perplexities() -> None:
    """Zoology's Table 1, as docs/proxy_tasks.md quotes it: all tokens, recalled ones, others."""
    published = [
        (9.44, 1.98, 10.62),
        (10.38, 4.81, 11.00),
        (10.07, 3.83, 10.75),
        (9.79, 3.82, 10.51),
    ]
    shares = [math.log(o / a) / math.log(o / r) for a, r, o in published]
    assert [round(100 * share, 1) for share in shares] == [7.0, 7.0, 6.3, 7.0]
