from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.alone.stream import StreamCheck
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.prompts.arms import streamed_and_not, unstreamed
from pytest_llmparity.core.sample import Phase, Timing, ToolCall
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

N = 64


def engine(
    make: Factory,
    streamed: Sequence[Answer],
    whole: Sequence[Answer],
    *,
    streamed_again: Sequence[Answer] | None = None,
    whole_again: Sequence[Answer] | None = None,
    events: tuple[int, int] = (3, 0),
    name: str = "a",
) -> EngineEvidence:
    """An engine that said these answers both ways, and said them again unless told otherwise."""
    ways = (
        (streamed, streamed_again, events[0], lambda id: id),
        (whole, whole_again, events[1], unstreamed),
    )
    main: dict[str, Any] = {}
    for answers, again, count, id_of in ways:
        times = Timing(ttfb_s=0.1, ttft_s=None, e2e_s=0.2, token_events=count)
        for index, pair in enumerate(zip(answers, answers if again is None else again, strict=True)):
            main[id_of(f"c{index}")] = [
                msgspec.structs.replace(make.sample(name, id_of(f"c{index}"), Phase.MAIN, each, times), repeat=repeat)
                for repeat, each in enumerate(pair)
                if each is not None
            ]
    return dataclasses.replace(make.engine(name), samples={Phase.MAIN: main})


def calls_of(make: Factory) -> Answer:
    return make.completion("", tool_calls=(ToolCall(name="f", arguments="{}"),), finish_reason="tool_calls")


def judged(make: Factory, checked: StreamCheck, made: EngineEvidence, n: int = N, **more: Any) -> Verdict:
    prompts = streamed_and_not(PromptSet(name="set", cases=tuple(make.case(index) for index in range(n))))
    (verdict,) = checked.judge(make.evidence(made, cases=prompts.cases, **more))
    return verdict


def test_the_same_both_ways_passes_with_an_exact_bound(make: Factory) -> None:
    verdict = judged(make, check.stream(), engine(make, ["yes"] * N, ["yes"] * N))

    assert (verdict.outcome, verdict.n, verdict.requests, verdict.kind) == (Outcome.PASS, N, 4 * N, "stream.rate")
    assert verdict.lower == pytest.approx(0.05 ** (1 / N))
    assert verdict.message.startswith("PASS stream.rate, a: 100 % of answers are the same streamed and unstreamed")


@pytest.mark.parametrize(
    ("changed", "part", "words"),
    [
        ({"text": "yes, sir"}, "content", "content parts at character 3: '' streamed, ', sir' unstreamed"),
        ({"tool_calls": (ToolCall(name="f", arguments="{}"),)}, "tool calls", "calls no tool streamed, f({}) unstr"),
        ({"finish_reason": "length"}, "finish reason", "finish reason stop streamed, length unstreamed"),
        ({"completion_tokens": 9}, "usage", "completion tokens 4 streamed, 9 unstreamed"),
        ({"prompt_tokens": None}, "usage", "prompt tokens 20 streamed, none unstreamed"),
    ],
)
def test_each_part_that_differs_is_named(make: Factory, changed: dict[str, Any], part: str, words: str) -> None:
    ours, theirs = make.completion("yes"), make.completion("yes", completion_tokens=4)
    theirs = msgspec.structs.replace(theirs, **changed)

    verdict = judged(make, check.stream(), engine(make, [ours] * N, [theirs] * N))

    assert verdict.outcome is Outcome.FAIL
    assert verdict.details[0] == f"of 64 answers of a, not the same streamed and unstreamed: {part} 64"
    assert words in verdict.details[1]
    assert len(verdict.differing) == N


@pytest.mark.parametrize("ignore", [["content"], ["calls"], ["content", "finish", "usage"], ["calls", "usage"]])
def test_of_answers_of_which_all_is_ignored_nothing_passes(make: Factory, ignore: list[str]) -> None:
    calls = "calls" in ignore
    ours, theirs = (
        make.completion("", tool_calls=(ToolCall(name=name, arguments="{}"),), finish_reason="tool_calls")
        if calls
        else make.completion(name)
        for name in "AB"
    )
    none = judged(make, check.stream(ignore=ignore), engine(make, [ours] * N, [theirs] * N))
    few = ["yes"] * 60 if calls else [calls_of(make)] * 60
    some = judged(make, check.stream(ignore=ignore, rate=0.9), engine(make, [*few, *[ours] * 4], [*few, *[theirs] * 4]))

    assert none.outcome is Outcome.INCONCLUSIVE
    assert f"nothing was compared: nothing but ignored parts ({', '.join(ignore)}) in both answers to 64 prompts" in (
        none.message
    )
    assert some.outcome is Outcome.INCONCLUSIVE
    assert "it rests on 60 of 64 prompts" in some.message


def test_a_part_that_counts_and_differs_is_told_though_the_rest_is_ignored(make: Factory) -> None:
    theirs = make.completion("B", completion_tokens=9)
    verdict = judged(make, check.stream(ignore=["content"]), engine(make, ["A"] * N, [theirs] * N))

    assert verdict.outcome is Outcome.FAIL


def test_what_is_ignored_does_not_count(make: Factory) -> None:
    theirs = make.completion("yes", completion_tokens=99, finish_reason="eos")

    verdict = judged(make, check.stream(ignore=["usage", "finish"]), engine(make, ["yes"] * N, [theirs] * N))

    assert verdict.outcome is Outcome.PASS


