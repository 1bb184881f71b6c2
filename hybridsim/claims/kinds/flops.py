"""FLOPs of models and layers, and how they grow. Exact."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

from hybridsim.claims.figure import Kind, Ours
from hybridsim.claims.subject import Subject
from hybridsim.components import require_choice
from hybridsim.conventions import FULL_SQUARE, SERVED, FlopConventions
from hybridsim.cost.op import op_cost
from hybridsim.dtypes import Dtypes
from hybridsim.graph import HEAD
from hybridsim.steps import Step, decode, prefill

STEPS = {"prefill": prefill, "decode": decode}
WHOLE, MIXERS, TRAFFIC = PARTS = ("model", "mixers", "cache traffic")


@dataclass(frozen=True)
class Ratio(Kind):
    """A baseline's FLOPs, or its cache traffic, over a model's, for one step of one sequence.

    Attributes:
        baseline, model: the two.
        phase: "prefill" of the context, or "decode": one token after it.
        context_tokens: the context.
        part: "model": all FLOPs, logits at the last position; "mixers": FLOPs between the mixers'
            projections; "cache traffic": bytes of cache and state read and written.
        baseline_letters, model_letters: one layer of this letter each instead of all layers.
    """

    unit: ClassVar[str] = "x"
    baseline: Subject
    model: Subject
    phase: str
    context_tokens: int
    part: str = WHOLE
    baseline_letters: str = ""
    model_letters: str = ""

    def __post_init__(self) -> None:
        require_choice("phase", self.phase, tuple(STEPS))
        require_choice("part", self.part, PARTS)

    def compute(self) -> Ours:
        step = STEPS[self.phase](self.context_tokens)
        theirs = _amount(self.baseline, self.part, step, self.baseline_letters)
        ours = _amount(self.model, self.part, step, self.model_letters)
        unit = "B" if self.part == TRAFFIC else "FLOP"
        text = (
            f"{self.phase} at {self.context_tokens:,} tokens: {theirs:.4g} / {ours:.4g} {unit}"
            f" = {theirs / ours:.2f}x"
        )
        return Ours(theirs / ours, text)


def _amount(subject: Subject, part: str, step: Step, letter: str) -> float:
    letters = letter or subject.model.layer_letters
    costs = [subject.mixer_cost(one) for one in letters] if part != WHOLE else []
    if part == MIXERS:
        return sum(cost.core_flops(step, SERVED) for cost in costs)
    if part == TRAFFIC:
        dtypes = Dtypes()
        return sum(
            cost.cache_read_bytes(step, dtypes) + cost.cache_write_bytes(step, dtypes)
            for cost in costs
        )
    return subject.costs.forward_flops(step, SERVED)


@dataclass(frozen=True)
class Slope(Kind):
    """What one further token of context adds to a token's cost, baseline over model.

    Attributes:
        baseline, model: the two.
        phase: "decode": FLOPs of one token; "prefill": FLOPs of a prompt's last token.
        from_tokens, to_tokens: contexts between which the slope is taken.
        fast_indexer: how much faster the model's remaining work may run (fp8 at twice the rate of
            bf16); the range is from 1 to this.
    """

    unit: ClassVar[str] = "x"
    baseline: Subject
    model: Subject
    phase: str
    from_tokens: int
    to_tokens: int
    fast_indexer: float = 1.0

    def compute(self) -> Ours:
        theirs, ours = (self._slope(subject) for subject in (self.baseline, self.model))
        ratio = theirs / ours
        text = f"{theirs:,.0f} / {ours:,.0f} FLOP a token and token of context = {ratio:.2f}x"
        if self.fast_indexer == 1:
            return Ours(ratio, text)
        most = ratio * self.fast_indexer
        text += f"; with the indexer in fp8 at {self.fast_indexer:g} times the rate {most:.2f}x"
        return Ours(ratio, text, low=ratio, high=most)

    def _slope(self, subject: Subject) -> float:
        first, last = (last_token_flops(subject, self.phase, n) for n in self._ends)
        return (last - first) / (self.to_tokens - self.from_tokens)

    @property
    def _ends(self) -> tuple[int, int]:
        return self.from_tokens, self.to_tokens


def last_token_flops(subject: Subject, phase: str, context_tokens: int) -> int:
    """Return the FLOPs of the token after so many, decoded or as the last one of a prompt."""
    costs = subject.costs
    if phase == "decode":
        return costs.forward_flops(decode(context_tokens), SERVED)
    longer, shorter = (
        costs.forward_flops(prefill(n), SERVED) for n in (context_tokens + 64, context_tokens)
    )
    return (longer - shorter) // 64  # whole chunks: prompts are padded to them


@dataclass(frozen=True)
class Growth(Kind):
    """The exponent with which a letter's mixer grows: log2 of its FLOPs at 2 n over those at n."""

    unit: ClassVar[str] = ""
    model: Subject
    letter: str
    context_tokens: int

    def compute(self) -> Ours:
        cost = self.model.mixer_cost(self.letter)
        once, twice = (cost.core_flops(prefill(n * self.context_tokens), SERVED) for n in (1, 2))
        exponent = math.log2(twice / once)
        text = f"prefill of {self.context_tokens:,} and twice as many tokens: {once:.4g} and"
        return Ours(exponent, f"{text} {twice:.4g} FLOP, log2 of the ratio = {exponent:.3f}")


