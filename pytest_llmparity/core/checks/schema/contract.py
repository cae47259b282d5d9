"""A JSON Schema or a pydantic model held against answers: reading them, validating them, and where two differ."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast, runtime_checkable

import msgspec

from pytest_llmparity.core.checks.missing import describe
from pytest_llmparity.core.checks.schema.bounds import unbounded
from pytest_llmparity.core.compare.answers import digest
from pytest_llmparity.core.compare.fields import EVERYTHING, Fields
from pytest_llmparity.core.compare.json import FieldDiff, Parsed, child, fault_of, parse_json
from pytest_llmparity.core.compare.order import NOT_FETCHED, refuse_to_fetch
from pytest_llmparity.core.compare.paths import anywhere
from pytest_llmparity.core.compare.wrapped import REASONING, Unwrapped, unwrap
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.late import jsonschema_rs
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import MOVED, Completion, JsonObject
from pytest_llmparity.core.verdict import Difference, Lenience, Outcome, Verdict
from pytest_llmparity.core.words import explain

if TYPE_CHECKING:
    from jsonschema_rs import FancyRegexOptions


class Adapter(Protocol):
    """What ``pydantic.TypeAdapter`` offers."""

    def validate_json(self, text: bytes, /, *, strict: bool) -> object:
        """Return the value, or raise ``ValidationError``."""

    def json_schema(self) -> JsonObject:
        """Return the JSON Schema of what is accepted."""


@runtime_checkable
class ModelClass(Protocol):
    """What the classes derived from ``pydantic.BaseModel`` offer."""

    def model_validate_json(self, json_data: bytes, /, *, strict: bool) -> object:
        """Return the value, or raise ``ValidationError``."""

    def model_json_schema(self) -> JsonObject:
        """Return the JSON Schema of what is accepted."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One case of one engine, read as JSON and validated. ``problem`` says why it does not fit, ``None`` if it does.

    ``answered`` is false for a failed request, ``parsed`` true where ``value`` holds what was read. ``wrapping`` names
    what stands round the JSON and makes ``json.loads`` refuse the answer; it was read all the same if ``parsed``.
    ``fault`` is the class of what is wrong with an answer that is no JSON.
    """

    problem: str | None
    answered: bool = True
    parsed: bool = False
    value: Any = None
    wrapping: tuple[str, ...] = ()
    text: str = ""
    fault: str = ""

    @property
    def whole(self) -> Parsed | None:
        """The answer as :func:`parse_json` reads all of it, ``None`` where it was not read so."""
        if self.wrapping or not self.answered:
            return None
        return Parsed(value=self.value) if self.parsed else Parsed(error=self.problem)

    def differences(self, other: Reading, fields: Fields = EVERYTHING) -> list[FieldDiff]:
        """Return the fields that differ for who reads these, order of keys aside; empty unless both are JSON."""
        return fields.differences(self.value, other.value) if self.parsed and other.parsed else []

    def differing(self, other: Reading, fields: Fields = EVERYTHING) -> set[str]:
        """Return the differing paths with array places left out (``$.items[].price``); empty when the values agree.

        Something that is not JSON differs from everything as a whole: ``$``.
        """
        if not (self.parsed and other.parsed):
            return {"$"}
        if self.text == other.text and self.wrapping == other.wrapping:
            return set()
        return {anywhere(difference.path) for difference in self.differences(other, fields)}


class Contract:
    """What answers are held against: a JSON Schema, or the pydantic model it was made from.

    The draft is the one ``$schema`` names, else 2020-12; ``format`` is asserted in every draft, and formats that nobody
    here knows are in ``unknown_formats``. Nothing is ever fetched. With a ``model`` it alone decides, in strict JSON
    mode: a schema can neither say all that a model asks nor write down all that it takes. ``lenient`` reads JSON that
    has something round it.
    """

    def __init__(
        self, schema: Mapping[str, Any], name: str, *, model: ModelClass | Adapter | None = None, lenient: bool = False
    ) -> None:
        self.schema = schema
        self.dialect = "pydantic in strict JSON mode" if model is not None else dialect_of(schema)
        self.unknown_formats: tuple[str, ...] = ()
        self._model = model
        self._lenient = lenient
        if model is not None:
            return
        if (why := unbounded(schema)) is not None:
            raise DesignError(f"{name} is not a usable JSON Schema: {why}")
        try:
            self._validator = jsonschema_rs.validator_for(
                dict(schema), validate_formats=True, retriever=refuse_to_fetch, pattern_options=_patterns()
            )
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            why = explain.plain(str(getattr(error, "message", "") or error))
            remote = NOT_FETCHED in why or "base URI" in why
            why = why.replace("Recursion limit reached", "it is nested too deeply")
            hint = "; copy what it refers to into it, nothing is fetched" if remote else ""
            raise DesignError(f"{name} is not a usable JSON Schema: {why}{hint}") from error
        self.unknown_formats = tuple(word for word in formats(schema) if not _known(word, schema.get("$schema")))

    @classmethod
    def from_text(
        cls, text: str, name: str, *, model: ModelClass | Adapter | None = None, lenient: bool = False
    ) -> Contract:
        """Read a schema from JSON text; ``DesignError`` says what is wrong with it."""
        parsed = parse_json(text)
        if parsed.error is not None:
            raise DesignError(f"{name} is not JSON: {parsed.error}")
        if not isinstance(parsed.value, dict):
            raise DesignError(f"{name} is not a JSON Schema object but {explain.quote(json.dumps(parsed.value))}")
        return cls(parsed.value, name, model=model, lenient=lenient)

    def hold(self, completion: Completion) -> Reading:
        """Return an answer as it was read and held against the schema or the model."""
        text = completion.text
        strict = parse_json(text)
        moved = bool(completion.normalised) and any(remark.endswith(MOVED) for remark in completion.normalised)
        if strict.error is None and not moved:
            return self._fits(text, strict.value, text)
        inner = Unwrapped(body=text, parsed=strict, wrapping=()) if strict.error is None else unwrap(text)
        wrapping = tuple(dict.fromkeys([*([REASONING] if moved else []), *(inner.wrapping if inner else ())]))
        readable = inner is not None and inner.parsed.error is None
        if inner is not None and readable and self._lenient:
            return self._fits(inner.body, inner.parsed.value, text, wrapping)
        why = strict.error or "reasoning comes first in what the server sent"
        if inner is not None and inner.parsed.error is not None:
            why = inner.parsed.error
        stands = f" ({', '.join(wrapping)})" if wrapping else ""
        fault = wrapping[0] if readable else fault_of(strict.error or "", cut=completion.cut)
        shown = wrapping if readable else ()
        return Reading(problem=f"not JSON{stands}: {why}", text=text, wrapping=shown, fault=fault)

    def _fits(self, body: str, value: Any, text: str, wrapping: tuple[str, ...] = ()) -> Reading:
        return Reading(problem=self._problem(body, value), parsed=True, value=value, wrapping=wrapping, text=text)

    def _problem(self, body: str, value: Any) -> str | None:
        try:
            if "\\u" in body or not body.isascii() or body.count("{") + body.count("[") > _SHALLOW:
                json.dumps(value, ensure_ascii=False).encode()  # nobody can send on or store what fails here
        except UnicodeEncodeError:
            return "a string holds half a character (a lone surrogate)"
        except RecursionError:
            return "nested too deeply"
        if self._model is not None:
            return problem_of(self._model, body)
        if self._validator.is_valid(value):
            return None
        try:
            self._validator.validate(value)  # the first error alone: an answer may have millions of them
        except jsonschema_rs.ValidationError as error:
            path = "$"
            for step in error.instance_path:
                path = f"{path}[{step}]" if isinstance(step, int) else child(path, step)
            return f"{path}: {_told(error.message)}"
        return None


_LONGEST_WORDS: Final = 1000
_ENDING: Final = 200


def _told(message: str) -> str:
    """Return what a validator says of a value, which it repeats in it, of a length that can be kept and read."""
    if _TOO_MANY in message:
        return f"its pattern takes more than {_BACKTRACKS} steps on this answer, so it counts as no match"
    if len(message) <= _LONGEST_WORDS:
        return message
    return f"{message[: _LONGEST_WORDS - _ENDING]}…{message[-_ENDING:]}"


_TOO_MANY: Final = "Max limit for backtracking"
_DRAFTS: Final = {
    "http://json-schema.org/draft-04/schema": "JSON Schema draft 4",
    "http://json-schema.org/draft-06/schema": "JSON Schema draft 6",
    "http://json-schema.org/draft-07/schema": "JSON Schema draft 7",
    "https://json-schema.org/draft/2019-09/schema": "JSON Schema 2019-09",
    "https://json-schema.org/draft/2020-12/schema": "JSON Schema 2020-12",
}
_LATEST: Final = "JSON Schema 2020-12 (it names no draft)"


def dialect_of(schema: Mapping[str, Any]) -> str:
    """Return the draft by which a schema is read: the one that ``$schema`` names, else 2020-12.

    >>> dialect_of({"$schema": "http://json-schema.org/draft-07/schema#"}), dialect_of({})
    ('JSON Schema draft 7', 'JSON Schema 2020-12 (it names no draft)')
    """
    named = schema.get("$schema")
    if not isinstance(named, str):
        return _LATEST
    return _DRAFTS.get(named.removesuffix("#"), explain.plain(named, 80))


_BACKTRACKS: Final = 100_000
"""Steps back that one pattern may take on one text: milliseconds, where a hostile pattern would take hours."""
_PATTERN_BYTES: Final = 10 * 2**20
"""Bytes that one compiled pattern may have: a repetition of repetitions takes gigabytes."""


def _patterns() -> FancyRegexOptions:
    """Return how patterns are matched: in bounded time and memory; what takes more does not match."""
    return jsonschema_rs.FancyRegexOptions(
        backtrack_limit=_BACKTRACKS, size_limit=_PATTERN_BYTES, dfa_size_limit=_PATTERN_BYTES
    )


def formats(schema: object) -> list[str]:
    """Return every ``format`` a schema asserts, once each, in the order they stand there."""
    words: dict[str, None] = {}
    waiting: list[object] = [schema]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            if isinstance(part.get("format"), str):
                words[part["format"]] = None
            waiting += reversed(
                [item for key, item in part.items() if key not in ("const", "default", "enum", "examples")]
            )
        elif isinstance(part, list):
            waiting += reversed(part)
    return list(words)


def _known(word: str, draft: object) -> bool:
    named = {"$schema": draft} if isinstance(draft, str) else {}
    try:
        jsonschema_rs.validator_for({**named, "format": word}, validate_formats=True, ignore_unknown_formats=False)
    except jsonschema_rs.ValidationError:
        return False
    return True


_SHALLOW: Final = 100
"""Brackets of a text that cannot be nested too deeply, however they stand."""


def forgiven(engine: str, readings: Mapping[str, Reading]) -> tuple[Lenience, ...]:
    """Count what stood round the JSON of an engine's answers, and whether they were read all the same."""
    answered = [reading for reading in readings.values() if reading.answered]
    wrapping = Counter((remark, reading.parsed) for reading in answered for remark in reading.wrapping)
    return tuple(
        Lenience(engine=engine, what=remark, count=count, of=len(answered), accepted=accepted)
        for (remark, accepted), count in wrapping.items()
    )


