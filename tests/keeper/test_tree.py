"""Process tables and trees: what belongs to an engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.keeper import tree

KEEPER = 10


def members(table: tree.Table, *, main: int, adopts: bool = True, markers: dict[int, str] | None = None) -> set[int]:
    return tree.members(table, main=main, marker="mine", keeper=KEEPER, adopts=adopts, marker_of=(markers or {}).get)


def test_an_engine_is_its_first_process_and_everything_below() -> None:
    table = {20: (KEEPER, 20, 20), 21: (20, 20, 20), 22: (21, 22, 22), 30: (KEEPER, 30, 30), 31: (30, 30, 30)}

    assert members(table, main=20) == {20, 21, 22}


def test_orphans_are_known_by_session_group_or_marker_with_all_below_them() -> None:
    table = {
        21: (KEEPER, 21, 20),
        22: (KEEPER, 20, 99),
        23: (KEEPER, 23, 23),
        24: (23, 24, 24),
        25: (KEEPER, 25, 25),
        26: (1, 20, 20),
    }

    assert members(table, main=20, markers={23: "mine", 25: "another"}) == {21, 22, 23, 24}


def test_where_orphans_are_not_adopted_the_group_tells() -> None:
    table = {20: (KEEPER, 20, 0), 21: (1, 20, 0), 22: (21, 22, 0), 23: (1, 23, 0)}

    assert members(table, main=20, adopts=False) == {20, 21, 22}


@given(st.dictionaries(st.integers(1, 30), st.integers(0, 30), max_size=30))
def test_descendants_are_exactly_those_whose_ancestors_lead_to_the_root(parents: dict[int, int]) -> None:
    def below(pid: int) -> bool:
        seen = {pid}
        while (pid := parents.get(pid, 0)) not in seen:
            if pid == 7:
                return True
            seen.add(pid)
        return False

    descendants = tree.descendants({pid: (parent, 0, 0) for pid, parent in parents.items()}, [7])

    assert descendants == {pid for pid in parents if pid != 7 and below(pid)}


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
def test_the_table_reads_names_with_spaces_and_parentheses_and_leaves_zombies_out(tmp_path: Path) -> None:
    stats = {
        "7": "7 (a) b (c) S 3 5 6 0",
        "8": "8 (dead) Z 3 5 6 0",
        "9": "cut",
        "self": "7 (python) S 1 2 3 0",
    }
    for pid, stat in stats.items():
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "stat").write_text(stat)
    (tmp_path / "11").mkdir()

    assert tree.proc_table(str(tmp_path)) == {7: (3, 5, 6)}


def test_the_table_knows_this_process() -> None:
    parent, group, _ = tree.read_table()[os.getpid()]

    assert (parent, group) == (os.getppid(), os.getpgrp())


@pytest.mark.skipif(shutil.which("ps") is None, reason="there is no ps here")
def test_ps_tells_the_same_and_leaves_itself_out() -> None:
    table = tree.ps_table()

    assert table[os.getpid()] == (os.getppid(), os.getpgrp(), 0)
    assert tree.descendants(table, [os.getpid()]) <= set(tree.read_table())


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
def test_a_marker_is_read_from_what_a_process_was_started_with() -> None:
    with subprocess.Popen(
        [sys.executable, "-ISc", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"A": "b", tree.MARKER: "here.1"},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"  # before, exec may not have set the environment yet
        assert tree.marker_of(process.pid) == "here.1"
        process.kill()
    assert tree.marker_of(process.pid) is None
    assert tree.marker_of(os.getpid()) is None


def test_signals_to_who_is_gone_or_not_ours_are_no_error() -> None:
    with subprocess.Popen([sys.executable, "-ISc", ""]) as process:
        pass

    tree.send(process.pid, 0)


def test_killing_ends_when_nothing_new_appears_or_after_enough_rounds() -> None:
    assert tree.kill_all(set) == set()

    with subprocess.Popen([sys.executable, "-ISc", "input()"], stdin=subprocess.PIPE) as process:
        assert tree.kill_all(lambda: {process.pid}) == {process.pid}
        assert process.wait(10) == -9
