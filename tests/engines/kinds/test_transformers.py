from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Request, Sampling
from pytest_llmparity.engines.kinds.transformers import TransformersAdapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.settings.specification import EngineSpec

MESSAGES = ({"role": "user", "content": "What is the capital of France?"},)
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
TOOLS = ({"type": "function", "function": {"name": "f"}},)
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


def spec(**fields: Any) -> EngineSpec:
    return EngineSpec(**{"name": "cand", "kind": "transformers", "launch": "process", **fields})


def program(folder: Path, name: str) -> str:
    file = folder / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def adapter(models: Path) -> TransformersAdapter:
    return TransformersAdapter(spec(model="tiny", model_path=models), "http://127.0.0.1:1", {})


# ---- launch --------------------------------------------------------------------------------------------------------


def test_folder_is_served_by_its_name_from_its_parent(models: Path, tmp_path: Path) -> None:
    server = program(tmp_path, "transformers")
    wanted = spec(model="tiny", model_path=models, args=("--dtype", "float32"))

    launch = TransformersAdapter.launch(wanted, 8123, tmp_path, environ={"PATH": str(tmp_path), **NO_GPU})

    assert launch.argv[:3] == (server, "serve", "tiny")
    flags = " ".join(launch.argv[3:])
    assert flags == "--host 127.0.0.1 --port 8123 --default-seed 0 --device cpu --dtype float32"
    assert (launch.cwd, launch.deadline_s) == (models.parent, TransformersAdapter.deadline_s)
    assert TransformersAdapter.wire_model(wanted) == "tiny"


def test_hub_model_is_served_at_its_revision(tmp_path: Path) -> None:
    python = program(tmp_path, "python-of-it")
    program(tmp_path, "transformers")
    (tmp_path / "hub/models--org--model/snapshots").mkdir(parents=True)
    wanted = spec(model="org/model", revision="abc", python=python)
    environ = {"PATH": "", "HF_HUB_CACHE": str(tmp_path / "hub"), **NO_GPU}

    launch = TransformersAdapter.launch(wanted, 1, tmp_path, environ=environ)

    assert launch.argv[:3] == (str(tmp_path / "transformers"), "serve", "org/model@abc")
    assert launch.cwd == tmp_path


def test_graphics_card_is_left_to_the_server(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "transformers")
    monkeypatch.setattr("pytest_llmparity.engines.start.program.gpu_visible", lambda environ: True)

    launch = TransformersAdapter.launch(spec(model_path=models), 1, tmp_path, environ={"PATH": str(tmp_path)})

    assert "--device" not in launch.argv


@pytest.mark.parametrize("fields", [{"context_length": 512}, {"slots": 2}])
def test_limits_it_does_not_have_are_told(fields: dict[str, int], models: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="no limit of context and no slots"):
        TransformersAdapter.launch(spec(model_path=models, **fields), 1, tmp_path)


def test_file_is_no_folder(models: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.LaunchError, match="takes a Hugging Face folder"):
        TransformersAdapter.launch(spec(model_path=models / "tiny-F16.gguf"), 1, tmp_path)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"model": "org/model"}, "org/model"),
        ({"model": "org/model", "revision": "abc"}, "org/model@abc"),
        ({"model": "org/model@abc", "launch": "attach", "revision": "abc"}, "org/model@abc"),
        ({"model": None, "launch": "attach"}, ""),
    ],
)
def test_name_is_the_one_the_server_was_pinned_to(fields: dict[str, Any], name: str) -> None:
    assert TransformersAdapter.wire_model(spec(**fields)) == name


# ---- identity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "value", "source"),
    [
        ((), "BF16", "file"),
        (("--dtype", "auto"), "BF16", "file"),
        (("--dtype", "float32"), "F32", "declared"),
        (("--dtype", "float16", "--quantization", "bnb-4bit"), "NF4", "declared"),
        (("--quantization", "bnb-8bit"), "INT8", "declared"),
        (("--quantization", "new-method"), "NEW_METHOD", "declared"),
    ],
)
def test_quantisation_follows_files_and_arguments(args: tuple[str, ...], value: str, source: str, models: Path) -> None:
    wanted = spec(model="tiny", model_path=models, args=args)

    fact = TransformersAdapter(wanted, "http://127.0.0.1:1", {}).from_files()["quantization"]

    assert (fact.value, fact.source) == (value, source)


