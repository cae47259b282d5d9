"""Images and sound in prompts: what is accepted, what stands for their bytes, and what goes out."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import PromptSetError, UsageError
from pytest_llmparity.core.golden.records import wanted
from pytest_llmparity.core.prompts import Case, parts
from pytest_llmparity.core.prompts.reading import messages_of, parse_prompts, prompts_of
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.run.probe.media import red_image, silence

PNG, WAV = red_image(), silence()
FILES = {"x.png": PNG, "x.wav": WAV, "notes.txt": b"not an image", "empty.png": b""}
SPOKEN = base64.b64encode(WAV).decode()
TEXT = {"type": "text", "text": "What is this?"}


def uri(content: bytes = PNG, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def read(name: str) -> bytes:
    if name not in FILES:
        raise FileNotFoundError(2, "there is no such file beside the prompts")
    return FILES[name]


def case(*content: Mapping[str, Any], **fields: Any) -> Case:
    row = {"id": "a", "messages": [{"role": "user", "content": [*content]}], **fields}
    (parsed,) = parse_prompts(json.dumps(row), source="p.jsonl", name="p", read=read).cases
    return parsed


def complaint(*content: Mapping[str, Any], role: str = "user") -> str:
    row = {"id": "a", "messages": [{"role": role, "content": [*content]}]}
    with pytest.raises(PromptSetError) as caught:
        parse_prompts(f"\n{json.dumps(row)}", source="p.jsonl", name="p", read=read)
    return str(caught.value)


def sent(parsed: Case) -> list[Mapping[str, Any]]:
    request = parsed.request(Sampling())
    return parts.sent(request.messages or (), request.attached)


def test_a_file_stands_in_a_case_as_its_hash_and_goes_out_as_a_data_uri() -> None:
    parsed = case(TEXT, {"type": "image", "file": "x.png", "detail": "low"}, {"type": "audio", "file": "x.wav"})

    assert parsed.messages is not None
    _, image, sound = parsed.messages[0]["content"]
    sha = hashlib.sha256(PNG).hexdigest()
    assert image == {
        "type": "image_url",
        "image_url": {"url": f"sha256:{sha}", "detail": "low"},
        "file": "x.png",
        "media_type": "image/png",
        "bytes": len(PNG),
    }
    assert sound["input_audio"]["format"] == "wav"
    assert parsed.attached == {sha: PNG, hashlib.sha256(WAV).hexdigest(): WAV}
    assert sent(parsed)[0]["content"] == [
        TEXT,
        {"type": "image_url", "image_url": {"url": uri(), "detail": "low"}},
        {"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}},
    ]


def test_data_uris_and_addresses_go_out_as_they_came() -> None:
    web = {"type": "image_url", "image_url": {"url": "https://example.com/x.png", "detail": "auto"}}
    image = {"type": "image_url", "image_url": {"url": uri()}}
    sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(WAV).decode(), "format": "wav"}}

    parsed = case(TEXT, web, image, sound)

    assert sent(parsed)[0]["content"] == [TEXT, web, image, sound]
    assert len(parsed.attached) == 2
    assert uri()[30:] not in json.dumps(parsed.messages)


def test_the_identity_of_a_set_covers_the_bytes_of_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    row = json.dumps({"id": "a", "messages": [{"role": "user", "content": [{"type": "image", "file": "x.png"}]}]})

    before = parse_prompts(row, source="p.jsonl", name="p", read=read)
    again = parse_prompts(row, source="p.jsonl", name="p", read=read)
    monkeypatch.setitem(FILES, "x.png", PNG + b"\0")
    after = parse_prompts(row, source="p.jsonl", name="p", read=read)

    assert before.digest == again.digest != after.digest
    asked = [wanted(each.cases[0].request(Sampling())).prompt for each in (before, again, after)]
    assert asked[0] == asked[1] != asked[2]


def test_a_file_s_folder_is_in_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FILES, "/home/me/photos/x.png", PNG)

    assert "home" not in json.dumps(case({"type": "image", "file": "/home/me/photos/x.png"}).messages)


def test_variables_are_filled_into_the_names_of_files() -> None:
    parsed = case({"type": "text", "text": "{n}"}, {"type": "image", "file": "{n}.png"}, vars={"n": "x"})

    assert parsed.messages is not None
    assert [part.get("text", part.get("file")) for part in parsed.messages[0]["content"]] == ["x", "x.png"]


def test_rows_made_in_python_and_yaml_may_hold_them_too() -> None:
    row = {"id": "a", "messages": [{"role": "user", "content": [{"type": "image", "file": "x.png"}]}]}
    text = "- id: a\n  messages:\n  - role: user\n    content:\n    - type: image\n      file: x.png\n"

    made = prompts_of([row], source="rows", name="p", read=read)
    written = parse_prompts(text, source="p.yaml", name="p", read=read)

    assert made.digest == written.digest
    assert made.cases[0].attached == written.cases[0].attached != {}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image", "file": "y.png"}, "names 'y.png', which cannot be read: there is no such file"),
        ({"type": "image", "file": "notes.txt"}, "names 'notes.txt', which holds no image: PNG, JPEG, GIF and WebP"),
        ({"type": "image", "file": "x.wav"}, "names 'x.wav', which holds no image"),
        ({"type": "audio", "file": "x.png"}, "names 'x.png', which holds no sound: WAV, MP3 and FLAC are read"),
        ({"type": "image", "file": "empty.png"}, "names 'empty.png', which holds no image"),
        ({"type": "image", "file": ""}, "a part is {"),
        ({"type": "image_url", "image_url": {"url": "x.png"}}, "has a url that is neither http(s):// nor data:"),
        ({"type": "image_url", "image_url": {"url": uri(kind="image/jpeg")}}, "says image/jpeg and holds image/png"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,%%"}}, "holds data that is no base64"),
        ({"type": "image_url", "image_url": {"url": f"sha256:{'0' * 64}"}}, "has a url that is neither"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "holds no sound"),
        ({"type": "input_audio", "input_audio": {"data": SPOKEN, "format": "mp3"}}, "says format 'mp3' and holds wav"),
        ({"type": "video", "file": "x.mp4"}, 'has a part of type "video" at 0; parts are of type text, image, audio'),
        ({"type": "image", "path": "x.png"}, 'a part is {"type": "image", "file": "x.png"}'),
        ({"type": "image_url", "image_url": "https://h/x.png"}, 'a part is {"type": "image_url"'),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value[:30],
)
def test_what_is_no_part_is_an_error_with_its_line(part: dict[str, Any], words: str) -> None:
    message = complaint(part)

    assert message.startswith("p.jsonl:2: messages[0].content")
    assert words in message
    assert len(message) < 400


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_only_the_user_shows_images(role: str) -> None:
    assert 'has a part of type "image", which only a user\'s turn may have' in complaint(
        {"type": "image", "file": "x.png"}, role=role
    )


def test_a_file_that_is_too_large_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "MAX_BYTES", len(PNG) - 1)

    assert f"has {len(PNG)} bytes; up to {len(PNG) - 1} are sent" in complaint({"type": "image", "file": "x.png"})


def test_what_is_asked_on_the_spot_may_hold_data_and_no_file() -> None:
    turn = {"role": "user", "content": [TEXT, {"type": "image_url", "image_url": {"url": uri()}}]}

    assert messages_of([turn], place="parity.ask") == (turn,)
    with pytest.raises(UsageError, match="names a file, which only a prompt file or a test's own rows can"):
        messages_of([{"role": "user", "content": [{"type": "image", "file": "x.png"}]}], place="parity.ask")


@pytest.mark.parametrize(
    ("beginning", "kind"),
    [
        (b"\xff\xd8\xff\xe0" + bytes(8), "image/jpeg"),
        (b"GIF89a" + bytes(8), "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
    ],
)
def test_images_are_known_by_how_they_begin(beginning: bytes, kind: str) -> None:
    assert parts.image_type(beginning) == kind


@pytest.mark.parametrize(("beginning", "kind"), [(b"ID3\x04", "mp3"), (b"\xff\xfb\x90", "mp3"), (b"fLaC", "flac")])
def test_sound_is_known_by_how_it_begins(beginning: bytes, kind: str) -> None:
    assert parts.audio_format(beginning) == kind


@given(st.binary(max_size=40))
def test_any_bytes_are_some_kind_or_refused(content: bytes) -> None:
    for kind_of in (parts.image_type, parts.audio_format):
        with contextlib.suppress(ValueError):
            assert kind_of(content)


def test_what_was_sent_is_written_down_with_hashes_in_the_place_of_bytes() -> None:
    encoded = base64.b64encode(PNG).decode()
    content = [{"type": "image_url", "image_url": {"url": uri()}}, {"type": "input_image", "image_url": uri()}]
    sound = {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}
    body = {"messages": [{"role": "user", "content": [*content, sound]}, {"role": "user", "images": [encoded]}]}

    noted = parts.without_bytes(body)

    assert encoded not in json.dumps(noted)
    assert parts.without_bytes(noted) == noted
    assert noted["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,sha256:")
    assert noted["messages"][1]["images"][0].startswith("sha256:")
    other = json.loads(json.dumps(body).replace(encoded, base64.b64encode(WAV).decode()))
    assert parts.without_bytes(other) != noted


def test_the_doubles_send_images_and_sound_that_are_some() -> None:
    size, kind = struct.unpack(">II", PNG[16:24]), PNG[12:16]
    assert (size, kind) == ((64, 64), b"IHDR")
    assert zlib.crc32(b"IEND") == struct.unpack(">I", PNG[-4:])[0]
    assert struct.unpack("<I", WAV[4:8])[0] == len(WAV) - 8
