"""``llmparity doctor``: what engines are, can do and were told, and what to change; exit 1 where something is wrong."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from pytest_llmparity.engines.wire import base
from pytest_llmparity.testing import Fault, LoopbackEngine, Reply
from pytest_llmparity.testing.script import prompt_of
from tests.doubles.abilities import Abilities
from tests.doubles.installed import installed_from
from tests.doubles.posing import PosingEngine

if TYPE_CHECKING:
    from tests.cli.conftest import Ended, Shell

PUBLISHED = json.loads(resources.files("pytest_llmparity").joinpath("schemas/doctor.schema.json").read_text("utf-8"))
GGUF = Path(__file__).parents[2] / "fixtures/models/tiny/tiny-Q4_0.gguf"
HONEST = Abilities(schema="forced", tools="taken")
"""What llama.cpp is known for."""


@pytest.fixture
def able(shell: Shell) -> Callable[..., LoopbackEngine]:
    """Start a llama.cpp that keeps what its kind promises."""

    def start(**more: Any) -> LoopbackEngine:
        return shell.engine(**{"poses_as": "llamacpp", "abilities": HONEST, "context_length": 2048} | more)

    return start


def table(name: str, engine: LoopbackEngine, **keys: Any) -> str:
    content = {"kind": "llamacpp", "model": "loopback", "base_url": engine.base_url, **keys}
    return f"[engines.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in content.items())


def one_line(ended: Ended) -> str:
    return " ".join(ended.out.split())


def test_what_it_says_fits_a_terminal_of_80_columns_and_has_the_probes_of_reasoning(
    shell: Shell, able: Callable[..., LoopbackEngine]
) -> None:
    engine = able()
    shell.configure(table("a-name-that-is-rather-long-for-an-engine", engine, request_timeout_s=300))

    ended = shell.run("doctor")
    matrix = shell.run("doctor", "--schema")

    assert max(map(len, (ended.out + matrix.out).splitlines())) <= 80
    printed = one_line(ended)
    assert "reasoning effort no probed" in printed
    assert "thinking switch no probed" in printed


def test_an_engine_that_keeps_its_promises_is_well(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    engine = able()
    shell.configure(table("dev", engine))

    ended = shell.run("doctor")

    assert (ended.code, ended.err) == (0, "")
    printed = one_line(ended)
    assert "dev: llamacpp, loopback, attach, route openai, baseline" in printed
    assert f"what it is, at {engine.base_url}" in printed
    assert "quantization F16 reported" in printed
    assert "schema enforced yes declared, confirmed by a probe" in printed
    assert "seed repeats yes probed" in printed
    assert "does not fit refused declared, confirmed by a probe" in printed
    assert "nothing is wrong with 1 engine" in printed
    assert "WRONG" not in printed


def test_logprobs_that_no_shift_can_be_measured_by_are_told(shell: Shell) -> None:
    filtered = shell.engine(poses_as="llamacpp", context_length=2048)
    filtered.script = Reply(text="all is well", lead=-1.0)
    shell.configure(table("dev", filtered))

    printed = one_line(shell.run("doctor"))

    assert "logprobs: gives logprobs that do not have the chosen token as the best one in 6 of 6 places" in printed
    assert "after a penalty or filter, or belong to another token; check.logprobs() refuses them" in printed


class Rendering(PosingEngine):
    """A llama.cpp that renders chats between these words."""

    def __init__(self, opening: str, **more: Any) -> None:
        super().__init__(poses_as="llamacpp", abilities=HONEST, context_length=2048, **more)
        self._opening = opening

    def asked(self, path: str, body: Mapping[str, Any]) -> object | None:
        if path != "/apply-template":
            return super().asked(path, body)
        return {"prompt": "".join(f"{self._opening}{m['role']}>{m['content']}" for m in body["messages"])}


@pytest.mark.slow
def test_how_engines_render_chats_is_shown_beside_each_other(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    (shell.path / "one.jsonl").write_text('{"id": "c1", "messages": [{"role": "user", "content": "Hi"}]}')
    with Rendering("<") as prod, Rendering("<|") as dev, Rendering("<") as test:
        other = able(poses_as="openai", abilities=Abilities())
        tables = [table(name, engine) for name, engine in (("prod", prod), ("dev", dev), ("test", test))]
        shell.configure("".join(tables) + table("hub", other, kind="openai"))

        ended = shell.run("doctor")
        given = shell.run("doctor", "prod", "dev", "--prompts", "one.jsonl")
        alone = shell.run("doctor", "prod")
        record = json.loads(shell.run("doctor", "prod", "hub", "--json").out)

    section = ended.out[ended.out.index("\nrendered prompts\n") : ended.out.index("\nall engines\n")]
    assert section.splitlines()[2:] == [
        "    rendered prompts of a chat with a system message part after 1 characters",
        "      prod: '<system>Be brief.<user>Hi'",
        "      dev: '<|system>Be brief.<|user>Hi'",
        "    rendered prompts of a chat without a system message part after 1 characters",
        "      prod: '<user>Hi'",
        "      dev: '<|user>Hi'",
        "    prod and test render a chat with a system message alike",
        "    prod and test render a chat without a system message alike",
        "    how hub renders a chat with a system message is not known (llama.cpp and",
        "    vLLM tell it)",
        "    how hub renders a chat without a system message is not known (llama.cpp and",
        "    vLLM tell it)",
    ]
    assert "rendered prompts of c1 part after 1 characters" in given.out
    assert "rendered prompts" not in alone.out
    jsonschema_rs.validator_for(PUBLISHED).validate(record)
    assert [list(each["rendered"].values()) for each in record["engines"]] == [
        ["<system>Be brief.<user>Hi", "<user>Hi"],
        [None, None],
    ]


def test_every_request_is_counted(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    engine = able()
    shell.configure(table("dev", engine))

    ended = shell.run("doctor")

    assert f"what it can do, by {engine.count - 1} requests" in ended.out, "and a warm-up"


def test_values_say_where_they_come_from(
    shell: Shell, able: Callable[..., LoopbackEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPARITY_TEST_KEY", "a key of some length")
    monkeypatch.delenv("LLMPARITY_TEST_GONE", raising=False)
    headers = 'headers = {x-team = "search", x-key = {env = "LLMPARITY_TEST_KEY"}}\n'
    engine = able()
    shell.configure(
        "concurrency = 2\n"
        + table("dev", engine, api_key_env="LLMPARITY_TEST_KEY", request_timeout_s=20.0, strict_pins=True)
        + headers
        + '[engines.dev.pin]\nquantization = "F16"\n'
        + '[profiles.ci]\nengines = ["dev"]\nresidency = "together"\n'
    )

    printed = one_line(shell.run("doctor", "--profile", "ci"))

    for line in (
        "kind llamacpp llmparity.toml: engines.dev.kind",
        f"base_url {engine.base_url} llmparity.toml: engines.dev.base_url",
        "headers x-team=search, x-key=$LLMPARITY_TEST_KEY llmparity.toml: engines.dev.headers",
        "api_key_env LLMPARITY_TEST_KEY llmparity.toml: engines.dev.api_key_env",
        "request_timeout_s 20 llmparity.toml: engines.dev.request_timeout_s",
        "idle_timeout_s 120 default",
        "strict_pins yes llmparity.toml: engines.dev.strict_pins",
        "pin.quantization F16 llmparity.toml: engines.dev.pin.quantization",
        "launch attach base_url is given",
        "engines dev profile ci",
        "baseline dev first of profile ci",
        "concurrency 2 llmparity.toml: concurrency",
        "residency together profile ci",
        "inconclusive show default",
    ):
        assert line in printed, line
    assert "a key of some length" not in printed


def test_values_may_come_from_the_command_line_and_the_environment(
    shell: Shell, able: Callable[..., LoopbackEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = able()
    given = f"dev=llamacpp:loopback@{engine.base_url}"

    by_hand = one_line(shell.run("doctor", given))
    monkeypatch.setenv("LLMPARITY_ENGINES", given)
    monkeypatch.setenv("LLMPARITY_MAX_REQUESTS", "7")
    by_variable = one_line(shell.run("doctor"))

    assert "kind llamacpp --engines" in by_hand
    assert "kind llamacpp LLMPARITY_ENGINES" in by_variable
    assert "max_requests 7 LLMPARITY_MAX_REQUESTS" in by_variable
    assert "route openai default" in by_hand


def test_a_variable_that_is_not_set_is_told_with_the_error(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    shell.configure(table("dev", able(), api_key_env="LLMPARITY_TEST_GONE"))

    ended = shell.run("doctor")

    assert ended.code == 1
    assert "api_key_env LLMPARITY_TEST_GONE (not set)" in one_line(ended)
    assert "WRONG engine 'dev': api_key_env names the environment variable LLMPARITY_TEST_GONE" in one_line(ended)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait a moment, instead of ten seconds, for a server that others start."""
    monkeypatch.setattr(base, "ATTACH_DEADLINE_S", 0.2)


