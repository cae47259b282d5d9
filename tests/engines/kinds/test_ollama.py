"""What the adapter of Ollama knows of a model: on recordings of v0.33.0 and on a double of the daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core.identity.pins import hold
from pytest_llmparity.core.sample import Fact
from pytest_llmparity.engines.facts import files
from pytest_llmparity.engines.kinds.ollama import about
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.testing import Replay
from tests.doubles.ollama_daemon import GO, JINJA, Model, OllamaDaemon, as_started, digest

Attach = Callable[..., Adapter]

DEAD = "http://127.0.0.1:1"


def values(adapter: Adapter) -> dict[str, object]:
    return {name: fact.value for name, fact in adapter.identity().facts.items()}


# ---- identity ------------------------------------------------------------------------------------------------------


def test_identity_of_recorded_ollama(wire: Path, attach: Attach, models: Path) -> None:
    with Replay(wire / "ollama") as replay:
        facts = attach(replay.base_url, "ollama", model="tiny:q4_k_m", revision="abc").identity().facts

    assert {name: fact.value for name, fact in facts.items() if name != "sampling_defaults"} == {
        "kind": "ollama",
        "model": "tiny:q4_k_m",
        "revision": "abc",
        "version": "0.33.0",
        "digest": "sha256:9f0aa7725a7904040971437b1042cc4e5dd39316a6feb40fd64a5572c41a08a9",
        "quantization": "Q4_K_M",
        "bits_per_weight": 5.014,
        "tensor_types": "F32:9 Q4_K:24 Q6_K:5",
        "format": "gguf",
        "context_length": 1024,
        "adapters": "none",
        "template_path": "jinja",
        "template_sha256": files.text_sha256((models / "chat_template.jinja").read_text("utf-8")),
    }
    assert {name for name, fact in facts.items() if fact.source != "reported"} == {"kind", "revision"}
    assert facts["digest"].raw == "sha256:" + files.sha256(models / "tiny-Q4_K_M.gguf")


def test_the_pin_of_a_file_s_tensor_types_holds_for_what_ollama_made_of_the_file(
    wire: Path, attach: Attach, models: Path
) -> None:
    file = files.gguf_facts(models / "tiny-Q4_K_M.gguf")
    pin = {name: file[name].value for name in ("tensor_types", "bits_per_weight", "template_sha256", "digest")}
    with Replay(wire / "ollama") as replay:
        held = hold(pin, attach(replay.base_url, "ollama", model="tiny:q4_k_m").identity())

    assert {finding.field: finding.state for finding in held} == {
        "tensor_types": "held",
        "bits_per_weight": "held",
        "template_sha256": "held",
        "digest": "contradicted",  # that of Ollama's manifest
    }


@pytest.mark.parametrize(("route", "temperature", "top_p"), [("openai", 1, 1), ("native", 0.9, 0.9)])
def test_sampling_defaults_are_the_modelfiles_over_the_releases_under_the_routes(
    route: str, temperature: float, top_p: float, wire: Path, attach: Attach
) -> None:
    with Replay(wire / "ollama-paths") as replay:
        reported = dict(attach(replay.base_url, "ollama", model="tiny-hot", route=route).reported())
        with_release = about.sampling_defaults(recorded(replay, "show_with_parameters"), "0.33.0", "openai")

    assert json.loads(str(reported["sampling_defaults"].value)) == {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": 40,
        "min_p": 0,
        "typical_p": 1,
        "repeat_last_n": 64,
        "repetition_penalty": 1.3,
        "presence_penalty": 0,
        "frequency_penalty": 0,
    }
    assert with_release["repeat_penalty"] == 1.3


def recorded(replay: Replay, name: str) -> dict[str, Any]:
    response = replay.recordings[name]["response"]
    value = json.loads("".join(text for _, text in response["pieces"]))
    assert isinstance(value, dict)
    return value


def test_context_in_force_is_the_loaded_models(wire: Path) -> None:
    with Replay(wire / "ollama-paths") as replay:
        listings = {name: recorded(replay, name) for name in replay.recordings if name.startswith("ps_")}

    context = {name: about.entry(listing, "tiny:q4_k_m").get("context_length") for name, listing in listings.items()}
    assert context == {"ps_default_context": 1024, "ps_num_ctx_changed": 512, "ps_two_models": 1024}
    # Two names over the same weights were in use by then.
    assert about.names(listings["ps_two_models"]) == ("tiny:q4_k_m",)


def test_model_that_cannot_be_shown_is_known_by_the_list(wire: Path, attach: Attach) -> None:
    with Replay(wire / "ollama") as replay:
        facts = attach(replay.base_url, "ollama", model="tiny:f16").identity().facts

    assert {name: fact.value for name, fact in facts.items()} == {
        "kind": "ollama",
        "model": "tiny:f16",
        "version": "0.33.0",
        "digest": "sha256:2fdf6919680a500f415b43c820c09ce31fa278ece1ce73f259e2403c4cdc3d99",
        "quantization": "F16",
        "format": "gguf",
    }


def test_server_that_says_nothing_has_no_identity_but_the_declared(attach: Attach) -> None:
    assert values(attach(DEAD, "ollama", model="tiny")) == {"kind": "ollama", "model": "tiny"}


def test_identity_of_a_started_engine_has_what_only_the_start_says(daemon: OllamaDaemon, models: Path) -> None:
    adapter = as_started(daemon, models / "tiny-Q4_K_M.gguf", slots=2, env={"OLLAMA_KV_CACHE_TYPE": "q8_0"})
    adapter.load()
    adapter.warm_up()
    facts = adapter.identity().facts

    assert facts["kv_cache"] == Fact(value="q8_0", source="declared")
    assert facts["slots"] == Fact(value=2, source="declared")
    assert facts["model"] == Fact(value="tiny-q4_k_m:own", source="reported")
    assert facts["digest"].value == "sha256:" + digest("tiny-q4_k_m:own")


def test_template_of_the_file_is_no_fact_of_a_model_that_another_renders(daemon: OllamaDaemon, models: Path) -> None:
    adapter = as_started(daemon, models / "tiny-Q4_K_M.gguf")
    daemon.models["tiny-q4_k_m:own"] = Model(lines=("RENDERER qwen3-coder",))

    seen = values(adapter)

    assert seen["template_path"] == "renderer:qwen3-coder"
    assert "template_sha256" not in seen
    assert (seen["kv_cache"], "slots" in seen) == ("f16", False)


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (Model(), "jinja"),
        (Model(go=GO), "go-template"),
        (Model(go=GO, more={"template": JINJA}), "jinja"),
        (Model(go=GO, lines=("RENDERER gemma4", "PARSER gemma4")), "renderer:gemma4"),
        (Model(more={"renderer": "laguna"}), "renderer:laguna"),
        (Model(go=GO, lines=("PARSER qwen3",)), "go-template"),
        (Model(more={"template": "{{ .Prompt }}"}), ""),
        (Model(more={"modelfile": 7}), ""),
    ],
)
def test_who_renders_the_prompt(model: Model, path: str) -> None:
    assert about.template_path(model.show()) == path


def test_go_template_is_told_from_the_ggufs_own_by_its_digest(daemon: OllamaDaemon, ask: Attach) -> None:
    daemon.models["go:latest"] = Model(go=GO)

    digests = {model: values(ask(model=model))["template_sha256"] for model in ("tiny", "go")}

    assert digests == {"tiny": files.text_sha256(JINJA), "go": files.text_sha256(GO)}


@pytest.mark.parametrize(
    ("show", "bits"),
    [
        ({"tensors": [{"type": "Q4_0", "shape": [32, 2]}]}, 4.5),
        ({"tensors": [{"type": "F16", "shape": [4]}, {"type": "F32", "shape": [4]}]}, 24.0),
        ({"tensors": [{"type": "Q9_Z", "shape": [32]}]}, None),
        ({"tensors": [{"type": "F16", "shape": None}]}, None),
        ({"tensors": [{"type": "F16", "shape": [None]}]}, None),
        ({"tensors": []}, None),
        ({"tensors": None}, None),
    ],
)
def test_bits_per_weight_of_the_listed_tensors(show: dict[str, Any], bits: float | None) -> None:
    assert about.bits_per_weight(show) == bits


def test_weights_of_another_runner_are_said_to_be_another_engine(daemon: OllamaDaemon, ask: Attach) -> None:
    daemon.models["tiny:latest"] = Model(
        go=GO, more={"details": {"format": "safetensors", "quantization_level": "unknown"}, "tensors": None}
    )

    facts = ask().identity().facts

    assert facts["format"] == Fact(value="safetensors", source="reported", raw="MLX runner")
    assert not facts.keys() & {"quantization", "tensor_types", "bits_per_weight"}
    assert any("MLX runner" in sentence for sentence in ask().limits())
    assert (ask().capabilities().schema_order, ask().capabilities().overflow) == (None, None)


@pytest.mark.parametrize(
    ("version", "penalty"), [("0.32.10", 1.0), ("0.33.0-rc2", 1.0), ("0.32.9", 1.1), ("0.0.0", None), ("custom", None)]
)
def test_default_repeat_penalty_depends_on_the_release(version: str, penalty: float | None) -> None:
    defaults = about.sampling_defaults(Model().show(), version, "native")

    assert defaults.get("repeat_penalty") == penalty
    assert defaults["temperature"] == 0.8


def test_parameters_of_a_modelfile_keep_their_types() -> None:
    text = 'stop           "<|im_end|>"\nstop           "\\n\\n"\nmirostat  odd text\ntop_k 20\ntop_k 30\n\n'

    assert about.parameters({"parameters": text}) == {
        "stop": ["<|im_end|>", "\n\n"],
        "mirostat": "odd text",
        "top_k": [20, 30],
    }
    assert about.parameters({"parameters": None}) == {}


@pytest.mark.parametrize(
    "name", ["tiny", "tiny:latest", "Tiny", "library/tiny", "registry.ollama.ai/library/tiny:latest"]
)
def test_model_is_found_under_every_way_to_write_its_name(name: str) -> None:
    listing = {"models": ["odd", {"name": "other:latest"}, {"model": "tiny:latest", "digest": "x"}]}

    assert about.entry(listing, name) == {"model": "tiny:latest", "digest": "x"}


@pytest.mark.parametrize(("listing", "model"), [({}, "tiny"), ({"models": [{}]}, "tiny"), ({"models": [{}]}, "")])
def test_model_that_is_not_listed_is_not_found(listing: dict[str, Any], model: str) -> None:
    assert about.entry(listing, model) == {}
    assert about.names(listing) == ()


# ---- capabilities and limits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "model", "order", "overflow"),
    [
        ("openai", Model(), False, "oldest turns dropped"),
        ("openai", Model(go=GO), True, "oldest turns dropped"),
        ("native", Model(lines=("RENDERER x",)), True, "refused"),
        ("native", Model(more={"template": ""}), None, "refused"),
    ],
)
def test_capabilities_follow_template_path_and_route(
    route: str, model: Model, order: bool | None, overflow: str, daemon: OllamaDaemon, ask: Attach
) -> None:
    daemon.models["tiny:latest"] = model

    capabilities = ask(route).capabilities()

    assert (capabilities.schema_order, capabilities.overflow, capabilities.tools) == (order, overflow, True)
    assert capabilities.probed == ()


@pytest.mark.parametrize(("offered", "tools"), [(["completion"], False), (None, None)])
def test_model_without_tools_says_so(
    offered: list[str] | None, tools: bool | None, daemon: OllamaDaemon, ask: Attach
) -> None:
    daemon.models["tiny:latest"] = Model(more={"capabilities": offered})

    assert ask().capabilities().tools is tools


def test_limits_of_a_route_are_known_without_a_server(attach: Attach) -> None:
    openai, native = (attach(DEAD, "ollama", model="tiny", route=route).limits() for route in ("openai", "native"))

    for dropped in ("max_completion_tokens", "top_k", "min_p", "repeat_penalty", "tool_choice", "num_ctx"):
        assert any(dropped in sentence for sentence in openai)
    assert any("engine.openai()" in sentence for sentence in native)
    assert set(openai) & set(native)


def test_limits_of_a_model_name_what_its_modelfile_adds(daemon: OllamaDaemon, ask: Attach) -> None:
    daemon.models["tiny:latest"] = Model(
        parameters='repeat_penalty 1.3\nstop "</s>"',
        more={
            "system": "Be brief.",
            "messages": [{"role": "user", "content": "x"}],
            "capabilities": ["thinking"],
            "remote_host": "https://ollama.com",
        },
    )

    limits = " ".join(ask().limits())

    for words in (
        "repeat_penalty 1.3",
        "alphabetical order",
        "'</s>'",
        "SYSTEM prompt",
        "MESSAGE turns",
        "thinks",
        "not on this machine",
    ):
        assert words in limits
    assert "repeat_penalty 1.3" not in " ".join(ask("native").limits())
