"""Lines to paste against a cause: what is set where, or who has to set it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from pytest_llmparity.core.checks.drift.logprobs import LogprobsCheck
from pytest_llmparity.core.checks.drift.text import TextCheck
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.sources import FILE
from pytest_llmparity.settings.specification import EngineSpec


def raw(name: str, other: str) -> str:
    """Return how an engine is asked what another one makes of a chat."""
    return f"in your requests to {name}: client.completions.create(prompt=…), with the chat rendered as {other} does"


def spelt(spec: EngineSpec) -> str:
    """Return an engine as a command line of ``llmparity`` names it: by its name where a file has it, else in full.

    >>> spelt(EngineSpec(name="q2", kind="llamacpp", model="a b.gguf", origins={"model": "--engines"}))
    "'q2=llamacpp:a b.gguf'"
    """
    if all("engines." in spec.origins.get(key, "engines.") for key in ("model", "base_url")):
        return spec.name
    model = spec.model or ""
    if spec.kind is None:
        entry = f"{spec.base_url}{model and '#'}{model}"
    else:
        entry = f"{spec.kind}:{model}" + (f"@{spec.base_url}" if "base_url" in spec.origins else "")
    return shlex.quote(f"{spec.name}={entry}")


def accepting(
    outcome: Outcome, check: Check, beside: Sequence[Check], baseline: EngineSpec, candidate: EngineSpec
) -> str:
    """Return how a drift of other weights is accepted, a clause; empty where nothing has to be: the verdict passes.

    ``check`` judged it, ``beside`` are all of the test. What ``llmparity calibrate`` measures is the margin of a
    ``check.logprobs()`` without a number, and of no other check: where the test has none it is not named.
    """
    if outcome is Outcome.PASS:
        return ""
    measured = [each for each in beside if isinstance(each, LogprobsCheck) and each.shift is None]
    calibrate = f"llmparity calibrate {spelt(baseline)} {spelt(candidate)}"
    if isinstance(check, LogprobsCheck):
        return f"to accept them {calibrate if check in measured else 'raise the shift of check.logprobs()'}"
    if not isinstance(check, TextCheck):
        return f"to accept them ask less of check.{check.kind}()"
    given = "give check.text() a margin" if check.margin is None else "raise the margin of check.text()"
    return f"to accept them {given}" + (f", and for check.logprobs() {calibrate}" if measured else "")


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
