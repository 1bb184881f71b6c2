"""ModelSpec: one model as data. No torch, no Hydra."""

from __future__ import annotations

import string
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from hybridsim.components import NormSettings, require_choice, require_positive
from hybridsim.errors import SpecError, bad_value
from hybridsim.ffn import FfnSettings
from hybridsim.mixers import MixerSettings
from hybridsim.spec.pattern import MAX_LAYERS, NOTHING, compress_pattern, expand_pattern

RESIDUAL_SOURCES = ("input", "normed")
PRE, POST, SANDWICH = NORM_PLACEMENTS = ("pre", "post", "sandwich")
LETTERS = frozenset(string.ascii_letters)
TWIN_LETTERS = "FATUVWXYZ" + string.ascii_letters  # for the attention of an all-full twin


@dataclass(frozen=True)
class ResidualSettings:
    """What a sublayer's output is added to: out = alpha * source + beta * sublayer(norm(input)).

    Attributes:
        source: "input", or "normed": the normalised input (MiniMax-M1's post-norm).
        alpha: factor on the source.
        beta: factor on the sublayer's output.
    """

    source: str = "input"
    alpha: float = 1.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        require_choice("source", self.source, RESIDUAL_SOURCES)
        require_positive(alpha=self.alpha, beta=self.beta)


