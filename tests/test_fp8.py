"""Weights and caches in fp8: what is rounded, by how much, and what is measured with them."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import interpreted
import pytest
import torch
from cases import UNSHIPPED
from closeness import assert_close
from torch import Tensor, nn

from hybridsim import build_model, kernels, load_spec
from hybridsim.cost.model import ModelCosts
from hybridsim.dtypes import FP8_MAX, Dtypes, bytes_of
from hybridsim.errors import HybridsimError
from hybridsim.ffn.moe.module import Experts
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.graph import build_graph
from hybridsim.kernels import choice
from hybridsim.measure.block import Block, graph_blocks, model_blocks
from hybridsim.measure.plan import Task
from hybridsim.measure.point import DECODE, PREFILL, Point, key_dtypes
from hybridsim.measure.run import Bench, Limits, require_formats, require_measurable
from hybridsim.measure.store import OK, Journal, Row, Store
from hybridsim.measure.subject import build_block, make_subject
from hybridsim.model.quantize import wide_weights
from hybridsim.nn.cache import TokenBuffer
from hybridsim.nn.fp8 import Fp8Embedding, Fp8Linear
from hybridsim.nn.quantize import FP8, quantize_rows, saturated

FP8_DTYPES = Dtypes(weights="fp8", activations="fp8", kv="fp8")
HALF_STEP = 2.0**-4  # of a number: three bits after the leading one, rounded to nearest
TINY = ["kimi_linear_tiny", "qwen3_next_tiny", "minimax_m3_tiny", "deepseek_v32_tiny"]
# Rounding makes a layer before them choose other tokens for some queries, and so other outputs.
SELECTING = ("minimax_m3_tiny", "deepseek_v32_tiny")
ATTENDING: dict[str, Any] = {name: name for name in TINY} | UNSHIPPED
REFERENCE = ["kimi_linear", "kimi_linear_mla", "qwen3_next", "llama31_8b", "qwen3_235b"]
REFERENCE += ["minimax_m1", "minimax_m2", "minimax_m3", "deepseek_v3", "deepseek_v32"]


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: Any) -> str:
    """Where a kernel runs: in Triton's interpreter, or on a GPU."""
    if not kernels.available():
        pytest.skip("Triton is not installed")
    if request.param == "cpu" and not interpreted.INTERPRETED:
        pytest.skip("kernels of this process run on its CUDA device, not in the interpreter")
    return str(request.param)


@pytest.fixture(autouse=True)
def _as_users_run() -> None:
    torch.use_deterministic_algorithms(False)
    torch.manual_seed(0)


def norm_error(got: Tensor, wanted: Tensor) -> float:
    return ((got.double() - wanted.double()).norm() / wanted.double().norm()).item()


def block_of(spec: str, part: str) -> Block:
    return next(block for block in model_blocks(load_spec(spec)) if block.part == part)


# Rounding.


def test_a_row_is_rounded_by_half_a_step_at_most() -> None:
    x = torch.randn(50, 300) * torch.logspace(-3, 3, 50)[:, None]
    codes, scales = quantize_rows(x)
    assert codes.dtype == FP8
    assert_close("largest", codes.float().abs().amax(1), torch.full((50,), FP8_MAX), 0.0)
    bound = HALF_STEP * x.abs() + scales[:, None] * 2.0**-10  # the second where it is subnormal
    assert ((codes.float() * scales[:, None] - x).abs() <= bound).all()


def test_what_is_out_of_range_is_at_its_ends() -> None:
    assert torch.finfo(FP8).max == FP8_MAX
    got = saturated(torch.tensor([1e4, -1e4, 3.0])).float()
    assert got.tolist() == [FP8_MAX, -FP8_MAX, 3.0]


@pytest.mark.parametrize("width", [100, 9000])
def test_the_kernel_rounds_as_torch_does(width: int, device: str) -> None:
    x = (torch.randn(3, 2, width + 5, device=device) * 30).bfloat16()[..., :width]
    with choice.forcing(choice.REFERENCE):
        wanted, wanted_scales = quantize_rows(x)
    got, scales = kernels.quantize_rows(x)
    assert_close("scales", scales, wanted_scales, 1e-6)
    # Scales that differ in the last bit round a number between two codes either way.
    assert (got.float() != wanted.float()).float().mean() < 0.01
    assert norm_error(got.float(), wanted.float()) < 1e-2


# Layers.


