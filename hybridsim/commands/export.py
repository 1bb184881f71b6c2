"""hybridsim export: a spec to a config.json of transformers or vLLM, and one page about it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded, write_new
from hybridsim.errors import SpecError, unknown
from hybridsim.paths import CONF_DIR
from hybridsim.spec import source

if TYPE_CHECKING:
    from hybridsim.spec.schema import ModelSpec

FORMATS = ("text", "json", "markdown")
TARGETS = ("transformers", "vllm")
PAGE = "summary.md"

log = logging.getLogger(__name__)
source.register()


@hydra.main(config_path=str(CONF_DIR), config_name="export", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> None:
    """Run the command."""
    fields = config.plain(cfg)
    spec, chosen = config.take_spec(fields), config.take_format(fields, FORMATS)
    overwrite, target = config.take_switch(fields, "overwrite"), str(fields.pop("target"))
    if target not in TARGETS:
        raise unknown("target", target, TARGETS, "target")
    family, output = str(fields.pop("family") or ""), fields.pop("output")
    if chosen == "markdown":
        _page(spec, family, fields, output, overwrite)
    else:
        _config(spec, family, target, chosen, output, overwrite)


def _config(
    spec: ModelSpec, family: str, target: str, chosen: str, output: Any, overwrite: bool
) -> None:
    from hybridsim.families.convert import CONFIG, export_config
    from hybridsim.families.vllm import vllm_config
    from hybridsim.report.files import json_text

    exported = export_config(spec, family)
    written = exported.config if target == "transformers" else vllm_config(spec, exported)
    path = Path(output or Path(config.output_dir()) / CONFIG)
    text = json_text(written)
    write_new(path, text + "\n", overwrite)
    if chosen == "json":
        print(text)
    else:
        print(f"{spec.name} as {exported.family.architecture}: written to {path}")
        if target == "vllm":
            print(f"vllm serve {path.parent} --load-format dummy --skip-tokenizer-init")
    for note in exported.notes:
        log.warning("not carried: %s", note)


def _page(
    spec: ModelSpec, family: str, fields: dict[str, Any], output: Any, overwrite: bool
) -> None:
    """Print the page and write it; a spec that no config.json can express has one too."""
    from hybridsim.profiler.profile import profile_spec
    from hybridsim.report.summary_page import summary_page

    hardware, workload = fields.pop("hardware"), fields.pop("workload")
    settings = {**fields, "flops": {"count": False}}
    found = profile_spec(spec, hardware, workload, config.task_overrides(), settings)
    text = summary_page(found.document, found.sweep, _notes(spec, family))
    write_new(Path(output or Path(config.output_dir()) / PAGE), text, overwrite)
    print(text, end="")


def _notes(spec: ModelSpec, family: str) -> list[str]:
    """Return who loads the model, and what no config.json carries."""
    from hybridsim.families.convert import export_config
    from hybridsim.families.vllm import vllm_config

    try:
        exported = export_config(spec, family)
    except SpecError as error:
        return [f"no config.json: {error}"]
    notes = [f"transformers loads it as {exported.family.architecture}"]
    try:
        vllm_config(spec, exported)
        notes.append("vLLM has a class for it (`hybridsim export target=vllm`)")
    except SpecError as error:
        notes.append(f"not for vLLM: {error}")
    return notes + [f"not carried: {note}" for note in exported.notes]


if __name__ == "__main__":
    main()
