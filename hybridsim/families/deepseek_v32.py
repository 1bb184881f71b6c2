"""DeepSeek-V3.2: DeepSeek-V3 with a lightning indexer in every layer."""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family, Names, same
from hybridsim.families.config import ConfigReader
from hybridsim.families.deepseek_v3 import read_common, read_ffns, write_ffns, write_mla
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec

SPARSE_MLA: Names = {
    **shared.MLA,
    "indexer.q_proj.weight": "self_attn.indexer.wq_b.weight",
    "indexer.k_proj.weight": "self_attn.indexer.wk.weight",
    **same("self_attn", "indexer.k_norm.weight", "indexer.k_norm.bias"),
    **same("self_attn", "indexer.weights_proj.weight"),
}


def read_indexer(config: ConfigReader) -> Fields:
    """Return the settings of the indexer."""
    return {
        "index_num_heads": config.integer("index_n_heads"),
        "index_head_dim": config.integer("index_head_dim"),
        "index_topk": config.integer("index_topk"),
    }


def _read(config: ConfigReader) -> Fields:
    read_common(config)
    config.expect("mlp_bias", False)
    letters = shared.layer_letters(
        config, {"indexed_attention": "X"}, lambda _: "indexed_attention"
    )
    latent = shared.read_mla(config, **read_indexer(config)) | {"kind": "sparse_mla"}
    # Neighbouring channels are pairs whatever a config says: the reference has no other form.
    config.expect("rope_interleave", True)
    rope = shared.read_rope(config, latent["qk_rope_head_dim"], interleaved=True)
    return {
        **shared.model_fields(config),
        **read_ffns(config),
        "layer_pattern": shared.pattern(letters),
        "mixers": {"X": latent | {"rope": rope}},
    }


def _write(spec: ModelSpec) -> Fields:
    latent = shared.mixer_of(spec, "sparse_mla")
    fields = {
        **shared.write_model(spec),
        **write_mla(latent),
        **write_ffns(spec),
        "index_n_heads": latent.index_num_heads,
        "index_head_dim": latent.index_head_dim,
        "index_topk": latent.index_topk,
    }
    del fields["rope_interleave"]
    return fields


FAMILY = Family(
    model_type="deepseek_v32",
    architecture="DeepseekV32ForCausalLM",
    read=_read,
    write=_write,
    mixers={"sparse_mla": SPARSE_MLA},
    ffns={"dense": shared.DENSE, "moe": shared.moe_names("mlp", shared="shared_experts")},
    left_out=("model.layers.{num_layers}.",),
)
