"""hybridsim export: a spec to a config.json of the reference implementation."""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded, write_new
from hybridsim.paths import CONF_DIR
from hybridsim.spec import source

log = logging.getLogger(__name__)
source.register()


@hydra.main(config_path=str(CONF_DIR), config_name="export", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Run the command."""
    fields = config.plain(cfg)
    spec, chosen = config.take_spec(fields), config.take_format(fields)
    overwrite = config.take_switch(fields, "overwrite")
    from hybridsim.families.convert import CONFIG, export_config
    from hybridsim.report.files import json_text

    exported = export_config(spec, str(fields["family"] or ""))
    output = Path(fields["output"] or Path(config.output_dir()) / CONFIG)
    text = json_text(exported.config)
    write_new(output, text + "\n", overwrite)
    if chosen == "json":
        print(text)
    else:
        print(f"{spec.name} as {exported.family.architecture}: written to {output}")
    for note in exported.notes:
        log.warning("not carried: %s", note)


if __name__ == "__main__":
    main()
