"""A proxy on loopback that changes what an engine is asked and what it answers, in one of the ways engines differ.

Every change is a cause of drift that is known, so a test can see whether it is found:

>>> from pytest_llmparity.testing import FaultProxy, LoopbackEngine, proxy
>>> with LoopbackEngine("Paris.") as engine, FaultProxy(engine.base_url, proxy.hidden_system("Be rude.")) as rude:
...     rude.base_url != engine.base_url
True

Streams pass as streams, each event changed and sent on as it comes; what no change is about passes as it is.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.testing.server import Call, LoopbackServer

CHAT: Final = "/chat/completions"
RAW: Final = "/v1/completions"
RENDERS: Final = "/apply-template"
"""Where llama.cpp says how it renders a chat."""
UPSTREAM_S: Final = 300.0
"""Longest silence of the engine behind the proxy."""
_LIMITS: Final = ("max_tokens", "max_completion_tokens", "n_predict")
"""What requests call the most tokens of an answer."""
_OURS: Final = frozenset({"connection", "content-length", "date", "host", "keep-alive", "transfer-encoding"})

Body = dict[str, Any]
Post = Callable[[str, Mapping[str, Any]], Body]
"""Asks the engine behind the proxy: a path and a JSON body in, the JSON answer out."""


class Change:
    """One way in which a proxy makes an engine another one. A subclass overrides what it changes."""

    def asked(self, body: Body, *, chat: bool, post: Post) -> Body:
        """Return the body that is passed on. A ``prompt`` in a chat's sends it as a raw prompt, answered as a chat."""
        return body

    def begun(self) -> None:
        """Take note that a request has come."""

    def ended(self) -> None:
        """Take note that a request has been answered."""

    def spoken(self, text: str, body: Body, *, first: bool, last: bool) -> str:
        """Return a piece of an answer's text as it is passed on: the whole text, or one of a stream's pieces.

        ``body`` is the request as the client sent it. ``last`` is true for a whole text and for the empty piece with
        which a stream ends.
        """
        return text


class _Asked(Change):
    """A change of requests alone."""

    def __init__(self, change: Callable[[Body, Post], Body], *, raw_too: bool) -> None:
        self._change = change
        self._raw_too = raw_too

    def asked(self, body: Body, *, chat: bool, post: Post) -> Body:
        return self._change(body, post) if chat or self._raw_too else body


class another_template(Change):  # noqa: N801 - reads like the functions beside it
    """Render chats by a template of one's own and send them as raw prompts; also where an engine is asked to render."""

    def __init__(self, render: Callable[[Sequence[Mapping[str, Any]]], str]) -> None:
        self.rendered = render

    def asked(self, body: Body, *, chat: bool, post: Post) -> Body:
        """Return the chat as a raw prompt."""
        return _as_raw(body, self.rendered(body["messages"])) if chat else body


def doubled_bos(bos: str, *, render: str = RENDERS) -> Change:
    """Put one more token in front of every rendered chat; ``render`` is the engine's route that renders one."""

    def change(body: Body, post: Post) -> Body:
        prompt = post(render, {"messages": body["messages"]})["prompt"]
        return _as_raw(body, bos + prompt)

    return _Asked(change, raw_too=False)


def hidden_system(text: str) -> Change:
    """Put a system prompt in front of every chat."""

    def change(body: Body, post: Post) -> Body:
        return {**body, "messages": [{"role": "system", "content": text}, *body["messages"]]}

    return _Asked(change, raw_too=False)


def words_behind(text: str) -> Change:
    """Put words behind the last message of every chat: a reminder, or a switch that turns thinking off."""

    def change(body: Body, post: Post) -> Body:
        *before, last = body["messages"]
        return {**body, "messages": [*before, {**last, "content": f"{last['content']} {text}"}]}

    return _Asked(change, raw_too=False)


def oldest_dropped(keep: int) -> Change:
    """Keep a chat's system prompt and its last ``keep`` messages."""

    def change(body: Body, post: Post) -> Body:
        system = [message for message in body["messages"] if message["role"] == "system"]
        turns = [message for message in body["messages"] if message["role"] != "system"]
        return {**body, "messages": [*system, *turns[-keep:]]}

    return _Asked(change, raw_too=False)


def middle_cut(longest: int) -> Change:
    """Cut the middle out of every text of more than ``longest`` characters, as if the context held no more."""

    def cut(text: Any) -> Any:
        half = longest // 2
        return text[:half] + text[-half:] if isinstance(text, str) and len(text) > longest else text

    def change(body: Body, post: Post) -> Body:
        if "messages" not in body:
            return {**body, "prompt": cut(body["prompt"])}
        return {**body, "messages": [{**message, "content": cut(message["content"])} for message in body["messages"]]}

    return _Asked(change, raw_too=True)


