from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Request
from pytest_llmparity.engines.kinds.litellm import LiteLlmAdapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.routes import routes

MESSAGES = ({"role": "user", "content": "What is the capital of France?"},)
ANSWER = b'{"model":"tiny","choices":[{"message":{"content":"Hi"},"finish_reason":"stop"}]}'


def spec(**fields: Any) -> EngineSpec:
    return EngineSpec(**{"name": "cand", "kind": "litellm", "launch": "process", "model": "tiny", **fields})


def reply(body: bytes = ANSWER, **headers: str) -> Reply:
    return Reply(status=200, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=body)


@pytest.fixture
def adapter() -> LiteLlmAdapter:
    return LiteLlmAdapter(spec(), "http://127.0.0.1:1", {})


@pytest.fixture
def rootdir(tmp_path: Path) -> Path:
    """A folder with a configuration and a program called litellm."""
    (tmp_path / "proxy.yaml").write_text("model_list: []\n")
    program = tmp_path / "litellm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return tmp_path


# ---- launch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "args",
    [
        ("--config", "proxy.yaml", "--debug"),
        ("--debug", "--config=proxy.yaml"),
        ("-c", "{rootdir}/proxy.yaml", "--debug"),
    ],
)
def test_configuration_is_found_from_the_rootdir(args: tuple[str, ...], rootdir: Path) -> None:
    wanted = spec(args=tuple(arg.format(rootdir=rootdir) for arg in args))

    launch = LiteLlmAdapter.launch(wanted, 8123, rootdir / ".llmparity", environ={"PATH": str(rootdir)})

    assert launch.argv == (
        *(str(rootdir / "litellm"), "--config", str(rootdir / "proxy.yaml")),
        *("--host", "127.0.0.1", "--port", "8123", "--num_workers", "1", "--debug"),
    )
    assert launch.deadline_s == LiteLlmAdapter.deadline_s
    assert launch.env["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"


@pytest.mark.parametrize(("args", "message"), [((), "give args = "), (("--config", "none.yaml"), "there is no file")])
def test_missing_configuration_is_told(args: tuple[str, ...], message: str, rootdir: Path) -> None:
    with pytest.raises(errors.LaunchError, match=message):
        LiteLlmAdapter.launch(spec(args=args), 1, rootdir / ".llmparity", environ={"PATH": str(rootdir)})


@pytest.mark.parametrize(
    ("fields", "environ", "key"),
    [
        ({"api_key_env": "PROXY_KEY"}, {"PROXY_KEY": "sk-proxy-0123456789"}, "sk-proxy-0123456789"),
        ({"api_key_env": "PROXY_KEY"}, {}, None),
        ({}, {"LITELLM_MASTER_KEY": "sk-of-somebody-else"}, None),
    ],
)
def test_key_that_requests_carry_is_the_proxys_own(
    fields: dict[str, str], environ: dict[str, str], key: str | None, rootdir: Path
) -> None:
    wanted = spec(args=("--config", "proxy.yaml"), **fields)

    launch = LiteLlmAdapter.launch(wanted, 1, rootdir / ".llmparity", environ={"PATH": str(rootdir), **environ})

    assert launch.env.get("LITELLM_MASTER_KEY") == key
    assert "LITELLM_MASTER_KEY" in launch.scrub


# ---- readiness and identity ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("listed", "served"), [({"data": [{"id": "a"}, {"id": "b"}]}, "but a, b"), ({"data": "none"}, "but none")]
)
def test_proxy_without_our_model_is_noticed(listed: dict[str, Any], served: str) -> None:
    table = {"/health/readiness": (200, {"status": "healthy"}), "/v1/models": (200, listed)}
    with routes(table) as server:
        with pytest.raises(errors.LaunchError, match=f"serves no 'tiny', {served}"):
            LiteLlmAdapter(spec(), server.base_url, {}).ready()

        assert LiteLlmAdapter(spec(launch="attach"), server.base_url, {}).ready() is None


def test_proxy_is_never_made_to_ask_every_model_behind_it() -> None:
    table = {
        "/health/readiness": (200, {"status": "healthy"}),
        "/v1/models": (200, {"data": [{"id": "tiny"}]}),
        "/v1/chat/completions": (200, json.loads(ANSWER)),
    }
    with routes(table) as server:
        adapter = LiteLlmAdapter(spec(), server.base_url, {})
        assert adapter.ready() is None
        adapter.warm_up()
        adapter.identity()

        assert "/health" not in server.asked


