from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import jsonschema_rs
import pytest

from pytest_llmparity.core.errors import GoldenError
from pytest_llmparity.core.golden.folding import fold
from pytest_llmparity.core.golden.records import Golden
from pytest_llmparity.core.golden.updating import Update, renew
from pytest_llmparity.core.sample import Phase, TokenLogprob
from pytest_llmparity.settings import schemas
from pytest_llmparity.store import lines
from pytest_llmparity.store.golden import files
from tests.core.golden import test_golden as of_core


def shipped() -> str:
    return resources.files("pytest_llmparity").joinpath("schemas/golden.schema.json").read_text("utf-8")


@pytest.fixture
def golden() -> Golden:
    tokens = (TokenLogprob(token=b"\xe2", logprob=-0.1, top=((b"\xe2", -0.1), (b"a", -2.0))),)
    given = [of_core.sample("ä", logprobs=tokens), of_core.sample("b", Phase.COLD)]
    made = fold("b", of_core.ASKED, given, lock="0" * 12)
    assert made is not None
    return of_core.golden(made, of_core.folded("a", "x"), of=of_core.provenance(digest="d"))


def test_what_was_written_is_read_again_and_lines_are_in_order(tmp_path: Path, golden: Golden) -> None:
    files.write(tmp_path, "tickets", "prod", golden)

    assert files.read(tmp_path, "tickets", "prod") == golden
    lines = (tmp_path / "golden/tickets/prod.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line).get("id") for line in lines] == [None, "a", "b"]
    assert '"text": "ä"' in lines[2]
    assert len((tmp_path / "golden/tickets/prod.logprobs.jsonl").read_text("utf-8").splitlines()) == 1
    assert files.listing(tmp_path) == {"prod": ["tickets"]}


def test_every_line_is_as_the_published_schema_says(tmp_path: Path, golden: Golden) -> None:
    published = json.loads(
        resources.files("pytest_llmparity").joinpath("schemas/golden.schema.json").read_text("utf-8")
    )
    files.write(tmp_path, "tickets", "prod", golden)

    for path in (tmp_path / "golden/tickets").iterdir():
        for line in path.read_text("utf-8").splitlines():
            assert jsonschema_rs.is_valid(published, json.loads(line))
    assert not jsonschema_rs.is_valid(published, {"id": "a", "answers": []})


def test_the_published_schema_is_current() -> None:
    assert shipped() == schemas.golden()


def test_lines_that_are_equal_keep_their_bytes(tmp_path: Path, golden: Golden) -> None:
    files.write(tmp_path, "t", "prod", golden)
    path = tmp_path / "golden/t/prod.jsonl"
    before = path.read_bytes().splitlines()
    renewed = renew(golden, golden.provenance, [of_core.folded("a", "y")], update=Update.CHANGED)

    files.write(tmp_path, "t", "prod", renewed.golden)

    after = path.read_bytes().splitlines()
    assert after[2] == before[2]
    assert after[1] != before[1]


def test_a_golden_without_lines_is_removed(tmp_path: Path, golden: Golden) -> None:
    files.write(tmp_path, "t", "prod", golden)

    files.write(tmp_path, "t", "prod", None)

    assert list((tmp_path / "golden/t").iterdir()) == []
    assert files.read(tmp_path, "t", "prod") is None


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc", "", "A", ".hidden", "a.logprobs", "a\x00b"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(GoldenError, match="can be no name of a golden engine"):
        files.place(tmp_path, "tickets", name)
    if name != "A":
        with pytest.raises(GoldenError, match="can be no name of a golden set"):
            files.place(tmp_path, name, "prod")


def test_no_link_leads_out_of_the_folder(tmp_path: Path, golden: Golden) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden/t").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(GoldenError, match="leads out of golden/ by a symbolic link"):
        files.write(tmp_path, "t", "prod", golden)
    assert list((tmp_path / "elsewhere").iterdir()) == []


LINE = {"id": "a", "lock": "0" * 12, "prompt": "0" * 12, "sampling": "0" * 12, "answers": [{"main": 1}]}
HOSTILE: dict[str, Callable[[], bytes]] = {
    "no JSON": lambda: b"{",
    "another type": lambda: json.dumps({**LINE, "id": 1}).encode(),
    "no answer": lambda: json.dumps({**LINE, "answers": []}).encode(),
    "a count below zero": lambda: json.dumps({**LINE, "answers": [{"main": -1}]}).encode(),
    "a count that fills memory": lambda: json.dumps({**LINE, "answers": [{"main": 10**9}]}).encode(),
    "no hash": lambda: json.dumps({**LINE, "prompt": "../../etc"}).encode(),
    "too deep": lambda: b'{"id": "a", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "no UTF-8": lambda: json.dumps({**LINE, "id": "x"}).encode().replace(b"x", b"\xff"),
    "infinity": lambda: json.dumps({**LINE, "answers": [{"main": 1, "text": 1e999}]}).encode(),
    "a conflict": lambda: b"<<<<<<< HEAD",
    "two of a case": lambda: json.dumps(LINE).encode() + b"\n" + json.dumps(LINE).encode(),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_a_file_that_is_none_of_ours_is_refused_with_its_line(
    tmp_path: Path, golden: Golden, hostile: Callable[[], bytes]
) -> None:
    files.write(tmp_path, "t", "prod", golden)
    path = tmp_path / "golden/t/prod.jsonl"
    path.write_bytes(path.read_bytes().splitlines()[0] + b"\n" + hostile())

    with pytest.raises(GoldenError, match=r"^golden/t/prod\.jsonl:[23]: "):
        files.read(tmp_path, "t", "prod")


@pytest.mark.parametrize("first", [b"", b"[]", b'{"format": 2}', b'{"format": 1}', b'{"format": "\x1b[2J"}'])
def test_a_first_line_that_cannot_be_used_is_refused(tmp_path: Path, first: bytes) -> None:
    (tmp_path / "golden/t").mkdir(parents=True)
    (tmp_path / "golden/t/prod.jsonl").write_bytes(first)

    with pytest.raises(GoldenError) as refused:
        files.read(tmp_path, "t", "prod")
    assert "\x1b" not in str(refused.value)


def test_sizes_are_looked_at_before_anything_is_read(
    tmp_path: Path, golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(tmp_path, "t", "prod", golden)
    for name, words in (("MOST_BYTES", "bytes"), ("MOST_OF_A_LINE", "a line has up to"), ("MOST_LINES", "lines")):
        with monkeypatch.context() as patch:
            patch.setattr(lines, name, 1)
            with pytest.raises(GoldenError, match=words):
                files.read(tmp_path, "t", "prod")


def test_a_logprob_that_is_no_number_is_refused(tmp_path: Path, golden: Golden) -> None:
    files.write(tmp_path, "t", "prod", golden)
    path = tmp_path / "golden/t/prod.logprobs.jsonl"
    path.write_text(path.read_text("utf-8").replace("-0.1", "-1e999"), "utf-8")

    with pytest.raises(GoldenError, match=r"^golden/t/prod\.logprobs\.jsonl:1: "):
        files.read(tmp_path, "t", "prod")
