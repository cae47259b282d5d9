"""``llmparity.lock`` on disk: TOML that a person reviews, the same text for the same engines."""

from __future__ import annotations

import dataclasses
import datetime
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from pytest_llmparity.core.errors import LockError
from pytest_llmparity.core.identity.agreed import Accepted, Agreed, Party
from pytest_llmparity.core.identity.canaries import Canaries, Canary
from pytest_llmparity.core.identity.ladder import Forks, Ladder, Rung
from pytest_llmparity.core.identity.lock import NAME, Locked, Setting
from pytest_llmparity.core.sample import Fact, Source
from pytest_llmparity.store.whole import replace

FORMAT: Final = 1

_HEAD: Final = (
    "What every engine was when `llmparity lock` saw it. Commit this file, and let the command write it.",
    "`pytest --parity-frozen` fails when an engine is not what stands here.",
)
_NATS: Final = (float, int)
_PARTS: Final = ("tokens", "seconds", "leads")
_MEASURED: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("estimate", "lower", "upper", "floor"), _NATS),
    **dict.fromkeys(("prompts", "groups"), (int,)),
    **dict.fromkeys(("prompt_set", "plugin"), (str,)),
}
"""What stands of the measurement beside a margin, with its types."""
_OF_LADDER: Final[Mapping[str, tuple[type, ...]]] = {
    **dict.fromkeys(("model", "server", "made_by"), (str,)),
    **dict.fromkeys(("prompts", "groups"), (int,)),
    **dict.fromkeys(("prompt_set", "plugin"), (str,)),
}
_SINCE: Final[Mapping[str, tuple[type, ...]]] = {"prompt_sha256": (str,), "max_tokens": (int,)}
"""What a ladder has by which it is known what its text was measured on; one of an earlier version has none of it."""
_OF_RUNG: Final = ("shift", "lower", "upper", "forks", "most_forks")
_OF_FORKS: Final = ("forks", "least_forks", "most_forks")
_MEASURE: Final = "take the file from version control, or delete this table and measure again with: llmparity calibrate"
_AGAIN: Final = f"delete it, or take it from version control, and write it with: llmparity lock ({NAME})"


def read(path: Path) -> dict[str, Locked] | None:
    """Return the engines of a lock file by name, ``None`` where there is no file; ``LockError`` names what is wrong."""
    content = _content(path)
    if content is None:
        return None
    engines = content.get("engines", {})
    if not isinstance(engines, dict):
        raise LockError(f"{path}: engines is no table; {_AGAIN}")
    canaries = _table(path, content, "", "canaries", default={})
    return {
        str(name): dataclasses.replace(
            _engine(path, f"engines.{name}", table),
            canaries=_canaries(path, f"canaries.{name}", canaries[name]) if name in canaries else None,
        )
        for name, table in engines.items()
    }


def agreed(path: Path) -> Agreed:
    """Return what a lock file says of drift, nothing where there is no file; ``LockError`` names what is wrong."""
    content = _content(path) or {}
    margins = _table(path, content, "", "margins", default={})
    ladders = _table(path, content, "", "ladders", default={})
    return Agreed(
        margins=tuple(
            _margin(path, str(baseline), str(candidate), _table(path, pairs, f"margins.{baseline}", str(candidate)))
            for baseline in margins
            for pairs in [_table(path, margins, "margins", str(baseline))]
            for candidate in pairs
        ),
        ladders=tuple(_ladder(path, f"ladders.{key}", _table(path, ladders, "ladders", str(key))) for key in ladders),
    )


def _content(path: Path) -> dict[str, Any] | None:
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
    return content


def write(path: Path, engines: Mapping[str, Locked], agreed: Agreed | None = None) -> None:
    """Write a lock file in one step, engines and facts in the order of their names; ``LockError`` when it cannot be.

    What it said of drift before is gone unless it is in ``agreed``.
    """
    text = dumps(engines, agreed)
    if path.is_symlink():
        raise LockError(f"{path} is a symbolic link, which writing would replace by a file; delete it, then lock again")
    try:
        replace(path, [text], shared=True)
    except OSError as error:
        raise LockError(f"{path} cannot be written: {error.strerror}") from error


def dumps(engines: Mapping[str, Locked], agreed: Agreed | None = None) -> str:
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
    birds = {name: locked.canaries for name, locked in sorted(engines.items()) if locked.canaries is not None}
    if birds:
        document.add("canaries", _kept(birds))
    if agreed is not None and agreed.margins:
        document.add("margins", _margins(agreed.margins))
    if agreed is not None and agreed.ladders:
        document.add("ladders", _ladders(agreed.ladders))
    return tomlkit.dumps(document)


