"""The letter that an answer chooses, where it chooses one."""

from __future__ import annotations

import re
from typing import Final

from pytest_llmparity.core.right import Extracted

_MARKUP: Final = str.maketrans("", "", "*_`$")
_ALONE: Final = re.compile(r"[\s(\[{\"']*([A-Za-z])[\s)\]}\"'.:]*")
_STATED: Final = r"(?:(?: is| would be| must be| should be) ?:?| ?[:=])[ \n]?"
_LETTER: Final = r"(?:(?i:option) )?[(\[{\"']?([A-Z])(?![\w'\u2019])[)\]}\"']?"
_ENDING: Final = r"(?=[ \n]?(?:[.,;:!)\n]|\Z)| (?:because|since)\b| is (?:the )?(?:right|correct|best|answer)\b)"
_ANNOUNCED: Final = (
    re.compile(rf"\b(?i:answer)(?i:{_STATED}){_LETTER}"),
    re.compile(rf"\b(?i:option|choice)(?i:{_STATED}){_LETTER}"),
    re.compile(rf"\b(?i:answer|option|choice) {_LETTER}{_ENDING}"),
)
"""How a letter is announced, the best first: as the answer, as the option or choice, beside one of these words."""
_OTHER: Final = re.compile(
    r"(?:,| ?[/&]| or| and|, or|, and) ?(?!I [a-z])(?:(?i:option) )?[(\[{\"']?[A-Z](?![\w'\u2019])"
)
_DENIED_BEHIND: Final = re.compile(
    r" ?\?| (?:is|was|would be) (?:wrong|incorrect|false|not)\b| (?:isn|cannot|can't)", re.IGNORECASE
)
_WORD_BEHIND: Final = re.compile(r" (?!(?:because|since|as|is|and|or|but|not|which|for|due)\b)[a-z]")
_DENIED: Final = re.compile(
    r"\b(?:not|never|neither|nor|cannot|wrong|incorrect|false|worst|thought|if|unless|whether|except|eliminated?|exclud\w*"
    r"|unlike|than|instead of)\b|n['\u2019]t\b",
    re.IGNORECASE,
)
_LISTED: Final = re.compile(r"(?:^[(\[]?|(?<= ))([A-Z])[)\]:](?=[ \n]|\Z)|^([A-Z])\.(?=[ \n]|\Z)", re.MULTILINE)
_IN_BRACKETS: Final = re.compile(r"[(\[{]([A-Z])[)\]}]")
_REACH: Final = 80
"""Characters before an announcement that may deny it."""
NONE: Final = "no choice in it"
TWO: Final = "two choices in it"


def choice(text: str) -> Extracted:
    r"""Return the letter an answer chooses: alone, announced, at the start, or the only one in brackets.

    What is announced as the answer goes before what is called an option or a choice; letters that are denied do not
    count, and options that are listed are none. Nothing is read where two letters are possible.

    >>> choice("I think the answer is (C), not B. Option A is late.").value
    'C'
    >>> choice("The answer is A or B").problem, choice("A) Paris\nB) London").problem
    ('two choices in it', 'no choice in it')
    """
    lines = (" ".join(line.split()) for line in text.translate(_MARKUP).splitlines())
    plain = "\n".join(line for line in lines if line)
    if match := _ALONE.fullmatch(plain):
        return Extracted(value=match[1].upper())
    for announced in _ANNOUNCED:
        letters = set()
        for match in announced.finditer(plain):
            if _denied(plain, match):
                continue
            if _OTHER.match(plain, match.end()):
                return Extracted(problem=TWO)
            letters.add(match[1])
        if letters:
            return Extracted(value=letters.pop()) if len(letters) == 1 else Extracted(problem=TWO)
    listed = {match[1] or match[2] for match in _LISTED.finditer(plain)}
    if len(listed) == 1 and (match := _LISTED.match(plain)):
        return Extracted(value=match[1] or match[2])
    letters = set() if len(listed) > 1 else set(_IN_BRACKETS.findall(plain))
    if len(letters) == 1 and _DENIED.search(plain) is None:
        return Extracted(value=letters.pop())
    return Extracted(problem=f"{len(letters)} letters in brackets" if len(letters) > 1 else NONE)


def _denied(plain: str, match: re.Match[str]) -> bool:
    """Whether what announces a letter is denied, asked, or no letter but a word."""
    if match[1] in "AI" and match[0][-1] == match[1] and _WORD_BEHIND.match(plain, match.end()):
        return True
    if _DENIED_BEHIND.match(plain, match.end()):
        return True
    before = plain[max(0, match.start() - _REACH) : match.start()]
    clause = re.split(r"[.!?;:,\n]", before)[-1]
    return _DENIED.search(clause) is not None
