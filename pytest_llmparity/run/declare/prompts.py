"""The prompts that a marker names: a file, rows that were written in a test, or a function that makes rows."""

from __future__ import annotations

import errno
import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Final

from pytest_llmparity.core.errors import LLMParityError, PromptSetError, UsageError
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.prompts.parts import MAX_BYTES as MAX_PART
from pytest_llmparity.core.prompts.parts import Read
from pytest_llmparity.core.prompts.reading import EXAMPLE, INPUT, parse_prompts, prompts_of
from pytest_llmparity.core.words.nearest import nearest_name, offered
from pytest_llmparity.core.words.nodeids import name_of_test
from pytest_llmparity.settings.sources import SIGNATURE

MAX_BYTES = 512 * 2**20
"""Bytes of a prompt or schema file: all of it is held in memory."""
TESTS: Final = "beside the test"
"""Where a test looks first."""
SETS: Final = ("quantization",)
"""Prompt sets that come with this package, by their names behind ``llmparity:``."""
_SHIPPED: Final = "llmparity:"
_MADE: Final[tuple[MutableMapping[Callable[[], object], PromptSet], ...]] = (
    weakref.WeakKeyDictionary(),
    weakref.WeakKeyDictionary(),
)
"""The prompt sets of functions, and their inputs: they are called once however many tests name them."""


def load_prompts(
    value: object, folders: Sequence[Path], *, test: str = "", beside: str = TESTS, inputs: bool = False
) -> PromptSet:
    """Return the prompt set at a path, one that comes with this package, of rows, or of a function that makes rows.

    Rows are mappings with the keys of a prompt file's entries; a set of them is named after the ``test`` or the
    function. ``PromptSetError`` says where a file was looked for, which line or row is wrong, or what a function raised
    and where it stands (``beside`` says which place the first folder is); ``UsageError`` that the value is none of
    these. With ``inputs`` they are those of an application (:func:`~core.prompts.reading.parse_prompts`).
    """
    if callable(value):
        return _called(value, folders, inputs=inputs)
    if isinstance(value, (list, tuple)):
        name = name_of_test(test).partition("[")[0]
        source = f"the prompts of {test}"
        return prompts_of(value, source=source, name=name or "rows", inputs=inputs, read=reading(folders))
    if not isinstance(value, (str, Path)):
        raise UsageError(
            "the parity marker's first argument is the path of a prompt file, a list of rows or a function that "
            f"returns rows, not {value!r}; {SIGNATURE}"
        )
    if str(value).startswith(_SHIPPED) and not inputs:
        return _shipped(str(value))
    path = find(value, folders, noun="prompt file", beside=beside)
    read = reading((path.parent,))
    return parse_prompts(text_of(path, value), source=str(value), name=path.stem, inputs=inputs, read=read)


def _shipped(value: str) -> PromptSet:
    """Return a prompt set that comes with this package."""
    name = value.removeprefix(_SHIPPED)
    if name not in SETS:
        shipped = [f"{_SHIPPED}{each}" for each in SETS]
        near = nearest_name(name, SETS)
        close = offered(near and _SHIPPED + near)
        raise PromptSetError(f"no prompts {value!r} come with this plugin{close}; there are: {', '.join(shipped)}")
    text = resources.files("pytest_llmparity").joinpath(f"prompts/{name}.jsonl").read_text("utf-8")
    return parse_prompts(text, source=f"{value}.jsonl", name=name)


def _called(function: Callable[[], object], folders: Sequence[Path], *, inputs: bool) -> PromptSet:
    """Return the prompt set of the rows that a function returns, which is called the first time it is named."""
    known = function if inspect.isfunction(function) else None  # others may not outlive the marker, or not be hashable
    if known is not None and known in _MADE[inputs]:
        return _MADE[inputs][known]
    name = getattr(function, "__name__", type(function).__name__)
    code = getattr(inspect.unwrap(function), "__code__", None)
    where = "" if code is None else f" at {place(code.co_filename, folders[-1])}:{code.co_firstlineno}"
    source = f"{name}(){where}"
    try:
        rows = function()
        if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
            example = INPUT if inputs else EXAMPLE
            raise PromptSetError(f"{source} returned {repr(rows)[:80]}; expected a list of rows, such as [{example}]")
        made = prompts_of(rows, source=source, name=name, inputs=inputs, read=reading(folders))
    except LLMParityError:
        raise
    except Exception as error:
        words = str(error).partition("\n")[0]
        raised = f"{type(error).__name__}: {words}" if words else type(error).__name__
        raise PromptSetError(f"{source} makes the prompts and raised {raised}") from error
    if known is not None:
        _MADE[inputs][known] = made
    return made


def find(value: str | Path, folders: Sequence[Path], *, noun: str, beside: str = TESTS) -> Path:
    """Return the first existing file; relative paths are tried in each folder in turn."""
    wanted = Path(value)
    tried = [wanted] if wanted.is_absolute() else [folder / wanted for folder in folders]
    try:
        for path in tried:
            if path.is_file():
                return path
        hint = _nearest_of(wanted, tried)
    except OSError as error:
        raise PromptSetError(f"{noun} {str(value)!r} cannot be looked for: {error.strerror}") from error
    # A test looks in two folders; who names a file itself means that one.
    where = f"in {tried[0].parent}" if len(tried) == 1 else f"{beside} or at the root of the project"
    raise PromptSetError(f"no {noun} {str(value)!r} {where}{hint}")


def reading(folders: Sequence[Path]) -> Read:
    """Return a function that reads a file which a prompt names, relative to the first of these folders that has it."""

    def read(name: str) -> bytes:
        tried = [folder / name for folder in folders]
        path = next((path for path in tried if path.is_file()), None)
        if path is None:
            hint = _nearest_of(Path(name), tried)
            raise FileNotFoundError(errno.ENOENT, f"there is no such file beside the prompts{hint}")
        if (size := path.stat().st_size) > MAX_PART:
            raise OSError(errno.EFBIG, f"it has {size} bytes, and up to {MAX_PART} are sent")
        return path.read_bytes()

    return read


def place(where: str, root: Path) -> str:
    """Return ``file:line`` as seen from the root: the text lands in reports, which leave this machine."""
    path = Path(where)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def text_of(path: Path, named: str | Path) -> str:
    """Return what a file of the project holds; ``PromptSetError`` calls it as the test does."""
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise PromptSetError(f"{named}: has {size} bytes; a file of up to {MAX_BYTES} is read, so split it")
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptSetError(f"{named}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    except OSError as error:
        raise PromptSetError(f"{named}: cannot be read: {error.strerror}") from error


def _nearest_of(wanted: Path, tried: Sequence[Path]) -> str:
    """Name the file whose name is most like a wanted one, empty where none is. That they end alike is not likeness."""
    siblings = [sibling for path in tried for sibling in _siblings(path)]
    names = {sibling.stem: sibling.name for sibling in sorted(siblings, key=lambda s: s.suffix == wanted.suffix)}
    near = nearest_name(wanted.stem, names)
    return offered(near and names[near])


def _siblings(path: Path) -> list[Path]:
    return sorted(path.parent.iterdir()) if path.parent.is_dir() else []
