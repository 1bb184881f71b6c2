"""hybridsim train: what a spec's layers can do, by short trainings of a tiny twin."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded
from hybridsim.errors import HybridsimError, bad_value
from hybridsim.paths import CONF_DIR
from hybridsim.spec import source

if TYPE_CHECKING:
    from hybridsim.train.proxy import ProxySettings
    from hybridsim.train.run import ProxyRun, Trained

log = logging.getLogger(__name__)
source.register()


@hydra.main(config_path=str(CONF_DIR), config_name="train", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> float:
    """Run the command; the number returned, for Hydra's sweepers, is the summary's mean."""
    fields = config.plain(cfg)
    spec, chosen = config.take_spec(fields), config.take_format(fields)
    pictures = config.take_switch(fields, "pictures")
    from hybridsim.train.devices import pick_device
    from hybridsim.train.pressed import press, pressure_record
    from hybridsim.train.progress import TrainingProgress
    from hybridsim.train.proxy import check_pressure
    from hybridsim.train.record import train_record
    from hybridsim.train.run import ProxyRun
    from hybridsim.workload import parse_workload

    workload = parse_workload(fields["workload"])
    pressure = check_pressure(fields["pressure"])
    proxy = press(take_proxy(fields), pressure, spec, workload)
    started = time.perf_counter()
    with TrainingProgress() as progress:
        run = ProxyRun(
            proxy,
            device=pick_device(str(fields["device"])),
            folder=Path(str(fields["kept"])),
            on_look=progress.look,
            context_target=_context(fields["context"]),
        )
        (trained,) = run.train([spec])
    document = train_record(
        trained,
        run,
        pressure=pressure_record(pressure, proxy, spec, workload),
        weights=_weights(workload.quality_weights, proxy),
        overrides=config.task_overrides(),
        wall_s=time.perf_counter() - started,
    )
    folder = Path(config.output_dir())
    _write(document, trained, folder, pictures)
    run.forget()
    _show(document, run, chosen, folder)
    return float(document["summary"]["mean"])


def take_proxy(fields: dict[str, Any]) -> ProxySettings:
    """Return the checked proxy of a command's config, with the tasks that were asked for."""
    from hybridsim.train.proxy import parse_proxy

    proxy, names = parse_proxy(fields["proxy"]), fields.get("tasks")
    if names is None:
        return proxy
    if not isinstance(names, list) or not names:
        raise bad_value("tasks", names, f"must be a list, of {', '.join(proxy.tasks)}")
    for name in names:
        if name not in proxy.tasks:
            raise bad_value("tasks", name, f"no such task (the proxy's: {', '.join(proxy.tasks)})")
    return proxy.only(tuple(names))


def _context(value: Any) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise bad_value("context", value, "must be an integer of at least 1, or null")
    found: int | None = value
    return found


def _weights(weights: dict[str, float], proxy: ProxySettings) -> dict[str, float]:
    """Return a workload's weights of the tasks that count; all alike where it has none of them."""
    counted = proxy.counted_tasks()
    return {task: weights[task] for task in counted if task in weights} or dict.fromkeys(
        counted, 1.0
    )


def _write(document: dict[str, Any], trained: Trained, folder: Path, pictures: bool) -> None:
    """Write the record, the curves and the pictures into the run's folder."""
    from hybridsim.report import files
    from hybridsim.train.record import curve_rows, model_rows

    files.write_json(folder / "train.json", document)
    files.write_table(folder, "models", model_rows([trained]))
    curves = curve_rows([trained])
    files.write_table(folder, "curves", curves)
    if pictures:
        from hybridsim.report.pictures import write
        from hybridsim.report.training import curve_figures, scores_figure

        for figure in (scores_figure(document), *curve_figures(curves)):
            write(figure, folder)


def _show(document: dict[str, Any], run: ProxyRun, chosen: str, folder: Path) -> None:
    if chosen == "json":
        from hybridsim.report.files import json_text

        print(json_text(document))
    else:
        from hybridsim.report.tables import print_report
        from hybridsim.report.training import train_report
        from hybridsim.train.record import ledger_lines

        lines = ledger_lines(run.ledger, document["pressure"])
        print_report(train_report(document, lines, document["reliability"]))
        log.info("written to %s", folder)
    if all(score is None for score in document["scores"].values()):
        raise HybridsimError(f"all trainings failed: {document['failures'][0]['cause']}")


if __name__ == "__main__":
    main()
