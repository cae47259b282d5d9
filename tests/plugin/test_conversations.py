"""Conversations with scripted tools, as a person running pytest sees them."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli import main
from pytest_llmparity.testing import Fault, Reply

if TYPE_CHECKING:
    from pytest_llmparity.testing import LoopbackEngine
    from tests.plugin.conftest import Bench

PROMPTS = 32
GATE = "check.tools(rate=0.9, agree=0.9)"
JSON = "--parity-report=json"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_order",
            "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
        },
    },
    {"type": "function", "function": {"name": "get_day", "parameters": {"type": "object", "properties": {}}}},
]
RESULTS = {
    "get_order": [{"arguments": {"id": 41}, "result": {"day": 3}}],
    "get_day": [{"result": "Monday"}, {"result": "Tuesday"}],
}


@pytest.fixture(autouse=True)
def at_home(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's machine: no variable says that this is CI."""
    monkeypatch.chdir(bench.pytester.path)


def results(request: Mapping[str, Any]) -> list[str]:
    return [message["content"] for message in request["messages"] if message["role"] == "tool"]


def order(id: int = 41) -> Reply:
    return Reply(tool_calls=[("get_order", json.dumps({"id": id}))])


def asks(request: Mapping[str, Any]) -> Reply:
    """Ask for the order, then for the day, then answer with what both returned."""
    given = results(request)
    if not given:
        return order()
    if len(given) == 1:
        return Reply(text="Let me see.", tool_calls=[("get_day", "{}")])
    return Reply(text=f"{given[1]}, day {json.loads(given[0])['day']}")


def asks_twice(request: Mapping[str, Any]) -> Reply:
    """Ask for the day twice instead, and answer with the second."""
    given = results(request)
    return Reply(tool_calls=[("get_day", "{}")]) if 0 < len(given) < 3 else asks(request)


def words_otherwise(request: Mapping[str, Any]) -> Reply:
    return Reply(text="On a Monday.") if len(results(request)) == 2 else asks(request)


def rows(bench: Bench, count: int = PROMPTS, **row: Any) -> None:
    bench.prompts(count, **{"tools": TOOLS, "tool_results": RESULTS, **row})


def verdicts(bench: Bench) -> dict[tuple[str, str], Mapping[str, Any]]:
    run = bench.report(".llmparity/report")
    return {(verdict["kind"], verdict["engine"]): verdict for verdict in run["verdicts"]}


def outcomes(bench: Bench) -> dict[tuple[str, str], str]:
    return {place: verdict["outcome"] for place, verdict in verdicts(bench).items()}


