from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from pathlib import Path

import jsonschema_rs
import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

import pytest_llmparity
from pytest_llmparity.core.errors import ConfigError, EngineSelectionError
from pytest_llmparity.core.sample import IDENTITY
from pytest_llmparity.settings.configuration import Config, Places, has_table, parse_config, select
from pytest_llmparity.settings.file import Pin
from pytest_llmparity.settings.selection import parse_engines
from pytest_llmparity.settings.specification import EngineSpec, EnvRef, Settings, seconds

FULL = """
baseline = "vllm"
concurrency = 2
residency = "one-at-a-time"

[engines.vllm]
kind = "vllm"
model = "models/qwen"
revision = "abc"
python = ".venv/bin/python"
args = ["--max-model-len", "8192", ""]
env = {VLLM_CPU_KVCACHE_SPACE = "1"}
api_key_env = "VLLM_API_KEY"
headers = {X-Team = "search", X-Other = {env = "OTHER_KEY"}}
strict_pins = true
context_length = 8192
slots = 2
download = true
start_timeout_s = 900
request_timeout_s = 60.5
[engines.vllm.pin]
quantization = "F16"
context_length = 8192

[engines.served]
base_url = "http://127.0.0.1:8080/v1"
ca_bundle = "ca.pem"
proxy = "http://proxy:3128"

[profiles.ci]
engines = ["vllm", "q4=llamacpp:q4.gguf"]
baseline = "q4"
budget = "1h30m"
"""


def read(text: str, table: tuple[str, ...] = ()) -> Config:
    return parse_config(text, source="llmparity.toml", table=table)


