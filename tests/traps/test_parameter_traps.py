"""Counting parameters: what went wrong elsewhere, computed beside what is right.

Sources of the peers' figures: tests/facts/peers.json; of published totals: tests/facts/configs.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from conftest import FACTS
from shipped import costs

from hybridsim import load_spec
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import fits
from hybridsim.hardware import parse_hardware
from hybridsim.options import read_option

COUNTED = json.loads((FACTS / "configs" / "totals.json").read_text())["totals"]
CONFIG_OF = {
    "kimi_linear": "kimi_linear",
    "qwen3_next": "qwen3_next",
    "qwen3_235b": "qwen3_moe",
    "deepseek_v3": "deepseek_v3",
    "deepseek_v32": "deepseek_v32",
    "minimax_m1": "minimax_m1",
    "minimax_m2": "minimax_m2",
    "minimax_m3": "minimax_m3",
    "llama31_8b": "llama",
    "qwen3_32b": "qwen3_32b",
    "qwen3_1_7b": "qwen3_1_7b",
    "qwen3_5_35b": "qwen3_5_moe",
    "kimi_k2": "kimi_k2",
    "gpt_oss_120b": "gpt_oss",
    "jamba": "jamba",
    "nemotron_h_8b": "nemotron_h",
    "falcon_h1_34b": "falcon_h1",
}
SAME_AS_DEFAULTS = {
    "qwen3_next",
    "deepseek_v3",
    "deepseek_v32",
    "minimax_m2",
    "qwen3_5_35b",
    "gpt_oss_120b",
    "jamba",
}


@pytest.mark.parametrize("name", CONFIG_OF)
def test_class_defaults_are_not_the_checkpoint(name: str) -> None:
    counted = COUNTED[CONFIG_OF[name]]
    assert costs(name).parameters.total == counted["total"]
    assert (counted["class_default_total"] == counted["total"]) == (name in SAME_AS_DEFAULTS)


def test_kimi_linears_default_has_other_layers() -> None:
    """The class takes 21 linear and 6 full layers, the checkpoint has 20 and 7."""
    spec = load_spec("kimi_linear")
    assert (spec.layer_letters.count("L"), spec.layer_letters.count("F")) == (20, 7)
    extra = COUNTED["kimi_linear"]["class_default_total"] - costs("kimi_linear").parameters.total
    kinds = costs("kimi_linear").parameters_by_part()
    assert extra == kinds["kda"] // 20 - kinds["mla"] // 7


def test_qwen3_next_is_80b_with_3b_active() -> None:
    """Texts that give it 235B and 22B mean Qwen3-235B-A22B."""
    ours, other = costs("qwen3_next").parameters, costs("qwen3_235b").parameters
    assert round(ours.total / 1e9) == 80
    assert 3.2 < ours.active_excluding_embeddings / 1e9 < ours.active / 1e9 < 3.9
    assert (round(other.total / 1e9), round(other.active / 1e9)) == (235, 22)


def test_tied_embeddings_are_not_counted_twice() -> None:
    spec, found = load_spec("qwen3_1_7b"), costs("qwen3_1_7b").parameters
    twice = found.total + spec.vocab_size * spec.hidden_size
    assert round(found.total / 1e9, 2) == 1.72
    assert round(twice / 1e9, 2) == 2.03


def test_router_offsets_are_not_parameters(peers: dict[str, Any]) -> None:
    in_the_files = peers["kimi_linear_checkpoint_numbers"]["total"]
    assert in_the_files == costs("kimi_linear").parameters.total + 26 * 256


def test_active_parameters_have_three_conventions() -> None:
    """Published figures leave out nothing, the input embedding, or both: not one column."""
    fields = ("active", "active_excluding_input_embedding", "active_excluding_embeddings")

    def matching(name: str, published: str, scale: float = 1e9) -> list[str]:
        found = costs(name).parameters
        digits = len(published.partition(".")[2])
        return [f for f in fields if f"{getattr(found, f) / scale:.{digits}f}" == published]

    assert matching("minimax_m1", "45.9") == ["active_excluding_embeddings"]
    assert matching("minimax_m2", "9.8") == ["active_excluding_embeddings"]
    assert matching("gpt_oss_120b", "5.1") == ["active_excluding_input_embedding"]
    assert matching("qwen3_235b", "22") == ["active", "active_excluding_input_embedding"]
    # DeepSeek says 36.7B "including" embedding and head: it is 36.63B without the input embedding.
    assert matching("deepseek_v3", "36.6") == ["active_excluding_input_embedding"]


def test_idle_experts_still_fill_memory() -> None:
    found, deployment = costs("qwen3_next"), Deployment()
    h100 = parse_hardware(read_option("hardware", "h100"))
    active_only = 2 * found.parameters.active
    memory = found.memory(4096, 1, deployment)
    assert active_only < 0.1 * h100.memory_bytes
    assert memory.weights_bytes == 2 * found.parameters.total > h100.memory_bytes
    assert not fits(found, 4096, 1, deployment, h100)
