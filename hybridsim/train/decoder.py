"""Reads tokens off one hidden state: the decoder of tasks whose `reads_at` is "last".

To the hidden state at the last position a sinusoid of the wanted position is added, as large as
the state; two layers width to width with a GELU between them, normalised before, between and after,
lead to what the embeddings are multiplied with. So all that the decoder knows of a sequence is that
one state.

Source: MAD's auto-encoder, arXiv 2403.17844 (mad-lab, mad/model/auto_encoder.py). Ours has no
biases and no weights in its norms, the model's tied embeddings in place of a matrix of its own, and
for their sake no second GELU: linear attention then learns a short task in fewer steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

LAYERS = ("decoder_in", "decoder_out")  # names of the parameters, applied in this order
LONGEST_WAVE = 10_000.0  # of the sinusoids, over 2 pi positions
SEED_OFFSET = 104_729  # its weights are drawn apart from the model's own


def decoder_weights(hidden_size: int, seed: int) -> dict[str, Tensor]:
    """Return the weights [D, D] that a model's decoder starts from, by name."""
    generator = torch.Generator().manual_seed(SEED_OFFSET + seed)
    shape, deviation = (hidden_size, hidden_size), hidden_size**-0.5
    return {name: torch.randn(shape, generator=generator) * deviation for name in LAYERS}


def decoded(weights: Mapping[str, Tensor], states: Tensor, positions: Tensor, eps: float) -> Tensor:
    """Return what stands for the tokens at positions, [M, B, n, D].

    Args:
        weights: [M, D, D] each.
        states: hidden states [M, B, D].
        positions: [M, B, n].
        eps: of the norms.
    """
    width = states.shape[-1:]
    shape = (*positions.shape, *width)

    def layer(name: str, x: Tensor) -> Tensor:
        x = F.rms_norm(x, width, eps=eps).flatten(1, 2)
        return (x @ weights[name].to(x.dtype)).view(shape)

    within, out = LAYERS
    x = layer(within, states[:, :, None] + sinusoids(positions, width[0]))
    normed: Tensor = F.rms_norm(layer(out, F.gelu(x)), width, eps=eps)
    return normed


def sinusoids(positions: Tensor, width: int) -> Tensor:
    """Return sines, then cosines of positions [...] at width / 2 frequencies, [..., width].

    Times sqrt(2), so that their mean square is 1.
    """
    half = -(-width // 2)
    steps = torch.arange(half, device=positions.device) / max(1, half - 1)
    angles = positions[..., None] * LONGEST_WAVE**-steps
    return 2**0.5 * torch.cat([angles.sin(), angles.cos()], dim=-1)[..., :width]
