"""A run that asks a share of the cases: its tests judge nothing, and say who does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.core.words.printable import WIDTH, printable, wrapped

if TYPE_CHECKING:
    from pytest_llmparity.run.session import Session


def set_aside(session: Session, item: pytest.Item, *, gate: bool) -> None:
    """End a test that a shard does not run: its prompts are gathered and judged with those of all shards.

    It fails where an engine could not be asked, because then nothing of it can be judged. A test that asks engines by
    itself has no cases to be dealt out: the first shard runs it.
    """
    shard = session.settings.shard
    if shard is None:
        return
    if gate:
        if missing := session.unusable:
            pytest.fail(f"{shard}: {'; '.join(missing)}", pytrace=False)
        pytest.skip(f"{shard}: gathered, judged by llmparity merge")
    if shard.index > 1 and "llmparity_door" in getattr(item, "fixturenames", ()):
        pytest.skip(f"{shard}: a test without a prompt set runs in shard 1")


def lines(session: Session) -> list[str]:
    """Return what the summary says of a shard that has gathered."""
    shard, run = session.settings.shard, session.run
    if run is None:
        return []
    text = f"{shard}: gathered as run {run}, judged by llmparity merge with the other shards"
    if session.settings.reports:
        text += "; reports are written there: llmparity merge DIR... -- --parity-report ..."
    return wrapped(printable(text), WIDTH, indent="  ")
