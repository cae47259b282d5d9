"""Live tests that one start of a real engine serves are one lane, so that several workers start no engine twice."""

from __future__ import annotations

import pytest

from tests.engines.live import WAYS
from tests.lanes import VLLM, lane_of


@pytest.mark.parametrize("kind", WAYS)
def test_an_engine_of_each_kind_has_a_lane_of_its_own(kind: str) -> None:
    ids = ("test_live.py::test_a[{}]", "test_live.py::test_b[True-{}]", "kinds/test_openai_live.py::test_c[{}-False]")

    assert {lane_of(f"tests/engines/{test.format(kind)}") for test in ids} == {kind}
    assert lane_of(f"tests/live/test_schema_arms.py::test_a[{kind}]") == kind


def test_runs_share_what_starts_vllm_and_else_their_file() -> None:
    vllm = ("test_vllm_gate.py::test_a", "test_turns.py::test_llama_cpp_and_vllm_are_never_up_together")

    assert {lane_of(f"tests/live/{test}") for test in vllm} == {VLLM}
    assert lane_of("tests/live/test_turns.py::test_other[F16]") == "tests/live/test_turns.py"
    assert lane_of("tests/engines/kinds/test_ollama_live.py::test_a[other]") == (
        "tests/engines/kinds/test_ollama_live.py"
    )


def test_tests_that_share_the_answers_of_another_model_are_one_lane() -> None:
    ids = ("test_a", "test_b[transformers]", "test_b[vllm]")

    assert {lane_of(f"tests/live/test_smollm2.py::{test}") for test in ids} == {"tests/live/test_smollm2.py"}
