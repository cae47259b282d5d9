"""The run as files for programs: ``run.json`` (verdicts and what stands behind them) and ``samples.jsonl``.

Both are described by ``pytest_llmparity/schemas/run.schema.json``; a line of ``samples.jsonl`` is its
``$defs/sample``. They hold no request headers, and of the machine they were made on neither the project's folder nor
the user's nor where models lie; numbers are finite (what is infinite or unknown is ``null``), and every text is valid
Unicode. What a model answered is kept as it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any

from pytest_llmparity.core import sample as samples_module
from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.golden.records import spell
from pytest_llmparity.core.identity.record import EngineRecord, RunRecord, SampleOrigin
from pytest_llmparity.core.sample import Completion, Sample
from pytest_llmparity.core.values.calls import Asked
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.store.whole import replace

SCHEMA = 1
"""Number of the format; it changes when a reader of the old one would misread the new one."""

_VERDICT_FIELDS = (
    *("test", "check", "kind", "tag", "engine", "baseline", "outcome"),
    *("estimate", "lower", "upper", "margin", "unit", "side"),
    *("n", "groups", "effective", "horizon", "requests", "looks", "alpha", "p_pass", "p_fail", "p_family", "family"),
    *("floor", "apart", "shape", "differs", "cause", "message"),
    *("arm", "constraint", "explanation", "differing", "left_out", "lenience", "remarks", "margin_from"),
)


def to_json(record: RunRecord, *, places: Places | None = None) -> dict[str, Any]:
    """Return the content of ``run.json`` as JSON builtins, with ``places`` shortened in every text."""
    content = {
        "schema": SCHEMA,
        "run": record.run,
        "version": record.version,
        "engines": [_engine(engine) for engine in record.engines],
        "verdicts": [_verdict(verdict) for verdict in record.verdicts],
        "latency": [samples_module.to_json(row) for row in record.latency],
        "failures": [samples_module.to_json(failure) for failure in record.failures],
        "errors": [{"test": test, "reason": why} for test, why in record.errors.items()],
        "decisions": [samples_module.to_json(decision) for decision in record.decisions],
        "requests": record.requests,
        "retries": record.retries,
        "replayed": record.replayed,
        "notes": [*record.notes, *record.unshown],
        "reproduce": [{"test": test, "command": command} for test, command in record.reproduce.items()],
        "ladder": None if record.ladder is None else samples_module.to_json(record.ladder),
    }
    cleaned: dict[str, Any] = clean(content if places is None else places.shorten(content))
    return cleaned


def sample_to_json(
    run: str, sample: Sample, *, origin: SampleOrigin | None = None, places: Places | None = None
) -> dict[str, Any]:
    """Return one line of ``samples.jsonl`` as JSON builtins. Times are seconds from the request's first byte.

    ``origin`` says who asked, ``places`` are shortened in what failed, never in an answer.
    """
    asked = origin or SampleOrigin()
    answer = sample.completion
    failure = sample.failure and samples_module.to_json(sample.failure)
    line = {
        "run": run,
        "engine": sample.engine,
        "tests": list(asked.tests),
        "prompt_sets": list(asked.prompt_sets),
        "case": sample.case,
        "judged": asked.judged,
        "tags": list(asked.tags),
        "group": asked.group or None,
        "expect": dict(asked.expect),
        "messages": asked.messages,
        "prompt": asked.prompt,
        "phase": sample.phase.value,
        "repeat": sample.repeat,
        "concurrency": sample.concurrency,
        "prefix": sample.prefix,
        "attempts": sample.attempts,
        "text": answer and answer.text,
        "reasoning": answer and answer.reasoning,
        "tool_calls": answer and [samples_module.to_json(call) for call in answer.tool_calls],
        "turns": answer and [_turn(turn) for turn in answer.turns],
        "stopped": answer and answer.stopped and samples_module.to_json(answer.stopped),
        "choices": answer and [_choice(choice) for choice in answer.choices],
        "finish_reason": answer and answer.finish_reason,
        "cut": answer and answer.cut,
        "normalised": answer and list(answer.normalised),
        "usage": answer and _usage(answer),
        "logprobs": answer and _logprobs(answer),
        "timing": sample.timing and samples_module.to_json(sample.timing),
        "failure": failure if places is None else places.shorten(failure),
    }
    cleaned: dict[str, Any] = clean(line)
    return cleaned


def _usage(answer: Completion) -> dict[str, int | None]:
    return {
        "prompt_tokens": answer.prompt_tokens,
        "completion_tokens": answer.counted if answer.choices else answer.completion_tokens,
        "reasoning_tokens": answer.reasoning_tokens,
        "cached_tokens": answer.cached_tokens,
    }


def _turn(answer: Completion) -> dict[str, Any]:
    """Return an answer of a conversation that another one follows, with what its calls were given."""
    return {
        "text": answer.text,
        "reasoning": answer.reasoning,
        "tool_calls": [samples_module.to_json(call) for call in answer.tool_calls],
        "results": list(answer.results),
        "finish_reason": answer.finish_reason,
        "usage": _usage(answer),
    }


def _choice(answer: Completion) -> dict[str, Any]:
    """Return a choice behind the first one of an answer."""
    return {
        "text": answer.text,
        "reasoning": answer.reasoning,
        "tool_calls": [samples_module.to_json(call) for call in answer.tool_calls],
        "finish_reason": answer.finish_reason,
        "cut": answer.cut,
    }


def _logprobs(answer: Completion) -> list[dict[str, Any]] | None:
    """Return the token records of an answer, bytes that are no text as golden files spell them; ``None``: it has none.

    The alternatives are pairs, the best first.
    """
    tokens = [
        {
            "token": spell(token.token),
            "logprob": token.logprob,
            "top": [[spell(other), logprob] for other, logprob in token.top],
        }
        for token in answer.logprobs
    ]
    return tokens or None


def write(
    record: RunRecord,
    samples: Iterable[Sample],
    folder: Path,
    *,
    root: Path | None = None,
    origin: Callable[[Sample], SampleOrigin | None] = lambda sample: None,
    asked: Sequence[Asked] = (),
) -> None:
    """Write ``run.json`` and ``samples.jsonl`` into ``folder``, which is made when it is not there.

    What plain tests ``asked`` of engines that are recorded goes into ``calls.jsonl``, which is there only then. Each
    file appears whole or not at all; ``run.json`` comes last, so whoever sees it finds its samples. ``root`` is the
    project's folder, left out of paths; ``origin`` tells who asked what a sample answers. Raises ``UsageError`` when
    the folder cannot be written.
    """
    places = here(root, files_of(record))
    lines = (
        json.dumps(sample_to_json(record.run, sample, origin=origin(sample), places=places), allow_nan=False) + "\n"
        for sample in samples
    )
    run = [json.dumps(to_json(record, places=places), allow_nan=False, indent=1) + "\n"]
    sent = [
        json.dumps(clean(places.shorten({"run": record.run, **samples_module.to_json(each)})), allow_nan=False) + "\n"
        for each in asked
    ]
    put(folder, {"samples.jsonl": lines, **({"calls.jsonl": sent} if sent else {}), "run.json": run})
    if not sent:
        (folder / "calls.jsonl").unlink(missing_ok=True)  # of an earlier run


def put(folder: Path, parts_of: Mapping[str, Iterable[str]]) -> None:
    """Write files that only this user can read into ``folder``, which is made when it is not there, in their order.

    Each appears whole or not at all. Raises ``UsageError``, with the file that cannot be written, or with the folder
    where several go into one that cannot be made.
    """
    path = folder / next(iter(parts_of)) if len(parts_of) == 1 else folder
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name, parts in parts_of.items():
            path = folder / name
            replace(path, parts)
    except OSError as error:
        message = f"{path} cannot be written ({error.strerror or error}); choose another --parity-out"
        raise UsageError(message) from error


def _engine(engine: EngineRecord) -> dict[str, Any]:
    facts = engine.identity.facts
    return {
        "name": engine.name,
        "kind": engine.kind,
        "version": engine.version,
        "model": without_folder(engine.model),
        "quantization": engine.quantization,
        "context_length": engine.context_length,
        "launch": engine.launch,
        "recording": engine.recording or None,
        "pace": engine.pace if engine.recording else None,
        "route": engine.route,
        "baseline": engine.baseline,
        "identity": {name: {"value": without_folder(f.value), "source": f.source} for name, f in facts.items()},
        "capabilities": _capabilities(engine),
        "route_check": None if engine.route_check is None else _route_check(engine),
        "notes": list(engine.notes),
    }


def _capabilities(engine: EngineRecord) -> dict[str, Any]:
    """Return what is known of what the server can do; what nobody knows is left out."""
    can, declares = samples_module.to_json(engine.capabilities), samples_module.to_json(engine.declares)
    probed = can.pop("probed")
    return {
        name: {"value": value, "declared": declares[name], "probed": name in probed}
        for name, value in can.items()
        if value is not None
    }


def _route_check(engine: EngineRecord) -> dict[str, Any]:
    assert engine.route_check is not None
    content: dict[str, Any] = samples_module.to_json(engine.route_check)
    return content | {"differs": engine.route_check.differs, "sentence": engine.route_check.sentence(engine.name)}


def _verdict(verdict: Verdict) -> dict[str, Any]:
    content = samples_module.to_json(verdict)
    return {name: content[name] for name in _VERDICT_FIELDS}


def without_folder(value: Any) -> Any:
    """Return the file's name of an absolute path of this machine, and anything else as it is."""
    path = absolute(value) if isinstance(value, str) else None
    return value if path is None else path.name


