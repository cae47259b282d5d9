"""The page about the architecture is true: its walks lead from function to function."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def house() -> Iterator[ModuleType]:
    """The script as a module, which parses every file of the package at most once."""
    spec = importlib.util.spec_from_file_location("house", ROOT / "docs/house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "house", module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module


def test_lines_of_code_are_those_that_do_something(house: ModuleType) -> None:
    source = '"""Two\nlines."""\n\n# why\nX = 1  # so\n"""Said of X."""\n\n\ndef f() -> str:\n    return """a\nb"""\n'

    assert house.code_lines(source) == 4


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "pytest_llmparity/room").mkdir(parents=True)
    (tmp_path / "pytest_llmparity/door.py").write_text(
        "class Door:\n    def ask(self):\n        return make('stop')\n\n\ndef make(x):\n    return Thing(x)\n"
    )
    (tmp_path / "pytest_llmparity/room/things.py").write_text(
        "class Thing:\n    def __init__(self, x):\n        self.x = x\n\n\ndef stop(): ...\n\n\ndef later(): ...\n"
    )
    return tmp_path


WALK = """## a prompt → an answer

Some words, and then:

- `door.py:Door.ask` takes it → `door.py:make` makes something of it
  → `room/things.py:{thing}` → `room/things.py:stop`
{words} `room/things.py:later`

## Where is …?

- `door.py:not_a_hop`
"""


def test_a_walk_leads_from_function_to_function(house: ModuleType, checkout: Path) -> None:
    (walk,) = house.walks(WALK.format(thing="Thing.__init__", words="- *when it ends:*")).values()

    assert [str(hop) for hop in walk][1:3] == ["door.py:make", "room/things.py:Thing.__init__"]
    assert [hop.begins for hop in walk] == [True, False, False, False, True]
    assert list(house.untrue(walk, checkout)) == []


def test_what_a_walk_says_and_the_code_does_not_is_told(house: ModuleType, checkout: Path) -> None:
    (walk,) = house.walks(WALK.format(thing="Other", words="  →")).values()

    assert list(house.untrue(walk, checkout)) == [
        "room/things.py:Other: pytest_llmparity/room/things.py has no Other",
        "room/things.py:later: no function before it names later",
    ]


def test_the_walks_of_the_page_are_those_of_the_code(house: ModuleType) -> None:
    walks = house.walks((ROOT / "docs/architecture.md").read_text("utf-8"))

    assert [problem for walk in walks.values() for problem in house.untrue(walk, ROOT)] == []


def words_of(picture: str) -> tuple[set[str], list[int]]:
    """Return what a picture names, rooms and who imports whom, and its numbers of lines."""
    texts = [
        re.sub(r"about \d+", "", text.replace(",", ""))
        for text in re.findall(r"<(?:text|title)[^>]*>([^<]+)<", picture)
    ]
    return {text for text in texts if not text.isdigit()}, [int(text) for text in texts if text.isdigit()]


@pytest.mark.slow
def test_the_picture_is_of_this_house(house: ModuleType) -> None:
    """It is drawn anew when a room or an import changes; a few lines more make it no other house."""
    names, lines = words_of((ROOT / "docs/house.svg").read_text("utf-8"))
    names_now, lines_now = words_of(house.picture())

    assert names == names_now, "run: python docs/house.py picture"
    assert sum(lines) == pytest.approx(sum(lines_now), rel=0.05), "run: python docs/house.py picture"