def _kept(birds: Mapping[str, Canaries]) -> Any:
    import tomlkit

    tables = tomlkit.table(is_super_table=True)
    for name, canaries in birds.items():
        table, answers = tomlkit.table(), tomlkit.table(is_super_table=True)
        table.add("recorded", datetime.date.fromisoformat(canaries.date))
        table.add("plugin", canaries.plugin)
        table.add("prompt_set", canaries.prompt_set)
        if canaries.floor is not None:
            table.add("floor", canaries.floor)
        table.add("unstable", canaries.unstable)
        for case, canary in canaries.answers.items():
            answer = tomlkit.table()
            answer.add("text", canary.text)
            if canary.prompt_tokens is not None:
                answer.add("prompt_tokens", canary.prompt_tokens)
            for part in _PARTS if canary.tokens else ():
                answer.add(part, list(getattr(canary, part)))
            answers.add(case, answer)
        table.add("answers", answers)
        tables.add(name, table)
    return tables


def _canaries(path: Path, where: str, table: object) -> Canaries:
    if not isinstance(table, dict):
        raise LockError(f"{path}: {where} is no table; {_AGAIN}")
    answers, date, floor = table.get("answers"), table.get("recorded"), table.get("floor")
    texts = [table.get("plugin"), table.get("prompt_set")]
    right = (
        isinstance(answers, dict)
        and type(date) is datetime.date
        and type(floor) in (float, int, type(None))
        and type(table.get("unstable")) is int
        and all(isinstance(text, str) for text in texts)
    )
    if not right:
        raise LockError(f"{path}: {where} is not as llmparity lock writes canaries; {_AGAIN}")
    return Canaries(
        date=date.isoformat(),  # type: ignore[union-attr]  # types looked at above
        plugin=str(texts[0]),
        prompt_set=str(texts[1]),
        floor=floor,
        unstable=int(table["unstable"]),
        answers={
            case: _canary(path, f"{where}.answers.{case}", answer) for case, answer in dict(answers or {}).items()
        },
    )


def _canary(path: Path, where: str, table: object) -> Canary:
    if isinstance(table, dict) and isinstance(table.get("text"), str):
        count, parts = table.get("prompt_tokens"), [table.get(part, []) for part in _PARTS]
        lists = all(isinstance(part, list) and len(part) == len(parts[0]) for part in parts)
        if lists and type(count) in (int, type(None)):
            tokens, seconds, leads = parts
            words = all(isinstance(token, str) for token in (*tokens, *seconds))
            if words and all(type(lead) in _NATS for lead in leads):
                return Canary(
                    text=table["text"],
                    prompt_tokens=count,
                    tokens=tuple(tokens),
                    seconds=tuple(seconds),
                    leads=tuple(leads),
                )
    raise LockError(f"{path}: {where} is no answer as llmparity lock writes one; {_AGAIN}")


def _margins(margins: Sequence[Accepted]) -> Any:
    import tomlkit

    tables = tomlkit.table(is_super_table=True)
    for accepted in margins:
        table = tomlkit.table()
        table.add("shift", accepted.shift)
        table.add("accepted", datetime.date.fromisoformat(accepted.date))
        for name in _MEASURED:
            table.add(name, getattr(accepted, name))
        for name, party in (("baseline", accepted.of_baseline), ("candidate", accepted.of_candidate)):
            facts = tomlkit.table()
            facts.add("kind", party.kind)
            for fact, value in party.facts.items():
                facts.add(fact, value)
            table.add(name, facts)
        if accepted.baseline not in tables:
            tables.add(accepted.baseline, tomlkit.table(is_super_table=True))
        tables[accepted.baseline].add(accepted.candidate, table)
    return tables


def _ladders(ladders: Sequence[Ladder]) -> Any:
    import tomlkit

    tables = tomlkit.table(is_super_table=True)
    for ladder in ladders:
        table, rungs = tomlkit.table(), tomlkit.table()
        table.add("digest", ladder.digest)
        table.add("measured", datetime.date.fromisoformat(ladder.date))
        for name in (*_OF_LADDER, *(_SINCE if ladder.prompt_sha256 else ())):
            table.add(name, getattr(ladder, name))
        names = dict.fromkeys((*_OF_RUNG, *(_OF_FORKS if ladder.prompt_sha256 else ())))
        tags: dict[str, Any] = {}
        for rung in ladder.rungs:
            rungs.add(rung.quantization, _numbers(rung, names))
            for tag, forks in rung.tags.items():
                tags.setdefault(tag, tomlkit.table()).add(rung.quantization, _numbers(forks, _OF_FORKS))
        table.add("rungs", rungs)
        if tags:
            of_tags = tomlkit.table(is_super_table=True)
            for tag, forks_of in tags.items():
                of_tags.add(tag, forks_of)
            table.add("tags", of_tags)
        tables.add(ladder.key, table)
    return tables


