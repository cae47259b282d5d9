"""The measuring HTTP client: raw bytes with arrival stamps; knows no engine."""

from __future__ import annotations

from pytest_llmparity.transport.client import Client
from pytest_llmparity.transport.exchange import Exchange, Limits, Read

__all__ = ["Client", "Exchange", "Limits", "Read"]
