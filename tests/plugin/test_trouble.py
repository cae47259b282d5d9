"""Bad cases, end to end: engines that refuse, break off, lie, die or never come, and what a person is told."""

from __future__ import annotations

import json
import math
import signal
import socket
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.store.runs import FILE_NAME, Store
from pytest_llmparity.testing import Fault, Reply
from tests.plugin.conftest import PROJECT
from tests.plugin.warm_pytest import UNSEEN, leave_out

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

OK, FAILED, INTERRUPTED, USAGE = (
    pytest.ExitCode.OK,
    pytest.ExitCode.TESTS_FAILED,
    pytest.ExitCode.INTERRUPTED,
    pytest.ExitCode.USAGE_ERROR,
)
REPORT = ("--parity-report=json", "--parity-out=out")
KEY = "sk-live-0123456789abcdef"


def asked(request: Mapping[str, Any]) -> str:
    """Return the last word of a request's prompt: the number of its case."""
    return str(request["messages"][-1]["content"]).split()[-1]


FAULTS: dict[str, tuple[Fault | Reply, str, str]] = {
    "0": (Fault.refuse(400), "BadRequest", "answered 400 to case 'case-0': refused by the script"),
    "1": (
        Fault.refuse(404, b'{"error":{"message":"The model `x` does not exist"}}'),
        "ModelMissing",
        "GET /v1/models lists",
    ),
    "2": (Fault.refuse(401), "NotAuthorised", "api_key_env"),
    "3": (Fault.refuse(429, headers={"retry-after": "0"}), "Overloaded", "lower the concurrency"),
    "4": (Fault.refuse(429, headers={"retry-after": "3600"}), "Overloaded", "answered 429"),
    "5": (Fault.refuse(500, headers={"retry-after": "0"}), "ServerFailure", "answered 500"),
    "6": (Fault.refuse(503, headers={"retry-after": "0"}), "Overloaded", "answered 503"),
    "7": (Fault.html(), "ProtocolError", "b"),
    "8": (Fault.html(502), "ServerFailure", "HTML page titled “Bad gateway”"),
    "9": (Fault.truncated_json(), "ProtocolError", "case-9"),
    "10": (Fault.half_stream(), "ProtocolError", "case-10"),
    "11": (Fault.half_stream(clean=True), "ProtocolError", "case-11"),
    "12": (Fault.empty(), "EmptyAnswer", "case-12"),
    "13": (Fault.invalid_utf8(), "ProtocolError", "UTF-8"),
    "14": (Fault.error_event(), "ServerFailure", "the script broke off"),
    "15": (Fault.refuse(400, b"\x1b[2J\x1b]0;owned\x07 no"), "BadRequest", "\\x1b[2J"),
    "16": (Fault.hang(), "Timeout", "case-16"),
}
"""What the server does to a case, the error its row raises, and what the message must hold."""
WHOLE: dict[str, Fault | Reply] = {
    "20": Fault.busy(2),
    "21": Fault.busy(1, status=503),
    "22": Reply(text="a lone \ud800 surrogate"),
    "23": Reply(text="no number at all", logprob=math.nan),
    "24": Reply(text="x" * 30_000),
    "25": Reply(text="clear \x1b[2J the \x9b2J screen \x07"),
}
"""Odd, but answers."""


