"""GitHub's comments of pull requests, as far as a workflow's token sees them, on this machine."""

from __future__ import annotations

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

TOKEN = "ghs_ofTheWorkflow0123456789"


class GitHub:
    """A server with the comments of one pull request; use it in a ``with`` statement.

    ``comments`` may be changed; ``refuses`` has by method the status it answers instead, ``asked`` what it was asked.
    ``login`` is whose token it is, empty for a workflow's, which may not ask.
    """

    def __init__(self, *, refuses: dict[str, int] | None = None, login: str = "") -> None:
        self.comments: list[dict[str, Any]] = []
        self.asked: list[tuple[str, str]] = []
        self.refuses = refuses or {}
        self.login = login
        github = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                github.answer(self)

            do_POST = do_PATCH = do_GET  # noqa: N815 - as the library calls them

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def wrote(self, body: str, *, kind: str = "Bot", login: str = "github-actions[bot]") -> None:
        """Put a comment there."""
        author = {"type": kind, "login": login}
        self.comments.append({"id": 1000 + len(self.comments), "user": author, "body": body})

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        place = urlsplit(request.path)
        self.asked.append((request.command, place.path))
        content = request.rfile.read(int(request.headers["Content-Length"] or 0))
        status, answer = self._answer(request, place.path, parse_qs(place.query), json.loads(content or b"{}"))
        request.send_response(status)
        request.end_headers()
        request.wfile.write(json.dumps(answer).encode())

    def _answer(
        self, request: BaseHTTPRequestHandler, path: str, query: dict[str, list[str]], sent: dict[str, Any]
    ) -> tuple[int, Any]:
        if request.headers["Authorization"] != f"Bearer {TOKEN}":
            return 401, {"message": "Bad credentials"}
        if path == "/api/user":
            return (200, {"login": self.login}) if self.login else (403, {"message": "Resource not accessible"})
        if status := self.refuses.get(request.command):
            return status, {"message": "Resource not accessible by integration"}
        if len(str(sent.get("body", ""))) > 65536:
            return 422, {"message": "body is too long (maximum is 65536 characters)"}
        if request.command == "PATCH" and (number := re.fullmatch(r"/api/repos/o/r/issues/comments/(\d+)", path)):
            for comment in self.comments:
                if comment["id"] == int(number[1]):
                    comment["body"] = sent["body"]
                    return 200, comment
            return 404, {"message": "Not Found"}
        if path != "/api/repos/o/r/issues/7/comments":
            return 404, {"message": "Not Found"}
        if request.command == "POST":
            self.wrote(sent["body"], login=self.login or "github-actions[bot]", kind="User" if self.login else "Bot")
            return 201, self.comments[-1]
        page, size = int(query["page"][0]), int(query["per_page"][0])
        return 200, self.comments[(page - 1) * size : page * size]
