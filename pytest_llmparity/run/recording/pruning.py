"""Golden answers that no test of a run asks for: told, and removed when a person says so."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from pytest_llmparity.core.errors import GoldenError
from pytest_llmparity.core.golden import updating
from pytest_llmparity.core.golden.records import Key
from pytest_llmparity.run.golden.requests import SPARED, asked_in, partly_asked
from pytest_llmparity.run.ledger import read_state
from pytest_llmparity.store.golden import files
from pytest_llmparity.store.runs import Store


def prune(store: Store, run: str, *, root: Path, write: bool) -> dict[str, tuple[str, ...]]:
    """Remove from the sets that a run asked what none of its tests asks for; return the cases by file.

    Sets it did not ask are left alone. Raises ``GoldenError`` for a run of single cases or selected tests.
    """
    by_set = _asked_of(store, run)
    dropped = {}
    for prompt_set, engine in _files(root):
        golden = files.read(root, prompt_set, engine) if prompt_set in by_set else None
        if golden is None:
            continue
        renewed = updating.prune(golden, by_set[prompt_set])
        if renewed.wrote:
            dropped[files.named(root, files.place(root, prompt_set, engine))] = renewed.dropped
            if write:
                files.write(root, prompt_set, engine, renewed.golden)
    return dropped


def sets_left_over(store: Store, run: str, *, root: Path) -> dict[str, list[str]]:
    """Return the engines by prompt set of the golden answers whose set no test of a run asks.

    Raises ``GoldenError`` for a run of single cases or selected tests. Tests of another folder may ask them.
    """
    by_set = _asked_of(store, run)
    left: dict[str, list[str]] = {}
    for prompt_set, engine in _files(root):
        if prompt_set not in by_set:
            left.setdefault(prompt_set, []).append(engine)
    return left


def remove_set(root: Path, prompt_set: str, engines: Iterable[str]) -> None:
    """Remove the golden answers of these engines to a set, and its folder where nothing else lies in it."""
    for engine in engines:
        files.write(root, prompt_set, engine, None)
        with contextlib.suppress(OSError):  # it holds something else
            files.place(root, prompt_set, engine).parent.rmdir()


def _files(root: Path) -> list[tuple[str, str]]:
    """Return the golden files there are, each as its set and its engine."""
    return [(prompt_set, engine) for engine, sets in files.listing(root).items() for prompt_set in sets]


def _asked_of(store: Store, run: str) -> dict[str, set[Key]]:
    """Return what the tests of a run ask by prompt set, skipped ones included."""
    asked, state = asked_in(store, run), read_state(store, run)
    if asked is None or state is None:
        raise GoldenError(f"run {run} does not say what it asked (interrupted, or of an older version); run once more")
    if state.cases:
        raise GoldenError(f"run {run} asked single cases (--parity-case), so it does not say what is left over")
    if state.portion:
        raise GoldenError(
            f"run {run} asked a part of the prompts ({state.portion}), so it does not say what is left over"
        )
    if partly_asked(store, run):
        raise GoldenError(
            f"run {run} ran selected tests only (-k, -m, --lf, --ignore, or a folder, file or test by its name; or a "
            "file could not be collected), so it does not say what the others ask; run all (pytest -m parity runs all "
            "gates), or name a run of all"
        )
    by_set: dict[str, set[Key]] = {}
    for unit in (*asked.values(), *(asked_in(store, run, document=SPARED) or {}).values()):
        by_set.setdefault(unit.set, set()).update((case, wanted.sampling) for case, wanted in unit.cases.items())
    return by_set
