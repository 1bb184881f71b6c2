"""hybridsim claims: published figures of the field, recomputed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded
from hybridsim.paths import CONF_DIR

FORMATS = ("text", "json", "markdown")

log = logging.getLogger(__name__)


@hydra.main(config_path=str(CONF_DIR), config_name="claims", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Run the command."""
    fields = config.plain(cfg)
    chosen, only = config.take_format(fields, FORMATS), config.take_texts(fields, "only")
    from rich.console import Console

    from hybridsim.claims.claim import claims_document

    with Console(stderr=True).status("recomputing"):
        document = claims_document(only)
    folder = Path(config.output_dir())
    write(document, folder)
    show(document, chosen, folder)


def write(document: dict[str, Any], folder: Path) -> None:
    """Write the record as JSON and Markdown, and its figures as tables."""
    from hybridsim.report import claims, files

    files.write_json(folder / "claims.json", document)
    files.write_table(folder, "claims", claims.figure_rows(document))
    (folder / "claims.md").write_text(claims.claims_markdown(document), encoding="utf-8")


def show(document: dict[str, Any], chosen: str, folder: Path) -> None:
    """Print the claims."""
    from hybridsim.report import claims, files, tables

    if chosen == "json":
        print(files.json_text(document))
    elif chosen == "markdown":
        print(claims.claims_markdown(document), end="")
    else:
        tables.print_report(claims.claims_report(document))
        log.info("written to %s", folder)


if __name__ == "__main__":
    main()
