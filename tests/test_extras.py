"""Extras are installed from where the package came; nothing secret and, on other machines, no folder is named."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

import pytest_llmparity
from pytest_llmparity import extras
from pytest_llmparity.extras import command, is_local, localised, origin_of, parted, plain_command, step_elsewhere
from tests.doubles.installed import installed_from

SOURCE = Path(pytest_llmparity.__file__).parent
PLAIN = 'pip install "pytest-llmparity[ray]"'
GIT = {"vcs": "git", "requested_revision": "main", "commit_id": "1f2e"}


def test_from_a_registry_the_plain_name_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from(None, tmp_path, monkeypatch)

    assert command("ray") == plain_command("ray") == PLAIN
    assert step_elsewhere("ray", version="9.9") == 'pip install "pytest-llmparity[ray]==9.9"'
    assert not is_local()


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        ({"url": "https://host/o/x.git", "vcs_info": GIT}, "git+https://host/o/x.git@1f2e"),
        (
            {"url": "https://me:word@host:8443/x.git", "vcs_info": GIT, "subdirectory": "python"},
            "git+https://host:8443/x.git@1f2e#subdirectory=python",
        ),
        ({"url": "https://t0ken@host/x.git", "vcs_info": {"vcs": "git"}}, "git+https://host/x.git"),
        ({"url": "ssh://git@host/x.git", "vcs_info": GIT}, "git+ssh://git@host/x.git@1f2e"),
        ({"url": "ssh://git:word@host/x.git", "vcs_info": GIT}, "git+ssh://host/x.git@1f2e"),
        ({"url": "https://me:word@host/x-1.whl?key=word#word", "archive_info": {}}, "https://host/x-1.whl"),
        ({"url": "https://host/x-1.whl;key=word", "archive_info": {}}, "https://host/x-1.whl"),
    ],
)
def test_an_address_is_named_without_what_is_secret_in_it(
    origin: dict[str, object], source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed_from(origin, tmp_path, monkeypatch)

    assert command("ray") == f'pip install "pytest-llmparity[ray] @ {source}"'
    assert step_elsewhere("ray", version="9.9") == command("ray")
    assert not is_local()


def test_a_semicolon_of_a_folder_stays() -> None:
    assert origin_of('{"url": "file:///a;b"}').url == "file:///a;b"


def test_a_folder_is_named_here_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a clone"
    folder.mkdir()
    for editable in (False, True):
        origin = {"url": folder.as_uri(), "dir_info": {"editable": editable}}
        with monkeypatch.context() as patch:
            installed_from(origin, tmp_path / str(editable), patch)

            expected = ["-e", f"{folder}[ray]"] if editable else [f"pytest-llmparity[ray] @ {folder.as_uri()}"]
            assert shlex.split(command("ray")) == ["pip", "install", *expected]
            elsewhere = "install the same commit of pytest-llmparity with its extra ray"
            assert step_elsewhere("ray", version="9.9") == elsewhere
            assert is_local()


@pytest.mark.parametrize("inside", ["dir_info", "archive_info"])
def test_a_folder_that_is_gone_is_not_named(inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from({"url": (tmp_path / "gone").as_uri(), inside: {"editable": True}}, tmp_path, monkeypatch)

    assert command("ray") == PLAIN


@pytest.mark.parametrize("folder", ["closed", "a" * 300])
def test_a_folder_that_nobody_here_may_look_at_is_not_named(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def refused(path: int | str | os.PathLike[str], **how: Any) -> os.stat_result:
        if path in (tmp_path / "closed", str(tmp_path / "closed")):
            raise PermissionError(path)
        return stat(path, **how)

    installed_from({"url": (tmp_path / folder).as_uri(), "dir_info": {}}, tmp_path / "packages", monkeypatch)
    monkeypatch.setattr("os.stat", refused)  # root, as which these tests may run, may enter every folder

    assert command("ray") == PLAIN


def test_a_folder_that_a_shell_would_read_stays_one_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a $(touch b) `c` 'd'"
    folder.mkdir()
    installed_from({"url": folder.as_uri(), "dir_info": {"editable": True}}, tmp_path, monkeypatch)

    assert shlex.split(command("ray"))[-1] == f"{folder}[ray]"
    assert command("ray").startswith("pip install -e '")
    assert parted(f"by {command('ray')}, 'so'") == ["by ", command("ray"), ", 'so'"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"url": 3}', '{"url": "https://[x"}', '{"url": "", "dir_info": 1}']
)
def test_what_says_nothing_names_nothing(text: str) -> None:
    assert origin_of(text).url == ""


def test_what_is_no_text_names_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed_from({}, tmp_path, monkeypatch)
    (written,) = tmp_path.glob("*/direct_url.json")
    written.write_bytes(b"\xff{}")

    assert command("ray") == PLAIN


def test_only_a_text_for_the_terminal_says_where_the_package_came_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed_from({"url": "https://host/x.git", "vcs_info": GIT}, tmp_path, monkeypatch)

    told = localised(f"there is no engine: {plain_command('llamacpp')}  (or: pip install uv)")

    assert told == (
        'there is no engine: pip install "pytest-llmparity[llamacpp] @ git+https://host/x.git@1f2e"  '
        "(or: pip install uv)"
    )


def test_what_to_install_is_worded_in_one_place() -> None:
    words = re.compile(r"pip install .{0,2}(?:pytest-llmparity|\{PACKAGE\})\[")
    wording = [path for path in SOURCE.rglob("*.py") if words.search(path.read_text("utf-8"))]

    assert wording == [Path(extras.__file__)]
