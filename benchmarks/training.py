"""How fast populations train, and our layers beside fla's in the same loop; on a CUDA device.

    python benchmarks/training.py            # all, about eight minutes on an H200
    python benchmarks/training.py population --candidates 200

Writes training_speed.json into outputs/benchmarks/.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.kernels import ahead
from hybridsim.kernels.tuning import compile_side_by_side, tune_briefly
from hybridsim.mixers import MixerSettings, mixer_class
from hybridsim.mixers.deltanet.settings import DeltaNetSettings
from hybridsim.mixers.gla.settings import GatedLinearAttentionSettings
from hybridsim.mixers.kda.settings import KimiDeltaAttentionSettings
from hybridsim.model.build import initialize, new_tensors
from hybridsim.nn.mixer import MixerPlace
from hybridsim.origin import git_revision, versions
from hybridsim.train.arena import arena_spec
from hybridsim.train.devices import device_title
from hybridsim.train.proxy import load_proxy
from hybridsim.train.run import ProxyRun

WIDTH, HEADS, CHANNELS, BATCH, TOKENS, LAYERS = 1024, 8, 128, 8, 2048, 4
WHAT = ["fla", "standard", "population"]
OURS: dict[str, MixerSettings] = {
    "kda": KimiDeltaAttentionSettings(HEADS, CHANNELS, gate_rank=CHANNELS),
    "deltanet": DeltaNetSettings(HEADS, CHANNELS, CHANNELS),
    "gla": GatedLinearAttentionSettings(HEADS, CHANNELS, CHANNELS),
}


def fla_layer(kind: str) -> nn.Module:
    """Return fla's own layer of these sizes, with what its defaults have that ours has."""
    from fla.layers import DeltaNet, GatedLinearAttention, KimiDeltaAttention

    sizes: dict[str, Any] = {"hidden_size": WIDTH, "mode": "chunk", "num_heads": HEADS}
    if kind == "kda":
        return KimiDeltaAttention(head_dim=CHANNELS, **sizes)
    if kind == "deltanet":
        return DeltaNet(expand_k=1.0, expand_v=1.0, use_short_conv=True, **sizes)
    return GatedLinearAttention(expand_k=1.0, expand_v=1.0, **sizes)


class Stack(nn.Module):
    """Layers of one mixer with a norm and a residual each: the loop's model."""

    def __init__(self, make: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(LAYERS))
        self.mixers = nn.ModuleList(make(i) for i in range(LAYERS))

    def forward(self, x: Tensor) -> Tensor:
        for norm, mixer in zip(self.norms, self.mixers, strict=True):
            out = mixer(norm(x))
            x = x + (out[0] if isinstance(out, tuple) else out)
        return x


def tokens_per_s(model: nn.Module, repeats: int = 20) -> float:
    """Return training tokens a second: forward, backward, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    x = torch.randn(BATCH, TOKENS, WIDTH, device="cuda", dtype=torch.bfloat16)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(x).float().square().mean().backward()
        optimizer.step()

    for _ in range(5):
        step()
    torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(repeats):
        step()
    torch.cuda.synchronize()
    return BATCH * TOKENS * repeats / (time.perf_counter() - started)


def our_layer(kind: str, layer: int) -> nn.Module:
    return mixer_class(kind)(OURS[kind], MixerPlace(WIDTH, NormSettings(), layer, LAYERS))


def stacks(kind: str, device: str) -> dict[str, Stack]:
    """Return the two models, whose weights are not set yet."""
    with new_tensors(device, "bf16"):
        return {
            "ours": Stack(lambda layer: our_layer(kind, layer)),
            "fla": Stack(lambda layer: fla_layer(kind)),
        }


def compile_kernels(kind: str) -> None:
    """Compile what both will launch, side by side: fla tries some 250 configurations a mixer."""

    def trace() -> None:
        x = torch.empty(BATCH, TOKENS, WIDTH, device="meta", dtype=torch.bfloat16)
        for model in stacks(kind, "meta").values():
            model(x).float().square().mean().backward()

    compile_side_by_side()  # what a trace misses
    tune_briefly()
    compiled, known = ahead.compile_all(trace, ahead.num_workers())
    print(f"{kind}: {compiled} of {known} kernels compiled", flush=True)


def beside_fla(kind: str, rounds: int = 3) -> dict[str, Any]:
    """Return tokens a second of both, the better of interleaved rounds.

    Both run the kernels that one tuner has chosen.
    """
    compile_kernels(kind)
    models = stacks(kind, "cuda")
    initialize(models["ours"], 0)
    best = {"ours": 0.0, "fla": 0.0}
    for _, name in itertools.product(range(rounds), models):
        best[name] = max(best[name], tokens_per_s(models[name]))
    return {"mixer": kind, **best, "ratio": best["ours"] / best["fla"]}


def population(candidates: int) -> dict[str, Any]:
    """Return how long two tasks of the quick proxy take for many candidates, three seeds."""
    proxy = replace(load_proxy("quick").only(("recall", "language")), grid=False)
    patterns = ["".join(p) for p in itertools.product("FKGMW", repeat=4)][:: 625 // candidates]
    run = ProxyRun(proxy, device="cuda", folder=Path("outputs/benchmarks"))
    started = time.perf_counter()
    run.train([arena_spec(letters) for letters in patterns[:candidates]])
    torch.cuda.synchronize()
    wall_s = time.perf_counter() - started
    run.forget()
    found = {"candidates": candidates, "seeds": proxy.seeds, "tasks": len(proxy.tasks)}
    return {**found, "wall_s": wall_s, "ledger": run.ledger.document()}


def standard() -> dict[str, Any]:
    """Return how long the standard suite takes for one candidate, its learning rates given."""
    proxy = replace(load_proxy("standard"), grid=False)
    run = ProxyRun(proxy, device="cuda", folder=Path("outputs/benchmarks"))
    started = time.perf_counter()
    run.train([arena_spec("KKKF")])
    wall_s = time.perf_counter() - started
    run.forget()
    return {"wall_s": wall_s, "ledger": run.ledger.document()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=WHAT)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--kinds", default=",".join(OURS), help="of mixers beside fla's layers")
    given = parser.parse_args()
    kinds = given.kinds.split(",")
    for what, named, there in (("what", given.what, WHAT), ("--kinds", kinds, OURS)):
        if wrong := [name for name in named if name not in there]:
            parser.error(f"{what}: {wrong[0]!r} is not there; there are {', '.join(there)}")
    path = Path("outputs/benchmarks/training_speed.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    document: dict[str, Any] = {
        "device": device_title("cuda"),
        "versions": versions(("torch", "triton", "fla-core")),
        "git_revision": git_revision(),
    }
    for what in given.what:
        if what == "fla":
            document["fla"] = []
            for kind in kinds:
                document["fla"].append(beside_fla(kind))
                path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        else:
            document[what] = population(given.candidates) if what == "population" else standard()
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        print(json.dumps({what: document[what]}, indent=2), flush=True)


if __name__ == "__main__":
    main()
