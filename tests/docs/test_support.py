"""The tables of what every kind can do: made from the code, resting on evidence that is there."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pytest_llmparity.settings.selection import KINDS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def support() -> Iterator[ModuleType]:
    """The script as a module, which reads tests and recordings at most once."""
    spec = importlib.util.spec_from_file_location("support", ROOT / "docs/support.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "support", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("page", ["README.md", "docs/engines.md"])
def test_the_table_is_the_one_the_code_makes(page: str, support: ModuleType) -> None:
    assert support.table(page) in (ROOT / page).read_text("utf-8"), "run: python docs/support.py"


def test_every_row_rests_on_tests_and_recordings_that_exist(support: ModuleType) -> None:
    *seen, contract, asked = (
        support.ENGINES.joinpath(f"test_{name}.py").read_text("utf-8")
        for name in ("live", "live_routes", "live_parts", "contract", "asked")
    )
    live, contract = "".join(seen), contract + asked
    recorded = set().union(*(support.recordings(kind) for kind in KINDS))

    for name, capability in support.CAPABILITIES.items():
        assert f"def {capability.live}(" in live, name
        assert f"def {capability.contract}(" in contract, name
        assert not capability.recordings or recorded & set(capability.recordings), name
    generic = support.ENGINES.joinpath("kinds/test_openai_live.py").read_text("utf-8")
    assert "def test_" in generic


def test_every_kind_has_its_column_and_its_evidence(support: ModuleType) -> None:
    assert set(support.ordered()) == set(KINDS)
    assert set(support.required_kinds()) <= set(support.live_kinds()) <= set(KINDS)
    for kind in KINDS:
        assert support.ways(kind), kind


def test_a_kind_without_evidence_is_said_to_be_documented_only(support: ModuleType) -> None:
    capability = support.CAPABILITIES["tool calls"]

    assert support.ways("tgi") == ["documented"]
    assert support.cell("tgi", capability) == "yes (documented)"
    assert support.cell("openai", capability) == support.PROBED


def test_every_kind_has_a_section_and_is_listed_with_a_link_to_it() -> None:
    text = (ROOT / "docs/engines.md").read_text("utf-8")

    assert set(re.findall(r"^## ([a-z-]+)$", text, re.MULTILINE)) == set(KINDS)
    assert all(f"| [`{kind}`](#{kind}) |" in text for kind in KINDS)
