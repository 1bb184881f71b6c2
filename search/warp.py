"""Values on a scale on which a Gaussian process fits them. No torch."""

from __future__ import annotations

import numpy as np

from search.pareto import Array

SKEWED = 1.0  # skewness from which on a few bad values would hide what the good ones differ in


class Warp:
    """A monotone map of one minimised objective's values: a logarithm where some are far worse.

    t = log(1 + (v - lowest) / (upper quartile - lowest)) where the skewness is above 1; else t = v.

    Args:
        values: as observed, [trials].
    """

    def __init__(self, values: Array) -> None:
        self._low = values.min()
        self._scale = np.quantile(values, 0.75) - self._low
        spread = values.std()
        skewness = (((values - values.mean()) / spread) ** 3).mean() if spread > 1e-12 else 0.0
        self._bends = bool(skewness > SKEWED and self._scale > 1e-12)

    def forth(self, values: Array) -> Array:
        """Return t of the values that were observed."""
        if not self._bends:
            return values
        return np.asarray(np.log1p((values - self._low) / self._scale))

    def back(self, warped: Array) -> Array:
        """Return the values of any t."""
        if not self._bends:
            return warped
        return np.asarray(self._low + self._scale * np.expm1(warped))
