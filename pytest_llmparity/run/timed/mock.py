"""The paced server the measuring process checks itself against: events that carry the time they were sent.

Run in a process of its own; prints its port, ends when its standard input does. Takes, after the arguments of
``timed.BOOT``: milliseconds to the first event, milliseconds between events, number of events.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


async def _answer(writer: asyncio.StreamWriter, first_s: float, gap_s: float, events: int) -> None:
    loop = asyncio.get_running_loop()
    writer.write(_HEAD)
    due = loop.time() + first_s
    for _ in range(events):
        await asyncio.sleep(due - loop.time())
        event = b"data: %d\n\n" % time.perf_counter_ns()
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        due += gap_s
    writer.write(b"0\r\n\r\n")


async def start(first_ms: float, gap_ms: float, events: int) -> asyncio.Server:
    """Return the server, listening on a free loopback port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")  # requests have no body
                await _answer(writer, first_ms / 1e3, gap_ms / 1e3, events)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    return await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1024)


async def _serve(first_ms: float, gap_ms: float, events: int) -> None:
    server = await start(first_ms, gap_ms, events)
    os.write(1, b"%d\n" % server.sockets[0].getsockname()[1])
    await server.serve_forever()


def end_with_stdin() -> None:
    """End this process at once when standard input ends, that is when the parent has gone or is done with us."""

    def watch() -> None:
        while os.read(0, 4096):  # not sys.stdin: its lock, held by this thread, would abort the shutdown
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Run the server (the entry of the process)."""
    first_ms, gap_ms, events = sys.argv[3:]
    end_with_stdin()
    asyncio.run(_serve(float(first_ms), float(gap_ms), int(events)))
