"""What a multirun's overrides vary: Hydra's sweep syntax as Optuna's distributions, and back.

As the users of hydra-optuna-sweeper know it: `a,b` and `choice(a, b)` are categories,
`range(0, 8, step=2)` are numbers with both ends, `interval(0, 1)` is continuous,
`int(interval(1, 9))` whole, and `tag(log, interval(1e-4, 1))` logarithmic. Every other override is
the same for all trials.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from hybridsim.errors import HybridsimError

LOG, WHOLE = "log", "int"
TAGS = (LOG, WHOLE)
RANDOM_DRAWS = 1000
MOST_ENUMERATED = 100_000


@dataclass(frozen=True)
class OverrideSpace:
    """What varies in a sweep, and what does not.

    Attributes:
        distributions: by override key (`hardware`, `+spec.mixers.L.window`).
        fixed: overrides of every job.
    """

    distributions: dict[str, BaseDistribution]
    fixed: list[str]

    def suggest(self, trial: Trial) -> str:
        """Draw all parameters of a trial; return the candidate's identity."""
        for key, distribution in self.distributions.items():
            _suggest(trial, key, distribution)
        return identity(trial.params)

    def overrides(self, params: Mapping[str, Any]) -> list[str]:
        """Return the overrides of the job of a trial with these parameters."""
        return [*self.fixed, *(f"{key}={_text(params[key])}" for key in self.distributions)]

    def unseen(self, known: set[str]) -> dict[str, Any] | None:
        """Return parameters whose identity is not known, None where there are no more."""
        for _ in range(RANDOM_DRAWS):
            drawn = {key: _draw(found) for key, found in self.distributions.items()}
            if identity(drawn) not in known:
                return drawn
        values = [_values(found) for found in self.distributions.values()]
        if math.prod(map(len, values)) > MOST_ENUMERATED:
            raise HybridsimError(f"{RANDOM_DRAWS} random draws gave nothing new; widen the space")
        for combination in itertools.product(*values):
            params = dict(zip(self.distributions, combination, strict=True))
            if identity(params) not in known:
                return params
        return None


def identity(params: Mapping[str, Any]) -> str:
    """Return what two trials of the same candidate have in common."""
    return " ".join(f"{key}={_text(params[key])}" for key in sorted(params))


def parse_space(overrides: Sequence[Override]) -> OverrideSpace:
    """Return the space that overrides span.

    Raises:
        HybridsimError: nothing varies, or something in a way that Optuna has no distribution for.
    """
    varied = {o.get_key_element(): o for o in overrides if o.is_sweep_override()}
    if not varied:
        raise HybridsimError("nothing to sweep: give a key several values, as in workload=chat,rag")
    fixed = {o.get_key_element(): _fixed(o) for o in overrides if not o.is_sweep_override()}
    return OverrideSpace(
        {key: _distribution(o) for key, o in varied.items()},
        [text for key, text in fixed.items() if key not in varied],
    )


def _fixed(override: Override) -> str:
    if override.is_delete():
        return str(override.input_line)
    return f"{override.get_key_element()}={override.get_value_element_as_str()}"


def _distribution(override: Override) -> BaseDistribution:
    value = override.value()
    try:
        if isinstance(value, IntervalSweep):
            return _interval(value)
        if isinstance(value, RangeSweep) and not value.shuffle:
            return _range(value)
        texts = list(override.sweep_string_iterator())
        return CategoricalDistribution([_category(text) for text in dict.fromkeys(texts)])
    except ValueError as error:
        raise HybridsimError(f"{override.input_line}: {error}") from None


def _interval(value: IntervalSweep) -> BaseDistribution:
    wrong = sorted(value.tags - set(TAGS))
    if wrong:
        raise HybridsimError(f"tag({wrong[0]}, ...): no such tag (known: {', '.join(TAGS)})")
    assert value.start is not None
    assert value.end is not None
    log = LOG in value.tags
    # `int(interval(1, 9))` has whole ends, and no tag.
    if WHOLE in value.tags or (isinstance(value.start, int) and isinstance(value.end, int)):
        return IntDistribution(int(value.start), int(value.end), log=log)
    return FloatDistribution(value.start, value.end, log=log)


def _range(value: RangeSweep) -> BaseDistribution:
    assert value.start is not None
    assert value.stop is not None
    if value.step <= 0 or value.stop < value.start:
        raise HybridsimError(f"range({value.start}, {value.stop}): must go upwards")
    # The last value that the steps reach: Optuna would warn, and take the same.
    steps = math.floor((value.stop - value.start) / value.step + 1e-9)
    high = value.start + steps * value.step
    if all(isinstance(number, int) for number in (value.start, value.step)):
        return IntDistribution(int(value.start), int(high), step=int(value.step))
    return FloatDistribution(value.start, high, step=value.step)


def _category(text: str) -> bool | int | float | str | None:
    """Return a category as the study shows it: plain numbers and YAML's words as what they mean."""
    words: dict[str, bool | None] = {"true": True, "false": False, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            number = kind(text)
        except ValueError:
            continue
        if str(number) == text:  # "007" and "1e3" stay what they are
            return number
    return text


def _text(value: object) -> str:
    """Return a parameter as the right-hand side of an override."""
    return "null" if value is None else str(value)


def _suggest(trial: Trial, key: str, distribution: BaseDistribution) -> None:
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(key, distribution.choices)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(
            key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )
    else:
        assert isinstance(distribution, FloatDistribution)
        trial.suggest_float(
            key, distribution.low, distribution.high, step=distribution.step, log=distribution.log
        )


def _values(distribution: BaseDistribution) -> Sequence[Any]:
    """Return all values of a distribution; HybridsimError where they cannot be listed."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None:
        raise HybridsimError(f"{RANDOM_DRAWS} random draws gave nothing new; widen the space")
    steps = round((distribution.high - distribution.low) / distribution.step)
    return [distribution.low + step * distribution.step for step in range(steps + 1)]


def _draw(distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution) and distribution.step is None:
        low, high = distribution.low, distribution.high
        if distribution.log:
            return min(high, math.exp(random.uniform(math.log(low), math.log(high))))
        return random.uniform(low, high)
    return random.choice(_values(distribution))
