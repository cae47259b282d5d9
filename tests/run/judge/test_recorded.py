"""What a stored run says it came to, and what it no longer says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_llmparity.run.judge.recorded import DECISIONS, REPORTED, forget_decisions
from pytest_llmparity.store.runs import Store

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_policy_decided_is_forgotten_and_nothing_else(tmp_path: Path) -> None:
    with Store.open(tmp_path / ".llmparity") as store:
        run, other = (store.begin(plan_hash=name, session=name, version="0").id for name in ("a", "b"))
        for name in (run, other):
            store.put_document(name, DECISIONS, {"policy": "release.toml", "decisions": [{"outcome": "SHIP"}]})
            store.put_document(name, REPORTED, {"verdicts": []})

        forget_decisions(store, run)

        assert store.raw_document(run, DECISIONS) == {}
        assert store.raw_document(run, REPORTED) == {"verdicts": []}
        assert store.raw_document(other, DECISIONS) == {"policy": "release.toml", "decisions": [{"outcome": "SHIP"}]}


def test_a_run_about_which_nothing_was_decided_gets_no_document(tmp_path: Path) -> None:
    with Store.open(tmp_path / ".llmparity") as store:
        run = store.begin(plan_hash="a", session="a", version="0").id

        forget_decisions(store, run)

        assert store.raw_document(run, DECISIONS) is None
