"""Kimi Delta Attention: the delta rule with one decay per key channel."""
