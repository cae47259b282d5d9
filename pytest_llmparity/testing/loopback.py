"""An inference engine a test controls: real HTTP, OpenAI's shapes, answers and faults by script."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pytest_llmparity.testing.script import Fault, Reply, babble, drifted, prompt_of, split_tokens
from pytest_llmparity.testing.server import Call, Hangup, LoopbackServer
from pytest_llmparity.testing.speech import ResponsesSpeech, Several, Speech, as_chat, dump, error_body

CHAT, RAW, RESPONSES = "/v1/chat/completions", "/v1/completions", "/v1/responses"

Scripted = str | Reply | Fault
Script = Callable[[Mapping[str, Any]], Scripted]
Refusal = tuple[int, str, str]
"""Status, message and type of an error."""


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
    request's seed). To a request with ``n`` it gives so many choices, at most :attr:`most_choices`, and a function is
    called for each, with the number of the choice from 0 as ``"choice"`` in the request. ``drift`` is the probability
    per token of another word, decided by ``seed``: the same request always drifts the same way. ``noise`` is the same,
    decided anew for each request, so the engine does not repeat itself. A prompt longer than ``context_length`` words
    is refused. With ``api_key`` other keys get 401. Delays are seconds. Tokens are words; a streamed one is one event,
    and events without delays leave in one write. ``requests`` holds what was asked, ``peak`` the most at once.
    ``script`` (the answer) and ``accepting`` may be changed while it runs.
    """

    def __init__(
        self,
        answer: Scripted | Script | None = None,
        *,
        model: str = "loopback",
        drift: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        first_delay_s: float = 0.0,
        token_delay_s: float = 0.0,
        context_length: int = 4096,
        api_key: str | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(port)
        self.script = answer
        self.model = model
        self.drift = drift
        self.noise = noise
        self.seed = seed
        self.first_delay_s = first_delay_s
        self.token_delay_s = token_delay_s
        self.context_length = context_length
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
        if call.method != "POST":
            self._control(call, path)
        else:
            try:
                body = json.loads(call.body)
            except ValueError as error:
                body = error
            if self._asked(call, path, body):
                return
            if path not in self.generating:
                self._control(call, path)
                return
            with self._counted():
                self._generate(call, path, body)

    # what other servers do otherwise ----------------------------------------------------------------------------------

    generating: Sequence[str] = (CHAT, RAW, RESPONSES)
    """Paths that generate."""
    keyless: Sequence[str] = ("/health",)
    """Control routes that answer without a key."""
    most_choices: int = 128
    """How many choices an answer has at most, whatever ``n`` asks for; many servers give one."""

    def routes(self) -> Mapping[str, object]:
        """Return the answers to GET by path: JSON, bytes, or the number of a status that refuses."""
        listed = {"id": self.model, "object": "model", "owned_by": "loopback"}
        return {"/health": {"status": "ok"}, "/v1/models": {"object": "list", "data": [listed]}}

    def asked(self, path: str, body: Mapping[str, Any]) -> object | None:
        """Return the answer to a control question that is asked by POST, ``None`` where it is none."""
        return None

    def headers(self) -> Mapping[str, str]:
        """Return the headers of control answers."""
        return {}

    def error_body(self, status: int, message: str, kind: str) -> Mapping[str, object]:
        """Return the body of an error."""
        return error_body(status, message, kind)

    def missing(self, model: str) -> Refusal:
        """Return what is said of a model that is not there."""
        return 404, f"The model `{model}` does not exist.", "NotFoundError"

    def refusal(self, request: Mapping[str, Any]) -> Refusal | None:
        """Return why a request is refused, ``None`` when it is answered."""
        words = len(prompt_of(request).split())
        return too_long(words, self.context_length) if words > self.context_length else None

    def seen(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the request as the model sees it."""
        return request

    def forced(self, request: Mapping[str, Any]) -> str | None:
        """Return the answer a forced schema leaves no choice about, ``None`` where nothing is forced."""
        return None

    def speech(self, request: Mapping[str, Any], path: str, reply: Reply, tokens: Sequence[str]) -> Speech:
        """Return an answer in the shapes of this path."""
        if path == RESPONSES:
            return ResponsesSpeech(request, reply, tokens, model=self.model, chat=True)
        return Speech(request, reply, tokens, model=self.model, chat=path == CHAT)

    # answering --------------------------------------------------------------------------------------------------------

    def _control(self, call: Call, path: str) -> None:
        if self._locked(call) and path not in self.keyless:
            self._refuse(call, 401, "Invalid API key", "authentication_error")
            return
        shown = self.routes().get(path, 404) if call.method == "GET" else 404
        if isinstance(shown, int):
            reason = "File Not Found" if shown == 404 else "Method Not Allowed"
            self._refuse(call, shown, reason, "not_found_error")
        else:
            call.send(200, shown if isinstance(shown, bytes) else dump(shown), self.headers())

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

    def _asked(self, call: Call, path: str, body: Any) -> bool:
        """Answer a control question that is asked by POST; tell whether it was one."""
        if self._locked(call):
            return False
        if isinstance(body, ValueError):
            if call.body:
                return False
            body = {}
        reply = self.asked(path, body)
        if reply is not None:
            call.send(200, dump(reply), self.headers())
        return reply is not None

    def _locked(self, call: Call) -> bool:
        return self.api_key is not None and call.headers.get("authorization") != f"Bearer {self.api_key}"

    def _refuse(self, call: Call, *refusal: Any) -> None:
        call.send(refusal[0], dump(self.error_body(*refusal)), self.headers())

    def _generate(self, call: Call, path: str, request: Any) -> None:
        if isinstance(request, ValueError):
            self._refuse(call, 400, str(request), "invalid_request_error")
            return
        digest = hashlib.sha256(call.body).hexdigest()
        with self._lock:
            self._received.append(Received(path=path, headers=call.headers, body=call.body, json=request))
            earlier = self._seen[digest] = self._seen.get(digest, 0) + 1
            number = len(self._received)
        if path == RESPONSES:
            request = as_chat(request)
        locked = (401, "Invalid API key", "authentication_error")
        refusal = locked if self._locked(call) else self.refusal(request)
        if refusal is not None:
            self._refuse(call, *refusal)
            return
        request = self.seen(request)
        several = 1 if path == RESPONSES else min(int(request.get("n") or 1), self.most_choices)
        choices: list[Speech] = []
        for choice in range(several):
            asked = {**request, "choice": choice} if several > 1 else request
            script = self.script(asked) if callable(self.script) else self.script
            if isinstance(script, Fault):
                self._fault(call, request, path, script, earlier)
                return
            choices.append(self._choice(asked, path, script, number))
        self._say(call, choices[0] if several == 1 else Several(choices))

    def _choice(self, request: Mapping[str, Any], path: str, script: str | Reply | None, number: int) -> Speech:
        """Return one choice of an answer."""
        forced = self.forced(request)
        if forced is not None:
            tokens, reply = split_tokens(forced), Reply()
        elif script is None or isinstance(script, str):
            tokens = self._tokens(request, script, number)
            reply = Reply(first_delay_s=self.first_delay_s, token_delay_s=self.token_delay_s)
        else:
            tokens, reply = self._tokens(request, script.text, number), script
        return self.speech(request, path, reply, tokens)

    def _tokens(self, request: Mapping[str, Any], text: str | None, number: int) -> list[str]:
        prompt = prompt_of(request)
        seed = self.seed
        if text is None:
            if request.get("temperature"):
                which = f" {request['choice']}" if request.get("choice") else ""
                prompt = f"{prompt} sampled with {request.get('seed')}{which}"
            length = 24 + sum(prompt.encode("utf-8", "replace")) % 24
            tokens = babble(prompt, length=length, drift=self.drift, seed=seed)
        else:
            tokens = drifted(split_tokens(text), prompt, drift=self.drift, seed=seed)
        return drifted(tokens, prompt, drift=self.noise, seed=f"{seed}/{number}")

    def _say(self, call: Call, speech: Speech | Several) -> None:
        call.wait(speech.reply.first_delay_s)
        if not speech.streamed:
            call.wait(speech.reply.token_delay_s * len(speech.tokens))
            call.send(200, dump(speech.document()), speech.headers())
            return
        last = [speech.end] if speech.end else []
        if not speech.reply.token_delay_s:
            call.stream([*speech.events(), *last], {"content-type": speech.stream_type})
            return
        call.begin(headers={"content-type": speech.stream_type})
        for event in speech.events():
            call.chunk(event)
            call.wait(speech.reply.token_delay_s)
        for event in last:
            call.chunk(event)
        call.end()

    def _fault(self, call: Call, request: Mapping[str, Any], path: str, fault: Fault, times: int) -> None:
        reply = fault.reply
        if fault.kind == "echo-key":
            reply = Reply(text=f"you sent {call.headers.get('authorization', 'no key')}")
        elif fault.kind == "empty":
            reply = Reply(finish_reason="stop")
        speech = self.speech(request, path, reply, split_tokens(reply.text))
        if fault.kind == "missing":
            self._refuse(call, *self.missing(str(request.get("model"))))
        elif fault.kind in ("status", "html") or (fault.kind == "busy" and times <= fault.count):
            shown = self.error_body(fault.status, fault.message, "scripted")
            kind = "text/html" if fault.kind == "html" else "application/json"
            body = dump(shown) if fault.body is None else fault.body
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


def too_long(words: int, context: int) -> Refusal:
    """Return what OpenAI's API says of a prompt that does not fit."""
    message = f"This model's maximum context length is {context} tokens. However, your prompt has {words} tokens."
    return 400, message, "invalid_request_error"
