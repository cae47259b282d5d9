"""Whose a run is: the processes that hold it, and what of it the session that goes on with it keeps."""

from __future__ import annotations

import os
import sqlite3

import psutil

from pytest_llmparity.core.sample import Phase

KEPT = "kept/"
"""Documents whose names begin like this outlive a resumption."""
TIMED = "timed/"
"""Documents whose names begin like this say which answers belong to a timed phase; they last as long as those do."""
ANSWERED = (
    "SELECT DISTINCT samples.engine, runs.id FROM samples JOIN runs ON samples.run = runs.id"
    " WHERE runs.session = ? AND samples.failure IS NULL AND (samples.phase != ? OR runs.finished IS NOT NULL)"
)
"""Which engines have answers that outlive a take-over, with their run; wants the session and the timed phase."""
UNTIMED = (
    "SELECT 1 FROM samples JOIN runs ON samples.run = runs.id"
    " WHERE runs.id = ? AND samples.phase = ? AND runs.finished IS NULL LIMIT 1"
)
"""Whether a run has timed answers that do not outlive a take-over; wants the run and the timed phase."""
NAMED = "named"
"""Name of the run's document that says: a person named this run, and it is never removed."""


def hold(db: sqlite3.Connection, run: str) -> None:
    """Note that this process uses a run."""
    born = psutil.Process().create_time()
    db.execute("INSERT OR IGNORE INTO holders (run, pid, born) VALUES (?, ?, ?)", (run, os.getpid(), born))


def claim(db: sqlite3.Connection, run: str, session: str) -> None:
    """Make a run that of a session, held by this process alone."""
    db.execute("UPDATE runs SET session = ?, resumed = 1 WHERE id = ?", (session, run))
    db.execute("DELETE FROM holders WHERE run = ?", (run,))
    hold(db, run)


def take_over(db: sqlite3.Connection, run: str, session: str) -> None:
    """Take over a run that was interrupted: its answers stay, what failed and all timings go."""
    claim(db, run, session)
    query = "DELETE FROM notes WHERE run = ? AND name != ? AND substr(name, 1, ?) != ?"
    db.execute(query, (run, NAMED, len(KEPT), KEPT))
    db.execute("UPDATE engines SET earlier = 1 WHERE run = ?", (run,))
    db.execute("DELETE FROM samples WHERE run = ? AND (phase = ? OR failure IS NOT NULL)", (run, Phase.TIMED))
    db.execute("UPDATE samples SET timing = NULL WHERE run = ?", (run,))


def take_over_again(db: sqlite3.Connection, run: str, session: str, *, timed_again: bool) -> None:
    """Take over a run that was gathered to its end: what failed goes, and with ``timed_again`` what was timed."""
    claim(db, run, session)
    db.execute("UPDATE runs SET finished = NULL WHERE id = ?", (run,))
    query = (
        "DELETE FROM notes WHERE run = ? AND name != ? AND substr(name, 1, ?) != ? AND (? OR substr(name, 1, ?) != ?)"
    )
    db.execute(query, (run, NAMED, len(KEPT), KEPT, timed_again, len(TIMED), TIMED))
    db.execute("UPDATE engines SET earlier = 1 WHERE run = ?", (run,))
    failed = "DELETE FROM samples WHERE run = ? AND (failure IS NOT NULL OR (? AND phase = ?))"
    db.execute(failed, (run, timed_again, Phase.TIMED))


def alive(pid: int, born: float) -> bool:
    """Whether the process with this id that was born then still lives."""
    try:
        # Ids are used again; the start time tells (5 s: it is derived from a clock that may be set in between).
        return abs(psutil.Process(pid).create_time() - born) < 5
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:  # pragma: no cover - only Windows hides when another user's process began
        return True
