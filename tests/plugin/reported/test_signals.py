"""Whatever ends pytest, in whatever phase, no process is left and no answer is lost.

Nothing here handles a signal but SIGINT: pytest ends of any other where it stands, whatever the number. So each phase
has SIGINT and one of the others, and each of the others a phase. Ctrl-C while engines start or answer, and ``kill -9``
while they answer, are in ``tests/plugin/test_trouble.py``; here are the other pairs.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

pytestmark = pytest.mark.slow

JUDGING = """
import time
from pathlib import Path
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.prompts())
def test_gate(parity_run):
    Path("judging").touch()
    time.sleep(120)
"""
KILL, TERM, HUP, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("start", TERM),
        ("gathering", HUP),
        ("timed", KILL),
        ("timed", INT),
        ("judging", TERM),
        ("judging", INT),
    ],
    ids=lambda value: value if isinstance(value, str) else signal.Signals(value).name,
)
def test_a_signal_in_any_phase_leaves_no_process_and_loses_no_answer(
    bench: Bench, wait_until: Callable[..., float], phase: str, number: int
) -> None:
    bench.prompts(20)
    bench.configure(bench.process("started", "mute" if phase == "start" else "", start_timeout_s=60))
    engine = bench.engine(first_delay_s=0.02)
    if phase == "judging":
        bench.pytester.makepyfile(test_gate=JUDGING)
    else:
        bench.gate("check.prompts()" if phase != "timed" else 'check.latency(e2e_p95="30s", n=128), concurrency=2')
    reached = {
        "start": lambda: bench.starts("started"),
        "gathering": lambda: len(bench.asked(engine)) > 10,
        "timed": lambda: len(bench.asked(engine)) > 20 + 10,
        "judging": (bench.pytester.path / "judging").exists,
    }[phase]
    spawned = bench.spawn("--engines=started", engines=[engine])
    wait_until(reached, 60)
    children = psutil.Process(spawned.process.pid).children(recursive=True)

    spawned.process.send_signal(number)
    spawned.wait()

    wait_until(lambda: not [pid for pid in bench.starts("started") if psutil.pid_exists(pid)], 15)
    psutil.wait_procs(children, timeout=15)
    assert [child for child in children if child.is_running()] == []
    assert "INTERNALERROR" not in spawned.output
    if phase == "start":
        return
    with sqlite3.connect(bench.pytester.path / ".llmparity/samples.sqlite") as db:
        query = "SELECT count(*) FROM samples WHERE engine = 'a' AND phase = 'main' AND failure IS NULL"
        ((stored,),) = db.execute(query).fetchall()
    db.close()
    assert stored >= min(20, len(bench.asked(engine))) - 4, "all but what was under way"
