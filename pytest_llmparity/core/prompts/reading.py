"""From the text of a prompt file to cases: JSON Lines or YAML, every problem with its line."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Never

from pydantic import ValidationError

from pytest_llmparity.core.collecting import seldom_collected
from pytest_llmparity.core.compare.json import strict_json
from pytest_llmparity.core.errors import PromptSetError, UsageError
from pytest_llmparity.core.prompts import Case, Expect, PromptSet, parts
from pytest_llmparity.core.prompts.entries import MAX_TURNS, InputEntry, PromptEntry
from pytest_llmparity.core.prompts.yaml import MAX_DEPTH, MAX_TEXT, MAX_VALUES, yaml_entries
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.problems import describe, dotted, given

SHOWN = 10
"""Problems reported at once."""

_FIELD = re.compile(r"\{\{|\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}|[{}]")


@seldom_collected()
def parse_prompts(
    text: str, *, source: str, name: str, inputs: bool = False, read: parts.Read | None = None
) -> PromptSet:
    r"""Read a prompt set from the text of a file.

    ``source`` is the file as messages name it; one that ends in ``.yaml`` or ``.yml`` is a YAML list of cases, any
    other is JSON Lines (blank lines, a byte order mark and a final newline do no harm). ``name`` is
    the set's name. With ``inputs`` an entry is an input of an application: any keys, of which ``id``, ``group`` and
    ``tags`` mean what they mean elsewhere, and its prompt is all of it as JSON. ``read`` reads the files that parts of
    a content name; without it none can be named.

    In an entry with ``vars``, ``{name}`` in the prompt and in message contents is replaced and ``{{`` and ``}}`` stand
    for braces; in an entry without it every brace stays, so JSON in a prompt needs no escaping.

    Raises :class:`~pytest_llmparity.core.errors.PromptSetError` with up to ten problems at once, each as
    ``source:line: …``: a broken line, a wrong type, an unknown key, a missing variable, a duplicate id, no case at all.

    >>> cases = parse_prompts('{"id": "a", "prompt": "{n} cats", "vars": {"n": 2}}', source="p.jsonl", name="p").cases
    >>> cases[0].prompt
    '2 cats'
    """
    text = text.removeprefix("\ufeff")
    problems: list[tuple[int, str]] = []
    yaml = source.lower().endswith((".yaml", ".yml"))
    entries = ((*entry, False) for entry in yaml_entries(text, problems)) if yaml else _json_entries(text, problems)
    cases = _cases(entries, problems, place="line ", case_of=_input if inputs else functools.partial(_case, read=read))
    if problems:
        _fail(f"{source}:", problems)
    if not cases:
        raise PromptSetError(f"{source}: holds no cases; write one per line, such as {INPUT if inputs else EXAMPLE}")
    return PromptSet(name=name, cases=cases)


@seldom_collected()
def prompts_of(
    rows: Iterable[object], *, source: str, name: str, inputs: bool = False, read: parts.Read | None = None
) -> PromptSet:
    """Return a prompt set of rows that were made in Python: mappings with the keys of a prompt file's entries.

    Tuples count as lists. ``source`` says in messages where they come from, ``inputs`` and ``read`` are those
    of :func:`parse_prompts`. Raises
    :class:`~pytest_llmparity.core.errors.PromptSetError` as :func:`parse_prompts` does, with the number of the row from
    1, and whatever ``rows`` raises while it is read.

    >>> prompts_of([{"id": "a", "prompt": "Two cats"}], source="rows", name="p").cases[0].prompt
    'Two cats'
    """
    problems: list[tuple[int, str]] = []
    entries = ((number, _as_json(row), False) for number, row in enumerate(rows, start=1))
    cases = _cases(entries, problems, place="row ", case_of=_input if inputs else functools.partial(_case, read=read))
    if problems:
        _fail(f"{source}, row ", problems)
    if not cases:
        raise PromptSetError(f"{source}: no rows; give one for each case, such as {INPUT if inputs else EXAMPLE}")
    return PromptSet(name=name, cases=cases)


def _cases(
    entries: Iterable[tuple[int, object, bool]],
    problems: list[tuple[int, str]],
    *,
    place: str,
    case_of: Callable[..., Case | None],
) -> tuple[Case, ...]:
    """Return the cases of entries, each with its number in the source and whether :func:`_unfit` need not look."""
    cases: list[Case] = []
    seen: dict[str, int] = {}
    for number, value, fit in entries:
        case = case_of(value, number, problems, fit=fit)
        if case is None:
            continue
        if case.id in seen:
            problem = f"case {given(case.id)} was already given in {place}{seen[case.id]}; ids are unique"
            problems.append((number, problem))
            continue
        seen[case.id] = number
        cases.append(case)
    return tuple(cases)


def _as_json(row: object) -> object:
    """Return a row with dictionaries for its mappings and lists for its tuples.

    What is too deep or too much is left as it is, and refused where a case is looked at.
    """
    count = 0

    def plain(value: object, depth: int) -> object:
        nonlocal count
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            return value
        if isinstance(value, Mapping):
            return {key: plain(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(inner, depth + 1) for inner in value]
        return value

    return plain(row, 0)


def messages_of(turns: object, *, place: str) -> tuple[dict[str, Any], ...]:
    """Return messages written in a test, held to the rules of a prompt file; ``UsageError`` names what is wrong.

    ``place`` names the place in messages (``parity.ask``).
    """
    listed = turns
    if isinstance(turns, Sequence) and not isinstance(turns, (str, bytes)):
        listed = [dict(turn) if isinstance(turn, Mapping) else turn for turn in turns]
    problems = [unfit] if (unfit := _unfit({"messages": listed})) is not None else []
    if not problems:
        try:
            entry = PromptEntry.model_validate({"id": "ask", "messages": listed})
        except ValidationError as error:
            problems = describe(error, PromptEntry, hints=HINTS)
        else:
            messages = tuple(message.as_given() for message in entry.messages or ())
            _attached([dict(message) for message in messages], problems, None)
            if not problems:
                return messages
    raise UsageError(f"{place}: {'; '.join(problems)}")


EXAMPLE = '{"id": "refund-1", "messages": [{"role": "user", "content": "How long does a refund take?"}]}'
"""A whole entry, quoted where a file has none."""
INPUT = '{"id": "mail-1", "mail": "Where is my refund?"}'
"""A whole input of an application."""


def _fail(source: str, problems: list[tuple[int, str]]) -> Never:
    shown = [f"{source}{line}: {text}" for line, text in sorted(problems, key=lambda item: item[0])[:SHOWN]]
    if len(problems) > SHOWN:
        shown.append(f"… and {len(problems) - SHOWN} more")
    raise PromptSetError("\n".join(shown))


# -- text to values


def _json_entries(text: str, problems: list[tuple[int, str]]) -> Iterator[tuple[int, object, bool]]:
    """Yield the line of each entry, its value, and whether its text already shows that :func:`_unfit` is content."""
    # Not splitlines(): U+2028 and friends may stand unescaped inside a JSON string.
    for line, raw in enumerate(text.split("\n"), start=1):
        if not raw.strip():
            continue
        if len(raw) > MAX_TEXT:
            problems.append((line, f"has {len(raw)} characters; a case may have {MAX_TEXT}"))
            continue
        try:
            yield line, _as_written(raw, strict_json(raw)), _surely_fit(raw)
        except json.JSONDecodeError as error:
            problems.append((line, f"not JSON at column {error.colno}: {error.msg}; one case per line"))
        except RecursionError:
            problems.append((line, f"nested deeper than {MAX_DEPTH} levels"))
        except ValueError as error:
            problems.append((line, str(error)))


def _surely_fit(raw: str) -> bool:
    """Whether strict JSON has no half characters, is not too deep and has few values, by its text alone."""
    whole = raw.isascii() and "\\u" not in raw
    return whole and len(raw) <= MAX_VALUES and raw.count("{") + raw.count("[") <= MAX_DEPTH


def _as_written(raw: str, entry: Any) -> Any:
    """Return an entry whose ``vars`` hold decimal numbers as they are written: 3.10 is a version, 3.1 another."""
    variables = entry.get("vars") if isinstance(entry, dict) else None
    if not isinstance(variables, dict) or not any(isinstance(value, float) for value in variables.values()):
        return entry
    written = json.loads(raw, parse_float=str)["vars"]
    filled = {name: written[name] if isinstance(value, float) else value for name, value in variables.items()}
    return {**entry, "vars": filled}


# -- values to cases


def _case(
    value: object, line: int, problems: list[tuple[int, str]], *, fit: bool, read: parts.Read | None
) -> Case | None:
    if not isinstance(value, dict):
        problems.append((line, f"is {given(value)}; expected an object with id and messages or prompt"))
        return None
    if not fit and (unfit := _unfit(value)) is not None:
        problems.append((line, unfit))
        return None
    try:
        entry = PromptEntry.model_validate(value)
    except ValidationError as error:
        problems += [(line, text) for text in describe(error, PromptEntry, hints=HINTS)]
        return None
    unfilled: list[str] = []
    case = _filled(entry, line, unfilled, read)
    problems += [(line, text) for text in unfilled]
    return None if unfilled else case


def _input(value: object, line: int, problems: list[tuple[int, str]], *, fit: bool) -> Case | None:
    """Return the case of an application's input: its prompt is the input itself, as JSON."""
    if not isinstance(value, dict):
        problems.append((line, f"is {given(value)}; expected an object with an id and what the application reads"))
        return None
    if not fit and (unfit := _unfit(value)) is not None:
        problems.append((line, unfit))
        return None
    try:
        entry = InputEntry.model_validate(value)
    except ValidationError as error:
        problems += [(line, text) for text in describe(error, InputEntry, hints={})]
        return None
    text = json.dumps(value, ensure_ascii=False)
    return Case(id=entry.id, prompt=text, group=entry.group or entry.id, tags=tuple(entry.tags), line=line)


