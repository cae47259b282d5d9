"""Where an Ollama says that the weights of a model lie."""

from __future__ import annotations

import json
from pathlib import Path

from pytest_llmparity.engines.kinds.ollama import about


def test_the_blob_is_the_one_that_the_modelfile_names(wire: Path) -> None:
    recorded = json.loads((wire / "ollama/show.json").read_text("utf-8"))
    show = json.loads("".join(text for _, text in recorded["response"]["pieces"]))

    path = about.blob(show)

    assert path is not None
    assert path.parent == Path("/usr/share/ollama/.ollama/models/blobs")
    assert path.name.startswith("sha256-815fdd67f88b")
    assert about.weights(show) == path.name.replace("-", ":", 1)


def test_a_model_that_names_no_blob_has_none() -> None:
    assert about.blob({"modelfile": "FROM tiny:q4_k_m\nTEMPLATE x\n"}) is None
    assert about.blob({}) is None
