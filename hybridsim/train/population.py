"""Many small models as one: parameters stacked along a model axis, layers run kind by kind.

Models of one proxy have the same widths and depth and may differ in every layer's mixer. In each
layer those with the same mixer form a group, whose parameters are stacked: [models, ...]. A group
runs as one: on a GPU by vmap over the layer's own module, so that a hundred tiny products are one
batched product; on a CPU, where tiny products are no burden, model by model. Such products keep a
GPU waiting, not busy: so a layer's groups run beside each other, each on a stream of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap

from hybridsim.components import NormSettings
from hybridsim.kernels.choice import forcing
from hybridsim.model.model import HybridLayer, HybridLM
from hybridsim.spec.schema import ModelSpec
from hybridsim.train.decoder import decoded, decoder_weights
from hybridsim.train.flat import Layout
from hybridsim.train.twin import build_twin

VMAP, LOOP = "vmap", "loop"
EACH, LAST = "each", "last"
Weights = Mapping[str, Tensor]


@final
@dataclass(frozen=True)
class Member:
    """One model of a population.

    Attributes:
        spec: the twin that `scale_spec` made.
        seed: of its weights and its data.
        rate: peak learning rate.
    """

    spec: ModelSpec
    seed: int
    rate: float


@final
@dataclass
class Group:
    """The models with one and the same layer at one depth.

    Attributes:
        layer: its index.
        prefix: of its parameters' names.
        module: the layer; its own weights are not used, its buffers are.
        models: which models of the population, in order.
        names: the module's parameters.
    """

    layer: int
    prefix: str
    module: HybridLayer
    models: list[int]
    names: list[str]


@final
class Population:
    """Models of one shape, their parameters stacked.

    Args:
        members: what to build; the specs have the same widths, depth and vocabulary.
        conv_size: taps of the convolutions that mixers without one get, 0 for none.
        device: where they live.
        batching: "vmap" or "loop", see the module; by default what suits the device.
        reads_at: where logits are read, as a task says it: "each" position's own hidden state, or
            the "last" one's, by a decoder that is trained with the model.
    """

    def __init__(
        self,
        members: Sequence[Member],
        conv_size: int,
        device: torch.device | str,
        batching: str | None = None,
        reads_at: str = EACH,
    ) -> None:
        self.members = list(members)
        self.device = torch.device(device)
        self.conv_size, self.reads_at = conv_size, reads_at
        self.batching = batching or (VMAP if self.device.type == "cuda" else LOOP)
        self.norm: NormSettings = members[0].spec.norm
        self.models_of: dict[str, list[int]] = {}  # parameter -> the models on its first axis
        self.groups: list[list[Group]] = []
        stacked = self._built()
        shapes = {name: tensor.shape for name, tensor in stacked.items()}
        self.layout = Layout(shapes, self.models_of, self.device)
        self.flat = self.layout.packed(stacked).requires_grad_()  # the leaf that gradients are of
        self.parameters = self.layout.views(self.flat.detach())  # to read and to set
        self._orders = [_by_group(groups, self.device) for groups in self.groups]
        most = max(len(groups) for groups in self.groups)
        is_cuda = self.device.type == "cuda"
        self._streams = [torch.cuda.Stream() for _ in range(most)] if is_cuda and most > 1 else []

    def _built(self) -> dict[str, Tensor]:
        """Build every model by itself, as `build_model` does, and stack what they have alike."""
        stacked: dict[str, Tensor] = {}
        models = [
            _without_letters(build_twin(m.spec, m.seed, self.conv_size)) for m in self.members
        ]
        everyone = list(range(len(models)))
        self._add(stacked, "embed", [m.embed.weight for m in models], everyone)
        self._add(stacked, "norm", [m.norm.weight for m in models], everyone)
        if self.reads_at == LAST:
            decoders = [decoder_weights(m.spec.hidden_size, m.seed) for m in self.members]
            for name in decoders[0]:
                self._add(stacked, name, [decoder[name] for decoder in decoders], everyone)
        for layer in range(self.members[0].spec.num_layers):
            self.groups.append(self._layer_groups(models, layer, stacked))
        return stacked

    def _layer_groups(
        self, models: Sequence[Any], layer: int, stacked: dict[str, Tensor]
    ) -> list[Group]:
        kinds: dict[Any, list[int]] = {}
        for i, member in enumerate(self.members):
            kinds.setdefault(_layer_key(member.spec, layer), []).append(i)
        groups = []
        for number, chosen in enumerate(kinds.values()):
            modules = [models[i].layers[layer] for i in chosen]
            prefix = f"layers.{layer}.{number}."
            names = [name for name, _ in modules[0].named_parameters()]
            for name in names:
                own = [module.get_parameter(name) for module in modules]
                self._add(stacked, prefix + name, own, chosen)
            template = modules[0].to(self.device).requires_grad_(False)
            groups.append(Group(layer, prefix, template, chosen, names))
        return groups

    def _add(
        self, stacked: dict[str, Tensor], name: str, own: Sequence[Tensor], models: list[int]
    ) -> None:
        stacked[name] = torch.stack([t.detach().float() for t in own]).to(self.device)
        self.models_of[name] = models

    def rates(self, name: str) -> list[float]:
        """Return the peak learning rates of a parameter's models."""
        return [self.members[i].rate for i in self.models_of[name]]

    def picked(
        self, other: Population, tensors: Mapping[str, Tensor], kept: Sequence[int]
    ) -> dict[str, Tensor]:
        """Return tensors stacked as another population's parameters are, stacked as ours.

        Args:
            other: where these models were before, among others.
            tensors: by the other's names.
            kept: for each model here, its number there.
        """
        found: dict[str, list[Tensor]] = {}
        for here, there in enumerate(kept):
            theirs = other.names_of(there)
            for key, (name, _) in self.names_of(here).items():
                stacked, row = theirs[key]
                if stacked in tensors:
                    found.setdefault(name, []).append(tensors[stacked].detach()[row])
        return {name: torch.stack(rows) for name, rows in found.items()}

    def names_of(self, model: int) -> dict[tuple[int, str], tuple[str, int]]:
        """Return where a model's parameters are: (layer or -1, own name) -> (name, row)."""
        found: dict[tuple[int, str], tuple[str, int]] = {}
        for name in self.parameters:
            if not name.startswith("layers."):
                found[-1, name] = (name, model)
        for groups in self.groups:
            for group in groups:
                if model in group.models:
                    row = group.models.index(model)
                    for name in group.names:
                        found[group.layer, name] = (group.prefix + name, row)
        return found

    def hidden(self, tokens: Tensor) -> Tensor:
        """Return the normalised last hidden states [M, B, T, D] of tokens [M, B, T]."""
        return self._hidden(self.layout.views(self.flat), tokens)

    def _hidden(self, weights: Weights, tokens: Tensor) -> Tensor:
        x = self._embedded(weights["embed"], tokens)
        with forcing("reference"):  # kernels take no model axis
            for groups, order in zip(self.groups, self._orders, strict=True):
                x = self._mixed(weights, groups, order, x)
        weight = weights["norm"][:, None, None]
        scale = 1 + weight if self.norm.unit_offset else weight
        normed: Tensor = F.rms_norm(x, x.shape[-1:], eps=self.norm.eps)
        return normed * scale

    def _embedded(self, embed: Tensor, tokens: Tensor) -> Tensor:
        """Return each model's embeddings [M, B, T, D] of its tokens."""
        first = torch.arange(embed.shape[0], device=self.device)[:, None, None] * embed.shape[1]
        # (Indexing by two tensors would sort all tokens for the gradient.)
        rows = embed.flatten(0, 1).index_select(0, (tokens + first).flatten())
        return rows.view(*tokens.shape, -1)

    def logits(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return logits [M, B, n, V] at positions [M, B, n] of tokens [M, B, T]."""
        weights = self.layout.views(self.flat)
        x = self._hidden(weights, tokens)
        if self.reads_at == LAST:
            chosen = decoded(weights, x[:, :, -1], positions, self.norm.eps)
        else:
            chosen = x.gather(2, positions[..., None].expand(-1, -1, -1, x.shape[-1]))
        flat = chosen.flatten(1, 2) @ weights["embed"].to(chosen.dtype).mT
        logits: Tensor = flat.unflatten(1, chosen.shape[1:3])
        return logits

    def _mixed(
        self, weights: Weights, groups: list[Group], order: tuple[Tensor, Tensor], x: Tensor
    ) -> Tensor:
        """Return x after one layer, each model by its own group's."""
        if len(groups) == 1:
            return self._run(weights, groups[0], x)
        there, back = order
        ordered = x.index_select(0, there)
        parts = ordered.split([len(group.models) for group in groups])
        work = [
            partial(self._run, weights, group, part)
            for group, part in zip(groups, parts, strict=True)
        ]
        outs = self._beside(work, ordered) if self._streams else [run() for run in work]
        return torch.cat(outs).index_select(0, back)

    def _beside(self, work: Sequence[Callable[[], Tensor]], x: Tensor) -> list[Tensor]:
        """Return what some functions of x return, each run on a stream of its own."""
        main, outs = torch.cuda.current_stream(), []
        for run, stream in zip(work, self._streams, strict=False):
            stream.wait_stream(main)
            x.record_stream(stream)
            with torch.cuda.stream(stream):
                outs.append(run())
        for out, stream in zip(outs, self._streams, strict=False):
            main.wait_stream(stream)
            out.record_stream(main)
        return outs

    def join(self) -> None:
        """Have what follows on this stream wait for all that was asked for on the others."""
        for stream in self._streams:
            torch.cuda.current_stream().wait_stream(stream)

    def _run(self, weights: Weights, group: Group, x: Tensor) -> Tensor:
        stacked = {name: weights[group.prefix + name] for name in group.names}

        def layer(own: dict[str, Tensor], x: Tensor) -> Tensor:
            out: Tensor = functional_call(group.module, own, (x,))[0]
            return out

        if self.batching == VMAP:
            batched: Tensor = vmap(layer)(stacked, x)
            return batched
        # (Unbound at once: a gradient of each index alone would be as large as the whole.)
        own = zip(*(tensor.unbind() for tensor in stacked.values()), strict=True)
        each = [
            layer(dict(zip(stacked, one, strict=True)), x_one)
            for one, x_one in zip(own, x.unbind(), strict=True)
        ]
        return torch.stack(each)


def _without_letters(model: HybridLM) -> HybridLM:
    """Return the model with each layer's mixers named by place: specs may name the same apart."""
    for layer in model.layers:
        assert isinstance(layer, HybridLayer)
        mixers = [mixer for _, mixer in layer.named_mixers()]
        if mixers:
            layer.mixers = nn.ModuleDict({str(place): m for place, m in enumerate(mixers)})
    return model


def _by_group(groups: Sequence[Group], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the models in the order of their groups, and what brings them back to their own."""
    there = torch.tensor([model for group in groups for model in group.models])
    return there.to(device), there.argsort().to(device)


def _layer_key(spec: ModelSpec, layer: int) -> Any:
    """Return what two models must have alike for their layers at a depth to be one group."""
    letter, ffn = spec.layer_letters[layer], spec.ffn_letters[layer]
    mixers = tuple(spec.mixers[part] for part in spec.layer_mixers(letter))
    return mixers, spec.ffns.get(ffn), spec.layer_norms(letter), spec.norm, spec.residual
