"""What a recording keeps of an exchange, which of its answers a request gets, and what it must not hold."""

from __future__ import annotations

import base64
import json
import urllib.parse
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import RecordingError
from pytest_llmparity.core.golden.records import Told
from pytest_llmparity.core.prompts import unseen
from pytest_llmparity.core.recording import (
    Chunk,
    Exchanged,
    Header,
    Raw,
    Recorded,
    chunk,
    data_of,
    question,
    refuse_private,
    unnumbered,
)
from pytest_llmparity.core.sample import Phase, Request
from pytest_llmparity.core.words.masking import Mask

KEY = "sk-Prod/Key+ä 7391"
ENCODED = {
    "raw": KEY,
    "escaped": json.dumps(KEY)[1:-1],
    "quoted": urllib.parse.quote(KEY, safe=""),
    "base64": base64.b64encode(KEY.encode()).decode(),
    "basic": base64.b64encode(f"user:{KEY}".encode()).decode(),
}


def header(**others: Any) -> Header:
    values: dict[str, Any] = {
        "format": 1,
        "engine": "prod",
        "kind": "openai",
        "version": "1.0",
        "model": "tiny",
        "route": "openai",
        "api": None,
        "context_length": None,
        "lock": "0" * 12,
        "recorded": "2026-11-29",
        "exchanges": 1,
        "plugin": "0.1",
        "identity": {"build": Told(value="b1", source="reported")},
        "launch": {"launch": "attach"},
    }
    return Header(**{**values, **others})


def exchanged(*chunks: Chunk, case: str = "a", request: dict[str, Any] | None = None, **others: Any) -> Exchanged:
    values: dict[str, Any] = {
        "case": case,
        "phase": Phase.MAIN,
        "concurrency": 4,
        "method": "POST",
        "path": "/v1/chat/completions",
        "request": request or {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]},
        "status": 200,
        "type": "text/event-stream",
        "chunks": chunks or (chunk(0.01, b"data: {}\n\n"),),
    }
    return Exchanged(**{**values, **others})


def recorded(*exchanges: Exchanged, **of_header: Any) -> Recorded:
    return Recorded(header=header(**{"exchanges": len(exchanges), **of_header}), exchanges=exchanges)


@given(st.lists(st.binary(), max_size=5))
def test_the_bytes_of_an_answer_are_kept_whatever_they_are(parts: list[bytes]) -> None:
    given_ones = exchanged(*(chunk(place / 100, part) for place, part in enumerate(parts)))

    again = msgspec.json.decode(msgspec.json.encode(given_ones), type=Exchanged)

    assert again.body == (b"".join(parts) or given_ones.body)
    assert again == given_ones


@pytest.mark.parametrize("phase", ["chat", "parts", "raw"])
def test_a_timed_request_is_known_without_its_number(phase: str) -> None:
    content: Any = [{"type": "text", "text": "Hi"}] if phase == "parts" else "Hi"
    request = Request(case="a", prompt="Hi") if phase == "raw" else Request(case="a", messages=({"content": content},))
    numbered = unseen.behind(unseen.number("run", 1), request)
    assert numbered is not None

    def body(of: Request) -> Any:
        return json.loads(json.dumps({"prompt": of.prompt} if phase == "raw" else {"messages": of.messages}))

    assert unnumbered(body(numbered)) == body(request)
    assert unnumbered(body(request)) is None


@pytest.mark.parametrize("body", [None, "x", {}, {"messages": []}, {"messages": [1]}, {"messages": [{"content": [1]}]}])
def test_what_is_no_timed_request_is_none(body: Any) -> None:
    assert unnumbered(body) is None


def test_the_order_of_keys_does_not_count() -> None:
    assert question("POST", "/", {"a": 1, "b": 2}) == question("POST", "/", {"b": 2, "a": 1})
    assert question("POST", "/", {"a": 1}) != question("POST", "/", {"a": 1.5})


def test_times_that_run_backwards_and_what_is_no_base64_are_refused() -> None:
    with pytest.raises(ValueError, match="not in order of time"):
        exchanged((20.0, "a"), (10.0, "b"))
    with pytest.raises(ValueError, match="base64"):
        exchanged((20.0, Raw(base64="w")))
    with pytest.raises(ValueError, match="base64"):
        data_of(Raw(base64="w?=="))


def spelt(text: str) -> list[Chunk]:
    """Return a stream in which every event says one character."""
    events = [f"data: {json.dumps({'choices': [{'delta': {'content': letter}}]})}\n\n" for letter in text]
    return [chunk(place / 1000, event.encode()) for place, event in enumerate(events)]


def refused(made: Recorded, *, folders: tuple[str, ...] = ()) -> str:
    with pytest.raises(RecordingError) as error:
        refuse_private(
            made, where="recordings/p.jsonl", mask=Mask({"PROD_KEY": KEY}), variables=["PROD_KEY"], folders=folders
        )
    assert KEY not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("form", ENCODED)
def test_a_key_is_refused_in_every_encoding_and_place(form: str) -> None:
    text = ENCODED[form]
    ok = exchanged(case="fine")

    said_in_pieces = refused(recorded(ok, exchanged(*spelt(f"you sent {text}"), case="c-7")))
    cut_in_the_middle = refused(recorded(exchanged(chunk(0.1, text[:5].encode()), chunk(0.2, text[5:].encode()))))
    asked = refused(recorded(exchanged(request={"messages": [{"content": text}]}, case="c-7")))
    in_header = refused(recorded(ok, identity={"build": Told(value=f"x {text}", source="reported")}))

    assert said_in_pieces.startswith(
        "recordings/p.jsonl is not written: line 3 (case c-7, main): its answer holds the value of a key variable"
    )
    assert "line 2 (case a, main): its answer holds the value" in cut_in_the_middle
    assert "line 2 (case c-7, main): its request holds the value" in asked
    assert "identity.build holds the value of a key variable" in in_header


def test_what_a_mask_left_is_refused_too_and_so_is_what_looks_like_a_key() -> None:
    assert "its answer holds the value" in refused(recorded(exchanged(*spelt("«PROD_KEY»"))))
    assert "looks like a key (not shown)" in refused(recorded(exchanged(*spelt("sk-proj-" + "a1B2" * 10))))


def test_folders_of_this_machine_are_refused() -> None:
    path = refused(recorded(exchanged(*spelt("see /srv/proj/x"))), folders=("/srv/proj",))
    model = refused(recorded(exchanged(), model="/home/me/tiny.gguf"))

    assert path.endswith("its answer names a folder of this machine; keep such paths out of the prompt")
    assert "model holds a path of this machine, '/home/me/tiny.gguf'" in model


def test_an_ordinary_recording_is_written() -> None:
    made = recorded(exchanged(*spelt("/srv/project is a folder")), exchanged(case="b", status=500))

    refuse_private(made, where="x", mask=Mask({"PROD_KEY": KEY}), variables=["PROD_KEY"], folders=("/srv/proj",))
