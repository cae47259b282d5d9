from __future__ import annotations

import dataclasses
import re
import stat
import string
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity import lockfile
from pytest_llmparity.core.errors import LockError
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.identity.canaries import Canaries, Canary
from pytest_llmparity.core.identity.lock import Locked
from pytest_llmparity.core.sample import IDENTITY, Fact
from tests.core.identity.test_agreed import ACCEPTED
from tests.core.identity.test_ladder import LADDER

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.text(string.ascii_lowercase + string.digits + "._-", min_size=1, max_size=8)
VALUES = st.one_of(TEXT, st.integers(-(2**62), 2**62), st.floats(allow_nan=False), st.booleans())
ENGINES = st.dictionaries(
    NAMES,
    st.builds(
        Locked,
        kind=TEXT,
        plugin=TEXT,
        identity=st.dictionaries(
            st.sampled_from(sorted(IDENTITY)),
            st.builds(Fact, value=VALUES, source=st.sampled_from(["reported", "file", "declared"])),
        ),
        launch=st.dictionaries(
            st.sampled_from(["launch", "args", "spec", "slots"]),
            st.one_of(TEXT, st.integers(-(2**62), 2**62), st.lists(TEXT, max_size=3).map(tuple)),
        ),
    ),
    max_size=3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lock")


@given(ENGINES)
def test_what_is_written_is_read_back(folder: Path, engines: dict[str, Locked]) -> None:
    lockfile.write(folder / "llmparity.lock", engines)

    assert lockfile.read(folder / "llmparity.lock") == engines


@given(ENGINES)
def test_the_same_engines_are_the_same_text_in_any_order(engines: dict[str, Locked]) -> None:
    assert lockfile.dumps(dict(reversed(engines.items()))) == lockfile.dumps(engines)


def test_a_line_is_one_thing() -> None:
    locked = Locked(
        kind="llamacpp",
        plugin="0.1",
        identity={"version": Fact(value="b1", source="reported"), "digest": Fact(value="sha256:0", source="file")},
        launch={"launch": "process", "args": ("-fa", "on"), "spec": "ab"},
    )

    assert (
        lockfile.dumps({"dev": locked}).partition("format")[2]
        == """ = 1

[engines.dev]
kind = "llamacpp"
plugin = "0.1"

[engines.dev.identity]
digest = {value = "sha256:0", source = "file"}
version = {value = "b1", source = "reported"}

[engines.dev.launch]
launch = "process"
args = [
    "-fa",
    "on",
]
spec = "ab"
"""
    )


def test_no_file_is_no_lock(tmp_path: Path) -> None:
    assert lockfile.read(tmp_path / "llmparity.lock") is None


ENGINE = '[engines.a]\nkind = "k"\nplugin = "p"\n'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("format = ", "is no lock file: Invalid value"),
        ("a = '\udcff'", "is no lock file: 'utf-8' codec"),
        ("format = 2", "has format 2, and this version reads 1"),
        ("", "has format None"),
        ("format = 1\nengines = 3", "engines is no table"),
        ("format = 1\nengines.a = 3", "engines.a is no table"),
        (f"format = 1\n{ENGINE}identity = 1\nlaunch = {{}}", "engines.a.identity is missing or of another type"),
        (f"format = 1\n{ENGINE}identity = {{}}", "engines.a.launch is missing or of another type"),
        (f"format = 1\n{ENGINE}launch = {{}}\nidentity.v = 1", "engines.a.identity.v is no fact"),
        (f"format = 1\n{ENGINE}launch = {{}}\nidentity.v = {{value = [], source = 'file'}}", "identity.v is no fact"),
        (f"format = 1\n{ENGINE}identity = {{}}\nlaunch.x = [1]", "engines.a.launch.x is neither text"),
    ],
)
def test_a_file_that_is_no_lock_is_named_with_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "llmparity.lock"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))

    with pytest.raises(LockError) as caught:
        lockfile.read(path)

    assert str(caught.value).startswith(str(path))
    assert problem in str(caught.value)
    assert "llmparity lock" in str(caught.value)


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(LockError, match="cannot be read: Is a directory"):
        lockfile.read(tmp_path)


@pytest.mark.parametrize("path", ["nowhere/llmparity.lock", "folder"])
def test_a_place_that_cannot_be_written_says_so_and_leaves_nothing_behind(tmp_path: Path, path: str) -> None:
    (tmp_path / "folder/x").mkdir(parents=True)

    with pytest.raises(LockError, match="cannot be written"):
        lockfile.write(tmp_path / path, {})

    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(sys.platform == "win32", reason="files have other rights there")
def test_everybody_who_has_the_project_can_read_it(tmp_path: Path) -> None:
    lockfile.write(tmp_path / "llmparity.lock", {})

    assert stat.S_IMODE((tmp_path / "llmparity.lock").stat().st_mode) == 0o644


def test_margins_are_read_as_they_were_written(tmp_path: Path) -> None:
    agreed = Agreed().accepting(ACCEPTED).accepting(dataclasses.replace(ACCEPTED, candidate="a.b", floor=0.0))
    path = tmp_path / "llmparity.lock"

    lockfile.write(path, {}, agreed)

    assert lockfile.agreed(path) == agreed
    assert lockfile.read(path) == {}
    lockfile.write(path, {})
    assert lockfile.agreed(path) == Agreed()


def test_no_file_says_nothing_of_drift(tmp_path: Path) -> None:
    assert lockfile.agreed(tmp_path / "llmparity.lock") == Agreed()


