"""What a server's refusal means: any of the error shapes in use becomes one typed error that names engine and case.

Shapes seen: ``{"error": {"message", "type", "code", "param"}}`` (OpenAI, vLLM, llama.cpp), the same flat (SGLang),
``{"error": text}`` (Ollama, mlx-lm), ``{"error", "error_type"}`` (TGI), ``{"detail": text | [{"msg", "loc"}]}``
(FastAPI), in a list (Google), inside a choice (OpenRouter), an HTML page of a proxy, or plain text. A server in front
of another one may pass that one's error on as JSON in the text of its own message (Ollama before its llama-server,
LiteLLM). Whatever comes under a status of 200 is told from an answer here, in one place, for every route.
"""

from __future__ import annotations

import datetime as dt
import email.utils
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from pytest_llmparity.core import errors
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.engines.facts.values import decoded, string

SHOWN_CHARS: Final = 300
"""How much of a server's own words an error message repeats."""

LINE_CHARS: Final = 600
"""A text without any form is an error by its words only where it is no longer: pages of metrics name limits too."""

_OVERFLOW: Final = re.compile(
    r"exceed_context_size|context_length_exceeded|ContextWindowExceeded|max_model_len|max_seq_len|max_input_len"
    r"|maximum context length|context length is only|context overflow|reached (the )?context"
    r"|exceed\w*[^.]{0,80}\b(context|sequence length|input length|input token count)"
    r"|(input|prompt|token)s?\b[^.]{0,60}\bexceed\w*[^.]{0,60}(allowed length|tokens allowed|limit of \d+ tokens)"
    r"|(longer|larger|bigger|greater) than [^.]{0,40}\b(context|model length|sequence length)"
    r"|too (long|large|big) for [^.]{0,40}\bcontext|too big compared to kv size"
    r"|\b(input|prompt|conversation) (is )?too long|input tokens?[^.]{0,40}too many"
    r"|must have less than \d+ tokens|`inputs` tokens \+ `max_new_tokens` must be"
    r"|when context the overflows|context (size|window|length|limit) (has been |was |is )?exceeded"
    r"|reduce the length of (the|your) (input|prompt|message|conversation)",
    re.IGNORECASE,
)
"""How servers say that a prompt does not fit: OpenAI, vLLM, SGLang, TGI, llama.cpp (also as Ollama passes it on),
LM Studio, LiteLLM, Anthropic's and Google's APIs, TabbyAPI, TensorRT-LLM; each is held by a test."""
_UNSUPPORTED: Final = re.compile(
    r"unsupported|not supported|does not support|unrecogni[sz]ed|unknown (field|parameter|argument|option)"
    r"|extra_forbidden|extra (inputs|fields)|unexpected (keys|fields|parameter)|is not allowed|is not implemented",
    re.IGNORECASE,
)
NO_MEDIA: Final = re.compile(
    r"(image|audio|video)s? (input|content)s? (is|are) not supported|is not a multimodal model"
    r"|only 'text' content type|not support (image|audio|vision|multimodal)|at most 0 (image|audio|video)",
    re.IGNORECASE,
)
"""How servers say that a model reads text alone: llama.cpp (a 500, also as Ollama and LiteLLM pass it on), vLLM,
mlx-lm (a 404)."""
_WORDS: Final = (
    *("message", "Message", "msg", "error_msg", "error_message", "errorMessage", "reason", "faultstring", "detail"),
)
"""Where errors have their words."""
_MAYBE_WORDS: Final = ("error", "text", "title", "status_msg", "body")
"""Where an object that is known to be an error may have them."""
_DEAD: Final = re.compile(r"EngineDeadError|engine (core )?(is dead|has died|died|encountered)", re.IGNORECASE)
_FAILED: Final = re.compile(
    r"^\W{0,3}(internal server |upstream |backend |server |fatal |runtime |api |http )*(error|exception|failure)\b"
    r"|^\w*(error|exception)\b\s*[:(]|^traceback \(most recent call last\)"
    r"|^(bad gateway|service unavailable|gateway time-?out)|^upstream (connect|request|timed)"
    r"|^no healthy upstream|^(http\W{0,3})?[45]\d\d\b",
    re.IGNORECASE,
)
"""How a line of text begins that a proxy or a framework wrote because something failed."""
_CUT_CALL: Final = re.compile(
    r'invalid tool call arguments for "(?P<name>[^"]*)": unexpected end of JSON input'
    r"|error parsing tool call: raw='(?P<raw>.*)', err=unexpected end of JSON input",
    re.DOTALL,
)
_NO_ROUTE: Final = re.compile(
    r"^((not found|file not found|404( page)? not found)\.?$|unexpected endpoint or method)", re.IGNORECASE
)
_STATUS: Final = {
    "validation": 422,
    "template_error": 422,
    "missing_template_variable": 422,
    "tool_error": 422,
    "overloaded": 429,
    "generation": 424,
    "invalid_request_error": 400,
    "badrequesterror": 400,
    "not_found_error": 404,
    "authentication_error": 401,
    "permission_error": 403,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "model_not_found": 404,
    "invalid_api_key": 401,
    "overloaded_error": 429,
    "unavailable_error": 503,
}
"""What a type of error (TGI's, OpenAI's) means as a status, for errors inside an answer that began with 200."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A server's error in one shape; empty fields were not sent. ``status`` is the one in the body, if any."""

    message: str
    type: str = ""
    param: str = ""
    status: int | None = None


