from __future__ import annotations

import functools
import json
import operator
import platform
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import extras
from pytest_llmparity.cli import init
from pytest_llmparity.core.prompts.reading import parse_prompts
from pytest_llmparity.engines import daemons
from pytest_llmparity.engines.facts import device
from pytest_llmparity.engines.local import caches, gguf_files
from pytest_llmparity.engines.start import program
from pytest_llmparity.run.calibrate.pair import LEAST_GROUPS
from pytest_llmparity.settings.configuration import parse_config
from tests.doubles.installed import installed_from
from tests.real_ollama import RealOllama

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

LISTENING = daemons.listening


@pytest.fixture(autouse=True)
def _nothing_else_here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without servers and caches, whatever runs on this one; tests name the ports that are asked."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE", "LLAMA_CACHE"):
        monkeypatch.delenv(name, raising=False)
    _asked(monkeypatch)


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with four cores and no GPU, whatever this one has."""
    monkeypatch.setattr(device, "cores", lambda: 4)
    monkeypatch.setattr(program, "gpu_visible", lambda environ: False)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")


def _asked(monkeypatch: pytest.MonkeyPatch, *urls: str) -> None:
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    ports = [int(url.rpartition(":")[2]) for url in urls]
    monkeypatch.setattr(daemons, "listening", lambda environ, total_s: LISTENING(environ, ports=ports, total_s=total_s))


def _gguf(path: Path, size: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF" + bytes(size))
    return path


@pytest.mark.parametrize(
    ("package", "told"),
    [(None, f", and {extras.command('llamacpp')}"), (object(), "; llama.cpp, which starts them, is installed")],
)
def test_where_nothing_is_an_example_is_written_and_what_is_left_to_install_is_said(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, package: object, told: str
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: package)

    ended = shell.run("init")

    assert ended.code == 0
    assert "ollama serve" in ended.out
    assert f"  GGUF files in the project{told}\n" in ended.out
    text = (shell.path / "llmparity.toml").read_text()
    assert parse_config(text, source="llmparity.toml").engines == {}
    example = "\n".join(line.removeprefix("# ") for line in text.splitlines()[2:])
    assert parse_config(example, source="llmparity.toml").engines.keys() == {"prod", "dev"}


def test_what_to_install_comes_from_where_this_package_came_and_no_file_has_it(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    clone = tmp_path_factory.mktemp("clone")
    origin = {"url": clone.as_uri(), "dir_info": {"editable": True}}
    installed_from(origin, tmp_path_factory.mktemp("packages"), monkeypatch)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    nothing_here = shell.run("init").out
    written = (shell.path / "llmparity.toml").read_text()
    _gguf(shell.path / "m.gguf")
    file_here = shell.run("init").out

    assert f'  GGUF files in the project, and pip install -e "{clone}[llamacpp]"\n' in nothing_here
    assert f'First: pip install -e "{clone}[llamacpp]", which starts GGUF files' in file_here
    assert 'needs: pip install "pytest-llmparity[llamacpp]", or' in written


def test_ollama_that_is_installed_and_does_not_run_is_told_to_be_started(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    ollama = shell.path / "bin" / "ollama"
    ollama.parent.mkdir()
    monkeypatch.setenv("PATH", str(ollama.parent))

    absent = shell.run("init").out
    ollama.write_text("")
    ollama.chmod(0o700)
    idle = shell.run("init").out

    assert "  Ollama: install it and start it (ollama serve), and\n    ollama pull NAME:TAG" in absent
    assert "  Ollama, which is installed and does not run: ollama serve in another terminal, and\n    ollama" in idle


def test_a_server_without_a_model_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = daemons.Running(kind="ollama", base_url="http://127.0.0.1:11434", models=("nomic-embed-text:latest",))
    monkeypatch.setattr(daemons, "listening", lambda environ, total_s: (idle,))

    printed = shell.run("init").out

    assert "ollama answers at http://127.0.0.1:11434 and lists no model that makes text." in printed
    assert "  Ollama, which runs here without one:\n    ollama pull NAME:TAG" in printed


def test_files_become_engines_and_the_example_gives_way(shell: Shell) -> None:
    shell.run("init")
    for name, size in {"m-F16.gguf": 300, "models/M Q4_0.gguf": 100}.items():
        _gguf(shell.path / name, size)

    ended = shell.run("init")

    assert ended.code == 0
    assert tomllib.loads((shell.path / "llmparity.toml").read_text()) == {
        "baseline": "m-f16",
        "engines": {
            "m-f16": {"kind": "llamacpp", "model": "m-F16.gguf", "args": ["--threads", "2"]},
            "m-q4_0": {"kind": "llamacpp", "model": "models/M Q4_0.gguf", "args": ["--threads", "2"]},
        },
    }
    assert "pytest test_parity.py --engines m-f16,m-q4_0" in ended.out
    assert ended.out.count("it is as it would be written") == 2


@pytest.mark.parametrize(
    ("cores", "gpu", "files", "args"),
    [
        (2, False, 2, ["--threads", "1"]),
        (2, False, 4, ["--threads", "1"]),
        (16, False, 3, ["--threads", "8"]),
        (16, False, 1, None),
        (1, False, 2, None),
        (2, True, 2, None),
    ],
)
def test_engines_that_share_the_cores_of_a_cpu_get_their_part_of_the_threads(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, cores: int, gpu: bool, files: int, args: list[str] | None
) -> None:
    """With all of them each, two llama.cpp on two cores took 26 s where a thread each takes 5."""
    monkeypatch.setattr(device, "cores", lambda: cores)
    monkeypatch.setattr(program, "gpu_visible", lambda environ: gpu)
    for number in range(files):
        _gguf(shell.path / f"m{number}.gguf")

    shell.run("init")

    text = (shell.path / "llmparity.toml").read_text()
    engines = parse_config(text, source="llmparity.toml").engines
    assert [engine.args for engine in engines.values()] == [args] * files
    comment = "# engines share the cores: half for each of two; lower it where more run at once\n"
    assert text.count(comment) == (files if args else 0)


def test_llama_cpp_computes_on_the_gpu_of_apples_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    intel = init.on_gpu()
    monkeypatch.setattr(platform, "machine", lambda: "arm64")

    assert (intel, init.on_gpu()) == (False, True)


def test_a_server_that_runs_takes_its_part_and_is_given_no_threads(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    _asked(monkeypatch, shell.engine(model="org/Some-Model").base_url)
    _gguf(shell.path / "m.gguf")

    shell.run("init")

    engines = tomllib.loads((shell.path / "llmparity.toml").read_text())["engines"]
    assert [engine.get("args") for engine in engines.values()] == [None, ["--threads", "2"]]


@pytest.mark.parametrize(
    ("keys", "threads"),
    [
        ("base_url = 'https://gpu:8000'", None),
        ("base_url = 'http://localhost:8000/v1'", "2"),
        ("kind = 'ollama'\nmodel = 'qwen3:8b'", "2"),
    ],
)
def test_only_what_computes_here_takes_a_part_of_the_threads(shell: Shell, keys: str, threads: str | None) -> None:
    shell.configure(f"[engines.mine]\n{keys}\n")
    _gguf(shell.path / "m.gguf")

    shown = shell.run("init").out.partition(":\n\n")[2]

    assert tomllib.loads(shown)["engines"]["m"].get("args") == (threads and ["--threads", threads])


def test_running_servers_become_engines(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    servers = [shell.engine(model=model) for model in ("org/Some-Model", "org/Other")]
    _asked(monkeypatch, *(server.base_url for server in servers))

    ended = shell.run("init")

    engines = tomllib.loads((shell.path / "llmparity.toml").read_text())["engines"]
    assert ended.code == 0
    assert {(engine["model"], engine["base_url"]) for engine in engines.values()} == {
        (server.model, server.base_url) for server in servers
    }


def test_one_engine_is_told_that_a_comparison_needs_two(shell: Shell) -> None:
    _gguf(shell.path / "only.gguf")

    ended = shell.run("init")

    assert "A comparison needs a second engine" in ended.out
    assert "--engines only,NAME" in ended.out


def test_commands_are_as_they_are_run_from_a_folder_of_the_project(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.gguf", "b.gguf"):
        _gguf(shell.path / name)
    (shell.path / "src").mkdir()
    monkeypatch.chdir(shell.path / "src")

    ended = shell.run("init")

    assert "wrote ../llmparity.toml: a, b\n" in ended.out
    assert "wrote ../prompts/sample.jsonl: 48 prompts" in ended.out
    assert "  llmparity doctor a b\n" in ended.out
    assert "  pytest ../test_parity.py --engines a,b\n" in ended.out


def test_a_file_that_is_there_has_one_name_from_a_folder_below(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link too: what is in the way is the link, not what it leads to."""
    (elsewhere := shell.path / "elsewhere").mkdir()
    elsewhere.joinpath("team.toml").write_text('[engines.a]\nbase_url = "http://127.0.0.1:1"\n')
    (shell.path / "llmparity.toml").symlink_to(elsewhere / "team.toml")
    (shell.path / "src").mkdir()
    monkeypatch.chdir(shell.path / "src")

    ended = shell.run("init")

    assert "kept ../llmparity.toml: " in ended.out
    assert "with a second engine in ../llmparity.toml, pytest" in ended.out
    assert "team.toml" not in ended.out


