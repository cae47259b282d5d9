"""Reading an OpenAI-shaped answer, streamed or not: tolerant of every shape seen, strict about being whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from pytest_llmparity.core import errors, thinking
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion, TokenLogprob, ToolCall
from pytest_llmparity.engines.facts.values import count, decoded, mapping, mappings, sequence, string, valid
from pytest_llmparity.engines.wire import refusals, tokens
from pytest_llmparity.engines.wire.assembling import Calls, join_text
from pytest_llmparity.engines.wire.refusals import Refusal, shown
from pytest_llmparity.transport.exchange import sse

_SECONDS: Final = {"meta_info": ("e2e_latency",), "stats": ("time_to_first_token", "generation_time")}
"""Timings in seconds, by the object that holds them: SGLang's (``return_meta_info``) and LM Studio's."""

_FINISH: Final = {
    **dict.fromkeys(("max_tokens", "max_length", "max_output_tokens", "model_length", "token_limit"), "length"),
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("tool_use", "tool_call", "function_call"), "tool_calls"),
    **dict.fromkeys(("null", "none"), ""),
}
"""Other servers' words for OpenAI's finish reasons: TGI, Anthropic's and Google's APIs behind gateways, Mistral.

DashScope writes "null" into every chunk of an answer that goes on.
"""

_BROKEN_OFF: Final = ("abort", "aborted", "error", "cancelled", "canceled")
"""Finish reasons of an answer that the server did not finish: SGLang and vLLM, OpenRouter."""

_FAILED_KIND: Final = re.compile(rb"error|exception|fail|fault", re.IGNORECASE)
"""What the kind of an event is called that stands for an error: also ``exception`` and ``response.failed``."""

_OF_A_CHUNK: Final = frozenset(
    {"choices", "usage", "usageMetadata", "usage_metadata", "x_groq", "timings", "delta", "meta_info"}
)
"""An event that has none of these is no part of an answer."""

_MORE_THAN_TEXT: Final = frozenset({"timings", "metrics", "meta_info", "stats"}) | tokens.COUNTED
"""What a chunk or its choice has that says more than the answer: few of thousands have any."""
_REASONING: Final = ("reasoning", "reasoning_content", "thinking")

_MILLISECONDS: Final = re.compile(r"\d{1,12}(\.\d{1,20})?")
_DECODER: Final = msgspec.json.Decoder()
_UNFRAMED_REMARK: Final = "chunks outside the event stream's framing: read all the same"
_STRAY_REMARK: Final = "lines or events that are no part of the answer: left out"
_CUT_CALL_REMARK: Final = "a tool call that the token limit cut came as an error"


@dataclass(slots=True)
class Draft:
    """The parts of one answer while its chunks are taken in by :func:`take`."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    closing: list[str] = field(default_factory=list)
    closing_reasoning: list[str] = field(default_factory=list)
    calls: Calls = field(default_factory=Calls)
    logprobs: list[list[TokenLogprob]] = field(default_factory=list)
    finish: str = ""
    model: str = ""
    fingerprint: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    server: dict[str, float] = field(default_factory=dict)
    cached: int | None = None
    remarks: list[str] = field(default_factory=list)
    ends: list[tuple[int, bool]] = field(default_factory=list)
    """Where in the body events with generated tokens end, and whether these are of the text."""
    further: dict[int, Draft] = field(default_factory=dict)
    """The choices behind the first one, by their index: pieces of streamed ones come in any order."""
    unread: bool = False
    """Whether there were choices that nobody can tell from the first one: what is counted is theirs too."""

    @property
    def cut_call(self) -> bool:
        """Whether an error said that the token limit had cut a tool call: nothing follows it."""
        return _CUT_CALL_REMARK in self.remarks


def parse_answer(answer: Answer, *, engine: str, case: str | None) -> Completion:
    """Read a finished answer; raises an :class:`~pytest_llmparity.core.errors.AnswerError` naming engine and case.

    A stream is whole when a chunk carried a finish reason, or ``[DONE]`` came and nothing was in it that is no part of
    a stream; anything else is ``ProtocolError``.
    """
    reader, draft = Reader(engine, case, answer), Draft()
    reader.no_refusal(draft)
    if draft.cut_call:
        return finished(draft, reader)
    if is_stream(answer):
        whole = False
        for chunk in reader.chunks(draft):
            whole |= chunk is None
            if chunk is not None:
                take(draft, chunk, streamed=True, end=reader.end)
        if not ((whole and not reader.stray) or all(part.finish for part in (draft, *draft.further.values()))):
            wanted = "a finish reason" if whole else "a finish reason or [DONE]"
            raise reader.unfinished(f"the stream ended after {len(answer.body)} bytes without {wanted}")
    else:
        take(draft, reader.document())
    return finished(draft, reader)