HINTS = {
    "expected": "what a right answer looks like is expect = {schema, answer, tool, contains}",
    "top_k": 'what OpenAI has no name for belongs under sampling: {"top_k": …}',
    "min_p": 'what OpenAI has no name for belongs under sampling: {"min_p": …}',
    "repetition_penalty": 'what OpenAI has no name for belongs under sampling: {"repetition_penalty": …}',
    "model": "the engine's configuration names it",
    "stream": "checks decide on it",
    "images": 'an image is a part of a content: {"type": "image", "file": "x.png"}',
}


def _unfit(value: object) -> str | None:
    """Return why a value cannot be sent as JSON (types only YAML has, half characters, no end), ``None`` if it can."""
    count = 0
    todo: list[tuple[object, tuple[str | int, ...]]] = [(value, ())]
    while todo:
        item, place = todo.pop()
        count += 1
        if count > MAX_VALUES:
            return f"holds more than {MAX_VALUES} values"
        if len(place) > MAX_DEPTH:
            return f"nested deeper than {MAX_DEPTH} levels"
        if isinstance(item, str):
            if not _whole(item):
                return f"{dotted(place)} holds half a character (a lone surrogate), which no server can be sent"
        elif item is None or isinstance(item, (bool, int)):
            continue
        elif isinstance(item, (dict, Mapping)):  # a dict is known at once, another mapping is asked for
            for key, inner in item.items():
                if not isinstance(key, str):
                    return (
                        f"{dotted(place) or 'the case'} has the key {given(key)}, which is not text; put it in quotes"
                    )
                if not _whole(key):
                    return f"{dotted(place) or 'the case'} has a key that holds half a character (a lone surrogate)"
                todo.append((inner, (*place, key)))
        elif isinstance(item, list):
            todo += [(inner, (*place, index)) for index, inner in enumerate(item)]
        elif isinstance(item, float) and not math.isfinite(item):
            return f"{dotted(place)} is {item}; numbers must be finite"
        elif not isinstance(item, float):
            return f"{dotted(place)} is {given(item)} ({type(item).__name__}); put it in quotes"
    return None


