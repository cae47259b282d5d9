from __future__ import annotations

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Completion, Request, Sampling
from pytest_llmparity.engines.kinds.mlx import ANY_MODEL, MlxAdapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.routes import routes

MESSAGES = ({"role": "user", "content": "What is the capital of France?"},)
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
TOOLS = ({"type": "function", "function": {"name": "f"}},)
FINGERPRINT = "0.32.2-0.32.4-macOS-15.1-arm64-arm-64bit-applegpu_g14s"


def spec(**fields: Any) -> EngineSpec:
    return EngineSpec(**{"name": "cand", "kind": "mlx", "launch": "process", **fields})


def program(folder: Path, name: str) -> str:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def adapter(models: Path) -> MlxAdapter:
    return MlxAdapter(spec(model="tiny", model_path=models), "http://127.0.0.1:1", {})


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A hub cache that holds one revision of a model; returns its snapshot."""
    home = tmp_path / "hub/models--org--model"
    snapshot = home / "snapshots/abc"
    snapshot.mkdir(parents=True)
    (home / "refs").mkdir()
    (home / "refs/main").write_text("abc")
    return snapshot


# ---- launch --------------------------------------------------------------------------------------------------------


def test_launch_switches_the_prompt_cache_off_and_stops_by_interrupt(models: Path, tmp_path: Path) -> None:
    server = program(tmp_path, "mlx_lm.server")
    wanted = spec(model="tiny", model_path=models, slots=2, args=("--temp", "0.5"))

    launch = MlxAdapter.launch(wanted, 8123, tmp_path, environ={"PATH": str(tmp_path)})

    assert launch.argv[:3] == (server, "--model", str(models))
    flags = " ".join(launch.argv[3:])
    assert flags == (
        "--host 127.0.0.1 --port 8123 --prompt-cache-size 0 --decode-concurrency 2 --prompt-concurrency 2 --temp 0.5"
    )
    assert (launch.stop_signal, launch.deadline_s) == (signal.SIGINT, MlxAdapter.deadline_s)


def test_interpreter_runs_the_package(models: Path, tmp_path: Path) -> None:
    python = program(tmp_path, "python-of-mlx")

    launch = MlxAdapter.launch(spec(model_path=models, python=python), 1, tmp_path, environ={"PATH": ""})

    assert launch.argv[:5] == (python, "-m", "mlx_lm", "server", "--model")
    assert "--decode-concurrency" not in launch.argv


def test_cached_revision_is_given_as_its_folder(cached: Path, tmp_path: Path) -> None:
    program(tmp_path, "mlx_lm.server")
    environ = {"PATH": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}

    plain = MlxAdapter.launch(spec(model="org/model"), 1, tmp_path, environ=environ)
    asked = MlxAdapter.launch(spec(model="org/other", download=True), 1, tmp_path, environ=environ)

    assert plain.argv[2] == str(cached)
    assert asked.argv[2] == "org/other"


def test_revision_that_is_not_cached_is_told(cached: Path, tmp_path: Path) -> None:
    program(tmp_path, "mlx_lm.server")
    environ = {"PATH": str(tmp_path), "HF_HUB_CACHE": str(tmp_path / "hub")}

    with pytest.raises(errors.LaunchError, match=r"takes no revision.*hf download org/model --revision def"):
        MlxAdapter.launch(spec(model="org/model", revision="def"), 1, tmp_path, environ=environ)


def test_context_that_cannot_be_limited_is_told(models: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match=r"no limit of context.*leave context_length out"):
        MlxAdapter.launch(spec(model_path=models, context_length=512), 1, tmp_path)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"launch": "process", "model": "org/model"}, ANY_MODEL),
        ({"launch": "attach", "model": "org/model"}, "org/model"),
        ({"launch": "attach", "model": None}, ANY_MODEL),
    ],
)
def test_request_asks_for_the_model_of_the_command_line(fields: dict[str, Any], name: str) -> None:
    assert MlxAdapter.wire_model(spec(**fields)) == name


# ---- readiness and identity ----------------------------------------------------------------------------------------


def test_dead_thread_ends_the_wait(models: Path) -> None:
    with routes({"/health": (503, {"status": "unavailable"})}) as server:
        adapter = MlxAdapter(spec(model_path=models), server.base_url, {})

        with pytest.raises(errors.LaunchError, match="what generates in it has died"):
            adapter.ready()


@pytest.mark.parametrize("listed", [[], ["org/cached"], None])
def test_list_that_names_no_folder_says_nothing_against_the_server(listed: list[str] | None, models: Path) -> None:
    models_list = {} if listed is None else {"data": [{"id": name} for name in listed]}
    with routes({"/health": (200, {"status": "ok"}), "/v1/models": (200, models_list)}) as server:
        assert MlxAdapter(spec(model_path=models), server.base_url, {}).ready() is None


def test_server_of_another_folder_is_noticed(models: Path) -> None:
    table = {"/health": (200, {"status": "ok"}), "/v1/models": (200, {"data": [{"id": "/models/other"}]})}
    with routes(table) as server:
        with pytest.raises(errors.LaunchError, match="serving '/models/other'"):
            MlxAdapter(spec(model_path=models), server.base_url, {}).ready()

        assert MlxAdapter(spec(launch="attach"), server.base_url, {}).ready() is None


def test_fingerprint_of_the_warm_up_tells_versions_and_device() -> None:
    answer = {"system_fingerprint": FINGERPRINT, "choices": [{"message": {"content": "x"}, "finish_reason": "length"}]}
    table = {
        "/v1/chat/completions": (200, answer),
        "/v1/models": (200, {"data": [{"id": "org/cached"}, {"id": "/models/qwen-4bit"}]}),
    }
    with routes(table) as server:
        adapter = MlxAdapter(spec(launch="attach", model=None), server.base_url, {})
        adapter.load()
        facts = adapter.identity().facts

    assert {name: (fact.value, fact.source) for name, fact in facts.items() if name != "kind"} == {
        "version": ("0.32.2", "reported"),
        "build": (FINGERPRINT, "reported"),
        "device": ("applegpu_g14s", "reported"),
        "model": ("qwen-4bit", "reported"),
    }


def test_device_of_our_own_process_is_this_machines(models: Path) -> None:
    answer = {"system_fingerprint": FINGERPRINT, "choices": [{"message": {"content": "x"}, "finish_reason": "length"}]}
    with routes({"/v1/chat/completions": (200, answer)}) as server:
        adapter = MlxAdapter(spec(model_path=models), server.base_url, {})
        adapter.load()

        assert adapter.identity().get("device") != "applegpu_g14s"


def test_fingerprint_of_another_shape_is_only_a_build() -> None:
    answer = {"system_fingerprint": "custom", "choices": [{"message": {"content": "x"}, "finish_reason": "length"}]}
    with routes({"/v1/chat/completions": (200, answer)}) as server:
        adapter = MlxAdapter(spec(launch="attach", model="m"), server.base_url, {})
        adapter.load()
        facts = adapter.identity().facts

    assert facts["build"].value == "custom"
    assert "version" not in facts


def test_folder_and_command_line_tell_the_rest(models: Path) -> None:
    wanted = spec(model="x", model_path=models, revision="abc", args=("--temp", "0.5", "--top-k", "x"))

    facts = MlxAdapter(wanted, "http://127.0.0.1:1", {}).identity().facts

    assert (facts["model"].value, facts["revision"].value) == ("tiny", "abc")
    assert (facts["quantization"].value, facts["quantization"].source) == ("BF16", "file")
    defaults = json.loads(str(facts["sampling_defaults"].value))
    assert (defaults["temperature"], defaults["top_k"], defaults["top_p"]) == (0.5, 0, 1)
    assert "template_sha256" in facts


def test_template_of_the_command_line_hides_the_folders(models: Path) -> None:
    wanted = spec(model="x", model_path=models, args=("--chat-template", "{{ messages }}"))

    assert "template_sha256" not in MlxAdapter(wanted, "http://127.0.0.1:1", {}).from_files()


def test_model_whose_folder_is_not_known_has_only_declared_facts(tmp_path: Path) -> None:
    wanted = spec(model="org/none", env={"HF_HUB_CACHE": str(tmp_path)})

    assert set(MlxAdapter(wanted, "http://127.0.0.1:1", {}).from_files()) == {"sampling_defaults"}


# ---- requests ------------------------------------------------------------------------------------------------------


def body(adapter: MlxAdapter, *, stream: bool = True, **fields: Any) -> dict[str, Any]:
    request = Request(**{"case": "c", "messages": MESSAGES, **fields})
    value = json.loads(adapter.build(request, stream=stream).body)
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"response_format": FORMAT}, "response_format"), ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice")],
)
def test_what_the_server_ignores_is_not_sent(fields: dict[str, Any], field: str, adapter: MlxAdapter) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match=f"cand would ignore {field} of case 'c'"):
        body(adapter, **fields)


def test_what_changes_nothing_is_left_out(adapter: MlxAdapter) -> None:
    sent = body(adapter, response_format={"type": "text"}, tools=TOOLS, tool_choice="auto")

    assert not {"response_format", "tool_choice"} & set(sent)
    assert sent["tools"] == list(TOOLS)


@pytest.mark.parametrize(("asked", "sent"), [(0, 2), (5, 5), (20, 11)])
def test_logprobs_are_asked_for_unstreamed_within_its_limits(asked: int, sent: int, adapter: MlxAdapter) -> None:
    fields = body(adapter, top_logprobs=asked)

    assert (fields["logprobs"], fields["top_logprobs"]) == (True, sent)
    assert "stream" not in fields


def test_raw_prompts_ask_for_logprobs_in_the_chat_routes_words(adapter: MlxAdapter) -> None:
    fields = body(adapter, messages=None, prompt="Hi", top_logprobs=3)

    assert (fields["logprobs"], fields["top_logprobs"]) == (True, 3)
    assert "logprobs" not in body(adapter, messages=None, prompt="Hi")


def test_sampled_requests_ask_for_no_logprobs(adapter: MlxAdapter) -> None:
    fields = body(adapter, top_logprobs=3, sampling=Sampling(temperature=0.7))

    assert "logprobs" not in fields
    assert fields["stream"] is True


# ---- answers -------------------------------------------------------------------------------------------------------

Alternatives = list[tuple[int, str, float]]


@pytest.fixture
def read(adapter: MlxAdapter) -> Callable[..., Completion]:
    def parse(text: str, positions: list[Alternatives], finish: str = "stop", **message: Any) -> Completion:
        content = []
        for tops in positions:
            named = [{"id": number, "token": token, "logprob": value} for number, token, value in tops]
            content.append({**(named[0] if named else {}), "top_logprobs": named})
        choice = {
            "finish_reason": finish,
            "message": {"content": text, **message},
            "logprobs": {"content": content},
        }
        reply = Reply(status=200, headers={}, body=json.dumps({"choices": [choice]}).encode())
        return adapter.read(reply, case="c")

    return parse


def test_likeliest_token_is_named_whatever_stands_first(read: Callable[..., Completion]) -> None:
    completion = read(
        "The cap", [[(9, "One", -8.0), (4, "The", -0.5)], [(7, "Ġcap", -0.25), (8, "Ġdog", -3.0)]], "length"
    )

    assert [(token.token, token.logprob, token.id) for token in completion.logprobs] == [
        (b"The", -0.5, 4),
        (b" cap", -0.25, 7),
    ]
    assert completion.logprobs[0].top == ((b"The", -0.5), (b"One", -8.0))


def test_of_equal_tokens_the_smaller_id_is_taken(read: Callable[..., Completion]) -> None:
    completion = read("The", [[(1094, "One", -0.75), (437, "The", -0.75)]], "length")

    assert (completion.logprobs[0].token, completion.logprobs[0].id) == (b"The", 437)


def test_end_token_and_stop_string_come_after_the_text(read: Callable[..., Completion]) -> None:
    completion = read("Hi", [[(1, "Hi", 0.0)], [(2, "<|im_end|>", -0.5)]])

    assert [token.token for token in completion.logprobs] == [b"Hi", b"<|im_end|>"]


def test_dropped_space_at_the_beginning_is_known(read: Callable[..., Completion]) -> None:
    assert read("is", [[(1, "Ġis", 0.0)]], "length").logprobs[0].token == b" is"


def test_sentence_piece_spelling_is_tried_too(read: Callable[..., Completion]) -> None:
    completion = read("é ja", [[(1, "<0xC3>", 0.0)], [(2, "<0xA9>", 0.0)], [(3, "▁ja", 0.0)]], "length")

    assert [token.token for token in completion.logprobs] == [b"\xc3", b"\xa9", b" ja"]


def test_reasoning_stands_before_the_text(read: Callable[..., Completion]) -> None:
    positions = [[(1, "<think>", 0.0)], [(2, "hm", 0.0)], [(3, "</think>", 0.0)], [(4, "Hi", 0.0)]]

    assert len(read("Hi", positions, "length", reasoning="hm").logprobs) == 4


@pytest.mark.parametrize(
    ("text", "positions", "finish"),
    [
        ("One", [[(1, "One", -2.0), (2, "The", -0.5)]], "length"),  # the likeliest was not taken
        ("The", [[(1, "The", 0.0)], [(2, "Ġend", 0.0)]], "length"),  # more tokens than text
        ("The", [[(1, "xxThe", 0.0)]], "stop"),
        ("The", [[]], "stop"),
    ],
)
def test_logprobs_that_do_not_spell_the_answer_are_dropped(
    text: str, positions: list[Alternatives], finish: str, read: Callable[..., Completion]
) -> None:
    completion = read(text, positions, finish)

    assert (completion.text, completion.logprobs) == (text, ())


def test_alternative_without_a_number_ends_the_list(adapter: MlxAdapter) -> None:
    entry = {"token": "Hi", "logprob": 0.0, "top_logprobs": [{"token": "Hi", "logprob": None, "id": 1}]}
    choice = {"finish_reason": "stop", "message": {"content": "Hi"}, "logprobs": {"content": [entry]}}

    completion = adapter.read(Reply(status=200, headers={}, body=json.dumps({"choices": [choice]}).encode()), case="c")

    assert completion.logprobs == ()


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        ("generation thread died", errors.EngineDied, "404 whenever it fails"),
        ("can only concatenate str", errors.ServerFailure, "404 whenever it fails"),
        ("Repo id must use alphanumeric chars", errors.ModelMissing, "Name a model"),
        ("Not Found", errors.AnswerError, "no such route"),
    ],
)
def test_404_is_told_apart(message: str, error: type[errors.EngineError], words: str, adapter: MlxAdapter) -> None:
    with pytest.raises(errors.EngineError, match=words) as caught:
        adapter.read(Reply(status=404, headers={}, body=json.dumps({"error": message}).encode()), case="c")

    assert type(caught.value) is error
    assert (caught.value.engine, caught.value.case, caught.value.status) == ("cand", "c", 404)


def test_limits_are_sentences(adapter: MlxAdapter) -> None:
    assert all(" " in limit and not limit.endswith(".") for limit in adapter.limits())


def test_attached_server_is_loaded_within_the_time_a_start_may_take() -> None:
    answer = {"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}
    with routes({"/v1/chat/completions": (200, answer)}) as server:
        adapter = MlxAdapter(dataclasses.replace(spec(launch="attach"), start_timeout_s=3.0), server.base_url, {})

        adapter.load()

        assert server.asked == ["/v1/chat/completions"]
