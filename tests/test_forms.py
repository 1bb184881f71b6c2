"""Closed forms as data give the figures of the functions they were traced from."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from forms import evaluate

from hybridsim.conventions import SERVED
from hybridsim.cost.forms import PHASES, model_forms
from hybridsim.cost.op import Deployment, op_cost
from hybridsim.cost.trace import Forms
from hybridsim.dtypes import BYTES_PER_ELEMENT, Dtypes
from hybridsim.graph import MIXER, layer_ops, outer_ops
from hybridsim.mixers import mixer_cost
from hybridsim.routing import expected_experts
from hybridsim.spec.load import load_spec, spec_names
from hybridsim.steps import capped_sum, prefill

DEPLOYMENT = Deployment(conventions=SERVED)


def traced(function: Any, *values: int) -> Any:
    forms = Forms()
    names = [f"x{i}" for i in range(len(values))]
    place = forms.trace(function, *names)
    return evaluate(forms.nodes, place, dict(zip(names, values, strict=True)))


@pytest.mark.parametrize("first", [0, 3, 7, 20])
@pytest.mark.parametrize("more", [1, 4, 100])
@pytest.mark.parametrize("cap", [None, 1, 5, 30])
def test_decisions_are_followed_both_ways(first: int, more: int, cap: int | None) -> None:
    last = first + more
    found = traced(lambda a, b: capped_sum(a, b, cap), first, last)
    assert found == sum(min(t, cap or t) for t in range(first + 1, last + 1))


def test_what_a_cache_keeps_of_one_way_is_not_taken_on_another() -> None:
    found = [traced(lambda n: expected_experts(8, 2, min(n, 4)), n) for n in (1, 2, 4, 9)]
    assert found == [expected_experts(8, 2, min(n, 4)) for n in (1, 2, 4, 9)]


def test_rounding_goes_down_also_below_zero() -> None:
    assert traced(lambda n: -(-n // 4), 9) == 3
    assert traced(lambda n: divmod(n, 4)[1] + divmod(30, n)[0], 7) == 3 + 4


def test_a_number_cannot_leave_unseen() -> None:
    with pytest.raises(TypeError):
        traced(lambda n: int(n), 3)
    with pytest.raises(TypeError):
        traced(lambda n: f"{n:d}", 3)


def figures(op: Any, context: int, batch: int, kv: str, state: str) -> dict[str, Any]:
    cost, dtypes = op_cost(op), Dtypes(kv=kv, state=state)
    found: dict[str, Any] = {
        "parameters": cost.parameters,
        "active_parameters": cost.active_parameters,
        "peak_elements_per_token": cost.peak_elements_per_token,
        "kv_bytes": cost.cache(dtypes).kv_bytes(context),
        "state_bytes": cost.cache(dtypes).state_bytes,
        "mixing_flops": None,
    }
    if op.kind == MIXER:
        core = mixer_cost(op.settings, op.hidden_size)
        found["mixing_flops"] = core.core_flops(prefill(context), SERVED)
    for phase, step in PHASES.items():
        found[phase] = {
            "flops": cost.flops(step(context), SERVED),
            "weight_elements": cost.weight_elements(step(context), batch, DEPLOYMENT),
            "activation_elements": cost.activation_elements(step(context), SERVED),
            "cache_bytes": cost.cache_bytes(step(context), dtypes) if op.kind == MIXER else None,
        }
    return found


def chosen(form: Any, kv: str, state: str) -> Any:
    """Return one op's positions for two dtypes."""
    picked = dict(form, kv_bytes=form["kv_bytes"][kv], state_bytes=form["state_bytes"][state])
    for phase in PHASES:
        traffic = form[phase]["cache_bytes"]
        picked[phase] = dict(form[phase], cache_bytes=traffic and traffic[kv][state])
    return picked


def values(forms: Forms, form: Any, inputs: dict[str, int]) -> Any:
    if isinstance(form, dict):
        keys = form.keys() - {"kind", "title", "part", "letter"}
        return {key: values(forms, form[key], inputs) for key in keys}
    return None if form is None else evaluate(forms.nodes, form, inputs)


@pytest.mark.parametrize("name", [n for n in spec_names() if n != "kimi_linear_mla"])
def test_every_figure_of_every_op_is_the_closed_form(name: str) -> None:
    spec, forms, draw = load_spec(name), Forms(), random.Random(name)
    model = model_forms(spec, forms, Deployment())
    for letter, ffn in {*zip(spec.layer_letters, spec.ffn_letters, strict=True)}:
        for op, (place, count) in zip(
            layer_ops(spec, letter, ffn), model["layers"][letter][ffn], strict=True
        ):
            assert count == layer_ops(spec, letter, ffn)[op]
            check(op, model, place, forms, draw)
    for op, (place, _) in zip(outer_ops(spec), model["outer"], strict=True):
        check(op, model, place, forms, draw)


def check(op: Any, model: Any, place: int, forms: Forms, draw: random.Random) -> None:
    contexts = [1, 2, 63, 64, 65, 1 << 22, *(int(2 ** draw.uniform(0, 22)) for _ in range(6))]
    for context in contexts:
        batch = draw.choice([1, 2, 7, 256])
        kv, state = (draw.choice([*BYTES_PER_ELEMENT]) for _ in range(2))
        inputs = {**model["sizes"], "context": context, "batch": batch}
        found = values(forms, chosen(model["ops"][place], kv, state), inputs)
        assert found == figures(op, context, batch, kv, state), (op, context, batch)


def test_other_sizes_are_those_of_another_spec() -> None:
    """Sizes are inputs: the form with other numbers is the spec with these numbers."""
    spec, forms = load_spec("kimi_linear"), Forms()
    model = model_forms(spec, forms, Deployment())
    settings = replace(spec.mixers["F"], num_heads=24, kv_lora_rank=384)
    other = replace(spec, hidden_size=1536, mixers={**spec.mixers, "F": settings})
    sizes = {"hidden_size": 1536, "mixers.F.num_heads": 24, "mixers.F.kv_lora_rank": 384}
    for letter in "LF":
        for op, (place, _) in zip(
            layer_ops(other, letter, "E"), model["layers"][letter]["E"], strict=True
        ):
            inputs = {**model["sizes"], **sizes, "context": 5000, "batch": 3}
            form = chosen(model["ops"][place], "fp8", "fp32")
            assert values(forms, form, inputs) == figures(op, 5000, 3, "fp8", "fp32")


def test_a_twin_keeps_the_sizes_of_what_it_is_made_from() -> None:
    model = model_forms(load_spec("minimax_m3"), Forms(), Deployment())
    heads = {name for name in model["sizes"] if name.endswith(".num_heads")}
    assert len(heads) == len(load_spec("minimax_m3").mixers)
