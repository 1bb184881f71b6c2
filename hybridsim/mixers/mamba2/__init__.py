"""Mamba-2: a state-space mixer with one input-dependent decay per head."""
