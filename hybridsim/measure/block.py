"""A block: the unit that is timed. One sublayer of the graph, the embedding, or the head. No torch.

Two specs that share a block share its rows: a block keeps what can change a time, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

from hybridsim.components import NormSettings, RopeSettings
from hybridsim.cost.op import op_cost
from hybridsim.dtypes import Dtypes
from hybridsim.ffn import FfnSettings, ffn_settings_class
from hybridsim.fields import parse_dataclass
from hybridsim.graph import (
    EMBEDDING,
    FFN,
    HEAD,
    MIXER,
    ModelGraph,
    Op,
    build_graph,
    layer_ops,
    layer_plan,
    outer_ops,
)
from hybridsim.mixers import MixerSettings, settings_class
from hybridsim.spec.pattern import NOTHING
from hybridsim.spec.schema import PRE, ModelSpec, ResidualSettings

SIGNATURE_DIGITS = 12

# Fields that cannot change a time, and the value that every block has instead. Numbers that enter
# an operation which runs whatever they are: epsilons, bases, factors.
FIXED: dict[str, Any] = {
    "eps": 1e-6,
    "norm_eps": None,
    "theta": 10000.0,
    "softmax_scale": None,
    "routed_scaling_factor": 1.0,
    "gate_logit_normalizer": 16.0,
    "slope_schedule": "minimax",
    "feature_seed": 0,
}
# Fields of which only matters whether they have their neutral value: another one is an operation
# more. Neutral value, and what stands for all others.
SWITCHES: dict[str, tuple[Any, Any]] = {
    "alpha": (1.0, 0.5),
    "beta": (1.0, 0.5),
    "scale": (1.0, 0.5),
    "key_scale": (1.0, 0.5),
    "input_scale": (1.0, 0.5),
    "output_scale": (1.0, 0.5),
    "z_scale": (1.0, 0.5),
    "x_scale": (1.0, 0.5),
    "b_scale": (1.0, 0.5),
    "c_scale": (1.0, 0.5),
    "dt_scale": (1.0, 0.5),
    "gate_scale": (1.0, 0.5),
    "down_scale": (1.0, 0.5),
    "dt_min": (0.0, 0.001),
    "dt_max": (None, 0.1),
    "activation_limit": (None, 7.0),
    "shared_activation_limit": (None, 7.0),
    "gate_lower_bound": (None, -5.0),
}


@dataclass(frozen=True)
class Block:
    """Norms, what runs side by side, and residual add; or the embedding; or final norm and head.

    The embedding's and the head's weights are counted whether they are shared or not: a time does
    not depend on it. Times of a head are those of the last position alone, as served.

    Attributes:
        kind: "mixer", "ffn", "embedding" or "head".
        hidden_size: width of the residual stream.
        branches: settings of the mixers or of the feed-forward; none for embedding and head.
        norms: where the norms of a sublayer stand.
        norm: what they are.
        residual: what the sublayer's output is added to.
        vocab_size: rows of the embedding or head, else 0.
        scale: factor on the output of the embedding or head.
        shards: devices that share the block; always 1 so far.
    """

    kind: str
    hidden_size: int
    branches: tuple[MixerSettings | FfnSettings, ...] = ()
    norms: str = PRE
    norm: NormSettings = field(default_factory=NormSettings)
    residual: ResidualSettings = field(default_factory=ResidualSettings)
    vocab_size: int = 0
    scale: float = 1.0
    shards: int = 1

    @cached_property
    def description(self) -> dict[str, Any]:
        """The block as JSON, from which `parse_block` makes it again; defaults are left out."""
        return _described(self)

    @cached_property
    def signature(self) -> str:
        """The start of the SHA-256 of the description."""
        text = json.dumps(self.description, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:SIGNATURE_DIGITS]

    @property
    def part(self) -> str:
        """What tables call it: the kinds of its branches, or its own."""
        return "+".join(branch.kind for branch in self.branches) or self.kind

    @cached_property
    def spec(self) -> ModelSpec:
        """A model around the block: its last layer is the block, embedding and head are its own."""
        letters = "ABCDEFGH"[: len(self.branches)]
        named = dict(zip(letters, self.branches, strict=True))
        mixers = {k: s for k, s in named.items() if isinstance(s, MixerSettings)}
        ffns = {k: s for k, s in named.items() if isinstance(s, FfnSettings)}
        layer = "P" if len(letters) > 1 else letters
        parallel = {"P": letters} if len(letters) > 1 else {}
        before = ""
        if any(s.borrows is not None for s in mixers.values()):
            # Whose selection the block shares.
            before, mixers = "S", mixers | {"S": _selecting(mixers)}
        if not layer:  # a model has at least one layer
            layer, ffns = "D", {"D": parse_ffn({"kind": "dense", "intermediate_size": 1})}
        return ModelSpec(
            name=f"{self.part}_block",
            hidden_size=self.hidden_size,
            num_layers=len(before) + 1,
            vocab_size=max(self.vocab_size, 1),
            native_context=1,
            layer_pattern=before + layer,
            ffn_pattern=NOTHING * (len(before) + 1),
            mixers=mixers,
            ffns=ffns,
            parallel=parallel,
            norm=self.norm,
            norm_placement={layer: self.norms},
            residual=self.residual,
            embedding_scale=self.scale if self.kind == EMBEDDING else 1.0,
            logit_scale=self.scale if self.kind == HEAD else 1.0,
        )

    @cached_property
    def ops(self) -> Counter[Op]:
        """The block's ops and how often each occurs."""
        if self.kind in (MIXER, FFN):
            return layer_ops(self.spec, self.spec.layer_letters[-1], NOTHING)
        outer = outer_ops(self.spec)
        chosen = (EMBEDDING,) if self.kind == EMBEDDING else ("norm", HEAD)
        return Counter({op: n for op, n in outer.items() if op.kind in chosen})

    @cached_property
    def grows(self) -> bool:
        """Whether a step costs more the more tokens were seen, without an end."""
        caches = [op_cost(op).cache(Dtypes()) for op in self.ops]
        return any(c.bytes_per_token and c.window_tokens is None for c in caches)

    @cached_property
    def window(self) -> int:
        """Tokens of the past that a step can see where it does not grow; 0 where it keeps none."""
        windows = [op_cost(op).cache(Dtypes()).window_tokens or 0 for op in self.ops]
        return max(windows)

    @cached_property
    def has_state(self) -> bool:
        """Whether a recurrent state is kept."""
        return any(op_cost(op).cache(Dtypes()).recurrent_bytes for op in self.ops)

    @property
    def is_routed(self) -> bool:
        """Whether tokens choose experts."""
        return any(getattr(branch, "num_experts", 0) for branch in self.branches)

    @property
    def parameters(self) -> int:
        """Weights of the block."""
        return sum(n * op_cost(op).parameters for op, n in self.ops.items())


