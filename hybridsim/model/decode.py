"""Decoding over a static cache: the step is captured once and replayed."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.kernels.choice import choose
from hybridsim.model.model import HybridLM

WARM_UP_STEPS = 3  # kernels are compiled and tuned before the capture, which must do neither


class DecodeRunner:
    """Prefill, then steps of one token a sequence over a cache of a fixed capacity.

    On CUDA the step is a captured graph, so that what is timed is the model and not the launches
    of its kernels; elsewhere the same code runs step by step. Greedy: a step leaves its likeliest
    tokens as the next step's input.

    Args:
        model: on any device; its weights must stay where they are.
        batch_size: sequences.
        capacity: tokens of a sequence at most, prompt included.
        captured: whether to capture; by default where the device can.

    Attributes:
        tokens: [B, 1], the next step's input.
        logits: [B, 1, V], of the last pass; a step overwrites them.
    """

    def __init__(
        self, model: HybridLM, batch_size: int, capacity: int, *, captured: bool | None = None
    ) -> None:
        device = model.embed.weight.device
        self.model = model
        self.cache = model.new_static_cache(capacity)
        self.tokens = torch.zeros(batch_size, 1, dtype=torch.long, device=device)
        self.logits: Tensor
        self._graph: torch.cuda.CUDAGraph | None = None
        self._run()  # gives every part of the cache its place
        if device.type == "cuda" if captured is None else captured:
            self._graph = self._capture()
        self.reset()

    @property
    def past_tokens(self) -> int:
        """Tokens that the cache holds."""
        return self.cache.past_tokens

    @torch.inference_mode()
    def reset(self) -> None:
        """Forget all tokens."""
        self.cache.clear()

    @torch.inference_mode()
    def prefill(
        self, tokens: Int[Tensor, "B T"], chunk_tokens: int | None = None
    ) -> Float[Tensor, "B 1 V"]:
        """Return the logits after a prompt, which continues what the cache holds.

        Args:
            tokens: the prompt.
            chunk_tokens: tokens of one pass at most; None for all at once.

        Raises:
            HybridsimError: the cache has no room for them.
        """
        self.cache.require_room(tokens.shape[1])
        for chunk in tokens.split(chunk_tokens or tokens.shape[1], dim=1):
            self.logits = self.model(chunk, self.cache, last_logits_only=True)
        self._choose()
        return self.logits

    @torch.inference_mode()
    def step(self, tokens: Int[Tensor, "B 1"] | None = None) -> Float[Tensor, "B 1 V"]:
        """Return the logits after one more token of each sequence.

        Args:
            tokens: the tokens; None for the likeliest after the pass before.

        Raises:
            HybridsimError: the cache has no room for them.
        """
        self.cache.require_room(1)
        if tokens is not None:
            self.tokens.copy_(tokens)
        if self._graph is None:
            self._run()
        else:
            self._graph.replay()
            self.cache.end(1)
            self.logits = self._captured_logits
        return self.logits

    @torch.inference_mode()
    def _run(self) -> None:
        self.logits = self.model(self.tokens, self.cache, last_logits_only=True)
        self._choose()

    def _choose(self) -> None:
        """Leave the likeliest tokens as the next step's input."""
        kernel = choose("likeliest", self.logits)
        if kernel is None:
            self.tokens.copy_(self.logits.argmax(-1))
        else:
            kernel(self.logits, self.tokens)

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self.reset()  # a step's place is the first, whatever the capacity
                self._run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        self._captured_logits = self.logits
        return graph
