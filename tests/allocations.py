"""Counting what code allocates, without memory: on the meta device, as if on a GPU."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hybridsim.nn import attention

ROUNDING = 512  # bytes, to whose multiples the allocator of a GPU rounds


class Allocations(TorchDispatchMode):
    """Counts the bytes of every storage that is made inside, while it lives.

    Args:
        kept: tensors that were there before.

    Attributes:
        peak_bytes: the most that was alive at once.
    """

    def __init__(self, kept: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak_bytes = self._alive_bytes = 0
        self._storages: dict[int, Any] = {}
        for tensor in kept:
            storage = tensor.untyped_storage()
            self._storages[storage._cdata] = storage  # held: its number is not given again

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        return found

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages:
            return
        size = -(-storage.nbytes() // ROUNDING) * ROUNDING

        def gone(_: Any) -> None:
            del self._storages[key]
            self._alive_bytes -= size

        self._storages[key] = weakref.ref(storage, gone)
        self._alive_bytes += size
        self.peak_bytes = max(self.peak_bytes, self._alive_bytes)


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Triton compile for a Hopper GPU and launch nothing, and attention allocate as there.

    A trace chooses kernels by itself (kernels/choice.py).
    """
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.autotuner import Autotuner
    from triton.runtime.jit import JITFunction

    properties = {"multiprocessor_count": 132, "max_shared_mem": 232448}
    found = SimpleNamespace(multi_processor_count=132, major=9, minor=0, name="NVIDIA H100")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: found)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H100")
    stub = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_current_stream=lambda device: 0,
        utils=SimpleNamespace(get_device_properties=lambda device: properties),
    )
    monkeypatch.setattr(driver, "_active", stub)
    monkeypatch.setattr(JITFunction, "run", lambda *args, **kwargs: None)
    monkeypatch.setattr(Autotuner, "run", lambda *args, **kwargs: None)

    def attend(query: Tensor, key: Tensor, value: Tensor, *others: Any) -> Tensor:
        """Allocate what flash attention does: outputs, and the logarithms of its sums."""
        query.new_empty(query.shape[0], query.shape[2], query.shape[1], dtype=torch.float32)
        return query.new_empty(*query.shape[:3], value.shape[3])

    monkeypatch.setattr(attention, "_torch_attention", attend)
    monkeypatch.setattr(attention, "_flash_attention", attend)
    monkeypatch.setattr(attention, "_flash_takes", lambda query, *others: query.shape[1] > 1)
