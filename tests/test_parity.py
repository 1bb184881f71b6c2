"""Logits and gradients of the compiled models are those of the public reference implementation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import assert_close
from parity_cases import CASES, VOCAB

from hybridsim import build_model
from hybridsim.checkpoint.names import FAMILIES
from hybridsim.checkpoint.read import CheckpointError, load_weights

TOKENS = 67
CLOSE = 1e-5

# The reference warns about what is on purpose here.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=list(CASES))
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Return the reference model and ours with its saved weights."""
    case = CASES[request.param]
    reference = case.build_reference()
    folder = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder, max_shard_size="100KB")
    model = build_model(case.spec_fields(), device="cpu", seed=1)
    return reference, load_weights(model, folder)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(2, VOCAB, (2, TOKENS), generator=torch.Generator().manual_seed(0))


def test_every_family_has_a_case() -> None:
    assert set(CASES) == set(FAMILIES)


@torch.no_grad()
def test_prefill(pair: tuple[Any, Any], tokens: torch.Tensor) -> None:
    reference, model = pair
    assert_close("logits", model(tokens), reference(tokens, use_cache=False).logits, CLOSE)


@torch.no_grad()
def test_prefill_in_two_chunks_then_decode(pair: tuple[Any, Any], tokens: torch.Tensor) -> None:
    reference, model = pair
    cache = model.new_cache()
    parts = [model(tokens[:, :29], cache), model(tokens[:, 29:41], cache)]
    parts += [model(tokens[:, t : t + 1], cache) for t in range(41, TOKENS)]
    wanted = reference(tokens, use_cache=False).logits
    assert_close("logits", torch.cat(parts, dim=1), wanted, CLOSE)


@torch.no_grad()
def test_greedy_tokens(pair: tuple[Any, Any], tokens: torch.Tensor) -> None:
    reference, model = pair
    wanted = reference.generate(
        tokens[:1, :13], max_new_tokens=32, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    cache, seen = model.new_cache(), tokens[:1, :13]
    logits = model(seen, cache, last_logits_only=True)
    for _ in range(32):
        seen = torch.cat((seen, logits.argmax(-1)), dim=1)
        logits = model(seen[:, -1:], cache)
    assert seen.tolist() == wanted.tolist()


def test_gradients(pair: tuple[Any, Any], tokens: torch.Tensor) -> None:
    reference, model = pair
    embeddings = []
    weights = torch.randn(2, TOKENS, VOCAB, generator=torch.Generator().manual_seed(1))
    for network, table in ((reference, reference.get_input_embeddings()), (model, model.embed)):
        network.zero_grad()
        out = network(tokens, use_cache=False).logits if network is reference else network(tokens)
        (out * weights).sum().backward()
        embeddings.append(table.weight.grad)
    assert_close("d embedding", embeddings[1], embeddings[0], CLOSE)


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path) -> None:
    CASES["llama"].build_reference().save_pretrained(tmp_path)
    fields = CASES["llama"].spec_fields()

    def load(**changes: Any) -> None:
        load_weights(build_model(fields | changes, device="cpu"), tmp_path)

    with pytest.raises(CheckpointError, match=r"missing model\.layers\.4\.input_layernorm"):
        load(num_layers=5)
    with pytest.raises(CheckpointError, match=r"not expected model\.layers\.3\.input_layernorm"):
        load(num_layers=3)
    with pytest.raises(CheckpointError, match=r"embed\.weight: has shape \(96, 48\) in the"):
        load(vocab_size=97)
    with pytest.raises(CheckpointError, match=r"has no config\.json"):
        load_weights(build_model(fields, device="cpu"), tmp_path / "nowhere")
