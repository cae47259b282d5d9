from __future__ import annotations

from pytest_llmparity.report import golden as report
from tests.core.golden import test_golden as of_core

HOSTILE = "\x1b[2J\u202eevil ##[add-mask]x"


def test_what_a_model_wrote_is_escaped_wherever_it_is_shown() -> None:
    ours = of_core.golden(of_core.folded("a\x1b", HOSTILE))
    theirs = of_core.golden(of_core.folded("a\x1b", "x"), of_core.folded("b\x1b", "x"))

    (line,) = ours.lines.values()
    shown = [*report.overview({"t": {"prod": ours}}), *report.cases(ours), *report.whole(line)]
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