@pytest.mark.parametrize(
    ("mark", "text"),
    [("pyproject.toml", "[project]\nname = 'x'\n"), ("tox.ini", "[pytest]\n"), ("setup.py", "")],
)
def test_from_a_folder_below_it_is_said_where_everything_goes_and_why(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, mark: str, text: str
) -> None:
    (shell.path / "pytest.ini").unlink()
    (shell.path / mark).write_text(text)
    (shell.path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(shell.path / "a/b")

    below = shell.run("init").out
    named = shell.run("init", "--rootdir", ".").out
    monkeypatch.chdir(shell.path)
    at_root = shell.run("init").out

    why = f"the folder of {mark}: pytest's root from here (--rootdir names another)"
    assert below.startswith(f"writing to {shell.path}, {why}\nwrote ../../llmparity.toml: ")
    assert named.startswith("wrote llmparity.toml: ")
    assert at_root.startswith("kept llmparity.toml: ")


def test_a_root_that_was_named_is_named_in_every_command(shell: Shell) -> None:
    (root := shell.path / "other project").mkdir()

    before = shell.run("init", "--rootdir", "other project")
    _gguf(root / "a.gguf")
    after = shell.run("init", "--rootdir", "other project")

    assert "llmparity init --rootdir 'other project' again" in before.out
    assert "name the engines in other project/llmparity.toml" in before.out
    assert "  llmparity doctor --rootdir 'other project' a\n" in after.out
    assert "add it to other project/llmparity.toml" in after.out
    assert "  pytest --rootdir 'other project' 'other project/test_parity.py' --engines a,NAME\n" in after.out
    assert shell.run("init", "--rootdir", "nowhere").code == 4


def test_a_second_run_changes_nothing(shell: Shell) -> None:
    _gguf(shell.path / "m.gguf")
    shell.run("init")
    before = {path: path.read_bytes() for path in shell.path.rglob("*") if path.is_file()}

    ended = shell.run("init")

    assert ended.code == 0
    assert ended.out.count("it is as it would be written") == 3
    assert {path: path.read_bytes() for path in shell.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "text", "table"),
    [
        ("llmparity.toml", '[engines.mine]\nbase_url = "http://h:1"\n', "engines.m"),
        ("pyproject.toml", "[tool.llmparity]\n", "tool.llmparity.engines.m"),
    ],
)
def test_a_configuration_in_the_way_is_kept_and_what_was_found_is_shown(
    shell: Shell, name: str, text: str, table: str
) -> None:
    (shell.path / name).write_text(text)
    _gguf(shell.path / "m.gguf")

    ended = shell.run("init")

    assert ended.code == 4
    assert ended.err == f"llmparity: {name} is yours and stays as it is: add what you need of m to it\n"
    assert f"kept {name}: " in ended.out
    has = re.findall(r"engines\.([a-z]+)", text)[:1]
    steps = f"name two engines in {name}; then llmparity doctor NAME OTHER, and pytest --engines NAME,OTHER"
    for engine in has:
        steps = f"llmparity doctor {engine}; then, with a second engine in {name}, pytest --engines {engine},OTHER"
    assert f"Next: {steps}\n" in ended.out
    assert f"take what you need of this into {name}:" in ended.out
    shown = tomllib.loads(ended.out.partition(":\n\n")[2])
    assert functools.reduce(operator.getitem, table.split("."), shown)["model"] == "m.gguf"
    assert (shell.path / name).read_text() == text


