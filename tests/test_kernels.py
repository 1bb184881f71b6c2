"""Every Triton kernel is its reference: natively on a GPU, elsewhere in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import interpreted
import pytest
import torch
import torch.nn.functional as F
from cases import MIXER_CASES
from closeness import assert_close
from torch import Tensor

from hybridsim import kernels, load_spec
from hybridsim.components import NormSettings, RopeSettings
from hybridsim.ffn import FfnSettings, ffn_class
from hybridsim.ffn.dense.settings import DenseSettings
from hybridsim.ffn.moe.module import Experts
from hybridsim.ffn.moe.ops import route, weighted_sum
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.graph import build_graph
from hybridsim.kernels import choice
from hybridsim.kernels.arguments import Gate, Norm
from hybridsim.mixers import mixer_class
from hybridsim.mixers.block_sparse import ops as sparse_ops
from hybridsim.mixers.block_sparse.ops import block_scores, select_blocks
from hybridsim.mixers.mamba1.ops import naive_selective_scan
from hybridsim.mixers.sparse_mla import ops
from hybridsim.model.build import initialize
from hybridsim.model.model import HybridLM
from hybridsim.nn.activation import gated
from hybridsim.nn.attention import causal_attention
from hybridsim.nn.cache import ModelCache, RecurrentCache
from hybridsim.nn.conv import ShortConvolution
from hybridsim.nn.linear import linear, normed_linears
from hybridsim.nn.mixer import MixerPlace
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.quantize import dequantize, quantize
from hybridsim.nn.rope import RotaryEmbedding

pytestmark = pytest.mark.skipif(not kernels.available(), reason="Triton is not installed")

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])


@pytest.fixture(autouse=True)
def _references() -> Any:
    """What a kernel is compared with must not run the kernel itself."""
    with choice.forcing(choice.REFERENCE):
        yield


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: Any) -> str:
    if request.param == "cpu" and not interpreted.INTERPRETED:
        pytest.skip("kernels of this process run on its CUDA device, not in the interpreter")
    return str(request.param)


def draw(*shape: int, device: str, dtype: torch.dtype) -> Tensor:
    return torch.randn(*shape, device=device).to(dtype)


def check(name: str, got: Tensor, wanted: Tensor, dtype: torch.dtype) -> None:
    assert got.dtype == dtype
    assert_close(name, got.double(), wanted.double(), TOLERANCE[dtype])


def on(device: str, length: int) -> Tensor:
    return torch.tensor([length], dtype=torch.int32, device=device)


# batch, heads, key heads, key and value channels, capacity, lengths, window, sinks
DECODES = {
    "mha": (2, 2, 2, 64, 64, 300, (1, 77, 300), None, False),
    "gqa5": (1, 10, 2, 32, 32, 257, (256, 257), None, False),
    "gqa8-256": (1, 16, 2, 256, 256, 70, (69,), None, False),
    "gqa16": (2, 16, 1, 128, 128, 140, (139,), None, False),
    "unequal": (1, 6, 2, 48, 24, 400, (399,), None, False),
    "window": (2, 8, 4, 64, 64, 600, (5, 128, 599), 128, False),
    "window-odd": (1, 4, 2, 16, 16, 500, (450,), 301, True),
    "sinks": (2, 8, 2, 64, 64, 500, (2, 499), None, True),
    "many-rows": (7, 12, 3, 16, 16, 40, (33,), None, True),
}


@DTYPES
@pytest.mark.parametrize("case", DECODES.values(), ids=DECODES)
def test_decode_attention(case: Any, dtype: torch.dtype, device: str) -> None:
    batch, heads, key_heads, key_dim, value_dim, capacity, lengths, window, has_sinks = case
    q = draw(batch, heads, key_dim, device=device, dtype=dtype)
    keys = draw(batch, capacity, key_heads, key_dim, device=device, dtype=dtype)
    values = draw(batch, capacity, key_heads, value_dim, device=device, dtype=dtype)
    sinks = draw(heads, device=device, dtype=dtype) if has_sinks else None
    for length in lengths:
        got = kernels.decode_attention(q, keys, values, on(device, length), 0.2, window, sinks)
        wanted = causal_attention(
            q[:, None].double(),
            keys[:, :length].double(),
            values[:, :length].double(),
            0.2,
            window,
            None if sinks is None else sinks.double(),
        )[:, 0]
        check(f"length {length}", got, wanted, dtype)


def test_decode_attention_sees_a_whole_ring(device: str) -> None:
    q = draw(1, 4, 32, device=device, dtype=torch.float32)
    ring = draw(1, 50, 2, 32, device=device, dtype=torch.float32)
    wanted = causal_attention(q[:, None], ring, ring, 0.2)[:, 0]
    got = kernels.decode_attention(q, ring, ring, on(device, 10_000), 0.2)
    check("ring", got, wanted, torch.float32)


def test_decode_attention_reads_part_of_a_longer_storage(device: str) -> None:
    q = draw(2, 4, 32, device=device, dtype=torch.float32)
    storage = draw(2, 90, 2, 32, device=device, dtype=torch.float32)
    seen = storage[:, :50]
    wanted = causal_attention(q[:, None], seen, seen, 0.2)[:, 0]
    check("slice", kernels.decode_attention(q, seen, seen, on(device, 50), 0.2), wanted, q.dtype)


# batch, heads, rank, rope, capacity, lengths
LATENTS = {
    "kimi": (1, 32, 512, 64, 70, (65,)),
    "deepseek": (1, 128, 512, 64, 40, (33,)),
    "tiny": (3, 2, 32, 16, 700, (1, 130, 699)),
    "no-rope": (2, 5, 48, 0, 300, (299,)),
    "long": (1, 16, 64, 16, 1200, (513, 1200)),
}


@DTYPES
@pytest.mark.parametrize("case", LATENTS.values(), ids=LATENTS)
def test_latent_decode_attention(case: Any, dtype: torch.dtype, device: str) -> None:
    batch, heads, rank, rope, capacity, lengths = case
    q = draw(batch, heads, rank + rope, device=device, dtype=dtype)
    latents = draw(batch, capacity, rank + rope, device=device, dtype=dtype)
    for length in lengths:
        seen = latents[:, :length, None].double()
        wanted = causal_attention(q[:, None].double(), seen, seen[..., :rank], 0.1)[:, 0]
        got = kernels.latent_decode_attention(q, latents, on(device, length), 0.1, rank)
        check(f"length {length}", got, wanted, dtype)


# tokens, settings, width
MIXTURES = {
    "one": (1, MoESettings(16, 4, 48), 80),
    "shared": (9, MoESettings(5, 3, 24), 40),
    "crowded": (64, MoESettings(3, 2, 32), 64),
    "biased": (3, MoESettings(8, 2, 40, activation="swiglu_oai", expert_bias=True), 72),
    "limited": (2, MoESettings(8, 2, 40, activation_limit=0.5), 72),
    "ungated": (4, MoESettings(8, 2, 40, activation="relu2", gated=False), 72),
    "gelu": (4, MoESettings(8, 2, 40, activation="gelu"), 72),
    "gelu_tanh": (4, MoESettings(8, 2, 40, activation="gelu_tanh"), 72),
    "wide": (1, MoESettings(12, 8, 136), 264),
}


@DTYPES
@pytest.mark.parametrize("case", MIXTURES.values(), ids=MIXTURES)
def test_moe_small(case: Any, dtype: torch.dtype, device: str) -> None:
    tokens, settings, width = case
    reference = Experts(settings, width).to(device)
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=width**-0.5).data.copy_(parameter.to(dtype))
    x = draw(tokens, width, device=device, dtype=dtype)
    top = settings.num_experts_per_tok
    scores = torch.rand(tokens, settings.num_experts, device=device)
    weights, experts = scores.topk(top, dim=-1, sorted=False)
    with torch.no_grad():
        wanted = reference.double()(x.double(), weights, experts)
    weight = {n: p.detach().to(dtype) for n, p in reference.named_parameters()}
    name = "gate_up_proj" if settings.gated else "up_proj"
    got = kernels.moe_small(
        x,
        weight[name],
        weight["down_proj"],
        weights,
        experts,
        settings.activation,
        gated=settings.gated,
        limit=settings.activation_limit,
        up_bias=weight.get(f"{name}_bias"),
        down_bias=weight.get("down_proj_bias"),
    )
    check("out", got, wanted, dtype)


@DTYPES
@pytest.mark.parametrize("unit_offset", [False, True])
@pytest.mark.parametrize(("rows", "width", "groups"), [((3,), 100, 1), ((2, 350), 48, 3)])
def test_rms_norm(
    rows: tuple[int, ...], width: int, groups: int, unit_offset: bool, dtype: torch.dtype,
    device: str,
) -> None:  # fmt: skip
    reference = RMSNorm(width, NormSettings(eps=1e-3, unit_offset=unit_offset), groups).to(device)
    weight = reference.weight.data.normal_().copy_(reference.weight.to(dtype)).to(dtype)
    wide_rows = draw(*rows, width + 7, device=device, dtype=dtype)
    x, residual = wide_rows[..., :width], draw(*rows, width, device=device, dtype=dtype)
    got = kernels.rms_norm(x, weight, 1e-3, unit_offset, groups=groups)
    with torch.no_grad():
        check("norm", got, reference(x), dtype)
        got, total = kernels.rms_norm(x, weight, 1e-3, unit_offset, residual, groups)
        check("normalised sum", got, reference(x + residual), dtype)
    check("sum", total, x + residual, dtype)


@DTYPES
@pytest.mark.parametrize("gate_first", [False, True])
@pytest.mark.parametrize("activation", ["silu", "sigmoid"])
@pytest.mark.parametrize("groups", [1, 4])
def test_gated_rms_norm(
    groups: int, activation: str, gate_first: bool, dtype: torch.dtype, device: str
) -> None:
    x = draw(2, 5, 88, device=device, dtype=torch.float32)
    gate = draw(2, 5, 100, device=device, dtype=dtype)[..., 12:]
    reference = RMSNorm(88, NormSettings(eps=1e-5), groups).to(device)
    weight = reference.weight.data.normal_()
    factor = F.silu(gate.float()) if activation == "silu" else gate.float().sigmoid()
    with torch.no_grad():
        wanted = reference(x * factor) if gate_first else reference(x) * factor
    got = kernels.gated_rms_norm(
        x, gate, weight, 1e-5, activation, gate_first=gate_first, groups=groups
    )
    check("out", got, wanted, dtype)


@DTYPES
@pytest.mark.parametrize(("scale", "limit"), [(1.0, None), (0.5, 0.4)])
@pytest.mark.parametrize(("rows", "inner"), [((1,), 40), ((2, 300), 24), ((3,), 1500)])
def test_silu_mul(
    rows: tuple[int, ...], inner: int, scale: float, limit: float | None, dtype: torch.dtype,
    device: str,
) -> None:  # fmt: skip
    gate_up = draw(*rows, 2 * inner, device=device, dtype=dtype)
    wanted = gated("silu", gate_up.double(), scale, limit)
    check("out", kernels.silu_mul(gate_up, scale, limit), wanted, dtype)


@DTYPES
@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_linears(rows: int, dtype: torch.dtype, device: str) -> None:
    sizes = [(70, 37), (70, 5), (1100, 130)]  # inputs, outputs
    xs = [draw(rows, 1, inputs, device=device, dtype=dtype) for inputs, _ in sizes]
    weights = [draw(n, inputs, device=device, dtype=dtype) for inputs, n in sizes]
    biases = [None, draw(5, device=device, dtype=dtype), None]
    for x, weight, bias, got in zip(
        xs, weights, biases, kernels.linears(xs, weights, biases), strict=True
    ):
        wanted = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
        check("out", got, wanted, dtype)


@DTYPES
@pytest.mark.parametrize("unit_offset", [False, True])
@pytest.mark.parametrize("rows", [1, 3, 4])
def test_linears_of_a_norm(rows: int, unit_offset: bool, dtype: torch.dtype, device: str) -> None:
    reference = RMSNorm(1100, NormSettings(eps=1e-2, unit_offset=unit_offset)).to(device)
    reference.weight.data.normal_().copy_(reference.weight.to(dtype))
    x = draw(rows, 1, 1100, device=device, dtype=dtype)
    weights = [draw(n, 1100, device=device, dtype=dtype) / 33 for n in (37, 70, 5)]
    biases = [None, draw(70, device=device, dtype=dtype), None]
    norm = Norm(reference.weight.detach().to(dtype), 1e-2, unit_offset)
    with torch.no_grad():
        normed = reference.double()(x.double())
    plain, halves, narrow, kept = kernels.normed_linears(
        x, norm, weights, biases, gated=[False, True, False], gate=Gate("gelu", 0.5, 0.7), keep=True
    )
    first, second, third = (
        F.linear(normed, weight.double(), None if bias is None else bias.double())
        for weight, bias in zip(weights, biases, strict=True)
    )
    check("plain", plain, first, dtype)
    check("gated", halves, gated("gelu", second, 0.5, 0.7), dtype)
    check("narrow", narrow, third, dtype)
    check("normalised", kept, normed, dtype)


@DTYPES
@pytest.mark.parametrize("rows", [1, 2])
def test_a_linear_added_to_something(rows: int, dtype: torch.dtype, device: str) -> None:
    x, residual = (draw(rows, 1, n, device=device, dtype=dtype) for n in (300, 21))
    weight, bias = (draw(*shape, device=device, dtype=dtype) for shape in ((21, 300), (21,)))
    wanted = residual.double() + F.linear(x.double(), weight.double(), bias.double())
    check("out", kernels.added_linear(x, weight, bias, residual), wanted, dtype)


def test_products_of_many_rows_are_the_librarys(device: str) -> None:
    layer = torch.nn.Linear(24, 40).to(device)
    with choice.forcing("triton"), torch.no_grad():
        for rows, wanted in ((4, choice.OURS), (5, choice.REFERENCE)):
            choice.clear_report()
            x = draw(rows, 24, device=device, dtype=torch.float32)
            check("out", linear(layer, x), layer(x), torch.float32)
            assert choice.report() == {"linears": wanted}


@DTYPES
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("channels", "size", "activation"), [(70, 4, "silu"), (300, 2, "identity")]
)
def test_short_conv_step(
    channels: int, size: int, activation: str, bias: bool, dtype: torch.dtype, device: str
) -> None:
    reference = ShortConvolution(channels, size, bias=bias, activation=activation).to(device)
    for parameter in reference.parameters():
        parameter.data.normal_().copy_(parameter.to(dtype))
    weights = [p.detach().to(dtype) for p in reference.parameters()]
    state = draw(3, size - 1, channels, device=device, dtype=dtype)
    cache = RecurrentCache()
    cache.conv = state.float()
    for step in range(5):
        x = draw(3, channels + 5, device=device, dtype=dtype)[:, :channels]
        with torch.no_grad():
            wanted = reference(x.float()[:, None], cache)[:, 0]
        got = kernels.short_conv_step(x, state, weights[0], *weights[1:], activation=activation)
        check(f"step {step}", got, wanted, dtype)
        assert cache.conv is not None
        assert torch.equal(state.float(), cache.conv)


# batch, queries, heads, rank, rope, storage, selected
SELECTIONS = {
    "decode": (2, 1, 5, 32, 16, 400, 300),
    "prefill": (1, 40, 16, 48, 0, 90, 33),
    "deepseek": (1, 2, 128, 512, 64, 50, 24),
}


@DTYPES
@pytest.mark.parametrize("case", SELECTIONS.values(), ids=SELECTIONS)
def test_selected_attention(case: Any, dtype: torch.dtype, device: str) -> None:
    batch, queries, heads, rank, rope, storage, count = case
    q = draw(batch, queries, heads, rank + rope, device=device, dtype=dtype)
    latents = draw(batch, storage, rank + rope, device=device, dtype=dtype)
    indices = torch.rand(batch, queries, storage, device=device).argsort(-1)[..., :count]
    indices[..., 5::7] = -1
    indices[:, 0, :200] = torch.where(torch.arange(min(count, 200), device=device) == 3, 7, -1)
    wanted = ops.selected_attention(q.double(), latents.double(), indices, rank, 0.1)
    check("out", kernels.selected_attention(q, latents, indices, 0.1, rank), wanted, dtype)
    got = kernels.selected_attention(q, latents, indices.to(torch.int32), 0.1, rank)
    check("int32", got, wanted, dtype)


# batch, queries, heads, key heads, channels, block size, storage, blocks
SPARSE = {
    "decode": (2, 1, 6, 2, 32, 16, 400, 20),
    "prefill": (1, 50, 4, 2, 16, 5, 70, 4),
    "minimax": (1, 2, 32, 2, 128, 32, 150, 3),
}


@DTYPES
@pytest.mark.parametrize("case", SPARSE.values(), ids=SPARSE)
def test_block_attention(case: Any, dtype: torch.dtype, device: str) -> None:
    batch, queries, heads, key_heads, width, size, storage, count = case
    q = draw(batch, queries, heads, width, device=device, dtype=dtype)
    keys, values = draw(2, batch, storage, key_heads, width, device=device, dtype=dtype)
    past = storage - 3 - queries
    seen = slice(0, past + queries)
    scores = block_scores(
        draw(batch, queries, key_heads, 8, device=device, dtype=torch.float32),
        draw(batch, past + queries, 8, device=device, dtype=torch.float32),
        size,
    )
    blocks = select_blocks(scores, past, size, count, 1)
    # In no order, and some missing.
    blocks[..., 0, :2] = torch.tensor([-1, past // size], device=device)
    wanted = sparse_ops.block_attention(
        q.double(), keys[:, seen].double(), values[:, seen].double(), blocks, size, 0.2
    )
    got = kernels.block_attention(q, keys, values, blocks, size, past, 0.2)
    check("out", got, wanted, dtype)
    got = kernels.block_attention(q, keys, values, blocks, size, on(device, past), 0.2)
    check("device-side past", got, wanted, dtype)


# batch, queries, heads, channels, tokens
INDEXERS = {
    "decode": (2, 1, 4, 32, 300),
    "prefill": (1, 37, 20, 24, 150),
    "64": (1, 3, 64, 128, 70),
}


@DTYPES
@pytest.mark.parametrize("case", INDEXERS.values(), ids=INDEXERS)
def test_index_scores(case: Any, dtype: torch.dtype, device: str) -> None:
    batch, queries, heads, width, tokens = case
    q = draw(batch, queries, heads, width, device=device, dtype=dtype)
    keys = draw(batch, tokens + 9, width, device=device, dtype=dtype)
    weights = draw(batch, queries, heads, device=device, dtype=torch.float32)
    wanted = ops.index_scores(q.double(), keys[:, :tokens].double(), weights.double())
    visible = wanted > -torch.inf
    for name, got in (
        ("slice", kernels.index_scores(q, keys[:, :tokens], weights)),
        ("length", kernels.index_scores(q, keys, weights, on(device, tokens))),
    ):
        assert (got[..., tokens:] == -torch.inf).all()
        got = got[..., :tokens]
        assert torch.equal(got > -torch.inf, visible)
        check(name, got[visible], wanted[visible], torch.float32)


# tokens, heads, channels, turned channels, neighbours
ROTATED = {
    "whole": (5, 3, 32, 32, False),
    "part": (4, 5, 24, 10, False),
    "neighbours": (3, 2, 16, 16, True),
    "part, neighbours": (1, 20, 40, 8, True),
}


@DTYPES
@pytest.mark.parametrize("case", ROTATED.values(), ids=ROTATED)
def test_rotation(case: Any, dtype: torch.dtype, device: str) -> None:
    tokens, heads, width, turned, neighbours = case
    settings = RopeSettings(
        rotary_dim=turned, interleaved=neighbours, scaling="yarn", factor=4.0, original_context=32
    )
    rope = RotaryEmbedding(settings, width).to(device)
    wide = draw(2, tokens, heads, width + 8, device=device, dtype=dtype)
    x = wide[..., 8:]  # channels of a wider projection
    wanted = rope(x.double(), 1000)
    for past in (1000, torch.tensor([1000], device=device)):
        got = kernels.rotate(x, rope.inv_freq, past, rope.factor, interleaved=neighbours)
        check(f"past {past}", got, wanted, dtype)


# tokens, experts, top, router, normalised, bias
ROUTERS = {
    "sigmoid": (5, 256, 8, "sigmoid", True, True),
    "softmax": (3, 20, 4, "softmax", True, False),
    "plain": (1, 130, 1, "softmax", False, False),
}


@pytest.mark.parametrize("case", ROUTERS.values(), ids=ROUTERS)
def test_routing(case: Any, device: str) -> None:
    tokens, count, top, kind, normalize, biased = case
    settings = MoESettings(
        num_experts=count,
        num_experts_per_tok=top,
        intermediate_size=8,
        router=kind,
        norm_topk_prob=normalize,
        score_correction_bias=biased,
        routed_scaling_factor=2.5,
    )
    logits = draw(tokens, count, device=device, dtype=torch.float32)
    bias = draw(count, device=device, dtype=torch.float32) if biased else None
    wanted = route(logits.double(), settings, None if bias is None else bias.double())
    weights, experts = kernels.route(
        logits, bias, top, sigmoid=kind == "sigmoid", normalize=normalize, factor=2.5
    )
    order, other = experts.sort(-1), wanted[1].sort(-1)
    assert torch.equal(order.values, other.values)
    check("w", weights.gather(1, order.indices), wanted[0].gather(1, other.indices), torch.float32)


@DTYPES
def test_sums_of_rows(dtype: torch.dtype, device: str) -> None:
    rows = draw(30, 1100, device=device, dtype=dtype)
    weights = draw(10, 3, device=device, dtype=torch.float32)
    order = torch.randperm(30, device=device)
    wanted = weighted_sum(rows.double(), order, weights.double())
    places = torch.empty_like(order).scatter_(0, order, torch.arange(30, device=device))
    check("out", kernels.sum_of_rows(rows, places.view(10, 3), weights), wanted, dtype)


@pytest.mark.parametrize("tokens", [1, 5, 300])
@pytest.mark.parametrize(("width", "size"), [(40, 16), (32, 5)])
def test_selective_scan(width: int, size: int, tokens: int, device: str) -> None:
    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, device=device)

    given = [
        draw(2, tokens, width, device=device, dtype=torch.float32),
        0.2 * uniform(2, tokens, width),
        -2 * uniform(width, size),
        draw(2, tokens, size, device=device, dtype=torch.float32),
        draw(2, tokens, size, device=device, dtype=torch.float32),
        draw(2, width, size, device=device, dtype=torch.float32),
    ]
    wanted = naive_selective_scan(*(x.double() for x in given))
    got = kernels.selective_scan(*given)
    check("out", got[0], wanted[0], torch.float32)
    check("state", got[1], wanted[1], torch.float32)


WIRED = [
    ("attention", "gate_norm"),
    ("attention", "sinks_window"),
    ("mla", "head_gate"),
    ("sparse_mla", "fp8"),
    ("sparse_mla", "interleaved"),
    ("block_sparse", "blocks"),
    ("kda", "chunk32"),
    ("mamba1", "jamba"),
    ("mamba2", "norm_first_biases_limits"),
]


@pytest.mark.parametrize(("kind", "name"), WIRED)
def test_mixers_decode_over_them(kind: str, name: str, device: str) -> None:
    settings = MIXER_CASES[kind][name]
    place = MixerPlace(32, NormSettings(), layer=1, num_layers=4)
    mixer = mixer_class(kind)(settings, place)
    initialize(mixer, seed=0)
    x = torch.randn(2, 31, 32)
    outputs = []
    for implementation, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        mixer = mixer.to(device, dtype)
        cache = ModelCache({"mixer": mixer.new_cache(40)})
        cache.make_static(40, torch.device(device))
        parts = []
        with choice.forcing(implementation), torch.inference_mode():
            choice.clear_report()
            for part in x.to(device, dtype).split([27, 1, 1, 1, 1], dim=1):
                cache.begin(part.shape[1])
                parts.append(mixer(part, cache.layers["mixer"], cache.past))
                cache.end(part.shape[1])
        outputs.append(torch.cat(parts, dim=1))
    assert choice.OURS in " ".join(choice.report().values())
    check("out", outputs[1], outputs[0], torch.float32)


@pytest.mark.filterwarnings("ignore:overflow")  # the interpreter's sigmoid of what is far below 0
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize(("kind", "name"), [(k, n) for k in ("kda", "mla") for n in MIXER_CASES[k]])
def test_a_step_of_a_mixer_is_its_parts(kind: str, name: str, rows: int, device: str) -> None:
    settings, place = MIXER_CASES[kind][name], MixerPlace(32, NormSettings(eps=1e-3))
    mixer, norm = mixer_class(kind)(settings, place), RMSNorm(32, place.norm)
    initialize(mixer, seed=0)
    norm.weight.data.normal_()
    x = torch.randn(rows, 20, 32)
    outputs, ran = [], []
    for implementation, dtype in (("reference", torch.float64), ("triton", torch.float32)):
        mixer, norm = mixer.to(device, dtype), norm.to(device, dtype)
        cache = ModelCache({"mixer": mixer.new_cache(30)})
        cache.make_static(30, torch.device(device))
        parts = []
        with choice.forcing(implementation), torch.inference_mode():
            for part in x.to(device, dtype).split([16, 1, 1, 1, 1], dim=1):
                cache.begin(part.shape[1])
                layer = cache.layers["mixer"]
                out = mixer.step(norm, part, layer, cache.past) if part.shape[1] == 1 else None
                ran.append(out is not None)
                if out is None:
                    out = part + mixer(norm(part), layer, cache.past)
                parts.append(out)
                cache.end(part.shape[1])
        outputs.append(torch.cat(parts, dim=1))
    check("out", outputs[1], outputs[0], torch.float32)
    fusible = name not in ("head_gate",)
    assert ran == [False] * 5 + [False] + [fusible] * 4


# Feed-forwards whose steps are few launches, and those that go the long way.
SHORT: dict[str, FfnSettings] = {
    "dense": DenseSettings(70),
    "dense, all": DenseSettings(33, "gelu", bias=True, gate_scale=0.5, activation_limit=0.8),
    "moe": MoESettings(12, 3, 40, num_shared_experts=1, router="sigmoid"),
    "moe, all": MoESettings(
        5, 2, 24, num_shared_experts=2, router_bias=True, score_correction_bias=True,
        expert_bias=True, norm_topk_prob=False, routed_scaling_factor=2.0, activation="gelu",
        activation_limit=0.5, shared_activation_limit=0.4,
    ),
}  # fmt: skip
LONG: dict[str, FfnSettings] = {
    "dense, plain": DenseSettings(70, "relu2", gated=False),
    "dense, scaled": DenseSettings(70, down_scale=0.5),
    "moe, alone": MoESettings(12, 3, 40),
    "moe, gated": MoESettings(12, 3, 40, num_shared_experts=1, shared_expert_gate=True),
    "moe, latent": MoESettings(12, 3, 40, num_shared_experts=1, latent_size=16),
    "moe, groups": MoESettings(12, 3, 40, num_shared_experts=1, num_groups=3, topk_groups=2),
}


def stepped_ffn(settings: FfnSettings, rows: int, dtype: torch.dtype, device: str) -> Any:
    """Return what a feed-forward's step gives, and what its parts give in float64."""
    ffn, norm = ffn_class(settings.kind)(settings, 48), RMSNorm(48, NormSettings(eps=1e-3))
    initialize(ffn, seed=0)
    norm.weight.data.normal_()
    for name, bias in [*ffn.named_parameters(), *ffn.named_buffers()]:
        if "bias" in name:
            bias.data.normal_()
    # The same numbers on every device: near ties, a rounding chooses another expert.
    x = draw(rows, 1, 48, device="cpu", dtype=dtype).to(device)
    ffn, norm = ffn.to(device, dtype), norm.to(device, dtype)
    with torch.inference_mode():
        with choice.forcing("triton"):
            got = ffn.step(norm, x)
        wide, norm = ffn.double(), norm.double()
        return got, x.double() + wide(norm(x.double()))


