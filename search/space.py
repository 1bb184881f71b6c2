"""Candidates that a space's data allow, feasible by construction. No torch."""

from __future__ import annotations

from collections.abc import Iterator, KeysView, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import comb
from random import Random
from typing import TYPE_CHECKING, Any

from hybridsim.cost.op import Deployment
from hybridsim.errors import SpecError
from hybridsim.hardware import Hardware
from hybridsim.measure.estimate import BlockTimes
from hybridsim.spec.pattern import compress_pattern
from hybridsim.spec.schema import ModelSpec
from hybridsim.workload import Workload
from search.candidate import Candidate
from search.costs import Counts, PlacementCosts, check_separable
from search.encoding import Distributions, FreeEncoding, ListedEncoding
from search.limits import Limits
from search.settings import FIXED, FREE, SpaceSettings
from search.variants import Variants

if TYPE_CHECKING:
    from optuna.trial import Trial

MAX_UNITS = 200_000  # of a periodic placement


@dataclass(frozen=True)
class Serve:
    """Where and for what candidates are served.

    Attributes:
        workload: sizes of prompts and answers.
        hardware: the device.
        deployment: number formats.
        blocks: times from the device's rows; None models every time.
    """

    workload: Workload
    hardware: Hardware
    deployment: Deployment
    blocks: BlockTimes | None = None


