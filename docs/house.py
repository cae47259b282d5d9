"""Measures the house and draws it: lines and files per room, the walks of docs/architecture.md, docs/house.svg.

    python docs/house.py lines [CHECKOUT]
    python docs/house.py hops [CHECKOUT] [PAGE]
    python docs/house.py picture

A *room* is a folder of the package; ``run`` counts without ``run/gather``. A *walk* is a section of a page with arrows
in its title and functions in its text, each ``file.py:function``, in the order in which a value passes through them;
``hops`` says in how many files that is. Every function is named by one before it, but where something else comes for
the value later (a test that ends, a process that was written to): there a new *leg* of the walk begins, a new item of
its list.
"""

from __future__ import annotations

import ast
import functools
import io
import re
import sys
import tokenize
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
_LEG = re.compile(r"^- ", re.MULTILINE)
_HOP = re.compile(r"`(?P<file>[\w/]+\.py):(?P<function>[\w.]+)`")


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
            Hop(hop["file"], hop["function"], begins=place == 0)
            for leg in _LEG.split(text[title.end() : end].partition("\n#")[0])
            for place, hop in enumerate(_HOP.finditer(leg))
        ]
        for title, end in zip(titles, ends, strict=True)
    }


@functools.cache
def tree_of(file: Path) -> ast.Module:
    """Return what stands in a file."""
    return ast.parse(file.read_text("utf-8"))


@functools.cache
def body_of(hop: Hop, checkout: Path) -> ast.AST:
    """Return a hop's function or class. Raises ``LookupError`` where there is none of that name."""
    file = checkout / PACKAGE / hop.file
    if not file.is_file():
        raise LookupError(f"{hop}: there is no {PACKAGE}/{hop.file}")
    node: ast.AST = tree_of(file)
    for part in hop.function.split("."):
        inner = (
            child
            for child in ast.walk(node)
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and child.name == part
        )
        definition = next(inner, None)
        if definition is None:
            raise LookupError(f"{hop}: {PACKAGE}/{hop.file} has no {part}")
        node = definition
    return node


@functools.cache
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


# ---- the picture ---------------------------------------------------------------------------------------------------

CAPTIONS = {
    5: ("doors", "pytest and the command line"),
    4: ("report", "records in, text or files out"),
    3: ("run", "order and lifetimes"),
    2: ("outside world", "engines, processes, wire, disk"),
    1: ("settings", "what was asked for, by whom"),
    0: ("core", "no I/O, no clock, no network"),
}
FILLS = {5: "#f6d9a8", 4: "#f2c6a0", 3: "#e9b3a2", 2: "#c9d8c0", 1: "#d9d3ec", 0: "#b9d3e8"}
INKS = {5: "#a86f10", 4: "#a4561c", 3: "#9c3f2a", 2: "#47703a", 1: "#5a4a9c", 0: "#245a87"}
LEFT, INSIDE, RIGHT, ROOF = 200, 1010, 30, 118
GAP, AISLE = 8, 58
"""Between rooms beside each other, and between floors, where the arrows are."""
LEAST = 78
"""Width of a room that has next to no lines."""


@dataclass
class Box:
    """A room in the picture. ``parts`` are the rooms inside it with their lines."""

    name: str
    floor: int
    lines: int
    parts: dict[str, int]
    x: float = 0.0
    y: float = 0.0
    wide: float = 0.0
    high: float = 0.0


