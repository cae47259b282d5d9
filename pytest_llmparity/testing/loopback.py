"""An inference engine a test controls: real HTTP, OpenAI's shapes, answers and faults by script."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from pytest_llmparity.testing.script import Fault, Reply, babble, drifted, prompt_of, split_tokens
from pytest_llmparity.testing.server import Call, Hangup, LoopbackServer

Scripted = str | Reply | Fault
Script = Callable[[Mapping[str, Any]], Scripted]


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """One generation request that arrived: its path, headers (lower-case names), raw body and decoded JSON."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    json: Mapping[str, Any]


class LoopbackEngine(LoopbackServer):
    """An OpenAI-compatible engine on 127.0.0.1, used as a context manager.

    ``answer`` is what it says: a text, a :class:`Reply`, a :class:`Fault`, or a function from the decoded request to
    one of these; ``None`` babbles, a deterministic text that depends on the prompt. ``drift`` is the probability per
    token of another word, decided by ``seed``: the same request always drifts the same way. ``noise`` is the same,
    decided anew for each request, so the engine does not repeat itself. ``poses_as`` adds what vLLM or llama.cpp are
    recognised by. A prompt longer than ``context_length`` words is refused as llama.cpp does. With ``api_key`` other
    keys get 401. Delays are seconds. Tokens are words; a streamed one is one event. ``requests`` holds what was asked,
    ``peak`` the most at once. ``script`` (the answer) and ``accepting`` may be changed while it runs.
    """

    def __init__(
        self,
        answer: Scripted | Script | None = None,
        *,
        model: str = "loopback",
        poses_as: Literal["openai", "vllm", "llamacpp"] = "openai",
        drift: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        first_delay_s: float = 0.0,
        token_delay_s: float = 0.0,
        context_length: int = 4096,
        slots: int = 4,
        quantization: str = "F16",
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.script = answer
        self.model = model
        self.poses_as = poses_as
        self.drift = drift
        self.noise = noise
        self.seed = seed
        self.first_delay_s = first_delay_s
        self.token_delay_s = token_delay_s
        self.context_length = context_length
        self.slots = slots
        self.quantization = quantization
        self.api_key = api_key
        self.peak = 0
        self._lock = threading.Lock()
        self._in_flight = 0
        self._received: list[Received] = []
        self._seen: dict[str, int] = {}

    @property
    def requests(self) -> tuple[Received, ...]:
        """Generation requests in the order they arrived."""
        with self._lock:
            return tuple(self._received)

    @property
    def count(self) -> int:
        """How many generation requests arrived."""
        return len(self.requests)

    def answer(self, call: Call) -> None:
        """Answer one request: the control routes, or a generation by script."""
        path = call.path.partition("?")[0]
        if call.method == "POST" and path in ("/v1/chat/completions", "/v1/completions"):
            with self._counted():
                self._generate(call, path)
            return
        found = self._control().get(path)
        if found is None or call.method != "GET":
            call.send(404, _dump({"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}))
        else:
            call.send(200, _dump(found), {"server": "llama.cpp"} if self.poses_as == "llamacpp" else None)

    def _control(self) -> dict[str, object]:
        owner = {"openai": "loopback", "vllm": "vllm", "llamacpp": "llamacpp"}[self.poses_as]
        entry: dict[str, object] = {"id": self.model, "object": "model", "owned_by": owner}
        routes: dict[str, object] = {"/health": {"status": "ok"}, "/v1/models": {"object": "list", "data": [entry]}}
        if self.poses_as == "vllm":
            entry |= {"root": self.model, "max_model_len": self.context_length}
            routes["/version"] = {"version": "0.0.0+loopback"}
        if self.poses_as == "llamacpp":
            entry["meta"] = {"n_ctx": self.context_length, "ftype": self.quantization}
            routes["/props"] = {
                "model_path": self.model,
                "model_alias": self.model,
                "model_ftype": self.quantization,
                "build_info": "b0-loopback",
                "total_slots": self.slots,
                "chat_template": "{{ messages }}",
                "default_generation_settings": {"n_ctx": self.context_length},
            }
        return routes

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self._in_flight += 1
            self.peak = max(self.peak, self._in_flight)
        try:
            yield
        finally:
            with self._lock:
                self._in_flight -= 1

    def _generate(self, call: Call, path: str) -> None:
        try:
            request = json.loads(call.body)
        except ValueError as exc:
            call.send(400, _dump({"error": {"message": str(exc), "type": "invalid_request_error", "code": 400}}))
            return
        digest = hashlib.sha256(call.body).hexdigest()
        with self._lock:
            self._received.append(Received(path=path, headers=call.headers, body=call.body, json=request))
            earlier = self._seen[digest] = self._seen.get(digest, 0) + 1
            number = len(self._received)
        refusal = self._refusal(call, request)
        if refusal is not None:
            call.send(*refusal)
            return
        script = self.script(request) if callable(self.script) else self.script
        if isinstance(script, Fault):
            self._fault(call, request, script, earlier)
            return
        if script is None or isinstance(script, str):
            tokens = self._tokens(request, script, number)
            reply = Reply(first_delay_s=self.first_delay_s, token_delay_s=self.token_delay_s)
        else:
            tokens, reply = self._tokens(request, script.text, number), script
        self._say(call, _Speech(self, request, reply, tokens, chat=path.endswith("chat/completions")))

    def _refusal(self, call: Call, request: Mapping[str, Any]) -> tuple[int, bytes] | None:
        if self.api_key is not None and call.headers.get("authorization") != f"Bearer {self.api_key}":
            return 401, _dump({"error": {"message": "Invalid API key", "type": "authentication_error", "code": 401}})
        words = len(prompt_of(request).split())
        if words > self.context_length:
            said = f"request ({words} tokens) exceeds the available context size ({self.context_length} tokens)"
            return 400, _dump({"error": {"message": said, "type": "exceed_context_size_error", "code": 400}})
        return None

    def _tokens(self, request: Mapping[str, Any], text: str | None, number: int) -> list[str]:
        prompt = prompt_of(request)
        seed = self.seed
        if text is None:
            length = 24 + sum(prompt.encode("utf-8", "replace")) % 24
            tokens = babble(prompt, length=length, drift=self.drift, seed=seed)
        else:
            tokens = drifted(split_tokens(text), prompt, drift=self.drift, seed=seed)
        return drifted(tokens, prompt, drift=self.noise, seed=f"{seed}/{number}")

    def _say(self, call: Call, speech: _Speech) -> None:
        call.wait(speech.reply.first_delay_s)
        if not speech.streamed:
            call.wait(speech.reply.token_delay_s * len(speech.tokens))
            call.send(200, _dump(speech.document()))
            return
        call.begin()
        for event in speech.events():
            call.chunk(event)
            call.wait(speech.reply.token_delay_s)
        call.chunk(b"data: [DONE]\n\n")
        call.end()

    def _fault(self, call: Call, request: Mapping[str, Any], fault: Fault, times: int) -> None:
        reply = fault.reply
        if fault.kind == "echo-key":
            reply = Reply(text=f"you sent {call.headers.get('authorization', 'no key')}")
        elif fault.kind == "empty":
            reply = Reply(finish_reason="stop")
        speech = _Speech(self, request, reply, split_tokens(reply.text), chat="chat" in call.path)
        if fault.kind in ("status", "html") or (fault.kind == "busy" and times <= fault.count):
            kind = "text/html" if fault.kind == "html" else "application/json"
            call.send(fault.status, fault.body, {"content-type": kind, **fault.headers})
        elif fault.kind in ("busy", "echo-key", "empty"):
            self._say(call, speech)
        elif fault.kind == "close":
            raise Hangup
        elif fault.kind == "truncated-json":
            whole = _dump(speech.document())
            call.send(200, whole[: len(whole) // 2])
        elif fault.kind == "invalid-utf8":
            whole = b"".join(speech.events()) if speech.streamed else _dump(speech.document())
            kind = "text/event-stream" if speech.streamed else "application/json"
            call.send(200, whole.replace(b"well", b"w\xffll"), {"content-type": kind})
        else:
            self._break_off(call, speech, fault)

    def _break_off(self, call: Call, speech: _Speech, fault: Fault) -> None:
        """Send the first tokens of a stream, then the fault."""
        if fault.kind == "hang" and fault.count == 0:
            call.wait(None)
        call.begin()
        for event in list(speech.events())[: fault.count + 1]:  # one more: the first event carries only the role
            call.chunk(event)
        if fault.kind == "hang":
            call.wait(None)
        if fault.kind == "error-event":
            call.chunk(b'data: {"error":{"message":"the script broke off","type":"server_error","code":500}}\n\n')
        if fault.kind == "half-stream" and fault.status == 0:
            raise Hangup
        call.end()


class _Speech:
    """One answer in OpenAI's shapes, whole or as events."""

    def __init__(
        self, engine: LoopbackEngine, request: Mapping[str, Any], reply: Reply, tokens: Sequence[str], *, chat: bool
    ) -> None:
        limit = request.get("max_tokens", request.get("max_completion_tokens"))
        kept = list(tokens) if not isinstance(limit, int) else list(tokens[:limit])
        cut = len(kept) < len(tokens)
        wanted = request.get("stop") or ()
        stops = [stop for stop in ([wanted] if isinstance(wanted, str) else wanted) if stop in "".join(kept)]
        if stops:
            text = "".join(kept)
            kept, cut = split_tokens(text[: min(text.index(stop) for stop in stops)]), False
        self.engine = engine
        self.request = request
        self.reply = reply
        self.tokens = kept
        self.chat = chat
        self.streamed = bool(request.get("stream"))
        self.finish = reply.finish_reason or ("length" if cut else "tool_calls" if reply.tool_calls else "stop")

    def document(self) -> dict[str, object]:
        """Return the unstreamed answer."""
        text = "".join(self.tokens)
        choice: dict[str, object] = {"index": 0, "finish_reason": self.finish, "logprobs": self._logprobs(self.tokens)}
        if self.chat:
            message: dict[str, object] = {"role": "assistant", "content": text}
            if self.reply.reasoning:
                message["reasoning_content"] = self.reply.reasoning
            if self.reply.tool_calls:
                message["tool_calls"] = self._tool_calls()
            choice["message"] = message
        else:
            choice["text"] = text
        return {**self._frame([choice]), "usage": self._usage()}

    def events(self) -> Iterator[bytes]:
        """Yield the stream's events up to ``[DONE]``, one per token."""
        if self.chat:
            yield self._event({"role": "assistant", "content": ""})
        if self.reply.reasoning:
            for token in split_tokens(self.reply.reasoning):
                yield self._event({"reasoning_content": token})
        for token in self.tokens:
            yield self._event({"content": token}, token)
        for call in self._tool_calls():
            yield self._event({"tool_calls": [call]})
        yield self._event({}, finish=self.finish)
        options = self.request.get("stream_options")
        if isinstance(options, dict) and options.get("include_usage"):
            yield _data({**self._frame([]), "usage": self._usage()})

    def _event(self, delta: dict[str, object], token: str | None = None, finish: str | None = None) -> bytes:
        choice: dict[str, object] = {"index": 0, "finish_reason": finish}
        choice |= {"delta": delta} if self.chat else {"text": delta.get("content", "")}
        if token is not None:
            choice["logprobs"] = self._logprobs([token])
        return _data(self._frame([choice]))

    def _frame(self, choices: list[dict[str, object]]) -> dict[str, object]:
        kind = "chat.completion" if self.chat else "text_completion"
        return {
            "id": "loopback-1",
            "object": f"{kind}.chunk" if self.chat and self.streamed else kind,
            "created": 0,
            "model": self.engine.model,
            "system_fingerprint": "loopback",
            "choices": choices,
        }

    def _usage(self) -> dict[str, object]:
        prompt = len(prompt_of(self.request).split())
        made = len(self.tokens) + len(split_tokens(self.reply.reasoning)) + len(self.reply.tool_calls)
        return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}

    def _tool_calls(self) -> list[dict[str, object]]:
        return [
            {"index": place, "id": f"call-{place}", "type": "function", "function": {"name": name, "arguments": args}}
            for place, (name, args) in enumerate(self.reply.tool_calls)
        ]

    def _logprobs(self, tokens: Sequence[str]) -> dict[str, object] | None:
        if self.request.get("logprobs") in (None, False):
            return None
        entries = []
        for token in tokens:
            entry = {
                "token": token,
                "bytes": list(token.encode("utf-8", "replace")),
                "logprob": self.reply.logprob,
            }
            entries.append({**entry, "top_logprobs": [entry]})
        return {"content": entries}


def _dump(value: object) -> bytes:
    return json.dumps(value).encode()


def _data(value: object) -> bytes:
    return b"data: " + _dump(value) + b"\n\n"
