"""hybridsim describe: the layers of a spec, its parameters by part, and its graph."""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded
from hybridsim.paths import CONF_DIR
from hybridsim.spec import source

FORMATS = ("text", "json", "mermaid", "svg")

log = logging.getLogger(__name__)
source.register()


@hydra.main(config_path=str(CONF_DIR), config_name="describe", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Run the command."""
    fields = config.plain(cfg)
    spec, chosen = config.take_spec(fields), config.take_format(fields, FORMATS)
    from hybridsim.graph import build_graph
    from hybridsim.report import files, structure, tables
    from hybridsim.report.svg import svg

    graph = build_graph(spec)
    document = structure.structure_document(graph)
    folder = Path(config.output_dir())
    files.write_json(folder / "structure.json", document)
    files.write_table(folder, "layers", document["layers"])
    (folder / "graph.svg").write_text(svg(graph), encoding="utf-8")
    (folder / "graph.mmd").write_text(structure.mermaid(graph), encoding="utf-8")
    if chosen == "text":
        tables.print_report(structure.structure_report(graph, document))
        log.info("written to %s", folder)
    else:
        draw = {"mermaid": structure.mermaid, "svg": svg}
        print(files.json_text(document) if chosen == "json" else draw[chosen](graph))


if __name__ == "__main__":
    main()