def timed(completion: Completion, answer: Answer, headers: Sequence[str]) -> Completion:
    """Return an answer with the server's own timings out of its headers, milliseconds in plain numbers."""
    given = {name: answer.headers.get(name, "") for name in headers}
    timings = {name: float(text) for name, text in given.items() if _MILLISECONDS.fullmatch(text)}
    return msgspec.structs.replace(completion, server={**completion.server, **timings}) if timings else completion


def is_stream(answer: Answer) -> bool:
    """Tell whether the body is server-sent events, by its type or (proxies drop types) by how it begins."""
    if "text/event-stream" in answer.headers.get("content-type", "").lower():
        return True
    return answer.body[:64].lstrip(b"\xef\xbb\xbf\r\n").startswith((b"data:", b"event:", b"id:", b":"))


def _of_a_chunk(value: Mapping[str, Any]) -> bool:
    return not _OF_A_CHUNK.isdisjoint(value) or value.get("type") == "ping"


class Reader:
    """Decodes one body and words what is wrong with it; readers of other shapes than OpenAI's share it."""

    def __init__(self, engine: str, case: str | None, answer: Answer) -> None:
        self.engine = engine
        self.case = case
        self.answer = answer
        self.stray = ""
        self.end: int | None = None
        """Where in the body the event ends that is being read; ``None`` outside the framing of a stream."""
        self._of: dict[str, Any] = {"engine": engine, "case": case, "status": 200}

    def no_refusal(self, draft: Draft) -> None:
        """Raise the typed error of an answer whose status is not 200; a cut tool call becomes the draft instead."""
        if self.answer.status != 200:
            self._refuse(refusals.read_refusal(self.answer.body), draft, status=self.answer.status)

    def broken(self, problem: str) -> errors.ProtocolError:
        """Return the error of an answer that is not whole; ``problem`` ends "answered 200, but …"."""
        about = f" for case {self.case!r}" if self.case else ""
        return errors.ProtocolError(
            f"{self.engine} answered 200{about}, but {problem}. Whole JSON or a finished event stream was expected; "
            "its log, or a proxy between, says why.",
            **self._of,
        )

    def empty(self, answer: Completion) -> errors.EmptyAnswer:
        """Return the error of an answer that says nothing."""
        finish = answer.finish_reason
        about = f" to case {self.case!r}" if self.case else ""
        cause = (
            "The token limit came first: raise max_tokens, or context_length where the prompt fills it or is cut to it."
            if finish == "length"
            else "A chat template that ends the turn at once, or a stop string, does that."
        )
        error = errors.EmptyAnswer(
            f"{self.engine} answered 200{about} with no text, no reasoning and no tool call (finish reason "
            f"{shown(finish, 40) or 'none'}). {cause}",
            **self._of,
        )
        error.finish, error.tokens = answer.finish_reason, answer.completion_tokens
        error.prompt_tokens, error.model = answer.prompt_tokens, answer.model
        return error

    def aborted(self, finish: str) -> errors.ServerFailure:
        """Return the error of an answer that the server broke off."""
        about = f" to case {self.case!r}" if self.case else ""
        return errors.ServerFailure(
            f"{self.engine} broke its answer{about} off (finish reason {shown(finish, 40)}): somebody "
            "aborted the request, or the server is going down; its log says which. Half an answer is not judged.",
            **self._of,
        )

    def document(self, *, holding: str = "choices") -> Mapping[str, Any]:
        """Return an unstreamed answer: an object with a list that is ``holding`` what was said."""
        text = self.text()
        if not text.strip():
            raise self.broken("the body is empty")
        value = self.json(text)
        self.no_error(value)
        if not isinstance(value, dict):
            raise self.broken(f"the body is a JSON {type(value).__name__}, not an object")
        if not sequence(value.get(holding)):
            raise self.broken(f"the JSON has no {holding}: {shown(text, 120)}")
        return value

    def chunks(
        self, draft: Draft, *, belongs: Callable[[Mapping[str, Any]], bool] = _of_a_chunk
    ) -> Iterator[Mapping[str, Any] | None]:
        """Yield each chunk, and ``None`` for ``[DONE]``; an error in any clothes is raised where it stands.

        ``belongs`` tells whether an event is part of an answer.

        Front ends that have said 200 write an error as an event of that kind, as a line without ``data:``, or behind
        half a chunk. Lines that are neither error nor chunk are left out with a remark, unless the stream is not whole.
        """
        self.text()
        unframed: list[str] = []
        for event in sse(self.answer.body):
            line = event.data.decode("utf-8").strip()
            if not event.framed:
                unframed.append(line)
                continue
            if unframed:
                self.end = None
                yield from self._unframed(unframed, draft)
                unframed = []
            self.end = event.end
            if line == "[DONE]":
                yield None
                return
            if event.kind and _FAILED_KIND.search(event.kind):
                self._refuse(refusals.refusal_event(line), draft)
                return
            if not line:
                continue
            value = self.json(line)
            if not (isinstance(value, dict) and refusals.errorless(value, line)):
                self.no_error(value, draft)
            if draft.cut_call:
                return
            if not isinstance(value, dict):
                raise self.broken(f"an event is a JSON {type(value).__name__}, not an object")
            if not belongs(value):
                self.stray = self.stray or shown(line, 120)
                draft.remarks.append(_STRAY_REMARK)
            yield value
        self.end = None
        yield from self._unframed(unframed, draft)

    def _unframed(self, lines: Sequence[str], draft: Draft) -> Iterator[Mapping[str, Any]]:
        """Yield the chunks among lines without framing, raise the error they are, or remark that they were left out."""
        if not lines:
            return
        for text in ("\n".join(lines), *lines):
            refusal = refusals.refusal_said(text)
            if refusal is not None:
                self._refuse(refusal, draft)
                return
        for texts in (["".join(lines)], lines):
            values = [decoded(text) for text in texts]
            if all(isinstance(value, dict) and "choices" in value for value in values):
                draft.remarks.append(_UNFRAMED_REMARK)
                yield from (mapping(value) for value in values)
                return
        self.stray = self.stray or shown(" ".join(lines), 120)
        draft.remarks.append(_STRAY_REMARK)

    def unfinished(self, problem: str) -> errors.ProtocolError:
        """Return the error of a stream that ended too early, with the line in it that was no part of it, if any."""
        return self.broken(problem + (f", and with a line that is no part of it: {self.stray}" if self.stray else ""))

    def text(self) -> str:
        """Return the body as text; ``ProtocolError`` says where it is not UTF-8."""
        try:
            return self.answer.body.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise self.broken(f"byte {exc.start} of the body is not UTF-8 (0x{exc.object[exc.start]:02x})") from exc

    def json(self, text: str, *, error: str = "") -> object:
        """Return the value of a JSON text; ``ProtocolError`` says where it stops being JSON.

        Where an error takes the place of JSON, or stands behind half of some, it is raised as the error it is.
        ``error`` is the text to look for one in, where it may take more lines than this one.
        """
        try:
            return _DECODER.decode(text)  # what it takes it takes as json does, several times faster
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return self._as_python(text, error)

    def _as_python(self, text: str, error: str) -> object:
        """Return the value of a JSON text with NaN, infinity or half characters; else raise the error it is."""
        try:
            return json.loads(text)
        except RecursionError as exc:
            raise self.broken("its JSON is nested too deeply to be an answer") from exc
        except ValueError as exc:
            if text.lstrip().startswith("<"):
                raise self.broken(refusals.read_refusal(text.encode()).message + " came back") from exc
            begin = text.rfind('{"error"')
            refusal = refusals.refusal_said(text) or (refusals.refusal_in(text[begin:]) if begin > 0 else None)
            refusal = (refusals.refusal_said(error) if error else None) or refusal
            if refusal is not None:
                raise self._refused(refusal, None) from exc
            at = getattr(exc, "pos", None)
            where = f"stops being JSON at character {at} of {len(text)}" if at is not None else "is not JSON"
            raise self.broken(f"the body {where}: {shown(text[-120:])!r} is its end") from exc

    def no_error(self, value: object, draft: Draft | None = None) -> None:
        """Raise the typed error that a 200 answer, or an event of it, holds instead of an answer.

        A tool call that the token limit cut, which Ollama calls an error, becomes the end of the draft instead.
        """
        refusal = refusals.refusal_of(value)
        if refusal is not None:
            self._refuse(refusal, draft)

    def _refuse(self, refusal: Refusal, draft: Draft | None, *, status: int | None = None) -> None:
        cut = refusals.cut_call(refusal) if draft is not None else None
        if draft is None or cut is None:
            raise self._refused(refusal, status)
        name, arguments = cut
        draft.calls.take([{"function": {"name": name, "arguments": arguments}}], whole=True)
        draft.finish = "length"
        draft.remarks.append(_CUT_CALL_REMARK)

    def _refused(self, refusal: Refusal, status: int | None) -> errors.EngineError:
        headers, status = self.answer.headers, refusals.implied_status(refusal) if status is None else status
        return refusals.refused(refusal, status=status, headers=headers, engine=self.engine, case=self.case)


