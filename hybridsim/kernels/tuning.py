"""Compiling the configurations that Triton's autotuner tries: side by side, not one by one.

fla's chunked kernels have ten to forty configurations each, a second or two of compilation apiece;
on a machine with cores to spare they need not wait for each other.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

MOST_THREADS = 16


@lru_cache(maxsize=None)
def compile_side_by_side() -> None:
    """Have every autotuned kernel of this process compile its configurations in threads.

    Call it before the first kernel runs. Which configuration is taken does not change.
    """
    try:
        from triton import AsyncCompileMode
        from triton.runtime.autotuner import Autotuner
    except ImportError:  # no Triton, or one that cannot: nothing to speed up
        return
    pool = ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1))
    prune = Autotuner.prune_configs

    def prune_and_compile(tuner: Any, kwargs: dict[str, Any]) -> Any:
        """Return the configurations to try, compiled; the tuner times them next."""
        configs = prune(tuner, kwargs)
        given = {**tuner.nargs, **kwargs, "warmup": True}
        with AsyncCompileMode(pool, ignore_errors=True):  # the tuner meets the errors again
            for config in configs:
                tuner.fn.run(**{**given, **config.all_kwargs()})
        return configs

    Autotuner.prune_configs = prune_and_compile