def shown(text: str, limit: int = SHOWN_CHARS) -> str:
    r"""Return a server's text for a message: one line, control characters escaped, at most ``limit`` characters.

    >>> shown("a\x1b[2Jb\n c")
    'a\\x1b[2Jb c'
    """
    line = " ".join(text[: 4 * limit].split())
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in line)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def read_refusal(body: bytes) -> Refusal:
    """Read the body of an error answer, whatever its shape; never raises."""
    text = body[: 256 * 1024].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return Refusal(message="an HTML page" + (f" titled “{title[1]}”" if title else "") + ", not an API's answer")
    value = decoded(text)
    return (refusal_in(text) if value is None else refusal_of(value)) or Refusal(message=text)


def refusal_of(value: object, *, depth: int = 4) -> Refusal | None:
    """Return the error a decoded JSON value holds, ``None`` when it is not an error.

    A value with ``choices`` is an answer unless it holds an ``error`` too (the chunk's own or a choice's). Errors
    inside errors are followed ``depth`` levels down: a list, the JSON text of a message, an object in place of words.
    """
    if depth == 0:
        return None
    if isinstance(value, str):
        return refusal_said(value)
    if isinstance(value, list):
        return next((refusal for part in value if (refusal := refusal_of(part, depth=depth - 1)) is not None), None)
    if not isinstance(value, dict):
        return None
    choices = value.get("choices")
    if isinstance(choices, list) and choices:
        # OpenRouter writes a failure in the middle of an answer into its choice.
        held = [choice for choice in choices if isinstance(choice, dict)]
        held += [part for choice in held for name in ("delta", "message") if isinstance(part := choice.get(name), dict)]
        for part in (value, *held):
            if "error" in part and _meant(part["error"]):
                return _held(part["error"], part, depth)
        return _flat(value) if value.get("object") == "error" else None
    for name in ("error", "errors", "exception", "fault", "err", "Error"):
        if _meant(value.get(name)):
            return _held(value[name], value, depth)
    response = value.get("response")  # of an event of the Responses route
    if value.get("type") == "response.failed" and isinstance(response, dict):
        return refusal_of(response, depth=depth - 1) or _flat(response)
    says = any(isinstance(value.get(name), str) and value[name] for name in _WORDS if name != "detail")
    if "error" in (value.get("object"), value.get("type"), value.get("status")) or says:
        return _passed_on(_flat(value), depth)
    return _detailed(value, depth) or _by_number(value)


