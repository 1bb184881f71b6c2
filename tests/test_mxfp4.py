"""gpt-oss's published storage of experts: exact, and the same model as the reference reads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from closeness import assert_close
from parity_cases import CASES, VOCAB
from safetensors.torch import load_file, save_file

from hybridsim.checkpoint import mxfp4
from hybridsim.checkpoint.read import CheckpointError, load_pretrained

EXPERTS = ("gate_up_proj", "down_proj")

# The reference warns about what is on purpose here.
pytestmark = pytest.mark.filterwarnings("ignore")


def test_every_number_of_four_bits() -> None:
    codes = torch.arange(16, dtype=torch.uint8)
    blocks = (codes | codes.flip(0) << 4).reshape(1, 1, 1, 16)
    for exponent in (-100, -3, 0, 7, 100):
        scales = torch.tensor([[[127 + exponent]]], dtype=torch.uint8)
        got = mxfp4.dequantize(blocks, scales)[0, :, 0].double() / 2.0**exponent
        numbers = [0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]
        assert got[0::2].tolist() == numbers
        assert got[1::2].tolist() == numbers[::-1]


def random_packed(experts: int, outputs: int, inputs: int) -> tuple[torch.Tensor, torch.Tensor]:
    blocks = torch.randint(0, 256, (experts, outputs, inputs // 32, 16), dtype=torch.uint8)
    scales = torch.randint(121, 126, (experts, outputs, inputs // 32), dtype=torch.uint8)
    return blocks, scales


def test_numbers_are_those_of_the_reference() -> None:
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    blocks, scales = random_packed(3, 10, 64)
    wanted = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    assert (mxfp4.dequantize(blocks, scales).float() == wanted).all()


@pytest.fixture
def published(tmp_path: Path) -> tuple[Any, Path]:
    """Return a reference model and a folder with its experts in mxfp4."""
    from transformers.integrations.mxfp4 import convert_moe_packed_tensors

    case = CASES["gpt_oss"]
    sizes = {"hidden_size": 64, "intermediate_size": 32}
    reference = replace(case, config=case.config | sizes).build_reference()
    reference.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for layer in range(4):
        for part in EXPERTS:
            name = f"model.layers.{layer}.mlp.experts.{part}"
            experts, inputs, outputs = tensors.pop(name).shape
            blocks, scales = random_packed(experts, outputs, inputs)
            tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            with torch.no_grad():
                plain = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
                reference.get_parameter(name).copy_(plain)
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return reference, tmp_path


def test_a_published_checkpoint_is_the_references_model(published: tuple[Any, Path]) -> None:
    reference, folder = published
    tokens = torch.randint(2, VOCAB, (2, 40))
    with torch.no_grad():
        wanted = reference(tokens, use_cache=False).logits
        assert_close("logits", load_pretrained(folder)(tokens), wanted, 1e-5)


def test_blocks_without_scales_are_named(published: tuple[Any, Path]) -> None:
    _, folder = published
    file = folder / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.2.mlp.experts.down_proj_scales"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"missing model\.layers\.2\.mlp\.experts\.down_proj"):
        load_pretrained(folder)
