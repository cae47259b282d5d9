"""Where two answers part: in their text, in their tool calls, or in which turn of a conversation.

How far two texts are apart, whether two answers say anything about each other, and whether one was broken off, too.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, Literal, TypeAlias

import msgspec

from pytest_llmparity.core.compare.calls import same_calls, written_out
from pytest_llmparity.core.compare.shift import SAME
from pytest_llmparity.core.late import distance
from pytest_llmparity.core.sample import Completion, LateTokens, TokenLogprob
from pytest_llmparity.core.sizes import short_of_limit

NEAR_TIE = 0.125
"""Nats. A BF16 number has 8 significant bits, so logits between 16 and 32 lie 0.125 apart: two tokens closer than that
may swap places by arithmetic alone."""
LONGEST = 50_000
"""Characters of each text the edit distance looks at; its cost grows with the product of both lengths."""
BYTES_PER_TOKEN = 4
"""Used only where neither engine reported tokens."""

AT_FORKS: Final = 3.63
"""Times a shift that the lead moves at forks, at most, in 95 of 100 of them.

Movements that are normal with a median of 1 have a standard deviation of 1.483. Where leads near nothing are equally
frequent, a fork is as likely as the movement is large, so movements at forks are Rayleigh's: 95 % of them lie below
2.448 standard deviations. Of a pair that moves twice as far half its forks do, of one that moves five times as far an
eighth."""

Unit = Literal["tokens", "scaled", "guessed"]
Spelling: TypeAlias = tuple[bytes, Sequence[int]]
"""The bytes of some tokens in a row, and the place in them where each token ends."""


class Fork(msgspec.Struct, frozen=True, kw_only=True):
    """Where the candidate's answer leaves the baseline's, and how many baseline tokens were at risk until then.

    ``forked`` is true when they part within the horizon. ``at_risk`` counts baseline tokens up to and including the
    fork, or up to the horizon or the end of what both show. ``byte`` and ``char`` are offsets into the baseline's text
    (UTF-8 bytes, code points), ``token`` is the position in baseline tokens counted from 0; all three are set wherever
    the texts part, also beyond the horizon, and ``None`` where they do not or one was merely cut by its length limit.

    ``grade`` compares the two contested tokens, where logprobs exist: ``near-tie``, ``rank shift``, ``outside top-k``.
    ``moved`` is by how many nats the lead of the baseline's token over the candidate's is another one there, infinite
    where one of them is not listed or an engine did not take the better one of them (no movement explains that, but a
    temperature, a penalty or a filter), ``None`` where not both engines gave logprobs.
    ``unit`` says where ``token`` comes from: ``tokens`` (the baseline's own token bytes), ``scaled`` (a token count
    times the share of bytes) or ``guessed`` (nobody counted: 4 bytes a token).
    ``broken_off``: one answer ended short of its own limit (``core.sizes.short_of_limit``) and of the horizon, in the
    middle of what the other says: they say nothing about each other.
    """

    forked: bool
    at_risk: float
    byte: int | None = None
    char: int | None = None
    token: float | None = None
    grade: str | None = None
    moved: float | None = None
    unit: Unit = "tokens"
    broken_off: bool = False


class Compared(msgspec.Struct, frozen=True, kw_only=True):
    """Two answers that were compared: where they part, and what was compared of either.

    ``baseline`` and ``candidate`` are the texts, or where an answer calls tools its calls written out; the fork's
    ``byte`` and ``char`` are places in ``baseline``. ``calls``: at least one of the two calls tools. Of conversations
    they are all turns up to the one in which they part, ``turn`` counted from 1, which begins at ``turn_at`` in both
    texts; 0 where no turn parts, and of other answers.
    """

    fork: Fork
    baseline: str
    candidate: str
    calls: bool = False
    turn: int = 0
    turn_at: int = 0


def speechless(answer: Completion) -> bool:
    """Whether an answer has neither text (white space is none) nor tool calls, whatever it reasoned."""
    return not answer.tool_calls and not answer.text.strip()


def no_evidence(ours: Completion, theirs: Completion) -> bool:
    """Whether two answers say nothing about each other.

    Both are speechless, or one is because its token limit was reached before it said anything: what it would have said
    is not known. An answer that ended by itself without a word is evidence beside one that speaks.
    """
    silent, other = speechless(ours), speechless(theirs)
    if silent and other:
        return True
    return (silent and ours.cut) or (other and theirs.cut)


def cut_in_call(ours: Completion, theirs: Completion) -> bool:
    """Whether two answers call alike as far as a token limit let one of them write: what it would call is not known.

    >>> whole, cut = (
    ...     Completion(text="", tool_calls=(ToolCall(name="f", arguments=a),)) for a in ('{"a": 12}', '{"a": 1')
    ... )
    >>> cut_in_call(whole, msgspec.structs.replace(cut, finish_reason="length")), cut_in_call(whole, cut)
    (True, False)
    """
    if not (ours.tool_calls and theirs.tool_calls and (ours.cut or theirs.cut)):
        return False
    if same_calls(ours.tool_calls, theirs.tool_calls):
        return False
    written = written_out(ours, theirs)
    fork = find_fork(_saying(ours, written[0]), _saying(theirs, written[1]), horizon=max(1, *map(len, written)))
    return fork.byte is None


def broken_off(ours: Completion, theirs: Completion) -> Completion | None:
    """Return which of two answers ends short of its own limit where the other goes on, ``None`` where neither does.

    >>> whole = Completion(text="one two three", finish_reason="length", completion_tokens=13, max_tokens=13)
    >>> broken_off(whole, msgspec.structs.replace(whole, text="one", completion_tokens=3)).text
    'one'
    """
    a, b = written_out(ours, theirs) if ours.tool_calls or theirs.tool_calls else (ours.text, theirs.text)
    if a == b or not (a.startswith(b) or b.startswith(a)):
        return None
    shorter, longer = (ours, theirs) if len(a) < len(b) else (theirs, ours)
    return shorter if short_of_limit(shorter, longer) else None


def compare_answers(baseline: Completion, candidate: Completion, *, horizon: int) -> Compared | None:
    """Return where two answers part, ``None`` when that cannot be told.

    That is so of :func:`no_evidence`, of an answer that was cut before a token, and of one that ends short of its own
    limit where the other goes on (``Fork.broken_off``).

    Where both call tools their calls are compared: names in order, arguments as JSON values, so that spelling does not
    count. Calls that differ part at the place, in baseline tokens, of the first difference in the calls as written out.
    Where one calls and the other speaks, they part where the text of the first would go on, at its very start if it has
    none. Conversations are compared turn by turn as if they were one answer, up to the first turn that differs: what
    follows answers other words. Raises ``ValueError`` for a horizon below 1.
    """
    if baseline.turns or candidate.turns:
        return _compare_conversations(baseline, candidate, horizon)
    if no_evidence(baseline, candidate):
        return None
    if not baseline.tool_calls and not candidate.tool_calls:
        fork = find_fork(baseline, candidate, horizon=horizon)
        compared = Compared(fork=fork, baseline=baseline.text, candidate=candidate.text)
    else:
        ours, theirs = written_out(baseline, candidate)
        fork = find_fork(_saying(baseline, ours), _saying(candidate, theirs), horizon=horizon)
        compared = Compared(fork=fork, baseline=ours, candidate=theirs, calls=True)
    return compared if compared.fork.at_risk > 0 and not compared.fork.broken_off else None


def _compare_conversations(baseline: Completion, candidate: Completion, horizon: int) -> Compared | None:
    """Return where two conversations part, ``None`` when their first turn cannot tell, or one was broken off."""
    written: list[tuple[str, str]] = []
    sides: tuple[list[Completion], list[Completion]] = ([], [])
    cut, broken, turn, turn_at = False, False, 0, 0
    for number, pair in enumerate(zip(baseline.conversation, candidate.conversation, strict=False), start=1):
        if no_evidence(*pair) or cut_in_call(*pair):
            if number == 1:
                return None
            broken, cut = broken_off(*pair) is not None, True  # what else they would have said is not known
            break
        calls = pair[0].tool_calls or pair[1].tool_calls
        texts = written_out(*pair) if calls else (pair[0].text, pair[1].text)
        begins = sum(len(ours) + 1 for ours, _ in written)
        written.append(texts)
        for side, answer in zip(sides, pair, strict=True):
            side.append(answer)
        if texts[0] != texts[1]:
            broken, turn, turn_at = broken_off(*pair) is not None, number, begins
            break
    ours, theirs = ("\n".join(texts[side] for texts in written) for side in (0, 1))
    fork = find_fork(_as_one(sides[0], ours, cut=cut), _as_one(sides[1], theirs, cut=cut), horizon=horizon)
    if fork.byte is None:
        if broken and fork.at_risk < horizon:
            return None
        turn, turn_at = 0, 0
    compared = Compared(fork=fork, baseline=ours, candidate=theirs, calls=True, turn=turn, turn_at=turn_at)
    return compared if fork.at_risk > 0 else None


def _as_one(turns: Sequence[Completion], text: str, *, cut: bool) -> Completion:
    """Return the turns of a conversation as if they had been one answer with this text."""
    counts = [turn.completion_tokens for turn in turns]
    known = [count for count in counts if count is not None]
    return Completion(
        text=text,
        reasoning="".join(turn.reasoning for turn in turns),
        completion_tokens=sum(known) if len(known) == len(counts) else None,
        finish_reason="length" if cut or turns[-1].cut else turns[-1].finish_reason,
    )


def parted(ours: Completion, theirs: Completion) -> int:
    """Return the first turn, from 1, in which two answers or conversations differ, 0 where they are alike to the end.

    A turn differs where calls do, or where neither calls and the texts do.

    >>> parted(Completion(text="a"), Completion(text="a")), parted(Completion(text="a"), Completion(text="b"))
    (0, 1)
    """
    for number, (a, b) in enumerate(zip(ours.conversation, theirs.conversation, strict=False), start=1):
        calls = bool(a.tool_calls or b.tool_calls)
        if not same_calls(a.tool_calls, b.tool_calls) or (not calls and a.text != b.text):
            return number
    turns = len(ours.conversation), len(theirs.conversation)
    return 0 if turns[0] == turns[1] else min(turns) + 1


def turn_of(ours: Completion, theirs: Completion) -> tuple[Completion, Completion]:
    """Return the answers of the first turn in which two conversations differ, else their last ones.

    >>> turn_of(Completion(text="a"), Completion(text="b"))[1].text
    'b'
    """
    place = parted(ours, theirs)
    if not place or place > min(len(ours.conversation), len(theirs.conversation)):
        return ours, theirs
    return ours.conversation[place - 1], theirs.conversation[place - 1]


def digest(text: str) -> str:
    """Return the hex sha256 of a text as UTF-8, by which it is found again; lone surrogates are kept."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _saying(answer: Completion, text: str) -> Completion:
    """Return the answer as if it had been this text; its token records spell another one."""
    finish = "length" if answer.cut else answer.finish_reason
    return msgspec.structs.replace(answer, text=text, logprobs=(), tool_calls=(), finish_reason=finish)


