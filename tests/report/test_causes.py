"""The cause and its experiments below a verdict: in words that say what was done, and once for each pair."""

from __future__ import annotations

import dataclasses

from pytest_llmparity.core.verdict import Cause, Experiment, Explanation, Outcome, Verdict
from pytest_llmparity.report.terminal.causes import Causes, evidence

AGAIN = Experiment(
    removed="the same prompts asked again, nothing changed", outcome="stays", after=0.36, n=16, requests=32
)
RAW = Experiment(
    removed="the same rendered prompt sent raw to both",
    outcome="gone",
    before=0.36,
    after=0.0,
    n=16,
    groups=12,
    p=0.0002,
    requests=32,
)
TEXT = Verdict(
    test="t",
    check="text()",
    kind="text",
    engine="b",
    baseline="a",
    outcome=Outcome.FAIL,
    unit="forks/token",
    cause="b has a hidden system prompt",
    explanation=Explanation(
        experiments=(AGAIN, RAW),
        causes=(Cause(layer="system prompt", text="b has a hidden system prompt", remedy="send it raw"),),
        requests=64,
    ),
)


def test_an_experiment_says_what_was_done_and_what_became_of_the_drift() -> None:
    assert Causes(width=200).lines(TEXT) == [
        "    cause: b has a hidden system prompt",
        "      paste: send it raw",
        "    2 experiments, 64 requests:",
        "      the same prompts asked again, nothing changed: the drift stays, 36 % (16 prompts, 32 requests)",
        "      with the same rendered prompt sent raw to both: the drift is gone, 36 % before, 0 % now (16 prompts in "
        "12 groups, p 0.0002, 32 requests)",
    ]


def test_what_was_put_back_alone_and_what_was_not_tried() -> None:
    back = dataclasses.replace(RAW, outcome="back", before=0.0, after=0.3)
    away = dataclasses.replace(RAW, outcome="stays away", before=0.0, after=0.0)
    untried = dataclasses.replace(
        RAW, outcome="not tried", after=None, n=0, groups=0, p=None, why="there are no answers to compare", requests=0
    )
    explanation = Explanation(experiments=(back, away, untried), requests=64)

    lines = [line.strip() for line in Causes(width=200).lines(dataclasses.replace(TEXT, explanation=explanation))]

    but = "with everything but the same rendered prompt sent raw to both"
    assert lines[2].startswith(f"{but}: the drift is back, 0 % before, 30 % now")
    assert lines[3].startswith(f"{but}: the drift does not come back, 0 % before, 0 % now")
    assert lines[4] == "with the same rendered prompt sent raw to both: not tried, there are no answers to compare"


def test_the_experiments_of_a_pair_are_told_once() -> None:
    causes = Causes(width=200)
    causes.lines(TEXT)
    assert TEXT.explanation is not None
    further = dataclasses.replace(
        RAW, removed="answers asked for whole instead of streamed", outcome="stays", after=0.3
    )
    explanation = dataclasses.replace(TEXT.explanation, experiments=(AGAIN, RAW, further), requests=32)

    shared = causes.lines(dataclasses.replace(TEXT, kind="logprobs"))
    more = causes.lines(dataclasses.replace(TEXT, kind="logprobs", explanation=explanation))
    other = causes.lines(dataclasses.replace(TEXT, engine="c"))
    nothing_shared = dataclasses.replace(TEXT.explanation, experiments=(further,), requests=32)
    apart = causes.lines(dataclasses.replace(TEXT, kind="schema.gap", explanation=nothing_shared))

    told = "    2 experiments as of text above, the numbers of logprobs are in run.json (--parity-report json)"
    assert shared == ["    cause: b has a hidden system prompt", "      paste: send it raw", told]
    assert more[2:4] == [told, "    and:"]
    assert "answers asked for whole" in more[4]
    assert len(more) == 5
    assert len(other) == 5
    assert apart[2] == "    1 experiment, 32 requests:"


def test_which_answers_differ_is_told_in_lines_that_break_at_words() -> None:
    detail = "  mlx      'a long answer of which every word counts for who reads it'"
    verdict = dataclasses.replace(TEXT, details=("first fork: c1 after 0 characters", detail))

    lines = evidence(verdict, width=40)

    assert lines[0] == "    first fork: c1 after 0 characters"
    assert all(len(line) <= 40 for line in lines)
    assert " ".join(" ".join(lines[1:]).split()) == " ".join(detail.split())
    assert lines[2].startswith("          ")


def test_of_two_answers_below_each_other_both_are_shown() -> None:
    details = (*(f"$.{name} differs" for name in "abcdef"), "where it began: call 1", "  a billing", "  b shipping")

    assert evidence(dataclasses.replace(TEXT, details=details), width=80)[-2:] == [
        "      a billing",
        "      b shipping",
    ]
