"""Claims as they stand in the data, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from hybridsim.claims.figure import (
    CONTRADICTED,
    NOT_COMPUTABLE,
    RELATIONS,
    REPRODUCED,
    WITHIN_BOUNDS,
    Kind,
    Ours,
    figure_text,
    ours_text,
    verdict,
)
from hybridsim.claims.kinds import KINDS
from hybridsim.errors import HybridsimError, unknown
from hybridsim.fields import parse_dataclass

SCHEMA = "hybridsim/claims/1"
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Figure:
    """One published number of a claim.

    Attributes:
        name: what it is of, in a few words.
        published: the number.
        precision, relation: see figure.verdict.
        kind: how ours is computed.
    """

    name: str
    published: float
    precision: float
    relation: str
    kind: Kind


@dataclass(frozen=True)
class Claim:
    """What a publication says, in our words.

    Attributes:
        id: a short name.
        quantity: what it is about.
        published: what is said.
        conditions: under which.
        grade: A exact arithmetic or a small run on one GPU, B a ratio by roofline or measurement,
            C an ordering.
        source: where.
        figures: its numbers.
        note: how to read the outcome.
    """

    id: str
    quantity: str
    published: str
    conditions: str
    grade: str
    source: str
    figures: tuple[Figure, ...]
    note: str = ""


def load_claims() -> list[Claim]:
    """Return the claims that ship with the package, in the order of their files."""
    return [claim for path in sorted(DATA.glob("*.yaml")) for claim in _read(path)]


def _read(path: Path) -> Iterator[Claim]:
    document: Any = OmegaConf.to_container(OmegaConf.load(path))
    for fields in document["claims"]:
        key = f"{path.name}: {fields.get('id')}"
        figures = tuple(_figure(figure, key) for figure in fields.pop("figures"))
        yield parse_dataclass(
            Claim, {"source": document.get("source"), **fields, "figures": figures}, key
        )


def _figure(fields: Mapping[str, Any], key: str) -> Figure:
    """Return a figure; what is not a field of every figure is one of its kind."""
    own = dict(fields)
    kind, relation = own.pop("kind"), own.pop("relation", "equals")
    if kind not in KINDS:
        raise unknown(f"{key}.kind", kind, KINDS, "kind")
    if relation not in RELATIONS:
        raise unknown(f"{key}.relation", relation, RELATIONS, "relation")
    common = {name: own.pop(name) for name in ("name", "published", "precision") if name in own}
    return Figure(
        name=common["name"],
        published=float(common.get("published", "nan")),
        precision=float(common.get("precision", 0)),
        relation=relation,
        kind=parse_dataclass(KINDS[kind], own, key),
    )


def chosen(claims: Sequence[Claim], ids: Sequence[str]) -> list[Claim]:
    """Return the claims with these ids, all where none is given.

    Raises:
        SpecError: there is no claim with an id.
    """
    by_id = {claim.id: claim for claim in claims}
    for name in ids:
        if name not in by_id:
            raise unknown("only", name, by_id, "claim")
    return [by_id[name] for name in ids] if ids else list(claims)


def check(claim: Claim) -> dict[str, Any]:
    """Return a claim's record: ours beside what was published, the verdict, the arithmetic."""
    figures = [_checked(figure) for figure in claim.figures]
    return {
        "id": claim.id,
        "quantity": claim.quantity,
        "published": claim.published,
        "conditions": claim.conditions,
        "ours": "; ".join(f"{f['name']}: {f['ours']}" for f in figures),
        "verdict": overall([f["verdict"] for f in figures]),
        "arithmetic": "; ".join(f"{f['name']}: {f['arithmetic']}" for f in figures),
        "source": claim.source,
        "grade": claim.grade,
        "note": claim.note,
        "figures": figures,
    }


def overall(verdicts: Sequence[str]) -> str:
    """Return the verdict on a claim: one contradicted figure contradicts it.

    Figures that cannot be computed count only where none can.
    """
    for word in (CONTRADICTED, WITHIN_BOUNDS, REPRODUCED):
        if word in verdicts:
            return word
    return NOT_COMPUTABLE


def _checked(figure: Figure) -> dict[str, Any]:
    try:
        ours = figure.kind.compute()
    except HybridsimError as error:  # e.g. rows of a device that cannot be read
        ours = str(error)
    record: dict[str, Any] = {"name": figure.name}
    if isinstance(ours, str):
        return record | _uncomputed(figure, ours)
    unit = figure.kind.unit
    return record | {
        "published": RELATIONS[figure.relation] + figure_text(figure.published, unit),
        "ours": ours_text(ours, unit),
        "verdict": verdict(figure.published, figure.precision, figure.relation, ours),
        "arithmetic": ours.arithmetic,
        "published_value": figure.published,
        "precision": figure.precision,
        "relation": figure.relation,
        **_numbers(ours),
        "unit": unit,
        "provenance": ours.provenance,
    }


def _uncomputed(figure: Figure, needs: str) -> dict[str, Any]:
    known = figure.published == figure.published  # NaN where only words are published
    return {
        "published": figure_text(figure.published, figure.kind.unit) if known else "",
        "ours": "-",
        "verdict": NOT_COMPUTABLE,
        "arithmetic": f"needs {needs}",
        "published_value": figure.published if known else None,
        "precision": figure.precision,
        "relation": figure.relation,
        "ours_value": None,
        "ours_low": None,
        "ours_high": None,
        "unit": figure.kind.unit,
        "provenance": None,
    }


def _numbers(ours: Ours) -> dict[str, float | None]:
    return {"ours_value": ours.value, "ours_low": ours.low, "ours_high": ours.high}


def claims_document(ids: Sequence[str] = ()) -> dict[str, Any]:
    """Return every claim checked, or those with some ids, as one document."""
    return {"schema": SCHEMA, "claims": [check(c) for c in chosen(load_claims(), ids)]}
