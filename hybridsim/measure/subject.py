"""A block as a piece of work: real module, random weights, inputs, a filled cache."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from hybridsim.ffn.moe.module import MoE
from hybridsim.ffn.moe.ops import route
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.graph import EMBEDDING, HEAD, build_graph
from hybridsim.measure.block import Block
from hybridsim.measure.point import DECODE, PASS_TOKENS, Point
from hybridsim.measure.timing import Subject
from hybridsim.mixers import MixerSettings
from hybridsim.model.build import initialize, new_tensors
from hybridsim.model.model import HybridLayer
from hybridsim.model.quantize import round_weights
from hybridsim.nn.cache import LayerCache, ModelCache
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.precision import wide
from hybridsim.nn.quantize import FP8
from hybridsim.nn.scale import scaled

INPUT_SETS, ROUTED_INPUT_SETS = 4, 8  # draws of experts differ, so that routing takes more
LARGE_INPUT_BYTES = 1 << 26  # one set, which no cache holds


class EmbeddingModule(nn.Module):
    """The table's rows of the tokens, times the model's factor."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.embed = nn.Embedding(block.vocab_size, block.hidden_size)
        self.scale = block.scale

    def forward(self, tokens: Tensor) -> Tensor:
        return scaled(self.embed(tokens), self.scale)


