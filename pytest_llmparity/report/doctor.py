"""What the doctor found, as lines for a terminal and as JSON for programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.examination import Examination, Setting
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import IDENTITY, Fact, to_json
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.experiments import rendered_apart
from pytest_llmparity.core.words.printable import WIDTH, cells, hanging, pad, printable, wrapped
from pytest_llmparity.extras import parted

SCHEMA: Final = 1
"""Number of the JSON's format; it changes when a reader of the old one would misread the new one."""
_KEY: Final = 20
_ORIGIN: Final = 46
"""The column in which origins stand, where the value leaves them room."""
_OF_THE_ENGINE: Final = (
    *("name", "kind", "address", "model", "launch", "route", "baseline", "error", "log", "route_check"),
)
_LABELS: Final = {
    "logprobs": "logprobs",
    "token_ids": "token ids",
    "json_schema": "schema enforced",
    "schema_order": "schema in order",
    "seed": "seed repeats",
    "tools": "tools",
    "images": "images",
    "audio": "audio",
    "raw_prompt": "raw prompts",
    "stream_equal": "stream is equal",
    "reasons": "reasons first",
    "reasoning_effort": "reasoning effort",
    "thinking_switch": "thinking switch",
    "unknown_fields": "unknown fields",
    "overflow": "does not fit",
    "context_length": "context verified",
}


def engine_lines(examination: Examination, *, width: int = WIDTH) -> Iterator[str]:
    """Yield one engine: what it is, can do, was told, does otherwise, and what to do about it."""
    engine = examination.engine
    model = engine.model and (engine.model.rpartition("/")[2] if engine.model.startswith("/") else engine.model)
    marks = [engine.kind, model, engine.launch, f"route {engine.route}", "baseline" if engine.baseline else None]
    yield from hanging(printable(f"{engine.name}: {', '.join(mark for mark in marks if mark)}"), width)
    if engine.error is not None:
        yield from _marked("WRONG", [engine.error], width)
        if engine.log:
            yield from hanging(f"  its log: .llmparity/logs/{engine.log}", width)
    else:
        yield from _facts(engine, width)
        yield from _capabilities(examination, width)
    yield from _settings(examination.settings, width)
    yield from _marked("limit", examination.limits, width)
    if engine.error is None:
        yield from _marked("WRONG", examination.wrong, width)
        yield from _marked("advice", examination.advice, width)


def ending_lines(
    examinations: Sequence[Examination], settings: Sequence[Setting], unsearched: Sequence[str], *, width: int = WIDTH
) -> Iterator[str]:
    """Yield what concerns all engines, and the conclusion."""
    yield from _renderings(examinations, width)
    yield "all engines"
    yield from _settings(settings, width, title="")
    if unsearched:
        names = ", ".join(unsearched)
        subject = "its value is" if len(unsearched) == 1 else "their values are"
        text = f"{names}: {subject} too short to be searched for, or known to everybody, and would be stored as it came"
        yield from _marked("advice", [text], width)
    ill = [each.engine.name for each in examinations if not each.well]
    advice = sum(len(each.advice) for each in examinations) + bool(unsearched)
    more = f"; {explain.count(advice, 'piece')} of advice" if advice else ""
    if ill:
        yield from hanging(printable(f"something is wrong with {', '.join(ill)}{more}"), width)
    else:
        yield f"nothing is wrong with {explain.count(len(examinations), 'engine')}{more}"


def _renderings(examinations: Sequence[Examination], width: int) -> Iterator[str]:
    """Yield how every engine renders chats beside the baseline."""
    with_renderings = sorted(
        (each for each in examinations if each.rendered), key=lambda each: not each.engine.baseline
    )
    if len(with_renderings) < 2:
        return
    yield "rendered prompts"
    ours = with_renderings[0]
    for theirs in with_renderings[1:]:
        names = [ours.engine.name, theirs.engine.name]
        for case, text in ours.rendered.items():
            texts = [text, theirs.rendered.get(case)]
            alike = text is not None and texts[0] == texts[1]
            lines = [f"{' and '.join(names)} render {case} alike"] if alike else rendered_apart(case, names, texts)
            for line in lines:
                yield from _wrapped(" " * (4 + len(line) - len(line.lstrip())), line.lstrip(), width)
    yield ""


