"""Our own torch operators: each is one node to tracers and counters, and plain torch inside.

An operator here has a name, so a counter can give it a rule, an implementation that autograd and
torch.compile see through, and a shape function so that it runs on the meta device at any size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from hybridsim.kernels.choice import is_tracing

NAMESPACE = "hybridsim"
# Operators live as long as the library of their namespace.
_LIBRARIES = {NAMESPACE: torch.library.Library(NAMESPACE, "DEF")}


def is_batched(*tensors: torch.Tensor) -> bool:
    """Return whether vmap runs on any of the tensors: kernels without a rule for it must not."""
    return any(torch._C._functorch.is_batchedtensor(tensor) for tensor in tensors)


_Function = TypeVar("_Function", bound=Callable[..., Any])


def operator(schema: str, shape: Callable[..., Any]) -> Callable[[_Function], _Function]:
    """Register a function of tensors as the operator `hybridsim::NAME`, or of another namespace.

    Args:
        schema: name, arguments and result, as torch.library.Library.define reads them; packages
            outside hybridsim put their own namespace in front, `NAMESPACE::NAME(...) -> ...`.
        shape: from the same arguments, empty tensors with the results' shapes and dtypes.
    """
    prefix, _, definition = schema.rpartition("::")
    namespace = prefix or NAMESPACE
    name = definition.partition("(")[0]
    if namespace not in _LIBRARIES:
        _LIBRARIES[namespace] = torch.library.Library(namespace, "FRAGMENT")
    library = _LIBRARIES[namespace]

    def register(function: _Function) -> _Function:
        library.define(definition)
        # With gradients the function itself runs, so that autograd records what is inside.
        library.impl(name, function, "Autograd")
        library.impl(name, function, "CompositeExplicitAutograd")
        library.impl(name, _on_meta(function, shape), "Meta")
        # Under vmap too, so that what is inside is batched, and not the operator run in a loop.
        library.impl(name, function, "FuncTorchBatched")
        found: _Function = getattr(getattr(torch.ops, namespace), name)
        return found

    return register


def _on_meta(function: Callable[..., Any], shape: Callable[..., Any]) -> Callable[..., Any]:
    """Return what runs on the meta device: shapes alone, unless the kernels inside are traced."""

    def run(*arguments: Any) -> Any:
        return (function if is_tracing() else shape)(*arguments)

    return run
