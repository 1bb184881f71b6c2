"""What layers keep between steps: typed, growing where they must, countable in bytes.

A cache grows, or it is static: of a fixed capacity, written in place, with its length on the
device. A step over a static cache does the same work on the same addresses whatever the length,
which is what a captured CUDA graph needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridsim.errors import HybridsimError
from hybridsim.kernels.choice import note
from hybridsim.nn.quantize import FP8, saturated

FIRST_CAPACITY = 64
Past = int | Tensor  # tokens seen before a pass; on the device, [1], in a step of a static cache


class Clock:
    """How many tokens a static cache has seen: for passes of several on the host, for steps of one
    on the device, where a replayed graph finds it.

    Attributes:
        past_tokens: tokens seen before the running pass.
        length: [1] int32, tokens seen, that of the running step included.
        position: [1] int64, the position of the running step's token.
    """

    def __init__(self, device: torch.device) -> None:
        # One addition moves both on: the length is the lower half of its number. (It stands 16
        # bytes after the position, as kernels are compiled for pointers of whole 16 bytes.)
        self._counts = torch.zeros(3, dtype=torch.int64, device=device)
        self.length = self._counts[2:].view(torch.int32)[:1]
        self.position = self._counts[:1]
        self.set(0)

    def tick(self) -> Tensor:
        """Begin a step of one token; return its position."""
        self._counts.add_(1)
        return self.position

    def set(self, tokens: int) -> None:
        """Have seen `tokens` tokens."""
        self.past_tokens = tokens
        self.length.fill_(tokens)
        self.position.fill_(tokens - 1)


@dataclass
class TokenBuffer:
    """Entries of the tokens seen, oldest first: [B, tokens, ...].

    The storage grows by doubling, or is reserved at once; with a window only the newest entries
    stay. With a clock it is static: `reserved_tokens` is its capacity, and a window is a ring,
    where the entry of position p stands at p modulo its size. For inference: entries are written in
    place.

    Attributes:
        window: tokens that are kept at most, None for all.
        reserved_tokens: capacity of the first allocation.
        clock: of the static cache that this is part of, else None.
        valid: [1], how many entries that the last `append` returned are set, on the device; where
            it exceeds their number, or is None, all are.
        in_fp8: entries are stored in fp8, without a scale.
    """

    window: int | None = None
    reserved_tokens: int = FIRST_CAPACITY
    length: int = 0
    storage: Tensor | None = None
    clock: Clock | None = None
    valid: Tensor | None = None
    in_fp8: bool = False

    def append(self, entries: Tensor) -> Tensor:
        """Add entries [B, T, ...]; return all that a query of these tokens may see.

        A step of one token over a static cache returns the whole storage, in any order, of which
        `valid` entries are set. In fp8 a step returns what is stored, which kernels widen as they
        read; several tokens get their own entries back, or all of them widened to their dtype.
        """
        if not self.in_fp8:
            return self._append(entries)
        seen = self._append(saturated(entries))
        if entries.shape[1] == 1:
            note("kv_cache", "fp8")
            return seen
        if seen.shape[1] == entries.shape[1]:
            note("kv_cache", "fp8, written")
            return entries
        note("kv_cache", f"fp8, widened to {entries.dtype}".replace("torch.", ""))
        return seen.to(entries.dtype)

    def place(self) -> tuple[Tensor, Tensor] | None:
        """Return the storage and where in it, [1], the running step's entry of each sequence goes.

        For kernels that write it themselves; None where `append` has to.
        """
        if self.clock is None or self.storage is None or self.window is not None or self.in_fp8:
            return None
        self.valid = self.clock.length
        return self.storage, self.clock.position

    def _append(self, entries: Tensor) -> Tensor:
        """Add entries as they are stored; return all that a query may see, likewise."""
        if self.clock is not None:
            return self._append_static(entries, self.clock)
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

    def _append_static(self, entries: Tensor, clock: Clock) -> Tensor:
        if self.storage is None:
            size = min(self.window or self.reserved_tokens, self.reserved_tokens)
            # Zeros, as hidden entries are multiplied by a weight of zero.
            self.storage = entries.new_zeros(entries.shape[0], size, *entries.shape[2:])
        if entries.shape[1] == 1:
            return self._append_step(entries, clock, self.storage)
        self.valid = None
        past, end = clock.past_tokens, clock.past_tokens + entries.shape[1]
        if self.window is None:
            self.storage[:, past:end] = entries
            return self.storage[:, :end]
        size = self.storage.shape[1]
        kept = self._slots(max(past - size, 0), past)
        seen = torch.cat((_bytes(self.storage).index_select(1, kept), _bytes(entries)), dim=1)
        newest = min(entries.shape[1], size)
        slots = self._slots(end - newest, end)
        _bytes(self.storage).index_copy_(1, slots, _bytes(entries[:, -newest:]))
        return seen.view(entries.dtype)

    def _append_step(self, entries: Tensor, clock: Clock, storage: Tensor) -> Tensor:
        self.valid = clock.length
        slot = clock.position if self.window is None else clock.position % storage.shape[1]
        _bytes(storage).index_copy_(1, slot, _bytes(entries))
        return storage

    def _slots(self, first: int, end: int) -> Tensor:
        """Return where the entries of positions first, .., end - 1 stand in a ring."""
        assert self.storage is not None
        return torch.arange(first, end, device=self.storage.device) % self.storage.shape[1]

    def stretch(self, tokens: int) -> None:
        """Claim `tokens` entries of unset content: a cache of any length, to count or to time."""
        assert self.storage is not None
        if self.clock is not None:
            return  # the clock says how many are set
        shape = list(self.storage.shape)
        self.length = tokens if self.window is None else min(tokens, self.window)
        shape[1] = self.length if self.window is not None else tokens + 1
        self.storage = self.storage.new_zeros(shape)

    def nbytes(self) -> int:
        """Return the bytes of the entries in use; spare capacity is not counted."""
        if self.storage is None:
            return 0
        per_token = self.storage[:, :1].numel() * self.storage.element_size()
        if self.clock is not None:
            return min(self.clock.past_tokens, self.storage.shape[1]) * per_token
        return self.length * per_token

    def clear(self) -> None:
        """Forget all entries; a static buffer keeps its storage."""
        self.length = 0
        if self.clock is None:
            self.storage = None


def _bytes(x: Tensor) -> Tensor:
    """Return fp8 as bytes, which is all that torch copies by index; other tensors as they are."""
    return x.view(torch.uint8) if x.dtype == FP8 else x


class LayerCache(ABC):
    """What one mixer keeps for a batch of sequences."""

    @abstractmethod
    def buffers(self) -> list[TokenBuffer]:
        """Return the parts that grow with the tokens."""

    def store_in_fp8(self) -> None:
        """Keep keys, values and latents in fp8 from now on; before the first pass."""
        for buffer in self.attended():
            buffer.in_fp8 = True

    def attended(self) -> list[TokenBuffer]:
        """Return the parts that are attended to: keys and values, but no index keys."""
        return []

    def tensors(self) -> list[Tensor]:
        """Return everything that is kept, spare capacity included."""
        return [buffer.storage for buffer in self.buffers() if buffer.storage is not None]

    def nbytes(self) -> int:
        """Return the bytes in use, over all sequences of the batch."""
        return sum(buffer.nbytes() for buffer in self.buffers())

    def make_static(self, capacity: int, clock: Clock) -> None:
        """Fix the capacity to `capacity` tokens, and write in place from now on."""
        for buffer in self.buffers():
            buffer.reserved_tokens, buffer.clock = capacity, clock

    def clear(self) -> None:
        """Forget everything."""
        for buffer in self.buffers():
            buffer.clear()


@dataclass
class KeyValueCache(LayerCache):
    """Keys and values per key head, [B, tokens, H_kv, K]; index keys for sparse attention."""

    keys: TokenBuffer
    values: TokenBuffer
    index_keys: TokenBuffer | None = None

    def buffers(self) -> list[TokenBuffer]:
        parts = (self.keys, self.values, self.index_keys)
        return [part for part in parts if part is not None]

    def attended(self) -> list[TokenBuffer]:
        return [self.keys, self.values]


@dataclass
class LatentCache(LayerCache):
    """Latent and shared key channels, [B, tokens, R + rope]; index keys for sparse attention."""

    latents: TokenBuffer
    index_keys: TokenBuffer | None = None
    index_scales: TokenBuffer | None = None

    def buffers(self) -> list[TokenBuffer]:
        parts = (self.latents, self.index_keys, self.index_scales)
        return [part for part in parts if part is not None]

    def attended(self) -> list[TokenBuffer]:
        return [self.latents]


class RecurrentCache(LayerCache):
    """State [B, H, K, V] and the short convolution's last columns [B, conv_size - 1, channels].

    Assigning replaces them. Once a static cache has them, it copies what is assigned into the
    tensors that it holds; a kernel that has updated them in place assigns them to themselves.
    """

    def __init__(self) -> None:
        self._state: Tensor | None = None
        self._conv: Tensor | None = None
        self.is_static = False

    @property
    def state(self) -> Tensor | None:
        """The recurrent state, None before the first token."""
        return self._state

    @state.setter
    def state(self, new: Tensor) -> None:
        self._state = self._kept(self._state, new)

    @property
    def conv(self) -> Tensor | None:
        """The convolution's columns, None before the first token."""
        return self._conv

    @conv.setter
    def conv(self, new: Tensor) -> None:
        self._conv = self._kept(self._conv, new)

    def _kept(self, old: Tensor | None, new: Tensor) -> Tensor:
        if not self.is_static or old is None or new is old:
            return new
        return old.copy_(new)

    def make_static(self, capacity: int, clock: Clock) -> None:
        self.is_static = True

    def clear(self) -> None:
        if self.is_static:
            for tensor in self.tensors():
                tensor.zero_()
        else:
            self._state = self._conv = None

    def buffers(self) -> list[TokenBuffer]:
        return []

    def tensors(self) -> list[Tensor]:
        return [tensor for tensor in (self.state, self.conv) if tensor is not None]

    def nbytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.tensors())


