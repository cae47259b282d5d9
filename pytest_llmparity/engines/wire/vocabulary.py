"""Tokens as a vocabulary spells them, back to the bytes they stand for.

Servers that name tokens by their entry in the tokenizer's vocabulary show ``Ġcapital`` or ``▁capital`` where the text
has `` capital``. Both spellings lose nothing, but which one it is cannot be seen on every token, so callers try both
against a text they know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

_BYTE: Final = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _alphabet() -> Mapping[str, int]:
    """Return the letter that stands for each byte in GPT-2's spelling (``bytes_to_unicode`` of its encoder.py)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_LETTERS: Final = _alphabet()


def byte_level(token: str) -> bytes:
    r"""Return the bytes of a token in GPT-2's spelling; a special token written in other letters stays as it is.

    >>> byte_level("Ġcapital"), byte_level("Ã©"), byte_level("<|im_end|>")
    (b' capital', b'\xc3\xa9', b'<|im_end|>')
    """
    if all(letter in _LETTERS for letter in token):
        return bytes(_LETTERS[letter] for letter in token)
    return token.encode("utf-8", "replace")


def sentence_piece(token: str) -> bytes:
    r"""Return the bytes of a token in SentencePiece's spelling.

    >>> sentence_piece("▁capital"), sentence_piece("<0xC3>")
    (b' capital', b'\xc3')
    """
    single = _BYTE.fullmatch(token)
    return bytes([int(single[1], 16)]) if single else token.replace("▁", " ").encode("utf-8", "replace")


SPELLINGS: Final[tuple[Callable[[str], bytes], ...]] = (byte_level, sentence_piece)
"""Every spelling known here, the commoner first."""
