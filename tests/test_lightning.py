"""Lightning attention as Ring uses it: no class of transformers has it, so the formula judges."""

from __future__ import annotations

import math

import pytest
import torch
from cases import MIXER_CASES
from closeness import assert_close
from torch import Tensor

from hybridsim.components import NormSettings
from hybridsim.errors import SpecError
from hybridsim.mixers import mixer_class, settings_class
from hybridsim.mixers.lightning.ops import alibi_slopes, decay_slopes
from hybridsim.model.build import initialize
from hybridsim.nn.mixer import MixerPlace, SequenceMixer

WIDTH, LAYER, LAYERS = 32, 2, 5
EPS = 1e-6


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.pow(2).mean() + EPS).sqrt() * weight


def rotated(x: Tensor, position: int, channels: int) -> Tensor:
    """Return one head's vector with its first channels rotated, halves paired, base 10,000."""
    half, out = channels // 2, x.clone()
    for i in range(half):
        # Angles are float32 in the models.
        angle = torch.tensor(float(position)) * torch.tensor(10000.0 ** (-2 * i / channels))
        cos, sin = angle.cos().double(), angle.sin().double()
        out[i] = x[i] * cos - x[i + half] * sin
        out[i + half] = x[i + half] * cos + x[i] * sin
    return out


def ring_layer(mixer: SequenceMixer, x: Tensor) -> Tensor:
    """Return the output for x [T, D] token by token, as the published layer is defined.

    arXiv 2510.19338, section 2, and the order of inclusionAI's modeling_bailing_moe_linear_v2:
    projection, norm of q and k, rotation, recurrence with log decay -slope (queries scaled),
    grouped norm of the joined heads, sigmoid gate from the layer's input, projection.
    """
    weights = {name: parameter.detach() for name, parameter in mixer.named_parameters()}
    heads, size, groups, rotary = 4, 16, 2, 8
    factor = 1 - (LAYER - 1) / (LAYERS - 1) + 1e-5
    states, outputs = torch.zeros(heads, size, size, dtype=x.dtype), []
    for t, token in enumerate(x):
        joined = []
        for h in range(heads):
            at = 3 * size * h
            q, k, v = (weights["qkv_proj.weight"][at : at + 3 * size] @ token).split(size)
            q = rotated(rms(q, weights["q_norm.weight"]), t, rotary)
            k = rotated(rms(k, weights["k_norm.weight"]), t, rotary)
            # The buffer of slopes is kept in float32.
            slope = torch.tensor(factor * 2 ** (-8 * (h + 1) / heads)).float().double()
            states[h] = (-slope).exp() * states[h] + torch.outer(k, v)
            joined.append(q @ states[h] / math.sqrt(size))
        parts = torch.cat(joined).split(heads * size // groups)
        scales = weights["o_norm.weight"].split(heads * size // groups)
        normed = torch.cat([rms(p, w) for p, w in zip(parts, scales, strict=True)])
        gate = (weights["output_gate.weight"] @ token).sigmoid()
        outputs.append(weights["o_proj.weight"] @ (normed * gate))
    return torch.stack(outputs)


def test_rings_layer_is_the_published_formula() -> None:
    settings = MIXER_CASES["lightning"]["ring"]
    place = MixerPlace(WIDTH, NormSettings(eps=EPS), layer=LAYER, num_layers=LAYERS)
    mixer = mixer_class("lightning")(settings, place)
    initialize(mixer, seed=0)
    mixer.double()
    with torch.no_grad():
        for name in ("q_norm", "k_norm", "o_norm"):
            norm = mixer.get_submodule(name).weight
            norm.copy_(torch.rand_like(norm) + 0.5)
        x = torch.randn(37, WIDTH, dtype=torch.float64)
        assert_close("out", mixer(x[None])[0], ring_layer(mixer, x), 1e-10)


def test_slopes_of_both_schedules() -> None:
    minimax = decay_slopes(4, 3, 8, "minimax")
    assert minimax == pytest.approx([(1 - 3 / 7) * 4.0 ** -(h + 1) for h in range(4)], rel=1e-4)
    assert decay_slopes(4, 0, 8, "minimax")[0] == pytest.approx(0.25, rel=2e-5)
    # Ring-mini's first and last layers of 20: 1 + 1/19 and 1/19, plus 1e-5.
    for layer, factor in ((0, 20 / 19 + 1e-5), (19, 1 / 19 + 1e-5)):
        wanted = [factor * 2 ** (-(h + 1) / 2) for h in range(16)]
        assert decay_slopes(16, layer, 20, "bailing") == pytest.approx(wanted, rel=1e-12)
    assert decay_slopes(2, 0, 1, "bailing")[0] > 0


def test_slopes_of_head_counts_between_powers_of_two() -> None:
    # ALiBi: those of 8 heads, then every other one of 16.
    wanted = [2.0 ** -(h + 1) for h in range(8)] + [2.0 ** -(h + 0.5) for h in range(4)]
    assert alibi_slopes(12) == pytest.approx(wanted)
    assert alibi_slopes(8) == pytest.approx(wanted[:8])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_norm_groups": 3}, r"num_norm_groups=3: must divide num_heads \* head_dim=64"),
        ({"slope_schedule": "alibi"}, r"slope_schedule=alibi: .*minimax"),
        ({"qk_norm": "full"}, r"qk_norm=full: .*head"),
        ({"activation": "tanh"}, r"activation=tanh: .*none"),
    ],
)
def test_wrong_settings_are_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        settings_class("lightning")(num_heads=4, head_dim=16, **change)
