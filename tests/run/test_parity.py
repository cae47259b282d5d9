"""Rows, checks in the body and clients, as the fixtures hand them out."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openai
import pytest
import trustme

from pytest_llmparity import check
from pytest_llmparity.core.errors import MissingSample, StoreError, UsageError
from pytest_llmparity.core.sample import Completion, Failure, Phase, Sample, ToolCall
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.engines import registry
from pytest_llmparity.run.parity import EngineHandle, EngineRows, Parity, ParityFailure, ParityRun, Row
from pytest_llmparity.settings.specification import EngineSpec

if TYPE_CHECKING:
    from tests.run.conftest import Project


def sample(completion: Completion | None = None, failure: Failure | None = None) -> Sample:
    return Sample(
        engine="a",
        case="c",
        phase=Phase.MAIN,
        repeat=0,
        concurrency=1,
        request_sha256="x",
        completion=completion,
        failure=failure,
    )


def run_of(outcome: Outcome) -> ParityRun:
    verdict = Verdict(test="t", check="text()", kind="text", engine="b", baseline="a", outcome=outcome, message="no")
    rows = {"a": EngineRows("a", {"c": Row("a", "c", [sample(Completion(text="hi"))], missing="")})}
    return ParityRun(lambda: rows, lambda _: [verdict], reproduce="pytest x")


def test_a_row_is_its_first_answer() -> None:
    call = ToolCall(name="f", arguments="{}")
    row = Row("a", "c", [sample(Completion(text="hi", tool_calls=(call,)))], missing="")

    assert (row.text, row.tool_calls, row.timing, len(row.samples)) == ("hi", (call,), None, 1)


def test_a_row_without_an_answer_raises_why() -> None:
    row = Row("a", "c", [], missing="it was stopped")

    assert row.timing is None
    with pytest.raises(MissingSample, match="a has no answer to 'c': it was stopped"):
        _ = row.text


def test_a_failure_that_is_no_engines_keeps_its_type() -> None:
    row = Row("a", "c", [sample(failure=Failure(kind="StoreError", message="full"))], missing="")

    with pytest.raises(StoreError, match="a, c: full"):
        _ = row.text


def test_names_that_are_not_there_are_told_with_those_that_are() -> None:
    run = run_of(Outcome.PASS)
    many = EngineRows("a", {f"c{i}": Row("a", f"c{i}", [], missing="") for i in range(7)})

    assert (list(run), len(run), list(run["a"]), len(many)) == (["a"], 1, ["c"], 7)
    with pytest.raises(KeyError, match="no engine 'z' in this run; it has 'a'"):
        _ = run["z"]
    with pytest.raises(KeyError, match=r"no case 'z' in this prompt set; it has 'c0', .*'c4' and 2 more"):
        _ = many["z"]


def test_a_check_is_soft_unless_told_otherwise() -> None:
    run = run_of(Outcome.FAIL)

    before = run.touched
    run.check(check.prompts())
    with pytest.raises(ParityFailure, match="pytest x"), run.hard():
        run.check(check.prompts())
    run.check(check.prompts())

    assert (before, run.touched) == (False, True)
    assert len(run.verdicts) == 3


def test_a_check_that_does_not_fail_goes_on_inside_hard() -> None:
    run = run_of(Outcome.INCONCLUSIVE)

    with run.hard() as same:
        assert same.check(check.prompts()) == run.verdicts


def test_clients_carry_the_key_the_headers_and_no_retries(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPARITY_TEST_KEY", "a key of some length")
    engine = project.engine("hi", api_key="a key of some length")
    spec = project.attached(
        "a", engine, api_key_env="LLMPARITY_TEST_KEY", headers={"x-team": "search"}, request_timeout_s=7.0
    )
    handle = project.session(spec).handle("a")

    with handle.openai() as client:
        client.chat.completions.create(model=handle.model, messages=[{"role": "user", "content": "hi"}])
    other = handle.async_openai()
    asyncio.run(other.close())

    assert (handle.name, handle.kind, handle.api_key) == ("a", "llamacpp", "a key of some length")
    assert engine.requests[-1].headers["x-team"] == "search"
    assert (client.max_retries, client.timeout, other.timeout) == (0, 7.0, 7.0)


class Listing(BaseHTTPRequestHandler):
    """Lists no models and remembers the path of every request."""

    def do_GET(self) -> None:
        self.server.paths.append(self.path)  # type: ignore[attr-defined]
        body = b'{"object": "list", "data": []}'
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def listing() -> Iterator[Callable[..., tuple[int, list[str]]]]:
    """Start servers that list models, with TLS where a context is given; returns the port and the paths asked for."""
    with contextlib.ExitStack() as stack:

        def start(tls: ssl.SSLContext | None = None) -> tuple[int, list[str]]:
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Listing))
            server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a refused certificate is no news
            server.paths = []  # type: ignore[attr-defined]
            if tls is not None:
                server.socket = tls.wrap_socket(server.socket, server_side=True)
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server.server_address[1], server.paths  # type: ignore[attr-defined]

        yield start


def handle_of(base_url: str, **keys: Any) -> EngineHandle:
    spec = EngineSpec(name="a", kind="openai", model="m", base_url=base_url, request_timeout_s=20.0, **keys)
    adapter = registry.make(spec, base_url, environ={})
    return EngineHandle(
        name="a", kind="openai", model="m", base_url=adapter.openai_base_url, api_key="EMPTY", _adapter=adapter
    )


async def listed(handle: EngineHandle) -> None:
    """List the models with both clients."""

    def once() -> None:
        with handle.openai() as client:
            client.models.list()

    await asyncio.to_thread(once)
    async with handle.async_openai() as client:
        await client.models.list()


async def test_clients_go_through_the_configured_proxy(listing: Callable[..., tuple[int, list[str]]]) -> None:
    port, paths = listing()

    await listed(handle_of("http://engine.example:8000", proxy=f"http://127.0.0.1:{port}"))

    assert paths == ["http://engine.example:8000/v1/models"] * 2


async def test_clients_trust_the_configured_certificates(
    listing: Callable[..., tuple[int, list[str]]], tmp_path: Path
) -> None:
    authority, bundle = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    port, paths = listing(tls)

    await listed(handle_of(f"https://localhost:{port}", ca_bundle=bundle))

    assert paths == ["/v1/models"] * 2
    with pytest.raises(openai.APIConnectionError):
        await listed(handle_of(f"https://localhost:{port}"))


def test_an_unknown_word_for_a_question_is_told(project: Project) -> None:
    from pytest_llmparity.run.ask import SessionAsker

    with pytest.raises(UsageError, match=r"has no parameter .temprature. \(did you mean .temperature.\?\)"):
        Parity(SessionAsker(project.session())).ask("?", temprature=1)


def test_a_row_shows_itself_and_names_what_is_in_it() -> None:
    call = ToolCall(name="refund", arguments='{"order": 7}')
    answer = Completion(
        text="##[add-mask]it\nis", reasoning="hm", finish_reason="stop", prompt_tokens=9, completion_tokens=3
    )
    row = Row("a", "c", [sample(answer)], missing="")
    calling = Row("a", "c", [sample(Completion(text="", tool_calls=(call,), finish_reason="tool_calls"))], missing="")
    failed = Row("a", "c", [sample(failure=Failure(kind="Timeout", message="no byte in 2 s"))], missing="")

    assert (row.reasoning, row.finish_reason, row.usage) == ("hm", "stop", (9, 3, None))
    assert repr(row) == "<Row a, c: '##\\x5badd-mask]it\\nis' (stop)>"
    assert repr(calling) == '<Row a, c: refund({"order": 7}) (tool_calls)>'
    assert repr(failed) == "<Row a, c: Timeout: a, c: no byte in 2 s>"
    assert repr(Row("a", "c", [], missing="it was stopped")).startswith("<Row a, c: MissingSample: a has no answer")
