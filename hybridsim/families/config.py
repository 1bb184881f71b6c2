"""Reading a published config.json: every field is used, expected, or known to change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridsim.errors import SpecError, bad_value, near_miss

_ABSENT = object()

# Fields that decide nothing of what a forward pass computes.
NO_EFFECT = frozenset(
    """
    _attn_implementation _attn_implementation_internal _name_or_path architectures auto_map
    bos_token_id chunk_size_feed_forward decoder_start_token_id dtype eos_token_id
    experts_implementation finetuning_task id2label initializer_range is_decoder
    is_encoder_decoder label2id model_type num_return_sequences output_attentions
    output_hidden_states output_router_logits pad_token_id problem_type return_dict
    router_aux_loss_coef sep_token_id task_specific_params tokenizer_class torch_dtype
    torchscript transformers_version unsloth_fixed use_bfloat16 use_cache
    """.split()
)
# Fields that act in training only, and must be zero to be left out.
ZERO_IN_TRAINING = (
    "attention_dropout",
    "embd_pdrop",
    "embedding_dropout",
    "hidden_dropout",
    "hidden_dropout_prob",
    "output_dropout",
    "resid_pdrop",
    "router_jitter_noise",
)


@dataclass(frozen=True)
class Figure:
    """A value of a spec and where it comes from: a key of config.json, or several."""

    value: Any
    source: str


def value_of(figure: Any) -> Any:
    """Return a figure's value, and anything else as it is; mappings all the way down."""
    if isinstance(figure, Figure):
        return value_of(figure.value)
    if isinstance(figure, Mapping):
        return {key: value_of(value) for key, value in figure.items()}
    return figure


class ConfigReader:
    """The fields of a config.json; `finish` fails on any that was not read.

    Attributes:
        fields: the fields as they stand in the file.
        prefix: dotted place of these fields, "" for the top.
        notes: what the reader leaves out on purpose, for people.
    """

    def __init__(self, fields: Mapping[str, Any], prefix: str = "") -> None:
        self.fields = dict(fields)
        self.prefix = prefix
        self.notes: list[str] = []
        self._used: set[str] = set()
        self._sections: list[ConfigReader] = []

    def key(self, name: str) -> str:
        """Return the dotted name of a field."""
        return f"{self.prefix}{name}"

    def has(self, name: str) -> bool:
        """Whether a field is given and not null."""
        return self.fields.get(name) is not None

    def raw(self, name: str, default: Any = _ABSENT) -> Any:
        """Return a field as it stands; null counts as absent.

        Raises:
            SpecError: it is absent and there is no default.
        """
        self._used.add(name)
        value = self.fields.get(name)
        if value is not None:
            return value
        if default is _ABSENT:
            raise SpecError(f"config.{self.key(name)}: missing")
        return default

    def first(self, *names: str) -> str:
        """Return the first of several names of one field that is given, the last if none is."""
        found = next((name for name in names if self.has(name)), names[-1])
        for name in names:
            if self.has(name) and self.fields[name] != self.fields[found]:
                raise bad_value(
                    f"config.{self.key(name)}",
                    self.fields[name],
                    f"contradicts {found}={self.fields[found]}",
                )
        self._used.update(names)
        return found

    def _typed(self, name: str, default: Any, types: tuple[type, ...], expected: str) -> Figure:
        value = self.raw(name, default)
        if not self.has(name):
            return Figure(value, f"{self.key(name)} absent")
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise bad_value(f"config.{self.key(name)}", value, f"expected {expected}")
        return Figure(value, self.key(name))

    def integer(self, name: str, default: Any = _ABSENT) -> Figure:
        """Return an integer field."""
        return self._typed(name, default, (int,), "an integer")

    def number(self, name: str, default: Any = _ABSENT) -> Figure:
        """Return a field that is a number, as a float."""
        figure = self._typed(name, default, (int, float), "a number")
        return Figure(None if figure.value is None else float(figure.value), figure.source)

    def flag(self, name: str, default: Any = _ABSENT) -> Figure:
        """Return a field that is true or false."""
        return self._typed(name, default, (bool,), "true or false")

    def text(self, name: str, default: Any = _ABSENT) -> Figure:
        """Return a text field."""
        return self._typed(name, default, (str,), "a text")

    def items(self, name: str, default: Any = _ABSENT) -> Figure:
        """Return a field that is a list."""
        return self._typed(name, default, (list, tuple), "a list")

    def choice(self, name: str, meanings: Mapping[Any, Any], default: Any = _ABSENT) -> Figure:
        """Return what a field's value means.

        Raises:
            SpecError: the value has no meaning here.
        """
        value = self.raw(name, default)
        if value not in meanings:
            known = ", ".join(str(meaning) for meaning in meanings)
            raise bad_value(f"config.{self.key(name)}", value, f"only {known} can be read")
        return Figure(meanings[value], self.key(name))

    def expect(self, name: str, *allowed: Any, absent_is_fine: bool = True) -> None:
        """Use a field that may have these values only; others would be another computation."""
        value = self.raw(name, allowed[0] if absent_is_fine else _ABSENT)
        if value not in allowed:
            known = " or ".join(str(one) for one in allowed)
            raise bad_value(f"config.{self.key(name)}", value, f"only {known} can be read")

    def ignore(self, *names: str, note: str = "") -> None:
        """Use fields that do not change what this family computes."""
        if note and any(self.has(name) for name in names):
            self.notes.append(note)
        self._used.update(names)

    def section(self, name: str) -> ConfigReader:
        """Return the reader of a nested mapping, an empty one where it is absent or null."""
        value = self.raw(name, {})
        if not isinstance(value, Mapping):
            raise bad_value(f"config.{self.key(name)}", value, "expected a mapping")
        section = ConfigReader(value, f"{self.key(name)}.")
        self._sections.append(section)
        return section

    def finish(self) -> None:
        """Check that every field was used.

        Raises:
            SpecError: one was not: it might change the computation.
        """
        for name in ZERO_IN_TRAINING:
            if name in self.fields:
                self.expect(name, 0, 0.0)
        for name, value in self.fields.items():
            if name not in self._used and name not in NO_EFFECT:
                hint = near_miss(name, self._used)
                raise bad_value(
                    f"config.{self.key(name)}", _short(value), f"not a known field{hint}"
                )
        for section in self._sections:
            section.finish()

    def all_notes(self) -> list[str]:
        """Return the notes of this reader and its sections."""
        return [*self.notes, *(note for section in self._sections for note in section.all_notes())]


def _short(value: Any, limit: int = 60) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def derived(value: Any, *figures: Figure, how: str = "") -> Figure:
    """Return a figure made from others."""
    return Figure(value, how or ", ".join(dict.fromkeys(figure.source for figure in figures)))
