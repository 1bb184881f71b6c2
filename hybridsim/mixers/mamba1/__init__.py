"""Mamba: a selective state space model with one decay per channel and state."""