def to_record(
    examinations: Sequence[Examination], settings: Sequence[Setting], unsearched: Sequence[str], *, version: str
) -> dict[str, Any]:
    """Return everything as JSON builtins, as ``schemas/doctor.schema.json`` says."""
    return {
        "schema": SCHEMA,
        "version": version,
        "well": all(each.well for each in examinations),
        "engines": [_engine(each) for each in examinations],
        "settings": [to_json(each) for each in settings],
        "unsearched_keys": list(unsearched),
    }


def _engine(examination: Examination) -> dict[str, Any]:
    content: dict[str, Any] = to_json(examination)
    engine = content.pop("engine")
    declares, can = engine["declares"], engine["capabilities"]
    probed = can.pop("probed")
    return {
        **{name: engine[name] for name in _OF_THE_ENGINE},
        **content,
        "well": examination.well,
        "identity": engine["identity"]["facts"],
        "capabilities": {
            name: {"value": value, "declared": declares[name], "probed": name in probed} for name, value in can.items()
        },
    }


def _facts(engine: EngineRecord, width: int) -> Iterator[str]:
    yield from hanging(f"  what it is, at {printable(engine.address)}", width)
    names = [name for name in IDENTITY if name in engine.identity.facts]
    for name in names:
        fact = engine.identity.facts[name]
        yield from _row(name, _value(fact), fact.source, width)


def _value(fact: Fact) -> str:
    raw = f" ({fact.raw})" if fact.raw and fact.raw != str(fact.value) else ""
    return f"{fact.value}{raw}"


def _capabilities(examination: Examination, width: int) -> Iterator[str]:
    yield f"  what it can do, by {explain.count(examination.requests, 'request')}"
    can, declares = examination.engine.capabilities, examination.engine.declares
    unlike = can.contradictions(declares)
    for field in dataclasses.fields(Capabilities):
        name = field.name
        if name in ("probed", "odd_logprobs"):  # what is odd is told in words below
            continue
        seen, declared = getattr(can, name), getattr(declares, name)
        if seen is None:
            yield from _row(_LABELS[name], "not known", "", width)
            continue
        how = f"probed, declared {_plain(declared)}" if name in unlike else can.basis(name, declares)
        mark = " <- differs" if name in unlike else ""
        value = f"{seen} tokens" if name == "context_length" else _plain(seen)
        yield from _row(_LABELS[name], value, how + mark, width)
    for name, why in examination.remarks.items():
        yield from _wrapped("    ", f"{name}: {why}", width)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _settings(settings: Iterable[Setting], width: int, *, title: str = "  what it was told") -> Iterator[str]:
    rows = list(settings)
    if rows and title:
        yield title
    for setting in rows:
        yield from _row(setting.key, setting.value, setting.origin, width)


def _row(key: str, value: str, origin: str, width: int) -> Iterator[str]:
    """Yield name, value and where it comes from; a value that leaves the origin no room has it on a line below."""
    head = f"    {printable(key):<{_KEY}} "
    shown, source = printable(value), printable(origin)
    beside = max(_ORIGIN - len(head), cells(shown) + 2)
    if not source or len(head) + beside + cells(source) <= width:
        yield (f"{head}{pad(shown, beside)}{source}" if source else f"{head}{shown}").rstrip()
        return
    for text in (shown, source):
        lines = wrapped(text, width - len(head)) or [text]
        yield f"{head}{lines[0]}"
        head = " " * len(head)
        yield from (head + line for line in lines[1:])


def _marked(mark: str, texts: Iterable[str], width: int) -> Iterator[str]:
    for text in texts:
        yield from _wrapped(f"  {mark:<7} ", text, width)


def _wrapped(head: str, text: str, width: int) -> Iterator[str]:
    """Yield a text in lines of at most ``width`` columns; a command that installs is a line of its own, unbroken."""
    indent = " " * len(head)
    for paragraph in text.split("\n"):
        prose, *rest = parted(paragraph)
        yield from wrapped(printable(prose), width, head=head, indent=indent) or [head.rstrip()]
        head = indent
        for command, behind in zip(rest[::2], rest[1::2], strict=True):
            yield f"{indent}{printable(command)}"
            yield from wrapped(printable(behind.lstrip(" ")), width, head=indent, indent=indent)
