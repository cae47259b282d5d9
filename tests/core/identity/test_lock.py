from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import LockError
from pytest_llmparity.core.identity import lock
from pytest_llmparity.core.identity.lock import Locked
from pytest_llmparity.core.sample import Fact, Identity
from pytest_llmparity.core.words.masking import Mask
from pytest_llmparity.run import locking
from pytest_llmparity.settings.specification import EngineSpec

ROOT = "/home/me/project"
SPEC = EngineSpec(
    name="dev", kind="llamacpp", launch="process", model="m/q4.gguf", model_path=Path(f"{ROOT}/m/q4.gguf")
)


def identity(**values: str | int | float) -> Identity:
    return Identity(facts={name: Fact(value=value, source="reported") for name, value in values.items()})


def entry(spec: EngineSpec = SPEC, **values: str | int | float) -> Locked:
    return locking.entry(spec, identity(**values), kind="llamacpp", plugin="1.0", root=ROOT)


def launched(**fields: object) -> Locked:
    return entry(dataclasses.replace(SPEC, **fields))  # type: ignore[arg-type]


# -- what is kept


def test_facts_are_kept_with_their_source_and_what_belongs_to_the_run_is_left_out() -> None:
    locked = entry(kind="llamacpp", version="b1", slots=4, address="http://127.0.0.1:9")

    assert locked.identity == {"version": Fact(value="b1", source="reported")}
    assert entry(dataclasses.replace(SPEC, slots=4), slots=4).identity.keys() == {"slots"}
    assert entry(EngineSpec(name="x", base_url="http://h:1"), slots=4).identity.keys() == {"slots"}


@pytest.mark.parametrize(
    ("fields", "name", "kept"),
    [
        ({}, "model", "m/q4.gguf"),
        ({"model_path": Path("/data/models/q4.gguf")}, "model", "q4.gguf"),
        ({"model_path": None, "model": "/models/qwen/"}, "model", "qwen"),
        ({"model_path": None, "model": "C:\\models\\qwen"}, "model", "qwen"),
        ({"model_path": None, "model": "Qwen/Qwen3-8B"}, "model", "Qwen/Qwen3-8B"),
        ({"python": f"{ROOT}/.venv/bin/python"}, "python", ".venv/bin/python"),
        ({"python": "/opt/vllm/bin/python"}, "python", "python"),
        ({"python": "python3.12"}, "python", "python3.12"),
        ({"command": (f"{ROOT}/bin/llama", f"--lora={ROOT}/a", "x")}, "command", ("bin/llama", "--lora={root}/a", "x")),
        ({"args": ("--lora", f"{ROOT}/loras/a.gguf")}, "args", ("--lora", "{root}/loras/a.gguf")),
        ({"args": (f"{ROOT}s/a", f"/mnt{ROOT}/a")}, "args", (f"{ROOT}s/a", f"/mnt{ROOT}/a")),
        ({"env": {"B": "secret value", "A": "2"}}, "env", ("A", "B")),
        ({"requires": ("vllm==0.32.0",)}, "requires", ("vllm==0.32.0",)),
        ({"context_length": 8192}, "context_length", 8192),
        ({"launch": "attach", "base_url": "http://127.0.0.1:5"}, "base_url", None),
    ],
)
def test_what_an_engine_is_started_with_is_kept_without_this_machine(
    fields: dict[str, object], name: str, kept: object
) -> None:
    assert launched(**fields).launch.get(name) == kept


def test_the_model_s_path_on_a_server_s_machine_is_no_part_of_the_lock() -> None:
    assert entry(model="/srv/models/qwen").identity["model"].value == "qwen"
    assert entry(model="/").identity["model"].value == "/"


def test_another_project_folder_address_or_name_makes_no_other_lock() -> None:
    there = dataclasses.replace(
        SPEC, name="x", model_path=Path("/ci/work/m/q4.gguf"), args=("--lora", "/ci/work/a"), env={"A": "/ci/work/b"}
    )
    here = dataclasses.replace(SPEC, args=("--lora", f"{ROOT}/a"), env={"A": f"{ROOT}/b"}, request_timeout_s=1.0)

    assert locking.entry(there, identity(), kind="llamacpp", plugin="1.0", root="/ci/work") == entry(here)


