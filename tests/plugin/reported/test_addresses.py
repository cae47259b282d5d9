"""Addresses as people write them: openvinotoolkit/model_server 2760, crewAIInc/crewAI 7205.

Also arbs-io/github-copilot-llm-gateway 21 (``/v1/v1``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.plugin.reported.wire import Answer, document, events, plain

GATE = """
def test_ask(parity):
    assert {answer.text for answer in parity.ask("When do you open?").values()} == {"Five days."}

def test_client(engine):
    reply = engine.openai().chat.completions.create(model=engine.model, messages=[{"role": "user", "content": "Hi"}])
    assert reply.choices[0].message.content == "Five days."
"""
DENIED = document({"error": {"message": "this key may not list models, ask Jo", "code": 403}}, 403)


def refuse_lists(path: str, headers: Mapping[str, str]) -> Answer | None:
    return DENIED if path.endswith("/models") else None


WRITTEN = [
    ("/v3", "/v3"),
    ("/api/paas/v4", "/api/paas/v4/"),
    ("/v1beta/openai", "/v1beta/openai"),
    ("/llm/chat/v1", "/llm/chat"),
    ("/inference", "/inference"),
    ("", "/chat/completions"),
    ("/v1", "/v1/chat/completions"),
    ("/v1", "/v1/models"),
]
"""Where a server's routes lie, and how its address is written."""


@pytest.mark.slow
def test_any_base_path_and_any_pasted_route_reaches_the_server(project: Any) -> None:
    servers = [(project.engine("", plain("Five days."), prefix=prefix), prefix, written) for prefix, written in WRITTEN]
    project.write("test_app.py", GATE)

    result = project.pytester.runpytest_inprocess(
        *(f"--engines=http://127.0.0.1:{server.port}{written}" for server, _, written in servers)
    )

    for server, prefix, written in servers:
        paths = {asked.path for asked in server.asked if asked.method == "POST"}
        assert paths >= {f"{prefix}/chat/completions"}, (prefix, written)
    result.assert_outcomes(passed=1 + len(WRITTEN))


def test_a_base_path_in_the_configuration_is_the_same(project: Any) -> None:
    server = project.engine("a", plain("Five days."), prefix="/v3")
    address = f"http://127.0.0.1:{server.port}/v3"
    project.write("llmparity.toml", f'[engines.a]\nkind = "openai"\nmodel = "m"\nbase_url = "{address}"\n')
    project.write("test_app.py", GATE)

    project.pytester.runpytest_inprocess("--engines=a").assert_outcomes(passed=2)


def test_a_server_whose_routes_lie_at_its_address_without_a_list_of_models(project: Any) -> None:
    server = project.engine("a", plain("Five days."), prefix="", get=lambda path, headers: document({}, 404))
    project.write("test_app.py", GATE)

    project.pytester.runpytest_inprocess(f"--engines=openai:m@http://127.0.0.1:{server.port}").assert_outcomes(passed=2)


@pytest.mark.slow
def test_a_key_that_may_not_list_models_will_do_where_the_model_is_named(project: Any) -> None:
    server = project.engine("a", plain("Five days."), get=refuse_lists)
    project.write("test_app.py", GATE)
    address = f"http://127.0.0.1:{server.port}/v1"

    project.pytester.runpytest_inprocess(f"--engines={address}#m").assert_outcomes(passed=2)

    result = project.pytester.runpytest_inprocess(f"--engines={address}")
    result.assert_outcomes(failed=1, errors=1)
    text = result.stdout.str().replace("\n", " ")
    assert "this key may not list models, ask Jo" in text
    assert f"{address}#MODEL" in text
    assert "0 models" not in text


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_repeats_the_servers_own_words_without_the_key(
    project: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("THEIR_KEY", "correct-horse-battery")
    refusal = {"error": {"message": "no seat left for correct-horse-battery in team blue", "code": status}}
    server = project.engine("a", lambda body: document(refusal, status))
    project.write(
        "llmparity.toml",
        f'[engines.a]\nkind = "openai"\nmodel = "m"\nbase_url = "http://127.0.0.1:{server.port}"\n'
        'api_key_env = "THEIR_KEY"\n',
    )
    project.write("test_app.py", GATE)

    text = project.pytester.runpytest_inprocess("--engines=a", "--tb=short").stdout.str()

    assert "no seat left for «THEIR_KEY» in team blue" in text
    assert "correct-horse" not in text


@pytest.mark.parametrize("written", ["127.0.0.1:8000", "a=localhost:8000/v1", "[::1]:8000", "openai:m@gpu:8000"])
def test_an_address_without_a_scheme_is_refused_with_what_to_write(project: Any, written: str) -> None:
    result = project.pytester.runpytest_inprocess(f"--engines={written}")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    bare = written.removeprefix("a=")
    expected = "openai:m@http://gpu:8000" if "@" in bare else f"http://{bare}"
    assert f"write {expected}" in result.stderr.str()


def test_a_web_application_that_answers_every_path_is_no_list_of_models(project: Any) -> None:
    page = Answer([b"<html><title>My shop</title></html>"], "text/html")
    server = project.engine("a", lambda body: events(), get=lambda path, headers: page)
    project.write("test_app.py", GATE)

    text = project.pytester.runpytest_inprocess(f"--engines=http://127.0.0.1:{server.port}").stdout.str()

    assert "My shop" in text
    assert "serves 0 models" not in text
