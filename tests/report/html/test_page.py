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
from tests.report.html.made import HOSTILE, Made, varied, verdict


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
