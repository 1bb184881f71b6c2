"""The modules of a twin as they start training: a convolution in every mixer, outputs at zero.

Without a short convolution a two-layer softmax model stays at chance on associative recall for
hundreds of steps; with one it learns it in a hundred. Linear mixers mostly have one of their own.
The others get one on their projections of queries, keys and values, so that no mixer of a proxy
wins by the convolution alone.
"""

from __future__ import annotations

from typing import final

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
PROJECTIONS_OUT = ("o_proj.weight", "down_proj.weight")


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
        if name.endswith(PROJECTIONS_OUT):
            weight.zero_()
    if conv_size:
        _add_convolutions(model, seed, conv_size)
    return model


def _add_convolutions(model: HybridLM, seed: int, conv_size: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for layer in model.layers:
        for _, mixer in layer.named_mixers():  # type: ignore[operator]
            for name in CONVOLVED.get(mixer.settings.kind, ()):
                linear = getattr(mixer, name, None)
                if linear is not None:
                    convolved = ConvolvedLinear(linear, conv_size)
                    convolved.conv1d.weight.normal_(0, conv_size**-0.5, generator=generator)
                    setattr(mixer, name, convolved)
