"""What an application came to on two engines with the same inputs: where values differ, and which say nothing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from pytest_llmparity.core.checks.base import Pairing
from pytest_llmparity.core.checks.missing import Missing
from pytest_llmparity.core.compare.answers import digest
from pytest_llmparity.core.compare.fields import EVERYTHING, Fields
from pytest_llmparity.core.compare.paths import anywhere
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import ApplicationCall, Completion
from pytest_llmparity.core.values import NotJson, Outcome, outcome_of, plain
from pytest_llmparity.core.values.calls import CallFork, first_difference
from pytest_llmparity.core.verdict import Difference
from pytest_llmparity.core.words import explain

_BEFORE = 30
"""Characters that are shown before the place at which two requests or answers part."""
Key: TypeAlias = Callable[[Any], object]
"""Says what of a value is compared."""


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What an application came to with one input, as a check compares it.

    ``outcome`` is ``None`` of a run that failed for want of an engine. ``value`` is what ``key=`` made of what was
    returned, ``unread`` why it could make nothing.
    """

    outcome: Outcome | None = None
    value: Any = None
    unread: str = ""

    @property
    def answered(self) -> bool:
        """Whether the application came to anything, an exception among it."""
        return self.outcome is not None

    @property
    def returned(self) -> bool:
        """Whether the application returned, whatever."""
        return self.outcome is not None and self.outcome.returned

    @property
    def raised(self) -> str:
        """The type of the exception it raised, empty where it did not."""
        return "" if self.outcome is None else self.outcome.raised

    @property
    def calls(self) -> tuple[ApplicationCall, ...] | None:
        """What it asked its engine, ``None`` where that is not known."""
        return None if self.outcome is None else self.outcome.calls

    @property
    def comparable(self) -> bool:
        """Whether there is a value to be compared."""
        return self.returned and not self.unread

    @property
    def something(self) -> bool:
        """Whether there is a value, and it is not nothing: neither ``None`` nor an empty text or collection."""
        return self.comparable and self.value is not None and self.value not in ("", [], {})


