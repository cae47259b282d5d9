"""Where greedy answers part, and how far texts are apart."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.answers import Fork, edit_similarity, find_fork
from pytest_llmparity.core.sample import Completion, TokenLogprob


def answer(
    text: str,
    *,
    end: str = "length",
    tokens: int | None = None,
    pieces: Sequence[str | bytes] | None = None,
    top: dict[int, dict[str, float]] | None = None,
) -> Completion:
    logprobs = tuple(
        TokenLogprob(
            token=piece if isinstance(piece, bytes) else piece.encode(),
            logprob=-0.1,
            top=tuple((name.encode(), value) for name, value in (top or {}).get(index, {}).items()),
        )
        for index, piece in enumerate(pieces or [])
    )
    return Completion(text=text, finish_reason=end, completion_tokens=tokens, logprobs=logprobs)


def test_the_fork_is_counted_in_the_baselines_tokens() -> None:
    fork = find_fork(answer("The cat sat", pieces=["The", " cat", " sat"]), answer("The cat ran", tokens=9), horizon=32)

    assert fork == Fork(forked=True, at_risk=3.0, byte=8, char=8, token=2.0, grade=None, unit="tokens")


def test_without_token_bytes_the_position_is_a_share_of_the_count() -> None:
    fork = find_fork(answer("aaaaaaaaaa", tokens=5), answer("aaaaaabbbb"), horizon=32)

    assert (fork.byte, fork.token, fork.at_risk, fork.unit) == (6, 3.0, 4.0, "scaled")


def test_token_bytes_that_do_not_spell_the_text_are_not_used() -> None:
    for pieces in (["ab", "c"], ["ab", "cx"], ["a", "b"], ["abcd", "e"]):
        fork = find_fork(
            answer("abcd", tokens=4, pieces=pieces if pieces != ["abcd", "e"] else ["xbcd", "e"]),
            answer("abXX"),
            horizon=9,
        )
        assert fork.unit == "scaled"


def test_a_count_of_the_candidate_serves_where_the_baseline_has_none() -> None:
    assert find_fork(answer("x" * 40), answer("x" * 20 + "y" * 20, tokens=10), horizon=32).at_risk == 6.0
    guessed = find_fork(answer("x" * 40), answer("x" * 20 + "y"), horizon=32)
    assert (guessed.at_risk, guessed.unit) == (6.0, "guessed")


def test_beyond_the_horizon_there_is_no_fork() -> None:
    pieces = ["a"] * 40
    inside = find_fork(answer("a" * 40, pieces=pieces), answer("a" * 31 + "b" * 9), horizon=32)
    beyond = find_fork(answer("a" * 40, pieces=pieces), answer("a" * 32 + "b" * 8), horizon=32)

    assert (inside.forked, inside.at_risk) == (True, 32.0)
    assert (beyond.forked, beyond.at_risk, beyond.token) == (False, 32.0, 32.0)


def test_equal_texts_risk_every_token_and_the_end() -> None:
    pieces = ["Yes", "."]
    stopped = answer("Yes.", end="stop", pieces=pieces)

    assert find_fork(stopped, answer("Yes.", end="stop"), horizon=32).at_risk == 3.0
    assert find_fork(answer("Yes.", pieces=pieces), stopped, horizon=32).at_risk == 2.0
    assert find_fork(answer("Yes.", end="stop", tokens=3), stopped, horizon=32).at_risk == 3.0
    assert find_fork(answer("Yes.", end="stop", tokens=3), stopped, horizon=2).at_risk == 2.0
    assert find_fork(answer("", end="stop"), answer("", end="stop"), horizon=2).at_risk == 1.0
    assert find_fork(answer("", tokens=0), answer(""), horizon=2) == Fork(forked=False, at_risk=0.0, unit="guessed")


def test_an_end_token_in_the_logprobs_is_no_text() -> None:
    for end in ("<|im_end|>", ""):
        fork = find_fork(answer("Yes.", end="stop", pieces=["Yes", ".", end]), answer("Yes.", end="stop"), horizon=32)
        assert (fork.at_risk, fork.unit) == (3.0, "tokens")


@pytest.mark.parametrize("end", ["stop", "tool_calls", ""])
def test_an_answer_that_ends_early_forks_at_its_end(end: str) -> None:
    short = answer("One", end=end, pieces=["One"])
    long = answer("One two", pieces=["One", " two"])

    assert find_fork(short, long, horizon=32) == Fork(forked=True, at_risk=2.0, byte=3, char=3, token=1.0)
    assert find_fork(long, short, horizon=32) == Fork(forked=True, at_risk=2.0, byte=3, char=3, token=1.0)
    counted = find_fork(answer("One", end=end, tokens=2), long, horizon=2)
    assert (counted.forked, counted.at_risk) == (True, 2.0)


def test_an_answer_cut_by_its_limit_is_censored_there() -> None:
    short = answer("One", pieces=["One"])
    long = answer("One two", end="stop", pieces=["One", " two"])

    assert find_fork(short, long, horizon=32) == Fork(forked=False, at_risk=1.0)
    assert find_fork(long, short, horizon=32) == Fork(forked=False, at_risk=1.0)
    assert find_fork(answer("abcd", tokens=4), answer("ab"), horizon=32).at_risk == 2.0


def test_a_fork_inside_a_character_counts_at_its_start() -> None:
    # é and è share their first byte; the euro sign and the zero-width space two of three.
    assert find_fork(answer("caféx", tokens=4), answer("cafèx"), horizon=9).byte == 3
    fork = find_fork(answer("x€", pieces=["x", b"\xe2\x82", b"\xac"]), answer("x₭"), horizon=9)
    assert (fork.byte, fork.char, fork.token, fork.at_risk) == (1, 1, 1.0, 2.0)


def test_lone_surrogates_are_text_too() -> None:
    assert find_fork(answer("a\ud800", tokens=2), answer("a\ud801"), horizon=9).byte == 1


def test_a_horizon_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="horizon"):
        find_fork(answer("a"), answer("b"), horizon=0)


@pytest.mark.parametrize(
    ("ours", "theirs", "grade"),
    [
        ({"cat": -0.10, "dog": -0.15}, {"dog": -0.1, "cat": -0.12}, "near-tie"),
        ({"cat": -0.10, "dog": -0.15}, {"dog": -0.1, "cat": -2.0}, "rank shift"),
        ({"cat": -0.10, "dog": -3.0}, {}, "rank shift"),
        ({"cat": -0.10, "cow": -3.0}, {"dog": -0.1, "cat": -0.12}, "outside top-k"),
        ({}, {}, None),
    ],
)
def test_forks_are_graded_by_the_contested_tokens(
    ours: dict[str, float], theirs: dict[str, float], grade: str | None
) -> None:
    fork = find_fork(
        answer("a cat", pieces=["a ", "cat"], top={1: ours}),
        answer("a dog", pieces=["a ", "dog"], top={1: theirs}),
        horizon=9,
    )

    assert fork.grade == grade


def test_another_way_of_cutting_the_same_text_is_not_graded() -> None:
    fork = find_fork(
        answer("abcdX", pieces=["ab", "cd", "X"], top={0: {"ab": -0.1, "a": -0.2}}),
        answer("abcdY", pieces=["a", "bcd", "Y"], top={0: {"a": -0.1, "ab": -0.2}}),
        horizon=9,
    )
    same = find_fork(answer("ab", pieces=["ab"]), answer("abc", pieces=["ab"]), horizon=9)

    assert fork.grade is None
    assert same.grade is None


texts = st.text(alphabet="aé€😀 b", max_size=12)
completions = st.builds(answer, texts, end=st.sampled_from(["stop", "length"]), tokens=st.none() | st.integers(0, 12))


@given(completions, completions, st.integers(1, 16))
def test_a_fork_stays_within_its_bounds(a: Completion, b: Completion, horizon: int) -> None:
    fork = find_fork(a, b, horizon=horizon)

    assert 0 <= fork.at_risk <= horizon
    assert not fork.forked or fork.at_risk >= 1
    assert fork.forked <= (a.text != b.text)
    if fork.char is not None:
        assert a.text[: fork.char] == b.text[: fork.char]
        assert a.text[fork.char : fork.char + 1] != b.text[fork.char : fork.char + 1]
        assert fork.byte == find_fork(b, a, horizon=horizon).byte


@given(completions, completions)
def test_a_longer_horizon_never_loses_a_fork(a: Completion, b: Completion) -> None:
    short, long = find_fork(a, b, horizon=4), find_fork(a, b, horizon=8)

    assert short.forked <= long.forked
    assert short.at_risk <= long.at_risk


@given(st.text(max_size=20), st.text(max_size=20))
def test_edit_similarity_is_symmetric_and_one_for_equals(a: str, b: str) -> None:
    assert 0.0 <= edit_similarity(a, b) == edit_similarity(b, a) <= 1.0
    assert (edit_similarity(a, b) == 1.0) == (a == b)


def test_edit_similarity_by_hand() -> None:
    assert edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert edit_similarity("x" * 60_000 + "a", "x" * 60_000 + "b") == 1.0


@pytest.mark.parametrize("thought", ["x" * 300, ""], ids=["shown", "hidden"])
def test_tokens_of_the_reasoning_do_not_stretch_the_text(thought: str) -> None:
    """Servers count the reasoning with the text: a fork in the text would lie beyond every horizon."""
    ours = Completion(text="a" * 30, reasoning=thought, finish_reason="stop", completion_tokens=330)
    theirs = Completion(text="a" * 20 + "b" * 10, finish_reason="stop", completion_tokens=30)

    fork = find_fork(ours, theirs, horizon=32)
    assert fork.forked
    assert fork.token is not None
    assert 15 <= fork.token <= 25


def test_an_answer_of_as_many_tokens_as_allowed_was_cut_whatever_its_finish_reason() -> None:
    ours = Completion(text="one two three four", finish_reason="length", completion_tokens=4, max_tokens=4)
    for theirs in ("one two three", "one two three four"):
        held = Completion(text=theirs, finish_reason="stop", completion_tokens=4, max_tokens=4)
        for a, b in ((ours, held), (held, ours)):
            assert not find_fork(a, b, horizon=32).forked
    early = Completion(text="one two three", finish_reason="stop", completion_tokens=3, max_tokens=4)
    assert find_fork(ours, early, horizon=32).forked
