"""Control calls: short, unmeasured questions to a server (is it ready, what is it), through httpx.

Beside them what is read from variables for an engine, its request headers above all: secrets, never written down.
"""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from pytest_llmparity.core import errors
from pytest_llmparity.core.errors import advice, no_descriptors
from pytest_llmparity.core.words.hiding import NOTHING, TextMask
from pytest_llmparity.engines.facts.values import decoded, mapping
from pytest_llmparity.settings.specification import EngineSpec, EnvRef
from pytest_llmparity.transport.tls import speaks_tls, tls_failure, wants_tls

MAX_BYTES: Final = 16 * 1024 * 1024
"""No answer to a control call is longer; a server that sends more is not one we know."""

CALL_TIMEOUT_S: Final = 5.0
"""A whole control call, from connecting to the last byte of its answer."""

UPLOAD_BYTES_PER_S: Final = 4 * 1024 * 1024
"""A file that is sent, and read again by a daemon, may take as long as this slow disk or line would."""

_ALWAYS: Final = {"accept": "*/*", "accept-encoding": "gzip, deflate", "user-agent": "pytest-llmparity"}
"""What every call says of itself; httpx reads both encodings without further packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One answer to a control call. Satisfies ``core.ports.Answer``."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Mapping[str, Any]:
        """Return the JSON object of a 200 answer; empty when it is anything else."""
        return mapping(decoded(self.body)) if self.status == 200 else {}


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

    Every call ends after a time that is said for the whole of it, however many bytes trickle in, and when ``time_left``
    (seconds, ``None`` for no end) is up: the run may go on for so long.
    """

    engine: str
    base_url: str
    api: str = API
    headers: Mapping[str, str] = field(repr=False)
    ca_bundle: Path | None = None
    proxy: str | None = None
    mask: TextMask = field(default=NOTHING, repr=False)
    time_left: Callable[[], float | None] = lambda: None

    def get(self, path: str, *, timeout_s: float = CALL_TIMEOUT_S) -> Reply:
        """Return the answer to GET, any status; ``Unreachable``, ``Timeout`` or ``ProtocolError`` if none came."""
        return self._send("GET", path, b"", timeout_s)

    def post(self, path: str, body: bytes, *, timeout_s: float, total_s: float | None = None) -> Reply:
        """Return the answer to POST of a JSON body, as :meth:`get` does.

        With ``total_s`` that is the time for the whole call, and ``timeout_s`` for each pause within it.
        """
        return self._send("POST", path, body, timeout_s, total_s)

    def head(self, path: str) -> Reply:
        """Return the answer to HEAD, as :meth:`get` does."""
        return self._send("HEAD", path, b"", CALL_TIMEOUT_S)

    def upload(self, path: str, file: Path, *, timeout_s: float) -> Reply:
        """Return the answer to POST of a file's bytes, read piece by piece, as :meth:`get` does.

        ``timeout_s`` is for each pause; the whole may take :func:`upload_s`.
        """
        with file.open("rb") as content:
            return self._send("POST", path, content, timeout_s, upload_s(file, timeout_s))

    def ask(self, path: str) -> Mapping[str, Any]:
        """Return the JSON object at a path; empty when the route is missing, refused or answers something else."""
        try:
            return self.get(path).json()
        except (errors.Unreachable, errors.Timeout, errors.ProtocolError):
            return {}

    def url(self, path: str) -> str:
        """Return the whole address of a path."""
        return self.base_url + routed(path, self.api)

    def _send(
        self, method: str, path: str, body: bytes | BinaryIO, timeout_s: float, total_s: float | None = None
    ) -> Reply:
        import httpx

        url = self.url(path)
        total_s, left_s = timeout_s if total_s is None else total_s, self.time_left()
        late = f"{self.engine} did not answer {method} {url} in {total_s:g} s."
        if left_s is not None and left_s < total_s:
            total_s = left_s
            late = f"{self.engine} had not answered {method} {url} when the run's time was up (--parity-budget)."
        with _ending_after(total_s) as end:
            try:
                reply = self._sent(method, path, body, min(timeout_s, max(total_s, 0.001)), end)
            except httpx.InvalidURL as exc:
                raise errors.ProtocolError(
                    f"{self.engine}: {self.base_url} is no URL ({exc}).", engine=self.engine
                ) from exc
            except httpx.HTTPError as exc:
                if end.over or isinstance(exc, httpx.TimeoutException):
                    raise errors.Timeout(late, engine=self.engine) from exc
                raise self._worded(method, path, exc) from exc
            if end.over:  # an answer that ends with its connection looks whole when we end that
                raise errors.Timeout(late, engine=self.engine)
        if reply.status == 400 and method in ("GET", "HEAD") and self._wants_tls():
            raise self._named(wants_tls(urlsplit(self.base_url).netloc))  # many say so in plain HTTP, in their words
        return reply

    def _sent(self, method: str, path: str, body: bytes | BinaryIO, gap_s: float, end: _End) -> Reply:
        """Return what httpx brings; raises what it raises, and ``ProtocolError`` for an answer that is too long."""
        import httpx

        kind = "application/json" if isinstance(body, bytes) else "application/octet-stream"
        headers = (
            _ALWAYS
            | {name.lower(): value for name, value in self.headers.items()}
            | ({"content-type": kind} if body else {})
        )
        url = self.url(path)
        limits = {"timeout": httpx.Timeout(gap_s).as_dict(), "trace": end.trace}
        # Without httpx's client, which follows, remembers and authenticates what is none of it here: half of a call.
        request = httpx.Request(method, url, content=body or None, headers=headers, extensions=limits)
        with (
            httpx.HTTPTransport(trust_env=False, verify=self._verify(), proxy=self.proxy) as transport,
            contextlib.closing(transport.handle_request(request)) as response,
        ):
            came = bytearray()
            for piece in response.iter_bytes():
                came += piece
                if len(came) > MAX_BYTES:
                    raise errors.ProtocolError(
                        f"{self.engine} sent more than {MAX_BYTES} bytes to {method} {url}, which no server "
                        "we know does: check base_url.",
                        engine=self.engine,
                    )
            # Here, because whoever words it will shorten it, and nobody recognises half a key.
            hidden = self.mask.binary(bytes(came), torn=response.status_code >= 400)
            return Reply(status=response.status_code, headers=dict(response.headers), body=hidden)

    def _worded(self, method: str, path: str, exc: Exception) -> errors.LLMParityError:
        """Return what httpx raised as an error of ours."""
        import httpx

        url, where = self.url(path), urlsplit(self.base_url).netloc
        reason = _cause(exc)
        if reason is not None and isinstance(failure := tls_failure(where, reason), errors.TlsFailure):
            return self._named(failure)
        if (short := no_descriptors(exc)) is not None:
            return errors.MachineError(f"{self.engine}: {url} cannot be asked: {advice(short)}.")
        if isinstance(exc, (httpx.ConnectError, httpx.ProxyError)):
            return errors.Unreachable(
                f"{self.engine}: nothing answers at {url} ({exc}). Start the server, or correct base_url.",
                engine=self.engine,
            )
        if self._wants_tls():
            return self._named(wants_tls(where))
        return errors.ProtocolError(
            f"{self.engine}: {method} {url} did not end as HTTP does ({type(exc).__name__}: {exc}).",
            engine=self.engine,
        )

    def _named(self, failure: errors.EngineError) -> errors.EngineError:
        """Return an error of the transport, which knows no engine, with ours."""
        return type(failure)(f"{self.engine}: {failure}", engine=self.engine)

    def _wants_tls(self) -> bool:
        """Tell whether plain HTTP is spoken to a port that speaks TLS."""
        url = urlsplit(self.base_url)
        plain = url.scheme == "http" and self.proxy is None and url.hostname is not None
        return plain and speaks_tls(url.hostname or "", url.port or 80)

    def _verify(self) -> ssl.SSLContext:
        if urlsplit(self.base_url).scheme != "https":
            return _no_tls()
        # With no cafile given this reads the system's store, which SSL_CERT_FILE moves.
        try:
            return ssl.create_default_context(cafile=self.ca_bundle)
        except (OSError, ssl.SSLError) as exc:
            raise errors.LaunchError(
                f"{self.engine}: ca_bundle {str(self.ca_bundle)!r} cannot be read as certificates ({exc}).",
                engine=self.engine,
            ) from exc


