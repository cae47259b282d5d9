"""What a run knows of its engines, and what it hands to every report when it has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.ladder import Ladder
from pytest_llmparity.core.identity.routes import RouteCheck
from pytest_llmparity.core.sample import Identity
from pytest_llmparity.core.verdict import Verdict

KEPT: Final = 50
"""Cases of one kind that a decision names; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """Everything a run knows of one engine: begun with its configuration, filled as the run learns, stored with it.

    Other processes, a replay, the checks and every report read it, so nobody asks the engine again.

    ``kind`` is ``unknown`` as long as nobody knows it, ``launch`` is ``attach``, ``process``, ``golden`` or ``replay``.
    ``address`` and ``model`` let a replay build the same requests again. ``error``: it never became usable.
    ``incomparable``: a pin or the lock contradicted. ``notes`` are what the reader should know of it. ``log`` is the
    name of the log of an engine that we start; ``log_hint`` says where another's may be found. ``declares`` is what its
    kind promises, ``capabilities`` that corrected by probes; ``route_check`` is there where another route is measured
    than applications use.

    What is not asked of it stands by the key of the unit: ``refused`` has the sentence that says which parameter its
    route cannot honour, ``left_out`` the one that says what it lacks for every check of the unit, ``lonely`` why
    nothing can be compared with it; ``unasked`` has such sentences of single cases, where the others are asked.
    ``golden`` is the name of the engine whose golden answers these are, ``None`` of a live one; those of the
    ``outdated`` cases, by the key of the unit, answer something else than is asked now.

    ``recording`` is the name of the recording that is played, empty of an engine that is there, and ``pace`` how many
    times as fast as it was recorded, 0 as fast as it goes. ``untimed`` says by the key of the unit why it has no times.
    ``canaries`` is how its answers compare with those in the lock, empty where none were asked.
    """

    name: str
    kind: str
    model: str | None = None
    address: str = ""
    launch: str = "attach"
    route: str = "openai"
    baseline: bool = False
    spec_hash: str = ""
    quantization: str | None = None
    context_length: int | None = None
    identity: Identity = field(default_factory=Identity)
    error: str | None = None
    incomparable: str | None = None
    notes: tuple[str, ...] = ()
    log: str | None = None
    log_hint: str = ""
    declares: Capabilities = field(default_factory=Capabilities)
    capabilities: Capabilities = field(default_factory=Capabilities)
    route_check: RouteCheck | None = None
    refused: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    unasked: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    lonely: Mapping[str, str] = field(default_factory=dict)
    golden: str | None = None
    outdated: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    recording: str = ""
    pace: float = 1.0
    untimed: Mapping[str, str] = field(default_factory=dict)
    canaries: str = ""

    @property
    def version(self) -> str | None:
        """The version or build the server tells, ``None`` where it tells neither."""
        version = self.identity.get("version") or self.identity.get("build")
        return None if version is None else str(version)

    @property
    def unusable(self) -> str | None:
        """Why it cannot be asked or compared, ``None`` when it can."""
        return self.error or self.incomparable


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOrigin:
    """Whose question an answer is: the ``tests`` that asked it, their prompt sets, and the case's messages or prompt.

    ``tags`` and ``group`` are the case's, ``expect`` is what it says of a right answer (``core.right.expected``).
    ``judged``: a verdict of one of them rests on it; answers that measure the noise floor, and those that a test only
    reads, are not. Everything is empty where nobody noted it (runs stored by an older version).
    """

    tests: tuple[str, ...] = ()
    prompt_sets: tuple[str, ...] = ()
    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | None = None
    tags: tuple[str, ...] = ()
    group: str = ""
    expect: Mapping[str, Any] = field(default_factory=dict)
    judged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyQuantiles:
    """Quantiles of one metric on one engine. ``metric``: ``ttft``, ``tpot``, ``e2e``; ``unit`` is ``s``."""

    engine: str
    metric: str
    p50: float
    p95: float
    p99: float
    n: int
    unit: str = "s"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """One answer that never came: engine, case, phase and the error's class name and text."""

    engine: str
    case: str
    phase: str
    kind: str
    message: str
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """One verdict that was ruled on: ``says`` is its headline, ``alone`` the decision if it were the only one.

    ``remarks`` are what is to be known of it whatever it came to.
    """

    test: str
    kind: str
    outcome: str
    level: str
    alone: str
    says: str
    cause: str | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A test that failed for another reason than a verdict; ``alone`` as that of a verdict."""

    test: str
    why: str
    level: str
    alone: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field in which the two engines differ, as the lock tells it; ``None`` where one of them does not tell it."""

    field: str
    baseline: str | None
    candidate: str | None
    machine: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """One case that turned: ``what`` says how, by ``checks`` of these kinds; the rest is of the fork of both texts."""

    test: str
    case: str
    what: str
    checks: tuple[str, ...] = ()
    token: float | None = None
    char: int | None = None
    grade: str | None = None
    counted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many cases turned and in what way, also beyond those that a decision names."""

    regressions: int = 0
    improvements: int = 0
    changed: int = 0
    changed_right: int = 0
    wrong_on_both: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionRecord:
    """What a policy makes of a run: ``outcome`` is SHIP, HOLD or INCONCLUSIVE, ``advice`` says it in a sentence.

    ``policy`` is its file as it was named, ``sha256`` the hash of its bytes. ``verdicts`` have the gravest first,
    required ones before advisory ones, and so have ``regressions``, ``improvements`` and ``changed_cases``, of which
    at most :data:`KEPT` are named. ``same`` are facts in which both engines are known to be the same. Of a decision
    that an older version stored nothing behind ``sha256`` is known: its ``flips`` are ``None``. So what is added later
    needs a default.
    """

    outcome: str
    baseline: str
    candidate: str
    advice: str
    policy: str
    sha256: str
    verdicts: tuple[Ground, ...] = ()
    broken: tuple[Broken, ...] = ()
    changed: tuple[Change, ...] = ()
    same: tuple[str, ...] = ()
    flips: Counts | None = None
    regressions: tuple[Turned, ...] = ()
    improvements: tuple[Turned, ...] = ()
    changed_cases: tuple[Turned, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything about one run.

    ``requests`` counts what was sent when it was gathered, to all engines and with probes, ``retries`` what of that was
    sent again; ``replayed``: nothing was sent now. ``notes`` are sentences for the end of the summary (what was
    resumed, what a hard stop left out). ``reproduce`` has by test the command that runs it again, ``ladder`` is that of
    the baseline's model, where the lock has one. ``errors`` has by test why it failed where no verdict says so: its
    set-up, its body or its teardown. ``decisions`` are there where a policy was given, one for each candidate.
    ``unshown`` says of times that no limit asked for why they are in no table; the terminal tells it with
    ``-v`` only. ``strict``: what stayed open failed the run (``--parity-inconclusive fail``). ``portion`` has the words
    of a command line that chose a part of the prompts, empty where all were asked.
    """

    run: str
    version: str
    engines: tuple[EngineRecord, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    latency: tuple[LatencyQuantiles, ...] = ()
    failures: tuple[FailureRecord, ...] = ()
    requests: int = 0
    retries: int = 0
    replayed: bool = False
    notes: tuple[str, ...] = ()
    reproduce: Mapping[str, str] = field(default_factory=dict)
    ladder: Ladder | None = None
    errors: Mapping[str, str] = field(default_factory=dict)
    decisions: tuple[DecisionRecord, ...] = ()
    strict: bool = False
    portion: str = ""
    unshown: tuple[str, ...] = ()
