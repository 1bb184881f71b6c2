"""Softmax attention: multi-head, grouped-query, with a window, QK norm or an output gate."""
