"""What was gathered, as checks and the diagnosis read it, and what a check is: a frozen value that judges it."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.ports import Embedder
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Completion, Failure, Identity, Phase, Sample, Sampling
from pytest_llmparity.core.verdict import Verdict

Tokens: TypeAlias = Sequence[float]
"""The most tokens that the answer to each prompt may have, in their order; empty where nobody said."""
FLOOR_PHASES = (Phase.COLD, Phase.WARM, Phase.PARALLEL)
FLOOR_STAGES: Final = (16, 32, 64)
"""How many cases the noise floor repeats, all of a smaller set: more where fewer do not show it to be small enough."""
FLOOR_SHARES: Final = (0.4, 0.2, 0.4)
"""Share of the error rate at which each stage may show it: who looks three times pays for three (Bonferroni)."""


def floor_stages(cases: int, concurrency: int = 1) -> tuple[int, ...]:
    """Return after how many of so many cases it is looked whether the noise floor is small enough.

    Fewer than are asked at once would not be asked as the gate asks.

    >>> floor_stages(200), floor_stages(20), floor_stages(5), floor_stages(200, concurrency=24)
    ((16, 32, 64), (16, 20), (5,), (24, 32, 64))
    """
    return tuple(dict.fromkeys(min(max(stage, concurrency), cases) for stage in FLOOR_STAGES))


def floor_share(asked: int, stages: Sequence[int]) -> float:
    """Return the share of the error rate that belongs to a noise floor of so many cases.

    The last stage has what the others leave.

    >>> [floor_share(asked, (16, 32, 64)) for asked in (16, 20, 64)], floor_share(16, (16, 20)), floor_share(8, (8,))
    ([0.4, 0.2, 0.4], 0.4, 1.0)
    """
    place = next((place for place, stage in enumerate(stages) if asked <= stage), len(stages) - 1)
    last = place == len(stages) - 1
    return round(1.0 - sum(FLOOR_SHARES[:place]), 9) if last else FLOOR_SHARES[place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Samples a check reads: phases of each engine, logprobs, and how many timed requests per engine (0: none).

    ``capabilities`` names fields of ``core.identity.capabilities.Capabilities`` without which it cannot be judged
    (``json_schema`` counts only where a case asks for a schema). ``judged`` is false where rows are only read. With
    ``timed_cached`` prompts are timed as they were gathered, so that a prefix cache may hold them; ``timed_blocks`` of
    as many requests as are under way are needed at least.
    The noise floor is of at least ``floor_cases``, then of more until it is shown to lie below each margin of
    ``floor_held``, pairs of forks per token and the tokens over which they are counted. ``floor_tokens``: so many
    tokens of each of its answers are read, ``None``: all. ``accepted``: its margin is the
    one that was accepted for the pair in the lock. ``ladder``: its margin is that of a class of the model's ladder in
    the lock. ``repeats``: each case is asked so often; ``sampled``: and has to be answered otherwise each time, at a
    temperature above 0 and without a seed. ``arms``: it reads both arms of each case.
    """

    phases: frozenset[Phase] = frozenset({Phase.MAIN})
    top_logprobs: int | None = None
    timed: int = 0
    timed_relative: bool = False
    timed_cached: bool = False
    timed_blocks: int = 1
    capabilities: frozenset[str] = frozenset()
    judged: bool = True
    floor_cases: int = 0
    floor_held: frozenset[tuple[float, int]] = frozenset()
    floor_tokens: int | None = None
    accepted: bool = False
    ladder: bool = False
    repeats: int = 1
    sampled: bool = False
    arms: bool = False

    @property
    def floor(self) -> bool:
        """Whether it is measured what an engine differs from itself."""
        return bool(self.phases & set(FLOOR_PHASES))


def union(needs: Sequence[Needs]) -> Needs:
    """Return needs that satisfy all of them; the main phase is always gathered."""
    logprobs = [n.top_logprobs for n in needs if n.top_logprobs is not None]
    return Needs(
        phases=frozenset({Phase.MAIN}).union(*(n.phases for n in needs)),
        top_logprobs=max(logprobs) if logprobs else None,
        timed=max((n.timed for n in needs), default=0),
        timed_relative=any(n.timed_relative for n in needs),
        timed_cached=any(n.timed_cached for n in needs),
        timed_blocks=max((n.timed_blocks for n in needs), default=1),
        floor_cases=max((n.floor_cases for n in needs), default=0),
        floor_held=frozenset().union(*(n.floor_held for n in needs)),
        floor_tokens=_longest([n.floor_tokens for n in needs if n.floor]),
        capabilities=frozenset().union(*(n.capabilities for n in needs)),
        judged=any(n.judged for n in needs),
        accepted=any(n.accepted for n in needs),
        ladder=any(n.ladder for n in needs),
        repeats=max((n.repeats for n in needs), default=1),
        sampled=any(n.sampled for n in needs),
        arms=any(n.arms for n in needs),
    )


