"""Every figure of `hybridsim claims`, against arithmetic done here from published dimensions.

Formulas are the textbook ones of the sources in tests/facts; totals of parameters are those counted
on the reference implementation (tests/facts/models.json). Where a figure is a whole model's FLOPs
or time, norms, convolutions and activations are left out here, and the row says how far off that
may be.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hybridsim import profile
from hybridsim.claims.claim import DATA, claims_document, load_claims, overall
from hybridsim.claims.figure import VERDICTS, Ours, figure_text, verdict
from hybridsim.claims.kinds import KINDS
from hybridsim.claims.kinds.times import TimeRatio
from hybridsim.errors import SpecError
from hybridsim.report.claims import claims_markdown, figure_rows

FACTS = Path(__file__).parent / "facts"
MODELS = json.loads((FACTS / "models.json").read_text())["models"]
CLAIMS = json.loads((FACTS / "claims.json").read_text())["claims"]

M, K = 1 << 20, 1 << 10
H100_BYTES_PER_S, H200_BYTES_PER_S, BF16_FLOPS = 3.35e12, 4.8e12, 989.4e12
HEAD = {"kimi_linear": 2304 * 163840, "qwen3_next": 2048 * 151936, "qwen3_32b": 5120 * 151936}


def total(name: str) -> int:
    return int(MODELS[name]["total"])


def projections(name: str) -> int:
    """Weights a token meets in the layers."""
    return int(MODELS[name]["active_excluding_embeddings"])


# Kimi Linear and its all-MLA twin: 20 KDA layers have other weights than MLA's.
KDA_WEIGHTS = 4 * 2304 * 4096 + 2 * (2304 * 128 + 128 * 4096) + 2304 * 32
MLA_WEIGHTS = 2304 * 32 * 192 + 2304 * 576 + 512 * 32 * 256 + 32 * 128 * 2304
KIMI = projections("kimi_linear")
KIMI_MLA = KIMI + 20 * (MLA_WEIGHTS - KDA_WEIGHTS)
KIMI_STATE = MODELS["kimi_linear"]["state_bytes_per_sequence"]
KDA_CHUNK = 151552  # FLOPs a token and head: 6 d^2 + 2 C d + 4 d (C + 16) / 2 + 2 C d
QWEN_32B = total("qwen3_32b") - 2 * HEAD["qwen3_32b"]
GDN_CHUNK = (4 * 64 * 128 + 6 * 128**2 + 2 * 64 * 128 + 64 * 256) * 32


def kimi_saving(n: int) -> float:
    return 1 - (7 * 1152 * n + KIMI_STATE) / (27 * 1152 * n)


def kimi_prefill_ratio(n: int) -> float:
    """Weights, MLA's 320 FLOPs a pair and head over half the context, KDA's chunks."""
    mla = 2 * KIMI_MLA + 27 * 32 * 320 * n
    return mla / (2 * KIMI + 7 * 32 * 320 * n + 20 * 32 * KDA_CHUNK)


def kimi_decode_ratio(n: int) -> float:
    """Weights of a token's experts and head, caches, and states read and written."""
    head = HEAD["kimi_linear"]
    ours = 2 * (KIMI + head) + 7 * 1152 * n + 2 * KIMI_STATE
    return (2 * (KIMI_MLA + head) + 27 * 1152 * n) / ours


def qwen_prefill_ratio(n: int) -> float:
    dense = 2 * QWEN_32B + 64 * 2 * 64 * 128 * n
    hybrid = 2 * projections("qwen3_next") + 12 * 2 * 16 * 256 * n + 36 * GDN_CHUNK
    return dense / hybrid


def qwen_experts_read(batch: int) -> float:
    """Weights that a step reads with the experts that `batch` sequences touch."""
    routed = MODELS["qwen3_next"]["routed_experts"]
    rest = total("qwen3_next") - routed - HEAD["qwen3_next"]
    return rest + routed * (1 - (1 - 10 / 512) ** batch)


def qwen_decode_ratio(batch: int, n: int = 4096) -> float:
    state = MODELS["qwen3_next"]["state_bytes_per_sequence"]
    dense = 2 * (total("qwen3_32b") - HEAD["qwen3_32b"]) + batch * 262144 * n
    return dense / (2 * qwen_experts_read(batch) + batch * (24576 * n + 2 * state))