def take(draft: Draft, chunk: Mapping[str, Any], *, streamed: bool = False, end: int | None = None) -> None:
    """Add what one chunk (or a whole answer) in OpenAI's shape holds; ``end`` is where its event ends in the body."""
    draft.model = string(chunk.get("model")) or draft.model
    draft.fingerprint = string(chunk.get("system_fingerprint")) or draft.fingerprint
    choice, further, unread = _choices(chunk, whole=not streamed)
    draft.unread = draft.unread or unread
    for index, other in further:
        take(draft.further.setdefault(index, Draft()), {"choices": [{**other, "index": 0}]}, streamed=streamed)
    if not (_MORE_THAN_TEXT.isdisjoint(chunk) and _MORE_THAN_TEXT.isdisjoint(choice)):
        draft.counts |= tokens.counts(chunk, choice)
        _take_timings(draft, chunk, choice)
    finish = string(choice.get("finish_reason"))
    finish = _FINISH.get(finish.lower(), finish)
    draft.finish = finish or draft.finish
    delta, message = mapping(choice.get("delta")), mapping(choice.get("message"))
    generated = delta or message
    text = _content(generated) or _content(choice)
    thought, calls = _reasoning(generated), _tool_calls(generated)
    if end is not None and (text or thought or calls):
        draft.ends.append((end, bool(text)))
    if streamed and not delta:
        text, thought, calls = _content(choice), "", ()  # a message is the closing one
    if text:
        draft.text.append(text)
    if thought:
        draft.reasoning.append(thought)
    if calls:
        draft.calls.take(calls, whole=not streamed, last=bool(finish))
    if streamed and message:
        draft.closing.append(_content(message))
        draft.closing_reasoning.append(_reasoning(message))
        draft.calls.close(_tool_calls(message))
    logprobs = mapping(choice.get("logprobs"))
    if logprobs and (records := list(tokens.records(logprobs))):
        draft.logprobs.append(records)


