"""The comment of a pull request: marked, harmless, within what GitHub takes."""

from __future__ import annotations

import dataclasses

import msgspec
import pytest

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.report.workflow.comment import MOST, marked, of_none, of_run
from tests.report.html.made import varied

HOSTILE = "</details><!-- @everyone --> ![x](https://e.example/p.png) ``` <script>alert(1)</script> 🙂"


def test_a_comment_begins_with_its_mark_and_is_never_too_long() -> None:
    made = varied()
    verdicts = [
        dataclasses.replace(verdict, test=f"{verdict.test}[{number}]", details=(HOSTILE * 40,))
        for number in range(40)
        for verdict in made.record.verdicts
    ]

    text = of_run(
        dataclasses.replace(made.record, verdicts=tuple(verdicts)),
        made.samples,
        name="cpu",
        link="https://github.com/o/r/actions/runs/5",
        origin=made.origin,
    )

    assert text.startswith("<!-- pytest-llmparity: cpu -->\n### LLM parity: ")
    assert text.endswith("(https://github.com/o/r/actions/runs/5)</sub>\n")
    assert MOST // 2 < len(text) <= MOST
    assert "left out" in text


def test_nothing_a_model_wrote_is_markup_or_a_mention() -> None:
    made = varied()
    samples = [
        msgspec.structs.replace(sample, completion=msgspec.structs.replace(sample.completion, text=HOSTILE))
        for sample in made.samples
        if sample.phase is Phase.MAIN and sample.completion is not None
    ]

    text = of_run(made.record, samples, name="cpu", origin=made.origin)

    assert HOSTILE[:20] in text
    fenced = False
    for line in text.splitlines():
        fence = line.startswith("```")
        fenced = fenced != fence
        assert fenced or fence or not any(sign in line for sign in ("<script", "@everyone", "![x]"))


def test_where_nothing_was_judged_it_says_so() -> None:
    text = of_none("pytest ended with 4 <b>", name="cpu")

    assert text.splitlines() == [
        marked("cpu"),
        "### LLM parity: nothing was judged",
        "",
        "pytest ended with 4 &#60;b&#62;",
    ]


@pytest.mark.parametrize("name", ["", "a-->", "a\nb", "x" * 61, "é", "a--b"])
def test_a_name_that_would_end_the_mark_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="a comment's name"):
        marked(name)
