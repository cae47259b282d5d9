"""Most of a set is cut (ollama/ollama 17427, 17889, 2714): the engine that cut is named, and no other cause.

Ollama's ``/v1`` drops the oldest turns of a conversation that does not fit its context and answers 200.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.plugin.reported.conftest import Project
from tests.plugin.reported.wire import Answer, Json, plain

ASKED = {"role": "user", "content": "Answer briefly: what is the capital of France?"}
ANSWERED = {"role": "assistant", "content": "The capital of France is Paris."}
LAST = {"role": "user", "content": "Now tell me what the capital of France is."}


def keeps(limit: int) -> Callable[[Json], Answer]:
    """An engine that reads at most ``limit`` tokens of a conversation and drops its oldest turns without a word."""

    def answer(body: Json) -> Answer:
        sizes = [4 + 2 * len(message["content"].split()) for message in body["messages"]]
        while 3 + sum(sizes) > limit and len(sizes) > 2:
            del sizes[1:3]  # the oldest question and its answer; the system message stays
        return plain("The capital of France is Paris.", prompt=3 + sum(sizes))(body)

    return answer


def conversations(project: Project, n: int) -> None:
    project.prompts(
        [
            {
                "id": f"c{turns:02}",
                "messages": [
                    {"role": "system", "content": f"Your secret code is {1000 + turns}."},
                    *[ASKED, ANSWERED] * turns,
                    LAST,
                ],
            }
            for turns in range(n)
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("cutter", ["base", "cand"])
def test_a_set_that_is_mostly_cut_names_the_engine_that_cut_it_and_nothing_else(project: Project, cutter: str) -> None:
    for name in ("base", "cand"):
        project.engine(name, keeps(256 if name == cutter else 4096))
    conversations(project, 48)
    project.gate("check.prompts()")

    result = project.run()

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    [verdict] = project.verdicts("prompts")
    other = "base" if cutter == "cand" else "cand"
    assert verdict["message"] == (
        f"FAIL prompts, cand against base: {cutter} cut 41 of 48 prompts (c07 to c47), one of them to 255 tokens where "
        f"{other} counts 1,731"
    )
    printed = result.stdout.str()
    assert "tokeniser" not in printed
    assert f"{other} cut" not in printed
