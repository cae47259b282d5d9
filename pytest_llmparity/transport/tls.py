"""TLS from our side: whom to trust, why a handshake failed, and whether a port that speaks no HTTP speaks TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Final

from pytest_llmparity.core.errors import ConfigError, EngineError, TlsFailure, Unreachable

_LOOK_S: Final = 1.0
"""How long a port may take to answer the beginning of a handshake."""
_PLAIN: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL")
"""What OpenSSL calls an answer that is no TLS at all."""
_HANDSHAKE, _ALERT = 0x16, 0x15

# Codes of X509_verify_cert that ask for another next step than naming an authority (openssl/x509_vfy.h).
_SELF_SIGNED: Final = 18
_NOT_YET, _EXPIRED = 9, 10
_OTHER_NAME: Final = (62, 64)


def tls_context(ca_bundle: Path | None) -> ssl.SSLContext:
    """Make the TLS context: the system's authorities (``SSL_CERT_FILE`` counts), or those in ``ca_bundle`` alone."""
    try:
        context = ssl.create_default_context(cafile=None if ca_bundle is None else str(ca_bundle))
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"ca_bundle {str(ca_bundle)!r} cannot be read as PEM certificates: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_failure(where: str, error: BaseException) -> EngineError:
    """Return the error of a failed handshake with ``where`` (host:port): whose fault it is, and the next step."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return TlsFailure(
            f"the certificate of {where} is not trusted ({error.verify_message}). {_next_step(error.verify_code)}"
        )
    if isinstance(error, ssl.SSLError) and error.reason in _PLAIN:
        return TlsFailure(f"{where} does not speak TLS. Write http:// in base_url if that is meant.")
    return Unreachable(f"the TLS handshake with {where} failed ({str(error) or type(error).__name__}).")


def _next_step(code: int) -> str:
    if code == _SELF_SIGNED:
        return (
            "Nobody but the server itself vouches for it: if it is the one you mean, save its certificate as a PEM "
            "file and name that in ca_bundle or SSL_CERT_FILE."
        )
    if code in _OTHER_NAME:
        return "Write the name it was issued for in base_url."
    if code in (_NOT_YET, _EXPIRED):
        return "Renew it, or set this machine's clock right."
    return "Name its authority, a PEM file, in ca_bundle or SSL_CERT_FILE."


def wants_tls(where: str) -> TlsFailure:
    """Return the error of plain HTTP that was sent to a port with TLS."""
    return TlsFailure(f"{where} speaks TLS, not plain HTTP. Write https:// in base_url.")


def speaks_tls(host: str, port: int) -> bool:
    """Tell whether a port answers the beginning of a TLS handshake with TLS; False where nothing can be told.

    Asked of a port that took a plain HTTP request amiss. Blocks for a second or two at most.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = context.wrap_bio(incoming, outgoing, server_hostname=host)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    try:
        with socket.create_connection((host, port), timeout=_LOOK_S) as line:
            line.sendall(outgoing.read())
            line.shutdown(socket.SHUT_WR)  # one that waits for the rest of a line need not wait
            first = line.recv(1)
    except OSError:
        return False
    return first[:1] in (bytes([_HANDSHAKE]), bytes([_ALERT]))