def _numbers(measured: Rung | Forks, names: Iterable[str]) -> Any:
    import tomlkit

    numbers = tomlkit.inline_table()
    numbers.update({name: getattr(measured, name) for name in names})
    return numbers


def _ladder(path: Path, where: str, table: Mapping[str, Any]) -> Ladder:
    rungs = _table(path, table, where, "rungs")
    since = _SINCE if "prompt_sha256" in table else {}
    types = {"digest": (str,), **_OF_LADDER, **since}
    values = {name: table.get(name) for name in types}
    for name, value in values.items():
        if type(value) not in types[name]:
            raise LockError(f"{path}: {where}.{name} is missing or of another type; {_MEASURE}")
    date = table.get("measured")
    if type(date) is not datetime.date:
        raise LockError(f"{path}: {where}.measured is no date; {_MEASURE}")
    names = tuple(dict.fromkeys((*_OF_RUNG, *(_OF_FORKS if since else ()))))
    of_rungs = {name: _measured(path, f"{where}.rungs", rungs, name, names) for name in rungs}
    if not rungs:
        raise LockError(f"{path}: {where} has no rungs; {_MEASURE}")
    tags: dict[str, dict[str, Forks]] = {name: {} for name in rungs}
    of_tags = _table(path, table, where, "tags", default={})
    for tag in of_tags:
        by_class = _table(path, of_tags, f"{where}.tags", tag)
        for name in by_class:
            forks = Forks(**_measured(path, f"{where}.tags.{tag}", by_class, name, _OF_FORKS))
            tags.setdefault(name, {})[tag] = forks
    made = [Rung(quantization=name, tags=tags[name], **numbers) for name, numbers in of_rungs.items()]
    return Ladder(date=date.isoformat(), rungs=tuple(made), **values)  # type: ignore[arg-type]  # looked at above


def _measured(path: Path, where: str, table: Mapping[str, Any], name: str, names: Sequence[str]) -> dict[str, float]:
    numbers = _table(path, table, where, name)
    if any(type(numbers.get(number)) not in _NATS for number in names):
        raise LockError(f"{path}: {where}.{name} takes the numbers {', '.join(names)}; {_MEASURE}")
    return {number: numbers[number] for number in names}


def _margin(path: Path, baseline: str, candidate: str, table: Mapping[str, Any]) -> Accepted:
    where = f"margins.{baseline}.{candidate}"
    sides = [_party(path, f"{where}.{side}", _table(path, table, where, side)) for side in ("baseline", "candidate")]
    date = table.get("accepted")
    if type(date) is not datetime.date:
        raise LockError(f"{path}: {where}.accepted is no date; {_MEASURE}")
    values = {name: table.get(name) for name in ("shift", *_MEASURED)}
    for name, value in values.items():
        if type(value) not in _MEASURED.get(name, _NATS):
            raise LockError(f"{path}: {where}.{name} is missing or of another type; {_MEASURE}")
    if not values["shift"] > 0:  # type: ignore[operator]  # a number: looked at above
        raise LockError(f"{path}: {where}.shift is no number of nats above 0; {_MEASURE}")
    return Accepted(
        baseline=baseline,
        candidate=candidate,
        date=date.isoformat(),
        of_baseline=sides[0],
        of_candidate=sides[1],
        **values,  # type: ignore[arg-type]  # types looked at above
    )


def _party(path: Path, where: str, table: Mapping[str, Any]) -> Party:
    if not table.get("kind") or not all(isinstance(value, str) for value in table.values()):
        raise LockError(f"{path}: {where} is a table of texts with a kind; {_MEASURE}")
    return Party(kind=table["kind"], facts={name: value for name, value in table.items() if name != "kind"})


def _table(
    path: Path, parent: Mapping[str, Any], where: str, name: str, default: dict[str, Any] | None = None
) -> dict[str, Any]:
    table = parent.get(name, default)
    if not isinstance(table, dict):
        raise LockError(f"{path}: {f'{where}.' if where else ''}{name} is no table; {_MEASURE}")
    return table


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