# where two texts part -------------------------------------------------------------------------------------------------


def find_fork(baseline: Completion, candidate: Completion, *, horizon: int) -> Fork:
    """Compare two greedy answers byte by byte; never look beyond the fork.

    If one text is a prefix of the other, the shorter one's end decides: cut by its length limit (``Completion.cut``),
    nothing is known beyond it; any other end is a fork there, because the other engine went on. Equal
    texts do not fork whatever ended them. An end token is a token at risk like any other, so an answer that ended by
    itself had one more at risk than its text has tokens, as far as the server's count includes it. A fork inside a
    character counts at the character's start. Raises ``ValueError`` for a horizon below 1.
    """
    if horizon < 1:
        raise ValueError(f"a horizon is at least 1 token, not {horizon}")
    ours, theirs = _encode(baseline.text), _encode(candidate.text)
    ruler = _Ruler(baseline, candidate, ours)
    at = _first_difference(ours, theirs)
    if at is None:
        seen = ruler.whole if baseline.cut else ruler.with_end
        return Fork(forked=False, at_risk=float(min(seen, horizon)), unit=ruler.unit)
    shorter = baseline if at == len(ours) else candidate if at == len(theirs) else None
    if shorter is not None and shorter.cut:
        seen = min(ruler.complete(at), horizon)
        broken_off = seen < horizon and short_of_limit(shorter, candidate if shorter is baseline else baseline)
        return Fork(forked=False, at_risk=float(seen), unit=ruler.unit, broken_off=broken_off)
    token = ruler.index(at)
    forked = token < horizon
    grade, moved = _grade(baseline.logprobs, candidate.logprobs, at, spelling=ruler.spelling)
    return Fork(
        forked=forked,
        at_risk=float(token + 1 if forked else horizon),
        byte=at,
        char=len(ours[:at].decode("utf-8", "surrogatepass")),
        token=ruler.position(at),
        grade=grade,
        moved=moved,
        unit=ruler.unit,
    )


