"""Under xdist: the same verdicts, every request once, every engine once, and a crash of a worker costs no answer."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pytest_llmparity.core.sample import to_json
from pytest_llmparity.core.values.calls import Asked
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.plugin.telling import planned
from pytest_llmparity.plugin.telling.ending import Tally
from pytest_llmparity.plugin.xdist import XdistHooks, plans, tell_plan

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

FAILED = pytest.ExitCode.TESTS_FAILED

SUITE = """
import os
import httpx
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.prompts(), check.text(margin=0.05))
@pytest.mark.slow
def test_text(parity_run):
    assert parity_run["a"]["case-1"].text

@pytest.mark.parity("prompts.jsonl", check.schema({"type": "object"}, gap=0.5), max_tokens=8)
@pytest.mark.slow
def test_schema(): ...

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.9), max_tokens=16)
@pytest.mark.slow
def test_wide(): ...

@pytest.mark.slow
def test_app(engine):
    body = {"model": engine.model, "messages": [{"role": "user", "content": "app"}]}
    answer = httpx.post(f"{engine.base_url}/chat/completions", json=body, trust_env=False).json()
    assert answer["choices"][0]["message"]["content"]

@pytest.mark.slow
def test_ask(parity):
    assert parity.ask("on the spot")["a"].text
"""
CASES = 12
TEXT = CASES + 3 * CASES
"""Prompts of a text check: the answers and three passes for the noise floor."""
GATHERED = TEXT + CASES + TEXT
REPORTED = """
def pytest_llmparity_report(config, record):
    with open("reported", "a") as out:
        role = "worker" if hasattr(config, "workerinput") else "controller"
        out.write(f"{role} {len(record.verdicts)}\\n")
"""


def verdicts(report: Any) -> list[dict[str, Any]]:
    return sorted(report["verdicts"], key=lambda v: (v["test"], v["check"], v["kind"], v["engine"]))


WORKER = """
import json
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    with open("given.json") as given:
        config.workerinput = {"workerid": "gw0", "llmparity": json.load(given)}
    config.workeroutput = {}

@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    with open("handed-back.jsonl", "a") as out:
        out.write(json.dumps(config.workeroutput["llmparity"]) + "\\n")
"""
"""Makes a run what xdist makes of a worker: told whose it is, and asked what it came to."""


CONTROLLER = """
import pytest

@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session):
    ids = [item.nodeid for item in session.items]
    session.config.stash[DOOR].collected(ids, ["plan: told by a worker"])
    session.config.stash[DOOR].tally.planned = ["plan: told by a worker"]
