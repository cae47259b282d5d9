"""Who cannot be judged whatever it answers is asked nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmparity import check, lockfile
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.identity.lock import NAME
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.testing.script import prompt_of
from tests.core.identity.test_ladder import LADDER

if TYPE_CHECKING:
    from tests.run.conftest import Project


def test_no_prompt_is_sent_where_the_lock_holds_no_margin_for_a_pair(project: Project) -> None:
    """A ladder is there: that it is of another model shows only when the engines say what they are."""
    engines = [project.engine(poses_as="llamacpp") for _ in "ab"]
    lockfile.write(project.path / NAME, {}, Agreed().measuring(LADDER))
    session = project.session(*(project.attached(name, engine) for name, engine in zip("ab", engines, strict=True)))
    project.declare(session, check.logprobs())
    session.gather()

    asked = [request for engine in engines for request in engine.requests if "question" in prompt_of(request.json)]
    (verdict,) = session.settle("t", session.parity_run("t", reproduce=""))
    assert (asked, verdict.outcome) == ([], Outcome.INCOMPARABLE)
    assert "has no margin for this pair" in verdict.reason
