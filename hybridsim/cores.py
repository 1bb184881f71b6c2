"""How many cores there are to use. No torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


def cores() -> int:
    """Return how many cores this process may use; of a container, what its quota is worth."""
    if sys.platform != "linux":
        return os.cpu_count() or 1
    return max(1, min(len(os.sched_getaffinity(0)), _quota(CPU_MAX)))


def _quota(file: Path) -> int:
    """Return the cores that a control group's file allows, "QUOTA PERIOD" or "max PERIOD"."""
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return round(int(quota) / int(period))
    except (OSError, ValueError):
        return sys.maxsize
