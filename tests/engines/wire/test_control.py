"""Control calls: every one has a total, however bytes trickle, and says what keeps TLS from being spoken."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme

from pytest_llmparity.core.errors import ProtocolError, Timeout, TlsFailure
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.wire.control import Control, upload_s
from pytest_llmparity.settings.specification import EngineSpec

Behaviour = Callable[[socket.socket], None]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"


@contextlib.contextmanager
def listening(behaviour: Behaviour) -> Iterator[int]:
    """Accept connections, each handled by ``behaviour`` in a thread; lends the port."""
    over = threading.Event()

    def accept() -> None:
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                line, _ = server.accept()
                line.settimeout(5)
                thread = threading.Thread(target=handle, args=(line,), daemon=True)
                thread.start()
                threads.append(thread)

    def handle(line: socket.socket) -> None:
        with line, contextlib.suppress(OSError):
            behaviour(line)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.02)
        threads = [threading.Thread(target=accept, daemon=True)]
        threads[0].start()
        try:
            yield server.getsockname()[1]
        finally:
            over.set()
            for thread in threads:
                thread.join(2)


def trickle(line: socket.socket, payload: bytes) -> None:
    """Send byte after byte, each long before anybody gives up waiting for it."""
    for place in range(len(payload)):
        line.sendall(payload[place : place + 1])
        time.sleep(0.02)


def before_the_request(line: socket.socket) -> None:
    """Never read; a TLS client gets the beginning of a record that is never whole."""
    trickle(line, b"\x16\x03\x03\x40\x00" + bytes(200))


def in_the_headers(line: socket.socket) -> None:
    line.recv(65_536)
    trickle(line, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 200)


def in_the_body(line: socket.socket) -> None:
    line.recv(65_536)
    line.sendall(HEAD)
    trickle(line, b"a" * 200)


def in_a_body_that_ends_with_the_connection(line: socket.socket) -> None:
    line.recv(65_536)
    line.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    trickle(line, b"a" * 200)


def control(url: str, **more: object) -> Control:
    return Control(engine="cand", base_url=url, headers={}, **more)  # type: ignore[arg-type]


TRICKLES = [
    ("http", in_the_headers),
    ("http", in_the_body),
    ("http", in_a_body_that_ends_with_the_connection),
    ("https", before_the_request),
]


@pytest.mark.parametrize(("scheme", "behaviour"), TRICKLES)
def test_a_call_ends_after_its_time_however_the_answer_trickles(scheme: str, behaviour: Behaviour) -> None:
    with listening(behaviour) as port:
        began = time.monotonic()
        with pytest.raises(Timeout, match=r"cand did not answer GET https?://127.0.0.1:\d+/health in 0.2 s"):
            control(f"{scheme}://127.0.0.1:{port}").get("/health", timeout_s=0.2)

    assert time.monotonic() - began < 2


def test_a_proxy_that_trickles_is_not_waited_for_either() -> None:
    with listening(in_the_headers) as port, pytest.raises(Timeout):
        control("https://engine.example", proxy=f"http://127.0.0.1:{port}").get("/health", timeout_s=0.2)


def test_a_call_ends_with_the_run_s_time() -> None:
    with listening(in_the_body) as port:
        url = f"http://127.0.0.1:{port}"
        with pytest.raises(Timeout, match=r"had not answered POST .* when the run's time was up .--parity-budget."):
            control(url, time_left=lambda: 0.1).post("/x", b"{}", timeout_s=300)
        with pytest.raises(Timeout, match=r"when the run's time was up .--parity-budget."):
            control(url, time_left=lambda: 0.0).get("/x")


def test_a_call_with_a_total_of_its_own_may_pause_less_than_that() -> None:
    with listening(in_the_body) as port, pytest.raises(Timeout, match=r"in 0\.3 s"):
        control(f"http://127.0.0.1:{port}").post("/x", b"{}", timeout_s=0.2, total_s=0.3)


def test_a_file_may_take_as_long_as_it_is_large(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    with file.open("wb") as content:
        content.truncate(8 * 1024**3)

    assert upload_s(file, 300) == 300 + 2048


def test_warm_up_and_readiness_end_too() -> None:
    with listening(in_the_headers) as port:
        spec = EngineSpec(
            name="slow", kind="openai", model="m", base_url=f"http://127.0.0.1:{port}", request_timeout_s=0.2
        )
        adapter = registry.make(spec, spec.base_url or "", environ={}, time_left=lambda: 0.3)

        with pytest.raises(Timeout):
            adapter.warm_up()
        assert "had not answered GET" in (adapter.ready() or "")


# ---- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def over_tls(authority: trustme.CA, name: str = "127.0.0.1") -> Behaviour:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)

    def serve(line: socket.socket) -> None:
        with context.wrap_socket(line, server_side=True) as inner:
            inner.recv(65_536)
            inner.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    return serve


def made_for(spec_url: str) -> str:
    """Return what an engine of kind openai says of its readiness; raises the final no."""
    spec = EngineSpec(name="cand", kind="openai", model="m", base_url=spec_url)
    return registry.make(spec, spec_url, environ={}).ready() or "ready"


def test_an_unknown_authority_is_named_with_the_next_step(authority: trustme.CA, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with listening(over_tls(authority)) as port:
        url = f"https://127.0.0.1:{port}"
        with pytest.raises(TlsFailure, match=rf"^cand: the certificate of 127.0.0.1:{port} is not trusted .*ca_bundle"):
            made_for(url)
        assert control(url, ca_bundle=bundle).get("/").status == 200


def test_a_certificate_for_another_name_is_not_healed_by_an_authority(authority: trustme.CA, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(bundle))
    with (
        listening(over_tls(authority, "other.example")) as port,
        pytest.raises(TlsFailure, match="issued for") as caught,
    ):
        control(f"https://127.0.0.1:{port}", ca_bundle=bundle).get("/")

    assert "ca_bundle" not in str(caught.value)


def test_plain_http_to_a_port_with_tls_is_named(authority: trustme.CA) -> None:
    text = r"^cand: 127.0.0.1:\d+ speaks TLS, not plain HTTP\. Write https:// in base_url"
    with listening(over_tls(authority)) as port, pytest.raises(TlsFailure, match=text):
        made_for(f"http://127.0.0.1:{port}")


def test_so_is_one_that_says_it_in_plain_http(authority: trustme.CA) -> None:
    """Go's and nginx's servers look at the first byte and answer 400 in plain HTTP."""
    inner = over_tls(authority)

    def serve(line: socket.socket) -> None:
        if line.recv(1, socket.MSG_PEEK) == b"\x16":
            return inner(line)
        line.recv(65_536)
        words = b"Client sent an HTTP request to an HTTPS server.\n"
        return line.sendall(b"HTTP/1.0 400 Bad Request\r\nContent-Length: %d\r\n\r\n%s" % (len(words), words))

    with listening(serve) as port, pytest.raises(TlsFailure, match="speaks TLS"):
        made_for(f"http://127.0.0.1:{port}")


def test_a_plain_server_that_hangs_up_is_not_taken_for_one_with_tls() -> None:
    with listening(lambda line: None) as port, pytest.raises(ProtocolError, match="did not end as HTTP does"):
        control(f"http://127.0.0.1:{port}").get("/")


def test_tls_to_a_plain_port_is_named() -> None:
    def serve(line: socket.socket) -> None:
        line.recv(65_536)
        line.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with listening(serve) as port, pytest.raises(TlsFailure, match=r"does not speak TLS\. Write http://"):
        made_for(f"https://127.0.0.1:{port}")
