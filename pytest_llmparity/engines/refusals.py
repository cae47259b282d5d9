"""What a server's refusal means: any of the error shapes in use becomes one typed error that names engine and case.

Shapes seen: ``{"error": {"message", "type", "code", "param"}}`` (OpenAI, vLLM, llama.cpp), the same flat (SGLang),
``{"error": text}`` (Ollama, mlx-lm), ``{"error", "error_type"}`` (TGI), ``{"detail": text | [{"msg", "loc"}]}``
(FastAPI), an HTML page of a proxy, or plain text. A server in front of another one may pass that one's error on as the
JSON text of its own message (Ollama before its llama-server).
"""

from __future__ import annotations

import datetime as dt
import email.utils
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core import errors

SHOWN_CHARS: Final = 300
"""How much of a server's own words an error message repeats."""

_OVERFLOW: Final = re.compile(
    r"exceed_context_size|context_length_exceeded|maximum context length|exceeds the (available )?context"
    r"|longer than the (model'?s )?context|exceeds? (the )?(model'?s )?(max(imum)? )?context|max_model_len"
    r"|must have less than \d+ tokens|`inputs` tokens \+ `max_new_tokens` must be|input (is )?too long"
    r"|prompt is too long|exceeds the maximum allowed length|greater than the context length"
    r"|when context the overflows|context size has been exceeded",
    re.IGNORECASE,
)
_UNSUPPORTED: Final = re.compile(
    r"unsupported|not supported|does not support|unrecogni[sz]ed|unknown (field|parameter|argument|option)"
    r"|extra_forbidden|extra (inputs|fields)|unexpected (keys|fields|parameter)|is not allowed|is not implemented",
    re.IGNORECASE,
)
_DEAD: Final = re.compile(r"EngineDeadError|engine (core )?(is dead|has died|died|encountered)", re.IGNORECASE)
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
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return Refusal(message=text)
    return refusal_of(value) or Refusal(message=text)


def refusal_of(value: object) -> Refusal | None:
    """Return the error a decoded JSON value holds, ``None`` when it is not an error."""
    if not isinstance(value, Mapping):
        return None
    error = value.get("error")
    if isinstance(error, Mapping):
        return _passed_on(_flat(error))
    if isinstance(error, str) and error:
        return _passed_on(Refusal(message=error, type=_text(value.get("error_type"))))
    if value.get("object") == "error" or (
        error is None and isinstance(value.get("message"), str) and "choices" not in value
    ):
        return _flat(value)
    detail = value.get("detail")
    if isinstance(detail, str):
        return Refusal(message=detail)
    if isinstance(detail, list):
        parts = [part for part in detail if isinstance(part, Mapping)]
        where = [".".join(str(step) for step in part["loc"]) for part in parts if isinstance(part.get("loc"), list)]
        said = "; ".join(_text(part.get("msg")) for part in parts)
        kinds = " ".join(_text(part.get("type")) for part in parts)
        return Refusal(message=said, type=kinds, param=", ".join(where))
    return None


def _passed_on(outer: Refusal) -> Refusal:
    """Return the error inside an error: the words, type and status of the server behind, where the message is JSON."""
    if not outer.message.startswith('{"'):
        return outer
    try:
        value = json.loads(outer.message)
    except (ValueError, RecursionError):
        return outer
    error = value.get("error") if isinstance(value, dict) else None
    if not isinstance(error, Mapping):
        return outer
    inner = _flat(error)
    kinds = " ".join(kind for kind in (outer.type, inner.type) if kind)
    return Refusal(
        message=inner.message, type=kinds, param=inner.param or outer.param, status=outer.status or inner.status
    )


def _flat(error: Mapping[str, object]) -> Refusal:
    code = error.get("code")
    status = code if isinstance(code, int) and not isinstance(code, bool) and 100 <= code <= 599 else None
    kinds = [_text(error.get("type")), code if isinstance(code, str) else ""]
    return Refusal(
        message=_text(error.get("message")) or json.dumps(dict(error), default=str),
        type=" ".join(kind for kind in kinds if kind),
        param=_text(error.get("param")),
        status=status,
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def refused(
    refusal: Refusal, *, status: int, headers: Mapping[str, str], engine: str, case: str | None
) -> errors.EngineError:
    """Return the typed error for a refusal; ``status`` is HTTP's, or the body's where HTTP said 200."""
    kind, advice = _classify(refusal, status)
    return worded(kind, advice, refusal, status=status, headers=headers, engine=engine, case=case)


def worded(
    kind: type[errors.EngineError],
    advice: str,
    refusal: Refusal,
    *,
    status: int,
    headers: Mapping[str, str],
    engine: str,
    case: str | None,
) -> errors.EngineError:
    """Return an error of this type for a refusal whose meaning is known, ending in ``advice``."""
    said = shown(refusal.message).rstrip(".") or "nothing"
    extra = f" (field {shown(refusal.param, 80)})" if refusal.param else ""
    about = f" case {case!r}" if case else ""
    return kind(
        f"{engine} answered {status} to{about or ' a request'}: {said}{extra}. {advice}",
        engine=engine,
        case=case,
        status=status,
        retry_after_s=retry_after(headers),
    )


def implied_status(refusal: Refusal) -> int:
    """Return the HTTP status an error inside a 200 answer stands for: the one it names, else by its type or words."""
    if refusal.status is not None:
        return refusal.status
    if _OVERFLOW.search(refusal.message):
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
    if 400 <= status < 500 and status != 429 and _OVERFLOW.search(words):
        return errors.ContextOverflow, "Raise context_length, shorten the prompt or lower max_tokens."
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