def _whole(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _filled(entry: PromptEntry, line: int, unfilled: list[str], read: parts.Read | None) -> Case:
    messages = None
    if entry.messages is not None:
        messages = tuple(message.as_given() for message in entry.messages)
    prompt = entry.prompt
    if entry.vars is not None:
        prompt = None if prompt is None else _fill(prompt, entry.vars, "prompt", unfilled)
        for index, message in enumerate(messages or ()):
            where, content = f"messages[{index}].content", message.get("content")
            if isinstance(content, str):
                message["content"] = _fill(content, entry.vars, where, unfilled)
            for place, part in enumerate(content if isinstance(content, list) else ()):
                for key in part.keys() & {"text", "file"}:
                    part[key] = _fill(part[key], entry.vars, f"{where}[{place}].{key}", unfilled)
    attached = _attached(messages or (), unfilled, read)
    expect = entry.expect
    return Case(
        id=entry.id,
        messages=messages,
        prompt=prompt,
        group=entry.group or entry.id,
        tags=tuple(entry.tags),
        sampling=entry.overrides(),
        tools=tuple(entry.tools) if entry.tools is not None else None,
        tool_choice=entry.tool_choice,
        response_format=entry.response_format,
        expect=None
        if expect is None
        else Expect(schema=expect.schema_, answer=expect.answer, tool=expect.tool, contains=tuple(expect.contains)),
        line=line,
        extra_body=entry.further(),
        thinking=entry.thinking(),
        tool_results=entry.tool_results or {},
        max_turns=entry.max_turns or MAX_TURNS if entry.tool_results else 0,
        attached=attached,
        n=entry.n if entry.n is not None and entry.n > 1 else 0,
    )


def _attached(messages: Sequence[dict[str, Any]], problems: list[str], read: parts.Read | None) -> dict[str, bytes]:
    """Return the bytes of the messages' parts by their hash, which takes their place; what is wrong is reported."""
    attached: dict[str, bytes] = {}
    for index, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, list):
            continue
        held = []
        for place, part in enumerate(content):
            try:
                held.append(parts.kept(part, attached, read))
            except ValueError as problem:
                problems.append(f"messages[{index}].content[{place}] {problem}")
        message["content"] = held
    return attached


def _fill(text: str, variables: Mapping[str, str], where: str, unfilled: list[str]) -> str:
    """Replace ``{name}``; what cannot be replaced is reported and left as it was."""

    def filling(match: re.Match[str]) -> str:
        whole, name = match.group(), match.group(1)
        if whole in ("{{", "}}"):
            return whole[0]
        if name is None:
            unfilled.append(f"{where} has a lone {whole!r}; with vars, write {whole * 2} for a brace")
        elif name not in variables:
            unfilled.append(f"{where} uses {{{name}}}, which vars does not hold{nearest(name, variables)}")
        else:
            return variables[name]
        return whole

    length = len(text) + sum(len(variables.get(name, "")) for name in _FIELD.findall(text))
    if length > MAX_TEXT:
        unfilled.append(f"{where} would have {length} characters with its variables; a case may have {MAX_TEXT}")
        return text
    return _FIELD.sub(filling, text)
