"""Names of quantisations: one spelling for what engines, files and people write, and what class of bits it is.

``Q4_K - Medium`` (llama.cpp's ``ftype``), ``Q4_K_M`` (Ollama), ``q4_k_m`` (a pin) are one thing; ``torch.bfloat16``
(a ``config.json``) and ``BF16`` are another. Quantisations are compared after :func:`normalise`, never as written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_SPELLINGS: Final = {
    spelling: name
    for name, spellings in {
        "F32": ("FLOAT32", "FP32", "FLOAT"),
        "F16": ("FLOAT16", "FP16", "HALF"),
        "BF16": ("BFLOAT16",),
        "FP8": ("FLOAT8", "F8", "FP8_E4M3", "FP8_E4M3FN", "FP8_E5M2", "FLOAT8_E4M3FN", "FLOAT8_E5M2"),
        "AWQ": ("AUTO_AWQ", "AWQ_MARLIN"),
        "GPTQ": ("GPTQ_MARLIN",),
        "INT8": ("I8",),
        "INT4": ("I4",),
        "NF4": ("BITSANDBYTES_NF4", "BNB_NF4"),
        "FP4": ("BITSANDBYTES_FP4", "BNB_FP4"),
        "4BIT": ("BNB_4BIT", "BITSANDBYTES_4BIT"),
        "8BIT": ("BNB_8BIT", "BITSANDBYTES_8BIT"),
        "Q2_K": ("Q2_K_M",),  # llama.cpp makes it under one name and reports it as "Q2_K - Medium"
    }.items()
    for spelling in spellings
}
_SIZES: Final = {"SMALL": "S", "MEDIUM": "M", "LARGE": "L"}

_BITS: Final = {
    "F32": 32.0,
    **dict.fromkeys(("F16", "BF16"), 16.0),
    **dict.fromkeys(("FP8", "INT8", "W8A8", "W8A16", "MXFP8"), 8.0),
    "MXFP6": 6.0,
    **dict.fromkeys(("W4A16", "W4A8", "W4A4", "AWQ", "INT4", "NF4", "FP4", "MXFP4", "NVFP4"), 4.0),
}
"""Classes whose name says how many bits a weight has. GPTQ and compressed-tensors are not here: theirs does not."""

PLAIN: Final = frozenset({"F32", "F16", "BF16"})
"""Types of weights that are not quantised; engines convert from one to another."""

_METHODS: Final = {
    "GPTQ": r"GPTQ_(INT)?[1-8].*",
    "AWQ": r"AWQ_(INT)?[1-8].*",
    "COMPRESSED_TENSORS": r"W\d+A\d+|FP[48]|INT[48]|MXFP[48]|NVFP4",
    "MODELOPT": r"W\d+A\d+.*|FP8.*|MXFP8|NVFP4.*",
    "BITSANDBYTES": r"INT8|NF4|FP4|[48]BIT",
}
"""Names that engines report for a method, and what weights that were quantised by it are called more precisely."""


def normalise(raw: str) -> str:
    """Return the one spelling of a quantisation's name: upper case, words joined by ``_``, fillers removed.

    Unknown names are kept, only tidied, so two equal unknown names still compare equal; an empty name stays empty.

    >>> normalise("Q4_K - Medium"), normalise("all F32"), normalise("torch.bfloat16"), normalise("mostly Q8_0")
    ('Q4_K_M', 'F32', 'BF16', 'Q8_0')
    """
    text = raw.strip().upper().removeprefix("TORCH.")
    text = re.sub(r"\(GUESSED\)", "", text)
    # llama.cpp's descriptions: "IQ4_XS - 4.25 bpw", "TQ1_0 - 1.69 bpw ternary", "Q4_1, some F16", "MXFP4 MoE".
    text = re.sub(r"\s*-?\s*[0-9.]+\s*BPW.*$", "", text)
    text = re.sub(r",\s*SOME .*$", "", text)
    text = re.sub(r"^(MOSTLY|ALL)\s+", "", text.strip())
    text = re.sub(r"\s+MOE$", "", text)
    text = re.sub(r"[\s\-]+", "_", text).strip("_")
    head, _, size = text.rpartition("_")
    if head and size in _SIZES:
        text = f"{head}_{_SIZES[size]}"
    text = _SPELLINGS.get(text, text)
    if method := re.fullmatch(r"(FP8|INT8|INT4|MXFP8|MXFP4)_(PER|WEIGHT)_.+", text):
        return method[1]  # vLLM's online shorthands: fp8_per_tensor, int8_per_channel_weight_only
    return text


def says_less(raw: str, precise: str) -> bool:
    """Tell whether a name is true of what another one names, and says less of it: only the method, or only FP8.

    >>> says_less("gptq_marlin", "GPTQ_INT4"), says_less("compressed-tensors", "W4A16"), says_less("fp8", "fp8_e5m2")
    (True, True, True)
    >>> says_less("GPTQ_INT4", "gptq_marlin"), says_less("awq", "GPTQ_INT4"), says_less("F16", "fp16")
    (False, False, False)
    """
    less, more = normalise(raw), normalise(precise)
    if less == more:
        return not _float8(raw) and bool(_float8(precise))
    return re.fullmatch(_METHODS.get(less, "(?!)"), more) is not None


def same(name: str, other: str) -> bool:
    """Tell whether two names can be one quantisation: spelt alike, or one of them says less.

    >>> same("Q4_K - Medium", "q4_k_m"), same("GPTQ_INT4", "gptq_marlin"), same("fp8_e4m3", "fp8_e5m2")
    (True, True, False)
    """
    if normalise(name) == normalise(other):
        return not (_float8(name) and _float8(other)) or _float8(name) == _float8(other)
    return says_less(name, other) or says_less(other, name)


def _float8(raw: str) -> str:
    """Return how an FP8 splits its bits, as far as its name says: E4M3 and E5M2 hold different numbers."""
    layout = re.search(r"E4M3|E5M2", raw.upper())
    return layout[0] if layout else ""


def bits(normalised: str) -> float | None:
    """Return how many bits the class has per weight (its nominal number, scales not counted); ``None`` when unknown.

    The name decides: ``Q4_K_M`` is 4 although some of its tensors have more. ``GPTQ`` alone says nothing,
    ``GPTQ_INT4`` does.

    >>> bits("Q4_K_M"), bits("BF16"), bits("IQ3_XXS"), bits("GPTQ")
    (4.0, 16.0, 3.0, None)
    """
    if normalised in _BITS:
        return _BITS[normalised]
    for pattern in (
        r"(?:UD_)?(?:I|T)?Q([1-8])(?:_[0-9A-Z]+)*",
        r"([1-8])_?BITS?",
        r"(?:GPTQ|AWQ|HQQ|MLX|AUTOROUND|TORCHAO)_(?:INT|W)?([1-8])(?:_?BITS?)?(?:A\d+)?",
    ):
        if number := re.fullmatch(pattern, normalised):
            return float(number[1])
    return None


def of_config(config: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a model's ``config.json`` says its weights are: normalised, and as written; empty when it does not.

    >>> of_config({"quantization_config": {"quant_method": "gptq", "bits": 4}, "dtype": "float16"})
    ('GPTQ_INT4', 'gptq, 4 bits')
    >>> of_config({"dtype": "bfloat16"}), of_config({"quantization": {"bits": 4, "group_size": 64}})
    (('BF16', 'bfloat16'), ('MLX_4BIT', 'mlx, 4 bits'))
    """
    if mlx := _mlx(config):
        raw = f"mlx, {mlx['bits']} bits"
        mode = str(mlx.get("mode", "affine"))
        return (f"MLX_{mlx['bits']}BIT", raw) if mode == "affine" else (normalise(mode), f"{raw}, {mode}")
    table = config.get("quantization_config")
    if not isinstance(table, Mapping):
        raw = config.get("dtype") or config.get("torch_dtype") or ""
        return (normalise(raw), raw) if isinstance(raw, str) else ("", "")
    method = str(table.get("quant_method") or "")
    schemes = list(dict.fromkeys(_schemes(method, table)))
    more = f"{table['bits']} bits" if isinstance(table.get("bits"), int) else " and ".join(schemes)
    return (schemes[0] if len(schemes) == 1 else normalise(method)), ", ".join(part for part in (method, more) if part)


