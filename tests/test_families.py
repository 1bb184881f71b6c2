"""Published configs read as the specs they are; what might change the computation is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hybridsim.cost.model import ModelCosts
from hybridsim.errors import SpecError
from hybridsim.families import FAMILIES, family
from hybridsim.families.convert import (
    EXECUTION,
    export_config,
    import_config,
    model_differences,
    spec_text,
)
from hybridsim.graph import build_graph
from hybridsim.spec.load import load_spec, spec_names

CONFIGS = Path(__file__).parent / "facts" / "configs"
TOTALS: dict[str, Any] = {
    name: entry
    for name, entry in json.loads((CONFIGS / "totals.json").read_text())["totals"].items()
    if entry["model_type"] in FAMILIES
}

# shipped spec -> the published config it was written from by hand
BY_HAND = {
    "deepseek_v3": "deepseek_v3",
    "deepseek_v32": "deepseek_v32",
    "kimi_k2": "kimi_k2",
    "kimi_linear": "kimi_linear",
    "llama31_8b": "llama",
    "minimax_m1": "minimax_m1",
    "minimax_m2": "minimax_m2",
    "minimax_m3": "minimax_m3",
    "qwen3_1_7b": "qwen3_1_7b",
    "qwen3_235b": "qwen3_moe",
    "qwen3_32b": "qwen3_32b",
    "qwen3_5_35b": "qwen3_5_moe",
    "qwen3_next": "qwen3_next",
}


def config_of(name: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text())
    return fields


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_a_published_config_gives_the_total_of_the_reference(name: str) -> None:
    """Counted by transformers on the meta device from the same file."""
    spec = import_config(CONFIGS / f"{name}.json").spec
    assert ModelCosts.of(build_graph(spec)).parameters.total == TOTALS[name]["total"]


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_an_unknown_field_is_named(name: str) -> None:
    config = config_of(name)
    inner = config.get("text_config", config)
    inner["attention_twist"] = 3
    with pytest.raises(SpecError, match=r"config\.attention_twist=3: not a known field"):
        import_config(config)


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_a_missing_width_is_named(name: str) -> None:
    config = config_of(name)
    del config.get("text_config", config)["hidden_size"]
    with pytest.raises(SpecError, match=r"config\.hidden_size: missing"):
        import_config(config)


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_import_export_import_is_lossless(name: str) -> None:
    first = import_config(CONFIGS / f"{name}.json")
    exported = export_config(first.spec, first.family.model_type)
    assert not exported.notes
    assert model_differences(first.spec, import_config(exported.config).spec) == {}


@pytest.mark.parametrize("name", sorted(TOTALS))
def test_a_written_spec_file_is_the_spec(name: str, tmp_path: Path) -> None:
    imported = import_config(CONFIGS / f"{name}.json", name="written")
    file = tmp_path / "written.yaml"
    file.write_text(spec_text(imported, f"{name}/config.json"))
    spec = load_spec(file)
    assert model_differences(imported.spec, spec) == {}
    assert len(spec.layer_pattern) <= max(40, spec.num_layers // 2)
    # Every figure says where it is from.
    for line in file.read_text().splitlines():
        value, _, source = line.partition(":")[2].partition("#")
        if any(char.isdigit() for char in value) and not value.strip().startswith('"'):
            assert source.strip(), line


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_the_shipped_spec_is_what_its_config_says(name: str) -> None:
    shipped, read = load_spec(name), import_config(CONFIGS / f"{BY_HAND[name]}.json").spec
    different = model_differences(shipped, read)
    # The context that the authors claim is not always what positions allow.
    assert set(different) <= {"spec.native_context"}


@pytest.mark.parametrize("name", spec_names())
def test_shipped_specs_export_and_read_again(name: str) -> None:
    spec = load_spec(name)
    if name in NOT_IN_THE_REFERENCE:
        with pytest.raises(SpecError, match="no family"):
            export_config(spec)
        return
    exported = export_config(spec)
    again = import_config(exported.config, spec.name).spec
    left = {key.rpartition(".")[2] for key in model_differences(spec, again)}
    assert left <= set(EXECUTION)
    assert len(exported.notes) == len(model_differences(spec, again))


# Remote code only, or ancestors that no class of the reference has.
NOT_IN_THE_REFERENCE = {
    "deltanet_340m",
    "deltanet_tiny",
    "gla_340m",
    "gla_tiny",
    "linear_attention_tiny",
    "ring_flash_linear",
    "ring_mini_linear",
    "ring_mini_linear_tiny",
}


@pytest.mark.parametrize(
    ("name", "model_type"),
    [("qwen3_next", "qwen3_next"), ("qwen3_5_35b", "qwen3_5_moe_text"), ("kimi_k2", "deepseek_v3")],
)
def test_of_families_that_can_say_the_same_the_specs_own_is_written(
    name: str, model_type: str
) -> None:
    assert export_config(load_spec(name)).family.model_type == model_type


def test_every_family_of_the_table_has_a_published_config() -> None:
    published = {family(entry["model_type"]).model_type for entry in TOTALS.values()}
    assert published == {family(name).model_type for name in FAMILIES}


def test_what_a_family_cannot_express_is_named() -> None:
    spec = load_spec("qwen3_next", ["mixers.F.window=1024"])
    with pytest.raises(SpecError, match=r"spec\.mixers\.F\.window=1024 would read as None"):
        export_config(spec, "qwen3_next")
    mixed = load_spec(
        "qwen3_next",
        [
            "+mixers.K={kind: kda, num_heads: 2, head_dim: 16, gate_rank: 8}",
            "layer_pattern=(LLLK)*",
        ],
    )
    with pytest.raises(SpecError, match="no family of the reference has all of"):
        export_config(mixed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen9"}, r"config\.model_type=qwen9: no such family"),
        ({"hidden_act": "gelu"}, r"config\.hidden_act=gelu: only silu can be read"),
        ({"hidden_size": "wide"}, r"config\.hidden_size=wide: expected an integer"),
        ({"attention_dropout": 0.1}, r"config\.attention_dropout=0\.1: only 0"),
        ({"num_hidden_layers": 47, "layer_types": ["full_attention"]}, r"1 entries: num_hidden_"),
        ({"layer_types": ["mystery"] * 48}, r"config\.layer_types=mystery: only"),
        ({"rope_scaling": {"rope_type": "spiral"}}, r"rope_scaling\.rope_type=spiral: only"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "twist": 1,
                           "original_max_position_embeddings": 4096}},
         r"config\.rope_scaling\.twist=1: not a known field"),
    ],
)  # fmt: skip
def test_edited_configs_fail_closed(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        import_config({**config_of("qwen3_next"), **change})
    assert "\n" not in str(raised.value)
