"""Engines of ``benchmarks/outcomes.py``, and everything they answer to a pool of prompts, kept in a store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.sample import Identity, Phase, Sample, WireRequest, from_json, to_json
from pytest_llmparity.engines.kinds.llamacpp import LlamaCppAdapter
from pytest_llmparity.engines.kinds.vllm import VllmAdapter
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.gather.replicas.engine import key_of_job
from pytest_llmparity.run.judge.judging import select
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.plan import PHASE_ORDER, Job, Step, Unit, jobs_of, requests_of, shuffled
from pytest_llmparity.run.records import record_of
from pytest_llmparity.run.sending.sender import client_of, send
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.store.runs import Store

MODEL: Final = Path(__file__).resolve().parent.parent / "fixtures" / "models" / "tiny"
IDENTITY = "identity"
"""Name of the run's note that says what the engine is."""
VERSION: Final = "outcomes 1"
"""Stands in the store where a run names the package's version."""
CONCURRENCY: Final = 8
CONTEXT: Final = 1024
BASELINE: Final = "f16"


class CachingLlamaCpp(LlamaCppAdapter):
    """llama.cpp as it comes, with its prompt cache on; our own adapter switches it off."""

    constants: ClassVar[Mapping[str, Any]] = {"cache_prompt": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One engine process, asked every prompt in every one of its phases."""

    spec: EngineSpec
    adapter: type[Adapter]
    phases: tuple[Phase, ...] = PHASE_ORDER

    @property
    def caching(self) -> bool:
        """Whether prompts stay in its cache: then it is warm only for a prompt that was asked just before."""
        return self.adapter is CachingLlamaCpp


def engines(vllm_python: str | None) -> list[Served]:
    """Return every engine, the baseline first; vLLM only where an interpreter that has it is named."""
    served = [
        llamacpp(BASELINE, "F16"),
        llamacpp("f16-again", "F16"),
        llamacpp("f16-cached", "F16", CachingLlamaCpp),
        llamacpp("q8_0", "Q8_0"),
        llamacpp("q4_0", "Q4_0"),
    ]
    if vllm_python is not None:
        flags = ("--dtype", "bfloat16", "--enforce-eager", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")
        spec = EngineSpec(
            name="bf16",
            kind="vllm",
            launch="process",
            model="tiny",
            model_path=MODEL,
            python=vllm_python,
            args=flags,
            env={"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"},  # as below: cores are shared
            context_length=CONTEXT,
            pin={"quantization": "BF16"},
        )
        served.append(Served(spec=spec, adapter=VllmAdapter))
    return served


def llamacpp(name: str, quantization: str, adapter: type[Adapter] = LlamaCppAdapter) -> Served:
    """Return one llama.cpp process with a slot for every request in flight.

    It gets one thread: several wait for each other busily, which on shared cores makes a model this small ten times
    slower.
    """
    path = MODEL / f"tiny-{quantization}.gguf"
    spec = EngineSpec(
        name=name,
        kind="llamacpp",
        launch="process",
        model=path.name,
        model_path=path,
        slots=CONCURRENCY,
        args=("--threads", "1"),
        context_length=CONTEXT,
        pin={"quantization": quantization, "context_length": CONTEXT},
    )
    return Served(spec=spec, adapter=adapter)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Everything one engine answered, sorted by phase and case."""

    served: Served
    identity: Identity
    quantization: str | None
    samples: Mapping[Phase, Mapping[str, Sequence[Sample]]]


class Gatherer:
    """Asks engines the whole pool, each into a run of its own; what is finished is never asked again."""

    def __init__(self, folder: Path, unit: Unit) -> None:
        self._folder = folder
        self._unit = unit
        self._store = Store.open(folder)

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def gather(self, served: Served) -> Gathered:
        """Return what an engine answers, asking for what the store does not have."""
        spec = served.spec
        wires = requests_of(served.adapter(spec, "http://127.0.0.1", {}), self._unit)
        plan = self._plan_hash(spec, wires)
        known = self._store.latest(plan)
        if known is None or known.finished is None:
            run = self._store.begin(plan_hash=plan, session=uuid.uuid4().hex, version=VERSION).id
            self._ask(served, wires, run)
            self._store.finish(run)
        else:
            run = known.id
        identity = from_json(Identity, self._store.raw_document(run, IDENTITY) or {})
        shas = {case: wire.sha256 for case, wire in wires.items()}
        samples = select(self._store.get(run, spec.name), shas, concurrency=CONCURRENCY)
        if served.caching:  # the first of two equal questions fills the cache
            samples[Phase.WARM] = {case: both[1:] for case, both in samples[Phase.WARM].items()}
        record = record_of(spec, identity=identity)
        return Gathered(served=served, identity=identity, quantization=record.quantization, samples=samples)

    def _plan_hash(self, spec: EngineSpec, wires: Mapping[str, WireRequest]) -> str:
        parts = [spec.name, spec.spec_hash, self._unit.key, sorted(wire.sha256 for wire in wires.values())]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _ask(self, served: Served, wires: Mapping[str, WireRequest], run: str) -> None:
        name = served.spec.name
        keeper = Keeper.spawn(self._folder)
        try:
            fleet = Fleet({name: served.spec}, keeper=lambda: keeper, workdir=self._folder)
            engaged = fleet.engage(name)
            if engaged.adapter is None or engaged.record.incomparable is not None:
                raise SystemExit(engaged.record.unusable)
            self._store.put_engine(run, name, served.spec.spec_hash, engaged.record.identity)
            self._store.put_document(run, IDENTITY, to_json(engaged.record.identity))
            adapter = served.adapter(served.spec, engaged.adapter.base_url, engaged.adapter.headers)
            have = self._store.have(run, name)
            steps = [
                (step, [job for job in jobs if key_of_job(job) not in have])
                for step, jobs in self._steps(served, wires)
            ]
            asyncio.run(self._send(adapter, steps, run=run, gone=lambda: fleet.gone(name)))
        finally:
            keeper.close()

    def _steps(self, served: Served, wires: Mapping[str, WireRequest]) -> Iterator[tuple[Step, list[Job]]]:
        """Yield each phase as a test gathers it, but floors over all cases: any draw may choose any of them."""
        cases = self._unit.prompts.cases
        for phase in served.phases:
            order = shuffled(cases, seed=f"{self._unit.prompts.digest}/{phase}")
            twice = served.caching and phase is Phase.WARM
            step = Step(
                unit=self._unit,
                phase=phase,
                concurrency=CONCURRENCY,
                cases=order,
                repeats=2 if twice else 1,
            )
            jobs = jobs_of(step, wires, {})
            place = {case.id: index for index, case in enumerate(order)}
            yield step, sorted(jobs, key=lambda job: place[job.case])

    async def _send(
        self,
        adapter: Adapter,
        steps: Sequence[tuple[Step, list[Job]]],
        *,
        run: str,
        gone: Callable[[], str | None],
    ) -> None:
        client = client_of(adapter)
        allowance = Allowance(requests=None, seconds=None)
        try:
            for step, jobs in steps:
                begun, failed = time.monotonic(), Counter[str]()

                def deliver(sample: Sample, failed: Counter[str] = failed) -> None:
                    self._store.put(run, [sample])
                    if sample.failure is not None:
                        failed[sample.failure.kind] += 1

                await send(
                    adapter,
                    client,
                    jobs,
                    concurrency=step.concurrency,
                    allowance=allowance,
                    gone=gone,
                    deliver=deliver,
                )
                spent = time.monotonic() - begun
                told = f", failed: {dict(failed)}" if failed else ""
                print(f"{adapter.name} {step.phase}: {len(jobs)} requests in {spent:.0f} s{told}", file=sys.stderr)
        finally:
            await client.aclose()