def complaint(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def places(*there: str, folders: Collection[str] = ("/work",)) -> Places:
    return Places(folders=tuple(map(Path, folders)), exists=lambda path: str(path) in there, home=Path("/home/me"))


def chosen(text: str, config: Config | None = None, *there: str) -> EngineSpec:
    (spec,) = select(
        parse_engines([text]), config, places=places(*there), config_places=places(*there, folders=("/etc/parity",))
    )
    return spec


def unselected(text: str, config: Config | None = None, *there: str) -> str:
    with pytest.raises(EngineSelectionError) as caught:
        chosen(text, config, *there)
    return str(caught.value)


# -- what is read


def test_a_configured_engine_becomes_a_spec_with_paths_beside_the_file() -> None:
    spec = chosen("prod=vllm", read(FULL), "/etc/parity/models/qwen")

    assert spec == EngineSpec(
        name="prod",
        kind="vllm",
        model="models/qwen",
        model_path=Path("/etc/parity/models/qwen"),
        launch="process",
        revision="abc",
        python="/etc/parity/.venv/bin/python",
        args=("--max-model-len", "8192", ""),
        env={"VLLM_CPU_KVCACHE_SPACE": "1"},
        api_key_env="VLLM_API_KEY",
        headers={"X-Team": "search", "X-Other": EnvRef("OTHER_KEY")},
        pin={"quantization": "F16", "context_length": 8192},
        strict_pins=True,
        context_length=8192,
        slots=2,
        download=True,
        start_timeout_s=900.0,
        request_timeout_s=60.5,
    )
    assert spec.secret_variables == ("VLLM_API_KEY", "OTHER_KEY")


def test_every_value_has_its_origin() -> None:
    configured = chosen("prod=vllm", read(FULL), "/etc/parity/models/qwen").origins
    (given,) = select(parse_engines(["ollama:q@http://h:1"]), None, places=places(), origin="LLMPARITY_ENGINES")

    assert configured["revision"] == "llmparity.toml: engines.vllm.revision"
    assert configured["pin.quantization"] == "llmparity.toml: engines.vllm.pin.quantization"
    assert configured["launch"] == "no base_url is given"
    assert "route" not in configured, "its default is in force"
    assert given.origins == {
        **dict.fromkeys(("kind", "model", "base_url"), "LLMPARITY_ENGINES"),
        "launch": "base_url is given",
    }


def test_a_daemon_that_was_found_says_so_and_what_was_asked_of_an_own_engine_becomes_a_pin() -> None:
    config = read('[engines.a]\nkind = "ollama"\nmodel = "q"\ncontext_length = 8\npin = { model = "q" }')

    spec = chosen("a", config).found_running("http://h:1", {"context_length": 8, "model": "other"})

    assert (spec.base_url, spec.launch, spec.pin) == ("http://h:1", "attach", {"context_length": 8, "model": "q"})
    assert spec.origins["base_url"] == "found running"
    assert spec.origins["launch"] == "the ollama that is running has the model"
    assert spec.origins["pin.context_length"] == "llmparity.toml: engines.a.context_length"
    assert spec.origins["pin.model"] == "llmparity.toml: engines.a.pin.model"


def test_with_a_url_we_attach_and_the_kind_is_probed() -> None:
    spec = chosen("served", read(FULL), "/etc/parity/ca.pem")

    assert (spec.kind, spec.launch, spec.base_url) == (None, "attach", "http://127.0.0.1:8080")
    assert (spec.ca_bundle, spec.proxy) == (Path("/etc/parity/ca.pem"), "http://proxy:3128")


def test_a_hub_id_is_no_path() -> None:
    assert chosen("vllm:Qwen/Qwen3-8B").model_path is None


def test_models_on_the_command_line_are_looked_for_in_each_folder_in_turn() -> None:
    where = places("/root/models/a.gguf", folders=("/cwd", "/root"))

    (spec,) = select(parse_engines(["llamacpp:models/a.gguf"]), None, places=where)

    assert spec.model_path == Path("/root/models/a.gguf")


def test_home_and_dots_in_a_model_path() -> None:
    assert chosen("llamacpp:~/a.gguf", None, "/home/me/a.gguf").model_path == Path("/home/me/a.gguf")
    assert chosen("vllm:../m", None, "/m").model_path == Path("/m")


def test_a_server_we_attach_to_may_name_a_path_of_its_own_machine() -> None:
    assert chosen("vllm:/data/m@http://gpu:8000").model_path is None
    assert chosen("vllm:/data/m@http://gpu:8000", None, "/data/m").model_path == Path("/data/m")


def test_command_is_beside_the_file_or_on_the_path() -> None:
    text = '[engines.a]\nkind = "llamacpp"\nmodel = "m"\ncommand = [{}, "x/y"]\n'

    assert chosen("a", read(text.format('"bin/serve"'))).command == ("/etc/parity/bin/serve", "x/y")
    assert chosen("a", read(text.format('"serve"'))).command == ("serve", "x/y")


def test_the_same_schema_in_pyproject() -> None:
    text = '[tool.llmparity.engines.a]\nbase_url = "http://h"\n'

    assert read(text, ("tool", "llmparity")).engines["a"].base_url == "http://h"


def test_profiles_are_found_by_name() -> None:
    profile = read(FULL).profile("ci")

    assert (profile.engines, profile.baseline, profile.budget) == (["vllm", "q4=llamacpp:q4.gguf"], "q4", 5400.0)


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("[tool.llmparity]", True),
        ("[tool.llmparity.engines.a]", True),
        ("[tool.pytest]", False),
        ("# llmparity\n[tool.x]", False),
        ("tool = 'llmparity'", False),
        ("# llmparity\n[", False),
        ("llmparity = 1", False),
    ],
)
def test_whether_pyproject_configures_us(text: str, there: bool) -> None:
    assert has_table(text) is there


