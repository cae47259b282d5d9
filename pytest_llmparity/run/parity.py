"""What the fixtures hand out: rows of answers, checks on them, and questions asked on the spot."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, TypeVar

from pytest_llmparity.core import errors
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.prompts.reading import messages_of
from pytest_llmparity.core.prompts.sampling import sampling_of
from pytest_llmparity.core.sample import Completion, Sample, Sampling, Timing, ToolCall
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import brief, explain
from pytest_llmparity.core.words.explain import failure_text

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import openai as sdk

    from pytest_llmparity.engines.wire.base import Adapter


T = TypeVar("T")


class ParityFailure(AssertionError):
    """At least one of the ``verdicts`` fails the test; the text is the whole explanation, ``brief`` one line of it."""

    def __init__(self, text: str, verdicts: Sequence[Verdict] = ()) -> None:
        super().__init__(text)
        self.verdicts = tuple(verdicts)
        self.brief = brief.one_line(verdicts)


class Usage(NamedTuple):
    """Token counts of one answer as the server says, ``None`` where it does not; ``cached`` are part of ``prompt``."""

    prompt: int | None
    completion: int | None
    cached: int | None


class Row:
    """The answers of one engine to one case. Reading a missing answer raises the error that explains it."""

    def __init__(self, engine: str, case: str, samples: Sequence[Sample], *, missing: str) -> None:
        self.engine = engine
        self.id = case
        self.samples: tuple[Sample, ...] = tuple(samples)
        self._missing = missing

    @property
    def completion(self) -> Completion:
        """The first answer; with repeats the others are in :attr:`samples`."""
        __tracebackhide__ = True
        if not self.samples:
            raise errors.MissingSample(f"{self.engine} has no answer to {self.id!r}: {self._missing}")
        first = self.samples[0]
        if first.failure is not None:
            kind = errors.by_name(first.failure.kind)
            message = f"{self.engine}, {self.id}: {first.failure.message}"
            if issubclass(kind, errors.EngineError):
                raise kind(message, engine=self.engine, case=self.id, status=first.failure.status)
            raise kind(message)
        assert first.completion is not None
        return first.completion

    @property
    def text(self) -> str:
        """The answer's text, reasoning apart."""
        __tracebackhide__ = True
        return self.completion.text

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        """The calls the answer makes."""
        __tracebackhide__ = True
        return self.completion.tool_calls

    @property
    def turns(self) -> tuple[Completion, ...]:
        """The answers before it in a conversation with scripted tools, each with the ``results`` of its calls."""
        __tracebackhide__ = True
        return self.completion.turns

    @property
    def choices(self) -> tuple[Completion, ...]:
        """All choices where the case asks for several (``n``), this one first; of any other case this one alone."""
        __tracebackhide__ = True
        return (self.completion, *self.completion.choices)

    @property
    def reasoning(self) -> str:
        """What the model thought before it answered, empty where the engine sent none."""
        __tracebackhide__ = True
        return self.completion.reasoning

    @property
    def finish_reason(self) -> str:
        """Why the answer ended, as the engine said: ``stop``, ``length``, ``tool_calls``."""
        __tracebackhide__ = True
        return self.completion.finish_reason

    @property
    def usage(self) -> Usage:
        """The server's token counts."""
        __tracebackhide__ = True
        answer = self.completion
        made = answer.counted if answer.choices else answer.completion_tokens
        return Usage(answer.prompt_tokens, made, answer.cached_tokens)

    def __repr__(self) -> str:
        """Show whose answer to which case it is, how it begins and how it ended; of a missing one, why."""
        about = f"<Row {self.engine}, {explain.plain(self.id, 40)}:"
        try:
            answer = self.completion
        except errors.LLMParityError as error:
            return f"{about} {type(error).__name__}: {explain.plain(str(error), 120)}>"
        calls = "".join(f" {explain.plain(f'{c.name}({c.arguments})', 60)}" for c in answer.tool_calls)
        text = explain.quote(answer.text) if answer.text or not calls else ""
        return f"{about} {f'{text}{calls}'.strip()} ({explain.plain(answer.finish_reason, 20) or 'no finish reason'})>"

    @property
    def timing(self) -> Timing | None:
        """When it arrived while gathering; never evidence for latency, ``None`` after a retry or a resume."""
        return self.samples[0].timing if self.samples else None


