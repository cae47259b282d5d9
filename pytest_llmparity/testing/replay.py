"""Recordings of real engines, served again over HTTP piece by piece."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_llmparity.core.recorded.playing import Answers, purpose
from pytest_llmparity.core.recording import MISSING, Exchanged, question, unnumbered
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.store import recordings
from pytest_llmparity.testing.server import Call, Hangup, LoopbackServer

_OURS = {"connection", "content-length", "date", "keep-alive", "transfer-encoding"}


class Replay(LoopbackServer):
    """Serves a recording, or a folder of recorded answers, used as a context manager.

    A recording is what ``llmparity record`` wrote, ``recordings/NAME.jsonl``. A recorded answer in a folder is a JSON
    file ``{"name", "request": {"method", "path", "body"}, "response": {"status", "headers", "pieces": [[milliseconds,
    text], …]}}`` (or ``"response": {"error": …}`` for a connection that broke). A request is answered by the recording
    with the same method, path and body (compared as JSON); several such answer in file order, the last again and again.
    A path that begins with ``/@NAME`` is answered by the recording of that name, whatever the rest and the body, so an
    adapter around ``base_url + "/@v1_chat"`` reads that answer. Anything else is 404. ``paced`` keeps the recorded
    times of pieces, ``pace`` makes them so many times as short; without it they follow at once, still one write each.

    A recording that stands in for an engine of a run is told what each request is for and answers
    with nothing that was recorded for something else. Whoever does not tell gets what was gathered, and what was timed
    for a request that was asked in no other way.
    ``RecordingError`` names the line of one that cannot be used.
    """

    def __init__(self, source: Path, *, paced: bool = False, pace: float = 1.0, port: int = 0) -> None:
        super().__init__(port)
        self.paced = paced
        self.pace = pace
        self.recordings: dict[str, Mapping[str, Any]] = {}
        self._answers = Answers(recordings.read(source).exchanges if source.suffix == recordings.SUFFIX else ())
        if not self._answers:
            for file in sorted(source.glob("*.json")):
                self.recordings[file.stem] = json.loads(file.read_text("utf-8"))
            if not self.recordings:
                raise FileNotFoundError(f"{source} holds no recordings (*.json)")
        self._lock = threading.Lock()
        self._served: dict[object, int] = {}

    def answer(self, call: Call) -> None:
        """Answer with the recording that belongs to the request."""
        if self._answers:
            self._play(call)
            return
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
            call.send(response["status"], b"".join(content for _, content in pieces), kept)
            return
        call.begin(response["status"], kept)
        before = 0.0
        for at, content in pieces:
            call.wait(at - before if self.paced else 0.0)
            call.chunk(content)
            before = at
        call.end()

    def _play(self, call: Call) -> None:
        """Answer from a recording, every piece at its time."""
        began = time.perf_counter()
        if call.method == "GET" and call.path == "/health":
            call.send(200, b'{"status": "ok"}')
            return
        exchanged = self._exchanged(call)
        if exchanged is None:
            message = f"the recording has no answer to {call.method} {call.path} with this body"
            error = {"error": {"message": message, "type": "not_recorded", "code": 404}}
            call.send(404, json.dumps(error).encode(), {MISSING: "1"})
            return
        pieces = list(exchanged.pieces)
        headers = {"content-type": exchanged.type} if exchanged.type else {}
        if "event-stream" not in exchanged.type and "ndjson" not in exchanged.type:
            self._until(call, began, pieces[-1][0] if pieces else 0.0)
            call.send(exchanged.status, exchanged.body, headers)
            return
        if pieces:
            self._until(call, began, pieces[0][0])
        call.begin(exchanged.status, headers)
        for at, content in pieces:
            self._until(call, began, at)
            call.chunk(content)
        call.end()

    def _until(self, call: Call, began: float, at: float) -> None:
        """Wait until a piece is due: by the clock, so that what writing takes delays no later piece."""
        if self.paced:
            call.wait(max(0.0, began + at / self.pace - time.perf_counter()))

    def _exchanged(self, call: Call) -> Exchanged | None:
        """Return the answer to a request for what it is sent for, ``None`` where none was recorded for that."""
        wanted, path = purpose(call.path)
        body = _decoded(call.body)
        plain = unnumbered(body)
        asked = question(call.method, path, body)
        unmarked = asked if plain is None else question(call.method, path, plain)
        if wanted is None or wanted.dropped:
            keys = [(False, asked), (True, unmarked), (True, asked)]
            for timed, key in keys:
                if answers := self._answers.whatever(key, timed=timed):
                    return answers[0 if wanted else self._place((timed, key), len(answers))]
            return None
        if wanted.phase is Phase.TIMED:
            key = asked if wanted.cached else unmarked
            timed_ones = self._answers.timed(key, concurrency=wanted.concurrency, cached=wanted.cached)
            return timed_ones[wanted.repeat] if wanted.repeat < len(timed_ones) else None
        answers = self._answers.asked_as(wanted, asked)
        return answers[self._place((wanted, asked), len(answers))] if answers else None

    def _place(self, key: object, of: int) -> int:
        """Return which of so many answers to a request is the next one."""
        with self._lock:
            place = self._served.get(key, 0)
            self._served[key] = place + 1
        return min(place, of - 1)

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
        return matching[self._place(f"{asked} {body!r}", len(matching))]


def _decoded(body: bytes) -> object:
    if not body:
        return None
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        return text
