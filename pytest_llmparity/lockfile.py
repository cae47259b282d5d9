"""``llmparity.lock`` on disk: TOML that a person reviews, the same text for the same engines."""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pytest_llmparity.core.errors import LockError
from pytest_llmparity.core.identity.lock import NAME, Locked, Setting
from pytest_llmparity.core.sample import Fact, Source

FORMAT: Final = 1

_HEAD: Final = (
    "What every engine was when `llmparity lock` saw it. Commit this file, and let the command write it.",
    "`pytest --parity-frozen` fails when an engine is not what stands here.",
)
_AGAIN: Final = f"delete it, or take it from version control, and write it with: llmparity lock ({NAME})"


def read(path: Path) -> dict[str, Locked] | None:
    """Return the engines of a lock file by name, ``None`` where there is no file; ``LockError`` names what is wrong."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        if path.is_symlink():
            raise LockError(f"{path} is a symbolic link that leads to no file; {_AGAIN}") from None
        return None
    except OSError as error:
        raise LockError(f"{path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LockError(f"{path} is no lock file: {error}; {_AGAIN}") from None
    if content.get("format") != FORMAT:
        raise LockError(
            f"{path} has format {content.get('format')!r}, and this version reads {FORMAT}; update pytest-llmparity, "
            "or delete the file and write it anew with: llmparity lock"
        )
    engines = content.get("engines", {})
    if not isinstance(engines, dict):
        raise LockError(f"{path}: engines is no table; {_AGAIN}")
    return {str(name): _engine(path, f"engines.{name}", table) for name, table in engines.items()}


def write(path: Path, engines: Mapping[str, Locked]) -> None:
    """Write a lock file in one step, engines and facts in the order of their names; ``LockError`` when it cannot be."""
    text = dumps(engines)
    if path.is_symlink():
        raise LockError(f"{path} is a symbolic link, which writing would replace by a file; delete it, then lock again")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise LockError(f"{path} cannot be written: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        Path(temporary).chmod(0o644)  # a file for everybody who has the project, not for this account only
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        raise LockError(f"{path} cannot be written: {error.strerror}") from error


def dumps(engines: Mapping[str, Locked]) -> str:
    """Return the text of a lock file."""
    import tomlkit

    document = tomlkit.document()
    for line in _HEAD:
        document.add(tomlkit.comment(line))
    document.add("format", tomlkit.item(FORMAT))
    tables = tomlkit.table(is_super_table=True)
    for name, locked in sorted(engines.items()):
        table = tomlkit.table()
        table.add("kind", locked.kind)
        table.add("plugin", locked.plugin)
        table.add("identity", _facts(locked))
        table.add("launch", _launch(locked))
        tables.add(name, table)
    document.add("engines", tables)
    return tomlkit.dumps(document)


def _facts(locked: Locked) -> Any:
    import tomlkit

    table = tomlkit.table()
    for name, fact in sorted(locked.identity.items()):
        inline = tomlkit.inline_table()
        inline.update({"value": fact.value, "source": fact.source})
        table.add(name, inline)
    return table


def _launch(locked: Locked) -> Any:
    import tomlkit

    table = tomlkit.table()
    for name, value in locked.launch.items():
        if isinstance(value, tuple):
            array = tomlkit.array()
            array.extend(value)
            table.add(name, array.multiline(True))
        else:
            table.add(name, value)
    return table


def _engine(path: Path, where: str, table: object) -> Locked:
    if not isinstance(table, dict):
        raise LockError(f"{path}: {where} is no table; {_AGAIN}")
    parts = {name: table.get(name) for name in ("kind", "plugin", "identity", "launch")}
    for name, kind in (("kind", str), ("plugin", str), ("identity", dict), ("launch", dict)):
        if not isinstance(parts[name], kind):
            raise LockError(f"{path}: {where}.{name} is missing or of another type; {_AGAIN}")
    identity: dict[str, Any] = parts["identity"] or {}
    launch: dict[str, Any] = parts["launch"] or {}
    return Locked(
        kind=str(parts["kind"]),
        plugin=str(parts["plugin"]),
        identity={name: _fact(path, f"{where}.identity.{name}", fact) for name, fact in identity.items()},
        launch={name: _setting(path, f"{where}.launch.{name}", value) for name, value in launch.items()},
    )


def _fact(path: Path, where: str, fact: object) -> Fact:
    if isinstance(fact, dict) and fact.get("source") in get_args(Source):
        value = fact.get("value")
        if isinstance(value, (str, int, float, bool)):
            return Fact(value=value, source=fact["source"])
    raise LockError(f"{path}: {where} is no fact, {{ value = …, source = … }}; {_AGAIN}")


def _setting(path: Path, where: str, value: object) -> Setting:
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    raise LockError(f"{path}: {where} is neither text, a number nor a list of texts; {_AGAIN}")
