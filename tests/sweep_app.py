"""A Hydra application that is not ours: two numbers of two keys, wrong for some of them."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore


@dataclass
class Config:
    x: float = 1.0
    kind: str = "a"
    wait_s: float = 0.0
    broken: float = -1.0
    nan: float = -1.0
    kill_once: str = ""  # a file: the first job that makes it ends its own process
    two: bool = False


ConfigStore.instance().store(name="toy", node=Config)


@hydra.main(config_path=None, config_name="toy", version_base="1.3")
def main(cfg: Config) -> float | tuple[float, float]:
    time.sleep(cfg.wait_s)
    if cfg.x == cfg.broken:
        raise ValueError("a broken\nvalue")
    if cfg.x == cfg.nan:
        return float("nan")
    if cfg.kill_once and not Path(cfg.kill_once).exists():
        Path(cfg.kill_once).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    value = (cfg.x - 2) ** 2 + (cfg.kind == "b")
    return (value, cfg.x) if cfg.two else value


if __name__ == "__main__":
    main()
