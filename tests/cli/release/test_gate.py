"""Decisions on stored runs, which ask nobody, and two whole commands that run a suite against doubles."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema_rs
import pytest

from pytest_llmparity.cli import merge
from pytest_llmparity.cli.release.gate import run_pytest
from pytest_llmparity.core.identity.lock import Locked
from pytest_llmparity.core.prompts.portion import Portion
from pytest_llmparity.core.sample import Fact
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.run.golden.requests import LOCKED, engines_document
from pytest_llmparity.run.ledger import RunState, read_state, write_state
from pytest_llmparity.store.decisions import FILE_NAME
from pytest_llmparity.store.runs import Store
from tests.cli.test_golden import ALONE, CASES, GATE, WORDS, prompts
from tests.cli.test_report import store_run
from tests.report.html.made import varied

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

PUBLISHED = json.loads(resources.files("pytest_llmparity").joinpath("schemas/decision.schema.json").read_text("utf-8"))
ALIKE = "[[rule]]\ntest = 'test_gate'\nlevel = 'required'\n"


@pytest.fixture
def passed(shell: Shell) -> Shell:
    """A project whose newest run passed."""
    verdicts = [v for v in varied().record.verdicts if v.engine == "dev"]
    store_run(shell, [dataclasses.replace(verdict, outcome=Outcome.PASS) for verdict in verdicts])
    return shell


@pytest.fixture
def failed(shell: Shell) -> Shell:
    """A project whose newest run has every outcome, numbers without an end and folders of this machine among them."""
    first, *others = varied().record.verdicts
    store_run(shell, [first, *(dataclasses.replace(v, upper=math.inf, reason=f"{shell.path}/x.py") for v in others)])
    return shell


def test_a_candidate_that_passed_ships(passed: Shell) -> None:
    told = passed.run("gate", "--run", "newest", "--candidate", "dev")

    assert told.code == 0, told.err
    assert "SHIP: dev may replace prod. All " in told.out
    assert "What changed from prod to dev:" in told.out
    assert "  quantization: F16 -> Q4_K_M" in told.out or "  digest: sha256:" in told.out
    assert "Policy: every check is required (sha256 e3b0c44298fc)." in told.out


TEMPLATE, CONTEXT = ("template_sha256", "ab" * 32, "cd" * 32), ("context_length", 4096, 2048)
ARGS = ("args", ("--ctx-size", "4096", "--jinja"), ("--ctx-size", "2048"))
SHOWN = {
    "template_sha256": "template_sha256: abababababababababa -> cdcdcdcdcdcdcdcdcdc",
    "args": "args: --ctx-size 4096 --jinja -> --ctx-size 2048",
    "context_length": "context_length: 4096 -> 2048",
}


def locked(place: int, *planted: tuple[str, object, object]) -> Locked:
    """Return one of two engines as the lock keeps them, which differ in what is planted."""
    told: dict[str, Any] = {name: (before, after)[place] for name, before, after in (TEMPLATE, CONTEXT, ARGS)}
    same = {name: before for name, before, _ in (TEMPLATE, CONTEXT, ARGS) if name not in [p[0] for p in planted]}
    values = {"version": "b6000", "quantization": "F16", **told, **same}
    args = values.pop("args")
    facts = {name: Fact(value=value, source="reported") for name, value in values.items()}
    return Locked(kind="llamacpp", plugin="1", identity=facts, launch={"args": args, "spec": str(args)})


@pytest.mark.parametrize("planted", [(TEMPLATE,), (ARGS,), (CONTEXT,), (TEMPLATE, ARGS, CONTEXT)])
def test_a_template_arguments_and_a_context_that_differ_are_named_and_nothing_else(
    shell: Shell, planted: tuple[tuple[str, object, object], ...]
) -> None:
    run = store_run(shell, [v for v in varied().record.verdicts if v.engine == "dev"])
    engines = {name: locked(place, *planted) for place, name in enumerate(("prod", "dev"))}
    with Store.open(shell.path / ".llmparity") as store:
        store.put_document(run, LOCKED, engines_document(engines, ()))

    told = shell.run("gate", "--run", run, "--candidate", "dev", "--json", "d.json")

    _, _, behind = told.out.partition("What changed from prod to dev:\n")
    lines = [line.strip() for line in behind.partition("\n\n")[0].splitlines()]
    names = [name for name, *_ in planted]
    assert {line for line in lines if " -> " in line} == {SHOWN[name] for name in names}
    alike = next(line for line in lines if line.startswith("the same: "))
    for name in ("template_sha256", "context_length"):
        assert (name in alike) == (name not in names)
    decision = json.loads((shell.path / "d.json").read_text("utf-8"))
    assert {change["field"] for change in decision["changed"]} - {"spec"} == set(names)


def test_a_tag_that_a_pass_hides_is_named_beside_the_advice(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(shell.path / "step.md"))
    hidden, few = "by themselves above the margin: poem 50 %", "too few prompts for a verdict of their own: ode 2"
    passed = next(v for v in varied().record.verdicts if (v.engine, v.kind) == ("dev", "text"))
    store_run(shell, [dataclasses.replace(passed, outcome=Outcome.PASS, reason=hidden, remarks=(few, hidden))])

    told = shell.run("gate", "--run", "newest", "--candidate", "dev")

    assert told.code == 0, told.err
    advice = f"The one required verdict passed. But of text the prompts of some tags are {hidden}."
    for text in (told.out, (shell.path / "step.md").read_text("utf-8")):
        assert advice in " ".join(text.split())
    known = told.out.partition("Passed, and to be known all the same:\n")[2]
    assert [f"  text of test_tickets: {remark}" for remark in (few, hidden)] == known.splitlines()[:2]


def test_one_that_failed_is_held_and_the_cases_are_shown(failed: Shell) -> None:
    told = failed.run("gate", "--run", "newest", "--baseline", "prod", "--candidate", "dev", "--json", "d.json")

    assert told.code == 1, told.err
    assert told.out.strip().startswith("HOLD: dev should not replace prod. ")
    assert "FAIL  test_tickets, text: " in told.out
    assert len(told.out.splitlines()) < 80
    decision = json.loads((failed.path / "d.json").read_text("utf-8"))
    jsonschema_rs.validator_for(PUBLISHED, validate_formats=True).validate(decision)
    assert json.loads((failed.path / ".llmparity" / FILE_NAME).read_text("utf-8")) == decision
    assert (decision["outcome"], decision["baseline"], decision["candidate"]) == ("HOLD", "prod", "dev")
    assert str(failed.path) not in json.dumps(decision)
    assert {"text", "schema.agree"} <= {verdict["kind"] for verdict in decision["verdicts"]}
    assert "\x1b" not in told.out


def test_a_policy_says_what_is_advisory_and_what_open_verdicts_mean(failed: Shell) -> None:
    kinds = {v.kind for v in varied().record.verdicts if v.engine == "dev" and v.outcome.fails_test}
    rules = "".join(f"[[rule]]\nlevel = 'advisory'\ncheck = '{kind}'\n" for kind in kinds)
    (failed.path / "release.toml").write_text(f"inconclusive = 'hold'\nskipped = 'ship'\n{rules}")
    (failed.path / "lenient.toml").write_text(f"inconclusive = 'ship'\n{rules}")

    told = failed.run("gate", "--run", "newest", "--candidate", "dev", "--policy", "release.toml")

    still = [v for v in varied().record.verdicts if v.engine == "dev" and v.outcome is Outcome.INCONCLUSIVE]
    assert told.code == (1 if still else 0), told.err
    assert "Advisory, so it decides nothing:" in told.out
    excused = failed.run("gate", "--run", "newest", "--candidate", "dev", "--policy", "lenient.toml")
    assert excused.code == 0, excused.err
    assert "required verdicts passed; the policy excuses 1 other." in " ".join(excused.out.split())
    assert "Shipped by the policy all the same:" in excused.out
    assert "Policy: release.toml (sha256 " in told.out


def test_a_workflow_shows_the_decision(failed: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(failed.path / "step.md"))

    told = failed.run("gate", "--run", "newest", "--candidate", "dev")

    summary = (failed.path / "step.md").read_text("utf-8")
    assert summary.startswith("## HOLD\n\n```text\nHOLD: dev should not replace prod. ")
    assert str(failed.path) not in summary
    assert len(summary.splitlines()) == len(told.out.splitlines()) + 4


def test_the_last_decisions_are_shown(passed: Shell) -> None:
    nothing = passed.run("gate", "--history")
    for _ in range(3):
        passed.run("gate", "--run", "newest", "--candidate", "dev")
    with (passed.path / ".llmparity" / FILE_NAME).open("a") as file:
        file.write('{"format": 1, "outcome": "\\u001b[31mSHIP"}\nnot JSON\n[]\n')

    everything, some = passed.run("gate", "--history"), passed.run("gate", "--history", "1")

    assert (nothing.code, everything.code) == (0, 0)
    assert nothing.out.startswith("no decision is stored in ")
    assert len(everything.out.splitlines()) == 4
    assert "SHIP          prod -> dev  " in everything.out
    assert len(some.out.splitlines()) == 1
    assert "\x1b" not in everything.out


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--baseline", "prod"), "--candidate is missing; name both engines, or a stored run with --run"),
        (("--baseline", "prod,dev", "--candidate", "x"), "--baseline takes one engine, not 2"),
        (("--baseline", "golden:x", "--candidate", "http://127.0.0.1:9"), "there are no golden answers of 'x'"),
        (("--baseline", "nobody", "--candidate", "http://127.0.0.1:9"), "nobody"),
        (("--baseline", "a", "--candidate", "b", "--suite", "gone"), "--suite: there is no gone"),
        (
            ("--baseline", "a", "--candidate", "b", "--policy", "gone.toml"),
            "--policy: gone.toml cannot be read: No such",
        ),
        (("--baseline", "a", "--candidate", "b", "--json", "gone/d.json"), "--json: gone/d.json names no file"),
        (("--run", "newest", "--suite", "."), "--run decides on answers that are stored"),
        (("--run", "newest"), "no run is stored in"),
        (("--history", "0"), "--history takes how many decisions to show"),
        (("--history", "x"), "invalid int value: 'x'"),
        (("--polcy", "x"), "unrecognized arguments: --polcy"),
    ],
)
def test_misuse_is_said_before_anything_runs_and_is_no_decision(shell: Shell, words: tuple[str, ...], why: str) -> None:
    told = shell.run("gate", *words)

    assert (told.code, why in told.err) == (4, True), told.err
    assert told.out == ""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--candidate", "gone"), "has no engine gone; it has "),
        (("--baseline", "dev"), "held its engines against prod, not against dev"),
        (("--candidate", "dev", "--policy", "idle.toml"), 'idle.toml: rule 1 (check = "tools") names no check of '),
    ],
)
def test_what_does_not_fit_a_stored_run_is_said(failed: Shell, words: tuple[str, ...], why: str) -> None:
    (failed.path / "idle.toml").write_text("[[rule]]\nlevel = 'advisory'\ncheck = 'tools'\n")

    told = failed.run("gate", "--run", "newest", *words)

    assert (told.code, why in told.err) == (4, True), told.err
    assert not (failed.path / ".llmparity" / FILE_NAME).exists()


@pytest.fixture
def suite(shell: Shell, warm_commands: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], tuple[str, ...]]:
    """A project with a gate and a test of its own; gives the command for two engines, the second saying something."""
    monkeypatch.setenv("PYTEST_ADDOPTS", ALONE)
    prompts(shell.path, CASES)
    (shell.path / "test_gate.py").write_text(GATE)
    (shell.path / "release.toml").write_text(ALIKE)
    (shell.path / "typo.toml").write_text(ALIKE.replace("test_gate", "test_gaet"))

    def command(says: str) -> tuple[str, ...]:
        old, new = (shell.engine(answer=text + WORDS, poses_as="llamacpp") for text in ("alike", says))
        both = ("--baseline", f"old={old.base_url}", "--candidate", f"new={new.base_url}")
        return ("gate", *both, "--suite", "test_gate.py")

    return command


@pytest.mark.slow
def test_a_suite_is_run_and_decided(shell: Shell, suite: Callable[[str], tuple[str, ...]]) -> None:
    told = shell.run(*suite("alike"), "--policy", "release.toml", "--json", "d.json")

    assert told.code == 0, told.err
    decision = json.loads((shell.path / "d.json").read_text("utf-8"))
    assert (decision["outcome"], decision["baseline"], decision["candidate"]) == ("SHIP", "old", "new")
    assert decision["flips"]["changed"] == 0


def test_a_shard_is_no_ground_for_a_decision(shell: Shell, suite: Callable[[str], tuple[str, ...]]) -> None:
    told = shell.run(*suite("alike"), "--", "--parity-shard", "1/2")

    assert told.code == 4
    assert "llmparity merge" in told.err
    assert not (shell.path / ".llmparity" / "samples.sqlite").exists()


@pytest.mark.parametrize(
    "words",
    [("--parity-tag=refund",), ("--parity-tag", "refund"), ("-q", "--parity-sample", "9"), ("--parity-case", "case-1")],
)
def test_prompts_that_are_left_out_are_no_ground_for_a_decision(
    shell: Shell, suite: Callable[[str], tuple[str, ...]], words: tuple[str, ...]
) -> None:
    """With a policy and without, before anything is started; so does a search for a version."""
    option = next(word for word in words if word.startswith("--")).partition("=")[0]
    search = ("bisect", "--engine=dev", "--versions=1,2", "--suite", "test_gate.py")
    for command in (suite("alike"), (*suite("alike"), "--policy", "release.toml"), search):
        told = shell.run(*command, "--", *words)

        assert told.code == 4
        assert f"a decision is about whole runs, and {option} leaves prompts out of this one" in told.err
        assert told.out == ""
        assert not (shell.path / ".llmparity").exists()


@pytest.mark.slow
def test_addopts_that_leave_prompts_out_are_no_ground_for_a_decision(
    shell: Shell, suite: Callable[[str], tuple[str, ...]]
) -> None:
    command = suite("alike")
    (shell.path / "pytest.ini").write_text("[pytest]\naddopts = --parity-sample 32\n")

    told = shell.run(*command)

    assert told.code == 4
    assert "pytest ended with exit code 4, so nothing is decided" in told.err
    assert not (shell.path / ".llmparity" / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (RunState(portion=Portion(tags=("refund",))), "it asked a part of the prompts (--parity-tag refund)"),
        (RunState(portion=Portion(most=60)), "it asked a part of the prompts (--parity-sample 60)"),
        (RunState(cases=("case-1",)), "it asked single cases (--parity-case)"),
        (RunState(shard="shard 1 of 2"), "llmparity merge puts the shards together"),
    ],
)
def test_a_stored_run_that_is_not_whole_decides_nothing(passed: Shell, state: RunState, why: str) -> None:
    with Store.open(passed.path / ".llmparity") as store:
        (info,) = store.runs()
        known = read_state(store, info.id)
        assert known is not None
        write_state(store, info.id, dataclasses.replace(state, engines=known.engines, baseline=known.baseline))

    told = passed.run("gate", "--run", info.id, "--candidate", "dev")

    assert told.code == 4
    assert why in told.err
    assert told.out == ""
    assert not (passed.path / ".llmparity" / FILE_NAME).exists()


@pytest.mark.parametrize(
    ("baseline", "candidate", "told"),
    [
        ("dev", "dve", "--candidate: unknown engine 'dve' (did you mean 'dev'?)"),
        ("dve", "dev", "--baseline: unknown engine 'dve' (did you mean 'dev'?)"),
        ("golden:dev", "dev", "--baseline: there are no golden answers of 'dev'"),
        ("dev", "replay:dev", "--candidate: there is no recording 'dev'"),
        ("dev", "new=dve", "--candidate: 'new=dve': unknown engine 'dve'"),
        (
            "dev",
            "dev=http://h:1",
            "--baseline and --candidate are both named 'dev'; put another name before one of them: NAME=http://h:1\n",
        ),
    ],
)
def test_what_is_wrong_with_an_engine_names_the_option_that_gave_it(
    shell: Shell, baseline: str, candidate: str, told: str
) -> None:
    """Also where the sentence mentions the other one, as the nearest name or as what to record."""
    shell.configure("[engines.dev]\nbase_url = 'http://127.0.0.1:1'\n")

    ended = shell.run("gate", "--baseline", baseline, "--candidate", candidate)

    assert ended.code == 4
    assert ended.err.startswith(f"llmparity: {told}")


@pytest.mark.slow
def test_a_rule_that_names_no_test_is_refused_before_anybody_is_asked(
    shell: Shell, suite: Callable[[str], tuple[str, ...]]
) -> None:
    told = shell.run(*suite("alike"), "--policy", "typo.toml")

    assert told.code == 4
    assert "pytest ended with exit code 4, so nothing is decided" in told.err
    assert not (shell.path / ".llmparity" / "samples.sqlite").exists()


@pytest.mark.slow
def test_a_test_that_fails_without_a_verdict_holds(shell: Shell, suite: Callable[[str], tuple[str, ...]]) -> None:
    with (shell.path / "test_gate.py").open("a") as file:
        file.write("\ndef test_app(): assert 1 == 2\n")

    told = shell.run(*suite("alike"))

    assert told.code == 1
    assert "A test fails for another reason than a verdict." in " ".join(told.out.split())
    assert "test_app: assert 1 == 2" in told.out


def test_a_log_of_pytest_has_what_it_says_on_both_streams(tmp_path: Path) -> None:
    says = "import os, sys; print(os.environ['WHO']); print('conftest.py is missing', file=sys.stderr)"

    with (tmp_path / "log").open("wb") as out:
        code = run_pytest([sys.executable, "-c", says], out, env={"WHO": "gate"})

    assert code == 0
    assert sorted((tmp_path / "log").read_text("utf-8").splitlines()) == ["conftest.py is missing", "gate"]


def test_merge_starts_pytest_as_the_gate_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], *, env: dict[str, str]) -> int:
        started.append((command, env))
        return 3

    monkeypatch.setattr(merge, "run_pytest", start)
    monkeypatch.setenv("LLMPARITY_MODE", "live")

    assert merge.judged(tmp_path, "run-1", suite=["a.py"]) == 3

    ((command, environ),) = started
    assert command[-2:] == ["replay=run-1", "a.py"]
    assert "LLMPARITY_MODE" not in environ