"""


def test_a_plan_that_was_told_ahead_is_not_told_again_in_the_summary(bench: Bench) -> None:
    bench.gate("check.prompts()")
    bench.pytester.makeconftest(f"from pytest_llmparity.plugin import DOOR\n{CONTROLLER}")

    result = bench.run(engines=[bench.engine(), bench.engine()])

    assert result.ret == pytest.ExitCode.OK
    (told,) = [at for at, line in enumerate(result.outlines) if line == "plan: told by a worker"]
    assert told < next(at for at, line in enumerate(result.outlines) if line.startswith("test_gate.py"))


def test_processes_of_one_run_ask_everything_once_and_hand_back_what_they_planned(bench: Bench) -> None:
    bench.gate("check.prompts()")
    bench.pytester.makeconftest(WORKER)
    given = {"token": "of this run", "attached": "{}", "trouble": "no engine is started here"}
    (bench.pytester.path / "given.json").write_text(json.dumps(given))
    engines = [bench.engine(), bench.engine()]

    for _ in range(2):
        assert bench.run(engines=engines).ret == pytest.ExitCode.OK

    asked = [len(bench.asked(engine)) for engine in engines]
    first, second = map(json.loads, (bench.pytester.path / "handed-back.jsonl").read_text().splitlines())
    assert asked == [8, 8]
    assert first["run"] == second["run"]
    assert first["plan"][0].startswith("plan: 8 requests to each of 2 engines")


def test_a_worker_makes_no_plan_where_another_one_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It simulates what few prompts cannot show."""
    bench.gate("check.prompts()")
    bench.pytester.makeconftest(WORKER)
    folder = bench.pytester.mkdir("plans")
    given = {"token": "of this run", "attached": "{}", "trouble": "no engine is started here", "folder": str(folder)}
    (bench.pytester.path / "given.json").write_text(json.dumps(given))
    made: list[list[str]] = []
    plan_lines = planned.plan_lines

    def counted(*args: Any, **kwargs: Any) -> list[str]:
        made.append(plan_lines(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(planned, "plan_lines", counted)
    engines = [bench.engine(), bench.engine()]

    for _ in range(2):
        assert bench.run("-p", "no:terminal", engines=engines).ret == pytest.ExitCode.OK  # a worker has none

    handed_back = map(json.loads, (bench.pytester.path / "handed-back.jsonl").read_text().splitlines())
    assert [each["plan"] for each in handed_back] == [made[0], []]
    assert len(made) == 1
    assert (folder / "plan").read_text().split("\n") == made[0]


FIRST_IDLE = """
def pytest_runtest_setup(item):
    if item.name == "test_gate" and not pathlib.Path("second").exists():
        pytest.skip("judged by the other process")
"""


def test_experiments_of_a_process_that_asked_nothing_ask_what_the_other_did(bench: Bench) -> None:
    """It is told what the other found the engines to be able to: it asked for answers without log probabilities."""
    bench.gate()
    bench.pytester.makeconftest(f"import pathlib\n{WORKER}{FIRST_IDLE}")
    (bench.pytester.path / "given.json").write_text(json.dumps({"token": "t", "attached": "{}", "trouble": ""}))
    engines = [bench.engine(), bench.engine(drift=0.4)]

    bench.run(engines=engines)
    gathered = [bench.asked(engine) for engine in engines]
    (bench.pytester.path / "second").touch()
    result = bench.run("--parity-explain-requests=24", engines=engines)

    assert result.ret == FAILED
    for engine, before in zip(engines, gathered, strict=True):
        after = bench.asked(engine)[len(before) :]
        assert before
        assert after
        assert {request.get("top_logprobs") for request in after} == {request.get("top_logprobs") for request in before}


def test_a_worker_is_given_what_the_controller_shares_and_is_heard_unless_it_crashed() -> None:
    heard: list[Any] = []
    hooks = XdistHooks(lambda: {"token": "t"}, lambda ids, plan: heard.append((ids, plan)), heard.append)
    nodes = [SimpleNamespace(workerinput={"workerid": f"gw{number}"}) for number in range(3)]
    tests = ["test_a.py::test_one"]

    for node in nodes:
        hooks.pytest_configure_node(node)
    folder = Path(nodes[0].workerinput["llmparity"].pop("folder"))
    hooks.pytest_xdist_node_collection_finished(nodes[0], tests)  # of another machine: it could not write its plan
    tell_plan(nodes[1], ["plan: 3 requests", "at most 9 tokens"])  # type: ignore[arg-type]  # all of a worker's config
    for node in nodes[1:]:
        hooks.pytest_xdist_node_collection_finished(node, tests)
    hooks.pytest_testnodedown(SimpleNamespace(workeroutput={"llmparity": {"run": "r"}}))
    hooks.pytest_testnodedown(SimpleNamespace())
    assert [path.name for path in folder.iterdir()] == ["plan"]
    hooks.pytest_unconfigure()

    assert nodes[0].workerinput == {"workerid": "gw0", "llmparity": {"token": "t"}}
    assert heard == [(tests, []), *[(tests, ["plan: 3 requests", "at most 9 tokens"])] * 2, {"run": "r"}]
    assert not folder.exists()


def test_one_worker_plans_for_all_and_another_one_where_it_crashed() -> None:
    hooks = XdistHooks(dict, lambda ids, plan: None, lambda handed_back: None)
    near, also_near, far, later = nodes = [SimpleNamespace(workerinput={"workerid": f"gw{n}"}) for n in range(4)]
    for node in nodes:
        hooks.pytest_configure_node(node)
    far.workerinput["llmparity"]["folder"] += "-of-the-controller-only"

    begun = [plans(node) for node in (near, also_near, far)]  # type: ignore[arg-type]  # all of a worker's config
    hooks.pytest_testnodedown(near)
    after = [plans(node) for node in (later, also_near)]  # type: ignore[arg-type]
    tell_plan(later, ["plan: 3 requests"])  # type: ignore[arg-type]
    hooks.pytest_testnodedown(also_near)
    at_last = plans(also_near)  # type: ignore[arg-type]
    hooks.pytest_unconfigure()

    assert begun == [True, False, True]
    assert after == [True, False]
    assert not at_last, "the plan is there"


def test_without_a_folder_that_can_be_written_every_worker_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", os.devnull)
    heard: list[Any] = []
    hooks = XdistHooks(lambda: {"token": "t"}, lambda ids, plan: heard.append((ids, plan)), heard.append)
    node = SimpleNamespace(workerinput={"workerid": "gw0"})

    hooks.pytest_configure_node(node)
    tell_plan(node, ["plan: 3 requests"])  # type: ignore[arg-type]  # all of a worker's config
    hooks.pytest_xdist_node_collection_finished(node, ["test_a.py::test_one"])
    hooks.pytest_testnodedown(SimpleNamespace())
    hooks.pytest_unconfigure()

    assert node.workerinput == {"workerid": "gw0", "llmparity": {"token": "t"}}
    assert plans(node)  # type: ignore[arg-type]
    assert heard == [(["test_a.py::test_one"], [])]


def test_what_workers_come_to_is_told_in_the_order_of_collection() -> None:
    tally = Tally(SimpleNamespace(adopt=lambda _: None))  # type: ignore[arg-type]  # all of a session that it uses
    tally.collected(["m.py::test_one", "m.py::test_two[1-2]", "m.py::test_two[2-2]", "m.py::test_three"])
    gates = {
        "m.py::test_three": "m.py::test_three",
        "m.py::test_two[2-2]": "m.py::test_two",
        "m.py::test_one": "m.py::test_one",
        "m.py::test_two[1-2]": "m.py::test_two",
    }
    tally.unjudged["broken.py"] = "could not be collected"
    for ran, gate in gates.items():
        verdict = Verdict(
            test=gate, check="text()", kind="text", engine="b", baseline="a", outcome=Outcome.PASS, message="alike"
        )
        tally.unjudged[ran] = "its body failed"
        tally.asked.append(Asked(test=ran, engine="a", calls=()))
        tally.receive(
            {"used": True, "verdicts": [to_json(verdict)], "run": "r", "test": gate, "again": f"pytest {gate}"}, ran=ran
        )

    tally.arrange()

    collected = ["m.py::test_one", "m.py::test_two[1-2]", "m.py::test_two[2-2]", "m.py::test_three"]
    told = ["m.py::test_one", "m.py::test_two", "m.py::test_three"]
    assert [verdict.test for verdict in tally.verdicts] == told
    assert list(tally.commands) == told
    assert list(tally.unjudged) == ["broken.py", *collected]
    assert [asked.test for asked in tally.asked] == collected


def ended(tally: Tally, gate: str, *, ran: str) -> None:
    """Let a test that gave no verdict come back from its worker."""
    tally.receive({"used": True, "verdicts": [], "run": "", "test": gate, "again": f"pytest {gate}"}, ran=ran)


def test_a_test_that_is_collected_twice_is_where_it_came_first() -> None:
    tally = Tally(SimpleNamespace())  # type: ignore[arg-type]  # nothing of a session is used
    tally.collected(["m.py::test_one", "m.py::test_two", "m.py::test_one"])
    for gate in ("m.py::test_two", "m.py::test_one"):
        ended(tally, gate, ran=gate)

    tally.arrange()

    assert list(tally.commands) == ["m.py::test_one", "m.py::test_two"]


def test_a_worker_that_is_started_again_moves_no_test() -> None:
    tally = Tally(SimpleNamespace())  # type: ignore[arg-type]  # nothing of a session is used
    tests = ["m.py::test_one", "m.py::test_two[1-2]", "m.py::test_two[2-2]"]
    tally.collected(tests)
    ended(tally, "m.py::test_two", ran="m.py::test_two[1-2]")
    tally.collected(tests)
    ended(tally, "m.py::test_one", ran="m.py::test_one")

    tally.arrange()

    assert list(tally.commands) == ["m.py::test_one", "m.py::test_two"]


@pytest.mark.slow
def test_workers_give_the_same_verdicts_and_ask_everything_once(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.prompts(CASES)
    bench.pytester.makepyfile(test_suite=SUITE)
    bench.pytester.makeconftest(REPORTED)
    bench.configure(bench.process("fake", "drift"))
    reports, counts, starts = [], [], []
    for workers in ("0", "2"):
        engines = [bench.engine(), bench.engine(drift=0.2)]
        before = len(bench.starts("fake"))
        args = (
            "-v",
            "--engines=fake",
            "--parity-explain-requests=400",
            "--parity-report=json",
            f"--parity-out=out-{workers}",
        )
        result = bench.run("-n", workers, *args, engines=engines)

        assert result.ret == FAILED
        result.assert_outcomes(failed=1, passed=5)  # of no engine an answer fits the schema: open
        printed = result.stdout.str()
        assert "INTERNALERROR" not in printed + result.stderr.str()
        assert "LLM parity" in printed
        begun = [line for line in capfd.readouterr().err.splitlines() if "experiments that show a cause" in line]
        names = sorted(line.partition(":")[0] for line in begun if line.endswith("at most 400 requests"))
        assert names == ["b against a", "fake against a"], "told where no terminal is, by workers too, each once"
        assert printed.count(f"plan: {GATHERED} requests to each of") == 1
        assert printed.index("plan: ") < printed.index(" PASSED "), "before anybody is asked, under workers too"
        assert f"test_suite.py::test_text: {CASES} cases in {CASES} groups" in printed
        reports.append(bench.report(f"out-{workers}"))
        asked = [r.json["messages"][-1]["content"] for r in engines[0].requests]
        explained = [v["explanation"] for v in reports[-1]["verdicts"] if v["explanation"] is not None]
        assert {(e["requests"] > 0, len(e["causes"])) for e in explained} == {(True, 0)}, "b and fake answer otherwise"
        again = sum(experiment["requests"] // 2 for e in explained for experiment in e["experiments"])
        counts.append([len([text for text in asked if text.startswith("question")]) - again, asked.count("app")])
        starts.append(len(bench.starts("fake")) - before)

    assert verdicts(reports[0]) == verdicts(reports[1])
    for told in ("verdicts", "reproduce"):
        assert [[each["test"] for each in report[told]] for report in reports] == [
            [each["test"] for each in reports[0][told]]
        ] * 2, "in the order of the file"
    assert counts == [[GATHERED, 1]] * 2
    assert starts == [1, 1]
    told = f"controller {len(reports[0]['verdicts'])}\n"
    assert (bench.pytester.path / "reported").read_text() == 2 * told, "only the controller reports"
    assert [pid for pid in bench.starts("fake") if psutil.pid_exists(pid)] == []


def at_a_terminal(folder: Path, *args: str) -> str:
    """Return what a pytest of its own writes to a terminal."""
    ours, theirs = os.openpty()
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(argv, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    written = b""
    with contextlib.suppress(OSError):  # the other end was closed
        while read := os.read(ours, 65536):
            written += read
    os.close(ours)
    process.wait()
    return written.decode("utf-8", "replace")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such terminals")
def test_at_a_terminal_the_plan_begins_a_line_of_its_own(bench: Bench) -> None:
    """There the status of the workers is rewritten in place and has no end of line."""
    bench.gate("check.prompts()")
    named = [f"--engines={name}={bench.selected(bench.engine())}" for name in "ab"]

    written = at_a_terminal(bench.pytester.path, "-n2", "--color=no", *named)

    assert "\rready: " in written, "xdist writes its status as to a terminal"
    assert "1 passed" in written
    assert re.findall(r"(?m)^.*plan: ", written) == ["plan: "], written


@pytest.mark.slow
def test_a_crash_of_a_worker_loses_no_answer_and_asks_nothing_twice(bench: Bench) -> None:
    bench.prompts(CASES)
    bench.pytester.makepyfile(
        test_suite=f"""{SUITE}
@pytest.mark.slow
def test_crash():
    os._exit(3)
"""
    )
    bench.configure(bench.process("fake"))
    engines = [bench.engine(), bench.engine()]

    result = bench.run(
        *("-n", "2", "--engines=fake", "--parity-report=json", "--parity-out=out", "-k", "crash or text or schema"),
        engines=engines,
    )

    assert result.ret == FAILED
    assert "crashed" in result.stdout.str()
    assert {(v["test"].rpartition("::")[2], v["engine"], v["kind"]) for v in bench.report()["verdicts"]} >= {
        ("test_text", "b", "text"),
        ("test_text", "fake", "text"),
        ("test_schema", "b", "schema.gap"),
    }
    asked = [r.json["messages"][-1]["content"] for r in engines[0].requests]
    assert len([text for text in asked if text.startswith("question")]) == TEXT + CASES
    assert len(bench.starts("fake")) == 1
    assert [pid for pid in bench.starts("fake") if psutil.pid_exists(pid)] == []


@pytest.mark.slow
def test_latency_and_a_dead_engine_under_workers(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        import httpx
        import pytest
        from pytest_llmparity import check
        @pytest.mark.parity("prompts.jsonl", check.latency(e2e_p50="10s", n=16), check.prompts())
        def test_fast(): ...
        def test_app(engine):
            assert httpx.get(f"{engine.base_url}/models", trust_env=False).json()["data"]
        """
    )
    bench.configure(bench.process("gone", "exit"))

    result = bench.run("-n1", "--engines=gone", "--parity-report=json", "--parity-out=out", engines=[bench.engine()])

    assert result.ret == FAILED
    outcomes = {(v["engine"], v["kind"]): v["outcome"] for v in bench.report()["verdicts"]}
    assert outcomes["gone", "prompts"] == "ERROR"
    assert [v for (engine, kind), v in outcomes.items() if engine == "a" and kind.startswith("latency")] == ["PASS"]
    assert "exit code 7" in " ".join(result.stdout.str().split())
    assert len(bench.starts("gone")) <= 2, "once for gathering, and at most once more in the worker"


@pytest.mark.slow
def test_what_needs_engines_in_turn_is_refused_with_a_sentence(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        def test_app(engine): ...
        def test_ask(parity): ...
        """
    )
    bench.configure(bench.process("one") + bench.process("two") + '[profiles.turn]\nresidency = "one-at-a-time"\n')

    result = bench.run("-n1", "--parity-profile=turn", "--engines=one,two")

    assert result.ret == FAILED
    assert "engine tests with one engine at a time cannot run under -n" in result.stdout.str()
    assert "parity.ask with one engine at a time cannot run under -n" in result.stdout.str()
    assert bench.starts("one") + bench.starts("two") == []


@pytest.mark.slow
def test_a_wrong_option_is_a_usage_error_under_workers_too(bench: Bench) -> None:
    result = bench.run("-n2", "--engines=nobody-knows-this")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "nobody-knows-this" in result.stderr.str()


@pytest.mark.slow
def test_a_report_is_written_where_no_gate_got_past_its_set_up(bench: Bench) -> None:
    bench.pytester.makepyfile("import pytest\n@pytest.mark.parity('nowhere.jsonl')\ndef test_gate(): ...\n")

    for workers in ("0", "1"):
        result = bench.run(
            *("-n", workers, "--parity-report=json", f"--parity-out=out-{workers}"), engines=[bench.engine()]
        )

        assert result.ret == FAILED
        report = bench.report(f"out-{workers}")
        assert (report["verdicts"], [e["name"] for e in report["engines"]]) == ([], ["a"])
        assert f"report: out-{workers}/run.json" in result.stdout.str()
