"""The measurement store: rows of block times, the blocks and the sessions they belong to. No torch.

A file holds one JSON record a line: a session (device, versions, ceilings), a block (signature and
description), or a row. The same format serves the journal that a measurement appends to and the
files that ship in `data/`, one a device, sorted so that a change is a readable diff.

    python -m hybridsim.measure.store FOLDER_OR_FILE ... > hybridsim/measure/data/h100.jsonl
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from hybridsim.errors import HybridsimError
from hybridsim.measure.block import Block, parse_block
from hybridsim.measure.point import Ceilings, Point

SHIPPED = Path(__file__).with_name("data")
FOLDER_VARIABLE = "HYBRIDSIM_MEASUREMENTS"
OWN_FOLDER = Path("outputs/measurements")  # where the variable is not set

OK, OUT_OF_MEMORY, DOES_NOT_FIT, TOO_SLOW, FAILED = (
    "ok",
    "out of memory",
    "does not fit",
    "too slow",
    "failed",
)
COMPARED_VERSIONS = ("torch", "triton", "fla-core")  # another one of these is another measurement


@dataclass(frozen=True)
class Session:
    """What a run of measurements has in common.

    Attributes:
        id: device and time.
        device: name of the device in conf/hardware, or what torch calls it.
        title: what torch calls it.
        started: ISO 8601.
        versions: of packages and drivers, and of hybridsim with its git revision.
        flops_per_s: of a large matrix product, by format, measured in the session.
        bytes_per_s: of a large copy, read and written bytes together, or read, whichever is larger.
        timer_s: what timing itself adds to a captured run; taken off every such row.
        memory_bytes: of the device.
    """

    id: str
    device: str
    title: str
    started: str
    versions: dict[str, str | None]
    flops_per_s: dict[str, float]
    bytes_per_s: float
    timer_s: float = 0.0
    memory_bytes: int = 0

    @property
    def ceilings(self) -> Ceilings:
        """The measured rates."""
        return Ceilings(self.flops_per_s, self.bytes_per_s)

    @property
    def compared(self) -> tuple[str | None, ...]:
        """The versions of which a row must have the same to count as there."""
        return tuple(self.versions.get(name) for name in COMPARED_VERSIONS)


@dataclass(frozen=True)
class Row:
    """One block at one point, or why there is no time.

    Attributes:
        block: signature.
        part: the block's kind, for readers.
        phase, batch, context, skew: see Point.
        dtypes: see point.key_dtypes.
        repeat: 0, or the number of an independent repetition.
        session: id.
        backend: which implementation ran.
        status: "ok", "out of memory", "does not fit", "too slow" or "failed".
        latency_s: median; None without a time.
        spread: interquartile range of the samples over their median; None of a single run.
        runs: timed runs.
        mode: "graph" (a captured CUDA graph, replayed), "eager", or "passes" (eager, in pieces).
        experts: distinct experts that the tokens chose, the mean over the input sets.
        flops_share: FLOPs over time over the session's matrix rate.
        bytes_share: bytes that have to move over time over the session's bandwidth.
        note: an error's text; else empty.
    """

    block: str
    part: str
    phase: str
    batch: int
    context: int
    dtypes: str
    session: str
    skew: float = 0.0
    repeat: int = 0
    backend: str = ""
    status: str = OK
    latency_s: float | None = None
    spread: float | None = None
    runs: int = 0
    mode: str = ""
    experts: float | None = None
    flops_share: float | None = None
    bytes_share: float | None = None
    note: str = ""

    @property
    def point(self) -> Point:
        """Where the block was timed."""
        return Point(self.phase, self.batch, self.context, self.skew)

    @property
    def key(self) -> tuple[Any, ...]:
        """What was measured, by block and point; sessions may repeat it."""
        return (self.part, self.block, self.dtypes, self.point, self.repeat)


@dataclass
class Store:
    """Rows of one device from all files read; of equal keys the latest row with a time counts.

    Attributes:
        rows: by key.
        blocks: by signature.
        sessions: by id.
    """

    rows: dict[tuple[Any, ...], Row] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)

    def add(self, record: Mapping[str, Any]) -> None:
        """Take in a record of a file."""
        fields_given = {key: value for key, value in record.items() if key != "type"}
        if record["type"] == "session":
            session = Session(**fields_given)
            self.sessions[session.id] = session
        elif record["type"] == "block":
            self.blocks[record["block"]] = parse_block(record["description"])
        else:
            self._add_row(Row(**fields_given))

    def _add_row(self, row: Row) -> None:
        old = self.rows.get(row.key)
        if old is None or self._worth(old) <= self._worth(row):
            self.rows[row.key] = row

    def _worth(self, row: Row) -> tuple[bool, str]:
        """Return what decides between rows of one key: a time before none, then the later one."""
        session = self.sessions.get(row.session)
        return row.status == OK, session.started if session else ""

    def has(self, key: tuple[Any, ...], session: Session) -> bool:
        """Whether a row, or the mark of a failure, is there from the same versions.

        What was too slow is no failure: the next run may allow it more time.
        """
        row = self.rows.get(key)
        if row is None or row.session not in self.sessions or row.status == TOO_SLOW:
            return False
        return self.sessions[row.session].compared == session.compared

    def without_sessions(self, ids: Iterable[str]) -> Store:
        """Return the store without these sessions and their rows."""
        left_out = set(ids)
        return Store(
            {key: row for key, row in self.rows.items() if row.session not in left_out},
            self.blocks,
            {key: s for key, s in self.sessions.items() if key not in left_out},
        )

    def latest_session(self) -> Session | None:
        """Return the session that began last, None where there is none."""
        return max(self.sessions.values(), key=lambda s: s.started, default=None)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield the store as sorted records: sessions and blocks in use, then rows."""
        used = {row.session for row in self.rows.values()}
        for session in sorted(self.sessions.values(), key=lambda s: s.id):
            if session.id in used:
                yield session_record(session)
        seen = {row.block: row.part for row in self.rows.values()}
        for signature in sorted(seen, key=lambda s: (seen[s], s)):
            yield block_record(self.blocks[signature])
        for key in sorted(self.rows):
            yield row_record(self.rows[key])


