"""Feed-forward kind `moe`: settings, closed-form cost, module."""
