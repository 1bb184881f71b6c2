"""What layers keep between steps: typed, growing where they must, countable in bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

FIRST_CAPACITY = 64


@dataclass
class TokenBuffer:
    """Entries of the tokens seen, oldest first: [B, tokens, ...].

    The storage grows by doubling, or is reserved at once; with a window only the newest entries
    stay. For inference: entries are written in place.

    Attributes:
        window: tokens that are kept at most, None for all.
        reserved_tokens: capacity of the first allocation.
    """

    window: int | None = None
    reserved_tokens: int = FIRST_CAPACITY
    length: int = 0
    storage: Tensor | None = None

    def append(self, entries: Tensor) -> Tensor:
        """Add entries [B, T, ...]; return all that a query of these tokens may see."""
        if self.window is not None:
            return self._append_windowed(entries)
        end = self.length + entries.shape[1]
        storage = self._room(entries, end)
        storage[:, self.length : end] = entries
        self.length = end
        return storage[:, :end]

    def _room(self, entries: Tensor, tokens: int) -> Tensor:
        """Return storage for `tokens`, with the old entries in it."""
        old = self.storage
        if old is None or old.shape[1] < tokens:
            capacity = max(tokens, self.reserved_tokens, 0 if old is None else 2 * old.shape[1])
            new = entries.new_empty(entries.shape[0], capacity, *entries.shape[2:])
            if old is not None:
                new[:, : self.length] = old[:, : self.length]
            self.storage = new
        assert self.storage is not None
        return self.storage

    def _append_windowed(self, entries: Tensor) -> Tensor:
        seen = entries if self.storage is None else torch.cat((self.storage, entries), dim=1)
        assert self.window is not None
        self.storage = seen[:, -self.window :].contiguous()
        self.length = self.storage.shape[1]
        return seen

    def stretch(self, tokens: int) -> None:
        """Claim `tokens` entries of unset content: a cache of any length, to count or to time."""
        assert self.storage is not None
        shape = list(self.storage.shape)
        self.length = tokens if self.window is None else min(tokens, self.window)
        shape[1] = self.length if self.window is not None else tokens + 1
        self.storage = self.storage.new_zeros(shape)

    def nbytes(self) -> int:
        """Return the bytes of the entries in use; spare capacity is not counted."""
        if self.storage is None:
            return 0
        per_token = self.storage[:, :1].numel() * self.storage.element_size()
        return self.length * per_token


class LayerCache(ABC):
    """What one mixer keeps for a batch of sequences."""

    @abstractmethod
    def buffers(self) -> list[TokenBuffer]:
        """Return the parts that grow with the tokens."""

    def tensors(self) -> list[Tensor]:
        """Return everything that is kept, spare capacity included."""
        return [buffer.storage for buffer in self.buffers() if buffer.storage is not None]

    def nbytes(self) -> int:
        """Return the bytes in use, over all sequences of the batch."""
        return sum(buffer.nbytes() for buffer in self.buffers())


@dataclass
class KeyValueCache(LayerCache):
    """Keys and values per key head, [B, tokens, H_kv, K]; index keys for sparse attention."""

    keys: TokenBuffer
    values: TokenBuffer
    index_keys: TokenBuffer | None = None

    def buffers(self) -> list[TokenBuffer]:
        parts = (self.keys, self.values, self.index_keys)
        return [part for part in parts if part is not None]


@dataclass
class LatentCache(LayerCache):
    """Latent and shared key channels, [B, tokens, R + rope]; index keys for sparse attention."""

    latents: TokenBuffer
    index_keys: TokenBuffer | None = None
    index_scales: TokenBuffer | None = None

    def buffers(self) -> list[TokenBuffer]:
        parts = (self.latents, self.index_keys, self.index_scales)
        return [part for part in parts if part is not None]


@dataclass
class RecurrentCache(LayerCache):
    """State [B, H, K, V] and the short convolution's last columns [B, conv_size - 1, channels]."""

    state: Tensor | None = None
    conv: Tensor | None = None

    def buffers(self) -> list[TokenBuffer]:
        return []

    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in (self.state, self.conv) if tensor is not None]

    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())


@dataclass
class ModelCache:
    """The caches of all mixers by node name, and how many tokens they have seen."""

    layers: dict[str, LayerCache] = field(default_factory=dict)
    past_tokens: int = 0

    def stretch(self, tokens: int) -> None:
        """Make every layer's cache `tokens` long, with unset content."""
        for layer in self.layers.values():
            for buffer in layer.buffers():
                buffer.stretch(tokens)
        self.past_tokens = tokens

    def nbytes(self) -> int:
        """Return the bytes in use, over all layers and sequences."""
        return sum(layer.nbytes() for layer in self.layers.values())