class Named(Mapping[str, T]):
    """What was gathered or asked for, by name; who asks for another name is told which there are."""

    unknown: ClassVar[str]
    """The sentence about a name that is not there; those that are follow."""

    def _all(self) -> Mapping[str, T]:
        raise NotImplementedError

    def __getitem__(self, name: str) -> T:
        known = self._all()
        if name not in known:
            shown = ", ".join(repr(other) for other in list(known)[:5])
            more = f" and {len(known) - 5} more" if len(known) > 5 else ""
            raise KeyError(self.unknown.format(repr(name)) + shown + more)
        return known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._all()

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


class EngineRows(Named[Row]):
    """Rows of one engine by case id, in the order of the prompt file.

    Of a run that asks some of the cases it has the rows of these; reading one of the ``unselected`` says by what.
    """

    unknown: ClassVar[str] = "no case {} in this prompt set; it has "

    def __init__(self, engine: str, rows: Mapping[str, Row], *, unselected: Mapping[str, str] | None = None) -> None:
        self.engine = engine
        self._rows = rows
        self._unselected = unselected or {}

    def _all(self) -> Mapping[str, Row]:
        return self._rows

    def __getitem__(self, case: str) -> Row:
        if case in self._unselected and case not in self._rows:
            return Row(self.engine, case, (), missing=f"not selected by {self._unselected[case]}")
        return super().__getitem__(case)


class ParityRun(Named[EngineRows]):
    """What one ``parity`` test gathered: rows by engine name, and checks on them.

    ``run["ollama"]["refund-3"].text`` is one answer. :meth:`check` applies a check to what was gathered; it is soft,
    like the marker's: the test goes on and fails at its end. Inside ``with run.hard():`` it raises at once.
    """

    unknown: ClassVar[str] = "no engine {} in this run; it has "

    def __init__(
        self, rows: Callable[[], Mapping[str, EngineRows]], judge: Callable[[Check], list[Verdict]], *, reproduce: str
    ) -> None:
        self._load = rows
        self._judge = judge
        self._reproduce = reproduce
        self._rows: Mapping[str, EngineRows] | None = None
        self._hard = False
        self.touched = False
        self.verdicts: list[Verdict] = []
        self.checks: dict[str, Check] = {}
        """The checks of the test's body, as they were written."""

    def check(self, check: Check) -> list[Verdict]:
        """Judge what was gathered by a check; return its verdicts, which count for the test.

        Raises ``DesignError`` when the check needs samples that no marker declared; the text names the marker line.
        """
        __tracebackhide__ = True
        self.touched = True
        verdicts = self._judge(check)
        self.verdicts.extend(verdicts)
        self.checks[str(check)] = check
        if self._hard and any(verdict.outcome.fails_test for verdict in verdicts):
            raise ParityFailure(failure_text(verdicts, reproduce=self._reproduce), verdicts)
        return verdicts

    @contextlib.contextmanager
    def hard(self) -> Iterator[ParityRun]:
        """Within the block a failing check raises :class:`ParityFailure` at once."""
        before, self._hard = self._hard, True
        try:
            yield self
        finally:
            self._hard = before

    def _all(self) -> Mapping[str, EngineRows]:
        self.touched = True
        if self._rows is None:
            self._rows = self._load()
        return self._rows


@dataclass(frozen=True)
class EngineHandle:
    """One engine for application code: its address, its model's name, and clients that speak to it.

    Its representation leaves the key out: pytest prints the arguments of a test that fails.
    """

    name: str
    kind: str
    model: str
    base_url: str
    api_key: str = field(repr=False)
    _adapter: Adapter = field(repr=False)

    def openai(self) -> sdk.OpenAI:
        """Return a client of the ``openai`` package: no retries, the configured timeout, none of parity's sampling."""
        import openai

        from pytest_llmparity.run.clients import Direct, way

        return openai.OpenAI(**self._arguments(), http_client=Direct(**way(self.base_url, **self._through())))

    def async_openai(self) -> sdk.AsyncOpenAI:
        """Return the asynchronous client of the ``openai`` package, configured like :meth:`openai`."""
        import openai

        from pytest_llmparity.run.clients import AsyncDirect, way

        return openai.AsyncOpenAI(**self._arguments(), http_client=AsyncDirect(**way(self.base_url, **self._through())))

    def _arguments(self) -> dict[str, Any]:
        return {
            "base_url": self.base_url,
            "api_key": self.api_key,
            "max_retries": 0,
            "timeout": self._adapter.spec.request_timeout_s,
            "default_headers": {n: v for n, v in self._adapter.headers.items() if n != "authorization"},
        }

    def _through(self) -> dict[str, Any]:
        return {"ca_bundle": self._adapter.spec.ca_bundle, "proxy": self._adapter.spec.proxy}


