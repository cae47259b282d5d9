"""Golden answers from the command line: made from a stored run, shown, compared, pruned."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.golden.records import set_of
from tests.plugin.warm_pytest import leave_out

if TYPE_CHECKING:
    from tests.cli.conftest import Shell

GATE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("tickets.jsonl", check.prompts(), check.text(margin=0.05), max_tokens=12)
def test_gate(parity_run): ...
"""
ALONE = "-p no:cacheprovider -p no:asyncio -p no:hypothesispytest"
"""What a pytest that a command starts does without: the last imports itself when a run ends."""
CASES = 12
"""So many answers of ten words that agree pass a margin of 5 %: that takes 59 words in a row without a fork."""
WORDS = " and nine words of which each counts as well"
PLUGINS = ("-p", "no:cacheprovider", "-p", "no:asyncio", *leave_out(), "-q")


def prompts(path: Path, count: int) -> None:
    rows = [{"id": f"case-{n}", "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(count)]
    (path / "tickets.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture(scope="module")
def gathered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that keeps the project of ``stored``: the first test gathers it, the others have copies."""
    return tmp_path_factory.mktemp("gathered") / "project"


@pytest.fixture
def stored(shell: Shell, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, gathered: Path) -> Shell:
    """A project whose store has a run of two engines, prod and dev, which answer alike."""
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    if not gathered.exists():
        prompts(shell.path, 8)
        (shell.path / "test_gate.py").write_text(GATE)
        run(shell, pytester)
        shutil.copytree(shell.path, gathered)
    shutil.copytree(gathered, shell.path, dirs_exist_ok=True)
    monkeypatch.chdir(shell.path)
    return shell


def run(
    shell: Shell, pytester: pytest.Pytester, *more: str, dev: str | None = None, tests: Sequence[str] | None = None
) -> pytest.RunResult:
    prod, other = shell.engine(poses_as="llamacpp"), shell.engine(answer=dev, poses_as="llamacpp")
    os.chdir(shell.path)
    engines = f"--engines=prod={prod.base_url},dev={other.base_url}"
    where = [shell.path] if tests is None else tests
    return pytester.runpytest_inprocess(*PLUGINS, f"--rootdir={shell.path}", engines, *more, *where)


def test_a_stored_run_becomes_golden_and_nobody_is_asked(stored: Shell) -> None:
    made = stored.run("golden", "from", "newest", "prod")
    again = stored.run("golden", "from", "newest", "prod")

    assert (made.code, made.out) == (0, "wrote golden/tickets/prod.jsonl: 8 new of 8 cases\n")
    assert again.out == "golden/tickets/prod.jsonl: nothing new\n"
    assert not (stored.path / "golden/tickets/dev.jsonl").exists()


def test_what_is_golden_is_shown(stored: Shell) -> None:
    stored.run("golden", "from", "newest")

    everything, one_engine = stored.run("golden", "show"), stored.run("golden", "show", "prod")
    case = stored.run("golden", "show", "prod", "--case", "case-3")

    first, *lines = everything.out.splitlines()
    assert first == "golden/tickets"
    assert [line.split()[0] for line in lines] == ["dev", "prod"]
    assert "8 cases recorded" in lines[1]
    assert "8 with a noise floor, logprobs, asked 4 at once with max_tokens 12" in lines[1]
    assert len(one_engine.out.splitlines()) == 2 + 8
    assert "prod, golden/tickets: case-3  (prompt " in case.out
    assert "main, cold, warm, parallel: ended by length, tokens: " in case.out


@pytest.mark.slow
def test_golden_answers_are_compared_with_a_run_and_with_each_other(stored: Shell, pytester: pytest.Pytester) -> None:
    stored.run("golden", "from", "newest", "prod")
    alike = stored.run("golden", "diff", "prod")
    run(stored, pytester, "--parity-fresh", dev="something else")
    stored.run("golden", "from", "newest", "dev")

    parted = stored.run("golden", "diff", "prod", "dev")

    assert alike.code == 0
    assert "8 cases alike, 0 answered otherwise" in alike.out
    assert parted.code == 1
    assert "  case-0\n    prod  " in parted.out
    assert "    dev   something else" in parted.out
    assert "0 cases alike, 8 answered otherwise" in parted.out


def test_prune_removes_what_the_tests_of_a_run_do_not_ask(stored: Shell, pytester: pytest.Pytester) -> None:
    stored.run("golden", "from", "newest")
    prompts(stored.path, 7)
    run(stored, pytester, "--parity-fresh")

    shown, kept = stored.run("golden", "prune", "--dry-run"), (stored.path / "golden/tickets/prod.jsonl").read_text()
    pruned, again = stored.run("golden", "prune"), stored.run("golden", "prune")

    assert "would remove from golden/tickets/prod.jsonl: case-7" in shown.out
    assert "case-7" in kept
    assert "removed from golden/tickets/dev.jsonl: case-7" in pruned.out
    assert "case-7" not in (stored.path / "golden/tickets/prod.jsonl").read_text()
    assert again.out.startswith("nothing to remove")


@pytest.mark.slow
def test_a_set_that_no_test_asks_is_told_and_removed_when_a_person_says_so(
    stored: Shell, pytester: pytest.Pytester
) -> None:
    stored.run("golden", "from", "newest")
    (stored.path / "tickets.jsonl").rename(stored.path / "mails.jsonl")
    (stored.path / "test_gate.py").write_text(GATE.replace("tickets", "mails"))
    told = run(stored, pytester, "--parity-fresh")

    left = stored.run("golden", "prune")
    there = (stored.path / "golden/tickets").exists()
    removed, again = stored.run("golden", "prune", "--sets"), stored.run("golden", "prune", "--sets")

    assert left.out.startswith("left golden/tickets (dev, prod): no test of run ")
    assert there
    assert removed.out == "removed golden/tickets (dev, prod): no test asks this set\n"
    assert not (stored.path / "golden/tickets").exists()
    assert again.out.startswith("nothing to remove")
    assert told.ret == 0


@pytest.mark.parametrize("variable", ["CI", "BUILD_NUMBER", "LLMPARITY_FROZEN"])
def test_golden_answers_do_not_change_where_nobody_would_look(
    stored: Shell, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "1")

    made, pruned, looked = (
        stored.run("golden", *verb) for verb in (("from", "newest"), ("prune",), ("prune", "--dry-run"))
    )

    assert (made.code, pruned.code, looked.code) == (4, 4, 0)
    assert variable in made.err
    assert not (stored.path / "golden").exists()
    if variable != "LLMPARITY_FROZEN":
        assert stored.run("golden", "from", "newest", "--in-ci").code == 0
        assert (stored.path / "golden/tickets/prod.jsonl").exists()


@pytest.mark.slow
def test_a_run_of_selected_tests_does_not_say_what_is_left_over(stored: Shell, pytester: pytest.Pytester) -> None:
    """Two tests ask one set in two ways, and only one of them runs, chosen by a word or by its name."""
    (stored.path / "test_gate.py").write_text(f"{GATE}\n{GATE.replace('12', '9').replace('test_gate', 'test_short')}")
    run(stored, pytester, "--parity-fresh")
    stored.run("golden", "from", "newest", "prod")
    file = stored.path / "golden/tickets/prod.jsonl"
    before = file.read_bytes()
    run(stored, pytester, "--parity-fresh", "-k=test_short")
    by_word = stored.run("golden", "prune")
    run(stored, pytester, "--parity-fresh", f"{stored.path}/test_gate.py::test_short", tests=())
    by_name = stored.run("golden", "prune")

    (stored.path / "sub").mkdir()
    shutil.copy(stored.path / "test_gate.py", stored.path / "sub/test_sub.py")
    shutil.copy(stored.path / "tickets.jsonl", stored.path / "sub")
    run(stored, pytester, "--parity-fresh", tests=[f"{stored.path}/sub"])
    by_folder = stored.run("golden", "prune")
    run(stored, pytester, "--parity-fresh", f"--ignore={stored.path}/sub")
    by_leaving_out = stored.run("golden", "prune")
    shutil.rmtree(stored.path / "sub")

    for pruned in (by_word, by_name, by_folder, by_leaving_out):
        assert pruned.code == 4
        assert (
            "ran selected tests only (-k, -m, --lf, --ignore, or a folder, file or test by its name; or a file could"
            in pruned.err
        )
    assert file.read_bytes() == before
    run(stored, pytester)
    assert stored.run("golden", "prune").out.startswith("nothing to remove")


@pytest.mark.slow
@pytest.mark.parametrize("named", [".", "", "/nowhere/at/all"])
def test_every_testpaths_that_pytest_takes_is_the_whole(stored: Shell, pytester: pytest.Pytester, named: str) -> None:
    stored.run("golden", "from", "newest")
    (stored.path / "pytest.ini").write_text(f"[pytest]\ntestpaths = {named}\n")

    ended = run(stored, pytester, "--parity-fresh")

    assert ended.ret == 0
    assert stored.run("golden", "prune").out.startswith("nothing to remove")


@pytest.mark.slow
def test_a_file_that_skips_itself_may_ask_what_is_golden(stored: Shell, pytester: pytest.Pytester) -> None:
    (stored.path / "test_other.py").write_text(f"import pytest\npytest.importorskip('no_such_module')\n{GATE}")
    run(stored, pytester, "--parity-fresh")

    pruned = stored.run("golden", "prune", "--sets")

    assert pruned.code == 4
    assert "or a file could not be collected" in pruned.err


@pytest.mark.slow
def test_an_answer_that_names_the_project_s_folder_is_not_written(stored: Shell, pytester: pytest.Pytester) -> None:
    run(stored, pytester, "--parity-fresh", dev=f"see {stored.path}")

    made = stored.run("golden", "from", "newest", "dev")

    assert made.code == 4
    assert "case case-0: its text names a folder of this machine" in made.err
    assert not (stored.path / "golden/tickets/dev.jsonl").exists()


def test_what_is_not_there_is_named(shell: Shell) -> None:
    nothing = shell.run("golden", "show", "prod").err
    assert "there are no golden answers of prod" in nothing
    assert "none" not in nothing
    assert "no run is stored in" in shell.run("golden", "from", "newest").err
    assert "no run is stored in" in shell.run("golden", "prune").err


def test_runs_and_engines_that_are_not_there_are_named(stored: Shell) -> None:
    other, engine = stored.run("golden", "from", "20260101-000000-0000"), stored.run("golden", "from", "newest", "vllm")

    assert (other.code, engine.code) == (4, 4)
    assert "there is no run 20260101-000000-0000 in " in other.err
    assert "asked no engine vllm; it asked prod, dev" in engine.err


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "a\x00b", ".", "golden/../x"])
def test_no_prompt_file_names_a_folder_elsewhere(name: str) -> None:
    assert not {"/", "\x00"} & set(set_of(name))
    assert not set_of(name).startswith(".")
