"""The action for other repositories: its scripts run here as its steps run them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pytest_llmparity.testing import LoopbackEngine
from tests.doubles.github import TOKEN, GitHub

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / ".github/action"
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05), max_tokens=12)
def test_tickets(parity_run): ...
"""


class Job:
    """A job of a workflow: a project, and the variables that a runner gives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = [{"id": f"c{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(8)]
        (path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (path / "test_tickets.py").write_text(SUITE)
        (path / "pytest.ini").write_text("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
        (path / "event.json").write_text('{"pull_request": {"number": 7}}')
        left_out = ("LLMPARITY_", "GITHUB_", "CI", "PYTEST_")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        self.environ |= {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "o/r"}
        self.environ["GITHUB_EVENT_PATH"] = str(path / "event.json")

    def step(self, script: str, **variables: str) -> tuple[int, str]:
        """Run a script of the action, and return its exit code and what it printed."""
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / script)],
            cwd=self.path,
            env={**self.environ, **variables},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def run(self, **variables: str) -> tuple[int, str, dict[str, str]]:
        """Run the step that asks and judges, and return with what it printed what it put out."""
        outputs = self.path / "outputs"
        outputs.write_text("")
        places = {"GITHUB_OUTPUT": str(outputs), "GITHUB_STEP_SUMMARY": str(self.path / "summary")}
        code, printed = self.step("run.py", OUT=str(self.path / "out"), **places, **variables)
        return code, printed, dict(line.split("=", 1) for line in outputs.read_text().splitlines())


@pytest.fixture
def job(tmp_path: Path) -> Job:
    """A project of its own."""
    return Job(tmp_path)


@pytest.mark.slow
def test_a_run_is_summed_up_kept_and_told_once_in_the_pull_request(job: Job) -> None:
    with LoopbackEngine() as prod, LoopbackEngine(drift=0.3) as dev, GitHub() as github:
        engines = f"prod=openai:loopback@{prod.base_url},dev=openai:loopback@{dev.base_url}"
        code, printed, outputs = job.run(ENGINES=engines, ARGS="'test_tickets.py' --parity-explain-requests=0")
        assert code == 1, printed
        variables = {"GITHUB_TOKEN": TOKEN, "GITHUB_API_URL": github.url, "NAME": "cpu"}
        told = [
            job.step("comment.py", RUN=outputs["run"], CODE=outputs["code"], **variables),
            job.step("comment.py", RUN="", CODE="4", **variables),
        ]

    assert outputs["outcome"] == "FAIL"
    out = Path(outputs["report-path"])
    assert {p.name for p in out.iterdir()} == {"report.html", "summary.md", "run.json", "samples.jsonl", "junit.xml"}
    assert "### LLM parity: FAIL" in (job.path / "summary").read_text()
    assert told == [
        (0, "commented in pull request 7\n"),
        (0, "the comment in pull request 7 is up to date\n"),
    ]
    assert [method for method, _ in github.asked] == ["GET", "GET", "POST", "GET", "GET", "PATCH"]
    assert len(github.comments) == 1
    assert "pytest ended with exit code 4" in github.comments[0]["body"]
    assert TOKEN not in printed


@pytest.mark.slow
def test_a_mistake_ends_the_step_as_pytest_does(job: Job) -> None:
    code, printed, outputs = job.run(ARGS="--parity-inconclusive=maybe")

    assert (code, outputs["outcome"], outputs["run"]) == (4, "ERROR", ""), printed


@pytest.mark.parametrize(
    ("code", "report", "outcome", "decision"),
    [
        (2, {"run": "r", "verdicts": ["PASS", "INCONCLUSIVE"], "decisions": ["INCONCLUSIVE"]}, "INCONCLUSIVE", True),
        (0, {"run": "r", "verdicts": ["FAIL"], "decisions": ["SHIP"]}, "FAIL", True),
        (1, {"run": "r", "verdicts": ["FAIL"], "decisions": ["INCONCLUSIVE", "HOLD"]}, "FAIL", True),
        (2, {"run": "r", "verdicts": ["PASS"], "decisions": ["HOLD"]}, "ERROR", False),
        (4, {"run": "r", "verdicts": ["PASS"], "decisions": ["SHIP"]}, "ERROR", False),
        (2, {"run": "r", "verdicts": ["PASS"]}, "ERROR", False),
    ],
)
def test_a_decision_is_an_output_and_its_exit_code_a_judged_run(
    job: Job, code: int, report: dict[str, Any], outcome: str, decision: bool
) -> None:
    names = {name: [{"outcome": each} for each in report.get(name, ())] for name in ("verdicts", "decisions")}
    written = json.dumps({"run": report["run"], **names})
    (job.path / "pytest.py").write_text(
        f"import sys\nfrom pathlib import Path\n(Path('out') / 'run.json').write_text({written!r})\nsys.exit({code})\n"
    )
    (job.path / "out").mkdir()
    (job.path / "pytest_llmparity").mkdir()
    (job.path / "pytest_llmparity/__init__.py").touch()
    (job.path / "pytest_llmparity/__main__.py").write_text("import sys\nprint(sys.argv[1:])\n")

    ended, printed, outputs = job.run()
    variables = {"RUN": outputs["run"], "CODE": outputs["code"], "DECISION": outputs["decision"]}
    _, commented = job.step("comment.py", NAME="cpu", **variables)

    assert (ended, outputs["outcome"], bool(outputs["decision"])) == (code, outcome, decision), printed
    assert outputs["decision"] in ("", report.get("decisions", [""])[-1])
    assert ("--instead" in commented) is not decision


@pytest.mark.slow
@pytest.mark.parametrize(
    ("refuses", "last"),
    [
        ({"GET": 403}, "no comment: the token may not write one (GET"),
        ({"POST": 403}, "no comment: the token may not write one (POST"),
        ({"POST": 500}, "::warning::the comment in the pull request could not be written"),
    ],
)
def test_a_comment_that_cannot_be_written_fails_no_job(job: Job, refuses: dict[str, int], last: str) -> None:
    with GitHub(refuses=refuses) as github:
        code, printed = job.step(
            "comment.py", GITHUB_TOKEN=TOKEN, GITHUB_API_URL=github.url, NAME="cpu", RUN="", CODE="2"
        )

    assert code == 0
    assert last in printed
    assert TOKEN not in printed


@pytest.mark.slow
def test_without_a_pull_request_nothing_is_asked(job: Job) -> None:
    with GitHub() as github:
        (job.path / "event.json").write_text('{"ref": "refs/heads/main"}')
        code, printed = job.step(
            "comment.py", GITHUB_TOKEN=TOKEN, GITHUB_API_URL=github.url, NAME="cpu", RUN="", CODE="0"
        )

    assert (code, github.asked) == (0, [])
    assert printed.startswith("no comment: this is no workflow of a pull request")


def test_what_is_installed_is_this_action_with_its_extras(job: Job) -> None:
    (job.path / "pip").mkdir()
    (job.path / "pip/__init__.py").write_text("")
    (job.path / "pip/__main__.py").write_text("import sys\nprint(sys.argv[1:])\nsys.exit(3)\n")
    code, printed = job.step(
        "install.py", PACKAGE="/a ction", EXTRAS="llamacpp", REQUIREMENTS="-r 'my file.txt'", PYTHONPATH=str(job.path)
    )

    assert code == 3
    assert printed.splitlines()[-1].endswith("'/a ction[llamacpp]', '-r', 'my file.txt']")


def test_no_input_is_part_of_a_script_and_every_input_is_used() -> None:
    steps = ACTION["runs"]["steps"]
    scripts = [step["run"] for step in steps if "run" in step]

    assert all("${{" not in script for script in scripts)
    named = [name for script in scripts for name in re.findall(r"(\w+\.py)\"", script)]
    assert sorted(named) == sorted(path.name for path in SCRIPTS.glob("*.py"))
    text = yaml.safe_dump(ACTION["runs"])
    assert [name for name in ACTION["inputs"] if f"inputs.{name} " not in text and f"inputs.{name}\n" not in text] == []
    uses = [line for line in (ROOT / "action.yml").read_text("utf-8").splitlines() if "uses:" in line]
    assert all(re.search(r"@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line) for line in uses)
    assert len(uses) == 2