def handle_of(adapter: Adapter, *, base_url: str = "") -> EngineHandle:
    """Return an engine for application code, reached at its own address or at another."""
    return EngineHandle(
        name=adapter.name,
        kind=adapter.kind,
        model=adapter.model,
        base_url=base_url or adapter.openai_base_url,
        api_key=adapter.api_key or "EMPTY",
        _adapter=adapter,
    )


class Engines(Named[EngineHandle]):
    """Every selected engine by name, in the order selected."""

    unknown: ClassVar[str] = "no engine {} is selected; these are: "

    def __init__(self, handles: Mapping[str, EngineHandle], *, baseline: str) -> None:
        self._handles = dict(handles)
        self._baseline = baseline

    @property
    def baseline(self) -> EngineHandle:
        """The engine the others are compared with."""
        return self._handles[self._baseline]

    def _all(self) -> Mapping[str, EngineHandle]:
        return self._handles


class Asker(Protocol):
    """Sends one case to every engine and judges what came back (``run.session`` has the real one)."""

    def send(self, case: Case, sampling: Sampling) -> Mapping[str, Sample]:
        """Return one sample per engine."""

    def asend(self, case: Case, sampling: Sampling) -> Awaitable[Mapping[str, Sample]]:
        """Return one sample per engine, from a running event loop."""

    def judge(self, case: Case, sampling: Sampling, samples: Mapping[str, Sample], check: Check) -> list[Verdict]:
        """Return the verdicts of a check on one case's samples, which are by engine."""


class Asked(Named[Row]):
    """The answers of every engine to one question."""

    unknown: ClassVar[str] = "no engine {} was asked; these were: "

    def __init__(self, asker: Asker, case: Case, sampling: Sampling, samples: Mapping[str, Sample]) -> None:
        self._asker = asker
        self._case = case
        self._sampling = sampling
        self._samples = samples

    def _all(self) -> Mapping[str, Row]:
        return {
            engine: Row(engine, self._case.id, [sample], missing="it was not asked")
            for engine, sample in self._samples.items()
        }

    def check(self, check: Check) -> list[Verdict]:
        """Assert a check on this one answer per engine and return its verdicts, without a bound and marked ``single``.

        Raises :class:`ParityFailure` unless every engine passes.
        """
        __tracebackhide__ = True
        if check.pairwise and len(self._samples) < 2:
            only = next(iter(self._samples), "none")
            raise ParityFailure(f"{check.kind} compares engines and only {only} is selected; give --engines A,B")
        verdicts = self._asker.judge(self._case, self._sampling, self._samples, check)
        if any(verdict.outcome is not Outcome.PASS for verdict in verdicts):
            skipped = "; ".join(verdict.message for verdict in verdicts if verdict.outcome is Outcome.SKIPPED)
            raise ParityFailure(failure_text(verdicts, reproduce="") or skipped, verdicts)
        return verdicts


class Parity:
    """Asks questions on the spot, on every selected engine."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def ask(self, question: str | Sequence[Mapping[str, Any]], **sampling: Any) -> Asked:
        """Ask every engine a user message, or messages as a prompt file has them; return what can be checked.

        Keywords are fields of ``Sampling``. Raises ``UsageError`` for an unknown keyword, for a value that makes no
        sense, and for a message that a prompt file could not hold.
        """
        case, wanted = _question(question, sampling)
        return Asked(self._asker, case, wanted, self._asker.send(case, wanted))

    async def aask(self, question: str | Sequence[Mapping[str, Any]], **sampling: Any) -> Asked:
        """Return what :meth:`ask` does, from a coroutine: the test's loop goes on meanwhile."""
        case, wanted = _question(question, sampling)
        return Asked(self._asker, case, wanted, await self._asker.asend(case, wanted))


def single(case: Case) -> PromptSet:
    """Return the prompt set that holds this one case."""
    return PromptSet(name="ask", cases=(case,), digest="ask")


def _question(question: str | Sequence[Mapping[str, Any]], sampling: Mapping[str, Any]) -> tuple[Case, Sampling]:
    turns = [{"role": "user", "content": question}] if isinstance(question, str) else question
    messages = messages_of(turns, place="parity.ask")
    return Case(id="ask", messages=messages, group="ask"), sampling_of(sampling, place="parity.ask")
