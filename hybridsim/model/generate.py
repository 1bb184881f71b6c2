"""Continue a prompt with the likeliest token each time."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from hybridsim.model.decode import DecodeRunner
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
    runner = DecodeRunner(model, 1, len(prompt) + max_new_tokens)
    runner.prefill(torch.tensor([list(prompt)], device=runner.tokens.device))
    made = [int(runner.tokens)]
    while len(made) < max_new_tokens and made[-1] not in stop_tokens:
        runner.step()
        made.append(int(runner.tokens))
    return made
