"""Any OpenAI-compatible server: attach only, and only what every such server knows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pytest_llmparity.core.errors import AnswerError, EngineError, ProtocolError, Timeout, Unreachable
from pytest_llmparity.core.sample import Fact
from pytest_llmparity.engines import recognise
from pytest_llmparity.engines.facts.values import count, facts, fingerprint, mapping
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import API, Reply
from pytest_llmparity.settings.selection import ANSWERS
from pytest_llmparity.settings.specification import Route

_NO_LIST = re.compile(r" says (404|405|501|200 without a list)\b")


class OpenAIAdapter(Adapter):
    """A server about which nothing is assumed but ``/v1/models`` and ``/v1/chat/completions``.

    It gets the sampling fields of OpenAI's own API. ``top_k``, ``min_p`` and ``repetition_penalty`` have no field
    there: neutral ones are left out of greedy requests and recorded, others are refused before anything is sent.
    """

    kind: ClassVar[str] = "openai"
    routes: ClassVar[tuple[Route, ...]] = ANSWERS
    local_model: ClassVar[bool] = False
    health_path: ClassVar[str] = "/v1/models"

    def ready(self) -> str | None:
        """Return ``None`` when it answers; a server without a list of models is ready too, the warm-up will tell more.

        Where the address does not say what the routes start with, and no list is below ``/v1``, one is looked for at
        the address itself.
        """
        missing = super().ready()
        if missing is None or not missing.startswith("GET ") or not _NO_LIST.search(missing):
            return missing
        if self.spec.api is None and self.api == API:
            there = dataclasses.replace(self.control, api="").get(self.health_path)
            if there.status in (401, 403) or isinstance(there.json().get("data"), list):
                self.api = ""
                return super().ready()
        return None

    def warm_up(self) -> None:
        """Ask for one token and drop it; where there is no such route below ``/v1``, at the address itself."""
        try:
            super().warm_up()
        except AnswerError as error:
            if self.spec.api is not None or self.api != API or error.status not in (404, 405):
                raise
            self.api = ""
            try:
                super().warm_up()
            except EngineError:
                self.api = API
                raise error from None

    def _impostor(self, reply: Reply) -> str | None:
        """Take a page that is no list of models (a web application answers every path) for a missing route."""
        return None if isinstance(reply.json().get("data"), list) else "GET says 200 without a list of models"

    def limits(self) -> tuple[str, ...]:
        """Return what OpenAI's API has no field for."""
        return (
            "top_k, min_p and repetition_penalty have no field in OpenAI's API: neutral ones are left out of greedy "
            "requests, and a server whose default is another answers by that.",
        )

    def reported(self) -> dict[str, Fact]:
        """Return the model's entry, its context if the server says so, and what the address looks like."""
        entry = self._entry()
        build, configuration = fingerprint(self._fingerprint)
        return (
            facts({"model": entry.get("id")})
            | facts({"build": build, "configuration": configuration}, raw="system_fingerprint")
            | self._context(entry)
            | self._seen_as()
        )

    def _context(self, entry: Mapping[str, Any]) -> dict[str, Fact]:
        for name in ("max_model_len", "context_length", "context_window", "max_request_context_length"):
            # Ray Serve LLM keeps its own below "metadata".
            if length := count(entry.get(name)) or count(mapping(entry.get("metadata")).get(name)):
                return facts({"context_length": length}, raw=name)
        return {}

    def _seen_as(self) -> dict[str, Fact]:
        """Return what the server looks like, where it gives itself away; ``raw`` says it in words."""
        if not self.recognised:
            try:
                self.recognised = recognise.seen(self.control)
            except (Unreachable, Timeout, ProtocolError):
                return {}
        if self.recognised == recognise.GENERIC:
            return {}
        about = recognise.OTHERS.get(self.recognised, f"kind {self.recognised} would fit it")
        return facts({"recognised": self.recognised}, raw=about)
