"""The page of statistics says what its script makes of the recordings; tests of draws hold the dear tables."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
RUN = "run: python docs/measured.py"


@pytest.fixture(scope="module")
def measured() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("measured", ROOT / "docs/measured.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize("name", ["whole", "kinds"])
def test_tables_of_whole_sets_are_what_the_recordings_give(measured: ModuleType, name: str) -> None:
    assert measured.section(name) == measured.TABLES[name](), RUN


def test_every_table_is_there_and_the_picture_is_drawn_from_it(measured: ModuleType) -> None:
    for name in measured.TABLES:
        assert measured.section(name).count("\n") > 3, f"{name}; {RUN}"
    assert measured.PICTURE.read_text("utf-8") == measured.picture(), RUN
