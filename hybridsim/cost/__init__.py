"""Closed-form costs over the graph: parameters, FLOPs, bytes, memory, roofline. No torch."""
