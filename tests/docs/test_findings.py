"""docs/findings.md is the page that docs/findings.py makes of runs, and what it names exists."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest

from pytest_llmparity.settings.configuration import parse_config
from tests.scripts import script

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "fixtures/findings"


@pytest.fixture(scope="module")
def findings() -> ModuleType:
    return script("docs/findings.py")


def test_the_page_is_the_one_the_script_makes_of_what_was_printed(findings: ModuleType) -> None:
    ran = findings.on_the_page()

    assert list(ran) == [finding.name for finding in findings.FINDINGS]
    assert findings.PAGE.read_text("utf-8") == findings.page(ran), "run: python docs/findings.py page"
    for name, each in ran.items():
        assert re.search(r"\d.*; \d+ \w+ \d{4}$", each.made), name


def test_every_finding_is_a_difference(findings: ModuleType) -> None:
    assert len(findings.FINDINGS) >= 10
    for name, ran in findings.on_the_page().items():
        rows = ran.rows
        assert {row.verdict for row in rows} & {"FAIL", "INCOMPARABLE", "INCONCLUSIVE", "failed"}, name
        assert all(row.cause for row in rows if row.verdict in ("FAIL", "failed")), name


def test_what_the_commands_name_exists(findings: ModuleType) -> None:
    engines = parse_config((SUITE / "llmparity.toml").read_text("utf-8"), source="llmparity.toml").engines
    for finding in findings.FINDINGS:
        tree = ast.parse((SUITE / finding.module).read_text("utf-8"))
        assert finding.test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert {*finding.engines} <= {*engines, *finding.models}
        for model in finding.models:
            assert (SUITE / f"Modelfile.{model}").is_file()


def test_prompts_are_those_that_the_script_makes() -> None:
    made = importlib.import_module("fixtures.findings.make_prompts")

    assert {path.stem for path in (SUITE / "prompts").glob("*.jsonl")} == set(made.SETS)
    for name in made.SETS:
        assert (SUITE / f"prompts/{name}.jsonl").read_text("utf-8") == made.text_of(name)
