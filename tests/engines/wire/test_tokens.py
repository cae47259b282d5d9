from __future__ import annotations

import pytest

from pytest_llmparity.engines.wire.tokens import SPELLINGS, byte_level, sentence_piece


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("The", b"The"),
        ("Ġcapital", b" capital"),
        ("Ċ", b"\n"),
        ("Ã©", "é".encode()),
        ("ðŁ", b"\xf0\x9f"),
        ("<|im_end|>", b"<|im_end|>"),
        ("<end▁of▁sentence>", "<end▁of▁sentence>".encode()),
    ],
)
def test_byte_level_token_is_its_bytes(token: str, expected: bytes) -> None:
    assert byte_level(token) == expected


@pytest.mark.parametrize(
    ("token", "expected"),
    [("▁capital", b" capital"), ("é", "é".encode()), ("<0xC3>", b"\xc3"), ("<0xC3>x", b"<0xC3>x")],
)
def test_sentence_piece_token_is_its_bytes(token: str, expected: bytes) -> None:
    assert sentence_piece(token) == expected


def test_every_byte_has_a_letter_of_its_own() -> None:
    letters = [chr(code) for code in range(0x180) if len(byte_level(chr(code))) == 1]

    assert {byte_level(letter) for letter in letters} == {bytes([byte]) for byte in range(256)}


def test_lone_surrogate_does_not_break_a_spelling() -> None:
    assert [spelled("\ud800") for spelled in SPELLINGS] == [b"?", b"?"]
