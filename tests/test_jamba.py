"""Jamba's configurations, read as shipped or refused, and its FLOPs on the reference."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from facts.count_configs import FOLDER
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.jamba.modeling_jamba import JambaConfig, JambaForCausalLM

from hybridsim import load_spec
from hybridsim.conventions import FULL_SQUARE
from hybridsim.cost.model import ModelCosts
from hybridsim.errors import SpecError
from hybridsim.families.convert import export_config, import_config, model_differences
from hybridsim.graph import build_graph
from hybridsim.steps import prefill


def config(**changes: Any) -> dict[str, Any]:
    return json.loads((FOLDER / "jamba.json").read_text(encoding="utf-8")) | changes


@pytest.mark.parametrize("name", ["jamba", "jamba_1_5_mini"])
def test_published_configs_are_the_shipped_spec(name: str) -> None:
    read = import_config(FOLDER / f"{name}.json").spec
    assert model_differences(read, load_spec("jamba")) == {}


def test_automatic_rank_is_a_sixteenth_rounded_up() -> None:
    for width, rank in ((4096, 256), (4112, 257), (4100, 257)):
        changed = config(hidden_size=width, mamba_dt_rank="auto", head_dim=128)
        assert import_config(changed).spec.mixers["L"].dt_rank == rank


def test_one_expert_means_dense() -> None:
    spec = import_config(config(num_experts=1)).spec
    assert set(spec.ffn_letters) == {"D"}
    assert export_config(spec).config["num_experts"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attn_layer_offset": 8}, r"attn_layer_offset=8: must be below attn_layer_period=8"),
        ({"hidden_act": "gelu"}, r"hidden_act=gelu"),
        ({"sliding_window": 4096}, r"sliding_window=4096"),
        ({"mamba_headdim": 64}, r"mamba_headdim=64: not a known field"),
    ],
)
def test_other_computations_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        import_config(config(**change))


def test_layers_without_a_period_cannot_be_written() -> None:
    spec = replace(load_spec("jamba_tiny"), layer_pattern="LFLLFFLL")
    with pytest.raises(SpecError, match=r"spec\.layer_pattern=attention: must stand in every n-th"):
        export_config(spec, "jamba")
    spec = load_spec("jamba_tiny", ["mixers.L.inner_dim=100"])
    with pytest.raises(SpecError, match=r"mamba1\.inner_dim=100: must be a multiple of"):
        export_config(spec, "jamba")


@pytest.mark.filterwarnings("ignore")
def test_flops_are_those_torch_counts_on_the_reference() -> None:
    """Full squares; the reference reads the state by a product and convolves its padding too."""
    tokens, layers = 64, 8
    fields = JambaConfig(num_hidden_layers=layers, experts_implementation="batched_mm")
    with torch.device("meta"), torch.no_grad():
        model = JambaForCausalLM._from_config(fields, attn_implementation="eager")
        mask = torch.zeros(1, 1, tokens, tokens)
        counter = FlopCounterMode(display=False)
        with counter:
            model(
                torch.zeros(1, tokens, dtype=torch.long),
                attention_mask={"full_attention": mask, "linear_attention": None},
                use_cache=False,
            )
    spec = load_spec("jamba", [f"num_layers={layers}"])
    ours = ModelCosts.of(build_graph(spec)).forward_flops(prefill(tokens), FULL_SQUARE)
    mamba = spec.mixers["L"]
    read = 2 * mamba.inner_dim * mamba.state_size * tokens
    padding = 2 * mamba.inner_dim * mamba.conv_size * (mamba.conv_size - 1)
    difference = spec.layer_letters.count("L") * (read + padding)
    assert counter.get_total_flops() == ours + difference
