"""Random specs over all mixers and feed-forwards: closed forms, counters and models agree."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from closeness import assert_close
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mistakes import MISTAKES, Mistake, scramble
from omegaconf import OmegaConf
from strategies import (
    FFN_STRATEGIES,
    MIXER_STRATEGIES,
    Pass,
    passes,
    patterns,
    spec_mappings,
)

from hybridsim import build_model, load_spec
from hybridsim.cost.model import ModelCosts
from hybridsim.counters.flop_counter import count_flop_counter
from hybridsim.counters.fvcore_count import count_fvcore
from hybridsim.dtypes import Dtypes
from hybridsim.errors import SpecError
from hybridsim.ffn import FFNS, ffn_settings_class
from hybridsim.graph import ADD, ModelGraph, build_graph, layer_ops, outer_ops
from hybridsim.mixers import SHIPPED, settings_class
from hybridsim.spec.parse import parse_spec, spec_dict
from hybridsim.spec.pattern import compress_pattern, expand_pattern
from hybridsim.spec.schema import ModelSpec
from hybridsim.spec.source import read_spec_file
from hybridsim.steps import decode, prefill

RANDOM = settings.get_profile("random_specs")
STRATEGIES = {**MIXER_STRATEGIES, **FFN_STRATEGIES}
KINDS = dict.fromkeys(SHIPPED, settings_class) | dict.fromkeys(FFNS, ffn_settings_class)


def share(parts: int) -> settings:
    """Return settings for a part of the examples that --random-specs asks for."""
    return settings(RANDOM, max_examples=max(-(-RANDOM.max_examples // parts), 10))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_strategy_that_draws_every_field(kind: str) -> None:
    assert kind in STRATEGIES, "tests/strategies.py: a kind needs a strategy"

    @settings(max_examples=20)
    @given(STRATEGIES[kind])
    def check(drawn: dict[str, Any]) -> None:
        assert set(drawn) == {f.name for f in fields(KINDS[kind](kind))}

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_random_specs_with(kind: str, tmp_path: Path) -> None:
    @share(len(KINDS))
    @given(spec_mappings(kind), passes())
    def check(mapping: dict[str, Any], how: Pass) -> None:
        spec = parse_spec(mapping)
        graph = build_graph(spec)
        check_round_trips(spec, tmp_path / "spec.yaml")
        check_graph(graph)
        check_twin(spec)
        check_flops(graph, how)
        check_model(graph, how)
        check_cache_bytes(graph, how)

    check()


def check_round_trips(spec: ModelSpec, file: Path) -> None:
    """Mappings, files and patterns lose nothing."""
    assert parse_spec(spec_dict(spec)) == spec
    OmegaConf.save(OmegaConf.create(spec_dict(spec)), file)
    assert parse_spec(read_spec_file(file)) == spec
    for pattern in (spec.layer_letters, spec.ffn_letters):
        assert expand_pattern(compress_pattern(pattern), len(pattern)) == pattern


def check_graph(graph: ModelGraph) -> None:
    """One way in, one way out, every layer where its letters say."""
    spec, dag = graph.spec, graph.dag
    assert nx.is_directed_acyclic_graph(dag)
    assert [n for n in dag if dag.in_degree(n) == 0] == ["embed"]
    assert [n for n in dag if dag.out_degree(n) == 0] == ["head"]
    letters = list(zip(spec.layer_letters, spec.ffn_letters, strict=True))
    by_layer = sum((layer_ops(spec, *pair) for pair in letters), outer_ops(spec))
    assert graph.op_counts() == by_layer
    blocks = {i: (b.letter, b.ffn_letter) for b in graph.blocks() for i in b.layers}
    assert [blocks[i] for i in range(spec.num_layers)] == letters


def check_twin(spec: ModelSpec) -> None:
    """The all-full twin has full attention for every mixer, and else the same layers."""
    try:
        twin = spec.all_full_twin()
    except SpecError as error:
        assert_names(error, "full_twin")  # several kinds of full attention, and none is named
        return
    if twin is None:
        return
    assert twin.ffn_letters == spec.ffn_letters
    assert twin.all_full_twin() is None
    for ours, theirs in zip(spec.layer_letters, twin.layer_letters, strict=True):
        assert len(twin.layer_mixers(theirs)) == min(len(spec.layer_mixers(ours)), 1)
        assert all(twin.mixers[m].is_full_attention for m in twin.layer_mixers(theirs))
        assert ours not in spec.ffns or ours == theirs
    assert parse_spec(spec_dict(twin)) == twin
    check_graph(build_graph(twin))


def check_flops(graph: ModelGraph, how: Pass) -> None:
    """The closed form is what fvcore and torch count, to the unit."""
    # One counts the prefill and the other the decode step: counting is most of the time.
    counters = (count_fvcore, count_flop_counter)
    ordered = counters if how.fvcore_counts_prefill else counters[::-1]
    for count, step in zip(ordered, (prefill(how.prompt), decode(how.prompt)), strict=True):
        one = ModelCosts.of(graph).forward_flops(step, how.conventions)
        counted = count(graph, step, how.conventions, how.batch_size)
        assert counted == how.batch_size * one, f"{count.__name__} of {step}"


def check_model(graph: ModelGraph, how: Pass) -> None:
    """The model has the closed form's parameters, and steps give what one pass gives."""
    model = build_model(graph, device="cpu").double()
    torch.manual_seed(0)
    with torch.no_grad():  # a norm's weights and biases that start at one value must matter too
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    assert sum(p.numel() for p in model.parameters()) == ModelCosts.of(graph).parameters.total
    modules = dict(model.named_modules())
    assert all(op.kind == ADD or name in modules for name, op, _ in graph.nodes())
    sizes = [how.prompt, 1, 1, how.continued, 1]
    # No token twice: among equal ones the choice of sparse attention is open.
    rows = [torch.randperm(graph.spec.vocab_size)[: sum(sizes)] for _ in range(how.batch_size)]
    tokens = torch.stack(rows)
    with torch.no_grad():
        wanted = model(tokens)
        cache = model.new_static_cache(sum(sizes)) if how.static_cache else model.new_cache()
        outputs = [model(part, cache) for part in tokens.split(sizes, dim=1)]
    assert_close("logits", torch.cat(outputs, dim=1), wanted, 1e-8)


