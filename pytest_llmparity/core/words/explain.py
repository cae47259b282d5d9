"""Verdicts in words: one headline each, the few lines below it that a reader needs to act, and what a failed test says.

Numbers are formatted here and nowhere else. Text that came from a model or a server passes through :func:`quote` or
:func:`plain`, so no control sequence of theirs reaches a terminal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

from pytest_llmparity.core.verdict import READER, SEVERITY, Explanation, Lenience, Outcome, Verdict
from pytest_llmparity.core.words.printable import printable

QUOTED: Final = 60
"""Characters of a model's text that are shown."""
FEW_GROUPS: Final = 12
"""Below this many independent groups a verdict speaks for this mix of prompts only, and how many would settle it is not
said: fewer promise a number that seldom does (docs/writing-tests.md, *Inconclusive*)."""

_WORDS: Final = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
)
OR_MORE: Final = " or more"
"""How ``measures`` ends where an estimate is the least that the quantity can be."""
_SHARES: Final = frozenset({"share", "forks/token"})


def percent(value: float) -> str:
    """Return a share as a percentage with at most two decimals.

    >>> percent(0.05), percent(0.0214), percent(1)
    ('5 %', '2.14 %', '100 %')
    """
    return f"{_short(100 * value)} %"


def seconds(value: float) -> str:
    """Return a duration, in milliseconds below one second.

    >>> seconds(0.25), seconds(1.8765), seconds(float("inf"))
    ('250 ms', '1.88 s', 'never')
    """
    if math.isinf(value):
        return "never"
    return f"{_short(1000 * value)} ms" if abs(value) < 1 else f"{_short(value)} s"


def nats(value: float) -> str:
    """Return a drift in nats with three digits that count, down to a ten-thousandth.

    >>> nats(0.0361), nats(0.336), nats(1.17), nats(0.00004)
    ('0.0361 nats', '0.336 nats', '1.17 nats', '0 nats')
    """
    if math.isinf(value):
        return "∞ nats"
    digits = 2 if value >= 1 else 3 if value >= 0.1 else 4
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") + " nats"


def number(value: float, unit: str) -> str:
    """Return a number of a verdict in its unit: ``share`` and ``forks/token`` in per cent, ``s``, ``nats``, counts."""
    if unit in _SHARES:
        return percent(value)
    if unit == "s":
        return seconds(value)
    if unit == "nats":
        return nats(value)
    if unit == "ratio":
        return "x∞" if math.isinf(value) else f"x{value:.2f}"
    return _short(value)


def worst(values: Mapping[str, float], unit: str, limit: int | None = 3) -> str:
    """Return names with their numbers, the largest first; names are foreign text.

    >>> worst({"poem": 0.25, "json": 0.0, "list": 0.25, "math": 0.1}, "share")
    'list 25 %, poem 25 %, math 10 %'
    """
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))[:limit]
    return ", ".join(f"{plain(name, 30)} {number(value, unit)}" for name, value in ordered)


