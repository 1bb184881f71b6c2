"""Chunks that train beside each other in processes of one thread, so that all cores have work.

The processes are started afresh (torch has threads, which a fork would break) and serve all
trainings of a command. Each holds one end of a pipe, whose other end only this process has: when
it is closed, or this process is killed, they end at once, wherever they are.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from types import ModuleType
from typing import final

import torch

from hybridsim.cores import cores
from hybridsim.errors import HybridsimError
from hybridsim.train.chunk import Chunk, ChunkTrainer, Done, Setup
from hybridsim.train.trainer import Look

OnLook = Callable[[int, Look], None]  # with the chunk's number
Looks = SimpleQueue[tuple[int, Look]]
WORTH_TOKENS = 150_000  # less is trained sooner than processes have imported torch
LOOKS_EVERY_S = 0.2
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's mallopt(3)
DIED = (
    "a process that trains was ended from outside, maybe for want of memory; the same command goes"
    " on from its checkpoints, and proxy.workers=1 needs the least memory"
)


def process_count(setup: Setup, chunks: Sequence[Chunk]) -> int:
    """Return how many processes train some chunks: as many as the proxy says, or as have a core.

    1 is this process itself: on a GPU, in a process that is one of several already, and where
    there is too little to do.
    """
    if setup.device != "cpu" or multiprocessing.parent_process() is not None:
        return 1
    wanted = setup.proxy.workers
    if wanted is None:
        tokens = sum(chunk.tokens(setup.proxy) for chunk in chunks)
        wanted = cores() if tokens >= WORTH_TOKENS else 1
    return max(1, min(wanted, len(chunks)))


def train_chunks(
    setup: Setup, chunks: Sequence[Chunk], processes: int, on_look: OnLook
) -> Iterator[tuple[int, Done]]:
    """Give the number of each chunk and what became of it, as they end; the longest begin first.

    Args:
        setup: what they share.
        chunks: what to train.
        processes: that train them.
        on_look: called after every validation.

    Raises:
        HybridsimError: a process was killed.
    """
    pool = _pool_of(processes)
    try:
        yield from pool.train(setup, chunks, on_look)
    except BaseException as error:  # an interrupt too: nothing of it is left behind
        close_pool()
        if isinstance(error, BrokenProcessPool):
            raise HybridsimError(DIED) from None
        raise


@final
class _Pool:
    """Processes that train chunks.

    Args:
        processes: how many, at most; each starts when there is work for it.
    """

    def __init__(self, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes = processes
        self._looks: Looks = context.SimpleQueue()
        self._theirs, self._ours = context.Pipe(duplex=False)
        self._processes: set[BaseProcess] = set()
        self._executor = ProcessPoolExecutor(
            processes, context, initializer=_begin, initargs=(self._looks, self._theirs)
        )

    def train(
        self, setup: Setup, chunks: Sequence[Chunk], on_look: OnLook
    ) -> Iterator[tuple[int, Done]]:
        """Give the number of each chunk and what became of it, as they end."""
        order = sorted(range(len(chunks)), key=lambda n: -chunks[n].tokens(setup.proxy))
        before = set(multiprocessing.active_children())
        with _bare_starts():
            numbers = {self._executor.submit(_train, setup, chunks[n], n): n for n in order}
        self._processes |= set(multiprocessing.active_children()) - before
        pending: set[Future[Done]] = set(numbers)
        while pending:
            ended, pending = wait(pending, LOOKS_EVERY_S, FIRST_COMPLETED)
            while not self._looks.empty():
                on_look(*self._looks.get())
            for future in ended:
                yield numbers[future], future.result()

    def close(self) -> None:
        """End the processes at once."""
        for process in self._processes:  # one that still imports torch sees no pipe yet
            process.terminate()
        self._ours.close()
        self._executor.shutdown(cancel_futures=True)
        self._theirs.close()
        self._looks.close()


_pools: list[_Pool] = []  # none or one


def _pool_of(processes: int) -> _Pool:
    """Return the pool that the trainings before had, a new one where that is too small or none."""
    if _pools and _pools[0].processes < processes:
        close_pool()
    if not _pools:
        _pools.append(_Pool(processes))
    return _pools[0]


def close_pool() -> None:
    """End the processes that train, if there are any; the next trainings start new ones."""
    while _pools:
        _pools.pop().close()


@contextmanager
def _bare_starts() -> Iterator[None]:
    """Let processes that start inside have no main module and no interrupts.

    They need nothing of the program's own file, which may be a script that would train again. An
    interrupt at the keyboard reaches all processes: this one answers it, for all.
    """
    main = sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# In the processes

_looks: list[Looks] = []  # where looks go


def _begin(looks: Looks, lifeline: Connection) -> None:
    _looks.append(looks)
    torch.set_num_threads(1)
    _keep_freed_memory()
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: a step's tensors of a megabyte otherwise fault in anew."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(parameter, 1 << 30)


def _end_with(lifeline: Connection) -> None:
    """End this process when nobody holds the other end of the pipe any more."""
    try:
        lifeline.recv()
    finally:
        os._exit(1)


def _train(setup: Setup, chunk: Chunk, number: int) -> Done:
    return ChunkTrainer(setup).train(chunk, lambda look: _looks[0].put((number, look)))
