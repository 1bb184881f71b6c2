"""The one graph of a model: a spec expanded into a networkx DAG. No torch.

The model is built from it, costs are sums over it, unique blocks are found in it, and tables and
diagrams are drawn from it. Node names are the names of the model's modules.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx

from hybridsim.ffn import FFNS, FfnSettings
from hybridsim.mixers import MIXERS, MixerSettings
from hybridsim.spec.pattern import NOTHING
from hybridsim.spec.schema import POST, PRE, ModelSpec

EMBEDDING, NORM, MIXER, FFN, ADD, HEAD = "embedding", "norm", "mixer", "ffn", "add", "head"


@dataclass(frozen=True)
class Op:
    """What a node does; equal ops cost the same wherever they stand.

    Attributes:
        kind: one of embedding, norm, mixer, ffn, add, head.
        hidden_size: width of the residual stream.
        vocab_size: rows of the embedding or head, else 0.
        tied: whether a head shares the embedding's weights.
        letter: the spec's letter of a mixer or feed-forward, else "".
        settings: the settings of a mixer or feed-forward, else None.
        inputs: tensors that an add sums, else 1.
    """

    kind: str
    hidden_size: int
    vocab_size: int = 0
    tied: bool = False
    letter: str = ""
    settings: MixerSettings | FfnSettings | None = None
    inputs: int = 1

    @property
    def part(self) -> str:
        """The row of tables by kind that the op belongs to: the kind of mixer or feed-forward."""
        return self.settings.kind if self.settings is not None else self.kind

    @property
    def title(self) -> str:
        """What people call it."""
        if isinstance(self.settings, MixerSettings):
            return MIXERS[self.settings.kind].title
        if isinstance(self.settings, FfnSettings):
            return FFNS[self.settings.kind].title
        return self.kind

    @property
    def output_width(self) -> int:
        """Channels of the output."""
        return self.vocab_size if self.kind == HEAD else self.hidden_size


@dataclass(frozen=True)
class Sublayer:
    """What runs side by side, its norms, and the residual add.

    Attributes:
        kind: MIXER or FFN.
        branches: ops that read the same input; their sum is added to the residual stream.
        norms: where the norms stand: "pre", "post" or "sandwich".
    """

    kind: str
    branches: tuple[Op, ...]
    norms: str = PRE

    @property
    def has_norm_before(self) -> bool:
        """Whether the branches read a normalised input."""
        return self.norms != POST

    @property
    def has_norm_after(self) -> bool:
        """Whether the branches' sum is normalised before it is added."""
        return self.norms != PRE


def layer_plan(spec: ModelSpec, letter: str, ffn_letter: str) -> tuple[Sublayer, ...]:
    """Return the sublayers of a layer with these letters of the two patterns."""
    plan, norms = [], spec.layer_norms(letter)
    if mixers := spec.layer_mixers(letter):
        ops = [Op(MIXER, spec.hidden_size, letter=m, settings=spec.mixers[m]) for m in mixers]
        plan.append(Sublayer(MIXER, tuple(ops), norms))
    for ffn in (letter if letter in spec.ffns else NOTHING, ffn_letter):
        if ffn != NOTHING:
            op = Op(FFN, spec.hidden_size, letter=ffn, settings=spec.ffns[ffn])
            plan.append(Sublayer(FFN, (op,), norms))
    return tuple(plan)


def layer_ops(spec: ModelSpec, letter: str, ffn_letter: str) -> Counter[Op]:
    """Return how often each op occurs in a layer with these letters."""
    ops: Counter[Op] = Counter()
    for sublayer in layer_plan(spec, letter, ffn_letter):
        ops.update(sublayer.branches)
        ops[Op(NORM, spec.hidden_size)] += sublayer.has_norm_before + sublayer.has_norm_after
        ops[Op(ADD, spec.hidden_size, inputs=1 + len(sublayer.branches))] += 1
    return ops


def outer_ops(spec: ModelSpec) -> Counter[Op]:
    """Return the ops outside the layers: embedding, final norm and head."""
    width, vocab = spec.hidden_size, spec.vocab_size
    return Counter(
        [
            Op(EMBEDDING, width, vocab_size=vocab),
            Op(NORM, width),
            Op(HEAD, width, vocab_size=vocab, tied=spec.tie_word_embeddings),
        ]
    )


