"""Torch building blocks shared by mixers, feed-forwards and the model."""
