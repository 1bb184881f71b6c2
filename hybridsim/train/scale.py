"""A published model's tiny twin: its mixers and its pattern at a proxy's sizes. No torch.

The rule, field by field, is the table RULES. Every mixer gets the proxy's heads H and key channels
K, and keeps what makes it itself: value channels over key channels, key heads over query heads, the
latent's rank over the key's channels, the rotated share, the inner width over the model's. What
counts tokens (a window, a selection) keeps its share of the context. What belongs to a large
model's training or to a long context (muP factors, stretched frequencies) is left out. Every
feed-forward, mixtures too, becomes one dense one of the proxy's width, the same in all layers: a
proxy asks what mixers can do.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

from hybridsim.components import RopeSettings
from hybridsim.errors import SpecError
from hybridsim.ffn.dense.settings import DenseSettings
from hybridsim.mixers import MixerSettings
from hybridsim.spec.pattern import NOTHING, compress_pattern
from hybridsim.spec.schema import LETTERS, ModelSpec
from hybridsim.train.depth import resample_layers
from hybridsim.train.proxy import ModelSize, ProxySettings


@dataclass(frozen=True)
class Shrink:
    """What a field's new value may depend on.

    Attributes:
        settings: the mixer's own settings.
        spec: the model that it is of.
        size: the proxy's sizes.
        context: tokens of the proxy's task.
        context_target: tokens that the full model must hold.
    """

    settings: Any
    spec: ModelSpec
    size: ModelSize
    context: int
    context_target: int

    @property
    def key_dim(self) -> int:
        """Key channels of the full model's heads."""
        s = self.settings
        names = ("qk_nope_head_dim", "head_k_dim", "state_size", "head_dim")
        return next(int(getattr(s, name)) for name in names if hasattr(s, name))

    def channels(self, full: int, multiple: int = 2) -> int:
        """Return channels in the ratio that `full` has to the key's, a multiple."""
        return _near(self.size.head_dim * full / self.key_dim, multiple)

    def heads(self, full: int, of: int) -> int:
        """Return heads in the ratio that `full` has to `of`, a divisor or a multiple of H."""
        h = self.size.num_heads
        return h * max(1, round(full / of)) if full >= of else _divisor(h, h * full / of)

    def tokens(self, full: int) -> int:
        """Return as large a share of the task's context as `full` is of the target."""
        share = self.context * full / self.context_target
        return min(self.context, max(self.size.min_window, round(share)))

    def width(self, full: int, multiple: int) -> int:
        """Return a width in the ratio that `full` has to the model's."""
        return _near(self.size.hidden_size * full / self.spec.hidden_size, multiple)


def _near(value: float, multiple: int) -> int:
    return max(multiple, multiple * round(value / multiple))


def _divisor(of: int, most: float) -> int:
    """Return the largest divisor of a number that is at most `most`, at least 1."""
    return max(n for n in range(1, of + 1) if of % n == 0 and n <= max(1.0, most))


def _rope(c: Shrink, rope: RopeSettings) -> RopeSettings:
    """Return the same share of a head rotated, at plain frequencies."""
    rotated = None if rope.rotary_dim is None else c.channels(rope.rotary_dim)
    return RopeSettings(rotary_dim=rotated, interleaved=rope.interleaved)


