"""hybridsim report: one self-contained HTML file for the records of runs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded, write_new
from hybridsim.errors import bad_value
from hybridsim.paths import CONF_DIR

if TYPE_CHECKING:
    from hybridsim.hardware import Hardware
    from hybridsim.report.html.runs import Run
    from hybridsim.report.html.sections import Section
    from hybridsim.spec.schema import ModelSpec

SCHEMA = "hybridsim/report/1"

log = logging.getLogger(__name__)


@hydra.main(config_path=str(CONF_DIR), config_name="report", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Run the command."""
    fields = config.plain(cfg)
    chosen = config.take_format(fields)
    overwrite, pictures = (config.take_switch(fields, key) for key in ("overwrite", "pictures"))
    paths = _texts(fields, "runs") or []
    from hybridsim import __version__
    from hybridsim.report.html.explorer import explorer_data
    from hybridsim.report.html.page import page
    from hybridsim.report.html.runs import find_runs
    from hybridsim.report.html.sections import builders, sections
    from hybridsim.report.html.write import write_parts

    runs = find_runs(paths, builders())
    parts = sections(runs)
    specs = _specs(runs, _texts(fields, "explore"))
    explorer = explorer_data(specs, _devices(runs)) if specs else None
    title = str(fields["title"] or _title(parts))
    text = page(title, _lead(runs), parts, explorer, __version__)
    folder = Path(config.output_dir())
    output = Path(fields["output"] or folder / "report.html")
    write_new(output, text, overwrite)
    write_parts(folder, parts, pictures=pictures)
    _show(_document(output, text, runs, parts, specs), chosen, folder)


def _texts(fields: dict[str, Any], key: str) -> list[str] | None:
    """Return a list of texts, None where nothing was given."""
    value = fields[key]
    if value is None:
        return None
    if not isinstance(value, list):
        raise bad_value(key, value, "expected a list, e.g. [a,b]")
    return [str(one) for one in value]


def _specs(runs: list[Run], names: list[str] | None) -> list[tuple[str, ModelSpec]]:
    """Return the specs of the runs, then those that were asked for, each once."""
    from hybridsim.report.html.explorer import TINY
    from hybridsim.report.html.specs import run_specs
    from hybridsim.spec.load import load_spec, spec_names

    found = run_specs(runs)
    if names is None:
        names = [name for name in spec_names() if not name.endswith(TINY)]
    known = list(found.values())
    for name in names:
        spec = load_spec(name)
        if spec not in known:
            found[f"{name} (shipped)" if name in found else name] = spec
    return list(found.items())


def _devices(runs: list[Run]) -> list[Hardware]:
    from hybridsim.hardware import parse_hardware

    records = [run.document.get("hardware") for run in runs]
    return [parse_hardware(record) for record in records if isinstance(record, dict)]


def _title(parts: list[Section]) -> str:
    if len(parts) == 1:
        return f"hybridsim: {parts[0].title}"
    return f"hybridsim: report of {len(parts)} runs" if parts else "hybridsim: explorer"


def _lead(runs: list[Run]) -> str:
    from hybridsim.origin import git_revision, versions

    found = versions()
    revision = git_revision()
    made = f"hybridsim {found['hybridsim']}" + (f" at {revision[:12]}" if revision else "")
    kinds = ", ".join(dict.fromkeys(run.kind for run in runs)) or "explorer"
    return f"Made by {made}, Python {found['python']}. Holds: {kinds}."


def _document(
    output: Path,
    text: str,
    runs: list[Run],
    parts: list[Section],
    specs: list[tuple[str, ModelSpec]],
) -> dict[str, Any]:
    from hybridsim.origin import git_revision, versions
    from hybridsim.report.html.sections import command_of

    return {
        "schema": SCHEMA,
        "html": str(output),
        "bytes": len(text.encode()),
        "runs": [
            {"path": str(run.path), "schema": run.schema, "command": command_of(run)}
            for run in runs
        ],
        "sections": [
            {
                "id": part.id,
                "title": part.title,
                "figures": [figure.name for figure in (*part.figures, *part.files)],
                "tables": [table.name for table in part.tables],
            }
            for part in parts
        ],
        "explored": [title for title, _ in specs],
        "versions": versions(),
        "git_revision": git_revision(),
    }


def _show(document: dict[str, Any], chosen: str, folder: Path) -> None:
    from hybridsim.report import files

    files.write_json(folder / "report.json", document)
    if chosen == "json":
        print(files.json_text(document))
        return
    print(f"{document['html']}  {document['bytes']:,} bytes")
    for section in document["sections"]:
        print(f"  {section['title']}: {len(section['figures'])} figures, ", end="")
        print(f"{len(section['tables'])} tables")
    print(f"  explorer: {len(document['explored'])} specs")
    log.info("figures and tables written to %s", folder)


if __name__ == "__main__":
    main()
