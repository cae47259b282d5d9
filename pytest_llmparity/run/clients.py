"""HTTP clients under those of the ``openai`` package that reach a server as our own connections to it do.

The environment names no proxy to it (variables meant for the internet would send prompts for an engine on this machine
there) and no key (``.netrc``), and a redirect is an answer, not a way. Imports ``openai``, so import it late.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import openai


class Direct(openai.DefaultHttpxClient):
    """Closes itself with the client it is under, which a test seldom closes."""

    def __del__(self) -> None:
        if not self.is_closed:
            with contextlib.suppress(Exception):
                self.close()


class AsyncDirect(openai.DefaultAsyncHttpxClient):
    """The same for coroutines, as long as their loop runs."""

    def __del__(self) -> None:
        if not self.is_closed:
            with contextlib.suppress(Exception):
                asyncio.get_running_loop().create_task(self.aclose())


def way(base_url: str, *, ca_bundle: Path | None, proxy: str | None) -> dict[str, Any]:
    """Return the arguments of such a client; without a ``ca_bundle`` the system's certificates are trusted."""
    tls = base_url.startswith("https:")
    return {
        "verify": ssl.create_default_context(cafile=ca_bundle) if tls else False,
        "proxy": proxy,
        "trust_env": False,
        "follow_redirects": False,
    }
