"""What checks decide on draws from a recording: tables of outcomes, and the class that a ladder names.

    python -m benchmarks.draws [--draws 200]

Judges answers that ``benchmarks/record_draws.py`` kept, by the checks themselves, as a run of so many prompts would:
the baseline's noise floor is of its first prompts, and verdicts are settled as one test's. Nothing is asked.
"""

from __future__ import annotations

import functools
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, TypeVar
from unittest import mock

import msgspec

from benchmarks.recordings import Recorded, Recording, read
from pytest_llmparity.core import prompts as prompting
from pytest_llmparity.core.checks.drift.floor import needs_more
from pytest_llmparity.core.checks.drift.logprobs import LogprobsCheck
from pytest_llmparity.core.checks.drift.text import TextCheck
from pytest_llmparity.core.checks.family import settle
from pytest_llmparity.core.compare import shift as comparing
from pytest_llmparity.core.compare.answers import compare_answers
from pytest_llmparity.core.compare.shift import find_shift
from pytest_llmparity.core.evidence import FLOOR_PHASES, Check, EngineEvidence, Evidence, Needs, floor_stages
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.identity.ladder import Ladder, Rung
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Phase, Sampling, in_memory
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.run.declare.prompts import load_prompts
from pytest_llmparity.run.plan import floor_order

T = TypeVar("T")

FIXTURES: Final = Path(__file__).resolve().parent.parent / "fixtures"
PROMPTS: Final = {
    "tiny": "prompts/pool.jsonl",
    "smollm2": "draws/instruct.jsonl",
    "structured": "draws/structured.jsonl",
}
MARGIN: Final = 0.06
"""Nats: the margin of the tiny model's pairs, above BF16 and Q8_0 and below Q6_K."""
SIZES: Final = (16, 24, 64)
DRAWS: Final = 200
SEED: Final = "pytest-llmparity draws 1"
ALPHA: Final = 0.05
BASELINE: Final = "f16"
CHECKS: Final = "pytest_llmparity.core.checks."
"""Where answers are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two engines of a recording and the set of its prompts that draws are made from."""

    baseline: str
    candidate: str
    prompts: str


HONEST: Final = (
    Pair(baseline="vllm-bf16", candidate="ollama-f16", prompts="mixed"),
    Pair(baseline="vllm-bf16", candidate="f16", prompts="mixed"),
    Pair(baseline="f16", candidate="vllm-bf16", prompts="mixed"),
    Pair(baseline="f16", candidate="ollama-f16", prompts="mixed"),
    Pair(baseline="ollama-f16", candidate="vllm-bf16", prompts="mixed"),
    Pair(baseline="f16", candidate="vllm-bf16", prompts="pool"),
    Pair(baseline="f16", candidate="ollama-f16", prompts="pool"),
    Pair(baseline="f16", candidate="q8_0", prompts="pool"),
)
"""What has to pass at :data:`MARGIN`."""
OF_MLX: Final = (
    Pair(baseline="f16", candidate="mlx", prompts="mixed"),
    Pair(baseline="f16", candidate="mlx", prompts="pool"),
)
"""What has to pass too, and needs more of the pool than 16 prompts to do so always: its logits are steps of BF16."""
COARSE: Final = (
    Pair(baseline="f16", candidate="q4_k_m", prompts="pool"),
    Pair(baseline="f16", candidate="q4_0", prompts="pool"),
    Pair(baseline="f16", candidate="q4_0", prompts="mixed"),
    Pair(baseline="vllm-bf16", candidate="q4_0", prompts="mixed"),
    Pair(baseline="vllm-bf16", candidate="ollama-q4_0", prompts="mixed"),
)
"""Weights of four bits, which have to fail."""
HIDDEN: Final = (
    Pair(baseline="f16", candidate="kv-q4_0", prompts="mixed"),
    Pair(baseline="f16", candidate="rope", prompts="mixed"),
    Pair(baseline="f16", candidate="hidden", prompts="mixed"),
)
"""What acts on some prompts only: never to be passed."""


