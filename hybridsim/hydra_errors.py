"""One clear line for what Hydra and OmegaConf refuse."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hydra.errors import HydraException, OverrideParseException
from omegaconf.errors import OmegaConfBaseException

from hybridsim.errors import HybridsimError, near_miss

_NOT_FOUND = re.compile(r"[Cc]ould not find '(?P<group>\w+)/(?P<name>[^']*)'")
_STUDY = re.compile(r"study/[^/]+")
_NO_KEY = re.compile(r"Could not override '(?P<key>[^']+)'")


def explain(error: BaseException, names: dict[str, list[str]]) -> str | None:
    """Return one line for a mistake of the user's, None where the error is not one.

    Args:
        error: what was raised; its causes are looked through.
        names: the options of config groups by group, for near misses.
    """
    for cause in _chain(error):
        if isinstance(cause, HybridsimError):
            return str(cause)
    for cause in _chain(error):
        if isinstance(cause, OverrideParseException):
            why = str(cause).partition("\nSee")[0].rpartition("\n")[2]
            return f"{cause.override}: not an override Hydra can read ({why})"
        if isinstance(cause, HydraException | OmegaConfBaseException):
            return _explain_hydra(str(cause), names)
    return None


def _chain(error: BaseException) -> Sequence[BaseException]:
    chain = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    return chain


def _explain_hydra(text: str, names: dict[str, list[str]]) -> str:
    if found := _NOT_FOUND.search(text):
        group, name = found["group"], found["name"]
        if group == "spec" and _STUDY.fullmatch(name):
            return f"spec={name}: give a trial of the study too, as in spec={name}/42"
        if group == "spec" and "/" in name:
            return f"spec={name}: no such file, nor a folder with a config.json"
        known = names.get(group, [])
        listed = f" (known: {', '.join(known)})" if known else ""
        return f"{group}={name}: no such {group}{near_miss(name, known)}{listed}"
    if found := _NO_KEY.search(text):
        return f"{found['key']}: no such key; `--cfg job` shows those there are"
    return " ".join(text.split())