@dataclass(frozen=True)
class ModelSpec:
    """One model.

    Attributes:
        name: how commands and records call it.
        hidden_size: width D of the residual stream.
        num_layers: letters that both patterns expand to.
        vocab_size: rows of the embedding and of the head.
        native_context: tokens the published model was made for.
        layer_pattern: one letter a layer: a mixer, a parallel set of mixers, or a feed-forward
            that is a layer of its own. See spec/pattern.py for the language.
        ffn_pattern: one letter a layer: the feed-forward after the mixer, "." for none.
        mixers: what each mixer letter means.
        ffns: what each feed-forward letter means.
        parallel: letters that stand for several mixers side by side in one layer.
        norm: normalisation around each sublayer and before the head.
        norm_placement: where the layers with a letter of the layer pattern have their norms:
            "pre" (before each sublayer; where nothing is said), "post" (on its output, before the
            add) or "sandwich" (both).
        residual: what a sublayer's output is added to.
        embedding_scale: factor on the embedding's output.
        round_embedding_scale: that factor is rounded to the weights' dtype first (Gemma; 73.32
            becomes 73.5 in bf16).
        logit_scale: factor on the logits.
        tie_word_embeddings: the head is the embedding transposed.
        full_twin: the letter of the full attention that the all-full twin uses everywhere; null
            finds it (see `all_full_twin`).
        description: one line for people.
        released: year and month.
        published: figures that the authors published, as they wrote them.
        sources: where each of the numbers comes from.
    """

    name: str
    hidden_size: int
    num_layers: int
    vocab_size: int
    native_context: int
    layer_pattern: str
    ffn_pattern: str
    mixers: dict[str, MixerSettings] = field(default_factory=dict)
    ffns: dict[str, FfnSettings] = field(default_factory=dict)
    parallel: dict[str, str] = field(default_factory=dict)
    norm: NormSettings = field(default_factory=NormSettings)
    norm_placement: dict[str, str] = field(default_factory=dict)
    residual: ResidualSettings = field(default_factory=ResidualSettings)
    embedding_scale: float = 1.0
    round_embedding_scale: bool = False
    logit_scale: float = 1.0
    tie_word_embeddings: bool = False
    full_twin: str | None = None
    description: str = ""
    released: str = ""
    published: dict[str, Any] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_positive(
            hidden_size=self.hidden_size,
            num_layers=self.num_layers,
            vocab_size=self.vocab_size,
            native_context=self.native_context,
            embedding_scale=self.embedding_scale,
            logit_scale=self.logit_scale,
        )
        if self.num_layers > MAX_LAYERS:
            raise bad_value("num_layers", self.num_layers, f"must be at most {MAX_LAYERS}")
        self._check_letters()
        self._check_twin()
        self._check_layers()
        self._check_norms()
        self._check_selections()

    def _check_letters(self) -> None:
        for group in ("mixers", "ffns", "parallel"):
            for letter in getattr(self, group):
                if letter not in LETTERS:
                    raise SpecError(f"{group}.{letter}: a name must be one letter A-Z or a-z")
        if both := set(self.mixers) & set(self.ffns):
            letter = min(both)
            raise SpecError(f"ffns.{letter}: {letter} is a mixer too; a letter may mean one thing")
        for letter in self.parallel:
            self._check_parallel(letter)

    def _check_parallel(self, letter: str) -> None:
        parts, key = self.parallel[letter], f"parallel.{letter}"
        if letter in self.mixers or letter in self.ffns:
            raise SpecError(f"{key}: {letter} is defined twice")
        for part in parts:
            if part not in self.mixers:
                known = _names(self.mixers)
                raise bad_value(key, parts, f"{part!r} is not a mixer (defined: {known})")
        if len(parts) < 2:
            raise bad_value(key, parts, "needs two mixers or more")
        if len(set(parts)) < len(parts):
            raise bad_value(key, parts, "names a mixer twice; each may stand once")

    def _check_twin(self) -> None:
        if self.full_twin is None:
            return
        if self.full_twin not in self.mixers:
            known = _names(self.mixers)
            raise bad_value("full_twin", self.full_twin, f"not a mixer (defined: {known})")
        settings = self.mixers[self.full_twin]
        if settings.full_twin() is None:
            raise bad_value("full_twin", self.full_twin, f"{settings.kind} has no full form")

    def _check_layers(self) -> None:
        layers, ffns = self.layer_letters, self.ffn_letters
        _check_known(
            "layer_pattern",
            self.layer_pattern,
            layers,
            {**self.mixers, **self.ffns, **self.parallel},
        )
        _check_known("ffn_pattern", self.ffn_pattern, ffns, {**self.ffns, NOTHING: None})
        for index, (letter, ffn) in enumerate(zip(layers, ffns, strict=True)):
            if letter in self.ffns and ffn != NOTHING:
                raise bad_value(
                    "ffn_pattern",
                    self.ffn_pattern,
                    f"layer {index + 1} is the feed-forward {letter} itself;"
                    f" it takes '.' here, not {ffn}",
                )

    def _check_norms(self) -> None:
        for letter, placement in self.norm_placement.items():
            if letter not in {*self.mixers, *self.ffns, *self.parallel}:
                raise SpecError(
                    f"norm_placement.{letter}: not a letter of a layer"
                    f" (defined: {_names({**self.mixers, **self.ffns, **self.parallel})})"
                )
            require_choice(f"norm_placement.{letter}", placement, NORM_PLACEMENTS)
            if placement == POST and self.residual.source == "normed":
                raise bad_value(
                    f"norm_placement.{letter}",
                    placement,
                    "residual.source=normed adds to the norm before the sublayer, of which post"
                    " has none",
                )

    def layer_norms(self, letter: str) -> str:
        """Return where a layer with this letter of the layer pattern has its norms."""
        return self.norm_placement.get(letter, PRE)

    def _check_selections(self) -> None:
        """Raise SpecError where a layer shares a selection that no layer before it made."""
        made: int | None = None
        for index, letter in enumerate(self.layer_letters):
            for mixer in self.layer_mixers(letter):
                taken = self.mixers[mixer].borrows
                if taken is not None and taken != made:
                    raise bad_value(
                        "layer_pattern",
                        self.layer_pattern,
                        f"layer {index + 1} ({mixer}) shares a selection of {taken} tokens,"
                        f" the last layer before it that selects has {made or 'none'}",
                    )
                made = self.mixers[mixer].selects or made

    @cached_property
    def layer_letters(self) -> str:
        """The layer pattern expanded, one letter a layer."""
        return expand_pattern(self.layer_pattern, self.num_layers, "layer_pattern")

    @cached_property
    def ffn_letters(self) -> str:
        """The feed-forward pattern expanded, one letter a layer, "." for none."""
        return expand_pattern(self.ffn_pattern, self.num_layers, "ffn_pattern")

    def layer_mixers(self, letter: str) -> str:
        """Return the mixer letters of a layer: one, several side by side, or none."""
        if letter in self.mixers:
            return letter
        return self.parallel.get(letter, "")

    def all_full_twin(self) -> ModelSpec | None:
        """Return the model with full attention in place of every cheaper mixer, all else equal.

        The attention is, in this order: the mixer `full_twin` names; the one full attention that
        the spec defines; the spec's one sparse or windowed attention without its limit. None where
        the model is its own twin, or defines no attention at all.

        Raises:
            SpecError: several kinds of attention could be it.
        """
        if all(self._is_full(letter) for letter in self.layer_letters):
            return None
        twin = self._twin_settings()
        if twin is None:
            return None
        full = self._twin_letter(twin)
        # A layer of several mixers becomes one layer of attention.
        letters = "".join(char if self._is_full(char) else full for char in self.layer_letters)
        return replace(
            self,
            name=f"{self.name}:all_full",
            layer_pattern=compress_pattern(letters),
            mixers={**self.mixers, full: twin},
            norm_placement=self._twin_placement(full),
            full_twin=None,
        )

    def _twin_placement(self, full: str) -> dict[str, str]:
        """Return where the twin's norms stand: a new letter's as in the first layer it replaces."""
        if full in self.mixers:
            return self.norm_placement
        first = next(letter for letter in self.layer_letters if not self._is_full(letter))
        return {**self.norm_placement, full: self.layer_norms(first)}

    def _is_full(self, letter: str) -> bool:
        """Whether a layer has no cheaper mixer to replace: full attention, or a feed-forward."""
        parts = self.layer_mixers(letter)
        return all(self.mixers[part].is_full_attention for part in parts) and len(parts) < 2

    def _twin_letter(self, twin: MixerSettings) -> str:
        """Return the letter that means the twin's attention, a free one where none does."""
        taken = {**self.mixers, **self.ffns, **self.parallel}
        same = [letter for letter, settings in self.mixers.items() if settings == twin]
        free = (letter for letter in TWIN_LETTERS if letter not in taken)
        return same[0] if same else next(free)

    def _twin_settings(self) -> MixerSettings | None:
        if self.full_twin is not None:
            return self.mixers[self.full_twin].full_twin()
        full = {s for s in self.mixers.values() if s.is_full_attention}
        if not full:
            full = {twin for s in self.mixers.values() if (twin := s.full_twin()) is not None}
        if len(full) > 1:
            raise SpecError(
                f"spec.full_twin=null: {len(full)} kinds of full attention are defined among the"
                f" mixers {_names(self.mixers)}; name the letter the all-full twin should use"
            )
        return full.pop() if full else None

    def with_patterns(self, *, layer_pattern: str, ffn_pattern: str | None = None) -> ModelSpec:
        """Return the spec with another layer pattern (and feed-forward pattern)."""
        return replace(
            self, layer_pattern=layer_pattern, ffn_pattern=ffn_pattern or self.ffn_pattern
        )


def _names(known: dict[str, Any]) -> str:
    return ", ".join(sorted(known)) or "none"


def _check_known(key: str, pattern: str, letters: str, known: dict[str, Any]) -> None:
    for index, letter in enumerate(letters):
        if letter not in known:
            position = pattern.index(letter) + 1
            raise bad_value(
                key,
                pattern,
                f"letter {letter!r} at position {position} (layer {index + 1}) is not defined"
                f" (defined: {_names(known)})",
            )