def floors() -> dict[str, int]:
    """Return the floor of each room, as tests/test_layers.py says."""
    for node in ast.parse((ROOT / "tests/test_layers.py").read_text("utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            known: dict[str, int] = ast.literal_eval(node.value)
            return known
    raise LookupError("tests/test_layers.py has no FLOORS")


def top_of(module: str) -> str:
    """Return the room on a floor that a module lies in."""
    return [*module.split("."), ""][1]


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every statement within a module or another statement; expressions hold none and are passed over."""
    for part in ("body", "orelse", "handlers", "finalbody", "cases"):
        for child in getattr(node, part, ()):
            yield child
            yield from statements(child)


def imports_of(file: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports, wherever in it."""
    for node in statements(tree_of(file)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith(f"{PACKAGE}."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == PACKAGE:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def about(number: int) -> int:
    """Round, so that the picture changes when the house does and not with every line."""
    return max(round(number, -2), 100)


def boxes() -> dict[str, Box]:
    """Return the rooms by name, without places."""
    known = floors()
    rooms: dict[str, Box] = {}
    for file in modules(ROOT):
        inside = file.relative_to(ROOT / PACKAGE).with_suffix("").parts
        if inside[0].startswith("__"):
            continue
        box = rooms.setdefault(inside[0], Box(inside[0], known[inside[0]], 0, {}))
        lines = len(file.read_text("utf-8").splitlines())
        box.lines += lines
        if len(inside) > 2:
            box.parts[inside[1]] = box.parts.get(inside[1], 0) + lines
    for box in rooms.values():
        box.lines = about(box.lines)
        box.parts = {name: about(lines) for name, lines in sorted(box.parts.items(), key=lambda part: -part[1])}
    return rooms


def arrows(rooms: Mapping[str, Box]) -> Counter[tuple[str, str]]:
    """Return how many imports lead from room to room."""
    counts: Counter[tuple[str, str]] = Counter()
    for file in modules(ROOT):
        own = file.relative_to(ROOT / PACKAGE).with_suffix("").parts[0]
        for target in imports_of(file):
            there = top_of(target)
            if own in rooms and there in rooms and own != there:
                counts[own, there] += 1
    return counts


def _scale(of_floor: Sequence[Box]) -> float:
    """Return how wide a line may be so that a floor's rooms fit beside each other."""
    small: set[str] = set()
    while True:
        large = [box for box in of_floor if box.name not in small]
        room = INSIDE - GAP * (len(of_floor) + 1) - LEAST * len(small)
        scale = room / sum(box.lines for box in large)
        too_small = {box.name for box in large if box.lines * scale < LEAST}
        if not too_small:
            return scale
        small |= too_small


def place(rooms: Mapping[str, Box]) -> float:
    """Give every room its place; return how high the picture is."""
    by_floor = {floor: [box for box in rooms.values() if box.floor == floor] for floor in CAPTIONS}
    scale = min(map(_scale, by_floor.values()))
    y = float(ROOF + 26)
    for floor in sorted(CAPTIONS, reverse=True):
        of_floor = sorted(by_floor[floor], key=lambda box: -box.lines)
        high = 96.0 if any(box.parts for box in of_floor) else 58.0
        wide = [max(LEAST, box.lines * scale) for box in of_floor]
        x = LEFT + (INSIDE - sum(wide) - GAP * (len(wide) - 1)) / 2
        for box, box.wide in zip(of_floor, wide, strict=True):
            box.x, box.y, box.high = x, y, high
            x += box.wide + GAP
        y += high + AISLE
    return y - AISLE + 50


def _text(x: float, y: float, words: str, size: int, *, ink: str = "#333", more: str = "") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{ink}"{more}>{words}</text>'


def _room(box: Box) -> Iterator[str]:
    """Yield the shapes of one room."""
    ink, fill = INKS[box.floor], FILLS[box.floor]
    yield f"<g><title>{box.name}: about {box.lines:,} lines</title>"
    yield (
        f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.wide:.0f}" height="{box.high:.0f}" rx="5" '
        f'fill="{fill}" stroke="{ink}" stroke-width="1.4"/>'
    )
    yield _text(box.x + 8, box.y + 20, box.name, 14 if len(box.name) < 9 else 13, ink=ink, more=' font-weight="600"')
    beside = box.wide > 150
    yield _text(
        box.x + (box.wide - 8 if beside else 8),
        box.y + (20 if beside else 36),
        f"{box.lines:,}",
        11,
        ink=ink,
        more=' text-anchor="end"' if beside else "",
    )
    x = box.x + 6
    own = max(box.lines - sum(box.parts.values()), 0)
    room = box.wide - 12 - 4 * len(box.parts)
    for name, lines in box.parts.items():
        wide = room * lines / (sum(box.parts.values()) + own)
        yield (
            f'<rect x="{x:.0f}" y="{box.y + 32:.0f}" width="{wide:.0f}" height="{box.high - 40:.0f}" rx="3" '
            f'fill="#fff" fill-opacity="0.6" stroke="{ink}" stroke-width="0.7"/>'
        )
        if wide >= 7.4 * len(name) + 6:
            yield _text(x + 5, box.y + 50, name, 12, ink=ink)
            yield _text(x + 5, box.y + 66, f"{lines:,}", 10, ink=ink)
        else:
            turned = f' transform="rotate(90 {x + wide / 2 - 4:.0f} {box.y + 38:.0f})"'
            yield _text(x + wide / 2 - 4, box.y + 38, name, 11, ink=ink, more=turned)
        x += wide + 4
    yield "</g>"


def _curves(rooms: Mapping[str, Box]) -> Iterator[str]:
    """Yield the arrows: from the bottom of a room to the top of one below, or under the floor to one beside it."""
    counts = arrows(rooms)

    def port(name: str, other: str, others: Sequence[str]) -> float:
        ordered = sorted(others, key=lambda room: (rooms[room].x + rooms[room].wide / 2, room))
        box = rooms[name]
        return box.x + box.wide * (ordered.index(other) + 1) / (len(ordered) + 1)

    for (own, there), count in sorted(counts.items()):
        a, b = rooms[own], rooms[there]
        x1, y1 = port(own, there, [to for of, to in counts if of == own]), a.y + a.high
        beside = a.floor == b.floor
        sources = [of for of, to in counts if to == there and (rooms[of].floor == b.floor) == beside]
        x2, y2 = port(there, own, sources), b.y + b.high if beside else b.y
        bend = 34.0 if beside else min((y2 - y1) / 2 + 10, 90.0)
        turn = y2 + bend if beside else y2 - bend
        width = 1.0 if count < 5 else 2.0 if count < 20 else 3.2
        yield (
            f'<path d="M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {turn:.0f} {x2:.0f} {y2:.0f}" '
            f'fill="none" stroke="{INKS[a.floor]}" stroke-width="{width}" stroke-opacity="0.6" '
            f'marker-end="url(#to{a.floor})"><title>{own} imports {there}</title></path>'
        )


def picture() -> str:
    """Return the house as SVG: rooms as wide as they have lines, arrows along imports."""
    rooms = boxes()
    high = place(rooms)
    wide, ground = LEFT + INSIDE + RIGHT, high - 34
    shown = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high:.0f}" width="{wide}" height="{high:.0f}" '
        'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">',
        "<title>The rooms of pytest-llmparity, their floors, and who imports whom</title>",
        "<!-- made by docs/house.py picture: edit nothing here -->",
        f'<rect width="{wide}" height="{high:.0f}" fill="#fffdf8"/>',
        "<defs>",
        *(
            f'<marker id="to{floor}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'markerUnits="userSpaceOnUse" orient="auto"><path d="M0 0L8 4L0 8z" fill="{ink}"/></marker>'
            for floor, ink in INKS.items()
        ),
        "</defs>",
        f'<polygon points="{LEFT - 24},{ROOF} {LEFT + INSIDE / 2:.0f},14 {LEFT + INSIDE + 24},{ROOF}" fill="#8c4a3a"/>',
        _text(
            LEFT + INSIDE / 2, 74, "pytest-llmparity", 24, ink="#fff", more=' text-anchor="middle" font-weight="600"'
        ),
        _text(
            LEFT + INSIDE / 2,
            98,
            "a room is as wide as it has lines, arrows lead to what is imported, thick ones are many imports",
            12,
            ink="#f4ddd2",
            more=' text-anchor="middle"',
        ),
        f'<rect x="{LEFT}" y="{ROOF}" width="{INSIDE}" height="{ground - ROOF:.0f}" fill="#fbf3e4" stroke="#8c4a3a" '
        'stroke-width="3"/>',
        f'<line x1="0" y1="{ground:.0f}" x2="{wide}" y2="{ground:.0f}" stroke="#6f8f5a" stroke-width="5"/>',
    ]
    for floor, (name, words) in CAPTIONS.items():
        box = next(box for box in rooms.values() if box.floor == floor)
        if floor:
            beam = box.y + box.high + AISLE - 8
            shown.append(
                f'<line x1="{LEFT}" y1="{beam:.0f}" x2="{LEFT + INSIDE}" y2="{beam:.0f}" stroke="#d9c3a5" '
                'stroke-width="2"/>'
            )
        middle = box.y + box.high / 2
        end = ' text-anchor="end"'
        shown.append(
            _text(LEFT - 14, middle - 4, f"{floor} · {name}", 15, ink=INKS[floor], more=f'{end} font-weight="600"')
        )
        shown.append(_text(LEFT - 14, middle + 13, words, 11, ink="#665", more=end))
    shown += _curves(rooms)
    shown += [shape for box in rooms.values() for shape in _room(box)]
    return "\n".join([*shown, "</svg>"]) + "\n"


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
    if verb == "picture":
        (ROOT / PICTURE).write_text(picture(), "utf-8")
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
