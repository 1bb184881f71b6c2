"""Where proxies train: which device, what people call it, and when its memory is too small."""

from __future__ import annotations

import platform

import torch

from hybridsim.errors import HybridsimError

DEVICES = ("auto", "cpu", "cuda")


def pick_device(wanted: str) -> str:
    """Return "cpu" or "cuda"; "auto" takes a GPU where there is one.

    Raises:
        HybridsimError: no such device here.
    """
    if wanted not in DEVICES:
        raise HybridsimError(f"device={wanted}: no such device (known: {', '.join(DEVICES)})")
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise HybridsimError("device=cuda: torch sees no CUDA device here")
    return "cuda" if there and wanted != "cpu" else "cpu"


def device_title(device: str, processes: int = 1) -> str:
    """Return what people call the device that trains.

    Args:
        device: "cpu" or "cuda".
        processes: that train beside each other, of one thread each.
    """
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    beside = "one thread" if processes == 1 else f"{processes} processes"
    return f"CPU ({platform.machine()}), {beside}"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is too small; on a CPU torch has only the text."""
    texts = ("out of memory", "not enough memory", "can't allocate memory")
    told = any(text in str(error).lower() for text in texts)
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or told
