"""Real tool calls of copies of a model that was trained to call: right, alike, and of a tool that was offered."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.engines.live import Served
    from tests.live.conftest import LiveRun

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity(
    "{tools}",
    check.tools(trigger=0.7, names=0.6, rate=0.6, agree=0.7, arguments=["city", "name"]),
    check.answers(rate=0.7),
    max_tokens=64,
)
def test_tools(): ...

@pytest.mark.parity("{tools}", check.stream(rate=0.7), max_tokens=64)
def test_stream(): ...
"""
UNREAD = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity(
    "{tools}",
    check.tools(names=0.6, rate=0.6, agree=0.6, arguments=["city", "name"]),
    check.stream(rate=0.6),
    max_tokens=64,
)
def test_tools(): ...
"""
FEWEST = 6
"""So many groups that are all right, or all wrong, decide about a rate of 0.6."""
TEMPLATES, CALLING = 13, 7
"""Of the prompts, and of those that are to call: a verdict counts templates, so more prompts of one decide nothing."""


def one_of_each_template(prompts: Path) -> list[dict[str, Any]]:
    """Return the first prompt of each template."""
    first: dict[str, dict[str, Any]] = {}
    for row in map(json.loads, (prompts / "tools.jsonl").read_text("utf-8").splitlines()):
        first.setdefault(row["group"], row)
    assert len(first) == TEMPLATES
    return list(first.values())


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory, prompts: Path) -> Path:
    """Write a prompt of each template; return the path of the file."""
    path = tmp_path_factory.mktemp("tools") / "tools.jsonl"
    path.write_text("\n".join(map(json.dumps, one_of_each_template(prompts))), "utf-8")
    return path


def test_a_4_bit_copy_calls_as_the_original_does_and_streamed_as_unstreamed(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], tools: Path
) -> None:
    run = launch(
        "--engines=f16,q8,q4",
        suite=SUITE.format(tools=tools),
        config=gguf("f16", "F16") + gguf("q8", "Q8_0") + gguf("q4", "Q4_0"),
    )

    assert run.wait() == 0, run.output
    verdicts = told(run)
    kinds = ("tools.trigger", "tools.names", "tools.rate", "answers.rate", "stream.rate")
    assert {(kind, engine) for _, kind, engine in verdicts} == {
        *((kind, engine) for kind in kinds for engine in ("f16", "q8", "q4")),
        ("tools.agree", "q8"),
        ("tools.agree", "q4"),
    }
    assert {verdict["outcome"] for verdict in verdicts.values()} == {"PASS"}
    assert verdicts["test_tools", "tools.rate", "q4"]["n"] == CALLING
    assert verdicts["test_stream", "stream.rate", "f16"]["estimate"] == 1.0


@pytest.mark.parametrize("served", ["vllm"], indirect=True)
def test_vllm_with_its_parser_calls_as_llamacpp_does(
    launch: Callable[..., LiveRun],
    gguf: Callable[..., str],
    served: Served,
    attached: Callable[..., str],
    tools: Path,
) -> None:
    """The same weights in 16 bits of two kinds; vLLM reads calls by its parser of this model's family, hermes."""
    run = launch(
        *("--engines=f16,bf16", "-k", "test_tools"),
        suite=SUITE.format(tools=tools),
        config=gguf("f16", "F16") + attached("bf16", served),
    )

    run.wait()
    verdicts = told(run)
    assert {verdicts["test_tools", kind, "bf16"]["outcome"] for kind in ("tools.trigger", "tools.agree")} == {"PASS"}


