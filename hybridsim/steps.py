"""One forward step of a model: how many tokens come in, after how many."""

from __future__ import annotations

from dataclasses import dataclass

BLOCK_SIZE = 16  # tokens of a sub-block of a chunk, where decays per channel need one


@dataclass(frozen=True)
class Step:
    """`new_tokens` per sequence enter a model whose cache holds `past_tokens` of each sequence."""

    new_tokens: int
    past_tokens: int = 0

    @property
    def is_single(self) -> bool:
        """Whether one token comes in: the case of the recurrent and absorbed forms."""
        return self.new_tokens == 1

    def chunks(self, chunk_size: int, multiple: int = 1) -> tuple[int, int]:
        """Return how many chunks the new tokens make and how many tokens one has, padding included.

        A prompt shorter than `chunk_size` is one chunk of its own length, rounded up to `multiple`.
        """
        size = min(chunk_size, -(-self.new_tokens // multiple) * multiple)
        return -(-self.new_tokens // size), size

    @property
    def total_tokens(self) -> int:
        """Tokens in the cache after the step."""
        return self.new_tokens + self.past_tokens

    def scored_pairs(self, *, causal: bool, window: int | None = None) -> int:
        """Return the (query, key) pairs of one head.

        Args:
            causal: only visible pairs; else every new token against all new ones and all kept.
            window: keys that a query sees at most, itself included.
        """
        if not causal:
            kept = self.past_tokens if window is None else min(self.past_tokens, window)
            return self.new_tokens * (kept + self.new_tokens)
        return capped_sum(self.past_tokens, self.total_tokens, window)


def capped_sum(first: int, last: int, cap: int | None) -> int:
    """Return sum of min(t, cap) for t = first + 1 .. last; cap None means no cap."""
    if cap is None or last <= cap:
        return (last * (last + 1) - first * (first + 1)) // 2
    if first >= cap:
        return (last - first) * cap
    return capped_sum(first, cap, None) + (last - cap) * cap


def prefill(context_tokens: int) -> Step:
    """Return the step that reads a whole prompt."""
    return Step(new_tokens=context_tokens)


def decode(context_tokens: int) -> Step:
    """Return the step that adds one token to a cache of `context_tokens`."""
    return Step(new_tokens=1, past_tokens=context_tokens)