# -- what is refused


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("baseline = ", "llmparity.toml:1: not TOML: "),
        ("a = 1\nb = [", "llmparity.toml:2: not TOML: "),
        ("a = 1\nb c", "llmparity.toml:2: not TOML: "),
        ("a = " + "[" * 5000, "llmparity.toml"),
        ("[engine.a]", "engine is not a key (did you mean 'engines'?); known here: baseline, concurrency, engines"),
        ("concurrency = 0", "concurrency is 0; expected a number at least 1"),
        ("concurrency = '4'", 'concurrency is "4"; expected a whole number'),
        ("concurrency = true", "concurrency is true; expected a whole number"),
        ("residency = 'togther'", "allowed: 'together' or 'one-at-a-time' (did you mean 'together'?)"),
        ("timed_changes = 0", "timed_changes"),
        ("gather = 'in_turn'", "allowed: 'side-by-side' or 'in-turn' (did you mean 'in-turn'?)"),
        ("baseline = 'Vllm'", 'baseline is "Vllm"; names consist of a-z'),
        ("engines = 3", "engines is 3; expected a table of keys and values"),
        ("engines.a = 3", "engines.a is 3; expected a table of keys and values"),
        ("[engines.A]\nbase_url = 'http://h'", "engines.A cannot be a name; names consist of a-z"),
        ("baseline = 'vlm'\n[engines.vllm]\nbase_url = 'http://h'", "baseline is \"vlm\" (did you mean 'vllm'?)"),
        ("[profiles.ci]\nengines = ['a']\nbaseline = 'b'", 'profiles.ci.baseline is "b"'),
        ("[engines.a]\nbase_url = 'http://h'\n[profiles.ci]\nengines = ['b']", 'profiles.ci.engines is "b"'),
        ("[profiles.ci]\nengines = []", "profiles.ci.engines is empty"),
        ("[profiles.ci]\nengines = ['a,,b']", "profiles.ci.engines cannot be used: 'a,,b' has an empty entry"),
        ("[profiles.ci]\nbudget = '15x'", "profiles.ci.budget cannot be used: '15x' is no time above zero"),
        ("[profiles.ci]\nbudget = 0", "profiles.ci.budget is 0; expected seconds above 0"),
    ],
)
def test_a_wrong_file_says_which_key_what_was_given_and_what_is_allowed(text: str, expected: str) -> None:
    message = complaint(text)

    assert message.startswith("llmparity.toml")
    assert expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", " has neither kind nor base_url; known kinds: litellm, llamacpp"),
        ("kind = 'vlm'\nmodel = 'm'", '.kind is "vlm"; known kinds: litellm'),
        ("kind = 'vllm'", " has no model; an engine of kind 'vllm' without base_url is started with one"),
        ("kind = 'openai'\nmodel = 'm'", " has no base_url; an engine of kind 'openai' is attached to, never started"),
        ("kind = 'vllm'\nmodel = 'm'\npython = 'p'\ncommand = ['vllm']", " has python and command; one of them"),
        ("kind = 'vllm'\nmodel = 'm'\npython = 'p'\nrequires = 'vllm'", " has python and requires; one of them"),
        ("kind = 'vllm'\nmodel = 'm'\nconstraints = 'c.txt'", " has constraints, which only say how requires is"),
        ("kind = 'vllm'\nmodel = 'm'\nroute = 'native'", " has route 'native', which only these kinds have: ollama"),
        ("kind = 'mlx'\nmodel = 'm'\nroute = 'responses'", " has route 'responses', which only these kinds"),
        (
            "base_url = 'http://h'\nroute = 'responses'",
            " has route 'responses' and no kind; these kinds have that route",
        ),
        ("kind = 'vllm'\nmodel = 'm'\nroute = 'chat'", ".route is \"chat\"; allowed: 'openai'"),
        ("base_url = 'http://h'\nargs = ['-x']", " has args, which only an engine we start can use, and a base_url"),
        ("base_url = 'http://me:hunter2@h'", ".base_url carries credentials"),
        ("base_url = 'h:80'", ".base_url does not start with http:// or https://; write http://h:80"),
        ("proxy = 'http://me:hunter2@h'", ".proxy carries credentials"),
        ("modle = 'm'", ".modle is not a key (did you mean 'model'?)"),
        ("launch = 'cloud'", ".launch is \"cloud\"; allowed: 'attach', 'process' or 'container'"),
        ("base_url = 'http://h'\nlaunch = 'process'", " has launch 'process', which starts an engine, and a base_url"),
        ("kind = 'vllm'\nmodel = 'm'\nlaunch = 'attach'", " has launch 'attach' and no base_url; where is the vllm"),
        ("kind = 'ollama'\nmodel = 'm'\nlaunch = 'attach'\nargs = ['-v']", " has args, which only an engine we start"),
        ("kind = 'lmstudio'\nmodel = 'm'\nlaunch = 'process'", " has launch 'process'; an engine of kind 'lmstudio'"),
        ("kind = 'lmstudio'\nmodel = 'm'\nargs = ['-v']", " has args; an engine of kind 'lmstudio' is attached to"),
        ("port = 80", '.port is not a key: write base_url = "http://HOST:PORT"'),
        ("ctx = 4096", ".ctx is not a key: write context_length, the tokens one request gets"),
        ("model = ''", ".model is empty"),
        ('model = "a\\u0007"', ".model is"),
        ("request_timeout_s = 0", ".request_timeout_s is 0; expected a number above 0"),
        ("request_timeout_s = inf", ".request_timeout_s is Infinity; expected a finite number"),
        ("api_key_env = 'MY KEY'", '.api_key_env is "MY KEY"; expected the name of an environment variable'),
        ("headers = {'A B' = 'x'}", '.headers has "A B", which is not the name of a header'),
        ('headers = {A = "x\\ny"}', ".headers.A holds characters that have no place in a header"),
        ("headers = {A = {env = 'B', x = 1}}", '.headers.A is neither text nor {env = "VARIABLE"}'),
        ("headers = {A = {env = '1'}}", '.headers.A is "1"; expected the name of an environment variable'),
        ("pin = {quantisation = 'F16'}", ".pin.quantisation is not a key (did you mean 'quantization'?)"),
        ("pin = {sampling_defaults = 'hot'}", '.pin.sampling_defaults is "hot"; expected a table such as'),
        (
            "pin = {sampling_defaults = {}}",
            ".pin.sampling_defaults is {}; expected a table such as { temperature = 0.6, top_k = 20 }",
        ),
        (
            "pin = {sampling_defaults = {top_q = 1}}",
            ".pin.sampling_defaults has \"top_q\", no sampling parameter (did you mean 'top_p'?)",
        ),
        (
            "pin = {sampling_defaults = {top_k = '1'}}",
            '.pin.sampling_defaults has "top_k" with "1", which is no number',
        ),
        ("pin = {device = ' '}", ".pin.device is empty"),
        ("pin = {context_length = '8192'}", '.pin.context_length is "8192"; expected a whole number'),
        ("env = {'A-B' = 'x'}", ".env."),
        (
            "kind = 'vllm'\nmodel = 'm'\nargs = ['--port', '1']",
            " has args with --port; an engine that we start listens",
        ),
        ("kind = 'llamacpp'\nmodel = 'm'\nargs = ['-t', '1', '--host=0.0.0.0']", " has args with --host; an engine"),
        ("kind = 'tgi'\nmodel = 'm'\nimage = 'tgi:3'\nargs = ['-p', '80']", " has args with -p; an engine that we"),
        ("kind = 'vllm'\nmodel = 'm'\nargs = ['--uds=/tmp/v.sock']", " has args with --uds; an engine that we start"),
        (
            "kind = 'vllm'\nmodel = 'm'\nargs = ['--grpc']",
            " has args with --grpc; an engine that we start listens by HTTP",
        ),
        ("kind = 'llamacpp'\nmodel = 'm'\nargs = ['--ssl-key-file', 'k']", " has args with --ssl-key-file; an engine"),
        ("kind = 'llamacpp-python'\nmodel = 'm'\nenv = {PORT = '1'}", " has env with PORT; an engine that we start"),
        (
            "kind = 'litellm'\nmodel = 'm'\nargs = ['--ssl_keyfile_path=k']",
            " has args with --ssl_keyfile_path; an engine",
        ),
        ("kind = 'vllm'\nmodel = 'm'\nargs = ['--port 8000']", " has args with --port; an engine that we start"),
        ("kind = 'tgi'\nmodel = 'm'\nimage = 'tgi:3'\nargs = ['-p8000']", " has args with -p; an engine that we"),
        ("kind = 'ollama'\nmodel = 'm'\nenv = {OLLAMA_HOST = ':1'}", " has env with OLLAMA_HOST; an engine that we"),
        ("kind = 'ollama'\nmodel = 'm'\nenv = {OLLAMA_HOST = {env = 'A'}}", " has env with OLLAMA_HOST; an engine"),
        ('args = ["a\\u0000"]', ".args[0] holds a NUL"),
        ("args = 'x'", '.args is "x"; expected a list'),
        ("command = []", ".command is []; expected at least 1"),
        ("command = ''", ".command is []; expected at least 1"),
        ("command = 'a \"b'", ".command cannot be taken apart as a shell would: no closing quotation"),
    ],
)
def test_a_wrong_engine_is_named(text: str, expected: str) -> None:
    message = complaint(f"[engines.a]\n{text}\n")

    assert f"llmparity.toml: engines.a{expected}" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "text",
    [
        "api_key = 'sk-hunter2hunter2'",
        "api_key = 'hunter2'",
        "token = 'hunter2'",
        "api_key_env = 'sk-hunter2hunter2'",
        "api_key_env = 'hf_hunter2hunter2'",
        "headers = {Authorization = 'Bearer hunter2'}",
        "headers = {Authorization = 'hunter2'}",
        "headers = {X-Api-Key = 'hunter2'}",
        "headers = {X-Thing = 'sk-hunter2hunter2'}",
        "args = ['--api-key', 'sk-hunter2hunter2']",
        "args = ['--api-key=sk-hunter2hunter2']",
        "args = ['--api-key', 'hunter2']",
        "args = ['--api-key=hunter2']",
        "args = ['--hf-token', 'hunter2']",
        "args = ['-v', '--password', 'hunter2']",
        "command = ['vllm', 'serve', '--api-key', 'hunter2']",
        "command = 'vllm serve --api-key hunter2'",
        "env = {HF_TOKEN = 'hf_hunter2hunter2'}",
        "env = {VLLM_API_KEY = 'hunter2'}",
        "model = 'sk-hunter2hunter2'",
        "kind = 'sk-hunter2hunter2'",
        "sk-hunter2hunter2 = 1",
        "slots = 'sk-hunter2hunter2'",
    ],
)
def test_a_literal_key_is_refused_and_never_echoed(text: str) -> None:
    message = complaint(
        f"[engines.a]\nkind = 'openai'\nbase_url = 'http://h'\n{text}\n".replace(
            "kind = 'openai'\nbase_url = 'http://h'\nkind", "base_url = 'http://h'\nkind"
        )
    )

    assert "engines.a" in message or "looks like a key" in message
    assert "hunter2" not in message


