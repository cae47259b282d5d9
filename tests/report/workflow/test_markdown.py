"""The run as Markdown: the verdict first, what a model wrote as it is and never as markup, never too long."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.report.workflow import markdown
from pytest_llmparity.report.workflow.markdown import escape, to_markdown
from tests.report.html.made import HOSTILE, Made, answer, decided, large, varied, verdict


def of(made: Made, limit: int = markdown.LIMIT) -> str:
    return to_markdown(made.record, made.samples, origin=made.origin, limit=limit)


def test_the_verdict_comes_first_and_the_worst_cases_are_folded_below() -> None:
    text = of(varied())

    head, _, rest = text.partition("\n\n")
    assert head == "### LLM parity: FAIL — prod · dev"
    assert rest.startswith(
        "> [!CAUTION]\n> 1 of 6 verdicts is FAIL: text, dev against prod: 10 % of tokens fork, at least 8 %, margin 5 %"
    )
    assert "| **FAIL** | text | dev against prod | 10 % | at least 8 % | 5 % | 2 % per token | 144 |" in text
    assert "fork-2 (after 2 tokens, rank shift)" in text
    assert "- prod: amber birch cedar delta\n+ dev: amber birch jetty ember fjord\n" in text
    assert "pytest tests/test_gate.py::test_tickets --engines prod,dev" in text
    assert text.index("fork-2 (after") < text.index("<summary>INCONCLUSIVE schema.rate")


def test_what_has_no_content_has_no_section() -> None:
    made = Made([answer("prod", "c", "amber"), answer("dev", "c", "amber")], [verdict("text", "dev", Outcome.PASS)])
    text = of(made)

    assert "> [!TIP]\n> 1 verdict passed." in text
    assert re.findall("<summary>(.*)</summary>", text) == ["Engines"]
    assert "Nothing was judged." in of(Made([], []))


@pytest.mark.parametrize("times", [True, False])
def test_why_times_are_not_known_is_told_below_the_latencies(times: bool) -> None:
    made = varied()
    latency = made.record.latency if times else ()
    record = dataclasses.replace(made.record, latency=latency, unshown=("no tpot of <dev> is shown",))

    _, _, section = to_markdown(record, made.samples, origin=made.origin).partition("<summary>Latency</summary>")

    assert "\n- no tpot of &#60;dev&#62; is shown\n" in section.partition("</details>")[0]
    assert ("| engine | metric |" in section.partition("</details>")[0]) is times


def test_a_tag_that_a_pass_hides_is_not_folded_away() -> None:
    hidden, left_out = "by themselves above the margin: poem 50 %", "too few prompts for a verdict of their own: ode 2"
    passed = verdict("text", "dev", Outcome.PASS, reason=hidden, remarks=(hidden, left_out))
    made = Made([], [passed, dataclasses.replace(passed, test="test_other", reason="", remarks=())])

    shown, _, _ = of(made).partition("<details>")

    assert f"- **Hidden by a PASS** text, dev against prod: {hidden}\n" in shown
    assert of(made).count("poem") == 1
    assert f"- text, dev against prod: {left_out}\n" in of(made)


def test_a_decision_says_its_grounds_what_changed_and_which_cases_turned() -> None:
    made = decided()
    text = of(made)

    assert "- **Decision** HOLD: dev should not replace prod. 1 of 2 required verdicts speaks against it. By " in text
    body = text.partition("<summary>dev: HOLD, its grounds, what changed, and which cases turned</summary>")[2]
    body = body.partition("</details>")[0]
    assert (
        "**Against it:**\n\n- FAIL  test\\_tickets, text: 10 % of tokens fork, at least 8 %, margin 5 %; cause: "
        in body
    )
    assert "| fact | prod | dev |\n| --- | --- | --- |\n| template\\_sha256 | abababababababababa | cdcdcdc" in body
    assert "| context\\_length | 4096 | 2048 |\n| args | --ctx-size 4096 | --ctx-size 2048 &#60;/script&#62;" in body
    assert "- told by one of them only: digest\n- the same: kind, version\n- shown to be the cause: " in body
    assert "**What changed in the answers**: 8 right before and wrong now, 1 wrong before and right now" in body
    assert "Regressions, the gravest first:\n\n- silent-6: no answer (EngineTimeout)\n- odd/8 " in body
    assert body.index("- and 3 more") < body.index("Improvements, the gravest first:") < body.index("wrong-7")
    beside = to_markdown(made.record, made.samples, origin=made.origin, decided=False)
    assert "- **Decision** HOLD" in beside
    assert "Regressions" not in beside, "the summary of a step has the decision in full behind it"


@pytest.mark.parametrize("made", [varied(), decided()], ids=["a run", "a run with a decision"])
def test_no_answer_becomes_markup(made: Made) -> None:
    outside = re.sub(r"^(`{3,})(\w*)\n.*?^\1$", "", of(made), flags=re.MULTILINE | re.DOTALL)

    assert "<script" not in outside
    assert "<img" not in outside
    assert set(re.findall(r"<(/?\w+)", outside)) == {"details", "/details", "summary", "/summary", "sub", "/sub"}


@given(st.text("`~\n abc", max_size=60))
def test_no_answer_closes_its_fence(text: str) -> None:
    made = Made([answer("prod", "c", "x"), answer("dev", "c", text)], [verdict("text", "dev", Outcome.FAIL)])
    fenced = markdown.fenced([text])

    fence = fenced.partition("text\n")[0]
    assert [line for line in fenced.splitlines() if re.fullmatch(rf" {{0,3}}`{{{len(fence)},}}\s*", line)] == [fence]
    assert of(made).count("<details>") == of(made).count("</details>")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("@team see #12", "&#64;team see &#35;12"),
        ("[a](https://b) www.c.de", r"\[a\](https&#58;//b) www&#46;c.de"),
        ("a|b `c` $x$ ~~d~~ _e_", r"a\|b \`c\` \$x\$ \~\~d\~\~ \_e\_"),
        ("two\nlines \x1b[0m", r"two\\nlines \\x1b\[0m"),
    ],
)
def test_foreign_text_in_a_sentence_is_shown_as_it_is(text: str, shown: str) -> None:
    assert escape(text) == shown


@pytest.mark.parametrize(("limit", "verdicts"), [(2_000, 6), (20_000, 40), (200_000, 300)])
def test_a_text_is_never_too_long(limit: int, verdicts: int) -> None:
    made = large(verdicts)
    made.record = made.record.__class__(
        **{name: getattr(made.record, name) for name in ("run", "version", "engines", "requests")},
        verdicts=tuple(
            verdict("text", "dev", Outcome.FAIL, check=f"text({n})", details=(HOSTILE * 20,)) for n in range(verdicts)
        ),
    )
    text = of(made, limit)

    assert len(text.encode()) <= limit
    assert text.startswith("### LLM parity: FAIL")
    assert "left out" in text


def test_a_text_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    made = varied()
    assert markdown.write(made.record, made.samples, tmp_path / "out", origin=made.origin).name == "summary.md"
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match=r"summary.md cannot be written .*choose another --parity-out"):
        markdown.write(made.record, made.samples, tmp_path / "file", origin=made.origin)
