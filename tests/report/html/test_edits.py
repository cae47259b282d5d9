"""How two texts differ: put together again, what both have and what one has alone is each text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.sample import Completion, ToolCall
from pytest_llmparity.report.html import edits
from tests.report.html.made import tokens


def taken(text: str, lengths: list[int], side: int) -> list[str]:
    """Return the pieces of a text as the page's script cuts it: by JavaScript's units."""
    written, at, pieces = text.encode("utf-16-le", "surrogatepass"), 0, []
    for place in range(0, len(lengths), 3):
        for length in (lengths[place], lengths[place + 1 + side]):
            pieces.append(written[2 * at : 2 * (at + length)].decode("utf-16-le", "surrogatepass"))
            at += length
    return pieces


@given(st.text(max_size=40), st.text(max_size=40))
def test_every_character_is_in_one_piece(ours: str, theirs: str) -> None:
    lengths = edits.by_characters(ours, theirs)

    assert lengths is not None
    assert "".join(taken(ours, lengths, 0)) == ours
    assert "".join(taken(theirs, lengths, 1)) == theirs
    assert taken(ours, lengths, 0)[::2] == taken(theirs, lengths, 1)[::2]


@given(st.lists(st.sampled_from(["a", "bé", "😀", "c d"]), max_size=9), st.lists(st.sampled_from(["a", "😀"])))
def test_words_are_kept_whole(ours: list[str], theirs: list[str]) -> None:
    texts = " ".join(ours), " ".join(theirs)

    unit, lengths = edits.by_tokens(Completion(text=texts[0]), Completion(text=texts[1]), texts)

    assert unit == "words"
    assert "".join(taken(texts[0], lengths, 0)) == texts[0]
    assert "".join(taken(texts[1], lengths, 1)) == texts[1]


def test_tokens_are_the_engines_own_where_both_told_them() -> None:
    ours, theirs = (Completion(text=t, logprobs=tokens(t)) for t in ("one two three", "one twelve three"))

    unit, lengths = edits.by_tokens(ours, theirs, (ours.text, theirs.text))

    assert (unit, lengths) == ("tokens", [3, 4, 7, 6, 0, 0])
    assert edits.by_tokens(ours, Completion(text=theirs.text), (ours.text, theirs.text))[0] == "words"


def test_a_token_that_ends_within_a_character_is_one_with_the_next() -> None:
    spelled = "a😀".encode()
    halves = (spelled[:3], spelled[3:])
    answer = Completion(text="a😀", logprobs=tuple(tokens("x")[:1][0].__class__(token=h, logprob=0.0) for h in halves))

    unit, lengths = edits.by_tokens(answer, answer, ("a😀", "a😀"))

    assert (unit, lengths) == ("tokens", [3, 0, 0])


def test_a_long_text_is_not_compared_character_by_character() -> None:
    assert edits.by_characters("a" * (edits.LONGEST + 1), "b") is None


def test_json_is_compared_by_field() -> None:
    ours, theirs = (
        Completion(text='{"a": 1, "b": [1], "c": {"d": null}}'),
        Completion(text='{"b": [1, 2], "c": {}, "a": 1}'),
    )

    assert edits.fields(ours, theirs) == [["$.b[1]", "absent", "2"], ["$.c.d", "null", "absent"]]
    assert edits.fields(ours, Completion(text="no JSON")) == []
    assert edits.fields(Completion(text="1"), Completion(text="2")) == []


def test_calls_are_compared_by_argument() -> None:
    def calling(*calls: tuple[str, str]) -> Completion:
        return Completion(text="", tool_calls=tuple(ToolCall(name=n, arguments=a) for n, a in calls))

    ours = calling(("find", '{"city": "Rome"}'), ("pay", '{"sum": 1'), ("end", "{}"))
    theirs = calling(("find", '{"city": "Bonn"}'), ("pay", '{"sum": 2'))

    assert edits.fields(ours, theirs) == [
        ["call 1, find $.city", '"Rome"', '"Bonn"'],
        ["call 2, pay", '{"sum": 1', '{"sum": 2'],
        ["call 3", "end {}", "absent"],
    ]
    assert edits.fields(ours, calling(("seek", "{}")))[0] == ["call 1", 'find {"city": "Rome"}', "seek {}"]
