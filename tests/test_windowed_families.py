"""Families with windowed and full layers: published configs, older forms, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import assert_close
from conftest import FACTS
from parity_cases import CASES, VOCAB

from hybridsim import load_spec
from hybridsim.checkpoint.read import load_pretrained
from hybridsim.errors import SpecError
from hybridsim.families.convert import export_config, import_config, model_differences

PRESETS = {"gemma3": "gemma3_27b", "gpt_oss": "gpt_oss_120b"}

# The reference warns about what is on purpose here.
pytestmark = pytest.mark.filterwarnings("ignore")


def published(name: str, **changes: Any) -> dict[str, Any]:
    return json.loads((FACTS / "configs" / f"{name}.json").read_text()) | changes


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_the_published_configs(name: str) -> None:
    spec = load_spec(PRESETS[name])
    assert model_differences(spec, import_config(published(name)).spec) == {}
    exported = export_config(spec)
    assert exported.config["model_type"] == published(name)["model_type"]
    assert model_differences(spec, import_config(exported.config).spec) == {}


def test_older_gemma_configs_name_bases_and_period_apart() -> None:
    spec = import_config(
        published("gemma3", rope_theta=5e5, rope_local_base_freq=2e4, sliding_window_pattern=3)
    ).spec
    assert spec.layer_pattern == "(SSF)*20 SS"
    assert (spec.mixers["F"].rope.theta, spec.mixers["S"].rope.theta) == (5e5, 2e4)
    assert (spec.mixers["F"].rope.factor, spec.mixers["S"].rope.scaling) == (8.0, "none")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gemma3", {"final_logit_softcapping": 30.0}, r"final_logit_softcapping=30\.0: only None"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, r"attn_logit_softcapping=50\.0: only None"),
        ("gemma3", {"use_bidirectional_attention": True}, r"attention=True: only False"),
        ("gemma3", {"layer_types": ["full_attention"] * 3}, r"3 entries: num_hidden_layers is 62"),
        ("gemma3", {"hidden_activation": "relu"}, r"only gelu_pytorch_tanh, gelu, silu can"),
        ("gpt_oss", {"swiglu_limit": 8.0}, r"config\.swiglu_limit=8\.0: only 7\.0 can be read"),
        ("gpt_oss", {"experts_per_token": 3}, r"experts_per_token=3: contradicts"),
        ("gpt_oss", {"sliding_windows": 3}, r"sliding_windows=3: not a known field; did you mean"),
    ],
)
def test_what_would_be_another_computation_is_refused(
    name: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        import_config(published(name, **changes))


def test_what_a_family_cannot_say_is_not_written() -> None:
    spec = load_spec("gpt_oss_120b")
    narrow, other = (replace(spec.mixers["S"], window=window) for window in (64, 128))
    two = replace(spec, mixers=spec.mixers | {"S": narrow, "T": other}, layer_pattern="(STF)*12")
    with pytest.raises(SpecError, match="one windowed mixer of kind attention, the spec uses 2"):
        export_config(two, "gpt_oss")
    no_sinks = replace(spec.mixers["F"], sinks=False)
    with pytest.raises(SpecError, match=r"mixers\.F\.sinks=False would read as True"):
        export_config(replace(spec, mixers=spec.mixers | {"F": no_sinks}), "gpt_oss")


def test_layers_of_one_kind_only() -> None:
    for letter, key in (("S", "sliding_attention"), ("F", "full_attention")):
        spec = replace(load_spec("gemma3_27b"), layer_pattern=f"({letter})*62")
        exported = export_config(spec)
        assert set(exported.config["layer_types"]) == {key}
        assert model_differences(spec, import_config(exported.config).spec) == {}


def test_the_embeddings_factor_is_rounded_as_the_references(tmp_path: Path) -> None:
    reference = CASES["gemma3_text"].build_reference().bfloat16()
    reference.save_pretrained(tmp_path)
    model = load_pretrained(tmp_path, dtype="bf16")
    first: list[torch.Tensor] = []
    model.layers[0].register_forward_pre_hook(lambda _, inputs: first.append(inputs[0]))
    tokens = torch.arange(2, VOCAB)[None]
    with torch.no_grad():
        model(tokens)
        wanted = reference.model.embed_tokens(tokens)
    assert (first[0] == wanted).all()
    exact = model.embed(tokens).float() * model.spec.embedding_scale
    assert not (exact.bfloat16() == wanted).all()  # so the test can fail


def test_the_text_part_of_a_checkpoint_with_vision(tmp_path: Path) -> None:
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    text = CASES["gemma3_text"].build_reference()
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    vision |= {"num_attention_heads": 2, "image_size": 28, "patch_size": 14}
    whole = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text.config, vision_config=vision, mm_tokens_per_image=1)
    )
    whole.model.language_model.load_state_dict(text.model.state_dict())
    whole.save_pretrained(tmp_path)
    tokens = torch.randint(2, VOCAB, (2, 40))
    with torch.no_grad():
        wanted = text(tokens, use_cache=False).logits
        assert_close("logits", load_pretrained(tmp_path)(tokens), wanted, 1e-5)
