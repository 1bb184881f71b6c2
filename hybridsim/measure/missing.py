"""Measuring what a profile asks for and the store lacks, on the device of this machine."""

from __future__ import annotations

from collections.abc import Iterable

from hybridsim.dtypes import Dtypes
from hybridsim.errors import HybridsimError
from hybridsim.hardware import Hardware
from hybridsim.measure.block import model_blocks
from hybridsim.measure.lock import device_lock
from hybridsim.measure.plan import Task
from hybridsim.measure.point import Point, pieces
from hybridsim.measure.progress import MeasureProgress, compile_progress
from hybridsim.measure.run import Bench, Limits, require_formats, require_measurable
from hybridsim.measure.session import begin_session, local_device, make_timer
from hybridsim.measure.store import Journal, device_store, own_folder
from hybridsim.measure.timing import Timer
from hybridsim.measure.warmup import warm_up
from hybridsim.spec.schema import ModelSpec


def missing_tasks(spec: ModelSpec, asked: Iterable[Point]) -> list[Task]:
    """Return every block of a model at every point whose times add up to those asked for."""
    asked = list(asked)
    return list(
        dict.fromkeys(
            Task(block, point)
            for block in model_blocks(spec)
            for whole in asked
            for _, point in pieces(block, whole)
        )
    )


def measure_missing(
    spec: ModelSpec, hardware: Hardware, asked: Iterable[Point], dtypes: Dtypes
) -> None:
    """Measure the blocks of a model where the device has no row of these versions yet.

    Rows go to the user's own folder, each as soon as it is there.

    Args:
        spec: the model.
        hardware: the device, which has to be that of this machine.
        asked: points of the whole model.
        dtypes: number formats.

    Raises:
        HybridsimError: another device, formats that cannot be measured, or an interrupt.
    """
    require_measurable(dtypes)
    kind = _kind_here(hardware)
    timer = make_timer(kind)
    require_formats(dtypes, timer.device)
    # What another process measures while this one waits is read afterwards, and not measured again.
    with device_lock(timer.device):
        _measure(spec, hardware.name, asked, dtypes, timer)


def _measure(
    spec: ModelSpec, device: str, asked: Iterable[Point], dtypes: Dtypes, timer: Timer
) -> None:
    session = begin_session(timer)
    journal = Journal(own_folder() / f"{device}.jsonl")
    store = device_store(device)
    if timer.device.type == "cpu":
        # Rows of another machine are not this one's.
        others = {s.id for s in store.sessions.values() if s.title != session.title}
        store = store.without_sessions(others)
    bench = Bench(session, timer, journal, store, dtypes, Limits())
    tasks = bench.missing(missing_tasks(spec, asked))
    try:
        if timer.device.type == "cuda":
            with compile_progress() as told:
                warm_up(tasks, dtypes, told)
        with MeasureProgress(len(tasks)) as progress:
            bench.run(tasks, progress.done)
    except KeyboardInterrupt:
        text = f"interrupted; what was measured is in {journal.path}: the same command goes on"
        raise HybridsimError(text) from None


def _kind_here(hardware: Hardware) -> str:
    """Return the kind of device to measure on; HybridsimError where it is another one."""
    if hardware.num_devices != 1:
        raise HybridsimError(
            f"measure=true: hardware.num_devices={hardware.num_devices}, measured is one device"
        )
    if hardware.name == "cpu":
        return "cpu"
    try:
        name, title = local_device("cuda")
    except HybridsimError as error:
        reason = str(error).partition(": ")[2].partition(";")[0]
        raise HybridsimError(
            f"measure=true: hardware={hardware.name} has to be here, but {reason};"
            " hardware=cpu measures this CPU"
        ) from None
    if name != hardware.name:
        raise HybridsimError(
            f"measure=true: hardware={hardware.name}, but the device here is {name} ({title})"
        )
    return "cuda"
