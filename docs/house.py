"""Measures the house and draws it: lines and files per room, the walks of docs/architecture.md, docs/house.svg.

    python docs/house.py lines [CHECKOUT]
    python docs/house.py hops [CHECKOUT] [PAGE]
    python docs/house.py picture

A *room* is a folder of the package; ``run`` counts without ``run/gather``. A *walk* is a list of functions in a page,
each ``file.py:function``, in the order in which a value passes through them; ``hops`` says in how many files it is.
Every function but the first is named by one before it. Where something else comes for the value later (a test that
ends, a process that was written to), a new *leg* of the walk begins: its line has words before the function.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "pytest_llmparity"
PAGE = "docs/architecture.md"
PICTURE = "docs/house.svg"
SILENT = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING),
    tokenize.ENDMARKER,
}
"""Tokens that make no line one of code."""

# ---- lines -----------------------------------------------------------------------------------------------------------


@dataclass
class Size:
    """How much stands in a room."""

    files: int = 0
    code: int = 0
    lines: int = 0


def modules(checkout: Path) -> list[Path]:
    """Return every file of a checkout's package, by name."""
    return sorted((checkout / PACKAGE).rglob("*.py"))


def room_of(file: Path, checkout: Path) -> str:
    """Return the folder of the package a file lies in, ``(top)`` for the package's own."""
    folder = file.relative_to(checkout / PACKAGE).parent.as_posix()
    return "(top)" if folder == "." else folder


def code_lines(source: str) -> int:
    """Count the lines that hold code: neither blank nor comment nor part of a docstring."""
    held = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in SILENT:
            held |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        # A text that stands for itself is a docstring, or one of a name above it.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            held -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(held)


def sizes(checkout: Path) -> dict[str, Size]:
    """Return what stands in each room."""
    rooms: dict[str, Size] = defaultdict(Size)
    for file in modules(checkout):
        source = file.read_text("utf-8")
        size = rooms[room_of(file, checkout)]
        size.files += 1
        size.code += code_lines(source)
        size.lines += len(source.splitlines())
    return dict(sorted(rooms.items()))


# ---- walks -----------------------------------------------------------------------------------------------------------

_WALK = re.compile(r"^#+ (.+ → .+)$", re.MULTILINE)
_HOP = re.compile(r"^(?:\d+\.|-) (?P<later>[^`\n]*)`(?P<file>[\w/]+\.py):(?P<function>[\w.]+)`", re.MULTILINE)


@dataclass(frozen=True)
class Hop:
    """One function a value passes through; ``begins`` a leg of the walk."""

    file: str
    function: str
    begins: bool

    @property
    def name(self) -> str:
        """What another function calls it: a class by its own name, whose ``__init__`` makes it."""
        parts = [part for part in self.function.split(".") if part not in ("__init__", "__call__")]
        return parts[-1]

    def __str__(self) -> str:
        return f"{self.file}:{self.function}"


def walks(text: str) -> dict[str, list[Hop]]:
    """Return the walks of a page by their titles."""
    titles = list(_WALK.finditer(text))
    ends = [*(title.start() for title in titles), len(text)][1:]
    return {
        title[1]: [
            Hop(hop["file"], hop["function"], begins=place == 0 or bool(hop["later"].strip()))
            for place, hop in enumerate(_HOP.finditer(text[title.end() : end].partition("\n#")[0]))
        ]
        for title, end in zip(titles, ends, strict=True)
    }


def body_of(hop: Hop, checkout: Path) -> ast.AST:
    """Return a hop's function or class. Raises ``LookupError`` where there is none of that name."""
    file = checkout / PACKAGE / hop.file
    if not file.is_file():
        raise LookupError(f"{hop}: there is no {PACKAGE}/{hop.file}")
    node: ast.AST = ast.parse(file.read_text("utf-8"))
    for part in hop.function.split("."):
        inner = (
            child
            for child in ast.walk(node)
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and child.name == part
        )
        found = next(inner, None)
        if found is None:
            raise LookupError(f"{hop}: {PACKAGE}/{hop.file} has no {part}")
        node = found
    return node


def named_in(node: ast.AST) -> set[str]:
    """Return every name a function uses: variables, attributes, and texts that are one word, as messages have them."""
    return {
        child.id if isinstance(child, ast.Name) else child.attr if isinstance(child, ast.Attribute) else child.value
        for child in ast.walk(node)
        if isinstance(child, (ast.Name, ast.Attribute))
        or (isinstance(child, ast.Constant) and isinstance(child.value, str) and child.value.isidentifier())
    }


def untrue(walk: Sequence[Hop], checkout: Path) -> Iterator[str]:
    """Yield what a walk says that the code does not: functions that are not there, or that nobody before names."""
    before: list[Hop] = []
    for hop in walk:
        try:
            body_of(hop, checkout)
        except LookupError as error:
            yield str(error)
            continue
        if not hop.begins and not any(hop.name in named_in(body_of(earlier, checkout)) for earlier in before):
            yield f"{hop}: no function before it names {hop.name}"
        before.append(hop)


# ---- the command -----------------------------------------------------------------------------------------------------


def print_lines(checkout: Path) -> None:
    """Print a table of rooms: files, lines of code, all lines."""
    rooms = sizes(checkout)
    print(f"{'room':24}{'files':>7}{'code':>8}{'lines':>8}")
    for room, size in rooms.items():
        print(f"{room:24}{size.files:>7}{size.code:>8}{size.lines:>8}")
    every = rooms.values()
    total = [sum(size.files for size in every), sum(size.code for size in every), sum(size.lines for size in every)]
    print(f"{'all':24}{total[0]:>7}{total[1]:>8}{total[2]:>8}")


def print_hops(checkout: Path, page: Path) -> int:
    """Print how long each walk of a page is, and what of it is not true; return how much that is."""
    wrong = 0
    for title, walk in walks(page.read_text("utf-8")).items():
        print(f"{title}: {len({hop.file for hop in walk})} files, {len(walk)} functions")
        for problem in untrue(walk, checkout):
            wrong += 1
            print(f"  {problem}")
    return wrong


def main(words: Sequence[str]) -> int:
    """Do what the command line says."""
    verb, *rest = words or ["lines"]
    checkout = Path(rest[0]) if rest else ROOT
    if verb == "lines":
        print_lines(checkout)
        return 0
    if verb == "hops":
        return min(print_hops(checkout, Path(rest[1]) if len(rest) > 1 else checkout / PAGE), 1)
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