@DTYPES
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("settings", SHORT.values(), ids=SHORT)
def test_a_step_of_a_feed_forward_is_its_parts(
    settings: FfnSettings, rows: int, dtype: torch.dtype, device: str
) -> None:
    got, wanted = stepped_ffn(settings, rows, dtype, device)
    check("out", got, wanted, dtype)


@pytest.mark.parametrize("settings", LONG.values(), ids=LONG)
def test_other_feed_forwards_go_the_long_way(settings: FfnSettings, device: str) -> None:
    assert stepped_ffn(settings, 1, torch.float32, device)[0] is None


def test_a_forced_part_runs_by_itself(device: str) -> None:
    x, layer = draw(1, 24, device=device, dtype=torch.float32), torch.nn.Linear(24, 40).to(device)
    norm = RMSNorm(24, NormSettings()).to(device)
    with torch.no_grad(), choice.forcing("triton"):
        for part, wanted in (("rotate", choice.OURS), ("rms_norm", None)):
            choice.clear_report()
            with choice.forcing("reference", part):
                (got,) = normed_linears(norm, x, layer)
            assert choice.report().get("normed_linears") == wanted
            check("out", got, layer(norm(x)), torch.float32)


def test_models_step_over_them(device: str) -> None:
    model = HybridLM(build_graph(load_spec("kimi_linear_tiny"))).to(device)
    initialize(model, seed=0)
    tokens = torch.randint(0, model.spec.vocab_size, (2, 24), device=device)
    logits = []
    for implementation in ("reference", "triton"):
        cache = model.new_static_cache(30)
        choice.clear_report()
        with torch.inference_mode():
            model(tokens[:, :20], cache)
            with choice.forcing(implementation):
                parts = [model(tokens[:, i : i + 1], cache) for i in range(20, 24)]
        logits.append(torch.cat(parts, dim=1))
    check("logits", logits[1], logits[0], torch.float32)
    assert {"kda_step", "absorb", "route_beside", "gated_linears"} <= choice.report().keys()


