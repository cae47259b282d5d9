"""Whether an answer says yes or no."""

from __future__ import annotations

import re
from typing import Final

from pytest_llmparity.core.right import Extracted

TRUTH: Final = {"yes": True, "true": True, "no": False, "false": False}
_MARKUP: Final = str.maketrans("", "", "*_`$")
_ASKED: Final = re.compile(
    r"\b(?:true(?: or | ?/ ?)false|false(?: or | ?/ ?)true|yes(?: or | ?/ ?)no|no(?: or | ?/ ?)yes)\b[ ?:.]*",
    re.IGNORECASE,
)
"""The question, repeated before it is answered."""
_NUMBERED: Final = re.compile(r"\bno\. ?(?=\d)", re.IGNORECASE)
_FIRST: Final = re.compile(
    r"[\"'(\[{ ]*(yes|no|true|false)\b"
    r"(?=[\"')\]}]*(?:[.,;:!\n\u2013\u2014-]|\Z| [-\u2013\u2014(]"
    r"| (?:because|since|as|it|(?<!false )that|this|they|he|she|there|you|we|not)\b))",
    re.IGNORECASE,
)
_SENTENCE: Final = re.compile(r"[^.!?;\n]+[.!?;\n]?")
_WORD: Final = re.compile(r"\b(?:(yes|true|false)|(no)(?=[\"')\]} ]*(?:[.,;:!\n]|\Z)))\b", re.IGNORECASE)
_DENIED: Final = re.compile(
    r"\b(?:not|never|neither|nor|none|nobody|nothing|cannot|hardly|without|doubt\w*|if|whether|unless|maybe|perhaps|untrue)\b"
    r"|n['\u2019]t\b|\bno(?![\"')\]} ]*(?:[.,;:!\n]|\Z))\b|\bfalse that\b.*\b(?:true|false)\b",
    re.IGNORECASE,
)
NONE: Final = "neither yes nor no in it"
BOTH: Final = "both yes and no in it"


def truth(text: str) -> Extracted:
    """Return whether an answer says *yes* or *true*: at its start, else where one of both senses alone occurs.

    A question that is repeated first does not count. Nothing is read where the sense is denied in the same sentence.

    >>> truth("**No**, it is not true.").value, truth("True or False: False").value, truth("So that is true.").value
    (False, False, True)
    >>> truth("That is not true.").problem, truth("I have no idea.").problem
    ("'true' is denied or doubted in it", 'neither yes nor no in it')
    """
    plain = _ASKED.sub(" ", " ".join(text.translate(_MARKUP).split())).strip()
    plain = _NUMBERED.sub("", plain)
    if first := _FIRST.match(plain):
        return Extracted(value=TRUTH[first[1].lower()])
    senses: dict[str, bool] = {}
    for sentence in _SENTENCE.findall(plain):
        words = [match[0].lower() for match in _WORD.finditer(sentence)]
        if not words or sentence.endswith("?"):
            continue
        if _DENIED.search(sentence):
            return Extracted(problem=f"{words[0]!r} is denied or doubted in it")
        senses |= {word: TRUTH[word] for word in words}
    if len(set(senses.values())) == 1:
        return Extracted(value=next(iter(senses.values())))
    return Extracted(problem=BOTH if senses else NONE)
