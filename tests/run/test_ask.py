"""Questions on the spot: to every engine, judged on one answer each, refused where the engine is not the one pinned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import BadRequest, DesignError, LLMParityError
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.run.ask import SessionAsker
from pytest_llmparity.run.parity import Parity, ParityFailure
from pytest_llmparity.run.session import Session
from pytest_llmparity.testing import Fault

if TYPE_CHECKING:
    from tests.run.conftest import Project


def parity_of(session: Session) -> Parity:
    return Parity(SessionAsker(session))


def test_every_engine_answers_the_baseline_first(project: Project) -> None:
    specs = [project.attached("a", project.engine("yes")), project.attached("b", project.engine("no"))]
    asked = parity_of(project.session(*specs, baseline="b")).ask("Is it?", max_tokens=3, stop=["\n"])

    assert list(asked) == ["b", "a"]
    assert (asked["a"].text, asked["b"].text, len(asked)) == ("yes", "no", 2)
    with pytest.raises(KeyError, match="no engine 'c' was asked; these were: 'b', 'a'"):
        _ = asked["c"]


def test_a_check_on_one_answer_passes_or_fails_without_a_bound(project: Project) -> None:
    engines = project.engine("30 days"), project.engine("30 days"), project.engine("60 days")
    a, b, c = (project.attached(name, engine) for name, engine in zip("abc", engines, strict=True))

    (verdict,) = parity_of(project.session(a, b)).ask("How long?").check(check.text(margin=0.05))
    assert (verdict.outcome, verdict.upper) == (Outcome.PASS, None)
    with pytest.raises(
        ParityFailure, match=r"FAIL(.|\n)*no cause is shown: experiments take several prompts, and this is"
    ):
        parity_of(project.session(a, c)).ask("How long?").check(check.text(margin=0.05))


def test_a_check_of_pairs_says_that_there_is_none(project: Project) -> None:
    asked = parity_of(project.session(project.attached("a", project.engine("x")))).ask("?")

    with pytest.raises(ParityFailure, match=r"text compares engines and only a is selected; give --engines A,B"):
        asked.check(check.text(margin=0.05))


@pytest.mark.parametrize(
    ("checked", "lacks"),
    [
        (check.answers(rate=0.9, gap=0.05), "says of no answer that it is right"),
        (check.tools(trigger=0.9), "offers no tools"),
        (check.tools(agree=0.9), "offers no tools"),
    ],
)
def test_a_question_on_the_spot_says_nothing_of_what_is_right(project: Project, checked: Check, lacks: str) -> None:
    engines = [project.attached(name, project.engine("x")) for name in "ab"]
    asked = parity_of(project.session(*engines)).ask("?")

    with pytest.raises(
        DesignError, match=rf"cannot judge a question on the spot, which {lacks}: write it into a prompt"
    ):
        asked.check(checked)


def test_an_answer_that_failed_raises_its_error_where_it_is_read(project: Project) -> None:
    bad = project.engine(lambda request: "hi" if request["max_tokens"] == 1 else Fault.refuse(400))
    asked = parity_of(project.session(project.attached("a", project.engine("x")), project.attached("b", bad))).ask("?")

    assert asked["a"].text == "x"
    with pytest.raises(BadRequest, match="b, ask"):
        _ = asked["b"].text
    with pytest.raises(ParityFailure, match="ERROR"):
        asked.check(check.text(margin=0.5))


def test_an_engine_with_a_contradicted_pin_is_not_asked(project: Project) -> None:
    good, other = project.engine(), project.engine(poses_as="llamacpp", quantization="Q4_0")
    pinned = project.attached("b", other, pin={"quantization": "Q8_0"})

    with pytest.raises(LLMParityError, match="quantization is pinned to Q8_0 but the server has Q4_0"):
        parity_of(project.session(project.attached("a", good), pinned)).ask("?")
    assert (good.count, other.count) == (1, 1), "the warm-ups"


@pytest.mark.slow
async def test_one_at_a_time_each_engine_is_asked_while_it_is_up(project: Project) -> None:
    session = project.session(project.process("a"), project.process("b"), residency="one-at-a-time")
    parity = parity_of(session)

    asked = parity.ask("?")
    verdicts = asked.check(check.text(margin=0.05))
    later = await parity.aask("??")

    assert [asked["a"].text, later["b"].text] == ["well, yes"] * 2
    assert [v.outcome for v in verdicts] == [Outcome.PASS]
    first = ["a starts", "a stops", "b starts"]
    assert project.events == [*first, "b stops", *first], "judging starts nobody"


async def test_asking_from_a_coroutine(project: Project) -> None:
    session = project.session(project.attached("a", project.engine("x")), project.attached("b", project.engine("x")))

    asked = await parity_of(session).aask([{"role": "user", "content": "?"}])

    assert {row.text for row in asked.values()} == {"x"}
