from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.plugin.warm_pytest import modules_of_pytest
from tests.rewritten import rewrite_together


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two files with tests, whose byte code lies beside them."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    paths = [tmp_path / "test_a.py", tmp_path / "test_b.py"]
    for path in paths:
        path.write_text("def test_it():\n    assert 1\n")
    return paths


def test_each_file_is_rewritten_once(pytestconfig: pytest.Config, files: list[Path]) -> None:
    broken = files[0].with_name("test_broken.py")
    broken.write_text("def")

    first, second = (rewrite_together(pytestconfig, [*files, broken], part, 2) for part in (1, 0))

    assert (sorted(first), second) == (files, [])
    assert len(list(files[0].parent.glob("__pycache__/*pytest*.pyc"))) == 2


@pytest.mark.parametrize("name", ["get_cache_dir", "PYC_TAIL", "_rewrite_test", "_write_pyc", "assertstate_key"])
def test_a_pytest_with_other_names_inside_collects_without_it(
    pytestconfig: pytest.Config, files: list[Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delattr(f"_pytest.assertion.rewrite.{name}")

    assert rewrite_together(pytestconfig, files, 0, 1) == []


def test_a_pytest_whose_functions_give_something_else_collects_without_it(
    pytestconfig: pytest.Config, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("_pytest.assertion.rewrite._rewrite_test", lambda path, config: (1, 2, 3))

    assert rewrite_together(pytestconfig, files, 0, 1) == []


def test_a_pytest_without_that_module_collects_without_it(
    pytestconfig: pytest.Config, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("_pytest.assertion.rewrite")
    monkeypatch.setitem(sys.modules, "_pytest.assertion.rewrite", None)

    assert rewrite_together(pytestconfig, files, 0, 1) == []


def test_a_pytest_that_lists_its_plugins_elsewhere_is_forked_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    listed = modules_of_pytest()
    monkeypatch.delattr("_pytest.config.default_plugins")

    assert "_pytest.fixtures" in listed or "_pytest.python" in listed
    assert modules_of_pytest() == []
