"""Collects one HTTP/1.1 answer from reads of any size, with httptools (llhttp) doing the syntax."""

from __future__ import annotations

import httptools

from pytest_llmparity.core.errors import ProtocolError
from pytest_llmparity.transport.exchange import Limits, Read

_WITHOUT_BODY = (204, 304)


class ResponseParser:
    """One answer as it comes in; ``complete`` turns true when its last byte has come.

    ``reads`` are those that carried body bytes, ``head`` the one that ended the headers, ``last`` the newest of all.

    ``where`` (host:port) goes into the texts of ``ProtocolError``. ``most_bytes`` is the longest body that can be an
    answer to this request, where that is less than the limits allow. Made anew for every exchange. httptools looks its
    callbacks up by name when it is made, so ``on_body`` is the bytearray's own ``extend``: no Python frame per chunk.
    """

    def __init__(self, where: str, limits: Limits, most_bytes: int | None = None) -> None:
        self.where = where
        self._most_bytes = limits.body_bytes if most_bytes is None else min(most_bytes, limits.body_bytes)
        self.limits = limits
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.reads: list[Read] = []
        self.head = Read(0, 0, 0)
        self.last = Read(0, 0, 0)
        self.complete = False
        self.keep_alive = False
        self.seen_bytes = False
        self.on_body = self.body.extend
        self._head_done = False
        self._until_close = False
        self._header_bytes = 0
        self._bare_bytes = 0
        self._end = 0
        self._problem = ""
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)

    def feed(self, data: memoryview, arrived_ns: int, seen_ns: int) -> None:
        """Take one read with its stamps; raise ``ProtocolError`` if it is not HTTP or passes a limit."""
        assert self._parser is not None
        if not self.seen_bytes:
            self.seen_bytes = True
            if bytes(data[:2]) == b"\x15\x03":  # a TLS alert
                raise self._error("it speaks TLS, not plain HTTP. Write https:// in base_url")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise self._error("it switched to another protocol (101), which nobody asked for") from None
        except httptools.HttpParserError as error:
            raise self._error(self._problem or self._syntax(error)) from error
        if self._problem:
            raise self._error(self._problem)
        end = len(self.body)
        self.last = read = Read(arrived_ns, seen_ns, end)
        if self._head_done and not self.head.seen_ns:
            self.head = read
        if end != self._end:
            self._end = end
            self.reads.append(read)
            if end > self._most_bytes:
                raise self._error(f"its body passed {self._too_long()}")
        else:
            self._bare_bytes += len(data)
            if self._bare_bytes > self.limits.header_bytes:
                raise self._error(f"it sent more than {self.limits.header_bytes} bytes of headers")

    def feed_eof(self, *, reset: bool) -> None:
        """Take the end of the stream, in order or by a ``reset``; raise ``ProtocolError`` for half an answer."""
        verb = "reset" if reset else "closed"
        if not self._head_done:
            raise self._error(f"it {verb} the connection in the middle of its headers")
        if self._until_close and not reset:
            self.complete = True
            return
        length = self.headers.get("content-length")
        expected = f"{length} were announced" if length is not None else "the end is missing"
        raise self._error(
            f"it {verb} the connection in the middle of its answer: {len(self.body)} body bytes came, {expected}. "
            "The engine's log says why it stopped"
        )

    def release(self) -> None:
        """Drop the parser, whose callbacks hold this object in a cycle (the timed phase runs without gc)."""
        self._parser = None

    def on_message_begin(self) -> None:
        """See a status line begin; after a complete answer it is one too many (httptools' callback)."""
        if self.complete:
            self._problem = "it sent more bytes than the answer it announced"

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one header or trailer, within the limit (httptools' callback)."""
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.limits.header_bytes:
            self._problem = f"it sent more than {self.limits.header_bytes} bytes of headers"
        elif not self._head_done:
            key, text = name.decode("latin-1").lower(), value.decode("latin-1").strip()
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """Judge the head of an answer (httptools' callback)."""
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200:
            return
        self._head_done = True
        self.keep_alive = bool(self._parser.should_keep_alive())
        version = self._parser.get_http_version()
        coding = self.headers.get("transfer-encoding", "").lower()
        content = self.headers.get("content-encoding", "identity").lower()
        length = self.headers.get("content-length") or "0"  # llhttp has seen to it that it is a number, and one
        if version not in ("1.0", "1.1"):
            self._problem = f"it answered with HTTP/{version}, expected HTTP/1.1"
        elif coding not in ("", "chunked"):
            self._problem = "it used a transfer encoding other than chunked, which nobody asked for"
        elif content not in ("", "identity"):
            self._problem = "it compressed its answer although Accept-Encoding said identity. Switch compression off"
        elif int(length) > self._most_bytes and self.status not in _WITHOUT_BODY:
            self._problem = f"its body is announced with {length} bytes, past {self._too_long()}"
        self._until_close = not coding and "content-length" not in self.headers and self.status not in _WITHOUT_BODY

    def on_message_complete(self) -> None:
        """Finish the answer, or forget a 1xx one (httptools' callback)."""
        if self._head_done:
            self.complete = True
        else:
            self.headers.clear()

    def _too_long(self) -> str:
        if self._most_bytes == self.limits.body_bytes:
            return f"the limit of {self._most_bytes} bytes"
        return (
            f"the limit of {self._most_bytes} bytes, more than is read of an answer to this request: the server does "
            "not keep to max_tokens, repeats what it sent, or max_tokens asks for more than that"
        )

    def _syntax(self, error: Exception) -> str:
        if self.complete:
            return "it sent more bytes than the answer it announced"
        part = "in the body's chunks" if self._head_done else "in status line or headers"
        return f"it does not speak HTTP/1.1 ({part}: {error}). Check host and port in base_url"

    def _error(self, what: str) -> ProtocolError:
        return ProtocolError(f"the answer of {self.where} cannot be used: {what}.", status=self.status or None)
