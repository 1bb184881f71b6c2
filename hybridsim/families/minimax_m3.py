"""MiniMax-M3, text part: block-sparse attention after a few full layers, and experts.

The class's defaults are not the checkpoint (no sparse layer, no dense feed-forward), so that layers
must be given. Published configs nest the indexer's fields; both forms read.
"""

from __future__ import annotations

from hybridsim.components import OAI_ALPHA, OAI_LIMIT
from hybridsim.families import shared
from hybridsim.families.base import Family, Names, same
from hybridsim.families.config import ConfigReader, Figure
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec

TYPES = {"full_attention": "F", "minimax_m3_sparse": "X"}
KINDS = {"attention": "full_attention", "block_sparse": "minimax_m3_sparse"}
# our setting -> its key today, its key in the published `sparse_attention_config`
INDEXER = {
    "index_num_heads": ("index_n_heads", "sparse_num_index_heads"),
    "index_head_dim": ("index_head_dim", "sparse_index_dim"),
    "block_size": ("index_block_size", "sparse_block_size"),
    "topk_blocks": ("index_topk_blocks", "sparse_topk_blocks"),
    "local_blocks": ("index_local_blocks", "sparse_local_block"),
}

BLOCK_SPARSE: Names = {
    **shared.ATTENTION,
    **same("self_attn", "indexer.q_proj.weight", "indexer.k_proj.weight"),
    **same("self_attn", "indexer.q_norm.weight", "indexer.k_norm.weight"),
}
# Gate and up are stored as one matrix, and the experts stacked.
DENSE: Names = same("mlp", "gate_up_proj.weight", "down_proj.weight")
MOE: Names = {
    "router.weight": "mlp.gate.weight",
    "score_correction_bias": "mlp.gate.e_score_correction_bias",
    "experts.gate_up_proj": "mlp.experts.gate_up_proj",
    "experts.down_proj": "mlp.experts.down_proj",
    "shared_expert.gate_up_proj.weight": "mlp.shared_experts.gate_up_proj.weight",
    "shared_expert.down_proj.weight": "mlp.shared_experts.down_proj.weight",
}


def _read_letters(
    config: ConfigReader, name: str, switches: ConfigReader, switch: str, letters: tuple[str, str]
) -> Figure:
    """Return a letter a layer from a list of types, or from a list of 0 and 1."""
    layers = config.integer("num_hidden_layers").value
    if config.has(name):
        types = {"layer_types": TYPES, "mlp_layer_types": {"dense": "D", "sparse": "E"}}[name]
        return shared.letters_of(name, config.items(name), types, layers)
    config.ignore(name)
    meanings = {0: letters[0], 1: letters[1]}
    return shared.letters_of(switch, switches.items(switch), meanings, layers)


def _read_indexer(config: ConfigReader, nested: ConfigReader) -> Fields:
    fields: Fields = {}
    for ours, (today, published) in INDEXER.items():
        fields[ours] = nested.integer(published) if nested.has(published) else config.integer(today)
        nested.ignore(published)
        config.ignore(today)
    nested.expect("use_sparse_attention", True)
    nested.expect("sparse_score_type", "max")
    nested.expect("sparse_init_block", 0)
    nested.ignore("sparse_disable_index_value", "sparse_attention_freq")
    return fields


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "swigluoai", "silu")
    config.expect("swiglu_alpha", OAI_ALPHA)
    config.expect("swiglu_limit", OAI_LIMIT)
    config.expect("use_qk_norm", True)
    config.expect("qk_norm_type", "per_head")
    config.expect("use_gemma_norm", True)
    config.expect("scoring_func", "sigmoid")
    config.expect("use_routing_bias", True)
    config.expect("attention_output_gate", False)
    shared.ignore_multi_token_prediction(config)
    nested = config.section("sparse_attention_config")
    letters = _read_letters(config, "layer_types", nested, "sparse_attention_freq", ("F", "X"))
    ffns = _read_letters(config, "mlp_layer_types", config, "moe_layer_freq", ("D", "E"))
    config.ignore("moe_layer_freq", "first_k_dense_replace")  # the letters are read
    attention = shared.read_attention(config, qk_norm="head")
    attention["rope"] = shared.read_rope(config, attention["head_dim"])
    sparse = {**attention, "kind": "block_sparse", **_read_indexer(config, nested)}
    config.expect("n_shared_experts", 1)
    config.expect("moe_intermediate_size", config.integer("intermediate_size").value)
    moe = shared.read_moe(
        config,
        "num_local_experts",
        "intermediate_size",
        num_shared_experts=1,
        shared_intermediate_size=config.integer("shared_intermediate_size"),
        router="sigmoid",
        score_correction_bias=True,
        routed_scaling_factor=config.number("routed_scaling_factor"),
        activation="swiglu_oai",
    )
    dense = shared.read_dense(config, "dense_intermediate_size", activation="swiglu_oai")
    return {
        **shared.model_fields(config, unit_offset=True),
        "layer_pattern": shared.pattern(letters),
        "ffn_pattern": shared.pattern(ffns),
        "mixers": shared.used(letters, {"F": attention, "X": sparse}),
        "ffns": shared.used(ffns, {"D": dense, "E": moe}),
    }


def _write(spec: ModelSpec) -> Fields:
    sparse, moe = shared.mixer_of(spec, "block_sparse"), shared.ffn_of(spec, "moe")
    return {
        **shared.write_model(spec),
        **shared.write_attention(sparse),
        **shared.write_moe(moe, "num_local_experts", "intermediate_size"),
        **{today: getattr(sparse, ours) for ours, (today, _) in INDEXER.items()},
        "layer_types": shared.layer_types(spec, lambda settings: KINDS.get(settings.kind)),
        "mlp_layer_types": shared.ffn_types(spec, {"dense": "dense", "moe": "sparse"}),
        "dense_intermediate_size": shared.dense_width(spec, moe.intermediate_size),
        "shared_intermediate_size": moe.shared_width,
        "routed_scaling_factor": moe.routed_scaling_factor,
        "rotary_dim": shared.require_rope(sparse).rotary_dim or sparse.head_dim,
        "rope_parameters": {
            "partial_rotary_factor": 1.0,
            **shared.write_rope(shared.require_rope(sparse), sparse.head_dim),
        },
    }


FAMILY = Family(
    model_type="minimax_m3_vl_text",
    architecture="MiniMaxM3VLForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "block_sparse": BLOCK_SPARSE},
    ffns={"dense": DENSE, "moe": MOE},
    other_types=("minimax_m3", "minimax_m3_vl"),
)