def training_share(active: float, base: float, base_attention: float) -> float:
    """15T tokens against 36T; Qwen3-Next's attention and chunks at a mean context of 2,048."""
    ours = 2 * (active + HEAD["qwen3_next"]) + 12 * 4 * 16 * 256 * 2048 + 36 * GDN_CHUNK
    return ours * 15 / ((2 * base + base_attention * 2048) * 36)


QWEN_30B = 48 * (2048 * 128 * (32 + 4) * 2 + 2048 * 128 + 8 * 3 * 2048 * 768) + HEAD["qwen3_next"]

V3 = projections("deepseek_v3")
V32 = projections("deepseek_v32")
INDEX = 2 * 64 * 129  # FLOPs a pair: 64 heads of 128, and their weights
ABSORBED = 2 * 128 * 1088


def usd(flops: float, moved: float = 0.0) -> float:
    """A million tokens on an H800 at $2 an hour."""
    return max(flops / BF16_FLOPS, moved / H100_BYTES_PER_S) * 1e6 * 2 / 3600


def curve(a: float, b: float, n: int) -> float:
    return a * n + b * n * n


R1, M1 = (7.5408e-6, 3.4980e-10), (1.0453e-5, 1.9663e-11)
N_M1 = 100_000
R1_OVER_M1 = (2 * V3 + 61 * 128 * 320 * N_M1) / (
    2 * projections("minimax_m1")
    + 10 * 2 * 64 * 128 * N_M1
    + 70 * 64 * (4 * 128**2 + 4 * 256 * 128)
)


def m3_read(n: int) -> float:
    """Bytes: 3 full layers, 57 index keys, 57 times 2,048 selected tokens; 4 heads of 128."""
    return 3 * 2048 * n + 57 * (256 * n + 2048 * 2048)


M3_SPARSE = 2 * 4 * 128 * M + 4 * 64 * 128 * 2048
M3_MIXERS = 3 * 4 * 64 * 128 * M + 57 * M3_SPARSE
M2_MIXERS = 62 * 4 * 48 * 128 * M
M3_PREFILL = 2 * projections("minimax_m3") + M3_MIXERS / 2 + 57 * 2 * 64 * 128 * 2048
M3_LAYER = 2 * 64 * 128 * M / (4 * 128 * M + 4 * 64 * 128 * 2048)

A_8B, F_8B = 4096 * 128 * (32 + 8) * 2, 3 * 4096 * 14336
QWEN3_8B = 36 * (4096 * 128 * (32 + 8) * 2 + 3 * 4096 * 12288)


def request_s(
    active: float, routed: float, head: int, cache: tuple[int, int], load: tuple[int, int, int]
) -> float:
    """Device time of a request on 8 H200: weights by compute or traffic, caches by traffic.

    Args:
        active: weights a token meets in the layers.
        routed: weights in 256 experts of which a token meets 8; 0 for a dense model.
        head: weights of the head.
        cache: bytes a token, and of states.
        load: tokens of the prompt, of the answer, and sequences together.
    """
    prompt, output, batch = load

    def weights_s(tokens: int, head: int) -> float:
        touched = active - routed * 8 / 256 + routed * (1 - (1 - 8 / 256) ** tokens)
        products = 2 * tokens * (active + head) / (8 * BF16_FLOPS)
        return max(products, 2 * (touched + head) / (8 * H200_BYTES_PER_S))

    kept = batch * (cache[0] * (prompt + output / 2) + 2 * cache[1])
    step = weights_s(batch, head) + kept / (8 * H200_BYTES_PER_S)
    return weights_s(prompt, 0) + output * step / batch


RING = 28 * 5 * 4096**2 + 4 * 4096 * 128 * (32 + 8 + 32) + 31 * 9 * 3 * 4096 * 1024
RING_ROUTED, RING_HEAD = 31 * 256 * 3 * 4096 * 1024, 4096 * 157184
# Sequences that fit 8 x 141 GB at 90 % beside the weights, from `largest_batch_size`.
RING_GAIN = tuple(
    request_s(QWEN_32B, 0, HEAD["qwen3_32b"], (262144, 0), (prompt, output, dense))
    / request_s(RING, RING_ROUTED, RING_HEAD, (8192, 58720256), (prompt, output, hybrid))
    for prompt, output, dense, hybrid in ((1024, 512, 2352, 11197), (2048, 80000, 44, 1101))
)


