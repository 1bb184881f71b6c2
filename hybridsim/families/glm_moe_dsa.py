"""GLM-5: DeepSeek sparse attention in every layer, some of which share an earlier one's selection.

Which layers do is said by `indexer_types`, by a pattern of F and S, or by a period and an offset;
where nothing is said, none do (GLM-5).
"""

from __future__ import annotations

from dataclasses import replace

from hybridsim.families import shared
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader, Figure, derived
from hybridsim.families.deepseek_v3 import read_common, read_ffns, write_ffns, write_mla
from hybridsim.families.deepseek_v32 import SPARSE_MLA, read_indexer
from hybridsim.families.shared import Fields
from hybridsim.mixers import MixerSettings
from hybridsim.mixers.sparse_mla.settings import FULL, SHARED, SparseLatentAttentionSettings
from hybridsim.spec.schema import ModelSpec

LETTERS = {FULL: "X", SHARED: "S"}


def _letters(config: ConfigReader) -> Figure:
    """Return X for a layer with an indexer, S for one that shares a selection."""
    layers = config.integer("num_hidden_layers").value
    if config.has("indexer_types"):
        # What else a config says of it, the reference does not read then.
        config.ignore("index_topk_pattern", "index_topk_freq", "index_skip_topk_offset")
        types = config.items("indexer_types")
        return shared.letters_of("indexer_types", types, LETTERS, layers)
    config.ignore("indexer_types")
    if config.has("index_topk_pattern"):
        config.ignore("index_topk_freq", "index_skip_topk_offset")
        given = config.text("index_topk_pattern")
        meanings = {"F": "X", "S": "S"}
        types = Figure(list(given.value), given.source)
        return shared.letters_of("index_topk_pattern", types, meanings, layers)
    config.ignore("index_topk_pattern")
    period = config.integer("index_topk_freq", 1)
    offset = config.integer("index_skip_topk_offset", 2)
    every = max(period.value, 1)
    letters = ("S" if max(i - offset.value + 1, 0) % every else "X" for i in range(layers))
    return derived("".join(letters), period, offset)


def _read(config: ConfigReader) -> Fields:
    read_common(config)
    config.expect("mlp_bias", False)
    # Neighbouring channels are pairs, in the indexer too: the reference has no other form.
    config.expect("rope_interleave", True)
    config.expect("indexer_rope_interleave", True)
    config.ignore("index_share_for_mtp_iteration")  # of layers that are left out
    shared.layer_letters(config, {"indexed_attention": "X"}, lambda _: "indexed_attention")
    latent = shared.read_mla(config, **read_indexer(config))
    sparse = latent | {
        "kind": "sparse_mla",
        "rope": shared.read_rope(config, latent["qk_rope_head_dim"], interleaved=True),
        "index_rope_interleaved": True,
    }
    letters = _letters(config)
    mixers = {"X": sparse, "S": sparse | {"indexer_type": SHARED}}
    return {
        **shared.model_fields(config),
        **read_ffns(config),
        "layer_pattern": shared.pattern(letters),
        "mixers": shared.used(letters, mixers),
    }


def _indexer_type(settings: MixerSettings) -> str | None:
    """Return the type of a layer's indexer, None where it has another mixer."""
    return settings.indexer_type if isinstance(settings, SparseLatentAttentionSettings) else None


def _with_indexers(spec: ModelSpec) -> ModelSpec:
    """Return the spec with an indexer of its own in every sparse layer."""
    mixers = {
        letter: replace(settings, indexer_type=FULL)
        if isinstance(settings, SparseLatentAttentionSettings)
        else settings
        for letter, settings in spec.mixers.items()
    }
    return replace(spec, mixers=mixers)


def _write(spec: ModelSpec) -> Fields:
    types = shared.layer_types(spec, _indexer_type)
    latent = shared.mixer_of(_with_indexers(spec), "sparse_mla")
    fields = {
        **shared.write_model(spec),
        **write_mla(latent),
        **write_ffns(spec),
        "index_n_heads": latent.index_num_heads,
        "index_head_dim": latent.index_head_dim,
        "index_topk": latent.index_topk,
        "indexer_types": types,
    }
    del fields["rope_interleave"]
    return fields


FAMILY = Family(
    model_type="glm_moe_dsa",
    architecture="GlmMoeDsaForCausalLM",
    read=_read,
    write=_write,
    mixers={"sparse_mla": SPARSE_MLA},
    ffns={"dense": shared.DENSE, "moe": shared.moe_names("mlp", shared="shared_experts")},
    left_out=("model.layers.{num_layers}.",),
)
