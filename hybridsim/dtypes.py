"""Number formats by name, and the formats a model is served in. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, fields

from hybridsim.errors import unknown

BYTES_PER_ELEMENT: dict[str, float] = {
    "fp32": 4,
    "bf16": 2,
    "fp16": 2,
    "fp8": 1,
    "int8": 1,
    "fp4": 0.5,
}

FP8_MAX = 448.0  # of float8_e4m3fn
FP8_SMALLEST_SCALE = 1e-4 / FP8_MAX  # a row of zeros has a scale too

INDEX_SCALE_BLOCK = 128  # elements that share one fp32 scale in a scaled fp8 index key
INDEX_SCALE_BYTES = 4


def bytes_of(elements: float, dtype: str) -> float:
    """Return the bytes of `elements` numbers stored in `dtype`."""
    return elements * BYTES_PER_ELEMENT[dtype]


def scaled_fp8_bytes(head_dim: int) -> int:
    """Return the bytes of one index key cached in fp8, with an fp32 scale per 128 numbers.

    Source: deepseek-ai/DeepSeek-V3.2-Exp inference/model.py (128 fp8 bytes and one 4-byte scale).
    """
    return head_dim + -(-head_dim // INDEX_SCALE_BLOCK) * INDEX_SCALE_BYTES


@dataclass(frozen=True)
class Dtypes:
    """The number formats of one deployment; each is a key of BYTES_PER_ELEMENT.

    Attributes:
        weights: parameters.
        activations: tensors between operators.
        kv: keys, values and latents in the cache.
        state: recurrent state of linear-attention layers.
        conv_state: last columns kept by short convolutions.
    """

    weights: str = "bf16"
    activations: str = "bf16"
    kv: str = "bf16"
    state: str = "fp32"
    conv_state: str = "bf16"

    @property
    def products(self) -> str:
        """The format that matrix products run in: the wider of weights and activations."""
        return max(self.weights, self.activations, key=lambda dtype: BYTES_PER_ELEMENT[dtype])

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value not in BYTES_PER_ELEMENT:
                raise unknown(field.name, value, BYTES_PER_ELEMENT, "dtype")
