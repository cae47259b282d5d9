"""Images and audio in a prompt: which there are, where their bytes come from, and what stands for them elsewhere.

A case holds a part with its bytes' hash in their place, so that nothing that is stored or shown of it grows with them;
the bytes stand beside it, by that hash, and take their place in what is sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

MAX_BYTES: Final = 20 * 2**20
"""Bytes of one image or recording: they are held in memory, and sent with a third more."""

Read: TypeAlias = Callable[[str], bytes]
"""Returns the bytes of a file that a prompt names; raises ``OSError`` whose ``strerror`` says why it cannot."""

IMAGE: Final = "image_url"
AUDIO: Final = "input_audio"
MEDIA: Final[Mapping[str, str]] = {IMAGE: "images", AUDIO: "audio"}
"""Types of parts that are no text, in OpenAI's words, each with the capability of an engine that reads them."""
FORMATS: Final = ("wav", "mp3", "flac")

_IMAGES: Final = (
    ("image/png", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("image/jpeg", re.compile(rb"\xff\xd8\xff")),
    ("image/gif", re.compile(rb"GIF8[79]a")),
    ("image/webp", re.compile(rb"RIFF....WEBP", re.DOTALL)),
)
_SOUNDS: Final = (
    ("wav", re.compile(rb"RIFF....WAVE", re.DOTALL)),
    ("mp3", re.compile(rb"ID3|\xff[\xe2-\xff]")),
    ("flac", re.compile(rb"fLaC")),
)
"""How files of a kind begin, whatever they are called."""
_DATA: Final = re.compile(r"data:(?P<type>[\w.+/-]*)(;[\w=.-]+)*;base64,(?P<data>.*)", re.DOTALL | re.IGNORECASE)
_HASHED: Final = re.compile(r"sha256:(?P<sha>[0-9a-f]{64})")
_OURS: Final = ("file", "bytes", "media_type")
"""What a part of a case says of its bytes beside OpenAI's fields."""


def media_of(messages: Sequence[Mapping[str, Any]] | None) -> frozenset[str]:
    """Return what an engine must be able to read beside text: ``images``, ``audio``.

    >>> media_of([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://h/x.png"}}]}])
    frozenset({'images'})
    """
    return frozenset(MEDIA[part["type"]] for part in parts_of(messages) if part.get("type") in MEDIA)


def parts_of(messages: Sequence[Mapping[str, Any]] | None) -> Iterator[Mapping[str, Any]]:
    """Yield the parts of every message whose content is a list."""
    for message in messages or ():
        content = message.get("content")
        if isinstance(content, (list, tuple)):
            yield from (part for part in content if isinstance(part, Mapping))


def kept(part: Mapping[str, Any], attached: dict[str, bytes], read: Read | None) -> dict[str, Any]:
    """Return a part as a case holds it; its bytes go into ``attached``.

    Text and addresses of the web stay as they are. ``read`` reads the file a part names, ``None`` where none can be
    named. Raises ``ValueError`` with the end of a sentence about the part.
    """
    kind = part["type"]
    if kind == "image":
        held, form = _read(part["file"], read, image_type)
        image = {"url": _hashed(held, attached), **({"detail": part["detail"]} if "detail" in part else {})}
        return {"type": IMAGE, IMAGE: image, **_about(part["file"], held, form)}
    if kind == "audio":
        held, form = _read(part["file"], read, audio_format)
        sound = {"data": _hashed(held, attached), "format": form}
        return {"type": AUDIO, AUDIO: sound, **_about(part["file"], held, f"audio/{form}")}
    if kind == IMAGE:
        url = part[IMAGE]["url"]
        if url.lower().startswith(("http://", "https://")):
            return dict(part)
        held, named = _decoded(url)
        form = image_type(held)
        if named and named.lower().replace("image/jpg", "image/jpeg") != form:
            raise ValueError(f"says {named} and holds {form}")
        return {**part, IMAGE: {**part[IMAGE], "url": _hashed(held, attached)}, **_about("", held, form)}
    if kind == AUDIO:
        held = _base64(part[AUDIO]["data"])
        form = audio_format(held)
        if form != part[AUDIO]["format"]:
            raise ValueError(f"says format {part[AUDIO]['format']!r} and holds {form}")
        sound = {**part[AUDIO], "data": _hashed(held, attached)}
        return {**part, AUDIO: sound, **_about("", held, f"audio/{form}")}
    return dict(part)


def sent(messages: Sequence[Mapping[str, Any]], attached: Mapping[str, bytes]) -> list[Mapping[str, Any]]:
    """Return messages with the bytes of their parts in OpenAI's shape: data URIs, base64."""
    if not attached:
        return list(messages)
    return [
        {**message, "content": [_sent(part, attached) for part in message["content"]]}
        if isinstance(message.get("content"), (list, tuple))
        else message
        for message in messages
    ]


def _sent(part: Mapping[str, Any], attached: Mapping[str, bytes]) -> Mapping[str, Any]:
    plain = {name: value for name, value in part.items() if name not in _OURS}
    kind = str(part.get("type"))
    name = {IMAGE: "url", AUDIO: "data"}.get(kind)
    held = None if name is None else _HASHED.fullmatch(part[kind][name])
    if name is None or held is None:
        return plain
    encoded = base64.b64encode(attached[held["sha"]]).decode()
    whole = f"data:{part['media_type']};base64,{encoded}" if kind == IMAGE else encoded
    return {**plain, kind: {**part[kind], name: whole}}


def spoken(part: Mapping[str, Any]) -> str:
    """Return what people are shown of a part that is no text: its type, name and size, and how its hash begins.

    >>> image = {"url": f"sha256:{'ab' * 32}"}
    >>> spoken({"type": "image_url", "image_url": image, "file": "x.png", "media_type": "image/png", "bytes": 1234})
    '[image/png x.png, 1,234 bytes, sha256 abababababab]'
    >>> spoken({"type": "image_url", "image_url": {"url": "https://example.com/x.png"}})
    '[image_url https://example.com/x.png]'
    """
    kind = str(part.get("type", "part"))
    held = part.get(kind)
    place = str(held.get("url", held.get("data", ""))) if isinstance(held, Mapping) else ""
    hashed = _HASHED.fullmatch(place)
    if hashed is None:
        where = place if place.startswith(("http://", "https://")) else ""
        return f"[{' '.join(filter(None, (kind, where[:200])))}]"
    name = " ".join(filter(None, (str(part.get("media_type", kind)), str(part.get("file", "")))))
    return f"[{name}, {part.get('bytes', 0):,} bytes, sha256 {hashed['sha'][:12]}]"


def without_bytes(value: Any) -> Any:
    """Return JSON that was sent with a hash in the place of every image and sound, as it is written down.

    What was written down so stays as it is.

    >>> without_bytes({"url": "data:image/png;base64,AAAA"})["url"][:30]
    'data:image/png;base64,sha256:7'
    """
    if isinstance(value, str):
        uri = _DATA.fullmatch(value) if value[:5].lower() == "data:" else None
        return value if uri is None else value[: uri.start("data")] + _digest(uri["data"])
    if isinstance(value, list):
        return [without_bytes(item) for item in value]
    if not isinstance(value, dict):
        return value
    hashed = {name: without_bytes(item) for name, item in value.items()}
    if isinstance(value.get("data"), str) and value.get("format") in FORMATS:
        hashed["data"] = _digest(value["data"])
    if isinstance(value.get("images"), list) and "role" in value:  # a turn of Ollama's own route
        hashed["images"] = [_digest(item) if isinstance(item, str) else item for item in value["images"]]
    return hashed


def image_type(content: bytes) -> str:
    """Return the media type of an image by how it begins; ``ValueError`` where it is none that engines read."""
    kind = next((name for name, begins in _IMAGES if begins.match(content)), None)
    if kind is None:
        raise ValueError("holds no image: PNG, JPEG, GIF and WebP are read")
    return kind


def audio_format(content: bytes) -> str:
    """Return the format of a recording of sound by how it begins; ``ValueError`` where it is none engines read."""
    kind = next((name for name, begins in _SOUNDS if begins.match(content)), None)
    if kind is None:
        raise ValueError("holds no sound: WAV, MP3 and FLAC are read")
    return kind


def _about(file: str, content: bytes, media_type: str) -> dict[str, Any]:
    name = re.split(r"[/\\]", file)[-1]  # where it lies on this machine is nobody's affair
    return {**({"file": name} if name else {}), "media_type": media_type, "bytes": len(content)}


def _hashed(content: bytes, attached: dict[str, bytes]) -> str:
    if len(content) > MAX_BYTES:
        raise ValueError(f"has {len(content)} bytes; up to {MAX_BYTES} are sent")
    sha = hashlib.sha256(content).hexdigest()
    attached[sha] = content
    return f"sha256:{sha}"


def _digest(encoded: str) -> str:
    if _HASHED.fullmatch(encoded):
        return encoded
    return f"sha256:{hashlib.sha256(encoded.encode()).hexdigest()}"


def _read(file: str, read: Read | None, kind_of: Callable[[bytes], str]) -> tuple[bytes, str]:
    """Return what a file holds, and which of the kinds that engines read it is."""
    if read is None:
        raise ValueError("names a file, which only a prompt file or a test's own rows can; give a data URI")
    try:
        content = read(file)
        return content, kind_of(content)
    except OSError as error:
        raise ValueError(f"names {file!r}, which cannot be read: {error.strerror or error}") from None
    except ValueError as wrong:
        raise ValueError(f"names {file!r}, which {wrong}") from None


def _decoded(url: str) -> tuple[bytes, str]:
    uri = _DATA.fullmatch(url)
    if uri is None:
        raise ValueError(
            'has a url that is neither http(s):// nor data:…;base64,…; a file is {"type": "image", "file": "x.png"}'
        )
    return _base64(uri["data"]), uri["type"]


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("holds data that is no base64") from None
