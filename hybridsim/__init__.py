"""hybridsim: what a hybrid language model costs, and what its cheap layers cost in quality.

    from hybridsim import build_model, load_spec, profile

The names are imported when first used: `import hybridsim` imports neither torch nor Hydra.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridsim.checkpoint.read import load_pretrained
    from hybridsim.model.build import build_model
    from hybridsim.profiler.profile import profile
    from hybridsim.report.records import load_records
    from hybridsim.spec.load import load_spec

__version__ = "0.1.0"
__all__ = ["build_model", "load_pretrained", "load_records", "load_spec", "profile"]

_HOMES = {
    "load_spec": "hybridsim.spec.load",
    "build_model": "hybridsim.model.build",
    "load_pretrained": "hybridsim.checkpoint.read",
    "profile": "hybridsim.profiler.profile",
    "load_records": "hybridsim.report.records",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hybridsim' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
