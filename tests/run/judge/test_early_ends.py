"""A server that ends every answer after two words, through a whole session: a full context, a cap on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmparity import check
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.testing import Reply

if TYPE_CHECKING:
    from tests.run.conftest import Project

WORDS = "all is well in the harbour tonight and nobody knows why the heron sleeps so long here"


def test_answers_that_end_after_two_tokens_pass_nothing(project: Project) -> None:
    project.prompts(32)
    whole = project.engine(lambda request: Reply(text=WORDS, finish_reason="length", lead=2.0), poses_as="llamacpp")
    short = project.engine(lambda request: Reply(text="all is", finish_reason="length", lead=2.0), poses_as="llamacpp")
    session = project.session(project.attached("a", whole), project.attached("b", short))
    project.declare(session, check.text(margin=0.05), check.logprobs(shift=0.06), max_tokens=16)
    session.gather()

    verdicts = {v.kind: v for v in session.settle("t", session.parity_run("t", reproduce=""))}
    for kind in ("text", "logprobs"):
        verdict = verdicts[kind]
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert "32 answers of b end after 2 of 16 tokens" in verdict.reason
        assert any(line.startswith("answers end early: b ends 32 of 32 prompts") for line in verdict.differs)
    repeat = verdicts["text.repeat"]
    assert repeat.outcome is Outcome.INCONCLUSIVE, "what it would say behind that was not asked twice"
    assert "32 answers of b end after 2 of 16" in repeat.reason