@pytest.mark.usefixtures("impatient")
def test_one_engine_that_is_down_hides_no_other(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    with LoopbackEngine() as gone:
        config = table("gone", gone)
    shell.configure(config + table("dev", able()))

    ended = shell.run("doctor", "gone", "dev")

    printed = one_line(ended)
    assert ended.code == 1
    assert "gone: llamacpp, loopback, attach, route openai, baseline WRONG" in printed
    assert "nothing listens" in printed
    assert "dev: llamacpp, loopback, attach, route openai what it is" in printed
    assert "something is wrong with gone" in printed


@pytest.mark.parametrize(
    ("engine", "extra", "behind"),
    [
        (f"kind = 'llamacpp'\nmodel = '{GGUF}'", "llamacpp", ""),
        ("kind = 'vllm'\nmodel = 'm'\nrequires = ['vllm==0.1']", "environments", "(or: pip install uv)"),
    ],
)
def test_what_to_install_comes_from_where_this_package_came_and_json_leaves_that_out(
    engine: str,
    extra: str,
    behind: str,
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    clone = tmp_path_factory.mktemp("a clone with a name that is much longer than a line of the doctor has room for")
    origin = {"url": clone.as_uri(), "dir_info": {"editable": True}}
    installed_from(origin, tmp_path_factory.mktemp("packages"), monkeypatch)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    shell.configure(f"[engines.a]\n{engine}\n")

    told = shell.run("doctor")
    record = shell.run("doctor", "--json")

    lines = [line.strip() for line in told.out.splitlines()]
    place = lines.index(f'pip install -e "{clone}[{extra}]"')
    assert lines[place - 1].endswith("with:")
    assert lines[place + 1].startswith(behind or "what it was told")
    error = json.loads(record.out)["engines"][0]["error"]
    assert f'with: pip install "pytest-llmparity[{extra}]"  {behind}'.strip() in error
    assert str(clone) not in record.out


def test_a_process_that_does_not_start_names_its_log(shell: Shell) -> None:
    command = json.dumps([sys.executable, "-c", "exit('broken')"])
    shell.configure(f'[engines.dev]\nkind = "llamacpp"\nmodel = "{GGUF}"\ncommand = {command}\n')

    ended = shell.run("doctor")

    assert ended.code == 1
    assert "broken" in ended.out
    assert "its log: .llmparity/logs/dev.log" in ended.out


def test_a_contradicted_pin_is_wrong_and_an_unverified_one_is_advice(
    shell: Shell, able: Callable[..., LoopbackEngine]
) -> None:
    pins = '[engines.dev.pin]\nquantization = "Q8_0"\nattention = "triton"\n'
    shell.configure(table("dev", able()) + pins)

    ended = shell.run("doctor")

    printed = one_line(ended)
    assert ended.code == 1
    assert "WRONG quantization is pinned to Q8_0" in printed
    assert "advice pin attention unverified" in printed
    assert "quantization F16 reported" in printed, "it is examined all the same"


def test_a_promise_that_is_not_kept_is_wrong(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    shell.configure(table("dev", able(abilities=Abilities(schema="sorted", tools="taken"))))

    ended = shell.run("doctor")

    printed = one_line(ended)
    assert ended.code == 1
    assert "schema in order no probed, declared yes <- differs" in printed
    assert "WRONG forces a schema's properties in alphabetical order (found by a probe" in printed
    assert "advice it forces a schema's properties in alphabetical order" in printed


def test_a_probe_that_fails_is_wrong_and_what_nobody_knows_is_told(
    shell: Shell, able: Callable[..., LoopbackEngine]
) -> None:
    def answer(request: Mapping[str, Any]) -> Any:
        return Fault.refuse(500) if request.get("tools") else "always the same"

    shell.configure(table("dev", able(answer=answer)))

    ended = shell.run("doctor")

    printed = one_line(ended)
    assert ended.code == 1
    assert "WRONG the probe of tools failed: dev answered 500" in printed
    assert "seed repeats not known" in printed
    assert "seed: nothing found out: answers sampled with different seeds are the same" in printed


def test_a_parameter_without_a_word_is_wrong(shell: Shell) -> None:
    rows = [
        {"id": f"c{i}", "messages": [{"role": "user", "content": "hi"}], "sampling": {"top_k": i + 1}} for i in range(5)
    ]
    (shell.path / "p.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

    ended = shell.run("doctor", f"dev=openai:m@{shell.engine().base_url}", "--prompts", "p.jsonl")

    printed = one_line(ended)
    assert ended.code == 1
    assert printed.count("WRONG dev has no field for top_k") == 3
    assert "WRONG 2 more cases hold what it has no field for" in printed


@pytest.mark.slow
def test_prompts_are_held_against_the_context(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    for words, name in ((50, "short"), (1990, "tight"), (3000, "long")):
        rows = [
            {"id": "a", "messages": [{"role": "user", "content": "hi"}]},
            {"id": "b", "messages": [{"role": "user", "content": "word " * words}]},
        ]
        (shell.path / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    cuts = able(abilities=Abilities(schema="forced", tools="taken", overflow="end"))
    mute = able(abilities=Abilities(schema="forced", tools="taken", usage=False))
    shell.configure(table("dev", able()) + table("cuts", cuts) + table("mute", mute))

    ended = shell.run("doctor", "dev", "cuts", "mute", "--prompts", "short.jsonl", "tight.jsonl", "long.jsonl")

    printed = one_line(ended)
    assert "b, the longest of short" not in printed.partition("mute: llamacpp")[0]
    assert "advice b, the longest of tight, has 1991 tokens, which leaves 57 of a context of 2048" in printed
    assert "advice b, the longest of long, gets no answer: dev answered 400" in printed
    assert "advice b, the longest of long, was cut: 2048 tokens were read of a prompt of 3000 words" in printed
    assert "b, the longest of short, was answered, but the server does not say how many tokens it has" in printed


def test_a_missing_prompt_file_is_misuse(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    shell.configure(table("dev", able()))

    ended = shell.run("doctor", "--prompts", "gone.jsonl")

    assert ended.code == 4
    assert "no prompt file 'gone.jsonl'" in ended.err


def test_a_key_that_is_too_short_to_be_searched_is_told(
    shell: Shell, able: Callable[..., LoopbackEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPARITY_TEST_KEY", "short")
    shell.configure(table("dev", able(), api_key_env="LLMPARITY_TEST_KEY"))

    ended = shell.run("doctor")

    assert ended.code == 0
    assert "advice LLMPARITY_TEST_KEY: its value is too short to be searched for" in one_line(ended)


def test_a_key_that_the_server_repeats_is_masked(
    shell: Shell, able: Callable[..., LoopbackEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "a value of some length"
    monkeypatch.setenv("LLMPARITY_TEST_KEY", secret)
    shell.configure(table("dev", able(model=secret), api_key_env="LLMPARITY_TEST_KEY"))

    shown = shell.run("doctor")
    told = shell.run("doctor", "--json")

    assert secret not in shown.out + shown.err + told.out + told.err
    assert "«LLMPARITY_TEST_KEY»" in shown.out
    assert json.loads(told.out)["engines"][0]["identity"]["model"]["value"] == "«LLMPARITY_TEST_KEY»"


def test_json_is_as_published(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    shell.configure(table("dev", able(abilities=Abilities(tools="taken"))) + table("prod", able()))

    ended = shell.run("doctor", "dev", "prod", "--json")

    content = json.loads(ended.out)
    jsonschema_rs.validator_for(PUBLISHED).validate(content)
    assert ended.code == 1
    assert content["well"] is False
    dev, prod = content["engines"]
    assert (dev["well"], prod["well"]) == (False, True)
    assert dev["capabilities"]["json_schema"] == {"value": False, "declared": True, "probed": True}
    assert dev["identity"]["quantization"] == {"value": "F16", "source": "reported", "raw": "F16"}
    assert {"key": "kind", "value": "llamacpp", "origin": "llmparity.toml: engines.dev.kind"} in dev["settings"]
    assert dev["wrong"][0].startswith("does not enforce response_format")
    assert prod["wrong"] == []


@pytest.mark.usefixtures("impatient")
def test_json_of_an_engine_that_is_down_is_as_published(shell: Shell) -> None:
    with LoopbackEngine() as gone:
        url = gone.base_url

    ended = shell.run("doctor", f"gone=llamacpp:m@{url}", "--json")

    content = json.loads(ended.out)
    jsonschema_rs.validator_for(PUBLISHED).validate(content)
    assert ended.code == 1
    assert "nothing listens" in content["engines"][0]["error"]


def test_the_published_schema_is_itself_valid() -> None:
    jsonschema_rs.meta.validate(PUBLISHED)


def test_a_system_message_that_is_refused_leaves_the_template_open(
    shell: Shell, able: Callable[..., LoopbackEngine]
) -> None:
    engine = able(answer=lambda r: Fault.refuse(400) if "system" in prompt_of(r) else "well", abilities=None)
    shell.configure(table("dev", engine, kind="openai"))

    printed = one_line(shell.run("doctor"))

    assert "chat template" not in printed
    assert "nothing is wrong" in printed


def test_a_bare_url_is_asked_what_it_is(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    ended = shell.run("doctor", f"dev={able().base_url}")

    assert "dev: llamacpp, loopback, attach, route openai, baseline" in ended.out


def test_two_routes_are_held_together(shell: Shell) -> None:
    def answer(request: Mapping[str, Any]) -> str:
        return "one way" if "options" in request else f"another {prompt_of(request)}"

    engine = shell.engine(answer=answer, poses_as="ollama", context_length=512)
    shell.configure(table("dev", engine, kind="ollama", route="native"))

    printed = one_line(shell.run("doctor"))

    assert "advice it is measured over its native route, engine.openai() uses openai: 8 of 8 answers differ" in printed


def test_a_model_of_one_file_is_called_by_its_name(shell: Shell, able: Callable[..., LoopbackEngine]) -> None:
    shell.configure(table("dev", able(), model="/models/deep/model.gguf"))

    assert shell.run("doctor").out.startswith("dev: llamacpp, model.gguf, attach")


def schema_of(request: Mapping[str, Any]) -> Mapping[str, Any] | None:
    wanted = request.get("response_format")
    return None if wanted is None else wanted["json_schema"]["schema"]


def enforcing_some(request: Mapping[str, Any]) -> Any:
    """Force ``const``, refuse ``uniqueItems``, and take everything else without looking at it."""
    schema = schema_of(request)
    if schema is None:
        return "no JSON at all"
    parts = schema.get("properties", {})
    if parts.get("code") == {"const": "x7-q2"}:
        return '{"code": "x7-q2"}'
    return Fault.refuse(400) if "uniqueItems" in json.dumps(schema) else '{"n": "many"}'


def test_the_matrix_says_what_is_enforced_violated_and_refused(
    shell: Shell, able: Callable[..., LoopbackEngine]
) -> None:
    engine = able(answer=enforcing_some, abilities=Abilities())
    shell.configure(table("dev", engine))

    ended = shell.run("doctor", "--schema", "dev", "--json")

    assert (ended.code, ended.err) == (0, "")
    (told,) = json.loads(ended.out)["engines"]
    outcomes = {each["canary"]: each["outcome"] for each in told["canaries"]}
    assert outcomes.pop("const") == "enforced"
    assert {outcomes.pop(name) for name in ("uniqueItems", "uniqueItems, of words")} == {"refused"}
    assert set(outcomes.values()) == {"violated"}

    lines = shell.run("doctor", "--schema", "dev").out.splitlines()

    assert lines[0].split() == ["schema", "dev"]
    assert [line.split()[-1] for line in lines if line.startswith("const ")] == ["enforced"]
    assert "dev: violated 30, refused 2, enforced 1" in lines


def test_what_stands_round_free_json_shows_no_enforced_schema(
    shell: Shell, able: Callable[..., LoopbackEngine]
) -> None:
    def fenced(request: Mapping[str, Any]) -> Any:
        answer = '{"code": "x7-q2"}'
        return f"```json\n{answer}\n```" if schema_of(request) is None else answer

    engine = able(answer=fenced, abilities=Abilities())
    shell.configure(table("dev", engine))

    (told,) = json.loads(shell.run("doctor", "--schema", "dev", "--json").out)["engines"]

    (const,) = (each for each in told["canaries"] if each["canary"] == "const")
    assert const["outcome"] == "not shown"
    assert const["why"].startswith("kept without it too, but for what stands round the JSON")


@pytest.mark.parametrize(("answer", "outcome"), [("", "failed"), ("garbage", "violated")])
def test_nothing_is_enforced_by_an_engine_that_says_nothing_or_garbage(
    shell: Shell, able: Callable[..., LoopbackEngine], answer: Any, outcome: str
) -> None:
    engine = able(answer=answer, abilities=Abilities())
    shell.configure(table("dev", engine))

    ended = shell.run("doctor", "--schema", "dev", "--json")

    assert ended.code == (1 if outcome == "failed" else 0)
    (told,) = json.loads(ended.out)["engines"]
    assert {each["outcome"] for each in told["canaries"]} == {outcome}


def beginning(request: Mapping[str, Any]) -> str:
    """Break the schema of allOf and patternProperties before the limit, begin a key without end else."""
    schema = json.dumps(schema_of(request))
    if "allOf" in schema:
        return '{"n": "' + "a word and " * 200
    if "^x[0-9]$" in schema:
        return '{"x1": 1, "x1": "' + "a word and " * 200
    return '{"' + "a key that " * 200


def test_a_cut_answer_that_nothing_mends_is_violated_and_any_other_shows_nothing(
    shell: Shell, able: Callable[..., LoopbackEngine]
) -> None:
    shell.configure(table("dev", able(answer=beginning, abilities=Abilities())))

    ended = shell.run("doctor", "--schema", "dev", "--json")

    (told,) = json.loads(ended.out)["engines"]
    by_name = {each["canary"]: each for each in told["canaries"]}
    for name, why in (
        ("allOf", "$.n: begins as a string, and its type is integer"),
        ("patternProperties", "the key 'x1' stands there twice"),
    ):
        each = by_name.pop(name)
        assert (each["outcome"], why in each["why"]) == ("violated", True), each
    assert {each["outcome"] for each in by_name.values()} == {"not shown"}
    assert {each["why"] for each in by_name.values()} == {"cut after 120 tokens"}


def test_an_engine_that_cannot_be_asked_for_a_schema_is_wrong(shell: Shell) -> None:
    engine = shell.engine(poses_as="llamacpp", api_key="sk-test-0123456789")  # which is not given
    shell.configure(f'[engines.dev]\nkind = "llamacpp"\nmodel = "x"\nbase_url = "{engine.base_url}"\n')

    ended = shell.run("doctor", "--schema", "dev")

    assert ended.code == 1
    assert "dev: " in ended.out
