"""MLX: ``mlx_lm.server`` from PATH or of a configured interpreter, on a Mac or (slowly) on a Linux CPU, or attached."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, TypeAlias

from pytest_llmparity.core.errors import EngineDied, LaunchError, ServerFailure
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.spelling import sampling_defaults
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import NEUTRAL, Completion, Fact, Request, TokenLogprob
from pytest_llmparity.engines.facts import files
from pytest_llmparity.engines.start import hub, program
from pytest_llmparity.engines.wire import build, tokens
from pytest_llmparity.engines.wire.base import Adapter, Launch
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.engines.wire.refusals import read_refusal, worded
from pytest_llmparity.settings.specification import EngineSpec

DEADLINE_S: Final = 600.0
"""Until the weights are loaded: mlx-lm has no limit of its own, and they may be tens of gigabytes on a slow disk."""

ANY_MODEL: Final = "default_model"
"""The name under which ``mlx_lm.server`` answers with the model it was started with (server.py, ModelProvider)."""

OWN_DEFAULTS: Final = {**NEUTRAL, "temperature": 0.0}
"""What a request that says nothing is sampled with, where the command line does not say otherwise (server.py, main)."""

_DEFAULT_FLAGS: Final = {"temperature": "--temp", "top_p": "--top-p", "top_k": "--top-k", "min_p": "--min-p"}
_INSTALL: Final = (
    'Give requires = "mlx-lm==…" (on Linux also "mlx[cpu]") to have it installed in an environment of its own, '
    'python = "…/bin/python" of one that has it, or base_url of a running server.'
)
_FINGERPRINT: Final = re.compile(r"(?P<version>[^-]+)-(?P<mlx>[^-]+)-(?P<platform>.+)-(?P<device>[^-]+)")
"""mlx-lm's version, MLX's version, Python's name of the platform, the device (server.py, get_system_fingerprint)."""
_NO_MODEL: Final = re.compile(
    r"repo id must|repo_?id|on the hub|snapshot folder|no such file|does not exist|repository not found|offline mode"
    r"|no safetensors found|model type .+ not supported|got: connecterror",
    re.IGNORECASE,
)

_Alternative: TypeAlias = tuple[int, str, float]
"""A token that could stand at a position: its id, how the vocabulary spells it, its logprob."""


