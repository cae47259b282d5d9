"""Recordings of real engines, served again over HTTP piece by piece."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_llmparity.testing.server import Call, Hangup, LoopbackServer

_OURS = {"connection", "content-length", "date", "keep-alive", "transfer-encoding"}


class Replay(LoopbackServer):
    """Serves a folder of recordings, used as a context manager.

    A recording is a JSON file ``{"name", "request": {"method", "path", "body"}, "response": {"status", "headers",
    "pieces": [[milliseconds, text], …]}}`` (or ``"response": {"error": …}`` for a connection that broke). A request is
    answered by the recording with the same method, path and body (compared as JSON); several such answer in file order,
    the last again and again. A path that begins with ``/@NAME`` is answered by the recording of that name, whatever the
    rest and the body, so an adapter around ``base_url + "/@v1_chat"`` reads that answer. Anything else is 404.
    ``paced`` keeps the recorded times between pieces; without it they follow at once, still one write each.
    """

    def __init__(self, folder: Path, *, paced: bool = False, port: int = 0) -> None:
        super().__init__(port)
        self.paced = paced
        self.recordings: dict[str, Mapping[str, Any]] = {}
        for file in sorted(folder.glob("*.json")):
            self.recordings[file.stem] = json.loads(file.read_text("utf-8"))
        if not self.recordings:
            raise FileNotFoundError(f"{folder} holds no recordings (*.json)")
        self._lock = threading.Lock()
        self._served: dict[str, int] = {}

    def answer(self, call: Call) -> None:
        """Answer with the recording that belongs to the request."""
        recording = self._find(call)
        if recording is None:
            message = f"no recording of {call.method} {call.path} with this body"
            call.send(404, json.dumps({"error": {"message": message, "type": "no_recording", "code": 404}}).encode())
            return
        response = recording["response"]
        if "error" in response:
            raise Hangup
        headers = {name.lower(): value for name, value in response["headers"].items()}
        kept = {name: value for name, value in headers.items() if name not in _OURS}
        pieces = [(float(ms) / 1000, text.encode("utf-8")) for ms, text in response["pieces"]]
        if headers.get("transfer-encoding") != "chunked":
            call.wait(pieces[-1][0] if self.paced and pieces else 0.0)
            call.send(response["status"], b"".join(data for _, data in pieces), kept)
            return
        call.begin(response["status"], kept)
        before = 0.0
        for at, data in pieces:
            call.wait(at - before if self.paced else 0.0)
            call.chunk(data)
            before = at
        call.end()

    def _find(self, call: Call) -> Mapping[str, Any] | None:
        if call.path.startswith("/@"):
            return self.recordings.get(call.path[2:].partition("/")[0])
        body = _decoded(call.body)
        asked = (call.method, call.path)
        matching = [
            recording
            for recording in self.recordings.values()
            if (recording["request"]["method"], recording["request"]["path"]) == asked
            and recording["request"].get("body") == body
        ]
        if not matching:
            return None
        with self._lock:
            key = f"{asked} {body!r}"
            place = self._served.get(key, 0)
            self._served[key] = place + 1
        return matching[min(place, len(matching) - 1)]


def _decoded(body: bytes) -> object:
    if not body:
        return None
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        return text
