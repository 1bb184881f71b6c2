"""Whole models and slices of them as pieces of work, for the benchmarks that compare with them."""

from __future__ import annotations

import gc
import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hybridsim import load_spec
from hybridsim.ffn.moe.module import MoE
from hybridsim.ffn.moe.ops import route
from hybridsim.measure.point import DECODE, PREFILL, Point
from hybridsim.measure.subject import fill_random
from hybridsim.measure.timing import Subject
from hybridsim.model.build import empty_model, initialize
from hybridsim.model.model import HybridLM
from hybridsim.nn.cache import ModelCache
from hybridsim.nn.precision import wide
from hybridsim.origin import git_revision
from hybridsim.spec.schema import ModelSpec

INPUT_SETS = 4


@dataclass(frozen=True)
class Case:
    """A model, or some of its layers between its embedding and its head, and where it runs.

    Attributes:
        spec: name.
        changes: overrides that leave a few layers.
        points: of the whole.
    """

    spec: str
    changes: tuple[str, ...]
    points: tuple[Point, ...]

    def load(self) -> ModelSpec:
        return load_spec(self.spec, list(self.changes))

    @property
    def title(self) -> str:
        layers = [c.partition("=")[2] for c in self.changes if c.startswith("layer_pattern=")]
        return f"{self.spec} {layers[0]}" if layers else self.spec


def layers(pattern: str, ffns: str) -> tuple[str, ...]:
    """Return the overrides that leave these layers."""
    return (f"num_layers={len(pattern)}", f"layer_pattern={pattern}", f"ffn_pattern={ffns}")


SLICES = {
    "kimi_linear": layers("LLLF", "DEEE"),
    "kimi_linear_mla": layers("FF", "DE"),
    "qwen3_next": layers("LLLF", "EEEE"),
    "llama31_8b": layers("FFFF", "DDDD"),
    "qwen3_235b": layers("FF", "EE"),
    "minimax_m2": layers("FF", "EE"),
    "minimax_m1": layers("LF", "EE"),
    "minimax_m3": layers("FX", "DE"),
    "deepseek_v3": layers("FF", "DE"),
    "deepseek_v32": layers("XX", "DE"),
}
SLICE_POINTS = (
    Point(DECODE, 1, 4096),
    Point(DECODE, 1, 65536),
    Point(DECODE, 16, 8192),
    Point(PREFILL, 1, 4096),
    Point(PREFILL, 1, 32768),
)
WHOLE_POINTS = (
    *(Point(DECODE, 1, context) for context in (4096, 32768, 131072, 1048576)),
    *(Point(DECODE, batch, 8192) for batch in (8, 32)),
    *(Point(PREFILL, 1, context) for context in (4096, 16384, 32768)),
)
TINY = ("kimi_linear_tiny", "qwen3_next_tiny", "minimax_m3_tiny", "deepseek_v32_tiny")
TINY_POINTS = (Point(DECODE, 2, 48), Point(PREFILL, 1, 96))
CASES = {
    "slices": tuple(Case(spec, changes, SLICE_POINTS) for spec, changes in SLICES.items()),
    "whole": (Case("kimi_linear", (), WHOLE_POINTS),),
    "tiny": tuple(Case(spec, (), TINY_POINTS) for spec in TINY),
}


@torch.no_grad()
def random_model(spec: ModelSpec, device: str, dtype: str) -> HybridLM:
    """Return a model with random weights, made on the device itself.

    Its embeddings have unit size, so that what tokens differ in outweighs what layers add to all of
    them, and routing is as uniform as the estimates take it to be.
    """
    model = empty_model(spec, device, dtype=dtype).eval().requires_grad_(False)
    initialize(model, 0)
    model.embed.weight.normal_()
    return model


