"""Random specs: a strategy for each kind of mixer and feed-forward, and whole models of them.

Strategies draw what a user writes, plain mappings, and write out every field of a kind: a test
compares the names with those of the settings class, so that a new option cannot be forgotten here.
Sizes are small: a model of them runs in milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from hybridsim.components import ACTIVATIONS, GATED_ACTIVATIONS
from hybridsim.conventions import FlopConventions
from hybridsim.spec.pattern import NOTHING, compress_pattern
from hybridsim.spec.schema import NORM_PLACEMENTS, POST

Fields = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

MAX_LAYERS = 5
MAX_TOKENS = 40
WIDTHS = (4, 6, 8, 16)
ATTENDING = ("attention", "mla", "sparse_mla", "block_sparse")  # kinds with a full form
# A dollar sign starts an interpolation of OmegaConf's.
CHARACTERS = st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"], exclude_characters="$")
booleans, sampled = st.booleans(), st.sampled_from
scales = sampled([1.0, 0.7])
epsilons = sampled([None, 1e-5])
chunk_sizes = sampled([16, 7, 11, 24, 40, 2])  # every chunk is a turn of a loop


def or_null(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def texts(min_size: int) -> st.SearchStrategy[str]:
    return st.text(CHARACTERS, min_size=min_size, max_size=8)


def divisors(number: int) -> st.SearchStrategy[int]:
    return sampled([n for n in range(1, number + 1) if number % n == 0])


# --- Parts that kinds share ---


@st.composite
def norms(draw: Draw) -> Fields:
    return {"eps": draw(sampled([1e-6, 1e-5])), "unit_offset": draw(booleans)}


@st.composite
def ropes(draw: Draw, head_dim: int) -> Fields | None:
    """Return a rotation that fits heads of `head_dim` channels, null where none does."""
    if head_dim < 2 or draw(booleans):
        return None
    part = st.integers(1, head_dim // 2).map(lambda pairs: 2 * pairs)
    return {
        "theta": draw(sampled([10000.0, 500000.0])),
        "rotary_dim": draw(part if head_dim % 2 else or_null(part)),
        "interleaved": draw(booleans),
        "scaling": draw(sampled(["none", "linear", "llama3", "yarn"])),
        "factor": draw(sampled([1.0, 4.0])),
        "original_context": draw(sampled([16, 64])),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "beta_fast": draw(sampled([32.0, 4.0])),
        "beta_slow": 1.0,
        "mscale": draw(sampled([1.0, 0.7])),
        "mscale_all_dim": draw(sampled([0.0, 1.0])),
        "truncate": draw(booleans),
    }


# --- One strategy a kind ---


@st.composite
def attention(draw: Draw, windows: st.SearchStrategy[int | None], sinks: bool = True) -> Fields:
    num_kv_heads, head_dim = draw(st.integers(1, 3)), draw(sampled([*WIDTHS, 5]))
    return {
        "num_heads": num_kv_heads * draw(st.integers(1, 3)),
        "num_kv_heads": num_kv_heads,
        "head_dim": head_dim,
        "qk_norm": draw(sampled(["none", "head", "full"])),
        "output_gate": draw(booleans),
        "window": draw(windows),
        "bias": draw(booleans),
        "rope": draw(ropes(head_dim)),
        "output_bias": draw(booleans),
        "sinks": sinks and draw(booleans),
        "softmax_scale": draw(sampled([None, 0.3])),
        "key_scale": draw(scales),
        "input_scale": draw(scales),
        "output_scale": draw(scales),
    }


@st.composite
def mla(draw: Draw, direct: bool = True) -> Fields:
    rope_dim = draw(st.integers(0, 4)) * 2
    rank = sampled(WIDTHS)
    return {
        "num_heads": draw(st.integers(1, 3)),
        "kv_lora_rank": draw(sampled(WIDTHS)),
        "qk_nope_head_dim": draw(sampled(WIDTHS)),
        "qk_rope_head_dim": rope_dim,
        "v_head_dim": draw(sampled(WIDTHS)),
        "q_lora_rank": draw(or_null(rank) if direct else rank),
        "rope": draw(ropes(rope_dim)),
        "head_gate": draw(booleans),
        "norm_eps": draw(epsilons),
    }


@st.composite
def sparse_mla(draw: Draw) -> Fields:
    latent = draw(mla(direct=False))
    return latent | {
        "index_num_heads": draw(st.integers(1, 3)),
        "index_head_dim": latent["qk_rope_head_dim"] + draw(sampled(WIDTHS)),
        "index_topk": draw(st.integers(1, 24)),
        "index_key_dtype": draw(sampled(["fp8", None])),
        "index_rope_interleaved": draw(booleans),
        "indexer_type": "full",
    }


@st.composite
def block_sparse(draw: Draw) -> Fields:
    fields = draw(attention(windows=st.none(), sinks=False))
    topk_blocks = draw(st.integers(1, 4))
    rotated = (fields["rope"] or {}).get("rotary_dim") or fields["head_dim"]
    return fields | {
        "index_num_heads": fields["num_kv_heads"],
        "index_head_dim": 2 * -(-rotated // 2) + draw(sampled([0, 2])),
        "block_size": draw(st.integers(1, 8)),
        "topk_blocks": topk_blocks,
        "local_blocks": draw(st.integers(1, topk_blocks)),
    }


@st.composite
def gated_deltanet(draw: Draw) -> Fields:
    num_heads = draw(st.integers(1, 2))
    return {
        "num_heads": num_heads,
        "num_v_heads": num_heads * draw(st.integers(1, 2)),
        "head_k_dim": draw(sampled(WIDTHS)),
        "head_v_dim": draw(sampled(WIDTHS)),
        "conv_size": draw(st.integers(1, 4)),
        "chunk_size": draw(chunk_sizes),
        "negative_eigenvalues": draw(booleans),
        "norm_eps": draw(epsilons),
    }


@st.composite
def kda(draw: Draw) -> Fields:
    return {
        "num_heads": draw(st.integers(1, 3)),
        "head_dim": draw(sampled(WIDTHS)),
        "gate_rank": draw(or_null(sampled(WIDTHS))),
        "conv_size": draw(st.integers(1, 4)),
        "chunk_size": draw(sampled([16, 32, 48])),
        "gate_lower_bound": draw(sampled([None, -5.0])),
        "negative_eigenvalues": draw(booleans),
    }


@st.composite
def lightning(draw: Draw) -> Fields:
    num_heads, head_dim = draw(st.integers(1, 3)), draw(sampled(WIDTHS))
    return {
        "num_heads": num_heads,
        "head_dim": head_dim,
        "activation": draw(sampled(["silu", "gelu", "none"])),
        "qk_norm": draw(sampled(["none", "head"])),
        "rope": draw(ropes(head_dim)),
        "scale_queries": draw(booleans),
        "num_norm_groups": draw(divisors(num_heads * head_dim)),
        "slope_schedule": draw(sampled(["minimax", "bailing"])),
        "norm_eps": draw(epsilons),
        "chunk_size": draw(chunk_sizes),
    }


@st.composite
def linear_attention(draw: Draw) -> Fields:
    feature_map = draw(sampled(["elu1", "relu", "identity", "performer"]))
    return {
        "num_heads": draw(st.integers(1, 3)),
        "head_k_dim": draw(sampled(WIDTHS)),
        "head_v_dim": draw(sampled([*WIDTHS, 5])),
        "feature_map": feature_map,
        "num_features": draw(st.integers(1, 12)) if feature_map == "performer" else None,
        "feature_seed": draw(st.integers(0, 3)),
        "normalize": feature_map != "identity" and draw(booleans),
        "output_norm": draw(booleans),
        "chunk_size": draw(chunk_sizes),
    }


@st.composite
def gla(draw: Draw) -> Fields:
    return {
        "num_heads": draw(st.integers(1, 3)),
        "head_k_dim": draw(sampled(WIDTHS)),
        "head_v_dim": draw(sampled([*WIDTHS, 5])),
        "gate_rank": draw(st.integers(1, 6)),
        "gate_logit_normalizer": draw(sampled([16.0, 1.0])),
        "conv_size": draw(or_null(st.integers(1, 4))),
        "output_gate": draw(booleans),
        "chunk_size": draw(sampled([16, 32, 48])),
    }


@st.composite
def deltanet(draw: Draw) -> Fields:
    return {
        "num_heads": draw(st.integers(1, 3)),
        "head_k_dim": draw(sampled(WIDTHS)),
        "head_v_dim": draw(sampled([*WIDTHS, 5])),
        "conv_size": draw(or_null(st.integers(1, 4))),
        "qk_activation": draw(sampled(["silu", "relu", "elu1", "identity"])),
        "qk_norm": draw(sampled(["l2", "sum"])),
        "output_gate": draw(booleans),
        "negative_eigenvalues": draw(booleans),
        "chunk_size": draw(chunk_sizes),
    }


@st.composite
def mamba1(draw: Draw) -> Fields:
    return {
        "inner_dim": draw(sampled([*WIDTHS, 5])),
        "dt_rank": draw(st.integers(1, 4)),
        "state_size": draw(st.integers(1, 8)),
        "conv_size": draw(st.integers(1, 4)),
        "conv_bias": draw(booleans),
        "proj_bias": draw(booleans),
        "inner_norms": draw(booleans),
        "chunk_size": draw(chunk_sizes),
    }


@st.composite
def mamba2(draw: Draw) -> Fields:
    num_groups, head_dim = draw(st.integers(1, 2)), draw(sampled(WIDTHS))
    num_heads = num_groups * draw(st.integers(1, 2))
    return {
        "num_heads": num_heads,
        "head_dim": head_dim,
        "state_size": draw(st.integers(1, 8)),
        "num_groups": num_groups,
        "conv_size": draw(st.integers(1, 4)),
        "conv_bias": draw(booleans),
        "bias": draw(booleans),
        "output_bias": draw(booleans),
        "activation": draw(sampled(["silu", "gelu"])),
        "norm": draw(sampled(["after_gate", "before_gate", "none"])),
        "norm_groups": draw(or_null(divisors(num_heads * head_dim))),
        "dt_min": draw(sampled([0.0, 0.01])),
        "dt_max": draw(sampled([None, 0.1])),
        "chunk_size": draw(chunk_sizes),
        "input_scale": draw(scales),
        "output_scale": draw(scales),
        "z_scale": draw(scales),
        "x_scale": draw(scales),
        "b_scale": draw(scales),
        "c_scale": draw(scales),
        "dt_scale": draw(scales),
    }


@st.composite
def gates(draw: Draw, *limits: str) -> Fields:
    """Return an activation, whether it comes with a gate, and limits inside."""
    gated = draw(booleans)
    activation = draw(sampled([n for n in ACTIVATIONS if gated or n not in GATED_ACTIVATIONS]))
    limit = sampled([None, 0.5] if gated and activation not in GATED_ACTIVATIONS else [None])
    return {"activation": activation, "gated": gated} | {name: draw(limit) for name in limits}


@st.composite
def dense(draw: Draw) -> Fields:
    gate = draw(gates("activation_limit"))
    return gate | {
        "intermediate_size": draw(sampled([*WIDTHS, 7])),
        "bias": draw(booleans),
        "gate_scale": draw(scales) if gate["gated"] else 1.0,
        "down_scale": draw(scales),
    }


@st.composite
def moe(draw: Draw) -> Fields:
    num_groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    topk_groups = draw(st.integers(1, num_groups))
    num_shared = draw(st.integers(0, 2))
    return draw(gates("activation_limit", "shared_activation_limit")) | {
        "num_experts": num_groups * per_group,
        "num_experts_per_tok": draw(st.integers(1, topk_groups * per_group)),
        "intermediate_size": draw(sampled(WIDTHS)),
        "num_shared_experts": num_shared,
        "shared_intermediate_size": draw(or_null(sampled(WIDTHS))),
        "router": draw(sampled(["softmax", "sigmoid"])),
        "score_correction_bias": draw(booleans),
        "num_groups": num_groups,
        "topk_groups": topk_groups,
        "norm_topk_prob": draw(booleans),
        "routed_scaling_factor": draw(sampled([1.0, 2.5])),
        "shared_expert_gate": num_shared > 0 and draw(booleans),
        "router_bias": draw(booleans),
        "expert_bias": draw(booleans),
        "latent_size": draw(or_null(sampled(WIDTHS))),
    }


MIXER_STRATEGIES: dict[str, st.SearchStrategy[Fields]] = {
    "attention": attention(windows=or_null(st.integers(1, 12))),
    "mla": mla(),
    "sparse_mla": sparse_mla(),
    "block_sparse": block_sparse(),
    "gated_deltanet": gated_deltanet(),
    "kda": kda(),
    "lightning": lightning(),
    "linear_attention": linear_attention(),
    "gla": gla(),
    "deltanet": deltanet(),
    "mamba1": mamba1(),
    "mamba2": mamba2(),
}
FFN_STRATEGIES: dict[str, st.SearchStrategy[Fields]] = {"dense": dense(), "moe": moe()}


@st.composite
def parts(draw: Draw, kinds: dict[str, st.SearchStrategy[Fields]], kind: str | None) -> Fields:
    """Return one mixer or feed-forward as a spec has it, of any kind where none is given."""
    kind = kind or draw(sampled(sorted(kinds)))
    return {"kind": kind} | draw(kinds[kind])


# --- Patterns ---


@st.composite
def units(draw: Draw, alphabet: str, room: int, before: str, depth: int) -> tuple[str, str]:
    """Return what a repeat may follow, and its letters: a run of them, or a group."""
    if depth < 2 and draw(booleans):
        inner, letters = draw(sequences(alphabet, room, depth + 1))
        return f"({inner})", letters
    run = draw(st.text(alphabet, min_size=1, max_size=min(3, room)))
    # A repeat takes in the whole run of letters before it; a dot is an item of its own.
    alone = run == NOTHING or (NOTHING not in run and not before[-1:].isalpha())
    return (run if alone else f"({run})"), run


@st.composite
def sequences(draw: Draw, alphabet: str, room: int, depth: int = 0) -> tuple[str, str]:
    """Return a pattern without a bare star and its letters, 1 to `room` of them."""
    text, letters = "", ""
    for _ in range(draw(st.integers(1, 3))):
        if left := room - len(letters):
            unit, repeated = draw(units(alphabet, left, text, depth))
            times = draw(st.integers(1, left // len(repeated)))
            star = f"*{times}" if times > 1 or draw(booleans) else ""
            text += draw(sampled(["", " "])) + unit + star
            letters += repeated * times
    return text, letters


@st.composite
def patterns(draw: Draw, alphabet: str, room: int = MAX_LAYERS) -> tuple[str, str]:
    """Return a pattern and its letters, 1 to `room` of them; some have a bare star."""
    before, letters = ("", "") if draw(booleans) else draw(sequences(alphabet, room))
    if (letters and draw(booleans)) or len(letters) == room:
        return before, letters
    unit, repeated = draw(units(alphabet, room - len(letters), before, depth=1))
    times = draw(st.integers(0 if letters else 1, (room - len(letters)) // len(repeated)))
    text, letters = f"{before} {unit}*", letters + repeated * times
    if len(letters) == room or draw(booleans):
        return text, letters
    after, more = draw(sequences(alphabet, room - len(letters)))
    return f"{text} {after}", letters + more


@st.composite
def written(draw: Draw, letters: str) -> str:
    """Return one of the ways to write these letters as a pattern."""
    ways = [letters, " ".join(letters), compress_pattern(letters)]
    if (rest := letters.rstrip(letters[-1])) != letters:
        ways.append(f"{' '.join(rest)} ({letters[-1]})*")
    return draw(sampled(ways))


# --- Whole specs ---


@st.composite
def ffn_lines(draw: Draw, letters: str, ffns: Fields) -> str:
    """Return a feed-forward letter a layer: the same for layers of one letter, or any."""
    after = sampled([*ffns, NOTHING])
    by_letter = {letter: draw(after) for letter in sorted(set(letters))}
    mixed = draw(sampled([False, False, True]))
    chosen = [draw(after) for _ in letters] if mixed else map(by_letter.get, letters)
    pairs = zip(letters, chosen, strict=True)
    return "".join(NOTHING if letter in ffns else ffn for letter, ffn in pairs)


def select_before_sharing(letters: str, mixers: Fields, parallel: dict[str, str]) -> None:
    """Give a sparse mixer its own indexer where no layer before it made the selection it shares."""
    made = None
    for name in "".join(parallel.get(letter, letter) for letter in letters):
        if mixers.get(name, {}).get("kind") == "sparse_mla":
            if mixers[name]["indexer_type"] == "shared" and mixers[name]["index_topk"] != made:
                mixers[name]["indexer_type"] = "full"
            if mixers[name]["indexer_type"] == "full":
                made = mixers[name]["index_topk"]


@st.composite
def residuals(draw: Draw) -> Fields:
    return {
        "source": draw(sampled(["input", "normed"])),
        "alpha": draw(sampled([1.0, 3.55])),
        "beta": draw(sampled([1.0, 0.25])),
    }


# How many mixers and feed-forwards a spec defines.
NUMBERS = [(1, 1), (1, 0), (2, 1), (3, 1), (2, 2), (0, 1), (1, 2)]


@st.composite
def definitions(draw: Draw, kind: str | None) -> tuple[Fields, Fields, dict[str, str]]:
    """Return mixers, feed-forwards and parallel sets by letter; one is of the kind, if given."""
    mixer, ffn = (kind if kind in known else None for known in (MIXER_STRATEGIES, FFN_STRATEGIES))
    enough = [(m, f) for m, f in NUMBERS if m >= (mixer is not None) and f >= (ffn is not None)]
    num_mixers, num_ffns = draw(sampled(enough))
    names = draw(st.permutations("ABDEFGLMNOPSXYZamnoyz"))
    mixers = {
        names.pop(): draw(parts(MIXER_STRATEGIES, None if i else mixer)) for i in range(num_mixers)
    }
    ffns = {names.pop(): draw(parts(FFN_STRATEGIES, None if i else ffn)) for i in range(num_ffns)}
    parallel = {}
    if num_mixers > 1 and draw(booleans):
        branches = draw(st.permutations(sorted(mixers)))
        parallel[names.pop()] = "".join(branches[: draw(st.integers(2, num_mixers))])
    selecting = [part for part in mixers.values() if part["kind"] == "sparse_mla"]
    if selecting and draw(booleans):
        shared = {"indexer_type": "shared", "index_topk": selecting[0]["index_topk"]}
        mixers[names.pop()] = {"kind": "sparse_mla"} | draw(sparse_mla()) | shared
    return mixers, ffns, parallel


@st.composite
def spec_mappings(draw: Draw, kind: str | None = None) -> Fields:
    """Return the mapping of a valid spec of 1 to MAX_LAYERS layers, all fields written out.

    With a kind of mixer or feed-forward, some layer has it.
    """
    mixers, ffns, parallel = draw(definitions(kind))
    layer_pattern, letters = draw(patterns("".join([*mixers, *ffns, *parallel])))
    select_before_sharing(letters, mixers, parallel)
    ffn_letters = draw(ffn_lines(letters, ffns))
    used = "".join(parallel.get(letter, letter) for letter in letters) + ffn_letters
    kinds = {part["kind"] for letter, part in (mixers | ffns).items() if letter in used}
    assume(kind is None or kind in kinds)
    residual = draw(residuals())
    norms_at = sampled([n for n in NORM_PLACEMENTS if n != POST or residual["source"] == "input"])
    twins = [name for name, part in mixers.items() if part["kind"] in ATTENDING]
    return {
        "name": draw(texts(1)),
        "hidden_size": draw(st.integers(4, 24)),
        "num_layers": len(letters),
        "vocab_size": draw(st.integers(MAX_TOKENS, MAX_TOKENS + 16)),
        "native_context": draw(st.integers(1, 1 << 20)),
        "layer_pattern": layer_pattern,
        "ffn_pattern": draw(written(ffn_letters)),
        "mixers": mixers,
        "ffns": ffns,
        "parallel": parallel,
        "norm": draw(norms()),
        "norm_placement": draw(st.dictionaries(sampled(sorted(set(letters))), norms_at)),
        "residual": residual,
        "embedding_scale": draw(sampled([1.0, 12.0])),
        "round_embedding_scale": draw(booleans),
        "logit_scale": draw(scales),
        "tie_word_embeddings": draw(booleans),
        "full_twin": draw(sampled([None, *twins])),
        "description": draw(texts(0)),
        "released": draw(texts(0)),
        "published": draw(st.dictionaries(texts(1), texts(0) | st.integers(), max_size=2)),
        "sources": draw(st.dictionaries(texts(1), texts(0), max_size=2)),
    }


@dataclass(frozen=True)
class Pass:
    """How a random model is run, and what is counted.

    Attributes:
        prompt: tokens of the prefill.
        continued: tokens of a later pass over several tokens; around it single ones are decoded.
        batch_size: sequences.
        static_cache: decode over a cache of a fixed capacity, not one that grows.
        fvcore_counts_prefill: and torch's counter the decode step, or the other way round.
        conventions: of the counted FLOPs.
    """

    prompt: int
    continued: int
    batch_size: int
    static_cache: bool
    fvcore_counts_prefill: bool
    conventions: FlopConventions


@st.composite
def passes(draw: Draw) -> Pass:
    prompt = draw(st.integers(1, MAX_TOKENS - 10))
    return Pass(
        prompt=prompt,
        continued=draw(st.integers(2, MAX_TOKENS - prompt - 3)),
        batch_size=draw(st.integers(1, 2)),
        static_cache=draw(booleans),
        fvcore_counts_prefill=draw(booleans),
        conventions=FlopConventions(
            attention=draw(sampled(["causal", "full_square"])),
            triangular_solve=draw(booleans),
            selective_scan=draw(booleans),
            logits=draw(sampled(["all", "last"])),
        ),
    )