def reordered_properties() -> Change:
    """Sort the properties of every schema by their names."""
    return _Asked(lambda body, post: _sorted(body), raw_too=True)


def another_schema(change: Callable[[Body], Body]) -> Change:
    """Enforce ``change`` of every schema that is asked for: a constraint that forces answers wrong."""

    def changed(body: Body, post: Post) -> Body:
        if "json_schema" in body:
            return {**body, "json_schema": change(body["json_schema"])}
        wanted = body.get("response_format") or {}
        if "json_schema" not in wanted:
            return body
        named = {**wanted["json_schema"], "schema": change(wanted["json_schema"]["schema"])}
        return {**body, "response_format": {**wanted, "json_schema": named}}

    return _Asked(changed, raw_too=True)


def overridden(**fields: Any) -> Change:
    """Set fields of every request whatever it says: ``temperature=0.8``, or ``ignore_eos=True`` (no stop token)."""
    return _Asked(lambda body, post: {**body, **fields}, raw_too=True)


def capped(tokens: int) -> Change:
    """End every answer after so many tokens at most, with ``length``, whatever limit is asked for.

    As a full context does, a cap of a gateway, or a limit that was lost on the way.
    """

    def change(body: Body, post: Post) -> Body:
        asked = [body[name] for name in _LIMITS if body.get(name) is not None]
        return {**_left(body, _LIMITS), "max_tokens": min([tokens, *asked])}

    return _Asked(change, raw_too=True)


def defaulting(**fields: Any) -> Change:
    """Set fields of every request that does not say them: ``dry_multiplier=0.8``, a default that nobody asked for."""
    return _Asked(lambda body, post: {**fields, **body}, raw_too=True)


class crowded(Change):  # noqa: N801 - reads like the functions beside it
    """Set fields of every request that others are answered beside: an engine whose batches change its answers.

    A request that comes alone is held back for ``wait_s`` seconds at most until another comes, as engines do that
    gather batches: without it, which requests overlap is chance where they are answered soon.
    """

    def __init__(self, wait_s: float = 0.0, /, **fields: Any) -> None:
        self._wait_s = wait_s
        self._fields = fields
        self._busy = 0
        self._come = 0
        self._changed = threading.Condition()
        self._own = threading.local()

    def begun(self) -> None:
        """Count a request."""
        with self._changed:
            self._busy += 1
            self._come += 1
            self._own.place = self._come
            self._changed.notify_all()

    def ended(self) -> None:
        """Count a request no more."""
        with self._changed:
            self._busy -= 1

    def asked(self, body: Body, *, chat: bool, post: Post) -> Body:
        """Return the body with the fields where another request is being answered, or comes soon enough."""
        with self._changed:
            # One that came behind this one may be answered before this one wakes.
            crowd = self._changed.wait_for(lambda: self._busy > 1 or self._come > self._own.place, self._wait_s)
        return {**body, **self._fields} if crowd else body


class stale_cache(Change):  # noqa: N801 - reads like the functions beside it
    """Set fields of every request whose rendered prompt begins like one before: a prompt cache that changes answers.

    The first ``beginning`` characters count, the whole prompt where none are given. A request keeps out of the cache
    by the fields in ``honoured``: ``cache_prompt`` false, or a ``cache_salt`` of its own. ``render`` is the engine's
    route that renders a chat.
    """

    def __init__(
        self,
        beginning: int | None = None,
        *,
        honoured: Collection[str] = ("cache_prompt", "cache_salt"),
        render: str = RENDERS,
        **fields: Any,
    ) -> None:
        self._beginning = beginning
        self._honoured = honoured
        self._render = render
        self._fields = fields
        self._seen: set[tuple[str, str]] = set()
        self._lock = threading.Lock()

    def asked(self, body: Body, *, chat: bool, post: Post) -> Body:
        """Return the body with the fields where the cache holds its beginning; it does so from now on."""
        if "cache_prompt" in self._honoured and body.get("cache_prompt") is False:
            return body
        prompt = post(self._render, {"messages": body["messages"]})["prompt"] if chat else body.get("prompt")
        salt = str(body.get("cache_salt")) if "cache_salt" in self._honoured else ""
        key = (salt, json.dumps(prompt)[: None if self._beginning is None else self._beginning + 1])
        with self._lock:
            seen = key in self._seen
            self._seen.add(key)
        return {**body, **self._fields} if seen else body


