"""Options of the config groups `hardware` and `workload`, read by name without Hydra."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from hybridsim.errors import unknown
from hybridsim.paths import CONF_DIR


def option_names(group: str) -> list[str]:
    """Return the names of a group's options, sorted."""
    return sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))


def read_option(group: str, name: str) -> dict[str, Any]:
    """Return the fields of an option.

    Raises:
        SpecError: there is no such option.
    """
    if name not in option_names(group):
        raise unknown(group, name, option_names(group), group)
    content = OmegaConf.to_container(OmegaConf.load(CONF_DIR / group / f"{name}.yaml"))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}
