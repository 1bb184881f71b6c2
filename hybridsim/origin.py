"""What made a record: versions, device, git revision."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from hybridsim.mixers import MIXERS
from hybridsim.paths import CONF_DIR

_PACKAGES = ("torch", "hydra-core", "omegaconf", "optuna", "fvcore", "networkx", "pandas")


def versions(packages: Sequence[str] = _PACKAGES) -> dict[str, str | None]:
    """Return the versions of hybridsim, Python and what the figures depend on.

    Args:
        packages: whose versions besides; packages of mixers are always among them.

    Returns:
        Versions by name, None for a package that is absent.
    """
    found: dict[str, str | None] = {
        "hybridsim": import_module("hybridsim").__version__,
        "python": platform.python_version(),
    }
    for package in (*packages, *MIXERS.distributions):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def git_revision() -> str | None:
    """Return the commit of the checkout that runs, "+dirty" with changes, None outside of one."""

    def git(*args: str) -> str:
        command = ["git", "-C", str(CONF_DIR), *args]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        # An installed package may lie inside someone else's repository.
        if not git("ls-files", "--error-unmatch", "profile.yaml"):
            return None
        return git("rev-parse", "HEAD") + ("+dirty" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def host() -> dict[str, Any]:
    """Return the machine that computed the record; modelled figures do not depend on it."""
    return {"machine": platform.machine(), "system": platform.system()}
