"""A checkpoint folder's tokens: its tokenizer.json, its end of text, and ids given as they are."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from hybridsim.errors import HybridsimError, bad_value
from hybridsim.families.convert import read_config_file

TOKENIZER = "tokenizer.json"


class Tokenizer:
    """A folder's tokenizer.json, read by the package `tokenizers`."""

    def __init__(self, library: Any, file: Path) -> None:
        self._tokenizer = library.Tokenizer.from_file(str(file))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, with the special tokens that the tokenizer adds."""
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of ids, special tokens left out."""
        text: str = self._tokenizer.decode(ids)
        return text


def load_tokenizer(folder: str | Path) -> Tokenizer | None:
    """Return a folder's tokenizer, None where it has none or `tokenizers` is not installed."""
    file = Path(folder) / TOKENIZER
    if not file.is_file():
        return None
    try:
        library = import_module("tokenizers")
    except ModuleNotFoundError:
        return None
    return Tokenizer(library, file)


def token_ids(prompt: Any, tokenizer: Tokenizer | None, vocab_size: int) -> list[int]:
    """Return the ids of a prompt: a text, or the ids themselves.

    Raises:
        HybridsimError: a text and no tokenizer, no tokens, or ids outside the vocabulary.
    """
    if isinstance(prompt, list):
        for one in prompt:
            if not isinstance(one, int) or isinstance(one, bool) or not 0 <= one < vocab_size:
                raise bad_value("prompt", one, f"token ids are integers from 0 to {vocab_size - 1}")
        ids = prompt
    elif tokenizer is None:
        raise HybridsimError(
            f"prompt={prompt}: no tokenizer for a text (the folder has no {TOKENIZER}, or the"
            " package tokenizers is not installed); give token ids, e.g. prompt=[1,2,3]"
        )
    else:
        ids = tokenizer.encode(str(prompt))
    if not ids:
        raise bad_value("prompt", prompt, "must have at least one token")
    return ids


def eos_tokens(folder: str | Path) -> frozenset[int]:
    """Return the tokens that end a text, by generation_config.json or else config.json."""
    file = Path(folder) / "generation_config.json"
    generation = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    eos = generation.get("eos_token_id", read_config_file(folder).get("eos_token_id"))
    return frozenset(eos if isinstance(eos, list) else [] if eos is None else [eos])
