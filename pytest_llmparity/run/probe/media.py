"""Probes that find out whether a server reads the images and the sound of a prompt, or drops them without a word."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final

from pytest_llmparity.run.probe.probes import Probe, Prober, Undecided, asking

WORDS: Final = {"type": "text", "text": "Say in one word what this is."}
SIDE: Final = 64
"""Width and height of the image in pixels: some models take none smaller than 28."""
SECONDS: Final = 0.5
RATE: Final = 8000
"""Samples of the sound in a second."""


def red_image() -> bytes:
    """Return a PNG of one colour."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        whole = kind + content
        return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))

    rows = (b"\0" + bytes((200, 30, 30)) * SIDE) * SIDE
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows, 9)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def silence() -> bytes:
    """Return a WAV of 16 bits and one channel in which nothing is heard."""
    samples = bytes(int(SECONDS * RATE) * 2)
    form = struct.pack("<HHIIHH", 1, 1, RATE, RATE * 2, 2, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _read(prober: Prober, field: str, part: Mapping[str, Any]) -> Mapping[str, object]:
    """Ask the same with and without a part: what is read makes the prompt longer.

    A server that refuses it says so; one that answers from a prompt as long as without it has dropped it, as
    ``transformers serve`` does with a model of text.
    """
    bare = prober.ask(asking([{"role": "user", "content": [WORDS]}], max_tokens=8))
    whole = prober.ask_where_taken(asking([{"role": "user", "content": [WORDS, part]}], max_tokens=8))
    if whole is None:
        return {field: False}
    if bare.prompt_tokens is None or whole.prompt_tokens is None:
        raise Undecided("it takes one and does not count the tokens of prompts")
    if whole.prompt_tokens <= bare.prompt_tokens:
        prober.refusal = f"it took one and read the same {bare.prompt_tokens} tokens as without it"
        return {field: False}
    return {field: True}


def _images(prober: Prober) -> Mapping[str, object]:
    encoded = base64.b64encode(red_image()).decode()
    return _read(prober, "images", {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}})


def _audio(prober: Prober) -> Mapping[str, object]:
    encoded = base64.b64encode(silence()).decode()
    return _read(prober, "audio", {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}})


IMAGES: Final = Probe(fields=("images",), requests=2, run=_images)
AUDIO: Final = Probe(fields=("audio",), requests=2, run=_audio)
