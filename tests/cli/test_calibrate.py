from __future__ import annotations

import datetime
import json
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import lockfile
from pytest_llmparity.core.identity.lock import NAME
from pytest_llmparity.testing import Reply
from tests.doubles.abilities import Abilities

if TYPE_CHECKING:
    from tests.cli.conftest import Shell
    from tests.doubles.posing import PosingEngine

Configured = Callable[..., str]


def speaking(lead: float, text: str = "all is well in the harbour") -> Callable[[Mapping[str, Any]], Reply]:
    """Return what answers everything alike, each token so far before the second best."""
    return lambda request: Reply(text=text, lead=lead)


def engine(shell: Shell, lead: float, **kwargs: Any) -> PosingEngine:
    return shell.engine(answer=speaking(lead), poses_as="llamacpp", **{"quantization": "F16", **kwargs})


@pytest.fixture
def pair(shell: Shell, configured: Configured) -> tuple[PosingEngine, PosingEngine]:
    """Two engines of a project that are 0.04 nats apart."""
    engines = engine(shell, 2.0), engine(shell, 2.04, quantization="Q8_0")
    shell.configure('baseline = "dev"\n' + configured(prod=engines[0], dev=engines[1]))
    return engines


@pytest.mark.usefixtures("pair")
def test_a_pair_is_measured_shown_and_written(shell: Shell) -> None:
    ended = shell.run("calibrate", "prod", "dev")

    assert (ended.code, ended.err) == (0, "")
    assert "x shift   0.04 nats, between 0.04 nats and 0.04 nats" in ended.out
    assert "F floor   0 nats: prod against itself" in ended.out
    assert ended.out.endswith(f"wrote {shell.path / NAME}; commit it, and check.logprobs() holds dev to it\n")
    table = tomllib.loads((shell.path / NAME).read_text())["margins"]["prod"]["dev"]
    assert (table["shift"], table["prompts"], table["groups"]) == (0.06, 32, 32)
    assert isinstance(table["accepted"], datetime.date)
    assert table["baseline"]["quantization"] == "F16"
    assert table["candidate"]["quantization"] == "Q8_0"
    assert "127.0.0.1" not in (shell.path / NAME).read_text()
    assert not (shell.path / ".llmparity/samples.sqlite").exists(), "it is no run to replay"


@pytest.mark.slow
@pytest.mark.usefixtures("pair")
def test_a_dry_run_shows_it_and_writes_nothing(shell: Shell) -> None:
    ended = shell.run("calibrate", "prod", "dev", "--dry-run")

    assert ended.code == 0
    assert "M margin  0.06 nats" in ended.out
    assert not (shell.path / NAME).exists()


@pytest.mark.slow
@pytest.mark.usefixtures("pair")
def test_what_else_stands_in_the_lock_stays(shell: Shell) -> None:
    shell.run("lock")
    engines = lockfile.read(shell.path / NAME)

    shell.run("calibrate", "prod", "dev")
    shell.run("calibrate", "dev", "prod")

    assert lockfile.read(shell.path / NAME) == engines
    assert [margin.baseline for margin in lockfile.agreed(shell.path / NAME).margins] == ["dev", "prod"]
    shell.run("lock")
    assert len(lockfile.agreed(shell.path / NAME).margins) == 2


@pytest.mark.usefixtures("pair")
@pytest.mark.parametrize("named", [(), ("prod",), ("prod", "dev", "http://127.0.0.1:1")])
def test_two_engines_are_named(shell: Shell, named: tuple[str, ...]) -> None:
    ended = shell.run("calibrate", *named)

    assert ended.code == 4
    assert f"takes two engines, not {len(named)}; write: llmparity calibrate BASELINE CANDIDATE" in ended.err


@pytest.mark.parametrize(("words", "by"), [(("x", "x"), "ENGINE"), (("--engines", "x,x"), "--engines")])
def test_two_engines_of_one_name_are_told_as_they_were_given(shell: Shell, words: tuple[str, ...], by: str) -> None:
    ended = shell.run("calibrate", *words)

    assert ended.code == 4
    assert ended.err.startswith(f"llmparity: {by}: 'x' and 'x' are both named 'x'; put another name before one of")