class another_tokenizer(Change):  # noqa: N801 - reads like the functions beside it
    """Cut every text into pieces of ``size`` characters before it becomes tokens, special tokens left whole.

    For an engine that says how it renders a chat and what tokens a text is, and takes tokens as a prompt (llama.cpp).
    A prompt of tokens passes as it is.
    """

    def __init__(self, size: int = 3) -> None:
        self._size = size
        self._known: dict[str, list[int]] = {}

    def asked(self, body: Body, *, chat: bool, post: Post) -> Body:
        """Return the body with tokens in place of chat and text."""
        prompt = post(RENDERS, {"messages": body["messages"]})["prompt"] if chat else body.get("prompt")
        if not isinstance(prompt, str):
            return body
        return _as_raw(body, [token for piece in self._pieces(prompt) for token in self._tokens(piece, post)])

    def _pieces(self, prompt: str) -> list[str]:
        parts = re.split(r"(<\|[^|]*\|>)", prompt)
        return [
            piece
            for place, part in enumerate(parts)
            for piece in ([part] if place % 2 else [part[i : i + self._size] for i in range(0, len(part), self._size)])
        ]

    def _tokens(self, piece: str, post: Post) -> list[int]:
        if piece not in self._known:
            asked = {"content": piece, "add_special": False, "parse_special": True}
            self._known[piece] = post("/tokenize", asked)["tokens"]
        return self._known[piece]


def without(*fields: str) -> Change:
    """Leave fields out of every request: ``response_format`` (no schema is enforced), ``stop``."""
    return _Asked(lambda body, post: _left(body, fields), raw_too=True)


class stripped(Change):  # noqa: N801 - reads like the functions beside it
    """Strip the white space around every answer."""

    def spoken(self, text: str, body: Body, *, first: bool, last: bool) -> str:
        """Return the text without the white space at its beginning; a stream's end is left alone."""
        text = text.lstrip() if first else text
        return text.rstrip() if first and last else text


class thinking_aloud(Change):  # noqa: N801 - reads like the functions beside it
    """Begin every answer with reasoning in tags, unless the request turns reasoning off.

    That is ``reasoning_effort`` ``"none"``, or ``enable_thinking`` false in ``chat_template_kwargs``.
    """

    def __init__(self, thought: str, *, opening: str = "<think>", closing: str = "</think>") -> None:
        self._before = f"{opening}\n{thought}\n{closing}\n\n"

    def spoken(self, text: str, body: Body, *, first: bool, last: bool) -> str:
        """Return the text, the first piece of it behind the reasoning."""
        kwargs = body.get("chat_template_kwargs") or {}
        off = body.get("reasoning_effort") == "none" or kwargs.get("enable_thinking") is False
        return self._before + text if first and text.strip() and not off else text


