"""Whether a noise floor of 32 tokens decides as one of whole answers does, where an engine shifts against itself.

    python -m benchmarks.floor_tokens [--draws 200]

``check.logprobs()`` compares whole answers, and those of its noise floor are asked for 32 tokens only. Toy engines:
the baseline's leads at the 96 tokens of an answer are exponential with a mean of 2 nats; asked again, and by the
candidate, each is moved by a normal number, of which prompts differ in size and whose size may change along the answer;
a lead that becomes negative is a fork. Every draw is judged twice: beside the whole repeats, and beside their first 32
tokens.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.draws import remembered
from pytest_llmparity.core.checks.arguments import HORIZON
from pytest_llmparity.core.checks.drift.logprobs import LogprobsCheck
from pytest_llmparity.core.checks.family import settle
from pytest_llmparity.core.evidence import FLOOR_PHASES, FLOOR_STAGES, EngineEvidence, Evidence
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Completion, Identity, Phase, Sample, Sampling, TokenLogprob

PROMPTS: Final = 32
TOKENS: Final = 96
MARGIN: Final = 0.06
"""Nats."""
LEAD: Final = 2.0
"""Nats: the mean of the baseline's leads."""
SPREAD: Final = 0.5
"""Of the logarithms of how far prompts are moved."""
PROFILES: Final[Mapping[str, tuple[float, ...]]] = {
    "the same": (1.0, 1.0, 1.0, 1.0),
    "a fifth more each quarter": (1.0, 1.2, 1.44, 1.73),
    "as a KV cache of 4 bits": (1.0, 0.23, 0.30, 0.03),
}
"""By what factor leads are moved, by quarter of the answer; the last one is what was measured (docs/verdicts.md)."""
FLAT: Final = next(iter(PROFILES))
OWN: Final = 2 * MARGIN
"""How far the baseline shifts against itself in the first quarter: below the margin its floor decides nothing."""
FACTORS: Final = (1.0, 1.5, 2.0)
"""How many times as far the candidate shifts: as a copy of the baseline, and further."""
DRAWS: Final = 200
MEDIAN: Final = 0.6745
"""Of the absolute value of a standard normal number."""
Floats = npt.NDArray[np.float64]
CASES: Final = tuple(Case(id=f"c{number}", group=f"c{number}", prompt="?") for number in range(PROMPTS))


@dataclass(slots=True)
class Decided:
    """What became of the draws beside whole repeats and beside cut ones, and of how many it was not the same."""

    whole: Counter[str] = field(default_factory=Counter)
    cut: Counter[str] = field(default_factory=Counter)
    otherwise: int = 0


def decided(own: float, factor: float, profile: str, *, draws: int = DRAWS) -> Decided:
    """Judge so many draws of a baseline that shifts by ``own`` nats against itself."""
    generator = np.random.default_rng([list(PROFILES).index(profile), round(1000 * own), round(10 * factor)])
    along = np.repeat(PROFILES[profile], TOKENS // len(PROFILES[profile]))
    counts, check = Decided(), LogprobsCheck(shift=MARGIN)
    for _ in range(draws):
        leads = generator.exponential(LEAD, size=(PROMPTS, TOKENS))
        sizes = np.exp(SPREAD * generator.standard_normal((PROMPTS, 1))) * along * own / MEDIAN

        def again(cases: int, times: float = 1.0, leads: Floats = leads, sizes: Floats = sizes) -> list[Completion]:
            moved = times * sizes[:cases] * generator.standard_normal((cases, TOKENS))
            return [_answer(of_case) for of_case in leads[:cases] + moved]

        repeats = [again(FLOOR_STAGES[0]) for _ in FLOOR_PHASES]
        candidate = _engine("candidate", {Phase.MAIN: again(PROMPTS, factor)})
        main = [_answer(of_case) for of_case in leads]
        outcomes = []
        for tokens in (TOKENS, HORIZON):
            floor = {
                phase: [_cut(answer, tokens) for answer in of_phase]
                for phase, of_phase in zip(FLOOR_PHASES, repeats, strict=True)
            }
            evidence = Evidence(
                test="floor",
                prompts=PromptSet(name="toy", cases=CASES),
                sampling=Sampling(max_tokens=TOKENS),
                concurrency=8,
                baseline="baseline",
                engines={"baseline": _engine("baseline", {Phase.MAIN: main, **floor}), "candidate": candidate},
                alpha=0.05,
            )
            (verdict,) = settle(list(check.judge(evidence)), 0.05)
            outcomes.append(str(verdict.outcome))
        counts.whole[outcomes[0]] += 1
        counts.cut[outcomes[1]] += 1
        counts.otherwise += outcomes[0] != outcomes[1]
    return counts


def _answer(leads: Floats) -> Completion:
    """Return an answer with these leads of the token "a" over "b", up to the first at which "b" leads."""
    entries = []
    for lead in leads.tolist():
        first, second = (b"a", b"b") if lead >= 0.0 else (b"b", b"a")
        top = ((first, -0.1), (second, -0.1 - abs(lead)))
        entries.append(TokenLogprob(token=first, logprob=-0.1, top=top))
        if lead < 0.0:
            break
    return Completion(
        text="".join(entry.token.decode() for entry in entries),
        finish_reason="length",
        completion_tokens=TOKENS,
        logprobs=tuple(entries),
        max_tokens=TOKENS,
    )


def _cut(answer: Completion, tokens: int) -> Completion:
    """Return an answer as it is under a lower limit."""
    return msgspec.structs.replace(
        answer,
        text=answer.text[:tokens],
        completion_tokens=tokens,
        logprobs=answer.logprobs[:tokens],
        max_tokens=tokens,
    )


def _engine(name: str, answers: Mapping[Phase, Sequence[Completion]]) -> EngineEvidence:
    samples = {
        phase: {
            case.id: [Sample(engine=name, case=case.id, phase=phase, completion=answer)]
            for case, answer in zip(CASES, of_phase, strict=False)
        }
        for phase, of_phase in answers.items()
    }
    return EngineEvidence(name=name, kind="toy", quantization="F16", identity=Identity(), samples=samples)


def main(argv: Sequence[str] | None = None) -> int:
    """Judge every condition and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.floor_tokens")
    parser.add_argument("--draws", type=int, default=DRAWS)
    draws = parser.parse_args(argv).draws
    print("| its own shift along the answer | the candidate's | PASS / FAIL / open beside whole repeats", end="")
    print(" | beside 32 tokens | otherwise |")
    print("|---|--:|--:|--:|--:|")
    for profile in PROFILES:
        for factor in FACTORS:
            with remembered():
                counts = decided(OWN, factor, profile, draws=draws)
            cells = (
                " / ".join(f"{100 * of[name] / draws:.1f}" for name in ("PASS", "FAIL", "INCONCLUSIVE"))
                for of in (counts.whole, counts.cut)
            )
            print(
                f"| {profile} | x {factor:g} | {' | '.join(cells)} | {100 * counts.otherwise / draws:.1f} |", flush=True
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
