"""From plan to wire: the requests of a unit in one engine's words, the jobs they become, the client that sends them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping

from pytest_llmparity.core import sizes
from pytest_llmparity.core.errors import ParameterNotHonoured, UnsupportedParameter
from pytest_llmparity.core.prompts import Case, unseen
from pytest_llmparity.core.sample import Request, WireRequest
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.gather.sender import Job
from pytest_llmparity.run.plan import Step, Unit
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.store.runs import Key
from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.exchange import Limits


def wires_note(engine: str, unit: Unit) -> str:
    """Name of the run's note that says which request of this engine belongs to which case of a unit."""
    return wires_name(engine, unit.key)


def wires_name(engine: str, key: str) -> str:
    """Name of the same note, by the unit's key."""
    return f"wires/{engine}/{key}"


def wire_of(adapter: Adapter, request: Request, *, stream: bool = True) -> WireRequest:
    """Return a request in the engine's words with the token limit it sets, by which an answer is known to be cut.

    What follows from that limit comes with it: how large an answer can be.
    """
    wire = adapter.build(request, stream=stream)
    most = sizes.wire_bytes(request, sent=len(wire.body))
    return dataclasses.replace(wire, max_tokens=request.sampling.max_tokens, answer_bytes=most)


def requests_of(adapter: Adapter, unit: Unit) -> dict[str, WireRequest]:
    """Return the unit's requests in the engine's words, by case.

    Logprobs only grade forks, so an engine that is not known to give them is not asked for any, nor any engine beside
    tools: llama.cpp does not stream the two together. Streams that say nothing of tokens are asked for only where
    their timing counts, because checks hold the prompts' token counts against each other.
    """
    stream = adapter.counts_in_streams or unit.needs.timed > 0
    return {case.id: wire_of(adapter, _request(adapter, unit, case), stream=stream) for case in unit.prompts.cases}


def request_of(adapter: Adapter, unit: Unit, case: Case, *, prefix: str) -> WireRequest | None:
    """Return one of the unit's requests, streamed, with a prefix before its first text; ``None`` if it has none."""
    request = unseen.behind(prefix, _request(adapter, unit, case))
    return None if request is None else wire_of(adapter, request)


def _request(adapter: Adapter, unit: Unit, case: Case) -> Request:
    wanted = unit.needs.top_logprobs if adapter.can.logprobs else None
    return case.request(unit.sampling, top_logprobs=None if case.tools else wanted)


def requests_by_case(adapter: Adapter, unit: Unit) -> tuple[dict[str, WireRequest], dict[str, str]]:
    """Return the requests of a unit that the engine's route has words for, and of the other cases why it has none."""
    wires: dict[str, WireRequest] = {}
    refused: dict[str, str] = {}
    for case in unit.prompts.cases:
        try:
            wires |= requests_of(adapter, narrowed(unit, [case]))
        except (ParameterNotHonoured, UnsupportedParameter) as error:
            refused[case.id] = str(error)
    return wires, refused


def narrowed(unit: Unit, cases: Iterable[Case]) -> Unit:
    """Return the unit, under the same key, with these of its cases alone."""
    return dataclasses.replace(unit, prompts=dataclasses.replace(unit.prompts, cases=tuple(cases)))


def jobs_of(step: Step, wires: Mapping[str, WireRequest]) -> list[Job]:
    """Return the jobs of one step in the order they are sent; a case without a request is not asked."""
    return [
        Job(case=case.id, wire=wires[case.id], phase=step.phase, repeat=repeat, concurrency=step.concurrency)
        for repeat in range(step.repeats)
        for case in step.cases
        if case.id in wires
    ]


def key_of(job: Job) -> Key:
    """Return what the store calls this job's sample."""
    return Key(job.wire.sha256, job.case, job.phase, job.repeat, job.concurrency)


def client_of(adapter: Adapter) -> Client:
    """Return a measuring client for one engine, with its headers, limits and route to the server."""
    return Client(
        adapter.base_url,
        headers=adapter.headers,
        limits=limits_of(adapter.spec),
        ca_bundle=adapter.spec.ca_bundle,
        proxy=adapter.spec.proxy,
    )


def limits_of(spec: EngineSpec) -> Limits:
    """Return the transport's limits under the deadlines of the configuration."""
    return Limits(
        connect_s=spec.connect_timeout_s,
        first_byte_s=spec.request_timeout_s,
        idle_s=spec.idle_timeout_s,
        total_s=spec.request_timeout_s,
    )
