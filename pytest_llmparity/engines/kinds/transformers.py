"""Transformers: ``transformers serve`` of a configured interpreter or from PATH, or attached.

It is the reference for a model's text: slow, one request at a time, no logprobs, no forced schema.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final

from pytest_llmparity.core.errors import ModelMissing
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.quantization import normalise
from pytest_llmparity.core.sample import Fact, JsonObject, Request
from pytest_llmparity.engines.facts import files, serving
from pytest_llmparity.engines.facts.values import facts
from pytest_llmparity.engines.start import hub, inside, program
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.refusals import Meaning
from pytest_llmparity.settings.selection import ANSWERS, HOST_AND_PORT
from pytest_llmparity.settings.specification import EngineSpec, Route

_INSTALL: Final = (
    'Give requires = ["transformers[serving]==…", "torch", "accelerate"] to have it installed in an environment of its '
    'own, python = "…/bin/python" of one that has it, or base_url of a running server.'
)
_CONFIGURED: Final = ("top_k", "min_p", "repetition_penalty")
"""Fields of ``GenerationConfig`` that the route has no name for; they go in as its JSON text."""
_IGNORED: Final = ("presence_penalty", "frequency_penalty")
_DROPPED: Final = "transformers serve drops it with a warning in its log (cli/serving/chat_completion.py)"
_BITS: Final = {"bnb-4bit": "NF4", "bnb-8bit": "INT8"}


class TransformersAdapter(Adapter):
    """One ``transformers serve``, pinned to one model.

    A positive temperature alone does not make it sample, and it has no fields for top_k, min_p and the repetition
    penalty, so every request carries a ``generation_config``; what that leaves out comes from the model's own.
    """

    kind: ClassVar[str] = "transformers"
    listens: ClassVar[tuple[str, ...]] = HOST_AND_PORT
    routes: ClassVar[tuple[Route, ...]] = ANSWERS
    # Importing torch and reading the weights; ``transformers serve`` has no limit of its own.
    deadline_s: ClassVar[float] = 600.0
    grace_s: ClassVar[float] = 20.0
    offline: ClassVar[Mapping[str, str]] = hub.OFFLINE
    hub_models: ClassVar[bool] = True
    distributions: ClassVar[tuple[str, ...]] = ("transformers",)
    fields: ClassVar[Mapping[str, str]] = build.OPEN_SERVERS
    other_samplers: ClassVar[bool] = False  # a greedy request says do_sample false: none of its samplers acts then
    responses_fields: ClassVar[Mapping[str, str]] = {
        name: "max_output_tokens" if name == "max_tokens" else name for name in build.OPEN_SERVERS if name != "stop"
    }
    on_routes: ClassVar[Mapping[Route, Mapping[str, Any]]] = {"responses": {"logprobs": False, "json_schema": False}}
    ignores: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("response_format", "tool_choice", "reasoning_effort", "n"), _DROPPED
    )
    meanings: ClassVar[tuple[Meaning, ...]] = (
        Meaning(400, re.compile(r"\AServer is pinned to"), ModelMissing, "Give the pinned name as model."),
    )
    # Token counts come with the last event unasked, and stream_options would only be warned about.
    stream_fields: ClassVar[Mapping[str, Any]] = {"stream": True}
    serving_flags: ClassVar[Mapping[str, serving.Flag]] = {
        "attention": serving.Flag(options=("--attn-implementation", "--attn_implementation")),
    }
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
        hub_name = spec.launched and spec.model_path is None and spec.revision is not None
        return f"{spec.model or ''}@{spec.revision}" if hub_name else super().wire_model(spec)

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to serve the spec's model, loaded before the server listens, torch seeded with 0.

        ``spec.command``, else ``transformers`` beside ``spec.python``, else from PATH. A local folder is served by its
        name from its parent folder, because the name given here is the one every request has to carry.
        """
        if spec.context_length is not None or spec.slots is not None:
            raise spec.launch_error(
                "transformers serve has no limit of context and no slots; leave context_length and slots out."
            )
        folder = spec.model_path
        if folder is None:
            hub.served(spec, environ)
        elif not folder.is_dir():
            raise spec.launch_error(f"transformers serve takes a Hugging Face folder, and {str(folder)!r} is none.")
        argv = program.program(spec, environ, command="transformers", install=_INSTALL)
        argv += ["serve", cls.wire_model(spec)]
        argv += program.flags(
            {
                "--host": inside.host(spec),
                "--port": port,
                "--default-seed": 0,
                "--device": None if program.sees_gpu(spec, environ) else "cpu",
            }
        )
        return cls.started(spec, workdir if folder is None else folder.parent, argv)

    def limits(self) -> tuple[str, ...]:
        """Return what ``transformers serve`` ignores or does otherwise (its cli/serving in 5.19, and seen live)."""
        return (
            "response_format, tool_choice and the presence and frequency penalties are ignored, so cases that have "
            "them are not sent",
            "max_completion_tokens and n are dropped without a word",
            "there are no logprobs, not even when they are asked for",
            "a prompt longer than the model was trained for is answered, not refused",
            "a stop string stays at the end of the answer",
            "a seed reseeds the whole process, so sampled answers repeat one at a time only",
        )

    # ---- identity --------------------------------------------------------------------------------------------------

    def from_files(self) -> dict[str, Fact]:
        """Return what the model's folder and the environment say that we started the server with."""
        folder, args = self._folder(), self.spec.args
        if not self.ours:
            return {}
        known: dict[str, Fact] = {}
        if folder is not None:
            known = files.hf_facts(folder) | facts({"sampling_defaults": files.hf_sampling(folder)}, source="file")
        dtype, method = (program.option(args, name) for name in ("--dtype", "--quantization"))
        if method is not None:
            value = _BITS.get(method, normalise(method))
            known |= facts({"quantization": value}, source="declared", raw=f"--quantization {method}")
        elif dtype not in (None, "auto"):
            known |= facts({"quantization": normalise(str(dtype))}, source="declared", raw=f"--dtype {dtype}")
        if self.spec.python is not None and not self.spec.command:
            known |= program.installed(self.spec.python, "transformers")
        return known

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _sampling_fields(self, request: Request) -> tuple[JsonObject, tuple[str, ...]]:
        return self._configured(request, *super()._sampling_fields(request))

    def _responses_sampling(self, request: Request) -> tuple[JsonObject, tuple[str, ...]]:
        return self._configured(request, *super()._responses_sampling(request))

    def _configured(
        self, request: Request, sent: JsonObject, omitted: tuple[str, ...]
    ) -> tuple[JsonObject, tuple[str, ...]]:
        """Return sampling fields with those the routes have no names for as a ``generation_config``."""
        for name in _IGNORED:
            if value := getattr(request.sampling, name):
                why = f"transformers serve reads no {name} as what it is (cli/serving/chat_completion.py)"
                raise build.refuse(f"{name}={value!r}", why, engine=self.name, case=request.case)
        config = {"do_sample": request.sampling.temperature > 0} | {name: sent.pop(name) for name in _CONFIGURED}
        for name in _IGNORED:
            del sent[name]
        return sent | {"generation_config": json.dumps(config)}, (*omitted, *_IGNORED)

    def _logprob_fields(self, request: Request) -> JsonObject:
        """Ask for none: the server would answer as if nothing had been asked."""
        return {}