def samples(bench: Bench) -> list[dict[str, Any]]:
    lines = (bench.pytester.path / ".llmparity/report/samples.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def turns(bench: Bench, engine: LoopbackEngine) -> Counter[int]:
    """Count requests by the turn that they are of."""
    return Counter(1 + len(results(request)) for request in bench.asked(engine))


def told(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


def test_a_conversation_goes_on_until_there_is_an_answer(bench: Bench) -> None:
    rows(bench, expect={"answer": "Monday, day 3"})
    bench.gate(f"{GATE}, check.answers(rate=0.9)")
    engines = [bench.engine(asks), bench.engine(asks)]

    result = bench.run(JSON, engines=engines)

    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    assert set(outcomes(bench).values()) == {"PASS"}
    assert turns(bench, engines[0]) == {1: PROMPTS, 2: PROMPTS, 3: PROMPTS}
    last = max((request["messages"] for request in bench.asked(engines[0])), key=len)
    calls = [
        {"id": f"call0000{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for n, name, arguments in ((1, "get_order", '{"id": 41}'), (2, "get_day", "{}"))
    ]
    assert last[1:] == [
        {"role": "assistant", "content": "", "tool_calls": calls[:1]},
        {"role": "tool", "tool_call_id": "call00001", "content": '{"day": 3}'},
        {"role": "assistant", "content": "Let me see.", "tool_calls": calls[1:]},
        {"role": "tool", "tool_call_id": "call00002", "content": "Monday"},
    ]
    answers = samples(bench)
    assert {answer["text"] for answer in answers} == {"Monday, day 3"}
    assert {tuple(turn["results"][0] for turn in answer["turns"]) for answer in answers} == {('{"day": 3}', "Monday")}
    assert all(turn["usage"]["prompt_tokens"] for answer in answers for turn in answer["turns"])

    assert bench.run("--parity-mode=replay", engines=engines).ret == pytest.ExitCode.OK
    assert len(bench.asked(engines[0])) == 3 * PROMPTS
    shown = told(bench.run("--parity-case=case-0", engines=engines))
    assert 'get_order({"id": 41}) -> {"day": 3}; Let me see. get_day({}) -> Monday; Monday, day 3 (stop)' in shown


@pytest.mark.slow
def test_where_conversations_part_is_told_by_every_check_that_reads_them(bench: Bench) -> None:
    rows(bench, expect={"contains": ["day 3"]})
    bench.gate(f"{GATE}, check.text(margin=0.05), check.prompts(), check.answers(gap=0.2)", tokens=32)
    engines = [bench.engine(asks), bench.engine(asks_twice)]

    result = bench.run("--parity-report=json,html,md", "--parity-explain-requests=64", engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert outcomes(bench) == {
        ("tools.rate", "a"): "PASS",
        ("tools.rate", "b"): "PASS",
        ("tools.agree", "b"): "FAIL",
        ("text", "b"): "FAIL",
        ("text.repeat", "b"): "PASS",
        ("prompts", "b"): "PASS",  # the prompt is that of the first turn
        ("answers.gap", "b"): "PASS",
    }
    run = verdicts(bench)
    assert "32 call otherwise; first: case-0: turn 3: a makes none, b 1 call" in told(result)
    assert "turns on average: a 3.0 and b 4.0 in 32 conversations" in told(result)
    assert "parting first: 32 in turn 3" in told(result)
    assert {mark["what"] for mark in run["text", "b"]["differing"]} == {"turn 3"}
    assert "32 pairs compared as conversations, parting first: 32 in turn 3; later turns answer other" in told(result)
    (remark,) = (line for line in run["answers.gap", "b"]["remarks"] if "conversations" in line)
    assert remark == (
        "32 of 32 conversations part before their last answers, which so answer other words; first: case-0 in turn 3"
    )
    folder = bench.pytester.path / ".llmparity/report"
    assert "experiments ask first turns, and no conversation that differs parts in its first" in told(result)
    for name in ("report.html", "summary.md"):
        assert "turn 3" in (folder / name).read_text("utf-8"), name


@pytest.mark.slow
def test_the_last_answer_is_compared_unless_it_is_not_to_be(bench: Bench) -> None:
    rows(bench)
    bench.gate("check.tools(agree=0.9), check.tools(agree=0.9, last='any'), check.similarity(at_least=0.5)")

    result = bench.run(JSON, engines=[bench.engine(asks), bench.engine(words_otherwise)])

    run = bench.report(".llmparity/report")["verdicts"]
    by_check = {verdict["check"]: verdict["outcome"] for verdict in run if verdict["kind"] == "tools.agree"}
    assert by_check == {"tools(agree=0.9)": "FAIL", "tools(agree=0.9, last='any')": "PASS"}
    assert "turn 3: a answers 'Monday, day 3', b 'On a Monday.'" in told(result)
    (similar,) = (verdict for verdict in run if verdict["kind"].startswith("similarity"))
    assert not any("part before" in remark for remark in similar["remarks"])


ENDS: Mapping[str, tuple[Callable[[Mapping[str, Any]], Reply], str, str]] = {
    "b": (lambda _: order(7), "no result", 'nothing is scripted for get_order({"id": 7})'),
    "c": (lambda _: Reply(tool_calls=[("get_order", '{"id": 41')]), "broken call", "of get_order are no JSON"),
    "d": (lambda _: order(), "no end", "it still calls get_order after 4 turns"),
    "e": (lambda _: Reply(tool_calls=[("get_day", "{}")]), "no result", "nothing is scripted for get_day({})"),
    "f": (lambda request: Reply(text="") if results(request) else order(), "no words", "it was given the results"),
}
"""How an engine holds conversations that cannot go on, of what kind their end is, and in what words it is told."""


@pytest.mark.slow
def test_a_conversation_that_cannot_go_on_is_a_fault_of_its_engine(bench: Bench) -> None:
    rows(bench, expect={"contains": ["day 3"]}, max_turns=4)
    bench.gate(f"{GATE}, check.answers(rate=0.9)")

    result = bench.run(JSON, engines=[bench.engine(asks), *(bench.engine(says) for says, _, _ in ENDS.values())])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    expected = {("tools.rate", "a"): "PASS", ("answers.rate", "a"): "PASS"}
    expected |= {(kind, engine): "FAIL" for kind in ("tools.rate", "tools.agree", "answers.rate") for engine in ENDS}
    assert outcomes(bench) == expected
    answers, run, shown = samples(bench), verdicts(bench), told(result)
    for engine, (_, kind, words) in ENDS.items():
        stopped = [answer["stopped"] for answer in answers if answer["engine"] == engine]
        assert {each["kind"] for each in stopped} == {kind}, engine
        assert all(words in each["words"] for each in stopped), engine
        remark = f"32 of 32 conversations of {engine} ended without an answer ({kind} 32), and what they ended with is "
        assert f"{remark}judged" in run["answers.rate", engine]["remarks"]
        assert f"{engine} ended without an answer: {kind} 32" in shown
        assert f"of 32 answers of {engine}: {'invalid JSON' if kind == 'broken call' else kind} 32" in shown


SILENT = {
    "b": ("stop", "no words", "b ended without an answer: no words 32"),
    "c": ("tool_calls", "no words", "c ended without an answer: no words 32"),
    "d": ("length", None, "the token limit was reached before any text of 32 answers of d"),
}
"""Why an engine says that its answer ended where it says nothing after the results, and what is told of it."""


@pytest.mark.slow
def test_nothing_after_the_results_is_an_end_and_of_a_token_limit_it_is_none(bench: Bench) -> None:
    rows(bench)
    bench.gate("check.tools(rate=0.9, agree=0.9, last='any')")

    def falls_silent(end: str) -> Callable[[Mapping[str, Any]], Reply]:
        return lambda request: asks(request) if len(results(request)) < 2 else Reply(finish_reason=end)

    silent = [bench.engine(falls_silent(end)) for end, _, _ in SILENT.values()]

    result = bench.run(JSON, engines=[bench.engine(asks), *silent])

    answers, judged = samples(bench), outcomes(bench)
    for engine, (_, stopped, words) in SILENT.items():
        last = [answer for answer in answers if answer["engine"] == engine]
        assert {(each["stopped"] or {}).get("kind") for each in last} == {stopped}, result.stdout.str()
        assert {len(each["turns"]) for each in last} == {2}
        assert all(each["usage"]["prompt_tokens"] for each in last), "what else its server said is kept"
        assert words in told(result)
        outcome = "FAIL" if stopped else "INCONCLUSIVE"
        assert judged["tools.agree", engine] == judged["tools.rate", engine] == outcome


@pytest.mark.slow
def test_a_request_that_fails_names_its_turn_and_takes_the_conversation_with_it(bench: Bench) -> None:
    rows(bench)
    bench.gate("check.tools(agree=0.9)")

    def breaks(request: Mapping[str, Any]) -> Reply | Fault:
        return Fault.refuse(400) if len(results(request)) == 1 else asks(request)

    result = bench.run(JSON, engines=[bench.engine(asks), bench.engine(breaks)])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    failures = [answer["failure"] for answer in samples(bench) if answer["engine"] == "b"]
    assert len(failures) == PROMPTS
    assert all(failure["message"].startswith("turn 2: ") for failure in failures)
    assert {failure["kind"] for failure in failures} == {"BadRequest"}


@pytest.mark.slow
def test_a_forced_call_is_forced_in_the_first_turn_only(bench: Bench) -> None:
    rows(bench, tool_choice={"type": "function", "function": {"name": "get_order"}})
    bench.gate("check.tools(names=0.9)")
    engine = bench.engine(asks)

    assert bench.run(engines=[engine, bench.engine(asks)]).ret == pytest.ExitCode.OK

    chosen = {(len(results(request)), json.dumps(request["tool_choice"])) for request in bench.asked(engine)}
    assert chosen == {
        (0, '{"type": "function", "function": {"name": "get_order"}}'),
        (1, '"auto"'),
        (2, '"auto"'),
    }


@pytest.mark.slow
def test_the_noise_floor_and_streams_hold_whole_conversations_and_times_are_of_the_first_turn(bench: Bench) -> None:
    rows(bench, 16)
    bench.gate("check.text(margin=0.2), check.latency(e2e_p50='20s', n=16)", tokens=32)
    engines = [bench.engine(asks), bench.engine(asks)]

    result = bench.run(JSON, engines=engines)

    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    counts = turns(bench, engines[1])
    assert counts[2] == counts[3] == 16 * 4  # once, and three times for the floor
    assert counts[1] - 16 * 4 in (16, 17)  # what is timed, and perhaps a warm-up
    timed = [answer for answer in samples(bench) if answer["phase"] == "timed" and answer["engine"] == "b"]
    assert {len(answer["turns"]) for answer in timed} == {0}

    rows(bench)
    bench.gate("check.stream(rate=0.9)")

    def unlike(request: Mapping[str, Any]) -> Reply:
        return asks_twice(request) if request.get("stream") else asks(request)

    streamed = bench.run(JSON, engines=[bench.engine(asks), bench.engine(unlike)])

    assert {engine: outcome for (_, engine), outcome in outcomes(bench).items()} == {"a": "PASS", "b": "FAIL"}
    assert "turn 2: content parts at character 0" in told(streamed)


@pytest.mark.slow
def test_an_interrupted_conversation_is_held_again_from_its_beginning(
    bench: Bench, wait_until: Callable[..., float]
) -> None:
    rows(bench)
    bench.gate("check.tools(rate=0.9)")
    free, waiting = threading.Event(), threading.Event()

    def stuck(request: Mapping[str, Any]) -> Reply:
        if "question 31" in str(request) and len(results(request)) == 1 and not free.is_set():
            waiting.set()
            free.wait(60)
        return asks(request)

    engines = [bench.engine(stuck), bench.engine(asks)]
    spawned = bench.spawn("-p", "no:xdist", engines=engines)
    wait_until(lambda: waiting.is_set() and len(bench.asked(engines[0])) == 3 * PROMPTS - 1)
    spawned.kill()
    free.set()
    before = len(bench.asked(engines[0]))

    result = bench.run("--parity-resume", JSON, engines=engines)

    assert result.ret == pytest.ExitCode.OK, result.stdout.str()
    again = bench.asked(engines[0])[before:]
    assert [len(results(request)) for request in again] == [0, 1, 2]
    assert {"question 31" in str(request) for request in again} == {True}


def test_a_limit_of_requests_counts_turns_and_leaves_no_half_conversation(bench: Bench) -> None:
    rows(bench)
    bench.gate("check.tools(rate=0.9)")
    engine = bench.engine(asks)

    result = bench.run("--parity-max-requests=50", JSON, engines=[engine])

    assert len(bench.asked(engine)) <= 50
    assert 0 < len(samples(bench)) < PROMPTS
    assert {len(answer["turns"]) for answer in samples(bench)} == {2}
    assert "--parity-max-requests" in told(result)


@pytest.mark.slow
def test_golden_conversations_answer_for_their_engine(bench: Bench) -> None:
    rows(bench)
    bench.gate("check.tools(agree=0.9), check.text(margin=0.2)", tokens=32)
    prod = bench.engine(asks)

    wrote = bench.run(f"--engines=prod={bench.selected(prod)}", "--parity-update-golden=missing")
    lines = (bench.pytester.path / "golden/prompts/prod.jsonl").read_text("utf-8").splitlines()
    prod.stop()

    assert wrote.ret == pytest.ExitCode.TESTS_FAILED  # it wrote what nobody has seen
    (answer,) = json.loads(lines[1])["answers"]
    assert [turn["results"] for turn in answer["turns"]] == [['{"day": 3}'], ["Monday"]]
    for says, code in ((asks, pytest.ExitCode.OK), (asks_twice, pytest.ExitCode.TESTS_FAILED)):
        dev = bench.engine(says)
        result = bench.run(f"--engines=golden:prod,dev={bench.selected(dev)}", "--parity-fresh", JSON)
        assert result.ret == code, result.stdout.str()
    assert "turn 3: golden-prod makes none, dev 1 call" in told(result)
    rows(bench, tool_results={**RESULTS, "get_order": {"day": 4}})
    other = bench.run(f"--engines=golden:prod,dev={bench.selected(bench.engine(asks))}", "--parity-fresh")
    assert other.ret == pytest.ExitCode.TESTS_FAILED  # what tools return is part of what was asked


@pytest.mark.slow
def test_a_recorded_engine_holds_its_conversations_again(bench: Bench) -> None:
    rows(bench)
    prod = bench.engine(asks, poses_as="llamacpp")
    chosen = f"prod={bench.selected(prod)}"
    assert main(["record", chosen, "--prompts", "prompts.jsonl", "--max-tokens", "12"]) == 0
    prod.stop()
    bench.gate(GATE)

    same = bench.run(f"--engines=replay:prod,dev={bench.selected(bench.engine(asks, poses_as='llamacpp'))}", JSON)

    assert same.ret == pytest.ExitCode.OK, same.stdout.str()
    assert {len(answer["turns"]) for answer in samples(bench)} == {2}


@pytest.mark.slow
def test_a_recording_of_a_conversation_that_broke_off_is_none(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    rows(bench)

    def breaks(request: Mapping[str, Any]) -> Reply | Fault:
        broken = len(results(request)) == 1 and "question 5" in str(request)
        return Fault.busy(99, retry_after="0") if broken else asks(request)

    chosen = f"prod={bench.selected(bench.engine(breaks, poses_as='llamacpp'))}"

    assert main(["record", chosen, "--prompts", "prompts.jsonl", "--max-tokens", "12"]) != 0
    assert "1 case of prod had no answer (case-5)" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("warm_commands")
@pytest.mark.slow
def test_shards_hold_whole_conversations(bench: Bench) -> None:
    rows(bench)
    bench.gate(GATE)
    engines = [bench.engine(asks), bench.engine(asks_twice)]
    places = []
    for index in (1, 2):
        assert bench.run(f"--parity-shard={index}/2", engines=engines).ret == pytest.ExitCode.OK
        places.append(str(bench.pytester.path / f"machine-{index}"))
        shutil.move(bench.pytester.path / ".llmparity", places[-1])

    assert turns(bench, engines[0]) == {1: PROMPTS, 2: PROMPTS, 3: PROMPTS}
    assert main(["merge", *places, "--", JSON, "-p", "no:cacheprovider"]) == pytest.ExitCode.TESTS_FAILED
    assert outcomes(bench)["tools.agree", "b"] == "FAIL"


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"max_turns": 0}, "max_turns is 0"),
        ({"tools": None}, "has tool_results without tools"),
        ({"tool_results": {"get_odrer": 1}}, 'has tool_results for "get_odrer", which tools does not offer (did you'),
        ({"tool_results": {"get_day": ["Monday"]}}, 'has "Monday" for "get_day" at 0; a list holds entries'),
        ({"tool_results": {"get_order": [{"arguments": {"ids": 1}, "result": 1}]}}, "(did you mean 'id'?)"),
        ({"tool_results": "Monday"}, 'tool_results is "Monday"'),
        ({"tool_results": None, "max_turns": 3}, "has max_turns without tool_results"),
    ],
)
def test_a_wrong_row_is_an_error_with_its_line_before_anybody_is_asked(
    bench: Bench, row: dict[str, Any], words: str
) -> None:
    given = {"tools": TOOLS, "tool_results": RESULTS, **row}
    bench.prompts(PROMPTS, **{key: value for key, value in given.items() if value is not None})
    bench.gate(GATE)
    engine = bench.engine(asks)

    result = bench.run(engines=[engine, engine])

    assert result.ret != pytest.ExitCode.OK
    assert "prompts.jsonl:1: " in told(result)
    assert words in told(result)
    assert not bench.asked(engine)
