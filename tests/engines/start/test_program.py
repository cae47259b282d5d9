from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.engines.facts.files import changed_since
from pytest_llmparity.engines.start.program import files_of
from pytest_llmparity.settings.specification import EngineSpec, Settings


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a program that was built in it, a library beside that, a template and an adapter."""
    for name in ("build/llama-server", "build/libggml.so.1", "build/notes.md", "chat.jinja", "lora/adapter.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "build/llama-server").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def spec(**keys: Any) -> EngineSpec:
    return EngineSpec(**{"name": "dev", "kind": "llamacpp", "model": "a.gguf", "launch": "process", **keys})


def test_an_engine_acts_by_its_program_and_by_the_files_that_its_keys_name(project: Path) -> None:
    engine = spec(
        command=("./build/llama-server",),
        args=("--chat-template-file=chat.jinja", "--lora", "lora", "--threads", "4", "--template", "x" * 5000, "."),
        env={"NOTES": "build/notes.md"},
    )

    names = {os.path.relpath(path.resolve(), project) for path in files_of(engine, project)}

    assert names == {"build/llama-server", "build/libggml.so.1", "chat.jinja", "lora", "build/notes.md"}
    assert files_of(spec(launch="attach", base_url="http://h", model_path=project / "a"), project) == [project / "a"]


@pytest.mark.parametrize("name", ["build/llama-server", "build/libggml.so.1", "chat.jinja", "lora/adapter.bin"])
def test_one_that_was_built_or_written_anew_is_another(project: Path, name: str) -> None:
    engine = spec(command=("./build/llama-server",), args=("--chat-template-file", "chat.jinja", "--lora", "lora"))
    files = files_of(engine, project)
    now = max(path.lstat().st_ctime for path in project.rglob("*")) + 1

    assert not changed_since(now, files)
    os.utime(project / name, (now + 60, now + 60))
    assert changed_since(now, files)


@pytest.mark.parametrize(
    ("keys", "hours"),
    [({}, math.inf), ({"requires": ("x==1",)}, math.inf), ({"command": ("x",)}, 6.0), ({"python": "/x"}, 6.0)],
)
def test_answers_of_a_program_of_ones_own_hold_for_hours(keys: dict[str, Any], hours: float) -> None:
    assert Settings(engines=(spec(**keys),), resume="judged").answers_hold_s == hours * 3600
