"""Tiny models of the public reference implementation, a case a family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from hybridsim import build_model
from hybridsim.checkpoint.read import load_weights
from hybridsim.families.convert import import_config
from hybridsim.model.model import HybridLM

WIDTH, VOCAB, CONTEXT = 48, 96, 512
COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": 4,
    "max_position_embeddings": CONTEXT,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
HEADS: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
MLA_HF: dict[str, Any] = {
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "kv_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
YARN_HF: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
DEEPSEEK_HF: dict[str, Any] = {
    **MLA_HF,
    "q_lora_rank": 20,
    "intermediate_size": 64,
    "moe_intermediate_size": 24,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 2.5,
    "rope_parameters": YARN_HF,
}
BAMBA_HF: dict[str, Any] = {
    "mamba_n_heads": 4,
    "mamba_d_head": 24,
    "mamba_n_groups": 2,
    "mamba_d_state": 16,
    "mamba_chunk_size": 16,
}

LINEAR_HF: dict[str, Any] = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 8,
}
# The first token's output of a linear head is q . k times its value, near zero where q and k happen
# to be orthogonal, and the norm after the head magnifies it together with either side's rounding:
# with random weights float32 is then not enough for the reference itself.
SOFT_NORMS: dict[str, Any] = {"rms_norm_eps": 1e-3}


@dataclass(frozen=True)
class ParityCase:
    """A tiny model of the reference implementation.

    Attributes:
        reference: names of the transformers module, model class and configuration class.
        config: arguments of the configuration.
        mixer_changes: settings that no config says, by kind of mixer.
    """

    reference: tuple[str, str, str]
    config: dict[str, Any]
    mixer_changes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def build_reference(self, seed: int = 0) -> Any:
        """Return the reference model with random weights, decays and offsets included."""
        from importlib import import_module

        package, model, config = self.reference
        module = import_module(f"transformers.models.{package}.modeling_{package}")
        torch.manual_seed(seed)
        built = getattr(module, model)(getattr(module, config)(**{**COMMON, **self.config}))
        _randomise(built)
        return built.eval()

    def load(self, folder: str | Path, dtype: str = "fp32") -> HybridLM:
        """Return our model of what the reference saved: spec from its config.json, weights."""
        spec = import_config(folder).spec
        mixers = {
            letter: replace(settings, **self.mixer_changes.get(settings.kind, {}))
            for letter, settings in spec.mixers.items()
        }
        model = build_model(replace(spec, mixers=mixers), device="cpu", dtype=dtype, seed=1)
        return load_weights(model, folder)


class InDouble(TorchFunctionMode):
    """Reads every mention of float32 as float64.

    The references compute norms, softmax and rotations in float32 whatever the model's dtype; this
    takes their rounding away, and ours, so that what is left is a difference of the computation.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.float:
            return args[0].double()
        wide = [torch.float64 if a is torch.float32 else a for a in args]
        named = {
            key: torch.float64 if value is torch.float32 else value
            for key, value in (kwargs or {}).items()
        }
        return func(*wide, **named)


@contextmanager
def in_double() -> Iterator[None]:
    """Make and run models in float64 throughout."""
    torch.set_default_dtype(torch.float64)
    try:
        with InDouble():
            yield
    finally:
        torch.set_default_dtype(torch.float32)