def jet_step(key_dim: int, value_dim: int) -> float:
    """Bytes of a decode step: 24 layers of Gated DeltaNet in the widths, 4 of attention."""
    gdn = 2048 * (2 * key_dim + 3 * value_dim)
    attention = 2048 * 128 * (16 + 8) * 2
    weights = 24 * gdn + 4 * attention + 28 * 3 * 2048 * 6144 + 2048 * 151936
    return 2 * weights + 64 * (4 * 4096 * 64 * K + 24 * 2 * 4 * 16 * 128 * 128)


# claim -> figure -> what it is, or its range; and how far off it may be (relative)
EXACT = 1e-12
EXPECTED: dict[str, dict[str, tuple[float | tuple[float, float], float]]] = {
    "KL-01": {
        "context without end": (20 / 27, EXACT),
        "at 128k with states": (kimi_saving(128 * K), EXACT),
        "at 1M with states": (kimi_saving(M), EXACT),
    },
    "KL-02": {
        "their own points": (11.48 / 1.84, EXACT),
        # one token's entry written, states read and written
        "cache traffic allows at most": (
            27 * 1152 * (M + 1) / (7 * 1152 * (M + 1) + 2 * KIMI_STATE),
            EXACT,
        ),
        # 160 GB at 90 %: one sequence of 32.6 GB fits beside 97.8 GB, five of 8.5 GB beside 98.2 GB
        "largest batches on 2 H800": (
            5
            * (2 * (KIMI_MLA + HEAD["kimi_linear"]) + 27 * 1152 * M)
            / (
                2 * (KIMI + HEAD["kimi_linear"])
                + 2 * 26 * 3 * 2304 * 1024 * (256 * (1 - (1 - 8 / 256) ** 5) - 8)
                + 5 * (7 * 1152 * M + 2 * KIMI_STATE)
            ),
            0.01,
        ),
        "read rate that 1.84 ms implies against an H800's 3.35": (7 * 1152 * M / 1.84e-3, EXACT),
    },
    "KL-03": {
        "their points at 1M and the figure's label": (17.76 / 7.99, EXACT),
        "their points at 1M and the text": (17.76 / 7.99, EXACT),
        "roofline at 512k": (kimi_decode_ratio(512 * K), 0.01),
        "roofline at 1M": (kimi_decode_ratio(M), 0.01),
    },
    "KL-04": {
        "their points at 512k": (18.64 / 8.08, EXACT),
        "their points at 1M": (65.4 / 22.76, EXACT),
        "FLOPs at 512k": (kimi_prefill_ratio(512 * K), 0.002),
        "FLOPs at 1M": (kimi_prefill_ratio(M), 0.002),
    },
    "KL-08": {
        "their points at 64k": (59.21 / 29.83, EXACT),
        "their points at 4k": (3.9 / 2.03, EXACT),
        "their points at 2k": (2.02 / 1.7, EXACT),
    },
    "KL-11": {
        "KDA by equation 13": (6 * 128**2 + 3 * 64 * 128 + 64**2, EXACT),
        # q k^T and k k^T below the diagonal, state in, out and correction, values, solve of 2 d
        "KDA as executed": (
            4 * 128 * (64 + 16) / 2 + 6 * 128**2 + 2 * 64 * 128 + 64 * 256,
            EXACT,
        ),
        "attention at 65536 tokens": (2 * 128 * 65537, EXACT),
    },
    "QN-01": {
        "prefill FLOPs at 32k": (qwen_prefill_ratio(32 * K), 0.002),
        "prefill FLOPs at 128k": (qwen_prefill_ratio(128 * K), 0.002),
        "prefill FLOPs at 256k": (qwen_prefill_ratio(256 * K), 0.002),
        "decode cache traffic at 256k": (
            262144 * (256 * K + 1) / (24576 * (256 * K + 1) + 2 * 77266944),
            EXACT,
        ),
        # 8 x 141 GB at 90 %: 110 sequences beside 65.5 GB, 968 beside 159.3 GB
        "largest batches of 32k on 8 H200": (
            (968 / (2 * qwen_experts_read(968) + 968 * (24576 * 32 * K + 2 * 77266944)))
            / (110 / (2 * QWEN_32B + 2 * HEAD["qwen3_32b"] + 110 * 262144 * 32 * K)),
            0.02,
        ),
    },
    "QN-02": {"FLOPs": (qwen_prefill_ratio(4096), 0.005)},
    "QN-03": {
        "roofline at batches 1 to 256": ((qwen_decode_ratio(64), qwen_decode_ratio(1)), 0.03)
    },
    "QN-04": {
        "FLOPs against Qwen3-32B": (
            training_share(
                projections("qwen3_next"), QWEN_32B + HEAD["qwen3_32b"], 64 * 4 * 64 * 128
            ),
            0.01,
        ),
        "FLOPs against Qwen3-30B-A3B": (
            training_share(projections("qwen3_next"), QWEN_30B, 48 * 4 * 32 * 128),
            0.01,
        ),
    },
    "QN-05": {
        "active share": (
            (
                projections("qwen3_next") / total("qwen3_next"),
                MODELS["qwen3_next"]["active"] / total("qwen3_next"),
            ),
            EXACT,
        ),
        "Gated DeltaNet layers": (3 / 4, EXACT),
        "experts a token": (11, EXACT),
        "routed experts": (512, EXACT),
    },
    "DS-01": {
        "tokens selected a query": (2048, EXACT),
        "exponent of the whole mixer": (2, 1e-3),
    },
    "DS-02": {
        "slope": ((128 * 640 / INDEX, 2 * 128 * 640 / INDEX), EXACT),
        "V3.1 at 128k": (usd(2 * V3 + 61 * 128 * 640 * 128 * K), 0.001),
        "V3.2 at 128k": (usd(2 * V32 + 61 * (INDEX * 128 * K + ABSORBED * 2048)), 0.001),
    },
    "DS-03": {
        "slope": ((ABSORBED / INDEX, 2 * ABSORBED / INDEX), EXACT),
        "V3.1 at 128k": (usd(2.3e12, 61 * 1152 * (128 * K + 1)), EXACT),
        "V3.2 at 128k": (usd(0.25e12, 61 * (132 * 128 * K + 1152 * 2048 + 1284)), EXACT),
    },
    "DS-04": {
        "parameters": (61 * (1536 * 64 * 128 + 7168 * 128 + 7168 * 64 + 2 * 128), EXACT),
        "cache": (128 + 4, EXACT),
        "heads": (64, EXACT),
    },
    "M1-01": {
        "their curves at 64k": (curve(*M1, 65536) / curve(*R1, 65536), EXACT),
        "their curves at 100k": (curve(*M1, 100000) / curve(*R1, 100000), EXACT),
        "their curves at 128k": (curve(*M1, 131072) / curve(*R1, 131072), EXACT),
        "R1 over M1 at 100k, counted from the specs": (R1_OVER_M1, 0.002),
    },
    "M1-02": {
        "DeepSeek-R1": (61 * 128 * 448, EXACT),
        "Qwen3-235B": (94 * 64 * 384, EXACT),
        "MiniMax-M1": (10 * 64 * 384, EXACT),
    },
    "M01-01": {
        "softmax, full square": (1, EXACT),
        "lightning": (8 * 128 / (4 * 128 + 2 * 256), EXACT),
    },
    "M01-06": {"lightning FLOPs a token from 2k to 64k": (1, EXACT)},
    "M01-08": {
        "parameters": (total("minimax_m1"), EXACT),
        "memory": (total("minimax_m1") + 10 * 4096 * M + 70 * 4194304, EXACT),
    },
    "M3-01": {
        "sparse layers": (57 / 60, EXACT),
        "parameters": (total("minimax_m3"), EXACT),
        "active without embedding and head": (projections("minimax_m3"), EXACT),
    },
    "M3-02": {
        "prefill FLOPs": ((2 * projections("minimax_m2") + M2_MIXERS / 2) / M3_PREFILL, 0.01),
        "decode cache traffic": (62 * 4096 * (M + 1) / (m3_read(M) + 57 * 2304 + 3 * 2048), EXACT),
        "decode FLOPs of the whole models": (
            (2 * projections("minimax_m2") + 2 * 3072 * 200064 + M2_MIXERS)
            / (2 * projections("minimax_m3") + 2 * 6144 * 200064 + M3_MIXERS),
            0.002,
        ),
        "decode FLOPs of the mixers": (M2_MIXERS / M3_MIXERS, 0.002),
    },
    "M3-03": {
        "one layer as its authors count": (M3_LAYER, EXACT),
        "one layer, early queries see fewer keys": (M3_LAYER, 0.004),
    },
    "M3-04": {
        "prefill": (M3_LAYER, 0.004),
        "decode": (2048 * (M + 1) / (256 * M + 2048 * 2048 + 2304), EXACT),
    },
    "JET-05": {"fastest over slowest": (jet_step(2048, 2048) / jet_step(2048, 1024), 0.002)},
    "COMP-01": {"cache at 1:2 and 8B parameters": ((A_8B + 2 * F_8B) / (A_8B + F_8B), EXACT)},
    "RING-01": {"requests of four workloads on 8 H200": (RING_GAIN, 0.1)},
    "JAMBA-01": {
        "Jamba": (4 << 30, EXACT),
        "Mixtral": (32 << 30, EXACT),
        "Llama-2-7B": (128 << 30, EXACT),
    },
    "INF-01": {
        "their prefill error": (9034 / 7839, EXACT),
        "their decode error": (2675 / 2324, EXACT),
        "prompt rate at the fp8 peak": (1978.9e12 / (2 * V3 + 61 * 128 * 320 * 4096), 0.002),
        "decode rate at the fp8 peak": (
            1978.9e12 / (2 * V3 + 2 * 7168 * 129280 + 61 * ABSORBED * 4097),
            0.002,
        ),
        "Qwen3-8B prompt rate on H20 at the fp8 peak": (
            296e12 / (2 * QWEN3_8B + 36 * 2 * 32 * 128 * 4096),
            0.002,
        ),
    },
    "DECK-01": {
        "parameters": (total("qwen3_next"), EXACT),
        "active": (MODELS["qwen3_next"]["active"], EXACT),
        "parameters of Qwen3-235B": (total("qwen3_235b"), EXACT),
    },
    "DECK-02": {
        # heads x 128 x 128 numbers and three columns of convolutions over the bytes of a token
        "grouped and latent attention, fp32 states": (
            (64 * 128**2 * 4 / 4096, 2170880 / 1152),
            1e-3,
        ),
        "the same with bf16 states": ((64 * 128**2 * 2 / 4096, 1122304 / 1152), 1e-3),
        "plain heads, lightning of equal width": ((128 * 2 / 4, 128 * 4 / 4), EXACT),
    },
    "DECK-03": {"exponent": (2, 1e-3)},
    "DECK-04": {
        "Llama-3.1-8B over the formula": (32 * 2 * 8 / 32, EXACT),
        "Qwen3-Next over the formula": (12 * 2 * 2 / 16, EXACT),
    },
    "DECK-05": {
        "MiniMax-M1": (total("minimax_m1"), EXACT),
        "MiniMax-M1 active without embedding and head": (projections("minimax_m1"), EXACT),
        "DeepSeek-V3.2": (total("deepseek_v32"), EXACT),
        "Kimi Linear": (total("kimi_linear"), EXACT),
    },
}

