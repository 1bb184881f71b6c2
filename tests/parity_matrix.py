"""The parity matrix: python tests/parity_matrix.py > docs/parity.md."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from parity_cases import CASES, VOCAB, ParityCase, double_error
from torch import Tensor

TOKENS, CHUNK, DECODED_FROM = 67, 29, 41
COLUMNS = ("prefill", "chunked prefill", "decode", "gradient", "prefill, float64")

HEADER = """\
# Parity with transformers

A tiny random model of each family is saved by transformers {transformers}, read into ours, and
compared in float32 with torch {torch} on a CPU: {tokens} tokens, batch 2; the largest difference
over the largest value. Chunked prefill takes {chunk} + {rest} tokens, decode one at a time after
{decoded}. The gradient is that of a random functional of the logits, at the embedding. Made by
`python tests/parity_matrix.py`; `tests/test_parity.py` holds every cell below 1e-5, and 32 greedy
tokens equal. In the last column every float32 inside either model, rotations and norms included, is
made float64: what rounding hides is not there, and the tests hold it below 1e-10.

| family | {columns} |
| --- |{rules}
"""

NOTES = """
DeepSeek-V3.2: where index scores are equal (a ReLU makes exact zeros common with few heads) the
reference leaves open which token it takes, and ours takes the earliest; the case has 32 index
heads, so that none are. The reference keeps index keys in the model's dtype; the released kernels,
and our default, use fp8 with a scale.

Mamba-2: limits of the time step hold for every token of ours; the reference applies them where
several tokens come in, and not in its step for one. The cases' limits are too wide to take hold;
`tests/test_mamba2.py` compares narrow ones with the reference's prefill.

Qwen3.5, OLMo Hybrid, Ling 3.0: the first token's output of a linear head is near zero where its
query and key happen to be orthogonal, and the norm after the head magnifies it, so that in float32
the reference itself is more than 1e-5 from a float64 pass. Their cases have a larger epsilon in
that norm or, where it is fixed, more channels and fewer linear layers.

Latent attention: the reference normalises its bottlenecks with an epsilon of 1e-6, whatever
`rms_norm_eps` says (vLLM and SGLang take the latter); ours follows the reference. Ling 3.0: the
published configs clamp the experts' activations in the last layers, which ours does and the
reference does not; without those fields, as here, both are the same.
"""


def error(got: Tensor, wanted: Tensor) -> float:
    """Return the largest difference over the largest wanted value."""
    return ((got - wanted).abs().max() / wanted.abs().max()).item()


def measure(name: str) -> tuple[float, ...]:
    """Return the errors of one family, in the order of COLUMNS."""
    case = CASES[name]
    reference: Any = case.build_reference()
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder)
        model = case.load(folder)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(2, VOCAB, (2, TOKENS), generator=generator)
    weights = torch.randn(2, TOKENS, VOCAB, generator=generator)
    wanted = reference(tokens, use_cache=False).logits
    (wanted * weights).sum().backward()
    logits = model(tokens)
    (logits * weights).sum().backward()
    with torch.no_grad():
        cache = model.new_cache()
        parts = [model(tokens[:, :CHUNK], cache), model(tokens[:, CHUNK:DECODED_FROM], cache)]
        chunked = torch.cat(parts, dim=1)
        decoded = torch.cat(
            [model(tokens[:, t : t + 1], cache) for t in range(DECODED_FROM, TOKENS)], dim=1
        )
    return (
        error(logits, wanted),
        error(chunked, wanted[:, :DECODED_FROM]),
        error(decoded, wanted[:, DECODED_FROM:]),
        error(model.embed.weight.grad, reference.get_input_embeddings().weight.grad),
        _double_error(case, tokens),
    )


def _double_error(case: ParityCase, tokens: Tensor) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return double_error(case, Path(folder), tokens)


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    print(
        HEADER.format(
            transformers=transformers.__version__,
            torch=torch.__version__.partition("+")[0],
            tokens=TOKENS,
            chunk=CHUNK,
            rest=DECODED_FROM - CHUNK,
            decoded=DECODED_FROM,
            columns=" | ".join(COLUMNS),
            rules=" ---: |" * len(COLUMNS),
        ),
        end="",
    )
    for name in CASES:
        print(f"| {name} | " + " | ".join(f"{value:.1e}" for value in measure(name)) + " |")
    print(NOTES, end="")


if __name__ == "__main__":
    main()
