"""The compiled model: a graph as an nn.Module."""
