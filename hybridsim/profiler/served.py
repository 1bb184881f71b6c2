"""What an engine was seen to do, set beside what a profile predicts.

Read are the JSON results of `vllm bench serve --save-result` and the JSON lines of SGLang's
bench_serving; both have the same words for what is needed here.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hybridsim.errors import HybridsimError
from hybridsim.workload import Workload

Record = dict[str, Any]

GIB = 1 << 30
NEEDED = ("completed", "total_input_tokens", "total_output_tokens", "output_throughput")
LATENCIES = ("median_ttft_ms", "median_tpot_ms")


@dataclass(frozen=True)
class Benchmark:
    """One run of an engine's benchmark.

    Attributes:
        file: where it was read.
        engine: the backend that the benchmark names.
        completed: requests.
        prompt_tokens, output_tokens: means of a request.
        concurrency: requests served together.
        ttft_s, tpot_s: medians.
        output_tokens_per_s: of all requests, prompts included.
        peak_memory_bytes: of the device; neither benchmark sees it, so that it is None unless told
            (`--metadata peak_memory_gib=...` of vLLM's, or `peak_memory_gib` of `compare`).
    """

    file: str
    engine: str
    completed: int
    prompt_tokens: int
    output_tokens: int
    concurrency: int
    ttft_s: float
    tpot_s: float
    output_tokens_per_s: float
    peak_memory_bytes: float | None = None

    @property
    def workload(self) -> Workload:
        """The workload that it ran."""
        return Workload(
            name=Path(self.file).stem,
            title=f"served by {self.engine}",
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            concurrency=self.concurrency,
            context_target=self.prompt_tokens + self.output_tokens,
            source=self.file,
        )


def read_benchmark(path: str | Path, peak_memory_gib: float | None = None) -> Benchmark:
    """Return the last result in a benchmark's file.

    Raises:
        HybridsimError: there is no such file, it is no JSON, or lacks what is needed.
    """
    result = _last_result(Path(path))
    for key in (*NEEDED, *LATENCIES):
        if not isinstance(result.get(key), int | float) or result[key] <= 0:
            raise HybridsimError(
                f"served={path}: {key}={result.get(key)}: expected a number above 0"
            )
    requests = int(result["completed"])
    peak = peak_memory_gib if peak_memory_gib is not None else result.get("peak_memory_gib")
    return Benchmark(
        file=str(path),
        engine=str(result.get("backend") or result.get("endpoint_type") or "unknown"),
        completed=requests,
        prompt_tokens=max(1, round(result["total_input_tokens"] / requests)),
        output_tokens=max(1, round(result["total_output_tokens"] / requests)),
        concurrency=_concurrency(result, requests),
        ttft_s=result["median_ttft_ms"] / 1e3,
        tpot_s=result["median_tpot_ms"] / 1e3,
        output_tokens_per_s=float(result["output_throughput"]),
        peak_memory_bytes=None if peak is None else _number(path, peak) * GIB,
    )


def _last_result(path: Path) -> Record:
    """Return the one JSON object of a file, or its last line's."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HybridsimError(f"served={path}: cannot be read ({error})") from None
    for part in (text, text.rpartition("\n")[2]):
        try:
            found = json.loads(part)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    raise HybridsimError(f"served={path}: is neither a JSON object nor lines of them")


def _concurrency(result: Record, requests: int) -> int:
    """Return how many requests ran together: the mean, else the limit, else all."""
    found = result.get("concurrency") or result.get("max_concurrency") or requests
    return max(1, min(requests, round(float(found))))


def _number(path: str | Path, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise HybridsimError(f"served={path}: peak_memory_gib={value}: expected a number") from None


def served_record(benchmark: Benchmark, document: Record) -> Record:
    """Return each figure as served and as the profile of the same workload predicts it.

    Predicted times have no queue in them: TTFT is of one prompt by itself.
    """
    load = document["workload"]
    origins = {key: load[f"{key}_provenance"] for key in ("ttft", "tpot")}
    figures = {
        "ttft_s": (benchmark.ttft_s, load["ttft_s"], origins["ttft"]),
        "tpot_s": (benchmark.tpot_s, load["tpot_s"], origins["tpot"]),
        "decode_tokens_per_s": (
            benchmark.concurrency / benchmark.tpot_s,
            load["decode_tokens_per_s"],
            origins["tpot"],
        ),
        "output_tokens_per_s": (
            benchmark.output_tokens_per_s,
            load["output_tokens_per_s"],
            load["provenance"],
        ),
        "peak_memory_bytes": (
            benchmark.peak_memory_bytes,
            load["memory"]["total_bytes"],
            "modelled",
        ),
    }
    return {
        "spec": document["spec"]["name"],
        "hardware": document["hardware"]["name"],
        "num_devices": document["hardware"]["num_devices"],
        **asdict(benchmark),
        "figures": {name: _pair(*values) for name, values in figures.items()},
    }


def _pair(served: float | None, predicted: float, provenance: str) -> Record:
    return {
        "served": served,
        "predicted": predicted,
        "ratio": predicted / served if served else None,
        "provenance": provenance,
    }
