"""Jamba's configurations: read as shipped, and refused where they are something else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from facts.count_configs import FOLDER

from hybridsim import load_spec
from hybridsim.errors import SpecError
from hybridsim.families.convert import export_config, import_config, model_differences


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