def errorless(value: Mapping[str, object], text: str) -> bool:
    """Tell of an object, and the JSON text it was read from, whether :func:`refusal_of` need not look for an error.

    That is so of an answer whose text does not have the word, nor a letter that may be one of it in disguise.
    """
    choices = value.get("choices")
    return isinstance(choices, list) and bool(choices) and "error" not in text and "\\u00" not in text


def _by_number(value: Mapping[str, object]) -> Refusal | None:
    """Return the error of an object that says so by a number or a flag alone, in whatever words it has."""
    result = value.get("base_resp")  # MiniMax's, in every answer
    if isinstance(result, Mapping) and result.get("status_code"):
        return _flat(result)
    # FastChat's error_code is one of its own (50001); a success of false is anybody's.
    if _status(value) is not None or value.get("error_code") or value.get("success") is False:
        return _flat(value)
    return None


def _meant(error: object) -> bool:
    """Tell whether what stands under the name of an error is one: some servers write an empty one into every answer."""
    return any(error.values()) if isinstance(error, Mapping) else bool(error)


def refusal_in(text: str, *, depth: int = 4) -> Refusal | None:
    """Return the error that a text holds as JSON, at its start or after other words; ``None`` where there is none.

    What stands before it (*upstream said 400:*) is left out, because the error says as much. Behind other words only
    what calls itself an error is taken for one: servers quote requests in their messages.
    """
    decoder = json.JSONDecoder()
    # An opening brace before a quote: inside a JSON string the quote would have a backslash before it.
    for place in itertools.islice(re.finditer(r'[{\[]\s*["{]|^\s*"', text), 20):
        try:
            value, _ = decoder.raw_decode(text, place.end() - 1 if text[place.start()] not in "{[" else place.start())
        except (ValueError, RecursionError):
            continue
        named = isinstance(value, Mapping) and (
            value.get("error") or "error" in (value.get("object"), value.get("type"))
        )
        if place.start() > 0 and not named:
            continue
        refusal = refusal_of(value, depth=depth - 1)
        if refusal is not None:
            return refusal
    return None


def refusal_said(text: str) -> Refusal | None:
    """Return the error that a text outside an answer's framing is: JSON of any shape, or words that only errors have.

    ``None`` for words that could be anything.
    """
    text = text.strip()
    if re.match(r"<(!doctype|html|\?xml)", text, re.IGNORECASE):
        return read_refusal(text.encode("utf-8", "replace"))
    # llama.cpp's servers before 2025 wrote errors as a field of the stream, named "error".
    bare = re.sub(r"^(event:\s*)?error:\s*(?=[{\[])", "", text, flags=re.IGNORECASE)
    value = decoded(bare)
    refusal = refusal_in(bare) if value is None else refusal_of(value)
    if refusal is None and bare != text and isinstance(value, Mapping):
        refusal = _flat(value)
    words = "" if re.match(r'[{\[]\s*["{\]}]', text) else text
    if refusal is None and (_FAILED.match(words) or (len(words) <= LINE_CHARS and _OVERFLOW.search(words))):
        refusal = Refusal(message=text)
    return refusal


def refusal_event(text: str) -> Refusal:
    """Return the error of an event that says it is one, whatever it holds."""
    value = decoded(text)
    return refusal_said(text) or (_flat(value) if isinstance(value, Mapping) else Refusal(message=text))


def _held(error: object, around: Mapping[str, object], depth: int) -> Refusal:
    """Return the error in a field of that name; what stands beside it says more where the field itself is no object."""
    if isinstance(error, Mapping):
        return _passed_on(_flat(error), depth)
    beside = _flat(around)
    if isinstance(error, str):
        # {"statusCode": 400, "error": "Bad Request", "message": "…"} has its words in the second.
        words = f"{error}: {around['message']}" if isinstance(around.get("message"), str) else error
        kind = string(around.get("error_type")) or beside.type
        return _passed_on(Refusal(message=words, type=kind, param=beside.param, status=beside.status), depth)
    if isinstance(error, list):
        inner = refusal_of(error, depth=depth - 1)
        return inner or Refusal(message="; ".join(str(part) for part in error), status=beside.status)
    return _passed_on(beside, depth)


