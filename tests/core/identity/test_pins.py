from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.identity.pins import agree, hold, verdict
from pytest_llmparity.core.sample import IDENTITY as FIELDS
from pytest_llmparity.core.sample import Fact, Identity

IDENTITY = Identity(
    facts={
        "quantization": Fact(value="Q4_K_M", source="reported", raw="Q4_K - Medium"),
        "context_length": Fact(value=8192, source="reported"),
        "digest": Fact(value="sha256:ABCDEF", source="file"),
        "revision": Fact(value="b968826", source="declared"),
    }
)


@pytest.mark.parametrize(
    ("field", "pinned", "state", "source"),
    [
        ("quantization", "Q4_K - Medium", "held", "reported"),
        ("quantization", "q4_k_m", "held", "reported"),
        ("quantization", "Q4_0", "contradicted", "reported"),
        ("context_length", 8192, "held", "reported"),
        ("context_length", " 8192", "held", "reported"),
        ("context_length", 4096, "contradicted", "reported"),
        ("digest", "abcdef", "held", "file"),
        ("digest", "sha256:abc", "contradicted", "file"),
        ("revision", "b968826", "unverified", "declared"),
        ("revision", "main", "contradicted", "declared"),
        ("slots", 4, "unverified", None),
    ],
)
def test_pin_is_held_contradicted_or_unverified(field: str, pinned: str | int, state: str, source: str | None) -> None:
    (finding,) = hold({field: pinned}, IDENTITY)

    assert (finding.field, finding.pinned, finding.state, finding.source) == (field, pinned, state, source)


SHA = "b0caf1a31c0a5b8f0c5d0e2f8d6f6f7c0caf1a31c0a5b8f0c5d0e2f8d6f6f7c0"


@pytest.mark.parametrize(
    ("field", "pinned", "seen", "same"),
    [
        ("version", "0.32.0", "0.32.0", True),
        ("version", "0.32", "0.32.0", False),
        ("version", "0.32.0", "0.32.0+cpu", True),
        ("version", "0.32.0+cpu", "0.32.0+cpu", True),
        ("version", "0.32.0+cu129", "0.32.0+cpu", False),
        ("version", "0.32.0+cu129", "0.32.0", False),
        ("build", "b10566", "b10566-0c1e57098", False),
        ("digest", SHA[:12], f"sha256:{SHA}", True),
        ("digest", f"sha256:{SHA[:12].upper()}", SHA, True),
        ("digest", SHA[:11], SHA, False),
        ("digest", SHA, SHA[:12], False),
        ("template_sha256", SHA[:16], SHA, True),
        ("tokenizer_sha256", "0" * 12, SHA, False),
        ("revision", SHA[:12], SHA[:40], True),
        ("revision", "main", "main", True),
        ("revision", "release-of-may", "release-of-may-2", False),
        ("adapters", "tone, sql rank 8", "sql rank 8, tone", True),
        ("adapters", "sql", "sql rank 8", False),
        ("speculative", "eagle x4", "EAGLE x4", True),
        ("prefix_cache", "on", "off", False),
        ("quantization", "awq_marlin", "AWQ", True),
        ("quantization", "GPTQ_INT4", "gptq_marlin", True),
        ("quantization", "gptq", "GPTQ_INT4", True),
        ("quantization", "W4A16", "compressed-tensors", True),
        ("quantization", "W4A16", "gptq_marlin", False),
        ("quantization", "GPTQ_INT4", "GPTQ_INT8", False),
        ("quantization", "fp8_e4m3", "FP8", True),
        ("quantization", "fp8_e4m3", "fp8_e5m2", False),
        ("kv_cache", "fp8_e4m3", "fp8_e5m2", False),
        ("kv_cache", "fp8_e4m3", "fp8_e4m3fn", True),
        ("kv_cache", "fp8", "fp8_e5m2", True),
        ("kv_cache", "fp16", "F16", True),
        ("kv_cache", "Q8_0/F16", "Q8_0", False),
        ("bits_per_weight", 4.85, 4.846, True),
        ("bits_per_weight", 4.85, 4.839, False),
        ("bits_per_weight", "few", "few", True),
        ("bits_per_weight", float("inf"), float("inf"), True),
        ("tensor_types", "Q4_K:24 F32:9", "F32:9 Q4_K:24", True),
        ("tensor_types", "F32:9 Q4_K:24", "F32:9 Q4_K:25", False),
        ("tensor_types", "F32:9", "F32:9 Q4_K:24", False),
        ("sampling_defaults", '{"top_k": 20}', '{"temperature": 0.6, "top_k": 20}', True),
        ("sampling_defaults", '{"temperature": 0.6}', '{"temperature": 0.600000001}', True),
        ("sampling_defaults", '{"temperature": 0.6, "min_p": 0}', '{"temperature": 0.6}', False),
        ("sampling_defaults", '{"top_k": 20}', '{"top_k": "20"}', False),
        ("sampling_defaults", "[1]", "[1.0]", True),
        ("sampling_defaults", "hot", "hot", True),
        ("device", "nvidia h200", "2 x NVIDIA H200 (driver 570.1); AMD EPYC (avx2)", True),
        ("device", "H100", "NVIDIA H200 (driver 570.1)", False),
        ("device", "L4", "NVIDIA L40S", False),
        ("device", "L4", "NVIDIA L4; AMD EPYC", True),
        ("device", "A100", "NVIDIA A100-SXM4-80GB", True),
        ("device", "", "NVIDIA  H200", False),
        ("attention", "flash_attn", "FLASH_ATTN", True),
        ("format", "GGUF", "gguf", True),
        ("slots", 4, 4.0, False),
    ],
)
def test_what_agrees_with_a_pin(field: str, pinned: str | float, seen: str | float, same: bool) -> None:
    assert agree(field, pinned, seen) is same


