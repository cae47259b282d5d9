"""What a run recorded is written as far as the option lets it, and what is left over or of another engine is told."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import GoldenError
from pytest_llmparity.run.recording.writing import of_session
from pytest_llmparity.settings.specification import UpdateGolden
from pytest_llmparity.testing.script import prompt_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tests.doubles.posing import PosingEngine
    from tests.run.conftest import Project

tokens = itertools.count()


def recorded(
    project: Project, prod: PosingEngine, update: UpdateGolden, *, max_tokens: int = 8, partly: bool = False
) -> tuple[list[str], bool]:
    """Ask an engine all prompts in a run of its own; return what is said of its golden answers, and if any were new."""
    session = project.session(
        project.attached("prod", prod), token=str(next(tokens)), resume="fresh", update_golden=update
    )
    project.declare(session, check.prompts(), max_tokens=max_tokens)
    session.gates.partly = partly
    session.gather()
    return of_session(session)


def lines(project: Project) -> list[bytes]:
    return (project.path / "golden/prompts/prod.jsonl").read_bytes().splitlines()


@pytest.fixture
def prod(project: Project) -> PosingEngine:
    """An engine whose answers to three prompts are golden."""
    project.prompts(3)
    engine = project.engine("as ever", poses_as="llamacpp", quantization="Q4_0")
    told, wrote = recorded(project, engine, "missing")
    assert (told[0], wrote) == ("golden: wrote golden/prompts/prod.jsonl: 3 new of 3 cases", True)
    return engine


def test_changed_writes_what_answers_otherwise_and_missing_leaves_it(project: Project, prod: PosingEngine) -> None:
    def otherwise(request: Mapping[str, Any]) -> str:
        return "another answer" if "question 1" in prompt_of(request) else "as ever"

    prod.script, before = otherwise, lines(project)

    missing, untouched = recorded(project, prod, "missing"), lines(project)
    changed, rewritten = recorded(project, prod, "changed"), lines(project)

    assert missing == (["golden: golden/prompts/prod.jsonl: nothing new"], False)
    assert untouched == before
    assert changed[0][0] == "golden: wrote golden/prompts/prod.jsonl: 1 changed of 3 cases"
    assert [place for place, pair in enumerate(zip(before, rewritten, strict=True)) if len(set(pair)) > 1] == [2]


def test_cases_that_nobody_asks_any_more_are_told(project: Project, prod: PosingEngine) -> None:
    project.prompts(2)

    assert recorded(project, prod, "changed") == (
        ["golden: golden/prompts/prod.jsonl: nothing new; 1 case nobody asks any more (c2): llmparity golden prune"],
        False,
    )
    assert len(lines(project)) == 1 + 3


def test_lines_that_a_test_which_was_not_selected_may_ask_for_stay(project: Project, prod: PosingEngine) -> None:
    beside, _ = recorded(project, prod, "changed", max_tokens=9, partly=True)

    assert beside[0].endswith(": 3 new of 6 lines of 3 cases")


def test_another_engine_is_recorded_by_all_alone(project: Project, prod: PosingEngine) -> None:
    prod.quantization, before = "Q8_0", lines(project)

    with pytest.raises(GoldenError, match=r"of: quantization: Q4_0 -> Q8_0\. If that is meant.*--parity-update-golden"):
        recorded(project, prod, "changed")
    kept, (told, _) = lines(project), recorded(project, prod, "all")

    assert kept == before
    assert told[0].endswith(": 3 changed of 3 cases")
