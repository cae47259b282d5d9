"""What is asked, what came back and where it came from: plain values, finite numbers, no behaviour.

Times are seconds (``float``) unless a name ends in ``_ns``. Everything here turns into JSON and back
(:func:`to_json`, :func:`from_json`), because it crosses process borders and the store.
"""

from __future__ import annotations

import enum
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec

T = TypeVar("T")

JsonValue: TypeAlias = "str | int | float | bool | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
JsonObject: TypeAlias = "dict[str, JsonValue]"
"""JSON that we build. What others wrote is decoded into ``Any``, and checked where it is read."""


class Phase(enum.StrEnum):
    """Which part of a run a sample belongs to.

    ``MAIN`` is judged. ``COLD``, ``WARM`` and ``PARALLEL`` repeat some of its cases to measure the noise floor.
    ``TIMED`` is the only phase whose timings are evidence for latency.
    """

    COLD = "cold"
    MAIN = "main"
    WARM = "warm"
    PARALLEL = "parallel"
    TIMED = "timed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Sampling parameters, always sent explicitly. The defaults are greedy and neutral.

    ``top_k`` 0 means off, ``min_p`` 0 off, ``repetition_penalty`` 1 off, ``seed`` ``None`` means: send none.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = 0
    stop: tuple[str, ...] = ()


