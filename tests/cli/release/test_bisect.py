"""Searches for the first bad version: what is refused at once, and whole commands that gate versions of doubles."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli.release.bisect import Job, _refuse_without_baseline, completed, outcome, searched
from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.gate.bisecting import Stands
from pytest_llmparity.core.gate.deciding import BrokenTest, decide
from pytest_llmparity.core.gate.policy import Policy, Ruled
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.settings.variants import Variant
from pytest_llmparity.store.decisions import FILE_NAME
from tests.cli.test_golden import ALONE, CASES, GATE, WORDS, prompts

if TYPE_CHECKING:
    from tests.cli.conftest import Ended, Shell
    from tests.doubles.posing import PosingEngine

CONFIG = """
[engines.dev]
kind = "llamacpp"
model = "a.gguf"
requires = "xllamacpp==2026.10"

[engines.loose]
kind = "openai"
base_url = "http://127.0.0.1:9"

[profiles.ci]
frozen = true
"""
ENGINE = ("--engine", "dev")


@pytest.fixture
def project(shell: Shell) -> Shell:
    """A project with engines and lists of versions, none of which is ever started."""
    shell.configure(CONFIG)
    for name in ("a.gguf", "b.gguf"):
        (shell.path / name).touch()
    (shell.path / "one.toml").write_text("a = { slots = 1 }\n")
    (shell.path / "typo.toml").write_text("a = { slots = 1 }\nb = { slot = 2 }\n")
    (shell.path / "gone.toml").write_text("a = { slots = 1 }\nb = { model = './gone.gguf' }\n")
    return shell


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (ENGINE, "one of the arguments --versions --models --revisions --images --versions-from is required"),
        ((*ENGINE, "--versions", "1,2", "--models", "a,b"), "not allowed with argument"),
        (("--versions", "1,2"), "the following arguments are required: --engine"),
        (("--engine", "dve", "--versions", "1,2"), "no engine 'dve' is configured (did you mean 'dev'?)"),
        (("--engine", "loose", "--versions", "1,2"), "loose is not installed from the package that brings it: it has"),
        ((*ENGINE, "--versions", "2026.9"), "--versions names 1 version, and a search needs two"),
        ((*ENGINE, "--versions", "2026.9,2026.9"), "--versions: 2026.9 is named twice"),
        ((*ENGINE, "--versions", "2026.9,,2026.10"), "--versions has an empty entry"),
        ((*ENGINE, "--versions", "2026.9,2026.9.0"), "2026.9 and 2026.9.0 are the same version"),
        ((*ENGINE, "--versions", "2026.9,newest"), "is no version of xllamacpp, such as 0.31.0"),
        ((*ENGINE, "--models", "a.gguf,c.gguf"), "--models: c.gguf is not there; looked in "),
        ((*ENGINE, "--versions-from", "none.toml"), "--versions-from: none.toml cannot be read: No such file"),
        ((*ENGINE, "--versions-from", "one.toml"), "--versions-from names 1 version, and a search needs two"),
        ((*ENGINE, "--versions-from", "typo.toml"), "typo.toml: b.slot"),
        ((*ENGINE, "--versions-from", "gone.toml"), "'./gone.gguf' is not there"),
        ((*ENGINE, "--versions", "1,2", "--good", "3"), "--good: 3 is none of the versions: 1, 2"),
        ((*ENGINE, "--versions", "1,2,3", "--good", "3", "--bad", "1"), "nothing is left between 3 and 1"),
        ((*ENGINE, "--versions", "1,2", "--baseline", "golden:x"), "--baseline: there are no golden answers of 'x'"),
        ((*ENGINE, "--versions", "1,2", "--baseline", "dve"), "--baseline: unknown engine 'dve' (did you mean 'dev'?)"),
        ((*ENGINE, "--versions", "1,2", "--baseline", "a,b"), "--baseline takes one engine, not 2"),
        ((*ENGINE, "--versions", "1,2", "--suite", "gone"), "--suite: there is no gone"),
        ((*ENGINE, "--versions", "1,2", "--policy", "no.toml"), "--policy: no.toml cannot be read"),
        ((*ENGINE, "--versions", "1,2", "--profile", "ci"), "this project is frozen"),
        ((*ENGINE, "--versions", "1,2", "--json", "gone/b.json"), "--json: gone/b.json names no file in a folder"),
        (
            (*ENGINE, "--versions", "1,2", "--", "--parity-fresh"),
            "--parity-fresh is for one run, and bisect makes several",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_runs(
    project: Shell, words: tuple[str, ...], why: str
) -> None:
    told = project.run("bisect", *words)

    assert told.code == 4
    assert why in told.err
    assert told.out == ""
    assert not (project.path / ".llmparity").exists()


@pytest.fixture
def history(
    shell: Shell, warm_commands: None, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Sequence[str]], tuple[PosingEngine, ...]]:
    """A project whose engine answered otherwise in some of its versions, named a, b, c, …"""
    monkeypatch.setenv("PYTEST_ADDOPTS", ALONE)
    prompts(shell.path, CASES)
    (shell.path / "test_gate.py").write_text(GATE)

    def project(answers: Sequence[str]) -> tuple[PosingEngine, ...]:
        engines = {text: shell.engine(answer=text + WORDS, poses_as="llamacpp") for text in ["alike", *answers]}
        shell.configure(f'[engines.dev]\nkind = "llamacpp"\nbase_url = "{engines["alike"].base_url}"\n')
        lines = [
            f'{name} = {{ base_url = "{engines[text].base_url}" }}\n'
            for name, text in zip("abcdefgh", answers, strict=False)
        ]
        (shell.path / "v.toml").write_text("".join(lines))
        return tuple(engines.values())

    return project


def bisect(shell: Shell, *more: str) -> Ended:
    return shell.run("bisect", *ENGINE, "--versions-from", "v.toml", "--suite", "test_gate.py", *more)


def decided_on(verdict: Verdict) -> Any:
    """What a gate with this one verdict decided."""
    decision = decide(Policy(), [verdict], baseline="old", candidate="dev")
    return SimpleNamespace(decision=decision, whole=SimpleNamespace(record=SimpleNamespace(run="r", requests=9)))


def test_halves_are_gated_until_the_first_version_that_does_not_pass_is_known(
    capsys: pytest.CaptureFixture[str],
) -> None:
    variants = [Variant(name=f"dev-{label}", label=label, of="dev", keys={}) for label in "abcdefgh"]
    told = {0: Stands.GOOD, 7: Stands.BAD}
    job = Job(engine="dev", variants=variants, baseline="old", against="old", known=told)
    gated: list[str] = []

    def gate(variant: Variant) -> Any:
        gated.append(variant.label)
        how = Outcome.PASS if variant.label < "d" else Outcome.FAIL
        verdict = Verdict(test="t.py::t", check="c", kind="prompts", engine="dev", baseline="old", outcome=how)
        return decided_on(verdict)

    search, versions = searched(job, gate, asked=SimpleNamespace(fresh=False))  # type: ignore[arg-type]

    assert gated == ["d", "b", "c"]
    assert [versions[place].label for place in search.among] == ["d"]
    assert outcome(search) == "HOLD"
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("gate ")] == [
        f"gate {number} of at most 3: {label}" for number, label in enumerate(gated, start=1)
    ]


@pytest.mark.parametrize(
    ("outcome", "asks_more", "again"),
    [
        (Outcome.INCONCLUSIVE, True, ["--parity-retry-failed"]),
        (Outcome.INCONCLUSIVE, False, []),
        (Outcome.FAIL, True, []),
        (Outcome.PASS, True, []),
    ],
)
def test_only_an_open_gate_that_may_ask_more_is_made_once_more(
    outcome: Outcome, asks_more: bool, again: list[str]
) -> None:
    verdict = Verdict(test="t.py::t", check="c", kind="prompts", engine="dev", baseline="old", outcome=outcome)
    first, second, made = decided_on(verdict), decided_on(dataclasses.replace(verdict, outcome=Outcome.FAIL)), []

    def once(how: str) -> Any:
        made.append(how)
        return second

    decided = completed(first, once, may_ask_more=lambda decided: asks_more)

    assert (made, decided) == (again, second if again else first)


@pytest.mark.slow
def test_the_first_bad_version_is_named_with_what_to_do(
    shell: Shell, history: Callable[[Sequence[str]], tuple[PosingEngine, ...]]
) -> None:
    history(["alike", "another answer"])

    told = bisect(shell, "--good", "a", "--json", "b.json")

    assert told.code == 1, told.out + told.err
    before, _, after = told.out.partition("gate 1 of at most 1: b\n")
    plan = " ".join(before.split())  # it is as wide as the terminal
    assert plan.startswith("dev: 2 versions from a to b, held against a, the first of them. At most 1 gate (halves)")
    lines = after.partition("\n\n")[2].splitlines()
    assert lines[0] == "a  told good"
    assert lines[1].startswith("b  HOLD       text ")
    run = lines[1].split()[-1]
    text = " ".join(told.out.split())
    assert "b is the first version of dev that no longer passes; a, before it, does. Keep dev at a (base_url = " in text
    assert f"What turned: llmparity report {run} --html." in text
    (decision,) = map(json.loads, (shell.path / ".llmparity" / FILE_NAME).read_text("utf-8").splitlines())
    assert (decision["outcome"], decision["baseline"], decision["candidate"]) == ("HOLD", "dev-a", "dev")
    assert decision["run"] == run
    written = json.loads((shell.path / "b.json").read_text("utf-8"))
    assert (written["outcome"], written["first_bad"], written["last_good"], written["gates"]) == ("HOLD", "b", "a", 1)
    assert (shell.path / ".llmparity/logs/bisect-dev-b.log").stat().st_size


@pytest.mark.slow
def test_halves_are_gated_and_what_was_gated_is_not_asked_again(
    shell: Shell, history: Callable[[Sequence[str]], tuple[PosingEngine, ...]]
) -> None:
    engines = history(["alike"] * 2 + ["another answer"] * 2)
    words = ("--baseline", f"old={engines[0].base_url}", "--good", "a", "--bad", "d")

    first = bisect(shell, *words)
    asked = [len(engine.requests) for engine in engines]
    again = bisect(shell, *words)

    for told in (first, again):
        assert told.code == 1, told.out + told.err
        assert told.out.count("gate 2 of at most 2: ") == 1
        assert "c is the first version of dev that no longer passes; b, before it, does." in " ".join(told.out.split())
    assert again.out.count("its answers were stored, nobody was asked") == 2
    assert [len(engine.requests) for engine in engines] == asked


@pytest.mark.slow
def test_a_version_that_cannot_be_used_is_searched_around(
    shell: Shell, history: Callable[[Sequence[str]], tuple[PosingEngine, ...]]
) -> None:
    """It refuses our key, which is final; for one that does not answer each gate waits ten seconds."""
    history(["alike", "alike", "another answer"])
    closed = shell.engine(answer="alike", poses_as="llamacpp", api_key="another key")
    text = (shell.path / "v.toml").read_text().splitlines()
    text[1] = f'b = {{ base_url = "{closed.base_url}" }}'
    (shell.path / "v.toml").write_text("\n".join(text))

    told = bisect(shell, "--good", "a", "--bad", "c")

    assert told.code == 2, told.out + told.err
    text_ = " ".join(told.out.split())
    assert "b  unusable  " in told.out
    assert "The first version of dev that no longer passes is b or c: of b the gates do not say. Keep dev at a" in text_


@pytest.mark.slow
def test_a_suite_that_comes_to_no_verdict_ends_the_search_with_its_last_words(
    shell: Shell, history: Callable[[Sequence[str]], tuple[PosingEngine, ...]]
) -> None:
    history(["alike", "another answer"])
    (shell.path / "test_gate.py").write_text("import nothing_of_this_name\n")

    told = bisect(shell)

    assert told.code == 4
    assert "a: pytest ended with exit code 2, so the search ends; its output " in told.err
    assert "No module named 'nothing_of_this_name'" in told.err


@pytest.mark.slow
def test_a_gate_that_a_limit_left_open_is_asked_once_more(
    shell: Shell, history: Callable[[Sequence[str]], tuple[PosingEngine, ...]]
) -> None:
    engines = history(["alike", "another answer"])

    told = bisect(shell, "--good", "a", "--", "--parity-max-requests", "40")

    assert told.code == 1, told.out + told.err
    assert "b  HOLD       text " in told.out
    assert sum(len(engine.requests) for engine in engines) > 40


def test_a_test_that_fails_on_the_baseline_alone_ends_the_search() -> None:
    usable = SimpleNamespace(name="prod", unusable=None)
    job: Any = SimpleNamespace(against="prod")

    def refuse(*broken: BrokenTest) -> None:
        made: Any = SimpleNamespace(
            whole=SimpleNamespace(record=SimpleNamespace(engines=[usable])),
            decision=SimpleNamespace(baseline="prod", broken=broken),
        )
        _refuse_without_baseline(made, job)

    own = BrokenTest(test="t.py::test_app[prod]", why="KeyError: 'x'", level="required", ruled=Ruled.INCONCLUSIVE)
    refuse()
    refuse(dataclasses.replace(own, level="advisory"), dataclasses.replace(own, ruled=Ruled.HOLD))
    with pytest.raises(UsageError, match=r"test_app\[prod\] fails on prod alone, so no version can pass .*: 'x'"):
        refuse(own)
