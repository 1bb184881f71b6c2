"""One run of a study: opened, searched, answered. No torch here."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybridsim.errors import HybridsimError
from hybridsim.origin import git_revision, versions
from hybridsim.spec.parse import spec_dict
from hybridsim.spec.schema import ModelSpec
from hybridsim.train.proxy import check_pressure
from search.answer import Document, answer, with_advice
from search.definition import FILE, Definition, parse_definition, settle, write_definition
from search.engine import Engine
from search.evaluate import Evaluated, Evaluator
from search.exact import CostClass, CostTable, representative
from search.objectives import TRAINED
from search.progress import SearchProgress
from search.quality import NONE, PROXY, Quality, SurrogateQuality
from search.rebuild import spec_text
from search.records import KEY, RECORD, Tried, record_of
from search.reference import Box, study_box
from search.results import num_written, write_results, write_trials
from search.samplers import GRID, SamplerSettings, make_sampler, parse_sampler, require_takes
from search.space import Space
from search.study import (
    file_errors,
    open_storage,
    open_study,
    shown_storage,
    storage_errors,
    study_folder,
)

if TYPE_CHECKING:
    from optuna import Study

log = logging.getLogger(__name__)
WRITE_EVERY_S = 10.0
TRAINING = "training"  # folder of checkpoints and learning rates


def open_search(
    spec: ModelSpec, fields: Mapping[str, Any], seed: int, overrides: Sequence[str]
) -> Search:
    """Return a study, new or going on.

    Args:
        spec: the base.
        fields: the rest of the command's config: see conf/search.yaml.
        seed: of the sampler and of a surrogate's noise.
        overrides: what the user asked for; it must not contradict a study that goes on.

    Raises:
        HybridsimError: something given does not fit, or the storage fails.
    """
    given = dict(fields)
    storage, name = given.pop("storage"), given.pop("study")
    sampler = parse_sampler(given.pop("sampler"))
    definition = parse_definition({**given, "spec": spec_dict(spec)})
    if name is None:
        # As of Hydra's run folders; jobs of a sweep start within one second.
        stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S-%f}"
        name = f"{spec.name}_{definition.workload['name']}_{stamp}"
    folder = study_folder(str(name))
    definition = settle(definition, folder, overrides)
    return Search(str(name), folder, definition, sampler, storage, seed)


class Search:
    """A study with all it needs.

    Args:
        name: of the study.
        folder: of the study.
        definition: what it is of.
        sampler: what proposes candidates.
        storage: see search.study.open_storage.
        seed: of sampler and surrogate.

    Raises:
        HybridsimError: something does not fit, or there is nothing to search.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        definition: Definition,
        sampler: SamplerSettings,
        storage: str | None,
        seed: int,
    ) -> None:
        self.name, self.folder = name, folder
        self.space = definition.make_space()
        self._refuse_one_candidate()
        objectives = definition.found_objectives()
        trained = any(o.cost_class == TRAINED for o in objectives)
        quality = make_quality(definition, self.space, folder, seed) if trained else None
        self.definition = with_proxies(definition, folder, quality)
        weights = quality_weights(definition, self.space, quality)
        self.evaluator = Evaluator(self.space, objectives, quality, weights)
        self.box: Box = study_box(self.evaluator)
        self._shown = shown_storage(storage, folder)
        self._sampler, self._seed = sampler, seed
        # First the storage: one that cannot be reached leaves no study behind.
        self._storage = open_storage(storage, folder)
        with file_errors(str(folder)):
            write_definition(folder, self.definition, asdict(sampler))
        self._written_at = time.monotonic()

    def _refuse_one_candidate(self) -> None:
        if self.space.size == 1:
            only = next(self.space.candidates())
            raise HybridsimError(
                f"space={self.space.settings.name}: holds one candidate ({only.key}), nothing to"
                " search; `hybridsim profile` costs it"
            )

    def open_study(self, num_trials: int) -> Study:
        """Return the Optuna study; a space with no more candidates than trials is enumerated."""
        settings = self._sampler
        if self.space.size <= num_trials and settings.kind != GRID:
            log.info("%d candidates: every one is tried", self.space.size)
            settings = SamplerSettings(GRID)
        reference = self.box.reference.tolist()
        directions = [o.direction for o in self.evaluator.objectives]
        require_takes(settings, len(directions))
        sampler = make_sampler(settings, self._seed, space=self.space, reference=reference)
        study = open_study(self.name, directions, sampler, self._storage, self._shown)
        self._refuse_another_storage(study)
        return study

    def _refuse_another_storage(self, study: Study) -> None:
        """Refuse a storage without the study whose trials the folder has: they would be replaced.

        A storage that only lacks the last trials is the study's, after a power cut.
        """
        with storage_errors(self._shown):
            found = study.get_trials(deepcopy=False)
        written = 0 if found else num_written(self.folder)
        if written:
            raise HybridsimError(
                f"study={self.name}: {self.folder} has {written} finished trials, but"
                f" {self._shown} has none of them; give the storage= that the study was made with,"
                " or another study=NAME"
            )

    def run(
        self, num_trials: int, batch_size: int = 1, *, baselines: bool, tolerance: float = 0.01
    ) -> Document:
        """Search, and return the document of all that the study found.

        Args:
            num_trials: proposals of the study in all.
            batch_size: candidates trained together.
            baselines: train ladders and periodic patterns too.
            tolerance: difference in quality that does not matter.
        """
        self._tolerance = tolerance
        study = self.open_study(num_trials)
        if not self.evaluator.trained:
            return self._enumerate(study)
        with SearchProgress(num_trials, self.box.share) as progress:

            def told(found: list[Tried]) -> None:
                progress.told(found)
                self._save(found)

            engine = Engine(study, self.evaluator, batch_size=batch_size, told=told)
            with storage_errors(self._shown):
                try:
                    found = engine.run(num_trials, baselines=baselines)
                except KeyboardInterrupt:
                    self._keep(engine.finished())
                    raise
        return with_advice(self._answer(found, None), self.space)

    def _enumerate(self, study: Study) -> Document:
        """Cost every candidate; the front's classes become trials, one candidate each."""
        table = CostTable(self.evaluator)
        engine = Engine(study, self.evaluator)
        with storage_errors(self._shown):
            known = {one.candidate for one in engine.finished()}
            for one in table.front():
                candidate = representative(self.space, one)
                if candidate not in known:
                    self._add(study, one)
            found = engine.finished()
        covered = {
            "classes": len(table.classes),
            "placements": sum(one.placements for one in table.classes),
        }
        return self._answer(found, covered)

    def _add(self, study: Study, one: CostClass) -> None:
        from optuna.trial import create_trial

        candidate = representative(self.space, one)
        values = self.evaluator.costs(candidate)
        record = record_of(Evaluated(values), 0.0)
        study.add_trial(
            create_trial(
                params=self.space.encoding.encode(candidate),
                distributions=dict(self.space.distributions()),
                values=[values[o.name].value for o in self.evaluator.objectives],
                user_attrs={KEY: candidate.key, RECORD: record},
            )
        )

    def _save(self, found: list[Tried]) -> None:
        """Write the trials now and then, so that they can be read while the study runs."""
        if time.monotonic() - self._written_at > WRITE_EVERY_S:
            with file_errors(str(self.folder)):
                write_trials(self.folder, self.space, found)
            self._written_at = time.monotonic()

    def _keep(self, found: list[Tried]) -> None:
        """Write what an interrupted study has found."""
        with file_errors(str(self.folder)):
            write_trials(self.folder, self.space, found)
        log.warning(
            "interrupted; %d finished trials are kept, study=%s goes on", len(found), self.name
        )

    def _answer(self, found: list[Tried], classes: Document | None) -> Document:
        definition = self.definition
        origin = {
            "base": definition.spec["name"],
            "workload": definition.workload["name"],
            "hardware": definition.hardware["name"],
            "space": definition.space["name"],
            "quality": definition.quality if self.evaluator.trained else NONE,
            "quality_weights": self.evaluator.weights,
            "pressure": definition.pressure,
            "sampler": asdict(self._sampler),
            "seed": self._seed,
            "storage": self._shown,
            "versions": versions(),
            "git_revision": git_revision(),
        }
        self._found = found
        return answer(self.name, self.evaluator, self.box, found, origin, classes, self._tolerance)

    def write(self, document: Document, *, pictures: bool) -> None:
        """Write the study's folder."""
        with file_errors(str(self.folder)):
            write_results(self.folder, document, self.space, self._found, self.box, pictures)

    def recommended_spec(self, document: Document) -> str:
        """Return the recommended design, or the first of the frontier, as a spec file."""
        row = document["recommended"] or document["frontier"][0]
        return spec_text(self.name, self.folder, row["trial"])


