"""A key that a server repeats in its answers, in every encoding, is in nothing that is written or said of a run."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.cli import main
from pytest_llmparity.report.workflow import comment
from pytest_llmparity.run.judge.recorded import stored
from pytest_llmparity.store.runs import Store
from pytest_llmparity.testing.script import Reply

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

KEY = 'sk-Live/"+7391?&=middle\\of-it/tail-Q8z'


def forms() -> dict[str, str]:
    return {
        "raw": KEY,
        "escaped": json.dumps(KEY)[1:-1],
        "twice": json.dumps(json.dumps(KEY)[1:-1])[1:-1],
        "quoted": urllib.parse.quote(KEY, safe=""),
        "base64": base64.b64encode(KEY.encode()).decode(),
        "basic": base64.b64encode(f"user:{KEY}".encode()).decode(),
    }


POLICY = "[[limit]]\ncheck = 'text'\nmargin = 0.04\n"


@pytest.fixture
def echoing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with an engine that repeats its key in every part of an answer to a prompt, and one that does not."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LIVE_KEY", KEY)
    monkeypatch.chdir(bench.pytester.path)

    def answer(request: Mapping[str, Any]) -> Reply:
        asked = str(request["messages"][-1]["content"])
        form = list(forms().values())[int(asked.split()[-1]) % len(forms())] if "question" in asked else "fine"
        call = ("tell", json.dumps({"told": f"sent {form}"}))
        return Reply(text=f"you sent {form} to me", reasoning=f"they sent {form}, so", tool_calls=[call])

    base, cand = bench.engine("an ordinary answer"), bench.engine(answer)
    bench.gate("check.prompts(), check.text(margin=0.05)")
    (bench.pytester.path / "release.toml").write_text(POLICY)
    bench.configure(
        f'[engines.base]\nkind = "openai"\nbase_url = "{base.base_url}"\nmodel = "{base.model}"\n'
        f'[engines.cand]\nkind = "openai"\nbase_url = "{cand.base_url}"\nmodel = "{cand.model}"\n'
        'api_key_env = "LIVE_KEY"\n'
    )


def leaked(text: str) -> list[str]:
    """Return the pieces of the key that a text has, in any encoding."""
    whole = [form[4:-6] for form in forms().values()]
    return [form[i : i + 8] for form in whole for i in range(len(form) - 8) if form[i : i + 8] in text]


@pytest.mark.parametrize("form", forms())
def test_pieces_of_every_form_would_be_seen(form: str) -> None:
    assert leaked(f"you sent {forms()[form]} to me")


def test_a_key_is_in_nothing_that_is_written_or_said(
    bench: Bench, echoing: None, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--parity-report=json,html,md", "--parity-out=out", "--parity-history=kept.jsonl", "--junitxml=junit.xml")

    result = bench.run("--engines=base,cand", "--parity-policy=release.toml", *words, "-vv")

    shown = result.stdout.str() + result.stderr.str()
    assert result.ret == 1
    capsys.readouterr()
    for command in (
        ("report",),
        ("gate", "--history"),
        ("gate", "--run", "newest", "--candidate", "cand", "--policy", "release.toml", "--json", "decision.json"),
        ("history",),
        ("golden", "from", "newest"),
        ("record", "cand", "--prompts", "prompts.jsonl", "--max-tokens", "12"),
    ):
        main(command)
        told = capsys.readouterr()
        shown += told.out + told.err
        if command[0] in ("golden", "record"):
            assert "is not written: " in told.err, command
            assert "case case-" in told.err, "the place is named"
    with Store.open(bench.pytester.path / ".llmparity") as store:
        (run,) = {info.id for info in store.runs()}
        whole = stored(store, run, root=bench.pytester.path)
        shown += comment.of_run(whole.record, whole.samples, name="cpu", root=bench.pytester.path, origin=whole.origin)
    assert "«LIVE_KEY»" in (bench.pytester.path / "out/report.html").read_text("utf-8")
    files = [path for path in bench.pytester.path.rglob("*") if path.is_file() and path.suffix != ".toml"]
    names = {path.name for path in files}
    assert {"decisions.jsonl", "decision.json", "kept.jsonl", "junit.xml", "run.json", "samples.jsonl"} <= names
    assert not [name for name in names if name in ("cand.jsonl", "llmparity.lock")]
    written = {path.name: path.read_bytes().decode("utf-8", "replace") for path in files}
    assert {name: pieces for name, text in written.items() if (pieces := leaked(text))} == {}
    assert leaked(shown) == []


@pytest.mark.usefixtures("warm_commands")
@pytest.mark.slow
def test_a_key_is_in_nothing_that_merged_shards_say(
    bench: Bench, echoing: None, capfd: pytest.CaptureFixture[str]
) -> None:
    for shard in ("1/2", "2/2"):
        bench.run("--engines=base,cand", f"--parity-shard={shard}")
    capfd.readouterr()

    code = main(["merge", "--", "--parity-report=json,html,md", "--parity-out=out"])

    told = capfd.readouterr()
    assert code == 1, told.err
    files = [path for path in bench.pytester.path.rglob("*") if path.is_file() and path.suffix != ".toml"]
    assert {"run.json", "summary.md", "report.html", "samples.sqlite"} <= {path.name for path in files}
    assert "«LIVE_KEY»" in (bench.pytester.path / "out/report.html").read_text("utf-8")
    written = {path.name: path.read_bytes().decode("utf-8", "replace") for path in files}
    assert {name: pieces for name, text in written.items() if (pieces := leaked(text))} == {}
    assert leaked(told.out + told.err) == []