def _described(settings: Any) -> dict[str, Any]:
    """Return a dataclass as JSON without what is as by default.

    So a setting that is added later, and leaves what was there as it was, changes no signature.
    """
    made: dict[str, Any] = {}
    if hasattr(settings, "kind") and not isinstance(settings, Block):
        made["kind"] = settings.kind
    for f in fields(settings):
        value = getattr(settings, f.name)
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        if value == default:
            continue
        if isinstance(value, tuple):
            value = [_described(one) for one in value]
        made[f.name] = _described(value) if is_dataclass(value) else value
    return made


def _selecting(mixers: Mapping[str, MixerSettings]) -> MixerSettings:
    """Return a mixer that selects as many tokens as one of these borrows."""
    for settings in mixers.values():
        if settings.borrows is not None:
            return replace(settings, indexer_type="full")  # type: ignore[call-arg]
    raise AssertionError("no mixer borrows a selection")


def canonical(block: Block) -> Block:
    """Return the one block that stands for all that take the same time."""
    return replace(
        block,
        branches=tuple(_canonical(branch.canonical()) for branch in block.branches),
        norm=_canonical(block.norm),
        residual=_canonical(block.residual),
        scale=_switched("scale", block.scale),
    )


def _canonical(settings: Any) -> Any:
    changes: dict[str, Any] = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if isinstance(value, RopeSettings):
            changes[f.name] = _canonical_rope(settings, value)
        elif f.name in FIXED:
            changes[f.name] = FIXED[f.name]
        elif f.name in SWITCHES:
            changes[f.name] = _switched(f.name, value)
    return replace(settings, **changes)


