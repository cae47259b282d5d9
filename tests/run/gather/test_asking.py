"""A server that goes away while it is asked: who is waited for, how long, and what is written down of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmparity.core.errors import Unreachable
from pytest_llmparity.engines import registry
from pytest_llmparity.run.gather.asking import Absences
from pytest_llmparity.run.ledger import Ledger
from pytest_llmparity.run.records import Engaged, record_of
from pytest_llmparity.settings.specification import EngineSpec, Settings

ATTACHED = EngineSpec(name="a", kind="openai", model="m", base_url="http://127.0.0.1:9", reconnect_s=7.0)


@pytest.mark.parametrize("another", [None, "a came back as another engine"])
async def test_an_attached_server_is_waited_for_and_what_became_of_it_is_written_down(another: str | None) -> None:
    waited: list[tuple[str, float]] = []

    def hold_again(name: str, within_s: float, stop: Callable[[], str | None]) -> str | None:
        waited.append((name, within_s))
        return another

    record = record_of(ATTACHED)
    ledger = Ledger(Settings(engines=(ATTACHED,)))
    ledger.engines["a"] = record
    engaged = Engaged(record=dataclasses.replace(record, incomparable=another))
    fleet: Any = SimpleNamespace(hold_again=hold_again, known=lambda name: engaged)
    absences = Absences(fleet, ledger)
    watch = absences.watch(registry.make(ATTACHED, "http://127.0.0.1:9", environ={}))
    assert watch is not None

    restarted = await watch.restarted(Unreachable("nobody is there"), 0)
    absences.came_back("a", watch)

    assert waited == [("a", 7.0)]
    assert restarted is (another is None)
    assert ledger.engines["a"].incomparable == another
    assert [note.partition(":")[0] for note in ledger.notes] == ["a restarted while it was asked"] * (another is None)


def test_a_process_of_ours_that_ends_is_not_waited_for() -> None:
    spec = dataclasses.replace(ATTACHED, launch="process")
    fleet: Any = None

    assert Absences(fleet, Ledger(Settings())).watch(registry.make(spec, "http://127.0.0.1:9", environ={})) is None
