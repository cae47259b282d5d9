"""``--parity-tag`` and ``--parity-sample``: a part of the prompts is asked and judged, and every place says so."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.cli import main

if TYPE_CHECKING:
    from pathlib import Path

    from tests.doubles.posing import PosingEngine
    from tests.plugin.conftest import Bench

OK, FAILED, USAGE = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR
CHECKS = "check.schema({}, rate=0.05, gap=None)"


def tagged(bench: Bench, name: str = "prompts.jsonl") -> Path:
    """Write 16 prompts, every fourth of them with the tag ``refund``, the others with ``order``."""
    rows = [
        {
            "id": f"case-{i}",
            "tags": ["order" if i % 4 else "refund"],
            "messages": [{"role": "user", "content": f"question {i}"}],
        }
        for i in range(16)
    ]
    path: Path = bench.pytester.path / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def pair(bench: Bench) -> list[PosingEngine]:
    tagged(bench)
    return [bench.engine(), bench.engine()]


def asked(bench: Bench, engine: PosingEngine) -> set[str]:
    return {str(request["messages"][-1]["content"]) for request in bench.asked(engine)}


def test_only_prompts_with_the_tag_are_asked_and_every_place_says_so(bench: Bench, pair: list[PosingEngine]) -> None:
    bench.gate(CHECKS)
    reports = "--parity-report=json,md,html", "--parity-out=out"
    result = bench.run("--parity-tag=refund", *reports, engines=pair)

    assert asked(bench, pair[0]) == {f"question {i}" for i in (0, 4, 8, 12)}
    portion = "4 of 16 prompts, tag refund (--parity-tag refund)"
    text = " ".join(result.stdout.str().split())
    assert f"prompts: {portion}" in text
    assert f"noted: {portion}: schema.rate of test_gate" in text
    report = bench.report()
    assert {verdict["n"] for verdict in report["verdicts"]} == {4}
    assert all(portion in verdict["remarks"] for verdict in report["verdicts"])
    for name in ("summary.md", "report.html"):
        assert portion in (bench.pytester.path / "out" / name).read_text("utf-8")


def test_a_sample_is_the_same_each_time_and_judged_as_one(bench: Bench, pair: list[PosingEngine]) -> None:
    bench.gate(CHECKS)
    bench.run("--parity-sample=8", "--parity-report=json", "--parity-out=out", engines=pair)
    first = asked(bench, pair[0])
    again = bench.run("--parity-sample=8", "--parity-fresh", engines=pair)

    assert len(first) == 8
    assert len({question for question in first if int(question.split()[1]) % 4 == 0}) == 2, "each tag by its share"
    assert asked(bench, pair[0]) == first
    assert "8 of 16 prompts, sample" in again.stdout.str()
    assert {verdict["n"] for verdict in bench.report()["verdicts"]} == {8}


@pytest.mark.slow
def test_a_junit_report_says_which_part_was_asked(bench: Bench, pair: list[PosingEngine]) -> None:
    bench.gate(CHECKS)
    bench.run("--parity-sample=8", "--junitxml=part.xml", engines=pair, left_out=())
    bench.run("--junitxml=whole.xml", engines=pair, left_out=())

    told = [(bench.pytester.path / f"{name}.xml").read_text("utf-8") for name in ("part", "whole")]
    assert 'name="llmparity.portion" value="8 of 16 prompts, sample"' in told[0]
    assert "llmparity.portion" not in told[1]


@pytest.mark.slow
def test_a_sample_larger_than_the_set_is_a_whole_run(bench: Bench, pair: list[PosingEngine]) -> None:
    bench.gate(CHECKS)
    result = bench.run("--parity-sample=99", engines=pair)
    replayed = bench.run("--parity-mode=replay", engines=pair)

    assert len(asked(bench, pair[0])) == 16
    assert "of 16 prompts" not in result.stdout.str()
    assert replayed.ret == result.ret
    assert "nobody was asked" in replayed.stdout.str()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--parity-sample=0"], "'0' is no whole number above zero"),
        (["--parity-sample=-3"], "'-3' is no whole number above zero"),
        (["--parity-sample=some"], "'some' is no whole number above zero"),
        (["--parity-tag="], "a tag has a name"),
        (["--parity-tag=a", "--parity-case=x"], "--parity-tag chooses prompts to be judged, and --parity-case names"),
        (["--parity-sample=3", "--parity-update-golden=all"], "writes whole sets, and --parity-sample asks a part of"),
        (["--parity-sample=3", "--parity-policy=policy.toml"], "decides about whole runs, and --parity-sample makes"),
    ],
)
def test_what_would_lie_is_refused_before_collection(
    bench: Bench, words: list[str], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    (bench.pytester.path / "policy.toml").write_text('otherwise = "required"\n')
    result = bench.run(*words, "--engines=vllm:m@http://127.0.0.1:9,b=vllm:n@http://127.0.0.1:9")

    assert result.ret == USAGE
    assert why in result.stderr.str()


@pytest.mark.parametrize(
    ("tag", "hint"), [("refnd", " (did you mean 'refund'?)"), ("zzz", "no selected test has a prompt with this tag")]
)
def test_an_unknown_tag_is_told_before_anybody_is_asked(
    bench: Bench, pair: list[PosingEngine], tag: str, hint: str
) -> None:
    bench.gate(CHECKS)
    result = bench.run(f"--parity-tag={tag}", engines=pair)

    assert result.ret == USAGE
    assert f"--parity-tag {tag}: no selected test has a prompt with this tag" in result.stderr.str()
    assert hint in result.stderr.str()
    assert not bench.asked(pair[0])


@pytest.mark.slow
def test_workers_tell_of_an_unknown_tag_too(bench: Bench, pair: list[PosingEngine]) -> None:
    bench.gate(CHECKS)
    (bench.pytester.path / "test_plain.py").write_text("def test_bot(engine):\n    raise SystemError(engine)\n")
    result = bench.run("--parity-tag=refnd", "-n2", engines=pair, left_out=())

    assert result.ret == USAGE
    result.stdout.fnmatch_lines(
        [
            "*--parity-tag refnd: no selected test has a prompt with this tag*'refund'*",
            "ERROR: --parity-tag refnd: no selected test has a prompt with this tag*",
        ]
    )
    assert "SystemError" not in result.stdout.str(), "no test runs"
    assert not bench.asked(pair[0])


def test_a_row_that_was_left_out_says_by_what(bench: Bench, pair: list[PosingEngine]) -> None:
    bench.gate(CHECKS, body="assert parity_run['a']['case-1'].text")
    result = bench.run("--parity-tag=refund", engines=pair)

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*not selected by --parity-tag refund*"])


def test_a_test_without_such_prompts_is_skipped_with_the_reason(bench: Bench, pair: list[PosingEngine]) -> None:
    tagged(bench, "tagged.jsonl")
    bench.prompts()
    bench.pytester.makepyfile(
        test_gate=f"""
        import pytest
        from pytest_llmparity import check

        @pytest.mark.parity("prompts.jsonl", {CHECKS})
        def test_untagged(): ...

        @pytest.mark.parity("tagged.jsonl", {CHECKS})
        def test_tagged(): ...
        """
    )
    result = bench.run("--parity-tag=refund", "-rs", engines=pair)

    result.stdout.fnmatch_lines(["*no prompt of prompts has the tag refund (--parity-tag)*"])
    assert len(asked(bench, pair[0])) == 4


def test_a_portion_is_replayed_by_the_same_words_and_no_others(bench: Bench, pair: list[PosingEngine]) -> None:
    bench.gate(CHECKS)
    first = bench.run("--parity-tag=refund", "--parity-report=json", "--parity-out=first", engines=pair)
    again = bench.run(
        "--parity-tag=refund", "--parity-mode=replay", "--parity-report=json", "--parity-out=again", engines=pair
    )
    other = bench.run("--parity-mode=replay", engines=pair)

    assert again.ret == first.ret
    assert bench.report("again")["verdicts"] == bench.report("first")["verdicts"]
    assert other.ret == FAILED
    assert "(it was gathered with --parity-tag refund)" in " ".join(other.stdout.str().split())


def test_golden_answers_of_other_prompts_are_left_as_they_are(
    bench: Bench,
    pair: list[PosingEngine],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    bench.gate(CHECKS)
    prod = f"prod={bench.selected(pair[0])}"
    bench.run(f"--engines={prod}", "--parity-update-golden=all")
    path = bench.pytester.path / "golden/prompts/prod.jsonl"
    before = path.read_text("utf-8")
    result = bench.run(f"--engines=golden:prod,dev={bench.selected(pair[1])}", "--parity-tag=refund")

    text = " ".join(result.stdout.str().split())
    assert "4 of 16 prompts, tag refund" in text
    assert "not any more" not in text, "golden answers of prompts that are left out are not stale"
    assert path.read_text("utf-8") == before
    monkeypatch.chdir(bench.pytester.path)
    assert main(["golden", "prune"]) != 0
    assert main(["golden", "from", "newest"]) != 0
    assert "it asked a part of the prompts (--parity-tag refund)" in capsys.readouterr().err


@pytest.mark.slow
def test_a_comparison_tells_a_part_from_the_whole(
    bench: Bench, pair: list[PosingEngine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bench.gate(CHECKS)
    runs = []
    for words in ([], ["--parity-tag=refund"]):
        bench.run(*words, "--parity-required", "--parity-report=json", "--parity-out=out", engines=pair)
        runs.append(str(bench.report()["run"]))
    monkeypatch.chdir(bench.pytester.path)
    capsys.readouterr()

    assert main(["report", *runs]) == 0
    told = capsys.readouterr().out
    assert (
        f"{runs[0]} asked all prompts and {runs[1]} asked a part of the prompts (--parity-tag refund): "
        "what differs may be the prompts" in told
    )
    assert main(["report", runs[1], runs[1]]) == 0
    assert "may be the prompts" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_sample_under_xdist_is_the_one_of_a_single_process(bench: Bench, pair: list[PosingEngine]) -> None:
    bench.gate(CHECKS)
    result = bench.run("--parity-sample=4", "-n2", engines=pair, left_out=())

    assert len(asked(bench, pair[0])) == 4
    assert "4 of 16 prompts, sample" in result.stdout.str()


@pytest.mark.usefixtures("warm_commands")
@pytest.mark.slow
def test_shards_of_a_portion_are_merged_as_one(
    bench: Bench, pair: list[PosingEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.gate(CHECKS)
    whole = bench.run("--parity-sample=8", "--parity-report=json", "--parity-out=whole", engines=pair)
    shutil.move(bench.pytester.path / ".llmparity", bench.pytester.path / "of-the-whole")
    for index in (1, 2):
        assert bench.run(f"--parity-shard={index}/2", "--parity-sample=8", engines=pair).ret == OK
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:cacheprovider")

    assert main(["merge", "--", "--parity-report=json", "--parity-out=merged"]) == whole.ret
    keys = ("test", "kind", "engine", "outcome", "n", "remarks")
    ours, theirs = (
        sorted([[v[key] for key in keys] for v in bench.report(name)["verdicts"]]) for name in ("merged", "whole")
    )
    assert ours == theirs


@pytest.mark.slow
def test_a_run_of_another_portion_is_not_gone_on_with(bench: Bench, pair: list[PosingEngine]) -> None:
    """Sequentially too, where prompts that were added are asked by the run that stayed open."""
    bench.gate("check.schema({}, rate=0.3, gap=None)")
    bench.run("--parity-sequential", "--parity-sample=12", engines=pair)
    result = bench.run("--parity-sequential", "--parity-resume", engines=pair)

    assert len(asked(bench, pair[0])) == 12
    result.stdout.fnmatch_lines(["*--parity-resume*"])
    assert result.ret == FAILED


@pytest.mark.slow
def test_looks_at_a_sample_and_at_the_whole_are_counted_apart_and_paid_for_once(
    bench: Bench, pair: list[PosingEngine]
) -> None:
    bench.gate(CHECKS)
    looks = []
    for sample in (["--parity-sample=4"], [], ["--parity-sample=4"], [], ["--parity-sample=6"]):
        bench.run(*sample, "--parity-fresh", "--parity-report=json", "--parity-out=out", engines=pair)
        (verdict,) = [v for v in bench.report()["verdicts"] if v["engine"] == "b"]
        assert verdict["outcome"] == "INCONCLUSIVE"
        looks.append(verdict["looks"])

    assert looks == [0, 1, 1, 1, 2], "in turn they do not grow; a larger sample because the smaller stayed open does"


@pytest.mark.slow
def test_a_portion_stands_in_no_history_of_whole_sets(bench: Bench, pair: list[PosingEngine]) -> None:
    bench.gate(CHECKS)
    kept = bench.pytester.path / "kept.jsonl"
    for words in ([], ["--parity-sample=4"]):
        bench.run(*words, "--parity-history=kept.jsonl", "--parity-report=html", engines=pair)

    assert len(kept.read_text("utf-8").splitlines()) == 1
