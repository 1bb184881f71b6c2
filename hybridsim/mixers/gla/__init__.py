"""Gated linear attention: a decay per key channel that depends on the token."""