@given(st.sampled_from(sorted(FIELDS)), st.one_of(st.text(), st.integers(), st.floats(allow_nan=False)))
def test_whatever_is_seen_agrees_with_itself(field: str, value: str | float) -> None:
    assert agree(field, value, value)


@given(st.sampled_from(sorted(FIELDS)), st.text(), st.text())
def test_no_text_breaks_a_comparison(field: str, pinned: str, seen: str) -> None:
    assert agree(field, pinned, seen) in (True, False)


@pytest.mark.parametrize(
    ("field", "pinned", "fact", "state"),
    [
        ("quantization", "GPTQ_INT4", Fact(value="GPTQ", source="reported", raw="gptq_marlin"), "unverified"),
        ("quantization", "GPTQ", Fact(value="GPTQ_INT4", source="file", raw="gptq, 4 bits"), "held"),
        ("quantization", "fp8_e4m3", Fact(value="FP8", source="reported", raw="fp8"), "unverified"),
        ("quantization", "fp8_e4m3", Fact(value="FP8", source="reported", raw="fp8_e4m3"), "held"),
        ("quantization", "fp8_e4m3", Fact(value="FP8", source="reported", raw="fp8_e5m2"), "contradicted"),
        ("kv_cache", "fp8_e5m2", Fact(value="fp8", source="reported"), "unverified"),
    ],
)
def test_what_says_less_than_the_pin_neither_holds_nor_contradicts_it(
    field: str, pinned: str, fact: Fact, state: str
) -> None:
    (finding,) = hold({field: pinned}, Identity(facts={field: fact}))

    assert finding.state == state


def test_what_says_less_than_the_pin_is_named() -> None:
    (finding,) = hold({"quantization": "W4A16"}, Identity(facts={"quantization": Fact(value="AWQ", source="file")}))
    (vague,) = hold(
        {"quantization": "AWQ_INT8"}, Identity(facts={"quantization": Fact(value="AWQ", source="reported")})
    )

    assert finding.state == "contradicted"
    assert vague.describe() == "quantization is pinned to AWQ_INT8 and the server has AWQ, no more"


def test_findings_keep_the_order_of_the_pins() -> None:
    pins: dict[str, str | int] = {"context_length": 1, "quantization": "F16", "absent": "x"}

    assert [finding.field for finding in hold(pins, IDENTITY)] == list(pins)


def test_both_values_and_who_says_so_are_named() -> None:
    pins: dict[str, str | int] = {
        "quantization": "Q4_0",
        "digest": "abcdef",
        "slots": 2,
        "revision": "b968826",
    }
    other = {"digest": "sha256:0", "revision": "main"}

    assert [finding.describe() for finding in hold({**pins}, IDENTITY)] == [
        "quantization is pinned to Q4_0 but the server has Q4_K_M",
        "digest is sha256:ABCDEF (file) as pinned",
        "slots is pinned but the server does not report it",
        "revision is pinned to b968826 and only our own configuration says so",
    ]
    assert [finding.describe() for finding in hold(other, IDENTITY)] == [
        "digest is pinned to sha256:0 but the model's files say sha256:ABCDEF",
        "revision is pinned to main but the engine is started with b968826",
    ]


@pytest.mark.parametrize(
    ("strict", "wrong"),
    [
        (False, ["quantization is pinned to F16 but the server has Q4_K_M"]),
        (
            True,
            [
                "quantization is pinned to F16 but the server has Q4_K_M",
                "slots is pinned but the server does not report it (strict_pins)",
            ],
        ),
    ],
)
def test_what_nobody_confirms_is_said_and_counts_only_when_it_was_asked_to(strict: bool, wrong: list[str]) -> None:
    findings = hold({"quantization": "F16", "slots": 2, "context_length": 8192}, IDENTITY)

    assert verdict(findings, strict=strict) == (wrong, ["pin slots unverified, the server does not report it"])
