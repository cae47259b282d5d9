"""Promptfoo's configurations: every prompt with every test's variables, and the assertions that are exact."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import yaml

from pytest_llmparity.core.compare.json import parse_json
from pytest_llmparity.core.errors import PromptSetError
from pytest_llmparity.core.prompts.foreign import Imported, PromptRow, listed, messages, user

_FILE: Final = "file://"
_FIELD: Final = re.compile(r"\{\{-?\s*(?P<name>[A-Za-z_][\w.]*)\s*-?\}\}")
_OTHER: Final = re.compile(r"\{[%{#]")
_READ: Final = frozenset({"type", "value", "weight", "metric"})
"""Keys of an assertion that are read, or say nothing of what is right."""
_OF_A_CONFIGURATION: Final = frozenset({"$schema", "description", "prompts", "tests", "defaultTest"})
_OF_A_TEST: Final = frozenset({"description", "vars", "assert"})
_OF_A_PROMPT: Final = frozenset({"id", "label", "raw"})
_LONGEST: Final = 2**20
_SPLIT: Final = re.compile(r"^---\s*$", re.MULTILINE)


def promptfoo(text: str, source: str, beside: Callable[[str], str]) -> Imported:
    """Return the cases of a configuration: each prompt filled with the variables of each test.

    ``beside`` reads what ``file://`` names. Prompts are text, or a chat as JSON or YAML; only plain ``{{variables}}``
    are filled. Of assertions *equals*, *contains*, *contains-all* and *is-json* with a schema become ``expect``; other
    assertions, scripts, transforms, providers and every other key are told. All prompts of one test are one group.
    Format: https://www.promptfoo.dev/docs/configuration/reference.
    """
    config = _read(text, source)
    if not isinstance(config, Mapping):
        raise PromptSetError(f"{source}: expected a configuration of promptfoo, with prompts and tests")
    imported = Imported()
    prompts = [prompt for value in listed(config.get("prompts")) for prompt in _prompts(value, beside, imported)]
    if isinstance(config.get("tests"), Mapping):
        imported.lost["tests from a file"] += 1
    imported.lose(config, _OF_A_CONFIGURATION)
    tests = [] if isinstance(config.get("tests"), Mapping) else listed(config.get("tests")) or [{}]
    given = config.get("defaultTest")
    default: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    if given is not None and not isinstance(given, Mapping):
        imported.lost["defaultTest from a file"] += 1
    if not prompts:
        raise PromptSetError(f"{source}: has no prompts that can be read; expected a list under prompts")
    for number, test in enumerate(tests, start=1):
        if not isinstance(test, Mapping):
            imported.leave(f"test {number}", "it is no mapping: files and generators of tests are not read")
            continue
        _test(number, test, default, prompts, imported, beside)
    return imported


def _test(
    number: int,
    test: Mapping[str, Any],
    default: Mapping[str, Any],
    prompts: Sequence[tuple[str, str]],
    imported: Imported,
    beside: Callable[[str], str],
) -> None:
    name = str(test.get("description") or f"test-{number}")
    given = [part if part is not None else {} for part in (default.get("vars"), test.get("vars"))]
    if not all(isinstance(part, Mapping) for part in given):
        imported.leave(name, "its variables come from a file, or are no mapping")
        return
    variables: dict[str, Any] = {**given[0], **given[1]}
    if any(isinstance(value, list) for value in variables.values()):
        imported.leave(name, "a variable is a list, which promptfoo spreads into tests of their own")
        return
    values = {str(key): _value(value, beside) for key, value in variables.items()}
    if sum(map(len, values.values())) > _LONGEST:
        imported.leave(name, f"its variables are longer than {_LONGEST} characters")
        return
    if any(_FIELD.search(value) for value in values.values()):
        imported.leave(name, "a variable is a template of its own")
        return
    expect = _expect([*listed(default.get("assert")), *listed(test.get("assert"))], imported)
    imported.lose({**default, **test}, _OF_A_TEST, "{} of a test")
    for label, prompt in prompts:
        own = f"{name}/{label}" if len(prompts) > 1 else name
        turns, problem = _turns(prompt, values, imported)
        if problem:
            imported.leave(own, problem)
            continue
        row: PromptRow = {"id": own, "messages": turns}
        row |= {"group": name} if len(prompts) > 1 else {}
        imported.add(row | ({"expect": dict(expect)} if expect else {}))


def _prompts(value: object, beside: Callable[[str], str], imported: Imported) -> list[tuple[str, str]]:
    """Return the texts of one entry under ``prompts``, each with a label."""
    label = ""
    if isinstance(value, Mapping):
        imported.lose(value, _OF_A_PROMPT, "{} of a prompt")
        label, value = str(value.get("label") or value.get("id") or ""), value.get("raw") or value.get("id")
    if not isinstance(value, str):
        imported.leave("a prompt", "it is neither text nor a file")
        return []
    if not value.startswith(_FILE):
        return [(label or "prompt", value)]
    path = value.removeprefix(_FILE)
    if not path.endswith((".txt", ".json", ".yaml", ".yml", ".md", ".j2")):
        imported.leave(path, "a prompt that a script makes is not read")
        return []
    content = beside(path)
    parts = [part.strip() for part in _SPLIT.split(content)] if path.endswith((".txt", ".md")) else [content]
    stem = label or re.sub(r"\.\w+\Z", "", path.rpartition("/")[2])
    return [(f"{stem}-{n}" if len(parts) > 1 else stem, part) for n, part in enumerate(parts, start=1) if part]


def _value(value: object, beside: Callable[[str], str]) -> str:
    if isinstance(value, str) and value.startswith(_FILE):
        return beside(value.removeprefix(_FILE)).strip()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)[: _LONGEST + 1]


def _turns(prompt: str, values: Mapping[str, str], imported: Imported) -> tuple[list[PromptRow], str]:
    """Return a prompt as messages, variables filled in, or why it cannot be: a chat written as data, or text."""
    missing = [match["name"] for match in _FIELD.finditer(prompt) if match["name"] not in values]
    if missing:
        return [], f"no variable {missing[0]}"
    if _OTHER.search(_FIELD.sub("", prompt)):
        return [], "its template does more than fill in variables"

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return _FIELD.sub(lambda match: values[match["name"]], value)
        if isinstance(value, list):
            return [filled(item) for item in value]
        return {key: filled(item) for key, item in value.items()} if isinstance(value, dict) else value

    chat = None
    if prompt.lstrip().startswith(("[", "- role")):  # filled in after it is read: a variable may hold quotes and lines
        try:
            chat = messages(_read(prompt, "prompt"), imported)
        except PromptSetError:
            chat = None
    return (user(filled(prompt)) if chat is None else filled(chat)), ""


class _AsWritten(yaml.SafeLoader):
    """YAML's reader, with scalars as the text they are written in: ``no``, ``3.10`` and ``12:30`` are words here."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse aliases, by which a small file may stand for a huge one."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not read")
        return super().compose_node(parent, index)


