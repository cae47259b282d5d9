"""The real xllamacpp, installed by the real uv from an index, answers; the second run installs nothing."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from pytest_llmparity.engines.start.environments import FOLDER_VARIABLE
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.records import Engaged
from pytest_llmparity.settings.specification import EngineSpec
from tests.live.conftest import MODELS
from tests.unavailable import unavailable

pytestmark = pytest.mark.live

NO_INDEX = ("Failed to fetch", "dns error", "Network connectivity is disabled")
SPEC = EngineSpec(
    name="here",
    kind="llamacpp",
    launch="process",
    model="tiny-Q8_0.gguf",
    model_path=MODELS / "tiny-Q8_0.gguf",
    requires=("xllamacpp>=2026.10",),
    args=("--threads", "1"),
    context_length=256,
    slots=1,
)


def engage(folder: Path, spec: EngineSpec) -> Engaged:
    keeper = Keeper.spawn(folder / ".llmparity")
    try:
        fleet = Fleet(
            {spec.name: spec},
            keeper=lambda: keeper,
            workdir=folder / ".llmparity",
            # No llama-server of this machine: what answers has to come out of the environment.
            environ={**os.environ, FOLDER_VARIABLE: str(folder / "environments")},
        )
        engaged = fleet.engage(spec.name)
        if engaged.record.error and any(words in engaged.record.error for words in NO_INDEX):
            unavailable("environments", f"no index can be reached: {engaged.record.error}")
        return engaged
    finally:
        keeper.close()


def test_an_engine_is_installed_started_and_known_by_its_version(tmp_path: Path) -> None:
    limits = tmp_path / "limits.txt"
    limits.write_text("xllamacpp<2027\n")

    first = engage(tmp_path, dataclasses.replace(SPEC, constraints=limits))
    again = engage(tmp_path, dataclasses.replace(SPEC, constraints=limits))

    assert (first.record.error, again.record.error) == (None, None)
    (note,) = first.record.notes
    assert note.startswith("here: requires was installed in ")
    assert again.record.notes == ()
    version = first.record.identity.facts["version"]
    assert str(version.value).startswith("2026.")
    assert version.source == "file"
    assert first.record.identity.get("quantization") == again.record.identity.get("quantization") == "Q8_0"
    (environment,) = (tmp_path / "environments").glob("xllamacpp-*/env-*")
    assert list(environment.glob("lib/python*/site-packages/xllamacpp/*.so"))
