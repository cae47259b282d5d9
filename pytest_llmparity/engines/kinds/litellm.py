"""LiteLLM: its proxy as the target that applications talk to, started with a configuration file or attached.

Behind it is an engine that cannot be seen, so what matters here is that this engine, and nothing else, has answered:
requests ask for no fallback, no cache and no retry, and an answer whose headers say otherwise is an error.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from pytest_llmparity.core.errors import ModelMissing, ParameterNotHonoured, Substituted
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.ports import Answer
from pytest_llmparity.core.sample import Completion, Fact, JsonObject, Request
from pytest_llmparity.engines.facts.values import facts, mapping, mappings
from pytest_llmparity.engines.start import inside, program
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.wire import read, responses
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import Reply
from pytest_llmparity.engines.wire.refusals import Meaning, shown
from pytest_llmparity.settings.selection import ANSWERS, KINDS
from pytest_llmparity.settings.specification import EngineSpec, Route

_INSTALL: Final = (
    'Give requires = "litellm[proxy]==…" to have it installed in an environment of its own, python = "…/bin/python" of '
    "one that has it, or base_url of a running proxy."
)
_CONFIG: Final = ("--config", "-c")
_OWN: Final = {
    # Nothing is fetched that nobody asked for: prices, headers and news come with the package.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    # It refuses to start without a key otherwise (proxy/auth/master_key_boot_check.py); it listens on loopback only.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
}
_CHUNK_MODEL: Final = re.compile(rb'^data: \{[^\n]{0,200}?"model": ?"([^"\n]*)"', re.MULTILINE)


class LiteLlmAdapter(Adapter):
    """One LiteLLM proxy; ``model`` is a ``model_name`` of its configuration."""

    kind: ClassVar[str] = "litellm"
    listens: ClassVar[tuple[str, ...]] = KINDS["litellm"].listens
    routes: ClassVar[tuple[Route, ...]] = ANSWERS
    deadline_s: ClassVar[float] = 120.0  # LiteLLM names no limit; importing it took 8 to 19 s on two cores
    scrub: ClassVar[tuple[str, ...]] = (
        *("LITELLM_MASTER_KEY", "LITELLM_CONFIG_BUCKET_*", "CONFIG_FILE_PATH", "WORKER_CONFIG", "NUM_WORKERS"),
    )
    # Of a stream the whole duration is not known when the headers are written.
    timings: ClassVar[tuple[str, ...]] = ("x-litellm-response-duration-ms", "x-litellm-overhead-duration-ms")
    stream_timings: ClassVar[tuple[str, ...]] = timings[1:]
    meanings: ClassVar[tuple[Meaning, ...]] = (
        Meaning(400, re.compile("Invalid model name"), ModelMissing, "Name a model_name of the proxy's configuration."),
    )
    local_model: ClassVar[bool] = False
    distributions: ClassVar[tuple[str, ...]] = ("litellm",)
    # GET /health asks every model behind it for real.
    health_path: ClassVar[str] = "/health/readiness"
    constants: ClassVar[Mapping[str, Any]] = {
        "disable_fallbacks": True,
        "num_retries": 0,
        "cache": {"no-cache": True, "no-store": True},
    }
    # What llama.cpp needs behind it; others take it too.
    least_logprobs: ClassVar[int] = 1
    # Nothing else is known before the model behind it was asked.
    declares: ClassVar[Capabilities] = Capabilities()

    @classmethod
    def launch(cls, spec: EngineSpec, port: int, workdir: Path, *, environ: Mapping[str, str] = os.environ) -> Launch:
        """Say how to start the proxy with the file that ``args = ["--config", FILE]`` names.

        A relative FILE is looked for in the folder of ``workdir``, pytest's rootdir. The key named by ``api_key_env``
        becomes its master key. ``spec.command``, else ``litellm`` beside ``spec.python``, else from PATH.
        """
        argv = program.program(spec, environ, command="litellm", install=_INSTALL)
        config, others = _config(spec, workdir)
        env = dict(_OWN)
        if spec.api_key_env and environ.get(spec.api_key_env):
            env["LITELLM_MASTER_KEY"] = environ[spec.api_key_env]
        argv += program.flags(
            {
                "--config": inside.place(spec, config, environ),
                "--host": inside.host(spec),
                "--port": port,
                "--num_workers": 1,
            }
        )
        return cls.started(dataclasses.replace(spec, args=others), workdir, argv, env=env, reads=[config])

    def _impostor(self, reply: Reply) -> str | None:
        """Raise when our model is not among those served: the proxy leaves a taken port 4000 for a random one."""
        if self.ours and self.model not in (listed := self._listed()):
            known = ", ".join(shown(name, 80) for name in listed[:20]) or "none"
            raise self.spec.launch_error(
                f"the LiteLLM on its port serves no {self.model!r}, but {known}. Give a model_name of its "
                "configuration as model; if these are not of it, another proxy has the port: start again."
            )
        return None

    def limits(self) -> tuple[str, ...]:
        """Return what a proxy does to requests, as far as it can be known from outside."""
        return (
            "what the engine behind it is and does is declared, not known: attach to it directly to find out",
            "requests are translated for the provider behind; with drop_params it drops what that does not take",
            "several deployments under one model_name take turns, so answers may come from either",
            "over /v1/responses it drops stop and allows 16 tokens where a request allows fewer",
            "requests ask for no fallback, no cache and no retry; an application's requests may get all three",
        )

    # ---- identity --------------------------------------------------------------------------------------------------

    def reported(self) -> dict[str, Fact]:
        """Return the version out of the warm-up's headers, and where the proxy passes our model's requests on to."""
        version = self._warm_headers.get("x-litellm-version")
        entries = mappings(self.control.ask("/model/info").get("data"))
        behind = [_deployment(entry) for entry in entries if entry.get("model_name") == self.model]
        return (
            facts({"version": version}, raw=f"litellm {version}")
            | facts({"upstream": "; ".join(sorted(behind))}, raw="/model/info")
            | facts({"model": self.model if behind else None})
        )

    # ---- the wire --------------------------------------------------------------------------------------------------

    def _responses_sampling(self, request: Request) -> tuple[JsonObject, tuple[str, ...]]:
        if (most := request.sampling.max_tokens) < responses.LEAST_TOKENS:
            raise ParameterNotHonoured(
                f"{self.name} makes max_output_tokens={responses.LEAST_TOKENS} of max_tokens={most} of case "
                f"{request.case!r} over route 'responses' (LiteLLM 1.106). Allow {responses.LEAST_TOKENS} tokens, or "
                "use another route.",
                engine=self.name,
                case=request.case,
            )
        return super()._responses_sampling(request)

    def read(self, answer: Answer, *, case: str) -> Completion:
        """Read a finished answer; ``Substituted`` when it came from a cache or from another model."""
        if answer.status == 200:
            self._substituted(answer, case)
        return super().read(answer, case=case)

    def _substituted(self, answer: Answer, case: str) -> None:
        headers = answer.headers
        substitution = ""
        if (count := headers.get("x-litellm-attempted-fallbacks", "0")) != "0":
            model = headers.get("x-litellm-model-group") or "another model"
            substitution = f"fell back to {model!r} (fallbacks: {shown(count, 8)})"
        elif key := headers.get("x-litellm-cache-key"):
            substitution = f"answered from its cache (key {shown(key, 16)})"
        elif read.is_stream(answer):
            models = dict.fromkeys(name.decode("utf-8", "replace") for name in _CHUNK_MODEL.findall(answer.body))
            if b'"litellm_fallback"' in answer.body or len(models) > 1:
                substitution = (
                    f"fell back in the middle of a stream ({' then '.join(repr(shown(m, 80)) for m in models)})"
                )
        if substitution:
            raise Substituted(
                f"{self.name} {substitution} for case {case!r} instead of asking {self.model!r}. Every request forbids "
                "that (disable_fallbacks, cache); update LiteLLM, or take fallbacks and cache out of its "
                "configuration.",
                engine=self.name,
                case=case,
                status=200,
            )


def _config(spec: EngineSpec, workdir: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the configuration's absolute path and the other arguments; ``LaunchError`` when there is no such file."""
    written = program.option(spec.args, *_CONFIG)
    if written is None:
        raise spec.launch_error(
            'a LiteLLM proxy is started with its configuration; give args = ["--config", "litellm.yaml"] '
            "and a model_name of it as model, or base_url of a running proxy."
        )
    path = (workdir.parent / Path(written).expanduser()).resolve()
    if not path.is_file():
        raise spec.launch_error(
            f"args name the configuration {written!r}, and there is no file {str(path)!r}; write its path "
            "from pytest's rootdir, or an absolute one."
        )
    others, skip = [], False
    for arg in spec.args:
        if skip or arg in _CONFIG:
            skip = not skip
        elif not arg.startswith(tuple(f"{name}=" for name in _CONFIG)):
            others.append(arg)
    return path, tuple(others)


def _deployment(entry: Mapping[str, Any]) -> str:
    """Return one deployment's provider, model and address, without what an address may carry of keys."""
    params = mapping(entry.get("litellm_params"))
    parts = urlsplit(str(params.get("api_base") or ""))
    where = f" at {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if parts.netloc else ""
    return f"{params.get('model', 'an unnamed model')}{where}"