class HeadModule(nn.Module):
    """Final norm and logits of the last position."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm = RMSNorm(block.hidden_size, block.norm)
        self.head = nn.Linear(block.hidden_size, block.vocab_size, bias=False)
        self.scale = block.scale

    def forward(self, x: Tensor) -> Tensor:
        return scaled(self.head(self.norm(x)), self.scale)


def build_block(block: Block, device: str, dtype: str, seed: int = 0) -> nn.Module:
    """Return the module of a block with random weights: the model's own layer for a sublayer.

    A routed feed-forward's router passes on the first channels of its input, see `_routed_input`.
    On the meta device there are shapes only. Weights in "fp8" are rounded from bf16, in which the
    residual stream is then.
    """
    with new_tensors(device, "bf16" if dtype == "fp8" else dtype):
        if block.kind == EMBEDDING:
            module: nn.Module = EmbeddingModule(block)
        elif block.kind == HEAD:
            module = HeadModule(block)
        else:
            module = HybridLayer(build_graph(block.spec), block.spec.num_layers - 1)
    if device != "meta":
        initialize(module, seed)
    for part in module.modules():
        if isinstance(part, MoE):
            with torch.no_grad():
                part.router.weight.copy_(torch.eye(*part.router.weight.shape))
    if dtype == "fp8":
        round_weights(module)
    return module.eval().requires_grad_(False)


def make_subject(
    module: nn.Module,
    block: Block,
    point: Point,
    *,
    passes: bool = False,
    fp8_cache: bool = False,
) -> Step:
    """Return what is timed at a point.

    Args:
        module: from `build_block`.
        block: what it is.
        point: from `pieces`.
        passes: take a long prefill piece by piece, over a growing cache.
        fp8_cache: keep keys, values and latents in fp8.
    """
    if block.kind == EMBEDDING:
        return TokenStep(module, block, point)
    if block.kind == HEAD or not any(isinstance(b, MixerSettings) for b in block.branches):
        return WidthStep(module, block, point)
    assert isinstance(module, HybridLayer)
    if point.phase == DECODE:
        return DecodeStep(module, block, point, fp8_cache)
    pass_tokens = PASS_TOKENS if passes else point.context
    return PrefillStep(module, block, point, pass_tokens, fp8_cache)


class Step(Subject):
    """A block's step at a point.

    Attributes:
        experts: distinct experts chosen, the mean over the input sets; None without routing.
    """

    experts: float | None = None

    def __init__(self, module: nn.Module, block: Block, point: Point) -> None:
        self.module, self.block, self.point = module, block, point
        weight = next(module.parameters())
        self.device, self.dtype = weight.device, self._stream_dtype(module)
        generator = _generator(self.device)
        one = self._draw(generator)
        self.num_inputs = self._num_inputs(one)
        self.inputs = [one, *(self._draw(generator) for _ in range(self.num_inputs - 1))]
        self.input = one.clone() if self.num_inputs > 1 else one

    @staticmethod
    def _stream_dtype(module: nn.Module) -> torch.dtype:
        """Return the dtype of the residual stream: that of the largest weight."""
        found = max(module.parameters(), key=lambda p: p.numel()).dtype
        return torch.bfloat16 if found == FP8 else found

    def _num_inputs(self, one: Tensor) -> int:
        if one.numel() * one.element_size() > LARGE_INPUT_BYTES:
            return 1
        return ROUTED_INPUT_SETS if self.block.is_routed else INPUT_SETS

    @property
    def shape(self) -> tuple[int, int]:
        """Sequences and new tokens of each."""
        return self.point.batch, self.point.step.new_tokens

    @abstractmethod
    def _draw(self, generator: torch.Generator | None) -> Tensor:
        """Return a random input."""

    def prepare(self, index: int) -> None:
        if self.num_inputs > 1:
            self.input.copy_(self.inputs[index])

    @torch.inference_mode()
    def run(self) -> None:
        self._run()

    @abstractmethod
    def _run(self) -> None:
        """Do the step once."""


class TokenStep(Step):
    """Tokens in."""

    def _draw(self, generator: torch.Generator | None) -> Tensor:
        vocab = self.block.vocab_size
        return torch.randint(vocab, self.shape, generator=generator, device=self.device)

    def _run(self) -> None:
        self.module(self.input)


class WidthStep(Step):
    """The residual stream in, no cache."""

    def __init__(self, module: nn.Module, block: Block, point: Point) -> None:
        super().__init__(module, block, point)
        if block.is_routed and self.device.type != "meta":
            self.experts = self._chosen_experts()

    def _draw(self, generator: torch.Generator | None) -> Tensor:
        size = (*self.shape, self.block.hidden_size)
        x = torch.randn(size, generator=generator, device=self.device, dtype=self.dtype)
        return _routed_input(x, self.block, self.point.skew, generator)

    def _run(self) -> None:
        out = self.module(self.input)
        del out

    @torch.inference_mode()
    def _chosen_experts(self) -> float:
        """Return how many distinct experts the inputs choose, by the module's own routing."""
        seen: list[int] = []
        ffn = self.module.ffn
        assert isinstance(ffn, MoE)

        def note(router: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> None:
            _, experts = route(wide(logits), ffn.settings, ffn.score_correction_bias)
            seen.append(int(experts.unique().numel()))

        handle = ffn.router.register_forward_hook(note)
        for x in self.inputs:
            self.module(x)
        handle.remove()
        return sum(seen) / len(seen)


class PrefillStep(Step):
    """A prompt in, a new cache filled."""

    def __init__(
        self,
        module: HybridLayer,
        block: Block,
        point: Point,
        pass_tokens: int,
        fp8_cache: bool = False,
    ) -> None:
        self.pass_tokens, self.fp8_cache = pass_tokens, fp8_cache
        super().__init__(module, block, point)

    def _draw(self, generator: torch.Generator | None) -> Tensor:
        size = (*self.shape, self.block.hidden_size)
        return torch.randn(size, generator=generator, device=self.device, dtype=self.dtype)

    def _run(self) -> None:
        assert isinstance(self.module, HybridLayer)
        cache = new_cache(self.module, self.point.context, fp8=self.fp8_cache)
        for part in self.input.split(self.pass_tokens, dim=1):
            cache.begin(part.shape[1])
            self.module(part, cache, _selection(self.block, cache.past_tokens, part))
            cache.end(part.shape[1])


class DecodeStep(Step):
    """One token of each sequence in, after a cache of random content."""

    def __init__(
        self, module: HybridLayer, block: Block, point: Point, fp8_cache: bool = False
    ) -> None:
        super().__init__(module, block, point)
        past = point.step.past_tokens
        self.cache = FilledCache(module, self.input, past, fp8=fp8_cache)
        self.selection = _selection(block, point.step.past_tokens, self.input)

    def _draw(self, generator: torch.Generator | None) -> Tensor:
        size = (*self.shape, self.block.hidden_size)
        return torch.randn(size, generator=generator, device=self.device, dtype=self.dtype)

    def prepare(self, index: int) -> None:
        super().prepare(index)
        self.cache.rewind()

    def _run(self) -> None:
        self.module(self.input, self.cache.cache, self.selection)


def _generator(device: torch.device) -> torch.Generator | None:
    """Return the source of random inputs; none where there are no numbers."""
    return None if device.type == "meta" else torch.Generator(device).manual_seed(1)


def _routed_input(
    x: Tensor, block: Block, skew: float, generator: torch.Generator | None
) -> Tensor:
    """Return the input with the experts' drawn scores in its first channels.

    The router has the identity for its weights, so that expert e scores what channel e holds: the
    logarithm of its popularity and Gumbel noise. The k highest are k draws without replacement in
    proportion to the popularity (routing.py), and everything that runs is timed: the router's
    product, its softmax or sigmoid, groups, top k. Popular experts stand in a random order.
    """
    if not block.is_routed:
        return x
    (settings,) = block.branches
    assert isinstance(settings, MoESettings)
    experts = settings.num_experts
    rank = torch.randperm(experts, generator=generator, device=x.device) + 1
    noise = torch.empty(*x.shape[:2], experts, device=x.device)
    noise = noise.exponential_(generator=generator).clamp_(min=1e-20).log_().neg_()
    x[..., :experts] = (noise - skew * rank.float().log()).to(x.dtype)
    return x


def _selection(block: Block, past_tokens: int, x: Tensor) -> Tensor | None:
    """Return the tokens that an earlier layer chose for a block that shares them, at random."""
    borrowed = [b.borrows for b in block.branches if isinstance(b, MixerSettings) and b.borrows]
    seen = past_tokens + x.shape[1]
    if not borrowed or seen <= borrowed[0]:
        return None
    last = torch.arange(past_tokens + 1, seen + 1, device=x.device)[:, None]
    drawn = torch.rand(*x.shape[:2], borrowed[0], device=x.device) * last
    return drawn.long()


def new_cache(layer: HybridLayer, reserved_tokens: int, *, fp8: bool = False) -> ModelCache:
    """Return an empty cache of one layer; keys, values and latents in fp8, or as they come."""
    caches: dict[str, LayerCache] = {
        name: mixer.new_cache(reserved_tokens) for name, mixer in layer.named_mixers()
    }
    cache = ModelCache(caches)
    if fp8:
        cache.store_in_fp8()
    return cache


class FilledCache:
    """A static cache of one layer that holds random content of `tokens` tokens before every step.

    Args:
        layer: a layer with mixers.
        x: [B, 1, D], what its steps take.
        tokens: tokens seen.
        fp8: keys, values and latents in fp8.
    """

    def __init__(self, layer: HybridLayer, x: Tensor, tokens: int, *, fp8: bool = False) -> None:
        self.tokens = tokens
        self.cache = new_cache(layer, tokens + 1, fp8=fp8)
        self.cache.make_static(tokens + 1, x.device)
        with torch.inference_mode():
            self.cache.begin(1)
            layer(x, self.cache, None)  # a first step gives every part its place
            for part in self.cache.layers.values():
                for tensor in part.tensors():
                    fill_random(tensor)

    @torch.inference_mode()
    def rewind(self) -> None:
        """Begin the step after `tokens` tokens, whatever was run before."""
        self.cache.stretch(self.tokens)
        self.cache.begin(1)


def fill_random(tensor: Tensor) -> None:
    """Fill with standard normal numbers, in pieces where torch cannot in the tensor's dtype."""
    if tensor.element_size() > 1:
        tensor.normal_()
        return
    flat = tensor.view(-1)
    for piece in flat.split(1 << 26):
        piece.copy_(torch.randn(piece.shape, device=piece.device, dtype=torch.bfloat16))
