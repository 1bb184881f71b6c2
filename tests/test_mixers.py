"""Every mixer of the table: causal, the same in one pass and step by step, costed as it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from cases import ALL_CASES, MIXER_CASES
from closeness import assert_close

from hybridsim.components import NormSettings
from hybridsim.dtypes import Dtypes
from hybridsim.errors import SpecError
from hybridsim.mixers import MIXERS, MixerSettings, mixer_class, mixer_cost
from hybridsim.model.build import TORCH_DTYPES, initialize
from hybridsim.nn.mixer import MixerPlace, SequenceMixer

WIDTH = 32
CASES = pytest.mark.parametrize(
    "settings", [s for _, s in ALL_CASES], ids=[n for n, _ in ALL_CASES]
)


def build(settings: MixerSettings, dtype: torch.dtype = torch.float64) -> SequenceMixer:
    place = MixerPlace(WIDTH, NormSettings(), layer=1, num_layers=4)
    mixer = mixer_class(settings.kind)(settings, place)
    initialize(mixer, seed=0)
    for name, parameter in mixer.named_parameters():
        if name.endswith((".bias", "sinks")):  # zero until trained
            torch.nn.init.normal_(parameter, std=0.5)
    return mixer.to(dtype)


def test_every_mixer_has_cases() -> None:
    assert set(MIXER_CASES) == set(MIXERS)


@CASES
def test_later_tokens_change_nothing_before_them(settings: MixerSettings) -> None:
    mixer, x = build(settings), torch.randn(2, 63, WIDTH, dtype=torch.float64)
    changed = x.clone()
    changed[:, 40:] = torch.randn(2, 23, WIDTH, dtype=torch.float64)
    before, after = mixer(x), mixer(changed)
    torch.testing.assert_close(before[:, :40], after[:, :40], rtol=0, atol=1e-10)
    assert not torch.allclose(before[:, 40:], after[:, 40:])


@CASES
@pytest.mark.parametrize("split", [0, 1, 17, 62])
def test_prefill_and_decode_equal_one_pass(settings: MixerSettings, split: int) -> None:
    mixer, x = build(settings), torch.randn(2, 63, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        wanted = mixer(x)
        cache, outputs = mixer.new_cache(0), []
        if split:
            outputs.append(mixer(x[:, :split], cache, 0))
        for t in range(split, 63):
            outputs.append(mixer(x[:, t : t + 1], cache, t))
    assert_close("out", torch.cat(outputs, dim=1), wanted, 1e-9)


@CASES
def test_passes_of_several_tokens_continue_each_other(settings: MixerSettings) -> None:
    mixer, x = build(settings), torch.randn(1, 1000, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        wanted = mixer(x)
        cache, outputs, at = mixer.new_cache(100), [], 0
        for size in (3, 64, 333, 1, 599):
            outputs.append(mixer(x[:, at : at + size], cache, at))
            at += size
    assert_close("out", torch.cat(outputs, dim=1), wanted, 1e-9)


@CASES
def test_gradients_reach_every_parameter(settings: MixerSettings) -> None:
    mixer, x = build(settings), torch.randn(2, 63, WIDTH, dtype=torch.float64)
    mixer(x).square().sum().backward()
    for name, parameter in mixer.named_parameters():
        if name.startswith("indexer."):
            continue  # the choice of tokens has no gradient
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@CASES
def test_parameters_are_those_of_the_closed_form(settings: MixerSettings) -> None:
    mixer, cost = build(settings), mixer_cost(settings, WIDTH)
    built: dict[str, int] = {}
    for name, parameter in mixer.named_parameters():
        stem = name.removesuffix(".weight").removesuffix(".bias")
        part = name if name.endswith("_proj.bias") else stem
        built[part] = built.get(part, 0) + parameter.numel()
    wanted = {name: i * o for name, (i, o) in cost.linears.items()} | cost.vectors
    assert built == wanted
    assert sum(built.values()) == cost.parameters


@CASES
@pytest.mark.parametrize("tokens", [1, 5, 40])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_cache_bytes_are_those_of_the_closed_form(
    settings: MixerSettings, tokens: int, dtype: str
) -> None:
    mixer = build(settings, TORCH_DTYPES[dtype])
    cache = mixer.new_cache(0)
    with torch.no_grad():
        mixer(torch.randn(3, tokens, WIDTH, dtype=TORCH_DTYPES[dtype]), cache, 0)
    shape = mixer_cost(settings, WIDTH).cache(Dtypes(kv=dtype, conv_state=dtype))
    assert cache.nbytes() == 3 * (shape.kv_bytes(tokens) + shape.state_bytes)


@pytest.mark.parametrize("option", [{"window": 8}, {"sinks": True}])
def test_block_sparse_attention_has_neither_window_nor_sinks(option: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match=f"{next(iter(option))}=.*block-sparse attention has no"):
        replace(MIXER_CASES["block_sparse"]["blocks"], **option)


def test_a_windowed_cache_stops_growing() -> None:
    settings = MIXER_CASES["attention"]["window"]
    mixer = build(settings, torch.float32)
    cache, sizes = mixer.new_cache(0), []
    with torch.no_grad():
        for t in range(25):
            mixer(torch.randn(1, 1, WIDTH), cache, t)
            sizes.append(cache.nbytes())
    assert sizes[9] == sizes[-1]
    assert sizes[8] < sizes[9]