def test_of_a_configuration_that_was_edited_only_what_it_lacks_is_shown(shell: Shell) -> None:
    """A file is known by where it is, whatever its engine is called, and a name that is taken is given to nobody."""
    for name in ("a.gguf", "models/b.gguf"):
        _gguf(shell.path / name)
    edited = "[engines.b]\nkind = 'llamacpp'\nmodel = './a.gguf'\n"
    shell.configure(edited)

    lacking = shell.run("init")
    shown = lacking.out.partition(":\n\n")[2]
    shell.configure(edited + shown)
    complete = shell.run("init")

    lacks = {"kind": "llamacpp", "model": "models/b.gguf", "args": ["--threads", "2"]}
    assert tomllib.loads(shown) == {"engines": {"b-2": lacks}}
    assert (lacking.code, complete.code, complete.err) == (4, 0, "")
    assert complete.out.endswith("Every engine that was found here is configured in llmparity.toml.\n")
    assert "[engines" not in complete.out


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ("base_url = '{url}/v1/'", False),
        ("base_url = 'HTTP://LocalHost:{port}/v2'", False),
        ("base_url = 'http://[::1]:{port}'", False),
        ("base_url = '127.0.0.1:{port}'", True),
        ("base_url = 'http://127.0.0.1:{port}/folder'", True),
        ("base_url = 'http://elsewhere:{port}'", True),
        ("base_url = '{url}'\nmodel = 'org/Other'", True),
        ("base_url = 'http://127.0.0.1:9'", True),
        ("kind = 'llamacpp'\nmodel = 'org/Some-Model'\nbase_url = '{url}'", False),
    ],
)
def test_a_server_is_configured_by_its_address_and_model(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, keys: str, shown: bool
) -> None:
    server = shell.engine(model="org/Some-Model")
    _asked(monkeypatch, server.base_url)
    shell.configure(f"[engines.mine]\n{keys.format(url=server.base_url, port=server.base_url.rpartition(':')[2])}\n")

    ended = shell.run("init")

    assert ("[engines" in ended.out) == shown
    assert ended.code == (4 if shown else 0)


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        ("pytest.ini", "[pytest]\ntestpaths = none 'unit*' tests\n"),
        ("pytest.toml", "[pytest]\ntestpaths = ['none', 'unit*', 'tests']\n"),
        ("pyproject.toml", "[tool.pytest.ini_options]\ntestpaths = 'none unit* tests'\n"),
        ("pyproject.toml", "[tool.pytest]\ntestpaths = ['unit*']\n"),
        ("tox.ini", "[tox]\n\n[pytest]\ntestpaths =\n    none\n    unit*\n"),
        ("setup.cfg", "[tool:pytest]\ntestpaths = unit*\n"),
    ],
)
def test_the_test_goes_where_pytest_looks_without_arguments(shell: Shell, mark: str, text: str) -> None:
    (shell.path / "pytest.ini").unlink()
    (shell.path / mark).write_text(text)
    for folder in ("tests", "unit_b"):
        (shell.path / folder).mkdir()
    for name in ("a.gguf", "b.gguf"):
        _gguf(shell.path / name)

    first = shell.run("init")
    shell.configure("[engines.a]\nkind = 'llamacpp'\nmodel = 'a.gguf'\n")
    again = shell.run("init")

    assert "wrote unit_b/test_parity.py: a test that compares the answers\n" in first.out
    assert "wrote prompts/sample.jsonl: " in first.out
    assert "  pytest unit_b/test_parity.py --engines a,b\n" in first.out
    assert "with a second engine in llmparity.toml, pytest --engines a,OTHER\n" in again.out
    assert not (shell.path / "test_parity.py").exists()


