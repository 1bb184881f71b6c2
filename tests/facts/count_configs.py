"""Count the parameters that transformers builds from each published config.json here.

    python tests/facts/count_configs.py       # writes tests/facts/configs/totals.json

The independent twin of hybridsim's totals: AutoModelForCausalLM.from_config on the meta device, the
text part where the model has others, buffers (such as score-correction biases) and layers for
multi-token prediction left out. `class_default_total` is what the same configuration class builds
when it is given nothing.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

FOLDER = Path(__file__).parent / "configs"
TOTALS = FOLDER / "totals.json"

# Families that transformers builds with another family's class; the value is that class's family.
BUILT_AS = {
    "kimi_k2": "deepseek_v3",  # its `architectures` says so
    "minimax_m3": "minimax_m3_vl_text",
    "minimax_m1": "minimax",
}
# Words of MiniMax's remote code and those of the transformers class.
RENAMED = {
    "minimax_m1": {
        "layernorm_full_attention_alpha": "full_attn_alpha_factor",
        "layernorm_full_attention_beta": "full_attn_beta_factor",
        "layernorm_linear_attention_alpha": "linear_attn_alpha_factor",
        "layernorm_linear_attention_beta": "linear_attn_beta_factor",
        "layernorm_mlp_alpha": "mlp_alpha_factor",
        "layernorm_mlp_beta": "mlp_beta_factor",
    }
}
ATTENTION_TYPES = {0: "linear_attention", 1: "full_attention"}


def config_files() -> list[Path]:
    return [path for path in sorted(FOLDER.glob("*.json")) if path != TOTALS]


def read_config(path: Path) -> PreTrainedConfig:
    """Return the transformers configuration of the text part."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    fields.pop("quantization_config", None)  # says how weights are stored, not which there are
    model_type = fields.pop("model_type")
    renamed = RENAMED.get(model_type, {})
    fields = {renamed.get(key, key): value for key, value in fields.items()}
    if "attn_type_list" in fields:
        fields["layer_types"] = [ATTENTION_TYPES[kind] for kind in fields.pop("attn_type_list")]
    config = AutoConfig.for_model(BUILT_AS.get(model_type, model_type), **fields)
    return config.get_text_config()


def count(config: PreTrainedConfig) -> tuple[str, int]:
    """Return the class that transformers builds and its parameters."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return type(model).__name__, sum(p.numel() for p in model.parameters())


def entry(path: Path) -> dict[str, Any]:
    config = read_config(path)
    built, total = count(config)
    return {
        "model_type": json.loads(path.read_text(encoding="utf-8"))["model_type"],
        "class": built,
        "total": total,
        "class_default_total": count(type(config)())[1],
    }


def main() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    totals = {path.stem: entry(path) for path in config_files()}
    document = {
        "about": (
            "Parameters counted by transformers on the meta device from the config.json beside"
            " this file (tests/facts/count_configs.py): text part, no buffers, no layers for"
            " multi-token prediction."
        ),
        "transformers": transformers.__version__,
        "torch": torch.__version__.split("+")[0],
        "totals": totals,
    }
    TOTALS.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    for name, found in totals.items():
        print(
            f"{name:18}{found['total']:>22,}{found['class_default_total']:>22,}  {found['class']}"
        )


if __name__ == "__main__":
    main()