def count(n: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun in the right form.

    >>> count(1, "prompt"), count(64, "prompt"), count(2, "reply", "replies")
    ('1 prompt', '64 prompts', '2 replies')
    """
    return f"{n} {noun if n == 1 else plural or noun + 's'}"


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, the number in words up to twelve.

    >>> counted(6, "verdict"), counted(1, "verdict"), counted(18, "verdict")
    ('six verdicts', 'one verdict', '18 verdicts')
    """
    _, _, word = count(n, noun).partition(" ")
    return f"{_WORDS[n]} {word}" if n < len(_WORDS) else count(n, noun)


def plain(text: str, limit: int = 240) -> str:
    """Return foreign text on one line: control, bidirectional and unpaired characters escaped, cut to ``limit``."""
    shown = printable(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def quote(text: str, limit: int = QUOTED) -> str:
    """Return the beginning of a model's text as a Python string literal of at most ``limit`` characters and quotes."""
    shown = printable(repr(text[:limit]))
    if len(text) <= limit and len(shown) <= limit + 2:
        return shown
    return shown[: min(limit, len(shown) - 1)] + "…"


def ending(message: str, room: int = 240) -> str:
    """Return an error's text on one line: what happened, and of a log below it the last lines that have ``room``."""
    head, *lines = message.split("\n")
    kept: list[str] = []
    for text in reversed([plain(line.strip(), room) for line in lines if line.strip()]):
        room -= len(text) + 3
        if kept and room < 0:
            break
        kept.insert(0, text)
    return f"{plain(head)}; its log ends: {' | '.join(kept)}" if kept else plain(head)


def pair(verdict: Verdict) -> str:
    """Return whom a verdict is about."""
    return verdict.engine if verdict.baseline is None else f"{verdict.engine} against {verdict.baseline}"


def headline(verdict: Verdict) -> str:
    """Return the verdict on one line: outcome, what, whom, estimate, bound, margin, prompts, and what would settle it.

    Exact findings, refusals and errors give their reason instead of numbers.
    """
    head = f"{verdict.outcome} {verdict.kind}, {pair(verdict)}"
    if verdict.estimate is None or verdict.outcome in (Outcome.INCOMPARABLE, Outcome.ERROR, Outcome.SKIPPED):
        return f"{head}: {verdict.reason or 'nothing was judged'}"
    if verdict.p_fail is None and verdict.reason:
        return f"{head}: {verdict.reason}"
    parts = [f"{number(verdict.estimate, verdict.unit)} {verdict.measures}".rstrip()]
    parts += [text for text in (bounds(verdict), limit(verdict)) if text]
    part = f" ({parting(verdict)} of them part)" if parting(verdict) else ""
    parts.append(count(verdict.n, _noun(verdict)) + _weighed(verdict) + part)
    parts += filter(None, [shift(verdict)])
    line = f"{head}: {', '.join(parts)}"
    line += mix(verdict)
    line += "".join(f"; {text}" for text in (verdict.sequence, verdict.reason, settling(verdict)) if text)
    return line


def parting(verdict: Verdict) -> str:
    """Return the share of prompts that part, empty where none does or it is not known: no token forks then either."""
    return "" if verdict.apart is None or not verdict.apart.prompts else percent(verdict.apart.prompts)


def shift(verdict: Verdict) -> str:
    """Return the shift that stands beside forks per token, empty where it is not known."""
    if verdict.apart is None or verdict.apart.shift is None:
        return ""
    return f"shift {nats(verdict.apart.shift)}" + (OR_MORE if verdict.apart.or_more else "")


def remarks(verdict: Verdict, *, of_reader: bool = True) -> list[str]:
    """Return what a reader should know of a verdict whatever its outcome.

    Which prompts it does not rest on, and what was forgiven in the answers it does rest on; ``of_reader`` false leaves
    out what holds for every check alike, for where a run tells that once.
    """
    left_out = [  # of all prompts: those of a tag are among them
        f"left out {count(len(part.cases), 'prompt')} ({first_names(part.cases)}): {plain(part.reason)}"
        for part in (() if verdict.tag else verdict.left_out)
    ]
    return [
        *left_out,
        *(_forgiven(part) for part in verdict.lenience if of_reader or not part.what.startswith(READER)),
        *verdict.remarks,
    ]


def hidden(verdict: Verdict) -> list[str]:
    """Return what a PASS hides, which its headline has: that the prompts of some tags are by themselves beyond it."""
    passed = verdict.outcome is Outcome.PASS
    return [remark for remark in verdict.remarks if passed and remark in verdict.reason]


def _forgiven(part: Lenience) -> str:
    words = f"{part.count} of {count(part.of, 'answer')} of {part.engine} {part.what}"
    return words if part.accepted else f"{words}: json.loads refuses that, so they do not fit (lenient=True reads it)"


def first_names(names: Sequence[str], limit: int = 3) -> str:
    """Return the first of some names, and whether there are more.

    >>> first_names(["a", "b", "c", "d"])
    'a, b, c, …'
    """
    shown = [plain(name, 40) for name in names[:limit]]
    return ", ".join(shown) + (", …" if len(names) > limit else "")


_OUT_OF_REACH: Final = 1000
"""More than so many times what was judged is no advice."""


def settling(verdict: Verdict) -> str:
    """Return what would settle an INCONCLUSIVE verdict, empty for others and where nobody knows."""
    if verdict.outcome is not Outcome.INCONCLUSIVE:
        return ""
    if verdict.needed is None:
        return verdict.advice
    further = "prompts in new groups (a further prompt of an old one changes nothing)" if verdict.per_group else "them"
    if unfounded := _too_few(verdict):
        addition = further if verdict.per_group else "prompts"
        return f"{unfounded}: add {addition} and run again with --parity-sequential" if verdict.open else unfounded
    of_tag = f" of the tag {plain(verdict.tag, 40)}" if verdict.tag else ""
    wanted, at_hand = f"{count(verdict.needed, _noun(verdict))}{of_tag}", verdict.at_hand or verdict.n
    if verdict.needed > _OUT_OF_REACH * at_hand:
        return f"more of the same cannot settle it: it would take about {wanted} in all"
    words = f"a run of about {wanted} in all would settle it"
    more = verdict.needed - at_hand
    if more <= 0:
        return words
    words += f", {more} more"
    if 0 < verdict.groups < verdict.n:
        words += f" in about {count(math.ceil(more * verdict.groups / verdict.n), 'new group')}"
    if not verdict.open:
        return words
    return f"{words}: add {further} and run again with --parity-sequential"


def too_few(pieces: int, noun: str, *, beside: str = "") -> str:
    """Return that so much is too little to say what would settle a question; ``beside`` follows the noun.

    >>> too_few(64, "prompt", beside=", which count as 7,")
    '64 prompts, which count as 7, are too few to say how many would settle it'
    """
    return f"{count(pieces, noun)}{beside} {'is' if pieces == 1 else 'are'} too few to say how many would settle it"


def _too_few(verdict: Verdict) -> str:
    """Return that a verdict rests on too little to say what would settle it, empty where it rests on enough."""
    pieces = verdict.effective or verdict.groups or verdict.n
    if pieces >= FEW_GROUPS:
        return ""
    if verdict.effective:
        return too_few(verdict.n, _noun(verdict), beside=f", which count as {pieces},")
    return too_few(pieces, "group" if 0 < verdict.groups < verdict.n else _noun(verdict))


def _weighed(verdict: Verdict) -> str:
    """Say what of a verdict's groups counts, empty where every prompt does."""
    if verdict.effective and verdict.kind.startswith("latency."):
        how = "fail" if verdict.quantity == "latency.success_rate" else "are slow"
        if verdict.groups:
            noun = "group" if verdict.per_group else "prompt"
            of = count(verdict.groups, noun)
            return f" of {of}, which count as {verdict.effective} (those of a {noun} {how} together)"
        return f", which count as {verdict.effective} (those of a block {how} together)"
    if verdict.effective:
        return f" in {count(verdict.groups, 'group')}, which count as {verdict.effective}"
    return ", one prompt of each" if verdict.per_group and not (verdict.open or verdict.sequence) else ""


def _noun(verdict: Verdict) -> str:
    """Return what ``n`` of a verdict counts."""
    if verdict.kind.startswith("latency."):
        return "request"
    return "group" if verdict.per_group else "prompt"


def mix(verdict: Verdict) -> str:
    """Return the words that limit a verdict on few groups to its own prompts, empty where there are enough of them."""
    if 0 < verdict.groups < FEW_GROUPS and verdict.groups < verdict.n and not verdict.kind.startswith("latency."):
        return f", for this mix of prompts ({count(verdict.groups, 'group')})"
    return ""


def experiments(explanation: Explanation) -> str:
    """Return how many experiments there were and how many requests they took.

    >>> from pytest_llmparity.core.verdict import Experiment
    >>> experiments(Explanation(experiments=(Experiment(removed="x", outcome="gone"),), requests=64))
    '1 experiment, 64 requests'
    >>> experiments(Explanation(experiments=(Experiment(removed="x", outcome="gone"),)))
    '1 experiment, on answers that another check had asked for'
    """
    many = count(len(explanation.experiments), "experiment")
    if not explanation.requests:
        return f"{many}, on answers that another check had asked for"
    return f"{many}, {count(explanation.requests, 'request')}"


def explained(verdict: Verdict) -> list[str]:
    """Return the cause, what to paste against it, what remains by exclusion, or why nothing is shown; below a failure.

    What the experiments were stands in the summary and the report.
    """
    lines = [] if verdict.cause is None else [f"cause: {verdict.cause}"]
    explanation = verdict.explanation
    if explanation is None:
        return lines
    lines += [f"  paste: {cause.remedy}" for cause in explanation.causes if cause.remedy]
    lines += [f"what is left: {cause.text}" for cause in explanation.causes if cause.by_exclusion]
    if explanation.note:
        lines.append(f"no cause is shown: {plain(explanation.note, 400)}")
    return lines


def differing(layers: Sequence[str]) -> list[str]:
    """Return in what two engines differ, as lines below a verdict that did not pass."""
    head = "  differs, not shown to be the cause: "
    if len(layers) <= 2:
        return [head + "; ".join(layers)]
    shown = layers if len(layers) <= 5 else [*layers[:4], f"and {len(layers) - 4} more"]
    return [head.rstrip(), *(f"    {layer}" for layer in shown)]


def floor(verdict: Verdict) -> str:
    """Return what the baseline differs from itself, nothing where it was not measured."""
    if verdict.floor is None:
        return ""
    return number(verdict.floor, verdict.unit) + (" per token" if verdict.unit == "forks/token" else "")


def bounds(verdict: Verdict) -> str:
    """Return the bound that decided, or both of them; nothing where it is not known."""
    lower = None if verdict.lower is None else number(verdict.lower, verdict.unit)
    # The bound of a rate may lie above 1, which no share of tokens is.
    most = min(verdict.upper, 1.0) if verdict.upper is not None and verdict.unit == "forks/token" else verdict.upper
    upper = None if most is None else number(most, verdict.unit)
    if verdict.outcome is (Outcome.FAIL if verdict.side == "at_least" else Outcome.PASS):
        return "" if upper is None else f"at most {upper}"
    if verdict.outcome is (Outcome.PASS if verdict.side == "at_least" else Outcome.FAIL):
        return "" if lower is None else f"at least {lower}"
    return "" if lower is None or upper is None else f"between {lower} and {upper}"


def limit(verdict: Verdict) -> str:
    """Return what a verdict was held against, nothing where that is not a number."""
    if verdict.margin is None:
        return ""
    shown = number(verdict.margin, verdict.unit)
    if verdict.side == "at_least":
        return f"at least {shown} asked"
    return f"margin {shown}, {verdict.margin_from}" if verdict.margin_from else f"margin {shown}"


def _short(value: float) -> str:
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


# a failed test --------------------------------------------------------------------------------------------------------

MAX_LINES: Final = 15
"""Lines of one verdict in a failure text, its headline included."""
_BELOW: Final = "  "
"""How a detail begins that belongs to the one above it."""


def failure_text(verdicts: Sequence[Verdict], *, reproduce: str) -> str:
    """Return the text of a failed test: the worst verdict's headline first, then what stands behind each of them.

    Passed and skipped verdicts are counted, not shown. Every verdict takes at most :data:`MAX_LINES` lines; the last
    one of the whole text is ``reproduce``, the command that runs this test again (left out when empty). Why an engine
    cannot be used concerns the whole run: the session's summary tells it in full, here stands its first line, once.
    """
    shown = [v for v in verdicts if v.outcome not in (Outcome.PASS, Outcome.SKIPPED)]
    shown.sort(key=lambda v: SEVERITY.index(v.outcome), reverse=True)
    passed = sum(v.outcome is Outcome.PASS for v in verdicts)
    lines: list[str] = []
    blocked: dict[tuple[str, str], list[Verdict]] = {}
    for verdict in shown:
        if verdict.blocked_by:
            blocked.setdefault((verdict.blocked_by, verdict.reason), []).append(verdict)
    for verdict in shown:
        if not verdict.blocked_by:
            lines += block(verdict, lines_left=MAX_LINES)
        elif (same_trouble := blocked[verdict.blocked_by, verdict.reason])[0] is verdict:
            lines += _unusable(same_trouble)
    if passed:
        lines.append(f"({count(passed, 'other verdict')} of this test: PASS)")
    if reproduce:
        lines.append(f"reproduce: {reproduce}")
    return "\n".join(lines)


def _unusable(verdicts: Sequence[Verdict]) -> list[str]:
    """Return the lines of verdicts that one engine's trouble left without anything to judge."""
    first, *others = verdicts
    reason, more, _ = first.reason.partition("\n")
    lines = [f"{first.outcome} {first.kind}, {pair(first)}: {reason}{' …' if more else ''}"]
    lines += [f"  {line}" for line in dict.fromkeys(line for verdict in verdicts for line in verdict.details)]
    if others:
        names = "; ".join(dict.fromkeys(o.kind if pair(o) == pair(first) else f"{o.kind}, {pair(o)}" for o in others))
        lines.append(f"  and so {counted(len(others), 'other verdict')} of this test: {names}")
    if more:
        lines.append(f"  what {first.blocked_by} said stands in the summary of this run")
    lines += [f"  {line}" for line in explained(first)]
    return [*lines, f"  check: {first.check}" + (f" at {first.where}" if first.where else "")]


def whole(details: Sequence[str], most: int) -> int:
    """Return how many of these lines to show where there is room for ``most``: of two answers both, or none.

    >>> whole(["first: mail-1", "  prod yes", "  dev  no"], 2)
    3
    """
    last = details[most - 1 : most + 1] if most > 0 else []
    return most + 1 if len(last) == 2 and all(line.startswith(_BELOW) for line in last) else min(most, len(details))


def block(verdict: Verdict, *, lines_left: int = MAX_LINES) -> list[str]:
    """Return one verdict as lines: headline, details, floor, what differs, the check's place in the test file."""
    tail: list[str] = []
    if verdict.floor is not None:
        tail.append(f"  noise floor: {verdict.baseline or verdict.engine} differs from itself by {floor(verdict)}")
    tail += [f"  {remark}" for remark in remarks(verdict)]
    tail += [f"  {line}" for line in explained(verdict)]
    if verdict.differs:
        tail += differing(verdict.differs)
    tail.append(f"  check: {verdict.check}" + (f" at {verdict.where}" if verdict.where else ""))
    if verdict.explanation is not None and verdict.explanation.experiments:
        tail.insert(-1, f"  {experiments(verdict.explanation)}: see the summary")
    details = [f"  {line}" for line in verdict.details]
    room = lines_left - 1 - len(tail)
    if len(details) > room:
        kept = whole(verdict.details, room - 1)
        if more := len(details) - kept:
            details[kept:] = [f"  … {count(more, 'more line')} in run.json (--parity-report json writes it)"]
    return [verdict.message or headline(verdict), *details, *tail]


# where there is little room ------------------------------------------------------------------------------------------

NUMBERLESS: Final = (Outcome.INCOMPARABLE, Outcome.ERROR, Outcome.SKIPPED)
"""What these say is a reason, whatever numbers stand beside it."""


def cell(verdict: Verdict, word: str) -> list[str]:
    """Return what a grid shows of a verdict, in parts between which a line may end; ``word`` is its outcome's."""
    if verdict.estimate is None or verdict.outcome in NUMBERLESS:
        return [word]
    parts = [f"{word} {number(verdict.estimate, verdict.unit)}{counted_noun(verdict)}"]
    parts += filter(None, [_against(verdict)])
    if between := bounds(verdict):
        parts.append(f"({between.removeprefix('between ').replace(' and ', ' to ')})")
    beside = [f"{parting(verdict)} part" if parting(verdict) else "", shift(verdict)]
    for text in filter(None, beside):
        parts[-1] += ","
        parts.append(text)
    if verdict.n:
        first, *rest = size(verdict).split(", ")
        parts[-1] += ","
        parts += [f"{first},", *rest] if rest else [first]
    return parts


def _against(verdict: Verdict) -> str:
    """Return how an estimate lies to what it is held against, empty where that is no number or the finding is exact."""
    if verdict.estimate is None or not verdict.margin or (verdict.p_fail is None and verdict.reason):
        return ""
    if verdict.estimate < verdict.margin and verdict.measures.endswith(OR_MORE):
        return ""  # it may be beyond
    sign = "<" if verdict.estimate < verdict.margin else ">" if verdict.estimate > verdict.margin else "="
    margin = number(verdict.margin, verdict.unit)
    if sign != "=" and number(verdict.estimate, verdict.unit) == margin:
        return ""  # alike as shown: the bound says on which side
    return f"{sign} {margin.removesuffix(' nats')}"


def size(verdict: Verdict) -> str:
    """Return how many cases a verdict rests on, in few letters; what counts is named where it is not each of them."""
    if verdict.per_group and not verdict.kind.startswith("latency."):
        return f"n {count(verdict.n, 'group')}"
    if verdict.effective:
        together = "" if verdict.kind.startswith("latency.") else f" in {count(verdict.groups, 'group')}"
        return f"n {verdict.n}{together}, count as {verdict.effective}"
    return f"n {verdict.n}" if verdict.n else ""


def counted_noun(verdict: Verdict) -> str:
    """Say what a bare number counts where a good one looks bad: prompts that differ, requests over budget.

    And that it is the least where no more is known.
    """
    if verdict.kind == "prompts":
        return " differ"
    if verdict.measures.endswith(OR_MORE):
        return OR_MORE
    budget = verdict.kind.startswith("latency.") and verdict.kind != "latency.success_rate"
    over = budget and verdict.unit == "share"
    return " over" if over else ""