def check_cache_bytes(graph: ModelGraph, how: Pass) -> None:
    """After a prefill and after a step the cache holds the closed form's bytes."""
    model, costs = build_model(graph, device="cpu", dtype="bf16"), ModelCosts.of(graph)
    tokens = torch.randint(0, graph.spec.vocab_size, (how.batch_size, how.prompt + 1))
    cache = model.new_cache()
    with torch.no_grad():
        for part in tokens.split([how.prompt, 1], dim=1):
            model(part, cache)
            wanted = how.batch_size * costs.cache_bytes(cache.past_tokens, Dtypes())
            assert cache.nbytes() == wanted, f"bytes after {cache.past_tokens} tokens"


@settings(RANDOM)
@given(patterns("LFX.", room=40))
def test_patterns_expand_to_what_they_were_made_of(drawn: tuple[str, str]) -> None:
    pattern, letters = drawn
    assert expand_pattern(pattern, len(letters)) == letters
    assert expand_pattern(compress_pattern(letters), len(letters)) == letters


def assert_one_line(error: SpecError) -> None:
    assert str(error).splitlines() == [str(error)]


def assert_names(error: SpecError, key: str) -> None:
    """Fail unless the message is one line about the key: its level first, its name somewhere."""
    assert_one_line(error)
    level, _, name = f"spec.{key}".rpartition(".")
    assert str(error).startswith(level)
    assert name in str(error)


@pytest.mark.parametrize("mistake", MISTAKES, ids=[m.__name__ for m in MISTAKES])
def test_a_mistake_in_a_random_spec_is_one_clear_line(mistake: Mistake) -> None:
    @share(len(MISTAKES))
    @given(st.data(), spec_mappings())
    def check(data: st.DataObject, mapping: dict[str, Any]) -> None:
        key = mistake(data.draw, mapping)
        assume(key is not None)
        with pytest.raises(SpecError) as raised:
            parse_spec(mapping)
        assert_names(raised.value, str(key))

    check()


def test_a_mistake_in_a_random_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "random.yaml"

    @share(20)
    @given(st.data(), spec_mappings(), st.sampled_from(MISTAKES))
    def check(data: st.DataObject, mapping: dict[str, Any], mistake: Mistake) -> None:
        assume(mistake(data.draw, mapping) is not None)
        file.write_text(json.dumps(mapping, ensure_ascii=False), encoding="utf-8")
        with pytest.raises(SpecError) as raised:
            load_spec(file)
        assert_one_line(raised.value)

    check()


@settings(RANDOM)
@given(st.data(), spec_mappings())
def test_anything_in_place_of_anything_is_a_spec_or_one_line(
    data: st.DataObject, mapping: dict[str, Any]
) -> None:
    scramble(data.draw, mapping)
    try:
        spec = parse_spec(mapping)
    except SpecError as error:
        assert_one_line(error)
    else:
        assert parse_spec(spec_dict(spec)) == spec
