"""What only some real engines do, held against those engines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Request, Sampling
from pytest_llmparity.engines.start.readiness import wait_ready
from pytest_llmparity.transport.exchange import Exchange
from tests.engines.live import PYTHONS, Served, folder, start

Send = Callable[..., Exchange]

pytestmark = pytest.mark.live

CAPITAL = ({"role": "user", "content": "What is the capital of France?"},)
STORY = ({"role": "user", "content": "Tell me a story in four sentences."},)
ONLY = {kind: pytest.mark.parametrize("served", [kind], indirect=True) for kind in ("llamacpp", *PYTHONS)}


@ONLY["llamacpp"]
def test_slots_are_reported(served: Served) -> None:
    assert served.adapter.identity().get("slots") == 2


# ---- llama-cpp-python ----------------------------------------------------------------------------------------------


@ONLY["llamacpp-python"]
def test_streams_wait_for_each_other_instead_of_cutting_each_other(served: Served, send: Send) -> None:
    def ask(seed: int) -> str:
        sampling = Sampling(max_tokens=60, temperature=1.0, seed=seed)
        answer = send(served.adapter, Request(case="c", messages=STORY, sampling=sampling))
        return served.adapter.read(answer, case="c").finish_reason

    with ThreadPoolExecutor(4) as pool:
        reasons = set(pool.map(ask, range(4)))

    assert reasons <= {"stop", "length"}


@ONLY["llamacpp-python"]
def test_own_timing_comes_with_answers_that_come_whole(served: Served, send: Send) -> None:
    whole, streamed = (
        served.adapter.read(send(served.adapter, Request(case="c", messages=CAPITAL), stream=stream), case="c")
        for stream in (False, True)
    )

    assert whole.server["openai-processing-ms"] > 0
    assert streamed.server == {}


# ---- MLX -----------------------------------------------------------------------------------------------------------


@ONLY["mlx"]
def test_folder_mlx_cannot_load_ends_the_start(served: Served, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "llama"}')
    spec = dataclasses.replace(folder("mlx"), model_path=broken)

    with pytest.raises((errors.LaunchError, errors.EngineDied), match="died"):
        start(spec, tmp_path)


@ONLY["mlx"]
def test_prompt_cache_is_off(served: Served, send: Send) -> None:
    answers = [send(served.adapter, Request(case="c", messages=CAPITAL)) for _ in range(2)]

    assert [served.adapter.read(answer, case="c").cached_tokens for answer in answers] == [0, 0]


@ONLY["mlx"]
def test_sampled_answers_carry_no_logprobs_and_are_streamed(served: Served, send: Send) -> None:
    sampling = Sampling(temperature=1.5, max_tokens=8)
    request = Request(case="c", messages=STORY, sampling=sampling, top_logprobs=5)

    answer = send(served.adapter, request)

    assert "event-stream" in answer.headers["content-type"]
    assert served.adapter.read(answer, case="c").logprobs == ()


@ONLY["mlx"]
def test_conversation_the_template_cannot_render_is_a_failure_not_a_missing_model(served: Served, send: Send) -> None:
    request = Request(case="c", messages=({"role": "user", "content": 5},))

    with pytest.raises(errors.ServerFailure, match="404 whenever it fails to answer"):
        served.adapter.read(send(served.adapter, request, stream=False), case="c")


# ---- transformers --------------------------------------------------------------------------------------------------


@ONLY["transformers"]
def test_pinned_server_refuses_another_model(served: Served) -> None:
    body = json.dumps({"model": "other", "messages": CAPITAL}).encode()

    reply = served.adapter.control.post("/v1/chat/completions", body, timeout_s=300)

    with pytest.raises(errors.ModelMissing, match="pinned to 'tiny'"):
        served.adapter.read(reply, case="c")


@ONLY["transformers"]
def test_temperature_above_zero_samples(served: Served, send: Send) -> None:
    texts = set()
    for seed in range(4):
        sampling = Sampling(temperature=1.5, max_tokens=16, seed=seed)
        answer = send(served.adapter, Request(case="c", messages=STORY, sampling=sampling))
        texts.add(served.adapter.read(answer, case="c").text)

    assert len(texts) > 1


# ---- LiteLLM -------------------------------------------------------------------------------------------------------


@ONLY["litellm"]
def test_equal_requests_are_both_asked_upstream(served: Served, send: Send) -> None:
    request = Request(case="c", messages=CAPITAL, sampling=Sampling(max_tokens=9))

    texts = {served.adapter.read(send(served.adapter, request), case="c").text for _ in range(2)}

    assert texts == {"The capital of France is P"}


@ONLY["litellm"]
@pytest.mark.parametrize("stream", [True, False])
def test_answer_out_of_the_cache_is_an_error(stream: bool, served: Served) -> None:
    body = json.dumps({"model": "tiny", "messages": CAPITAL, "max_tokens": 7, "stream": stream}).encode()

    replies = [served.adapter.control.post("/v1/chat/completions", body, timeout_s=300) for _ in range(2)]

    assert served.adapter.read(replies[0], case="c").text == "The capital of France"
    with pytest.raises(errors.Substituted, match="from its cache"):
        served.adapter.read(replies[1], case="c")


@ONLY["litellm"]
def test_fallback_is_an_error_where_it_is_allowed_and_a_failure_where_it_is_not(served: Served, send: Send) -> None:
    adapter = type(served.adapter)(
        dataclasses.replace(served.adapter.spec, model="broken"), served.adapter.base_url, {}
    )
    body = json.dumps({"model": "broken", "messages": CAPITAL, "num_retries": 0}).encode()

    with pytest.raises(errors.Substituted, match="fell back to 'tiny'"):
        adapter.read(adapter.control.post("/v1/chat/completions", body, timeout_s=300), case="c")
    with pytest.raises(errors.ServerFailure, match="Connection error"):
        adapter.read(send(adapter, Request(case="c", messages=CAPITAL)), case="c")


@ONLY["litellm"]
def test_identity_says_what_is_behind_the_proxy(served: Served) -> None:
    facts = served.adapter.identity().facts

    assert str(facts["upstream"].value).startswith("openai/tiny-F16.gguf at http://127.0.0.1:")
    assert {facts[name].source for name in ("upstream", "version", "model")} == {"reported"}


@ONLY["litellm"]
def test_proxys_own_time_is_told(served: Served, send: Send) -> None:
    completion = served.adapter.read(send(served.adapter, Request(case="c", messages=CAPITAL), stream=False), case="c")

    assert (
        0 < completion.server["x-litellm-overhead-duration-ms"] <= completion.server["x-litellm-response-duration-ms"]
    )


@ONLY["litellm"]
def test_model_that_is_not_of_the_configuration_ends_the_start(served: Served) -> None:
    asked_for = dataclasses.replace(served.adapter.spec, model="nobody")
    adapter = type(served.adapter)(asked_for, served.adapter.base_url, {})

    with pytest.raises(errors.LaunchError, match="serves no 'nobody', but tiny, broken"):
        wait_ready(adapter, lambda: None, 60)