class Drawn:
    """Judges draws from one recording.

    Prompts are drawn singly, so each is a group of its own: what is drawn at random from a set is independent evidence
    about that set, whatever its prompts have in common. With ``grouped`` they keep the groups of the file, and a
    verdict is about the median of those.
    """

    def __init__(self, recording: Recording, model: str, *, grouped: bool = False) -> None:
        every = load_prompts(FIXTURES / PROMPTS[model], ()).by_id
        if not grouped:
            every = {name: msgspec.structs.replace(case, group=name) for name, case in every.items()}
        self.engines = recording.engines
        self.sets: dict[str, list[Case]] = {
            name: [every[case] for case in cases] for name, cases in recording.about["sets"].items()
        }
        self._concurrency = int(recording.about["concurrency"])
        self.max_tokens = int(recording.about["max_tokens"])
        self._sampling = Sampling(max_tokens=self.max_tokens)

    @classmethod
    def of(cls, model: str, *, grouped: bool = False) -> Drawn:
        """Return the committed recording of a model."""
        return cls(read(FIXTURES / "draws" / f"{model}.jsonl.xz"), model, grouped=grouped)

    def draw(self, name: str, size: int, number: int) -> PromptSet:
        """Return one draw without putting back, the same whatever else is drawn."""
        cases = self.sets[name]
        chosen = Random(f"{SEED}/{name}/{size}/{number}").sample(cases, min(size, len(cases)))
        return PromptSet(name=name, cases=tuple(chosen))

    def verdicts(
        self, pair: Pair, prompts: PromptSet, checks: Sequence[Check], *, agreed: Agreed | None = None
    ) -> list[Verdict]:
        """Return what checks decide of a pair on these prompts, settled as one test."""
        needs = checks[0].needs()
        evidence = Evidence(
            test="draws",
            prompts=prompts,
            sampling=self._sampling,
            concurrency=self._concurrency,
            baseline=pair.baseline,
            engines={name: self._side(self.engines[name], prompts, needs) for name in (pair.baseline, pair.candidate)},
            alpha=ALPHA,
            agreed=agreed or Agreed(),
        )
        return settle([verdict for check in checks for verdict in check.judge(evidence)], ALPHA)

    def _side(self, engine: Recorded, prompts: PromptSet, needs: Needs) -> EngineEvidence:
        """Return one engine's answers, with a noise floor of as many prompts as a run would ask."""
        order = floor_order(prompts)
        stages, begun = floor_stages(len(order), self._concurrency), list[Sequence[Case]]()
        for cases in stages:
            side = _evidence(engine, prompts, order[:cases])
            begun.append(order[sum(map(len, begun)) : cases])
            if not needs_more(begun, side, held=needs.floor_held, stages=stages):
                break
        return side


def _evidence(engine: Recorded, prompts: PromptSet, floor: Sequence[Case]) -> EngineEvidence:
    asked = {phase: [case.id for case in (floor if phase in FLOOR_PHASES else prompts.cases)] for phase in Phase}
    return EngineEvidence(
        name=engine.name,
        kind=engine.kind,
        identity=engine.identity,
        quantization=engine.quantization,
        samples={phase: engine.samples(asked[phase], phase) for phase in engine.answers},
    )


@contextmanager
def remembered() -> Iterator[None]:
    """Look at any answer, two of them and a prompt once: draws overlap, and none of it depends on the draw."""
    with ExitStack() as patches:
        for module, name in ((comparing, "_places"), (comparing, "_logprobs"), (prompting, "_written")):
            patches.enter_context(mock.patch.object(module, name, _once(getattr(module, name))))
        for compare in (find_shift, compare_answers, in_memory):
            once = _once(compare)
            for name, module in list(sys.modules.items()):
                if name.startswith(CHECKS) and getattr(module, compare.__name__, None) is compare:
                    patches.enter_context(mock.patch.object(module, compare.__name__, once))
        yield


def _once(compare: Callable[..., T]) -> Callable[..., T]:
    known: dict[tuple[object, ...], tuple[T, tuple[object, ...]]] = {}

    @functools.wraps(compare)
    def remembering(*compared: object, **given: object) -> T:
        key = (*map(id, compared), *given.items())
        if key not in known:
            known[key] = (compare(*compared, **given), compared)  # held, so that the ids stay theirs
        return known[key][0]

    return remembering


