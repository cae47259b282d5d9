"""However a message is cut into pieces, in any dialect of servers, it is the one the unstreamed answer has."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_llmparity.core import thinking
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion
from pytest_llmparity.engines.wire.assembling import (
    DIFFERENT_REMARK,
    EXTENDED_REMARK,
    GROWING_REMARK,
    LATE_REMARK,
    NAME_REMARK,
    PLACEHOLDER_REMARK,
    REPEATED_REMARK,
    RULES,
    RUN_TOGETHER_REMARK,
    TWICE_REMARK,
    UNSURE_REMARK,
)
from pytest_llmparity.engines.wire.read import parse_answer

Delta = dict[str, Any]
Tool = tuple[str, str, str]
"""Name, arguments, id."""

WEATHER: Tool = ("get_weather", '{"city": "Lisbon"}', "call_a")
TIME: Tool = ("get_time", '{"city": "Porto"}', "call_b")


def stream(*chunks: dict[str, Any]) -> Answer:
    body = "".join(f"data: {json.dumps({'choices': [{'index': 0, **chunk}]})}\n\n" for chunk in chunks)
    return answer(body + "data: [DONE]\n\n")


def answer(body: str) -> Answer:
    return cast(
        "Answer", SimpleNamespace(status=200, headers={"content-type": "text/event-stream"}, body=body.encode())
    )


def streamed(*deltas: Delta, last: dict[str, Any] | None = None) -> Completion:
    closing = {"delta": {}, "finish_reason": "stop"} | (last or {})
    return parse_answer(stream(*({"delta": delta} for delta in deltas), closing), engine="cand", case="c")


def unstreamed(message: Delta) -> Completion:
    body = json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    plain = cast("Answer", SimpleNamespace(status=200, headers={}, body=body.encode()))
    return parse_answer(plain, engine="cand", case="c")


def entry(index: int | None, name: str | None, arguments: object, id: str | None) -> Delta:
    fields: Delta = {"function": {} if name is None else {"name": name}}
    fields["function"] |= {} if arguments is None else {"arguments": arguments}
    fields |= {} if index is None else {"index": index}
    return fields | ({} if id is None else {"id": id, "type": "function"})


def called(completion: Completion) -> list[Tool]:
    return [(call.name, call.arguments, call.id) for call in completion.tool_calls]


# ---- the dialects: one call's arguments in pieces, as the entries of chunks ---------------------------------------


def openai(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """OpenAI, vLLM, SGLang: name and id first, then arguments."""
    name, _, id = tool
    return [[entry(place, name, "", id)], *([entry(place, None, piece, None)] for piece in pieces)]


def one_index(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """Every call is the first one."""
    name, _, id = tool
    return [[entry(0, name, pieces[0], id)], *([entry(0, None, piece, None)] for piece in pieces[1:])]


def whole_one_index(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """Ollama 15457."""
    return [[entry(0, *tool)]]


def whole_no_index(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """Ollama 7881."""
    return [[entry(None, *tool)]]


def whole_no_id(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    return [[entry(None, tool[0], tool[1], None)]]


def whole_empty_id(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    return [[entry(place, tool[0], tool[1], "")]]


def values(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """Arguments as the value rather than its text."""
    return [[entry(place, tool[0], json.loads(tool[1]), tool[2])]]


def no_index(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    name, _, id = tool
    return [[entry(None, name, pieces[0], id)], *([entry(None, None, piece, None)] for piece in pieces[1:])]


def from_one(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """Gateways before Anthropic's API count the content blocks."""
    return openai(3 * place + 1, tool, pieces)


