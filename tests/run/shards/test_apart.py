"""In what shards asked otherwise: the file and the first case, from what each noted of its requests."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from pytest_llmparity.core.golden.records import Wanted
from pytest_llmparity.run.golden.requests import Asked
from pytest_llmparity.run.shards.apart import Side, apart

SAME = {"a": "1 x", "b": "2 x", "c": "3 x"}


def unit(cases: Mapping[str, str], file: str = "tickets.jsonl") -> Asked:
    """Return a unit whose cases have a prompt and a sampling, written as two words."""
    wanted = {case: Wanted(prompt=text.split()[0], sampling=text.split()[1]) for case, text in cases.items()}
    return Asked(set="s", file=file, concurrency=1, sampling={}, cases=wanted, schemas={})


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ({"d/w": unit(SAME)}, {"d/w": unit(SAME)}, ""),
        (
            {"d/w": unit(SAME)},
            {"e/w": unit({**SAME, "b": "9 x", "c": "9 x"})},
            " (tickets.jsonl: b is another prompt in shard 2 of 3)",
        ),
        (
            {"d/w": unit(SAME)},
            {"d/v": unit({case: f"{text}2" for case, text in SAME.items()})},
            " (tickets.jsonl: a is asked in another way (sampling, lengths) in shard 2 of 3)",
        ),
        ({"d/w": unit(SAME)}, {"e/w": unit({"a": "1 x"})}, " (tickets.jsonl: b is in shard 1 of 3 only)"),
        ({"d/w": unit({"a": "1 x"})}, {"e/w": unit(SAME)}, " (tickets.jsonl: b is in shard 2 of 3 only)"),
        (
            {"d/w": unit(SAME)},
            {"d/v": unit(SAME)},
            " (tickets.jsonl: asked in another way, as for logprobs, repeats or so many at once)",
        ),
        (
            {"d/w": unit(SAME)},
            {"d/w": unit(SAME, "poems.jsonl")},
            " (only shard 1 of 3 asked tickets.jsonl; only shard 2 of 3 asked poems.jsonl)",
        ),
        ({}, {}, ""),
    ],
)
def test_the_file_and_its_first_case_are_named(
    ours: Mapping[str, Asked], theirs: Mapping[str, Asked], told: str
) -> None:
    assert apart(Side("shard 1 of 3", ours), Side("shard 2 of 3", theirs)) == told


def test_what_a_stranger_called_its_files_and_cases_is_escaped() -> None:
    ours, theirs = ({key: unit({"\x1b[31m": prompt}, "\x1b.jsonl")} for key, prompt in (("d/w", "1 x"), ("e/w", "2 x")))

    assert "\x1b" not in apart(Side("shard 1 of 2", ours), Side("shard 2 of 2", theirs))
