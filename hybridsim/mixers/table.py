"""The table of token mixers as a mapping: the shipped rows, and those of installed packages.

A package adds a kind of mixer by an entry point in the group `hybridsim.mixers`: its name is the
kind, its object a MixerEntry. See docs/adding_a_mixer.md. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from hybridsim.conventions import FlopRule
from hybridsim.errors import PluginError

GROUP = "hybridsim.mixers"


@dataclass(frozen=True)
class MixerEntry:
    """One row of the table.

    Attributes:
        folder: the package of the mixer, with `settings`, `cost`, `ops` and `module` inside.
        prefix: how its classes begin: PREFIXSettings, PREFIXCost and the module PREFIX.
        title: what tables and diagrams call it.
        source: where it is defined.
        flop_rules: for a mixer that is not shipped, the FLOPs of its own operators by name
            (`namespace::operator`); those of shipped ones are in counters/operators.py.
        free_operators: likewise, operators that it uses and that count for nothing.
    """

    folder: str
    prefix: str
    title: str
    source: str
    flop_rules: Mapping[str, FlopRule] = field(default_factory=dict)
    free_operators: frozenset[str] = frozenset()


class MixerTable(Mapping[str, MixerEntry]):
    """Kinds of mixers: those shipped, and those that installed packages add.

    Packages are found by their metadata at the first look into the table, and one is imported when
    its kind is asked for, so that a broken one harms only those who use it.

    Raises:
        PluginError: two packages, or a package and hybridsim, provide the same kind (at the first
            look); a package's entry does not load (when asked for).
    """

    def __init__(self, shipped: Mapping[str, MixerEntry]) -> None:
        self.shipped = dict(shipped)
        self._loaded: dict[str, MixerEntry] = {}

    def __getitem__(self, kind: str) -> MixerEntry:
        points = self._points
        if kind in self.shipped:
            return self.shipped[kind]
        if kind not in self._loaded:
            point = points[kind]
            with self.blaming(kind):
                self._loaded[kind] = _entry(point)
        return self._loaded[kind]

    def __iter__(self) -> Iterator[str]:
        return iter([*self.shipped, *self._points])

    def __len__(self) -> int:
        return len(self.shipped) + len(self._points)

    @cached_property
    def _points(self) -> dict[str, EntryPoint]:
        """The entry points by kind; finding them imports no package."""
        found: dict[str, EntryPoint] = {}
        for point in entry_points(group=GROUP):
            other = "hybridsim itself" if point.name in self.shipped else None
            if point.name in found:
                other = _distribution(found[point.name])
            if other is not None:
                raise _broken(point, f"{other} provides that kind too")
            found[point.name] = point
        return found

    @property
    def plugins(self) -> dict[str, MixerEntry]:
        """The entries of installed packages that were asked for, by kind."""
        return dict(self._loaded)

    @property
    def distributions(self) -> list[str]:
        """Names of the installed packages whose entries were asked for."""
        dists = (self._points[kind].dist for kind in self._loaded)
        return sorted({dist.name for dist in dists if dist is not None})

    def provider(self, kind: str) -> str:
        """Return name and version of the package that provides a kind that is not shipped."""
        return _distribution(self._points[kind])

    def part(self, kind: str, module: str, suffix: str, base: type | None) -> type:
        """Return a class of a mixer, from a module of its folder.

        Args:
            kind: of the mixer.
            module: in the mixer's folder.
            suffix: what follows the prefix in the class's name.
            base: what it must inherit from, None where that needs no look.
        """
        entry = self[kind]
        with self.blaming(kind):
            found: type = getattr(import_module(f"{entry.folder}.{module}"), entry.prefix + suffix)
            if base is not None and not (isinstance(found, type) and issubclass(found, base)):
                raise TypeError(f"{entry.prefix}{suffix} is no {base.__name__}")
        return found

    @contextmanager
    def blaming(self, kind: str) -> Iterator[None]:
        """Turn what goes wrong inside with a package's kind into one line naming the package."""
        try:
            yield
        except Exception as error:
            if kind in self.shipped:
                raise
            why = " ".join(f"{type(error).__name__}: {error}".split())
            raise _broken(self._points[kind], why) from error


def _entry(point: EntryPoint) -> MixerEntry:
    entry = point.load()
    if not isinstance(entry, MixerEntry):
        raise TypeError(f"{point.value} is no MixerEntry but {type(entry).__name__}")
    return entry


def _distribution(point: EntryPoint) -> str:
    return "a package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _broken(point: EntryPoint, why: str) -> PluginError:
    return PluginError(f"plug-in {_distribution(point)}: kind {point.name} ({point.value}): {why}")
