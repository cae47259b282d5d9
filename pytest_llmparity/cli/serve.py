"""``llmparity serve``: start one engine as a run would, and stop it at Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import time
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import add_verb, complain, selected, serving
from pytest_llmparity.core.words.exits import OK, WRONG
from pytest_llmparity.core.words.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_llmparity.cli.verbs import Commands
    from pytest_llmparity.run.session import Session
    from pytest_llmparity.settings.specification import EngineSpec

GONE_S = 0.2
"""Seconds between two questions of ``serve`` whether its engine still runs."""


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Start one engine as a run would, say where it is, and stop it at Ctrl-C."
    parser = add_verb(commands, "serve", does=does)
    parser.set_defaults(command=_serve, name="serve")


def _serve(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import UsageError

    selection = selected(asked)
    if len(selection.settings.engines) != 1:
        names = ", ".join(spec.name for spec in selection.settings.engines)
        raise UsageError(f"serve starts one engine, and these are selected: {names}; name one of them")
    (spec,) = selection.settings.engines
    if not spec.launched:
        where = spec.base_url or "its own address"
        raise UsageError(f"{spec.name} is not started by us, it is attached to at {where}; there is nothing to serve")
    # Not the handler of SIGINT: a shell's job in the background has that ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with serving(selection) as session:
            print(f"{spec.name} is starting; its output goes to .llmparity/logs/{spec.name}.log", flush=True)
            print(*_served(session, spec), sep="\n", flush=True)
            while (why := session.gone(spec.name)) is None:
                time.sleep(GONE_S)
    except KeyboardInterrupt:
        print(f"{spec.name} was stopped")
        return OK
    return complain(why, WRONG)


def _served(session: Session, spec: EngineSpec) -> Iterator[str]:
    """Start the engine; yield what it is and how to reach it."""
    adapter, identity = session.available(spec.name)
    names = ("version", "quantization", "context_length", "slots", "digest")
    facts = [f"{name} {identity.get(name)}" for name in names if identity.get(name) is not None]
    yield printable(f"{spec.name}: {', '.join([adapter.kind, *facts])}")
    yield printable(f"  base URL for clients of openai: {adapter.openai_base_url}")
    yield printable(f"  model: {adapter.model}")
    yield printable(f"  to attach a run to it: --engines {spec.name}={adapter.kind}:{adapter.model}@{adapter.base_url}")
    yield "  Ctrl-C stops it"
