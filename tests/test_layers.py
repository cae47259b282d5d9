"""Imports point down, the core is pure, only the doors know pytest, modules stay small. Read from the source with ast.

The rules are those of the design: floor 0 ``core``, 1 ``settings``, 2 the outside world, 3 ``run``,
4 ``report``, 5 the doors.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "pytest_llmparity"
FLOORS = {
    "core": 0,
    "check": 0,
    "settings": 1,
    "engines": 2,
    "adapter": 2,
    "keeper": 2,
    "transport": 2,
    "store": 2,
    "golden": 2,
    "lockfile": 2,
    "embedding": 2,
    "extras": 2,
    "run": 3,
    "report": 4,
    "plugin": 5,
    "cli": 5,
    "__main__": 5,
    "testing": 5,
}
KNOWS_PYTEST = {"plugin"}
PURE = ("core", "run.plan", "run.course")
IMPURE = {
    *("aiohttp", "asyncio", "ctypes", "fcntl", "filelock", "ftplib", "getpass", "glob", "http", "httptools", "httpx"),
    *("httpx2", "importlib.resources", "io", "llama_cpp", "logging", "mmap", "multiprocessing", "openai", "os"),
    *("pkgutil", "platform", "psutil", "requests", "resource", "rich", "secrets", "select", "selectors"),
    *("shutil", "signal", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "termios", "threading", "time"),
    *("sentence_transformers", "urllib.request", "uuid", "xllamacpp"),
}
LEXICAL = {"basename", "commonpath", "commonprefix", "dirname", "isabs", "join", "normcase", "normpath", "sep", "split"}
"""What of ``os.path`` looks at the text of a path only."""
READING = {
    *("absolute", "chmod", "cwd", "exists", "expanduser", "glob", "home", "is_dir", "is_file", "is_symlink", "iterdir"),
    *("lstat", "mkdir", "open", "read_bytes", "read_text", "readlink", "rename", "resolve", "rglob", "rmdir"),
    *("samefile", "stat", "symlink_to", "touch", "unlink", "walk", "write_bytes", "write_text"),
}
"""Methods of ``pathlib.Path`` that ask the disk; looked for only in modules that import it."""
CLOCKS = {"now", "today", "utcnow"}
LONGEST = {"plugin": 249}
"""A package's own file, where it is a table of contents."""
LONGEST_ELSEWHERE = 500
FULLEST = 12
"""Files in one folder, without its ``__init__.py``; of more, some belong together and want a room inside."""
FULLER: dict[str, int] = {}
"""Folders that are fuller still, with the files they have. A number here may only fall."""
SAYS_NOTHING = {
    *("data", "found", "it", "much", "one", "res", "said", "that", "these", "thing", "this", "those", "tmp", "val"),
    "what",
}
"""Names of variables, parameters and functions that do not say what they hold or return."""
GIVEN = re.compile(rf"\b_*(?:{'|'.join(sorted(SAYS_NOTHING))})_*\b(?: *[=:,()\[\]*]| in\b| *$)", re.MULTILINE)
"""What follows such a word where it is the name of something, in code or else."""
NAMED_BY_FORMATS = {
    *("core/gate/flips.py:Flip.what", "core/identity/record.py:Turned.what", "core/prompts/entries.py:Sound.data"),
    *("core/verdict.py:Difference.what", "core/verdict.py:Lenience.what", "transport/exchange.py:Event.data"),
}
"""Fields with such a name that others read: in our reports, OpenAI's messages and event streams they are called so."""
ORDER = {
    "core": (
        *("errors", "late", "collecting", "sample", "sizes", "shards", "visits", "thinking", "stats", "compare"),
        *("verdict", "words", "ports", "identity", "prompts", "evidence", "history", "values", "right", "golden"),
        *("recording", "recorded", "diagnosis", "checks", "gate"),
    ),
    "engines": ("local", "facts", "start", "wire", "recognise", "daemons", "kinds", "played", "registry"),
    "run": (
        *("loop", "clients", "records", "parity", "application", "plan", "course", "ledger", "sending", "started"),
        *("probe", "locking", "fleet", "golden", "timed", "judge", "shards", "declare", "gather", "explain"),
        *("session", "ask", "recording", "calibrate", "doctor"),
    ),
}
"""What stands inside a room, its rooms and its own files, lowest first: each imports only what stands before it."""

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / PACKAGE).rglob("*.py"))
OUTSIDE = sorted(
    path for folder in ("tests", "benchmarks", "docs", "fixtures", ".ci") for path in (ROOT / folder).rglob("*.py")
)
"""What is ours beside the package."""