def files_of(record: RunRecord) -> list[str]:
    """Return what the engines say about files of theirs."""
    values: list[object] = [engine.model for engine in record.engines]
    values += [fact.value for engine in record.engines for fact in engine.identity.facts.values()]
    return [text for text in values if isinstance(text, str)]


def clean(value: Any) -> Any:
    """Return JSON builtins with every text valid Unicode and every number finite, ``None`` where it is not."""
    if isinstance(value, str):
        return _unicode(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_unicode(key): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return value


def _unicode(text: str) -> str:
    """Replace lone surrogates: many JSON readers refuse a whole file for one of them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


class Places:
    """Shortens absolute paths in texts: below ``root`` to relative ones, below ``home`` to ``~``, ``files`` to names.

    Only these are known to be paths; anything else that looks like one may be what a model wrote, and stays.
    """

    def __init__(self, *, root: Path | None = None, home: Path | None = None, files: Iterable[str] = ()) -> None:
        short: dict[str, str] = {}
        for folder, stands in ((home, "~"), (root, ".")):  # the root wins where both are the same
            if folder is not None and folder != folder.parent:  # the top of a file system is in front of every path
                short |= dict.fromkeys(_spellings(folder), stands)
        for file in files:
            path = absolute(file)
            if path is not None:
                short |= dict.fromkeys(_spellings(path), path.name)
        self._short = short
        longest_first = sorted(short, key=len, reverse=True)
        known = "|".join(map(re.escape, longest_first))
        # Not in the middle of a longer path or name; a full stop behind may end the sentence.
        self._known = re.compile(rf"(?<![\w.-])({known})(?![\w-]|\.\w)([/\\]+(?=[\w.~-]))?") if known else None

    def shorten(self, value: Any) -> Any:
        """Return text, or JSON builtins with all their texts, without these folders."""
        if self._known is None:
            return value
        if isinstance(value, str):
            return self._known.sub(self._replace, value)
        if isinstance(value, dict):
            return {key: self.shorten(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.shorten(item) for item in value]
        return value

    def _replace(self, match: re.Match[str]) -> str:
        stands, behind = self._short[match[1]], match[2] or ""
        return "" if stands == "." and behind else stands + behind


def here(root: Path | None, files: Iterable[str]) -> Places:
    """Return the places of this process: ``root``, the user's home and ``files``."""
    try:
        home = Path.home()
    except RuntimeError:  # an account without one
        home = None
    return Places(root=root, home=home, files=files)


def absolute(text: str) -> PurePath | None:
    """Return the text as an absolute path of a POSIX system or Windows, ``None`` when it is neither."""
    return next((path for path in (PurePosixPath(text), PureWindowsPath(text)) if path.is_absolute()), None)


def _spellings(path: PurePath) -> set[str]:
    """Return how sentences write a path: as it is, with forward slashes, and as a Python or JSON literal."""
    return {str(path), path.as_posix(), str(path).replace("\\", "\\\\")}
