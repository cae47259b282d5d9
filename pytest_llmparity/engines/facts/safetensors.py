"""The header of a safetensors file: names, types and shapes of its tensors, no weights.

The format is eight bytes of length and JSON (huggingface/safetensors, README). How many weights a packed tensor holds
is not in it; the rules here are those of the libraries that write them: AutoAWQ, GPTQModel, compressed-tensors,
bitsandbytes, modelopt, mlx. Tried on files of mlx and compressed-tensors, for the others written from their sources.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LONGEST: Final = 100_000_000
"""The format's own limit for a header (bytes)."""

_BITS: Final = {
    **{"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16},
    **{"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
_PACKED: Final = {"I32": 32, "U32": 32, "U8": 8}
"""Types nobody stores a weight in by itself: several are packed into one number."""
_BUFFERS: Final = {"I64", "U64", "BOOL"}
_NO_WEIGHT: Final = re.compile(
    r"(?:[._](?:scales?|biases|qzeros|g_idx|zero_point|weight_shape|absmax|quant_map|scale_inv|scale_2)|"
    r"\.quant_state\..*|_global_scale)$"
)
"""Names of what stands beside quantised weights: their bits are counted, weights they are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One tensor as it is stored."""

    name: str
    type: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The tensors of a file, and the texts its writer put beside them."""

    tensors: tuple[Stored, ...]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header | None:
    """Return a file's header, ``None`` where it is no safetensors file or cannot be read."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            content = json.loads(file.read(length)) if length <= LONGEST else None
        return None if content is None else _header(content)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # other JSON than a header's
        return None


def _header(content: dict[str, Any]) -> Header:
    metadata = content.pop("__metadata__", {})
    tensors = (
        Stored(name=name, type=str(entry["dtype"]), shape=tuple(int(side) for side in entry["shape"]))
        for name, entry in content.items()
    )
    return Header(tensors=tuple(tensors), metadata={str(key): str(value) for key, value in metadata.items()})


def bits_per_weight(tensors: tuple[Stored, ...], packed: Callable[[str], int | None]) -> float | None:
    """Return the bits stored per weight, scales counted, rounded to three digits; ``None`` where nobody can say.

    ``packed`` returns how many bits one weight has in the packed tensor of a name, ``None`` for unknown.
    """
    bits = weights = 0.0
    for tensor in tensors:
        if tensor.type in _BUFFERS:
            continue
        elements = math.prod(tensor.shape)
        if tensor.type not in _BITS:
            return None
        bits += elements * _BITS[tensor.type]
        if _NO_WEIGHT.search(tensor.name):
            continue
        if tensor.type in _PACKED:
            each = packed(tensor.name)
            if not each:
                return None
            elements *= _PACKED[tensor.type] / each  # type: ignore[assignment]  # three bits do not divide 32
        weights += elements
    return round(bits / weights, 3) if weights else None
