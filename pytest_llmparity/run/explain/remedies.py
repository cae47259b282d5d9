"""Lines to paste against a cause: what is set where, or who has to set it."""

from __future__ import annotations

import json
import shlex

from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.sources import FILE


def raw(name: str, other: str) -> str:
    """Return how an engine is asked what another one makes of a chat."""
    return f"in your requests to {name}: client.completions.create(prompt=…), with the chat rendered as {other} does"


def started(adapter: Adapter, *flags: str) -> str:
    """Return where flags of an engine's server go: into the file and the table, or to whoever starts that server."""
    if not adapter.spec.launched:
        return f"start the server of {adapter.name} with: {shlex.join(flags)}"
    args = json.dumps([*adapter.spec.args, *flags], ensure_ascii=False)
    return f"{FILE}, [engines.{adapter.name}]: args = {args}"


def roomy(adapter: Adapter, tokens: int) -> str:
    """Return where the context that holds a prompt of so many tokens is set."""
    room = room_for(tokens)
    if not adapter.spec.launched:
        return f"start the server of {adapter.name} with a context of {room} tokens for each request"
    return f"{FILE}, [engines.{adapter.name}]: context_length = {room}"


def room_for(tokens: int) -> int:
    """Return a context that holds a prompt of so many tokens and an answer.

    >>> room_for(900), room_for(5000)
    (2048, 8192)
    """
    room = 1024
    while room < tokens + 512:
        room *= 2
    return room