@functools.cache
def _no_tls() -> ssl.SSLContext:
    """Return what plain HTTP never uses: httpx wants it all the same, and it costs as much as a call to make one."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def upload_s(file: Path, timeout_s: float) -> float:
    """Return how long work on a file may take in all, ``timeout_s`` being enough for the rest of it."""
    return timeout_s + file.stat().st_size / UPLOAD_BYTES_PER_S


def _cause(exc: BaseException) -> ssl.SSLError | None:
    """Return OpenSSL's own error below what httpx made of it."""
    below: BaseException | None = exc
    while below is not None and not isinstance(below, ssl.SSLError):
        below = below.__cause__ or below.__context__
    return below


class _End:
    """Shuts a call's connection when its time is up, so that whatever waits for a byte there stops waiting."""

    def __init__(self) -> None:
        self.over = False
        self._lock = threading.Lock()
        self._line: socket.socket | None = None

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of the connection (httpcore's ``trace`` extension)."""
        if event == "connection.connect_tcp.complete":
            with self._lock:
                self._drop()
                # Our own handle on the connection: TLS takes the original away while it shakes hands.
                self._line = info["return_value"].get_extra_info("socket").dup()
                self._shut()

    def come(self) -> None:
        """End the call, now or as soon as it is connected (the timer's call)."""
        with self._lock:
            self.over = True
            self._shut()

    def close(self) -> None:
        """Let go of the connection."""
        with self._lock:
            self._drop()

    def _shut(self) -> None:
        if self.over and self._line is not None:
            with contextlib.suppress(OSError):
                self._line.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


@contextlib.contextmanager
def _ending_after(seconds: float) -> Iterator[_End]:
    """Lend what ends a call after so many seconds, while it lasts."""
    end = _End()
    timer = threading.Timer(seconds, end.come)
    timer.daemon = True
    timer.start()
    try:
        yield end
    finally:
        timer.cancel()
        end.close()


# ---- what is read from variables -------------------------------------------------------------------------------------


def resolve_headers(spec: EngineSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a spec's request headers in lower case, variables read; ``ConfigError`` names one that is not set."""
    headers: dict[str, str] = {}
    if spec.api_key_env:
        headers["authorization"] = f"Bearer {_variable(spec, 'api_key_env', spec.api_key_env, environ)}"
    for name, value in spec.headers.items():
        if isinstance(value, EnvRef):
            value = _variable(spec, f"headers.{name}", value.env, environ)
        headers[name.lower()] = value
    return headers


def secrets_of(specs: Iterable[EngineSpec], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values that must never be written down, as they are sent, by the name of their variable."""
    names = [name for spec in specs for name in spec.secret_variables]
    return {name: value for name in names if (value := environ.get(name, "").strip())}


def sent_secrets(spec: EngineSpec, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets among headers that :func:`resolve_headers` made, by the name of their variable."""
    secrets = {
        value.env: headers.get(name.lower(), "") for name, value in spec.headers.items() if isinstance(value, EnvRef)
    }
    if spec.api_key_env and spec.api_key_env not in secrets:
        secrets[spec.api_key_env] = headers.get("authorization", "").removeprefix("Bearer ")
    return secrets


def resolve_env(spec: EngineSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a spec's process that are read from others; ``ConfigError`` names one that is not set."""
    return {name: _variable(spec, f"env.{name}", source, environ) for name, source in spec.env_from.items()}


def _variable(spec: EngineSpec, key: str, variable: str, environ: Mapping[str, str]) -> str:
    value = environ.get(variable, "").strip()
    if not value:
        raise errors.ConfigError(
            f"engine {spec.name!r}: {key} names the environment variable {variable}, which is not set. Export it "
            "before starting pytest."
        )
    if not value.isascii() or not value.isprintable():
        raise errors.ConfigError(
            f"engine {spec.name!r}: the value of {variable} ({key}) holds characters no HTTP header can carry."
        )
    return value