def test_version_is_that_of_the_interpreters_environment(models: Path, tmp_path: Path) -> None:
    about = tmp_path / "env/lib/python3.11/site-packages/transformers-5.19.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.19.0\n")
    (tmp_path / "env/bin").mkdir()
    python = str(tmp_path / "env/bin/python")

    def version(**fields: Any) -> object:
        return (
            TransformersAdapter(spec(model_path=models, **fields), "http://127.0.0.1:1", {}).identity().get("version")
        )

    assert version(python=python) == "5.19.0"
    assert version(python=python, command=("wrapper",)) is None
    assert version(python="/usr/bin/python3") is None
    assert version() is None


def test_samplings_of_the_model_are_its_defaults(models: Path, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.6, "do_sample": true}')

    def defaults(folder: Path) -> object:
        return (
            TransformersAdapter(spec(model_path=folder), "http://127.0.0.1:1", {}).identity().get("sampling_defaults")
        )

    assert json.loads(str(defaults(tmp_path))) == {"do_sample": True, "temperature": 0.6}
    assert defaults(models) is None


def test_attached_server_is_known_by_nothing_but_its_name() -> None:
    adapter = TransformersAdapter(spec(launch="attach", model="org/model"), "http://127.0.0.1:1", {})

    assert {name: fact.source for name, fact in adapter.identity().facts.items()} == {
        "kind": "declared",
        "model": "declared",
    }


def test_model_whose_folder_is_not_known_has_no_facts_of_files(tmp_path: Path) -> None:
    wanted = spec(model="org/none", env={"HF_HUB_CACHE": str(tmp_path)})

    assert TransformersAdapter(wanted, "http://127.0.0.1:1", {}).from_files() == {}


# ---- requests and answers ------------------------------------------------------------------------------------------


def sent(adapter: TransformersAdapter, **fields: Any) -> dict[str, Any]:
    request = Request(**{"case": "c", "messages": MESSAGES, **fields})
    value = json.loads(adapter.build(request).body)
    assert isinstance(value, dict)
    return value


def test_sampling_that_has_no_field_goes_into_the_generation_config(adapter: TransformersAdapter) -> None:
    sampling = Sampling(temperature=0.7, top_k=5, min_p=0.1, repetition_penalty=1.2, seed=3, stop=("x",))

    body = sent(adapter, sampling=sampling)

    assert json.loads(body.pop("generation_config")) == {
        "do_sample": True,
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
    }
    assert body == {
        "model": "tiny",
        "messages": list(MESSAGES),
        "max_tokens": 64,
        "temperature": 0.7,
        "top_p": 1.0,
        "seed": 3,
        "stop": ["x"],
        "stream": True,
    }


def test_greedy_request_says_that_nothing_is_sampled(adapter: TransformersAdapter) -> None:
    wire = adapter.build(Request(case="c", messages=MESSAGES))

    assert json.loads(json.loads(wire.body)["generation_config"])["do_sample"] is False
    assert wire.omitted == ("presence_penalty", "frequency_penalty")


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty"])
def test_penalty_it_reads_otherwise_is_not_sent(name: str, adapter: TransformersAdapter) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match=rf"would ignore {name}=0\.5 of case 'c'"):
        sent(adapter, sampling=Sampling(**{name: 0.5}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"response_format": FORMAT}, "response_format"), ({"tools": TOOLS, "tool_choice": "none"}, "tool_choice")],
)
def test_what_it_drops_is_not_sent(fields: dict[str, Any], field: str, adapter: TransformersAdapter) -> None:
    with pytest.raises(errors.ParameterNotHonoured, match=f"cand would ignore {field}"):
        sent(adapter, **fields)


def test_what_changes_nothing_is_left_out(adapter: TransformersAdapter) -> None:
    body = sent(adapter, response_format={"type": "text"}, tools=TOOLS, tool_choice="auto", top_logprobs=3)

    assert not {"response_format", "tool_choice", "logprobs", "top_logprobs", "stream_options"} & set(body)


def test_other_refusals_keep_their_type(adapter: TransformersAdapter) -> None:
    with pytest.raises(errors.BadRequest, match="prompt must be a string"):
        adapter.read(Reply(status=400, headers={}, body=b'{"detail":"prompt must be a string."}'), case="c")


def test_limits_are_sentences(adapter: TransformersAdapter) -> None:
    assert all(" " in limit and not limit.endswith(".") for limit in adapter.limits())