def test_a_literal_api_key_says_what_to_write_instead() -> None:
    assert "api_key_env = " in complaint("[engines.a]\nbase_url = 'http://h'\napi_key = 'x'")


def test_a_key_on_a_command_line_says_how_to_hand_it_over() -> None:
    message = complaint("[engines.a]\nkind = 'vllm'\nmodel = 'm'\nargs = ['--api-key', 'x']")

    assert "engines.a.args holds the value of --api-key as literal text (not shown)" in message
    assert 'env = { NAME = { env = "VARIABLE" } }, and name VARIABLE as api_key_env too' in message


def test_what_only_looks_like_the_name_of_a_secret_is_left_alone() -> None:
    harmless = ["--max-tokens", "5", "--ssl-ca-certs", "k.pem", "--eos-token", "</s>", "--tokenizer", "t", "--api-key"]

    spec = chosen("a", read(f"[engines.a]\nkind = 'vllm'\nmodel = 'm'\nargs = {harmless}\n"))

    assert list(spec.args) == harmless


def test_a_command_may_be_written_as_in_a_shell() -> None:
    spec = chosen("a", read("[engines.a]\nkind = 'vllm'\nmodel = 'm'\ncommand = \"bin/vllm serve --name 'my model'\""))

    assert spec.command == ("/etc/parity/bin/vllm", "serve", "--name", "my model")


