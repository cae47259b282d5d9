"""Tool calls, as a person running pytest sees them: what is wrong, what differs, in every way a run can be made."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
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


FAULTS = {
    "b": (Reply(tool_calls=[("weather", '{"city": "Ro')]), "invalid JSON", True),
    "c": (calls("wether"), "unknown name", False),
    "d": (calls(city="Rome", days="two"), "schema mismatch", True),
    "e": (Reply(reasoning="I should call weather."), "reasoning only", False),
    "f": (
        Reply(text='<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'),
        "markup left",
        False,
    ),
    "g": (Reply(finish_reason="tool_calls"), "swallowed", False),
    "h": (Reply(text="It is sunny."), "no call", False),
}
"""What an engine answers to every prompt, the class of that fault, and whether the right tool is called."""


def test_each_fault_has_its_class_over_the_wire(bench: Bench) -> None:
    rows(bench)
    bench.gate("check.tools(names=0.9, rate=0.9, agree=0.9)")
    faulty = [bench.engine(reply, poses_as="llamacpp") for reply, _, _ in FAULTS.values()]

    result = bench.run(JSON, engines=[bench.engine(calls()), *faulty])

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    expected = {("tools.names", "a"): "PASS", ("tools.rate", "a"): "PASS"}
    for engine, (_, _, called) in FAULTS.items():
        expected["tools.names", engine] = "PASS" if called else "FAIL"
        expected["tools.rate", engine] = expected["tools.agree", engine] = "FAIL"
    assert outcomes(bench) == expected
    classes = {engine: verdicts(bench)["tools.rate", engine]["differing"][0]["what"] for engine in FAULTS}
    assert {engine: fault for engine, (_, fault, _) in FAULTS.items() if not classes[engine].startswith(fault)} == {}


def two(*cities: str) -> Reply:
    return Reply(tool_calls=[("weather", json.dumps({"city": city, "days": 2})) for city in cities])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ours", "checks", "theirs"),
    [
        (
            two("Rome", "Oslo"),
            ["check.tools(agree=0.9)", "check.tools(agree=0.9, order='same')"],
            [
                (two("Oslo", "Rome"), "PASS FAIL"),
                (two("Rome", "Oslo"), "PASS PASS"),
                (two("Rome"), "FAIL FAIL"),
                (two("Rome", "Rome"), "FAIL FAIL"),
            ],
        ),
        (
            two("Rome"),
            [
                "check.tools(agree=0.9)",
                "check.tools(agree=0.9, arguments='fits')",
                "check.tools(agree=0.9, arguments=['days'])",
                "check.tools(agree=0.9, arguments=['city'])",
            ],
            [
                (two("Oslo"), "FAIL PASS PASS FAIL"),
                (calls(days="two"), "FAIL FAIL FAIL PASS"),
                (calls("time", days=2), "FAIL FAIL FAIL FAIL"),
                (Reply(tool_calls=[("weather", '{"days": 2.0, "city":"Rome"}')]), "PASS PASS PASS PASS"),
            ],
        ),
    ],
    ids=["two calls", "arguments"],
)
def test_calls_are_compared_as_the_check_says(
    bench: Bench, ours: Reply, checks: list[str], theirs: list[tuple[Reply, str]]
) -> None:
    rows(bench, expect={})
    bench.gate(", ".join(checks))
    engines = [bench.engine(ours), *(bench.engine(reply) for reply, _ in theirs)]

    result = bench.run(JSON, engines=engines)

    judged: dict[str, list[str]] = {}
    for verdict in bench.report(".llmparity/report")["verdicts"]:
        judged.setdefault(verdict["engine"], []).append(verdict["outcome"])
    assert judged == {engine: outcome.split() for engine, (_, outcome) in zip("bcde", theirs, strict=True)}, (
        result.stdout.str()
    )


NAMED = {"type": "function", "function": {"name": "time"}}
CHOICES = {
    "none": (Reply(text="Sunny."), calls()),
    "required": (calls("time"), Reply(text="Sunny.")),
    json.dumps(NAMED): (calls("time"), Reply(text="Sunny.")),
}
"""A choice, what is right where it is made, and what is wrong."""


def test_a_tool_choice_is_sent_and_says_whether_to_call(bench: Bench) -> None:
    made = {"none": "none", "required": "required", "named": NAMED, "auto": "auto"}
    for name, choice in made.items():
        rows(bench, tool_choice=choice, expect={})
        (bench.pytester.path / "prompts.jsonl").rename(bench.pytester.path / f"{name}.jsonl")
    gates = [
        f"@pytest.mark.parity('{name}.jsonl', check.tools({'agree' if name == 'auto' else 'trigger'}=0.9),"
        f" max_tokens=12)\ndef test_{name}(): ..."
        for name in made
    ]
    suite = "\n".join(["import pytest", "from pytest_llmparity import check", *gates])
    bench.pytester.makepyfile(test_gate=suite)

    def answering(place: int) -> Callable[[Mapping[str, Any]], Reply]:
        def answer(request: Mapping[str, Any]) -> Reply:
            choice = request.get("tool_choice", "auto")
            return CHOICES.get(choice if isinstance(choice, str) else json.dumps(choice), (calls(), calls()))[place]

        return answer

    # Of a kind that takes tools, whatever a probe is answered.
    right, wrong = (bench.engine(answering(place), poses_as="llamacpp") for place in (0, 1))

    result = bench.run(JSON, engines=[right, wrong])

    sent = Counter(json.dumps(request["tool_choice"]) for request in bench.asked(right))
    assert sent == {json.dumps(choice): PROMPTS for choice in made.values()}
    judged = {
        (verdict["test"].rpartition("_")[2], verdict["kind"], verdict["engine"]): verdict["outcome"]
        for verdict in bench.report(".llmparity/report")["verdicts"]
    }
    expected = {("auto", "tools.agree", "b"): "PASS"}
    for name in ("none", "required", "named"):
        expected[name, "tools.trigger", "a"], expected[name, "tools.trigger", "b"] = "PASS", "FAIL"
    assert judged == expected, result.stdout.str()


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


@pytest.mark.usefixtures("warm_commands")
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


@pytest.mark.slow
def test_streams_of_a_sequential_run_are_held_against_whole_answers(bench: Bench) -> None:
    rows(bench)
    bench.gate("check.stream(rate=0.8)")

    def unlike(request: Mapping[str, Any]) -> Reply:
        return halves(request) if request.get("stream") else calls()

    result = bench.run("--parity-sequential", JSON, engines=[bench.engine(calls()), bench.engine(unlike)])

    assert outcomes(bench) == {("stream.rate", "a"): "PASS", ("stream.rate", "b"): "FAIL"}, result.stdout.str()
    assert "calls time" in told(result)
