"""How often canaries cry wolf, and how often they see other weights, on real llama.cpp with the tiny model.

    python -m benchmarks.canaries [alarms] [copies] [draws] [--starts 300] [--passes 3] [--draws 2000]
    python -m benchmarks.canaries --recorded [--draws 2000]     # of a real model, from fixtures/draws; no engine

First the twelve prompts that ``llmparity lock`` asks: F16 is recorded as the lock does it, then started again and again
and asked cold, warm and in parallel (*alarms*). A run asks them once of an engine that it started, so a start is one
chance of a false alarm, and the passes behind its first are no chances of their own. Q8_0 is started as often and asked
once, coarser copies are once (*copies*). Then (*draws*) twelve prompts drawn from a pool, again and again: F16 against
its own repeats, and against Q8_0, Q6_K, Q4_K_M and Q4_0; with logprobs and by text alone.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec
from scipy.stats import binomtest

from benchmarks.draws import Drawn
from pytest_llmparity.cli.verbs import serving_as
from pytest_llmparity.core.identity.canaries import Canaries, Change, Seen, compare, recorded
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.prompts.reading import parse_prompts
from pytest_llmparity.core.sample import Completion, Phase
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe import canaries
from pytest_llmparity.settings.specification import EngineSpec, Settings

ROOT: Final = Path(__file__).resolve().parent.parent
MODELS: Final = ROOT / "fixtures/models/tiny"
LEAST: Final = "Q8_0"
"""The copy that is hardest to see."""
OTHERS: Final = (LEAST, "Q6_K", "Q4_K_M", "Q4_0")
PARTS: Final = ("alarms", "copies", "draws")
CONFIDENCE: Final = 0.95
"""That of the one-sided bounds (Clopper and Pearson)."""
Answers = Mapping[str, Completion]


@contextmanager
def served(quantization: str) -> Iterator[Adapter]:
    """Start the tiny model in a process of its own."""
    path = MODELS / f"tiny-{quantization}.gguf"
    spec = EngineSpec(
        name=quantization.lower(),
        kind="llamacpp",
        model=str(path),
        model_path=path,
        launch="process",
        context_length=1024,
        args=("--threads", "1"),
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(engines=(spec,), baseline=spec.name)
        with serving_as(settings, root=Path(folder), stored=Path(folder)) as session:
            yield session.available(spec.name)[0]


def keep(passes: Sequence[Answers]) -> Canaries:
    """Return what the lock keeps of these answers."""
    return recorded(passes, date="2026-11-28", plugin="benchmark", prompt_set="drawn")


def without_logprobs(answers: Answers) -> dict[str, Completion]:
    """Return the answers of an engine that gives no logprobs."""
    return {case: msgspec.structs.replace(answer, logprobs=()) for case, answer in answers.items()}


def as_locked() -> tuple[Canaries, Canaries]:
    """Return what the lock keeps of F16, and what it would keep without logprobs."""
    with served("F16") as adapter:
        first, warm = canaries.ask(adapter), canaries.ask(adapter)
        kept = keep([first, warm, canaries.ask(adapter, at_once=canaries.AT_ONCE)])
    print(
        f"the lock's own {len(kept.answers)} prompts; floor when recorded {kept.floor} nats, {kept.unstable} unstable"
    )
    return kept, keep([without_logprobs(first), without_logprobs(warm)])


def alarms(starts: int, passes: int) -> None:
    """Print how often the lock's canaries called an unchanged engine something else."""
    by_nats, by_text = map(Starts, as_locked())
    for _ in range(starts):
        with served("F16") as adapter:
            answers = [
                canaries.ask(adapter, at_once=canaries.AT_ONCE if number % 3 == 2 else 1) for number in range(passes)
            ]
        by_nats.start(answers)
        by_text.start([without_logprobs(of_pass) for of_pass in answers])
    print(f"  F16 again, {starts} starts x {passes} passes (cold, warm, parallel): {by_nats.alarms}")
    print(f"  the same without logprobs: {by_text.alarms}")


def copies(starts: int) -> None:
    """Print what the lock's canaries call coarser copies."""
    kept, without = as_locked()
    for quantization in OTHERS:
        by_nats, by_text = Starts(kept), Starts(without)
        for _ in range(starts if quantization == LEAST else 1):
            with served(quantization) as adapter:
                answers = [canaries.ask(adapter)]
            by_nats.start(answers)
            by_text.start([without_logprobs(of_pass) for of_pass in answers])
        print(f"  {quantization}: {by_nats.detected}; text alone {by_text.detected}", flush=True)