@pytest.mark.parametrize("testpaths", ["none", "../elsewhere", "a.gguf", "'"])
def test_without_a_folder_of_tests_in_the_project_the_test_is_in_the_root(shell: Shell, testpaths: str) -> None:
    (shell.path / "pytest.ini").write_text(f"[pytest]\ntestpaths = {testpaths}\n")
    _gguf(shell.path / "a.gguf")

    ended = shell.run("init")

    assert "wrote test_parity.py: " in ended.out
    assert "  pytest test_parity.py --engines a,NAME\n" in ended.out


def test_a_test_where_pytest_does_not_look_is_named_in_the_command(shell: Shell) -> None:
    shell.run("init")
    (shell.path / "tests").mkdir()
    (shell.path / "pytest.ini").write_text("[pytest]\ntestpaths = tests\n")
    shell.configure("[engines.a]\nbase_url = 'http://127.0.0.1:9'\n[engines.b]\nbase_url = 'http://127.0.0.1:8'\n")

    ended = shell.run("init")

    assert "kept test_parity.py: it is as it would be written\n" in ended.out
    assert "Next: llmparity doctor a b; then pytest test_parity.py --engines a,b\n" in ended.out
    assert not (shell.path / "tests/test_parity.py").exists()


@pytest.mark.parametrize(
    ("testpaths", "named"),
    [("tests/test_a.py", "test_parity.py "), ("none", "test_parity.py "), ("test_parity.py tests/test_a.py", "")],
)
def test_a_test_that_testpaths_leads_past_is_named_in_the_command(shell: Shell, testpaths: str, named: str) -> None:
    (shell.path / "tests").mkdir()
    (shell.path / "tests/test_a.py").touch()
    (shell.path / "pytest.ini").write_text(f"[pytest]\ntestpaths = {testpaths}\n")
    shell.configure("[engines.a]\nbase_url = 'http://127.0.0.1:9'\n[engines.b]\nbase_url = 'http://127.0.0.1:8'\n")

    ended = shell.run("init")

    assert (shell.path / "test_parity.py").exists()
    assert f"Next: llmparity doctor a b; then pytest {named}--engines a,b\n" in ended.out


