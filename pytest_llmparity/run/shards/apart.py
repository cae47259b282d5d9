"""In what two shards asked otherwise: the prompt file, and the first of its cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from pytest_llmparity.core.golden.records import Wanted
from pytest_llmparity.core.words.explain import first_names
from pytest_llmparity.core.words.printable import printable
from pytest_llmparity.run.golden.requests import Asked


class Side(NamedTuple):
    """A shard as messages name it, and what it asked its share of."""

    shard: str
    units: Mapping[str, Asked]


def apart(first: Side, second: Side) -> str:
    """Return in what two shards asked otherwise, in brackets and with a space before; empty where nothing shows.

    Of a file that both asked the first case that differs is named, in the order of the file.
    """
    files = [{unit.file for unit in side.units.values()} for side in (first, second)]
    only = [
        f"only {side.shard} asked {printable(first_names(sorted(alone)))}"
        for side, alone in ((first, files[0] - files[1]), (second, files[1] - files[0]))
        if alone
    ]
    sentences = only or [words for file in sorted(files[0] & files[1]) for words in _of_file(file, first, second)][:1]
    return f" ({'; '.join(sentences)})" if sentences else ""


def _of_file(file: str, first: Side, second: Side) -> Iterator[str]:
    """Yield what differs in one prompt file, the first case before what is asked of all of them."""
    ours, theirs = ({key: unit for key, unit in side.units.items() if unit.file == file} for side in (first, second))
    for case, wanted in _cases(ours).items():
        other = _cases(theirs).get(case)
        if other is None:
            yield f"{printable(file)}: {printable(case)} is in {first.shard} only"
        elif other != wanted:
            alike = [asked.prompt for asked in wanted] == [asked.prompt for asked in other]
            difference = "asked in another way (sampling, lengths)" if alike else "another prompt"
            yield f"{printable(file)}: {printable(case)} is {difference} in {second.shard}"
    for case in _cases(theirs):
        if case not in _cases(ours):
            yield f"{printable(file)}: {printable(case)} is in {second.shard} only"
    if ours.keys() != theirs.keys():
        yield f"{printable(file)}: asked in another way, as for logprobs, repeats or so many at once"


def _cases(units: Mapping[str, Asked]) -> dict[str, list[Wanted]]:
    """Return by case what units ask of it."""
    cases: dict[str, list[Wanted]] = {}
    for _, unit in sorted(units.items(), key=lambda item: item[0].partition("/")[2]):
        for case, wanted in unit.cases.items():
            cases.setdefault(case, []).append(wanted)
    return cases