class Violation(NamedTuple):
    """One broken rule; reads as a compiler would say it."""

    file: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}"


class Import(NamedTuple):
    """A module that is imported, wherever the statement stands, and what is taken from it."""

    line: int
    module: str


@functools.cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return all that stands in a tree, as ``ast.walk`` does in three times the time, but for ``ctx``."""
    below = [tree]
    for node in below:
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                below += [each for each in value if isinstance(each, ast.AST)]
            elif isinstance(value, ast.AST) and name != "ctx":
                below.append(value)
    return tuple(below)


@functools.cache
def importing(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Return what may import in a tree: five tests ask, and look at a tenth of its nodes then."""
    return tuple(node for node in nodes(tree) if isinstance(node, (ast.Import, ast.ImportFrom, ast.Call)))


def imports(tree: ast.AST, module: str, *, is_package: bool = False) -> Iterator[Import]:
    """Yield every import: at the top, in functions, under ``if TYPE_CHECKING``, by ``import_module("…")``."""
    for node in importing(tree):
        if isinstance(node, ast.Import):
            yield from (Import(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + is_package]
                base = ".".join([*parents, *([base] if base else [])])
            # "from package import module" imports the module; a name that is none does no harm here.
            yield from (Import(node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield Import(node.lineno, node.args[0].value)


def room(module: str) -> str | None:
    """Return the part of the package a module lies in, ``None`` for foreign modules and the package itself."""
    parts = module.split(".")
    return parts[1] if parts[0] == PACKAGE and len(parts) > 1 else None


def within(module: str, names: set[str]) -> bool:
    """Whether a module is one of these or inside one."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def wrong_direction(module: str, tree: ast.AST, *, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """Yield imports that point up, and pytest below the doors."""
    own = room(module)
    for line, target in imports(tree, module, is_package=is_package):
        if within(target, {"_pytest"}):
            yield line, f"imports {target}: only pytest's public API"
        if within(target, {"pytest", "pluggy", "xdist"}) and own not in KNOWS_PYTEST:
            yield line, f"imports {target}: only plugin/ knows pytest"
        other = room(target)
        if own in FLOORS and other in FLOORS and FLOORS[other] > FLOORS[own]:
            yield line, f"floor {FLOORS[own]} imports {target} of floor {FLOORS[other]}: imports point down"
        if own == "transport" and other == "engines":
            yield line, f"imports {target}: transport knows no engine"


def impure(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield what a pure module must not do: I/O, clocks, HTTP."""
    if not within(module, {f"{PACKAGE}.{name}" for name in PURE}):
        return
    known = list(imports(tree, module))
    for line, target in known:
        if within(target, IMPURE) and not within(target, {"os.path", "os.PathLike"}):
            yield line, f"imports {target}: the core is pure, no I/O, no clock, no HTTP"
    paths = any(within(target, {"pathlib"}) for _, target in known)
    for node in nodes(tree):
        if isinstance(node, ast.Call):
            yield from forbidden_call(node, paths=paths)
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            if (owner == "os" and node.attr not in ("path", "PathLike")) or (
                owner == "os.path" and node.attr not in LEXICAL
            ):
                yield node.lineno, f"uses {owner}.{node.attr}: of os the core may use the text side of os.path only"


def forbidden_call(node: ast.Call, *, paths: bool) -> Iterator[tuple[int, str]]:
    """Yield what one call in a pure module does that it must not; ``paths``: the module knows ``pathlib``."""
    if isinstance(node.func, ast.Name) and node.func.id in ("open", "input", "print"):
        yield node.lineno, f"calls {node.func.id}: the core is pure"
    if isinstance(node.func, ast.Attribute):
        name, owner = node.func.attr, ast.unparse(node.func.value)
        # What a value of ours was handed to ask with (self.exists) is the caller's business.
        if paths and name in READING and owner not in ("os.path", "self"):
            yield node.lineno, f"calls {owner}.{name}: the core asks no disk"
        if name in CLOCKS and within(owner, {"datetime", "date"}):
            yield node.lineno, f"calls {owner}.{name}: the core has no clock"


def misplaced(module: str, source: str) -> Iterator[tuple[int, str]]:
    """Yield what is wrong with a module as a whole: no floor, a name that says nothing, too many lines."""
    own = room(module)
    if own is not None and own not in FLOORS:
        yield 1, f"{own} has no floor: give it one in {Path(__file__).name}"
    if module.rpartition(".")[2] in ("utils", "util", "helpers", "common"):
        yield 1, "a module is named after what it does; no utils.py"
    limit = LONGEST.get(module.removeprefix(f"{PACKAGE}."), LONGEST_ELSEWHERE)
    lines = len(source.splitlines())
    if lines > limit:
        yield limit + 1, f"{lines} lines, at most {limit}: what is the second file called?"


@functools.cache
def tree_of(path: Path) -> ast.Module:
    """Return what stands in a file."""
    return parsed(path.read_text("utf-8"))


@functools.cache
def parsed(source: str) -> ast.Module:
    """Return what stands in a source."""
    return ast.parse(source)


def module_of(path: Path) -> str:
    """Return the dotted name of a file's module."""
    name = path.relative_to(ROOT)
    return ".".join((name.parent if path.name == "__init__.py" else name.with_suffix("")).parts)


FILES_BY_MODULE = {module_of(path): path for path in FILES}


@functools.cache
def graph() -> dict[str, set[str]]:
    """Return the modules of the package that each one imports, wherever: in functions and for types only, too.

    What only types need is part of it on purpose: who reads one module of a circle has to read them all.
    """
    known = FILES_BY_MODULE
    return {
        module: {
            target if target in known else target.rpartition(".")[0]
            for _, target in imports(tree_of(path), module, is_package=path.name == "__init__.py")
            if target in known or target.rpartition(".")[0] in known
        }
        - {module}
        for module, path in known.items()
    }


def circles(edges: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """Return the largest sets of nodes in which each leads to each other."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        ahead = [start]
        while ahead:
            for node in edges.get(ahead.pop(), ()):
                if node not in seen:
                    seen.add(node)
                    ahead.append(node)
        return seen

    reach = {node: reached(node) for node in edges}
    return sorted(
        {tuple(sorted(o for o in reach[node] if node in reach.get(o, ()))) for node in edges if node in reach[node]}
    )


def place_of(module: str, within: str) -> str | None:
    """Return which part of a room a module lies in, ``None`` elsewhere and for the room's own ``__init__``."""
    parts = module.split(".")
    return parts[2] if parts[:2] == [PACKAGE, within] and len(parts) > 2 else None


def out_of_order(edges: Mapping[str, set[str]], within: str, order: Sequence[str]) -> Iterator[str]:
    """Yield the imports inside a room that lead from one of its parts to one that stands behind it."""
    for module, targets in edges.items():
        own = place_of(module, within)
        for target in targets:
            there = place_of(target, within)
            if own is not None and there is not None and order.index(there) > order.index(own):
                yield f"{module} imports {target}: in {within}/, {there} stands above {own}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    assert not circles(graph())


@pytest.mark.parametrize("within", ORDER)
def test_what_stands_inside_a_room_imports_what_stands_before_it(within: str) -> None:
    parts = {place for module in FILES_BY_MODULE if (place := place_of(module, within)) is not None}

    assert sorted(ORDER[within]) == sorted(parts), "every part of the room has its place in ORDER, once"
    assert not list(out_of_order(graph(), within, ORDER[within]))


@pytest.mark.parametrize(
    "within", sorted({path.relative_to(ROOT / PACKAGE).parts[0] for path in FILES} & FLOORS.keys())
)
def test_parts_of_a_room_import_each_other_in_no_circle(within: str) -> None:
    """In rooms that have no place in ORDER, too: there a folder and a file beside it may lead either way, not both."""
    edges: dict[str, set[str]] = {}
    for module, targets in graph().items():
        if (own := place_of(module, within)) is not None:
            others = {there for target in targets if (there := place_of(target, within)) is not None}
            edges.setdefault(own, set()).update(others - {own})

    assert not circles(edges)


def test_an_import_that_leads_up_inside_a_room_is_seen() -> None:
    edges = {
        f"{PACKAGE}.run.low": {f"{PACKAGE}.run.high.door", f"{PACKAGE}.core.x"},
        f"{PACKAGE}.run.high.door": {f"{PACKAGE}.run.low", f"{PACKAGE}.run.high"},
        f"{PACKAGE}.run": {f"{PACKAGE}.run.high"},
    }

    assert list(out_of_order(edges, "run", ("low", "high"))) == [
        f"{PACKAGE}.run.low imports {PACKAGE}.run.high.door: in run/, high stands above low"
    ]


def test_circles_are_seen() -> None:
    edges = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": {"e"}, "e": set(), "f": {"g"}, "g": {"f"}}

    assert circles(edges) == [("a", "b", "c"), ("f", "g")]


def test_no_room_is_too_full() -> None:
    rooms = [path.parent.relative_to(ROOT / PACKAGE).as_posix() for path in FILES if path.name != "__init__.py"]
    sizes = Counter(rooms)

    full = {folder: files for folder, files in sizes.items() if files > FULLER.get(folder, FULLEST)}
    assert not full, "a room inside would hold what belongs together"
    assert all(sizes[folder] > FULLEST for folder in FULLER), "take out of FULLER what is no longer too full"


def test_the_process_of_the_keeper_needs_the_standard_library_only() -> None:
    """Whatever it imports of ours counts with what that imports."""
    edges, needed = graph(), {f"{PACKAGE}.keeper.server"}
    while more := {target for module in needed for target in edges[module]} - needed:
        needed |= more

    foreign = {
        f"{module} imports {target}"
        for module in needed
        for _, target in imports(tree_of(FILES_BY_MODULE[module]), module)
        if target.split(".")[0] not in sys.stdlib_module_names | {PACKAGE}
    }
    assert f"{PACKAGE}.keeper.engines" in needed
    assert not foreign


def test_ray_is_known_in_one_place() -> None:
    """Whoever runs engines on this machine pays nothing for clusters."""
    known = {m for m, path in FILES_BY_MODULE.items() for _, t in imports(tree_of(path), m) if within(t, {"ray"})}

    assert known
    assert {module.rpartition(".")[0] for module in known} == {f"{PACKAGE}.run.gather.cluster"}


def test_variables_say_what_they_hold() -> None:
    empty, of_formats = [], set()
    for path in FILES:
        tree = tree_of(path)
        fields = {id(node): name for node, name in fields_in(tree, path.relative_to(ROOT / PACKAGE).as_posix())}
        for node in nodes(tree):
            if (name := name_given(node)).strip("_") not in SAYS_NOTHING:
                continue
            if fields.get(id(node)) in NAMED_BY_FORMATS:
                of_formats.add(fields[id(node)])
            else:
                empty.append(
                    f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {name} does not say what it holds"
                )

    for path in OUTSIDE:
        text = path.read_text("utf-8")
        if not GIVEN.search(text):
            continue  # to read five hundred files to the end takes seconds
        tree = ast.parse(text)
        drawing = {id(argument) for function in ast.walk(tree) for argument in drawn_from(function)}
        for node in ast.walk(tree):
            if id(node) not in drawing and (name := name_given(node)).strip("_") in SAYS_NOTHING:
                empty.append(
                    f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {name} does not say what it holds"
                )

    assert not empty, "\n".join(empty)
    assert of_formats == NAMED_BY_FORMATS, "take out of NAMED_BY_FORMATS what is no more"


def drawn_from(function: ast.AST) -> list[ast.arg]:
    """Return the argument of a property that examples are drawn from: Hypothesis calls it ``data``."""
    if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    given = any("given" in ast.unparse(decorator) for decorator in function.decorator_list)
    return [argument for argument in function.args.args if given and argument.arg == "data"]


def test_a_name_that_says_nothing_is_seen_wherever_it_is_given() -> None:
    source = (
        "def found(one, *said):\n    for data in one:\n        (this := data)\n"
        "    with data as tmp:\n        return [val for val in tmp]\nwhat.that = it\nkept: int = 1\n"
        "try:\n    pass\nexcept OSError as res:\n    pass\nmatch kept:\n    case [thing, *those]:\n        pass\n"
    )

    assert {name_given(node) for node in nodes(parsed(source))} - {""} == {
        *("data", "found", "kept", "one", "res", "said", "that", "thing", "this", "those", "tmp", "val")
    }


def fields_in(tree: ast.AST, file: str) -> Iterator[tuple[ast.AST, str]]:
    """Yield the names of fields of classes, and ``file:Class.field`` of each."""
    for node in nodes(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                yield statement.target, f"{file}:{node.name}.{statement.target.id}"


def name_given(node: ast.AST) -> str:
    """Return the name of a variable, a parameter or a function that a node gives, empty where it gives none."""
    if isinstance(node, ast.Name):
        return node.id if isinstance(node.ctx, ast.Store) else ""
    if isinstance(node, ast.Attribute):
        return node.attr if isinstance(node.ctx, ast.Store) else ""
    if isinstance(node, ast.arg):
        return node.arg
    named = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)
    return (node.name or "") if isinstance(node, named) else ""


def violations(source: str, module: str, *, file: str = "x.py", is_package: bool = False) -> list[Violation]:
    """Return every rule a module breaks, by line."""
    tree = parsed(source)
    broken = {*wrong_direction(module, tree, is_package=is_package), *impure(module, tree), *misplaced(module, source)}
    return [Violation(file, line, rule) for line, rule in sorted(broken)]


def test_every_module_keeps_to_the_plan() -> None:
    broken = [
        violation
        for path in FILES
        for violation in violations(
            path.read_text("utf-8"),
            module_of(path),
            file=path.relative_to(ROOT).as_posix(),
            is_package=path.name == "__init__.py",
        )
    ]

    assert not broken, "\n" + "\n".join(map(str, broken))


def test_there_is_something_to_read() -> None:
    assert {room(".".join(path.relative_to(ROOT).with_suffix("").parts)) for path in FILES} >= {"core", "run", "report"}


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        # direction
        ("core.sample", "import pytest_llmparity.store", "x.py:1: floor 0 imports pytest_llmparity.store of floor 2"),
        ("core.sample", "from pytest_llmparity import run", "floor 0 imports pytest_llmparity.run of floor 3"),
        (
            "store",
            "def f():\n    from .report import terminal",
            "x.py:2: floor 2 imports pytest_llmparity.report.terminal",
        ),
        ("run.gather", "from ..report.junit import properties", "floor 3 imports pytest_llmparity.report.junit"),
        ("report.html", "if TYPE_CHECKING:\n    from pytest_llmparity.plugin import x", "x.py:2: floor 4 imports"),
        ("engines.vllm", "import_module('pytest_llmparity.run.gather')", "floor 2 imports pytest_llmparity.run.gather"),
        ("engines.vllm", "importlib.import_module('pytest_llmparity.cli')", "floor 2 imports pytest_llmparity.cli"),
        ("transport.client", "from pytest_llmparity.engines import base", "transport knows no engine"),
        # pytest
        ("run.session", "import pytest", "only plugin/ knows pytest"),
        ("report.terminal", "def f():\n    import xdist.plugin", "x.py:2: imports xdist.plugin: only plugin/"),
        ("plugin", "from _pytest.config import Config", "only pytest's public API"),
        # purity
        ("core.config", "import os", "imports os: the core is pure"),
        ("core.config", "from os import environ", "imports os.environ: the core is pure"),
        ("core.config", "import os.path\nos.getcwd()", "x.py:2: uses os.getcwd"),
        ("core.config", "import os.path\nos.path.exists('x')", "x.py:2: uses os.path.exists"),
        ("core.stats.noise", "def f():\n    import time", "x.py:2: imports time: the core is pure"),
        ("core.prompts", "from pathlib import Path\nPath('x').read_text()", "x.py:2: calls Path('x').read_text"),
        ("core.prompts", "open('x')", "calls open"),
        ("core.verdict", "import datetime\ndatetime.datetime.now()", "x.py:2: calls datetime.datetime.now"),
        ("core.embed", "import urllib.request", "imports urllib.request"),
        ("core.embed", "import httpx", "imports httpx"),
        ("run.plan", "import sqlite3", "imports sqlite3"),
        # the module as a whole
        ("attic", "", "attic has no floor"),
        ("core.utils", "", "no utils.py"),
        ("core.big", "x = 1\n" * 501, "x.py:501: 501 lines, at most 500"),
        ("plugin", "x = 1\n" * 250, "x.py:250: 250 lines, at most 249"),
    ],
)
def test_a_broken_rule_is_named_with_file_and_line(module: str, source: str, expected: str) -> None:
    broken = [str(violation) for violation in violations(source, f"{PACKAGE}.{module}")]

    assert [text for text in broken if expected in text], broken


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.config", "import json, re, math\nfrom pathlib import Path\nPath('a') / 'b'\nos.path.join('a', 'b')"),
        ("core.config", "import os.path\nos.path.normpath('a')\nregistry.resolve(x)"),
        ("core.checks.drift.text", "from pytest_llmparity.core import explain\nfrom . import base\nimport timeit_like"),
        ("run.session", "import time\nfrom pytest_llmparity.store import Store\nfrom .plan import Plan"),
        ("report.terminal", "from pytest_llmparity.core import explain\nfrom pytest_llmparity.run.plan import Plan"),
        ("plugin", "import pytest\nfrom pytest_llmparity import check, store\nfrom .report import terminal"),
        ("testing.loopback", "import socket, os"),
        ("plugin.door", "import pytest, xdist"),
        ("plugin", "x = 1\n" * 249),
    ],
)
def test_what_the_rules_allow(module: str, source: str) -> None:
    assert violations(source, f"{PACKAGE}.{module}") == []


def test_a_relative_import_in_a_package_starts_there() -> None:
    source = "from . import keeper\nfrom .. import report"

    broken = violations(source, f"{PACKAGE}.run", is_package=True)

    assert [str(violation) for violation in broken] == [
        "x.py:2: floor 3 imports pytest_llmparity.report of floor 4: imports point down"
    ]
