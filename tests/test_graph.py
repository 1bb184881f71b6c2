"""The one graph: nodes, edges, parallel branches, unique blocks."""

from __future__ import annotations

import networkx as nx
from cases import SHARED_INDEXER_SPEC, UNUSUAL_SPEC

from hybridsim import load_spec
from hybridsim.graph import build_graph
from hybridsim.spec.parse import parse_spec


def test_kimi_linear_has_three_distinct_layers() -> None:
    blocks = build_graph(load_spec("kimi_linear")).blocks()
    assert [(b.letter, b.ffn_letter, len(b.layers)) for b in blocks] == [
        ("L", "D", 1),
        ("L", "E", 19),
        ("F", "E", 7),
    ]
    assert sorted(i for b in blocks for i in b.layers) == list(range(27))


def test_edges_carry_shapes_and_roles() -> None:
    graph = build_graph(load_spec("qwen3_next"))
    assert nx.is_directed_acyclic_graph(graph.dag)
    edge = graph.dag.edges["layers.3.mixers.F", "layers.3.mixer_add"]
    assert edge == {"shape": ("B", "T", 2048), "elements_per_token": 2048, "role": "input"}
    skip = graph.dag.edges["layers.2.ffn_add", "layers.3.mixer_add"]
    assert skip["role"] == "residual"
    assert nx.ancestors(graph.dag, "head") >= {"embed", "layers.47.ffn", "norm"}


def test_a_normed_residual_starts_behind_the_norm() -> None:
    dag = build_graph(load_spec("minimax_m1_tiny")).dag
    assert dag.edges["layers.0.mixer_norm", "layers.0.mixer_add"]["role"] == "residual"
    assert not dag.has_edge("embed", "layers.0.mixer_add")


def test_parallel_mixers_share_a_norm_and_an_add() -> None:
    graph = build_graph(parse_spec(UNUSUAL_SPEC))
    branches = {"layers.0.mixers.F", "layers.0.mixers.L"}
    assert set(graph.dag.successors("layers.0.mixer_norm")) == branches
    assert branches < set(graph.dag.predecessors("layers.0.mixer_add"))
    assert graph.op("layers.0.mixer_add").inputs == 3


def test_a_feed_forward_may_be_its_own_layer() -> None:
    graph = build_graph(parse_spec(UNUSUAL_SPEC))
    names = [name for name, _, layer in graph.nodes() if layer == 1]
    assert names == ["layers.1.ffn_norm", "layers.1.ffn", "layers.1.ffn_add"]


def test_a_shared_selection_is_an_edge_from_the_last_layer_that_selects() -> None:
    dag = build_graph(parse_spec(SHARED_INDEXER_SPEC)).dag
    shared = {(a, b): data for a, b, data in dag.edges(data=True) if data["role"] == "selection"}
    assert set(shared) == {
        ("layers.0.mixers.X", "layers.1.mixers.S"),
        ("layers.0.mixers.X", "layers.3.mixers.S"),
        ("layers.4.mixers.X", "layers.5.mixers.S"),
    }
    assert {data["elements_per_token"] for data in shared.values()} == {12}
