"""Engines that tell how they render a chat, and whose answers depend on nothing but that."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.testing import FaultProxy
from pytest_llmparity.testing.proxy import Change
from tests.doubles.posing import PosingEngine
from tests.doubles.rendering import rendered
from tests.run.conftest import Project

WORDS = 8
"""Words of every answer."""


def answer(request: Mapping[str, Any]) -> str:
    """Return words that depend on the rendered prompt, and on sampling where that is not greedy or is biased.

    As on llama.cpp ``top_k`` 1 keeps a temperature and XTC from what they do, and DRY acts before it.
    """
    prompt = request["prompt"] if "prompt" in request else rendered(request["messages"])
    hot = (request.get("temperature", 0) > 0 or request.get("xtc_probability", 0) > 0) and request.get("top_k") != 1
    biased = f"{request.get('logit_bias', '')}{request.get('dry_multiplier') or ''}"
    seed = hashlib.sha256(f"{prompt}{'hot' if hot else ''}{biased}".encode()).hexdigest()
    return " ".join(f"w{seed[2 * i : 2 * i + 2]}" for i in range(WORDS))


class Renderer(PosingEngine):
    """An engine that poses as llama.cpp and renders chats by :func:`rendered`."""

    def __init__(self) -> None:
        super().__init__(answer, poses_as="llamacpp")

    def asked(self, path: str, body: Mapping[str, Any]) -> object | None:
        return {"prompt": rendered(body["messages"])} if path == "/apply-template" else None


class Planted:
    """An engine, and proxies in front of it that change it."""

    def __init__(self, project: Project, stack: ExitStack) -> None:
        self.project = project
        self._stack = stack
        self.engine = stack.enter_context(Renderer())

    def enter(self, engine: PosingEngine) -> PosingEngine:
        """Start another engine, which lives as long as the test."""
        return self._stack.enter_context(engine)

    def behind(self, *changes: Change) -> FaultProxy:
        """Return a proxy with these changes."""
        return self._stack.enter_context(FaultProxy(self.engine.base_url, *changes))


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    """Return an engine to change."""
    with ExitStack() as stack:
        yield Planted(Project(tmp_path, stack), stack)
