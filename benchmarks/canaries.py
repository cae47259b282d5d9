"""How often canaries cry wolf, and how often they see other weights, on real llama.cpp with the tiny model.

    python -m benchmarks.canaries [--starts 5] [--passes 10] [--draws 2000]
    python -m benchmarks.canaries --recorded [--draws 2000]     # of a real model, from fixtures/draws; no engine

First the twelve prompts that ``llmparity lock`` asks: F16 is recorded as the lock does it, then started again several
times and asked cold, warm and in parallel; every pass is one chance of a false alarm. Then twelve prompts drawn from a
pool, again and again: F16 against its own repeats, and against Q8_0, Q6_K, Q4_K_M and Q4_0; with logprobs and by text
alone.
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

from benchmarks.draws import Drawn
from pytest_llmparity.cli.verbs import serving_as
from pytest_llmparity.core.identity.canaries import Canaries, Change, compare, recorded
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.prompts.reading import parse_prompts
from pytest_llmparity.core.sample import Completion, Phase
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe import canaries
from pytest_llmparity.settings.specification import EngineSpec, Settings

ROOT: Final = Path(__file__).resolve().parent.parent
MODELS: Final = ROOT / "fixtures/models/tiny"
OTHERS: Final = ("Q8_0", "Q6_K", "Q4_K_M", "Q4_0")
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


def alarms(starts: int, passes: int) -> None:
    """Print how often the lock's canaries called an unchanged engine something else, and what they call others."""
    with served("F16") as adapter:
        first, warm = canaries.ask(adapter), canaries.ask(adapter)
        kept = keep([first, warm, canaries.ask(adapter, at_once=canaries.AT_ONCE)])
        without = keep([without_logprobs(first), without_logprobs(warm)])
    print(
        f"the lock's own {len(kept.answers)} prompts; floor when recorded {kept.floor} nats, {kept.unstable} unstable"
    )
    by_nats, by_text, nats = Counter[Change](), Counter[Change](), []
    for _ in range(starts):
        with served("F16") as adapter:
            for number in range(passes):
                answers = canaries.ask(adapter, at_once=canaries.AT_ONCE if number % 3 == 2 else 1)
                seen = compare(kept, answers)
                by_nats[seen.change] += 1
                nats.append(seen.nats or 0.0)
                by_text[compare(without, without_logprobs(answers)).change] += 1
    print(
        f"  F16 again, {starts} starts x {passes} passes (cold, warm, parallel): {told(by_nats)}; most {max(nats):.5f}"
    )
    print(f"  the same without logprobs: {told(by_text)}")
    for quantization in OTHERS:
        with served(quantization) as adapter:
            answers = canaries.ask(adapter)
        print(f"  {quantization}: {compare(kept, answers)}; text alone {compare(without, without_logprobs(answers))}")


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
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--recorded", action="store_true", help="Only draws of a real model's recorded answers")
    asked = parser.parse_args()
    if asked.recorded:
        of_recording(asked.draws)
        return
    alarms(asked.starts, asked.passes)
    for name in ("mixed", "stories"):
        text = (ROOT / f"fixtures/prompts/{name}.jsonl").read_text("utf-8")
        print(name)
        drawn(parse_prompts(text, source=name, name=name).cases, asked.draws)


if __name__ == "__main__":
    main()
