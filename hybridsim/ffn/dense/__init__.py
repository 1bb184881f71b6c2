"""Feed-forward kind `dense`: settings, closed-form cost, module."""