def test_a_linear_layer_is_the_product_of_what_was_rounded() -> None:
    wide = nn.Linear(256, 64).bfloat16()
    nn.init.normal_(wide.bias)
    x = torch.randn(3, 5, 256).bfloat16()
    layer = Fp8Linear(wide)
    (rows, row_scales), (codes, scales) = quantize_rows(x), quantize_rows(wide.weight.detach())
    exact = (rows.double() * row_scales[..., None]) @ (codes.double() * scales[:, None]).T
    with torch.no_grad():
        assert_close("out", layer(x).double(), exact + wide.bias.double(), 1e-2)
        assert 1e-3 < norm_error(layer(x), wide(x)) < HALF_STEP
    assert not hasattr(layer, "weight")  # nobody reads it without its scales


def test_an_embedding_is_its_rounded_row() -> None:
    wide = nn.Embedding(40, 64).bfloat16()
    tokens = torch.randint(0, 40, (2, 7))
    got, wanted = Fp8Embedding(wide)(tokens), wide(tokens)
    assert got.dtype == wanted.dtype
    assert 1e-3 < norm_error(got, wanted) < HALF_STEP


MIXTURES = {
    "gated": MoESettings(num_experts=5, num_experts_per_tok=2, intermediate_size=48),
    "plain with biases": MoESettings(
        num_experts=4, num_experts_per_tok=3, intermediate_size=32, gated=False,
        activation="relu2", expert_bias=True,
    ),
}  # fmt: skip


def mixture(settings: MoESettings, device: str) -> tuple[Experts, Experts, tuple[Tensor, ...]]:
    """Return experts, the same in fp8, and what goes in."""
    wide = Experts(settings, 80).to(device).bfloat16().requires_grad_(False)
    for parameter in wide.parameters():
        nn.init.normal_(parameter, std=80**-0.5)
    rounded = copy.deepcopy(wide)
    rounded.round_to_fp8()
    scores = torch.rand(9, settings.num_experts, device=device)
    weights, experts = scores.topk(settings.num_experts_per_tok, dim=-1)
    return wide, rounded, (torch.randn(9, 80, device=device).bfloat16(), weights, experts)


@pytest.mark.parametrize("settings", MIXTURES.values(), ids=MIXTURES)
def test_experts_in_fp8(settings: MoESettings) -> None:
    wide, rounded, given = mixture(settings, "cpu")
    with choice.forcing(choice.REFERENCE):
        # Activations are rounded twice, squares double the error.
        assert 1e-3 < norm_error(rounded(*given), wide(*given)) < 2 * HALF_STEP


@pytest.mark.parametrize("settings", MIXTURES.values(), ids=MIXTURES)
def test_few_tokens_of_experts_in_fp8_are_those_of_the_widened(
    settings: MoESettings, device: str
) -> None:
    wide, rounded, given = mixture(settings, device)
    for name, scales in (("up_proj", rounded.up_scales), ("down_proj", rounded.down_scales)):
        name = "gate_up_proj" if settings.gated and name == "up_proj" else name
        assert scales is not None
        codes = getattr(rounded, name)
        getattr(wide, name).copy_((codes.double() * scales[..., None]).mT)
    with choice.forcing("triton", "moe_small"):
        got = rounded(*given)
    with choice.forcing(choice.REFERENCE):
        wanted = wide.double()(given[0].double(), *given[1:])
    assert_close("out", got.double(), wanted, 2e-2)


# Caches.


@pytest.mark.parametrize("sinks", [False, True])
def test_decode_attention_widens_a_cache_in_fp8(sinks: bool, device: str) -> None:
    query = torch.randn(2, 8, 64, device=device).bfloat16()
    keys, values = (saturated(torch.randn(2, 300, 2, 64, device=device)) for _ in range(2))
    length = torch.tensor([210], dtype=torch.int32, device=device)
    options: dict[str, Any] = {"sinks": torch.randn(8, device=device) if sinks else None}
    got, wanted = (
        kernels.decode_attention(query, k, v, length, 0.125, **options)
        for k, v in ((keys, values), (keys.bfloat16(), values.bfloat16()))
    )
    assert_close("out", got, wanted, 1e-3)


def test_latent_attention_widens_a_cache_in_fp8(device: str) -> None:
    query = torch.randn(2, 16, 80, device=device).bfloat16()
    latents = saturated(torch.randn(2, 300, 80, device=device))
    length = torch.tensor([210], dtype=torch.int32, device=device)
    got, wanted = (
        kernels.latent_decode_attention(query, c, length, 0.1, 64)
        for c in (latents, latents.bfloat16())
    )
    assert_close("out", got, wanted, 1e-3)
    chosen = torch.randint(-1, 300, (2, 1, 40), device=device)
    got, wanted = (
        kernels.selected_attention(query[:, None], c, chosen, 0.1, 64)
        for c in (latents, latents.bfloat16())
    )
    assert_close("selected", got, wanted, 1e-3)


