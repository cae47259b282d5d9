from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.core.identity import lock
from pytest_llmparity.core.sample import Fact, Identity
from pytest_llmparity.run import locking
from pytest_llmparity.run.locking import Guard, Held
from pytest_llmparity.settings.specification import EngineSpec, Settings

SPEC = EngineSpec(name="dev", kind="vllm", base_url="http://127.0.0.1:1", model="m")


def identity(version: str, **more: str) -> Identity:
    facts = {"version": version, "digest": "sha256:0", **more}
    return Identity(facts={name: Fact(value=value, source="reported") for name, value in facts.items()})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project whose lock has the engine at version 1 on machine A."""
    locked = locking.entry(SPEC, identity("1", device="A"), kind="vllm", plugin="0", root=str(tmp_path))
    lockfile.write(tmp_path / lock.NAME, {"dev": locked})
    return tmp_path


def hold(root: Path, told: Identity, *, frozen: bool, selection: tuple[str, ...] = ("dev",)) -> Held:
    return Guard(root, Settings(engines=(SPEC,), selection=selection, frozen=frozen)).hold(SPEC, told, "vllm")


@pytest.mark.parametrize(("second", "apart"), [("1", ()), ("2", ("version",))])
@pytest.mark.parametrize("frozen", [False, True])
def test_each_replica_is_held_against_the_entry_of_its_engine(
    tmp_path: Path, frozen: bool, second: str, apart: tuple[str, ...]
) -> None:
    spec = EngineSpec(name="prod", kind="vllm", model="m", replicas=2)
    first, other = spec.each
    locked = locking.entry(spec, identity("1"), kind="vllm", plugin="0", root=str(tmp_path))
    lockfile.write(tmp_path / lock.NAME, {"prod": locked})
    guard = Guard(tmp_path, Settings(engines=(spec,), frozen=frozen))

    assert guard.hold(first, identity("1"), "vllm") == Held()
    held = guard.hold(other, identity(second), "vllm")

    words = held.wrong if frozen else held.notes
    assert [word in sentence for sentence in words for word in apart] == [True] * len(apart)
    assert all(sentence.endswith("if that is meant, run: llmparity lock prod") for sentence in words)
    assert (held.notes if frozen else held.wrong) == ()
    assert guard.seen == {"prod": dataclasses.replace(locked, plugin="")}, "the engine's, as its first replica says"


@pytest.mark.parametrize("frozen", [False, True])
def test_an_engine_that_is_as_locked_has_nothing_said_of_it(root: Path, frozen: bool) -> None:
    assert hold(root, identity("1", device="A"), frozen=frozen) == Held()


def test_a_difference_is_a_note_and_wrong_in_a_frozen_run(root: Path) -> None:
    sentence = "it differs from llmparity.lock: version: 1 -> 2; if that is meant, run: llmparity lock dev"

    assert hold(root, identity("2", device="A"), frozen=False) == Held(notes=(sentence,))
    assert hold(root, identity("2", device="A"), frozen=True) == Held(wrong=(sentence,))


@pytest.mark.parametrize("frozen", [False, True])
def test_another_machine_is_a_note_in_every_run(root: Path, frozen: bool) -> None:
    machine = "it was locked on another machine: device: A -> B"

    assert hold(root, identity("1", device="B"), frozen=frozen) == Held(notes=(machine,))
    assert machine in hold(root, identity("2", device="B"), frozen=frozen).notes


@pytest.mark.parametrize("frozen", [False, True])
def test_a_fact_that_is_not_told_now_is_a_note_in_every_run(root: Path, frozen: bool) -> None:
    held = hold(root, identity("1"), frozen=frozen)

    sentence = (
        "it does not tell now what llmparity.lock holds, so that is neither equal nor different: device (locked: A)"
    )
    assert held == Held(notes=(sentence,))


def test_an_engine_nobody_locked_is_wrong_in_a_frozen_run_only(root: Path) -> None:
    lockfile.write(root / lock.NAME, {})

    assert hold(root, identity("1"), frozen=False) == Held()
    assert hold(root, identity("1"), frozen=True).wrong == (
        "it is not in llmparity.lock, and this run is frozen; if that is meant, run: llmparity lock dev",
    )


def test_all_engines_that_nobody_locked_stand_in_one_command(root: Path) -> None:
    lockfile.write(root / lock.NAME, {})
    engines = (SPEC, dataclasses.replace(SPEC, name="prod"))
    guard = Guard(root, Settings(engines=engines, selection=("dev", "prod"), frozen=True))

    (wrong,) = guard.hold(SPEC, identity("1"), "vllm").wrong

    assert wrong.endswith("if that is meant, run: llmparity lock dev prod")


def test_a_lock_that_is_not_there_is_wrong_in_a_frozen_run_only(tmp_path: Path) -> None:
    assert hold(tmp_path, identity("1"), frozen=False) == Held()
    assert hold(tmp_path, identity("1"), frozen=True).wrong == (
        f"there is no llmparity.lock in {tmp_path}, and this run is frozen; if that is meant, run: llmparity lock dev",
    )


def test_a_damaged_lock_is_told_in_every_run(root: Path) -> None:
    (root / lock.NAME).write_text("format = 9")

    (note,) = hold(root, identity("1"), frozen=False).notes
    (wrong,) = hold(root, identity("1"), frozen=True).wrong

    assert note == wrong
    assert "has format 9" in note


def test_the_command_names_the_engine_as_it_was_selected(root: Path) -> None:
    selection = ("dev=vllm:m x@http://127.0.0.1:1",)

    (note,) = hold(root, identity("2", device="A"), frozen=False, selection=selection).notes

    assert note.endswith("run: llmparity lock 'dev=vllm:m x@http://127.0.0.1:1'")


def test_what_sets_engines_apart_that_say_the_same_is_known_of_those_that_were_seen(tmp_path: Path) -> None:
    prod = EngineSpec(name="prod", kind="vllm", model="m", context_length=9)
    guard = Guard(tmp_path, Settings(engines=(SPEC, prod)))
    assert guard.twins() == []

    guard.hold(prod, identity("1"), "vllm")
    guard.hold(SPEC, identity("1"), "vllm")

    assert guard.twins() == ["dev and prod say the same of themselves; they differ in context_length (none and 9)"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"digest": Fact(value="sha256:0", source="reported")}, ""),
        ({"revision": Fact(value="abc", source="reported")}, ""),
        ({"revision": Fact(value="abc", source="declared")}, "does not say which weights it serves"),
        ({"configuration": Fact(value="4f842c8d", source="reported")}, "of the settings and the model's path, not of"),
    ],
)
def test_what_a_lock_cannot_see_is_said_in_a_frozen_run(tmp_path: Path, facts: dict[str, Fact], words: str) -> None:
    told = Identity(facts=facts)
    locked = locking.entry(SPEC, told, kind="vllm", plugin="0", root=str(tmp_path))
    lockfile.write(tmp_path / lock.NAME, {"dev": locked})

    assert words in " ".join(hold(tmp_path, told, frozen=True).notes)
    assert bool(hold(tmp_path, told, frozen=True).notes) is bool(words)
    assert hold(tmp_path, told, frozen=False) == Held()


def test_a_volume_is_locked_without_the_folders_of_this_machine() -> None:
    volumes = ("/srv/models:/models:ro", "/work/data:/data", "cache:/root/.cache")
    spec = EngineSpec(name="a", kind="vllm", launch="container", model="m", image="vllm:1", volumes=volumes)

    locked = locking.entry(spec, Identity(), kind="vllm", plugin="1", root="/work")

    assert locked.launch["image"] == "vllm:1"
    assert locked.launch["volumes"] == ("models:/models:ro", "data:/data", "cache:/root/.cache")
