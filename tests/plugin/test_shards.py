"""``--parity-shard`` and ``llmparity merge`` from the outside: several machines gather, one run is judged."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli import main

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
SHARDS = 3
SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity(
    "prompts.jsonl", check.prompts(), check.text(margin=0.05), check.schema({"type": "object"}, rate=0.9), max_tokens=12
)
def test_gate(parity_run):
    assert parity_run

def test_app(parity_engine):
    ...
"""


def kept(report: Any) -> list[dict[str, Any]]:
    """Return the verdicts of a report without what says when and in which run they were come to."""
    left_out = ("explanation", "cause", "details")
    verdicts = [{name: value for name, value in v.items() if name not in left_out} for v in report["verdicts"]]
    return sorted(verdicts, key=lambda v: (v["test"], v["check"], v["kind"], v["engine"]))


@pytest.mark.usefixtures("warm_commands")
@pytest.mark.slow
def test_merged_shards_give_the_verdicts_of_one_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"id": f"case-{i}", "group": f"group-{i // 3}", "messages": [{"role": "user", "content": f"question {i}"}]}
        for i in range(90)
    ]
    (bench.pytester.path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    bench.pytester.makepyfile(test_gate=SUITE)
    engines = [bench.engine(), bench.engine(drift=0.03)]
    whole = bench.run("--parity-report=json", "--parity-out=whole", engines=engines)
    store = bench.pytester.path / ".llmparity"
    shutil.move(store, bench.pytester.path / "of-the-whole")
    places = []
    for index in range(1, SHARDS + 1):
        result = bench.run(f"--parity-shard={index}/{SHARDS}", "--parity-required", engines=engines)
        assert result.ret == OK
        places.append(str(bench.pytester.path / f"machine-{index}"))
        shutil.move(store, places[-1])

    more = ["--parity-report=json", "--parity-out=merged", "--parity-history=kept.jsonl", "-p", "no:cacheprovider"]
    code = main(["merge", *places, "--", *more])

    assert code == FAILED == whole.ret
    (line,) = (bench.pytester.path / "kept.jsonl").read_text("utf-8").splitlines()
    assert json.loads(line)["run"] == bench.report("merged")["run"]
    assert kept(bench.report("merged")) == kept(bench.report("whole"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--parity-shard=6/5"], "'6/5' is no shard: the first is 1/5 and the last 5/5"),
        (["--parity-shard=2 of 5"], "'2 of 5' is no shard; expected N/M such as 2/5"),
        (["--parity-shard=1/2", "--parity-mode=replay"], "judged by: llmparity merge"),
        (["--parity-shard=1/2", "--parity-sequential"], "which no shard can know; leave one out"),
        (["--parity-shard=1/2", "--parity-case=x"], "deals out all cases"),
        (["--parity-shard=1/2", "--parity-update-golden=all"], "make the merged run golden: llmparity golden from RUN"),
    ],
)
def test_what_takes_the_whole_of_a_run_is_refused_before_collection(bench: Bench, words: list[str], why: str) -> None:
    result = bench.run(*words, "--engines=vllm:m@http://127.0.0.1:9")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{why}*".replace("[", "[[]")])


def test_a_shard_whose_engine_cannot_be_asked_fails(bench: Bench) -> None:
    bench.gate("check.text(margin=0.2)")
    engine = bench.engine()
    other = bench.engine(api_key="secret-of-the-server")
    result = bench.run("--parity-shard=1/2", "--parity-report=json", "--parity-out=out", engines=[engine, other])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*shard 1 of 2: b*key*"])
    assert not (bench.pytester.path / "out").exists()


@pytest.mark.slow
def test_shards_that_are_named_are_reported_as_the_run_they_are(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.gate("check.prompts()")
    engines = [bench.engine(), bench.engine()]
    runs = []
    for index in (1, 2):
        result = bench.run(f"--parity-shard={index}/2", engines=engines)
        runs += re.findall(r"gathered as run (\S+),", result.stdout.str())
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")
    capfd.readouterr()

    assert main(["report", *runs, "--json", "--out", "out"]) == 0

    assert "put together of 2 shards" in capfd.readouterr().out
    assert [(v["kind"], v["n"], v["outcome"]) for v in bench.report()["verdicts"]] == [("prompts", 8, "PASS")]


@pytest.mark.usefixtures("warm_commands")
@pytest.mark.slow
def test_golden_answers_are_the_baseline_of_every_shard(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is asked for them, so each shard has all of them, and the merged run has them once."""
    bench.prompts(24)
    bench.gate("check.prompts(), check.text(margin=0.05)")
    prod, dev = bench.engine(poses_as="llamacpp"), bench.engine(poses_as="llamacpp", drift=0.02)
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    chosen = f"--engines=golden:prod,dev={bench.selected(dev)}"
    bench.run(f"--engines=prod={bench.selected(prod)}", "--parity-update-golden=all")
    asked = prod.count
    whole = bench.run(chosen, "--parity-report=json", "--parity-out=whole")
    store = bench.pytester.path / ".llmparity"
    shutil.move(store, bench.pytester.path / "of-the-whole")
    for index in (1, 2):
        assert bench.run(chosen, f"--parity-shard={index}/2").ret == OK
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")

    code = main(["merge", "--", "--parity-report=json", "--parity-out=merged"])

    assert code == whole.ret
    assert kept(bench.report("merged")) == kept(bench.report("whole"))
    assert prod.count == asked
