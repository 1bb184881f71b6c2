"""The compiled model: sizes on the meta device, passes on the CPU, steps and gradients."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from cases import UNSHIPPED, UNUSUAL_SPEC
from closeness import assert_close

from hybridsim import build_model
from hybridsim.cost.model import ModelCosts
from hybridsim.dtypes import Dtypes
from hybridsim.errors import HybridsimError, SpecError
from hybridsim.spec.load import spec_names

TINY = [name for name in spec_names() if name.endswith("_tiny")]
RUNNABLE: list[Any] = [*TINY, *UNSHIPPED.values()]
IDS = [*TINY, *UNSHIPPED]


@pytest.mark.parametrize("name", spec_names())
def test_the_closed_form_counts_the_models_own_parameters(name: str) -> None:
    started = time.perf_counter()
    model = build_model(name, device="meta")
    assert time.perf_counter() - started < 30  # seconds, whatever the size
    assert sum(p.numel() for p in model.parameters()) == ModelCosts.of(model.graph).parameters.total


@pytest.mark.parametrize("name", ["kimi_linear", "unusual"])
def test_modules_are_the_graphs_nodes(name: str) -> None:
    model = build_model(UNUSUAL_SPEC if name == "unusual" else name)
    modules = dict(model.named_modules())
    for node, op, _ in model.graph.nodes():
        assert op.kind == "add" or node in modules, node


@pytest.mark.parametrize("spec", RUNNABLE, ids=IDS)
def test_prefill_and_decode_equal_one_pass(spec: Any) -> None:
    model = build_model(spec, device="cpu").double()
    tokens = torch.randint(0, model.spec.vocab_size, (2, 75))
    with torch.no_grad():
        wanted = model(tokens)
        cache = model.new_cache()
        outputs = [model(tokens[:, :41], cache)]
        outputs += [model(tokens[:, t : t + 1], cache) for t in range(41, 60)]
        outputs.append(model(tokens[:, 60:], cache))
        last = model(tokens, last_logits_only=True)
    assert_close("logits", torch.cat(outputs, dim=1), wanted, 1e-8)
    assert_close("last logits", last, wanted[:, -1:], 1e-12)
    assert cache.past_tokens == 75


@pytest.mark.parametrize("spec", RUNNABLE, ids=IDS)
def test_the_cache_holds_the_bytes_of_the_closed_form(spec: Any) -> None:
    model = build_model(spec, device="cpu", dtype="bf16")
    cache = model.new_cache()
    with torch.no_grad():
        model(torch.randint(0, model.spec.vocab_size, (3, 40)), cache)
    assert cache.nbytes() == 3 * ModelCosts.of(model.graph).cache_bytes(40, Dtypes())


@pytest.mark.parametrize("spec", RUNNABLE, ids=IDS)
def test_gradients_reach_every_parameter(spec: Any) -> None:
    model = build_model(spec, device="cpu")
    tokens = torch.randint(0, model.spec.vocab_size, (4, 65))
    logits = model(tokens[:, :-1])
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        if ".indexer." not in name:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_run_within_a_second(name: str) -> None:
    model = build_model(name, device="cpu")
    tokens = torch.randint(0, model.spec.vocab_size, (1, 256))
    with torch.no_grad():
        model(tokens)
        started = time.perf_counter()
        logits = model(tokens)
    assert time.perf_counter() - started < 1
    assert 0.1 < logits.std() < 10  # neither vanishing nor exploding


@pytest.mark.parametrize("spec", ["kimi_linear_tiny", UNUSUAL_SPEC], ids=["kimi", "unusual"])
def test_seeds_decide_the_weights(spec: Any) -> None:
    first, same, other = (build_model(spec, "cpu", seed=s) for s in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not (first.embed.weight == other.embed.weight).all()


@pytest.mark.parametrize("name", ["kimi_linear_tiny", "qwen3_next_tiny", "jamba_tiny"])
def test_decays_stay_in_fp32(name: str) -> None:
    dtypes = {
        n.rpartition(".")[2]: p.dtype
        for n, p in build_model(name, "cpu", dtype="bf16").named_parameters()
    }
    assert dtypes.pop("A_log") == dtypes.pop("dt_bias") == torch.float32
    assert set(dtypes.values()) == {torch.bfloat16}


def test_wrong_devices_and_dtypes_are_one_line() -> None:
    with pytest.raises(SpecError, match=r"device=gpu: no such device; did you mean 'cpu'"):
        build_model("kimi_linear_tiny", device="gpu")
    with pytest.raises(SpecError, match="dtype=fp12"):
        build_model("kimi_linear_tiny", device="cpu", dtype="fp12")
    if not torch.cuda.is_available():
        with pytest.raises(HybridsimError, match="device=cuda: torch sees no CUDA device"):
            build_model("kimi_linear_tiny", device="cuda")