@pytest.mark.parametrize(
    ("line", "instead", "wrong"),
    [
        ("shift = 0.054", "shift = 0.0", "margins.prod.dev.shift is no number of nats above 0"),
        ("shift = 0.054", "shift = true", "margins.prod.dev.shift is missing or of another type"),
        ("accepted = 2026-11-28", 'accepted = "today"', "margins.prod.dev.accepted is no date"),
        ("groups = 32", "", "margins.prod.dev.groups is missing or of another type"),
        ('kind = "vllm"', "kind = 3", "margins.prod.dev.baseline is a table of texts with a kind"),
        ("[margins.prod.dev.candidate]", "[other]", "margins.prod.dev.candidate is no table"),
    ],
)
def test_what_is_wrong_with_a_margin_is_named(tmp_path: Path, line: str, instead: str, wrong: str) -> None:
    path = tmp_path / "llmparity.lock"
    path.write_text(lockfile.dumps({}, Agreed().accepting(ACCEPTED)).replace(line, instead, 1))

    with pytest.raises(LockError, match=re.escape(wrong)):
        lockfile.agreed(path)


def test_ladders_are_read_as_they_were_written(tmp_path: Path) -> None:
    agreed = Agreed().measuring(LADDER).accepting(ACCEPTED)
    path = tmp_path / "llmparity.lock"

    lockfile.write(path, {}, agreed)

    assert lockfile.agreed(path) == agreed
    assert "[ladders.4210e926d44a.rungs]" in path.read_text()
    assert "[ladders.4210e926d44a.tags.stories]" in path.read_text()


def test_a_ladder_of_an_earlier_version_is_read_and_kept_as_it_is(tmp_path: Path) -> None:
    """It has margins in nats; what its text was measured on is not known."""
    rungs = tuple(dataclasses.replace(rung, least_forks=None, tags={}) for rung in LADDER.rungs)
    old = Agreed().measuring(dataclasses.replace(LADDER, rungs=rungs, prompt_sha256="", max_tokens=0))
    path = tmp_path / "llmparity.lock"

    lockfile.write(path, {}, old)

    assert lockfile.agreed(path) == old
    assert "prompt_sha256" not in path.read_text()
    assert "Q8_0 = {shift = 0.036, lower = 0.0324, upper = 0.0396" in path.read_text()


@pytest.mark.parametrize(
    ("line", "instead", "wrong"),
    [
        ('digest = "sha256', 'digits = "sha256', "ladders.4210e926d44a.digest is missing or of another type"),
        ("measured = 2026-11-28", "measured = 3", "ladders.4210e926d44a.measured is no date"),
        ("Q8_0 = {shift = 0.036", "Q8_0 = {shift = true", "rungs.Q8_0 takes the numbers shift, lower, upper, forks"),
        ("[ladders.4210e926d44a.rungs]", "[other]", "ladders.4210e926d44a.rungs is no table"),
        ("max_tokens = 32", "", "ladders.4210e926d44a.max_tokens is missing or of another type"),
        ("[ladders.4210e926d44a.tags.stories]", "[ladders.4210e926d44a.tags]", "tags.Q8_0.forks is no table"),
        (
            "tags.stories]\nQ8_0 = {forks",
            "tags.stories]\nQ8_0 = {x",
            "tags.stories.Q8_0 takes the numbers",
        ),
    ],
)
def test_what_is_wrong_with_a_ladder_is_named(tmp_path: Path, line: str, instead: str, wrong: str) -> None:
    path = tmp_path / "llmparity.lock"
    path.write_text(lockfile.dumps({}, Agreed().measuring(LADDER)).replace(line, instead, 1))

    with pytest.raises(LockError, match=re.escape(wrong)):
        lockfile.agreed(path)


def canaries() -> Canaries:
    heard = Canary(text="a\n\x1b[2J", prompt_tokens=9, tokens=("a", "hex:e2"), seconds=("b", "\n"), leads=(0.5, 11.25))
    return Canaries(
        date="2026-11-28",
        plugin="1.0",
        prompt_set="canaries",
        floor=0.0002,
        unstable=0,
        answers={"fox": heard, "rain": Canary(text="")},
    )


@pytest.mark.parametrize("floor", [0.0002, None])
def test_canaries_are_read_as_they_were_written(tmp_path: Path, floor: float | None) -> None:
    engines = {
        "a.b": Locked(kind="vllm", plugin="1", canaries=dataclasses.replace(canaries(), floor=floor)),
        "dev": Locked(kind="vllm", plugin="1"),
    }

    lockfile.write(tmp_path / "llmparity.lock", engines)

    assert lockfile.read(tmp_path / "llmparity.lock") == engines


@pytest.mark.parametrize(
    ("line", "instead", "wrong"),
    [
        ("recorded = 2026-11-28", "recorded = 1", "canaries.dev is not as llmparity lock writes canaries"),
        ("unstable = 0", "", "canaries.dev is not as llmparity lock writes canaries"),
        ("leads = [0.5, 11.25]", "leads = [0.5]", "canaries.dev.answers.fox is no answer as llmparity lock writes one"),
        ('seconds = ["b"', 'seconds = [1, "b"', "canaries.dev.answers.fox is no answer"),
        ("prompt_tokens = 9", "prompt_tokens = true", "canaries.dev.answers.fox is no answer"),
        ("[canaries.dev]", "[canaries]\ndev = 1\n[more]", "canaries.dev is no table"),
    ],
)
def test_what_is_wrong_with_canaries_is_named(tmp_path: Path, line: str, instead: str, wrong: str) -> None:
    path = tmp_path / "llmparity.lock"
    text = lockfile.dumps({"dev": Locked(kind="vllm", plugin="1", canaries=canaries())}).replace(line, instead, 1)
    path.write_text(text.partition("[canaries.dev.answers.fox]")[0] if "[more]" in text else text)

    with pytest.raises(LockError, match=re.escape(wrong)):
        lockfile.read(path)