def held(answer: Completion, key: Key | None) -> Held:
    """Return an answer as it is compared."""
    outcome = outcome_of(answer)
    if key is None or not outcome.returned:
        return Held(outcome=outcome, value=outcome.value if outcome.returned else None)
    try:
        return Held(outcome=outcome, value=plain(key(outcome.value)))
    except NotJson as error:
        return Held(outcome=outcome, unread=f"key= returned no JSON: {error}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 - the user's function may raise anything: pytest.fail, sys.exit too
        words = f"{type(error).__name__}: {error}".removesuffix(": ")
        return Held(outcome=outcome, unread=f"key= raised {explain.plain(words, 100)}")


def differing(ours: Held, theirs: Held, fields: Fields, *, exceptions: bool) -> tuple[str, ...]:
    """Return in what two runs differ: the paths of values, or one clause; empty where they agree.

    Where both raised they do not agree, unless ``exceptions`` of one type are values like others.
    """
    if ours.raised and theirs.raised:
        if exceptions:
            return () if ours.raised == theirs.raised else (f"raised {ours.raised} and {theirs.raised}",)
        both = f"{ours.raised} on both" if ours.raised == theirs.raised else f"{ours.raised} and {theirs.raised}"
        return (f"raised {both}",)
    if ours.raised or theirs.raised:
        return (f"raised {ours.raised or theirs.raised} on one engine",)
    if not (ours.comparable and theirs.comparable):
        return (explain.plain(ours.unread or theirs.unread, 120) or "no value",)
    return tuple(sorted({anywhere(part.path) for part in fields.differences(ours.value, theirs.value)}))


class Values:
    """What an application came to on a pair of engines, over the inputs on which both came to something.

    ``compared`` has of each the case, what the baseline and the candidate came to, and in what they differ. With
    ``again``, what the baseline came to when the same input was given to it once more, only inputs with all three.

    Left out and counted, unless they speak against the candidate in what ``limit`` judges, are inputs whose values are
    no work of both engines (one or none was asked), those with which both came to nothing (``None``, no text), and but
    for ``gap`` those whose values have nothing at any of the paths that are read.
    """

    def __init__(
        self,
        pairing: Pairing,
        evidence: Evidence,
        ours: Mapping[str, Held],
        theirs: Mapping[str, Held],
        *,
        limit: str = "agree",
        again: Mapping[str, Held] | None = None,
        fields: Fields = EVERYTHING,
        exceptions: bool = False,
    ) -> None:
        self.cases: Sequence[Case] = pairing.cases
        self.compared: list[tuple[Case, Held, Held]] = []
        self.differing: dict[str, tuple[str, ...]] = {}
        self.within: dict[str, tuple[str, ...]] = {}
        self._fields = fields
        self._left: list[Held] = []
        once = 0
        left: Counter[str] = Counter()
        for case in pairing.cases:
            mine, other = ours.get(case.id), theirs.get(case.id)
            if mine is None or other is None or not mine.answered:
                continue
            second = None if again is None else again.get(case.id)
            if again is not None and second is None:
                once += 1
                continue
            differs = differing(mine, other, fields, exceptions=exceptions)
            # One exception raised twice is how the application is: no noise that an engine is forgiven.
            alike = second is None or (mine.raised and mine.raised == second.raised)
            within = () if second is None or alike else differing(mine, second, fields, exceptions=exceptions)
            against = mine.returned != other.returned if limit == "gap" else bool(differs) and not within
            why = _no_evidence(mine, other) or ("" if limit == "gap" else _unread(mine, other, fields))
            if not against and why:
                left[why] += 1
                self._left += [mine, other]
                continue
            self.compared.append((case, mine, other))
            self.differing[case.id] = differs
            if second is not None:
                self.within[case.id] = within
        also = [f"{explain.count(once, 'input')} given only once to {evidence.baseline}"] if once else []
        also += [why.format(explain.count(n, "input")) for why, n in left.items()]
        self.missing: Missing = pairing.missing(evidence, used=len(self.compared), also=also)

    @property
    def nothing(self) -> str:
        """Say that no value was there to be compared, empty where one was."""
        runs = [run for _, *both in self.compared for run in both]
        return nothing_of(runs or self._left, self._fields)

    @property
    def seen(self) -> tuple[dict[str, int], int]:
        """In how many values of both engines each path that is read leads somewhere, and of how many."""
        runs = [run for _, *both in self.compared for run in both if run.comparable] + self._left
        values = [run.value for run in runs if run.comparable]
        counts = Counter(path for value in values for path in self._fields.seen(value))
        return {path: counts[path] for path in self._fields.read}, len(values)

    @property
    def empty(self) -> list[str]:
        """Count the inputs with which both engines came to an empty list or dictionary: one value, and a poor one."""
        n = sum(not (a.something or b.something) for _, a, b in self.compared if a.comparable and b.comparable)
        return (
            [f"empty on both engines: the values of {n} of {explain.count(len(self.compared), 'input')}"] if n else []
        )

    def difference(self, case: Case, ours: Held, theirs: Held, words: str) -> Difference:
        """Return a case as reports list it."""
        texts = [None if run.outcome is None else digest(run.outcome.text) for run in (ours, theirs)]
        return Difference(case=case.id, what=words, baseline_sha256=texts[0], candidate_sha256=texts[1])

    def example(self, names: tuple[str, str]) -> list[str]:
        """Return lines with the first case on which engines differ: where, and what the application came to on each."""
        for case, ours, theirs in self.compared:
            if not self.differing[case.id]:
                continue
            width = max(map(len, names))
            parts = self._fields.differences(ours.value, theirs.value) if ours.comparable and theirs.comparable else []
            shown = [(part.baseline, part.candidate) for part in parts[:1]]
            where = parts[0].path if parts else self.differing[case.id][0]
            texts = [_value(value) for value in shown[0]] if shown else [_in_words(run) for run in (ours, theirs)]
            return [
                f"first: {explain.plain(case.id, 40)}: {explain.plain(where, 80)}",
                *(f"  {name:<{width}} {explain.plain(text, 100)}" for name, text in zip(names, texts, strict=True)),
                *fork_lines(call_fork(ours, theirs), names),
            ]
        return []


_UNASKED: Final = "neither engine was asked anything for {}: leave out what your code answers by itself"
_ONE_ASKED: Final = "the same value for {} though only one of the engines was asked: does the application keep values?"
_NOWHERE: Final = "no path of fields= leads anywhere in the values of {} on either engine"
_NOTHING: Final = "None or no text on both engines for {}: return a word where that is the decision"


def _unread(ours: Held, theirs: Held, fields: Fields) -> str:
    """Say that two values have nothing at any path that is read, with a place for how many do; empty where one has."""
    if not fields.read or not (ours.comparable and theirs.comparable):
        return ""
    return "" if any(fields.seen(run.value) for run in (ours, theirs)) else _NOWHERE


def _no_evidence(ours: Held, theirs: Held) -> str:
    """Say why a pair shows nothing of its engines, with a place for how many do; empty where it may.

    A run that asked nothing shows nothing; where only one did, its value may be of a cache, and the other engine's.
    """
    asked = [bool(run.calls) for run in (ours, theirs) if run.calls is not None]
    if asked and not any(asked):
        return _UNASKED
    if asked and not all(asked):
        return _ONE_ASKED
    silent = all(run.comparable and (run.value is None or run.value == "") for run in (ours, theirs))
    return _NOTHING if silent else ""


def call_fork(ours: Held, theirs: Held) -> CallFork | None:
    """Return the first call in which two runs differ, ``None`` where there is none or calls are not known."""
    if ours.calls is None or theirs.calls is None:
        return None
    return first_difference(ours.calls, theirs.calls)


def fork_lines(fork: CallFork | None, names: tuple[str, str]) -> list[str]:
    """Say which call of two runs differs first and how, nothing where there is none."""
    if fork is None:
        return []
    width = max(map(len, names))
    texts = [explain.plain(text, 100) or "nothing" for text in _parting(fork.ours, fork.theirs)]
    shown = [f"  {name:<{width}} {text}" for name, text in zip(names, texts, strict=True)]
    return [f"where it began: {fork.words}", *shown]


def _parting(ours: str, theirs: str) -> tuple[str, str]:
    """Return two texts from a little before the place at which they part."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    same = next((n for n, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    begin = max(0, same - _BEFORE)
    dots = "…" if begin else ""
    return f"{dots}{ours[begin:]}", f"{dots}{theirs[begin:]}"


def nothing_of(runs: Sequence[Held], fields: Fields) -> str:
    """Say that of these runs none came to a value that could be compared, or none to one with a path that is read.

    Empty where there is something to compare. Runs of which it is not known what they asked (a golden baseline's) do
    not hide that the others asked nothing.
    """
    known = [run for run in runs if run.calls is not None]
    total = explain.count(len(runs), "run")
    raised = [run.raised for run in runs if run.raised]
    kinds = explain.plain(", ".join(dict.fromkeys(raised)), 80)
    if known and not any(run.calls for run in known):
        if len(raised) == len(runs):
            return f"the application raised {kinds} in all {total}, before it asked its engine anything"
        return (
            f"the application asked its engine nothing in all {explain.count(len(known), 'run')}: does it use "
            "engine.openai() or engine.base_url?"
        )
    something = [run for run in runs if run.something]
    if not runs or something:
        seen = {path for run in something for path in fields.seen(run.value)}
        unseen = [explain.plain(path, 60) for path in fields.read if path not in seen]
        return f"no value has {' or '.join(unseen)}" if something and unseen else ""
    if len(raised) == len(runs):
        return f"the application raised {kinds} in all {total} and returned nothing"
    unread = next((run.unread for run in runs if run.unread), "")
    if unread:
        return f"nothing could be compared in {total}; first: {unread}"
    words = "None" if all(run.value is None for run in runs if run.comparable) else "nothing"
    return f"the application returned {words} in all {total}: does the test return what it computes?"


def _value(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:  # a field that is not there
        return repr(value)


def _in_words(run: Held) -> str:
    if run.outcome is None:
        return "no run"
    return f"raised {run.outcome.text}" if run.raised else run.outcome.text