@pytest.mark.slow
@pytest.mark.parametrize("served", ["mlx"], indirect=True)
def test_calls_that_mlx_leaves_in_the_text_are_told_as_that_and_streams_are_whole(
    launch: Callable[..., LiveRun],
    gguf: Callable[..., str],
    served: Served,
    attached: Callable[..., str],
    prompts: Path,
    tmp_path: Path,
) -> None:
    """mlx-lm reads no calls of this model's template: none of its answers calls, and the check says where they are.

    As few prompts as decide that, each of a template that is to call: no engine here takes longer to read them.
    """
    calling = [row for row in one_of_each_template(prompts) if "tool" in row["expect"]][:FEWEST]
    (tmp_path / "calling.jsonl").write_text("\n".join(map(json.dumps, calling)), "utf-8")
    run = launch(
        "--engines=f16,mlx",
        "--parity-report=json",
        "--parity-out=out",
        "--parity-explain-requests=0",
        suite=UNREAD.format(tools=tmp_path / "calling.jsonl"),
        config=gguf("f16", "F16") + attached("mlx", served),
    )

    assert run.wait() == 1, run.output
    verdicts = told(run)
    for kind in ("tools.names", "tools.rate"):
        assert verdicts["test_tools", kind, "f16"]["outcome"] == "PASS"
        assert (verdicts["test_tools", kind, "mlx"]["outcome"], verdicts["test_tools", kind, "mlx"]["estimate"]) == (
            "FAIL",
            0.0,
        )
    assert "markup left in the text" in (run.folder / "out/run.json").read_text("utf-8")
    assert verdicts["test_tools", "tools.agree", "mlx"]["outcome"] != "PASS"
    assert verdicts["test_tools", "stream.rate", "mlx"]["outcome"] == "PASS"


def told(run: LiveRun) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Return the verdicts, and print each figure of tools: those of the documentation."""
    verdicts = run.verdicts()
    for (_, kind, engine), verdict in verdicts.items():
        if kind.startswith("tools."):
            sys.stdout.write(f"{engine} {kind} {verdict['outcome']} {verdict['estimate']} n={verdict['n']}\n")
    return verdicts


RESULTS = {
    "get_weather": "Sunny, 21 degrees.",
    "get_time": [{"result": "12:30"}, {"result": "12:31"}],
    "add_numbers": {"sum": 7},
    "find_person": [{"arguments": {"name": "Greta Nagy"}, "result": {"room": "B12"}}, {"result": {"room": "C3"}}],
    "create_ticket": {"ticket": 88},
}
LOOPS = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity(
    "{loops}",
    check.tools(trigger=0.4, agree=0.1, arguments=["city", "name"]),
    check.text(margin=0.2),
    max_tokens=64,
)
def test_loops(): ...
"""


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory, prompts: Path) -> Path:
    """Write the prompts with what their tools return."""
    path = tmp_path_factory.mktemp("loops") / "loops.jsonl"
    scripted = [{**row, "tool_results": RESULTS, "max_turns": 4} for row in one_of_each_template(prompts)]
    path.write_text("\n".join(map(json.dumps, scripted)), "utf-8")
    return path


def conversations(run: LiveRun, engine: str) -> Counter[int]:
    """Count the answers of an engine by how many turns they took."""
    lines = (run.folder / "out/samples.jsonl").read_text("utf-8").splitlines()
    samples = [json.loads(line) for line in lines]
    return Counter(1 + len(s["turns"]) for s in samples if s["engine"] == engine and s["phase"] == "main")


@pytest.mark.slow
def test_conversations_go_on_and_a_copy_of_the_same_file_holds_the_same_ones(
    launch: Callable[..., LiveRun], gguf: Callable[..., str], loops: Path
) -> None:
    run = launch(
        "--engines=f16,again,q4",
        "--parity-report=json",
        "--parity-out=out",
        "--parity-explain-requests=0",
        suite=LOOPS.format(loops=loops),
        config=gguf("f16", "F16") + gguf("again", "F16") + gguf("q4", "Q4_0"),
    )

    run.wait()
    verdicts = run.verdicts()
    same, other = (verdicts["test_loops", "tools.agree", engine] for engine in ("again", "q4"))
    assert (same["outcome"], same["estimate"]) == ("PASS", 1.0), run.output
    assert other["estimate"] < 1.0  # four bits call otherwise somewhere
    assert verdicts["test_loops", "text", "again"]["estimate"] == 0.0
    assert {verdicts["test_loops", "tools.trigger", engine]["outcome"] for engine in ("f16", "q4")} == {"PASS"}, (
        run.output
    )
    counts = conversations(run, "f16")
    assert counts == conversations(run, "again")
    assert sum(counts.values()) == TEMPLATES
    assert counts[1] >= TEMPLATES - CALLING  # those that are to answer at once
    assert sum(n for turns, n in counts.items() if turns > 1) >= CALLING - 1