class ModelCache:
    """The caches of all mixers by node name, and how many tokens they have seen.

    Attributes:
        layers: the caches.
        clock: of a static cache, else None.
    """

    def __init__(self, layers: dict[str, LayerCache], clock: Clock | None = None) -> None:
        self.layers = layers
        self.clock = clock
        self._capacity: int | None = None  # of a static cache
        self._past_tokens = 0
        self._running: Past | None = None

    def make_static(self, capacity: int, device: torch.device) -> None:
        """Fix the capacity to `capacity` tokens; before the first pass.

        A pass of one token is then a step that a CUDA graph can capture.
        """
        self.clock, self._capacity = Clock(device), capacity
        for layer in self.layers.values():
            layer.make_static(capacity, self.clock)

    def store_in_fp8(self) -> None:
        """Keep keys, values and latents in fp8 from now on; before the first pass."""
        for layer in self.layers.values():
            layer.store_in_fp8()

    @property
    def past_tokens(self) -> int:
        """Tokens seen before the running pass, as the host knows."""
        return self._past_tokens if self.clock is None else self.clock.past_tokens

    @property
    def past(self) -> Past:
        """Tokens seen before the running pass, as its mixers take them."""
        return self.past_tokens if self._running is None else self._running

    def begin(self, new_tokens: int) -> None:
        """Begin a pass of `new_tokens` tokens.

        Raises:
            HybridsimError: a static cache has no room for them.
        """
        self.require_room(new_tokens)
        stepping = self.clock is not None and new_tokens == 1
        self._running = self.clock.tick() if stepping and self.clock else None

    def require_room(self, new_tokens: int) -> None:
        """Raise HybridsimError where a static cache has no room: kernels write without looking."""
        if self._capacity is not None and self.past_tokens + new_tokens > self._capacity:
            raise HybridsimError(
                f"capacity={self._capacity}: no room for {new_tokens} tokens after"
                f" {self.past_tokens}"
            )

    def end(self, new_tokens: int) -> None:
        """End a pass, whose tokens have now been seen."""
        self._running = None
        tokens = self.past_tokens + new_tokens
        if self.clock is None:
            self._past_tokens = tokens
        elif new_tokens == 1:
            self.clock.past_tokens = tokens  # the device's count is ahead already
        else:
            self.clock.set(tokens)

    def clear(self) -> None:
        """Forget all tokens."""
        for layer in self.layers.values():
            layer.clear()
        self._set(0)

    def stretch(self, tokens: int) -> None:
        """Make every layer's cache `tokens` long, with unset content."""
        for layer in self.layers.values():
            for buffer in layer.buffers():
                buffer.stretch(tokens)
        self._set(tokens)

    def _set(self, tokens: int) -> None:
        self._past_tokens = tokens
        if self.clock is not None:
            self.clock.set(tokens)

    def nbytes(self) -> int:
        """Return the bytes in use, over all layers and sequences."""
        return sum(layer.nbytes() for layer in self.layers.values())
