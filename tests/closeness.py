"""One comparison of tensors that says by how much it fails."""

from __future__ import annotations

from torch import Tensor


def assert_close(name: str, got: Tensor, wanted: Tensor, relative: float) -> None:
    """Fail unless the worst difference is below `relative` times the largest wanted value."""
    assert got.shape == wanted.shape, f"{name}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    assert wanted.isfinite().all(), f"{name}: the reference is not finite"
    scale = wanted.abs().max().item()
    assert scale > 0, f"{name}: the reference is zero everywhere, so nothing is tested"
    worst = (got - wanted).abs().max().item()
    assert worst <= relative * scale, f"{name}: worst difference {worst:.3e} of {scale:.3e}"