@pytest.mark.slow
def test_every_kind_of_trouble_is_a_typed_error_of_its_row_and_the_rest_is_judged(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_llmparity.run.sending.sender.BACKOFF_S", (0.01, 0.01, 0.01))

    def troubled(request: Mapping[str, Any]) -> Any:
        case = asked(request)
        return FAULTS[case][0] if case in FAULTS else WHOLE.get(case)

    engine = bench.engine(troubled, seed=1)
    rows = {f"case-{number}": (kind, message) for number, (_, kind, message) in FAULTS.items()}
    bench.prompts(28)
    bench.configure(
        f'[engines.b]\nkind = "openai"\nbase_url = "{engine.base_url}"\nrequest_timeout_s = 1.0\nreconnect_s = 0\n'
    )
    bench.pytester.makepyfile(
        f"""
        import pytest
        from pytest_llmparity import check
        from pytest_llmparity.core import errors

        @pytest.mark.parity("prompts.jsonl", check.prompts(), check.schema({{}}, gap=0.5), concurrency=8)
        def test_gate(parity_run):
            for case, (kind, message) in {rows!r}.items():
                with pytest.raises(getattr(errors, kind)) as caught:
                    parity_run["b"][case].text
                assert message in str(caught.value), (case, str(caught.value))
            assert parity_run["b"]["case-20"].text == "no longer busy"
            assert parity_run["b"]["case-21"].text == "no longer busy"
            assert parity_run["b"]["case-20"].samples[0].attempts == 3
            assert parity_run["b"]["case-20"].timing is None
            assert parity_run["b"]["case-22"].text == "a lone \\ufffd surrogate"
            assert parity_run["b"]["case-23"].text == "no number at all"
            assert len(parity_run["b"]["case-24"].text) == 30_000
            assert parity_run["b"]["case-25"].text == "clear \\x1b[2J the \\x9b2J screen \\x07"
            assert parity_run["b"]["case-27"].text == parity_run["a"]["case-27"].text
        """
    )

    result = bench.run("--engines=b", "-v", *REPORT, "--junitxml=junit.xml", engines=[bench.engine()])

    result.stdout.no_re_match_line("E  .*")
    outcomes = {v["kind"]: v["outcome"] for v in bench.report()["verdicts"]}
    assert set(outcomes) == {"prompts", "schema.gap"}
    failures = {f["case"]: f["kind"] for f in bench.report()["failures"] if f["phase"] == "main"}
    assert failures == {case: kind for case, (kind, _) in rows.items()}
    printed = result.stdout.str() + result.stderr.str() + Path("junit.xml").read_text()
    assert [sign for sign in "\x1b\x9b\x07" if sign in printed] == []
    samples = [json.loads(line) for line in Path("out/samples.jsonl").read_text("utf-8").splitlines()]
    assert 30_000 in {len(s["text"] or "") for s in samples}


@pytest.mark.slow
@pytest.mark.parametrize("comparison", ["== 'plain'", "== '', parity_run['b']['case-3'].text"])
def test_control_sequences_of_a_model_never_reach_the_terminal(bench: Bench, comparison: str) -> None:
    bench.gate(
        "check.prompts(), check.text(margin=0.05), check.schema({'type': 'object'}, gap=0.5)",
        f"assert parity_run['b']['case-3'].text {comparison}",
    )
    hostile = bench.engine(Reply(text='{"a\x1b[2J": "\x1b]0;owned\x07 \x9b2J \u202egnp"}', logprob=math.nan))

    result = bench.run("-vv", "-rA", *REPORT, "--junitxml=junit.xml", engines=[bench.engine('{"a": 1}'), hostile])

    assert result.ret == FAILED
    printed = result.stdout.str() + result.stderr.str() + Path("junit.xml").read_text()
    assert [sign for sign in "\x1b\x9b\x07\u202e" if sign in printed] == []
    assert "owned" in printed


@pytest.mark.slow
def test_an_engine_that_exits_at_start_is_told_at_once_with_its_last_words(bench: Bench) -> None:
    bench.gate()
    bench.configure(bench.process("gone", "exit", start_timeout_s=300))

    result = bench.run("--engines=gone", engines=[bench.engine()])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*ERROR text, gone against a: *"])
    printed = " ".join(result.stdout.str().split())
    assert "ended with exit code 7" in printed
    assert "giving up" in printed
    assert "\x1b" not in printed
    assert len(bench.starts("gone")) == 1
    assert result.duration < 60, "the deadline of 300 s was not waited for"


@pytest.mark.slow
def test_a_port_that_was_taken_is_left_for_another(bench: Bench) -> None:
    bench.gate("check.prompts()")
    bench.configure(bench.process("retry", "taken"))

    result = bench.run("--engines=retry", engines=[bench.engine()])

    result.assert_outcomes(passed=1)
    assert len(bench.starts("retry")) == 2


def test_an_engine_that_never_becomes_ready_is_given_up_after_its_deadline(bench: Bench) -> None:
    bench.gate()
    bench.configure(bench.process("mute", "mute", start_timeout_s=0.5))

    result = bench.run("--engines=mute", engines=[bench.engine()])

    assert result.ret == FAILED
    printed = " ".join(result.stdout.str().split())
    assert "mute was not ready after 0.5 s" in printed
    assert "start_timeout_s" in printed
    assert not [pid for pid in bench.starts("mute") if psutil.pid_exists(pid)]


@pytest.mark.slow
def test_an_engine_that_dies_in_the_middle_is_told_by_every_later_row_and_the_other_is_judged(bench: Bench) -> None:
    bench.prompts(12)
    bench.gate("check.text(margin=0.05)", "parity_run['dying']['case-0'].text")
    bench.configure(bench.process("dying", "die:20"))

    result = bench.run("--engines=dying", *REPORT, engines=[bench.engine(), bench.engine()])

    assert result.ret == FAILED
    verdicts = {(v["engine"], v["kind"]): v["outcome"] for v in bench.report()["verdicts"]}
    assert verdicts["b", "text"] == "PASS"
    assert verdicts["dying", "text"] in ("ERROR", "INCONCLUSIVE")
    failures = [f for f in bench.report()["failures"] if f["engine"] == "dying"]
    assert len(failures) >= 48 - 20
    assert {f["kind"] for f in failures} <= {"EngineDied", "NotAsked", "Unreachable", "ProtocolError"}
    told = [f for f in failures if "exit code 9" in f["message"] and "cuda error: out of memory" in f["message"]]
    assert len(told) >= 48 - 20 - 12, "all but what was under way"
    assert len(bench.starts("dying")) == 1
    assert len(result.stdout.lines) < 120, "one death is told in a few lines"


STOPPING = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.prompts(), max_tokens=8)
def test_gate(parity_run): ...

