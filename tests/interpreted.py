"""Triton kernels on the CPU: Triton's own interpreter, with three of its faults mended.

Import this before a kernel's module. Where there is a CUDA device nothing changes: the two ways of
running cannot share a process, and kernels then run on the device alone.
"""

from __future__ import annotations

import os
from typing import Any

import torch

from hybridsim import kernels

INTERPRETED = kernels.available() and not torch.cuda.is_available()


def _mend() -> None:
    """Make the interpreter of Triton 3.6 multiply bfloat16, and read loop bounds under numpy 2.4.

    It holds bfloat16 as uint16, whose product it takes as integers; it turns arrays of one element
    to integers in a way that numpy 2.4 refuses; and it rounds to fp8 without carrying into the
    exponent, so that 127 becomes 64.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    def widened(operand: Any) -> Any:
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        bits = np.left_shift(operand.data.astype(np.uint32), np.uint32(16))
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    dot, patch = interpreter.InterpreterBuilder.create_dot, interpreter._patch_lang_tensor

    def create_dot(self: Any, a: Any, b: Any, *others: Any) -> Any:
        return dot(self, widened(a), widened(b), *others)

    def patch_lang_tensor(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    convert = interpreter._convert_float

    def convert_float(array: Any, source: Any, target: Any, rounding: Any) -> Any:
        if (source, target) != (tl.float32, tl.float8e4nv):
            return convert(array, source, target, rounding)
        numbers = np.frombuffer(array.tobytes(), dtype=np.float32).reshape(array.shape)
        return torch.tensor(numbers).to(torch.float8_e4m3fn).view(torch.uint8).numpy()

    interpreter._convert_float = convert_float
    interpreter.InterpreterBuilder.create_dot = create_dot
    interpreter._patch_lang_tensor = patch_lang_tensor


if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"
    _mend()
