"""MLX: ``mlx_lm.server`` from PATH or of a configured interpreter, on a Mac or (slowly) on a Linux CPU, or attached."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final, TypeAlias

import msgspec

from pytest_llmparity.core.errors import EngineDied, ServerFailure, UnsupportedParameter
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.spelling import sampling_defaults
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import NEUTRAL, Completion, Fact, JsonObject, Request, TokenLogprob
from pytest_llmparity.engines.facts import files, serving
from pytest_llmparity.engines.facts.values import facts
from pytest_llmparity.engines.start import hub, inside, program
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire import build, tokens
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.engines.wire.refusals import NO_MEDIA, Meaning
from pytest_llmparity.settings.selection import HOST_AND_PORT
from pytest_llmparity.settings.specification import EngineSpec

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
_FAILED: Final = re.compile(
    r"\A(?!Not Found\Z)(?!.*(repo id must|repo_?id|on the hub|snapshot folder|no such file|does not exist"
    r"|repository not found|offline mode|no safetensors found|model type .+ not supported|got: connecterror))",
    re.IGNORECASE | re.DOTALL,
)
"""A 404 that is about neither a route nor a model."""
_LOG: Final = "mlx_lm.server says 404 whenever it fails to answer; its log says why."

_Alternative: TypeAlias = tuple[int, str, float]
"""A token that could stand at a position: its id, how the vocabulary spells it, its logprob."""


class MlxAdapter(Adapter):
    """One ``mlx_lm.server``. Asked for another model than its own, it tries to load that one: ours is asked for."""

    kind: ClassVar[str] = "mlx"
    listens: ClassVar[tuple[str, ...]] = HOST_AND_PORT
    # Until the weights are loaded: mlx-lm has no limit of its own, and they may be tens of gigabytes on a slow disk.
    deadline_s: ClassVar[float] = 600.0
    offline: ClassVar[Mapping[str, str]] = hub.OFFLINE
    hub_models: ClassVar[bool] = True
    stop_signal: ClassVar[int] = signal.SIGINT  # the only one it handles
    distributions: ClassVar[tuple[str, ...]] = ("mlx-lm",)
    fields: ClassVar[Mapping[str, str]] = build.OPEN_SERVERS
    other_samplers: ClassVar[bool] = False  # XTC is there, and off unless a request asks for it (server.py)
    ignores: ClassVar[Mapping[str, str]] = {
        "response_format": "mlx_lm.server has no structured output (mlx-lm issue 1007)",
        "tool_choice": "mlx_lm.server does not read it (mlx_lm/server.py)",
        "n": "mlx_lm.server does not read it (mlx_lm/server.py)",
    }
    meanings: ClassVar[tuple[Meaning, ...]] = (
        Meaning(404, re.compile(r"\Ageneration thread died\Z"), EngineDied, _LOG),
        Meaning(404, NO_MEDIA, UnsupportedParameter, "Leave these parts out of the case."),
        Meaning(404, _FAILED, ServerFailure, _LOG),
    )
    declares: ClassVar[Capabilities] = Capabilities(
        images=False,
        audio=False,
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
    # mlx_lm/server.py: one adapter, one draft model, both off unless named.
    serving_flags: ClassVar[Mapping[str, serving.Flag]] = {
        "adapters": serving.Flag(options=("--adapter-path",), default=serving.NONE, read=serving.paths),
        "speculative": serving.Flag(options=("--draft-model",), default=serving.OFF, read=serving.draft_model),
    }
    most_logprobs: ClassVar[int | None] = 11

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return the name of whatever the server was started with, unless it is somebody else's and a name was given.

        A path would make request hashes differ between machines.
        """
        return ANY_MODEL if spec.launched else spec.model or ANY_MODEL

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's model: no prompt cache, stopped by SIGINT, the only signal it handles.

        ``spec.command``, else ``spec.python -m mlx_lm server``, else ``mlx_lm.server`` from PATH. The server takes no
        revision: a cached snapshot is given as the folder it is.
        """
        if spec.context_length is not None:
            raise spec.launch_error(
                "mlx_lm.server has no limit of context, it answers prompts of any length; leave context_length out."
            )
        argv = program.program(spec, environ, command="mlx_lm.server", module="mlx_lm", install=_INSTALL)
        argv += ["server"] if spec.python is not None and not spec.command else []
        argv += program.flags(
            {
                "--model": _model(spec, environ),
                "--host": inside.host(spec),
                "--port": port,
                "--prompt-cache-size": 0,
                "--decode-concurrency": spec.slots,
                "--prompt-concurrency": spec.slots,
            }
        )
        return cls.started(spec, workdir, argv)

    # ---- readiness -------------------------------------------------------------------------------------------------

    def ready(self) -> str | None:
        """Return ``None`` when it listens: its health says nothing about the model, which :meth:`load` waits for.

        Raises ``LaunchError`` when the thread that generates has died, for it never comes back while the server stays.
        """
        not_yet = super().ready()
        if not_yet is not None and not_yet.startswith(f"GET {self.health_path} says 503"):
            raise self.spec.launch_error(
                "mlx_lm.server is up, but what generates in it has died, most often because it could not "
                "load the model; its log has the reason."
            )
        return not_yet

    def _impostor(self, reply: Reply) -> str | None:
        """Raise when the server names another folder: one that finds its port taken hangs instead of ending."""
        folder = self._folder()
        served = self._served_folders() if folder is not None else []
        if folder is None or not served:
            return None
        contained = self.spec.launch == "container"
        ours = inside.place(self.spec, folder, os.environ) if contained else str(folder.resolve())
        if ours not in served:
            raise self._another(served[0], instead_of=ours)
        return None

    def _served_folders(self) -> list[str]:
        """Return the folders ``/v1/models`` names: the model of the command line; hub names say what is cached only.

        The answer is 200 and empty where there is no hub cache (server.py, handle_models_request).
        """
        return [name for name in self._listed() if Path(name).is_absolute()]

    def load(self) -> None:
        """Wait for the model, which the server reads after it listens, as long as a start may take."""
        self._first_answer(max(self.patience_s(self.spec), self.spec.request_timeout_s))

    def limits(self) -> tuple[str, ...]:
        """Return what ``mlx_lm.server`` ignores or does otherwise (mlx_lm/server.py of 0.32.2, and seen live)."""
        return (
            "response_format and tool_choice are ignored, so cases that have them are not sent; n is dropped",
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
        model = path.name if path is not None and self.ours else self.spec.model
        return facts({"model": model, "revision": self.spec.revision}, source="declared")

    def from_files(self) -> dict[str, Fact]:
        """Return what the model's folder says that we started the server with, and how it samples unasked."""
        folder, args = self._folder(), self.spec.args
        if not self.ours:
            return {}
        known = files.hf_facts(folder) if folder is not None else {}
        if program.option(args, "--chat-template"):
            known.pop("template_sha256", None)
        asked = {name: program.option(args, flag) or "" for name, flag in _DEFAULT_FLAGS.items()}
        numbers = {name: float(text) for name, text in asked.items() if re.fullmatch(r"\d+(\.\d+)?", text)}
        return known | facts({"sampling_defaults": sampling_defaults(OWN_DEFAULTS | numbers)}, source="declared")

    def reported(self) -> dict[str, Fact]:
        """Return versions and device out of the fingerprint of the warm-up, and the folder that is served."""
        known = facts({"build": self._fingerprint}, raw="system_fingerprint")
        if parts := _FINGERPRINT.fullmatch(self._fingerprint):
            # Of this machine more is known than the device's name.
            device = None if self.ours else parts["device"]
            known |= facts({"version": parts["version"], "device": device}, raw=self._fingerprint)
        served = self._served_folders()
        return known | (facts({"model": Path(served[0]).name}, raw=served[0]) if len(served) == 1 else {})

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _logprob_fields(self, request: Request) -> JsonObject:
        """Ask in greedy requests only: nothing in the answer says which token was sampled."""
        if request.sampling.temperature > 0:
            return {}
        asked = super()._logprob_fields(request)
        return {"logprobs": True, "top_logprobs": asked["logprobs"]} if request.prompt is not None and asked else asked

    def _thinking_fields(self, request: Request) -> JsonObject:
        """Say effort to the template: the server has no field for it."""
        return build.effort_to_template(super()._thinking_fields(request), keep=False)

    def can_stream(self, request: Request) -> bool:
        """Tell whether this request may be streamed: a stream carries no logprobs."""
        return not self._logprob_fields(request)

    def read(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer, whose logprobs name the wrong token."""
        completion = super().read(answer, case=case)
        if not completion.logprobs:
            return completion
        return msgspec.structs.replace(completion, logprobs=_chosen(answer.body, completion))


def _model(spec: EngineSpec, environ: Mapping[str, str]) -> str:
    served = hub.served(spec, environ)
    folder = hub.snapshot(spec, hub.environ_of(spec, environ))
    if folder is not None:
        return inside.place(spec, folder, environ)
    if spec.revision is not None:
        raise spec.launch_error(
            f"mlx_lm.server takes no revision, and {spec.revision!r} of {served!r} is not in the local "
            f"cache; fetch it with: hf download {served} --revision {spec.revision}"
        )
    return served


def _chosen(body: bytes, completion: Completion) -> tuple[TokenLogprob, ...]:
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
        if _spells(b"".join(token.token for token in listed), completion):
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


def _spells(spelt: bytes, completion: Completion) -> bool:
    """Tell whether tokens hold the answer's channels in order, and nothing more before them than a dropped space."""
    place = 0
    for part in (completion.reasoning, completion.text):
        at = spelt.find(part.encode(), place)
        if at < 0 or (at > 1 and not completion.reasoning and not completion.tool_calls):
            return False
        place = at + len(part.encode())
    return (
        completion.finish_reason != "length"
        or bool(completion.reasoning or completion.tool_calls)
        or place == len(spelt)
    )