def adapted(kind: type, name: str) -> Adapter:
    """Return a type (a dataclass, a ``TypedDict``) as pydantic validates it; ``DesignError`` where it cannot."""
    from pydantic import TypeAdapter

    try:
        return cast("Adapter", TypeAdapter(kind))
    except Exception as error:  # pydantic raises many kinds, NameError among them
        raise DesignError(f"schema({name}): pydantic cannot validate by it: {_first(error)}") from error


def schema_of(model: ModelClass | Adapter, name: str) -> str:
    """Return the JSON Schema of a model as text; ``{}`` where pydantic has no words for one of its types.

    The schema is not what answers are held against, so it may say less than the model. Raises ``DesignError`` for a
    model that pydantic cannot use at all, such as one that names a class it does not know.
    """
    from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError

    describe = model.model_json_schema if isinstance(model, ModelClass) else model.json_schema
    try:
        return json.dumps(describe(), allow_nan=False)
    except PydanticInvalidForJsonSchema:
        return "{}"
    except PydanticUserError as error:  # a TypeError before pydantic 2.12
        raise DesignError(f"schema({name}): pydantic cannot validate by it: {_first(error)}") from error
    except (TypeError, ValueError):
        return "{}"


def problem_of(model: ModelClass | Adapter, body: str) -> str | None:
    """Return why a model refuses a JSON text, ``None`` when it validates in strict mode.

    Whatever a validator of the user raises is a refusal with its own words, never a crash.
    """
    from pydantic import ValidationError

    validate: Callable[..., object] = (
        model.model_validate_json if isinstance(model, ModelClass) else model.validate_json
    )
    try:
        validate(body.encode("utf-8", "replace"), strict=True)
    except ValidationError as refused:
        first, *others = refused.errors(include_url=False, include_context=False, include_input=False)
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
        more = f" (and {len(others)} more)" if others else ""
        return f"${place}: {first['msg']}{more}"
    except Exception as error:  # noqa: BLE001 - code of the user, which may raise anything
        return f"its validator raised {_first(error)}"
    return None


