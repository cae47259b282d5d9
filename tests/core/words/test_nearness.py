"""What a person may have meant is found in one place, and offered only where it is near."""

from __future__ import annotations

from pathlib import Path

import pytest

import pytest_llmparity
from pytest_llmparity.core.words import nearest as nearness
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.settings.selection import KINDS

PACKAGE = Path(pytest_llmparity.__file__).parent


@pytest.mark.parametrize(
    ("word", "meant"),
    [("olama", "ollama"), ("vlm", "vllm"), ("llama-cpp", "llamacpp"), ("mlX", "mlx"), ("tgii", "tgi")],
)
def test_a_slip_is_told_what_was_meant(word: str, meant: str) -> None:
    assert nearest(word, KINDS) == f" (did you mean {meant!r}?)"


@pytest.mark.parametrize("word", ["nope", "none", "person", "prod", "x", ""])
def test_a_name_that_is_near_none_gets_no_offer(word: str) -> None:
    assert nearest(word, KINDS) == ""


@pytest.mark.parametrize("written", ["get_close_matches", "did you mean {"])
def test_likeness_is_measured_and_told_in_one_place(written: str) -> None:
    assert [path for path in PACKAGE.rglob("*.py") if written in path.read_text("utf-8")] == [Path(nearness.__file__)]
