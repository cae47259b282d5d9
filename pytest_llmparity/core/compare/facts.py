"""Numbers, negations, code and names that one text has and the other lacks. Deterministic, without a model.

Limits: written for English. Negators and number words are English lists; names are found by their capitals in mid
sentence, so German nouns are names and Chinese ones are not. A decimal comma is not guessed: ``3,5`` is the numbers 3
and 5, in both texts alike. What a number counts is not read: *5 kg* and *5 m* agree. Numbers come in the same order or
differ, so a list in another order differs too, and numbers of list items count. Negators are compared with the word
they stand before, not understood: *not once* and *never* differ. Antonyms without a negator in them are not seen:
*allowed* and *forbidden*, *always* and *rarely* agree.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from itertools import chain, zip_longest

from pytest_llmparity.core.compare.answers import shared

Pairs = tuple[tuple[str, str], ...]

_CODE = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)|(?<!`)`([^`\n]+)`(?!`)", re.DOTALL)
_NUMBER = re.compile(
    r"(?=[-+\u2212.\d])(?P<sign>(?<![\w)\]%])[-+\u2212](?=\.?\d))?"
    r"(?:(?P<grouped>\d{1,3}(?:,\d{3})+(?!\d))(?P<rest>\.\d+)?|(?P<plain>\d+(?:\.\d+)?|(?<!\d)\.\d+))"
    r"(?:[eE](?P<power>[-+]?\d{1,4})(?!\w))?"
)
_PERCENT = re.compile(r"\s?(?:%|per\s?cent\b)", re.IGNORECASE)
_NEGATING = "not|no|never|none|nor|neither|nobody|nothing|nowhere|without|cannot"
_AUXILIARIES = "do|does|did|is|are|was|were|would|should|could|has|have|had"
_NEGATION = re.compile(rf"(?=[acdhinsw])(?:\b(?:{_NEGATING})\b|n['\u2019]t\b|\b(?:{_AUXILIARIES})nt\b)", re.IGNORECASE)
_NEGATORS = frozenset((*_NEGATING.split("|"), *(f"{word}nt" for word in _AUXILIARIES.split("|")), "t"))
"""What stands between two characters that no word holds where something is denied; ``t`` behind an apostrophe."""
_PLAIN_WORDS = {place: " " for place in range(128) if not (chr(place).isalnum() or chr(place) == "_")}
"""What stands between words in ASCII, to be replaced by spaces: far faster than an expression."""
_APART = bytes(32 if place in _PLAIN_WORDS else place for place in range(256))
"""The same for bytes."""
_PLAIN_LONG_WORDS = {place: space for place, space in _PLAIN_WORDS.items() if chr(place) not in "'-"}
_PLAIN_NEGATORS = {
    word: re.compile(r"n't\b" if word == "t" else rf"{word}(?<!\w{word})\b")  # a literal first is found fast
    for word in _NEGATORS
}
_BEFORE_LETTERS = "0123456789_'-"
_DIGIT = re.compile(r"\d")
_NEGATED = re.compile(
    r"(?:[\s\"'\u201c\u2018*_`(]+(?:an?|the|any|be|been|being|to)\b)*[\s\"'\u201c\u2018*_`(]+([^\W\d_][\w-]*)", re.I
)
"""The word behind a negator, past what may stand between them without changing what is denied."""
_UNITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_SMALL = {word: value for value, word in enumerate(_UNITS + _TEENS)}
_DECADES = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TENS = {word: 10 * value for value, word in enumerate(_DECADES, start=2)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_NUMBER_WORDS = frozenset((*_SMALL, *_TENS, "hundred", *_SCALES))
_REACHED_OVER = frozenset(("an", "a", "the", "any", "be", "been", "being", "to", "and", "per", *_NUMBER_WORDS))
"""Words behind which a negation, a number or its unit may go on."""
_PREFIXES = ("non-", "non", "dis", "un", "in", "im", "ir", "il")
_SHORTEST_STEM = 4
_PREFIXED = re.compile(r"[diun](?<![a-z].)(?:(?<=n)on|(?<=d)is|(?<=u)n|(?<=i)[nmlr])\S{4}")
"""Where a word of ASCII in small letters may begin with one of the prefixes and a stem; a set of letters first is found
fast."""
_LOOKS_NEGATED = re.compile(
    "disable|discard|discharge|disclose|discount|discover|discuss|disease|dispatch|display|dispose|distress|immediate"
    "|impart|implant|import|impose|impress|imprint|improve|inbound|incom|increase|indeed|indoor|inflow|inform|inland"
    "|inline|insight|inside|install|instance|instead|insure|intake|intend|intent|invest|invoice|nonsense|regardless"
)
"""How words begin that only look like the negation of another English word."""
_NOT_KEPT_APART = frozenset({"no", "never", "none", "nor", "neither", "nobody", "nothing", "nowhere", "without"})
_WORD = re.compile(r"[^\W\d_][\w'\u2019-]*")
_MAYBE_NAME = re.compile(r"(?<![\w'\u2019-])[\d_'\u2019-]*([^\W\d_a-z][\w'\u2019-]*)")
"""A word that does not begin with a small letter of ASCII."""
_MAYBE_PLAIN_NAME = re.compile(r"[A-Z](?<![A-Za-z].)[\w'-]*")
"""The same in ASCII, where it begins with a capital; faster by far, but a small letter may stand before a hyphen."""
_ONES = re.compile(r"one[ -](?:and[ -])?one")
_LETTER_BEFORE = re.compile(r"[A-Za-z][0-9_'-]+\Z")
_LETTER = re.compile(r"[^\W\d_]")
_ENDS_SENTENCE = re.compile(r"[.!?:;\n\"\u201c\u2022*#>|]")
_FIRST_PERSON = re.compile(r"I(?:['\u2019].*)?")

_TELLING = {word.encode(): word for word in _NUMBER_WORDS | _NEGATORS}
_NUMBER_WORD = "|".join((*_SMALL, *_TENS, "hundred", *_SCALES))
_SPELLED = re.compile(
    rf"(?=[befhmnostz])\b(?:{_NUMBER_WORD})(?:(?:[ -]|[ -]and[ -])(?:{_NUMBER_WORD}))*\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactDiff:
    """Facts that differ, as pairs (baseline, candidate) in reading order; ``""`` where one side has none to pair.

    ``numbers`` are normalised (``1,000``, ``1000.0``, ``1e3`` and ``one thousand`` are ``1000``; ``30 percent`` is
    ``30%``), ``negations`` are a negator reduced to ``not``, ``never``, ``without`` … and the word it stands before
    (``not refundable``, which ``non-refundable`` is too where the other text has the stem), ``code`` is what stands
    between backticks or fences, ``names`` are words with a capital in mid sentence.
    """

    numbers: Pairs = ()
    negations: Pairs = ()
    code: Pairs = ()
    names: Pairs = ()

    @property
    def blocking(self) -> bool:
        """Whether no measure of similarity may call the texts alike: other numbers, or something else denied."""
        return bool(self.numbers or self.negations)

    def describe(self) -> str:
        """Return one line, worst first: ``number 30 → 14; negation not only in the baseline``; empty for none."""
        kinds = (("number", self.numbers), ("negation", self.negations), ("code", self.code), ("name", self.names))
        return "; ".join(_phrase(kind, pair) for kind, pairs in kinds for pair in pairs)


_NOTHING = FactDiff()


def fact_diff(a: str, b: str) -> FactDiff:
    """Return what the baseline's text ``a`` and the candidate's ``b`` state without an equal on the other side.

    Numbers are compared in their order: *3 every 5 hours* is not *5 every 3 hours*. Other facts are compared as
    multisets: order does not matter, how often does.
    """
    ours, theirs = _parted(a, b)
    return _beside(_blocking(ours, theirs, known=(a, b)), ours, theirs)


def blocking_diff(a: str, b: str) -> FactDiff:
    """Return :func:`fact_diff` of two texts where it is blocking, nothing where it is not.

    Names and code are shown beside what blocks; looking for them in all texts would take as long as all the rest.
    """
    if a == b:
        return _NOTHING
    ours, theirs = _parted(a, b)
    blocking = _blocking(ours, theirs, known=(a, b))
    return _beside(blocking, ours, theirs) if blocking.blocking else blocking


def _parted(a: str, b: str) -> tuple[str, str]:
    """Return two texts from the word on before which they are alike: what both begin with states the same in both.

    It is a word over which no number, no negator and no name reaches. Code reaches over anything, and beyond ASCII
    texts are looked at whole.
    """
    if not (a.isascii() and b.isascii()) or "`" in a or "`" in b:
        return a, b
    end = a.rfind(" ", 0, shared(a.encode(), b.encode()))
    while (begin := a.rfind(" ", 0, max(0, end))) >= 0:
        word = a[begin + 1 : end]
        if word.isalpha() and word.islower() and word not in _REACHED_OVER:
            return a[begin + 1 :], b[begin + 1 :]
        end = begin
    return a, b


def _beside(blocking: FactDiff, a: str, b: str) -> FactDiff:
    """Return numbers and negations with the code and the names that differ as well."""
    return replace(blocking, code=_unmatched(_code(a), _code(b)), names=_unmatched(list(_names(a)), list(_names(b))))


def _blocking(a: str, b: str, *, known: tuple[str, str]) -> FactDiff:
    """Return the numbers and negations that differ; ``known`` are the two texts as they were before they were cut."""
    stems = _stems(*known) if _may_deny(a) or _may_deny(b) else {}  # looking is faster than taking texts apart
    ours, denied = _stated(a, stems)
    theirs, refused = _stated(b, stems)
    if ours == theirs and denied == refused:
        return _NOTHING
    return FactDiff(numbers=_in_order(ours, theirs), negations=_unmatched(denied, refused))


def _stems(a: str, b: str) -> dict[str, str]:
    """Return the words of two texts that deny another word of them, and which."""
    known = _words(a) | _words(b)
    return {
        word: stem
        for word in known
        if ((word[0] in "diun" and word.startswith(_PREFIXES)) or word.endswith("less"))
        and (stem := _stem(word, known))
    }


def _may_deny(text: str) -> bool:
    """Whether a text may have a word that denies another one; not where it has none is certain."""
    plain = text.lower()
    return not text.isascii() or "less" in plain or _PREFIXED.search(plain) is not None


def _words(text: str) -> set[str]:
    """Return the words of a text in small letters."""
    if text.isascii():
        return {word.lstrip(_BEFORE_LETTERS) for word in set(text.lower().translate(_PLAIN_LONG_WORDS).split())} - {""}
    return {word.lower() for word in set(_WORD.findall(text))}


def _stated(text: str, stems: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """Return the numbers and the negations of a text; one without their words is not searched for them.

    Beyond ASCII letters have cases that an expression knows and ``lower`` does not.
    """
    if not text.isascii():
        return _numbers(text, spelled=True), _negations(text, stems)
    telling = {_TELLING[word] for word in _TELLING.keys() & text.lower().encode().translate(_APART).split()}
    counted = telling & _NUMBER_WORDS
    spelled = bool(counted) and (counted != {"one"} or _ONES.search(text.lower()) is not None)  # "one" is a pronoun
    return _numbers(text, spelled=spelled), _negations(text, stems, telling - _NUMBER_WORDS)


def _in_order(a: Sequence[str], b: Sequence[str]) -> Pairs:
    """Return numbers without an equal; if all have one, those that changed places."""
    return _unmatched(a, b) or tuple((ours, theirs) for ours, theirs in zip(a, b, strict=True) if ours != theirs)


def _unmatched(a: Sequence[str], b: Sequence[str]) -> Pairs:
    if a == b:
        return ()
    return tuple(zip_longest(_beyond(a, b), _beyond(b, a), fillvalue=""))


def _beyond(items: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the items that have no equal among the others, which each serve once."""
    if not others:
        return list(items)
    free: dict[str, int] = {}
    for item in others:
        free[item] = free.get(item, 0) + 1
    beyond: list[str] = []
    for item in items:
        if left := free.get(item, 0):
            free[item] = left - 1
        else:
            beyond.append(item)
    return beyond


