"""No text of a model or a server makes a line that a CI service executes, wherever the line breaks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.sample import Completion, Phase, Sample, ToolCall
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.printable import (
    elide,
    printable,
    printable_lines,
    uncommanded,
    uncommanded_json,
    wrapped,
)
from pytest_llmparity.report import terminal
from tests.workflow_commands import executed, executed_lines

hostile = st.lists(
    st.sampled_from(
        [
            *("##[add-mask]all", "::add-mask::all", "::error file=a,line=1::no", "##vso[task.setvariable v=1]x"),
            *(
                "##teamcity[x]",
                "#",
                "##",
                "[",
                "]",
                ":",
                "::",
                "add-mask",
                "a" * 17,
                " ",
                "  ",
                "\t",
                "\n",
                "\r",
                "\u2028",
            ),
            *("\u200b", "\u200d", "\u034f", "\ufe0f", "\ufffd", "\xa0", "\u3000", "é", "東", "\x1b[0m", "\\", "'", '"'),
        ]
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a ##[add-mask]b", "a ##\\x5badd-mask]b"),
        ("#\u200d#[x]", "#\u200d#\\x5bx]"),
        ("##vso[task.complete]", "##vso\\x5btask.complete]"),
        ("  ::add-mask::b", "  \\x3a:add-mask::b"),
        ("## Heading [1] and std::vector<a::b>", "## Heading [1] and std::vector<a::b>"),
        ("tests/test_a.py::test_b[q4] ", "tests/test_a.py::test_b[q4] "),
    ],
)
def test_only_what_makes_a_command_is_shown_as_its_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_the_rules_of_the_services_are_those_the_tests_hold() -> None:
    taken = ["x ##[add-mask]y", " \t::add-mask::y", "\u200b::stop-commands::t", ":\u200d:debug::x", "#\u200b#[group]"]

    assert all(map(executed, taken))
    assert not any(map(executed, ["::one", "a ::add-mask::y", "## [x]", "##\\x5bx]", "E  ::error::x"]))


@given(hostile, st.integers(20, 140), st.sampled_from(["", "  ", "q4: ", "    cause: "]))
def test_no_line_is_executed_at_any_width(text: str, width: int, head: str) -> None:
    lines = wrapped(printable(text), width, head=head, indent=" " * min(len(head), 4))

    assert not executed_lines("\n".join(lines))


@given(hostile, st.integers(0, 90))
def test_no_piece_of_a_text_is_executed_as_a_line(text: str, limit: int) -> None:
    pieces = [explain.plain(text, limit + 1), explain.quote(text, limit + 1), elide(printable(text), limit)]

    assert not executed_lines("\n".join([*pieces, *(f"  {piece}" for piece in pieces), printable_lines(text)]))
    assert not executed_lines(uncommanded(text))


@given(hostile, hostile, st.integers(40, 120))
def test_no_answer_that_is_shown_is_executed(text: str, arguments: str, width: int) -> None:
    completion = Completion(text=text, tool_calls=(ToolCall(name=text, arguments=arguments),), finish_reason=text)
    sample = Sample(engine="a", case=text or "c", phase=Phase.MAIN, completion=completion)

    assert not executed_lines("\n".join(terminal.answer_lines([sample], width=width)))


@given(hostile)
def test_json_for_a_log_keeps_its_value(text: str) -> None:
    printed = uncommanded_json(json.dumps({"text": text}, indent=1))

    assert json.loads(printed) == {"text": text}
    assert not executed_lines(printed)