def by_shift(fork: Fork, shift: float) -> Fork:
    """Return a fork graded by an accepted shift: a near-tie where the lead moved no further than that explains.

    It depends on nothing but this fork and what was accepted, so drift never excuses itself. A fork of which nobody
    knows how far the lead moved keeps its grade, and is no near-tie.
    """
    if fork.moved is None:
        return fork if fork.grade != "near-tie" else msgspec.structs.replace(fork, grade=None)
    if fork.moved <= AT_FORKS * shift:
        return msgspec.structs.replace(fork, grade="near-tie")
    return msgspec.structs.replace(fork, grade="rank shift") if fork.grade == "near-tie" else fork


def without_tie(fork: Fork) -> Fork:
    """Return a fork that is a near-tie as the end of what can be compared, others as they are."""
    return msgspec.structs.replace(fork, forked=False) if fork.forked and fork.grade == "near-tie" else fork


def edit_similarity(a: str, b: str) -> float:
    """Return 1 - Levenshtein distance / length of the longer text, in characters: 1 for equal texts, 0 for strangers.

    Of very long texts only the first 50,000 characters are compared.
    """
    if a == b:
        return 1.0
    return float(distance.Levenshtein.normalized_similarity(a[:LONGEST], b[:LONGEST]))


class _Ruler:
    """Measures bytes of the baseline's text in baseline tokens, by the best data there is."""

    def __init__(self, baseline: Completion, candidate: Completion, text: bytes) -> None:
        self._bytes = len(text)
        self.spelling = _spelling(baseline.logprobs) if baseline.logprobs else None
        self._ends = None if self.spelling is None else _ends_in(self.spelling, text)
        self.unit: Unit
        self._count: float
        ended = not baseline.cut
        if self._ends is not None:
            self.unit, self._count = "tokens", len(self._ends)
            self.with_end = len(self._ends) + 1 if ended else len(self._ends)
        elif baseline.completion_tokens:
            # As the server counts, which for an answer that ended by itself usually includes its end token.
            self.unit, self._count = "scaled", _spoken(baseline, self._bytes)
            self.with_end = math.ceil(self._count)
        else:
            theirs = len(_encode(candidate.text))
            scaled = candidate.completion_tokens and theirs
            self.unit = "scaled" if scaled else "guessed"
            per_byte = _spoken(candidate, theirs) / theirs if scaled else 1 / BYTES_PER_TOKEN
            self._count = self._bytes * per_byte
            self.with_end = int(self._count) + 1
        self.whole = int(self._count)

    def position(self, at: int) -> float:
        """Return the place of a byte in tokens, from 0: whole where token bytes are known, else in proportion."""
        if self._ends is not None:
            return float(self.complete(at))
        return self._count * at / self._bytes if self._bytes else 0.0

    def index(self, at: int) -> int:
        """Return the index of the token a byte belongs to; the end of the text belongs to the end token."""
        return min(int(self.position(at)), self.with_end - 1) if self.with_end else 0

    def complete(self, at: int) -> int:
        """Return how many tokens end at or before a byte."""
        if self._ends is None:
            return int(self.position(at))
        return bisect_right(self._ends, at)


