"""A loopback server that answers by a table: path to status and JSON value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pytest_llmparity.engines.recognise import seen
from pytest_llmparity.engines.wire.control import Control
from pytest_llmparity.testing.server import Call, LoopbackServer


class Routes(LoopbackServer):
    """Answers each path as the table says, anything else with 404, ``headers`` with each; ``asked`` has every path."""

    def __init__(self, table: Mapping[str, tuple[int, object]], headers: Mapping[str, str]) -> None:
        super().__init__()
        self.table = table
        self.headers = headers
        self.asked: list[str] = []

    def answer(self, call: Call) -> None:
        """Answer one call."""
        self.asked.append(call.path)
        status, value = self.table.get(call.path, (404, {"error": "Not Found"}))
        call.send(status, json.dumps(value).encode(), self.headers)


@contextmanager
def routes(table: Mapping[str, tuple[int, object]], **headers: str) -> Iterator[Routes]:
    """Serve a table; an underscore in a header's name stands for a hyphen."""
    server = Routes(table, {name.replace("_", "-"): value for name, value in headers.items()})
    server.start()
    try:
        yield server
    finally:
        server.stop()


def recognise(url: str) -> str:
    """Return what the server at a URL looks like, asked without a key."""
    return seen(Control(engine="cand", base_url=url.rstrip("/"), headers={}))