def test_stops(): pytest.exit("enough")
"""


def test_a_run_that_was_stopped_says_that_the_same_command_goes_on_where_it_does(bench: Bench) -> None:
    bench.prompts(2)
    bench.pytester.makepyfile(test_gate=STOPPING)
    engines = [bench.engine(), bench.engine()]

    stopped = bench.run(engines=engines)
    anew = bench.run("--parity-fresh", engines=engines)
    nowhere = bench.run("-k", "stops", engines=engines)

    assert (stopped.ret, anew.ret, nowhere.ret) == (INTERRUPTED,) * 3
    stopped.stdout.fnmatch_lines(["stopped: what was answered is kept in run *"])
    anew.stdout.no_fnmatch_line("stopped: *")
    nowhere.stdout.no_fnmatch_line("stopped: *")


TIMED_TWICE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.latency(success_rate=0.5, n=8), max_tokens=8)
def test_one(parity_run): ...

@pytest.mark.parity("prompts.jsonl", check.latency(success_rate=0.5, n=8), max_tokens=12)
def test_two(parity_run): ...

def test_stops(): pytest.exit("enough")
"""
BETWEEN = 54
"""Requests that are enough for probes, answers and one timed phase (46), and too few for the second one (62)."""


def test_a_run_that_was_stopped_says_that_what_was_timed_is_timed_again(bench: Bench) -> None:
    bench.prompts(2)
    bench.pytester.makepyfile(test_gate=TIMED_TWICE)

    stopped = bench.run(f"--parity-max-requests={BETWEEN}", engines=[bench.engine(), bench.engine()])

    with closing(sqlite3.connect(bench.pytester.path / ".llmparity" / FILE_NAME)) as db:
        assert db.execute("SELECT count(*) FROM samples WHERE phase = 'timed'").fetchall() == [(16,)]
    assert stopped.ret == INTERRUPTED
    told = " ".join(" ".join(stopped.outlines).split())
    assert "stopped: what was answered is kept in run " in told
    assert "later with --parity-resume); what was timed is timed again " in told


def test_a_run_that_was_stopped_says_nothing_of_what_it_did_not_time_or_timed_to_the_end(bench: Bench) -> None:
    bench.prompts(2)
    for suite in (STOPPING, TIMED_TWICE):
        bench.pytester.makepyfile(test_gate=suite)

        stopped = bench.run(engines=[bench.engine(), bench.engine()])

        stopped.stdout.fnmatch_lines(["stopped: what was answered is kept in run *"])
        stopped.stdout.no_fnmatch_line("*timed again*")


@pytest.mark.slow
def test_ctrl_c_says_what_is_kept_of_a_run_that_workers_gather(bench: Bench, wait_until: Callable[..., float]) -> None:
    bench.prompts(16)
    bench.gate()
    engines = [bench.engine(first_delay_s=0.05), bench.engine()]
    spawned = bench.spawn("-n2", engines=engines)
    wait_until(lambda: len(bench.asked(engines[0])) > 20)

    spawned.process.send_signal(2)

    assert spawned.wait() == INTERRUPTED, spawned.output
    assert "stopped: what was answered is kept in run " in spawned.output
    before = len(bench.asked(engines[0]))
    bench.run(engines=engines).assert_outcomes(passed=1)
    assert len(bench.asked(engines[0])) - before <= 64 - before + 4, "what was in flight is asked again, and no more"


