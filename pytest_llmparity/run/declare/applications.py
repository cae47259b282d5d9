"""From a marker with ``check.value`` to what is called: which arguments the test takes, and which code is behind it."""

from __future__ import annotations

import hashlib
import inspect
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.checks.value import KIND, ValueCheck
from pytest_llmparity.core.errors import DesignError, UsageError
from pytest_llmparity.core.golden.records import set_of, short
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.run.application import CASE, ENGINE_NAMES, Application, parameters_of
from pytest_llmparity.run.declare.prompts import load_prompts

SENT: Final = ("max_tokens", "sampling", "extra_body", "reasoning_effort", "chat_template_kwargs")
"""Arguments of the marker that say how prompts are sent."""
HOW: Final = 'def test_bot(engine, case): return triage(case["mail"], client=engine.openai(), model=engine.model)'


def takes_values(args: Sequence[object]) -> bool:
    """Whether a marker with these arguments makes its test an application."""
    return any(isinstance(arg, ValueCheck) for arg in args)


def application_of(
    test: str, function: Callable[..., object], arguments: Mapping[str, object], *, root: Path
) -> Application:
    """Return a test's function as an application; ``arguments`` are those its parameters give it.

    Raises ``DesignError`` for one that could not be called for every input and engine.
    """
    takes = parameters_of(function)
    given = {name: value for name, value in arguments.items() if name not in (CASE, *ENGINE_NAMES)}
    if CASE not in takes or not any(name in takes for name in ENGINE_NAMES):
        lacks = "case" if CASE not in takes else "engine"
        raise DesignError(
            f"check.value() compares what {test} returns for each input on each engine, so the test takes engine and "
            f"case, and it takes no {lacks}: {HOW}"
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise DesignError(f"{test} yields, and check.value() compares what a test returns: return the value")
    for name, parameter in takes.items():
        known = name in (CASE, *ENGINE_NAMES) or name in given
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or known:
            continue
        if parameter.default is parameter.empty:
            raise DesignError(
                f"{test} takes {name}, and a test with check.value() is called for every input before the first test, "
                f"when there are no fixtures: it takes engine, case and its own parameters; make {name} in a function"
            )
    return Application(test=test, function=function, arguments=given, code=code_of(function, root))


def inputs_of(test: str, value: object, folders: Sequence[Path]) -> PromptSet:
    """Return the inputs that a marker names, as a set of the test's own.

    Its name is the test's with its path, which is also that of its golden answers: files of one name share none.
    """
    prompts = load_prompts(value, folders, test=test, inputs=True)
    return PromptSet(name=name_of(test), cases=prompts.cases)


def name_of(test: str) -> str:
    """Return the name of a test's inputs, which no other test's have, also where names of golden sets are simplified.

    >>> name_of("tests/test_app.py::test_bot[en]"), name_of("tests/test_app.py::TestBot::test_bot")
    ('tests.test_app.test_bot-en', 'tests.test_app.TestBot.test_bot')
    >>> name_of("test_app.py::test_bot[a/b]") == name_of("test_app.py::test_bot[a:b]")
    False
    """
    path, _, inside = test.partition("::")
    folders = Path(path).with_suffix("").parts
    function, bracket, values = inside.removesuffix("]").partition("[")
    name = ".".join((*folders, *function.split("::"))) + (f"-{values}" if bracket else "")
    if set_of(name) == name and not any("." in folder for folder in folders):
        return name
    return f"{name}-{short(test)}"


def refuse_mixed(test: str, checks: Sequence[Any], kwargs: Mapping[str, object]) -> None:
    """Raise ``UsageError`` for what makes no sense beside ``check.value``."""
    others = [check for check in checks if getattr(check, "kind", KIND) != KIND]
    if others:
        raise UsageError(
            f"check.{others[0]} judges what engines answer to prompts, and {test} returns values: its engines are "
            "asked nothing but what the application asks; give it a test of its own, without check.value()"
        )
    for name in SENT:
        if kwargs.get(name) is not None:
            raise UsageError(
                f"the parity marker of {test} has {name} beside check.value(): the application sends its own requests, "
                "so say it there"
            )
    if kwargs.get("repeats") is not None:
        raise UsageError(
            f"the parity marker of {test} has repeats beside check.value(): drift=0.05 runs each input twice"
        )


def _content(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError:
        return ""


def code_of(function: Callable[..., object], root: Path) -> str:
    """Return a hash of the project's code that a function reaches by what its modules import at their top."""
    waiting = [inspect.unwrap(function).__module__]
    reached: dict[str, str] = {}
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        path = getattr(module, "__file__", None)
        if module is None or name in reached or not isinstance(path, str) or not _ours(path, root):
            continue
        reached[name] = _content(path)
        for value in list(vars(module).values()):
            inner = value.__name__ if isinstance(value, types.ModuleType) else _module_of(value)
            if isinstance(inner, str):
                waiting.append(inner)
    return hashlib.sha256(repr(sorted(reached.items())).encode()).hexdigest()


def _module_of(value: object) -> object:
    try:
        return getattr(value, "__module__", None)
    except Exception:  # noqa: BLE001 - a global of somebody's module may be anything
        return None


def _ours(path: str, root: Path) -> bool:
    """Whether a file is the project's: below its root, and not of an environment there."""
    where = Path(path)
    return where.is_relative_to(root) and not {"site-packages", "dist-packages"} & set(where.parts)
