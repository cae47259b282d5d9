"""An inference engine a test controls: real HTTP, OpenAI's shapes, answers and faults by script."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytest_llmparity.testing.abilities import Abilities
from pytest_llmparity.testing.dialects import DIALECTS, Refusal
from pytest_llmparity.testing.script import Fault, Reply, babble, drifted, prompt_of, split_tokens
from pytest_llmparity.testing.server import Call, Hangup, LoopbackServer
from pytest_llmparity.testing.speech import NativeSpeech, Speech, dump

CHAT, RAW = "/v1/chat/completions", "/v1/completions"
NATIVE = ("/api/chat", "/api/generate")
"""Where Ollama generates in its own shapes."""

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
    one of these; ``None`` babbles, a deterministic text that depends on the prompt (and, where it samples, on the
    request's seed). ``drift`` is the probability per token of another word, decided by ``seed``: the same request
    always drifts the same way. ``noise`` is the same, decided anew for each request, so the engine does not repeat
    itself. ``poses_as`` is a kind: the engine says of itself what such a server says, with its names for things, its
    errors and (``ollama``) its own route. A prompt longer than ``context_length`` words is refused as the kind does, if
    it does; ``abilities`` may say otherwise of this and more. With ``api_key`` other keys get 401.
    ``took_ms`` is what the engine says an answer took, in the kind's words. Delays are seconds. Tokens are words; a
    streamed one is one event. ``requests`` holds what was asked, ``peak`` the most at once. ``script`` (the answer),
    ``abilities``, ``loaded`` and ``accepting`` may be changed while it runs.
    """

    def __init__(
        self,
        answer: Scripted | Script | None = None,
        *,
        model: str = "loopback",
        poses_as: str = "openai",
        drift: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        first_delay_s: float = 0.0,
        token_delay_s: float = 0.0,
        context_length: int = 4096,
        slots: int = 4,
        quantization: str = "F16",
        abilities: Abilities | None = None,
        api_key: str | None = None,
        took_ms: float | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        if poses_as not in DIALECTS:
            raise ValueError(f"poses_as is {poses_as!r}; expected one of: {', '.join(sorted(DIALECTS))}")
        self.script = answer
        self.model = model
        self.poses_as = poses_as
        self.dialect = DIALECTS[poses_as]
        self.drift = drift
        self.noise = noise
        self.seed = seed
        self.first_delay_s = first_delay_s
        self.token_delay_s = token_delay_s
        self.context_length = context_length
        self.slots = slots
        self.quantization = quantization
        self.abilities = abilities or Abilities()
        self.api_key = api_key
        self.took_ms = took_ms
        self.loaded = not self.dialect.lazy
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
        if call.method != "POST":
            self._control(call, path)
        elif not self._asked(call, path):
            native = path in NATIVE and self.poses_as == "ollama"
            if not native and path not in (CHAT, RAW):
                self._control(call, path)
                return
            with self._counted():
                self._generate(call, path)

    def _control(self, call: Call, path: str) -> None:
        if self._locked(call) and path not in self.dialect.keyless:
            self._refuse(call, 401, "Invalid API key", "authentication_error")
            return
        found = self.dialect.routes(self).get(path, 404) if call.method == "GET" else 404
        if isinstance(found, int):
            said = "File Not Found" if found == 404 else "Method Not Allowed"
            self._refuse(call, found, said, "not_found_error")
        else:
            call.send(200, found if isinstance(found, bytes) else dump(found), self._headers())

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

    def _asked(self, call: Call, path: str) -> bool:
        """Answer a control question that is asked by POST; tell whether it was one."""
        if self.dialect.asked is None or self._locked(call):
            return False
        try:
            body = json.loads(call.body or b"{}")
        except ValueError:
            return False
        found = self.dialect.asked(self, path, body)
        if found is not None:
            call.send(200, dump(found), self._headers())
        return found is not None

    def _headers(self) -> dict[str, str]:
        return {"server": self.dialect.server} if self.dialect.server else {}

    def _locked(self, call: Call) -> bool:
        return self.api_key is not None and call.headers.get("authorization") != f"Bearer {self.api_key}"

    def _refuse(self, call: Call, *refusal: Any) -> None:
        call.send(refusal[0], dump(self.dialect.shape(*refusal)), self._headers())

    def _generate(self, call: Call, path: str) -> None:
        try:
            request = json.loads(call.body)
        except ValueError as exc:
            self._refuse(call, 400, str(exc), "invalid_request_error")
            return
        digest = hashlib.sha256(call.body).hexdigest()
        with self._lock:
            self._received.append(Received(path=path, headers=call.headers, body=call.body, json=request))
            earlier = self._seen[digest] = self._seen.get(digest, 0) + 1
            number = len(self._received)
        refusal = self._refusal(call, request)
        if refusal is not None:
            self._refuse(call, *refusal)
            return
        request = self.abilities.seen(request, self.context_length)
        script = self.script(request) if callable(self.script) else self.script
        if isinstance(script, Fault):
            self._fault(call, request, path, script, earlier)
            return
        forced = self.abilities.forced(request)
        if forced is not None:
            tokens, reply = split_tokens(forced), Reply()
        elif script is None or isinstance(script, str):
            tokens = self._tokens(request, script, number)
            reply = Reply(first_delay_s=self.first_delay_s, token_delay_s=self.token_delay_s)
        else:
            tokens, reply = self._tokens(request, script.text, number), script
        self._say(call, self._speech(request, path, reply, tokens))

    def _refusal(self, call: Call, request: Mapping[str, Any]) -> Refusal | None:
        if self._locked(call):
            return 401, "Invalid API key", "authentication_error"
        words, too_long = len(prompt_of(request).split()), self.dialect.too_long
        if words > self.context_length and too_long is not None and self.abilities.overflow is None:
            return too_long(words, self.context_length)
        return self.abilities.refusal(request)

    def _speech(self, request: Mapping[str, Any], path: str, reply: Reply, tokens: Sequence[str]) -> Speech:
        kind = NativeSpeech if path in NATIVE else Speech
        return kind(
            request,
            reply,
            tokens,
            model=self.model,
            dialect=self.dialect,
            chat=path in (CHAT, NATIVE[0]),
            took_ms=self.took_ms,
            counted=self.abilities.usage,
        )

    def _tokens(self, request: Mapping[str, Any], text: str | None, number: int) -> list[str]:
        prompt = prompt_of(request)
        seed = self.seed
        if text is None:
            if request.get("temperature"):
                prompt = f"{prompt} sampled with {request.get('seed')}"
            length = 24 + sum(prompt.encode("utf-8", "replace")) % 24
            tokens = babble(prompt, length=length, drift=self.drift, seed=seed)
        else:
            tokens = drifted(split_tokens(text), prompt, drift=self.drift, seed=seed)
        return drifted(tokens, prompt, drift=self.noise, seed=f"{seed}/{number}")

    def _say(self, call: Call, speech: Speech) -> None:
        call.wait(speech.reply.first_delay_s)
        if not speech.streamed:
            call.wait(speech.reply.token_delay_s * len(speech.tokens))
            call.send(200, dump(speech.document()), speech.headers())
            return
        call.begin(headers={"content-type": speech.stream_type})
        for event in speech.events():
            call.chunk(event)
            call.wait(speech.reply.token_delay_s)
        if speech.end:
            call.chunk(speech.end)
        call.end()

    def _fault(self, call: Call, request: Mapping[str, Any], path: str, fault: Fault, times: int) -> None:
        reply = fault.reply
        if fault.kind == "echo-key":
            reply = Reply(text=f"you sent {call.headers.get('authorization', 'no key')}")
        elif fault.kind == "empty":
            reply = Reply(finish_reason="stop")
        speech = self._speech(request, path, reply, split_tokens(reply.text))
        if fault.kind == "missing":
            self._refuse(call, *self.dialect.missing(str(request.get("model"))))
        elif fault.kind in ("status", "html") or (fault.kind == "busy" and times <= fault.count):
            said = self.dialect.shape(fault.status, fault.message, "scripted")
            kind = "text/html" if fault.kind == "html" else "application/json"
            body = dump(said) if fault.body is None else fault.body
            call.send(fault.status, body, {"content-type": kind, **fault.headers})
        elif fault.kind in ("busy", "echo-key", "empty"):
            self._say(call, speech)
        elif fault.kind == "close":
            raise Hangup
        elif fault.kind == "truncated-json":
            whole = dump(speech.document())
            call.send(200, whole[: len(whole) // 2])
        elif fault.kind == "invalid-utf8":
            whole = b"".join(speech.events()) if speech.streamed else dump(speech.document())
            kind = speech.stream_type if speech.streamed else "application/json"
            call.send(200, whole.replace(b"well", b"w\xffll"), {"content-type": kind})
        else:
            self._break_off(call, speech, fault)

    def _break_off(self, call: Call, speech: Speech, fault: Fault) -> None:
        """Send the first tokens of a stream, then the fault."""
        if fault.kind == "hang" and fault.count == 0:
            call.wait(None)
        call.begin(headers={"content-type": speech.stream_type})
        for event in list(speech.events())[: fault.count + 1]:  # one more: the first event may carry only the role
            call.chunk(event)
        if fault.kind == "hang":
            call.wait(None)
        if fault.kind == "error-event":
            call.chunk(speech.error("the script broke off"))
        if fault.kind == "half-stream" and fault.status == 0:
            raise Hangup
        call.end()
