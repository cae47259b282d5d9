from __future__ import annotations

from typing import Any

import pytest

from pytest_llmparity.core.golden.folding import fold
from pytest_llmparity.core.sample import Completion, Phase, Sample, ToolCall
from pytest_llmparity.report import golden as report
from tests.core.golden import test_golden as of_core

HOSTILE = "\x1b[2J\u202eevil ##[add-mask]x"


def test_what_a_model_wrote_is_escaped_wherever_it_is_shown() -> None:
    ours = of_core.golden(of_core.folded("a\x1b", HOSTILE))
    theirs = of_core.golden(of_core.folded("a\x1b", "x"), of_core.folded("b\x1b", "x"))

    (line,) = ours.lines.values()
    shown = [
        *report.overview({"t": {"prod": ours}}),
        *report.cases(ours),
        *report.whole(line, engine="prod", prompt_set="t"),
    ]
    differing, differ = report.differences(ours, theirs, names=("prod", "dev"))

    assert differ
    for text in (*shown, *differing):
        assert text.isprintable()
        assert "##[" not in text


def test_texts_are_shown_from_where_they_part() -> None:
    same = "the same for a long while and then "
    ours, theirs = (of_core.golden(of_core.folded("a", same + end)) for end in ("one", "two"))

    lines, _ = report.differences(ours, theirs, names=("prod", "dev"))

    assert lines[:3] == [
        "  a",
        "    prod  …r a long while and then one (stop)",
        "    dev   …r a long while and then two (stop)",
    ]


@pytest.mark.parametrize(
    ("ours", "theirs", "shown"),
    [
        ({"finish_reason": "stop"}, {"finish_reason": "length"}, ("ended by stop", "ended by length")),
        ({"reasoning": "so it is"}, {}, ("reasoning so it is", "no reasoning")),
        ({"tool_calls": (ToolCall(name="f", arguments="{}"),)}, {}, ("f({})", "no tool call")),
    ],
)
def test_answers_of_the_same_text_show_what_else_is_different(
    ours: dict[str, Any], theirs: dict[str, Any], shown: tuple[str, str]
) -> None:
    pair = []
    for fields in (ours, theirs):
        completion = Completion(**{"text": "x", "finish_reason": "stop", **fields})
        made = fold(
            "a", of_core.ASKED, [Sample(engine="e", case="a", phase=Phase.MAIN, completion=completion)], lock="0" * 12
        )
        assert made is not None
        pair.append(of_core.golden(made))

    lines, differ = report.differences(*pair, names=("prod", "dev"))

    assert differ
    assert lines[:3] == ["  a", f"    prod  {shown[0]}", f"    dev   {shown[1]}"]