def test_a_variable_of_the_process_may_be_read_from_another() -> None:
    table = "[engines.a]\nkind = 'vllm'\nmodel = 'm'\nenv = {A = 'x', VLLM_API_KEY = {env = 'MY_KEY'}}"

    spec = chosen("a", read(table))

    assert (spec.env, spec.env_from) == ({"A": "x"}, {"VLLM_API_KEY": "MY_KEY"})
    assert spec.secret_variables == ("MY_KEY",)


def test_every_problem_is_reported_at_once() -> None:
    text = "concurrency = 0\n[engines.a]\nkind = 'x'\n[engines.b]\nslots = 0\n[profiles.ci]\nbudgt = 1\n"

    assert [line.split(" ")[1] for line in complaint(text).splitlines()] == [
        "concurrency",
        "engines.a.kind",
        "engines.b.slots",
        "profiles.ci.budgt",
    ]


def test_keys_are_named_with_their_table_in_pyproject() -> None:
    with pytest.raises(ConfigError, match=r"^pyproject.toml: tool\.llmparity\.concurrency is 0"):
        parse_config("[tool.llmparity]\nconcurrency = 0", source="pyproject.toml", table=("tool", "llmparity"))
    with pytest.raises(ConfigError, match=r"^pyproject.toml: holds no \[tool\.llmparity\]"):
        parse_config("[tool.x]", source="pyproject.toml", table=("tool", "llmparity"))