def test_arguments_of_calls_are_json_and_reasoning_is_not_compared(make: Factory) -> None:
    ours, theirs = (
        make.completion("", tool_calls=(ToolCall(name="f", arguments=text, id=text),), reasoning=text)
        for text in ('{"a": 1, "b": 2}', '{"b":2,"a":1.0}')
    )

    assert judged(make, check.stream(), engine(make, [ours] * N, [theirs] * N)).outcome is Outcome.PASS


def test_what_the_engine_does_not_repeat_is_forgiven_aloud(make: Factory) -> None:
    changed = ["no"] * 4 + ["yes"] * 60
    made = engine(make, changed, ["yes"] * N, streamed_again=["maybe"] * 4 + ["yes"] * 60)

    verdict = judged(make, check.stream(), made)

    words = "4 of 64 prompts forgiven, because a answers differently when it is asked again the same way; first: c0"
    assert (verdict.outcome, verdict.n) == (Outcome.PASS, 60)
    assert words in verdict.remarks
    assert judged(make, check.stream(), engine(make, changed, ["yes"] * N)).outcome is not Outcome.PASS


def test_an_engine_that_repeats_nothing_never_passes(make: Factory) -> None:
    noise = engine(make, ["yes"] * N, ["yes"] * N, whole_again=["no"] * N)
    mostly = engine(make, ["yes"] * 200, ["yes"] * 200, whole_again=["no"] * 120 + ["yes"] * 80)

    assert judged(make, check.stream(), noise).outcome is Outcome.INCONCLUSIVE
    verdict = judged(make, check.stream(), mostly, n=200)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "120 of 200 prompts forgiven" in verdict.reason


def test_engines_that_say_nothing_or_fail_never_pass(make: Factory) -> None:
    nothing, gone = make.completion(""), make.failure("ServerFailure", "HTTP 500")
    cut = make.completion("", finish_reason="length", reasoning="hm")
    refused = make.failure("BadRequest", "HTTP 400: no")

    outcomes = [
        judged(make, check.stream(), engine(make, [answer] * N, [answer] * N)).outcome
        for answer in (nothing, cut, gone, refused, None)
    ]

    assert outcomes == [Outcome.INCONCLUSIVE, Outcome.INCONCLUSIVE, Outcome.ERROR, Outcome.ERROR, Outcome.ERROR]


def test_a_prompt_that_fails_one_way_is_not_the_same(make: Factory) -> None:
    gone = make.failure("ServerFailure", "HTTP 500")

    verdict = judged(make, check.stream(), engine(make, [gone] * 20 + ["yes"] * 44, ["yes"] * N))

    assert verdict.outcome is Outcome.FAIL
    assert "first: c0: answered unstreamed, no answer streamed: a on c0: ServerFailure" in verdict.details[1]


@pytest.mark.parametrize(
    ("streamed", "whole", "events", "words"),
    [
        ("refused", "yes", (0, 0), "it answers no prompt streamed; first: a on c0: BadRequest: HTTP 400: no streams"),
        ("yes", "refused", (3, 0), "it answers no prompt unstreamed; first: a on c0@unstreamed: BadRequest"),
        ("yes", "yes", (0, 0), "a answers whole where it is asked for a stream"),
        ("yes", "yes", (3, 3), "a streams where it is asked for a whole answer"),
    ],
)
def test_an_engine_that_answers_one_way_only_is_incomparable(
    make: Factory, streamed: str, whole: str, events: tuple[int, int], words: str
) -> None:
    refused = make.failure("BadRequest", "HTTP 400: no streams")
    made: dict[str, Answer] = {"refused": refused, "yes": make.completion("yes")}

    verdict = judged(make, check.stream(), engine(make, [made[streamed]] * N, [made[whole]] * N, events=events))

    assert verdict.outcome is Outcome.INCOMPARABLE
    assert words in verdict.reason


def test_a_hard_stop_settles_nothing(make: Factory) -> None:
    made = engine(make, ["yes"] * 60 + [None] * 4, ["yes"] * 60 + [None] * 4)

    verdict = judged(make, check.stream(), made, incomplete="it stopped")

    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "it stopped")


def test_wrong_arguments_and_ids_are_refused(make: Factory) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"rate": 95}, "rate is a share: 0.95 is 95 %"),
        ({"ignore": ["tokens"]}, "'tokens' is none of content, calls, finish, usage"),
        ({"ignore": ["content", "calls"]}, "without content and calls nothing"),
    ]
    for arguments, words in wrong:
        with pytest.raises(DesignError, match=words):
            check.stream(**arguments)
    cases = (make.case(0), Case(id=unstreamed("c0"), prompt="x"))
    with pytest.raises(DesignError, match="the prompt c0@unstreamed has the id that c0 gets unstreamed; rename it"):
        streamed_and_not(PromptSet(name="set", cases=cases))
    with pytest.raises(DesignError, match="belongs into the marker"):
        check.stream().judge(make.evidence(make.engine("a", ["yes"])))
    assert str(check.stream(rate=0.9, ignore=["usage"], by="tag")) == (
        """stream(rate=0.9, ignore=['usage'], by="tag")"""
    )