class MlxAdapter(Adapter):
    """One ``mlx_lm.server``. Asked for another model than its own, it tries to load that one: ours is asked for."""

    kind: ClassVar[str] = "mlx"
    distributions: ClassVar[tuple[str, ...]] = ("mlx-lm",)
    fields: ClassVar[Mapping[str, str]] = build.EVERY_SERVER | {
        "top_k": "top_k",
        "min_p": "min_p",
        "repetition_penalty": "repetition_penalty",
    }
    declares: ClassVar[Capabilities] = Capabilities(
        logprobs=True,
        token_ids=True,
        json_schema=False,
        seed=True,
        raw_prompt=True,
        unknown_fields="dropped",
        overflow="answered uncut",
    )
    # The chosen token is found among the alternatives, where a tie is seen with two of them.
    least_logprobs: ClassVar[int] = 2
    most_logprobs: ClassVar[int | None] = 11

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return the name of whatever the server was started with, unless it is somebody else's and a name was given.

        A path would make request hashes differ between machines.
        """
        return ANY_MODEL if spec.launch == "process" else spec.model or ANY_MODEL

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's model: no prompt cache, stopped by SIGINT, the only signal it handles.

        ``spec.command``, else ``spec.python -m mlx_lm server``, else ``mlx_lm.server`` from PATH. The server takes no
        revision: a cached snapshot is given as the folder it is.
        """
        if spec.context_length is not None:
            raise LaunchError(
                f"{spec.name}: mlx_lm.server has no limit of context, it answers prompts of any length; leave "
                "context_length out.",
                engine=spec.name,
            )
        argv = program.program(spec, environ, command="mlx_lm.server", module="mlx_lm", install=_INSTALL)
        if spec.python is not None and not spec.command:
            argv = [*argv, "server"]
        flags = ["--host", "127.0.0.1", "--port", str(port), "--prompt-cache-size", "0"]
        if spec.slots is not None:
            flags += ["--decode-concurrency", str(spec.slots), "--prompt-concurrency", str(spec.slots)]
        return Launch(
            argv=(*argv, "--model", _model(spec, environ), *flags, *spec.args),
            env=({} if spec.download else dict(hub.OFFLINE)) | dict(spec.env),
            cwd=workdir,
            deadline_s=spec.start_timeout_s if spec.start_timeout_s is not None else DEADLINE_S,
            stop_signal=signal.SIGINT,
        )

    # ---- readiness -------------------------------------------------------------------------------------------------

    def ready(self) -> str | None:
        """Return ``None`` when it listens: its health says nothing about the model, which :meth:`load` waits for.

        Raises ``LaunchError`` when the thread that generates has died, for it never comes back while the server stays.
        """
        said = super().ready()
        if said is not None and said.startswith(f"GET {self.health_path} says 503"):
            raise LaunchError(
                f"{self.name}: mlx_lm.server is up, but what generates in it has died, most often because it could not "
                "load the model; its log has the reason.",
                engine=self.name,
            )
        return said

    def _impostor(self, reply: Reply) -> str | None:
        """Raise when the server names another folder: one that finds its port taken hangs instead of ending."""
        folder = hub.snapshot(self.spec, {**os.environ, **self.spec.env})
        if self.spec.launch != "process" or folder is None:
            return None
        served = self._served_folders()
        if served and str(folder.resolve()) not in served:
            raise self._another(served[0], instead_of=str(folder.resolve()))
        return None

    def _served_folders(self) -> list[str]:
        """Return the folders ``/v1/models`` names: the model of the command line; hub names say what is cached only.

        The answer is 200 and empty where there is no hub cache (server.py, handle_models_request).
        """
        data = self.control.ask("/v1/models").get("data")
        listed = [entry.get("id") for entry in data if isinstance(entry, dict)] if isinstance(data, list) else []
        return [name for name in listed if isinstance(name, str) and Path(name).is_absolute()]

    def load(self) -> None:
        """Wait for the model, which the server reads after it listens, as long as a start may take."""
        limit = self.spec.start_timeout_s if self.spec.start_timeout_s is not None else DEADLINE_S
        self._first_answer(max(limit, self.spec.request_timeout_s))

    def limits(self) -> tuple[str, ...]:
        """Return what ``mlx_lm.server`` ignores or does otherwise (mlx_lm/server.py of 0.32.2, and seen live)."""
        return (
            "response_format and tool_choice are ignored, so cases that have them are not sent",
            "a prompt longer than the model was trained for is answered, not refused",
            "logprobs come with greedy, unstreamed answers only, as coarse as the model's own type",
            "requests with a seed are answered one after another; without one they share batches",
            "the three penalties look at the last 20 tokens; top_p, top_k and min_p come before temperature",
            "a space at the very beginning of an answer is dropped",
        )

    # ---- identity --------------------------------------------------------------------------------------------------

    def declared(self) -> dict[str, Fact]:
        """Return the model's name, for which requests have a stand-in, and its revision."""
        path = self.spec.model_path
        model = path.name if path is not None and self.spec.launch == "process" else self.spec.model
        named = {"model": model, "revision": self.spec.revision}
        return {name: Fact(value=value, source="declared") for name, value in named.items() if value}

    def trained_context(self) -> int | None:
        """Return what the model's folder says that it was trained for: the server itself has no limit."""
        folder = self._folder()
        return None if folder is None else files.hf_trained(folder)

    def _folder(self) -> Path | None:
        """Return the folder of the model that we started the server with, ``None`` where it is somebody else's."""
        return hub.snapshot(self.spec, {**os.environ, **self.spec.env}) if self.spec.launch == "process" else None

    def from_files(self) -> dict[str, Fact]:
        """Return what the model's folder says that we started the server with, and how it samples unasked."""
        folder = self._folder()
        if self.spec.launch != "process":
            return {}
        facts = files.hf_facts(folder) if folder is not None else {}
        if program.option(self.spec.args, "--chat-template"):
            facts.pop("template_sha256", None)
        told = {name: program.option(self.spec.args, flag) or "" for name, flag in _DEFAULT_FLAGS.items()}
        numbers = {name: float(text) for name, text in told.items() if re.fullmatch(r"\d+(\.\d+)?", text)}
        defaults = sampling_defaults(OWN_DEFAULTS | numbers)
        return facts | {"sampling_defaults": Fact(value=defaults, source="declared")}

    def reported(self) -> dict[str, Fact]:
        """Return versions and device out of the fingerprint of the warm-up, and the folder that is served."""
        facts: dict[str, Fact] = {}
        found = _FINGERPRINT.fullmatch(self._fingerprint)
        if found is not None:
            raw = self._fingerprint
            facts["version"] = Fact(value=found["version"], source="reported", raw=raw)
            if self.spec.launch != "process":  # of this machine more is known
                facts["device"] = Fact(value=found["device"], source="reported", raw=raw)
        if self._fingerprint:
            facts["build"] = Fact(value=self._fingerprint, source="reported", raw="system_fingerprint")
        served = self._served_folders()
        if len(served) == 1:
            facts["model"] = Fact(value=Path(served[0]).name, source="reported", raw=served[0])
        return facts

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _chat_fields(self, request: Request) -> dict[str, Any]:
        if request.response_format is not None and request.response_format.get("type") != "text":
            why = "mlx_lm.server has no structured output (mlx-lm issue 1007)"
            raise build.refuse("response_format", why, engine=self.name, case=request.case)
        if request.tools and request.tool_choice not in (None, "auto"):
            why = "mlx_lm.server does not read it (mlx_lm/server.py)"
            raise build.refuse("tool_choice", why, engine=self.name, case=request.case)
        fields = build.chat_fields(request)
        return {name: value for name, value in fields.items() if name not in ("response_format", "tool_choice")}

    def _logprob_fields(self, request: Request) -> dict[str, Any]:
        """Ask in greedy requests only: nothing in the answer says which token was sampled."""
        if request.sampling.temperature > 0:
            return {}
        asked = super()._logprob_fields(request)
        return {"logprobs": True, "top_logprobs": asked["logprobs"]} if request.prompt is not None and asked else asked

    def can_stream(self, request: Request) -> bool:
        """Tell whether this request may be streamed: a stream carries no logprobs."""
        return not self._logprob_fields(request)

    def parse(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer; failures to answer come as 404, and logprobs name the wrong token."""
        if answer.status == 404:
            refusal = read_refusal(answer.body)
            kind = EngineDied if refusal.message == "generation thread died" else ServerFailure
            if refusal.message != "Not Found" and not _NO_MODEL.search(refusal.message):
                advice = "mlx_lm.server says 404 whenever it fails to answer; its log says why."
                raise worded(kind, advice, refusal, status=404, headers=answer.headers, engine=self.name, case=case)
        found = super().parse(answer, case=case)
        if not found.logprobs:
            return found
        return dataclasses.replace(found, logprobs=_chosen(answer.body, found))


def _model(spec: EngineSpec, environ: Mapping[str, str]) -> str:
    served = hub.served(spec, environ)
    folder = hub.snapshot(spec, {**environ, **spec.env})
    if folder is not None:
        return str(folder)
    if spec.revision is not None:
        raise LaunchError(
            f"{spec.name}: mlx_lm.server takes no revision, and {spec.revision!r} of {served!r} is not in the local "
            f"cache; fetch it with: hf download {served} --revision {spec.revision}",
            engine=spec.name,
        )
    return served


def _chosen(body: bytes, found: Completion) -> tuple[TokenLogprob, ...]:
    """Return the greedy tokens with their logprobs, or none when they do not spell the answer.

    ``mlx_lm.server`` names as chosen whatever comes first in an unsorted list of alternatives (server.py,
    generate_response), and shows tokens as the vocabulary spells them. A greedy answer takes the likeliest token, of
    equal ones the one with the smaller id (``mx.argmax``), so the truth is in the list.
    """
    entries = list(_alternatives(body))
    for spelled in tokens.SPELLINGS:
        listed = []
        for tops in entries:
            best = max(tops, key=lambda top: (top[2], -top[0]))
            top = sorted(((spelled(text), value) for _, text, value in tops), key=lambda pair: -pair[1])
            listed.append(TokenLogprob(token=spelled(best[1]), logprob=best[2], top=tuple(top), id=best[0]))
        if _spells(b"".join(token.token for token in listed), found):
            return tuple(listed)
    return ()


def _alternatives(body: bytes) -> Iterator[list[_Alternative]]:
    """Yield each position's alternatives; the first without any ends it."""
    for entry in json.loads(body)["choices"][0]["logprobs"]["content"]:
        tops = entry.get("top_logprobs") if isinstance(entry, dict) else None
        known = [_alternative(top) for top in tops] if isinstance(tops, list) else []
        if not known or None in known:
            return
        yield [top for top in known if top is not None]


def _alternative(top: object) -> _Alternative | None:
    match top:
        case {"id": int(number), "token": str(text), "logprob": float(value)} if math.isfinite(value):
            return number, text, value
        case _:
            return None


def _spells(said: bytes, found: Completion) -> bool:
    """Tell whether tokens hold the answer's channels in order, and nothing more before them than a dropped space."""
    place = 0
    for part in (found.reasoning, found.text):
        at = said.find(part.encode(), place)
        if at < 0 or (at > 1 and not found.reasoning and not found.tool_calls):
            return False
        place = at + len(part.encode())
    return found.finish_reason != "length" or bool(found.reasoning or found.tool_calls) or place == len(said)