def double_error(case: ParityCase, folder: Path, tokens: torch.Tensor) -> float:
    """Return the largest difference of logits over the largest logit, all in float64."""
    with in_double(), torch.no_grad():
        reference = case.build_reference().double()
        reference.set_experts_implementation("eager")  # its grouped product takes no float64
        reference.save_pretrained(folder)
        model = case.load(folder, "fp64")
        wanted = reference(tokens, use_cache=False).logits
        assert wanted.dtype == torch.float64
        return float((model(tokens) - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def _randomise(model: Any) -> None:
    """Set what the reference initialises to a constant, so that it takes part."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("in_proj.bias", "dt_proj.bias", "out_proj.bias", ".D")):
            tensor.normal_(0.5, 0.5)
        elif name.endswith(("bias", "sinks")):
            tensor.normal_(0, 0.5)
        elif name.endswith("A_log"):
            # Decays of 1 to 25 % a token: faster ones leave outputs near zero, which the norm after
            # them magnifies together with either side's rounding.
            tensor.uniform_(-4, -1)
        elif "norm" in name and name.endswith("weight"):
            tensor.add_(torch.randn_like(tensor) * 0.2)
        elif tensor.dim() > 1 and name.endswith(("weight", "proj")):
            tensor.normal_(0, tensor.shape[-1] ** -0.5)


CASES: dict[str, ParityCase] = {
    "llama": ParityCase(
        ("llama", "LlamaForCausalLM", "LlamaConfig"),
        {
            **HEADS,
            "intermediate_size": 64,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "original_max_position_embeddings": 32,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            },
        },
    ),
    "gemma3_text": ParityCase(
        ("gemma3", "Gemma3ForCausalLM", "Gemma3TextConfig"),
        {
            **HEADS,
            "intermediate_size": 64,
            "num_hidden_layers": 7,
            "query_pre_attn_scalar": 24,
            "sliding_window": 9,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1000.0},
            },
            "tie_word_embeddings": True,
        },
    ),
    "gpt_oss": ParityCase(
        ("gpt_oss", "GptOssForCausalLM", "GptOssConfig"),
        {
            **HEADS,
            "intermediate_size": 24,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "sliding_window": 9,
            "rope_parameters": {
                "rope_type": "yarn",
                "rope_theta": 10000.0,
                "factor": 16.0,
                "original_max_position_embeddings": 32,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "truncate": False,
            },
        },
    ),
    "qwen3": ParityCase(
        ("qwen3", "Qwen3ForCausalLM", "Qwen3Config"),
        {**HEADS, "intermediate_size": 64},
    ),
    "qwen3_moe": ParityCase(
        ("qwen3_moe", "Qwen3MoeForCausalLM", "Qwen3MoeConfig"),
        {
            **HEADS,
            "moe_intermediate_size": 24,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
    ),
    "qwen3_next": ParityCase(
        ("qwen3_next", "Qwen3NextForCausalLM", "Qwen3NextConfig"),
        {
            **HEADS,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 20,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            **LINEAR_HF,
        },
    ),
    "deepseek_v3": ParityCase(
        ("deepseek_v3", "DeepseekV3ForCausalLM", "DeepseekV3Config"),
        DEEPSEEK_HF,
    ),
    "deepseek_v32": ParityCase(
        ("deepseek_v32", "DeepseekV32ForCausalLM", "DeepseekV32Config"),
        # With few heads a token's score is often exactly zero, and among equals the reference
        # leaves open which it takes (ours: the earliest). 32 leave no ties.
        {**DEEPSEEK_HF, "index_n_heads": 32, "index_head_dim": 16, "index_topk": 16},
        # The reference keeps index keys in the model's dtype; the released kernels use fp8.
        {"sparse_mla": {"index_key_dtype": None}},
    ),
    "jamba": ParityCase(
        ("jamba", "JambaForCausalLM", "JambaConfig"),
        {
            "num_hidden_layers": 8,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 24,
            "num_experts": 6,
            "mamba_d_state": 8,
            "mamba_proj_bias": True,
        },
    ),
    "kimi_linear": ParityCase(
        ("kimi_linear", "KimiLinearForCausalLM", "KimiLinearConfig"),
        {
            **MLA_HF,
            "intermediate_size": 64,
            "moe_intermediate_size": 24,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "linear_head_dim": 16,
            "linear_num_heads": 2,
            "layer_types": ["linear_attention"] * 3 + ["full_attention"],
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
    ),
    "qwen3_5_text": ParityCase(
        ("qwen3_5", "Qwen3_5ForCausalLM", "Qwen3_5TextConfig"),
        {**HEADS, **LINEAR_HF, "intermediate_size": 64, **SOFT_NORMS},
    ),
    "qwen3_5_moe_text": ParityCase(
        ("qwen3_5_moe", "Qwen3_5MoeForCausalLM", "Qwen3_5MoeTextConfig"),
        {
            **HEADS,
            **LINEAR_HF,
            "moe_intermediate_size": 24,
            "shared_expert_intermediate_size": 20,
            "num_experts": 6,
            "num_experts_per_tok": 2,
            **SOFT_NORMS,
        },
    ),
    "olmo_hybrid": ParityCase(
        ("olmo_hybrid", "OlmoHybridForCausalLM", "OlmoHybridConfig"),
        {
            **HEADS,
            **LINEAR_HF,
            # The epsilon of the norm after the heads is fixed; many channels are rarely all small,
            # and full layers between linear ones pass less of it on.
            "linear_value_head_dim": 32,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "intermediate_size": 64,
            # As in the released checkpoint, which does not rotate.
            "rope_parameters": {"rope_type": "default", "rope_theta": None},
        },
    ),
    "bailing_hybrid": ParityCase(
        ("bailing_hybrid", "BailingHybridForCausalLM", "BailingHybridConfig"),
        {
            **MLA_HF,
            "head_dim": 16,
            "layer_group_size": 4,
            "intermediate_size": 64,
            "moe_intermediate_size": 24,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "n_group": 4,
            "topk_group": 2,
            "first_k_dense_replace": 1,
            "num_mtp_layers": 0,
            # Decays of about 25 % a token with the small rates of _randomise.
            "kda_lower_bound": -0.5,
            **SOFT_NORMS,
        },
    ),
    "glm_moe_dsa": ParityCase(
        ("glm_moe_dsa", "GlmMoeDsaForCausalLM", "GlmMoeDsaConfig"),
        {
            **DEEPSEEK_HF,
            "n_group": 1,
            "topk_group": 1,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            # 32 heads against ties, as above.
            "index_n_heads": 32,
            "index_head_dim": 16,
            "index_topk": 16,
            "indexer_types": ["full", "shared", "full", "shared"],
        },
        {"sparse_mla": {"index_key_dtype": None}},
    ),
    "minimax": ParityCase(
        ("minimax", "MiniMaxForCausalLM", "MiniMaxConfig"),
        {
            **HEADS,
            "intermediate_size": 24,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "block_size": 16,
            "layer_types": ["linear_attention"] * 3 + ["full_attention"],
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "rms_norm_eps": 1e-5,
            **{
                f"{part}_{name}_factor": value
                for part in ("linear_attn", "full_attn", "mlp")
                for name, value in (("alpha", 3.5), ("beta", 1.0))
            },
        },
    ),
    "minimax_m2": ParityCase(
        ("minimax_m2", "MiniMaxM2ForCausalLM", "MiniMaxM2Config"),
        {
            **HEADS,
            "intermediate_size": 24,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
            },
        },
    ),
    "minimax_m3_vl_text": ParityCase(
        ("minimax_m3_vl", "MiniMaxM3VLForCausalLM", "MiniMaxM3VLTextConfig"),
        {
            **HEADS,
            "intermediate_size": 24,
            "dense_intermediate_size": 64,
            "shared_intermediate_size": 20,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "rotary_dim": 8,
            "index_n_heads": 2,
            "index_head_dim": 16,
            "index_block_size": 8,
            "index_topk_blocks": 3,
            "layer_types": ["full_attention"] + ["minimax_m3_sparse"] * 3,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
            },
        },
    ),
    "bamba": ParityCase(
        ("bamba", "BambaForCausalLM", "BambaConfig"),
        {
            **HEADS,
            **BAMBA_HF,
            "intermediate_size": 64,
            "attn_layer_indices": [1, 3],
            "attention_bias": True,
            "mlp_bias": True,
            "time_step_limit": [0.001, 100.0],
        },
    ),
    "granitemoehybrid": ParityCase(
        ("granitemoehybrid", "GraniteMoeHybridForCausalLM", "GraniteMoeHybridConfig"),
        {
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            **BAMBA_HF,
            "intermediate_size": 24,
            "shared_intermediate_size": 20,
            "num_local_experts": 6,
            "num_experts_per_tok": 2,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "position_embedding_type": "rope",
            "embedding_multiplier": 12.0,
            "logits_scaling": 3.0,
            "residual_multiplier": 0.246,
            "attention_multiplier": 0.3,
        },
    ),
    "nemotron_h": ParityCase(
        ("nemotron_h", "NemotronHForCausalLM", "NemotronHConfig"),
        {
            **HEADS,
            "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
            "intermediate_size": 64,
            "mamba_num_heads": 4,
            "mamba_head_dim": 24,
            "n_groups": 2,
            "ssm_state_size": 16,
            "chunk_size": 16,
            "n_routed_experts": 8,
            "num_experts_per_tok": 3,
            "n_group": 4,
            "topk_group": 2,
            "routed_scaling_factor": 2.5,
            "moe_intermediate_size": 24,
            "moe_shared_expert_intermediate_size": 20,
            "moe_latent_size": 32,
        },
    ),
    "falcon_h1": ParityCase(
        ("falcon_h1", "FalconH1ForCausalLM", "FalconH1Config"),
        {
            **HEADS,
            **BAMBA_HF,
            # With four layers of such weights float32 loses up to 6e-5 of a gradient on either
            # side, measured against float64; with two, below 1e-5.
            "num_hidden_layers": 2,
            "mamba_d_ssm": 96,
            "mamba_rms_norm": True,
            "mamba_norm_before_gate": False,
            "projectors_bias": True,
            "intermediate_size": 64,
            "embedding_multiplier": 5.5,
            "lm_head_multiplier": 0.75,
            "key_multiplier": 0.6,
            "attention_in_multiplier": 1.2,
            "attention_out_multiplier": 0.7,
            "ssm_in_multiplier": 0.8,
            "ssm_out_multiplier": 1.3,
            "ssm_multipliers": [0.5, 1.5, 0.75, 1.25, 2.0],
            "mlp_multipliers": [0.9, 1.1],
        },
    ),
}
