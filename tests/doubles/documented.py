"""Loopback servers that answer what the documentation of TGI and LM Studio says, where no recording could be made.

They are readings, not evidence: what they cannot show is whether a real server does the same. Each method names what it
follows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pytest_llmparity.testing.server import Call, LoopbackServer


class Documented(LoopbackServer):
    """What both have in common: one text for every prompt, a token per word, OpenAI's shapes."""

    model = "tiny"
    fingerprint = ""

    def __init__(self, text: str = "The capital of France is Paris.") -> None:
        super().__init__()
        self.text = text
        self.bodies: list[dict[str, Any]] = []
        """Every JSON body posted, in order."""

    def posted(self, call: Call) -> dict[str, Any]:
        """Return the body, after writing it down."""
        value = json.loads(call.body)
        assert isinstance(value, dict)
        self.bodies.append(value)
        return value

    def tell(self, call: Call, value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with a JSON value."""
        call.send(status, json.dumps(value).encode(), headers)

    def words(self, body: Mapping[str, Any]) -> tuple[list[str], str]:
        """Return the words that fit ``max_tokens`` (the blank belongs to the word behind it), and why they end."""
        every = re.findall(r"\s*\S+", self.text)
        most = body.get("max_tokens", len(every) + 1)
        return every[:most], "length" if len(every) > most else "stop"

    def logprobs(self, words: Sequence[str], top: int | None) -> dict[str, Any] | None:
        """Return the logprobs of a chat answer, ``None`` where none are given."""
        return None

    def complete(self, call: Call, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        """Answer a chat or a raw prompt, streamed if that was asked for."""
        chat = "messages" in body
        words, finish = self.words(body)
        usage = {"prompt_tokens": 9, "completion_tokens": len(words), "total_tokens": 9 + len(words)}
        top = body.get("top_logprobs", 0) if body.get("logprobs") is True else None
        if not body.get("stream"):
            told = self.logprobs(words, top) if chat else None
            part = {"message": {"role": "assistant", "content": "".join(words)}} if chat else {"text": "".join(words)}
            choice = {"index": 0, "finish_reason": finish, "logprobs": told, **part}
            self.tell(call, self._frame(choices=[choice], usage=usage), headers=headers)
            return
        call.begin(200, headers)
        for place, word in enumerate(words):
            part = {"delta": {"role": "assistant", "content": word}} if chat else {"text": word}
            told = self.logprobs([word], top) if chat else None
            end = finish if place == len(words) - 1 else None
            choice = {"index": 0, "finish_reason": end, "logprobs": told, **part}
            self.event(call, self._frame(choices=[choice]))
        if body.get("stream_options", {}).get("include_usage"):
            self.event(call, self._frame(choices=[], usage=usage))
        call.chunk(b"data: [DONE]\n\n")
        call.end()

    def event(self, call: Call, value: object) -> None:
        """Send one event of a stream."""
        call.chunk(b"data: " + json.dumps(value).encode() + b"\n\n")

    def _frame(self, **fields: object) -> dict[str, object]:
        return {"id": "", "created": 0, "model": self.model, "system_fingerprint": self.fingerprint, **fields}


class TgiDouble(Documented):
    """TGI 3.3, after router/src/server.rs, lib.rs and validation.rs of huggingface/text-generation-inference."""

    model = "HuggingFaceTB/SmolLM2-135M-Instruct"
    fingerprint = "3.3.7-native"

    def __init__(self, text: str = "The capital of France is Paris.", *, key: str = "", context: int = 1024) -> None:
        super().__init__(text)
        self.key = key
        self.context = context
        self.healthy = True
        self.overloaded = False
        self.fails_midway = False

    def answer(self, call: Call) -> None:
        """Answer the routes the adapter uses."""
        if call.path == "/health":
            unhealthy = {"error": "unhealthy", "error_type": "healthcheck"}
            call.send(200, b"") if self.healthy else self.tell(call, unhealthy, status=503)
        elif call.path == "/info":
            self.tell(call, self._info())
        elif self.key and call.headers.get("authorization") != f"Bearer {self.key}":
            call.send(401, b"")
        elif call.path == "/v1/models":
            self.tell(call, {"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": self.model}]})
        elif call.path in ("/v1/chat/completions", "/v1/completions"):
            self._generate(call, self.posted(call))
        else:
            call.send(404, b"")

    def _info(self) -> dict[str, object]:
        return {
            "model_id": self.model,
            "model_sha": "12fd25f77366fa6b3b4b768ec3050bf629380bac",
            "model_pipeline_tag": "text-generation",
            "max_concurrent_requests": 128,
            "max_best_of": 2,
            "max_stop_sequences": 4,
            "max_input_tokens": self.context - 1,
            "max_total_tokens": self.context,
            "validation_workers": 2,
            "max_client_batch_size": 4,
            "router": "text-generation-router",
            "version": "3.3.7",
            "sha": "db931fc00000000000000000000000000000feed",
            "docker_label": None,
        }

    def _generate(self, call: Call, body: Mapping[str, Any]) -> None:
        wrong = next(self._wrong(body), None)
        if wrong is not None:
            error = {"error": f"Input validation error: {wrong}", "error_type": "validation"}
            if body.get("stream"):  # a stream has begun by the time the prompt is looked at
                self._broken(call, error)
            else:
                self.tell(call, error, status=422)
        elif self.overloaded:
            self.tell(call, {"error": "Model is overloaded", "error_type": "overloaded"}, status=429)
        elif self.fails_midway:
            failed = {"error": "Request failed during generation: CUDA out of memory", "error_type": "generation"}
            self._broken(call, failed) if body.get("stream") else self.tell(call, failed, status=424)
        else:
            timings = {"total": 51, "validation": 1, "queue": 2, "inference": 48, "per-token": 8}
            names = {"per-token": "x-time-per-token"}
            headers = {names.get(name, f"x-{name}-time"): str(ms) for name, ms in timings.items()}
            headers |= {"x-prompt-tokens": "9", "x-compute-type": "cpu"}
            self.complete(call, body, {"x-compute-type": "cpu"} if body.get("stream") else headers)

    def _wrong(self, body: Mapping[str, Any]) -> Iterator[str]:
        if not 0 < body.get("top_p", 0.5) < 1:
            yield "`top_p` must be > 0.0 and < 1.0"
        if body.get("top_logprobs", 0) > 5:
            yield f"`top_n_tokens` must be >= 0 and <= 5. Given: {body['top_logprobs']}"
        if body.get("model", "tgi") != "tgi":
            yield f"adapter_id {body['model']} not found"
        given = len(json.dumps(body.get("messages", body.get("prompt")))) // 4
        if given >= self.context:
            yield f"`inputs` must have less than {self.context} tokens. Given: {given}"
        wanted = body.get("response_format")
        if wanted is not None and "properties" not in wanted.get("value", {}):
            yield "Grammar must have a 'properties' field"

    def words(self, body: Mapping[str, Any]) -> tuple[list[str], str]:
        """Cut at a stop string, which stays in the text (issue 1724)."""
        words, finish = super().words(body)
        for place, word in enumerate(words):
            if any(stop in word for stop in body.get("stop", ())):
                return words[: place + 1], "stop_sequence"
        raw = "messages" not in body
        return words, "eos_token" if raw and body.get("stream") and finish == "stop" else finish

    def logprobs(self, words: Sequence[str], top: int | None) -> dict[str, Any] | None:
        """Give text and logprob; there are no bytes."""
        if top is None:
            return None
        others = [{"token": f"t{place}", "logprob": -1.0 - place} for place in range(top)]
        return {"content": [{"token": word, "logprob": -0.5, "top_logprobs": others} for word in words]}

    def _broken(self, call: Call, error: Mapping[str, str]) -> None:
        call.begin()
        self.event(call, error)
        call.chunk(b"data: [DONE]\n\n")
        call.end()


class LmStudioDouble(Documented):
    """LM Studio 0.4, after lmstudio.ai/docs/developer (rest, openai-compat); ``old`` is one before 0.4.0.

    Its errors follow lmstudio-bug-tracker: 618 (unknown routes), 189 (formats), 546 and 2256 (prompts too long).
    """

    model = "qwen/qwen3-8b"
    fingerprint = model  # the model's name, nothing more (issue 676)

    def __init__(
        self, text: str = "The capital of France is Paris.", *, old: bool = False, format: str = "gguf"
    ) -> None:
        super().__init__(text)
        self.old = old
        self.format = format
        self.default_context = 4096
        self.loaded: dict[str, int] = {}
        """Loaded instances by identifier, with their context."""

    def answer(self, call: Call) -> None:
        """Answer the routes the adapter uses; any other one is told off with 200."""
        routes = {
            "GET /v1/models": self._list,
            "POST /v1/chat/completions": self._chat,
            "POST /v1/completions": self._chat,
            "POST /api/v0/chat/completions": self._old_chat,
            "GET /api/v0/models": self._old_models,
        }
        if not self.old:
            routes |= {
                "GET /api/v1/models": self._models,
                "POST /api/v1/models/load": self._load,
                "POST /api/v1/models/unload": self._unload,
            }
        route = routes.get(f"{call.method} {call.path}")
        if route is None:
            self.tell(call, {"error": f"Unexpected endpoint or method. ({call.method} {call.path})"})
        else:
            route(call)

    def _list(self, call: Call) -> None:
        self.tell(call, {"object": "list", "data": [{"id": self.model, "object": "model", "owned_by": "organization"}]})

    def _models(self, call: Call) -> None:
        config = {"eval_batch_size": 512, "parallel": 4, "flash_attention": True, "offload_kv_cache_to_gpu": True}
        instances = [{"id": name, "config": config | {"context_length": size}} for name, size in self.loaded.items()]
        quantization = {"name": "Q4_K_M", "bits_per_weight": 4} if self.format == "gguf" else {"name": "4bit"}
        ours: dict[str, object] = {"type": "llm", "publisher": "qwen", "key": self.model, "architecture": "qwen3"}
        ours |= {"quantization": quantization, "format": self.format, "selected_variant": f"{self.model}@q4_k_m"}
        ours |= {"size_bytes": 1, "max_context_length": 32768, "loaded_instances": instances}
        other = {"type": "embedding", "key": "nomic", "loaded_instances": [], "format": "gguf"}
        self.tell(call, {"models": [other, ours]})

    def _load(self, call: Call) -> None:
        body = self.posted(call)
        if body["model"] not in (self.model, f"{self.model}@q4_k_m"):
            self.tell(call, {"error": {"message": f"Model {body['model']} not found", "type": "not_found"}}, status=404)
            return
        name = self.model if self.model not in self.loaded else f"{self.model}:{len(self.loaded) + 1}"
        self.loaded[name] = body.get("context_length", self.default_context)
        answer = {"type": "llm", "instance_id": name, "load_time_seconds": 9.1, "status": "loaded"}
        self.tell(call, answer)

    def _unload(self, call: Call) -> None:
        name = self.posted(call)["instance_id"]
        if self.loaded.pop(name, None) is None:
            self.tell(call, {"error": f"No instance {name}"})
        else:
            self.tell(call, {"instance_id": name})

    def _chat(self, call: Call) -> None:
        body = self.posted(call)
        self.loaded.setdefault(self.model, self.default_context)  # loaded just in time
        given = len(json.dumps(body.get("messages", body.get("prompt")))) // 4
        if body.get("response_format", {}).get("type", "text") not in ("json_schema", "text"):
            self.tell(call, {"error": "'response_format.type' must be 'json_schema' or 'text'"}, status=400)
        elif given >= self.loaded[self.model]:
            message = (
                "The number of tokens to keep from the initial prompt is greater than the context length "
                f"(n_keep: {given}>= n_ctx: {self.loaded[self.model]}). Try to load the model with a larger context "
                "length, or provide a shorter input."
            )
            self.tell(call, {"error": message}, status=400)
        else:
            self.complete(call, body)

    def _old_models(self, call: Call) -> None:
        entry = {"id": self.model, "type": "llm", "compatibility_type": self.format, "quantization": "Q4_K_M"}
        state = {"state": "loaded", "loaded_context_length": 4096} if self.loaded else {"state": "not-loaded"}
        self.tell(call, {"object": "list", "data": [entry | state | {"max_context_length": 32768}]})

    def _old_chat(self, call: Call) -> None:
        self.posted(call)
        runtime = {"name": "llama.cpp-mac-arm64-apple-metal-advsimd", "version": "1.3.0", "supported_formats": ["gguf"]}
        self.tell(call, self._frame(choices=[], stats={"generation_time": 0.954}, runtime=runtime))