MEASURED_TIMES = ("measured", "interpolated", "extrapolated")

# What each claim comes to.
VERDICT_OF = {
    "reproduced": "DS-01 DS-04 M01-01 M01-06 M01-08 JET-05 JAMBA-01",
    "within bounds": "KL-04 KL-11 QN-02 QN-03 QN-04 DS-02 DS-03 M3-01 M3-03 M3-04 COMP-01 RING-01"
    " INF-01",
    "contradicted": "KL-01 KL-02 KL-03 KL-08 QN-01 QN-05 M1-01 M1-02 M3-02 DECK-01 DECK-02 DECK-03"
    " DECK-04 DECK-05",
    "not computable": "KL-09 GDN-04 MAD-01 ZOO-03",
}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return claims_document()


@pytest.fixture(scope="module")
def figures(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(c["id"], f["name"]): f for c in document["claims"] for f in c["figures"]}


def test_every_claim_of_grade_a_and_b_is_covered(document: dict[str, Any]) -> None:
    found = {claim["id"] for claim in document["claims"]}
    assert len(found) == len(document["claims"]) >= 30
    assert found == set(CLAIMS)
    assert all(claim["source"] and claim["conditions"] for claim in document["claims"])


def test_every_figure_that_is_computed_is_expected(
    figures: dict[tuple[str, str], dict[str, Any]],
) -> None:
    computed = {
        key
        for key, figure in figures.items()
        if figure["ours_value"] is not None and figure["provenance"] not in MEASURED_TIMES
    }
    assert computed == {(claim, name) for claim, rows in EXPECTED.items() for name in rows}


