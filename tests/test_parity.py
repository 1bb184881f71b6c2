"""Logits and gradients of the compiled models are those of the public reference implementation."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import assert_close
from parity_cases import CASES, VOCAB, double_error

from hybridsim import build_model
from hybridsim.checkpoint.read import (
    CheckpointError,
    TensorFolder,
    load_pretrained,
    load_weights,
)
from hybridsim.errors import SpecError
from hybridsim.families import FAMILIES, family
from hybridsim.families.convert import export_config, import_config, model_differences
from hybridsim.model.generate import greedy

TOKENS = 67
CLOSE = 1e-5
CLOSE_IN_DOUBLE = 1e-10

# The reference warns about what is on purpose here.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=list(CASES))
def pair(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Return the reference model and ours with its saved weights."""
    case = CASES[request.param]
    reference = case.build_reference()
    folder = tmp_path_factory.mktemp(request.param)
    reference.save_pretrained(folder, max_shard_size="100KB")
    return reference, case.load(folder)


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randint(2, VOCAB, (2, TOKENS), generator=torch.Generator().manual_seed(0))


def test_every_family_has_a_case() -> None:
    assert set(CASES) == {family(name).model_type for name in FAMILIES}


@torch.no_grad()
def test_prefill(pair: tuple[Any, Any], tokens: torch.Tensor) -> None:
    reference, model = pair
    assert_close("logits", model(tokens), reference(tokens, use_cache=False).logits, CLOSE)


@pytest.mark.parametrize("name", CASES)
def test_prefill_in_float64(name: str, tokens: torch.Tensor, tmp_path: Path) -> None:
    assert double_error(CASES[name], tmp_path, tokens) <= CLOSE_IN_DOUBLE


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
    prompt = tokens[0, :13].tolist()
    assert prompt + greedy(model, prompt, 32) == wanted[0].tolist()


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


def test_exported_config_builds_the_reference_again(pair: tuple[Any, Any]) -> None:
    reference, model = pair
    exported = export_config(model.spec, reference.config.model_type)
    config = type(reference.config)(**exported.config)
    rebuilt = type(reference)(config)
    shapes = {name: tuple(t.shape) for name, t in rebuilt.state_dict().items()}
    assert shapes == {name: tuple(t.shape) for name, t in reference.state_dict().items()}
    # What the reference writes of it reads as the same model again.
    again = import_config(config.to_dict()).spec
    changed = {key.rpartition(".")[2] for key in model_differences(model.spec, again)}
    assert changed <= {"index_key_dtype"}


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    CASES["llama"].build_reference().save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_of_another_model_is_named(llama_folder: Path, tmp_path: Path) -> None:
    spec = import_config(llama_folder).spec

    def load(**changes: Any) -> None:
        load_weights(build_model(replace(spec, **changes), device="cpu"), llama_folder)

    with pytest.raises(CheckpointError, match=r"missing model\.layers\.4\.input_layernorm"):
        load(num_layers=5)
    with pytest.raises(CheckpointError, match=r"not expected model\.layers\.3\.input_layernorm"):
        load(num_layers=3)
    with pytest.raises(CheckpointError, match=r"embed\.weight: has shape \(96, 48\) in the"):
        load(vocab_size=97)
    with pytest.raises(SpecError, match=r"no such file, nor a folder with a config\.json"):
        load_pretrained(tmp_path / "nowhere")


def test_generate_and_profile_take_the_folder(llama_folder: Path, tmp_path: Path) -> None:
    def run(*args: str) -> Any:
        command = [sys.executable, "-m", "hybridsim", *args, "format=json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    made = run("generate", f"model={llama_folder}", "prompt=[5,9,2]", "max_new_tokens=7")
    wanted = greedy(load_pretrained(llama_folder), [5, 9, 2], 7, {1})
    assert made["tokens"] == wanted
    profile = run("profile", f"spec={llama_folder}", "contexts=[256]", "pictures=false")
    assert profile["parameters"]["total"] == CASES["llama"].build_reference().num_parameters()


def test_dtype_and_device_are_the_callers(llama_folder: Path) -> None:
    model = load_pretrained(llama_folder, dtype="bf16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    with pytest.raises(SpecError, match=r"dtype=fp12"):
        load_pretrained(llama_folder, dtype="fp12")


def test_quantized_checkpoints_are_refused(llama_folder: Path) -> None:
    file = llama_folder / "config.json"
    config = json.loads(file.read_text()) | {"quantization_config": {"quant_method": "fp8"}}
    file.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"stored quantized .*quant_method=fp8"):
        load_pretrained(llama_folder)


def test_loading_holds_no_more_than_one_tensor_beside_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts the bytes of checkpoint tensors that are alive at once."""
    CASES["qwen3_moe"].build_reference().save_pretrained(tmp_path, max_shard_size="100KB")
    alive: dict[int, int] = {}
    most: list[int] = []
    read = TensorFolder.read

    def counted(self: TensorFolder, name: str) -> torch.Tensor:
        tensor = read(self, name)
        alive[id(tensor)] = tensor.nbytes
        weakref.finalize(tensor, alive.pop, id(tensor))
        most.append(sum(alive.values()))
        return tensor

    monkeypatch.setattr(TensorFolder, "read", counted)
    load_pretrained(tmp_path)
    shards = list(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    assert max(most) <= max(shard.stat().st_size for shard in shards)
    assert sum(shard.stat().st_size for shard in shards) > 5 * max(most)
