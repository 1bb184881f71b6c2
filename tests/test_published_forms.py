"""Checkpoints and configs as published, where the reference writes them differently itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import assert_close
from parity_cases import CASES, COMMON, VOCAB
from safetensors.torch import load_file, save_file
from torch import Tensor

from hybridsim.checkpoint.read import load_pretrained
from hybridsim.errors import SpecError
from hybridsim.families.convert import export_config, import_config
from hybridsim.model.model import HybridLM

CONFIGS = Path(__file__).parent / "facts" / "configs"
Tensors = dict[str, Tensor]

# The reference warns about what is on purpose here.
pytestmark = pytest.mark.filterwarnings("ignore")


def republished(
    name: str,
    folder: Path,
    change: Callable[[Tensors, dict[str, Any]], tuple[Tensors, dict[str, Any]]],
) -> tuple[HybridLM, HybridLM]:
    """Return our models of what the reference saved, and of the same as it is published."""
    reference = CASES[name].build_reference()
    saved, published = folder / "saved", folder / "published"
    reference.save_pretrained(saved)
    published.mkdir()
    tensors = load_file(saved / "model.safetensors")
    config = json.loads((saved / "config.json").read_text())
    tensors, config = change(tensors, config)
    save_file({n: t.contiguous() for n, t in tensors.items()}, published / "model.safetensors")
    (published / "config.json").write_text(json.dumps(config))
    return load_pretrained(saved), load_pretrained(published)


def assert_same(models: tuple[HybridLM, HybridLM]) -> None:
    left, right = (dict(model.state_dict()) for model in models)
    assert set(left) == set(right)
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


def test_qwen3_5_is_the_text_part_of_a_larger_checkpoint(tmp_path: Path) -> None:
    """A prefix, stacked experts, a nested config, a vision tower and drafting layers beside."""

    def publish(tensors: Tensors, config: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
        renamed: Tensors = {}
        for layer in range(4):
            mlp = f"model.layers.{layer}.mlp.experts"
            gate, up, down = (
                torch.stack([tensors.pop(f"{mlp}.{e}.{part}_proj.weight") for e in range(6)])
                for part in ("gate", "up", "down")
            )
            renamed[f"{mlp}.gate_up_proj"] = torch.cat((gate, up), dim=1)
            renamed[f"{mlp}.down_proj"] = down
        renamed |= tensors
        prefixed = {
            name.replace("model.", "model.language_model.", 1): t for name, t in renamed.items()
        }
        beside = {"model.visual.patch_embed.weight": torch.ones(3), "mtp.fc.weight": torch.ones(3)}
        nested = {
            "model_type": "qwen3_5_moe",
            "architectures": ["Qwen3_5MoeForConditionalGeneration"],
            "text_config": config,
            "vision_config": {"depth": 2},
            "tie_word_embeddings": config.pop("tie_word_embeddings"),
        }
        return prefixed | beside, nested

    assert_same(republished("qwen3_5_moe_text", tmp_path, publish))


def test_olmo_hybrid_has_its_own_names_and_convolutions_of_their_widths(tmp_path: Path) -> None:
    """The reference saves the vendor's names in all layers, and cuts convolutions into thirds."""

    def publish(tensors: Tensors, config: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
        for layer in (0, 2):
            stem = f"model.layers.{layer}.linear_attn"
            parts = [f"{stem}.{part}_conv1d.weight" for part in "qkv"]
            widths = [tensors[f"{stem}.{part}_proj.weight"].shape[0] for part in "qkv"]
            assert [tensors[part].shape[0] for part in parts] != widths
            joined = torch.cat([tensors[part] for part in parts])
            tensors |= dict(zip(parts, joined.split(widths), strict=True))
        for layer in (1, 3):
            old = f"model.layers.{layer}.feedforward_layer_norm.weight"
            new = f"model.layers.{layer}.post_attention_layernorm.weight"
            tensors[new] = tensors.pop(old)
        return tensors, config | {"rope_parameters": None, "rope_theta": None}

    assert_same(republished("olmo_hybrid", tmp_path, publish))


def test_ling_names_the_output_of_its_linear_layers_apart(tmp_path: Path) -> None:
    """The words of the published config too, and a drafting layer after the last."""

    def publish(tensors: Tensors, config: dict[str, Any]) -> tuple[Tensors, dict[str, Any]]:
        for layer in range(3):
            stem = f"model.layers.{layer}.attention"
            tensors[f"{stem}.o_proj.weight"] = tensors.pop(f"{stem}.dense.weight")
        tensors["model.layers.4.eh_proj.weight"] = torch.ones(3)
        published = json.loads((CONFIGS / "bailing_hybrid.json").read_text())
        words = {
            "num_experts_per_tok": config["num_experts_per_token"],
            "n_group": config["num_expert_group"],
            "norm_topk_prob": config["moe_renormalize"],
            "max_position_embeddings": config["model_max_length"],
            "moe_shared_expert_intermediate_size": config["moe_intermediate_size"],
            "head_dim": config["linear_head_dim"],
            "rotary_dim": config["qk_rope_head_dim"],
            **dict.fromkeys(
                ("expert_swiglu_limit_list", "share_expert_swiglu_limit_list"), [0] * 4
            ),
        }
        return tensors, {
            key: words.get(key, config.get(key, old)) for key, old in published.items()
        }

    assert_same(republished("bailing_hybrid", tmp_path, publish))


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "olmo_hybrid rotated": (
        "olmo_hybrid",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    ),
    "olmo_hybrid without negative eigenvalues": (
        "olmo_hybrid",
        {"linear_allow_neg_eigval": False},
    ),
    "bailing_hybrid without a bound": ("bailing_hybrid", {"kda_safe_gate": False}),
    "bailing_hybrid with two shared experts": ("bailing_hybrid", {"n_shared_experts": 2}),
    "glm_moe_dsa all full": ("glm_moe_dsa", {"indexer_types": None}),
    "glm_moe_dsa by period": (
        "glm_moe_dsa",
        {"indexer_types": None, "index_topk_freq": 3, "index_skip_topk_offset": 1},
    ),
    "qwen3_5 sections": (
        "qwen3_5_text",
        {
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            }
        },
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("name", list(VARIANTS))
def test_variants_of_a_family(name: str, tmp_path: Path) -> None:
    family, changes = VARIANTS[name]
    case = replace(CASES[family], config={**CASES[family].config, **changes})
    reference = case.build_reference()
    reference.save_pretrained(tmp_path)
    model = case.load(tmp_path)
    tokens = torch.randint(2, VOCAB, (2, 67), generator=torch.Generator().manual_seed(0))
    wanted = reference(tokens, use_cache=False).logits
    assert_close("logits", model(tokens), wanted, 1e-5)
    exported = export_config(model.spec, family)
    rebuilt = type(reference)(type(reference.config)(**exported.config)).eval()
    rebuilt.load_state_dict(reference.state_dict())
    assert_close("rebuilt", rebuilt(tokens, use_cache=False).logits, wanted, 1e-6)


@pytest.mark.parametrize(
    "given", [{}, {"rope_theta": None}, {"rope_parameters": {"rope_theta": None}}], ids=str
)
def test_olmo_hybrid_rotates_where_the_class_does(given: dict[str, Any]) -> None:
    from transformers.models.olmo_hybrid.configuration_olmo_hybrid import OlmoHybridConfig

    published = json.loads((CONFIGS / "olmo_hybrid.json").read_text())
    del published["rope_parameters"]
    rope = import_config(published | given).spec.mixers["F"].rope
    wanted = OlmoHybridConfig(**published, **given).rope_parameters["rope_theta"]
    assert (None if rope is None else rope.theta) == wanted


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"index_topk_freq": 4, "index_skip_topk_offset": 3},
        {"index_topk_freq": 2},
        {"index_topk_pattern": "FSFFSSFSFS"},
        {"index_topk_pattern": "FSFFSSFSFS", "index_topk_freq": 3},
    ],
    ids=str,
)
def test_glm_shares_selections_where_the_class_says(given: dict[str, Any]) -> None:
    from transformers.models.glm_moe_dsa.configuration_glm_moe_dsa import GlmMoeDsaConfig

    sizes = {**COMMON, **CASES["glm_moe_dsa"].config, "num_hidden_layers": 10}
    del sizes["indexer_types"]
    wanted = GlmMoeDsaConfig(**sizes, **given).indexer_types
    published = {"model_type": "glm_moe_dsa", **sizes, "rms_norm_eps": 1e-5, "norm_topk_prob": True}
    spec = import_config(published | given).spec
    found = [spec.mixers[letter].indexer_type for letter in spec.layer_letters]
    assert found == wanted


