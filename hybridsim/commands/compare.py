"""hybridsim compare: specs side by side, and whether the hybrids pay off."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded
from hybridsim.errors import HybridsimError, SpecError
from hybridsim.paths import CONF_DIR

if TYPE_CHECKING:
    from hybridsim.spec.schema import ModelSpec
    from hybridsim.workload import Workload

Record = dict[str, Any]

log = logging.getLogger(__name__)


@hydra.main(config_path=str(CONF_DIR), config_name="compare", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Run the command."""
    fields = config.plain(cfg)
    chosen, pictures = config.take_format(fields), config.take_switch(fields, "pictures")
    document = compare(fields)
    from hybridsim.commands.gather import show_comparison, write_comparison

    folder = Path(config.output_dir())
    write_comparison(document, folder, pictures)
    show_comparison(document, folder, chosen)


def compare(fields: dict[str, Any]) -> Record:
    """Return the comparison that a composed config asks for.

    Raises:
        SpecError: a field is wrong.
        HybridsimError: a file cannot be used.
    """
    from hybridsim.fields import parse_dataclass
    from hybridsim.hardware import parse_hardware
    from hybridsim.profiler.comparison import comparison_document, enough_devices
    from hybridsim.profiler.profile import profile_spec
    from hybridsim.profiler.settings import ProfileSettings
    from hybridsim.spec.load import load_spec

    names = config.take_texts(fields, "specs")
    if not names:
        raise SpecError("specs=[]: give at least one spec, the baseline first")
    specs = [load_spec(name) for name in names]
    workloads = _workloads(fields)
    trained = [_trained(path) for path in config.take_texts(fields, "trained")]
    benchmarks = _benchmarks(fields, len(specs))
    enough = config.take_switch(fields, "enough_devices")
    hardware = parse_hardware(fields.pop("hardware"))
    settings = {**fields, "flops": {"count": False}}
    if enough:
        parsed: ProfileSettings = parse_dataclass(ProfileSettings, settings, "")
        hardware = enough_devices(specs, workloads, hardware, parsed.deployment())

    def profiled(spec: ModelSpec, workload: Workload) -> Record:
        return profile_spec(spec, hardware, workload, (), settings).document

    jobs = [(spec, workload) for workload in workloads for spec in specs]
    documents = [profiled(*job) for job in _progress(jobs)]
    return comparison_document(documents, trained, served=_served(specs, benchmarks, profiled))


def _served(specs: Sequence[ModelSpec], benchmarks: Sequence[Any], profiled: Any) -> list[Record]:
    from hybridsim.profiler.served import served_record

    return [
        served_record(benchmark, profiled(spec, benchmark.workload))
        for spec, benchmark in zip(specs, benchmarks, strict=False)
        if benchmark is not None
    ]


def _workloads(fields: dict[str, Any]) -> list[Workload]:
    from hybridsim.options import read_option
    from hybridsim.workload import parse_workload

    one, several = fields.pop("workload"), config.take_texts(fields, "workloads")
    return [parse_workload(read_option("workload", name)) for name in several] or [
        parse_workload(one)
    ]


def _benchmarks(fields: dict[str, Any], num_specs: int) -> list[Any]:
    """Return the benchmark of each spec, None where it has none."""
    from hybridsim.profiler.served import read_benchmark

    files, peaks = fields.pop("served"), fields.pop("peak_memory_gib")
    for key, given in (("served", files), ("peak_memory_gib", peaks)):
        if not isinstance(given, list) or len(given) > num_specs:
            raise SpecError(f"{key}={given}: expected a list, at most one for each of specs")
    peaks = [*peaks, *[None] * (len(files) - len(peaks))]
    return [
        None if file is None else read_benchmark(file, peak)
        for file, peak in zip(files, peaks, strict=False)
    ]


def _trained(path: str) -> Record:
    """Return the record of a training, given itself or its run's folder.

    Raises:
        HybridsimError: it is no such record.
    """
    file = Path(path) / "train.json" if Path(path).is_dir() else Path(path)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HybridsimError(f"trained={path}: cannot be read ({error})") from None
    if not isinstance(record, dict) or record.get("schema") != "hybridsim/train/1":
        raise HybridsimError(f"trained={path}: is no record of hybridsim train")
    return record


def _progress(jobs: Sequence[Any]) -> Iterable[Any]:
    """Return the jobs with a bar on standard error, silent where that is no terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(
        jobs, "comparing", console=console, transient=True, disable=not console.is_terminal
    )


if __name__ == "__main__":
    main()
