"""Keys never reach what is written, whatever form they come back in; other text is not touched."""

from __future__ import annotations

import base64
import json
import re
import string
import urllib.parse

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_llmparity.core.sample import (
    Completion,
    Fact,
    Failure,
    Identity,
    Phase,
    Sample,
    TokenLogprob,
    ToolCall,
    to_json,
)
from pytest_llmparity.core.words.hiding import DUMMIES, SHORTEST, TextMask
from pytest_llmparity.core.words.masking import Mask

KEY = "sk-live/3f9a+Q7z=="
MASK = Mask({"VLLM_API_KEY": KEY})

values = st.text(st.characters(exclude_categories=["Cs"]), min_size=SHORTEST, max_size=30)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def forms(value: str) -> dict[str, str]:
    raw = value.encode()
    return {
        "raw": value,
        "json": json.dumps(value)[1:-1],
        "json, not ascii": json.dumps(value, ensure_ascii=False)[1:-1],
        "json, slash": json.dumps(value).replace("/", "\\/")[1:-1],
        "url": urllib.parse.quote(value, safe=""),
        "url path": urllib.parse.quote(value),
        "url, form": urllib.parse.quote_plus(value),
        "url, lower case": re.sub("%..", lambda escape: escape[0].lower(), urllib.parse.quote(value, safe="")),
        "base64": base64.b64encode(raw).decode(),
        "base64 +1": base64.b64encode(b"u" + raw + b"v").decode(),
        "base64 +2": base64.b64encode(b"u:" + raw).decode(),
        "base64 +3": base64.b64encode(b"me:" + raw + b"xx").decode(),
        "base64, url": base64.urlsafe_b64encode(b"me:" + raw).decode(),
    }


@pytest.mark.parametrize("form", forms(KEY))
def test_every_form_of_a_key_is_replaced(form: str) -> None:
    shown = forms(KEY)[form]

    masked = MASK.text(f'{{"error": "bad key {shown} given"}}')

    assert "«VLLM_API_KEY»" in masked
    # Base64 may keep up to two characters on either side that also depend on the key's neighbours.
    assert shown[3:-3] not in masked


def test_case_matters() -> None:
    assert MASK.text(KEY.upper()) == KEY.upper()


def test_overlapping_finds_leave_no_rest() -> None:
    mask = Mask({"A": "abcabcabcabc", "B": "cabcabcabcXYZ"})

    assert mask.text("-abcabcabcabcabc-") == "-«A»-"
    assert mask.text("-abcabcabcabcXYZ-") == "-«A»-"


def test_two_keys_keep_their_names() -> None:
    mask = Mask({"A": "aaaabbbbcccc", "B": "ddddeeeeffff"})

    assert mask.text("aaaabbbbcccc ddddeeeeffff aaaabbbbcccc") == "«A» «B» «A»"


@pytest.mark.parametrize("value", ["short", "EMPTY", "ollama", "sk-no-key-required", "Token-ABC123", "VLLM_API_KEY"])
def test_short_values_and_known_dummies_are_not_searched_and_named(value: str) -> None:
    mask = Mask({"VLLM_API_KEY": value})

    assert mask.unsearched == ("VLLM_API_KEY",)
    assert mask.text(f"x {value} x") == f"x {value} x"


def test_an_unset_variable_is_no_secret() -> None:
    assert Mask({"VLLM_API_KEY": ""}).unsearched == ()


def test_dummies_are_compared_in_lower_case() -> None:
    assert all(dummy == dummy.lower() for dummy in DUMMIES)


@given(value=values, before=texts, after=texts)
def test_masked_text_never_holds_the_secret(value: str, before: str, after: str) -> None:
    mask = Mask({"KEY": value})
    assume(not mask.unsearched)

    for shown in forms(value).values():
        masked = mask.text(before + shown + after)

        assert value not in masked
        assert shown not in masked


