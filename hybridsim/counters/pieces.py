"""The parts of a model that a counter runs: each distinct layer once, with how often it occurs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hybridsim.conventions import FlopConventions
from hybridsim.graph import HEAD, ModelGraph
from hybridsim.model.build import TORCH_DTYPES
from hybridsim.model.model import HybridLayer
from hybridsim.nn.cache import ModelCache
from hybridsim.steps import Step


@dataclass(frozen=True)
class Piece:
    """A module, its input on the meta device, and how often it stands in the model."""

    name: str
    module: nn.Module
    input: Tensor
    times: int


class _CachedLayer(nn.Module):
    """A layer that continues after a cache; counters call modules with tensors only.

    What it leaves in the cache is part of the result: a tracer drops what no result needs. A
    selection that an earlier layer would make is given.
    """

    def __init__(self, layer: HybridLayer, past_tokens: int, example: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.past_tokens = past_tokens
        self.selection = _borrowed_selection(layer, example)
        self.cache = self._new_cache()
        if past_tokens:
            # Two tokens give every part of the cache its shape; `stretch` gives it its length.
            two = example.new_zeros(example.shape[0], 2, example.shape[2])
            layer(two, self.cache, _borrowed_selection(layer, two))

    def _new_cache(self) -> ModelCache:
        return ModelCache({name: mixer.new_cache(0) for name, mixer in self.layer.named_mixers()})

    def forward(self, x: Tensor) -> list[Tensor]:
        if self.past_tokens:
            self.cache.stretch(self.past_tokens)
        else:
            self.cache = self._new_cache()
        out, _ = self.layer(x, self.cache, self.selection)
        return [out, *(kept for c in self.cache.layers.values() for kept in c.tensors())]


def _borrowed_selection(layer: HybridLayer, x: Tensor) -> Tensor | None:
    sizes = (mixer.settings.borrows for _, mixer in layer.named_mixers())
    topk = next((size for size in sizes if size is not None), None)
    return None if topk is None else x.new_empty(*x.shape[:2], topk, dtype=torch.long)


def model_pieces(
    graph: ModelGraph, step: Step, batch_size: int, conventions: FlopConventions
) -> Iterator[Piece]:
    """Yield the distinct layers and the head, on the meta device, with inputs for a step."""
    spec, dtype = graph.spec, TORCH_DTYPES["bf16"]
    # Only the parts are made on the meta device: whoever runs one stays on his own.
    with torch.device("meta"), torch.no_grad():
        x = torch.empty(batch_size, step.new_tokens, spec.hidden_size, dtype=dtype)
        head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False, dtype=dtype)
    for block in graph.blocks():
        with torch.device("meta"), torch.no_grad():
            layer = HybridLayer(graph, block.layers[0]).to(dtype)
            cached = _CachedLayer(layer, step.past_tokens, x)
        yield Piece(block.letter + block.ffn_letter, cached, x, len(block.layers))
    yield Piece(HEAD, head, x if conventions.logits == "all" else x[:, -1:], 1)
