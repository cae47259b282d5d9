from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
PINNED = re.compile(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
"""By hash, with the version in words beside it, which is what the update bot reads and writes."""


WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_hash(path: Path) -> None:
    uses = [line.strip().removeprefix("- ") for line in path.read_text("utf-8").splitlines() if "uses:" in line]

    assert [line for line in uses if not PINNED.fullmatch(line)] == []


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_workflow_may_more_than_its_jobs_say(path: Path) -> None:
    workflow: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))

    assert workflow["permissions"] == {}
    assert [
        name for name, job in workflow["jobs"].items() if not {"permissions", "timeout-minutes"} <= job.keys()
    ] == []


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.name)
def test_every_file_is_yaml(path: Path) -> None:
    assert isinstance(yaml.safe_load(path.read_text("utf-8")), dict)


def test_forms_ask_for_what_shows_a_mistake() -> None:
    form = yaml.safe_load((GITHUB / "ISSUE_TEMPLATE/bug.yml").read_text("utf-8"))
    asked = {part["id"]: part["attributes"] for part in form["body"] if "id" in part}

    assert "llmparity doctor" in asked["doctor"]["description"]
    assert "run.json" in asked["run"]["description"]


def test_the_hooks_check_with_the_version_of_the_environment() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf-8"))
    packages = [
        name for repo in hooks["repos"] for hook in repo["hooks"] for name in hook.get("additional_dependencies", ())
    ]

    assert {repo["repo"] for repo in hooks["repos"]} == {"local"}
    assert all(re.fullmatch(r"[a-z-]+==[\d.]+", name) for name in packages), packages
