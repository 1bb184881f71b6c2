"""Where tokens stand: pieces that several tasks put their sequences together from. [B, ...]
each."""

from __future__ import annotations

import torch
from torch import Tensor

from hybridsim.train.tasks.draws import Draws


def interleaved(keys: Tensor, values: Tensor) -> Tensor:
    """Return key, value, key, value, ... of two [B, N] tensors, [B, 2 N]."""
    return torch.stack([keys, values], dim=2).flatten(1)


def query_places(draws: Draws, count: int, start: int, length: int, power_a: float) -> Tensor:
    """Return where each of `count` queries stands behind a context, by Zoology's law, [B, count].

    Slots of two tokens from `start` on are drawn without replacement, slot g = 1, 2, ... with
    weight g^(power_a - 1).
    """
    slots = (length - start) // 2
    weights = [g ** (power_a - 1) for g in range(1, slots + 1)]
    return start + 2 * draws.weighted_distinct(count, weights)


def statement_starts(draws: Draws, count: int, width: int, length: int) -> Tensor:
    """Return where `count` statements of `width` tokens start among noise, ascending, [B, count].

    Every way of placing them apart within `length` tokens is equally likely.
    """
    noise = length - count * width
    chosen = draws.distinct(count, count + noise).sort(dim=1).values
    return chosen + (width - 1) * torch.arange(count, device=draws.device)


def shuffled_groups(draws: Draws, groups: int, size: int) -> tuple[Tensor, Tensor]:
    """Return a random order of `groups` times `size` members: group and rank in it, [B, N] each.

    Members of one group stand in the order of their rank.
    """
    group = draws.permutation(groups * size) // size
    earlier = torch.nn.functional.one_hot(group, groups).cumsum(dim=1)
    return group, earlier.gather(2, group[:, :, None]).squeeze(2) - 1


def put(tokens: Tensor, starts: Tensor, *pieces: Tensor) -> None:
    """Write pieces [B, N] one behind the other into `tokens`, from each of `starts` [B, N] on."""
    for offset, piece in enumerate(pieces):
        tokens.scatter_(1, starts + offset, piece)


def first_same(ids: Tensor) -> Tensor:
    """Return the place of the first equal id, its own where there is none before it, [B, N].

    Args:
        ids: integers in [0, 2^62 / N), [B, N].
    """
    ordered, places = _by_id_and_place(ids)
    order = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    is_first = torch.ones_like(ids, dtype=torch.bool)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    head = torch.where(is_first, order, 0).cummax(dim=1).values
    return torch.empty_like(ids).scatter_(1, places, places.gather(1, head))


def last_marked(ids: Tensor, is_marked: Tensor) -> Tensor:
    """Return the place of the last marked one of the same id, up to and with itself, [B, N].

    -1 where there is none. Args as `first_same`, and a bool [B, N].
    """
    ordered, places = _by_id_and_place(ids)
    order = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    marked = torch.where(is_marked.gather(1, places), order, -1).cummax(dim=1).values
    at = marked.clamp(min=0)
    is_found = (marked >= 0) & (ordered.gather(1, at) == ordered)
    found = torch.where(is_found, places.gather(1, at), -1)
    return torch.empty_like(ids).scatter_(1, places, found)


def _by_id_and_place(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return ids in order, equal ones in the order they came in, and the place of each."""
    size = ids.shape[1]
    ordered = (ids * size + torch.arange(size, device=ids.device)).sort(dim=1).values
    return ordered // size, ordered % size