def _detailed(value: Mapping[str, object], depth: int) -> Refusal | None:
    """Return the error of FastAPI's ``detail``: a text, a list of what is wrong with fields, or an error of its own."""
    detail = value.get("detail")
    status = _status(value)
    if isinstance(detail, str) and detail:
        return _passed_on(Refusal(message=detail, status=status), depth)
    if isinstance(detail, Mapping):
        return refusal_of(detail, depth=depth - 1) or Refusal(message=json.dumps(detail, default=str), status=status)
    if isinstance(detail, list) and detail:
        parts = [part for part in detail if isinstance(part, Mapping)]
        where = [".".join(str(step) for step in part["loc"]) for part in parts if isinstance(part.get("loc"), list)]
        words = "; ".join(string(part.get("msg")) for part in parts) or "; ".join(str(part) for part in detail)
        kinds = " ".join(string(part.get("type")) for part in parts)
        return Refusal(message=words, type=kinds, param=", ".join(where), status=status)
    return None


def _passed_on(outer: Refusal, depth: int) -> Refusal:
    """Return the error inside an error: the words, type and status of the server behind, where the message has JSON."""
    inner = refusal_in(outer.message, depth=depth) if depth > 1 else None
    if inner is None:
        return outer
    kinds = " ".join(kind for kind in (outer.type, inner.type) if kind)
    return Refusal(
        message=inner.message, type=kinds, param=inner.param or outer.param, status=outer.status or inner.status
    )


def _flat(error: Mapping[str, object]) -> Refusal:
    kinds = [string(error.get("type")), string(error.get("error_type")), string(error.get("code"))]
    words = next((text for name in (*_WORDS, *_MAYBE_WORDS) if (text := string(error.get(name)))), "")
    return Refusal(
        message=words or json.dumps(dict(error), default=str),
        type=" ".join(kind for kind in kinds if kind and not kind.isdecimal()),
        param=string(error.get("param")),
        status=_status(error),
    )


def _status(error: Mapping[str, object]) -> int | None:
    """Return the HTTP status an error names, as a number or a text, under any of the names in use."""
    for name in ("code", "status", "statusCode", "status_code", "http_status", "error"):
        code = error.get(name)
        if isinstance(code, str) and code.isdecimal() and len(code) == 3:
            code = int(code)
        if isinstance(code, int) and not isinstance(code, bool) and 400 <= code <= 599:
            return code
    return None


def cut_call(refusal: Refusal) -> tuple[str, str] | None:
    """Return name and arguments so far of the tool call that a token limit cut, where an error says no more than that.

    Ollama parses a call's arguments itself and answers 500 to those that end too early (seen with v0.33.0 on both
    routes, streamed or not; before v0.30 in its own parsers' words), where other servers say ``length``.
    """
    cut = _CUT_CALL.search(refusal.message)
    return None if cut is None else (cut["name"] or "", cut["raw"] or "")


def refused(
    refusal: Refusal,
    *,
    status: int,
    headers: Mapping[str, str],
    engine: str,
    case: str | None,
    meaning: Meaning | None = None,
) -> errors.EngineError:
    """Return the typed error for a refusal; ``status`` is HTTP's, or the body's where HTTP said 200.

    What it means is what its status and words say, where ``meaning`` does not say otherwise.
    """
    kind, advice = _classify(refusal, status) if meaning is None else (meaning.error, meaning.advice)
    words = shown(refusal.message).rstrip(".") or "nothing"
    extra = f" (field {shown(refusal.param, 80)})" if refusal.param else ""
    about = f" case {case!r}" if case else ""
    return kind(
        f"{engine} answered {status} to{about or ' a request'}: {words}{extra}. {advice}",
        engine=engine,
        case=case,
        status=status,
        retry_after_s=retry_after(headers),
    )


