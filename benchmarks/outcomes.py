"""Measure how often every check passes, fails or stays open when nothing but chance chooses the prompts.

    python -m benchmarks.outcomes [--vllm-python PYTHON] [--embedder MODEL] [--out FILE]

Gathers the pool of 1,000 prompts once per engine, then judges many small draws from it with the checks as tests do.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

from benchmarks.outcomes_engines import BASELINE, CONCURRENCY, Gathered, Gatherer, engines
from fixtures.prompts.make_prompts import MIXED
from pytest_llmparity import check
from pytest_llmparity.core.checks.drift.floor import needs_more
from pytest_llmparity.core.checks.family import settle
from pytest_llmparity.core.evidence import FLOOR_PHASES, Check, EngineEvidence, Evidence, Needs, floor_stages, union
from pytest_llmparity.core.ports import Embedder
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Phase, Sampling
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.embedding import SentenceEmbedder
from pytest_llmparity.run.declare.prompts import load_prompts
from pytest_llmparity.run.plan import Declaration, Unit, floor_order, make_plan

FIXTURES: Final = Path(__file__).resolve().parent.parent / "fixtures"
ALPHA: Final = 0.05
SIZE: Final = 64
REFUSED: Final = "REFUSED"
"""A design that cannot settle what it asks: its test is an error at set-up."""
COLUMNS: Final = ("PASS", "FAIL", "INCONCLUSIVE", "ERROR", REFUSED)
WHOLE: Final = "whole test"
SHOWN: Final = ("n", "groups", "estimate", "lower", "upper", "outcome", "details")


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What is held against the baseline: the answers of one engine in one phase."""

    name: str
    engine: str
    phase: Phase = Phase.MAIN


