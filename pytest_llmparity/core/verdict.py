"""A verdict: numbers only. ``core.words.explain`` turns it into words, every report reads the same record."""

from __future__ import annotations

import dataclasses
import enum
from dataclasses import dataclass
from typing import Final

import msgspec

from pytest_llmparity.core.compare.shift import Shape


class Outcome(enum.StrEnum):
    """What a check concluded about one engine or one pair, worst last in :data:`SEVERITY`."""

    PASS = "PASS"  # noqa: S105 - an outcome, not a password
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    INCOMPARABLE = "INCOMPARABLE"
    ERROR = "ERROR"
    SKIPPED = "SKIPPED"

    @property
    def fails_test(self) -> bool:
        """Whether a test with such a verdict fails."""
        return self in (Outcome.FAIL, Outcome.INCOMPARABLE, Outcome.ERROR)


SEVERITY = (
    Outcome.SKIPPED,
    Outcome.PASS,
    Outcome.INCONCLUSIVE,
    Outcome.FAIL,
    Outcome.INCOMPARABLE,
    Outcome.ERROR,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Prompts that an engine could not be asked, or not for this check, and the sentence that says why."""

    engine: str
    reason: str
    cases: tuple[str, ...]


READER: Final = "put right by the reader"
"""How the ``what`` begins of a :class:`Lenience` that every check shares, because our reader of answers had it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lenience:
    """How many ``of`` an engine's answers had something a strict reader trips over.

    ``what`` goes on from *answers of ENGINE*; ``accepted`` says whether they were read all the same.
    """

    engine: str
    what: str
    count: int
    of: int
    accepted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """What became of a verdict's drift where something that may differ was made the same for both engines.

    ``removed`` says what that was, ``before`` and ``after`` are the verdict's quantity on the same ``n`` prompts
    without and with it, ``p`` the one-sided p-value of the paired sign test over the ``groups`` of these prompts.
    ``outcome``: ``gone`` (not above the margin any more), ``less``, ``stays``, ``back`` or ``stays away`` (it alone was
    put back where all else was taken away, and the drift came back, or did not), ``not tried``, and ``why``;
    ``measured``: nothing was taken away, and ``why`` has what was measured.
    ``requests`` is what asking it cost, 0 where answers were there already.
    """

    removed: str
    outcome: str
    before: float | None = None
    after: float | None = None
    n: int = 0
    groups: int = 0
    p: float | None = None
    requests: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One thing whose removal was shown to remove drift, its ``layer`` in a word or two, and a line to paste.

    ``by_exclusion``: nothing that could be taken away took the drift away, and this is what remains.
    """

    layer: str
    text: str
    remedy: str = ""
    by_exclusion: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What experiments said of one verdict: ``causes`` that were shown, ``requests`` in all, ``note``: what is left."""

    experiments: tuple[Experiment, ...] = ()
    causes: tuple[Cause, ...] = ()
    requests: int = 0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """How far greedy answers are apart beside forks per token, which say little of few prompts that part at once.

    ``prompts`` is the share of prompts that part within the horizon, ``shift`` the median over groups of how far the
    lead of the best token moved, in nats; ``or_more``: that is the least it can be. ``None`` where it is not known.
    """

    prompts: float
    shift: float | None = None
    or_more: bool = False


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One case on which two engines differ, or which one engine answered wrongly, as one check sees it.

    ``what`` says how, in a few words.

    ``baseline_sha256`` and ``candidate_sha256`` are hex digests of what was compared, as UTF-8: the text of an answer,
    or its tool calls written out; ``None`` where there was none (a prompt count, a failed answer). Where texts fork,
    ``byte`` and ``char`` are the place in the baseline's text, ``token`` the place in its tokens from 0, ``unit`` how
    good that number is (see ``core.compare.answers.Fork``) and ``grade`` what the logprobs say, ``None`` where there
    are none. ``counted`` is false beyond the horizon and for further prompts of a group.
    """

    case: str
    what: str
    baseline_sha256: str | None = None
    candidate_sha256: str | None = None
    byte: int | None = None
    char: int | None = None
    token: float | None = None
    unit: str | None = None
    grade: str | None = None
    counted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the answers to some prompts say about one quantity, whosever answers they are.

    ``estimate``, ``lower``, ``upper`` and ``margin`` share ``unit``; the bounds are one-sided. ``side`` says which
    deviations count. ``p_pass`` is the p-value of "drift is at least the margin", ``p_fail`` of "drift is at most the
    margin"; both ``None`` for exact findings (a pin, a prompt count), whose outcome is not a test. ``n`` counts cases,
    ``groups`` the independent groups (0: not clustered). ``needed`` is how many in all would settle an INCONCLUSIVE,
    counted as ``n`` is, ``at_hand`` how many of these there are (0: as many as ``n``). ``per_group``: of each group one
    case counts, so that ``n`` is a number of groups too; of latency, whose ``n`` are requests, that ``groups`` are not
    single prompts. ``effective``: the ``n`` cases go together in their groups and
    count for so many independent ones (0: for ``n``). ``reason`` says in one sentence why the outcome is not what
    the bounds alone say. ``open``: judged by evidence that may still grow in a sequential run; ``sequence`` says how
    far that run came. ``advice`` says what would settle an INCONCLUSIVE where that is no number of prompts alone.
    """

    outcome: Outcome
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    margin: float | None = None
    unit: str = ""
    side: str = "worse"
    n: int = 0
    groups: int = 0
    p_pass: float | None = None
    p_fail: float | None = None
    needed: int | None = None
    at_hand: int = 0
    per_group: bool = False
    effective: int = 0
    reason: str = ""
    open: bool = False
    sequence: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict(Judgement):
    """One judgement of one check about one engine (``baseline`` is ``None``) or one pair, and what stands beside it.

    ``check`` is the check as written (``text(horizon=32)``), ``kind`` the quantity judged (``text``, ``schema.rate``,
    ``schema.gap``, ``latency.ttft_p50``, …), ``where`` the ``file:line`` of the check. With a ``tag`` it is about the
    prompts with that tag alone, and its kind says so: ``text[poem]``. With an ``arm`` it is about the answers of that
    arm, or about what the constraint of that arm does. ``constraint`` says of ``schema.constraint`` what became of it:
    ``enforced``, ``violated``, ``refused`` or ``not shown``. Bounds are at ``alpha``.
    ``looks`` counts the earlier looks at the same question, each of which halved ``alpha``; ``p_family`` is ``p_fail``
    corrected for the ``family`` judgements of its test that are tests (Holm, weighted), ``None`` where it is none.
    ``requests`` counts the answers used, ``horizon`` the tokens of each that were compared. ``measures`` says in words
    what the estimate counts (``of tokens fork``), ``margin_from`` where a margin comes from that the check does not
    name. ``floor`` is the baseline's own drift, ``apart`` what stands beside forks per token, ``shape`` where the shift
    of its answers sits: evidence that names no cause. ``differs`` lists layers that differ, ``cause`` is set only when
    shown to be the cause, ``explanation`` has the experiments that were made. ``blocked_by`` names the engine that
    cannot be used, or failed to answer, where that is the reason: it is told once. ``left_out`` are prompts the verdict
    does not rest on because an engine cannot be asked them; ``n`` is without them. ``lenience`` counts, by engine, what
    was forgiven in the answers or was not, ``remarks`` are further sentences that hold whatever the outcome.
    ``message`` is the headline, ``details`` the lines below it. ``differing`` are the cases on which the two engines
    differ, or of one engine those it answered wrongly, in the order of the prompts.
    """

    test: str
    check: str
    kind: str
    engine: str
    baseline: str | None
    tag: str = ""
    arm: str = ""
    constraint: str = ""
    where: str = ""
    alpha: float = 0.05
    looks: int = 0
    p_family: float | None = None
    family: int = 0
    requests: int = 0
    horizon: int | None = None
    measures: str = ""
    margin_from: str = ""
    floor: float | None = None
    apart: Apart | None = None
    shape: Shape | None = None
    differs: tuple[str, ...] = ()
    cause: str | None = None
    explanation: Explanation | None = None
    blocked_by: str = ""
    left_out: tuple[LeftOut, ...] = ()
    lenience: tuple[Lenience, ...] = ()
    remarks: tuple[str, ...] = ()
    message: str = ""
    details: tuple[str, ...] = ()
    differing: tuple[Difference, ...] = ()

    def judged(self, judgement: Judgement) -> Verdict:
        """Return the verdict with this judgement; what stands beside it stays."""
        values = {field.name: getattr(judgement, field.name) for field in dataclasses.fields(Judgement)}
        return dataclasses.replace(self, **values)

    @property
    def quantity(self) -> str:
        """What is judged, without the tag of the prompts."""
        return self.kind.partition("[")[0] if self.tag else self.kind

    @property
    def rests_on_nothing(self) -> bool:
        """Whether no answer stands behind it: its check was skipped, or nothing could be compared."""
        return self.outcome in (Outcome.SKIPPED, Outcome.INCONCLUSIVE) and not self.n

    @property
    def advises(self) -> bool:
        """Whether answers were compared for a check that judges nothing: it says what was seen."""
        return self.outcome is Outcome.SKIPPED and self.n > 0