@given(first=values, second=values, parts=st.lists(st.sampled_from(["1", "2", "«", "»", "A", "«A»", "«B»", "x"])))
def test_placeholders_cannot_spell_a_secret(first: str, second: str, parts: list[str]) -> None:
    mask = Mask({"A": first, "B": f"«A»{second}"})
    assume("A" not in mask.unsearched)
    text = "".join({"1": first, "2": second}.get(part, part) for part in parts)

    masked = mask.text(text)

    assert first not in masked
    assert f"«A»{second}" not in masked


@given(text=st.text(string.ascii_lowercase + " ", max_size=200))
def test_text_without_a_secret_is_untouched(text: str) -> None:
    assert MASK.text(text) is text
    assert MASK.value({"a": [text, 1, None]}) == {"a": [text, 1, None]}


@given(before=st.binary(max_size=30), after=st.binary(max_size=30))
def test_bytes_that_are_no_text_survive_around_a_secret(before: bytes, after: bytes) -> None:
    assume(KEY.encode() not in before + after)

    assert MASK.binary(before + KEY.encode() + after) == before + "«VLLM_API_KEY»".encode() + after


@given(content=st.binary(max_size=60))
def test_bytes_without_a_secret_are_the_same(content: bytes) -> None:
    assert MASK.binary(content) == content


def sample(completion: Completion | None = None, failure: Failure | None = None) -> Sample:
    return Sample(engine="e", case="c", phase=Phase.MAIN, completion=completion, failure=failure)


def test_every_text_of_a_sample_is_masked() -> None:
    echoed = sample(
        Completion(
            text=f"t {KEY}",
            reasoning=f"r {KEY}",
            tool_calls=(ToolCall(name="f", arguments=json.dumps({"key": KEY})),),
            model=KEY,
            server={KEY: 1.0},
        )
    )

    masked = MASK.sample(echoed)

    assert KEY not in str(to_json(masked))
    assert masked.completion is not None
    assert masked.completion.text == "t «VLLM_API_KEY»"
    assert masked.completion.tool_calls[0].arguments == '{"key": "«VLLM_API_KEY»"}'


def test_keys_in_the_turns_of_a_conversation_are_replaced() -> None:
    calls = (ToolCall(name="f", arguments=json.dumps({"key": KEY})),)
    turns = (
        Completion(text=f"It is {KEY}.", tool_calls=calls, results=(KEY, "x")),
        Completion(text=f"It is {KEY[:12]}", finish_reason="length"),
    )

    masked = MASK.sample(sample(Completion(text="Done.", turns=turns))).completion

    assert masked is not None
    assert KEY not in repr(masked)
    assert KEY[:12] not in repr(masked)
    assert masked.turns[0].results == ("«VLLM_API_KEY»", "x")


def test_keys_in_the_further_choices_of_an_answer_are_replaced() -> None:
    choices = (Completion(text=f"It is {KEY}."), Completion(text=f"It is {KEY[:12]}", finish_reason="length"))

    masked = MASK.sample(sample(Completion(text="Done.", choices=choices))).completion

    assert masked is not None
    assert KEY[:12] not in repr(masked)
    assert masked.choices[0].text == "It is «VLLM_API_KEY»."


def test_a_failure_that_quotes_the_key_is_masked() -> None:
    masked = MASK.sample(sample(failure=Failure(kind="NotAuthorised", message=f"wrong key {KEY}", status=401)))

    assert masked.failure == Failure(kind="NotAuthorised", message="wrong key «VLLM_API_KEY»", status=401)


def test_tokens_that_spell_a_key_together_are_blanked_with_their_alternatives() -> None:
    pieces = ["é: ", KEY[:5], KEY[5:9], KEY[9:] + ".", " ok"]
    tokens = tuple(
        TokenLogprob(token=piece.encode(), logprob=-0.5, top=((piece.encode(), -0.5), (b"x", -2.0)), id=number)
        for number, piece in enumerate(pieces)
    )

    masked = MASK.sample(sample(Completion(text="".join(pieces), logprobs=tokens))).completion

    assert masked is not None
    assert masked.logprobs[0] == tokens[0]
    assert masked.logprobs[4] == tokens[4]
    assert [token.token for token in masked.logprobs[1:4]] == ["«»".encode()] * 3
    assert all(token.top == () and token.id is None and token.logprob == -0.5 for token in masked.logprobs[1:4])