def _longest(tokens: Sequence[int | None]) -> int | None:
    known = [each for each in tokens if each is not None]
    return max(known) if known and len(known) == len(tokens) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineEvidence:
    """Everything gathered from one engine for one prompt set.

    ``samples[phase][case id]`` lists the repeats in order; failed ones are there too. ``quantization`` is the pinned
    value, else what the server or file said, normalised (``F16``, ``Q4_K_M``, ``awq``), ``None`` when unknown.
    ``incomparable`` is the sentence that makes every check of this engine INCOMPARABLE, ``error`` the one that makes
    them ERROR (it never started, …), ``lacking`` the one that makes this check SKIPPED (a capability it needs is not
    there). ``left_out`` says by case id why this check cannot be judged on a case that another engine may have answered
    (a capability it needs is not there, the route has no word for what it asks): such a case is no evidence of this
    engine or of a pair with it. ``untimed`` says why its timed phase failed. ``capabilities`` are those of the live
    server, ``declares`` what its kind promises. ``route`` says how its other route answers differently, empty where it
    does not or there is none. ``golden`` is the name of the engine whose golden answers these are, ``None`` of a live
    one; ``recording`` that of the recording that was played, empty where none was.
    """

    name: str
    kind: str
    identity: Identity = field(default_factory=Identity)
    quantization: str | None = None
    samples: Mapping[Phase, Mapping[str, Sequence[Sample]]] = field(default_factory=dict)
    incomparable: str | None = None
    error: str | None = None
    untimed: str | None = None
    lacking: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    capabilities: Capabilities = field(default_factory=Capabilities)
    declares: Capabilities = field(default_factory=Capabilities)
    route: str = ""
    golden: str | None = None
    recording: str = ""
    _answers: dict[Phase, dict[str, Completion]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def answers(self, phase: Phase = Phase.MAIN) -> Mapping[str, Completion]:
        """Return the first answer of each case in a phase; cases that only failed are not in it."""
        if phase not in self._answers:
            first = self._answers[phase] = {}
            for case, samples in self.samples.get(phase, {}).items():
                for sample in samples:
                    if sample.completion is not None:
                        first[case] = sample.completion
                        break
        return self._answers[phase]

    def failures(self, phase: Phase = Phase.MAIN) -> dict[str, Failure]:
        """Return the first failure of each case that has no answer in a phase."""
        failures: dict[str, Failure] = {}
        for case, samples in self.samples.get(phase, {}).items():
            if not samples or samples[0].failure is None:
                continue
            failed = [sample.failure for sample in samples if sample.failure is not None]
            if len(failed) == len(samples):
                failures[case] = failed[0]
        return failures


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a check judges: one prompt set on several engines. ``engines`` holds the baseline first.

    ``alpha`` is already divided for repeated looks. ``incomplete`` says why cases are missing (a hard stop such as
    ``--parity-max-requests``), else ``None``. ``seed`` makes resampling repeatable. ``single`` marks one question
    asked on the spot: checks then say PASS or FAIL of that answer, without a bound. ``agreed`` is what the lock said of
    drift when the answers were gathered.

    ``sequential``: the cases are in the order in which they are asked, wave by wave, until nothing is open; an engine
    was asked as many of them as have answers or failures, and its main phase holds nothing of an unfinished wave.
    Checks that can then judge by evidence which is valid whenever one stops.
    """

    test: str
    prompts: PromptSet
    sampling: Sampling
    concurrency: int
    baseline: str
    engines: Mapping[str, EngineEvidence]
    alpha: float = 0.05
    incomplete: str | None = None
    embedder: Embedder | None = None
    seed: int = 0
    single: bool = False
    sequential: bool = False
    agreed: Agreed = field(default_factory=Agreed)

    @property
    def candidates(self) -> tuple[EngineEvidence, ...]:
        """Every engine but the baseline, in the order selected."""
        return tuple(engine for name, engine in self.engines.items() if name != self.baseline)

    def about(self, prompts: PromptSet) -> Evidence:
        """Return the evidence on some of the prompts alone."""
        if prompts is self.prompts:
            return self
        engines = {name: _about(engine, prompts.by_id) for name, engine in self.engines.items()}
        return dataclasses.replace(self, prompts=prompts, engines=engines)


def _about(engine: EngineEvidence, cases: Container[str]) -> EngineEvidence:
    return dataclasses.replace(
        engine,
        samples={
            phase: {case: samples for case, samples in by_case.items() if case in cases}
            for phase, by_case in engine.samples.items()
        },
        left_out={case: why for case, why in engine.left_out.items() if case in cases},
    )


class Check(Protocol):
    """One check. Values are frozen and comparable; ``str()`` gives what the user wrote, shortened."""

    @property
    def kind(self) -> str:
        """Short name: ``prompts``, ``text``, ``schema``, ``answers``, ``similarity``, ``latency``."""

    @property
    def pairwise(self) -> bool:
        """True when it says nothing about a single engine."""

    @property
    def sequential(self) -> bool:
        """Whether a sequential run can settle it before every case was asked."""

    @property
    def where(self) -> str:
        """``file:line`` where the user wrote it."""

    def needs(self) -> Needs:
        """Return the samples to gather for it."""

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        """Say why this design can never settle anything (with the number that could), or ``None``.

        A clause that starts with the reason and does not name the check: the caller puts check and place behind it.
        ``tokens`` are of the prompts in their order, here and below.
        """

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return one line for the plan: what this design can and cannot see."""

    def weakness(self, *, sizes: Sequence[int], sequential: bool = False, tokens: Tokens = ()) -> str:
        """Say what groups of these sizes keep it from seeing, one line for every plan; empty where that is little."""

    def beforehand(self, evidence: Evidence, candidate: EngineEvidence) -> str:
        """Say why a pair cannot be judged whatever its engines answer, empty where it can.

        Nothing but who they are and what the lock holds is known then.
        """

    def prompt_problem(self, prompts: PromptSet) -> str | None:
        """Say why these prompts are not what it can judge, whatever is answered, or ``None``; a clause as above."""

    def tag_problem(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str | None:
        """Say why it cannot judge tags by themselves although it is asked to, or ``None``; a clause as above."""

    def tag_line(self, prompts: PromptSet, *, sequential: bool = False, tokens: Tokens = ()) -> str:
        """Return for the plan which tags it judges by themselves; empty where it is not asked to."""

    def judge(self, evidence: Evidence) -> list[Verdict]:
        """Return a verdict per engine (absolute limits) or per candidate (pairwise limits); bad data never raises."""
