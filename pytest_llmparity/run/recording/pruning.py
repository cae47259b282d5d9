"""Golden answers that no test of a run asks for: told, and removed when a person says so."""

from __future__ import annotations

from pathlib import Path

from pytest_llmparity.core.errors import GoldenError
from pytest_llmparity.core.golden import updating
from pytest_llmparity.core.golden.records import Key
from pytest_llmparity.run.golden.requests import SPARED, asked_in, partly_asked
from pytest_llmparity.run.judge.state import read_state
from pytest_llmparity.store.golden import files
from pytest_llmparity.store.runs import Store


def prune(store: Store, run: str, *, root: Path, write: bool) -> dict[str, tuple[str, ...]]:
    """Remove from the sets that a run asked what none of its tests asks for; return the cases by file.

    Sets it did not ask are left alone. Raises ``GoldenError`` for a run of single cases or selected tests.
    """
    asked, state = asked_in(store, run), read_state(store, run)
    if asked is None or state is None:
        raise GoldenError(f"run {run} does not say what it asked (interrupted, or of an older version); run once more")
    if state.cases:
        raise GoldenError(f"run {run} asked single cases (--parity-case), so it does not say what is left over")
    if partly_asked(store, run):
        raise GoldenError(
            f"run {run} ran selected tests only (-k, -m, --lf, or a file or test by its name), so it does not say what "
            "the others ask; run all tests, or name a run of all"
        )
    by_set: dict[str, set[Key]] = {}
    for unit in (*asked.values(), *(asked_in(store, run, what=SPARED) or {}).values()):
        by_set.setdefault(unit.set, set()).update((case, wanted.sampling) for case, wanted in unit.cases.items())
    dropped = {}
    for engine, sets in files.listing(root).items():
        for prompt_set in sets:
            golden = files.read(root, prompt_set, engine) if prompt_set in by_set else None
            if golden is None:
                continue
            renewed = updating.prune(golden, by_set[prompt_set])
            if renewed.wrote:
                dropped[files.named(root, files.place(root, prompt_set, engine))] = renewed.dropped
                if write:
                    files.write(root, prompt_set, engine, renewed.golden)
    return dropped