@pytest.mark.parametrize("path", ["mixer_norm", "mixers.L.o_proj", "ffn"])
def test_who_listens_is_told(path: str, device: str) -> None:
    model = HybridLM(build_graph(load_spec("kimi_linear_tiny"))).to(device)
    initialize(model, seed=0)
    cache, heard = model.new_static_cache(30), []
    part = model.layers[0].get_submodule(path)
    token = torch.zeros(1, 1, dtype=torch.long, device=device)
    with torch.inference_mode(), choice.forcing("triton"), choice.forcing("reference", "linears"):
        model(token, cache)  # gives every part of the cache its place
        handle = part.register_forward_hook(lambda module, *_: heard.append(module))
        model(token, cache)
        assert heard == [part]
        handle.remove()
    with torch.inference_mode(), choice.forcing("triton"):
        model(token, cache)
    assert heard == [part]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 1000, 1025, 5000])
def test_likeliest_tokens(width: int, dtype: torch.dtype, device: str) -> None:
    logits = draw(3, 2, width, device=device, dtype=dtype)[:, -1:]
    logits[1, 0, width // 2] = logits[1, 0, width - 1] = 100.0  # the first of two
    logits[2] = -torch.inf
    tokens = torch.full((3, 1), -1, device=device)
    kernels.likeliest(logits, tokens)
    wanted = [int(logits[0].argmax()), width // 2, 0]
    assert tokens[:, 0].tolist() == wanted


def test_index_scores_of_rounded_keys(device: str) -> None:
    q = draw(2, 5, 16, 32, device=device, dtype=torch.bfloat16)
    weights = draw(2, 5, 16, device=device, dtype=torch.float32)
    rounded, scales = quantize(draw(2, 60, 32, device=device, dtype=torch.bfloat16))
    wanted = ops.index_scores(q.float(), dequantize(rounded, scales), weights)
    got = kernels.index_scores(q, rounded, weights, scales=scales[..., 0].contiguous())
    visible = wanted > -torch.inf
    check("scores", got[visible], wanted[visible], torch.float32)