@pytest.mark.slow
def test_ctrl_c_while_gathering_leaves_nothing_behind_and_the_next_run_goes_on(
    bench: Bench, wait_until: Callable[..., float]
) -> None:
    bench.prompts(16)
    bench.gate()
    bench.configure(bench.process("idle"))
    engine = bench.engine(first_delay_s=0.05)
    args = ("--engines=idle", *REPORT)
    spawned = bench.spawn(*args, engines=[engine])
    wait_until(lambda: len(bench.asked(engine)) > 20)

    spawned.process.send_signal(2)

    assert spawned.wait() == INTERRUPTED, spawned.output
    assert "KeyboardInterrupt" in spawned.output
    assert "INTERNALERROR" not in spawned.output
    assert "stopped: what was answered is kept in run " in spawned.output
    assert [pid for pid in bench.starts("idle") if psutil.pid_exists(pid)] == []
    before = len(bench.asked(engine))

    engine.first_delay_s = 0.0
    result = bench.run(*args, engines=[engine])

    assert result.ret in (OK, FAILED)
    result.stdout.fnmatch_lines(["*resumed run*"])
    again = len(bench.asked(engine)) - before
    assert 64 - before <= again <= 64 - before + 4, "at most what was in flight is asked again"


def test_a_server_that_repeats_the_key_gives_it_away_nowhere(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIT_API_KEY", KEY)
    refused = Fault.refuse(400, json.dumps({"error": {"message": f"bad request with Bearer {KEY}"}}).encode())
    careless = bench.engine(lambda r: Fault.echo_key() if asked(r) != "7" else refused, api_key=KEY)
    bench.configure(f'[engines.b]\nkind = "openai"\nbase_url = "{careless.base_url}"\napi_key_env = "UNIT_API_KEY"\n')
    bench.gate("check.text(margin=0.05)", "assert parity_run['b']['case-7'].text == 'x'")

    result = bench.run("--engines=b", "-vv", "-l", *REPORT, "--junitxml=out/junit.xml", engines=[bench.engine()])

    assert result.ret == FAILED
    assert careless.count > 4 * 8
    printed = result.stdout.str() + result.stderr.str()
    assert KEY not in printed
    assert "«UNIT_API_KEY»" in printed
    samples = [json.loads(line) for line in Path("out/samples.jsonl").read_text().splitlines()]
    echoes = {s["text"] for s in samples if s["engine"] == "b"}
    assert echoes == {"you sent Bearer «UNIT_API_KEY»", None}
    files = [path for folder in (".llmparity", "out") for path in Path(folder).rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"samples.sqlite", "samples.jsonl", "run.json", "junit.xml"}
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize(
    ("config", "args", "message"),
    [
        (
            '[engines.ollama-dev]\nkind = "openai"\nbase_url = "http://127.0.0.1:9"\n',
            "--engines=ollama-dve",
            "ollama-dev",
        ),
        (
            '[engines.a]\nkind = "openai"\nbase_url = "http://127.0.0.1:9"\napi_key_env = "{key}"\n',
            "--engines=a",
            "api_key_env",
        ),
        (
            '[engines.a]\nkind = "openai"\nbase_url = "http://127.0.0.1:9"\n'
            'headers = {{ authorization = "Bearer {key}" }}\n',
            "--engines=a",
            "headers",
        ),
        ("", "--engines=http://user:{key}@127.0.0.1:9", "--engines"),
    ],
)
def test_a_wrong_name_or_a_literal_key_ends_before_collection_and_is_not_repeated(
    bench: Bench, config: str, args: str, message: str
) -> None:
    bench.gate()
    bench.configure(config.format(key=KEY))

    result = bench.run(args.format(key=KEY))

    assert result.ret == USAGE
    assert message in result.stderr.str()
    assert KEY not in result.stderr.str() + result.stdout.str()
    result.stdout.no_fnmatch_line("*collected*")


@pytest.mark.slow
def test_a_timeout_for_tests_does_not_cut_gathering(bench: Bench) -> None:
    bench.pytester.makeini(PROJECT.format(options=" ".join(leave_out(UNSEEN))))
    bench.prompts(24)
    bench.gate("*[]", "assert parity_run['a']['case-23'].text")
    engines = [bench.engine(first_delay_s=0.5) for _ in range(2)]

    spawned = [
        bench.spawn("--timeout=2.5", f"--timeout-method={method}", "--parity-fresh", engines=[engine])
        for method, engine in zip(("signal", "thread"), engines, strict=True)
    ]

    assert [process.wait() for process in spawned] == [OK] * 2, "".join(process.output for process in spawned)
    assert [engine.count for engine in engines] == [24 + 1] * 2, "3 s of gathering"


def test_the_first_failure_ends_the_session_and_what_was_gathered_is_reported(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        import pytest
        from pytest_llmparity import check
        @pytest.mark.parity("prompts.jsonl", check.schema({"type": "object"}, rate=0.5))
        def test_one(): ...
        @pytest.mark.parity("prompts.jsonl", check.schema({"type": "object"}, rate=0.5), max_tokens=8)
        def test_two(): ...
        """
    )

    result = bench.run("-x", *REPORT, engines=[bench.engine(), bench.engine()])

    assert result.ret == FAILED
    result.assert_outcomes(failed=1)
    assert {v["test"] for v in bench.report()["verdicts"]} == {
        "test_the_first_failure_ends_the_session_and_what_was_gathered_is_reported.py::test_one"
    }


@pytest.mark.slow
def test_last_failed_gathers_for_what_failed_only(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        import pytest
        from pytest_llmparity import check
        @pytest.mark.parity("prompts.jsonl", check.prompts(), max_tokens=2)
        def test_fine(): ...
        @pytest.mark.parity("prompts.jsonl", check.schema({"type": "object"}, rate=0.5), max_tokens=8)
        def test_bad(): ...
        """
    )
    first, second = bench.engine(), bench.engine()
    engines = [f"--engines=a={first.base_url}", f"--engines=b={second.base_url}"]
    bench.pytester.runpytest_inprocess(*engines).assert_outcomes(passed=1, failed=1)
    before = len(bench.asked(first))

    result = bench.pytester.runpytest_inprocess("--lf", *engines)

    result.assert_outcomes(failed=1)
    assert {request["max_tokens"] for request in bench.asked(first)[before:]} == {8}


@pytest.mark.slow
@pytest.mark.parametrize("typed", ["p 'in the ' + 'debugger'\nq\n", ""])
def test_the_debugger_opens_at_a_failed_gate_and_nothing_is_left_when_it_ends(bench: Bench, typed: str) -> None:
    bench.gate()
    bench.configure(bench.process("drifting", "drift"))

    spawned = bench.spawn("--pdb", "--engines=drifting", engines=[bench.engine()], stdin=typed)

    assert spawned.wait() in (INTERRUPTED, FAILED), spawned.output
    assert "FAIL text, drifting against a" in spawned.output
    assert "(Pdb)" in spawned.output
    assert ("in the debugger" in spawned.output) == bool(typed)
    assert "INTERNALERROR" not in spawned.output
    assert [pid for pid in bench.starts("drifting") if psutil.pid_exists(pid)] == []
    assert len(bench.starts("drifting")) == 1


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_engines_that_are_starting(bench: Bench, wait_until: Callable[..., float]) -> None:
    bench.gate()
    bench.configure(bench.process("mute", "mute", start_timeout_s=300))
    # A port that takes connections and never answers keeps the one we only attach to waiting inside a request.
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        spawned = bench.spawn(f"--engines=mute,deaf=http://127.0.0.1:{deaf.getsockname()[1]}")
        wait_until(lambda: bench.starts("mute"))
        (pid,) = bench.starts("mute")

        spawned.process.send_signal(signal.SIGINT)

        took = wait_until(lambda: spawned.process.poll() is not None)
        assert took < 60, "the 300 s of a start, or of a request, were not waited for"
        assert spawned.wait() == INTERRUPTED
        assert wait_until(lambda: not psutil.pid_exists(pid)) < 5
        assert "INTERNALERROR" not in spawned.output


@pytest.mark.slow
def test_a_killed_pytest_leaves_no_engine(bench: Bench, wait_until: Callable[..., float]) -> None:
    bench.gate()
    bench.configure(bench.process("idle"))
    engine = bench.engine(first_delay_s=0.05)
    spawned = bench.spawn("--engines=idle", engines=[engine])
    wait_until(lambda: engine.count > 3)
    (pid,) = bench.starts("idle")
    assert psutil.pid_exists(pid)

    spawned.kill()

    assert wait_until(lambda: not psutil.pid_exists(pid)) < 5


def test_a_body_that_calls_fail_keeps_its_verdicts(bench: Bench) -> None:
    bench.gate("check.schema({'type': 'object'}, rate=0.5)", "pytest.fail('said \\x1b[2J by hand')")

    result = bench.run(*REPORT, engines=[bench.engine(), bench.engine()])

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*said \\x1b?2J by hand*"])
    assert {v["kind"]: v["outcome"] for v in bench.report()["verdicts"]} == {"schema.rate": "FAIL"}
    assert "\x1b" not in result.stdout.str()


@pytest.mark.parametrize("workers", [(), pytest.param(("-n1",), marks=pytest.mark.slow)])
@pytest.mark.parametrize("launched", [False, True], ids=["attached", "started"])
def test_a_folder_that_cannot_be_written_is_an_error_of_every_gate_and_the_rest_runs(
    bench: Bench, workers: tuple[str, ...], launched: bool
) -> None:
    bench.gate()
    bench.pytester.makepyfile(test_other="def test_other(): ...")
    (bench.pytester.path / ".llmparity").write_text("in the way")
    bench.configure(bench.process("started"))

    started = ["--engines=started"] if launched else []
    result = bench.run(*workers, *started, engines=[bench.engine(), bench.engine()])

    assert result.ret == FAILED
    printed = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in printed
    assert {outcome: n for outcome, n in result.parseoutcomes().items() if "warning" not in outcome} == {
        "passed": 1,
        "errors": 1,
    }
    assert "needs a folder it can write" in printed
    assert "make it writable" in printed


def test_a_store_that_breaks_while_gathering_is_an_error_of_every_gate(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(store: object, run: str, samples: object) -> None:
        raise StoreError("the disk is full")

    bench.gate()
    monkeypatch.setattr(Store, "put", full)

    result = bench.run(engines=[bench.engine(), bench.engine()])

    assert result.ret == FAILED
    result.assert_outcomes(errors=1)
    result.stdout.no_fnmatch_line("*INTERNALERROR*")
    assert "the disk is full" in result.stdout.str()


def test_a_marker_that_makes_no_sense_is_an_error_of_its_own_gate(bench: Bench) -> None:
    (bench.pytester.path / "latin.json").write_bytes(b"\xe9")
    bench.gate("check.prompts()")
    bench.pytester.makepyfile(
        test_wrong="""
        import pytest
        from pytest_llmparity import check

        @pytest.mark.parity("prompts.jsonl", sampling={'stop': 5})
        def test_stop(): ...

        @pytest.mark.parity("prompts.jsonl", sampling={'temperature': 'hot'})
        def test_hot(): ...

        @pytest.mark.parity("prompts.jsonl", check.schema('latin.json', rate=0.5))
        def test_latin(): ...

        @pytest.mark.parity("prompts.jsonl", check.latency(e2e_p50='9s', n=16), concurrency=32)
        def test_idle(): ...
        """
    )

    result = bench.run("--junitxml=junit.xml", engines=[bench.engine(), bench.engine()])

    result.assert_outcomes(passed=1, errors=4)
    errors = {
        case.get("name"): " ".join("".join(error.itertext()).split())
        for case in ET.parse("junit.xml").iter("testcase")
        for error in case.iter("error")
    }
    assert errors.keys() == {"test_stop", "test_hot", "test_latin", "test_idle"}
    assert "stop is 5; expected a list" in errors["test_stop"]
    assert 'temperature is "hot"; expected a number' in errors["test_hot"]
    assert "latin.json: not UTF-8 at byte 0" in errors["test_latin"]
    assert "16 timed requests cannot keep concurrency=32 busy" in errors["test_idle"]
    result.stdout.no_fnmatch_line("*INTERNALERROR*")


@pytest.mark.slow
def test_an_engine_that_hangs_for_good_costs_three_deadlines(bench: Bench) -> None:
    bench.gate("check.prompts(), concurrency=1")

    def silent(request: Mapping[str, Any]) -> Fault | None:
        return Fault.hang() if "question" in request["messages"][-1]["content"] else None  # the warm-up is answered

    hung = bench.engine(silent)
    keys = {"kind": "llamacpp", "model": "m", "base_url": hung.base_url, "request_timeout_s": 0.5}
    bench.configure("[engines.b]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in keys.items()))

    result = bench.run("--engines=b", engines=[bench.engine()])

    assert result.ret == FAILED
    assert len(bench.asked(hung)) == 3
    assert "3 requests in a row got no answer in time" in " ".join(result.stdout.str().split())
