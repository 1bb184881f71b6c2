"""The explorer in a browser gives Python's figures: bytes and FLOPs to the unit, times to 1e-12."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from browser import Watched

from hybridsim.cost.crossover import crossover_tokens
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.dtypes import BYTES_PER_ELEMENT, Dtypes
from hybridsim.graph import build_graph
from hybridsim.hardware import Hardware
from hybridsim.profiler.serving import Serving
from hybridsim.report.html.explorer import explorer_data, shipped_devices
from hybridsim.report.html.page import page
from hybridsim.spec.load import load_spec
from hybridsim.spec.schema import ModelSpec

SPECS = (
    "kimi_linear",
    "qwen3_next",
    "minimax_m1",
    "minimax_m3",
    "gemma3_27b",
    "jamba",
    "falcon_h1_34b",
    "nemotron_h_8b",
    "deepseek_v32",
    "ring_mini_linear",
    "kimi_linear_mla",
    "llama31_8b",
)
SETTINGS = 60
TIMES = 1e-12
GO = """hash => new Promise(done => {
  addEventListener("hashchange", () => done(), { once: true });
  location.hash = hash;
})"""
# Sizes that may change by themselves.
FREE_SIZES = ("hidden_size", "vocab_size", "intermediate_size", "kv_lora_rank", "state_size")


@pytest.fixture(scope="module")
def devices() -> dict[str, Hardware]:
    return {device.name: device for device in shipped_devices()}


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return explorer_data([(name, load_spec(name)) for name in SPECS])


@pytest.fixture(scope="module")
def url(data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page("test", "", [], data, "0"), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def watched(browser: Any) -> Watched:
    return Watched(browser)


@lru_cache(maxsize=None)
def spec_of(spec_name: str, pattern: str, sizes: tuple[tuple[str, int], ...]) -> ModelSpec:
    spec = load_spec(spec_name).with_patterns(layer_pattern=pattern)
    for name, value in sizes:
        spec = resized(spec, name, value)
    return spec


def resized(spec: ModelSpec, name: str, value: int) -> ModelSpec:
    """Return the spec with another size, named as on the page: FIELD or GROUP.LETTER.FIELD."""
    if "." not in name:
        return replace(spec, **{name: value})
    group, letter, field = name.split(".")
    table = getattr(spec, group)
    return replace(spec, **{group: {**table, letter: replace(table[letter], **{field: value})}})


def drawn(draw: random.Random, data: dict[str, Any], devices: dict[str, Hardware]) -> Any:
    """Return a random state of the explorer: its address, and the same as Python's arguments."""
    model = draw.choice(data["models"])
    dtypes = {name: draw.choice([*BYTES_PER_ELEMENT]) for name in ("weights", "kv", "state")}
    dtypes["activations"] = draw.choice(["bf16", "fp16", "fp8"])
    # The device has a rate for what products run in.
    fitting = [d for d in devices.values() if Dtypes(**dtypes).products in d.peak_flops]
    device = draw.choice(fitting)
    context, batch = int(2 ** draw.uniform(0, 22)), int(2 ** draw.uniform(0, 10))
    pattern = drawn_pattern(draw, model)
    free = [name for name in model["sizes"] if name.split(".")[-1] in FREE_SIZES]
    chosen = draw.sample(free, min(len(free), draw.choice([0, 0, 1, 2])))
    sizes = tuple((name, model["sizes"][name] * draw.choice([2, 3, 5])) for name in chosen)
    state = {
        "model": model["key"],
        "device": device.name,
        "context": context,
        "batch": batch,
        "pattern": pattern,
        **dtypes,
        **dict(sizes),
    }
    spec = spec_of(model["key"], pattern, sizes)
    return state, spec, device, Deployment(dtypes=Dtypes(**dtypes)), context, batch


def drawn_pattern(draw: random.Random, model: dict[str, Any]) -> str:
    mixing = [name for name, meaning in model["letters"].items() if meaning["role"] != "other"]
    # The twin's own letter is no letter of the spec.
    known = [letter for letter in mixing if letter in spec_letters(model["key"])]
    if draw.random() < 0.3 or not known:
        return str(model["layer_pattern"])
    return "".join(
        draw.choice(known) if model["letters"][letter]["role"] != "other" else letter
        for letter in model["layer_pattern"]
    )


@lru_cache(maxsize=None)
def spec_letters(name: str) -> set[str]:
    spec = load_spec(name)
    return {*spec.mixers, *spec.parallel}


def address(state: dict[str, Any]) -> str:
    return "#" + urlencode({f"explore.{key}": value for key, value in state.items()})


def shown(watched: Watched, name: str) -> tuple[str, str | None]:
    output = watched.page.locator(f"output[name={name}]")
    return output.get_attribute("data-exact"), output.get_attribute("data-twin")