def _spoken(answer: Completion, size: int) -> float:
    """Return how many of an answer's tokens are its text of so many bytes: servers count the reasoning with it.

    Reasoning that is shown has its share of the bytes; of reasoning that is hidden it is known that no token of a text
    has less than a byte, its end token aside.
    """
    tokens = float(answer.completion_tokens or 0)
    if answer.reasoning:
        tokens *= size / (size + len(_encode(answer.reasoning)))
    return min(tokens, size + 1.0)


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _first_difference(a: bytes, b: bytes) -> int | None:
    """Return the first differing byte, moved to the start of its character; of a proper prefix its length."""
    if a == b:
        return None
    at = shared(a, b)
    while at and (_continues(a, at) or _continues(b, at)):
        at -= 1
    return at


def shared(a: bytes, b: bytes) -> int:
    """Return how many bytes two texts begin with alike."""
    length = min(len(a), len(b))
    # As numbers they differ from their first differing byte on; a loop over bytes is slow for megabytes.
    apart = int.from_bytes(a[:length], "big") ^ int.from_bytes(b[:length], "big")
    return length - (apart.bit_length() + 7) // 8


def _continues(text: bytes, at: int) -> bool:
    return at < len(text) and text[at] & 0xC0 == 0x80


def _spelling(tokens: Sequence[TokenLogprob]) -> Spelling:
    """Return the bytes of all tokens in a row, and the place in them where each token ends."""
    if isinstance(tokens, LateTokens):
        return tokens.spelled, tokens.ends
    return b"".join([entry.token for entry in tokens]), list(accumulate(len(entry.token) for entry in tokens))


