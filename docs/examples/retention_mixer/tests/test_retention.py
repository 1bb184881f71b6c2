"""Chunked == recurrent == reference, in outputs and gradients, at odd lengths."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from retention_mixer.ops import (
    chunk_retention,
    naive_retention,
    recurrent_retention,
    retention_slopes,
)
from torch import Tensor

B, H, K, V = 2, 3, 8, 16
Form = Callable[..., tuple[Tensor, Tensor]]


def step_by_step(
    q: Tensor, k: Tensor, v: Tensor, slopes: Tensor, state: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = []
    for t in range(q.shape[1]):
        out, state = recurrent_retention(q[:, t], k[:, t], v[:, t], slopes, state)
        outputs.append(out)
    return torch.stack(outputs, dim=1), state


def results(form: Form, tokens: int) -> list[Tensor]:
    """Return outputs, last state and the gradients of a random functional of both."""
    generator = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    shapes = [(B, tokens, H, K), (B, tokens, H, K), (B, tokens, H, V), (B, H, K, V)]
    q, k, v, state = (normal(*shape) for shape in shapes)
    slopes = torch.tensor(retention_slopes(H), dtype=torch.float64)
    found = form(q, k, v, slopes, state)
    sum((x * normal(*x.shape).detach()).sum() for x in found).backward()
    return [*found, *(x.grad for x in (q, k, v, state))]


@pytest.mark.parametrize("tokens", [1, 2, 15, 16, 63, 65, 1000])
@pytest.mark.parametrize("form", ["recurrent", "chunk16", "chunk64"])
def test_retention_forms_are_the_reference(form: str, tokens: int) -> None:
    forms = {
        "recurrent": step_by_step,
        "chunk16": lambda *x: chunk_retention(*x, chunk_size=16),
        "chunk64": lambda *x: chunk_retention(*x, chunk_size=64),
    }
    for got, wanted in zip(
        results(forms[form], tokens), results(naive_retention, tokens), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_slopes_are_the_papers_decays() -> None:
    decays = torch.tensor(retention_slopes(4), dtype=torch.float64).neg().exp()
    wanted = 1 - 2.0 ** (-5 - torch.arange(4, dtype=torch.float64))
    torch.testing.assert_close(decays, wanted, rtol=1e-12, atol=0)
