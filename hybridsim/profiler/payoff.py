"""Whether a model pays off against its all-full twin, and from which context on.

What counts is the device time of a request: its prompt, and its part of the decode steps. Both
models serve the same part of what fits them, so that a smaller cache pays twice: its steps read
less, and more sequences share the weights that a step reads.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hybridsim.cost.crossover import last_crossing
from hybridsim.measure.estimate import Estimate, weakest
from hybridsim.profiler.serving import Serving
from hybridsim.workload import Workload

YES, NO, UNRESOLVED = "yes", "no", "not resolved"
OWN_TWIN, TOO_LARGE = "its own all-full twin", "does not fit the device"


def payoff(
    serving: Serving, twin: Serving | None, workload: Workload, utilisation: float
) -> dict[str, Any]:
    """Return what a model gains over its all-full twin on the same device.

    `gain` is the twin's device time for a request over the model's, between `gain_low` and
    `gain_high` where times have intervals. `from_tokens` is the prompt beyond which the model
    takes less, the answer as the workload's, with one sequence where none fits.

    Args:
        serving: the model on its device.
        twin: the all-full twin on it; None where the model is its own.
        workload: prompt and answer; its concurrency does not matter here.
        utilisation: the part of the largest batch that is served at once, of each model.
    """
    ours = _batch_size(serving, workload, utilisation)
    record: dict[str, Any] = {
        "utilisation": utilisation,
        "batch_size": ours,
        "device_s_per_request": serving.request(workload, ours).latency_s if ours else None,
        "twin_batch_size": None,
        "twin_device_s_per_request": None,
        **_gain(None, None),
        "from_tokens": None,
        "reason": OWN_TWIN if twin is None else None if ours else TOO_LARGE,
    }
    if twin is None:
        return record
    theirs = _batch_size(twin, workload, utilisation)
    record |= {
        "twin_batch_size": theirs,
        "twin_device_s_per_request": twin.request(workload, theirs).latency_s if theirs else None,
        "from_tokens": _from_tokens(serving, twin, workload, utilisation),
    }
    if ours and theirs:
        record |= _gain(serving.request(workload, ours), twin.request(workload, theirs))
    elif ours:
        record |= {"pays_off": YES, "reason": "the all-full twin does not fit the device"}
    return record


def _batch_size(serving: Serving, workload: Workload, utilisation: float) -> int:
    """Return how many sequences are served at once, at least one; 0 where none fits."""
    largest = serving.largest_batch_size(workload.total_tokens)
    return max(1, int(utilisation * largest)) if largest else 0


def _gain(ours: Estimate | None, theirs: Estimate | None) -> dict[str, Any]:
    if ours is None or theirs is None:
        keys = ("gain", "gain_low", "gain_high", "pays_off", "provenance")
        return dict.fromkeys(keys)
    gain = theirs.latency_s / ours.latency_s
    low, high = _over(theirs.low_s, ours.high_s), _over(theirs.high_s, ours.low_s)
    return {
        "gain": gain,
        "gain_low": low,
        "gain_high": high,
        "pays_off": _pays_off(gain if low is None else low, gain if high is None else high),
        "provenance": weakest([ours.provenance, theirs.provenance]),
    }


def _over(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or denominator is None else numerator / denominator


def _pays_off(low: float, high: float) -> str:
    if low > 1:
        return YES
    return NO if high <= 1 else UNRESOLVED


def _from_tokens(
    serving: Serving, twin: Serving, workload: Workload, utilisation: float
) -> int | None:
    """Return the last prompt with which the model takes at least as long, None if all do."""

    def saving(prompt_tokens: int) -> float:
        asked = replace(
            workload,
            prompt_tokens=prompt_tokens,
            context_target=prompt_tokens + workload.output_tokens,
        )
        ours, theirs = (
            model.request(asked, max(1, _batch_size(model, asked, utilisation))).latency_s
            for model in (serving, twin)
        )
        return theirs - ours

    return last_crossing(saving)