def test_an_unknown_profile_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no profile \"cii\" \(did you mean 'ci'\?\); known profiles: ci"):
        read(FULL).profile("cii")
    with pytest.raises(ConfigError, match="it has no profiles"):
        read("").profile("ci")


@given(
    st.recursive(
        st.booleans()
        | st.integers(-(2**62), 2**62)
        | st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["engines", "a", "kind", "base_url", "pin", "profiles", "headers"]), inner
            )
        ),
        max_leaves=10,
    ).map(lambda value: value if isinstance(value, dict) else {"engines": value})
)
def test_any_toml_gives_a_configuration_or_a_config_error(value: dict[str, object]) -> None:
    try:
        text = tomlkit.dumps(value)
        configuration = read(text)
    except ConfigError as error:
        message = str(error)
    else:
        schema = json.loads((Path(pytest_llmparity.__file__).parent / "schemas/llmparity.schema.json").read_text())
        assert jsonschema_rs.is_valid(schema, value)
        assert configuration.source == "llmparity.toml"
        return
    assert all(line.startswith("llmparity.toml") for line in message.splitlines())


def test_the_full_example_fits_the_published_schema() -> None:
    schema = json.loads((Path(pytest_llmparity.__file__).parent / "schemas/llmparity.schema.json").read_text())

    assert jsonschema_rs.is_valid(schema, tomlkit.parse(FULL).unwrap())


# -- selecting


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("served1", "unknown engine 'served1' (did you mean 'served'?); configured in llmparity.toml: vllm, served"),
        ("olama", "unknown engine 'olama' (did you mean 'ollama'?); configured in"),
        ("nope", "unknown engine 'nope'; configured in llmparity.toml: vllm, served"),
        ("vlm:m", "unknown kind 'vlm' (did you mean 'vllm'?)"),
        ("servd:m", "unknown kind 'servd'; configured in"),
        ("llamacpp", "'llamacpp' is a kind, and no engine of that name is configured (configured in"),
        ("openai:m", "an engine of kind 'openai' is attached to, never started; write openai:m@URL"),
        ("127.0.0.1:8000", "an address starts with its scheme; write http://127.0.0.1:8000 (or https://)"),
        ("a=gpu-1:8000/v1#m", "write http://gpu-1:8000/v1#m (or"),
        ("localhost", "write http://localhost (or"),
        ("vllm:m@gpu-1:8000/v1", "'gpu-1:8000/v1' lacks its scheme; write vllm:m@http://gpu-1:8000/v1"),
        ("llamacpp:a.gguf", "the model 'a.gguf' is not there; looked for /work/a.gguf"),
    ],
)
def test_what_cannot_be_selected_says_what_can(text: str, expected: str) -> None:
    assert unselected(text, read(FULL)).startswith("--engines: ")
    assert repr(text) in unselected(text, read(FULL))
    assert expected in unselected(text, read(FULL))


def test_an_engine_of_the_file_is_offered_before_a_kind_that_is_nearer() -> None:
    config = read("[engines.ollamas]\nbase_url = 'http://h'")

    assert "unknown engine 'ollamaa' (did you mean 'ollamas'?)" in unselected("ollamaa", config)
    assert "unknown kind 'ollamaa' (did you mean 'ollama'?)" in unselected("ollamaa:m", config)


def test_a_golden_is_selected_by_name_and_nobody_is_asked_for_it() -> None:
    spec = chosen("golden:vllm", read(FULL))

    assert (spec.name, spec.launch, spec.golden, spec.base_url) == ("golden-vllm", "golden", "vllm", None)


def test_one_error_tells_of_every_entry_that_cannot_be_selected() -> None:
    message = unselected("vlm:m,served1,llamacpp:a.gguf", read(FULL))

    assert [line.split("'")[1] for line in message.splitlines()] == ["vlm:m", "served1", "llamacpp:a.gguf"]


