"""Search over specs: what may vary, what is wanted, and the Pareto frontier."""