def test_an_alternative_that_is_a_key_is_masked() -> None:
    token = TokenLogprob(token=b"no", logprob=-0.1, top=((b"no", -0.1), (KEY.encode(), -3.0)))

    masked = MASK.sample(sample(Completion(text="no", logprobs=(token,)))).completion

    assert masked is not None
    assert masked.logprobs[0].top == ((b"no", -0.1), ("«VLLM_API_KEY»".encode(), -3.0))


def test_what_a_server_says_about_itself_is_masked() -> None:
    identity = Identity(facts={"model": Fact(value=f"m-{KEY}", source="reported", raw=KEY)})

    assert MASK.identity(identity) == Identity(
        facts={"model": Fact(value="m-«VLLM_API_KEY»", source="reported", raw="«VLLM_API_KEY»")}
    )


def test_without_secrets_nothing_is_copied() -> None:
    mask = Mask({})
    answer = sample(Completion(text="x"))

    assert mask.sample(answer) is answer
    assert mask.identity(identity := Identity()) is identity


tokens = st.text(string.ascii_letters + string.digits + "-_/+=.%", min_size=SHORTEST, max_size=60)
chatter = st.text('abc {}":,.\n 東', max_size=40)


@given(tokens, st.sampled_from(sorted(forms(KEY))), chatter, chatter, st.data())
def test_no_piece_of_a_key_is_left_wherever_a_server_cut_it(
    key: str, form: str, before: str, after: str, data: st.DataObject
) -> None:
    assume(key.lower() not in DUMMIES)
    whole = forms(key)[form]
    mask = Mask({"K«»": key}) if key in "«K»" else Mask({"K": key})
    text = before + whole + after
    begin = data.draw(st.integers(0, len(before) + 3))
    end = data.draw(st.integers(max(begin, len(before)), len(text)))
    assume(begin <= len(before) or end >= len(before) + len(whole))  # of a key cut at both sides nothing is known

    masked = mask.torn(text[begin:end])

    core = whole[4:-4] if "base64" in form else whole  # a group of four at either end belongs to the neighbours
    assert not [core[i : i + 8] for i in range(len(core) - 7) if core[i : i + 8] in masked.replace("«K»", "\0")]


@given(tokens, st.lists(chatter, min_size=1, max_size=6), st.integers(1, 9))
def test_a_log_that_comes_in_pieces_is_masked_as_a_whole(key: str, parts: list[str], size: int) -> None:
    assume(key.lower() not in DUMMIES)
    mask = TextMask({"K": key})
    log = key.join(parts)
    held, shown = "", ""
    for start in range(0, len(log), size):
        held += log[start : start + size]
        safe = mask.safe(held)
        shown, held = shown + mask.torn(held[:safe]), held[safe:]
    shown += mask.torn(held)

    assert key not in shown
    assert shown == mask.torn(log)


def test_words_that_begin_as_a_key_does_stay_in_answers() -> None:
    mask = Mask({"K": "production-9f8e7d6c5b"})
    answer = sample(Completion(text="it runs in production", finish_reason="stop"))

    assert mask.sample(answer) == answer
    assert mask.torn("production-9f8 is no key, says the server") == "«K» is no key, says the server"


def test_the_beginning_of_a_key_at_the_end_of_a_cut_answer_is_hidden() -> None:
    mask = Mask({"K": "sk-live-9f8e7d6c5b"})
    records = tuple(TokenLogprob(token=t.encode(), logprob=-0.1) for t in ("use ", "sk-live", "-9f8"))
    cut = sample(Completion(text="use sk-live-9f8", finish_reason="length", logprobs=records))

    masked = mask.sample(cut)

    assert masked.completion is not None
    assert masked.completion.text == "use «K»"
    assert b"9f8" not in b"".join(record.token for record in masked.completion.logprobs)
