"""Recordings on disk: what was written is read again, and what somebody else made is looked at before it is used."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import jsonschema_rs
import pytest

from pytest_llmparity.core.errors import RecordingError
from pytest_llmparity.core.recording import chunk
from pytest_llmparity.settings import schemas
from pytest_llmparity.store import lines, recordings
from tests.core.test_recording import exchanged, recorded


def shipped() -> str:
    return resources.files("pytest_llmparity").joinpath("schemas/recording.schema.json").read_text("utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = recordings.place(tmp_path, "prod")
    recordings.write(path, recorded(exchanged(chunk(0.1, "ä".encode()[:1]), chunk(0.2, "ä".encode()[1:])), exchanged()))
    return path


def test_what_was_written_is_read_again(file: Path) -> None:
    again = recordings.read(file)

    assert again.exchanges[0].body == "ä".encode()
    assert again.header == recordings.header(file)
    assert again.header.whose == "prod (openai 1.0) as recorded 2026-11-29"
    recordings.write(file, again)
    assert recordings.read(file) == again


def test_every_line_is_as_the_published_schema_says_and_that_is_current(file: Path) -> None:
    published = json.loads(shipped())

    for line in file.read_text("utf-8").splitlines():
        assert jsonschema_rs.is_valid(published, json.loads(line))
    assert not jsonschema_rs.is_valid(published, {"case": "a"})
    assert shipped() == schemas.recording()


@pytest.mark.parametrize("name", ["../prod", "Prod", "", "a/b", ".x", "a\n", "a b"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(RecordingError, match="can be no name of a recording"):
        recordings.place(tmp_path, name)


def test_no_link_leads_out_of_the_folder(tmp_path: Path, file: Path) -> None:
    (tmp_path / "elsewhere.jsonl").write_bytes(file.read_bytes())
    (file.parent / "linked.jsonl").symlink_to(tmp_path / "elsewhere.jsonl")

    with pytest.raises(RecordingError, match=r"^recordings/linked\.jsonl leads out of recordings/"):
        recordings.place(tmp_path, "linked")


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ('"format": 1', '"format": 2', r"prod\.jsonl has format 2, and this version reads 1"),
        ('"exchanges": 2', '"exchanges": 3', "says that it has 3 answers and has 2: it was cut"),
        ('"exchanges": 2', '"exchanges": "\\u001b[31m2"', r"^recordings/prod\.jsonl:1: Expected `int`"),
        ('"phase": "main"', '"phase": "mine"', r"^recordings/prod\.jsonl:2: Invalid enum value"),
        ('"api": null', '"api": "@evil.example/v1"', r"^recordings/prod\.jsonl:1: Expected `str` matching regex"),
        ('"context_length": null', '"context_length": -5', r"^recordings/prod\.jsonl:1: Expected `int` >= 1"),
        ('"capabilities": {}', '"capabilities": {"logprobs": "maybe"}', r"^recordings/prod\.jsonl:1: capabilities: "),
        ('"status": 200', '"status": 99', r"^recordings/prod\.jsonl:2: Expected `int` >= 200"),
        ('"method": "POST"', '"method": "PO ST"', r"^recordings/prod\.jsonl:2: Invalid enum value"),
        ("/v1/chat/completions", "/v1\\r\\nx: y", r"^recordings/prod\.jsonl:2: Expected `str` matching regex"),
        ("text/event-stream", "text/x\\r\\nset-cookie: a", r"^recordings/prod\.jsonl:2: Expected `str` matching regex"),
        ("[100.0,", "[-1,", r"^recordings/prod\.jsonl:2: Expected `float` >= 0"),
        ("[100.0,", "[1e99,", r"^recordings/prod\.jsonl:2: Expected `float` <= 3600000"),
        ("[100.0,", "[300.0,", r"^recordings/prod\.jsonl:2: its chunks are not in order of time"),
        ('{"base64": "ww=="}', '{"base64": "w"}', r"^recordings/prod\.jsonl:2: "),
        ('"request": {', '"request": {"x": ' + "[" * 2000 + "]" * 2000 + ", ", "nested too deeply|recursion"),
        ('{"case"', '<<<<<<< ours\n{"case"', "a merge was not finished"),
        ('{"case"', 'not JSON\n{"case"', "malformed"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(file: Path, before: str, after: str, why: str) -> None:
    text = file.read_text("utf-8")
    assert before in text
    file.write_text(text.replace(before, after, 1), "utf-8")

    with pytest.raises(RecordingError, match=why) as refused:
        recordings.read(file)
    assert "\x1b" not in str(refused.value)


def test_sizes_are_looked_at_before_anything_is_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, words in (("MOST_BYTES", "bytes"), ("MOST_OF_A_LINE", "a line has up to"), ("MOST_LINES", "lines")):
        with monkeypatch.context() as patch:
            patch.setattr(lines, name, 1)
            with pytest.raises(RecordingError, match=words):
                recordings.read(file)


def test_a_file_that_is_not_there_or_cannot_be_written_is_said(tmp_path: Path, file: Path) -> None:
    with pytest.raises(RecordingError, match=r"there is no recordings/gone\.jsonl; record it: llmparity record ENGINE"):
        recordings.read(recordings.place(tmp_path, "gone"))
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="cannot be written"):
        recordings.write(tmp_path / "file" / "a.jsonl", recordings.read(file))
    assert recordings.digest(file) != recordings.digest(tmp_path / "gone") == ""