class FaultProxy(LoopbackServer):
    """Passes requests on to ``upstream``, an engine's root, and its answers back, with these changes in their order.

    Used as a context manager. ``received`` are the bodies of generating requests as clients sent them.
    """

    def __init__(self, upstream: str, *changes: Change, port: int = 0) -> None:
        super().__init__(port)
        self.changes = changes
        self.received: list[Body] = []
        self._upstream = urllib.parse.urlsplit(upstream)

    def answer(self, call: Call) -> None:
        """Answer as the engine behind does, changed."""
        chat = call.path.endswith(CHAT)
        if call.path == RENDERS and (template := self._template) is not None:
            call.send(200, json.dumps({"prompt": template.rendered(json.loads(call.body)["messages"])}).encode())
            return
        if call.method != "POST" or not (chat or call.path.endswith("/completions")):
            self._as_it_is(call)
            return
        with contextlib.ExitStack() as until_answered:
            for change in self.changes:
                change.begun()
                until_answered.callback(change.ended)
            self._answer(call, json.loads(call.body), chat=chat, answered=until_answered.close)

    def _answer(self, call: Call, body: Body, *, chat: bool, answered: Callable[[], None]) -> None:
        self.received.append(body)
        asked = body
        for change in self.changes:
            # A chat that one change has rendered is a raw prompt to those behind it.
            asked = change.asked(asked, chat=chat and "messages" in asked, post=self._post)
        as_chat = chat and "messages" not in asked
        path = RAW if as_chat else call.path
        connection, response = self._send("POST", path, json.dumps(asked).encode(), call.headers)
        with contextlib.closing(connection):
            kept = _kept(response)
            if "text/event-stream" not in (response.getheader("content-type") or ""):
                whole = self._whole(response.read(), body, as_chat=as_chat)
                answered()  # before who asked has it: a request that comes after it is not beside this one
                call.send(response.status, whole, kept)
                return
            call.begin(response.status, kept)
            for event in self._streamed(_events(response), body, as_chat=as_chat):
                if event.startswith(b"data: [DONE]"):
                    answered()
                call.chunk(event)
            answered()
            call.end()

    @property
    def _template(self) -> another_template | None:
        return next((change for change in self.changes if isinstance(change, another_template)), None)

    def _as_it_is(self, call: Call) -> None:
        connection, response = self._send(call.method, call.path, call.body, call.headers)
        with contextlib.closing(connection):
            call.send(response.status, response.read(), _kept(response))

    def _post(self, path: str, body: Mapping[str, Any]) -> Body:
        headers = {"content-type": "application/json"}
        connection, response = self._send("POST", path, json.dumps(body).encode(), headers)
        with contextlib.closing(connection):
            answer: Body = json.loads(response.read())
            return answer

    def _send(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(
            str(self._upstream.hostname), self._upstream.port or 80, timeout=UPSTREAM_S
        )
        passed = {name: value for name, value in headers.items() if name.lower() not in _OURS}
        connection.request(method, self._upstream.path + path, body or None, passed)
        return connection, connection.getresponse()

    def _whole(self, sent: bytes, body: Body, *, as_chat: bool) -> bytes:
        try:
            answer = json.loads(sent)
        except ValueError:
            return sent
        for choice in answer.get("choices") or ():
            if text := _text_of(choice):
                _set_text(choice, self._spoken(text, body, first=True, last=True))
        return json.dumps(_chat_of(answer, stream=False) if as_chat else answer).encode()

    def _streamed(self, events: Iterator[bytes], body: Body, *, as_chat: bool) -> Iterator[bytes]:
        begun = False
        for event in events:
            match = re.match(rb"data: (\{.*\})\s*$", event, re.DOTALL)
            if match is None:
                yield event
                continue
            answer = json.loads(match[1])
            for choice in answer.get("choices") or ():
                if text := _text_of(choice):
                    _set_text(choice, self._spoken(text, body, first=not begun, last=False))
                    begun = begun or bool(text.strip())
            yield b"data: " + json.dumps(_chat_of(answer, stream=True) if as_chat else answer).encode() + b"\n\n"

    def _spoken(self, text: str, body: Body, *, first: bool, last: bool) -> str:
        for change in self.changes:
            text = change.spoken(text, body, first=first, last=last)
        return text


def _kept(response: http.client.HTTPResponse) -> dict[str, str]:
    return {name.lower(): value for name, value in response.getheaders() if name.lower() not in _OURS}


def _events(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the events of a stream with the empty line behind each, as they come."""
    lines: list[bytes] = []
    while line := response.readline():
        lines.append(line)
        if not line.strip():
            yield b"".join(lines)
            lines = []
    if lines:
        yield b"".join(lines)


def _left(body: Body, names: Collection[str]) -> Body:
    """Return a body without these fields."""
    return {name: value for name, value in body.items() if name not in names}


def _as_raw(body: Body, prompt: str | list[int]) -> Body:
    """Return a chat's body as that of a raw prompt, with the schema in llama.cpp's own word for one."""
    raw = {name: value for name, value in body.items() if name not in ("messages", "response_format", "top_logprobs")}
    if body.get("logprobs"):
        raw["logprobs"] = body.get("top_logprobs") or 1
    wanted = (body.get("response_format") or {}).get("json_schema")
    return {**raw, "prompt": prompt, **({"json_schema": wanted["schema"]} if wanted else {})}


def _chat_of(answer: Body, *, stream: bool) -> Body:
    """Return a raw prompt's answer, or one event of it, in the shape of a chat's."""
    where, kind = ("delta", "chat.completion.chunk") if stream else ("message", "chat.completion")
    choices = [
        {**choice, where: {"role": "assistant", "content": choice.get("text")}}
        for choice in answer.get("choices") or ()
    ]
    return {**answer, "object": kind, "choices": choices} if "choices" in answer else answer


def _text_of(choice: Body) -> str:
    """Return the text of one choice of an answer or an event, empty where it has none."""
    holder, place = _place(choice)
    return holder.get(place) or ""


def _set_text(choice: Body, text: str) -> None:
    holder, place = _place(choice)
    holder[place] = text


def _place(choice: Body) -> tuple[Body, str]:
    """Return what holds a choice's text, and under which name."""
    spoken = choice.get("message") or choice.get("delta")
    return (spoken, "content") if isinstance(spoken, dict) else (choice, "text")


def _sorted(value: Any) -> Any:
    """Return JSON with the properties of every schema in it sorted by name."""
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        name: dict(sorted((key, _sorted(of_key)) for key, of_key in item.items()))
        if name == "properties" and isinstance(item, dict)
        else _sorted(item)
        for name, item in value.items()
    }
