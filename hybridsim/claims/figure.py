"""What we compute for one published number, and what that says about it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

CLOSED_FORM, ROOFLINE, PUBLISHED = "closed form", "roofline", "published figures"

REPRODUCED, WITHIN_BOUNDS = "reproduced", "within bounds"
CONTRADICTED, NOT_COMPUTABLE = "contradicted", "not computable"
VERDICTS = (REPRODUCED, WITHIN_BOUNDS, CONTRADICTED, NOT_COMPUTABLE)

# How a published number relates to ours -> words before it in tables
RELATIONS = {
    "equals": "",
    "at_least": ">= ",
    "at_most": "<= ",
    "less_than": "< ",
    "up_to": "up to ",
    "below_ours": "",
    "above_ours": "",
    "reached": "",
}
# Ours only has to be on the right side.
LIMITS = ("at_least", "at_most", "less_than")


@dataclass(frozen=True)
class Ours:
    """A figure of ours.

    Attributes:
        value: in the kind's unit.
        arithmetic: how it comes about, from the numbers that were computed.
        provenance: CLOSED_FORM, ROOFLINE, PUBLISHED or that of measured times.
        low, high: what it lies between, where it is no single number.
        is_interval: low and high are the 90 % interval of one number; else it ranges over them
            with what the claim leaves open.
    """

    value: float
    arithmetic: str
    provenance: str = CLOSED_FORM
    low: float | None = None
    high: float | None = None
    is_interval: bool = False

    @property
    def is_single(self) -> bool:
        """Whether it is one number, however well it is known."""
        return self.is_interval or (self.low is None and self.high is None)

    @property
    def least(self) -> float:
        """The lowest that it can be."""
        return self.value if self.low is None else self.low

    @property
    def most(self) -> float:
        """The highest that it can be."""
        return self.value if self.high is None else self.high


class Kind(ABC):
    """One way of computing a figure; subclasses are frozen dataclasses, parsed from the data.

    Attributes:
        unit: "x" (a ratio), "%" (a share), "" (a number), another of _FORMATS, or what
            is counted.
    """

    unit: ClassVar[str]

    @abstractmethod
    def compute(self) -> Ours | str:
        """Return our figure, or what is missing for one."""


def verdict(published: float, precision: float, relation: str, ours: Ours) -> str:
    """Return what our figure says about a published number.

    Args:
        published: the number.
        precision: how far off the printed number may be: half a unit of its last digit, or what a
            digitised curve allows.
        relation: how the published number should relate to ours. "equals": within the precision.
            "at_least", "at_most", "less_than": the text gives a limit for ours; "up_to": the most
            that ours may reach. "below_ours": ours is the most that the published number can be, an
            ideal ratio or rate; "above_ours": ours is the least, an ideal time or price. "reached":
            a gain measured on a device that is not known: ours, on another one, has it
            (reproduced) or is larger (within bounds).
        ours: our figure.
    """
    low, high = published - precision, published + precision
    meets = ours.least <= high and ours.most >= low
    allowed = {
        "equals": meets,
        "at_least": ours.most >= low,
        "reached": ours.most >= low,
        "at_most": ours.least <= high,
        "less_than": ours.least < low,
        "up_to": ours.least <= high,
        "below_ours": low <= ours.most,
        "above_ours": high >= ours.least,
    }[relation]
    if not allowed:
        return CONTRADICTED
    exactly = meets and ours.is_single
    return REPRODUCED if exactly or relation in LIMITS else WITHIN_BOUNDS


_FORMATS: dict[str, Callable[[float], str]] = {
    "x": lambda v: f"{v:.3g}x" if v >= 100 else f"{v:.2f}x",
    "%": lambda v: f"{100 * v:.2f} %",
    "GiB": lambda v: f"{v / (1 << 30):.2f} GiB",
    "GB": lambda v: f"{v / 1e9:.1f} GB",
    "TB/s": lambda v: f"{v / 1e12:.2f} TB/s",
    "USD": lambda v: f"${v:.3f}",
    "ms": lambda v: f"{v * 1e3:.3g} ms",
    "": lambda v: f"{v:,.0f}" if v == round(v) or v >= 1e4 else f"{v:.4g}",
}


def figure_text(value: float, unit: str) -> str:
    """Return a figure for people; counts have all their digits."""
    text = _FORMATS.get(unit)
    return f"{value:,.0f} {unit}" if text is None else text(value)


def ours_text(ours: Ours, unit: str) -> str:
    """Return a figure of ours for people: its range, where it has one."""
    if ours.low is None and ours.high is None:
        return figure_text(ours.value, unit)
    return f"{figure_text(ours.least, unit)} to {figure_text(ours.most, unit)}"
