"""Any OpenAI-compatible server: attach only, and only what every such server knows."""

from __future__ import annotations

from typing import ClassVar

from pytest_llmparity.core.errors import ProtocolError, Timeout, Unreachable
from pytest_llmparity.core.sample import Fact
from pytest_llmparity.engines import probe
from pytest_llmparity.engines.base import Adapter

_NO_LIST = tuple(f"GET /v1/models says {status}" for status in (404, 405, 501))


class OpenAIAdapter(Adapter):
    """A server about which nothing is assumed but ``/v1/models`` and ``/v1/chat/completions``.

    It gets the sampling fields of OpenAI's own API. ``top_k``, ``min_p`` and ``repetition_penalty`` have no field
    there: neutral ones are left out of greedy requests and recorded, others are refused before anything is sent.
    """

    kind: ClassVar[str] = "openai"
    local_model: ClassVar[bool] = False
    health_path: ClassVar[str] = "/v1/models"

    def ready(self) -> str | None:
        """Return ``None`` when it answers; a server without ``/v1/models`` is ready too, the warm-up will tell more."""
        said = super().ready()
        return None if said is not None and said.startswith(_NO_LIST) else said

    def limits(self) -> tuple[str, ...]:
        """Return what OpenAI's API has no field for."""
        return (
            "top_k, min_p and repetition_penalty have no field in OpenAI's API: neutral ones are left out of greedy "
            "requests, and a server whose default is another answers by that.",
        )

    def reported(self) -> dict[str, Fact]:
        """Return the model's entry, its context if the server says so, and what the address looks like."""
        entry = self._entry()
        facts: dict[str, Fact] = {}
        if isinstance(entry.get("id"), str):
            facts["model"] = Fact(value=entry["id"], source="reported")
        about = entry.get("metadata")
        for name in ("max_model_len", "context_length", "context_window", "max_request_context_length"):
            # Ray Serve LLM keeps its own below "metadata".
            value = entry.get(name) or (about.get(name) if isinstance(about, dict) else None)
            if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                facts["context_length"] = Fact(value=value, source="reported", raw=name)
                break
        if self._fingerprint:
            facts["build"] = Fact(value=self._fingerprint, source="reported", raw="system_fingerprint")
        return facts | self._looks()

    def _looks(self) -> dict[str, Fact]:
        """Return what the server looks like, where it gives itself away; ``raw`` says it in words."""
        if not self.recognised:
            try:
                self.recognised = probe.look(self.control)
            except (Unreachable, Timeout, ProtocolError):
                return {}
        if self.recognised == probe.GENERIC:
            return {}
        said = probe.LOOKS.get(self.recognised, f"kind {self.recognised} would fit it")
        return {"recognised": Fact(value=self.recognised, source="reported", raw=said)}