@pytest.mark.parametrize(("claim", "name"), [(c, n) for c, rows in EXPECTED.items() for n in rows])
def test_the_arithmetic(
    claim: str, name: str, figures: dict[tuple[str, str], dict[str, Any]]
) -> None:
    figure, (wanted, rel) = figures[claim, name], EXPECTED[claim][name]
    if isinstance(wanted, tuple):
        found = (figure["ours_low"], figure["ours_high"])
        assert found == pytest.approx(wanted, rel=rel)
    else:
        assert figure["ours_low"] is None
        assert figure["ours_value"] == pytest.approx(wanted, rel=rel)


def test_the_verdicts(document: dict[str, Any]) -> None:
    found: dict[str, list[str]] = {word: [] for word in VERDICTS}
    for claim in document["claims"]:
        found[claim["verdict"]].append(claim["id"])
    assert {word: sorted(ids) for word, ids in found.items()} == {
        word: sorted(ids.split()) for word, ids in VERDICT_OF.items()
    }


def test_contradictions_of_the_literature_are_shown(document: dict[str, Any]) -> None:
    by_id = {claim["id"]: claim for claim in document["claims"]}
    assert "74.07 %" in by_id["KL-01"]["ours"]
    assert "1 - 8,064 / 31,104 B/token = 74.07%" in by_id["KL-01"]["arithmetic"]
    at_100k = by_id["M1-01"]["figures"][1]
    assert (at_100k["published"], at_100k["ours"]) == ("25.00 %", "29.21 %")
    assert at_100k["verdict"] == "contradicted"