def _take_timings(draft: Draft, chunk: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
    """Add how long the server says it took, and what of the prompt it had cached."""
    timings, meta = mapping(chunk.get("timings")), mapping(choice.get("meta_info"))
    times = {**timings, **mapping(chunk.get("metrics"))}
    known = {name: tokens.number(value) for name, value in times.items() if name.endswith("_ms")}
    for holder, names in _SECONDS.items():
        source = meta if holder == "meta_info" else mapping(chunk.get(holder))
        known |= {name: 1000 * s for name in names if (s := tokens.number(source.get(name))) is not None}
    draft.server.update({name: value for name, value in known.items() if value is not None})
    cached = count(timings.get("cache_n", meta.get("cached_tokens")))
    draft.cached = cached if cached is not None else draft.cached


def finished(draft: Draft, reader: Reader) -> Completion:
    """Return the whole answer, text made valid Unicode; ``EmptyAnswer`` when there is nothing in it.

    With several choices it is the first one, without counts of all, and what is empty may be any but that.
    """
    first = _choice(draft, reader)
    if not (draft.further or draft.unread):
        return first
    choices = tuple(_further(draft.further[index], reader) for index in sorted(draft.further))
    own = len(first.logprobs) or None
    return msgspec.structs.replace(
        first, completion_tokens=own, reasoning_tokens=None, counted=first.completion_tokens, choices=choices
    )


def _further(draft: Draft, reader: Reader) -> Completion:
    """Return a choice behind the first one, without token records: how many there were is its count."""
    try:
        choice = _choice(draft, reader)
    except errors.EmptyAnswer as error:
        return Completion(text="", finish_reason=error.finish, completion_tokens=error.tokens)
    tokens = choice.completion_tokens if choice.completion_tokens is not None else len(choice.logprobs) or None
    return msgspec.structs.replace(choice, completion_tokens=tokens, logprobs=(), token_ends=())


def _choice(draft: Draft, reader: Reader) -> Completion:
    """Return one choice, text made valid Unicode; ``EmptyAnswer`` when there is nothing in it."""
    spoken, thought = join_text(draft.text, draft.closing), join_text(draft.reasoning, draft.closing_reasoning)
    split = thinking.split(spoken.text)
    text, reasoning = valid(split.text), valid(_both(thought.text, split.reasoning))
    assembled = draft.calls.finished()
    calls = tuple(ToolCall(name=valid(name), arguments=valid(given), id=valid(id)) for name, given, id in assembled)
    remarks = [*draft.remarks, spoken.remark, thought.remark, *draft.calls.remarks]
    if split.tag:
        remarks.append(f"inline {split.tag} moved to reasoning")
    if _replaced(spoken.text, thought.text, *(part for name, given, _ in assembled for part in (name, given))):
        remarks.append("lone surrogate replaced")
    if draft.finish.lower() in _BROKEN_OFF:
        raise reader.aborted(draft.finish)
    cached = draft.counts.get("cached")
    answer = Completion(
        text=text,
        reasoning=reasoning,
        tool_calls=calls,
        finish_reason=valid(draft.finish),
        prompt_tokens=draft.counts.get("prompt"),
        completion_tokens=draft.counts.get("completion"),
        reasoning_tokens=draft.counts.get("reasoning"),
        cached_tokens=draft.cached if cached is None else cached,
        logprobs=tokens.spelling(draft.logprobs, split.text, whole="".join(draft.text)),
        model=valid(draft.model),
        fingerprint=valid(draft.fingerprint),
        server=draft.server,
        normalised=tuple(dict.fromkeys(remark for remark in remarks if remark)),
        token_ends=_ends(draft, spoken.used),
    )
    if not (text or reasoning or calls):
        raise reader.empty(answer)
    return answer


def _ends(draft: Draft, used: int) -> tuple[int, ...]:
    """Return where events with tokens end, but of a last one that repeats the text, of which ``used`` pieces count."""
    pieces = sum(map(bool, (*draft.text, *draft.closing)))
    last = -1 if draft.ends and draft.ends[-1][1] and used < pieces else None
    return tuple(end for end, _ in draft.ends[:last])


def _both(channel: str, inline: str) -> str:
    """Return reasoning from its own field and from the text: some servers send the same in both."""
    if not inline.strip() or inline.strip() == channel.strip():
        return channel or inline
    return f"{channel}\n{inline}" if channel else inline


def _replaced(*texts: str) -> bool:
    return any(valid(text).count("\ufffd") > text.count("\ufffd") for text in texts)


def _choices(
    chunk: Mapping[str, Any], *, whole: bool
) -> tuple[Mapping[str, Any], Sequence[tuple[int, Mapping[str, Any]]], bool]:
    """Return the first choice, empty where a chunk has nothing of it, and the others with their index.

    One without an index has that of its place in the list, and so have all of a whole answer where two say the same.
    The last value is whether some were left out because nothing tells them from the first.
    """
    listed = sequence(chunk.get("choices"))
    if len(listed) == 1 and isinstance(listed[0], dict) and not listed[0].get("index"):
        return listed[0], (), False  # nearly every chunk
    placed = [(place, choice) for place, choice in enumerate(listed) if isinstance(choice, dict)]
    known = [(place if (told := choice.get("index")) is None else count(told), choice) for place, choice in placed]
    indices = [index for index, _ in known]
    if whole and (None in indices or len(set(indices)) < len(indices)):
        known = [*placed]
    first = [choice for index, choice in known if index == 0 and choice]
    further = [(index, choice) for index, choice in known if index]
    return first[0] if first else {}, further, len(first) > 1 or any(index is None for index, _ in known)


def _content(part: Mapping[str, Any]) -> str:
    """Return the visible text of a delta, message or raw completion choice (a string, or a list of text parts)."""
    content = part.get("content", part.get("text"))
    if isinstance(content, str) and (content or not part.get("refusal")):
        return content
    # A model that will not answer says so in a field of its own on OpenAI's route.
    return "".join(string(mapping(piece).get("text")) for piece in sequence(content)) or string(part.get("refusal"))


def _reasoning(part: Mapping[str, Any]) -> str:
    """Return the reasoning of a delta or message, under any of its names, or of the content's parts (Mistral)."""
    for name in _REASONING:
        if name in part and (text := string(part[name])):
            return text
    content = part.get("content")
    if not isinstance(content, list):
        return ""
    thoughts = [piece.get("thinking") for piece in mappings(content)]
    return "".join(string(t) or "".join(string(piece.get("text")) for piece in mappings(t)) for t in thoughts)


def _tool_calls(part: Mapping[str, Any]) -> Sequence[Any]:
    """Return the tool calls of a delta or message; the one call of OpenAI's first API for them counts as one."""
    if "tool_calls" not in part and "function_call" not in part:
        return ()
    calls, single = part.get("tool_calls"), mapping(part.get("function_call"))
    if isinstance(calls, dict) and calls:  # one call instead of a list, or calls by their index
        return [calls] if "function" in calls or "name" in calls else list(calls.values())
    return sequence(calls) or ([{"index": 0, "function": single}] if single else ())
