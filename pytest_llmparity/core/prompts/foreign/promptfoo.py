"""Promptfoo's configurations: every prompt with every test's variables, and the assertions that are exact."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import yaml

from pytest_llmparity.core.errors import PromptSetError
from pytest_llmparity.core.prompts.foreign import Imported, Row, messages, user

_FILE: Final = "file://"
_FIELD: Final = re.compile(r"\{\{-?\s*(?P<name>[A-Za-z_][\w.]*)\s*-?\}\}")
_OTHER: Final = re.compile(r"\{[%{#]")
_SPLIT: Final = re.compile(r"^---\s*$", re.MULTILINE)


def promptfoo(text: str, source: str, beside: Callable[[str], str]) -> Imported:
    """Return the cases of a configuration: each prompt filled with the variables of each test.

    ``beside`` reads what ``file://`` names. Prompts are text, or a chat as JSON or YAML; only plain ``{{variables}}``
    are filled. Of assertions *equals*, *contains*, *contains-all* and *is-json* with a schema become ``expect``; other
    assertions, scripts, transforms and providers are told. All prompts of one test are one group.
    Format: https://www.promptfoo.dev/docs/configuration/reference.
    """
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PromptSetError(f"{source}: not YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, Mapping):
        raise PromptSetError(f"{source}: expected a configuration of promptfoo, with prompts and tests")
    imported = Imported()
    prompts = [prompt for value in _listed(config.get("prompts")) for prompt in _prompts(value, beside, imported)]
    tests = _listed(config.get("tests")) or [{}]
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
    variables = {**(default.get("vars") or {}), **(test.get("vars") or {})}
    if any(isinstance(value, list) for value in variables.values()):
        imported.leave(name, "a variable is a list, which promptfoo spreads into tests of their own")
        return
    values = {key: _value(value, beside) for key, value in variables.items()}
    expect = _expect([*_listed(default.get("assert")), *_listed(test.get("assert"))], imported)
    for key in ("options", "threshold", "providers", "provider"):
        if test.get(key) is not None or default.get(key) is not None:
            imported.lost[f"{key} of a test"] += 1
    for label, prompt in prompts:
        own = f"{name}/{label}" if len(prompts) > 1 else name
        filled, problem = _filled(prompt, values)
        if problem:
            imported.leave(own, problem)
            continue
        row: Row = {"id": own, "messages": _chat(filled)}
        row |= {"group": name} if len(prompts) > 1 else {}
        imported.add(row | ({"expect": dict(expect)} if expect else {}))


def _prompts(value: object, beside: Callable[[str], str], imported: Imported) -> list[tuple[str, str]]:
    """Return the texts of one entry under ``prompts``, each with a label."""
    label = ""
    if isinstance(value, Mapping):
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
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _filled(prompt: str, values: Mapping[str, str]) -> tuple[str, str]:
    """Return a prompt with its variables filled in, or why it cannot be."""
    missing = [match["name"] for match in _FIELD.finditer(prompt) if match["name"] not in values]
    if missing:
        return "", f"no variable {missing[0]}"
    if _OTHER.search(_FIELD.sub("", prompt)):
        return "", "its template does more than fill in variables"
    return _FIELD.sub(lambda match: values[match["name"]], prompt), ""


def _chat(text: str) -> list[Row]:
    """Return a prompt as messages: a chat that is written as JSON or YAML, else one question."""
    try:
        value = yaml.safe_load(text) if text.lstrip().startswith(("[", "- role")) else None
    except yaml.YAMLError:
        value = None
    return messages(value) or user(text)


def _expect(assertions: Sequence[object], imported: Imported) -> Row:
    expect: Row = {}
    for assertion in assertions:
        kind = str(assertion.get("type")) if isinstance(assertion, Mapping) else "?"
        value = assertion.get("value") if isinstance(assertion, Mapping) else None
        exact = (
            isinstance(value, (str, int, float)) and not isinstance(value, bool) and not str(value).startswith(_FILE)
        )
        if kind == "equals" and exact and "{{" not in str(value) and "answer" not in expect:
            expect["answer"] = str(value)
        elif kind == "contains" and exact and "{{" not in str(value):
            expect.setdefault("contains", []).append(str(value))
        elif kind == "contains-all" and isinstance(value, list) and all(isinstance(item, str) for item in value):
            expect.setdefault("contains", []).extend(value)
        elif kind == "is-json" and isinstance(value, Mapping) and "schema" not in expect:
            expect["schema"] = dict(value)
        else:
            imported.lost[f"assertion {kind}"] += 1
    return expect


def _listed(value: object) -> list[Any]:
    return list(value) if isinstance(value, list) else [] if value is None else [value]