def _token_ends(tokens: Sequence[TokenLogprob], text: bytes) -> Sequence[int] | None:
    """Return the byte offset behind each token if they spell the text; what follows it (an end token) is left out."""
    return _ends_in(_spelling(tokens), text) if tokens else None


def _ends_in(spelling: Spelling, text: bytes) -> Sequence[int] | None:
    """Return what :func:`_token_ends` does of tokens that are spelled so."""
    spelled, ends = spelling
    count = bisect_right(ends, len(text))
    if (ends[count - 1] if count else 0) != len(text) or not spelled.startswith(text):
        return None
    # Empty tokens behind the text (an end token some servers spell as nothing) end where the text ends: not part of it.
    return ends[: bisect_left(ends, len(text), 0, count) + 1] if count and text else ends[:0]


def _grade(
    ours: Sequence[TokenLogprob], theirs: Sequence[TokenLogprob], at: int, *, spelling: Spelling | None
) -> tuple[str | None, float | None]:
    """Grade the first pair of tokens that differ, as vLLM's closeness test does: by the rank in the other's top k.

    With the grade goes by how much the lead moved, ``None`` where not both sides say.
    """
    entries = contested(ours, theirs, at, spelling=spelling)
    if entries is None:
        return None, None
    gaps = [
        lead(entry, rival.token) for entry, rival in (entries, entries[::-1]) if entry.top and entry.logprob is not None
    ]
    if not gaps:
        return None, None
    known = [gap for gap in gaps if gap is not None]
    both = len(gaps) == len(entries)
    if len(known) < len(gaps):
        return "outside top-k", math.inf if both else None
    if min(known) < -SAME:
        return "rank shift", math.inf if both else None
    return "near-tie" if max(known) <= NEAR_TIE else "rank shift", abs(math.fsum(known)) if both else None


def _alike(ours: Sequence[int], theirs: Sequence[int], most: int) -> int:
    """Return how many numbers two rows begin with alike, of so many."""
    if ours[:most] == theirs[:most]:
        return most
    pairs = zip(ours[:most], theirs, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(most, len(theirs)))


def contested(
    ours: Sequence[TokenLogprob], theirs: Sequence[TokenLogprob], at: int, *, spelling: Spelling | None = None
) -> tuple[TokenLogprob, TokenLogprob] | None:
    """Return the first pair of tokens that differ, ``None`` where they are not known to be those at byte ``at``.

    ``spelling`` is how ``ours`` are spelled, where that was read already.
    """
    if not ours or not theirs:
        return None
    (ours_spelled, ours_ends), (theirs_spelled, theirs_ends) = spelling or _spelling(ours), _spelling(theirs)
    # Tokens that end alike, and before the first differing byte, are the same.
    index = _alike(ours_ends, theirs_ends, bisect_right(ours_ends, shared(ours_spelled, theirs_spelled)))
    if index >= min(len(ours_ends), len(theirs_ends)):
        return None
    start, mine, other = ours_ends[index - 1] if index else 0, ours_ends[index], theirs_ends[index]
    if not start <= at <= max(mine, other):
        return None  # the texts part elsewhere: these two only cut the same text differently
    return ours[index], theirs[index]


def token_ends(answer: Completion) -> Sequence[int] | None:
    """Return the byte offset behind each token of an answer's text, ``None`` where they are not known."""
    return _token_ends(answer.logprobs, _encode(answer.text))


def lead(entry: TokenLogprob, rival: bytes) -> float | None:
    """Return how far the rival lies below the chosen token, in nats; ``None`` when it is not among the alternatives."""
    for token, logprob in entry.top:
        if token == rival:
            return (entry.logprob or 0.0) - logprob
    return None