def _mamba2_heads(c: Shrink) -> int:
    inner = c.width(c.settings.num_heads * c.settings.head_dim, c.size.head_dim)
    return max(1, inner // c.channels(c.settings.head_dim))


Rule = Callable[[Shrink, Any], Any]
# field -> its value in the twin, from what it may depend on and the full value (null stays null)
RULES: dict[str, Rule] = {
    "num_heads": lambda c, _: c.size.num_heads,
    "num_kv_heads": lambda c, n: c.heads(n, c.settings.num_heads),
    "num_v_heads": lambda c, n: c.heads(n, c.settings.num_heads),
    "head_dim": lambda c, _: c.size.head_dim,
    "head_k_dim": lambda c, _: c.size.head_dim,
    "head_v_dim": lambda c, n: c.channels(n),
    "qk_nope_head_dim": lambda c, _: c.size.head_dim,
    "qk_rope_head_dim": lambda c, n: c.channels(n) if n else 0,
    "v_head_dim": lambda c, n: c.channels(n),
    "kv_lora_rank": lambda c, n: c.channels(n),
    "q_lora_rank": lambda c, n: max(c.size.head_dim, c.width(n, 8)),
    "num_features": lambda c, n: c.channels(n),
    "gate_rank": lambda c, n: min(n, c.size.head_dim),
    "chunk_size": lambda c, _: c.size.chunk_size,
    "window": lambda c, n: c.tokens(n),
    "rope": _rope,
    "softmax_scale": lambda c, _: None,
    "norm_eps": lambda c, _: None,
    "num_norm_groups": lambda c, n: _divisor(c.size.num_heads * c.size.head_dim, n),
    "index_head_dim": lambda c, _: c.size.head_dim,
    "index_topk": lambda c, n: c.tokens(n),
    # A selection is made in every layer, so that a layer can be trained beside any other.
    "indexer_type": lambda c, _: "full",
    **dict.fromkeys(
        ("key_scale", "input_scale", "output_scale", "z_scale", "x_scale", "b_scale", "c_scale",
         "dt_scale"),
        lambda c, _: 1.0,
    ),
}  # fmt: skip
KIND_RULES: dict[str, dict[str, Rule]] = {
    "sparse_mla": {"index_num_heads": lambda c, _: c.size.num_heads},
    "block_sparse": {
        "index_num_heads": lambda c, _: c.heads(c.settings.num_kv_heads, c.settings.num_heads),
        "block_size": lambda c, _: c.size.min_window,
        "topk_blocks": lambda c, n: max(
            c.settings.local_blocks + 1,
            round(c.tokens(n * c.settings.block_size) / c.size.min_window),
        ),
    },
    "gla": {"conv_size": lambda c, n: n or c.size.conv_size or None},
    "mamba1": {
        "inner_dim": lambda c, n: c.width(n, 8),
        "dt_rank": lambda c, _: -(-c.size.hidden_size // 16),
    },
    "mamba2": {
        "num_heads": lambda c, _: _mamba2_heads(c),
        "head_dim": lambda c, n: c.channels(n),
        "state_size": lambda c, _: c.size.head_dim,
        "num_groups": lambda c, n: _divisor(_mamba2_heads(c), n),
        "norm_groups": lambda c, n: n and _divisor(_mamba2_heads(c), n),
    },
}


def scale_mixer(shrink: Shrink) -> MixerSettings:
    """Return the twin's settings of a mixer; fields without a rule stay as they are."""
    settings: MixerSettings = shrink.settings
    own = KIND_RULES.get(settings.kind, {})
    rules = {**RULES, **own}
    changed = {
        f.name: rules[f.name](shrink, getattr(settings, f.name))
        for f in fields(settings)
        if f.name in rules and (getattr(settings, f.name) is not None or f.name in own)
    }
    return replace(settings, **changed)


def scale_spec(
    spec: ModelSpec,
    proxy: ProxySettings,
    task: str | None = None,
    *,
    context_target: int | None = None,
) -> ModelSpec:
    """Return the tiny twin of a model that a proxy trains on a task.

    It has the task's tokens, length and feed-forwards, so that its scores are the same whichever
    other tasks are trained.

    Args:
        spec: the full model.
        proxy: sizes and tasks.
        task: its name; the first where None.
        context_target: tokens that the full model must hold, for what counts tokens; its native
            context where None.

    Raises:
        SpecError: the model has no mixer, or its twin would not be valid.
    """
    name = task or next(iter(proxy.tasks))
    size, context = proxy.task_model(name), proxy.task(name).length
    mixing = "".join(char for char in spec.layer_letters if spec.layer_mixers(char))
    if not mixing:
        raise SpecError(f"layer_pattern={spec.layer_pattern}: no layer mixes tokens")
    letters = resample_layers(mixing, size.num_layers)
    used = {part for char in set(letters) for part in spec.layer_mixers(char)}
    target = max(context_target or spec.native_context, 1)
    mixers = {
        letter: scale_mixer(Shrink(spec.mixers[letter], spec, size, context, target))
        for letter in sorted(used)
    }
    twin = ModelSpec(
        name=f"{spec.name}:{proxy.name}",
        hidden_size=size.hidden_size,
        num_layers=size.num_layers,
        vocab_size=proxy.task(name).vocab_size,
        native_context=context,
        layer_pattern=compress_pattern(letters),
        ffn_pattern=f"{NOTHING}*",
        mixers=mixers,
        parallel={char: parts for char, parts in spec.parallel.items() if char in letters},
        norm_placement={c: p for c, p in spec.norm_placement.items() if c in {*letters, *used}},
        tie_word_embeddings=True,
        description=f"{spec.name} at the sizes of the proxy {proxy.name}",
    )
    return _with_feed_forwards(twin, size)


def _with_feed_forwards(twin: ModelSpec, size: ModelSize) -> ModelSpec:
    """Return a twin with a dense feed-forward in every layer, or in none, as the sizes say."""
    taken = {*twin.mixers, *twin.layer_letters}
    ffn = next(char for char in sorted(LETTERS, reverse=True) if char not in taken)
    inner = math.ceil(size.ffn_ratio * size.hidden_size)
    return replace(
        twin,
        ffn_pattern=f"{ffn if inner else NOTHING}*",
        ffns={ffn: DenseSettings(inner)} if inner else {},
    )


def full_pattern(letters: str, num_layers: int) -> str:
    """Return a proxy's pattern as one of the full model: the way back, see `resample_layers`."""
    return compress_pattern(resample_layers(letters, num_layers))