@pytest.mark.parametrize(
    ("table", "daemon", "launch"),
    [
        ("kind = 'ollama'", True, "process"),
        ("kind = 'ollama'\nlaunch = 'attach'", True, "attach"),
        ("kind = 'ollama'\nlaunch = 'process'", False, "process"),
        ("kind = 'ollama'\nenv = {OLLAMA_DEBUG = '1'}", False, "process"),
        ("kind = 'ollama'\nbase_url = 'http://h'", False, "attach"),
        ("kind = 'lmstudio'", True, "attach"),
        ("kind = 'vllm'", False, "process"),
    ],
)
def test_a_models_name_means_the_daemon_that_is_running_where_nothing_says_otherwise(
    table: str, daemon: bool, launch: str
) -> None:
    spec = chosen("a", read(f"[engines.a]\nmodel = 'm'\n{table}\n"))

    assert (spec.daemon, spec.launch) == (daemon, launch)


def test_a_file_is_never_asked_of_a_daemon() -> None:
    spec = chosen("ollama:/models/q4.gguf", None, "/models/q4.gguf")

    assert (spec.daemon, spec.launch) == (False, "process")


def test_without_configuration_nothing_is_configured() -> None:
    assert "unknown engine 'x'; none is configured; kinds (KIND:MODEL): litellm, llamacpp" in unselected("x")


def test_files_named_in_the_configuration_must_be_there() -> None:
    text = (
        '[engines.a]\nkind = "llamacpp"\nmodel = "a.gguf"\n[engines.b]\nbase_url = "http://h"\nca_bundle = "ca.pem"\n'
    )

    with pytest.raises(
        ConfigError, match=r"llmparity.toml: engines.a.model 'a.gguf' is not there; looked for /etc/par"
    ):
        chosen("a", read(text))
    with pytest.raises(ConfigError, match=r"engines.b.ca_bundle is 'ca.pem', which is not there"):
        chosen("b", read(text))


# -- specs and settings


def test_the_hash_of_a_spec_does_not_see_what_set_its_values() -> None:
    assert EngineSpec(name="a", origins={"kind": "default"}).spec_hash == EngineSpec(name="a").spec_hash


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(EngineSpec) if f.compare and f.name != "name"])
def test_the_hash_of_a_spec_sees_every_field_but_the_name(field: str) -> None:
    other = {"headers": {"A": EnvRef("B")}, "env": {"A": "B"}, "pin": {"slots": 1}}.get(field, "x")

    assert EngineSpec(name="a", **{field: other}).spec_hash != EngineSpec(name="a").spec_hash  # type: ignore[arg-type]
    assert EngineSpec(name="b").spec_hash == EngineSpec(name="a").spec_hash


def test_an_engine_is_found_by_name() -> None:
    settings = Settings(engines=(EngineSpec(name="a"),))

    assert settings.engine("a").name == "a"
    with pytest.raises(KeyError):
        settings.engine("b")


@pytest.mark.parametrize(
    ("text", "value"), [("900", 900), ("90s", 90), ("15m", 900), ("1h30m", 5400), ("2h", 7200), ("1h1m1s", 3661)]
)
def test_durations(text: str, value: float) -> None:
    assert seconds(text) == value


@given(st.text(max_size=10) | st.from_regex(r"[0-9hms. -]{0,9}", fullmatch=True))
def test_a_duration_is_above_zero_or_refused(text: str) -> None:
    try:
        value = seconds(text)
    except ValueError:
        return
    assert value > 0


@pytest.mark.parametrize("written", ["{ temp = 0.6, top_k = -1 }", """'{"top_k": 0, "temperature": 0.6}'"""])
def test_pinned_sampling_is_a_table_or_json_and_spelt_as_an_identity_spells_it(written: str) -> None:
    text = f"[engines.a]\nbase_url = 'http://h'\npin.sampling_defaults = {written}\n"

    pin = parse_config(text, source="llmparity.toml").engines["a"].pin

    assert pin is not None
    assert pin.sampling_defaults == '{"temperature": 0.6, "top_k": 0}'


def test_every_field_of_an_identity_can_be_pinned_but_what_is_no_fact_of_the_server() -> None:
    assert set(Pin.model_fields) == IDENTITY.keys() - {"kind", "recognised"}