def packed_bits(config: Mapping[str, Any], tensor: str) -> int | None:
    """Return how many bits one weight has in a packed tensor of a checkpoint with this ``config.json``, if it says."""
    if mlx := _mlx(config):
        own = mlx.get(tensor.rpartition(".")[0])  # a layer may have bits of its own
        bits_ = own.get("bits") if isinstance(own, Mapping) else mlx["bits"]
        return bits_ if isinstance(bits_, int) else None
    width = bits(of_config(config)[0])
    return int(width) if width else None


def _mlx(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return MLX's own table; it writes the same under ``quantization_config``, without a method."""
    table = config.get("quantization")
    return table if isinstance(table, Mapping) and isinstance(table.get("bits"), int) else {}


def _schemes(method: str, table: Mapping[str, Any]) -> Iterator[str]:
    """Yield the normalised name of each way the weights are stored, as far as the table says more than its method."""
    number = table.get("bits")
    if method in ("gptq", "awq") and isinstance(number, int):
        yield "AWQ" if (method, number) == ("awq", 4) else f"{method.upper()}_INT{number}"
    elif method == "bitsandbytes":
        yield "INT8" if table.get("load_in_8bit") else normalise(str(table.get("bnb_4bit_quant_type", "fp4")))
    elif isinstance(table.get("quant_algo"), str):
        yield normalise(table["quant_algo"])
    elif isinstance(groups := table.get("config_groups"), Mapping):
        for group in groups.values():
            if isinstance(group, Mapping) and isinstance(group.get("weights"), Mapping):
                form = group.get("format") or table.get("format")
                yield _scheme(group["weights"], group.get("input_activations"), str(form).partition("-")[0])


def _scheme(weights: Mapping[str, Any], activations: object, form: str) -> str:
    """Return the name of a scheme of compressed-tensors (its quantization/quant_scheme.py, ``PRESET_SCHEMES``)."""
    number = weights.get("num_bits")
    if form in ("mxfp4", "mxfp8", "nvfp4"):
        return normalise(form)
    if weights.get("type") == "float":
        return f"FP{number}"
    other = activations.get("num_bits") if isinstance(activations, Mapping) else 16
    return f"W{number}A{other}"
