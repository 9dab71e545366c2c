"""Frozen weights in 4 or 8 bits: which forms there are, what they take, and what they need."""

import importlib.util
from typing import Final, Literal, TypeAlias

from ablate.study.field_types import BYTES

Quantize: TypeAlias = Literal["nf4", "int8"]

BLOCK: Final = 64
"""Weights of nf4 that share a scale."""
BYTES_A_WEIGHT: Final = {"nf4": 0.5 + 4 / BLOCK, "int8": 1.0}
"""With the float32 scales: one a block of nf4; one a row of int8, which is nothing beside the row."""
INSTEAD: Final = "quantize: int8, which needs nothing"
NOT_INSTALLED: Final = (
    "quantize: nf4 needs bitsandbytes, which is not installed: `pip install 'ablate[quantize]'`, or say " + INSTEAD
)


def bytes_a_weight(quantize: Quantize | None, dtype: str) -> float:
    """-> of a linear module's weights; embeddings, norms and the output head stay in `dtype`."""
    return BYTES_A_WEIGHT[quantize] if quantize else BYTES[dtype]


def is_installed() -> bool:
    """Whether bitsandbytes can be imported, for all that is known without doing so."""
    return importlib.util.find_spec("bitsandbytes") is not None