def test_a_prompt_reads_its_own_entries_and_a_step_what_is_stored() -> None:
    buffer = TokenBuffer(in_fp8=True)
    first, step = torch.randn(2, 5, 3), torch.randn(2, 1, 3)
    assert buffer.append(first) is first
    seen = buffer.append(step)
    assert seen.dtype == FP8
    assert (seen.float() == saturated(torch.cat((first, step), 1)).float()).all()
    assert buffer.nbytes() == 2 * 6 * 3
    later = buffer.append(first)
    assert later.dtype == first.dtype
    assert later.shape[1] == 11


@pytest.mark.parametrize("spec", ATTENDING.values(), ids=ATTENDING)
def test_static_caches_in_fp8_give_the_logits_of_growing_ones(spec: Any) -> None:
    model = build_model(spec, device="cpu").double()
    tokens = torch.randint(0, model.spec.vocab_size, (3, 40))
    found = []
    for cache in (model.new_cache(), model.new_static_cache(40), model.new_cache()):
        if len(found) < 2:
            cache.store_in_fp8()
        parts = tokens.split([1, 5, 1, 20, 3, *[1] * 10], dim=1)
        with torch.no_grad():
            found.append(torch.cat([model(part, cache) for part in parts], dim=1))
    assert_close("static", found[1], found[0], 1e-9)
    error = norm_error(found[0], found[2])
    assert error > 1e-6  # it makes a difference
    if spec not in SELECTING:
        assert error < 0.2


# Blocks, and what is measured.


@pytest.mark.parametrize("name", REFERENCE)
def test_predicted_weights_in_fp8_are_those_of_the_modules(name: str) -> None:
    graph, allocated = build_graph(load_spec(name)), 0
    for block, times in Counter(block for block, _ in graph_blocks(graph)).items():
        module = build_block(block, "meta", "fp8")
        held = [*module.parameters(), *module.buffers()]
        allocated += times * sum(tensor.numel() * tensor.element_size() for tensor in held)
    predicted = bytes_of(ModelCosts.of(graph).parameters.total, "fp8")
    assert predicted == pytest.approx(allocated, rel=0.03)


@pytest.mark.parametrize("name", REFERENCE)
def test_what_stays_wide_is_named(name: str) -> None:
    allowed = ("router", "kv_b_proj", "conv", "shared_expert_gate", "A_log")
    for block in model_blocks(load_spec(name)):
        left = wide_weights(build_block(block, "meta", "fp8"))
        others = [name for name in left if not any(part in name for part in allowed)]
        assert others == [], block.part


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("point", [Point(PREFILL, 2, 12), Point(DECODE, 2, 12)], ids=str)
def test_blocks_run_in_fp8(name: str, point: Point) -> None:
    for block in model_blocks(load_spec(name)):
        if block.kind != "head" or point.phase == DECODE:
            make_subject(build_block(block, "cpu", "fp8"), block, point, fp8_cache=True).run()


@pytest.mark.parametrize("part", ["kda", "mla", "moe", "dense", "head", "embedding"])
def test_products_in_fp8_have_the_shapes_that_torch_takes(part: str) -> None:
    """Torch's own shape functions check sizes, strides and scales; on the meta device."""
    block, point = block_of("kimi_linear", part), Point(DECODE, 64, 4096)
    module = build_block(block, "meta", "fp8")
    choice.clear_report()
    with choice.tracing(), choice.forcing(choice.REFERENCE):
        make_subject(module, block, point, fp8_cache=True).run()
    wanted = {"moe": "fp8_experts", "embedding": "fp8_embedding"}.get(part, "fp8_linear")
    assert choice.report()[wanted].startswith("torch")


def test_rows_of_other_formats_stay_apart() -> None:
    block, point = block_of("kimi_linear", "mla"), Point(DECODE, 1, 4096)
    formats = (Dtypes(), replace(Dtypes(), kv="fp8"), FP8_DTYPES)
    keys = [key_dtypes(block, dtypes) for dtypes in formats]
    assert keys == ["bf16 bf16 kv bf16", "bf16 bf16 kv fp8", "fp8 fp8 kv fp8"]
    store = Store()
    for key in keys:
        store.add({
            "type": "row", "block": block.signature, "part": "mla", "phase": point.phase,
            "batch": 1, "context": 4096, "dtypes": key, "session": "x", "latency_s": 1.0,
        })  # fmt: skip
    assert len(store.rows) == 3


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"weights": "fp8"}, "dtypes.weights=fp8: .* same dtypes.activations .now bf16"),
        ({"kv": "int8"}, "dtypes.kv=int8: measured only as bf16 or fp8"),
        ({"weights": "fp16", "activations": "fp16", "kv": "fp8"}, "dtypes.kv=fp8: .* as fp16"),
    ],
)
def test_formats_without_a_path_are_one_line(changes: dict[str, str], line: str) -> None:
    with pytest.raises(HybridsimError, match=line):
        require_measurable(replace(Dtypes(), **changes))


