"""The page as a file: its policy fits what it holds, it loads nothing and names no folder, and it appears whole."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.report import json as json_report
from pytest_llmparity.report.html.page import embedded, page, write
from tests.report.html.made import HOSTILE, Made, decided, varied, verdict


def text_of(made: Made) -> str:
    return page(made.record, made.samples, origin=made.origin)


def test_the_policy_allows_the_one_style_and_the_one_script() -> None:
    text = text_of(varied())

    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    parts = {name: rest.split() for name, _, rest in (part.partition(" ") for part in policy.split("; "))}
    for tag, directive in (("style", "style-src"), ("script", "script-src")):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, flags=re.DOTALL)
        expected = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert parts[directive] == [f"&#39;sha256-{expected}&#39;"]
    assert parts["default-src"] == ["&#39;none&#39;"]
    assert "unsafe" not in policy
    assert not re.search(r"\son\w+=|\ssrc=|\sstyle=", re.sub("<script.*?</script>", "", text, flags=re.DOTALL).replace(
        "img src=x onerror", "").replace("svg onload", ""))  # fmt: skip


@given(st.text(), st.text())
def test_any_text_comes_back_from_the_data(key: str, value: str) -> None:
    written = embedded({key: [value, float("nan")]})

    assert not set("<>&\u2028\u2029") & set(written)
    assert json.loads(written) == json_report.clean({key: [value, None]})


def test_a_tag_that_a_pass_hides_is_not_folded_away() -> None:
    hidden = "by themselves above the margin: poem 50 %"
    passed = verdict("text", "dev", Outcome.PASS, reason=hidden, remarks=(hidden,), message=f"PASS text, dev: {hidden}")

    assert f"<details open>\n<summary>text, dev: {hidden}</summary>" in text_of(Made([], [passed]))


@pytest.mark.parametrize("times", [True, False])
def test_why_times_are_not_known_is_told_beside_the_latencies(times: bool) -> None:
    made = varied()
    why = "no tpot of dev is shown: its answers came in other numbers of events than <tokens>"
    record = dataclasses.replace(made.record, latency=made.record.latency if times else (), unshown=(why,))

    text = page(record, made.samples if times else (), origin=made.origin)

    _, _, section = text.partition('<h2 id="h-latency">')
    section = section.partition("</section>")[0]
    assert f"<li>{why.replace('<', '&lt;').replace('>', '&gt;')}</li>" in section
    assert ("Share of requests that took" in section) is times
    assert '<a href="#latency">' in text


def test_no_folder_of_the_machine_is_named(tmp_path: Path) -> None:
    made = varied()

    path = write(made.record, made.samples, tmp_path / "out", root=tmp_path, origin=made.origin)

    assert (path.name, path.stat().st_mode & 0o777) == ("report.html", 0o600)
    text = path.read_text("utf-8")
    assert "/srv/models" not in text
    assert str(tmp_path) not in text
    assert ">prod.gguf<" in text


def test_the_worst_gate_comes_first() -> None:
    made = varied()
    first, second, third = (
        dataclasses.replace(made.record.verdicts[0], test=f"test_x.py::test_{name}", outcome=outcome)
        for name, outcome in (("passes", Outcome.PASS), ("is_open", Outcome.INCONCLUSIVE), ("fails", Outcome.FAIL))
    )
    record = dataclasses.replace(made.record, verdicts=(first, second, third), errors={})

    text = page(record, made.samples, origin=made.origin)

    assert text.index("test_fails") < text.index("test_is_open") < text.index("test_passes")


def section(text: str) -> str:
    """Return what the page's section on decisions shows without a click."""
    (decision,) = re.findall(r'<section id="decision".*?</section>', text, flags=re.DOTALL)
    return re.sub(r"<details>.*?</details>", "", decision, flags=re.DOTALL)


def test_a_decision_says_its_grounds_what_changed_and_which_cases_turned() -> None:
    shown = section(text_of(decided()))

    for words in ("Against it:", "FAIL  test_tickets, text: 10 % of tokens fork", "test_app: assert 1 == 2"):
        assert words in shown
    rows = re.findall(r'<th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td>', shown)
    assert ("context_length", "4096", "2048") in rows
    assert [name for name, *_ in rows] == ["template_sha256", "context_length", "args", "device (the machine)"]
    assert "--ctx-size 4096" in shown
    assert "told by one of them only: digest" in shown
    assert "the same: kind, version" in shown
    assert "8 right before and wrong now, 1 wrong before and right now" in shown
    turned = re.findall(r"<li>(?:<a [^>]*>)?(silent-6|odd/8 &amp;\?#|gone-\d|wrong-7|case-\d+)(?:</a>)?", shown)
    assert turned[:5] == ["silent-6", "odd/8 &amp;?#", "gone-0", "gone-1", "gone-2"]
    assert turned[5:] == ["wrong-7", *(f"case-{number}" for number in range(5))]
    assert HOSTILE not in shown
    assert "45 more, and 10 that are only counted" in text_of(decided())


def test_a_case_that_turned_links_to_its_answers() -> None:
    text = text_of(decided())

    assert '<a href="#case-odd%2F8%20%26%3F%23">odd/8 &amp;?#</a>' in section(text)
    assert "<li>gone-0 " in section(text)


def test_a_decision_of_an_older_version_is_its_sentence() -> None:
    made = decided(flips=None, verdicts=(), broken=(), changed=(), regressions=(), improvements=(), changed_cases=())
    text = text_of(made)

    assert "HOLD: dev should not replace prod." in text
    assert 'id="decision"' not in text
    assert "#decision" not in re.sub("<style.*?</style>", "", text, flags=re.DOTALL)


def test_what_moves_a_reader_is_visible() -> None:
    markup = re.sub("<script.*?</script>", "", text_of(varied()), flags=re.DOTALL)

    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00-\x08\x1b]", markup)
    assert "\\u202egnirts" in markup
    assert HOSTILE not in markup


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    made = varied()

    with pytest.raises(UsageError, match=r"report.html cannot be written .*choose another --parity-out"):
        write(made.record, made.samples, tmp_path / "file", origin=made.origin)
