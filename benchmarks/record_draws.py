"""Gather what engines answer to a pool of prompts, with logprobs, and keep it small in ``fixtures/draws``.

    python -m benchmarks.record_draws tiny --llama-server PROGRAM --ollama PROGRAM --vllm-python PYTHON \\
        --mlx-python PYTHON --transformers-python PYTHON
    python -m benchmarks.record_draws smollm2 --quantize PROGRAM --vllm-python PYTHON --transformers-python PYTHON
    python -m benchmarks.record_draws structured --quantize PROGRAM --vllm-python PYTHON

What was not named is left out, unless ``--keep`` says that what the recording has stays; ``--again mlx`` asks that one
anew. ``tests/core/checks/drift/test_draws.py`` judges draws from it; a test that asks real engines again is in
``tests/live/test_draws.py``. Gathering goes on where it stopped (``--store``).
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, Final

from benchmarks import smollm2
from benchmarks.outcomes_engines import CONCURRENCY, CONTEXT, Gathered, Gatherer, Served
from benchmarks.recordings import Recorded, read, write
from pytest_llmparity import check
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Completion, Phase, Sample, Sampling
from pytest_llmparity.engines.kinds.llamacpp import LlamaCppAdapter
from pytest_llmparity.engines.kinds.mlx import MlxAdapter
from pytest_llmparity.engines.kinds.ollama import OllamaAdapter
from pytest_llmparity.engines.kinds.transformers import TransformersAdapter
from pytest_llmparity.engines.kinds.vllm import VllmAdapter
from pytest_llmparity.run.declare.prompts import load_prompts
from pytest_llmparity.run.plan import PHASE_ORDER, Declaration, Unit, make_plan
from pytest_llmparity.settings.specification import EngineSpec

FIXTURES: Final = Path(__file__).resolve().parent.parent / "fixtures"
TINY: Final = FIXTURES / "models/tiny"
DRAWS: Final = FIXTURES / "draws"
MAX_TOKENS: Final = 32
"""As many as ``check.text()`` compares."""
SAMPLE: Final = 240
"""Prompts taken from the pool of 1,000."""
SEED: Final = "pytest-llmparity draws 1"
HIDDEN: Final = "Be a careful assistant."
"""The system prompt that the template of one engine puts before every conversation."""
MIXED_ONLY: Final = ("kv-q4_0", "rope", "hidden")
"""What acts on some prompts only is kept for the mixed set alone, because a recording is to be small."""
ONE_THREAD: Final = ("--threads", "1")
QUIET: Final = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "TORCHDYNAMO_DISABLE": "1"}
COLD: Final = (Phase.COLD, Phase.MAIN)
TINY_FLOORS: Final[Mapping[str, tuple[Phase, ...]]] = {"f16": PHASE_ORDER, "ollama-f16": COLD, "vllm-bf16": COLD}
"""The phases in which baselines are asked; others are asked once."""


def tiny_prompts() -> tuple[PromptSet, dict[str, list[str]]]:
    """Return the prompts asked of the tiny model, and the ids of the two sets they are: mixed, and some of the pool."""
    pool = load_prompts(FIXTURES / "prompts/pool.jsonl", ())
    mixed = [case.id for case in load_prompts(FIXTURES / "prompts/mixed.jsonl", ()).cases]
    plain = [case.id for case in pool.cases if not case.tools]
    some = sorted(Random(SEED).sample(plain, SAMPLE), key=plain.index)
    wanted = {*mixed, *some}
    asked = PromptSet(name="draws", cases=tuple(case for case in pool.cases if case.id in wanted))
    return asked, {"mixed": mixed, "pool": some}


def smollm2_prompts(each: int) -> tuple[PromptSet, dict[str, list[str]]]:
    """Return the prompts asked of the instruct model, the first of each kind, and their ids."""
    every = load_prompts(FIXTURES / "draws/instruct.jsonl", ())
    of_kind: Counter[str] = Counter()
    cases = []
    for case in every.cases:
        of_kind[case.tags[0]] += 1
        if of_kind[case.tags[0]] <= each:
            cases.append(case)
    return PromptSet(name="draws", cases=tuple(cases)), {"instruct": [case.id for case in cases]}


def structured_prompts() -> tuple[PromptSet, dict[str, list[str]]]:
    """Return the prompts whose schema is enforced on the instruct model, and their ids."""
    every = load_prompts(FIXTURES / "draws/structured.jsonl", ())
    return PromptSet(name="draws", cases=every.cases), {"structured": [case.id for case in every.cases]}


def unit_of(prompts: PromptSet, tokens: int = MAX_TOKENS) -> Unit:
    """Return the prompts as a test with text and logprobs has them asked."""
    declaration = Declaration(
        test="draws",
        prompts=prompts,
        checks=(check.text(margin=0.05),),
        sampling=Sampling(max_tokens=tokens),
        concurrency=CONCURRENCY,
    )
    (unit,) = make_plan([declaration]).units
    return unit


def gguf(name: str, path: Path, *args: str, pin: str, **fields: Any) -> Served:
    """Return llama.cpp on one file, with a slot for every request in flight and one thread."""
    spec = EngineSpec(
        name=name,
        kind="llamacpp",
        launch="process",
        model=path.name,
        model_path=path,
        slots=CONCURRENCY,
        args=(*ONE_THREAD, *args),
        context_length=CONTEXT,
        pin={"quantization": pin},
        **fields,
    )
    return Served(spec=spec, adapter=LlamaCppAdapter)


def folder(name: str, kind: str, adapter: Any, path: Path, python: str, *args: str, pin: str) -> Served:
    """Return an engine that serves a folder, run by the interpreter that has it."""
    spec = EngineSpec(
        name=name,
        kind=kind,
        launch="process",
        model=path.name,
        model_path=path,
        python=python,
        args=args,
        env=QUIET,
        context_length=CONTEXT if kind == "vllm" else None,
        pin={"quantization": pin},
    )
    return Served(spec=spec, adapter=adapter)


def tiny_engines(asked: argparse.Namespace) -> list[Served]:
    """Return every engine of the tiny model that the command line names, llama.cpp with F16 first."""
    template = (TINY / "chat_template.jinja").read_text("utf-8")
    hidden = "{{- '<|im_start|>system\\n" + HIDDEN + "<|im_end|>\\n' }}\n" + template
    f16 = TINY / "tiny-F16.gguf"
    classes = ("Q8_0", "Q6_K", "Q4_K_M", "Q4_0")
    engines = [
        gguf("f16", f16, pin="F16"),
        *(gguf(name.lower(), TINY / f"tiny-{name}.gguf", pin=name) for name in classes),
        gguf("kv-q4_0", f16, "--cache-type-k", "q4_0", "--cache-type-v", "q4_0", pin="F16"),
        gguf("hidden", f16, "--chat-template", hidden, pin="F16"),
    ]
    if asked.llama_server:
        engines.append(gguf("rope", f16, "--rope-freq-scale", "0.97", pin="F16", command=(asked.llama_server,)))
    if asked.ollama:
        for name in ("F16", "Q4_0"):
            path = TINY / f"tiny-{name}.gguf"
            spec = EngineSpec(
                name=f"ollama-{name.lower()}",
                kind="ollama",
                launch="process",
                model=str(path),
                model_path=path,
                slots=CONCURRENCY,
                context_length=CONTEXT,
                command=(asked.ollama,),
                env={"LLAMA_ARG_THREADS": "1"},
                pin={"quantization": name},
            )
            engines.append(Served(spec=spec, adapter=OllamaAdapter))
    if asked.vllm_python:
        flags = ("--dtype", "bfloat16", "--enforce-eager", "--num-gpu-blocks-override", "512")
        engines.append(folder("vllm-bf16", "vllm", VllmAdapter, TINY, asked.vllm_python, *flags, pin="BF16"))
    if asked.mlx_python:
        engines.append(folder("mlx", "mlx", MlxAdapter, TINY, asked.mlx_python, pin="BF16"))
    if asked.transformers_python:
        engines.append(
            folder(
                "transformers",
                "transformers",
                TransformersAdapter,
                TINY,
                asked.transformers_python,
                *("--dtype", "float32", "--device", "cpu"),
                pin="F32",
            )
        )
    return engines


def smollm2_engines(files: Mapping[str, Path], asked: argparse.Namespace) -> list[Served]:
    """Return llama.cpp on the file and each copy, the file first, and what serves the same weights as a folder."""
    engines = [gguf(name.lower(), path, pin=name) for name, path in files.items()]
    python = asked.transformers_python or asked.vllm_python
    model = smollm2.as_folder(files["F16"], python) if python else Path()
    for name, dtype in (("BF16", "bfloat16"), ("F32", "float32")) if asked.vllm_python else ():
        flags = ["--dtype", dtype, "--enforce-eager", "--num-gpu-blocks-override", "512"]
        served = folder(f"vllm-{name.lower()}", "vllm", VllmAdapter, model, asked.vllm_python, *flags, pin=name)
        engines.append(served)
    if asked.transformers_python and asked.model != "structured":  # which it does not enforce
        flags, python = ["--dtype", "float32", "--device", "cpu"], asked.transformers_python
        engines.append(folder("transformers", "transformers", TransformersAdapter, model, python, *flags, pin="F32"))
    return engines


def recorded(gathered: Gathered, cases: Sequence[str]) -> Recorded:
    """Return what is kept of one engine; a failure ends it all, for nothing here is expected to fail."""
    answers = {
        phase: {case: _answer(gathered.samples[phase][case][0]) for case in cases} for phase in gathered.served.phases
    }
    return Recorded(
        name=gathered.served.spec.name,
        kind=str(gathered.served.spec.kind),
        quantization=gathered.quantization,
        identity=gathered.identity,
        answers=answers,
    )


def _answer(sample: Sample) -> Completion:
    if sample.completion is None:
        raise SystemExit(f"{sample.engine}, {sample.case}: {sample.failure}")
    return sample.completion


def main(argv: Sequence[str] | None = None) -> int:
    """Gather what is missing and write the recording."""
    asked = arguments(argv)
    if asked.model == "tiny":
        prompts, sets = tiny_prompts()
        engines, floors = tiny_engines(asked), TINY_FLOORS
    else:
        prompts, sets = structured_prompts() if asked.model == "structured" else smollm2_prompts(asked.each)
        if asked.quantize is None:
            raise SystemExit("name llama-quantize by --quantize: the gguf package makes no K-quants")
        files = smollm2.copies(asked.store, asked.quantize, asked.classes.split(","))
        engines, floors = smollm2_engines(files, asked), {"f16": COLD}
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    about: dict[str, Any] = {
        "made_by": f"python -m benchmarks.record_draws {asked.model}",
        "date": today,
        "max_tokens": MAX_TOKENS,
        "concurrency": CONCURRENCY,
        "sets": sets,
    }
    gatherer, answered = Gatherer(asked.store, unit_of(prompts)), list[Recorded]()
    kept = read(DRAWS / f"{asked.model}.jsonl.xz") if asked.keep else None
    known = {} if kept is None else kept.engines
    if kept is not None:
        about = {**kept.about, "sets": sets}
    named = {served.spec.name: served for served in engines}
    try:
        for name in [*known, *(name for name in named if name not in known)]:
            if name in known and name not in asked.again:
                answered.append(known[name])
                continue
            if name not in named:
                raise SystemExit(f"{name} is to be asked again: name its program")
            of = sets["mixed"] if name in MIXED_ONLY else [case.id for case in prompts.cases]
            served = dataclasses.replace(named[name], phases=floors.get(name, (Phase.MAIN,)))
            answered.append(recorded(gatherer.gather(served), of))
            if kept is not None:
                about["later"] = {**about.get("later", {}), name: today}
        write(DRAWS / f"{asked.model}.jsonl.xz", about=about, engines=answered, baselines=list(floors))
    finally:
        gatherer.close()  # the store reads tokens when they are looked at
    return 0


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.record_draws", description=__doc__.partition("\n")[0])
    parser.add_argument("model", choices=("tiny", "smollm2", "structured"))
    parser.add_argument("--store", type=Path, default=Path(".llmparity/draws"), help="Folder that keeps the answers")
    parser.add_argument("--llama-server", help="llama.cpp's own program, for what the xllamacpp package has no flag of")
    parser.add_argument("--ollama", help="Ollama's program")
    parser.add_argument("--vllm-python", help="Interpreter that has vLLM")
    parser.add_argument("--mlx-python", help="Interpreter that has mlx-lm")
    parser.add_argument("--transformers-python", help="Interpreter that has transformers[serving]")
    parser.add_argument("--quantize", help="llama-quantize, which makes the copies of SmolLM2")
    parser.add_argument("--classes", default=",".join(smollm2.CLASSES), help="Copies of SmolLM2, %(default)s")
    parser.add_argument("--keep", action="store_true", help="Keep what the recording has, and add what it has not")
    parser.add_argument("--again", action="append", default=[], help="With --keep: an engine that is asked anew")
    parser.add_argument("--each", type=int, default=8, help="Prompts of each of eight kinds that SmolLM2 is asked")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
