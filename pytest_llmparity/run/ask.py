"""Questions asked on the spot: one case to every engine at once, nothing stored, judged without bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pytest_llmparity.core.checks.base import Check, EngineEvidence, Evidence
from pytest_llmparity.core.errors import EngineError, LLMParityError
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Phase, Sample, Sampling
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.engines.base import Adapter
from pytest_llmparity.run.campaign import client_of
from pytest_llmparity.run.evidence import EngineNote, note
from pytest_llmparity.run.gather import Job, answered, failed, named
from pytest_llmparity.run.parity import single
from pytest_llmparity.run.session import ALPHA, Session


class SessionAsker:
    """Asks the engines of a session. Satisfies ``run.parity.Asker``."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def send(self, case: Case, sampling: Sampling) -> Mapping[str, Sample]:
        """Return one sample per engine; raises the reason when an engine is not available."""
        return self._session.loop.run(_all(case, sampling, self._adapters()))

    async def asend(self, case: Case, sampling: Sampling) -> Mapping[str, Sample]:
        """Return one sample per engine without blocking the caller's loop (starting an engine may)."""
        adapters = await asyncio.to_thread(self._adapters)
        return await _all(case, sampling, adapters)

    def judge(self, case: Case, sampling: Sampling, samples: Mapping[str, Sample], check: Check) -> list[Verdict]:
        """Judge one answer per engine: PASS or FAIL, marked single."""
        engines = {
            name: EngineEvidence(
                name=name,
                kind=entry.kind,
                identity=entry.identity,
                quantization=entry.quantization,
                samples={Phase.MAIN: {case.id: [samples[name]]}},
            )
            for name, entry in self._notes(samples).items()
        }
        return check.judge(
            Evidence(
                test="parity.ask",
                prompts=single(case),
                sampling=sampling,
                concurrency=1,
                baseline=self._session.baseline,
                engines=engines,
                alpha=ALPHA,
                embedder=self._session.embedder,
                single=True,
            )
        )

    def _adapters(self) -> list[Adapter]:
        """Return every selected engine, the baseline first."""
        found = []
        for spec in sorted(self._session.settings.engines, key=lambda s: s.name != self._session.baseline):
            engaged = self._session.fleet.engage(spec.name)
            if engaged.adapter is None or engaged.incomparable:
                raise LLMParityError(engaged.error or engaged.incomparable or f"{spec.name} is not available")
            found.append(engaged.adapter)
        return found

    def _notes(self, samples: Mapping[str, Sample]) -> dict[str, EngineNote]:
        engaged = {name: self._session.fleet.engage(name) for name in samples}
        return {name: note(e.spec, kind=e.spec.kind or "", identity=e.identity) for name, e in engaged.items()}


async def _all(case: Case, sampling: Sampling, adapters: list[Adapter]) -> Mapping[str, Sample]:
    samples = await asyncio.gather(*(_one(case, sampling, adapter) for adapter in adapters))
    return {sample.engine: sample for sample in samples}


async def _one(case: Case, sampling: Sampling, adapter: Adapter) -> Sample:
    wire = adapter.build(case.request(sampling))
    job = Job(case=case.id, wire=wire, phase=Phase.MAIN, repeat=0, concurrency=1)
    client = client_of(adapter)
    try:
        exchange = await client.send(wire.method, wire.path, wire.body)
        return answered(adapter, job, exchange, attempts=1)
    except EngineError as error:
        return failed(adapter.name, job, named(error, adapter.name, case.id), attempts=1)
    finally:
        await client.aclose()
