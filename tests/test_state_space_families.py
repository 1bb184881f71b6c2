"""Families with Mamba-2: published configs, what their parity cases leave out, and refusals."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import assert_close
from parity_cases import CASES, VOCAB

from hybridsim import load_spec
from hybridsim.cost.model import ModelCosts
from hybridsim.errors import SpecError
from hybridsim.families.convert import export_config, import_config, model_differences
from hybridsim.graph import build_graph

CONFIGS = Path(__file__).parent / "facts" / "configs"
PUBLISHED = ("bamba", "falcon_h1", "granitemoehybrid", "nemotron_h", "nemotron_h_56b")

# name -> a parity case, and what its configuration has instead
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "granite_dense_unrotated": (
        "granitemoehybrid",
        {"num_local_experts": 0, "position_embedding_type": None, "tie_word_embeddings": True},
    ),
    "nemotron_wide_experts": ("nemotron_h", {"moe_latent_size": None, "norm_topk_prob": False}),
    "nemotron_biases": ("nemotron_h", {"use_bias": True, "use_conv_bias": False}),
    "falcon_norm_first": ("falcon_h1", {"mamba_norm_before_gate": True, "attention_bias": True}),
    "falcon_no_norm": ("falcon_h1", {"mamba_rms_norm": False, "mamba_proj_bias": True}),
    "bamba_one_group": ("bamba", {"mamba_n_groups": 1, "mamba_conv_bias": False}),
    "bamba_biases": ("bamba", {"mamba_proj_bias": True}),
}


def published(name: str) -> dict[str, Any]:
    return json.loads((CONFIGS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_have_the_parameters_that_the_reference_builds(name: str) -> None:
    totals = json.loads((CONFIGS / "totals.json").read_text(encoding="utf-8"))["totals"]
    spec = import_config(CONFIGS / f"{name}.json").spec
    assert ModelCosts.of(build_graph(spec)).parameters.total == totals[name]["total"]
    assert export_config(spec).config["model_type"] == published(name)["model_type"]


@pytest.mark.parametrize(
    ("name", "spec"), [("nemotron_h", "nemotron_h_8b"), ("falcon_h1", "falcon_h1_34b")]
)
def test_shipped_specs_are_the_published_configs(name: str, spec: str) -> None:
    assert model_differences(load_spec(spec), import_config(published(name)).spec) == {}


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("variant", list(VARIANTS))
def test_variants_compute_what_the_reference_does(variant: str, tmp_path: Path) -> None:
    name, changes = VARIANTS[variant]
    case = replace(CASES[name], config=CASES[name].config | changes)
    reference = case.build_reference()
    reference.save_pretrained(tmp_path)
    model = case.load(tmp_path)
    tokens = torch.randint(2, VOCAB, (2, 40), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache()
    parts = [model(tokens[:, :21], cache)]
    parts += [model(tokens[:, t : t + 1], cache) for t in range(21, 40)]
    wanted = reference(tokens, use_cache=False).logits
    assert_close("logits", torch.cat(parts, dim=1), wanted, 1e-5)
    assert_close("logits", model(tokens), wanted, 1e-5)


@pytest.mark.parametrize(
    "limits", [[0.0, float("inf")], [0.0, {"__float__": "Infinity"}], (0.0, float("inf"))]
)
def test_no_limit_of_the_time_step_is_written_in_several_ways(limits: Any) -> None:
    mixer = import_config(published("bamba") | {"time_step_limit": limits}).spec.mixers["M"]
    assert (mixer.dt_min, mixer.dt_max) == (0.0, None)


def test_nemotron_layers_are_a_pattern_or_types() -> None:
    pattern = published("nemotron_h")
    types = {"M": "mamba", "*": "attention", "-": "mlp"}
    listed = {key: value for key, value in pattern.items() if key != "hybrid_override_pattern"}
    listed["layers_block_type"] = [types[one] for one in pattern["hybrid_override_pattern"]]
    assert import_config(listed).spec == import_config(pattern).spec


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("bamba", {"mamba_d_head": 32}, r"config\.mamba_d_head=32: times mamba_n_heads=128 must"),
        (
            "falcon_h1",
            {"ssm_multipliers": [1.0]},
            r"config\.ssm_multipliers=.* must have 5 entries",
        ),
        ("falcon_h1", {"mamba_use_mlp": False}, r"config\.mamba_use_mlp=False: only True"),
        ("nemotron_h", {"mlp_bias": True}, r"config\.mlp_bias=True: only False can be read"),
        ("nemotron_h", {"hybrid_override_pattern": "M-X"}, r"hybrid_override_pattern"),
        ("granitemoehybrid", {"position_embedding_type": "alibi"}, r"only None, nope, rope can"),
        ("granitemoehybrid", {"mamba_new_option": 1}, r"config\.mamba_new_option=1: not a known"),
    ],
)
def test_what_would_compute_something_else_is_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        import_config(published(name) | changes)


def test_what_a_family_cannot_say_is_not_exported() -> None:
    spec = load_spec("nemotron_h_8b")
    limited = replace(spec.mixers["M"], dt_max=0.5)
    with pytest.raises(SpecError, match=r"dt_max=0\.5 would read as None"):
        export_config(replace(spec, mixers=spec.mixers | {"M": limited}), "nemotron_h")
    with pytest.raises(SpecError, match=r"layer 1 must be one sublayer of its own"):
        export_config(load_spec("falcon_h1_34b"), "nemotron_h")
    with pytest.raises(SpecError, match=r"layer 1 must have mamba2 and attention side by side"):
        export_config(spec, "falcon_h1")


def test_factors_that_granite_divides_by_survive() -> None:
    for divisor in (0.3, 3, 16, 49.0, 7.3):
        spec = import_config(published("granitemoehybrid") | {"logits_scaling": divisor}).spec
        written = export_config(spec).config
        assert written["logits_scaling"] == pytest.approx(divisor, rel=1e-15)
        assert import_config(written).spec.logit_scale == spec.logit_scale == 1 / divisor
