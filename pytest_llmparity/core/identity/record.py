"""What a finished run hands to every report: one record, builtins inside, nothing to compute."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.routes import RouteCheck
from pytest_llmparity.core.sample import Identity
from pytest_llmparity.core.verdict import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecord:
    """One engine of a run as the reports name it. ``launch`` is ``attach`` or ``process``.

    ``declares`` is what its kind promises, ``capabilities`` that corrected by probes; ``route_check`` is there where
    another route is measured than applications use. ``log`` is the name of the log of an engine that we start;
    ``log_hint`` says where another's may be found.
    """

    name: str
    kind: str
    version: str | None = None
    model: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    launch: str = "attach"
    route: str = "openai"
    baseline: bool = False
    identity: Identity = field(default_factory=Identity)
    declares: Capabilities = field(default_factory=Capabilities)
    capabilities: Capabilities = field(default_factory=Capabilities)
    route_check: RouteCheck | None = None
    log: str | None = None
    log_hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOrigin:
    """Whose question an answer is: the ``tests`` that asked it, their prompt sets, and the case's messages or prompt.

    ``judged``: a verdict of one of them rests on it; answers that measure the noise floor, and those that a test only
    reads, are not. Everything is empty where nobody noted it (runs stored by an older version).
    """

    tests: tuple[str, ...] = ()
    prompt_sets: tuple[str, ...] = ()
    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | None = None
    judged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRow:
    """Quantiles of one metric on one engine. ``metric``: ``ttft``, ``tpot``, ``e2e``; ``unit`` is ``s``."""

    engine: str
    metric: str
    p50: float
    p95: float
    p99: float
    n: int
    unit: str = "s"


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRecord:
    """One answer that never came: engine, case, phase and the error's class name and text."""

    engine: str
    case: str
    phase: str
    kind: str
    message: str
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """Everything about one run.

    ``requests`` counts what was sent, ``retries`` what was sent again, ``notes`` are sentences for the end of the
    summary (what was resumed, what a hard stop left out).
    """

    run: str
    version: str
    engines: tuple[EngineRecord, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    latency: tuple[LatencyRow, ...] = ()
    failures: tuple[FailureRecord, ...] = ()
    requests: int = 0
    retries: int = 0
    notes: tuple[str, ...] = ()
