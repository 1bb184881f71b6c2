"""The compiled models on a CUDA device."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cases import UNUSUAL_SPEC
from closeness import assert_close

from hybridsim import build_model
from hybridsim.ffn.moe.ops import grouped_linear
from hybridsim.spec.load import spec_names

# Rotary angles are float32 whatever the model's dtype, and the devices' cosines differ in the last
# bit: 6e-8 of a channel. Models without rotation agree to 1e-8.
ROTATED = 1e-6

pytestmark = pytest.mark.gpu

TINY = [name for name in spec_names() if name.endswith("_tiny")]
RUNNABLE: list[Any] = [*TINY, UNUSUAL_SPEC]


@pytest.mark.parametrize("spec", RUNNABLE, ids=[*TINY, "unusual"])
def test_logits_are_those_of_the_cpu(spec: Any) -> None:
    torch.use_deterministic_algorithms(False)
    model = build_model(spec, device="cpu").double()
    tokens = torch.randint(0, model.spec.vocab_size, (2, 75))
    with torch.no_grad():
        wanted = model(tokens)
        there = copy.deepcopy(model).cuda()
        cache = there.new_cache()
        parts = [there(tokens[:, :50].cuda(), cache)]
        parts += [there(tokens[:, t : t + 1].cuda(), cache) for t in range(50, 75)]
        assert_close("one pass", there(tokens.cuda()).cpu(), wanted, ROTATED)
        assert_close("prefill and decode", torch.cat(parts, dim=1).cpu(), wanted, ROTATED)


@pytest.mark.parametrize("name", TINY)
def test_bf16_models_run_and_train(name: str) -> None:
    torch.use_deterministic_algorithms(False)
    model = build_model(name, device="cuda")
    assert next(model.parameters()).dtype == torch.bfloat16
    tokens = torch.randint(0, model.spec.vocab_size, (2, 129), device="cuda")
    logits = model(tokens[:, :-1]).float()
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for n, p in model.named_parameters()
        if ".indexer." not in n
    )


def test_grouped_products_are_the_loops() -> None:
    torch.use_deterministic_algorithms(False)
    counts = torch.tensor([3, 0, 40, 1, 84], device="cuda")
    x = torch.randn(128, 64, device="cuda", dtype=torch.bfloat16)
    weight = torch.randn(5, 64, 32, device="cuda", dtype=torch.bfloat16) / 8
    looped = grouped_linear(x.double(), weight.double(), counts)
    assert_close("out", grouped_linear(x, weight, counts).double(), looped, 1e-2)
