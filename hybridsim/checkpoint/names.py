"""The one table of checkpoint names: family -> our parameter -> its tensors there. No torch.

A family is a `model_type` of a published config.json. Left is a parameter of ours below its module
(a kind of mixer or feed-forward, or the layer); right are names below `model.layers.N.`:

    "a.weight"            that tensor
    "a.weight + b.weight" both, one after the other along the first axis
    "{expert}"            one tensor for each routed expert, stacked

Stacked experts are [E, outputs, inputs] there and [E, inputs, outputs] here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hybridsim.errors import unknown

Names = dict[str, str]

MODEL: Names = {
    "embed.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
LAYER: Names = {
    "mixer_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
}


def _same(prefix: str, *names: str) -> Names:
    return {name: f"{prefix}.{name}" for name in names}


ATTENTION: Names = _same(
    "self_attn",
    *(f"{part}_proj.{kind}" for part in "qkvo" for kind in ("weight", "bias")),
    "q_norm.weight",
    "k_norm.weight",
)
MLA: Names = {
    **_same("self_attn", "q_proj.weight", "q_a_proj.weight", "q_b_proj.weight"),
    **_same("self_attn", "kv_b_proj.weight", "o_proj.weight"),
    "q_a_norm.weight": "self_attn.q_a_layernorm.weight",
    "kv_a_proj.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "kv_a_norm.weight": "self_attn.kv_a_layernorm.weight",
}
SPARSE_MLA: Names = {
    **MLA,
    "indexer.q_proj.weight": "self_attn.indexer.wq_b.weight",
    "indexer.k_proj.weight": "self_attn.indexer.wk.weight",
    **_same("self_attn", "indexer.k_norm.weight", "indexer.k_norm.bias"),
    **_same("self_attn", "indexer.weights_proj.weight"),
}
BLOCK_SPARSE: Names = {
    **ATTENTION,
    **_same("self_attn", "indexer.q_proj.weight", "indexer.k_proj.weight"),
    **_same("self_attn", "indexer.q_norm.weight", "indexer.k_norm.weight"),
}
GATED_DELTANET: Names = {
    **_same("linear_attn", "in_proj_qkvz.weight", "in_proj_ba.weight", "conv1d.weight"),
    **_same("linear_attn", "dt_bias", "A_log"),
    "o_norm.weight": "linear_attn.norm.weight",
    "o_proj.weight": "linear_attn.out_proj.weight",
}
KDA: Names = {
    **_same("self_attn", *(f"{part}_proj.weight" for part in "qkvbo")),
    **_same(
        "self_attn", "f_a_proj.weight", "f_b_proj.weight", "g_a_proj.weight", "g_b_proj.weight"
    ),
    **_same("self_attn", "dt_bias", "A_log", "o_norm.weight"),
    "conv1d.weight": " + ".join(f"self_attn.{part}_conv1d.weight" for part in "qkv"),
}
LIGHTNING: Names = {
    **_same("self_attn", "qkv_proj.weight", "output_gate.weight"),
    "o_norm.weight": "self_attn.norm.weight",
    "o_proj.weight": "self_attn.out_proj.weight",
}
# MiniMax-M3 stores gate and up as one matrix, and its experts stacked.
FUSED_DENSE: Names = _same("mlp", "gate_up_proj.weight", "down_proj.weight")
FUSED_MOE: Names = {
    "router.weight": "mlp.gate.weight",
    "score_correction_bias": "mlp.gate.e_score_correction_bias",
    "experts.gate_up_proj": "mlp.experts.gate_up_proj",
    "experts.down_proj": "mlp.experts.down_proj",
    "shared_expert.gate_up_proj.weight": "mlp.shared_experts.gate_up_proj.weight",
    "shared_expert.down_proj.weight": "mlp.shared_experts.down_proj.weight",
}
DENSE: Names = {
    "gate_up_proj.weight": "mlp.gate_proj.weight + mlp.up_proj.weight",
    "down_proj.weight": "mlp.down_proj.weight",
}


def _moe(block: str, gate: str, up: str, down: str, *, shared: str = "", bias: str = "") -> Names:
    """Return the names of a mixture of experts whose experts are stored one by one."""
    expert = f"{block}.experts.{{expert}}"
    names = {
        "router.weight": f"{block}.gate.weight",
        "score_correction_bias": f"{block}.{bias or 'gate.e_score_correction_bias'}",
        "experts.gate_up_proj": f"{expert}.{gate}.weight + {expert}.{up}.weight",
        "experts.down_proj": f"{expert}.{down}.weight",
        "shared_expert_gate.weight": f"{block}.shared_expert_gate.weight",
    }
    if shared:
        inside = f"{block}.{shared}"
        names["shared_expert.gate_up_proj.weight"] = (
            f"{inside}.gate_proj.weight + {inside}.up_proj.weight"
        )
        names["shared_expert.down_proj.weight"] = f"{inside}.down_proj.weight"
    return names


_PLAIN = ("gate_proj", "up_proj", "down_proj")
_MIXTRAL = ("w1", "w3", "w2")


@dataclass(frozen=True)
class Family:
    """How one family names its tensors.

    Attributes:
        mixers: kind of mixer -> names.
        ffns: kind of feed-forward -> names.
        derived: ends of names of tensors that hold no weights: the model computes them.
        aliases: parts of names that some writers use, with the published ones.
    """

    mixers: dict[str, Names]
    ffns: dict[str, Names]
    derived: tuple[str, ...] = ("rotary_emb.inv_freq",)
    aliases: dict[str, str] = field(default_factory=dict)

    def published_name(self, name: str) -> str:
        """Return the published name of a tensor of a checkpoint."""
        for alias, published in self.aliases.items():
            name = name.replace(alias, published)
        return name


FAMILIES: dict[str, Family] = {
    "llama": Family({"attention": ATTENTION}, {"dense": DENSE}),
    "qwen3": Family({"attention": ATTENTION}, {"dense": DENSE}),
    "qwen3_moe": Family({"attention": ATTENTION}, {"dense": DENSE, "moe": _moe("mlp", *_PLAIN)}),
    "qwen3_next": Family(
        {"attention": ATTENTION, "gated_deltanet": GATED_DELTANET},
        {"dense": DENSE, "moe": _moe("mlp", *_PLAIN, shared="shared_expert")},
    ),
    "deepseek_v3": Family(
        {"mla": MLA}, {"dense": DENSE, "moe": _moe("mlp", *_PLAIN, shared="shared_experts")}
    ),
    "deepseek_v32": Family(
        {"sparse_mla": SPARSE_MLA},
        {"dense": DENSE, "moe": _moe("mlp", *_PLAIN, shared="shared_experts")},
    ),
    "kimi_linear": Family(
        {"kda": KDA, "mla": MLA},
        {
            "dense": DENSE,
            "moe": _moe("block_sparse_moe", *_MIXTRAL, shared="shared_experts"),
        },
        # transformers 5.23 saves the dense layers under the experts' name.
        aliases={f"block_sparse_moe.{part}.": f"mlp.{part}." for part in _PLAIN},
    ),
    "minimax": Family(
        {"attention": ATTENTION, "lightning": LIGHTNING},
        {"moe": _moe("block_sparse_moe", *_MIXTRAL)},
        derived=("slope_rate", "query_decay", "key_decay", "diagonal_decay"),
    ),
    "minimax_m2": Family(
        {"attention": ATTENTION},
        {"moe": _moe("block_sparse_moe", *_MIXTRAL, bias="e_score_correction_bias")},
    ),
    "minimax_m3_vl_text": Family(
        {"attention": ATTENTION, "block_sparse": BLOCK_SPARSE},
        {"dense": FUSED_DENSE, "moe": FUSED_MOE},
    ),
}


def family(model_type: str) -> Family:
    """Return the names of a family; SpecError where it is not in the table."""
    if model_type not in FAMILIES:
        raise unknown("model_type", model_type, FAMILIES, "family")
    return FAMILIES[model_type]
