"""Static caches: the same logits as growing ones, in steps that could be captured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import UNSHIPPED
from closeness import assert_close

from hybridsim import build_model
from hybridsim.errors import HybridsimError
from hybridsim.model.decode import DecodeRunner
from hybridsim.model.model import HybridLM
from hybridsim.spec.load import spec_names

TINY = [name for name in spec_names() if name.endswith("_tiny")]
RUNNABLE: list[Any] = [*TINY, *UNSHIPPED.values()]
IDS = [*TINY, *UNSHIPPED]
EXACT = 1e-9


def logits_of(model: HybridLM, tokens: torch.Tensor, sizes: list[int], cache: Any) -> torch.Tensor:
    """Return the logits of passes of these sizes, one after the other."""
    with torch.no_grad():
        return torch.cat([model(part, cache) for part in tokens.split(sizes, dim=1)], dim=1)


@pytest.mark.parametrize("spec", RUNNABLE, ids=IDS)
def test_static_caches_give_the_logits_of_growing_ones(spec: Any) -> None:
    model = build_model(spec, device="cpu").double()
    tokens = torch.randint(0, model.spec.vocab_size, (3, 64))
    # Prompts in chunks, shorter and longer than a window; steps between them and after.
    sizes = [1, 5, 1, 1, 20, 3] + [1] * 20 + [7] + [1] * 6
    wanted = logits_of(model, tokens, sizes, model.new_cache())
    got = logits_of(model, tokens, sizes, model.new_static_cache(70))
    assert_close("logits", got, wanted, EXACT)


def test_a_full_static_cache_takes_nothing_more() -> None:
    """Not by the model itself either: a kernel would write into the next sequence."""
    model = build_model("kimi_linear_tiny", device="cpu")
    cache = model.new_static_cache(8)
    tokens = torch.zeros(2, 9, dtype=torch.long)
    logits_of(model, tokens[:, :8], [7, 1], cache)
    for more in (1, 3):
        with pytest.raises(HybridsimError, match=f"capacity=8: no room for {more} tokens after 8"):
            logits_of(model, tokens[:, :more], [more], cache)


def test_a_runner_decodes_greedily() -> None:
    model = build_model("kimi_linear_tiny", device="cpu").double()
    runner = DecodeRunner(model, 2, 30)
    prompt = torch.randint(0, model.spec.vocab_size, (2, 13))
    for _ in range(2):  # the second time after a reset
        seen = prompt
        runner.prefill(prompt, chunk_tokens=5)
        for _ in range(6):
            with torch.no_grad():
                wanted = model(seen, last_logits_only=True)
            assert_close("logits", runner.logits, wanted, EXACT)
            assert (runner.tokens == wanted.argmax(-1)).all()
            seen = torch.cat((seen, runner.tokens), dim=1)
            runner.step()
        assert runner.past_tokens == 13 + 6
        runner.reset()


def test_a_full_cache_is_one_line() -> None:
    runner = DecodeRunner(build_model("kimi_linear_tiny", device="cpu"), 1, 4)
    with pytest.raises(HybridsimError, match="capacity=4: no room for 5 tokens after 0"):
        runner.prefill(torch.zeros(1, 5, dtype=torch.long))
    runner.prefill(torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(HybridsimError, match="capacity=4: no room for 1 tokens after 4"):
        runner.step()
