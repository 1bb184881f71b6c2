"""A study in Jupyter: its tables and its picture, by themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

from hybridsim.errors import HybridsimError
from hybridsim.report.notebook import as_html
from search.report import report
from search.results import FRONTIER, TRIALS
from search.study import study_folder

Document = dict[str, Any]


@final
@dataclass(frozen=True)
class StudyView:
    """What a study found; the last line of a notebook's cell shows it.

    Attributes:
        document: of the search, schema `hybridsim/search/1`.
        trials: a row for each.
    """

    document: Document
    trials: Sequence[Document]

    def _repr_html_(self) -> str:
        from search.pictures import pareto_picture

        if not self.document["frontier"]:
            return as_html(report(self.document))
        return as_html(
            report(self.document), lambda file: pareto_picture(file, self.document, self.trials)
        )


def load_study(name: str) -> StudyView:
    """Return a study that was searched, by its name.

    Raises:
        HybridsimError: there is none, or its files cannot be read.
    """
    folder = study_folder(name)
    found = []
    for file in (FRONTIER, f"{TRIALS}.json"):
        try:
            found.append(json.loads((folder / file).read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise HybridsimError(
                f"study={name}: {folder / file} cannot be read ({error})"
            ) from None
    return StudyView(*found)
