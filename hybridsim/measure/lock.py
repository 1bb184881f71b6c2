"""One measurement at a time on a device: a lock that all processes of a machine share.

The lock is a file that the kernel holds for a process and gives back when that process ends,
however it ends: a killed worker leaves nothing to clean up. A GPU is named by its UUID, so that
processes that see it under different numbers (CUDA_VISIBLE_DEVICES) share one lock.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from hybridsim.errors import HybridsimError

FOLDER_VARIABLE = "HYBRIDSIM_LOCKS"
ANYONE = 0o666  # other users of the machine have to be able to wait too
SHARED_FOLDER = 0o1777

log = logging.getLogger(__name__)


def lock_path(device: torch.device) -> Path:
    """Return the lock file of a device, in a folder of the whole machine.

    Args:
        device: "cpu", or a CUDA device; without an index the current one.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    folder = Path(named) if named else Path(tempfile.gettempdir()) / "hybridsim-locks"
    return folder / f"{_identity(device)}.lock"


def _identity(device: torch.device) -> str:
    if device.type != "cuda":
        return device.type
    return f"gpu-{torch.cuda.get_device_properties(device).uuid}"


@contextlib.contextmanager
def device_lock(device: torch.device, timeout_s: float | None = None) -> Iterator[None]:
    """Hold a device for measuring; another process that does is waited for.

    Args:
        device: that is measured on.
        timeout_s: longest wait; None waits as long as it takes.

    Raises:
        HybridsimError: the device was not free in time, or the lock file cannot be made.
    """
    path = lock_path(device)
    lock = FileLock(_made(path), mode=ANYONE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.warning("waiting for another measurement on %s to end (%s)", device, path)
        _wait(lock, device, timeout_s)
    try:
        yield
    finally:
        lock.release()


def _made(path: Path) -> Path:
    """Return the path once its folder is there for every user."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(SHARED_FOLDER)
        path.touch(mode=ANYONE)
    except OSError as error:
        raise HybridsimError(
            f"{FOLDER_VARIABLE}={path.parent}: no lock can be made there ({error.strerror})"
        ) from None
    return path


def _wait(lock: FileLock, device: torch.device, timeout_s: float | None) -> None:
    try:
        lock.acquire(timeout=-1 if timeout_s is None else timeout_s)
    except Timeout:
        raise HybridsimError(
            f"device={device}: another process measured on it for {timeout_s:g} s; try again later"
        ) from None
