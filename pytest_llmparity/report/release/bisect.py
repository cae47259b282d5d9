"""The search for the first version that no longer passes, as a message: a line for each version, then what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.gate.bisecting import Search, Stands
from pytest_llmparity.core.gate.deciding import Decision
from pytest_llmparity.core.identity.lock import Difference
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.nodeids import names_apart
from pytest_llmparity.core.words.printable import cells, pad, printable, wrapped
from pytest_llmparity.report import json
from pytest_llmparity.report.release.gate import difference_lines
from pytest_llmparity.run.judge.decided import Decided

FORMAT: Final = 1
WIDTH: Final = 120
_WIDEST: Final = 40
"""Columns that the label of a version may take in the list."""
_WORDS: Final = {Stands.GOOD: "SHIP", Stands.BAD: "HOLD", Stands.OPEN: "INCONCLUSIVE", Stands.UNUSABLE: "unusable"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version of the engine: what it is called, by which keys it is that, and what its gate decided.

    ``told``: nobody was asked, the person said how it stands. ``asked`` is how many requests its gate took.
    """

    label: str
    keys: Mapping[str, Any] = field(default_factory=dict)
    stands: Stands | None = None
    decided: Decided | None = None
    told: bool = False

    @property
    def run(self) -> str:
        """The run its decision was made on, empty where there is none."""
        return "" if self.decided is None else self.decided.whole.record.run


def announcement(
    engine: str, versions: Sequence[str], search: Search, *, baseline: str, stored: bool, width: int
) -> list[str]:
    """Return what is going to be done, before it is: how many versions, held against what, and how many gates."""
    first, last = versions[0], versions[-1]
    gates = explain.count(search.most, "gate")
    ends = "both ends whatever they say, then halves" if not search.known else "halves"
    reuse = ", and what was gated before with the same suite and lock is not asked again" if stored else ""
    words = (
        f"{engine}: {len(versions)} versions from {first} to {last}, held against {baseline}. At most {gates} "
        f"({ends}), one more for each that the gate leaves open{reuse}."
    )
    return wrapped(printable(words), width, indent="  ")


def gated(version: Version) -> str:
    """Return what the gate of one version decided, without its name."""
    if version.stands is None:
        return "not gated"
    if version.decided is None:
        return f"{version.stands}, as you said"
    stored = version.stands is not Stands.UNUSABLE and not version.decided.whole.record.requests
    asked_nobody = "; its answers were stored, nobody was asked" if stored else ""
    return printable(f"{_WORDS[version.stands]}  {_why(version)}{asked_nobody}")


def message(
    engine: str,
    versions: Sequence[Version],
    search: Search,
    *,
    changed: Sequence[Difference] = (),
    width: int,
) -> list[str]:
    """Return a line for each version, and then the first that does not pass and what to do about it.

    ``changed`` is in what the last good version and the first bad one differ, as they tell it.
    """
    wide = min(_WIDEST, max(cells(printable(version.label)) for version in versions))
    verdict = max(cells(_word(version)) for version in versions)
    lines = []
    for version in versions:
        run = f"  {version.run}" if version.run else ""
        why = f"  {_why(version)}" if version.decided is not None else ""
        head = f"{pad(printable(version.label), wide)}  {pad(_word(version), verdict)}"
        lines += wrapped(printable(f"{head}{why}{run}"), width, indent=" " * (wide + 2))
    lines += ["", *wrapped(printable(_conclusion(engine, versions, search)), width, indent="  ")]
    if changed:
        apart = [line for difference in changed for line in difference_lines(difference, width)]
        good, bad = search.good, search.bad
        assert good is not None
        assert bad is not None
        lines += ["", printable(f"What changed from {versions[good].label} to {versions[bad].label}:"), *apart]
    return [line.rstrip() for line in lines]


def record(
    engine: str,
    versions: Sequence[Version],
    search: Search,
    *,
    baseline: str,
    outcome: str,
    changed: Sequence[Difference] = (),
    root: Path | None = None,
) -> dict[str, Any]:
    """Return what a search came to as JSON builtins, as ``--json`` writes it, without folders of this machine."""
    good, bad, late = search.good, search.bad, search.late

    def label(place: int | None) -> str | None:
        return None if place is None else versions[place].label

    content = {
        "format": FORMAT,
        "engine": engine,
        "baseline": baseline,
        "outcome": outcome,
        "first_bad": label(bad) if len(search.among) == 1 else None,
        "among": [versions[place].label for place in search.among],
        "last_good": label(good),
        "passes_again": label(late),
        "advice": _conclusion(engine, versions, search),
        "gates": sum(version.decided is not None for version in versions),
        "changed": [{"field": d.field, "good": d.locked, "bad": d.live} for d in changed],
        "versions": [
            {
                "version": version.label,
                "keys": dict(version.keys),
                "stands": None if version.stands is None else version.stands.value,
                "told": version.told,
                "outcome": None if version.decided is None else version.decided.decision.outcome.value,
                "says": "" if version.decided is None else _why(version),
                "run": version.run or None,
            }
            for version in versions
        ],
    }
    shortened: dict[str, Any] = json.here(root, ()).shorten(json.clean(content))
    return shortened