@dataclass(frozen=True)
class Block:
    """Layers that are alike.

    Attributes:
        letter: their letter of the layer pattern.
        ffn_letter: their letter of the feed-forward pattern.
        layers: their indices, from 0.
    """

    letter: str
    ffn_letter: str
    layers: tuple[int, ...]


class ModelGraph:
    """A model as a DAG.

    Attributes:
        spec: what it was built from.
        dag: nodes carry `op` and `layer` (None outside the layers); edges carry `shape`
            ("B", "T", channels), `elements_per_token` and `role`: "input", "residual", or
            "selection" (the tokens that a sparse layer chose, for a later one).
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.dag: nx.DiGraph[str] = nx.DiGraph()
        self._selector = ""  # the last mixer so far that selects tokens
        self._build()

    def _build(self) -> None:
        spec, width = self.spec, self.spec.hidden_size
        self._add("embed", Op(EMBEDDING, width, vocab_size=spec.vocab_size), None)
        last = "embed"
        for layer, letters in enumerate(zip(spec.layer_letters, spec.ffn_letters, strict=True)):
            for sublayer in layer_plan(spec, *letters):
                last = self._add_sublayer(layer, sublayer, last)
        self._add("norm", Op(NORM, width), None, last)
        head = Op(HEAD, width, vocab_size=spec.vocab_size, tied=spec.tie_word_embeddings)
        self._add("head", head, None, "norm")

    def _add_sublayer(self, layer: int, sublayer: Sublayer, source: str) -> str:
        """Add norms, branches and residual add; return the add's name."""
        stem, width = f"layers.{layer}.{sublayer.kind}", self.spec.hidden_size
        norm = source
        if sublayer.has_norm_before:
            norm = f"{stem}_norm"
            self._add(norm, Op(NORM, width), layer, source)
        outputs = []
        for op in sublayer.branches:
            name = f"{stem}s.{op.letter}" if sublayer.kind == MIXER else stem
            self._add(name, op, layer, norm)
            self._add_selection(name, op)
            outputs.append(name)
        inputs = 1 + len(outputs)
        if sublayer.has_norm_after:
            # Several branches are summed on the way into the norm.
            after = f"{stem}_post_norm"
            self._add(after, Op(NORM, width), layer, *outputs)
            outputs = [after]
        add = f"{stem}_add"
        self._add(add, Op(ADD, width, inputs=inputs), layer, *outputs)
        skipped_from = norm if self.spec.residual.source == "normed" else source
        self._connect(skipped_from, add, role="residual")
        return add

    def _add_selection(self, name: str, op: Op) -> None:
        """Connect a mixer with the one whose selection it shares, and remember one that selects."""
        if not isinstance(op.settings, MixerSettings):
            return
        if op.settings.borrows is not None:
            self._connect(self._selector, name, role="selection", width=op.settings.borrows)
        if op.settings.selects is not None:
            self._selector = name

    def _add(self, name: str, op: Op, layer: int | None, *sources: str) -> None:
        self.dag.add_node(name, op=op, layer=layer)
        for source in sources:
            self._connect(source, name, role="input")

    def _connect(self, source: str, target: str, *, role: str, width: int | None = None) -> None:
        width = width or self.op(source).output_width
        self.dag.add_edge(
            source, target, shape=("B", "T", width), elements_per_token=width, role=role
        )

    def op(self, name: str) -> Op:
        """Return what a node does."""
        op: Op = self.dag.nodes[name]["op"]
        return op

    def nodes(self) -> Iterator[tuple[str, Op, int | None]]:
        """Yield name, op and layer of every node, inputs before what uses them."""
        for name in nx.topological_sort(self.dag):
            data: Mapping[str, Any] = self.dag.nodes[name]
            yield name, data["op"], data["layer"]

    def op_counts(self) -> Counter[Op]:
        """Return how often each op occurs."""
        return Counter(op for _, op, _ in self.nodes())

    def blocks(self) -> list[Block]:
        """Return the distinct layers with where they stand, in the order of first use."""
        where: dict[tuple[str, str], list[int]] = {}
        for layer, letters in enumerate(
            zip(self.spec.layer_letters, self.spec.ffn_letters, strict=True)
        ):
            where.setdefault(letters, []).append(layer)
        return [Block(*letters, layers=tuple(layers)) for letters, layers in where.items()]


def build_graph(spec: ModelSpec) -> ModelGraph:
    """Return the graph of a spec."""
    return ModelGraph(spec)
