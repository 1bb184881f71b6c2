"""The one table of families of published models: model_type of a config.json -> module.

Adding a family is one file and one row. No torch.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module

from hybridsim.errors import unknown
from hybridsim.families.base import Family

# model_type -> module below this package that defines its FAMILY
FAMILIES: dict[str, str] = {
    "bailing_hybrid": "bailing_hybrid",
    "bamba": "bamba",
    "deepseek_v3": "deepseek_v3",
    "deepseek_v32": "deepseek_v32",
    "falcon_h1": "falcon_h1",
    "gemma3_text": "gemma3",
    "glm_moe_dsa": "glm_moe_dsa",
    "gpt_oss": "gpt_oss",
    "granitemoehybrid": "granitemoehybrid",
    "jamba": "jamba",
    "kimi_k2": "deepseek_v3",
    "kimi_linear": "kimi_linear",
    "llama": "llama",
    "minimax": "minimax",
    "minimax_m1": "minimax",
    "minimax_m2": "minimax_m2",
    "minimax_m3": "minimax_m3",
    "minimax_m3_vl": "minimax_m3",
    "minimax_m3_vl_text": "minimax_m3",
    "nemotron_h": "nemotron_h",
    "olmo_hybrid": "olmo_hybrid",
    "qwen3": "qwen3",
    "qwen3_5": "qwen3_5",
    "qwen3_5_moe": "qwen3_5_moe",
    "qwen3_5_moe_text": "qwen3_5_moe",
    "qwen3_5_text": "qwen3_5",
    "qwen3_moe": "qwen3_moe",
    "qwen3_next": "qwen3_next",
}


@lru_cache(maxsize=None)
def family(model_type: str) -> Family:
    """Return a family.

    Raises:
        SpecError: it is not in the table.
    """
    if model_type not in FAMILIES:
        raise unknown("config.model_type", model_type, FAMILIES, "family")
    found: Family = import_module(f"hybridsim.families.{FAMILIES[model_type]}").FAMILY
    return found
