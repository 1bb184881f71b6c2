"""Gated DeltaNet: the delta rule with one decay per head."""
