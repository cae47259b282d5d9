"""What an engine's canaries say when it answers again: unchanged, other arithmetic, other weights, another prompt."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from pytest_llmparity.core.identity.canaries import Canaries, Canary, Change, compare, recorded
from pytest_llmparity.core.sample import Completion, TokenLogprob

NAMES = [f"c{number}" for number in range(12)]


def answer(
    lead: float, *, text: str = "all is well", prompt_tokens: int | None = 20, logprobs: bool = True
) -> Completion:
    """An answer whose every token leads the second best one by so many nats."""
    tops = [(token.encode(), ((token.encode(), -0.2), (b" other", -0.2 - lead))) for token in text.split(" ")]
    joined = [(b" " + token if place else token, top) for place, (token, top) in enumerate(tops)]
    entries = [
        TokenLogprob(token=token, logprob=-0.2, top=((token, -0.2), *top[1:])) for token, top in joined if logprobs
    ]
    return Completion(text=text, finish_reason="stop", prompt_tokens=prompt_tokens, logprobs=tuple(entries))


def all_of(answered: Completion) -> Mapping[str, Completion]:
    return dict.fromkeys(NAMES, answered)


def kept(*passes: Mapping[str, Completion]) -> Canaries:
    return recorded(passes, date="2026-11-28", plugin="1.0", prompt_set="canaries")


@pytest.mark.parametrize(
    ("lead", "change"),
    [
        (2.0, Change.UNCHANGED),
        (2.0002, Change.UNCHANGED),
        (2.005, Change.UNCHANGED),
        (2.008, Change.ARITHMETIC),
        (1.992, Change.ARITHMETIC),
        (2.018, Change.EITHER),
        (2.036, Change.EITHER),
        (2.12, Change.WEIGHTS),
        (1.0, Change.WEIGHTS),
    ],
)
def test_the_shift_says_what_an_engine_is_now(lead: float, change: Change) -> None:
    seen = compare(kept(all_of(answer(2.0)), all_of(answer(2.0))), all_of(answer(lead)))

    assert seen.change is change
    assert seen.nats == pytest.approx(abs(lead - 2.0), abs=1e-4)
    assert str(seen) == f"{change} ({abs(lead - 2.0):.4f} nats, 0 of 12 answers part)"


def test_who_hardly_repeats_itself_has_more_room() -> None:
    noisy = kept(all_of(answer(2.0)), all_of(answer(2.0)), all_of(answer(2.006)))

    assert noisy.floor == pytest.approx(0.006)
    assert compare(noisy, all_of(answer(2.013))).change is Change.UNCHANGED


def test_noise_that_no_repeat_tells_is_not_none() -> None:
    """A server that is busy answers some of the repeats, and not all of them with logprobs."""
    bare, few = all_of(answer(2.0, logprobs=False)), dict.fromkeys(NAMES[:6], answer(2.006))

    assert kept(all_of(answer(2.0)), bare, few).floor is None
    assert kept(all_of(answer(2.0)), {}, {}).answers == {}  # whether they part from themselves is not known
    assert kept(all_of(answer(2.0)), bare, all_of(answer(2.006))).floor == pytest.approx(0.006)


@pytest.mark.parametrize(
    ("floor", "limit", "sees"),
    [(0.0, 0.005, True), (0.004, 0.012, True), (0.01, 0.02, True), (0.013, 0.02, True), (0.03, 0.045, False)],
)
def test_noise_widens_no_limit_so_far_that_eight_bits_pass_unless_it_has_to_be_and_then_that_is_told(
    floor: float, limit: float, sees: bool
) -> None:
    canaries = kept(all_of(answer(2.0)), all_of(answer(2.0 + floor)))

    assert canaries.limit == pytest.approx(limit, rel=1e-3)
    assert (canaries.blind == "") == sees
    eight_bits = compare(canaries, all_of(answer(2.04)))
    assert (eight_bits.change is Change.EITHER) == sees
    if not sees:
        assert (
            canaries.blind
            == "differs from itself by 0.03 nats, so that weights in 8 bits in place of 16 may not be seen"
        )


def test_a_few_answers_that_moved_far_change_nothing() -> None:
    live = {**all_of(answer(2.0)), **dict.fromkeys(NAMES[:5], answer(0.1))}

    assert compare(kept(all_of(answer(2.0))), live).change is Change.UNCHANGED


def test_prompts_of_another_length_are_another_prompt_whatever_the_shift() -> None:
    seen = compare(kept(all_of(answer(2.0))), all_of(answer(2.0, prompt_tokens=27)))

    assert str(seen) == "another prompt (0.0000 nats, the first prompt has 27 tokens instead of 20)"


@pytest.mark.parametrize(("parted", "change"), [(0, Change.UNCHANGED), (1, Change.UNCHANGED), (2, Change.ANSWERS)])
def test_without_logprobs_answers_that_part_are_counted(parted: int, change: Change) -> None:
    plain = answer(2.0, logprobs=False)
    canaries = kept(all_of(plain), all_of(plain))
    live = {**all_of(plain), **dict.fromkeys(NAMES[:parted], answer(2.0, text="all is lost", logprobs=False))}

    seen = compare(canaries, live)

    assert not canaries.logprobs
    assert str(seen) == f"{change} ({parted} of 12 answers part)"


def test_answers_that_parted_when_they_were_recorded_may_part_again() -> None:
    plain, other = answer(2.0, logprobs=False), answer(2.0, text="all is lost", logprobs=False)
    canaries = kept(all_of(plain), {**all_of(plain), "c0": other, "c1": other})

    assert canaries.unstable == 2
    assert compare(canaries, {**all_of(plain), **dict.fromkeys(NAMES[:3], other)}).change is Change.UNCHANGED
    assert compare(canaries, {**all_of(plain), **dict.fromkeys(NAMES[:4], other)}).change is Change.ANSWERS


def test_who_never_answers_alike_is_not_called_unchanged() -> None:
    plain, other = answer(2.0, logprobs=False), answer(2.0, text="all is lost", logprobs=False)
    restless = kept(all_of(plain), all_of(other))

    assert restless.restless
    assert str(compare(restless, all_of(other))) == (
        "not comparable (12 of 12 answers part, and so many may: it did not answer its own repeats alike when they "
        "were kept)"
    )
    assert not kept(all_of(answer(2.0)), all_of(answer(2.0, text="all is lost"))).restless


def test_one_answer_without_logprobs_tells_nothing() -> None:
    single = kept({"c0": answer(2.0, logprobs=False)})

    assert compare(single, {"c0": answer(2.0, text="all is lost", logprobs=False)}).change is Change.UNKNOWN


def test_logprobs_that_are_no_more_are_not_called_unchanged_by_what_text_can_see() -> None:
    seen = compare(kept(all_of(answer(2.0))), all_of(answer(2.0, logprobs=False)))

    assert (seen.change, seen.nats) == (Change.UNKNOWN, None)
    assert str(seen) == (
        "not comparable (the lock has logprobs, and half of the answers or more have none to compare now; 0 of 12 "
        "answers part)"
    )


@pytest.mark.parametrize(("comparable", "change"), [(1, Change.UNKNOWN), (6, Change.UNKNOWN), (7, Change.UNCHANGED)])
def test_the_logprobs_of_a_few_answers_do_not_speak_for_all(comparable: int, change: Change) -> None:
    live = {name: answer(2.0, logprobs=at < comparable) for at, name in enumerate(NAMES)}

    assert compare(kept(all_of(answer(2.0))), live).change is change


def test_answers_that_part_behind_the_same_logprobs_are_other_answers() -> None:
    """A penalty or a temperature that acts after logprobs were taken moves no nats."""
    live = {**all_of(answer(2.0)), **dict.fromkeys(NAMES[:2], answer(2.0, text="all is lost"))}

    seen = compare(kept(all_of(answer(2.0)), all_of(answer(2.0))), live)

    assert seen.nats == 0.0
    assert str(seen) == "other answers (0.0000 nats, 2 of 12 answers part)"


def test_repeats_that_are_infinitely_far_apart_leave_no_limit_that_holds_nothing() -> None:
    far = answer(2.0)
    far = msgspec.structs.replace(
        far, logprobs=tuple(msgspec.structs.replace(token, top=(token.top[0], (b"?", -9.0))) for token in far.logprobs)
    )

    canaries = kept(all_of(answer(2.0)), all_of(far))

    assert not canaries.logprobs


def test_half_of_the_answers_say_nothing() -> None:
    seen = compare(kept(all_of(answer(2.0))), dict.fromkeys(NAMES[:6], answer(2.0)))

    assert str(seen) == "not comparable (6 of 12 were answered)"


def test_a_piece_of_a_character_is_kept_as_it_is() -> None:
    piece = TokenLogprob(token=b"\xe2\x80", logprob=-0.1, top=((b"\xe2\x80", -0.1), (b"hex:", -1.1)))
    split = Completion(text="…", finish_reason="stop", logprobs=(piece,))

    canary = Canary.of(split, logprobs=True)

    assert (canary.tokens, canary.seconds, canary.leads) == (("hex:e280",), ("hex:6865783a",), (1.0,))
    assert [(entry.token, entry.top[1][0]) for entry in canary.completion().logprobs] == [(b"\xe2\x80", b"hex:")]


def test_nothing_is_kept_behind_a_token_without_a_second_one() -> None:
    alone = TokenLogprob(token=b"b", logprob=0.0, top=((b"b", 0.0),))
    led = TokenLogprob(token=b"a", logprob=-0.1, top=((b"a", -0.1), (b"c", -1.1)))

    canary = Canary.of(Completion(text="aba", finish_reason="stop", logprobs=(led, alone, led)), logprobs=True)

    assert (canary.tokens, canary.leads) == (("a",), (1.0,))


def test_answers_without_text_are_no_canaries() -> None:
    thinking = Completion(text="", finish_reason="length", reasoning="hmm", prompt_tokens=20)

    canaries = kept({**all_of(answer(2.0)), "c0": thinking, "c1": thinking})

    assert len(canaries.answers) == 10
    assert canaries.logprobs