def name_of(kind: object) -> str:
    """Return a type as its user would say it, the same in every run: no address of an object in it."""
    if isinstance(kind, type) and not hasattr(kind, "__args__"):
        return kind.__name__
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(kind)).replace("typing.", "")


def _first(error: Exception) -> str:
    words = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


class Held(Protocol):
    """An answer that was held against something, or the failure in its place."""

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""


def silent(
    verdict: Verdict, engine: EngineEvidence, readings: Mapping[str, Held], evidence: Evidence
) -> Verdict | None:
    """Return the verdict when an engine answered nothing at all."""
    if any(reading.answered for reading in readings.values()):
        return None
    for case, failure in engine.failures().items():
        reason = f"no answer at all; first: {describe(engine.name, case, failure)}"
        return dataclasses.replace(verdict, outcome=Outcome.ERROR, reason=reason)
    outcome = Outcome.ERROR if evidence.incomplete is None else Outcome.INCONCLUSIVE
    return dataclasses.replace(verdict, outcome=outcome, reason=evidence.incomplete or "no answer was gathered")


def wrong(cases: Sequence[Case], readings: Mapping[str, Reading]) -> tuple[Difference, ...]:
    """Return the cases whose answers do not fit, as reports list them."""
    return tuple(
        Difference(
            case=case.id,
            what=explain.plain(reading.problem, 120),
            candidate_sha256=digest(reading.text) if reading.answered else None,
        )
        for case in cases
        if (reading := readings[case.id]).problem is not None
    )


def invalid(engine: str, cases: Sequence[Case], readings: Mapping[str, Reading]) -> list[str]:
    """Return lines that count the answers of an engine that do not fit and show the first; none where all fit."""
    bad = [(case.id, readings[case.id]) for case in cases if case.id in readings and readings[case.id].problem]
    faults = Counter(reading.fault or "other" for _, reading in bad if reading.answered)
    lines: list[str] = []
    if bad:
        case, reading = bad[0]
        fit = "does not fit" if len(bad) == 1 else "do not fit"
        lines.append(
            f"{len(bad)} of {explain.count(len(readings), 'answer')} of {engine} {fit}; first: "
            f"{explain.plain(case, 40)}: {explain.plain(str(reading.problem), 120)}"
        )
        if reading.text:
            lines.append(f"  it answered {explain.quote(reading.text)}")
        if set(faults) - {"other"}:
            named = [(fault, n) for fault, n in faults.most_common() if fault != "other"]
            named += [("JSON that does not fit", faults["other"])] if faults["other"] else []
            lines.append(f"what is wrong: {', '.join(f'{fault} {n}' for fault, n in named)}")
    return lines
