"""The spec of a trial: `spec=study/NAME/42` works wherever a spec does. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from hybridsim.errors import HybridsimError, SpecError
from hybridsim.spec.parse import spec_dict
from hybridsim.spec.schema import ModelSpec
from search.candidate import parse_key
from search.definition import read_definition
from search.results import TRIALS
from search.settings import parse_space
from search.study import study_folder
from search.variants import Variants


def trial_fields(name: str, trial: str) -> dict[str, Any]:
    """Return the fields of the spec of a trial of a study, by their names.

    Raises:
        HybridsimError: there is no such study or trial.
    """
    folder = study_folder(name)
    if not trial.isdigit():
        raise SpecError(f"spec=study/{name}/{trial}: the last part must be a trial's number")
    return spec_dict(trial_spec(name, folder, int(trial)))


def trial_spec(name: str, folder: Path, trial: int) -> ModelSpec:
    """Return the spec of a trial.

    Raises:
        HybridsimError: there is no such study or trial.
    """
    from hybridsim.spec.parse import parse_spec

    definition = read_definition(folder)
    path = folder / f"{TRIALS}.parquet"
    try:
        rows = pd.read_parquet(path, columns=["trial", "layers", "options", "layer_pattern"])
    except (OSError, ValueError) as error:
        raise HybridsimError(f"study file {path}: cannot be read ({error})") from None
    row = rows[rows["trial"] == trial]
    if row.empty:
        known = f"0 to {int(rows['trial'].max())}" if len(rows) else "none"
        raise HybridsimError(f"spec=study/{name}/{trial}: no such finished trial ({known})")
    candidate = parse_key(f"{row['layers'].iloc[0]}|{row['options'].iloc[0]}")
    variants = Variants(parse_spec(definition.spec), parse_space(definition.space))
    spec = variants.spec(candidate.options)
    made = spec.with_patterns(layer_pattern=str(row["layer_pattern"].iloc[0]))
    return _named(made, f"{spec.name}_{name}_{trial}")


def _named(spec: ModelSpec, name: str) -> ModelSpec:
    """Return the spec under a name of its own; what was published is of the base."""
    from dataclasses import replace

    return replace(
        spec,
        name=name,
        description=f"a variant of {spec.name}",
        published={},
        sources={"search": f"trial of the study that {name} is named after"},
    )


def spec_text(name: str, folder: Path, trial: int) -> str:
    """Return a trial's spec as the text of a spec file."""
    fields = spec_dict(trial_spec(name, folder, trial))
    return f"# Trial {trial} of the study {name}.\n" + OmegaConf.to_yaml(OmegaConf.create(fields))
