"""hybridsim validate: how far a proxy's verdicts can be trusted, measured."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded
from hybridsim.commands.train import take_proxy
from hybridsim.errors import bad_value, unknown
from hybridsim.paths import CONF_DIR

log = logging.getLogger(__name__)


@hydra.main(config_path=str(CONF_DIR), config_name="validate", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Run the command."""
    fields = config.plain(cfg)
    chosen, proxy = config.take_format(fields), take_proxy(fields)
    from hybridsim.origin import git_revision, host, versions
    from hybridsim.report import files
    from hybridsim.train.devices import device_title, pick_device
    from hybridsim.train.progress import TrainingProgress
    from hybridsim.train.record import proxy_record
    from hybridsim.train.reliability import document_of
    from hybridsim.train.validate import CHECKS, NEED_ZOOLOGY, Validation

    names = fields["checks"] or list(CHECKS)
    for name in names:
        if name not in CHECKS:
            raise unknown("checks", name, CHECKS, "check")
    device, started = pick_device(str(fields["device"])), time.perf_counter()
    with TrainingProgress() as progress:
        validation = Validation(
            proxy,
            device=device,
            folder=Path(str(fields["kept"])),
            patterns=_patterns(fields["patterns"]),
            longer=_longer(fields["longer"]),
            on_look=progress.look,
        )
        tables = validation.run(not NEED_ZOOLOGY.isdisjoint(names), _seconds(fields["seconds"]))
    folder = Path(config.output_dir())
    files.write_table(folder, "trainings", tables.rows())
    told = [name for name in names if validation.can_tell(name)]
    findings = [CHECKS[name](tables, validation) for name in told]
    document = document_of(
        proxy.name,
        findings,
        not_measured=[name for name in names if name not in told],
        longer=list(validation.longer),
        device=device_title(device, max(ledger.processes for ledger in tables.ledgers)),
        wall_s=time.perf_counter() - started,
        settings=proxy_record(validation.proxy),
        ledgers=[ledger.document() for ledger in tables.ledgers],
        versions=versions(("torch", "hydra-core")),
        git_revision=git_revision(),
        host=host(),
        overrides=config.task_overrides(),
    )
    files.write_json(folder / "validate.json", document)
    _show(document, chosen, folder)


def _patterns(value: Any) -> int:
    from hybridsim.train.arena import PATTERNS

    if type(value) is not int or not 14 <= value <= len(PATTERNS):
        raise bad_value("patterns", value, f"must be in 14..{len(PATTERNS)}")
    return value


def _longer(value: Any) -> list[float]:
    numbers = value if isinstance(value, list) else [value]
    if not numbers or not all(isinstance(n, int | float) and n > 1 for n in numbers):
        raise bad_value("longer", value, "must be a list of numbers above 1")
    return sorted(map(float, numbers))


def _seconds(value: Any) -> float:
    if value is None:
        return math.inf
    if type(value) not in (int, float) or not value > 0:
        raise bad_value("seconds", value, "must be a number above 0, or null")
    return float(value)


def _show(document: dict[str, Any], chosen: str, folder: Path) -> None:
    if chosen == "json":
        from hybridsim.report.files import json_text

        print(json_text(document))
        return
    from hybridsim.report.tables import print_report, table

    rows = [(f["name"], f["question"], f["verdict"], f["figures"]) for f in document["findings"]]
    title = f"Reliability of {document['proxy']} on {document['device']}"
    print_report(table(title, ("check", "question", "verdict", "figures"), rows), width=240)
    if document["not_measured"]:
        log.info("not measured in the time given: %s", ", ".join(document["not_measured"]))
    log.info("written to %s", folder)


if __name__ == "__main__":
    main()
