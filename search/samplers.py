"""Samplers by name: Optuna's own, and ours for patterns; settings are data (conf/sampler)."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from hybridsim.errors import HybridsimError, unknown
from hybridsim.fields import parse_dataclass

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

    from search.space import Space

PATTERN, GRID = "pattern", "grid"
# kind -> class of optuna.samplers
STOCK = {
    "tpe": "TPESampler",
    "nsga2": "NSGAIISampler",
    "nsga3": "NSGAIIISampler",
    "gp": "GPSampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "cmaes": "CmaEsSampler",
    GRID: "GridSampler",
}
KINDS = (PATTERN, *STOCK)
# kind -> package that Optuna imports only at the first proposal
NEEDS = {"gp": "scipy", "qmc": "scipy", "cmaes": "cmaes"}
SINGLE_OBJECTIVE = ("cmaes",)


@dataclass(frozen=True)
class SamplerSettings:
    """A sampler as data.

    Attributes:
        kind: "pattern" (ours) or one of Optuna's.
        options: arguments of the sampler, as Optuna calls them.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise unknown("kind", self.kind, KINDS, "sampler")


def parse_sampler(mapping: Mapping[str, Any]) -> SamplerSettings:
    """Return the settings that a mapping describes; SpecError for anything wrong."""
    settings: SamplerSettings = parse_dataclass(SamplerSettings, mapping, "sampler")
    return settings


def make_sampler(
    settings: SamplerSettings,
    seed: int | None,
    *,
    space: Space | None = None,
    distributions: Mapping[str, BaseDistribution] | None = None,
    reference: Sequence[float] | None = None,
) -> BaseSampler:
    """Return a sampler.

    Args:
        settings: kind and options.
        seed: of its draws.
        space: what "pattern" proposes candidates of.
        distributions: of the parameters, from which "grid" makes its grid.
        reference: of the hypervolume, where it is known; for "pattern".

    Raises:
        SpecError: an option that the sampler does not know, or does not accept.
        HybridsimError: the sampler cannot be used here.
    """
    if settings.kind == PATTERN:
        if space is None:
            raise HybridsimError("sampler=pattern: searches layer patterns only; choose tpe")
        from search.pattern_sampler import PatternSampler

        known = None if reference is None else [float(value) for value in reference]
        make = functools.partial(PatternSampler, space, seed=seed, reference=known)
        return _made(settings, make)
    if settings.kind == GRID and space is not None:
        from search.list_sampler import ListSampler

        return _made(settings, functools.partial(ListSampler, space, seed=seed))
    package = NEEDS.get(settings.kind)
    if package and find_spec(package) is None:
        raise HybridsimError(f"sampler={settings.kind}: needs the package {package}")
    import optuna

    cls = getattr(optuna.samplers, STOCK[settings.kind])
    fixed: dict[str, Any] = {"seed": seed}
    if settings.kind == GRID:
        fixed["search_space"] = grid(distributions or {})
    _check_options(settings, cls, set(fixed))
    return _made(settings, functools.partial(cls, **fixed))


def require_takes(settings: SamplerSettings, num_objectives: int) -> None:
    """Raise HybridsimError for a sampler that cannot search for so many objectives."""
    if settings.kind in SINGLE_OBJECTIVE and num_objectives > 1:
        raise HybridsimError(
            f"sampler={settings.kind}: takes one objective, not {num_objectives}; choose tpe"
        )


def _check_options(settings: SamplerSettings, cls: Any, fixed: set[str]) -> None:
    known = set(inspect.signature(cls).parameters) - fixed
    for name in settings.options:
        if name not in known:
            raise unknown("sampler.options", name, known or {"none"}, f"option of {settings.kind}")


def _made(settings: SamplerSettings, make: Callable[..., BaseSampler]) -> BaseSampler:
    from optuna.exceptions import ExperimentalWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return make(**settings.options)
    except ImportError as error:
        raise HybridsimError(f"sampler={settings.kind}: needs the package {error.name}") from None
    except (TypeError, ValueError) as error:
        raise HybridsimError(f"sampler.options={settings.options}: {error}") from None


def grid(distributions: Mapping[str, BaseDistribution]) -> dict[str, list[Any]]:
    """Return every value of each parameter.

    Raises:
        HybridsimError: a parameter has no finite list of values.
    """
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    values: dict[str, list[Any]] = {}
    for name, given in distributions.items():
        if isinstance(given, CategoricalDistribution):
            values[name] = list(given.choices)
        elif isinstance(given, IntDistribution) and not given.log:
            values[name] = list(range(given.low, given.high + 1, given.step))
        elif isinstance(given, FloatDistribution) and given.step is not None:
            count = round((given.high - given.low) / given.step)
            values[name] = [given.low + i * given.step for i in range(count + 1)]
        else:
            raise HybridsimError(f"sampler=grid: {name} is continuous; give it a step")
    return values
