"""Tool calls, as a person running pytest sees them: what is wrong, what differs, in every way a run can be made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli import main
from pytest_llmparity.testing import Reply

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

PROMPTS = 32
JSON = "--parity-report=json"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": name,
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
                "required": ["city"],
            },
        },
    }
    for name in ("weather", "time")
]


@pytest.fixture(autouse=True)
def at_home(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's machine: no variable says that this is CI."""
    monkeypatch.chdir(bench.pytester.path)


def rows(bench: Bench, **row: Any) -> None:
    bench.prompts(PROMPTS, **{"tools": TOOLS, "expect": {"tool": "weather"}, **row})


def calls(*names: str, city: str = "Rome", **more: Any) -> Reply:
    arguments = json.dumps({"city": city, **more})
    return Reply(tool_calls=[(name, arguments) for name in names or ("weather",)])


def verdicts(bench: Bench) -> dict[tuple[str, str], Mapping[str, Any]]:
    run = bench.report(".llmparity/report")
    return {(verdict["kind"], verdict["engine"]): verdict for verdict in run["verdicts"]}


def outcomes(bench: Bench) -> dict[tuple[str, str], str]:
    return {place: verdict["outcome"] for place, verdict in verdicts(bench).items()}


def told(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


@pytest.mark.parametrize(
    ("reply", "fault", "called"),
    [
        (Reply(tool_calls=[("weather", '{"city": "Ro')]), "invalid JSON", True),
        (calls("wether"), "unknown name", False),
        (calls(city="Rome", days="two"), "schema mismatch", True),
        (Reply(reasoning="I should call weather."), "reasoning only", False),
        (Reply(text='<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'), "markup left", False),
        (Reply(finish_reason="tool_calls"), "swallowed", False),
        (Reply(text="It is sunny."), "no call", False),
    ],
    ids=["broken", "unknown", "mismatch", "reasoning", "markup", "swallowed", "words"],
)
def test_each_fault_has_its_class_over_the_wire(bench: Bench, reply: Reply, fault: str, called: bool) -> None:
    rows(bench)
    bench.gate("check.tools(names=0.9, rate=0.9, agree=0.9)")
    engines = [bench.engine(calls()), bench.engine(reply, poses_as="llamacpp")]

    result = bench.run(JSON, engines=engines)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert outcomes(bench) == {
        ("tools.names", "a"): "PASS",
        ("tools.rate", "a"): "PASS",
        ("tools.names", "b"): "PASS" if called else "FAIL",
        ("tools.rate", "b"): "FAIL",
        ("tools.agree", "b"): "FAIL",
    }
    assert verdicts(bench)["tools.rate", "b"]["differing"][0]["what"].startswith(fault)


def two(*cities: str) -> Reply:
    return Reply(tool_calls=[("weather", json.dumps({"city": city, "days": 2})) for city in cities])


@pytest.mark.parametrize(
    ("given", "ours", "theirs", "agrees"),
    [
        ("", two("Rome", "Oslo"), two("Oslo", "Rome"), True),
        (", order='same'", two("Rome", "Oslo"), two("Oslo", "Rome"), False),
        (", order='same'", two("Rome", "Oslo"), two("Rome", "Oslo"), True),
        ("", two("Rome", "Oslo"), two("Rome"), False),
        ("", two("Rome", "Rome"), two("Rome", "Oslo"), False),
        (", arguments='fits'", two("Rome"), two("Oslo"), True),
        (", arguments='fits'", two("Rome"), calls(days="two"), False),
        (", arguments=['days']", two("Rome"), two("Oslo"), True),
        (", arguments=['city']", two("Rome"), two("Oslo"), False),
        ("", two("Rome"), calls("time", days=2), False),
        ("", two("Rome"), Reply(tool_calls=[("weather", '{"days": 2.0, "city":"Rome"}')]), True),
    ],
)
def test_parallel_calls_are_compared_as_the_check_says(
    bench: Bench, given: str, ours: Reply, theirs: Reply, agrees: bool
) -> None:
    rows(bench, expect={})
    bench.gate(f"check.tools(agree=0.9{given})")

    result = bench.run(JSON, engines=[bench.engine(ours), bench.engine(theirs)])

    assert outcomes(bench) == {("tools.agree", "b"): "PASS" if agrees else "FAIL"}, result.stdout.str()


NAMED = {"type": "function", "function": {"name": "time"}}


@pytest.mark.parametrize(
    ("choice", "right", "wrong"),
    [
        ("none", Reply(text="Sunny."), calls()),
        ("auto", calls(), None),
        ("required", calls("time"), Reply(text="Sunny.")),
        (NAMED, calls("time"), Reply(text="Sunny.")),
    ],
    ids=["none", "auto", "required", "named"],
)
def test_a_tool_choice_is_sent_and_says_whether_to_call(
    bench: Bench, choice: Any, right: Reply, wrong: Reply | None
) -> None:
    rows(bench, tool_choice=choice, expect={})
    bench.gate("check.tools(agree=0.9)" if choice == "auto" else "check.tools(trigger=0.9)")
    engine = bench.engine(right, poses_as="llamacpp")  # whose kind takes tools, whatever a probe is answered

    bench.run(JSON, engines=[engine, bench.engine(right if wrong is None else wrong, poses_as="llamacpp")])

    assert {json.dumps(request["tool_choice"]) for request in bench.asked(engine)} == {json.dumps(choice)}
    if wrong is None:
        assert outcomes(bench) == {("tools.agree", "b"): "PASS"}
    else:
        assert outcomes(bench) == {("tools.trigger", "a"): "PASS", ("tools.trigger", "b"): "FAIL"}


def test_another_tool_than_the_named_one_is_the_wrong_one(bench: Bench) -> None:
    rows(bench, tool_choice=NAMED, expect={})
    bench.gate("check.tools(names=0.9)")

    bench.run(JSON, engines=[bench.engine(calls("time")), bench.engine(calls("weather"))])

    assert outcomes(bench) == {("tools.names", "a"): "PASS", ("tools.names", "b"): "FAIL"}


EVERYTHING = "check.tools(trigger=0.8, names=0.8, rate=0.8, agree=0.8)"


def halves(request: Mapping[str, Any]) -> Reply:
    """Call another tool to every second prompt."""
    number = int(str(request["messages"][-1]["content"]).rpartition(" ")[2]) if "question" in str(request) else 0
    return calls("time" if number % 2 else "weather")


WANTED = {
    **{(kind, "a"): "PASS" for kind in ("tools.trigger", "tools.names", "tools.rate")},
    ("tools.trigger", "b"): "PASS",
    ("tools.names", "b"): "FAIL",
    ("tools.rate", "b"): "PASS",
    ("tools.agree", "b"): "FAIL",
}


@pytest.mark.slow
def test_a_sequential_run_and_shards_come_to_the_same(bench: Bench) -> None:
    rows(bench)
    bench.gate(EVERYTHING)
    engines = [bench.engine(calls()), bench.engine(halves)]

    assert bench.run(JSON, engines=engines).ret == pytest.ExitCode.TESTS_FAILED
    assert outcomes(bench) == WANTED

    assert bench.run("--parity-sequential", "--parity-fresh", JSON, engines=engines).ret == pytest.ExitCode.TESTS_FAILED
    assert outcomes(bench) == WANTED

    shutil.rmtree(bench.pytester.path / ".llmparity")
    places = []
    for index in (1, 2):
        bench.run(f"--parity-shard={index}/2", engines=engines)
        places.append(str(bench.pytester.path / f"machine-{index}"))
        shutil.move(bench.pytester.path / ".llmparity", places[-1])
    assert main(["merge", *places, "--", JSON, "-p", "no:cacheprovider"]) == pytest.ExitCode.TESTS_FAILED
    assert outcomes(bench) == WANTED


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["golden", "replay"])
def test_golden_calls_and_recorded_ones_answer_for_their_engine(bench: Bench, kept: str) -> None:
    rows(bench)
    bench.gate(EVERYTHING)
    prod = bench.engine(calls(), poses_as="llamacpp")
    chosen = f"prod={bench.selected(prod)}"
    if kept == "golden":
        bench.run(f"--engines={chosen}", "--parity-update-golden=missing")
    else:
        assert main(["record", chosen, "--prompts", "prompts.jsonl", "--max-tokens", "12"]) == 0
    prod.stop()

    dev = bench.engine(halves, poses_as="llamacpp")
    result = bench.run(f"--engines={kept}:prod,b={bench.selected(dev)}", "--parity-fresh", JSON)

    named = {
        (kind, engine.replace(f"{kept}-prod", "a")): outcome for (kind, engine), outcome in outcomes(bench).items()
    }
    assert named == WANTED, result.stdout.str()


def test_streams_of_a_sequential_run_are_held_against_whole_answers(bench: Bench) -> None:
    rows(bench)
    bench.gate("check.stream(rate=0.8)")

    def unlike(request: Mapping[str, Any]) -> Reply:
        return halves(request) if request.get("stream") else calls()

    result = bench.run("--parity-sequential", JSON, engines=[bench.engine(calls()), bench.engine(unlike)])

    assert outcomes(bench) == {("stream.rate", "a"): "PASS", ("stream.rate", "b"): "FAIL"}, result.stdout.str()
    assert "calls time" in told(result)
