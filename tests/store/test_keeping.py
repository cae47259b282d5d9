"""The newest runs stay; of the older ones only what nobody named and no process may still use goes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.sample import Completion, Phase, Sample
from pytest_llmparity.store.runs import JUDGED, Store


class Clock:
    """Seconds since the epoch, one more whenever it is asked."""

    def __init__(self) -> None:
        self.at = 1_795_232_701.0

    def __call__(self) -> float:
        self.at += 1
        return self.at


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path, now=Clock()) as opened:
        yield opened


def ended(store: Store, session: str, *, text: str = "answer", judged: bool = True) -> str:
    """Return a run that a process, gone since, had finished."""
    run = store.begin(plan_hash="plan", session=session, version="1", resume="fresh").id
    store.put(run, [Sample(engine="a", case="1", phase=Phase.MAIN, completion=Completion(text=text))])
    if judged:
        store.finish(run)
        store.put_document(run, JUDGED, {})
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE holders SET born = 1.0 WHERE run = ?", (run,))
    db.close()
    return run


def test_all_but_the_newest_runs_go_with_all_they_hold(store: Store) -> None:
    runs = [ended(store, str(number)) for number in range(5)]

    assert store.prune(2) == runs[:3]
    assert [run.id for run in store.runs()] == runs[3:]
    assert [len(store.get(run, "a")) for run in runs] == [0, 0, 0, 1, 1]
    assert store.raw_document(runs[0], JUDGED) is None
    assert store.prune(2) == []


def test_the_run_of_this_session_stays_however_long_ago_it_began(store: Store) -> None:
    resumed, *others = [ended(store, str(number)) for number in range(4)]

    assert store.prune(1, spare=resumed) == others[:2]
    assert {run.id for run in store.runs()} == {resumed, others[2]}


def test_what_a_person_named_stays_until_the_name_is_taken_back(store: Store) -> None:
    first, *_ = runs = [ended(store, str(number)) for number in range(3)]
    store.name(first, kept=True)

    assert store.prune(1) == [runs[1]]
    assert store.named() == {first}

    store.name(first, kept=False)
    assert store.prune(1) == [first]


def test_a_name_outlives_a_resumption(store: Store) -> None:
    run = ended(store, "s1", judged=False)
    store.name(run, kept=True)

    assert store.begin(plan_hash="plan", session="s2", version="1", resume="resume").id == run
    assert store.named() == {run}


def test_a_run_nobody_knows_cannot_be_named(store: Store) -> None:
    run = ended(store, "s1")

    with pytest.raises(StoreError, match=f"no run nobodys in .*; the newest are: {run}"):
        store.name("nobodys", kept=True)


def test_interrupted_runs_and_what_another_host_has_not_judged_stay(store: Store) -> None:
    interrupted = ended(store, "s1", judged=False)
    elsewhere = ended(store, "s2")
    old, new = ended(store, "s3"), ended(store, "s4")
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE runs SET host = 'elsewhere' WHERE id = ?", (elsewhere,))
        db.execute("DELETE FROM notes WHERE run = ?", (elsewhere,))
    db.close()

    assert store.prune(1) == [old]
    assert [run.id for run in store.runs()] == [interrupted, elsewhere, new]


def test_the_space_is_given_back(store: Store) -> None:
    for number in range(4):
        ended(store, str(number), text="x" * 2_000_000)
    store.prune(1)

    with sqlite3.connect(store.path) as db:
        pages, free = (db.execute(f"PRAGMA {pragma}").fetchone()[0] for pragma in ("page_count", "freelist_count"))
    db.close()

    assert free == 0
    assert pages * 4096 < 3_000_000


def test_a_small_file_of_an_earlier_version_is_copied_to_give_its_space_back(tmp_path: Path) -> None:
    with Store.open(tmp_path, now=Clock()) as store:
        runs = [ended(store, str(number), text="x" * 500_000) for number in range(4)]
        with sqlite3.connect(store.path) as db:
            db.execute("PRAGMA auto_vacuum = NONE")
            db.execute("VACUUM")
        db.close()

        assert store.prune(1) == runs[:3]
        assert store.path.stat().st_size < 2_000_000
        assert [len(store.get(run, "a")) for run in runs] == [0, 0, 0, 1]


HOLDER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from pytest_llmparity.store.runs import Store

    with Store.open(Path(sys.argv[1])) as store:
        if sys.argv[2] == "writes":
            print(store.begin(plan_hash="other", session="s9", version="1").id, flush=True)
        else:
            store.hold(sys.argv[2])
            print(sys.argv[2], flush=True)
        sys.stdin.read()
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("does", ["writes", "reads"])
def test_a_run_that_another_process_writes_or_replays_stays_while_it_lives(tmp_path: Path, does: str) -> None:
    with Store.open(tmp_path) as store:
        first = ended(store, "s0")
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), first if does == "reads" else "writes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            held = process.stdout.readline().strip()
            with sqlite3.connect(store.path) as db:  # older than all that follow, whatever the clock says
                db.execute("UPDATE runs SET started = 1.0 WHERE id = ?", (held,))
            db.close()
            ended(store, "s1")
            ended(store, "s2")

            gone = store.prune(1)
            process.stdin.close()
        store.finish(held)
        later = store.prune(1)

    assert held not in gone
    assert held in later


PRUNER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from pytest_llmparity.core.sample import Completion, Phase, Sample
    from pytest_llmparity.store.runs import JUDGED, Store

    with Store.open(Path(sys.argv[1])) as store:
        for number in range(15):
            run = store.begin(plan_hash="p", session=f"{sys.argv[2]}-{number}", version="1", resume="fresh").id
            store.put(run, [Sample(engine="a", case="1", phase=Phase.MAIN, completion=Completion(text="x" * 9000))])
            store.finish(run)
            store.put_document(run, JUDGED, {})
            store.prune(3)
            assert store.get(run, "a")[0].completion.text == "x" * 9000
    """
)


@pytest.mark.slow
def test_processes_that_write_and_prune_at_once_lose_nothing_of_their_own(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PRUNER, str(tmp_path), name], env=env, stderr=subprocess.PIPE, text=True
        )
        for name in ("one", "two", "three")
    ]
    errors = [process.communicate()[1] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], errors
    with Store.open(tmp_path) as store:
        store.prune(3)
        assert len(store.runs()) == 3