def test_a_test_in_the_way_is_kept(shell: Shell) -> None:
    (shell.path / "test_parity.py").write_text("mine")

    ended = shell.run("init")

    assert ended.code == 0
    assert "test_parity.py: it is there already; move it away" in ended.out
    assert (shell.path / "test_parity.py").read_text() == "mine"


def test_a_folder_that_takes_no_file_is_named(shell: Shell) -> None:
    (shell.path / "prompts").write_text("a file")

    ended = shell.run("init")

    assert ended.code == 4
    assert "cannot be written" in ended.err


def test_what_is_written_is_valid(shell: Shell) -> None:
    shell.run("init")

    prompts = parse_prompts((shell.path / "prompts/sample.jsonl").read_text(), source="p", name="p")
    compile((shell.path / "test_parity.py").read_text(), "test_parity.py", "exec")

    assert len(prompts.cases) == 48
    assert prompts.groups == 48, "each counts by itself, and as many can be calibrated on"
    assert prompts.groups >= LEAST_GROUPS
    assert set(map(len, prompts.tag_sizes.values())) == {8}, "each kind has enough for a verdict of its own at 5 %"


def test_models_that_make_no_text_and_later_parts_are_left_out(tmp_path: Path) -> None:
    names = ("nomic-embed.gguf", "mmproj-m.gguf", "big-00001-of-00002.gguf", "big-00002-of-00002.gguf", ".x/hid.gguf")
    for name in names:
        _gguf(tmp_path / name)
    (tmp_path / "no.gguf").write_text("text")

    assert [path.name for path in gguf_files([tmp_path])] == ["big-00001-of-00002.gguf"]


def test_caches_of_other_programs_are_known(tmp_path: Path) -> None:
    models = [
        _gguf(tmp_path / ".cache/llama.cpp/org_m.gguf"),
        _gguf(tmp_path / ".cache/huggingface/hub/models--a--b/snapshots/1/m.gguf"),
        _gguf(tmp_path / ".lmstudio/models/pub/m/m.gguf"),
    ]

    assert gguf_files(caches({}, tmp_path)) == tuple(models)
    assert caches({"LLAMA_CACHE": "/l", "HF_HUB_CACHE": "/h"}, tmp_path)[:2] == (Path("/l"), Path("/h"))


@pytest.mark.live
def test_ollamas_models_become_engines_that_doctor_knows(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, real_ollama: RealOllama
) -> None:
    names = {real_ollama.model("F16"), real_ollama.model("Q8_0")}
    monkeypatch.setenv("OLLAMA_HOST", real_ollama.url)

    ended = shell.run("init")

    engines = tomllib.loads((shell.path / "llmparity.toml").read_text())["engines"]
    assert ended.code == 0
    assert names <= {engine["model"] for engine in engines.values()}
    assert shell.run("doctor", "--json", "ollama-tiny-f16").code == 0


@pytest.mark.slow
def test_the_gate_that_is_written_reaches_a_verdict(
    pytester: pytest.Pytester, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers = [shell.engine(model=model) for model in ("a", "b")]
    _asked(monkeypatch, *(server.base_url for server in servers))
    shell.run("init")
    names = tomllib.loads((shell.path / "llmparity.toml").read_text())["engines"]
    assert len(names) == 2
    monkeypatch.chdir(shell.path)

    result = pytester.runpytest_subprocess(
        f"--rootdir={shell.path}",
        str(shell.path / "test_parity.py"),
        f"--engines={','.join(names)}",
        "--parity-report=json",
    )

    result.assert_outcomes(passed=1)
    assert json.loads((shell.path / ".llmparity/report/run.json").read_text())["verdicts"]
