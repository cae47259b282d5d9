"""What a search for the first bad version comes to, in words and as JSON: each ending, without a gate."""

from __future__ import annotations

import json
from importlib import resources

import jsonschema_rs
import pytest

from pytest_llmparity.core.gate.bisecting import Search, Stands
from pytest_llmparity.core.gate.deciding import decide
from pytest_llmparity.core.gate.policy import Policy
from pytest_llmparity.core.identity.lock import Difference
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.report.release.bisect import Version, announcement, drift, message, record

GOOD, BAD, OPEN, UNUSABLE = Stands
PUBLISHED = json.loads(resources.files("pytest_llmparity").joinpath("schemas/bisection.schema.json").read_text("utf-8"))


def made(how: str) -> tuple[list[Version], Search]:
    """Return versions v0, v1, … by a letter each: good, bad, open, unusable, or a dot for one that was not gated."""
    letters = {"g": GOOD, "b": BAD, "o": OPEN, "u": UNUSABLE}
    known = {place: letters[letter] for place, letter in enumerate(how) if letter != "."}
    versions = [
        Version(label=f"v{place}", keys={"requires": [f"engine=={place}"]}, stands=known.get(place), told=True)
        for place in range(len(how))
    ]
    return versions, Search(count=len(how), known=known)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (
            "g.gb.b",
            "v3 is the first version of dev that no longer passes; v2, before it, does. Keep dev at v2 (requires = "
            '"engine==2") until it is known why.',
        ),
        (
            "gob",
            "The first version of dev that no longer passes is v1 or v2: of v1 the gates do not say. More prompts in "
            'the suite would settle what is open. Keep dev at v0 (requires = "engine==0") until it is known why.',
        ),
        (
            "gub",
            "The first version of dev that no longer passes is v1 or v2: of v1 the gates do not say. Keep dev at v0",
        ),
        ("b..b", "v0, the first version of dev that was given, does not pass already; name an older one that does."),
        ("b..g", "v3, which comes later, passes again: either that was put right in between, or the gate does not say"),
        ("g..g", "v3, the last version of dev, passes, and none is known that does not; those between were not gated."),
        ("gg", "v1, the last version of dev, passes, and none is known that does not."),
        (
            "g.guo",
            "No version of dev is known not to pass: of v3, v4 the gates do not say. v2 is the last that is known",
        ),
    ],
)
def test_every_ending_says_what_is_known_and_what_to_do(how: str, words: str) -> None:
    versions, search = made(how)

    lines = message("dev", versions, search, width=100)

    assert words in " ".join(" ".join(lines).split())
    assert [line.split()[0] for line in lines[: len(how)]] == [version.label for version in versions]
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("how", ["g.gb.b", "gob", "b..g", "g..g", "uo"])
def test_the_json_of_every_ending_is_as_published(how: str) -> None:
    versions, search = made(how)
    changed = [Difference(field="version", locked="1", live="2")]

    content = record("dev", versions, search, baseline="prod", outcome="HOLD", changed=changed)

    jsonschema_rs.validator_for(PUBLISHED).validate(content)
    assert content["first_bad"] == {"g.gb.b": "v3", "b..g": "v0"}.get(how)
    assert content["among"] == {"g.gb.b": ["v3"], "b..g": ["v0"], "gob": ["v1", "v2"]}.get(how, [])


def test_the_line_of_a_version_begins_with_what_decided() -> None:
    """Beside INCONCLUSIVE stood the drift alone, which had passed."""
    values = {"test": "t.py::test_it", "check": "c", "engine": "new", "baseline": "old", "unit": "forks/token"}
    text = Verdict(kind="text", outcome=Outcome.PASS, estimate=0.0, lower=0.0, upper=0.014, **values)  # type: ignore[arg-type]
    repeat = Verdict(kind="text.repeat", outcome=Outcome.INCONCLUSIVE, estimate=0.01, upper=0.02, **values)  # type: ignore[arg-type]

    told = drift(decide(Policy(), [text, repeat], baseline="old", candidate="new"))

    assert told.startswith("text.repeat ")
    assert "; text 0 %" in told


def test_a_test_that_broke_is_named_with_its_parameters() -> None:
    broken = {"t.py::TestIt::test_it[a::b]": "assert 1 == 2"}

    told = drift(decide(Policy(), [], baseline="old", candidate="new", tests=broken))

    assert told == "test_it[a::b]: assert 1 == 2"


def test_a_test_that_broke_is_told_from_one_of_its_name() -> None:
    broken = {f"t.py::{name}::test_it": "assert 1 == 2" for name in ("TestA", "TestB")}

    told = drift(decide(Policy(), [], baseline="old", candidate="new", tests=broken))

    assert told == "TestA::test_it: assert 1 == 2"


def test_the_plan_says_how_many_gates_it_takes_at_most() -> None:
    versions, search = made("........")
    told = Search(count=8, known={0: GOOD, 7: BAD})
    labels = [version.label for version in versions]

    words = " ".join(announcement("dev", labels, search, baseline="prod", stored=True, width=1000))
    fewer = " ".join(announcement("dev", labels, told, baseline="prod", stored=False, width=1000))

    assert (
        "8 versions from v0 to v7, held against prod. At most 5 gates (both ends whatever they say, then halves)"
        in words
    )
    assert "At most 3 gates (halves), one more for each that the gate leaves open." in fewer