def repeats_name(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    name, _, id = tool
    return [[entry(place, name, "", id)], *([entry(place, name, piece, None)] for piece in pieces)]


def repeats_both(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    name, _, id = tool
    return [[entry(place, name, piece, id)] for piece in pieces]


def repeats_both_one_index(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    return repeats_both(0, tool, pieces)


def fresh_ids(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """vLLM 17523."""
    name, _, id = tool
    later = ([entry(place, None, piece, f"{id}-{turn}")] for turn, piece in enumerate(pieces))
    return [[entry(place, name, "", id)], *later]


def growing(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    name, _, id = tool
    return [[entry(place, name, so_far, id)] for so_far in itertools.accumulate(pieces)]


def growing_no_id(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    return [[entry(place, tool[0], so_far, None)] for so_far in itertools.accumulate(pieces)]


def said_twice(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """The last chunk of the call is the whole call."""
    return [*openai(place, tool, pieces), [entry(place, *tool)]]


def named_choice(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """vLLM 0.8 with a named ``tool_choice``: the name and a new id with every piece, the first of them empty."""
    name, _, id = tool
    first = [entry(place, name, "", id)]
    return [first, *([entry(place, name, piece, f"{id}-{turn}")] for turn, piece in enumerate(pieces))]


def growing_values(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """What came so far, parsed anew for every token."""
    name, arguments, id = tool
    items = list(json.loads(arguments).items())
    return [[entry(place, name, dict(items[:size]), id)] for size in range(len(items) + 1)]


def empty_first(place: int, tool: Tool, pieces: Sequence[str]) -> list[list[Delta]]:
    """Gateways before Anthropic's API, whose calls begin with an empty input."""
    if tool[1] == "{}":
        return openai(place, tool, pieces)
    return [[entry(place, tool[0], "{}", tool[2])], *([entry(place, None, piece, None)] for piece in pieces)]


DIALECTS: list[Callable[[int, Tool, Sequence[str]], list[list[Delta]]]] = [
    *(openai, one_index, whole_one_index, whole_no_index, whole_no_id, whole_empty_id, values, no_index, from_one),
    *(repeats_name, repeats_both, repeats_both_one_index, fresh_ids, growing, growing_no_id, said_twice),
    *(growing_values, empty_first),
]
WITHOUT_IDS = (whole_no_id, whole_empty_id, growing_no_id)

NAMES = st.sampled_from(["get_weather", "get_time", "get", "get_weather_now"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(st.text(min_size=1, max_size=6), VALUES, max_size=4)
CUTS = st.lists(st.integers(1, 60), max_size=8)


def cut(text: str, cuts: Sequence[int]) -> list[str]:
    places = sorted({0, len(text), *(place for place in cuts if place < len(text))})
    return [text[a:b] for a, b in itertools.pairwise(places)]


@pytest.mark.slow
@settings(max_examples=50)
@given(tools=st.lists(st.tuples(NAMES, ARGUMENTS, CUTS), min_size=1, max_size=4))
def test_tool_calls_are_those_of_the_unstreamed_answer(tools: list[tuple[str, dict[str, Any], list[int]]]) -> None:
    """In every dialect; to draw calls takes longer than to read them in all of them."""
    calls = [(name, json.dumps(value), f"call_{place}") for place, (name, value, _) in enumerate(tools)]
    wanted = called(unstreamed({"content": None, "tool_calls": [entry(None, *call) for call in calls]}))
    wrong = {}
    for dialect in DIALECTS:
        chunks = [
            {"tool_calls": entries}
            for place, (tool, (_, _, cuts)) in enumerate(zip(calls, tools, strict=True))
            for entries in dialect(place, tool, cut(tool[1], cuts))
        ]

        parts = slice(2) if dialect in WITHOUT_IDS else slice(3)
        read = [call[parts] for call in called(streamed(*chunks))]
        if read != [call[parts] for call in wanted]:
            wrong[dialect.__name__] = read

    assert not wrong, f"not {wanted}"


@settings(max_examples=50)
@given(tools=st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=4), one_index=st.booleans(), ids=st.booleans())
def test_calls_that_come_in_one_list_are_calls_of_their_own(
    tools: list[tuple[str, dict[str, Any]]], one_index: bool, ids: bool
) -> None:
    calls = [(name, json.dumps(value), f"c{place}" if ids else "") for place, (name, value) in enumerate(tools)]
    entries = [entry(0 if one_index else place, *call) for place, call in enumerate(calls)]

    assert called(streamed({"tool_calls": entries})) == calls


@given(order=st.permutations(range(6)))
def test_pieces_of_several_calls_may_alternate(order: list[int]) -> None:
    pieces = {0: cut(WEATHER[1], [3, 9]), 1: cut(TIME[1], [2, 11])}
    chunks = [[entry(0, WEATHER[0], "", "call_a"), entry(1, TIME[0], "", "call_b")]]
    chunks += [[entry(place % 2, None, pieces[place % 2].pop(0), None)] for place in order]

    assert called(streamed(*({"tool_calls": entries} for entries in chunks))) == [WEATHER, TIME]


@pytest.mark.parametrize("at", range(1, len(WEATHER[1])))
@pytest.mark.parametrize("dialect", [openai, repeats_both, growing, fresh_ids], ids=lambda dialect: dialect.__name__)
def test_a_call_that_was_cut_keeps_what_came_of_it(
    dialect: Callable[[int, Tool, Sequence[str]], list[list[Delta]]], at: int
) -> None:
    begun = WEATHER[1][:at]
    chunks = dialect(0, (WEATHER[0], begun, WEATHER[2]), cut(begun, [2, 5, 11]))

    assert called(streamed(*({"tool_calls": entries} for entries in chunks))) == [(WEATHER[0], begun, WEATHER[2])]


@settings(max_examples=50)
@given(tools=st.lists(st.tuples(NAMES, ARGUMENTS, CUTS), min_size=1, max_size=4))
def test_a_new_id_with_every_piece_makes_no_new_calls(tools: list[tuple[str, dict[str, Any], list[int]]]) -> None:
    calls = [(name, json.dumps({"x": value}), f"c{place}") for place, (name, value, _) in enumerate(tools)]
    parts = [[0, 1, *(1 + at for at in cuts)] for _, _, cuts in tools]  # one piece alone would be a call of its own
    chunks = [
        {"tool_calls": entries}
        for place, (tool, cuts) in enumerate(zip(calls, parts, strict=True))
        for entries in named_choice(place, tool, cut(tool[1], cuts))
    ]

    assert called(streamed(*chunks)) == calls


@pytest.mark.parametrize("last", [entry(0, None, "", "call_a"), entry(0, WEATHER[0], "", "call_a")])
def test_a_piece_with_nothing_but_the_id_once_more_ends_a_call(last: Delta) -> None:
    assert called(streamed({"tool_calls": [entry(0, *WEATHER)]}, {"tool_calls": [last]})) == [WEATHER]


@given(pieces=st.lists(st.sampled_from(["", "{", "}", "{}", "[]", "null", '"a"', ":", "1", ",", "\ud800", '{"a":1}'])))
@pytest.mark.parametrize("id", ["a", None])
def test_any_pieces_are_read(id: str | None, pieces: list[str]) -> None:
    calls = called(streamed({"content": "x"}, *({"tool_calls": [entry(0, "f", piece, id)]} for piece in pieces)))

    assert bool(calls) == bool(pieces)


def test_two_calls_without_anything_to_tell_them_apart_but_what_they_say() -> None:
    again = ("get_weather", '{"city": "Porto"}', "")
    first = (*WEATHER[:2], "")

    assert called(streamed(*({"tool_calls": [entry(0, *call)]} for call in (first, again)))) == [first, again]


@pytest.mark.parametrize(
    ("entries", "wanted", "remark"),
    [
        ([entry(0, "get_", "", "a"), entry(0, "time", "{}", None)], [("get_time", "{}", "a")], NAME_REMARK),
        ([entry(0, "get_", "", None), entry(0, "get_time", "{}", None)], [("get_time", "{}", "")], NAME_REMARK),
        ([entry(0, "f", "{}", None), entry(0, "f", "{}", None)], [("f", "{}", "")], TWICE_REMARK),
        (
            [entry(0, "f", '{"a": 1}', None), entry(0, None, '{"a": 2}', None)],
            [("f", '{"a": 1}{"a": 2}', "")],
            RUN_TOGETHER_REMARK,
        ),
        ([entry(0, "f", "{}", "a"), entry(0, "f", '{"a": 1}', "a")], [("f", '{"a": 1}', "a")], PLACEHOLDER_REMARK),
        ([entry(0, "f", "null", "a"), entry(0, None, '{"a": 1}', None)], [("f", '{"a": 1}', "a")], PLACEHOLDER_REMARK),
        (
            [entry(0, "f", {"a": "x"}, "a"), entry(0, "f", {"a": "xy", "b": [1]}, "a")],
            [("f", '{"a": "xy", "b": [1]}', "a")],
            EXTENDED_REMARK,
        ),
    ],
    ids=["name in pieces", "name grows", "twice", "run together", "empty first", "null first", "value grows"],
)
def test_what_is_guessed_or_cannot_be_told_is_said(entries: list[Delta], wanted: list[Tool], remark: str) -> None:
    completion = streamed(*({"tool_calls": [piece]} for piece in entries))

    assert called(completion) == wanted
    assert completion.normalised == (remark,)


@pytest.mark.parametrize("id", ["call_a", None])
def test_a_last_chunk_that_repeats_the_calls_too_is_taken_once(id: str | None) -> None:
    calls = [entry(None, "f", "{}", id), entry(None, "g", '{"a": 1}', id)]

    completion = streamed({"tool_calls": calls[:1]}, {"tool_calls": calls[1:]}, last={"delta": {"tool_calls": calls}})

    assert [call[:2] for call in called(completion)] == [("f", "{}"), ("g", '{"a": 1}')]
    assert completion.normalised == (() if id else (TWICE_REMARK,))


def test_a_last_chunk_that_repeats_the_calls_under_new_ids_is_taken_once_unless_it_is_one_call() -> None:
    calls = [entry(0, "f", "{}", "a"), entry(1, "g", '{"a": 1}', "b")]
    again = [entry(0, "f", "{}", "c"), entry(1, "g", '{"a":1}', "d")]

    twice = streamed({"tool_calls": calls}, last={"delta": {"tool_calls": again}, "finish_reason": "tool_calls"})
    kept = streamed({"tool_calls": calls[:1]}, last={"delta": {"tool_calls": again[:1]}, "finish_reason": "tool_calls"})

    assert (called(twice), twice.normalised) == ([("f", "{}", "a"), ("g", '{"a": 1}', "b")], (TWICE_REMARK,))
    assert (called(kept), kept.normalised) == ([("f", "{}", "a"), ("f", "{}", "c")], (LATE_REMARK,))


def test_a_closing_message_with_other_calls_than_were_streamed_is_said() -> None:
    message = {"tool_calls": [entry(None, *WEATHER), entry(None, *TIME)]}

    completion = streamed(
        {"tool_calls": [entry(0, *WEATHER)]}, last={"message": message, "finish_reason": "tool_calls"}
    )
    alike = streamed({"tool_calls": message["tool_calls"]}, last={"message": message, "finish_reason": "tool_calls"})

    assert (called(completion), completion.normalised) == ([WEATHER], (DIFFERENT_REMARK,))
    assert (called(alike), alike.normalised) == ([WEATHER, TIME], ())


@pytest.mark.parametrize("name", ["parameters", "input"])
def test_arguments_under_another_name(name: str) -> None:
    flat = {"index": 0.0, "id": "a", "function": {"name": "f", name: {"a": 1}}}

    assert called(streamed({"tool_calls": [flat]})) == [("f", '{"a": 1}', "a")]


def test_a_last_chunk_may_bring_the_same_call_under_another_index() -> None:
    calls = [entry(0, "f", "{}", "a"), entry(1, "f", "{}", "a")]

    completion = streamed(
        {"tool_calls": calls[:1]}, last={"delta": {"tool_calls": calls[1:]}, "finish_reason": "tool_calls"}
    )

    assert called(completion) == [("f", "{}", "a")] * 2


def test_calls_without_their_list_or_their_inner_object() -> None:
    flat = {"index": "0", "id": "a", "name": "f", "arguments": "{}"}

    assert called(streamed({"tool_calls": flat})) == called(streamed({"tool_calls": [flat]})) == [("f", "{}", "a")]
    assert called(streamed({"tool_calls": {"0": entry(0, *WEATHER), "1": entry(1, *TIME)}})) == [WEATHER, TIME]


def test_one_id_for_every_call_and_calls_of_one_function_named_by_their_function() -> None:
    one_id = [("f", '{"a": 1}', "call"), ("g", '{"a": 1}', "call"), ("g", '{"a": 2}', "call")]

    for index in (0, None):
        assert called(streamed(*({"tool_calls": [entry(index, *call)]} for call in one_id))) == one_id


def test_the_first_api_for_calls_has_one() -> None:
    pieces = [{"name": "f", "arguments": ""}, {"arguments": '{"a"'}, {"arguments": ": 1}"}]

    completion = streamed(*({"function_call": piece} for piece in pieces))

    assert called(completion) == called(unstreamed({"function_call": {"name": "f", "arguments": '{"a": 1}'}}))


def test_every_rule_says_when_it_applies_and_who_needs_it() -> None:
    assert len({rule.when for rule in RULES}) == len(RULES)
    assert all(rule.who for rule in RULES)


# ---- text ----------------------------------------------------------------------------------------------------------

TEXTS = st.text(min_size=1, max_size=60).filter(
    lambda text: text[: len(text) // 2] != text[len(text) // 2 :] and not thinking.split(text).tag
)
SENTENCE = "The refund takes five days, Mrs Müller."


@given(text=TEXTS, reasoning=st.just("") | TEXTS, cuts=CUTS)
def test_text_and_reasoning_are_the_whole_ones_however_they_are_cut(text: str, reasoning: str, cuts: list[int]) -> None:
    deltas = [{"reasoning_content": piece} for piece in cut(reasoning, cuts)] if reasoning else []
    deltas += [{"content": piece} for piece in cut(text, cuts)]

    completion = streamed({"role": "assistant", "content": ""}, *deltas)

    assert (completion.text, completion.reasoning) == (text, reasoning)
    assert completion.normalised in ((), (UNSURE_REMARK,))


@pytest.mark.parametrize("channel", ["content", "reasoning"])
@given(cuts=st.lists(st.integers(1, len(SENTENCE) - 1), min_size=1, max_size=8, unique=True))
def test_deltas_that_repeat_everything_so_far_are_taken_once(channel: str, cuts: list[int]) -> None:
    pieces = list(itertools.accumulate(cut(SENTENCE, cuts)))
    completion = streamed(*({channel: piece} for piece in pieces), {channel: pieces[-1]})

    assert SENTENCE in (completion.text, completion.reasoning)
    assert completion.normalised in ((GROWING_REMARK,), (REPEATED_REMARK,))


@given(cuts=st.lists(st.integers(1, len(SENTENCE) - 1), max_size=8))
def test_a_last_chunk_that_repeats_the_message_is_taken_once(cuts: list[int]) -> None:
    deltas = [{"content": piece} for piece in cut(SENTENCE, cuts)]
    closed = streamed(*deltas, last={"delta": {"content": SENTENCE}, "finish_reason": "stop"})
    messaged = streamed(*deltas, last={"message": {"role": "assistant", "content": SENTENCE}})

    assert closed.text == messaged.text == SENTENCE
    assert closed.normalised == (REPEATED_REMARK,)
    assert messaged.normalised == ()


def test_a_closing_message_may_be_all_there_is_or_repeat_its_calls() -> None:
    message = {"role": "assistant", "content": "Hi.", "tool_calls": [entry(None, *WEATHER)]}

    alone = streamed(last={"message": message})
    after = streamed(
        {"content": "H"}, {"content": "i."}, {"tool_calls": [entry(0, *WEATHER)]}, last={"message": message}
    )

    assert alone.text == after.text == "Hi."
    assert called(alone) == called(after) == [WEATHER]


def test_a_stream_of_messages_grows() -> None:
    growing = ({"message": {"role": "assistant", "content": SENTENCE[:end]}} for end in (9, 20, len(SENTENCE)))

    completion = parse_answer(stream(*growing, {"finish_reason": "stop"}), engine="cand", case="c")

    assert completion.text == SENTENCE


def test_a_closing_message_that_says_something_else_is_named() -> None:
    completion = streamed({"content": "Yes"}, {"content": "."}, last={"message": {"content": "No."}})

    assert (completion.text, completion.normalised) == ("Yes.", (DIFFERENT_REMARK,))


@pytest.mark.parametrize(("pieces", "whole"), [(["Yes", "Yes"], "Yes"), (["The", "The cat"], "The cat")])
def test_the_closing_message_tells_what_two_pieces_cannot(pieces: list[str], whole: str) -> None:
    completion = streamed(*({"content": piece} for piece in pieces), last={"message": {"content": whole}})

    assert (completion.text, completion.normalised) == (whole, (GROWING_REMARK,))


@pytest.mark.parametrize(
    ("pieces", "text", "normalised"),
    [
        (["ha", "ha"], "haha", (UNSURE_REMARK,)),
        ([" no", " no", " no"], " no no no", ()),
        (["-", "--", "----"], "-------", (UNSURE_REMARK,)),
        (["4", "42"], "442", (UNSURE_REMARK,)),
        (["The", " cat", "The cat sat"], "The catThe cat sat", (UNSURE_REMARK,)),
        (
            ["The capital", " of Peru", "The capital of Peru is Lima."],
            "The capital of Peru is Lima.",
            (REPEATED_REMARK,),
        ),
        (["It", "It is", "It is so.\n", "It is so."], "It is so.", (GROWING_REMARK,)),
        (["\n", "\n"], "\n\n", ()),
        (["caf\ufffd", "café", "café."], "café.", (GROWING_REMARK,)),
    ],
)
def test_pieces_that_could_be_either_stay_and_say_so(pieces: list[str], text: str, normalised: tuple[str, ...]) -> None:
    completion = streamed(*({"content": piece} for piece in pieces))

    assert (completion.text, completion.normalised) == (text, normalised)


def test_a_repetition_is_no_event_with_tokens() -> None:
    deltas: list[dict[str, Any]] = [{"delta": {"content": piece}} for piece in (SENTENCE[:9], SENTENCE[9:])]

    plain, repeated = (
        parse_answer(stream(*deltas, last), engine="cand", case="c").token_ends
        for last in ({"finish_reason": "stop"}, {"delta": {"content": SENTENCE}, "finish_reason": "stop"})
    )

    assert repeated == plain
    assert len(plain) == 2


def test_tokens_of_a_repetition_are_listed_once() -> None:
    def chunk(text: str) -> dict[str, Any]:
        return {"delta": {"content": text}, "logprobs": {"content": [{"token": text, "logprob": -0.1}]}}

    completion = parse_answer(
        stream(chunk(SENTENCE[:9]), chunk(SENTENCE[9:]), chunk(SENTENCE), {"delta": {}, "finish_reason": "stop"}),
        engine="cand",
        case="c",
    )

    assert b"".join(token.token for token in completion.logprobs).decode() == completion.text == SENTENCE
