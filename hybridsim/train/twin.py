"""The modules of a twin as they start training: convolutions, gates open, outputs at zero.

Without a short convolution a two-layer softmax model stays at chance on associative recall for
hundreds of steps; with one it learns it in a hundred. Linear mixers mostly have one of their own.
The others get one on their projections of queries, keys and values, so that no mixer of a proxy
wins by the convolution alone.

Gates are learnt too, and a short training should not be spent on unlearning how they begin: an
output gate SiLU(z) with z around zero turns the sign of half of what a layer remembers, and a decay
that forgets in ten tokens keeps nothing to learn recall from. So both begin open: z at SILU_ONE,
decays at memories of one to ten of the twin's contexts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, final

import torch
from torch import Tensor, nn

from hybridsim.model.build import build_model
from hybridsim.model.model import HybridLM
from hybridsim.nn.conv import ShortConvolution
from hybridsim.spec.schema import ModelSpec

# kind of mixer without a convolution -> projections whose outputs get one (gated linear attention's
# is a field, see scale.py; in sparse MLA keys and values are the latent itself)
CONVOLVED = {
    "attention": ("q_proj", "k_proj", "v_proj"),
    "block_sparse": ("q_proj", "k_proj", "v_proj"),
    "linear_attention": ("q_proj", "k_proj", "v_proj"),
    "lightning": ("qkv_proj",),
    "mla": ("q_proj", "q_b_proj", "kv_b_proj"),
    "sparse_mla": ("q_b_proj", "kv_a_proj"),
}
EMBEDDING_DEVIATION = 0.02  # that build_model gives embeddings
PROJECTIONS_OUT = ("o_proj", "down_proj")
SILU_ONE = 1.2785  # where SiLU is 1
CONTEXTS_KEPT = (1.0, 10.0)  # what a decay begins with: it forgets to 1/e in so many contexts
# kind of mixer with an output gate SiLU(z) -> the projection that makes z, and z's rows of it
SILU_GATES: dict[str, tuple[str, Callable[[Any], Tensor]]] = {
    "gated_deltanet": ("in_proj_qkvz", lambda m: _last_rows_of_heads(m.settings)),
    "deltanet": ("g_proj", lambda m: torch.arange(m.settings.value_dim)),
    "gla": ("g_proj", lambda m: torch.arange(m.settings.value_dim)),
    "mamba1": ("in_proj", lambda m: torch.arange(m.settings.inner_dim) + m.settings.inner_dim),
    "mamba2": ("in_proj", lambda m: torch.arange(m.settings.inner_dim)),
}


@final
class ConvolvedLinear(nn.Module):
    """A projection whose outputs pass a causal depthwise convolution."""

    def __init__(self, linear: nn.Linear, conv_size: int) -> None:
        super().__init__()
        self.linear = linear
        self.conv1d = ShortConvolution(linear.out_features, conv_size, activation="identity")

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, T, inputs] to [B, T, outputs]."""
        out: Tensor = self.conv1d(self.linear(x), None)
        return out


@torch.no_grad()
def build_twin(spec: ModelSpec, seed: int, conv_size: int) -> HybridLM:
    """Return a twin's model on the CPU with the weights that its training starts from.

    As `build_model` makes it, but with embeddings of unit length, and each sublayer's projection
    out at zero, so that every layer at first sees what the tokens are and not what untrained layers
    add: a full layer above three linear ones otherwise learns recall late, and by luck of the seed.

    Args:
        spec: from `scale_spec`.
        seed: of the weights.
        conv_size: taps of the convolutions; 0 adds none.
    """
    model = build_model(spec, "cpu", dtype="fp32", seed=seed)
    model.embed.weight.mul_(spec.hidden_size**-0.5 / EMBEDDING_DEVIATION)
    for name, weight in model.named_parameters():
        if is_output(name):
            weight.zero_()
    generator = torch.Generator().manual_seed(seed)
    for mixer in _mixers(model):
        _open_output_gate(mixer)
        _open_decays(mixer, spec.native_context, generator)
    if conv_size:
        _add_convolutions(model, seed, conv_size)
    return model


def is_output(parameter: str) -> bool:
    """Whether a parameter, by its name, is of a projection out of a sublayer."""
    return parameter.rpartition(".")[0].endswith(PROJECTIONS_OUT)


def _mixers(model: HybridLM) -> list[Any]:
    return [mixer for layer in model.layers for _, mixer in layer.named_mixers()]  # type: ignore[operator]


def _open_output_gate(mixer: Any) -> None:
    """Give the projection that makes a SiLU gate's z a bias at which the gate is 1."""
    name, rows = SILU_GATES.get(mixer.settings.kind, ("", None))
    linear = getattr(mixer, name, None) if rows else None
    if rows is None or linear is None:
        return
    if linear.bias is None:
        linear.bias = nn.Parameter(torch.zeros(linear.out_features))
    linear.bias[rows(mixer)] = SILU_ONE


def _last_rows_of_heads(settings: Any) -> Tensor:
    """Return z's rows of a gated delta rule's projection: of each key head the last ones."""
    values = settings.value_dim // settings.num_heads
    every = torch.arange(2 * (settings.key_dim + settings.value_dim))
    return every.view(settings.num_heads, -1)[:, -values:].flatten()


def _open_decays(mixer: Any, context: int, generator: torch.Generator) -> None:
    """Set what decays begin at so that they forget in one to ten contexts, log-uniformly.

    Step sizes stay as they are, for Mamba's are what it writes with, too: the rates A follow. A
    bounded decay (`gate_lower_bound`) begins slower than that by itself, and a rate for every
    channel and state (Mamba) spans many memories by design: both stay.
    """
    if hasattr(mixer, "gk_b_proj"):
        bias = mixer.gk_b_proj.bias
        wanted = _rates(bias.numel(), context, generator) * mixer.settings.gate_logit_normalizer
        bias.copy_(-torch.log(torch.expm1(wanted)))  # -log(sigmoid(b)) = wanted
    rates, steps = getattr(mixer, "A_log", None), getattr(mixer, "dt_bias", None)
    if rates is None or steps is None or rates.dim() > 1:
        return
    if getattr(mixer.settings, "gate_lower_bound", None) is None:
        heads = rates.numel()
        step = nn.functional.softplus(steps).view(heads, -1).log().mean(1).exp()
        rates.copy_((_rates(heads, context, generator) / step).log())


def _rates(count: int, context: int, generator: torch.Generator) -> Tensor:
    """Return decays a token, in nats."""
    low, high = (math.log(1 / (contexts * context)) for contexts in reversed(CONTEXTS_KEPT))
    return torch.empty(count).uniform_(low, high, generator=generator).exp()


def _add_convolutions(model: HybridLM, seed: int, conv_size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for mixer in _mixers(model):
        for name in CONVOLVED.get(mixer.settings.kind, ()):
            linear = getattr(mixer, name, None)
            if linear is not None:
                convolved = ConvolvedLinear(linear, conv_size)
                convolved.conv1d.weight.normal_(0, conv_size**-0.5, generator=generator)
                setattr(mixer, name, convolved)