def test_the_hash_sees_what_is_not_shown() -> None:
    variants: list[dict[str, object]] = [
        {},
        {"env": {"A": "1"}},
        {"env": {"A": "2"}},
        {"constraints": Path("/x/limits.txt")},
        {"overrides": Path("/x/limits.txt"), "constraints": Path("/x/a.txt")},
        {"extra_index_urls": ("https://h/i",)},
        {"args": ("-c",)},
    ]

    assert len({launched(**fields).launch["spec"] for fields in variants}) == len(variants)


# -- what must not be in it


@pytest.mark.parametrize(
    ("fields", "field", "problem"),
    [
        ({"args": ("--lora", "/data/loras/a.gguf")}, "engines.dev.launch.args[1]", "a path of this machine, '/data"),
        ({"args": ("--lora=~/a.gguf",)}, "engines.dev.launch.args[0]", "a path of this machine"),
        ({"args": ("C:\\loras\\a",)}, "engines.dev.launch.args[0]", "a path of this machine"),
        (
            {"requires": ("vllm @ file:///home/me/vllm.whl",)},
            "engines.dev.launch.requires[0]",
            "a path of this machine",
        ),
        ({"args": ("--key", "0123456789abcdef")}, "engines.dev.launch.args[1]", "the value of a key variable"),
        ({"args": ("sk-proj-abcdefghijklmnop",)}, "engines.dev.launch.args[0]", "looks like a key (not shown)"),
        ({"revision": "«TOKEN»"}, "engines.dev.launch.revision", "the value of a key variable"),
    ],
)
def test_a_secret_or_a_path_of_this_machine_is_refused_with_its_field(
    fields: dict[str, object], field: str, problem: str
) -> None:
    secrets = {"TOKEN": "0123456789abcdef"}

    with pytest.raises(LockError) as caught:
        lock.refuse_private("dev", launched(**fields), Mask(secrets), secrets)

    assert str(caught.value).startswith(f"{field} ")
    assert problem in str(caught.value)
    assert "0123456789abcdef" not in str(caught.value)
    assert "abcdefghijklmnop" not in str(caught.value)


def test_a_fact_that_repeats_a_path_is_refused_with_its_field() -> None:
    with pytest.raises(LockError, match=r"engines\.dev\.identity\.build holds a path"):
        lock.refuse_private("dev", entry(build="made in /home/you/llama.cpp"), Mask({}), ())


@pytest.mark.parametrize(
    "text",
    [
        "--api-prefix=/v1",
        "http://host/v1/models",
        "Qwen/Qwen3-8B",
        "{root}/loras/a.gguf",
        "F32:9 Q4_K:24",
        "2 x NVIDIA H200 (driver 570.86.15); AMD EPYC 9V74/9004 (avx)",
        '{"temperature": 0.8}',
        "../loras/a.gguf",
    ],
)
def test_what_is_no_path_of_this_machine_is_kept(text: str) -> None:
    lock.refuse_private("dev", launched(args=(text,)), Mask({}), ())


# -- how it differs


def test_every_field_that_differs_is_named_with_both_values() -> None:
    before = entry(version="b1", context_length=8192, bits_per_weight=5.0)
    after = dataclasses.replace(entry(dataclasses.replace(SPEC, args=("-fa", "on")), version="b2", bits_per_weight=5))

    differences = lock.differences(before, dataclasses.replace(after, kind="vllm", plugin="2.0"))

    assert [str(difference) for difference in differences] == [
        "kind: llamacpp -> vllm",
        "version: b1 -> b2",
        "context_length: 8192 -> not told now",
        "args: nothing -> -fa on",
    ]


def test_another_machine_is_a_difference_of_its_own_sort() -> None:
    (difference,) = lock.differences(entry(device="AMD EPYC"), entry(device="Apple M4"))

    assert (difference.field, difference.machine) == ("device", True)


def test_a_fact_that_is_not_told_now_is_no_difference_that_fails() -> None:
    locked = entry(version="b1", context_length=8192, device="AMD EPYC")

    differences = lock.differences(locked, entry(version="b1"))

    assert [(difference.field, difference.untold, difference.fails) for difference in differences] == [
        ("context_length", True, False),
        ("device", True, False),
    ]
    assert [difference.fails for difference in lock.differences(entry(version="b1"), locked)] == [True, False]


