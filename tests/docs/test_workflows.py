"""The workflows that users copy: what they call exists, with these options, and is pinned as ours are."""

from __future__ import annotations

import argparse
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_llmparity.cli import _parser
from pytest_llmparity.settings.selection import parse_engines
from pytest_llmparity.settings.sources import OPTIONS

ROOT = Path(__file__).parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
PINNED = re.compile(r"uses: (?P<action>[\w./-]+)@(?P<commit>[0-9a-f]{40}) # (?P<version>v\d+\.\d+\.\d+)")


def script() -> Any:
    spec = importlib.util.spec_from_file_location("workflows_of_the_docs", ROOT / "docs/workflows.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORKFLOWS: dict[str, tuple[str, str]] = script().workflows()
ON_GITHUB = [name for name, (kind, _) in WORKFLOWS.items() if kind == "workflow"]


def pins(text: str) -> set[tuple[str, ...]]:
    return {match.group("action", "commit", "version") for match in PINNED.finditer(text)}


def steps(name: str) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(WORKFLOWS[name][1])["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def commands() -> Iterator[list[str]]:
    """Yield every command of a shell on the page that is pytest's or ours, as words."""
    for name, (kind, text) in WORKFLOWS.items():
        content = yaml.safe_load(text)
        lines = content["parity"]["script"] if kind == "gitlab" else [step.get("run", "") for step in steps(name)]
        for line in "\n".join(lines).replace("||\n", "\n").splitlines():
            words = shlex.split(line.partition(" || ")[0].partition(" >> ")[0])
            if words and words[0] in ("pytest", "llmparity"):
                yield words


def of_pytest(words: list[str]) -> argparse.Namespace:
    """Parse the words by the plugin's own options and the few of pytest's that workflows give."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--engines", type=lambda text: parse_engines([text]))
    parser.add_argument("--junitxml")
    parser.add_argument("-n")
    parser.add_argument("paths", nargs="*")
    for option in OPTIONS:
        if option.metavar:
            parser.add_argument(option.flag, type=option.read)
        else:
            parser.add_argument(option.flag, action="store_true")
    return parser.parse_args([word.replace("$SHARD", "2") for word in words])


def test_the_page_has_a_workflow_for_each_purpose() -> None:
    assert sorted(WORKFLOWS) == [
        *(f".github/workflows/{name}.yml" for name in ("golden", "gpu", "parity", "release", "shards")),
        ".gitlab-ci.yml",
    ]


@pytest.mark.parametrize("name", ON_GITHUB)
def test_actions_are_pinned_by_the_hashes_of_our_own_workflows(name: str) -> None:
    ours = set[tuple[str, ...]]()
    for path in (*(ROOT / ".github/workflows").glob("*.yml"), ROOT / "action.yml"):
        ours |= pins(path.read_text("utf-8"))
    text = WORKFLOWS[name][1]

    assert pins(text) <= ours
    assert text.count("uses:") == len(PINNED.findall(text)) + text.count("uses: ORG/pytest-llmparity@COMMIT\n")


def test_snippets_of_other_pages_are_pinned_alike() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        text = page.read_text("utf-8")
        assert len(re.findall(r"uses: actions/", text)) == len(PINNED.findall(text)), page


@pytest.mark.parametrize("name", ON_GITHUB)
def test_no_workflow_may_more_than_its_jobs_say(name: str) -> None:
    workflow = yaml.safe_load(WORKFLOWS[name][1])

    assert workflow["permissions"] == {}
    assert all({"permissions", "timeout-minutes"} <= job.keys() for job in workflow["jobs"].values())


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_commands_have_options_that_there_are(words: list[str]) -> None:
    if words[0] == "pytest":
        of_pytest(words[1:])  # ends the process where it cannot be read
        return
    ours, behind = words[1:], list[str]()
    if "--" in ours:
        ours, behind = ours[: ours.index("--")], ours[ours.index("--") + 1 :]

    _parser().parse_args(ours)
    of_pytest(behind)


def test_every_purpose_has_commands_that_were_read() -> None:
    assert {(words[0], words[1]) for words in commands() if words[0] == "llmparity"} == {
        ("llmparity", verb) for verb in ("golden", "gate", "merge", "report")
    }
    assert sum(words[0] == "pytest" for words in commands()) == 3


@pytest.mark.parametrize("name", [name for name in ON_GITHUB if "ORG/pytest-llmparity@" in WORKFLOWS[name][1]])
def test_the_action_is_given_inputs_that_it_has(name: str) -> None:
    for step in steps(name):
        if step.get("uses", "").startswith("ORG/"):
            assert step["with"].keys() <= ACTION["inputs"].keys()
            of_pytest(["--engines", step["with"]["engines"], *shlex.split(step["with"]["args"])])


def test_the_tables_of_the_page_have_every_input_and_output() -> None:
    page = (ROOT / "docs/workflows.md").read_text("utf-8").partition("## The action")[2].partition("\n## ")[0]
    inputs, outputs = page.split("| output |")

    def named(table: str) -> set[str]:
        rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
        return {name for row in rows for name in re.findall(r"`([\w-]+)`", row)}

    assert named(inputs) == set(ACTION["inputs"])
    assert named(outputs) == set(ACTION["outputs"])


def test_the_script_writes_them_where_they_belong(tmp_path: Path) -> None:
    files = script().write(tmp_path)

    assert {kind: len(paths) for kind, paths in files.items()} == {"workflow": 5, "gitlab": 1}
    assert not re.search("uses: .*@COMMIT", (tmp_path / ".github/workflows/parity.yml").read_text())
