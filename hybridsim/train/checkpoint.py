"""Checkpoints that a kill cannot leave half written."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch


def write_checkpoint(path: Path, document: dict[str, Any]) -> None:
    """Write a document of tensors and plain data, in place of the last one at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    torch.save(document, new)
    os.replace(new, path)


def read_checkpoint(path: Path | None, device: torch.device) -> dict[str, Any] | None:
    """Return what was written last, its tensors on a device; None where nothing was."""
    if path is None or not path.exists():
        return None
    found: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return found