CONDITIONS: Final = (
    Condition(name="F16 cold, alone", engine="f16-again", phase=Phase.COLD),
    Condition(name="F16 again, alone", engine="f16-again", phase=Phase.WARM),
    Condition(name="F16 from its prompt cache", engine="f16-cached", phase=Phase.WARM),
    Condition(name="F16, 8 parallel", engine="f16-again"),
    Condition(name="Q8_0", engine="q8_0"),
    Condition(name="Q4_0", engine="q4_0"),
    Condition(name="vLLM BF16", engine="bf16"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The checks of one test: settled together, as a test settles them."""

    name: str
    checks: tuple[Check, ...]
    json_only: bool = False
    embeds: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Where prompts are drawn from: so many from each stratum, by whole cases, without putting any back."""

    name: str
    strata: tuple[tuple[Sequence[Case], int], ...]

    def draw(self, seed: str) -> PromptSet:
        """Return one draw; the seed text alone decides which."""
        random = Random(seed)
        return PromptSet(
            name=self.name, cases=tuple(case for cases, count in self.strata for case in random.sample(cases, count))
        )

    @property
    def cases(self) -> int:
        """How many cases there are to draw from."""
        return sum(len(cases) for cases, _ in self.strata)


@dataclass(slots=True)
class Tally:
    """What became of one verdict over all draws."""

    outcomes: Counter[str] = field(default_factory=Counter)
    estimates: list[float] = field(default_factory=list)

    def record(self, outcome: str, estimate: float | None = None) -> None:
        """Count one draw."""
        self.outcomes[outcome] += 1
        if estimate is not None:
            self.estimates.append(estimate)

    def row(self) -> dict[str, Any]:
        """Return counts and the mean estimate."""
        mean = statistics.fmean(self.estimates) if self.estimates else None
        return {**{name: self.outcomes[name] for name in COLUMNS}, "mean_estimate": mean}


def json_cases(cases: Sequence[Case]) -> tuple[Case, ...]:
    """Return the cases whose answer must fit a schema."""
    return tuple(case for case in cases if case.expect is not None and case.expect.schema is not None)


def any_schema() -> dict[str, Any]:
    """Return one schema for all JSON answers of the pool: a person, a ticket or an invoice."""
    schemas = []
    for name in ("person", "ticket", "invoice"):
        schema = json.loads((FIXTURES / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
        del schema["$schema"]
        schemas.append(schema)
    return {"title": "Person|Ticket|Invoice", "anyOf": schemas}


def families(embeds: bool) -> list[Family]:
    """Return the tests every draw is judged by. Latency is not among them: nothing here was timed."""
    chosen = [
        Family(name="margin 5 %", checks=(check.prompts(), check.text(margin=0.05))),
        Family(name="edit similarity", checks=(check.similarity(at_least=0.85),)),
        Family(name="JSON", checks=(check.schema(any_schema(), rate=0.9, gap=0.05, agree=0.9),), json_only=True),
    ]
    if embeds:
        chosen.append(Family(name="embeddings", checks=(check.similarity(at_least=0.85),), embeds=True))
    return chosen


def designs(pool: PromptSet, size: int) -> list[Design]:
    """Return the three ways to draw ``size`` cases: from everything, from free text, from JSON tasks."""
    total = sum(MIXED.values())
    free = [
        (tuple(case for case in pool.cases if tag in case.tags), round(size * count / total))
        for tag, count in MIXED.items()
    ]
    return [
        Design(name="pool", strata=((pool.cases, size),)),
        Design(name="free text", strata=tuple(free)),
        Design(name="JSON", strata=((json_cases(pool.cases), size),)),
    ]


class Judge:
    """Turns gathered answers into the evidence of a draw, and evidence into settled verdicts."""

    def __init__(self, gathered: Mapping[str, Gathered], sampling: Sampling, embedder: Embedder | None) -> None:
        self._gathered = gathered
        self._sampling = sampling
        self._embedder = embedder

    def verdicts(self, condition: Condition, family: Family, prompts: PromptSet) -> list[Verdict] | None:
        """Return one test's verdicts as they count; ``None`` where its design would be refused before any request."""
        if family.json_only:
            prompts = PromptSet(name=prompts.name, cases=json_cases(prompts.cases))
        if any(c.problem(cases=len(prompts.cases), groups=prompts.groups, engines=2) for c in family.checks):
            return None
        needs = union([c.needs() for c in family.checks])
        evidence = Evidence(
            test=family.name,
            prompts=prompts,
            sampling=self._sampling,
            concurrency=CONCURRENCY,
            baseline=BASELINE,
            engines={
                BASELINE: self._side(Condition(name=BASELINE, engine=BASELINE), prompts, needs),
                condition.name: self._side(condition, prompts, needs),
            },
            alpha=ALPHA,
            embedder=self._embedder if family.embeds else None,
        )
        return settle([verdict for c in family.checks for verdict in c.judge(evidence)], ALPHA)

    def _side(self, condition: Condition, prompts: PromptSet, needs: Needs) -> EngineEvidence:
        """Return one engine's answers to these prompts, its noise floor of as many of them as a run would ask."""
        order = floor_order(prompts)
        stages, begun = floor_stages(len(order), CONCURRENCY), list[Sequence[Case]]()
        for cases in stages:
            side = self._with_floor(condition, prompts, order[:cases])
            begun.append(order[sum(map(len, begun)) : cases])
            if cases < needs.floor_cases:
                continue
            if not needs_more(begun, side, held=needs.floor_held, stages=stages):
                break
        return side

    def _with_floor(self, condition: Condition, prompts: PromptSet, floor: Sequence[Case]) -> EngineEvidence:
        """Return one engine's answers to these prompts: the phase in question judged, the others its floor."""
        engine = self._gathered[condition.engine]
        phases = {Phase.MAIN: engine.samples[condition.phase]}
        for phase in FLOOR_PHASES:
            phases[phase] = engine.samples[Phase.MAIN if phase is condition.phase else phase]
        chosen = {phase: floor if phase in FLOOR_PHASES else prompts.cases for phase in phases}
        return EngineEvidence(
            name=condition.name,
            kind=str(engine.served.spec.kind),
            identity=engine.identity,
            quantization=engine.quantization,
            samples={
                phase: {case.id: samples[case.id] for case in chosen[phase] if case.id in samples}
                for phase, samples in phases.items()
            },
        )


def whole(verdicts: Sequence[Verdict]) -> Outcome:
    """Return what becomes of the test: it fails with any of its verdicts and passes with all of them."""
    for outcome in (Outcome.ERROR, Outcome.INCOMPARABLE, Outcome.FAIL, Outcome.INCONCLUSIVE):
        if any(verdict.outcome is outcome for verdict in verdicts):
            return outcome
    return Outcome.PASS


def label(verdict: Verdict) -> str:
    """Name what was judged; of two verdicts of a kind the baseline's own is marked."""
    return f"{verdict.kind} (baseline)" if verdict.engine == BASELINE else verdict.kind


def judge_draws(
    judge: Judge, condition: Condition, design: Design, tests: Sequence[Family], *, draws: int, seed: str
) -> list[dict[str, Any]]:
    """Judge many draws of one design; return counts by test and verdict."""
    tallies: dict[tuple[str, str], Tally] = defaultdict(Tally)
    for number in range(draws):
        prompts = design.draw(f"{seed}/{design.name}/{number}")
        for family in tests:
            verdicts = judge.verdicts(condition, family, prompts)
            tallies[family.name, WHOLE].record(REFUSED if verdicts is None else whole(verdicts))
            for verdict in verdicts or ():
                tallies[family.name, label(verdict)].record(verdict.outcome, verdict.estimate)
    return [
        {"condition": condition.name, "design": design.name, "test": test, "judged": judged, **tally.row()}
        for (test, judged), tally in tallies.items()
    ]


def hazards(judge: Judge, condition: Condition, pool: PromptSet) -> list[dict[str, Any]]:
    """Return forks per token with bounds: over all cases, the free text, and each tag."""
    tags = {tag: (tag,) for tag in dict.fromkeys(tag for case in pool.cases for tag in case.tags)}
    parts = {"all": tuple(tags), "free text": tuple(MIXED), **tags}
    family = Family(name="hazard", checks=(check.text(margin=0.05),))
    rows = []
    for part, wanted in parts.items():
        prompts = PromptSet(name=part, cases=tuple(c for c in pool.cases if set(c.tags) & set(wanted)))
        for verdict in judge.verdicts(condition, family, prompts) or ():
            named = {"condition": condition.name, "part": part, "judged": verdict.kind}
            rows.append(named | {name: getattr(verdict, name) for name in SHOWN})
    return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one worker process judges: every draw of one condition."""

    condition: Condition
    store: Path
    vllm_python: str | None
    embedder: str | None
    draws: int
    seed: str

    def __call__(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of both tables."""
        unit = declared()
        wanted = {BASELINE, self.condition.engine}
        gatherer = Gatherer(self.store, unit)
        try:
            gathered = {s.spec.name: gatherer.gather(s) for s in engines(self.vllm_python) if s.spec.name in wanted}
        finally:
            gatherer.close()
        judge = Judge(gathered, unit.sampling, None if self.embedder is None else SentenceEmbedder(self.embedder))
        tests = families(embeds=self.embedder is not None)
        rows: list[dict[str, Any]] = []
        for design in designs(unit.prompts, SIZE):
            rows += judge_draws(judge, self.condition, design, tests, draws=self.draws, seed=self.seed)
        return {"hazards": hazards(judge, self.condition, unit.prompts), "draws": rows}


def declared() -> Unit:
    """Return the pool as tests with these checks would have it gathered."""
    declaration = Declaration(
        test="outcomes",
        prompts=load_prompts(FIXTURES / "prompts" / "pool.jsonl", ()),
        checks=(check.text(margin=0.05),),
        sampling=Sampling(max_tokens=64),
        concurrency=CONCURRENCY,
    )
    (unit,) = make_plan([declaration]).units
    return unit


def show_draws(design: Design, rows: Sequence[Mapping[str, Any]], *, draws: int, seed: str) -> None:
    """Print one design's counts as a Markdown table."""
    groups = [design.draw(f"{seed}/{design.name}/{number}").groups for number in range(draws)]
    print(
        f"\n### {design.name}: {draws} draws of {sum(count for _, count in design.strata)} from {design.cases} cases, "
        f"{statistics.median(groups):g} groups each ({min(groups)} to {max(groups)})\n"
    )
    print("| against F16, 8 parallel | test | judged |", " | ".join(COLUMNS), "| mean estimate |")
    print("|---|---|---|" + "---:|" * (len(COLUMNS) + 1))
    for row in rows:
        if row["design"] == design.name:
            counts = " | ".join(str(row[name]) for name in COLUMNS)
            mean = "" if row["mean_estimate"] is None else f"{row['mean_estimate']:.4f}"
            print(f"| {row['condition']} | {row['test']} | {row['judged']} | {counts} | {mean} |")


def show_hazards(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print forks per token and one-sided 95 % bounds of the whole pool as a Markdown table."""
    print("\n### Forks per token over the whole pool, and what it takes to be sure\n")
    print("| against F16, 8 parallel | prompts | n | groups | forks/token | lower | upper |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for row in rows:
        if row["judged"] == "text":
            numbers = " | ".join("" if row[k] is None else f"{row[k]:.2%}" for k in ("estimate", "lower", "upper"))
            print(f"| {row['condition']} | {row['part']} | {row['n']} | {row['groups']} | {numbers} |")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outcomes", description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path, default=Path(".llmparity/outcomes"), help="Folder that keeps the answers")
    parser.add_argument("--vllm-python", help="Interpreter that has vLLM; without it vLLM BF16 is left out")
    parser.add_argument("--embedder", help="Name or folder of a sentence-transformers model that is on this machine")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", default="pytest-llmparity outcomes 1", help="Text that decides every draw")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="Processes that judge, one condition each")
    parser.add_argument("--out", type=Path, help="JSON file for everything that is printed, and more")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Gather what is missing, judge all draws, print tables."""
    options = arguments(argv)
    unit = declared()
    gatherer = Gatherer(options.store, unit)
    try:
        names = [gatherer.gather(served).served.spec.name for served in engines(options.vllm_python)]
    finally:
        gatherer.close()
    tasks = [
        Task(
            condition=condition,
            store=options.store,
            vllm_python=options.vllm_python,
            embedder=options.embedder,
            draws=options.draws,
            seed=options.seed,
        )
        for condition in CONDITIONS
        if condition.engine in names
    ]
    with ProcessPoolExecutor(max_workers=options.jobs) as workers:
        done = list(workers.map(Task.__call__, tasks))
    hazard_rows = [row for judged in done for row in judged["hazards"]]
    draw_rows = [row for judged in done for row in judged["draws"]]
    show_hazards(hazard_rows)
    for design in designs(unit.prompts, SIZE):
        show_draws(design, draw_rows, draws=options.draws, seed=options.seed)
    if options.out is not None:
        record = {"seed": options.seed, "draws": options.draws, "hazards": hazard_rows, "outcomes": draw_rows}
        options.out.write_text(json.dumps(record, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
