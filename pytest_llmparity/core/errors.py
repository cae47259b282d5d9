"""Every error this package raises, and what each one asks of its reader.

LLMParityError
├── UsageError                 the person must change something; exit code 4 where it is known early
│   ├── ConfigError            a file, key or value of the configuration
│   ├── EngineSelectionError   an entry of --engines
│   ├── PromptSetError         a prompt file: file, line, case; or a schema file that cannot be read
│   └── DesignError            a check that cannot settle what it is asked (too few cases, one engine, …)
├── EngineError                an engine did not do what was asked; carries engine and case
│   ├── LaunchError            it could not be started, or exited, or never became ready
│   │   └── MemoryHeld         the engine before it is still in memory, and only one may be
│   ├── EngineDied             it was there and is gone
│   │   └── NotAsked           it was gone before this prompt was sent
│   ├── Unreachable            nothing accepts the connection
│   │   └── TlsFailure         its certificate is not trusted, or only one side speaks TLS
│   ├── AnswerError            it answered, but not with an answer
│   │   ├── BadRequest         400, 422: the request was refused
│   │   │   ├── ContextOverflow    the prompt does not fit
│   │   │   └── UnsupportedParameter   a parameter it cannot honour
│   │   ├── NotAuthorised      401, 403
│   │   ├── ModelMissing       404
│   │   ├── Overloaded         429, 503 (retried with backoff)
│   │   ├── ServerFailure      5xx
│   │   ├── ProtocolError      not HTTP, not JSON, not UTF-8, cut in half, over the limits
│   │   ├── Substituted        a proxy answered from its cache or by another model
│   │   ├── NotRecorded        a recording is played that does not hold this request
│   │   └── EmptyAnswer        200 without text, tool call or reasoning
│   ├── Timeout                connect, first byte, idle gap or total
│   ├── ApplicationError   a test that is an application returned what is no JSON
│   └── ParameterNotHonoured   known before the first request: the engine's route has no such field
├── MissingSample              a row that is read but was never gathered; carries the reason
├── MachineError               this machine has no more of something: file descriptors, memory
├── LockError                  the lock file cannot be used, or would hold what has no place in it
├── GoldenError                a golden file cannot be used or written, or would hold what has no place in it
├── RecordingError             a recording cannot be used or written, or would hold what has no place in it
├── NotMeasured                two engines cannot be calibrated: one is not there, or the answers say nothing
├── StoreError                 the run store cannot be used (network file system, other version, locked)
└── KeeperError                the process that owns the engines is gone or refused
"""

from __future__ import annotations

import errno
import sys
import traceback
from collections.abc import Collection

_NO_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})
_USED_UP = _NO_DESCRIPTORS | {errno.ENOSPC, errno.EDQUOT, errno.ENOMEM}
_ADVICE = {
    errno.EMFILE: "this process has no file descriptor left: raise its limit (ulimit -n 4096), or lower concurrency",
    errno.ENFILE: "this machine has no file descriptor left: close other programs, or raise the system's limit",
    errno.ELOOP: "it is a symbolic link where a file of our own belongs: delete the link",
    errno.EACCES: "permission denied: make it yours and writable",
    errno.EPERM: "the operation is not permitted: make it yours and writable",
    errno.EROFS: "the file system is read-only: run from a checkout that can be written",
    errno.ENOSPC: "the disk is full: make room",
    errno.EDQUOT: "the disk quota is used up: make room",
    errno.ENOMEM: "this machine has no memory left",
}


class LLMParityError(Exception):
    """Base of every error of this package; its text says what happened and what to do next."""


class UsageError(LLMParityError):
    """The person running pytest must change something; the text says what and where."""


class ConfigError(UsageError):
    """The configuration file holds something that cannot be used."""


class EngineSelectionError(UsageError):
    """An entry of ``--engines`` cannot be understood or names nothing that is known."""


class PromptSetError(UsageError):
    """A prompt file is missing, empty or has a line that cannot be used."""


class DesignError(UsageError):
    """A check can never settle what it is asked with the cases and engines it is given."""