def test_an_engine_that_tells_nothing_of_what_is_locked_differs_in_all_of_it() -> None:
    differences = lock.differences(entry(version="b1", digest="sha256:1"), entry(device="AMD EPYC"))

    assert [str(difference) for difference in differences if difference.fails] == [
        "version: b1 -> nothing",
        "digest: sha256:1 -> nothing",
    ]


def test_a_field_this_version_does_not_know_is_compared_too() -> None:
    old = dataclasses.replace(entry(), identity={"aura": Fact(value="blue", source="reported")})

    assert [str(difference) for difference in lock.differences(old, entry())] == ["aura: blue -> nothing"]


def test_the_hash_is_named_only_when_nothing_that_is_shown_differs() -> None:
    assert [d.field for d in lock.differences(launched(env={"A": "1"}), launched(env={"A": "2"}))] == ["spec"]
    assert [d.field for d in lock.differences(launched(args=("a",)), launched(args=("b",)))] == ["args"]


facts = st.dictionaries(
    st.sampled_from(["version", "digest", "slots", "device"]),
    st.builds(Fact, value=st.one_of(st.text(), st.integers()), source=st.sampled_from(["reported", "file"])),
)
entries = st.builds(
    Locked,
    kind=st.sampled_from(["vllm", "ollama"]),
    plugin=st.text(),
    identity=facts,
    launch=st.dictionaries(
        st.sampled_from(["args", "model", "spec"]), st.one_of(st.text(), st.lists(st.text()).map(tuple))
    ),
)


@given(entries, entries)
def test_differences_are_none_exactly_when_nothing_differs(before: Locked, after: Locked) -> None:
    values = [{name: fact.value for name, fact in locked.identity.items()} for locked in (before, after)]
    same = before.kind == after.kind and values[0] == values[1] and before.launch == after.launch

    assert (not lock.differences(before, after)) == same
    assert len(lock.differences(before, after)) == len(lock.differences(after, before))


# -- two engines


def test_engines_that_say_the_same_are_told_apart_by_how_they_are_set_up() -> None:
    plain = entry(version="b1", digest="sha256:1", model="a", device="x")
    fast = entry(dataclasses.replace(SPEC, args=("-fa", "on")), version="b1", digest="sha256:1", model="b", device="y")
    hidden = entry(dataclasses.replace(SPEC, env={"A": "1"}), version="b1", digest="sha256:1")
    other = dataclasses.replace(hidden, launch={**plain.launch, "spec": "0"})

    assert lock.twins({"plain": plain, "fast": fast}) == [
        "plain and fast say the same of themselves; they differ in args (none and -fa on)"
    ]
    assert lock.twins({"plain": plain, "hidden": hidden}) == [
        "plain and hidden say the same of themselves; they differ in env (none and A)"
    ]
    assert lock.twins({"plain": plain, "other": other}) == [
        "plain and other say the same of themselves; they differ in the value of a variable in env, or in what their "
        "packages are installed with"
    ]


@pytest.mark.parametrize(
    "second",
    [
        entry(version="b2", digest="sha256:1"),
        dataclasses.replace(launched(args=("-fa",)), kind="vllm"),
        entry(version="b1", digest="sha256:1"),
    ],
    ids=["another identity", "another kind", "set up alike"],
)
def test_nothing_is_explained_where_there_is_nothing_to_explain(second: Locked) -> None:
    assert lock.twins({"a": entry(version="b1", digest="sha256:1"), "b": second}) == []


def test_two_engines_of_which_nothing_is_known_are_not_called_the_same() -> None:
    assert lock.twins({"a": launched(), "b": launched(args=("x",))}) == []


# -- writing it anew


def test_an_engine_that_is_as_it_was_keeps_the_version_that_saw_it() -> None:
    before = {"a": entry(version="b1"), "b": entry(version="b1")}
    seen = {"a": dataclasses.replace(entry(version="b1"), plugin="2.0"), "c": entry()}

    after = lock.renewed(before, seen)

    assert after == {**before, "c": entry()}
    assert lock.changes(before, after) == {"a": [], "b": [], "c": None}
