"""Triton kernels in one configuration."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch


def tune_little() -> None:
    """Let autotuned kernels have one configuration: the choice decides their speed, not results.

    With all of them a test's kernels compile for half a minute.
    """
    if not torch.cuda.is_available() or find_spec("triton") is None:
        return
    import triton

    autotune = triton.autotune

    def first(configs: Any, *args: Any, **kwargs: Any) -> Any:
        return autotune(configs[:1], *args, **kwargs)

    triton.autotune = first
