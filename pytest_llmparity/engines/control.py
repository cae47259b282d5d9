"""Control calls: short, unmeasured questions to a server (is it ready, what is it), through httpx."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from pytest_llmparity.core.errors import LaunchError, ProtocolError, Timeout, Unreachable
from pytest_llmparity.core.hiding import NOTHING, TextMask

MAX_BYTES: Final = 16 * 1024 * 1024
"""No answer to a control call is longer; a server that sends more is not one we know."""

CALL_TIMEOUT_S: Final = 5.0
"""Connecting, and each gap between reads, of a control call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer to a control call. Satisfies ``core.ports.Answer``."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Mapping[str, Any]:
        """Return the JSON object of a 200 answer; empty when it is anything else."""
        if self.status != 200:
            return {}
        try:
            value = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}


API: Final = "/v1"
"""What OpenAI's routes start with below a server's root, unless an address says otherwise."""


def routed(path: str, api: str) -> str:
    """Return a path with ``api`` in place of its leading ``/v1``; other paths, and one that has it, as they are.

    >>> routed("/v1/chat/completions", "/v3"), routed("/v1/models", ""), routed("/health", "/v3")
    ('/v3/chat/completions', '/models', '/health')
    """
    return api + path.removeprefix(API) if path.startswith(f"{API}/") else path


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """Asks one server. Holds no connection between calls and reads no proxy from the environment.

    ``api`` is what stands in place of the ``/v1`` that paths begin with. ``mask`` hides what a server repeats of its
    key.
    """

    engine: str
    base_url: str
    api: str = API
    headers: Mapping[str, str] = field(repr=False)
    ca_bundle: Path | None = None
    proxy: str | None = None
    mask: TextMask = field(default=NOTHING, repr=False)

    def get(self, path: str, *, timeout_s: float = CALL_TIMEOUT_S) -> Reply:
        """Return the answer to GET, any status; ``Unreachable``, ``Timeout`` or ``ProtocolError`` if none came."""
        return self._send("GET", path, b"", timeout_s)

    def post(self, path: str, body: bytes, *, timeout_s: float) -> Reply:
        """Return the answer to POST of a JSON body, as :meth:`get` does."""
        return self._send("POST", path, body, timeout_s)

    def head(self, path: str) -> Reply:
        """Return the answer to HEAD, as :meth:`get` does."""
        return self._send("HEAD", path, b"", CALL_TIMEOUT_S)

    def upload(self, path: str, file: Path, *, timeout_s: float) -> Reply:
        """Return the answer to POST of a file's bytes, read piece by piece, as :meth:`get` does."""
        with file.open("rb") as content:
            return self._send("POST", path, content, timeout_s)

    def ask(self, path: str) -> Mapping[str, Any]:
        """Return the JSON object at a path; empty when the route is missing, refused or answers something else."""
        try:
            return self.get(path).json()
        except (Unreachable, Timeout, ProtocolError):
            return {}

    def url(self, path: str) -> str:
        """Return the whole address of a path."""
        return self.base_url + routed(path, self.api)

    def _send(self, method: str, path: str, body: bytes | BinaryIO, timeout_s: float) -> Reply:
        import httpx

        kind = "application/json" if isinstance(body, bytes) else "application/octet-stream"
        headers = dict(self.headers) | ({"content-type": kind} if body else {})
        url = self.url(path)
        try:
            with (
                httpx.Client(trust_env=False, timeout=timeout_s, verify=self._verify(), proxy=self.proxy) as client,
                client.stream(method, url, content=body or None, headers=headers) as response,
            ):
                data = bytearray()
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > MAX_BYTES:
                        raise ProtocolError(
                            f"{self.engine} sent more than {MAX_BYTES} bytes to {method} {url}, which no server "
                            "we know does: check base_url.",
                            engine=self.engine,
                        )
                # Here, because whoever words it will shorten it, and nobody recognises half a key.
                said = self.mask.data(bytes(data), torn=response.status_code >= 400)
                return Reply(status=response.status_code, headers=dict(response.headers), body=said)
        except httpx.TimeoutException as exc:
            raise Timeout(
                f"{self.engine} did not answer {method} {url} in {timeout_s:g} s.", engine=self.engine
            ) from exc
        except (httpx.ConnectError, httpx.ProxyError) as exc:
            raise Unreachable(
                f"{self.engine}: nothing answers at {url} ({exc}). Start the server, or correct base_url.",
                engine=self.engine,
            ) from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise ProtocolError(
                f"{self.engine}: {method} {url} did not end as HTTP does ({type(exc).__name__}: {exc}).",
                engine=self.engine,
            ) from exc

    def _verify(self) -> ssl.SSLContext | bool:
        if urlsplit(self.base_url).scheme != "https":
            return False
        # With no cafile given this reads the system's store, which SSL_CERT_FILE moves.
        try:
            return ssl.create_default_context(cafile=self.ca_bundle)
        except (OSError, ssl.SSLError) as exc:
            raise LaunchError(
                f"{self.engine}: ca_bundle {str(self.ca_bundle)!r} cannot be read as certificates ({exc}).",
                engine=self.engine,
            ) from exc
