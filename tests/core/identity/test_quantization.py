from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.identity.quantization import bits, normalise, of_config, packed_bits

SPELLINGS = {
    "Q4_K - Medium": "Q4_K_M",
    "Q3_K - Large": "Q3_K_L",
    "Q2_K - Small": "Q2_K_S",
    "Q2_K - Medium": "Q2_K",
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


def groups(form: str, *weights: dict[str, object], activations: object = None) -> dict[str, object]:
    listed = {f"group_{n}": {"weights": each, "input_activations": activations} for n, each in enumerate(weights)}
    return {"quantization_config": {"quant_method": "compressed-tensors", "format": form, "config_groups": listed}}


CONFIGS: dict[str, tuple[dict[str, object], tuple[str, str]]] = {
    "nothing": ({}, ("", "")),
    "odd": ({"dtype": 7, "quantization_config": "x", "quantization": {"bits": "4"}}, ("", "")),
    "older transformers": ({"torch_dtype": "float16"}, ("F16", "float16")),
    "awq": ({"quantization_config": {"quant_method": "awq", "bits": 4}}, ("AWQ", "awq, 4 bits")),
    "awq of 8 bits": ({"quantization_config": {"quant_method": "awq", "bits": 8}}, ("AWQ_INT8", "awq, 8 bits")),
    "gptq": ({"quantization_config": {"quant_method": "gptq", "bits": 3}}, ("GPTQ_INT3", "gptq, 3 bits")),
    "fp8": ({"quantization_config": {"quant_method": "fp8"}}, ("FP8", "fp8")),
    "no method": ({"quantization_config": {}}, ("", "")),
    "bitsandbytes": (
        {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}},
        ("INT8", "bitsandbytes, INT8"),
    ),
    "bitsandbytes nf4": (
        {"quantization_config": {"quant_method": "bitsandbytes", "bnb_4bit_quant_type": "nf4"}},
        ("NF4", "bitsandbytes, NF4"),
    ),
    "modelopt": (
        {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}},
        ("NVFP4", "modelopt, NVFP4"),
    ),
    "4-bit weights": (
        groups("pack-quantized", {"num_bits": 4, "type": "int"}),
        ("W4A16", "compressed-tensors, W4A16"),
    ),
    "8-bit all": (
        groups("int-quantized", {"num_bits": 8, "type": "int"}, activations={"num_bits": 8}),
        ("W8A8", "compressed-tensors, W8A8"),
    ),
    "float": (groups("float-quantized", {"num_bits": 8, "type": "float"}), ("FP8", "compressed-tensors, FP8")),
    "mx": (groups("mxfp8-quantized", {"num_bits": 8, "type": "float"}), ("MXFP8", "compressed-tensors, MXFP8")),
    "mixed": (
        groups("mixed-precision", {"num_bits": 4, "type": "int"}, {"num_bits": 8, "type": "float"}),
        ("COMPRESSED_TENSORS", "compressed-tensors, W4A16 and FP8"),
    ),
    "unreadable groups": (
        {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"g": 1}}},
        ("COMPRESSED_TENSORS", "compressed-tensors"),
    ),
    "mlx": ({"quantization": {"bits": 6, "group_size": 64}}, ("MLX_6BIT", "mlx, 6 bits")),
    "mlx of another mode": (
        {"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}},
        ("MXFP4", "mlx, 4 bits, mxfp4"),
    ),
}


@pytest.mark.parametrize(("config", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_what_a_model_s_configuration_says_of_its_weights(config: dict[str, object], expected: tuple[str, str]) -> None:
    assert of_config(config) == expected


def test_what_is_packed_is_as_wide_as_its_layer_says() -> None:
    mlx = {"quantization": {"bits": 4, "model.b": {"bits": 6}, "model.c": False}}

    assert [packed_bits(mlx, f"model.{layer}.weight") for layer in "abc"] == [4, 6, 4]
    assert packed_bits({"quantization_config": {"quant_method": "gptq", "bits": 8}}, "x.qweight") == 8
    assert packed_bits({"quantization_config": {"quant_method": "hqq"}}, "x.W_q") is None