NEUTRAL = {
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""Values that change nothing: an adapter that proves its engine's default neutral may leave these out."""
UNSENT = {"dry_multiplier": 0, "dynatemp_range": 0, "typical_p": 1, "xtc_probability": 0}
"""Values that turn off samplers which change greedy answers too and which no request says anything of: where a server
has another default, that acts. As ``sampling_defaults`` names them.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One prompt as a test declares it, before any engine's own words for it.

    Exactly one of ``messages`` (chat) and ``prompt`` (raw text) is set. ``messages``, ``tools`` and
    ``response_format`` are JSON values in OpenAI's shape. ``top_logprobs`` 0 asks for the chosen token only,
    ``None`` for no logprobs. ``extra_body`` are further fields of the body, sent as they are whatever the engine.
    ``thinking`` holds what is said of reasoning: ``reasoning_effort`` and ``chat_template_kwargs``, which each kind of
    engine has its own words for. ``streamed`` says whether the answer comes as a stream, ``None`` that it may come as
    whoever asks likes. With ``tool_results`` it begins a conversation (``core.prompts.script``), in which the engine
    gives at most ``max_turns`` answers. ``attached`` are bytes that ``messages`` have the sha256
    of (``core.prompts.parts``). ``n`` is how many choices it asks for in one answer, 0 and 1: one.
    """

    case: str
    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    tools: Sequence[Mapping[str, Any]] | None = None
    tool_choice: Any = None
    response_format: Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    thinking: Mapping[str, Any] = field(default_factory=dict)
    streamed: bool | None = None
    tool_results: Mapping[str, Any] = field(default_factory=dict)
    max_turns: int = 0
    attached: Mapping[str, bytes] = field(default_factory=dict)
    n: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WireRequest:
    """A request in one engine's words: what is written to the socket, and what was knowingly left out of it.

    ``sha256`` is the hex digest of ``body``. ``omitted`` names sampling fields left out because the adapter
    proves the engine's default neutral. ``max_tokens`` is the limit the request sets, ``answer_bytes`` the longest body
    that can be an answer to it (``core.sizes``); ``None`` where nobody noted them. ``begins`` is the request it was
    made of where that begins a conversation: ``sha256`` is then of what its tools return too, ``streamed`` is said.
    """

    path: str
    body: bytes
    sha256: str
    omitted: tuple[str, ...] = ()
    method: str = "POST"
    max_tokens: int | None = None
    answer_bytes: int | None = None
    begins: Request | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call of a function as the model wrote it; ``arguments`` is the raw JSON text."""

    name: str
    arguments: str
    id: str = ""


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """Why a conversation ended before its engine answered in words.

    ``no result``: the case has no result for a call. ``broken call``: arguments that are no JSON object, with which no
    tool can be called. ``no end``: it called on after as many turns as it may have. ``no words``: it was given results
    and said nothing. ``words`` say more.
    """

    kind: Literal["no result", "broken call", "no end", "no words"]
    words: str


class ApplicationCall(msgspec.Struct, frozen=True, kw_only=True):
    """One request that an application sent its engine while it ran, and the answer; ``status`` 0 where none came.

    ``request`` is its JSON without the model's name, ``answer`` what was said (``core.values.calls``); no header is
    kept.
    """

    path: str
    request: str
    status: int
    answer: str


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    """One generated token: its bytes (lossless), natural-log probability and the alternatives seen there.

    ``logprob`` is ``None`` where the engine sent its sentinel for "unknown" (vLLM -9999, llama.cpp -3.4e38) or NaN.
    ``top`` pairs alternatives' bytes with their logprobs, best first. ``id`` is the engine's token id if it says so.
    """

    token: bytes
    logprob: float | None
    top: tuple[tuple[bytes, float], ...] = ()
    id: int | None = None


class LateTokens(Sequence[TokenLogprob]):
    """Token records whose spelling is known and whose probabilities are read when somebody asks for them.

    A run holds hundreds of thousands of them, and what compares texts asks for those at a fork. ``spelled`` are the
    bytes of all tokens in a row, ``ends`` the place in them where each token ends.
    """

    spelled: bytes
    ends: Sequence[int]

    def __len__(self) -> int:
        return len(self.ends)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # as a list has none


if typing.TYPE_CHECKING:
    TokenRecords = Sequence[TokenLogprob]
else:
    TokenRecords = tuple[TokenLogprob, ...]  # as which JSON is read


MOVED: Final = "moved to reasoning"
"""How the reader's remark ends where a server left reasoning in the text (``Completion.normalised``)."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, normalised: same fields whatever the engine.

    ``reasoning`` never mixes with ``text``. ``finish_reason`` is ``stop``, ``length``, ``tool_calls`` or what the
    engine said; an answer that was broken off (``abort``) is a failure instead. Token counts are the server's, ``None``
    where it sent none, or 0: a prompt has tokens. ``completion_tokens`` includes ``reasoning_tokens``. ``server`` holds
    the engine's own timings in milliseconds under their original names.
    ``normalised`` names what the adapter changed in the text. ``max_tokens`` is the limit the request set, ``None``
    where it is not known (answers stored by an older version). ``token_ends`` are the offsets in the body of a streamed
    answer at which events that carry generated tokens end; they time an answer that was just read and are not kept.
    ``calls`` are those an application made whose value this is, ``None`` of an engine's own answer.

    In a conversation with scripted tools it is the last answer: ``turns`` are those before it, in their order, each
    with the ``results`` that its calls were given, and ``stopped`` says why there are no words, if there are none.

    Where a server gave several choices it is the first one: ``choices`` are the others in the order of their index,
    without token records. What a server then counts may be the first choice or all of them, so that number is
    ``counted``, and ``completion_tokens`` are those of this choice where its token records tell them.
    """

    text: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    logprobs: TokenRecords = ()
    model: str = ""
    fingerprint: str = ""
    server: Mapping[str, float] = msgspec.field(default_factory=dict)
    normalised: tuple[str, ...] = ()
    max_tokens: int | None = None
    token_ends: tuple[int, ...] = ()
    calls: tuple[ApplicationCall, ...] | None = None
    turns: tuple[Completion, ...] = ()
    results: tuple[str, ...] = ()
    stopped: Stopped | None = None
    choices: tuple[Completion, ...] = ()
    counted: int | None = None

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Completion):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in _COMPARED)

    __hash__ = None  # type: ignore[assignment]  # as a dictionary, which it holds, has none

    @property
    def conversation(self) -> tuple[Completion, ...]:
        """All answers of a conversation in their order, the last one included; of any other answer itself."""
        return (*self.turns, self)

    @property
    def cut(self) -> bool:
        """Tell whether the token limit ended the answer, so that nothing is known of what would have followed.

        The finish reason ``length`` says so, and so does an answer with as many tokens as the request allowed, whatever
        its finish reason: servers are known that call every end a stop (LocalAI issue 3533, ``transformers serve``
        before its pull request 42157). Tokens are the server's count, else the token records that came with the text.
        """
        if self.finish_reason == "length":
            return True
        tokens = len(self.logprobs) if self.completion_tokens is None else self.completion_tokens
        return self.max_tokens is not None and tokens >= self.max_tokens


TORN: Final = "\ufffd"
"""What servers show for a piece of a character."""


def limited_lower(answer: Completion, than: Completion) -> bool:
    """Whether an answer was cut at a lower limit than another one has, as those of a noise floor are."""
    if answer.max_tokens is None or than.max_tokens is None:
        return False
    return answer.cut and answer.max_tokens < than.max_tokens


def in_memory(answer: Completion) -> Completion:
    """Return the answer with its token records read, wherever they were."""
    return msgspec.structs.replace(answer, logprobs=tuple(answer.logprobs))


_COMPARED: Final = tuple(name for name in Completion.__struct_fields__ if name != "token_ends")

CORRESPOND: Final = 1.25
"""How many tokens an event may hold on average, or events a token may take, for a time per token to be known: room for
characters of several tokens and for words that a detokeniser holds back. One token more may be the end's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When the parts of one streamed answer arrived, in seconds since the request's first byte was written.

    ``ttft_s``: first token of any channel (text, reasoning, tool call). ``tpot_s``: (last - first token) per further
    token, by the server's token count, ``None`` unless events and tokens correspond. ``gaps_s``: between reads that
    carried tokens. ``token_events`` carried ``tokens``, the server's count of what it streamed. ``merged_first``: the
    first token shared its read with later ones, so ``ttft_s`` is an upper bound. ``clock`` is ``kernel`` or ``user``.
    ``lag_s`` is the worst lag of our own process behind the kernel's stamp (0 with the user clock).
    ``block`` is the A/B block the request ran in (timed phase), -1 elsewhere. ``load`` counts how often the engine had
    been loaded for the timed phase before, -1 where it stayed in memory. ``met_load``: the server loaded a model
    meanwhile, so these are not the times of an answer.
    """

    ttfb_s: float
    ttft_s: float | None
    e2e_s: float
    tpot_s: float | None = None
    gaps_s: tuple[float, ...] = ()
    merged_first: bool = False
    merged_reads: int = 0
    token_events: int = 0
    tokens: int | None = None
    clock: str = "user"
    lag_s: float = 0.0
    block: int = -1
    load: int = -1
    met_load: bool = False

    @property
    def corresponds(self) -> bool:
        """Tell whether there were about as many events with tokens as tokens; also where one of them is not known.

        Reasoning that is counted and not sent, a parser that holds tokens back and many tokens in one event make it
        false: the time between two events says nothing of the time a token takes then.
        """
        if self.tokens is None or not self.token_events:
            return True
        return self.tokens - 1 <= CORRESPOND * self.token_events and self.token_events - 1 <= CORRESPOND * self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why there is no answer: the error's class name in ``core.errors``, its text and what HTTP said."""

    kind: str
    message: str
    status: int | None = None


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One answer (or failure) with its provenance. Exactly one of ``completion`` and ``failure`` is set.

    ``request_sha256`` names the case's own request. ``prefix`` is the text that stood before its first message where
    it was timed behind one, so that no prefix cache could hold it; empty elsewhere.
    """

    engine: str
    case: str
    phase: Phase
    repeat: int = 0
    concurrency: int = 1
    request_sha256: str = ""
    completion: Completion | None = None
    failure: Failure | None = None
    timing: Timing | None = None
    attempts: int = 1
    omitted: tuple[str, ...] = ()
    prefix: str = ""


Source = typing.Literal["reported", "file", "declared", "probed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing known about an engine.

    ``source``: ``reported`` by the server, from a ``file``, ``declared`` by the configuration, or ``probed``: found out
    by what the server does.
    """

    value: str | int | float | bool
    source: Source
    raw: str = ""


SEVERAL = "2 or more"
"""The value of ``slots`` where a probe saw two requests answered at once; how many more would be is not known."""

IDENTITY: Mapping[str, str] = {
    "kind": "the engine's kind",
    "version": "the engine's release",
    "build": "its build, as finely as it says",
    "image_digest": "sha256 of the image its container was started from",
    "configuration": "the server's own fingerprint of what it was started with, the path of its model among it",
    "model": "the name it serves the model under",
    "revision": "the commit of the model's repository",
    "digest": "sha256 of the weights: what the server says, else of the file, or of what sha256sum prints of several",
    "quantization": "the normalised name: Q4_K_M, F16, BF16, AWQ, FP8, MLX_4BIT, …",
    "bits_per_weight": "stored bits per weight, scales counted",
    "tensor_types": "how many tensors of which type, such as F32:9 Q4_K:24 Q6_K:5: survives a rewritten file",
    "format": "gguf, safetensors, mlx",
    "context_length": "what one request gets, in tokens",
    "slots": "requests answered at once",
    "kv_cache": "type of the key-value cache",
    "template_sha256": "sha256 of the chat template's text without trailing newlines",
    "template_path": "who renders the prompt where a server has several ways: jinja, go-template, renderer:NAME",
    "tokenizer_sha256": "sha256 of the vocabulary in order of ids",
    "sampling_defaults": "what the server samples with when a request does not say, as sorted JSON",
    "device": "GPUs and their driver, the CPU's model and its vector extensions",
    "attention": "the attention backend",
    "adapters": "the LoRA adapters that answers are made with, with their ranks and scales, or none",
    "speculative": "speculative decoding: the method or draft model and how many tokens it drafts, or off",
    "tensor_parallel": "how many GPUs each layer is split over",
    "pipeline_parallel": "how many parts the layers are dealt to",
    "prefix_cache": "whether what was computed for earlier prompts is used again: on or off",
    "chunked_prefill": "whether long prompts are computed in pieces, beside answers of others: on or off",
    "upstream": "the model and address a proxy passes requests on to, as its own configuration says",
    "recognised": "what a server attached to as openai looks like",
}
"""Field names of an identity and what they mean; each of them but ``kind`` and ``recognised`` can be pinned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What is known about the server behind a name: :data:`IDENTITY` names the fields. Missing means unknown."""

    facts: Mapping[str, Fact] = field(default_factory=dict)

    def get(self, name: str) -> str | int | float | bool | None:
        """Return the value of one field, ``None`` when it is not known."""
        fact = self.facts.get(name)
        return None if fact is None else fact.value


def to_json(value: object) -> Any:
    """Turn a value of this module (or any frozen dataclass of ours) into builtins that JSON has; bytes stay bytes."""
    return msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=_plain)


def from_json(kind: type[T], content: Mapping[str, Any]) -> T:
    """Rebuild a dataclass of ours from what :func:`to_json` made; unknown keys are ignored, so old rows still read."""
    return msgspec.convert(content, kind, builtin_types=(bytes,))


def _plain(value: object) -> object:
    """Return what msgspec does not know as something that it does: views of mappings, numbers of numpy, paths."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, float):
        return float(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no form in JSON")