class Meaning(NamedTuple):
    """What a refusal means whose words say it (``says`` is searched in them) and whose status says something else."""

    status: int
    says: re.Pattern[str]
    error: type[errors.EngineError]
    advice: str


def meant(answer: Answer, meanings: Sequence[Meaning], *, engine: str, case: str | None) -> None:
    """Raise the error that one of the meanings makes of a refusal; nothing where none fits."""
    fitting = [meaning for meaning in meanings if meaning.status == answer.status]
    refusal = read_refusal(answer.body) if fitting else Refusal(message="")
    for meaning in fitting:
        if meaning.says.search(refusal.message):
            status, headers = answer.status, answer.headers
            raise refused(refusal, status=status, headers=headers, engine=engine, case=case, meaning=meaning)


def implied_status(refusal: Refusal) -> int:
    """Return the HTTP status an error inside a 200 answer stands for: the one it names, else by its type or words."""
    if refusal.status is not None:
        return refusal.status
    if _OVERFLOW.search(f"{refusal.type} {refusal.message}"):
        return 400
    if _NO_ROUTE.match(refusal.message):
        return 404
    return _STATUS.get(refusal.type.partition(" ")[0].lower(), 500)


def _classify(refusal: Refusal, status: int) -> tuple[type[errors.EngineError], str]:
    words = f"{refusal.type} {refusal.message}"
    if 300 <= status < 400:
        return errors.ProtocolError, "Redirects are not followed: give the address it redirects to as base_url."
    if status in (401, 403):
        return errors.NotAuthorised, "Set the variable named by api_key_env to a key this server accepts."
    # Also under a 5xx: a front end makes one of whatever the server behind it says.
    if status >= 400 and status != 429 and _OVERFLOW.search(words):
        return errors.ContextOverflow, "Raise context_length, shorten the prompt or lower max_tokens."
    if status >= 400 and NO_MEDIA.search(words):
        return (
            errors.UnsupportedParameter,
            "Leave these parts out, or compare on an engine that reads them.",
        )
    if status == 404:
        return _not_found(refusal)
    if status in (400, 413, 422):
        if _UNSUPPORTED.search(words):
            return (
                errors.UnsupportedParameter,
                "Leave this parameter out of the case, or compare on an engine that has it.",
            )
        return errors.BadRequest, "The request was refused as it is; asking again will not help."
    if status >= 500 and _DEAD.search(words):
        return errors.EngineDied, "Its log says why it died."
    if status in (429, 503):
        return errors.Overloaded, "It is busy or still loading: lower the concurrency, or wait until it is ready."
    if status == 408:
        return errors.Timeout, "The server gave up waiting; raise its own timeout."
    if status >= 500 or status == 424:
        return errors.ServerFailure, "The server failed while answering; its log says why."
    return errors.AnswerError, "This status is not one an inference server gives: check base_url."


def _not_found(refusal: Refusal) -> tuple[type[errors.EngineError], str]:
    if _NO_ROUTE.match(refusal.message.strip()) or "HTML page" in refusal.message or not refusal.message:
        return (
            errors.AnswerError,
            "There is no such route: base_url is what a client of OpenAI's API takes, with or without /v1.",
        )
    return errors.ModelMissing, "Name a model this server serves (GET /v1/models lists them)."


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds a server asks to wait (``Retry-After``: seconds or an HTTP date), ``None`` when it does not.

    A date is held against the answer's own ``Date`` header, so a server whose clock is wrong still says what it means.
    """
    raw = headers.get("retry-after", "").strip()
    if not raw:
        return None
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", raw):
        return float(raw)
    until, now = _date(raw), _date(headers.get("date", ""))
    if until is None:
        return None
    return max(0.0, (until - (now or dt.datetime.now(dt.UTC))).total_seconds())


def _date(raw: str) -> dt.datetime | None:
    try:
        value = email.utils.parsedate_to_datetime(raw)
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    return value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
