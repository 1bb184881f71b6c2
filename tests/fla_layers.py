"""Our mixers beside fla's layers with the same weights, and how far they differ.

fla's kernels need Triton and a GPU; nothing of it is imported before a case runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from fla_ops import BF16, FP32, error
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.kernels.choice import forcing
from hybridsim.mixers import MixerSettings, mixer_class, settings_class
from hybridsim.model.build import initialize
from hybridsim.nn.mixer import MixerPlace, SequenceMixer

DEVICE = "cuda"
WIDTH, TOKENS, SHORT, DECODED = 128, 200, 40, 6
EPS = 1e-6

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class LayerCase:
    """One of our mixers and the fla layer it follows.

    Attributes:
        settings: of ours.
        layer: the class in fla.layers.
        options: its arguments beside width and eps.
        weights: from our parameters to fla's, name by name; all of fla's must come out.
        chunk_dtypes: dtypes that the layer's chunked kernel takes.
    """

    settings: MixerSettings
    layer: str
    options: dict[str, Any]
    weights: Callable[[Weights, Any], Weights]
    chunk_dtypes: tuple[torch.dtype, ...] = (FP32, BF16)

    def build(self, dtype: torch.dtype) -> tuple[SequenceMixer, nn.Module]:
        """Return ours and theirs with the same random weights."""
        place = MixerPlace(WIDTH, NormSettings(eps=EPS))
        mine = mixer_class(self.settings.kind)(self.settings, place)
        initialize(mine, seed=0)
        generator = torch.Generator().manual_seed(1)
        for name, parameter in mine.named_parameters():
            # Ones and zeros, as norms and biases start, would let a missing one pass.
            if parameter.dim() == 1 and not name.endswith(("A_log", "dt_bias")):
                parameter.data += 0.3 * torch.randn(parameter.shape, generator=generator)
        made = getattr(import_module("fla.layers"), self.layer)
        layer = made(hidden_size=WIDTH, norm_eps=EPS, layer_idx=0, **self.options)
        layer.load_state_dict(self.weights(dict(mine.named_parameters()), self.settings))
        return mine.to(DEVICE, dtype).eval(), layer.to(DEVICE, dtype).eval()


def renamed(names: dict[str, str]) -> Callable[[Weights, Any], Weights]:
    """Return the map that gives weights other names; those not named keep theirs."""

    def weights(given: Weights, settings: Any) -> Weights:
        return {names.get(name, name): weight for name, weight in given.items()}

    return weights


def split_conv(names: dict[str, str]) -> Callable[[Weights, Any], Weights]:
    """Return the map that also gives q, k and v their own convolutions."""

    def weights(given: Weights, settings: Any) -> Weights:
        rest = {name: weight for name, weight in given.items() if name != "conv1d.weight"}
        widths = [given[f"{part}_proj.weight"].shape[0] for part in "qkv"]
        parts = given["conv1d.weight"].split(widths)
        convs = {f"{n}_conv1d.weight": part[:, None] for n, part in zip("qkv", parts, strict=True)}
        return renamed(names)(rest, settings) | convs

    return weights


def gated_deltanet(given: Weights, settings: Any) -> Weights:
    """Return fla's weights of Gated DeltaNet: ours are grouped by key head, as in Qwen3-Next."""
    s = settings
    group = s.num_v_heads // s.num_heads
    sizes = (s.head_k_dim, s.head_k_dim, group * s.head_v_dim, group * s.head_v_dim)
    heads = given["in_proj_qkvz.weight"].unflatten(0, (s.num_heads, -1)).split(sizes, dim=1)
    q, k, v, z = (part.flatten(0, 1) for part in heads)
    b, a = given["in_proj_ba.weight"].unflatten(0, (s.num_heads, 2, group)).unbind(1)
    projections = {"q": q, "k": k, "v": v, "g": z, "b": b.flatten(0, 1), "a": a.flatten(0, 1)}
    named = {f"{name}_proj.weight": weight for name, weight in projections.items()}
    rest = {name: weight for name, weight in given.items() if not name.startswith("in_proj")}
    return split_conv({})(named | rest, settings)


def kda(given: Weights, settings: Any) -> Weights:
    """Return fla's weights of Kimi Delta Attention; its gate has a bias, ours none."""
    names = {
        f"{gate}_{half}_proj.weight": f"{gate}_proj.{index}.weight"
        for gate in "fg"
        for index, half in enumerate("ab")
    }
    bias = torch.zeros(settings.inner_dim)
    return split_conv(names)(given, settings) | {"g_proj.1.bias": bias}


def mamba2(given: Weights, settings: Any) -> Weights:
    """Return fla's weights of Mamba-2."""
    names = {"o_norm.weight": "norm.weight", "o_proj.weight": "out_proj.weight"}
    conv = given["conv1d.weight"][:, None]
    return renamed(names)(given | {"conv1d.weight": conv}, settings)


def _settings(kind: str, **fields: Any) -> MixerSettings:
    return settings_class(kind)(**fields)


HEADS = {"num_heads": 4, "head_k_dim": 32, "head_v_dim": 32}
GLA_NAMES = {
    "gk_a_proj.weight": "gk_proj.0.weight",
    "gk_b_proj.weight": "gk_proj.1.weight",
    "gk_b_proj.bias": "gk_proj.1.bias",
}