@pytest.mark.parametrize("dtypes", [FP8_DTYPES, replace(Dtypes(), kv="fp8")])
def test_a_device_without_fp8_is_one_line(dtypes: Dtypes) -> None:
    require_measurable(dtypes)
    with pytest.raises(HybridsimError, match=r"fp8: a CUDA device of compute capability 9\.0"):
        require_formats(dtypes, torch.device("cpu"))


# On the device.


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [1, 17, 4096])
def test_a_linear_layer_on_the_device_is_the_reference(rows: int) -> None:
    layer = Fp8Linear(nn.Linear(512, 272).bfloat16()).requires_grad_(False)
    x = torch.randn(1, rows, 512).bfloat16()
    wanted = layer(x)
    assert_close("out", layer.cuda()(x.cuda()).cpu(), wanted, 2e-2)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", MIXTURES.values(), ids=MIXTURES)
def test_many_tokens_of_experts_on_the_device_are_the_reference(settings: MoESettings) -> None:
    _, rounded, (x, weights, experts) = mixture(settings, "cpu")
    given = [part.repeat(60, 1) for part in (x, weights, experts)]
    wanted = rounded(*given)
    got = rounded.cuda()(*(part.cuda() for part in given))
    # An activation between two codes may be rounded either way: a step, in few of them.
    assert norm_error(got.cpu(), wanted) < 2e-2


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", ["kda", "mla", "moe", "dense", "head", "embedding"])
@pytest.mark.parametrize("point", [Point(PREFILL, 1, 2048), Point(DECODE, 32, 4096)], ids=str)
def test_a_block_in_fp8_is_near_that_in_bf16(part: str, point: Point) -> None:
    block = block_of("kimi_linear", part)
    if block.kind == "head" and point.phase == PREFILL:
        pytest.skip("a head has one position")
    outputs = []
    for dtype in ("bf16", "fp8"):
        module = build_block(block, "cuda", dtype)
        kept: list[Tensor] = []
        module.register_forward_hook(lambda _, __, out, kept=kept: kept.append(_first(out)))
        torch.manual_seed(1)  # of what fills the cache
        step = make_subject(module, block, point, fp8_cache=dtype == "fp8")
        step.prepare(0)
        step.run()
        outputs.append(kept[-1])
    # Three roundings one after the other at most. A cache in fp8 is filled with other numbers.
    if part != "mla" or point.phase == PREFILL:
        assert 1e-4 < norm_error(outputs[1], outputs[0]) < 3 * HALF_STEP
    assert outputs[1].isfinite().all()
    assert outputs[1].dtype == torch.bfloat16


def _first(out: Any) -> Tensor:
    found = out[0] if isinstance(out, tuple) else out
    assert isinstance(found, Tensor)
    return found


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_rows_in_fp8_are_measured_and_say_what_ran(tmp_path: Path) -> None:
    from hybridsim.measure.session import begin_session, make_timer

    timer = make_timer("cuda")
    session = begin_session(timer)
    assert session.flops_per_s["fp8"] > 1.3 * session.flops_per_s["bf16"]
    journal = Journal(tmp_path / "rows.jsonl")
    bench = Bench(session, timer, journal, Store(), FP8_DTYPES, Limits(sampling_s=0.1))
    wanted = {
        "kda": "fp8_linear",
        "mla": "kv_cache: fp8",
        "moe": "moe_small",
        "dense": "fp8_linear",
    }
    rows: dict[str, Row] = {}
    tasks = [Task(block_of("kimi_linear", part), Point(DECODE, 8, 4096)) for part in wanted]
    bench.run(tasks, lambda task, row: rows.update({task.block.part: row}))
    for part, label in wanted.items():
        assert (rows[part].status, rows[part].mode) == (OK, "graph"), rows[part].note
        assert rows[part].dtypes.startswith("fp8 fp8")
        assert label in rows[part].backend
    assert "bf16: mixers" in rows["mla"].backend  # the second half of MLA's projection
