"""Servers that answer with the very bytes a test gives them, for what public bug reports say servers send."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

JSON, EVENTS = "application/json", "text/event-stream"

Json = Mapping[str, Any]


class Answer(NamedTuple):
    """A response: ``pieces`` are sent one by one, each as a chunk of its own; a number waits so many seconds."""

    pieces: Sequence[bytes | float]
    content_type: str = EVENTS
    status: int = 200


class Asked(NamedTuple):
    """A request that arrived; ``body`` is empty for GET."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Json


def events(*chunks: Json | bytes, done: bool = True) -> Answer:
    """Return a stream: mappings become ``data:`` events, bytes are sent as they are."""
    pieces = [c if isinstance(c, bytes) else b"data: " + json.dumps(c).encode() + b"\n\n" for c in chunks]
    return Answer([*pieces, b"data: [DONE]\n\n"] if done else pieces)


def document(value: object, status: int = 200) -> Answer:
    """Return an unstreamed JSON answer."""
    return Answer([json.dumps(value).encode()], JSON, status)


def chunk(delta: Json | None = None, finish: str | None = None, **more: Any) -> Json:
    """Return one chunk of a streamed chat answer; ``more`` goes into the choice."""
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish, **more}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def counts(prompt: int, completion: int, **more: Any) -> Json:
    """Return a ``usage`` object."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **more}


def usage(prompt: int, completion: int, **more: Any) -> Json:
    """Return the chunk that carries the counts and no choice."""
    return {**chunk(), "choices": [], "usage": counts(prompt, completion, **more)}


def message(content: Json, finish: str = "stop", use: Json | None = None) -> Json:
    """Return a whole unstreamed answer whose message holds ``content``."""
    choice = {"index": 0, "message": {"role": "assistant", **content}, "finish_reason": finish}
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
    return body if use is None else {**body, "usage": use}


def question(body: Json) -> str:
    """Return the last user message."""
    return next((str(m["content"]) for m in reversed(body.get("messages", [])) if m["role"] == "user"), "")


def plain(text: str | Callable[[Json], str], *, prompt: int = 12, finish: str = "stop") -> Callable[[Json], Answer]:
    """Return an ordinary engine's behaviour: it says ``text``, streamed in pieces of four characters or whole."""

    def answer(body: Json) -> Answer:
        words = text if isinstance(text, str) else text(body)
        use = (prompt, max(1, len(words.split())))
        if not body.get("stream"):
            return document(message({"content": words}, finish, counts(*use)))
        pieces = [chunk({"content": words[at : at + 4]}) for at in range(0, len(words), 4)]
        return events(chunk({"role": "assistant", "content": ""}), *pieces, chunk({}, finish), usage(*use))

    return answer


@dataclass(frozen=True, slots=True)
class WireServer:
    """A running server: where it listens, and what it was asked so far."""

    http: ThreadingHTTPServer
    asked: list[Asked]

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.http.server_address[1])


@contextlib.contextmanager
def serving(
    answer: Callable[[Json], Answer],
    *,
    get: Callable[[str, Mapping[str, str]], Answer | None] = lambda path, headers: None,
    prefix: str = "/v1",
    models: Sequence[str] = ("m",),
    host: str = "127.0.0.1",
    tls: tuple[Path, Path] | None = None,
) -> Iterator[WireServer]:
    """Serve chat and model list below ``prefix``; ``answer`` gets the decoded body of a chat request.

    ``get`` may answer a GET (path and headers) before the model list does. ``tls`` is certificate and key.
    """
    asked: list[Asked] = []
    missing = document({"error": {"message": "Not Found", "type": "not_found", "code": 404}}, 404)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append(Asked("GET", self.path, headers, {}))
            reply = get(self.path, headers)
            if reply is None and self.path == f"{prefix}/models":
                listed = [{"id": name, "object": "model", "created": 1, "owned_by": "somebody"} for name in models]
                reply = document({"object": "list", "data": listed})
            self._send(reply or missing)

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = json.loads(raw) if raw.strip().startswith(b"{") else {}
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked.append(Asked("POST", self.path, headers, body))
            self._send(answer(body) if self.path == f"{prefix}/chat/completions" else missing)

        def _send(self, reply: Answer) -> None:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.content_type)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            pause = threading.Event()
            for piece in reply.pieces:
                if isinstance(piece, bytes):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    self.wfile.flush()
                else:
                    pause.wait(piece)
            self.wfile.write(b"0\r\n\r\n")

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass

    with Quiet((host, 0), Handler) as http:
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            http.socket = context.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield WireServer(http, asked)
        finally:
            http.shutdown()
            thread.join()