class Space:
    """The candidates of a space around a base.

    Args:
        base: the spec that the search starts from.
        settings: what may vary.
        serve: device and workload, of which limits are.

    Raises:
        SpecError: the settings do not fit the base, or no candidate keeps to the limits.
    """

    def __init__(self, base: ModelSpec, settings: SpaceSettings, serve: Serve) -> None:
        self.base, self.settings, self.serve = base, settings, serve
        self.variants = Variants(base, settings)
        spec = self.variants.spec(self.variants.base_options)
        self.letters = _letters(spec, settings)
        check_separable(spec, self.letters)
        self.full_letters = "".join(c for c in self.letters if _is_full(spec, c))
        self.template = _template(spec, settings, self.letters)
        self._pinned = [self.template.count(letter) for letter in self.letters]
        self.free = [i for i, letter in enumerate(self.template) if letter is None]
        self.fixed_full_layers = sum(_is_full(spec, c) for c in self.template if c is not None)
        self._pins = [(i, letter) for i, letter in enumerate(self.template) if letter is not None]
        self._costs: dict[tuple[int, ...], PlacementCosts] = {}
        self.limits = Limits(self)
        self._feasible: dict[tuple[int, ...], dict[Counts, None]] = {}
        self._refuse_if_empty()

    def _refuse_if_empty(self) -> None:
        for options in self.variants.all_options():
            if self.feasible_counts(options):
                return
        raise SpecError(f"space={self.settings.name}: no candidate; {self.limits.why_empty()}")

    @cached_property
    def patterns(self) -> list[str] | None:
        """The placements of a periodic or fixed space, those outside the limits too; else None."""
        if self.settings.placement == FREE:
            return None
        if self.settings.placement == FIXED:
            return [self.base.layer_letters]
        return _tilings(self.letters, self.template, self.settings.max_period)

    @cached_property
    def encoding(self) -> FreeEncoding | ListedEncoding:
        """How candidates are parameters of a trial."""
        if self.patterns is None:
            return FreeEncoding(self)
        return ListedEncoding(self, self.listed)

    @cached_property
    def listed(self) -> list[str]:
        """The placements of a periodic or fixed space that some combination of options allows."""
        every = [set(self.feasible_counts(options)) for options in self.all_options]
        allowed = set().union(*every)
        return [p for p in self.patterns or [] if self.counts(p) in allowed]

    @cached_property
    def _listed_set(self) -> frozenset[str]:
        return frozenset(self.listed)

    @cached_property
    def all_options(self) -> list[tuple[int, ...]]:
        """The combinations of options that some placement makes feasible."""
        return [o for o in self.variants.all_options() if self.feasible_counts(o)]

    def costs(self, options: tuple[int, ...]) -> PlacementCosts:
        """Return the costs of the placements of a combination of options."""
        if options not in self._costs:
            serve = self.serve
            self._costs[options] = PlacementCosts(
                self.variants.spec(options),
                self.letters,
                self.free,
                serve.deployment,
                serve.hardware,
                serve.blocks,
            )
        return self._costs[options]

    def counts(self, letters: str) -> Counts:
        """Return how many free layers have each letter."""
        return tuple(
            letters.count(letter) - pinned
            for letter, pinned in zip(self.letters, self._pinned, strict=True)
        )

    def feasible_counts(self, options: tuple[int, ...]) -> KeysView[Counts]:
        """Return the numbers of layers of each letter that keep to every limit."""
        if options not in self._feasible:
            allowed = (c for c in self._all_counts if self.limits.allow(options, c))
            self._feasible[options] = dict.fromkeys(allowed)
        return self._feasible[options].keys()

    @cached_property
    def _all_counts(self) -> list[Counts]:
        if self.patterns is not None:
            return sorted({self.counts(pattern) for pattern in self.patterns})
        return list(_compositions(len(self.free), len(self.letters)))

    def __contains__(self, candidate: Candidate) -> bool:
        letters, options = candidate.letters, candidate.options
        if len(letters) != len(self.template) or len(options) != len(self.variants.sizes):
            return False
        if not all(0 <= o < size for o, size in zip(options, self.variants.sizes, strict=True)):
            return False
        if any(letters[i] != letter for i, letter in self._pins):
            return False
        if self.patterns is not None and letters not in self._listed_set:
            return False
        counts = self.counts(letters)
        return sum(counts) == len(self.free) and counts in self.feasible_counts(options)

    @cached_property
    def size(self) -> int:
        """How many candidates there are; options that change nothing are counted apart."""
        every = (self.feasible_counts(options) for options in self.all_options)
        if self.patterns is None:
            return sum(sum(map(arrangements, counts)) for counts in every)
        return sum(sum(self.counts(p) in c for p in self.patterns) for c in every)

    def candidates(self) -> Iterator[Candidate]:
        """Yield every candidate once, in a fixed order."""
        seen: set[Candidate] = set()
        for options in self.all_options:
            for letters in self._placements(self.feasible_counts(options)):
                candidate = self.canonical(Candidate(letters, options))
                if candidate not in seen:
                    seen.add(candidate)
                    yield candidate

    def _placements(self, allowed: KeysView[Counts]) -> Iterator[str]:
        """Yield the placements of some classes; no other one is looked at, as there may be 2^27."""
        if self.patterns is not None:
            yield from (p for p in self.patterns if self.counts(p) in allowed)
            return
        for counts in allowed:
            for taken in _orders(self.letters, counts):
                yield self.fill(taken)

    def fill(self, taken: Sequence[str]) -> str:
        """Return the pattern whose free layers have these letters, in order."""
        rest = iter(taken)
        return "".join([next(rest) if letter is None else letter for letter in self.template])

    def canonical(self, candidate: Candidate) -> Candidate:
        """Return the one candidate that stands for all with the same graph.

        A choice about a mixer that no layer has makes no difference: the base's option stands for
        all, where that is feasible.
        """
        if not self.variants.varied:
            return candidate
        spec = self.variants.spec(candidate.options)
        used = set(candidate.letters) | set(spec.ffn_letters)
        used |= {part for letter in candidate.letters for part in spec.layer_mixers(letter)}
        options = tuple(
            base if (about := self.variants.letters_of(name)) is not None and not about & used
            else option
            for name, option, base in zip(
                self.variants.choices, candidate.options, self.variants.base_options, strict=True
            )
        )  # fmt: skip
        if self.counts(candidate.letters) in self.feasible_counts(options):
            return Candidate(candidate.letters, options)
        return candidate

    def random(self, draw: Random) -> Candidate:
        """Return a candidate: uniform over options, then numbers of letters, then placements.

        Not uniform over placements: nearly all of those have the middle number of each letter.
        """
        options = draw.choice(self.all_options)
        allowed = self.feasible_counts(options)
        if self.patterns is not None:
            listed = [p for p in self.listed if self.counts(p) in allowed]
            return self.canonical(Candidate(draw.choice(listed), options))
        chosen = draw.choice(list(allowed))
        taken = [letter for letter, n in zip(self.letters, chosen, strict=True) for _ in range(n)]
        draw.shuffle(taken)
        return self.canonical(Candidate(self.fill(taken), options))

    def distributions(self) -> Distributions:
        """Return the parameters of a trial: see search/encoding.py."""
        return self.encoding.distributions()

    def suggest(self, trial: Trial) -> Candidate:
        """Return the candidate that a trial's sampler chose."""
        from optuna.distributions import IntDistribution

        params: dict[str, Any] = {}
        for name, found in self.distributions().items():
            if isinstance(found, IntDistribution):
                params[name] = trial.suggest_int(name, found.low, found.high)
            else:
                params[name] = trial.suggest_float(name, found.low, found.high)
        return self.encoding.decode(params)

    def spec(self, candidate: Candidate) -> ModelSpec:
        """Return the spec of a candidate."""
        variant = self.variants.spec(candidate.options)
        return variant.with_patterns(layer_pattern=compress_pattern(candidate.letters))

    def full_layers(self, letters: str) -> int:
        """Return how many layers have full attention."""
        return sum(_is_full(self.variants.spec(self.variants.base_options), c) for c in letters)