def make_quality(definition: Definition, space: Space, folder: Path, seed: int) -> Quality | None:
    """Return what gives a study's qualities."""
    if definition.quality == NONE:
        return None
    if definition.quality == PROXY:
        from search.proxy_quality import ProxyQuality

        return ProxyQuality(
            space,
            definition.fidelities,
            folder / TRAINING,
            definition.device,
            check_pressure(definition.pressure),
        )
    return SurrogateQuality(space, seed)


def with_proxies(definition: Definition, folder: Path, quality: Quality | None) -> Definition:
    """Return the definition with the settings of the proxies that the study trains with.

    Raises:
        HybridsimError: the study was made with others; their scores are not comparable.
    """
    settings = "" if quality is None else quality.settings
    if (folder / FILE).is_file() and definition.proxies != settings:
        raise HybridsimError(
            f"study={folder.name}: was made with other settings of its proxies"
            f" {', '.join(definition.fidelities)}; give another study=NAME"
        )
    return replace(definition, proxies=settings)


def quality_weights(
    definition: Definition, space: Space, quality: Quality | None
) -> Mapping[str, float]:
    """Return the weights that were given, or those of the workload that the proxies' tasks have."""
    if definition.quality_weights or quality is None:
        return definition.quality_weights
    wanted: Mapping[str, float] = getattr(space.serve.workload, "quality_weights", None) or {}
    return {task: weight for task, weight in wanted.items() if task in quality.tasks}
