"""What other tools read of ours: configurations, pages, pandas, notebooks."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from hybridsim import load_records, load_spec, profile
from hybridsim.claims.claim import claims_document
from hybridsim.errors import HybridsimError, SpecError
from hybridsim.families.convert import export_config, import_config, model_differences
from hybridsim.families.vllm import vllm_config
from hybridsim.paths import CONF_DIR
from hybridsim.profiler.comparison import comparison_document
from hybridsim.report.summary_page import summary_page
from hybridsim.spec import source
from hybridsim.spec.load import spec_names

FACTS = Path(__file__).parent / "facts"
QUICK: dict[str, Any] = {"flops": {"count": False}, "contexts": [4096, 131072]}


def exported(name: str) -> tuple[Any, dict[str, Any]]:
    spec = load_spec(name)
    return spec, vllm_config(spec, export_config(spec))


# Without a class in transformers, or in vLLM as it was read.
NOT_SERVED = {
    *("deltanet_340m", "deltanet_tiny", "gla_340m", "gla_tiny", "linear_attention_tiny"),
    *("ring_flash_linear", "ring_mini_linear", "ring_mini_linear_tiny"),
    *("minimax_m3", "minimax_m3_tiny", "qwen3_5_35b"),
}


@pytest.mark.parametrize("name", spec_names())
def test_what_vllm_reads_is_the_model(name: str) -> None:
    if name in NOT_SERVED:
        with pytest.raises(SpecError, match=r"no family|vLLM serves no"):
            exported(name)
        return
    spec, config = exported(name)
    back = import_config(json.loads(json.dumps(config)), name).spec
    kept = {
        key
        for key in model_differences(spec, back)
        if key.rpartition(".")[2] not in ("chunk_size", "index_key_dtype")
    }
    assert kept == set()
    assert config["dtype"] == "bfloat16"


def test_kimi_linear_in_vllms_words_is_the_published_config() -> None:
    """Every field of vLLM's class that the published file has, but for ids of tokens."""
    published = json.loads((FACTS / "configs" / "kimi_linear.json").read_text())
    _, config = exported("kimi_linear")
    ours = {key: value for key, value in config.items() if key in published}
    assert ours == {key: published[key] for key in ours}
    # What is not written is without effect (rope), a default of the class, or about tokens.
    assert set(published) - set(ours) == {
        *("auto_map", "bos_token_id", "eos_token_id", "initializer_range", "pad_token_id"),
        *("num_nextn_predict_layers", "rope_scaling", "rope_theta", "transformers_version"),
        "use_cache",
    }


def test_another_pattern_in_vllms_words() -> None:
    spec = load_spec("kimi_linear", ["layer_pattern=(LLLLLLLLF)*3"])
    layers = vllm_config(spec, export_config(spec))["linear_attn_config"]
    assert layers["full_attn_layers"] == [9, 18, 27]
    assert len(layers["kda_layers"]) == 24


def test_what_vllm_cannot_serve_is_one_line() -> None:
    with pytest.raises(SpecError, match="spec=minimax_m3: vLLM serves no minimax_m3"):
        exported("minimax_m3")
    late = load_spec("kimi_linear", ["ffn_pattern=E D (E)*"])
    with pytest.raises(SpecError, match="dense layers before all experts only"):
        vllm_config(late, export_config(late))


def test_the_page_has_the_figures_of_the_profile() -> None:
    found = profile("kimi_linear", workload="agent_128k", hardware="mi300x", **QUICK)
    page = summary_page(found.document, found.sweep, ["a note"])
    assert len(page.splitlines()) < 60  # one page
    assert page.isascii()
    for text in ("49,122,675,072", "43,417,600 B", "| 128k | 1.02 GiB | 3.8 GiB |", "- a note"):
        assert text in page
    assert "pays off" in page
    assert "times are modelled" in page


def test_records_of_all_kinds_load_as_one_table(tmp_path: Path) -> None:
    documents = {
        "profile": profile("kimi_linear", **QUICK).document,
        "comparison": comparison_document(
            [profile(name, **QUICK).document for name in ("kimi_linear", "qwen3_next")]
        ),
        "claims": claims_document(["KL-01"]),
        "train": {
            "schema": "hybridsim/train/1",
            "spec": "gla_tiny",
            "proxy": "quick",
            "scores": {"recall": {"mean": 0.5, "low": 0.4, "high": 0.6, "chance": 0.1}},
            "summary": 0.5,
        },
        "search": {
            "schema": "hybridsim/search/1",
            "study": "s",
            "frontier": [{"trial": 3, "layer_pattern": "LF", "values": {"cache": {"value": 1.0}}}],
        },
        "other": {"schema": "another/1"},
    }
    for name, document in documents.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    (tmp_path / "broken.json").write_text("{")
    table = load_records(tmp_path)
    assert table["record"].value_counts().to_dict() == {
        "hybridsim/profile/1": 2,
        "hybridsim/compare/1": 2,
        "hybridsim/claims/1": 3,
        "hybridsim/train/1": 1,
        "hybridsim/search/1": 1,
    }
    points = table[table["record"] == "hybridsim/profile/1"]
    wanted = [p["decode"]["latency_s"] for p in documents["profile"]["points"]]
    assert points["decode_latency_s"].tolist() == wanted
    assert table["values_cache_value"].dropna().tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "message"), [("none", "no such file or folder"), (".", "no record of hybridsim")]
)
def test_nothing_to_load_is_one_line(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(HybridsimError, match=message):
        load_records(tmp_path / name)


def test_a_profile_shows_itself_in_a_notebook() -> None:
    html = profile("kimi_linear", **QUICK)._repr_html_()
    assert "49,122,675,072" in html
    assert "<script" not in html
    picture = html.partition("data:image/png;base64,")[2].partition('"')[0]
    assert base64.b64decode(picture).startswith(b"\x89PNG")


def test_the_page_of_neighbours_names_what_there_is() -> None:
    """Its commands compose: keys and values of Hydra's overrides exist."""
    text = (FACTS.parent.parent / "docs" / "neighbours.md").read_text()
    commands = re.findall(r"hybridsim (compare|export) ([^`\n]*)", text)
    assert len(commands) == 3
    for name, line in commands:
        overrides = [word.replace("./mine.yaml", "kimi_linear") for word in line.split()]
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            source.register()
            assert compose(name, overrides)
