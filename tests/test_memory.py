"""Predicted activations: against what the code allocates, counted on the meta device."""

from __future__ import annotations

import pytest
import torch
from allocations import Allocations, as_on_a_gpu

from hybridsim import kernels, load_spec
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.graph import build_graph
from hybridsim.kernels import choice
from hybridsim.model.build import empty_model

TOKENS = 8192
# Layers, and the peak of a prefill of 8,192 tokens in numbers a token, as counted with Triton 3.6.0
# and fla-core 0.6.0 by the code below: what a machine without them is held to.
SLICES = {
    "kimi_linear": ("LLLF", "DEEE", 70496),
    "kimi_linear_mla": ("FF", "DE", 50544),
    "qwen3_next": ("LLLF", "EEEE", 47488),
    "llama31_8b": ("FF", "DD", 59392),
    "qwen3_235b": ("FF", "EE", 82288),
    "minimax_m2": ("FF", "EE", 71280),
    "minimax_m1": ("LF", "EE", 110848),
    "minimax_m3": ("FX", "DE", 129336),
    "deepseek_v3": ("FF", "DE", 128624),
    "deepseek_v32": ("XX", "DE", 236032),
}


def sliced(name: str) -> list[str]:
    pattern, ffns, _ = SLICES[name]
    return [f"num_layers={len(pattern)}", f"layer_pattern={pattern}", f"ffn_pattern={ffns}"]


def predicted_elements(name: str) -> float:
    costs = ModelCosts.of(build_graph(load_spec(name, sliced(name))))
    deployment = Deployment(prefill_chunk_tokens=TOKENS)
    return costs.memory(TOKENS, 1, deployment).activation_bytes / TOKENS / 2


@pytest.mark.parametrize("name", SLICES)
def test_activations_are_what_was_counted(name: str) -> None:
    assert predicted_elements(name) == pytest.approx(SLICES[name][2], rel=0.05)


@pytest.mark.filterwarnings("ignore")  # fla's import warns about what it was not compiled for
@pytest.mark.parametrize("name", SLICES)
def test_activations_are_what_is_allocated(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels.available() or choice.interpreted():
        pytest.skip("Triton is not installed, or interpreted")
    as_on_a_gpu(monkeypatch)
    if not choice.installed("fla"):
        pytest.skip("flash-linear-attention is not installed")
    model = empty_model(load_spec(name, sliced(name)), "meta").eval().requires_grad_(False)
    cache = model.new_static_cache(TOKENS)
    with choice.tracing(), torch.inference_mode():
        model(torch.zeros(1, 1, dtype=torch.long, device="meta"), cache)  # allocates it
        cache.clear()
        kept = [tensor for layer in cache.layers.values() for tensor in layer.tensors()]
        tokens = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
        with Allocations([*model.parameters(), *model.buffers(), *kept]) as found:
            model(tokens, cache, last_logits_only=True)
    counted = found.peak_bytes / TOKENS / 2
    assert counted == pytest.approx(SLICES[name][2], rel=1e-5)
    assert predicted_elements(name) == pytest.approx(counted, rel=0.05)


def test_weights_and_cache_are_what_a_model_allocates() -> None:
    spec = load_spec("kimi_linear", sliced("kimi_linear"))
    model = empty_model(spec, "meta")
    cache = model.new_static_cache(1024)
    with torch.inference_mode():
        model(torch.zeros(3, 1, dtype=torch.long, device="meta"), cache)
    memory = ModelCosts.of(build_graph(spec)).memory(1024, 3, Deployment())
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    stored = sum(t.numel() * t.element_size() for c in cache.layers.values() for t in c.tensors())
    assert memory.weights_bytes == pytest.approx(weights, rel=1e-4)  # decays are in fp32
    assert memory.kv_cache_bytes + memory.state_bytes == stored
