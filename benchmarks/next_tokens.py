"""How far next tokens move where both engines read the same text, and whether that names a layer, on the tiny model.

    LLMPARITY_VLLM_PYTHON=… LLMPARITY_MLX_PYTHON=… python -m benchmarks.next_tokens [--llama-server PROGRAM] [NAME...]

Experiments on a pair whose drift stays with everything made equal read the baseline's answers to six prompts on both
engines (``run/explain/next_tokens.py``). This does the same, again and again: of the groups of the mixed set every six
are a reading of their own. Against llama.cpp with F16 stand its copies, the same file with what changes arithmetic
alone, and other engines in their own arithmetic. Two ladders say what a reading names: that of the demo, of the groups
of the mixed set, and one of the pool, whose prompts shift twice as far. The table stands in docs/diagnosis.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from benchmarks.draws import Drawn
from benchmarks.draws import ladder as measured_on
from benchmarks.record_draws import FIXTURES, TINY, folder, gguf
from pytest_llmparity import lockfile
from pytest_llmparity.cli.verbs import serving_as
from pytest_llmparity.core.identity.ladder import Ladder
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.engines.kinds.mlx import MlxAdapter
from pytest_llmparity.engines.kinds.vllm import VllmAdapter
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.declare.prompts import load_prompts
from pytest_llmparity.run.explain import next_tokens
from pytest_llmparity.run.explain.asking import Pair
from pytest_llmparity.run.explain.next_tokens import Read
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.settings.specification import EngineSpec, Settings

SEED: Final = "pytest-llmparity next tokens 1"
MAX_TOKENS: Final = 32
CONCURRENCY: Final = 4
CACHE_OF_4: Final = ("--cache-type-k", "q4_0", "--cache-type-v", "q4_0")
BASELINE: Final = "f16"


def engines(asked: argparse.Namespace) -> Iterator[EngineSpec]:
    """Yield the candidates for which there is a program, in the order of the table."""
    f16 = TINY / "tiny-F16.gguf"
    for name in ("Q8_0", "Q6_K", "Q4_K_M", "Q4_0", "Q2_K"):
        yield gguf(name.lower(), TINY / f"tiny-{name}.gguf", pin=name).spec
    yield gguf("kv-q4_0", f16, *CACHE_OF_4, pin="F16").spec
    if asked.llama_server:
        yield gguf("rope", f16, "--rope-freq-scale", "0.97", pin="F16", command=(asked.llama_server,)).spec
    if python := os.environ.get("LLMPARITY_VLLM_PYTHON"):
        for name, dtype in (("BF16", "bfloat16"), ("F32", "float32")):
            flags = ("--dtype", dtype, "--enforce-eager", "--num-gpu-blocks-override", "512")
            from_folder = folder(f"vllm-{name.lower()}", "vllm", VllmAdapter, TINY, python, *flags, pin=name)
            yield from_folder.spec
    if python := os.environ.get("LLMPARITY_MLX_PYTHON"):
        yield folder("mlx-bf16", "mlx", MlxAdapter, TINY, python, pin="BF16").spec


def readings(cases: Sequence[Case]) -> list[list[Case]]:
    """Return the prompts of each reading: those of so many groups, none of them twice."""
    groups: dict[str, list[Case]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    order = Random(SEED).sample(sorted(groups), len(groups))
    each = next_tokens.PROMPTS
    return [
        [case for group in order[begin : begin + each] for case in groups[group]]
        for begin in range(0, len(order) - each + 1, each)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Two engines that run, and the loop that asks them."""

    adapters: tuple[Adapter, Adapter]
    loop: LoopThread

    def read(self, cases: Sequence[Case]) -> Read:
        """Return how far next tokens move on these prompts."""
        sampling = Sampling(max_tokens=MAX_TOKENS)
        pair = Pair(
            self.adapters,
            cases,
            {case.id: case.request(sampling, top_logprobs=next_tokens.ALTERNATIVES) for case in cases},
            concurrency=CONCURRENCY,
            loop=self.loop,
            allowance=Allowance(requests=None, seconds=None),
            gone=lambda name: None,
        )
        if why := next_tokens.untold(pair):
            raise SystemExit(why)
        measured = next_tokens.read(pair)
        if measured is None:
            raise SystemExit(f"{pair.candidate.name}: there are no next tokens to compare")
        return measured


@contextlib.contextmanager
def reader(candidate: EngineSpec) -> Iterator[Reader]:
    """Start both engines of a pair."""
    baseline = gguf(BASELINE, TINY / "tiny-F16.gguf", pin="F16").spec
    with tempfile.TemporaryDirectory() as temporary:
        here = Path(temporary)
        settings = Settings(engines=(baseline, candidate), baseline=BASELINE)
        with serving_as(settings, root=here, stored=here) as session, contextlib.closing(LoopThread()) as loop:
            ours, theirs = (session.available(spec.name)[0] for spec in (baseline, candidate))
            yield Reader(adapters=(ours, theirs), loop=loop)


def ladders() -> list[Ladder]:
    """Return the demo's ladder, of groups of the mixed set, and one of the prompts of the pool."""
    drawn = Drawn.of("tiny")
    pool = PromptSet(name="pool", cases=tuple(drawn.sets["pool"]))
    return [lockfile.agreed(FIXTURES / "demo/llmparity.lock").ladders[0], measured_on(drawn, ("Q8_0",), pool)]


def layers(read: Sequence[Read], ladder: Ladder) -> str:
    """Return which layers readings name by a ladder, and how often."""
    named = Counter(of_one.layer(ladder) or "neither" for of_one in read)
    return ", ".join(f"{layer} {count}" for layer, count in named.most_common())


def main() -> None:
    """Measure and print a row for each candidate."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.next_tokens")
    parser.add_argument("names", nargs="*", help="Some candidates, by their names in the table")
    parser.add_argument("--llama-server", help="llama.cpp's own program, which takes --rope-freq-scale")
    asked = parser.parse_args()
    sets = readings(load_prompts(FIXTURES / "prompts/mixed.jsonl", ()).cases)
    known = ladders()
    print(f"{len(sets)} readings of {next_tokens.PROMPTS} prompts, {next_tokens.PLACES} places each; nats")
    rungs = [f"named, finest rung {min(rung.shift for rung in of.rungs):.3f}" for of in known]
    print(f"| against llama.cpp F16 | median | least to most | early | late | {' | '.join(rungs)} |")
    for candidate in engines(asked):
        if asked.names and candidate.name not in asked.names:
            continue
        with reader(candidate) as pair:
            read = [pair.read(cases) for cases in sets]
        nats, early, late = ([getattr(of_one, part) for of_one in read] for part in ("nats", "early", "late"))
        print(
            f"| {candidate.name} | {statistics.median(nats):.4f} | {min(nats):.4f} to {max(nats):.4f} "
            f"| {statistics.median(early):.4f} | {statistics.median(late):.4f} "
            f"| {' | '.join(layers(read, of) for of in known)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
