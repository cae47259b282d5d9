"""Sentence embeddings behind the ``Embedder`` port; the heavy library is loaded with the first text."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from pytest_llmparity.core.errors import UsageError

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
"""Used unless ``LLMPARITY_EMBEDDING_MODEL`` names another model or a local folder; ``none`` switches embeddings off."""
BATCH = 8
"""Best size on one core after sorting by length; larger batches lose to padding."""


class SentenceEmbedder:
    """Embeds texts with a sentence-transformers model. Satisfies ``core.ports.Embedder``.

    Nothing is downloaded: the model has to be in the local cache or a folder, because a test run must not fetch
    what nobody asked for. Equal texts are embedded once.
    """

    def __init__(self, model: str = DEFAULT_MODEL) -> None:
        self._model_name = model
        self._vectors: dict[str, tuple[float, ...]] = {}

    @property
    def name(self) -> str:
        """Model name, part of the verdict's words; of a folder only its last part."""
        return os.path.basename(self._model_name.rstrip("/"))

    def embed(self, texts: Sequence[str]) -> Sequence[Sequence[float]]:
        """Return one unit vector per text, in order."""
        missing = sorted({text for text in texts if text not in self._vectors}, key=len)
        if missing:
            vectors = self._model.encode(missing, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
            for text, vector in zip(missing, vectors, strict=True):
                self._vectors[text] = tuple(float(x) for x in vector)
        return [self._vectors[text] for text in texts]

    @functools.cached_property
    def _model(self) -> Any:
        from sentence_transformers import SentenceTransformer

        try:
            return SentenceTransformer(self._model_name, device="cpu", local_files_only=True)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"the embedding model {self._model_name!r} is not on this machine and nothing is downloaded; fetch it "
                "once with `hf download`, or set LLMPARITY_EMBEDDING_MODEL to a local folder, or to none to compare "
                "characters instead"
            ) from error


def default_embedder() -> SentenceEmbedder | None:
    """Return the configured embedder; ``None`` without the ``embeddings`` extra, or when the model is ``none``."""
    model = os.environ.get("LLMPARITY_EMBEDDING_MODEL", DEFAULT_MODEL)
    if model.lower() == "none" or importlib.util.find_spec("sentence_transformers") is None:
        return None
    return SentenceEmbedder(model)