def test_arithmetic_is_made_of_the_numbers(figures: dict[tuple[str, str], dict[str, Any]]) -> None:
    """Another model, another text: nothing of it is written down beforehand."""
    from hybridsim.claims.kinds.sizes import CacheSaving
    from hybridsim.claims.subject import Subject

    sparser = Subject("kimi_linear", ("layer_pattern=(LLLLLLLLF)*3",))
    ours = CacheSaving(model=sparser, baseline=Subject("kimi_linear_mla")).compute()
    assert ours.arithmetic == "1 - 3,456 / 31,104 B/token = 88.89%"
    assert all(figure["arithmetic"] for figure in figures.values())


@pytest.mark.parametrize(
    ("relation", "ours", "wanted"),
    [
        ("equals", Ours(10.4, ""), "reproduced"),
        ("equals", Ours(10.6, ""), "contradicted"),
        ("equals", Ours(12, "", low=9, high=20), "within bounds"),
        ("equals", Ours(12, "", low=9, high=20, is_interval=True), "reproduced"),
        ("equals", Ours(12, "", low=11, high=20, is_interval=True), "contradicted"),
        ("at_least", Ours(9.6, ""), "reproduced"),
        ("at_least", Ours(9.4, ""), "contradicted"),
        ("reached", Ours(12, "", low=9.4, high=14, is_interval=True), "reproduced"),
        ("reached", Ours(12, "", low=11, high=14, is_interval=True), "within bounds"),
        ("reached", Ours(8, "", low=7, high=9.4, is_interval=True), "contradicted"),
        ("at_most", Ours(3, ""), "reproduced"),
        ("at_most", Ours(10.6, ""), "contradicted"),
        ("less_than", Ours(9.6, ""), "contradicted"),
        ("less_than", Ours(9.4, ""), "reproduced"),
        ("up_to", Ours(3, ""), "within bounds"),
        ("up_to", Ours(10.6, ""), "contradicted"),
        ("below_ours", Ours(20, ""), "within bounds"),
        ("below_ours", Ours(9.4, ""), "contradicted"),
        ("below_ours", Ours(9.6, ""), "reproduced"),
        ("above_ours", Ours(3, ""), "within bounds"),
        ("above_ours", Ours(10.6, ""), "contradicted"),
    ],
)
def test_what_a_figure_says(relation: str, ours: Ours, wanted: str) -> None:
    assert verdict(10.0, 0.5, relation, ours) == wanted


