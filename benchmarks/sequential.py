"""Measure what a sequential run decides and after how many prompts, beside the fixed design, on the same draws.

    python -m benchmarks.sequential [--size N] [--draws N]

Answers are those of ``benchmarks.outcomes``: gathered once per engine into the same store, then judged many times.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks.outcomes import ALPHA, CONDITIONS, Condition, declared, designs
from benchmarks.outcomes_engines import BASELINE, CONCURRENCY, Gathered, Gatherer, engines
from pytest_llmparity import check
from pytest_llmparity.core.checks.family import settle
from pytest_llmparity.core.evidence import FLOOR_PHASES, EngineEvidence, Evidence
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Phase, Sampling
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.course import FIRST, in_rounds, waves
from pytest_llmparity.run.plan import Unit

CHECK: Final = check.text(margin=0.05)
OUTCOMES: Final = (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE)


class Trial:
    """One draw of prompts, judged both ways on the answers of two engines."""

    def __init__(self, prompts: PromptSet, unit: Unit, gathered: Mapping[str, Gathered], condition: Condition) -> None:
        ordered = tuple(in_rounds(prompts.cases))
        self._prompts = dataclasses.replace(prompts, cases=ordered, digest="")
        self._unit = dataclasses.replace(unit, prompts=self._prompts)
        self._sides = {BASELINE: gathered[BASELINE], condition.name: gathered[condition.engine]}

    def fixed(self) -> tuple[Outcome, int]:
        """Judge all of the draw at once."""
        return self._text(len(self._prompts.cases), sequential=False).outcome, len(self._prompts.cases)

    def sequential(self) -> tuple[Outcome, int]:
        """Look after every wave, as a run does; the outcome and how many prompts each engine was asked."""
        for place in waves(self._unit):
            verdict = self._text(place, sequential=True)
            if verdict.outcome is not Outcome.INCONCLUSIVE or verdict.groups == self._prompts.groups:
                break
        return verdict.outcome, place

    def _text(self, asked: int, *, sequential: bool) -> Verdict:
        evidence = Evidence(
            test="sequential",
            prompts=self._prompts,
            sampling=Sampling(),
            concurrency=CONCURRENCY,
            baseline=BASELINE,
            engines={name: self._side(name, asked) for name in self._sides},
            alpha=ALPHA,
            sequential=sequential,
        )
        return next(verdict for verdict in settle(CHECK.judge(evidence), ALPHA) if verdict.kind == "text")

    def _side(self, name: str, asked: int) -> EngineEvidence:
        engine, cases = self._sides[name], self._prompts.cases
        # A run asks 16 of an engine that repeats itself, which decides nothing of `text` then.
        chosen: dict[Phase, Sequence[Case]] = dict.fromkeys(FLOOR_PHASES, cases[:FIRST])
        chosen[Phase.MAIN] = cases[:asked]
        return EngineEvidence(
            name=name,
            kind=str(engine.served.spec.kind),
            identity=engine.identity,
            quantization=engine.quantization,
            samples={
                phase: {
                    case.id: engine.samples[phase][case.id] for case in of_phase if case.id in engine.samples[phase]
                }
                for phase, of_phase in chosen.items()
            },
        )


def alone(prompts: PromptSet) -> PromptSet:
    """Return the draw as if every prompt had a template of its own."""
    cases = tuple(msgspec.structs.replace(case, group=case.id) for case in prompts.cases)
    return dataclasses.replace(prompts, cases=cases, digest="")


def show(name: str, decisions: Sequence[tuple[Outcome, int]]) -> str:
    """Return outcomes and the mean number of prompts as cells of a table."""
    counts = Counter(outcome for outcome, _ in decisions)
    return (
        f"| {name} | {' | '.join(str(counts[o]) for o in OUTCOMES)} | {statistics.fmean(n for _, n in decisions):.0f} |"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Gather what is missing, judge all draws, print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sequential", description=__doc__.partition("\n")[0])
    parser.add_argument("--store", type=Path, default=Path(".llmparity/outcomes"), help="Folder that keeps the answers")
    parser.add_argument("--size", type=int, default=144, help="Prompts of a draw")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--seed", default="pytest-llmparity outcomes 1", help="Text that decides every draw")
    options = parser.parse_args(argv)
    unit = declared()
    wanted = [condition for condition in CONDITIONS if condition.phase is Phase.MAIN]
    gatherer = Gatherer(options.store, unit)
    try:
        named = {condition.engine for condition in wanted} | {BASELINE}
        gathered = {s.spec.name: gatherer.gather(s) for s in engines(None) if s.spec.name in named}
    finally:
        gatherer.close()
    (design,) = [design for design in designs(unit.prompts, options.size) if design.name == "free text"]
    print("| against F16 | prompts | design | PASS | FAIL | INCONCLUSIVE | mean prompts |")
    print("|---|---|---|---:|---:|---:|---:|")
    for condition in wanted:
        if condition.engine not in gathered:
            continue
        for grouped, change in (("in their groups", lambda prompts: prompts), ("each its own group", alone)):
            drawn = [change(design.draw(f"{options.seed}/{design.name}/{n}")) for n in range(options.draws)]
            trials = [Trial(prompts, unit, gathered, condition) for prompts in drawn]
            print(f"| {condition.name} | {grouped} {show('fixed', [trial.fixed() for trial in trials])}")
            print(f"| {condition.name} | {grouped} {show('sequential', [trial.sequential() for trial in trials])}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