@dataclass(frozen=True)
class CorePerToken(Kind):
    """FLOPs a token and head between a letter's projections, short convolutions left out.

    Attributes:
        model: the model.
        letter: of the mixer.
        context_tokens: of the prefill.
        conventions: what counts.
    """

    unit: ClassVar[str] = "FLOP"
    model: Subject
    letter: str
    context_tokens: int
    conventions: FlopConventions = field(default_factory=FlopConventions)

    def compute(self) -> Ours:
        settings, step = self.model.mixer(self.letter), prefill(self.context_tokens)
        heads: int = getattr(settings, "num_heads")  # noqa: B009
        core = self.model.mixer_cost(self.letter).core_flops(step, self.conventions)
        core -= _short_conv_flops(self.model, self.letter, step)
        found = core / self.context_tokens / heads
        text = f"{core:,} FLOP / {self.context_tokens:,} tokens / {heads} heads = {found:,.0f}"
        return Ours(found, f"{self.conventions.linear_attention} form: {text}")


def _short_conv_flops(subject: Subject, letter: str, step: Step) -> int:
    from hybridsim.mixers.delta_rule import short_conv_flops

    settings = subject.mixer(letter)
    size = getattr(settings, "conv_size", 0)
    channels = subject.mixer_cost(letter).vectors.get("conv1d", 0) // max(size, 1)
    return short_conv_flops(step, channels, size) if size else 0


@dataclass(frozen=True)
class TrainingRatio(Kind):
    """FLOPs of a training run over those of another: 3 forward passes a token, at a context."""

    unit: ClassVar[str] = "%"
    model: Subject
    tokens: float
    baseline: Subject
    baseline_tokens: float
    context_tokens: int = 4096

    def compute(self) -> Ours:
        ours, theirs = (
            3
            * s.costs.forward_flops(prefill(self.context_tokens), FlopConventions())
            / self.context_tokens
            for s in (self.model, self.baseline)
        )
        share = ours * self.tokens / (theirs * self.baseline_tokens)
        text = (
            f"({ours / 1e9:.1f} GFLOP x {self.tokens / 1e12:g}T tokens) /"
            f" ({theirs / 1e9:.1f} GFLOP x {self.baseline_tokens / 1e12:g}T tokens)"
        )
        return Ours(share, f"{text} = {share:.2%}")


@dataclass(frozen=True)
class TrainingFormula(Kind):
    """72 n l d^2 (1 + n / (6 d)) of a published table, over three of our forward passes.

    Of a model with plain attention of width d and a feed-forward of 8 d^2 weights; embedding, head
    and elementwise work are in neither.
    """

    unit: ClassVar[str] = "x"
    model: Subject
    context_tokens: int

    def compute(self) -> Ours:
        n, model = self.context_tokens, self.model.model
        width, layers = model.hidden_size, model.num_layers
        said = 72 * n * layers * width**2 * (1 + n / (6 * width))
        counted = 3 * _flops_without_head(self.model, prefill(n), FULL_SQUARE)
        text = f"72 n l d^2 (1 + n / 6d) at n = {n:,}, l = {layers}, d = {width:,}: {said:.5g}"
        ratio = said / counted
        return Ours(ratio, f"{text} over our {counted:.5g} FLOP = {ratio:.5f}x")


def _flops_without_head(subject: Subject, step: Step, conventions: FlopConventions) -> int:
    return sum(
        n * op_cost(op).flops(step, conventions)
        for op, n in subject.costs.ops.items()
        if op.kind != HEAD
    )


@dataclass(frozen=True)
class LightningFormula(Kind):
    """The same table's term for lightning attention, 12 d^2 / h a token, over ours.

    The table also gives such a layer 2 d^2 / h more weights, whose products are taken off here.
    """

    unit: ClassVar[str] = "x"
    model: Subject
    letter: str
    context_tokens: int

    def compute(self) -> Ours:
        settings, n = self.model.mixer(self.letter), self.context_tokens
        heads, head_dim = (getattr(settings, name) for name in ("num_heads", "head_dim"))
        said = (12 - 4) * heads * head_dim**2
        conventions = FlopConventions(linear_attention="published")
        core = self.model.mixer_cost(self.letter).core_flops(prefill(n), conventions) / n
        text = f"(12 - 2 x 2) d^2 / h = {said:,} over our {core:,.0f} FLOP a token and layer"
        return Ours(said / core, f"{text} = {said / core:.4f}x")


@dataclass(frozen=True)
class BlockSparseFormula(Kind):
    """Attention's 2 H d N a token over block-sparse attention's, as its authors count it.

    The indexer scores half the context on average; every query is charged all selected keys.
    """

    unit: ClassVar[str] = "x"
    model: Subject
    letter: str
    context_tokens: int

    def compute(self) -> Ours:
        settings, n = self.model.mixer(self.letter), self.context_tokens
        names = ("num_heads", "head_dim", "index_num_heads", "index_head_dim", "selected_tokens")
        heads, width, index_heads, index_width, selected = (getattr(settings, x) for x in names)
        full, index = 2 * heads * width * n, index_heads * index_width * n
        chosen = 4 * heads * width * selected
        text = f"{full / 1e9:.2f} / ({index / 1e9:.3f} + {chosen / 1e9:.3f}) GFLOP a token"
        ratio = full / (index + chosen)
        return Ours(ratio, f"{text} at {n:,} tokens = {ratio:.2f}x")


@dataclass(frozen=True)
class PerTokenGrowth(Kind):
    """FLOPs a token of a forward pass at one context over those at a shorter one."""

    unit: ClassVar[str] = "x"
    model: Subject
    short_tokens: int
    long_tokens: int

    def compute(self) -> Ours:
        short, long = (
            self.model.costs.forward_flops(prefill(n), FlopConventions()) / n
            for n in (self.short_tokens, self.long_tokens)
        )
        text = f"{self.model.title}: {long / 1e9:.3f} GFLOP a token at {self.long_tokens:,}"
        text += f" over {short / 1e9:.3f} at {self.short_tokens:,} = {long / short:.3f}x"
        return Ours(long / short, text)