def _word(version: Version) -> str:
    if version.stands is None:
        return "not gated"
    return f"told {version.stands}" if version.told else _WORDS[version.stands]


def _why(version: Version) -> str:
    """Return the drift that was seen with its bounds, or why a version could not be used."""
    assert version.decided is not None
    if version.stands is Stands.UNUSABLE:
        return _trouble(version.decided)
    return drift(version.decided.decision)


def _trouble(decided: Decided) -> str:
    decision = decided.decision
    record = next((e for e in decided.whole.record.engines if e.name == decision.candidate), None)
    why = (record.unusable if record is not None else None) or "it gave no answers"
    first, *lines = why.removeprefix(f"{decision.candidate}: ").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    head = first.partition(" Its log ")[0].rstrip(".")
    return explain.plain(head, 160) + (f": {explain.plain(last, 160)}" if last else "")


def drift(decision: Decision) -> str:
    """Return what decided in a few words: the gravest required verdict, and beside it the drift of text and logprobs.

    Of each its number and its bound.
    """
    rulings = [ruling for ruling in decision.rulings if not ruling.verdict.tag]
    required = [ruling.verdict for ruling in rulings if ruling.level == "required"]
    shown = [v for v in required[:1] if v.outcome not in (Outcome.PASS, Outcome.SKIPPED)]
    shown += [r.verdict for kind in ("text", "logprobs") for r in rulings if r.verdict.kind == kind]
    shown = shown or [verdict for verdict in required if verdict.estimate is not None]
    if failing := [test for test in decision.broken if test.level == "required"]:
        tests = (*(ruling.verdict.test for ruling in decision.rulings), *(test.test for test in decision.broken))
        return f"{names_apart(tests)[failing[0].test]}: {failing[0].why}"
    parts = list(dict.fromkeys(map(_number, shown)))
    return "; ".join(parts[:3]) or "nothing that is required was judged"


def _number(verdict: Verdict) -> str:
    between = explain.bounds(verdict)
    if verdict.estimate is None:
        return f"{verdict.kind} {verdict.outcome}: {explain.plain(verdict.reason or 'nothing was judged', 160)}"
    number = explain.number(verdict.estimate, verdict.unit)
    return f"{verdict.kind} {number}{f' ({between})' if between else ''}"


def _conclusion(engine: str, versions: Sequence[Version], search: Search) -> str:
    """Return which version is the first bad one, as far as that is known, and what to do."""
    good, bad, late = search.good, search.bad, search.late
    if bad is None:
        return _no_bad(engine, versions, search)
    shown = f"What turned: llmparity report {versions[bad].run} --html." if versions[bad].run else ""
    sentences = []
    if len(search.among) == 1 and good is None:
        sentences.append(
            f"{versions[bad].label}, the first version of {engine} that was given, does not pass already; name an "
            "older one that does."
        )
    elif len(search.among) == 1 and good is not None:
        sentences.append(
            f"{versions[bad].label} is the first version of {engine} that no longer passes; {versions[good].label}, "
            f"before it, does. {_keep(engine, versions[good])}"
        )
    else:
        unknown = [versions[place] for place in search.among if place != bad]
        names = _labels(unknown)
        sentences.append(
            f"The first version of {engine} that no longer passes is {names} or {versions[bad].label}: of {names} the "
            "gates do not say."
        )
        if any(version.stands is Stands.OPEN for version in unknown):
            sentences.append("More prompts in the suite would settle what is open.")
        sentences.append("" if good is None else _keep(engine, versions[good]))
    if late is not None:
        sentences.append(
            f"{versions[late].label}, which comes later, passes again: either that was put right in between, or the "
            "gate does not say the same each time; gate the versions between by themselves."
        )
    return " ".join(filter(None, [*sentences, shown]))


def _no_bad(engine: str, versions: Sequence[Version], search: Search) -> str:
    last = versions[-1]
    if last.stands is Stands.GOOD:
        between = "" if all(v.stands for v in versions) else "; those between were not gated"
        return f"{last.label}, the last version of {engine}, passes, and none is known that does not{between}."
    undecided = [version for version in versions if version.stands in (Stands.OPEN, Stands.UNUSABLE)]
    good = "" if search.good is None else f" {versions[search.good].label} is the last that is known to pass."
    settle = ""
    if any(version.stands is Stands.OPEN for version in undecided):
        settle = " More prompts in the suite, or a wider margin, would settle what is open."
    return f"No version of {engine} is known not to pass: of {_labels(undecided)} the gates do not say.{good}{settle}"


def _keep(engine: str, version: Version) -> str:
    keys = ", ".join(f"{key} = {_toml(value)}" for key, value in version.keys.items())
    return f"Keep {engine} at {version.label}{f' ({keys})' if keys else ''} until it is known why."


def _toml(value: object) -> str:
    """Return a value about as a configuration has it; a list of one as its only value."""
    if isinstance(value, (list, tuple)) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return explain.plain(f'"{value}"', 80)
    return explain.plain(str(value), 80)


def _labels(versions: Sequence[Version], limit: int = 4) -> str:
    names = [version.label for version in versions]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
