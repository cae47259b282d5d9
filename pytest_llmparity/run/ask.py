"""Questions asked on the spot: one case to every engine at once, nothing stored, judged without bounds."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping

from pytest_llmparity.core.checks.alone.stream import StreamCheck
from pytest_llmparity.core.checks.answers import AnswersCheck
from pytest_llmparity.core.checks.tools import ToolsCheck
from pytest_llmparity.core.errors import DesignError, EngineError
from pytest_llmparity.core.evidence import Check, EngineEvidence, Evidence
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Phase, Sample, Sampling
from pytest_llmparity.core.verdict import Explanation, Verdict
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.explain import SINGLE, due
from pytest_llmparity.run.judge.judging import ALPHA
from pytest_llmparity.run.parity import single
from pytest_llmparity.run.plan import Job, wire_of
from pytest_llmparity.run.records import record_of
from pytest_llmparity.run.sending.sender import answered, client_of, failed, named
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec


class SessionAsker:
    """Asks the engines of a session. Satisfies ``run.parity.Asker``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._records: dict[str, EngineRecord] = {}

    def send(self, case: Case, sampling: Sampling) -> Mapping[str, Sample]:
        """Return one sample per engine; raises the reason when an engine is not available."""
        if self._session.settings.residency == "one-at-a-time":
            answers: dict[str, Sample] = {}
            for spec in self._session.settings.in_turn():
                answers |= self._session.loop.run(self._all(case, sampling, [self._adapter(spec)]))
            return answers
        return self._session.loop.run(self._all(case, sampling, self._adapters()))

    async def asend(self, case: Case, sampling: Sampling) -> Mapping[str, Sample]:
        """Return one sample per engine without blocking the caller's loop (starting an engine may)."""
        if self._session.settings.residency == "one-at-a-time":
            return await asyncio.to_thread(self.send, case, sampling)
        adapters = await asyncio.to_thread(self._adapters)
        return await self._all(case, sampling, adapters)

    def judge(self, case: Case, sampling: Sampling, samples: Mapping[str, Sample], check: Check) -> list[Verdict]:
        """Judge one answer per engine: PASS or FAIL, marked single.

        Raises ``DesignError`` for a check that holds answers against what their prompt says: this one says nothing.
        """
        if isinstance(check, (AnswersCheck, ToolsCheck)):
            lacks = "says of no answer that it is right" if isinstance(check, AnswersCheck) else "offers no tools"
            raise DesignError(
                f"{check} cannot judge a question on the spot, which {lacks}: write it into a prompt file, with "
                "expect, and put the check into the parity marker"
            )
        if isinstance(check, StreamCheck):
            raise DesignError(
                f"{check} cannot judge a question on the spot, which is asked once: put the check into a parity marker"
            )
        engines = {
            name: EngineEvidence(
                name=name,
                kind=self._records[name].kind,
                identity=self._records[name].identity,
                quantization=self._records[name].quantization,
                samples={Phase.MAIN: {case.id: [sample]}},
            )
            for name, sample in samples.items()
        }
        verdicts = check.judge(
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
                agreed=self._session.agreed,
            )
        )
        unexplained = {id(verdict) for verdict in due(verdicts, self._session.settings)}
        return [
            dataclasses.replace(v, explanation=Explanation(note=SINGLE)) if id(v) in unexplained else v
            for v in verdicts
        ]

    def _adapters(self) -> list[Adapter]:
        return [self._adapter(spec) for spec in self._session.settings.in_turn()]

    def _adapter(self, spec: EngineSpec) -> Adapter:
        """Return one engine, started if need be; raises why it cannot be asked, a contradicted pin included."""
        adapter, identity = self._session.available(spec.name)
        self._records[spec.name] = record_of(spec, adapter=adapter, identity=identity)
        return adapter

    async def _all(self, case: Case, sampling: Sampling, adapters: list[Adapter]) -> Mapping[str, Sample]:
        """Ask the engines at once; what a server repeats of its key is masked, as the store does with gathered ones."""
        samples = await asyncio.gather(*(_ask(case, sampling, adapter) for adapter in adapters))
        return {sample.engine: self._session.mask.sample(sample) for sample in samples}


async def _ask(case: Case, sampling: Sampling, adapter: Adapter) -> Sample:
    wire = wire_of(adapter, case.request(sampling))
    job = Job(case=case.id, wire=wire, phase=Phase.MAIN, repeat=0, concurrency=1)
    client = client_of(adapter)
    try:
        exchange = await client.send(wire.method, wire.path, wire.body, most_bytes=wire.answer_bytes)
        return answered(adapter, job, exchange, attempts=1)
    except EngineError as error:
        return failed(adapter.name, job, named(error, adapter.name, case.id), attempts=1)
    finally:
        await client.aclose()
