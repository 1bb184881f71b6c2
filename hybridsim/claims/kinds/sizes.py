"""Sizes: parameters, layers, cache and state. Exact."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hybridsim.claims.figure import Kind, Ours
from hybridsim.claims.subject import Subject
from hybridsim.cost.crossover import last_crossing
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.dtypes import BYTES_PER_ELEMENT, Dtypes
from hybridsim.errors import bad_value
from hybridsim.graph import build_graph


def _count(value: float) -> str:
    return f"{value:,.0f}"


@dataclass(frozen=True)
class CacheSaving(Kind):
    """The part of a baseline's cache that a model does without.

    Attributes:
        model, baseline: the two.
        context_tokens: tokens of one sequence; None is the limit of a context without end.
    """

    unit: ClassVar[str] = "%"
    model: Subject
    baseline: Subject
    context_tokens: int | None = None

    def compute(self) -> Ours:
        dtypes = Dtypes()
        ours, theirs = self.model.costs, self.baseline.costs
        if self.context_tokens is None:
            kept, all_of = (c.kv_bytes_per_token(dtypes) for c in (ours, theirs))
            unit, state = "B/token", 0
        else:
            kept = ours.kv_cache_bytes(self.context_tokens, dtypes)
            all_of = theirs.cache_bytes(self.context_tokens, dtypes)
            state, unit = ours.state_bytes(dtypes), "B"
        saved = 1 - (kept + state) / all_of
        sum_text = f"({_count(kept)} + {_count(state)} of states)" if state else _count(kept)
        return Ours(saved, f"1 - {sum_text} / {_count(all_of)} {unit} = {saved:.2%}")


@dataclass(frozen=True)
class CacheBytes(Kind):
    """The cache of one sequence, states left out where the claim does."""

    unit: ClassVar[str] = "GiB"
    model: Subject
    context_tokens: int

    def compute(self) -> Ours:
        per_token = self.model.costs.kv_bytes_per_token(Dtypes())
        total = self.model.costs.kv_cache_bytes(self.context_tokens, Dtypes())
        text = f"{self.model.title}: {_count(per_token)} B x {_count(self.context_tokens)} tokens"
        return Ours(total, f"{text} = {total / (1 << 30):.4g} GiB")


@dataclass(frozen=True)
class CachePerTokenAdded(Kind):
    """Bytes a token and layer that a model keeps beyond a baseline with as many layers."""

    unit: ClassVar[str] = "B"
    model: Subject
    baseline: Subject

    def compute(self) -> Ours:
        ours, theirs = (s.costs.kv_bytes_per_token(Dtypes()) for s in (self.model, self.baseline))
        layers = self.model.model.num_layers
        added = (ours - theirs) / layers
        return Ours(added, f"({_count(ours)} - {_count(theirs)}) B / {layers} layers = {added:g} B")


@dataclass(frozen=True)
class ParameterCount(Kind):
    """Parameters of a model.

    Attributes:
        model: the model.
        counted: a field of cost.model.Parameters.
        baseline: a model whose parameters are taken off, where one is given.
    """

    unit: ClassVar[str] = "parameters"
    model: Subject
    counted: str = "total"
    baseline: Subject | None = None

    def compute(self) -> Ours:
        found: int = getattr(self.model.costs.parameters, self.counted)
        words = self.counted.replace("_", " ")
        if self.baseline is None:
            return Ours(found, f"{self.model.title}, {words}: {_count(found)} parameters counted")
        other: int = getattr(self.baseline.costs.parameters, self.counted)
        return Ours(found - other, f"{_count(found)} - {_count(other)} = {_count(found - other)}")


@dataclass(frozen=True)
class ActiveShare(Kind):
    """The share of its parameters that a token meets, over the three conventions in use."""

    unit: ClassVar[str] = "%"
    model: Subject

    def compute(self) -> Ours:
        found = self.model.costs.parameters
        counts = (
            found.active,
            found.active_excluding_input_embedding,
            found.active_excluding_embeddings,
        )
        shares = sorted(count / found.total for count in counts)
        text = f"{_count(min(counts))} to {_count(max(counts))} of {_count(found.total)}"
        return Ours(
            shares[1],
            f"{text} = {shares[0]:.2%} to {shares[-1]:.2%}",
            low=shares[0],
            high=shares[-1],
        )


@dataclass(frozen=True)
class LayerShare(Kind):
    """The share of layers that have one of some letters."""

    unit: ClassVar[str] = "%"
    model: Subject
    letters: str

    def compute(self) -> Ours:
        count, layers = self.model.num_layers_of(self.letters), self.model.model.num_layers
        return Ours(count / layers, f"{count} of {layers} layers = {count / layers:.2%}")


@dataclass(frozen=True)
class SpecSum(Kind):
    """A sum of numbers that stand in a spec.

    Attributes:
        model: the model.
        paths: dotted names, e.g. "mixers.X.index_topk".
    """

    unit: ClassVar[str] = ""
    model: Subject
    paths: tuple[str, ...]

    def compute(self) -> Ours:
        values = [self._value(path) for path in self.paths]
        parts = " + ".join(f"{p} {v}" for p, v in zip(self.paths, values, strict=True))
        return Ours(sum(values), f"{self.model.title}: {parts}")

    def _value(self, path: str) -> int:
        found: object = self.model.model
        for name in path.split("."):
            found = found[name] if isinstance(found, dict) else getattr(found, name)
        if not isinstance(found, int):
            raise bad_value("paths", path, "is no whole number of the spec")
        return found


@dataclass(frozen=True)
class MemoryNeed(Kind):
    """What a deployment needs at once: weights, cache, states; activations left out."""

    unit: ClassVar[str] = "GB"
    model: Subject
    context_tokens: int
    batch_size: int = 1
    dtypes: Dtypes = field(default_factory=Dtypes)

    def compute(self) -> Ours:
        need = self.model.costs.memory(
            self.context_tokens, self.batch_size, Deployment(dtypes=self.dtypes)
        )
        cache = need.kv_cache_bytes + need.state_bytes
        total = need.weights_bytes + cache
        text = f"weights {need.weights_bytes / 1e9:.1f} + cache and states {cache / 1e9:.1f}"
        return Ours(total, f"{text} = {total / 1e9:.1f} GB")


@dataclass(frozen=True)
class Crossovers(Kind):
    """From which context on the models keep less than their all-full twins, least and most."""

    unit: ClassVar[str] = "tokens"
    models: tuple[Subject, ...]
    state_dtypes: tuple[str, ...] = ("fp32",)

    def compute(self) -> Ours:
        found = {
            f"{subject.title} ({dtype} states)": _memory_crossover(subject, Dtypes(state=dtype))
            for subject in self.models
            for dtype in self.state_dtypes
        }
        text = "; ".join(f"{name} {_count(tokens)}" for name, tokens in found.items())
        tokens = sorted(found.values())
        return Ours(tokens[len(tokens) // 2], text, low=tokens[0], high=tokens[-1])


def _memory_crossover(subject: Subject, dtypes: Dtypes) -> int:
    twin_spec = subject.model.all_full_twin()
    assert twin_spec is not None, subject
    ours, twin = subject.costs, ModelCosts.of(build_graph(twin_spec))
    found = last_crossing(lambda n: twin.cache_bytes(n, dtypes) - ours.cache_bytes(n, dtypes))
    assert found is not None, subject
    return found


@dataclass(frozen=True)
class AttentionThinning(Kind):
    """How much smaller the cache gets by trading attention for feed-forwards, parameters equal.

    Attributes:
        model: a dense model with one attention and one feed-forward a layer.
        letter: of its attention.
        ffn_letter: of its feed-forward.
        ffns_per_attention: feed-forwards per attention after the trade.
    """

    unit: ClassVar[str] = "x"
    model: Subject
    letter: str
    ffn_letter: str
    ffns_per_attention: float

    def compute(self) -> Ours:
        parts = self.model.costs.parameters_by_part()
        model = self.model.model
        attention = parts[model.mixers[self.letter].kind] / model.num_layers
        ffn = parts[model.ffns[self.ffn_letter].kind] / model.num_layers
        ratio = (attention + self.ffns_per_attention * ffn) / (attention + ffn)
        sizes = f"attention {_count(attention)}, feed-forward {_count(ffn)} parameters a layer"
        return Ours(ratio, f"{sizes}: (a + {self.ffns_per_attention:g} f) / (a + f) = {ratio:.2f}x")


@dataclass(frozen=True)
class KvFormula(Kind):
    """The true cache a token over what a formula without sharing and bytes gives.

    batch x n x heads x head_dim x 2 for one sequence and one layer's worth of every layer.
    """

    unit: ClassVar[str] = "x"
    model: Subject
    letter: str

    def compute(self) -> Ours:
        settings = self.model.mixer(self.letter)
        heads, head_dim = (getattr(settings, name) for name in ("num_heads", "head_dim"))
        said = heads * head_dim * 2
        found = self.model.costs.kv_bytes_per_token(Dtypes())
        layers = self.model.num_layers_of(self.letter)
        per_layer = found / layers
        text = (
            f"{heads} x {head_dim} x 2 = {_count(said)} a token against {_count(found)} B:"
            f" {layers} layers of {_count(per_layer)} B, {BYTES_PER_ELEMENT['bf16']:g} B a number,"
            f" {getattr(settings, 'num_kv_heads', heads)} of {heads} heads kept"
        )
        return Ours(found / said, text)
