"""Proxy variables meant for the internet: THUDM/slime pull 1714, run-llama/llama_index 13526.

Engines are asked directly, by every client.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.plugin.reported.wire import plain, serving

TESTS = """
import asyncio

def ask(engine):
    return dict(model=engine.model, messages=[{"role": "user", "content": "Hi"}])

def test_application(engine):
    assert engine.openai().chat.completions.create(**ask(engine)).choices[0].message.content == "Five days."

def test_asynchronous(engine):
    async def go():
        async with engine.async_openai() as client:
            return await client.chat.completions.create(**ask(engine))
    assert asyncio.run(go()).choices[0].message.content == "Five days."

def test_ask(parity):
    assert parity.ask("When do you open?")["a"].text == "Five days."
"""


def test_no_request_goes_to_a_proxy_that_only_the_environment_names(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.engine("a", plain("Five days."))
    project.write("test_app.py", TESTS)
    project.write(".netrc", "machine 127.0.0.1 login me password hunter2\n")
    monkeypatch.setenv("NETRC", str(project.pytester.path / ".netrc"))
    with serving(plain("from the proxy")) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.setenv(name, "")
        project.run().assert_outcomes(passed=3)

        assert proxy.asked == []