def test_one_contradicted_figure_contradicts_a_claim() -> None:
    assert overall(["reproduced", "contradicted", "not computable"]) == "contradicted"
    assert overall(["reproduced", "within bounds"]) == "within bounds"
    assert overall(["not computable", "reproduced"]) == "reproduced"
    assert overall(["not computable"]) == "not computable"


def test_every_kind_is_used_and_texts_are_ascii() -> None:
    used = {type(figure.kind) for claim in load_claims() for figure in claim.figures}
    assert used == set(KINDS.values())
    assert all(path.read_text().isascii() for path in DATA.glob("*.yaml"))


def test_an_unknown_claim_is_one_line() -> None:
    with pytest.raises(SpecError, match=r"only=KL-O1: no such claim; did you mean"):
        claims_document(["KL-O1"])


def test_markdown_and_rows(document: dict[str, Any]) -> None:
    text = claims_markdown(document)
    assert text.count("\n## ") == len(document["claims"])
    assert "| KL-01" not in text
    assert "| context without end | 75.00 % | 74.07 % | contradicted | closed form |" in text
    rows = figure_rows(document)
    assert len(rows) == sum(len(claim["figures"]) for claim in document["claims"])
    json.dumps(document, allow_nan=False)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(0.7407, "%", "74.07 %"), (28.444, "x", "28.44x"), (126976, "FLOP", "126,976 FLOP")],
)
def test_figures_for_people(value: float, unit: str, text: str) -> None:
    assert figure_text(value, unit) == text


PAGE = Path(__file__).parent.parent / "docs" / "claims.md"


def test_the_page_in_docs_is_what_the_command_prints(document: dict[str, Any]) -> None:
    """But for measured times, which move with the rows: hybridsim claims format=markdown."""

    def steady(text: str) -> list[str]:
        return [line for line in text.splitlines() if not line.startswith("| measured at")]

    assert steady(PAGE.read_text()) == steady(claims_markdown(document))


@pytest.mark.parametrize(
    ("claim", "phase", "name", "context", "device"),
    [
        ("KL-03", "decode", "measured at 512k", 512 * K, "h100"),
        ("KL-03", "decode", "measured at 1M", M, "h100"),
        ("KL-04", "prefill", "measured at 512k", 512 * K, "h100"),
        ("KL-04", "prefill", "measured at 1M", M, "h200"),
    ],
)
def test_measured_ratios_are_those_of_the_devices_profile(
    claim: str,
    phase: str,
    name: str,
    context: int,
    device: str,
    figures: dict[tuple[str, str], dict[str, Any]],
) -> None:
    found = profile("kimi_linear", hardware=device, contexts=[context], flops={"count": False})
    figure, (row,) = figures[claim, name], found.sweep
    assert row[f"twin_{phase}_provenance"] in MEASURED_TIMES  # shipped rows
    ratio = row[f"twin_{phase}_latency_s"] / row[f"{phase}_latency_s"]
    assert figure["ours_value"] == pytest.approx(ratio)
    assert figure["ours_low"] < ratio < figure["ours_high"]
    assert figure["provenance"] in MEASURED_TIMES


def test_a_device_without_rows_is_not_guessed() -> None:
    claim = next(claim for claim in load_claims() if claim.id == "KL-03")
    measured = next(f.kind for f in claim.figures if f.name == "measured at 1M")
    assert isinstance(measured, TimeRatio)
    other = replace(measured, hardware="mi300x").compute()
    assert other == "measured rows of mi300x; it has none"