LAYERS: dict[str, LayerCase] = {
    "linear_attention": LayerCase(
        _settings("linear_attention", **HEADS, normalize=False, output_norm=True),
        "LinearAttention",
        {"num_heads": 4, "feature_map": "elu"},
        renamed({"o_norm.weight": "norm.weight"}),
    ),
    "linear_attention, normalised": LayerCase(
        _settings("linear_attention", **HEADS),
        "LinearAttention",
        {
            "num_heads": 4,
            "feature_map": "elu",
            "do_feature_map_norm": True,
            "output_norm": "identity",
        },
        renamed({}),
    ),
    "gla": LayerCase(
        _settings("gla", num_heads=2, head_k_dim=32, head_v_dim=64),
        "GatedLinearAttention",
        {"num_heads": 2, "expand_k": 0.5},
        renamed({**GLA_NAMES, "o_norm.weight": "g_norm_swish_gate.weight"}),
    ),
    "gla, convolution": LayerCase(
        _settings("gla", **HEADS, conv_size=4, output_gate=False, gate_logit_normalizer=4),
        "GatedLinearAttention",
        {
            "num_heads": 4,
            "expand_k": 1.0,
            "use_short_conv": True,
            "use_output_gate": False,
            "gate_logit_normalizer": 4,
        },
        split_conv({**GLA_NAMES, "o_norm.weight": "g_norm.weight"}),
    ),
    "deltanet": LayerCase(
        _settings("deltanet", **HEADS),
        "DeltaNet",
        {"num_heads": 4},
        split_conv({}),
        chunk_dtypes=(BF16,),
    ),
    "deltanet, gated": LayerCase(
        _settings(
            "deltanet",
            **HEADS,
            qk_activation="elu1",
            qk_norm="sum",
            output_gate=True,
            negative_eigenvalues=True,
        ),
        "DeltaNet",
        {
            "num_heads": 4,
            "qk_activation": "elu",
            "qk_norm": "sum",
            "use_gate": True,
            "allow_neg_eigval": True,
        },
        split_conv({}),
        chunk_dtypes=(BF16,),
    ),
    "gated_deltanet": LayerCase(
        _settings("gated_deltanet", num_heads=2, num_v_heads=4, head_k_dim=32, head_v_dim=64),
        "GatedDeltaNet",
        {"num_heads": 2, "num_v_heads": 4, "head_dim": 32, "expand_v": 2},
        gated_deltanet,
    ),
    "kda": LayerCase(
        _settings("kda", num_heads=4, head_dim=32, gate_rank=32),
        "KimiDeltaAttention",
        {"num_heads": 4, "head_dim": 32},
        kda,
    ),
    "mamba2": LayerCase(
        _settings("mamba2", num_heads=8, head_dim=32, state_size=16),
        "Mamba2",
        {"num_heads": 8, "head_dim": 32, "state_size": 16},
        mamba2,
    ),
}


def layer_errors(
    name: str, dtype: torch.dtype, implementation: str = "reference"
) -> dict[str, float]:
    """Return how far our mixer's outputs are from the fla layer's of the same weights.

    Ours runs its own forms, or with `implementation` "fla" the kernels that it chooses on a GPU.
    `prefill` takes TOKENS at once, where fla runs its chunked kernel; `decode` takes SHORT tokens
    and then single ones, where it runs its recurrent kernel; `gradient` is the input's, float32.
    """
    case = LAYERS[name]
    mine, layer = case.build(dtype)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, TOKENS, WIDTH, generator=generator).to(DEVICE, dtype)
    with forcing(implementation):
        found = {"decode": error(*_decoded(mine, layer, x[:, : SHORT + DECODED]), dtype)}
        if dtype in case.chunk_dtypes:
            with torch.no_grad():
                found["prefill"] = error(mine(x), layer(x)[0], dtype)
            if dtype == FP32:
                weights = torch.randn(x.shape, generator=generator).to(DEVICE)
                found["gradient"] = error(*_gradients(mine, layer, x, weights), dtype)
    return found


@torch.no_grad()
def _decoded(mine: SequenceMixer, layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return our outputs and fla's, SHORT tokens at once and then one at a time."""
    cache, past = mine.new_cache(0), import_module("fla.models.utils").Cache()
    got, wanted = [], []
    for start, end in [(0, SHORT), *((t, t + 1) for t in range(SHORT, x.shape[1]))]:
        got.append(mine(x[:, start:end], cache, start))
        wanted.append(layer(x[:, start:end], past_key_values=past, use_cache=True)[0])
    return torch.cat(got, dim=1), torch.cat(wanted, dim=1)


def _gradients(
    mine: SequenceMixer, layer: Any, x: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the input's gradients of the same weighted sum of both outputs."""
    inputs = [x.clone().requires_grad_() for _ in range(2)]
    outputs = [mine(inputs[0]), layer(inputs[1])[0]]
    ours, theirs = (
        torch.autograd.grad((out * weights).sum(), leaf)[0]
        for out, leaf in zip(outputs, inputs, strict=True)
    )
    return ours, theirs
