"""Our own torch operators: each is one node to tracers and counters, and plain torch inside.

An operator here has a name, so a counter can give it a rule, an implementation that autograd and
torch.compile see through, and a shape function so that it runs on the meta device at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

NAMESPACE = "hybridsim"
_LIBRARY = torch.library.Library(NAMESPACE, "DEF")  # operators live as long as this object
_Function = TypeVar("_Function", bound=Callable[..., Any])


def operator(schema: str, shape: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """Register a function of tensors as the operator `hybridsim::NAME`.

    Args:
        schema: name, arguments and result, as torch.library.Library.define reads them.
        shape: from the same arguments, empty tensors with the results' shapes and dtypes.
    """
    name = schema.partition("(")[0]

    def register(function: _Function) -> _Function:
        _LIBRARY.define(schema)
        # With gradients the function itself runs, so that autograd records what is inside.
        _LIBRARY.impl(name, function, "Autograd")
        _LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        _LIBRARY.impl(name, shape, "Meta")
        found: _Function = getattr(getattr(torch.ops, NAMESPACE), name)
        return found

    return register