def test_version_is_that_of_the_warm_ups_answer() -> None:
    with routes({"/v1/chat/completions": (200, json.loads(ANSWER))}, x_litellm_version="1.106.2") as server:
        adapter = LiteLlmAdapter(spec(launch="attach"), server.base_url, {})
        adapter.warm_up()
        fact = adapter.identity().facts["version"]

    assert (fact.value, fact.source, fact.raw) == ("1.106.2", "reported", "litellm 1.106.2")


def deployment(name: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": params}


@pytest.mark.parametrize(
    ("models", "upstream"),
    [
        (
            [deployment("tiny", model="openai/a", api_base="http://user:secret@10.0.0.5:8000/v1?key=s")],
            "openai/a at http://10.0.0.5:8000/v1",
        ),
        (
            [deployment("tiny", model="openai/b"), deployment("tiny", model="openai/a"), deployment("x", model="c")],
            "openai/a; openai/b",
        ),
        ([{"model_name": "tiny"}], "an unnamed model"),
        ([deployment("x", model="c"), 3], None),
        ("nothing", None),
    ],
)
def test_upstream_is_told_without_what_its_address_carries(models: object, upstream: str | None) -> None:
    with routes({"/model/info": (200, {"data": models})}) as server:
        facts = LiteLlmAdapter(spec(launch="attach"), server.base_url, {}).identity().facts

    assert (facts["upstream"].value if "upstream" in facts else None) == upstream
    assert facts["model"].source == ("declared" if upstream is None else "reported")


# ---- requests and answers ------------------------------------------------------------------------------------------


def test_every_request_forbids_fallbacks_retries_and_the_cache(adapter: LiteLlmAdapter) -> None:
    body = json.loads(adapter.build(Request(case="c", messages=MESSAGES)).body)

    assert body["disable_fallbacks"] is True
    assert body["num_retries"] == 0
    assert body["cache"] == {"no-cache": True, "no-store": True}


STREAM = (
    b'data: {"id":"1","model":"tiny","choices":[{"delta":{"content":"H"}}]}\n\n'
    b'data: {"id":"1","model":"%s","choices":[{"delta":{"content":"i"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(x_litellm_attempted_fallbacks="2", x_litellm_model_group="big"), r"fell back to 'big' \(fallbacks: 2\)"),
        (reply(x_litellm_attempted_fallbacks="1"), "fell back to 'another model'"),
        (reply(x_litellm_cache_key="0123456789abcdef0123"), r"from its cache \(key 0123456789abcde…\)"),
        (reply(STREAM % b"other"), "in the middle of a stream \\('tiny' then 'other'\\)"),
        (
            reply(STREAM.replace(b'"choices"', b'"litellm_fallback":{},"choices"') % b"tiny"),
            "in the middle of a stream",
        ),
    ],
)
def test_answer_of_somebody_else_is_an_error(answer: Reply, message: str, adapter: LiteLlmAdapter) -> None:
    with pytest.raises(errors.Substituted, match=message) as caught:
        adapter.read(answer, case="c")

    assert (caught.value.engine, caught.value.case, caught.value.retryable) == ("cand", "c", False)


@pytest.mark.parametrize("answer", [reply(), reply(x_litellm_attempted_fallbacks="0"), reply(STREAM % b"tiny")])
def test_answer_of_the_model_itself_is_read(answer: Reply, adapter: LiteLlmAdapter) -> None:
    assert adapter.read(answer, case="c").text == "Hi"


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (ANSWER, {"x-litellm-response-duration-ms": 12.5, "x-litellm-overhead-duration-ms": 3.0}),
        (STREAM % b"tiny", {"x-litellm-overhead-duration-ms": 3.0}),
    ],
)
def test_timings_are_those_that_are_whole(body: bytes, named: dict[str, float], adapter: LiteLlmAdapter) -> None:
    answer = reply(body, x_litellm_response_duration_ms="12.5", x_litellm_overhead_duration_ms="3")

    assert adapter.read(answer, case="c").server == named


@pytest.mark.parametrize("raw", ["None", "-1", "nan", "1e9"])
def test_timing_that_is_no_number_is_left_out(raw: str, adapter: LiteLlmAdapter) -> None:
    assert adapter.read(reply(x_litellm_overhead_duration_ms=raw), case="c").server == {}


def test_other_refusals_keep_their_type(adapter: LiteLlmAdapter) -> None:
    with pytest.raises(errors.BadRequest, match="no budget"):
        adapter.read(Reply(status=400, headers={}, body=b'{"error":{"message":"no budget"}}'), case="c")


def test_limits_are_sentences(adapter: LiteLlmAdapter) -> None:
    assert all(" " in limit and not limit.endswith(".") for limit in adapter.limits())