def arrangements(counts: Counts) -> int:
    """Return in how many orders that many letters can stand."""
    ways, left = 1, sum(counts)
    for n in counts:
        ways *= comb(left, n)
        left -= n
    return ways


def _orders(letters: str, counts: Counts) -> Iterator[str]:
    """Yield every order of so many of each letter once."""
    if not any(counts):
        yield ""
        return
    for i, (letter, n) in enumerate(zip(letters, counts, strict=True)):
        if n:
            for rest in _orders(letters, (*counts[:i], n - 1, *counts[i + 1 :])):
                yield letter + rest


def _compositions(total: int, parts: int) -> Iterator[Counts]:
    if parts == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for rest in _compositions(total - first, parts - 1):
            yield (first, *rest)


def _is_full(spec: ModelSpec, letter: str) -> bool:
    parts = spec.layer_mixers(letter)
    return len(parts) == 1 and spec.mixers[parts].is_full_attention


def _letters(spec: ModelSpec, settings: SpaceSettings) -> str:
    """Return the letters that free layers may have, cheap ones first."""
    layers = {**spec.mixers, **spec.parallel}
    given = settings.letters
    if given is None:
        mixing = [letter for letter in spec.layer_letters if letter in layers]
        full = [letter for letter in spec.mixers if _is_full(spec, letter)]
        given = "".join(dict.fromkeys([*mixing, *full[:1], *settings.mixers]))
    for letter in given:
        if letter not in layers:
            raise SpecError(
                f"space.letters={given}: the base has no mixer {letter}"
                f" (defined: {', '.join(sorted(layers))})"
            )
    if len(set(given)) < len(given) or not given:
        raise SpecError(f"space.letters={given}: must name each letter once, and at least one")
    return "".join(sorted(given, key=lambda letter: _is_full(spec, letter)))


def _template(spec: ModelSpec, settings: SpaceSettings, letters: str) -> list[str | None]:
    """Return the letter of each layer that is pinned, None for those that vary."""
    mixing = {**spec.mixers, **spec.parallel}
    made: list[str | None] = [None if letter in mixing else letter for letter in spec.layer_letters]
    if settings.placement == FIXED:
        return list(spec.layer_letters)
    ends = (("first", settings.first, 0), ("last", settings.last, len(made) - len(settings.last)))
    for key, pinned, at in ends:
        if len(pinned) > len(made):
            raise SpecError(f"space.{key}={pinned}: the base has only {len(made)} layers")
        for index, letter in enumerate(pinned):
            if letter not in mixing:
                raise SpecError(f"space.{key}={pinned}: the base has no mixer {letter}")
            made[at + index] = letter
    return made


def _tilings(letters: str, template: list[str | None], max_period: int) -> list[str]:
    """Return every placement that repeats a unit of at most so many layers, shortest units first.

    The unit is cut off at the end; pinned layers keep their letter.
    """
    longest = min(max_period, len(template))
    if sum(len(letters) ** size for size in range(1, longest + 1)) > MAX_UNITS:
        raise SpecError(
            f"space.max_period={max_period}: more than {MAX_UNITS:,} units of"
            f" {len(letters)} letters; give a shorter one"
        )
    made: dict[str, None] = {}
    for size in range(1, longest + 1):
        for unit in product(letters, repeat=size):
            tiled = (unit[i % size] if pin is None else pin for i, pin in enumerate(template))
            made["".join(tiled)] = None
    return list(made)
