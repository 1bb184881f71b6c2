"""hybridsim generate: tokens that a checkpoint continues a prompt with."""

from __future__ import annotations

import logging
import time
from typing import Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded, require
from hybridsim.errors import bad_value
from hybridsim.paths import CONF_DIR
from hybridsim.spec import source

SCHEMA = "hybridsim/generate/1"

log = logging.getLogger(__name__)
source.register()


@hydra.main(config_path=str(CONF_DIR), config_name="generate", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Run the command."""
    fields = config.plain(cfg)
    chosen, stop = config.take_format(fields), config.take_switch(fields, "stop_at_eos")
    folder = str(require(fields, "model", "the path of a checkpoint folder"))
    prompt = require(fields, "prompt", "a text, or token ids such as [1,2,3]")
    count = fields["max_new_tokens"]
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise bad_value("max_new_tokens", count, "must be an integer of at least 1")
    from hybridsim.checkpoint.read import load_pretrained
    from hybridsim.checkpoint.text import eos_tokens, load_tokenizer, token_ids
    from hybridsim.model.generate import greedy

    tokenizer = load_tokenizer(folder)
    model = load_pretrained(folder, str(fields["device"]), dtype=fields["dtype"])
    ids = token_ids(prompt, tokenizer, model.spec.vocab_size)
    started = time.perf_counter()
    made = greedy(model, ids, count, eos_tokens(folder) if stop else frozenset())
    document = {
        "schema": SCHEMA,
        "model": folder,
        "prompt_tokens": ids,
        "tokens": made,
        "text": tokenizer.decode(made) if tokenizer is not None else None,
        "wall_s": time.perf_counter() - started,
    }
    _show(document, chosen)


def _show(document: dict[str, Any], chosen: str) -> None:
    if chosen == "json":
        from hybridsim.report.files import json_text

        print(json_text(document))
    elif document["text"] is not None:
        print(document["text"])
    else:
        print(" ".join(map(str, document["tokens"])))
    log.info("%d tokens in %.2f s", len(document["tokens"]), document["wall_s"])


if __name__ == "__main__":
    main()
