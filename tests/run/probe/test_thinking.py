"""Probes of what requests say of reasoning: a yes where anything changes, a no only where nothing does."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.engines import registry
from pytest_llmparity.run.probe.probes import probe
from pytest_llmparity.run.probe.thinking import EFFORT, SWITCH
from pytest_llmparity.testing import Fault, LoopbackEngine, Reply

if TYPE_CHECKING:
    from tests.run.conftest import Project


def by_effort(request: Mapping[str, Any]) -> Reply:
    return Reply(text="A harbour.", reasoning="" if request.get("reasoning_effort") == "none" else "Let me see.")


def by_switch(request: Mapping[str, Any]) -> Reply:
    off = (request.get("chat_template_kwargs") or {}).get("enable_thinking") is False
    return Reply(text="A harbour.", reasoning="" if off else "Let me see.")


def knows_no_effort(request: Mapping[str, Any]) -> Any:
    return Fault.refuse(400) if "reasoning_effort" in request else "A harbour."


@pytest.mark.parametrize(
    ("answer", "effort", "switch"),
    [
        (by_effort, True, False),
        (by_switch, False, True),
        ("A harbour.", False, False),
        (knows_no_effort, False, False),
    ],
)
def test_what_changes_nothing_is_ignored(project: Project, answer: Any, effort: bool, switch: bool) -> None:
    with LoopbackEngine(answer) as engine:
        adapter = registry.make(project.attached("a", engine, kind="openai"), engine.base_url, environ={})
        asked = probe(adapter, {"effort": EFFORT, "switch": SWITCH}, declares=Capabilities())

    assert asked.values == {"reasoning_effort": effort, "thinking_switch": switch}
    assert asked.requests <= EFFORT.requests + SWITCH.requests
    assert Capabilities(thinking_switch=False).sentence("thinking_switch").startswith("ignores enable_thinking")


def test_an_engine_that_does_not_repeat_itself_proves_nothing(project: Project) -> None:
    answers = (f"Harbour {number}." for number in itertools.count())
    answer: Callable[[Mapping[str, Any]], str] = lambda request: next(answers)  # noqa: E731

    with LoopbackEngine(answer) as engine:
        adapter = registry.make(project.attached("a", engine, kind="openai"), engine.base_url, environ={})
        asked = probe(adapter, {"effort": EFFORT}, declares=Capabilities())

    assert not asked.values
    assert "does not repeat its answers" in asked.notes["effort"]