class Starts:
    """What the canaries of one engine say of the passes of each start of one, their own engine or another."""

    def __init__(self, kept: Canaries) -> None:
        self._kept = kept
        self._starts: list[list[Seen]] = []

    def start(self, passes: Sequence[Answers]) -> None:
        """Hold the answers of a start against the canaries, pass by pass."""
        self._starts.append([compare(self._kept, answers) for answers in passes])

    @property
    def alarms(self) -> str:
        """Say what an unchanged engine was called, and the share of starts that may be called changed."""
        changed = sum(any(seen.change is not Change.UNCHANGED for seen in passes) for passes in self._starts)
        most = binomtest(changed, len(self._starts), alternative="less").proportion_ci(CONFIDENCE).high
        return f"{self._counts}; {changed} of {len(self._starts)} starts with an alarm, at most {100 * most:.2f} %"

    @property
    def detected(self) -> str:
        """Say what another engine was called by the first pass of a start, and the share of starts that is seen."""
        silent = (Change.UNCHANGED, Change.UNKNOWN)
        detected = sum(passes[0].change not in silent for passes in self._starts)
        least = binomtest(detected, len(self._starts), alternative="greater").proportion_ci(CONFIDENCE).low
        return f"{self._counts}; {detected} of {len(self._starts)} starts seen, at least {100 * least:.2f} %"

    @property
    def _counts(self) -> str:
        every = [seen for passes in self._starts for seen in passes]
        nats = [seen.nats for seen in every if seen.nats is not None]
        parted = [seen.parted for seen in every]
        between = f", {min(nats):.5f} to {max(nats):.5f} nats in {len(nats)} passes" if nats else ""
        return f"{told(Counter(seen.change for seen in every))}{between}, {min(parted)} to {max(parted)} answers part"


def told(counts: Counter[Change]) -> str:
    """Return how often each change was seen."""
    return ", ".join(f"{change} {count}" for change, count in counts.most_common())


def drawn(pool: Sequence[Case], draws: int) -> None:
    """Print what draws of twelve prompts say."""
    passes = {}
    with served("F16") as adapter:
        passes["F16"] = [canaries.ask(adapter, prompts=pool), canaries.ask(adapter, prompts=pool)]
        passes["F16"].append(canaries.ask(adapter, prompts=pool, at_once=canaries.AT_ONCE))
    with served("F16") as adapter:
        passes["F16 again"] = [canaries.ask(adapter, prompts=pool, at_once=canaries.AT_ONCE)]
    for quantization in OTHERS:
        with served(quantization) as adapter:
            passes[quantization] = [canaries.ask(adapter, prompts=pool)]
    generator = random.Random(0)
    counts = {(name, way): Counter[Change]() for name in passes if name != "F16" for way in ("nats", "text")}
    for _ in range(draws):
        chosen = generator.sample([case.id for case in pool], canaries.REQUESTS)
        first, *again = [{case: of_pass[case] for case in chosen} for of_pass in passes["F16"]]
        kept = keep([first, *again])
        without = keep([without_logprobs(first), *map(without_logprobs, again)])
        for name, way in counts:
            (answers,) = [{case: of_pass[case] for case in chosen} for of_pass in passes[name]]
            seen = compare(kept, answers) if way == "nats" else compare(without, without_logprobs(answers))
            counts[name, way][seen.change] += 1
    print(f"{draws} draws of {canaries.REQUESTS} of {len(pool)} prompts, F16 recorded")
    for (name, way), counted in counts.items():
        print(f"  {name}, {'with logprobs' if way == 'nats' else 'text alone'}: {told(counted)}")


def of_recording(draws: int) -> None:
    """Print what draws of twelve of SmolLM2's recorded answers say by their logprobs.

    A candidate's recorded answer ends where it parts from F16, so nothing is said of text alone.
    """
    engines = Drawn.of("smollm2").engines
    first, again = (engines["f16"].answers[phase] for phase in (Phase.MAIN, Phase.COLD))
    generator = random.Random(0)
    told_by_nats = [name for name, engine in engines.items() if engine.answers[Phase.MAIN][min(first)].logprobs]
    counts, nats = {name: Counter[Change]() for name in told_by_nats}, {name: list[float]() for name in told_by_nats}
    for _ in range(draws):
        chosen = generator.sample(sorted(first), canaries.REQUESTS)
        kept = keep([{case: of[case] for case in chosen} for of in (first, again)])
        for name in told_by_nats:
            answers = again if name == "f16" else engines[name].answers[Phase.MAIN]
            seen = compare(kept, {case: answers[case] for case in chosen})
            counts[name][seen.change] += 1
            nats[name].append(seen.nats or 0.0)
    print(f"{draws} draws of {canaries.REQUESTS} of {len(first)} prompts of SmolLM2, F16 recorded, with logprobs")
    for name, counted in counts.items():
        print(f"  {name}: {told(counted)}; {min(nats[name]):.4f} to {max(nats[name]):.4f} nats")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", help=f"Of {', '.join(PARTS)}; all without any")
    parser.add_argument("--starts", type=int, default=300)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--recorded", action="store_true", help="Only draws of a real model's recorded answers")
    asked = parser.parse_args()
    if asked.recorded:
        of_recording(asked.draws)
        return
    parts = asked.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}, there are {', '.join(PARTS)}")
    if "alarms" in parts:
        alarms(asked.starts, asked.passes)
    if "copies" in parts:
        copies(asked.starts)
    for name in ("mixed", "stories") if "draws" in parts else ():
        text = (ROOT / f"fixtures/prompts/{name}.jsonl").read_text("utf-8")
        print(name)
        drawn(parse_prompts(text, source=name, name=name).cases, asked.draws)


if __name__ == "__main__":
    main()
