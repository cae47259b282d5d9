from __future__ import annotations

import pytest

from pytest_llmparity.core.pins import hold
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


def test_findings_keep_the_order_of_the_pins() -> None:
    pins: dict[str, str | int] = {"context_length": 1, "quantization": "F16", "absent": "x"}

    assert [finding.field for finding in hold(pins, IDENTITY)] == list(pins)


def test_both_values_are_named() -> None:
    texts = [
        finding.describe()
        for finding in hold({"quantization": "Q4_0", "digest": "abcdef", "slots": 2, "revision": "b968826"}, IDENTITY)
    ]

    assert texts == [
        "quantization pinned to Q4_0, but reported as Q4_K_M",
        "digest sha256:ABCDEF (file) as pinned",
        "slots pinned to 2, but the server does not say",
        "revision pinned to b968826, and only our own configuration says so",
    ]
