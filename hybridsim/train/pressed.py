"""A proxy at the pressure that was asked for, and what its tasks ask of a spec's state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hybridsim.errors import SpecError, bad_value
from hybridsim.spec.schema import ModelSpec
from hybridsim.train.proxy import PRESSURES, WORKLOAD, ProxySettings
from hybridsim.train.scale import scale_spec
from hybridsim.train.tasks.pressure import (
    PRESSED,
    Pressure,
    associations,
    pressure_on,
    resized,
    smallest_state,
)
from hybridsim.workload import Workload

MAX_LENGTH = 2048  # of a pressed task: full attention's reference form keeps T x T scores


def press(
    proxy: ProxySettings, pressure: float | str | None, spec: ModelSpec, workload: Workload
) -> ProxySettings:
    """Return the proxy with the tasks that have a rule at a pressure; the others as they are.

    Tasks ask as much of the recurrent layers of the spec's twin that keep least; where it has none,
    as much as they would of a layer with the proxy's own heads and key channels.

    Args:
        proxy: whose tasks.
        pressure: see `check_pressure`; None leaves the proxy as it is.
        spec: the full model; in a search the base, so that all candidates get the same tasks.
        workload: its context target decides what "workload" means.

    Raises:
        SpecError: no task has a rule, one would be too long, or the spec has no recurrent state
            that a workload could press on.
    """
    if pressure is None:
        return proxy
    names = [name for name in proxy.tasks if proxy.task(name).kind in PRESSED]
    if not names:
        raise bad_value(
            "pressure",
            pressure,
            f"none of the proxy's tasks {', '.join(proxy.tasks)} has a pressure"
            f" (kinds with one: {', '.join(PRESSED)})",
        )
    rung = _rung(pressure, spec, workload)
    channels = _key_channels(proxy, spec) or proxy.model.num_heads * proxy.model.head_dim
    pressed = {name: _pressed(proxy, name, rung, channels) for name in names}
    return replace(proxy, tasks={**proxy.tasks, **pressed})


def _rung(pressure: float | str, spec: ModelSpec, workload: Workload) -> float:
    if pressure != WORKLOAD:
        return float(pressure)
    found = pressure_on(spec, workload)
    if found is None:
        rungs = ", ".join(f"{rung:g}" for rung in PRESSURES)
        raise bad_value(
            "pressure",
            pressure,
            f"{spec.name} has no recurrent state; give one of {rungs}, or null",
        )
    return found.rung


def _key_channels(proxy: ProxySettings, spec: ModelSpec) -> int | None:
    """Return the key channels of the twin's recurrent layers that keep least."""
    smallest = smallest_state(scale_spec(spec, proxy))
    return None if smallest is None else smallest[1]


def _pressed(proxy: ProxySettings, name: str, rung: float, channels: int) -> dict[str, Any]:
    """Return the fields of one task of a proxy at a pressure."""
    try:
        task = resized(proxy.task(name), rung, channels, MAX_LENGTH)
    except SpecError as error:
        raise SpecError(f"pressure of proxy={proxy.name}, task {name}: {error}") from None
    sizes = {field: getattr(task, field) for field in (*PRESSED[task.kind].sizes, "vocab_size")}
    return {**proxy.tasks[name], **sizes}


def pressure_record(
    pressure: float | str | None, proxy: ProxySettings, spec: ModelSpec, workload: Workload
) -> dict[str, Any]:
    """Return what a proxy's tasks ask of a spec's twin, and what a workload asks of the spec.

    Args:
        pressure: the option.
        proxy: as `press` returned it.
        spec: the full model.
        workload: what it is for.
    """
    channels, found = _key_channels(proxy, spec), pressure_on(spec, workload)
    asked = {name: associations(proxy.task(name)) for name in proxy.tasks}
    tasks = {
        name: None if channels is None else count / channels
        for name, count in asked.items()
        if count is not None
    }
    return {
        "option": pressure,
        "proxy": proxy.name,
        "spec": spec.name,
        "key_channels": channels,
        "tasks": tasks,
        "workload": workload.name,
        "workload_asks": None if found is None else found.ratio,
        "is_beyond": found is not None and found.is_beyond,
        "line": _line(tasks, found, spec, workload),
    }


def _line(
    tasks: dict[str, float | None], found: Pressure | None, spec: ModelSpec, workload: Workload
) -> str:
    shown = ", ".join(f"{name} asks {_number(asked)}" for name, asked in tasks.items())
    line = f"{shown or 'no task has one'}; {workload.name} asks"
    if found is None:
        return f"{line} - of {spec.name}, which has no recurrent state"
    beyond = f", more than the hardest ({PRESSURES[-1]:g})" if found.is_beyond else ""
    return f"{line} {_number(found.ratio)} of {spec.name}{beyond}"


def _number(asked: float | None) -> str:
    return "-" if asked is None else f"{asked:.4g}"