class ModelStep(Subject):
    """A step of a whole model: a prompt into a new cache, or a token after a filled one.

    Args:
        model: on any device.
        point: prompts of one pass.
    """

    def __init__(self, model: HybridLM, point: Point) -> None:
        self.model, self.point, self.num_inputs = model, point, INPUT_SETS
        device = model.embed.weight.device
        shape = (INPUT_SETS, point.batch, point.step.new_tokens)
        generator = torch.Generator(device).manual_seed(1)
        self.inputs = torch.randint(
            model.spec.vocab_size, shape, generator=generator, device=device
        )
        self.input = self.inputs[0].clone()
        self.cache = self._filled() if point.phase == DECODE else None
        self.logits: Tensor

    @torch.inference_mode()
    def _filled(self) -> ModelCache:
        """Return a static cache of random content."""
        tokens = self.point.step.past_tokens
        cache = self.model.new_static_cache(tokens + 1)
        self.model(self.input, cache, last_logits_only=True)  # gives every part its place
        for layer in cache.layers.values():
            for tensor in layer.tensors():
                fill_random(tensor)
        return cache

    @torch.inference_mode()
    def prepare(self, index: int) -> None:
        self.input.copy_(self.inputs[index])
        if self.cache is not None:
            self.cache.stretch(self.point.step.past_tokens)

    @torch.inference_mode()
    def run(self) -> None:
        cache = self.cache or self.model.new_cache(self.point.context)
        self.logits = self.model(self.input, cache, last_logits_only=True)

    @torch.inference_mode()
    def chosen_experts(self) -> float | None:
        """Return how many distinct experts a layer's tokens choose, the mean over the layers."""
        seen: list[int] = []

        def watch(ffn: MoE) -> Any:
            def note(router: Any, given: Any, logits: Tensor) -> None:
                _, experts = route(wide(logits), ffn.settings, ffn.score_correction_bias)
                seen.append(int(experts.unique().numel()))

            return ffn.router.register_forward_hook(note)

        handles = [watch(part) for part in self.model.modules() if isinstance(part, MoE)]
        self.prepare(0)
        self.run()
        for handle in handles:
            handle.remove()
        return sum(seen) / len(seen) if seen else None


def chosen(cases: Iterable[Case], only: str) -> list[Case]:
    """Return the cases of these specs, separated by commas; all of none."""
    names = set(only.split(",")) - {""}
    return [case for case in cases if not names or case.spec in names]


class Record:
    """Rows of a benchmark on the disk: what is there from the same versions is not done again.

    Args:
        path: JSON.
        device: what torch calls it.
        versions: of packages.
        revision: of git, where the copy that runs is no checkout.
        facts: what else to note.
    """

    def __init__(
        self,
        path: Path,
        device: str,
        versions: Mapping[str, Any],
        revision: str | None = None,
        **facts: Any,
    ) -> None:
        self.path = path
        self.head = {
            "device": device,
            "versions": dict(versions),
            "git_revision": revision or git_revision(),
            "date": datetime.now(UTC).date().isoformat(),
            **facts,
        }
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            old = json.loads(path.read_text(encoding="utf-8"))
            if all(old[key] == self.head[key] for key in ("device", "versions")):
                self.rows = [row for row in old["rows"] if "failure" not in row]

    def missing(self, case: Case) -> list[Point]:
        """Return the points of a case that have no row yet."""
        keys = ("model", "phase", "batch", "context")
        there = {tuple(row[key] for key in keys) for row in self.rows}
        return [p for p in case.points if (case.title, p.phase, p.batch, p.context) not in there]

    def add(self, case: Case, point: Point, figures: Mapping[str, Any]) -> dict[str, Any]:
        """Add a row, and write all."""
        row = {
            "model": case.title,
            "phase": point.phase,
            "batch": point.batch,
            "context": point.context,
            **figures,
        }
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        document = {**self.head, "summary": self.summary(), "rows": self.rows}
        self.path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return row

    def summary(self) -> dict[str, Any]:
        """Return how many points there are, and their errors' median and largest size."""
        errors = sorted(abs(row["error"]) for row in self.rows if "error" in row)
        found: dict[str, Any] = {"points": len(errors), "failed": len(self.rows) - len(errors)}
        if errors:
            found |= {"median_error": statistics.median(errors), "worst_error": errors[-1]}
        return found

    def print_summary(self) -> None:
        print(", ".join(f"{key} {value:.3g}" for key, value in self.summary().items()))


def first_line(error: BaseException) -> str:
    text = str(error).strip() or repr(error)
    return f"{type(error).__name__}: {text.splitlines()[0][:120]}"


def start_of(row: Mapping[str, Any]) -> str:
    """Return a row's point, as tables begin."""
    return f"{row['model']:24s} {row['phase']:8s} {row['batch']:4d} x {row['context']:9,d}"


def free(device: str) -> None:
    """Give memory back to the device."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