def _phrase(kind: str, pair: tuple[str, str]) -> str:
    ours, theirs = (_shorten(text) for text in pair)
    if ours and theirs:
        return f"{kind} {ours} → {theirs}"
    return f"{kind} {ours or theirs} only in the {'baseline' if ours else 'candidate'}"


def _shorten(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else line[:39] + "…"


def numbers(text: str) -> list[str]:
    """Return the numbers of a text in their order, written one way each: ``1000`` for ``1,000`` and *one thousand*."""
    return _numbers(text, spelled=True)


def numbers_at(text: str) -> list[tuple[int, int, str]]:
    """Return :func:`numbers` of a text, each with the places where it begins and ends there; no sign for per cent."""
    return _placed(text, spelled=True)


def _numbers(text: str, *, spelled: bool) -> list[str]:
    return [number + _percent(text, end) for _, end, number in _placed(text, spelled=spelled)]


def _placed(text: str, *, spelled: bool) -> list[tuple[int, int, str]]:
    """Return the numbers of a text in their order; ``spelled`` is false where none is written as a word."""
    digits = _DIGIT.search(text)
    if digits is None and not spelled:
        return []
    places: list[tuple[int, int, str]] = []
    for match in _NUMBER.finditer(text, max(0, digits.start() - 2)) if digits else ():  # a sign and a point before it
        places.append((match.start(), match.end(), _canonical(match)))
    for match in _SPELLED.finditer(text) if spelled else ():
        words = [word for word in re.split(r"[ -]", match.group().lower()) if word != "and"]
        if words == ["one"]:
            continue  # far more often a pronoun than a number
        value = _compose(words)
        places.append((match.start(), match.end(), " ".join(words) if value is None else str(value)))
    return sorted(places)


def _percent(text: str, end: int) -> str:
    return "%" if _PERCENT.match(text, end) else ""


def _canonical(match: re.Match[str]) -> str:
    """Return digits without leading or trailing zeros and a power of ten, written plainly while it stays short."""
    body = match["plain"] or match["grouped"].replace(",", "") + (match["rest"] or "")
    whole, _, part = body.partition(".")
    digits = "".join(str(int(digit)) for digit in whole + part)  # other scripts' digits become ASCII
    power = int(match["power"] or 0) - len(part)
    stripped = digits.rstrip("0")
    power += len(digits) - len(stripped)
    stripped = stripped.lstrip("0")
    if not stripped:
        return "0"
    sign = "" if match["sign"] in (None, "+") else "-"
    if 0 <= power <= 15:
        return sign + stripped + "0" * power
    if -15 <= power < 0:
        padded = stripped.rjust(1 - power, "0")
        return f"{sign}{padded[:power]}.{padded[power:]}"
    return f"{sign}{stripped}e{power}"


def _compose(words: Sequence[str]) -> int | None:
    """Return the value of English number words in a row, ``None`` when they are no one number (*nineteen eighty*)."""
    total, current, scale = 0, 0, 10**12
    for word in words:
        if word in _SCALES:
            if _SCALES[word] >= scale:
                return None
            scale = _SCALES[word]
            total, current = total + max(current, 1) * scale, 0
        elif word == "hundred":
            if current > 9:
                return None
            current = 100 * max(current, 1)
        else:
            value = _TENS.get(word, _SMALL.get(word, 0))
            # A unit follows a hundred or a decade, a teen or a decade only a hundred, zero nothing.
            free = current % 100 == 0 or (0 < value < 10 and current % 100 >= 20 and current % 10 == 0)
            if not free or (value == 0 and len(words) > 1):
                return None
            current += value
    return total + current


def _negations(text: str, stems: Mapping[str, str], negators: Set[str] | None = None) -> list[str]:
    """Return what a text denies, in reading order: negator and word. ``stems`` says which words deny another one.

    ``negators`` are those of an ASCII text, ``None`` where they are not known.
    """
    if not stems and negators is not None and not negators:
        return []
    places: list[tuple[int, str]] = []
    if negators is None:
        matches: Iterator[re.Match[str]] = _NEGATION.finditer(text)
    else:
        plain = text.lower()
        matches = chain.from_iterable(_PLAIN_NEGATORS[word].finditer(plain) for word in negators)
    for match in matches:
        word = match.group().lower()
        behind = _NEGATED.match(text, match.end())
        negator = word if word in _NOT_KEPT_APART else "not"
        places.append((match.start(), f"{negator} {behind[1].lower()}" if behind else negator))
    for match in _WORD.finditer(text) if stems else ():
        if stem := stems.get(match.group().lower()):
            places.append((match.start(), f"not {stem}"))
    return [negation for _, negation in sorted(places)]


def _stem(word: str, known: Set[str]) -> str | None:
    """Return the word that *un-*, *-less* and the like deny, if one of the texts has it."""
    if _LOOKS_NEGATED.match(word):
        return None
    stems = [word.removeprefix(prefix) for prefix in _PREFIXES if word.startswith(prefix)]
    if word.endswith("less"):
        bare = word.removesuffix("less")
        stems += [bare + "ful", bare] if len(bare) >= _SHORTEST_STEM else []
    return next((stem for stem in stems if len(stem) >= _SHORTEST_STEM and stem in known), None)


def _code(text: str) -> list[str]:
    if "`" not in text:
        return []
    return [(match[1] if match[1] is not None else match[2]).strip() for match in _CODE.finditer(text)]


def _names(text: str) -> Iterator[str]:
    prose = _CODE.sub(" \n", text) if "`" in text else text
    name: list[str] = []
    end = -1
    first_letter = _LETTER.search(prose)
    begins = first_letter.start() if first_letter else 0
    plain = prose.isascii()
    for match in (_MAYBE_PLAIN_NAME if plain else _MAYBE_NAME).finditer(prose):
        word, start = (match[0], match.start()) if plain else (match[1], match.start(1))
        if plain and start and prose[start - 1] in _BEFORE_LETTERS and _LETTER_BEFORE.search(prose[:start]):
            continue  # the word began before
        follows = bool(name) and start == end + 1 and prose[end] == " "
        if name and not follows:
            yield " ".join(name)
            name = []
        if word[0].isupper() and not _FIRST_PERSON.fullmatch(word) and (follows or not _opens(prose, begins, start)):
            name.append(word)
        elif name:
            yield " ".join(name)
            name = []
        end = match.end()
    if name:
        yield " ".join(name)


def _opens(prose: str, begins: int, start: int) -> bool:
    """Whether the word at ``start`` is the first of a text, whose letters begin at ``begins``, or of a sentence."""
    before = start
    while before > begins and not ((char := prose[before - 1]).isalnum() and not char.isdecimal()):
        before -= 1
    return before <= begins or _ENDS_SENTENCE.search(prose, before, start) is not None
