"""The example of docs/adding-an-engine.md, run as its readers would: by hook, by entry point, under its own test."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import openai  # noqa: F401 - see below
import pytest

# pytester forgets modules that a run inside this process imported, and numpy cannot be imported twice.
import pytest_llmparity.plugin.door  # noqa: F401 - see above
from pytest_llmparity import adapter
from pytest_llmparity.testing import LoopbackEngine
from pytest_llmparity.testing.server import Call

PAGE = (Path(__file__).parents[2] / "docs/adding-an-engine.md").read_text("utf-8")
BLOCKS = dict(re.findall(r"^```([^\n]+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05))
def test_gate(parity_run): ...
"""


class KoboldCppDouble(LoopbackEngine):
    """Answers what the example asks of KoboldCpp beside OpenAI's API."""

    def answer(self, call: Call) -> None:
        own = {"/api/extra/version": {"version": "1.115"}, "/api/extra/true_max_context_length": {"value": 8192}}
        if call.path in own:
            call.send(200, json.dumps(own[call.path]).encode())
        else:
            super().answer(call)


@pytest.fixture
def servers() -> Iterator[list[KoboldCppDouble]]:
    with ExitStack() as stack:
        yield [stack.enter_context(KoboldCppDouble("the answer is 42")) for _ in range(2)]


@pytest.fixture
def project(pytester: pytest.Pytester, servers: list[KoboldCppDouble], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A project with prompts and one gate; gives the command line."""
    monkeypatch.setenv("LLMPARITY_EMBEDDING_MODEL", "none")
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(test_gate=SUITE)
    rows = [{"id": f"c{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(64)]
    (pytester.path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (pytester.path / "koboldcpp_llmparity.py").write_text(BLOCKS["python adapter"], "utf-8")
    pytester.syspathinsert()
    first, second = (f"{name}=koboldcpp:qwen3@{server.base_url}" for name, server in zip("ab", servers, strict=True))
    return ["-p", "no:cacheprovider", f"--engines={first},{second}", "--parity-report=json"]


def install(folder: Path, entries: str) -> None:
    """Make a distribution of this folder that has entry points, as an installer would."""
    info = folder / "koboldcpp_llmparity-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: koboldcpp-llmparity\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(entries)


def judged(pytester: pytest.Pytester, servers: list[KoboldCppDouble], *options: str) -> None:
    result = pytester.runpytest_inprocess(*options)

    result.assert_outcomes(passed=1)
    engines = json.loads((pytester.path / ".llmparity/report/run.json").read_text())["engines"]
    assert {(engine["kind"], engine["version"], engine["context_length"]) for engine in engines} == {
        ("koboldcpp", "1.115", 8192)
    }
    for server in servers:
        asked = [request.json for request in server.requests]
        assert all("frequency_penalty" not in body and body["rep_pen"] == 1.0 for body in asked)
        assert len(asked) > 64


@pytest.mark.slow
def test_the_engine_is_brought_by_a_hook(
    pytester: pytest.Pytester, servers: list[KoboldCppDouble], project: list[str]
) -> None:
    pytester.makeconftest(BLOCKS["python engines hook"])

    judged(pytester, servers, *project)


@pytest.mark.slow
def test_the_engine_is_brought_by_an_entry_point(
    pytester: pytest.Pytester, servers: list[KoboldCppDouble], project: list[str]
) -> None:
    groups = tomllib.loads(BLOCKS["toml entry point"])["project"]["entry-points"]
    (group, entries) = next(iter(groups.items()))
    install(pytester.path, "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]))

    judged(pytester, servers, *project)


def test_the_engine_is_named_in_the_configuration(pytester: pytest.Pytester, project: list[str]) -> None:
    pytester.makeconftest(BLOCKS["python engines hook"])
    (pytester.path / "llmparity.toml").write_text(BLOCKS["toml engines"])

    result = pytester.runpytest_inprocess("--engines=dev", "--collect-only")

    assert result.ret == 0
    result.stdout.fnmatch_lines(["*dev*koboldcpp*qwen3*"])


def test_the_engine_s_own_test_passes(pytester: pytest.Pytester, project: list[str]) -> None:
    pytester.makepyfile(test_adapter=BLOCKS["python adapter test"])

    pytester.runpytest_inprocess("test_adapter.py").assert_outcomes(passed=1)


def test_the_engine_can_be_started(pytester: pytest.Pytester, tmp_path: Path) -> None:
    space: dict[str, object] = {}
    exec(BLOCKS["python adapter"], space)
    kobold = space["KoboldCpp"]
    assert isinstance(kobold, type)
    assert issubclass(kobold, adapter.Adapter)
    program, model = tmp_path / "koboldcpp", tmp_path / "m.gguf"
    program.touch(mode=0o755)
    model.touch()
    spec = adapter.EngineSpec(name="dev", model_path=model, context_length=512, args=("--quiet",))

    launch = kobold.launch(spec, 8123, tmp_path, environ={"PATH": str(tmp_path)})

    flags = ("--model", str(model), "--host", "127.0.0.1", "--port", "8123", "--skiplauncher")
    assert launch.argv == (str(program), *flags, "--contextsize", "512", "--quiet")
    with pytest.raises(adapter.errors.LaunchError, match="path of a GGUF file"):
        kobold.launch(adapter.EngineSpec(name="dev", model="qwen3"), 8123, tmp_path)
    with pytest.raises(adapter.errors.LaunchError, match="releases"):
        kobold.launch(spec, 8123, tmp_path, environ={"PATH": ""})


def test_every_method_the_page_names_is_one_of_the_adapter_s() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    names = {name.partition("(")[0].partition(" ")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}

    assert names
    assert all(hasattr(adapter.Adapter, name) for name in names), names


def test_what_authors_may_rely_on_is_there_and_sorted() -> None:
    constants: list[str] = []
    rest: list[str] = []
    for name in adapter.__all__:
        assert hasattr(adapter, name)
        (constants if name.isupper() else rest).append(name)

    assert adapter.__all__ == [*sorted(constants), *sorted(rest)]
