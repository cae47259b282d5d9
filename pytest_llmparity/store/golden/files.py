"""Golden files read and written: lines in the order of their ids, equal ones to the byte, each file in one step.

A file may be anybody's: sizes, depths and types are looked at before anything is used, and no name leads out of the
folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from pytest_llmparity.core.errors import GoldenError
from pytest_llmparity.core.golden.records import FORMAT, Golden, Key, Line, LogprobsLine, Provenance
from pytest_llmparity.core.words.printable import elide, printable
from pytest_llmparity.settings.specification import GOLDEN as FOLDER
from pytest_llmparity.store import lines
from pytest_llmparity.store.whole import replace

_ENGINE: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SET: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_ANSWERS, _LOGPROBS = ".jsonl", ".logprobs.jsonl"

L = TypeVar("L", Line, LogprobsLine)
D = TypeVar("D")


def place(root: Path, prompt_set: str, engine: str, *, logprobs: bool = False) -> Path:
    """Return the path of a golden file; ``GoldenError`` for a name that leads anywhere else than into the folder."""
    for name, allowed, noun in ((prompt_set, _SET, "set"), (engine, _ENGINE, "engine")):
        if not allowed.fullmatch(name) or name.endswith(".logprobs"):
            shown = elide(printable(name), 60)
            raise GoldenError(f"{shown!r} can be no name of a golden {noun}: it would be part of a file's name")
    folder = root / FOLDER
    path = folder / prompt_set / f"{engine}{_LOGPROBS if logprobs else _ANSWERS}"
    if not path.resolve().is_relative_to(folder.resolve()):
        raise GoldenError(f"{named(root, path)} leads out of {FOLDER}/ by a symbolic link; put the file itself there")
    return path


def named(root: Path, path: Path) -> str:
    """Return a golden file as messages name it: from the project's root."""
    return printable(path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name)


def listing(root: Path) -> dict[str, list[str]]:
    """Return the sets of every engine that has a golden, both in order of their names."""
    by_engine: dict[str, list[str]] = {}
    folder = root / FOLDER
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
        for entry in entries:
            for path in sorted(entry.glob(f"*{_ANSWERS}")):
                name = path.name.removesuffix(_ANSWERS)
                if _SET.fullmatch(entry.name) and _ENGINE.fullmatch(name) and not name.endswith(".logprobs"):
                    by_engine.setdefault(name, []).append(entry.name)
    except OSError as error:
        raise GoldenError(f"{FOLDER}/ cannot be read: {error.strerror}") from error
    return dict(sorted(by_engine.items()))


def fingerprint(root: Path, engine: str) -> dict[str, tuple[int, int]]:
    """Return what changes with the files of an engine's golden: sizes and times of change by name."""
    state = {}
    for prompt_set in listing(root).get(engine, ()):
        for logprobs in (False, True):
            path = place(root, prompt_set, engine, logprobs=logprobs)
            if path.is_file():
                about = path.stat()
                state[named(root, path)] = (about.st_size, about.st_mtime_ns)
    return state


def read(root: Path, prompt_set: str, engine: str, *, logprobs: bool = True) -> Golden | None:
    """Return a golden, ``None`` where there is none; ``GoldenError`` names the line that cannot be used.

    Without ``logprobs`` theirs are not read.
    """
    path = place(root, prompt_set, engine)
    content = _lines(root, path)
    if content is None:
        return None
    first, *others = content or [b""]
    provenance = _provenance(named(root, path), first)
    kept = _by_key(named(root, path), others, Line, first=2)
    beside = place(root, prompt_set, engine, logprobs=True)
    spelt = (_lines(root, beside) or []) if logprobs else []
    tokens = _by_key(named(root, beside), spelt, LogprobsLine, first=1)
    return Golden(provenance=provenance, lines=kept, logprobs=tokens)


def write(root: Path, prompt_set: str, engine: str, golden: Golden | None) -> None:
    """Write a golden, each of its files in one step; one without lines is removed. ``GoldenError`` when it cannot be.

    The logprobs come first: a line that finds none of its own recording has none.
    """
    beside, path = (place(root, prompt_set, engine, logprobs=logprobs) for logprobs in (True, False))
    try:
        if golden is None:
            path.unlink(missing_ok=True)
            beside.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        tokens = sorted(golden.logprobs.items())
        if tokens:
            replace(beside, (_text(line) for _, line in tokens), shared=True)
        else:
            beside.unlink(missing_ok=True)
        answers = (_text(line) for _, line in sorted(golden.lines.items()))
        replace(path, [_text(golden.provenance), *answers], shared=True)
    except OSError as error:
        raise GoldenError(f"{named(root, path)} cannot be written: {error.strerror or error}") from error


def _lines(root: Path, path: Path) -> list[bytes] | None:
    return lines.read(path, where=named(root, path), error=GoldenError)


def _provenance(where: str, line: bytes) -> Provenance:
    number = _decoded(where, 1, line, dict[str, Any]).get("format")
    if number != FORMAT:
        raise GoldenError(
            f"{where} has format {elide(printable(str(number)), 20)}, and this version reads {FORMAT}; update "
            "pytest-llmparity, or record it anew"
        )
    return _decoded(where, 1, line, Provenance)


def _by_key(where: str, texts: Iterable[bytes], kind: type[L], *, first: int) -> dict[Key, L]:
    by_key: dict[Key, L] = {}
    for number, text in enumerate(texts, first):
        line = _decoded(where, number, text, kind)
        if line.key in by_key:
            raise GoldenError(
                f"{where}:{number}: a second line of case {elide(printable(line.id), 40)}, asked in the same way; a "
                "merge left both: take the file of one side, then record what is missing"
            )
        by_key[line.key] = line
    return by_key


def _decoded(where: str, number: int, line: bytes, kind: type[D]) -> D:
    return lines.decode(line, kind, where=f"{where}:{number}", error=GoldenError)


def _text(line: Provenance | Line | LogprobsLine) -> str:
    return json.dumps(msgspec.to_builtins(line), ensure_ascii=False, allow_nan=False) + "\n"