def _switched(name: str, value: Any) -> Any:
    neutral, other = SWITCHES[name]
    return neutral if value == neutral else other


def _canonical_rope(settings: Any, rope: RopeSettings) -> RopeSettings:
    """Return the rotation of as many channels in the same pairs; scaled angles cost the same."""
    # A mixer of another package may call its heads' width otherwise: then the field stays.
    head = getattr(settings, "qk_rope_head_dim", None) or getattr(settings, "head_dim", None)
    rotary_dim = None if rope.rotary_dim == head else rope.rotary_dim
    return RopeSettings(rotary_dim=rotary_dim, interleaved=rope.interleaved)


def parse_block(description: Mapping[str, Any]) -> Block:
    """Return the block of a description; SpecError for anything wrong."""
    given = dict(description)
    parse = parse_ffn if given["kind"] == FFN else parse_mixer
    branches = tuple(parse(branch) for branch in given.pop("branches", ()))
    block: Block = parse_dataclass(Block, given, "block")
    return replace(block, branches=branches)


def parse_mixer(settings: Mapping[str, Any]) -> MixerSettings:
    """Return the mixer's settings of a mapping with its kind."""
    rest = {key: value for key, value in settings.items() if key != "kind"}
    made: MixerSettings = parse_dataclass(settings_class(settings["kind"]), rest, "mixer")
    return made


def parse_ffn(settings: Mapping[str, Any]) -> FfnSettings:
    """Return the feed-forward's settings of a mapping with its kind."""
    rest = {key: value for key, value in settings.items() if key != "kind"}
    made: FfnSettings = parse_dataclass(ffn_settings_class(settings["kind"]), rest, "ffn")
    return made


def model_blocks(spec: ModelSpec) -> Counter[Block]:
    """Return the blocks of a model and how often each occurs, in the order of first use."""
    blocks: Counter[Block] = Counter()
    for block, _ in graph_blocks(build_graph(spec)):
        blocks[block] += 1
    return blocks


def graph_blocks(graph: ModelGraph) -> list[tuple[Block, list[str]]]:
    """Return the blocks along a graph, each with the names of its nodes."""
    spec = graph.spec
    nodes: dict[str, list[str]] = {}
    for name, _, layer in graph.nodes():
        nodes.setdefault(name if layer is None else _stem(name), []).append(name)
    found = [(_outer_block(spec, EMBEDDING), nodes["embed"])]
    for layer, letters in enumerate(zip(spec.layer_letters, spec.ffn_letters, strict=True)):
        for sub in layer_plan(spec, *letters):
            branches = tuple(op.settings for op in sub.branches if op.settings is not None)
            block = canonical(
                Block(
                    sub.kind,
                    spec.hidden_size,
                    branches,
                    sub.norms,
                    spec.norm,
                    spec.residual,
                )
            )
            found.append((block, nodes[f"layers.{layer}.{sub.kind}"]))
    found.append((_outer_block(spec, HEAD), [*nodes["norm"], *nodes["head"]]))
    return found


def _stem(name: str) -> str:
    """Return what the names of a sublayer's nodes begin with: layers.I.mixer or layers.I.ffn."""
    layers, index, rest = name.split(".", 2)
    return f"{layers}.{index}.{MIXER if rest.startswith(MIXER) else FFN}"


def _outer_block(spec: ModelSpec, kind: str) -> Block:
    scale = spec.embedding_scale if kind == EMBEDDING else spec.logit_scale
    norm = spec.norm if kind == HEAD else NormSettings()
    made = Block(kind, spec.hidden_size, norm=norm, vocab_size=spec.vocab_size, scale=scale)
    return canonical(made)