@dataclass(slots=True)
class Tally:
    """What became of one pair over all draws."""

    outcomes: Counter[str] = field(default_factory=Counter)
    estimates: list[float] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)

    def share(self, outcome: str) -> float:
        """Return how often it came."""
        return self.outcomes[outcome] / self.outcomes.total()


def outcomes(drawn: Drawn, pair: Pair, checks: Sequence[Check], *, size: int, draws: int = DRAWS) -> Tally:
    """Judge a pair on so many draws; the first verdict of the checks is counted."""
    tally = Tally()
    for number in range(draws):
        verdict = drawn.verdicts(pair, drawn.draw(pair.prompts, size, number), checks)[0]
        tally.outcomes[str(verdict.outcome)] += 1
        tally.groups.append(verdict.groups)
        tally.requests.append(verdict.requests)
        if verdict.estimate is not None:
            tally.estimates.append(verdict.estimate)
    return tally


def ladder(drawn: Drawn, classes: Sequence[str], prompts: PromptSet) -> Ladder:
    """Return the ladder of a recording's F16 file, measured on these prompts as ``llmparity calibrate`` does it."""
    rungs = []
    for name in classes:
        pair = Pair(baseline=BASELINE, candidate=name.lower(), prompts=prompts.name)
        (shift,) = drawn.verdicts(pair, prompts, [LogprobsCheck(shift=1.0)])
        forks = drawn.verdicts(pair, prompts, [TextCheck(margin=0.5)])[0]
        values = (shift.estimate, shift.lower, shift.upper, forks.estimate, forks.lower, forks.upper)
        numbers = ("shift", "lower", "upper", "forks", "least_forks", "most_forks")
        known = {number: math.nan if value is None else value for number, value in zip(numbers, values, strict=True)}
        rungs.append(Rung(quantization=name, tags={}, **known))
    return Ladder(
        digest=str(drawn.engines[BASELINE].identity.get("digest")),
        model="F16",
        date="",
        server="",
        made_by="",
        prompts=len(prompts.cases),
        groups=prompts.groups,
        prompt_set=prompts.name,
        plugin="",
        prompt_sha256=prompts.digest,
        max_tokens=drawn.max_tokens,
        rungs=tuple(rungs),
    )


def halves(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """Return every second prompt, and the others: one half measures a ladder, draws come from the other."""
    return list(cases[::2]), list(cases[1::2])


def named(
    drawn: Drawn, classes: Sequence[str], candidates: Sequence[str], *, name: str, size: int, draws: int = DRAWS
) -> dict[str, Counter[str]]:
    """Return how often verdicts named which class for each candidate, by the ladder of the other half of a set."""
    measured, left = halves(drawn.sets[name])
    agreed = Agreed().measuring(ladder(drawn, classes, PromptSet(name=name, cases=tuple(measured))))
    counts: dict[str, Counter[str]] = {}
    for candidate in candidates:
        pair, counts[candidate] = Pair(baseline=BASELINE, candidate=candidate, prompts=name), Counter()
        for number in range(draws):
            chosen = Random(f"{SEED}/classes/{name}/{size}/{number}").sample(left, size)
            prompts = PromptSet(name=name, cases=tuple(chosen))
            (verdict,) = drawn.verdicts(pair, prompts, [LogprobsCheck(shift=MARGIN)], agreed=agreed)
            counts[candidate][_class_of(verdict.details[0])] += 1
    return counts


def _class_of(line: str) -> str:
    """Return the class that the first line below a verdict names; what lies beyond an end of the ladder says so.

    >>> _class_of("about Q8_0 (0.036 nats), next to Q6_K (0.087 nats)"), _class_of("less than Q8_0 (0.036 nats), ...")
    ('Q8_0', '< Q8_0')
    """
    how, _, rest = line.partition(" ")
    if how == "about":
        return rest.split()[0]
    return f"{'<' if how == 'less' else '>'} {rest.split()[1]}"