def session_record(session: Session) -> dict[str, Any]:
    """Return a session as a record of a file."""
    return {"type": "session", **asdict(session)}


def block_record(block: Block) -> dict[str, Any]:
    """Return a block as a record of a file."""
    return {"type": "block", "block": block.signature, "description": block.description}


def row_record(row: Row) -> dict[str, Any]:
    """Return a row as a record of a file, without what is as by default."""
    given = {f.name: (getattr(row, f.name), f.default) for f in fields(row)}
    return {"type": "row"} | {
        name: value
        for name, (value, default) in given.items()
        if default is MISSING or value != default
    }


def line(record: Mapping[str, Any]) -> str:
    """Return a record as a line of a file."""
    return json.dumps(record, separators=(",", ":"), allow_nan=False) + "\n"


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a file; a last line that was cut off is left out.

    Raises:
        HybridsimError: another line is no record.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    for number, text in enumerate(lines, 1):
        if not text:
            continue
        try:
            record = json.loads(text)
        except ValueError:
            if number == len(lines):  # no line end after it: its writing was interrupted
                return
            raise HybridsimError(f"{path}: line {number} is not a record") from None
        yield record


def read_store(paths: Iterable[Path]) -> Store:
    """Return everything in these files; those that are not there are left out."""
    store = Store()
    records = [record for path in paths if path.is_file() for record in read_records(path)]
    # A row is dated by its session.
    for kind in ("session", "block", "row"):
        for record in records:
            if record["type"] == kind:
                store.add(record)
    return store


def own_folder() -> Path:
    """Return the folder of the user's own rows."""
    named = os.environ.get(FOLDER_VARIABLE)
    return Path(named).expanduser() if named else OWN_FOLDER


def device_store(device: str) -> Store:
    """Return all rows of a device: those that ship, and the user's own, which are newer."""
    return read_store(folder / f"{device}.jsonl" for folder in (SHIPPED, own_folder()))


class Journal:
    """A file that records are appended to, each safe on the disk before the next is measured.

    Args:
        path: the file; made with its folder where it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        _end_last_line(path)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record through to the disk."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line(record))
            file.flush()
            os.fsync(file.fileno())


def _end_last_line(path: Path) -> None:
    """Take away a last line that an interrupt cut off."""
    if not path.is_file():
        return
    content = path.read_bytes()
    if content and not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def main() -> None:
    """Write the merged and sorted records of files and folders to standard output."""
    given = [Path(argument) for argument in sys.argv[1:]]
    found = [
        p for path in given for p in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])
    ]
    for record in read_store(found).records():
        sys.stdout.write(line(record))


if __name__ == "__main__":
    main()
