"""The Mamba-2 mixer against those of the reference implementation, option by option; its costs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import torch
from closeness import assert_close

from hybridsim.components import NormSettings
from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes
from hybridsim.errors import SpecError
from hybridsim.mixers import mixer_class, mixer_cost, settings_class
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.steps import decode, prefill

WIDTH = 32
OURS: dict[str, Any] = {
    "num_heads": 4,
    "head_dim": 16,
    "state_size": 8,
    "num_groups": 2,
    "chunk_size": 16,
}
NAMES = {"o_norm": "norm", "o_proj": "out_proj"}  # the same parts in the reference

# name -> the reference's family, fields of its configuration, fields of our settings
OPTIONS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "plain": ("falcon_h1", {}, {}),
    "norm_first": ("falcon_h1", {"mamba_norm_before_gate": True}, {"norm": "before_gate"}),
    "no_norm": ("falcon_h1", {"mamba_rms_norm": False}, {"norm": "none"}),
    "conv": (
        "falcon_h1",
        {"mamba_conv_bias": False, "mamba_d_conv": 3, "hidden_act": "gelu"},
        {"conv_bias": False, "conv_size": 3, "activation": "gelu"},
    ),
    "biases": (
        "falcon_h1",
        {"mamba_proj_bias": True, "projectors_bias": True},
        {"bias": True, "output_bias": True},
    ),
    "scales": (
        "falcon_h1",
        {"ssm_multipliers": [0.5, 1.5, 0.75, 1.25, 2.0], "ssm_in_multiplier": 0.7},
        {
            "input_scale": 0.7,
            "z_scale": 0.5,
            "x_scale": 1.5,
            "b_scale": 0.75,
            "c_scale": 1.25,
            "dt_scale": 2.0,
        },
    ),
    "limits": ("falcon_h1", {"time_step_limit": (0.4, 0.9)}, {"dt_min": 0.4, "dt_max": 0.9}),
    "lower_limit": ("nemotron_h", {"time_step_min": 0.5}, {"dt_min": 0.5}),
}
CONFIGS: dict[str, dict[str, Any]] = {
    "falcon_h1": {
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "mamba_d_ssm": 64,
        "mamba_n_heads": 4,
        "mamba_n_groups": 2,
        "mamba_d_state": 8,
        "mamba_chunk_size": 16,
        "mamba_rms_norm": True,
        "mamba_norm_before_gate": False,
    },
    "nemotron_h": {
        "layers_block_type": ["linear_attention"],
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "n_groups": 2,
        "ssm_state_size": 8,
        "chunk_size": 16,
    },
}


def reference_mixer(family: str, config: dict[str, Any]) -> Any:
    """Return the reference's mixer with random weights, time steps about 0.7."""
    module = import_module(f"transformers.models.{family}.modeling_{family}")
    prefix = {"falcon_h1": "FalconH1", "nemotron_h": "NemotronH"}[family]
    fields = {"hidden_size": WIDTH, "vocab_size": 8, **CONFIGS[family], **config}
    torch.manual_seed(0)
    model = getattr(module, f"{prefix}Model")(getattr(module, f"{prefix}Config")(**fields))
    mixer = model.layers[0].mamba if family == "falcon_h1" else model.layers[0].mixer
    with torch.no_grad():
        for name, parameter in mixer.named_parameters():
            if name == "A_log":
                parameter.uniform_(-4, -1)
            elif parameter.dim() == 1:
                parameter.normal_(0.2, 0.5)
            else:
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
    return mixer.eval()


def our_mixer(reference: Any, fields: dict[str, Any]) -> SequenceMixer:
    """Return our mixer with the reference's weights."""
    place = MixerPlace(WIDTH, NormSettings(eps=1e-5))
    mixer = mixer_class("mamba2")(settings_class("mamba2")(**OURS, **fields), place)
    weights = dict(reference.named_parameters())
    with torch.no_grad():
        for name, parameter in mixer.named_parameters():
            part, dot, kind = name.partition(".")
            parameter.copy_(weights.pop(NAMES.get(part, part) + dot + kind).view_as(parameter))
    assert not weights
    return mixer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("option", list(OPTIONS))
def test_outputs_and_gradients_are_the_references(option: str) -> None:
    family, config, fields = OPTIONS[option]
    reference = reference_mixer(family, config)
    mixer = our_mixer(reference, fields)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(2, 67, WIDTH, generator=generator)
    found = []
    for network in (mixer, reference):
        x = torch.randn(2, 67, WIDTH, generator=generator.manual_seed(2)).requires_grad_()
        out = network(x)
        (out * weights).sum().backward()
        found.append({"out": out, "dx": x.grad, "dA_log": network.A_log.grad})
    for name, wanted in found[1].items():
        assert_close(name, found[0][name], wanted, 1e-5)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("option", ["limits", "lower_limit"])
def test_limits_of_the_time_step_hold_in_decode_too(option: str) -> None:
    family, config, fields = OPTIONS[option]
    mixer = our_mixer(reference := reference_mixer(family, config), fields)
    x = torch.randn(2, 20, WIDTH, generator=torch.Generator().manual_seed(2))
    cache = mixer.new_cache(0)
    alone = torch.cat([mixer(x[:, t : t + 1], cache, t) for t in range(20)], dim=1)
    wanted = reference(x)
    assert_close("out", alone, wanted, 1e-5)
    # They matter here: without them the outputs are others.
    without = our_mixer(reference, {})(x)
    assert (without - wanted).abs().max() > 0.01 * wanted.abs().max()


def test_published_flops_per_token() -> None:
    """H (4 P S + C P) + G C S per token, and 4 H P S for a single one; Nemotron-H-8B's sizes."""
    settings = settings_class("mamba2")(
        num_heads=128, head_dim=64, state_size=128, num_groups=8, chunk_size=128
    )
    cost = mixer_cost(settings, 4096)
    conv = 2 * 4 * (128 * 64 + 2 * 8 * 128)
    published = FlopConventions(linear_attention="published")
    wanted = 128 * (4 * 64 * 128 + 128 * 64) + 8 * 128 * 128
    assert cost.core_flops(prefill(4096), published) == 4096 * (wanted + conv)
    assert cost.core_flops(decode(4096), published) == 128 * 4 * 64 * 128 + conv
    # The whole blocks that are executed are twice the causal halves.
    executed = cost.core_flops(prefill(4096), FlopConventions())
    assert executed == 4096 * (wanted + 128 * 128 * 64 + 8 * 128 * 128 + conv)
    cache = cost.cache(Dtypes())
    assert (cache.recurrent_bytes, cache.conv_bytes) == (4194304, 61440)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_groups": 3}, "num_heads=4: must be a multiple of num_groups=3"),
        ({"norm_groups": 3}, "norm_groups=3: must divide num_heads * head_dim = 64"),
        ({"norm": "layer"}, "norm=layer: no such choice (known: after_gate, before_gate, none)"),
        ({"dt_min": -0.1}, "dt_min=-0.1: must be at least 0"),
        ({"dt_max": 0.0}, "dt_max=0.0: must be above dt_min=0.0, or null"),
        ({"b_scale": 0.0}, "b_scale=0.0: must be above 0"),
    ],
)
def test_settings_that_make_no_mixer(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        settings_class("mamba2")(**{**OURS, **fields})
    assert str(error.value) == message