class EngineError(LLMParityError):
    """An engine did not do what was asked.

    ``engine`` is its name in this run, ``case`` the case id or ``None``, ``status`` the HTTP status or ``None``,
    ``retry_after_s`` what the server asked for, and ``retryable`` whether asking again can help.
    """

    retryable: bool = False

    def __init__(
        self,
        message: str,
        *,
        engine: str = "",
        case: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.engine = engine
        self.case = case
        self.status = status
        self.retry_after_s = retry_after_s


class LaunchError(EngineError):
    """The engine could not be started; the text ends with the last lines of its log."""


class MemoryHeld(LaunchError):
    """The engine was not started: only one may be in memory, and another's has not come back; says whose, how much."""


class EngineDied(EngineError):
    """The engine answered before and its process or its listening socket is gone."""


class ApplicationError(EngineError):
    """A test with ``check.value`` returned what is no JSON, so it can be neither kept nor compared."""


class NotAsked(EngineDied):
    """The prompt was never sent: its engine had gone, or had become another one, before its turn came."""


class Unreachable(EngineError):
    """Nothing accepts a connection at the engine's address."""

    retryable = True


class TlsFailure(Unreachable):
    """Something is there, and TLS with it cannot be: its certificate is not trusted, or one side speaks plain HTTP."""

    retryable = False


class AnswerError(EngineError):
    """The engine answered, but not with an answer."""


class BadRequest(AnswerError):
    """The engine refused the request (400 or 422)."""


class ContextOverflow(BadRequest):
    """The prompt and the answer do not fit into the context one request gets."""


class UnsupportedParameter(BadRequest):
    """The engine refused a parameter that was sent."""


class NotAuthorised(AnswerError):
    """The engine wants another key (401 or 403)."""


class ModelMissing(AnswerError):
    """The engine does not serve the model that was asked for (404)."""


class Overloaded(AnswerError):
    """The engine is busy or loading (429 or 503)."""

    retryable = True


class ServerFailure(AnswerError):
    """The engine failed while answering (5xx other than 503)."""

    retryable = True


class ProtocolError(AnswerError):
    """What came back is not an HTTP answer with JSON or events in UTF-8, was cut, or passed a limit."""


class Substituted(AnswerError):
    """A proxy answered 200, but from its cache or by another model than the one that was asked."""


class NotRecorded(AnswerError):
    """A recording is played, and it has no answer to this request as it is asked now."""


class EmptyAnswer(AnswerError):
    """The engine answered 200 with no text, no reasoning and no tool call.

    ``finish`` is why it ended as the engine said, ``tokens`` how many it says it generated, ``prompt_tokens`` how many
    it was sent, ``model`` the name it answered under.
    """

    finish: str = ""
    tokens: int | None = None
    prompt_tokens: int | None = None
    model: str = ""


class Timeout(EngineError):
    """A deadline passed: connecting, first byte, a gap between reads, or the whole request."""

    retryable = True


class ParameterNotHonoured(EngineError):
    """The route of this engine has no field for a parameter that matters; raised before anything is sent."""


class MissingSample(LLMParityError):
    """A row has no answer; the text says why it is missing."""


class MachineError(LLMParityError):
    """The machine has no more of something, such as file descriptors; what was gathered by then is kept."""


class LockError(LLMParityError):
    """``llmparity.lock`` cannot be read or written, or would hold a secret or a path of this machine."""


class GoldenError(LLMParityError):
    """A golden file cannot be read or written, or would hold a secret; the text names the place."""


class RecordingError(LLMParityError):
    """A recording cannot be read or written, or would hold a secret; the text names the place."""


class NotMeasured(LLMParityError):
    """No margin can be proposed: an engine cannot be asked, or its answers settle nothing."""


class StoreError(LLMParityError):
    """The run store cannot be used; the text says which file and why."""


class ShardError(StoreError):
    """Stored runs are not the shards of one run; the text names those that do not fit, or are missing."""


class KeeperError(LLMParityError):
    """The process that owns the engines is gone or refused a request."""


def reason_of(error: Exception, engine: str) -> str:
    """Return what an engine's error says; of an exception that is not ours, what it is and whom to report it to.

    That this machine has no more of something is nobody's mistake: then what to do about it.
    """
    if isinstance(error, LLMParityError):
        return str(error)
    if (scarce := of_machine(error)) is not None:
        return f"{engine}: {advice(scarce)}."
    modules = [
        (str(frame.f_globals.get("__name__", "")), line) for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    written = [place for place in modules if place[0].partition(".")[0] not in sys.stdlib_module_names]
    module, line = (written or [("", 0)])[-1]
    package = module.partition(".")[0].replace("_", "-") or "its adapter"
    return (
        f"{engine}: {type(error).__name__}: {error} (in {module or 'an unknown module'}, line {line}). This is a "
        f"mistake in {package}, not in your configuration: report it, with this text, to those who maintain {package}."
    )


def by_name(name: str) -> type[LLMParityError]:
    """Return the error class with this name, for records that come back from the store; ``EngineError`` if unknown."""
    error_class = globals().get(name)
    if isinstance(error_class, type) and issubclass(error_class, LLMParityError):
        return error_class
    return EngineError


def advice(error: OSError) -> str:
    """Return what the operating system refused and the next step.

    >>> advice(OSError(28, "No space left on device"))
    'the disk is full: make room'
    """
    known = _ADVICE.get(error.errno or 0)
    return known or error.strerror or str(error) or type(error).__name__


def no_descriptors(error: BaseException | None) -> OSError | None:
    """Return the error of the system behind this one that says no file descriptor is left, ``None`` if none does."""
    return _behind(error, _NO_DESCRIPTORS)


def of_machine(error: BaseException | None) -> OSError | None:
    """Return the error of the system behind this one that says the machine has no more of something, else ``None``."""
    return _behind(error, _USED_UP)


def _behind(error: BaseException | None, numbers: Collection[int]) -> OSError | None:
    while error is not None:
        if isinstance(error, OSError) and error.errno in numbers:
            return error
        error = error.__cause__ or error.__context__
    return None
