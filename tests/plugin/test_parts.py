"""Whole runs of prompts that hold images and sound."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli import main
from pytest_llmparity.run.probe.media import red_image, silence
from tests.doubles.abilities import Abilities

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.plugin.conftest import Bench

CHECKS = "check.prompts(), check.text(margin=0.05)"
BYTES = base64.b64encode(red_image()).decode()
WHOLE = ("--parity-report=json,html,md", "--parity-out=out")


@pytest.fixture(autouse=True)
def shown(bench: Bench) -> None:
    """Every second prompt shows an image of a file."""
    (bench.pytester.path / "x.png").write_bytes(red_image())
    (bench.pytester.path / "x.wav").write_bytes(silence())
    write(bench, {"type": "image", "file": "x.png"})


def write(bench: Bench, part: Mapping[str, Any], *, every: int = 2) -> None:
    rows = []
    for number in range(20):
        text = {"type": "text", "text": f"question {number}"}
        content = [text, part] if number % every == 0 else f"question {number}"
        rows.append({"id": f"case-{number}", "messages": [{"role": "user", "content": content}]})
    (bench.pytester.path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))


def told(result: pytest.RunResult) -> str:
    return " ".join(result.stdout.str().split())


def samples(bench: Bench) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (bench.pytester.path / "out/samples.jsonl").read_text("utf-8").splitlines()]


def kept(bench: Bench) -> str:
    """Return all that a run left in files, the store too."""
    files = [path for path in bench.pytester.path.rglob("*") if path.is_file() and path.suffix not in (".pyc", ".png")]
    return "".join(path.read_bytes().decode("latin-1") for path in files)


def test_what_two_engines_read_is_compared_and_kept_as_a_name_and_a_size(bench: Bench) -> None:
    engines = [bench.engine(), bench.engine()]
    bench.gate(CHECKS)

    result = bench.run(*WHOLE, engines=engines)

    result.assert_outcomes(passed=1)
    assert sum(BYTES in json.dumps(request) for request in bench.asked(engines[0])) >= 10
    assert BYTES not in kept(bench)
    assert f"image/png x.png, {len(red_image()):,} bytes" in (bench.pytester.path / "out/report.html").read_text()
    line = next(line for line in samples(bench) if line["case"] == "case-0")
    assert [part.get("file", part.get("text")) for part in line["messages"][0]["content"]] == ["question 0", "x.png"]
    assert all(each["capabilities"]["images"]["value"] is True for each in bench.report()["engines"])


@pytest.mark.parametrize("media", ["refused", "dropped"])
def test_an_engine_that_reads_no_images_is_skipped_for_want_of_that(bench: Bench, media: Any) -> None:
    write(bench, {"type": "image", "file": "x.png"}, every=1)
    blind = bench.engine(abilities=Abilities(media=media))
    bench.gate(CHECKS)

    result = bench.run(engines=[bench.engine(), blind])

    result.assert_outcomes(skipped=1)
    assert "b does not read images (probed)" in told(result)
    assert not bench.asked(blind)


@pytest.mark.slow
def test_prompts_of_text_are_judged_where_others_show_images(bench: Bench) -> None:
    blind = bench.engine(abilities=Abilities(media="refused"))
    bench.gate("check.prompts()")

    result = bench.run(*WHOLE, engines=[bench.engine(), blind])

    assert "b does not read images (probed)" in told(result)
    assert len({str(request) for request in bench.asked(blind)}) == 10
    assert not any("image_url" in str(request) for request in bench.asked(blind))


@pytest.mark.slow
def test_sound_is_asked_for_by_a_probe_of_its_own(bench: Bench) -> None:
    write(bench, {"type": "audio", "file": "x.wav"}, every=1)
    bench.gate(CHECKS)

    result = bench.run(*WHOLE, engines=[bench.engine(), bench.engine()])

    result.assert_outcomes(passed=1)
    assert [each["capabilities"]["audio"]["probed"] for each in bench.report()["engines"]] == [True, True]
    assert "images" not in bench.report()["engines"][0]["capabilities"]


def test_a_file_that_is_not_there_is_an_error_with_its_line_before_anything_is_asked(bench: Bench) -> None:
    write(bench, {"type": "image", "file": "x1.png"})
    engine = bench.engine()
    bench.gate(CHECKS)

    result = bench.run(engines=[engine, bench.engine()])

    result.assert_outcomes(errors=1)
    printed = told(result) + " ".join(result.stderr.str().split())
    assert "prompts.jsonl:1: messages[0].content[1] names 'x1.png', which cannot be read" in printed
    assert "(did you mean 'x.png'?)" in printed
    assert not engine.requests


@pytest.mark.slow
def test_another_image_under_the_same_name_is_asked_anew_in_a_run_that_goes_on(bench: Bench) -> None:
    engines = [bench.engine(), bench.engine()]
    bench.gate(CHECKS)
    bench.run(engines=engines)
    before = len(bench.asked(engines[0]))

    (bench.pytester.path / "x.png").write_bytes(red_image() + b"\0")
    replayed = bench.run("--parity-mode=replay")

    assert replayed.ret != 0
    assert len(bench.asked(engines[0])) == before
    assert "passed" not in replayed.parseoutcomes()
    (bench.pytester.path / "x.png").write_bytes(red_image())
    bench.run("--parity-mode=replay").assert_outcomes(passed=1)


def test_ollama_s_own_route_has_images_beside_the_text(bench: Bench) -> None:
    engine = bench.engine(poses_as="ollama")
    table = '[engines.native]\nkind = "ollama"\nmodel = "loopback"\nbase_url = "{0}"\nroute = "native"\n'
    bench.configure(table.format(engine.base_url))
    bench.gate("check.prompts()", body="parity_run['native']['case-0']")

    bench.run("--engines=native", "--parity-case=case-0")

    asked = next(request for request in bench.asked(engine) if "options" in request)
    assert asked["messages"] == [{"role": "user", "content": "question 0", "images": [BYTES]}]


@pytest.mark.slow
def test_a_recording_has_hashes_and_is_played(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(bench.pytester.path)
    engine = bench.engine(poses_as="llamacpp")
    bench.gate(CHECKS)
    chosen = f"prod={bench.selected(engine)}"
    assert main(["record", chosen, "--prompts", "prompts.jsonl", "--max-tokens", "12"]) == 0
    engine.stop()
    recording = (bench.pytester.path / "recordings/prod.jsonl").read_text("utf-8")

    result = bench.run(f"--engines=replay:prod,dev={bench.selected(bench.engine(poses_as='llamacpp'))}")

    result.assert_outcomes(passed=1)
    assert BYTES not in recording
    assert "base64,sha256:" in recording


@pytest.mark.slow
def test_golden_answers_stand_for_an_engine_that_saw_the_image(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    bench.gate(CHECKS)
    engines = [bench.engine(), bench.engine()]
    bench.run("--parity-update-golden=missing", engines=engines[:1])
    golden = (bench.pytester.path / "golden/prompts/a.jsonl").read_text("utf-8")
    assert golden.count("case-") == 20
    assert BYTES not in kept(bench)

    same = bench.run("--engines=golden:a", f"--engines=b={bench.selected(engines[1])}")
    (bench.pytester.path / "x.png").write_bytes(red_image() + b"\0")
    changed = bench.run("--engines=golden:a", f"--engines=b={bench.selected(engines[1])}")

    same.assert_outcomes(passed=1)
    assert "passed" not in changed.parseoutcomes()
