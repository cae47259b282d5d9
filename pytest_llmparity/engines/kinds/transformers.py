"""Transformers: ``transformers serve`` of a configured interpreter or from PATH, or attached.

It is the reference for a model's text: slow, one request at a time, no logprobs, no forced schema.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import LaunchError, ModelMissing
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion, Fact, Request
from pytest_llmparity.engines.facts import files
from pytest_llmparity.engines.start import hub, program
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import Adapter, Launch
from pytest_llmparity.engines.wire.refusals import read_refusal, worded
from pytest_llmparity.settings.specification import EngineSpec

DEADLINE_S: Final = 600.0
"""Importing torch and reading the weights; ``transformers serve`` has no limit of its own."""

_INSTALL: Final = (
    'Give requires = ["transformers[serving]==…", "torch", "accelerate"] to have it installed in an environment of its '
    'own, python = "…/bin/python" of one that has it, or base_url of a running server.'
)
_CONFIGURED: Final = ("top_k", "min_p", "repetition_penalty")
"""Fields of ``GenerationConfig`` that the route has no name for; they go in as its JSON text."""
_IGNORED: Final = ("presence_penalty", "frequency_penalty")
_BITS: Final = {"bnb-4bit": "NF4", "bnb-8bit": "INT8"}


class TransformersAdapter(Adapter):
    """One ``transformers serve``, pinned to one model.

    A positive temperature alone does not make it sample, and it has no fields for top_k, min_p and the repetition
    penalty, so every request carries a ``generation_config``; what that leaves out comes from the model's own.
    """

    kind: ClassVar[str] = "transformers"
    distributions: ClassVar[tuple[str, ...]] = ("transformers",)
    fields: ClassVar[Mapping[str, str]] = build.EVERY_SERVER | {name: name for name in _CONFIGURED}
    # Token counts come with the last event unasked, and stream_options would only be warned about.
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True}
    declares: ClassVar[Capabilities] = Capabilities(
        logprobs=False,
        token_ids=False,
        json_schema=False,
        raw_prompt=True,
        unknown_fields="refused",
        overflow="answered uncut",
    )

    @classmethod
    def wire_model(cls, spec: EngineSpec) -> str:
        """Return what a pinned server insists on: the folder's name (see :meth:`launch`), else ``ID@REVISION``."""
        if spec.launch != "process":
            return spec.model or ""
        if spec.model_path is not None:
            return spec.model_path.name
        return f"{spec.model or ''}@{spec.revision}" if spec.revision is not None else spec.model or ""

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's model, loaded before the server listens, torch seeded with 0.

        ``spec.command``, else ``transformers`` beside ``spec.python``, else from PATH. A local folder is served by its
        name from its parent folder, because the name given here is the one every request has to carry.
        """
        if spec.context_length is not None or spec.slots is not None:
            raise LaunchError(
                f"{spec.name}: transformers serve has no limit of context and no slots; leave context_length and slots "
                "out.",
                engine=spec.name,
            )
        folder = spec.model_path
        if folder is None:
            hub.served(spec, environ)
        elif not folder.is_dir():
            raise LaunchError(
                f"{spec.name}: transformers serve takes a Hugging Face folder, and {str(folder)!r} is none.",
                engine=spec.name,
            )
        argv = program.program(spec, environ, command="transformers", install=_INSTALL)
        flags = ["--host", "127.0.0.1", "--port", str(port), "--default-seed", "0"]
        if not program.gpu_visible(environ):
            flags += ["--device", "cpu"]
        return Launch(
            argv=(*argv, "serve", cls.wire_model(spec), *flags, *spec.args),
            env=({} if spec.download else dict(hub.OFFLINE)) | dict(spec.env),
            cwd=workdir if folder is None else folder.parent,
            deadline_s=spec.start_timeout_s if spec.start_timeout_s is not None else DEADLINE_S,
            grace_s=20.0,
        )

    def limits(self) -> tuple[str, ...]:
        """Return what ``transformers serve`` ignores or does otherwise (its cli/serving in 5.19, and seen live)."""
        return (
            "response_format, tool_choice and the presence and frequency penalties are ignored, so cases that have "
            "them are not sent",
            "there are no logprobs, not even when they are asked for",
            "a prompt longer than the model was trained for is answered, not refused",
            "a stop string stays at the end of the answer",
            "a seed reseeds the whole process, so sampled answers repeat one at a time only",
        )

    # ---- identity --------------------------------------------------------------------------------------------------

    def trained_context(self) -> int | None:
        """Return what the model's folder says that it was trained for: the server itself has no limit."""
        folder = self._folder()
        return None if folder is None else files.hf_trained(folder)

    def _folder(self) -> Path | None:
        """Return the folder of the model that we started the server with, ``None`` where it is somebody else's."""
        return hub.snapshot(self.spec, {**os.environ, **self.spec.env}) if self.spec.launch == "process" else None

    def from_files(self) -> dict[str, Fact]:
        """Return what the model's folder and the environment say that we started the server with."""
        folder = self._folder()
        if self.spec.launch != "process":
            return {}
        facts = files.hf_facts(folder) if folder is not None else {}
        if folder is not None and (defaults := files.hf_sampling(folder)):
            facts["sampling_defaults"] = Fact(value=defaults, source="file")
        dtype, method = (program.option(self.spec.args, name) for name in ("--dtype", "--quantization"))
        if method is not None:
            value = _BITS.get(method, normalise(method))
            facts["quantization"] = Fact(value=value, source="declared", raw=f"--quantization {method}")
        elif dtype not in (None, "auto"):
            facts["quantization"] = Fact(value=normalise(str(dtype)), source="declared", raw=f"--dtype {dtype}")
        if self.spec.python is not None and not self.spec.command:
            facts |= program.installed(self.spec.python, "transformers")
        return facts

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _sampling_fields(self, request: Request) -> tuple[dict[str, Any], tuple[str, ...]]:
        for name in _IGNORED:
            if value := getattr(request.sampling, name):
                why = f"transformers serve reads no {name} as what it is (cli/serving/chat_completion.py)"
                raise build.refuse(f"{name}={value!r}", why, engine=self.name, case=request.case)
        sent, omitted = super()._sampling_fields(request)
        config = {"do_sample": request.sampling.temperature > 0} | {name: sent.pop(name) for name in _CONFIGURED}
        for name in _IGNORED:
            del sent[name]
        return sent | {"generation_config": json.dumps(config)}, (*omitted, *_IGNORED)

    def _chat_fields(self, request: Request) -> dict[str, Any]:
        why = "transformers serve drops it with a warning in its log (cli/serving/chat_completion.py)"
        if request.response_format is not None and request.response_format.get("type") != "text":
            raise build.refuse("response_format", why, engine=self.name, case=request.case)
        if request.tools and request.tool_choice not in (None, "auto"):
            raise build.refuse("tool_choice", why, engine=self.name, case=request.case)
        fields = build.chat_fields(request)
        return {name: value for name, value in fields.items() if name not in ("response_format", "tool_choice")}

    def _logprob_fields(self, request: Request) -> dict[str, Any]:
        """Ask for none: the server would answer as if nothing had been asked."""
        return {}

    def parse(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer; a pinned server refuses another model with 400."""
        refusal = read_refusal(answer.body) if answer.status == 400 else None
        if refusal is not None and refusal.message.startswith("Server is pinned to"):
            advice = "Give the pinned name as model."
            raise worded(ModelMissing, advice, refusal, status=400, headers=answer.headers, engine=self.name, case=case)
        return super().parse(answer, case=case)
