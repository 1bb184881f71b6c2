"""hybridsim import: a published config.json to a spec file."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded, require, write_new
from hybridsim.paths import CONF_DIR
from hybridsim.spec import source

SCHEMA = "hybridsim/import/1"

log = logging.getLogger(__name__)
source.register()


@hydra.main(config_path=str(CONF_DIR), config_name="import", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Run the command."""
    fields = config.plain(cfg)
    chosen, overwrite = config.take_format(fields), config.take_switch(fields, "overwrite")
    path = str(require(fields, "config", "the path of a config.json or of a checkpoint folder"))
    from hybridsim.families.convert import import_config, spec_text

    imported = import_config(path, str(fields["name"] or ""))
    name = imported.spec.name
    output = Path(fields["output"] or f"{name}{source.SUFFIX}")
    write_new(output, spec_text(imported, path), overwrite)
    document = _document(imported, path, output)
    if chosen == "json":
        from hybridsim.report.files import json_text

        print(json_text(document))
    else:
        from hybridsim.report.imported import import_report
        from hybridsim.report.tables import print_report

        print_report(import_report(document))


def _document(imported: Any, path: str, output: Path) -> dict[str, Any]:
    """Return what was read, as plain data."""
    from dataclasses import asdict

    from hybridsim.cost.model import ModelCosts
    from hybridsim.graph import build_graph
    from hybridsim.spec.parse import spec_dict

    spec = imported.spec
    return {
        "schema": SCHEMA,
        "config": path,
        "model_type": imported.family.model_type,
        "architecture": imported.family.architecture,
        "written": str(output),
        "layer_pattern": spec.layer_pattern,
        "ffn_pattern": spec.ffn_pattern,
        "parameters": asdict(ModelCosts.of(build_graph(spec)).parameters),
        "notes": imported.notes,
        "spec": spec_dict(spec),
    }


if __name__ == "__main__":
    main()
