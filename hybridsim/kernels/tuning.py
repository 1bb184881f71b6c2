"""Less waiting for Triton's autotuner: configurations compiled side by side, and timed briefly.

fla's chunked kernels have ten to forty configurations each, a second or two of compilation apiece;
on a machine with cores to spare they need not wait for each other. `ahead` compiles them in
processes before the first use; what it misses is compiled here, in threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from typing import Any

from hybridsim.cores import cores

MOST_THREADS = 16
WARM_UP_MS, SAMPLING_MS = 5, 20  # of one configuration; Triton takes 25 and 100


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
    pool = ThreadPoolExecutor(min(MOST_THREADS, cores()))
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


@lru_cache(maxsize=None)
def tune_briefly() -> None:
    """Have every autotuned kernel of this process time each configuration for 20 ms.

    Configurations of a kernel that takes a millisecond then still run twenty times each.
    """
    try:
        from triton.runtime.autotuner import Autotuner
        from triton.testing import do_bench
    except ImportError:
        return
    brief = partial(do_bench, warmup=WARM_UP_MS, rep=SAMPLING_MS)
    Autotuner.do_bench = property(lambda tuner: tuner._do_bench or brief)