@pytest.mark.usefixtures("pair")
def test_a_small_prompt_set_is_refused_before_anybody_is_asked(shell: Shell, pair: tuple[PosingEngine, ...]) -> None:
    (shell.path / "few.jsonl").write_text("\n".join(f'{{"id": "c{n}", "prompt": "say {n}"}}' for n in range(23)))

    ended = shell.run("calibrate", "prod", "dev", "--prompts", "few.jsonl")

    assert (ended.code, ended.err) == (4, "llmparity: few.jsonl has 23 groups of prompts; a margin takes 24 or more\n")
    assert [each.count for each in pair] == [0, 0]


@pytest.mark.slow
def test_engines_without_logprobs_have_no_margin(shell: Shell, configured: Configured) -> None:
    shell.configure(
        configured(prod=engine(shell, 2.0), dev=engine(shell, 2.0, abilities=Abilities(logprobs="refused")))
    )

    ended = shell.run("calibrate", "prod", "dev")

    assert ended.code == 4
    assert "dev" in ended.err
    assert "logprobs" in ended.err
    assert not (shell.path / NAME).exists()


def test_an_engine_that_is_not_there_is_said(shell: Shell, configured: Configured) -> None:
    gone = engine(shell, 2.0)
    shell.configure(configured(prod=engine(shell, 2.0), dev=gone).replace(gone.base_url, "http://127.0.0.1:1"))

    ended = shell.run("calibrate", "prod", "dev")

    assert ended.code == 4
    assert "dev" in ended.err


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (("--ladder", "none.gguf"), "there is no file"),
        (("--ladder", "none.gguf", "prod"), "--ladder takes a file and no engines"),
        (("--ladder", "{models}/tiny-Q4_0.gguf"), "the weights of tiny-Q4_0.gguf are Q4_0"),
        (("--ladder", "{models}/tiny-F16.gguf", "--quantize", "nowhere-quantize"), "there is no program nowhere-"),
        (("--ladder", "{models}/tiny-F16.gguf", "--types", "F16"), "no copy can be made as F16"),
        (("--ladder", "{models}/tiny-F16.gguf", "--copies", "nowhere"), "--copies: there is no folder nowhere"),
    ],
)
def test_what_a_ladder_cannot_be_made_of_is_said(shell: Shell, argv: tuple[str, ...], told: str) -> None:
    models = Path(__file__).parents[2] / "fixtures/models/tiny"

    ended = shell.run("calibrate", *(word.format(models=models) for word in argv))

    assert ended.code == 4
    assert told in ended.err


@pytest.mark.slow
@pytest.mark.usefixtures("pair")
def test_golden_answers_are_measured_on_prompts_that_they_answer(
    shell: Shell, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written is found by the name the golden was recorded by; other prompts name the sets that do."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    rows = [{"id": f"q{n}", "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(24)]
    (shell.path / "tickets.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (shell.path / "test_gate.py").write_text(
        "import pytest\nfrom pytest_llmparity import check\n"
        '@pytest.mark.parity("tickets.jsonl", check.logprobs(shift=1), max_tokens=32)\n'
        "def test_gate(parity_run): ...\n"
    )
    os.chdir(shell.path)
    recorded = ["--engines=prod", "--parity-update-golden=missing", f"--rootdir={shell.path}"]
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio", *recorded, shell.path)

    other = shell.run("calibrate", "golden:prod", "dev")
    measured = shell.run("calibrate", "golden:prod", "dev", "--prompts", "tickets.jsonl")

    assert other.code != 0
    assert (
        "there is no golden/calibration/prod.jsonl; measure with a prompt file that prod has golden answers to, "
        "of 32 tokens: --prompts FILE (there are those of: tickets)"
    ) in other.err
    assert (measured.code, measured.err) == (0, "")
    assert list(tomllib.loads((shell.path / NAME).read_text())["margins"]["prod"]) == ["dev"]