def test_ling_clamps_its_last_layers() -> None:
    spec = import_config(CONFIGS / "bailing_hybrid.json").spec
    limits = [
        (ffn.activation_limit, getattr(ffn, "shared_activation_limit", None))
        for ffn in (spec.ffns[letter] for letter in spec.ffn_letters)
    ]
    assert limits[:34] == [(None, None)] * 34
    assert limits[34:] == [(None, 5.0)] + [(4.0, 5.0)] * 5 + [(4.0, 7.0)] * 2
    assert spec.layer_letters == "LLLLLF" * 7
    assert spec.mixers["F"].rope.rotary_dim is None  # partial_rotary_factor=0.5 is of a whole head


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"num_hidden_layers": 41},
            r"num_hidden_layers=41: must be a multiple of layer_group_size",
        ),
        ({"expert_swiglu_limit_list": [4]}, r"expert_swiglu_limit_list=1 entries: num_hidden"),
        ({"no_kda_lora": False}, r"no_kda_lora=False: only True can be read"),
        ({"use_mla_nope": True}, r"use_mla_nope=True: only False can be read"),
        (
            {"gated_attention_proj_granularity_type": "element_wise"},
            r"gated_attention_proj_granularity_type=element_wise: only head_wise",
        ),
    ],
)
def test_other_lings_are_refused(changes: dict[str, Any], message: str) -> None:
    published = json.loads((CONFIGS / "bailing_hybrid.json").read_text())
    with pytest.raises(SpecError, match=rf"config\.{message}"):
        import_config(published | changes)


def test_ling_tiny_projects_queries_through_a_bottleneck() -> None:
    """As published; the reference has no such form, so that it is not exported."""
    published = json.loads((CONFIGS / "bailing_hybrid.json").read_text())
    spec = import_config(published | {"q_lora_rank": 256}).spec
    assert spec.mixers["F"].q_lora_rank == 256
    with pytest.raises(SpecError, match=r"q_lora_rank=256: the reference projects queries"):
        export_config(spec, "bailing_hybrid")