def figures(serving: Serving, context: int, batch: int) -> dict[str, Any]:
    """Return what each card shows, by Python."""
    costs, dtypes = serving.costs, serving.deployment.dtypes
    point = serving.point(context, batch)
    return {
        "cache_bytes": serving.cache_bytes(context),
        "kv_cache_bytes": costs.kv_cache_bytes(context, dtypes),
        "state_bytes": costs.state_bytes(dtypes),
        "parameters": costs.parameters.total,
        "weights_bytes": point["memory"]["weights_bytes"],
        "memory_bytes": point["memory"]["total_bytes"],
        "prefill_flops": point["prefill"]["flops"] // batch,
        "largest_batch": serving.largest_batch_size(context),
        "decode_s": point["decode"]["latency_s"],
        "prefill_s": point["prefill"]["latency_s"],
        "tokens_per_s": point["decode"]["tokens_per_s"],
    }


def assert_same(found: str | None, expected: Any, what: str) -> None:
    assert found is not None, what
    if isinstance(expected, int):
        assert int(found) == expected, what
    else:
        assert float(found) == pytest.approx(expected, rel=TIMES, abs=0), what


@pytest.mark.slow
def test_sixty_random_settings_are_pythons_figures(
    watched: Watched, url: str, data: dict[str, Any], devices: dict[str, Hardware]
) -> None:
    draw, models, twins = random.Random(7), set(), 0
    opened = watched.open(url)
    for number in range(SETTINGS):
        state, spec, device, deployment, context, batch = drawn(draw, data, devices)
        opened.evaluate(GO, address(state))
        opened.wait_for_selector(".result[data-settled]", state="attached")
        twin = spec.all_full_twin()
        servings = [
            None if one is None else Serving(ModelCosts.of(build_graph(one)), deployment, device)
            for one in (spec, twin)
        ]
        both = [serving and figures(serving, context, batch) for serving in servings]
        for name, expected in both[0].items():
            value, other = shown(watched, name)
            assert_same(value, expected, f"{name} of {state}")
            if other is not None:
                assert_same(other, both[1][name], f"{name} of the twin of {state}")
        if number % 5 == 0:
            check_crossovers(watched, crossover_tokens(spec, deployment, device, batch), state)
        models.add(state["model"])
        twins += twin is not None
    assert watched.complaints == []
    assert len(models) >= 10
    assert twins >= 25


def check_crossovers(watched: Watched, expected: dict[str, int | None], state: Any) -> None:
    for name, tokens in expected.items():
        cell = watched.page.locator(f"td[data-crossing={name}]")
        found = cell.get_attribute("data-exact")
        assert found == ("null" if tokens is None else str(tokens)), (name, state)


def test_sliders_change_the_figures_to_pythons(watched: Watched, url: str) -> None:
    opened = watched.open(f"{url}?sliders")
    spec, device = load_spec("kimi_linear"), shipped_devices()
    h200 = next(d for d in device if d.name == "h200")
    opened.locator("input[name='context slider']").focus()
    for _ in range(8):  # one octave up
        opened.keyboard.press("ArrowRight")
    opened.locator("input[name='full layers']").fill("3")
    opened.wait_for_selector(".result[data-settled]", state="attached")
    pattern = "".join(opened.locator(".layers button").all_text_contents())
    assert pattern.count("F") == 3
    serving = Serving(
        ModelCosts.of(build_graph(spec.with_patterns(layer_pattern=pattern))), Deployment(), h200
    )
    assert_same(shown(watched, "cache_bytes")[0], serving.cache_bytes(262144), "cache")
    step = serving.point(262144, 1)["decode"]["latency_s"]
    assert_same(shown(watched, "decode_s")[0], step, "decode")
    # The address carries the state to another reader.
    link = opened.evaluate("location.href")
    before = shown(watched, "cache_bytes")
    opened.goto("about:blank")
    watched.open(link)
    assert shown(watched, "cache_bytes") == before
    assert watched.complaints == []


def test_an_address_that_makes_no_sense_is_the_default(watched: Watched, url: str) -> None:
    wrong = {"model": "gpt9", "context": -4, "batch": "many", "pattern": "QQ", "kv": "fp6"}
    watched.open(f"{url}?wrong{address(wrong)}")
    costs = ModelCosts.of(build_graph(load_spec("kimi_linear")))
    assert_same(shown(watched, "cache_bytes")[0], costs.cache_bytes(131072, Dtypes()), "cache")
    assert watched.complaints == []


def test_a_device_without_the_rate_is_said(watched: Watched, url: str) -> None:
    state = {"activations": "fp4", "weights": "fp4", "device": "h200"}
    opened = watched.open(f"{url}?rate{address(state)}")
    assert "has no fp4 rate" in opened.locator(".result .error").text_content()
    assert watched.complaints == []


def test_the_page_loads_nothing_from_elsewhere(watched: Watched, url: str) -> None:
    watched.open(f"{url}?alone")
    assert all(one.startswith(("file:", "data:", "about:")) for one in watched.requests)
    assert Path(url.removeprefix("file://")).stat().st_size < 3_000_000