_AsWritten.yaml_implicit_resolvers = {}


def _read(text: str, source: str) -> Any:
    """Return what a YAML or JSON text holds; scalars without quotes are text, but in schemas (:func:`_typed`)."""
    try:
        return yaml.load(text, Loader=_AsWritten)  # noqa: S506 - derived from the safe one
    except yaml.YAMLError as error:
        raise PromptSetError(f"{source}: not YAML: {' '.join(str(error).split())[:200]}") from error
    except RecursionError as error:
        raise PromptSetError(f"{source}: nested too deeply") from error


def _typed(value: Any) -> Any:
    """Return a schema with numbers, truths and null where its text says so, as JSON has them."""
    if isinstance(value, Mapping):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    parsed = parse_json(value) if isinstance(value, str) else None
    return parsed.value if parsed is not None and parsed.error is None else value


def _expect(assertions: Sequence[object], imported: Imported) -> PromptRow:
    expect: PromptRow = {}
    for assertion in assertions:
        kind = str(assertion.get("type")) if isinstance(assertion, Mapping) else "?"
        value = assertion.get("value") if isinstance(assertion, Mapping) else None
        more = sorted(map(str, assertion.keys() - _READ)) if isinstance(assertion, Mapping) else []
        if more:
            imported.lost[f"assertion {kind} with {more[0]}"] += 1
        elif kind == "equals" and _exact(value) and "answer" not in expect:
            expect["answer"] = value
        elif kind == "contains" and _exact(value):
            expect.setdefault("contains", []).append(value)
        elif kind == "contains-all" and isinstance(value, list) and value and all(map(_exact, value)):
            expect.setdefault("contains", []).extend(value)
        elif kind == "is-json" and isinstance(value, Mapping) and "schema" not in expect:
            expect["schema"] = _typed(value)
        else:
            imported.lost[f"assertion {kind}"] += 1
    return expect


def _exact(value: object) -> bool:
    """Whether a value is text that an answer can be held against as it stands."""
    return isinstance(value, str) and bool(value.strip()) and not value.startswith(_FILE) and "{{" not in value
