from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.quantization import bits, normalise

SPELLINGS = {
    "Q4_K - Medium": "Q4_K_M",
    "Q3_K - Large": "Q3_K_L",
    "Q2_K - Small": "Q2_K_S",
    "q4_K_M": "Q4_K_M",
    "all F32": "F32",
    "mostly Q8_0": "Q8_0",
    "mostly F16 (guessed)": "F16",
    "Q4_1, some F16": "Q4_1",
    "IQ4_XS - 4.25 bpw": "IQ4_XS",
    "IQ2_XXS - 2.0625 bpw": "IQ2_XXS",
    "TQ1_0 - 1.69 bpw ternary": "TQ1_0",
    "MXFP4 MoE": "MXFP4",
    "bfloat16": "BF16",
    "torch.bfloat16": "BF16",
    "torch.float16": "F16",
    "half": "F16",
    "float32": "F32",
    "fp8": "FP8",
    "fp8_per_tensor": "FP8",
    "int8_per_channel_weight_only": "INT8",
    "awq": "AWQ",
    "awq_marlin": "AWQ",
    "gptq_marlin": "GPTQ",
    "bitsandbytes-nf4": "NF4",
    "bnb-4bit": "4BIT",
    "4bit": "4BIT",
    "UD-Q4_K_XL": "UD_Q4_K_XL",
    "compressed-tensors": "COMPRESSED_TENSORS",
    "  ": "",
}


@pytest.mark.parametrize(("raw", "expected"), SPELLINGS.items())
def test_one_spelling_for_what_engines_files_and_people_write(raw: str, expected: str) -> None:
    assert normalise(raw) == expected


@pytest.mark.parametrize("raw", SPELLINGS)
def test_normalising_twice_changes_nothing(raw: str) -> None:
    assert normalise(normalise(raw)) == normalise(raw)


@given(st.text(max_size=40))
def test_any_text_is_tidied_and_never_refused(raw: str) -> None:
    assert normalise(normalise(raw)) == normalise(normalise(normalise(raw)))
    bits(normalise(raw))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("F32", 32),
        ("F16", 16),
        ("BF16", 16),
        ("Q8_0", 8),
        ("FP8", 8),
        ("INT8", 8),
        ("W8A8", 8),
        ("Q6_K", 6),
        ("Q5_K_M", 5),
        ("Q4_K_M", 4),
        ("UD_Q4_K_XL", 4),
        ("IQ4_NL", 4),
        ("AWQ", 4),
        ("4BIT", 4),
        ("GPTQ_INT4", 4),
        ("GPTQ_8BIT", 8),
        ("MXFP4", 4),
        ("IQ3_XXS", 3),
        ("Q2_K", 2),
        ("TQ1_0", 1),
    ],
)
def test_the_name_says_how_many_bits(name: str, expected: float) -> None:
    assert bits(name) == expected


@pytest.mark.parametrize("name", ["GPTQ", "COMPRESSED_TENSORS", "", "Q9_0", "UNKNOWN,_MAY_NOT_WORK", "QWEN"])
def test_a_name_that_does_not_say_gives_no_number(name: str) -> None:
    assert bits(name) is None
