"""Continue a prompt with the likeliest token each time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from hybridsim.model.model import HybridLM


@torch.inference_mode()
def greedy(
    model: HybridLM,
    prompt: Sequence[int],
    max_new_tokens: int,
    stop_tokens: Collection[int] = (),
) -> list[int]:
    """Return the tokens after a prompt, up to the first of `stop_tokens`, which is the last.

    Args:
        model: on any device.
        prompt: token ids, at least one.
        max_new_tokens: tokens that are made at most.
        stop_tokens: tokens that end the text.
    """
    device = next(model.parameters()).device
    cache = model.new_cache(len(prompt) + max_new_tokens)
    seen = torch.tensor([list(prompt)], device=device)
    made: list[int] = []
    while True:
        logits = model(seen, cache, last_logits_only=True)
        seen = logits.argmax(-1)
        made.append(int(seen))
        if len(made) == max_new_tokens or made[-1] in stop_tokens:
            return made
