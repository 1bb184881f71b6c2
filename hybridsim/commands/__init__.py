"""One Hydra application per command; heavy imports are inside the functions."""
