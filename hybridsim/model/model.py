"""HybridLM: the graph of a spec as an nn.Module."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridsim.ffn import FfnSettings, ffn_class
from hybridsim.graph import FFN, MIXER, NORM, ModelGraph, Op
from hybridsim.kernels.choice import MOST_ROWS
from hybridsim.mixers import MixerSettings, mixer_class
from hybridsim.nn.cache import LayerCache, ModelCache
from hybridsim.nn.feed_forward import FeedForward
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.scale import scaled
from hybridsim.spec.schema import ResidualSettings


class HybridLM(nn.Module):
    """A causal language model; its modules are named as the nodes of its graph."""

    def __init__(self, graph: ModelGraph) -> None:
        super().__init__()
        spec = graph.spec
        self.graph = graph
        self.spec = spec
        self.embed = nn.Embedding(spec.vocab_size, spec.hidden_size)
        self.layers = nn.ModuleList(HybridLayer(graph, i) for i in range(spec.num_layers))
        self.norm = RMSNorm(spec.hidden_size, spec.norm)
        self.head = nn.Linear(spec.hidden_size, spec.vocab_size, bias=False)
        if spec.tie_word_embeddings:
            self.head.weight = self.embed.weight

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        cache: ModelCache | None = None,
        *,
        last_logits_only: bool = False,
    ) -> Float[Tensor, "B P V"]:
        """Return logits of every position, or of the last one.

        Args:
            tokens: token ids.
            cache: from `new_cache`; the pass continues after its tokens and leaves the new ones.
            last_logits_only: compute the head at the last position only, as serving does.
        """
        x = self._embedded(tokens)
        selection = None
        if cache is not None:
            cache.begin(tokens.shape[1])
        for layer in self.layers:
            x, selection = layer(x, cache, selection)
        if cache is not None:
            cache.end(tokens.shape[1])
        if last_logits_only:
            x = x[:, -1:]
        logits: Tensor = self.head(self.norm(x))
        return scaled(logits, self.spec.logit_scale)

    def _embedded(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        x: Tensor = self.embed(tokens)
        factor = self.spec.embedding_scale
        if self.spec.round_embedding_scale:
            return x * x.new_full((), factor)
        return scaled(x, factor)

    def new_cache(self, reserved_tokens: int = 0) -> ModelCache:
        """Return an empty cache, with room for `reserved_tokens` where it grows with tokens."""
        caches: dict[str, LayerCache] = {}
        for layer in self.layers:
            assert isinstance(layer, HybridLayer)
            for name, mixer in layer.named_mixers():
                caches[name] = mixer.new_cache(reserved_tokens)
        return ModelCache(caches)

    def new_static_cache(self, capacity: int) -> ModelCache:
        """Return an empty cache of a fixed capacity in tokens, see nn/cache.py."""
        cache = self.new_cache(capacity)
        cache.make_static(capacity, self.embed.weight.device)
        return cache


class HybridLayer(nn.Module):
    """One layer: its mixer or mixers, then its feed-forward, each with norms and an add."""

    def __init__(self, graph: ModelGraph, index: int) -> None:
        super().__init__()
        spec = graph.spec
        self.index = index
        self.residual = spec.residual
        stem = f"layers.{index}."
        ops = {name.removeprefix(stem): op for name, op, layer in graph.nodes() if layer == index}
        mixers = {name.removeprefix("mixers."): op for name, op in ops.items() if op.kind == MIXER}
        for name, op in ops.items():
            if op.kind == NORM:
                self.add_module(name, RMSNorm(spec.hidden_size, spec.norm))
        if mixers:
            place = MixerPlace(spec.hidden_size, spec.norm, index, spec.num_layers)
            self.mixers = nn.ModuleDict({n: build_mixer(op, place) for n, op in mixers.items()})
        if any(op.kind == FFN for op in ops.values()):
            self.ffn = build_ffn(ops["ffn"])

    def named_mixers(self) -> list[tuple[str, SequenceMixer]]:
        """Return the mixers with their names in the graph."""
        mixers = getattr(self, "mixers", {})
        return [(f"layers.{self.index}.mixers.{name}", mixer) for name, mixer in mixers.items()]

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        cache: ModelCache | None = None,
        selection: Int[Tensor, "B T k"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], Int[Tensor, "B T k"] | None]:
        """Return the residual stream after the layer, and the selection of tokens so far."""
        if mixers := self.named_mixers():
            past = cache.past if cache is not None else 0

            def mix(normed: Tensor) -> Tensor:
                nonlocal selection
                outs: list[Tensor] = []
                for name, mixer in mixers:
                    kept = cache.layers[name] if cache is not None else None
                    out, selection = mixer.mix(normed, kept, past, selection)
                    outs.append(out)
                return functools.reduce(torch.add, outs)

            stepped = None
            if len(mixers) == 1 and x.shape[1] == 1 and cache is not None:
                name, mixer = mixers[0]
                stepped = self._stepped(MIXER, mixer, x, cache.layers[name], past)
            x = self._sublayer(MIXER, mix, x) if stepped is None else stepped
        if hasattr(self, "ffn"):
            stepped = self._stepped(FFN, self.ffn, x)
            x = self._sublayer(FFN, self.ffn, x) if stepped is None else stepped
        return x, selection

    def _stepped(
        self, kind: str, module: SequenceMixer | FeedForward, x: Tensor, *given: Any
    ) -> Tensor | None:
        """Return x with a module's normalised part added, where it does all that in few launches.

        None where it does not, and where someone listens to what goes through its parts.
        """
        norm = getattr(self, f"{kind}_norm", None)
        few = x[..., 0].numel() <= MOST_ROWS and not torch.is_grad_enabled()
        plain = self.residual == ResidualSettings() and not hasattr(self, f"{kind}_post_norm")
        if not few or not plain or not isinstance(norm, RMSNorm):
            return None
        if _has_hooks(norm) or _has_hooks(module):
            return None
        found: Tensor | None = module.step(norm, x, *given)
        return found

    def _sublayer(self, kind: str, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Return x with the function of it added, normalised before, after, or both."""
        before = getattr(self, f"{kind}_norm", None)
        after = getattr(self, f"{kind}_post_norm", None)
        inside = x if before is None else before(x)
        out = function(inside)
        if after is not None:
            out = after(out)
        source = inside if self.residual.source == "normed" else x
        return scaled(source, self.residual.alpha) + scaled(out, self.residual.beta)


def _has_hooks(module: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def build_mixer(op: Op, place: MixerPlace) -> SequenceMixer:
    """Return the module of a mixer node."""
    assert isinstance(op.settings, MixerSettings)
    return mixer_class(op.settings.kind)(op.settings, place)


def build_ffn(op: Op) -> FeedForward:
    """Return the module of a feed-forward node."""
    assert isinstance(op.settings, FfnSettings)
    cls = ffn_class(op.settings.kind)
    return cls(op.settings, op.hidden_size)
