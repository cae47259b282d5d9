"""Asks an engine its canaries: a dozen short prompts, greedy, with logprobs where it gives them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Final

from pytest_llmparity.core.errors import EngineError
from pytest_llmparity.core.identity.canaries import ALTERNATIVES, TOKENS
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.prompts.reading import parse_prompts
from pytest_llmparity.core.sample import Completion, Request, Sampling
from pytest_llmparity.engines.wire.base import Adapter

SET: Final = "canaries"
"""Name of the prompts, which come with this package."""
REQUESTS: Final = 12
"""How many they are."""
MOST: Final = REQUESTS + 1
"""Requests to one engine at most: where the first is refused with logprobs it is asked once more without."""
AT_ONCE: Final = 4
"""Requests in flight where they are asked in parallel."""


def cases() -> Sequence[Case]:
    """Return the prompts."""
    text = resources.files("pytest_llmparity").joinpath(f"prompts/{SET}.jsonl").read_text("utf-8")
    return parse_prompts(text, source=f"{SET}.jsonl", name=SET).cases


def ask(
    adapter: Adapter,
    *,
    take: Callable[[], bool] = lambda: True,
    at_once: int = 1,
    prompts: Sequence[Case] = (),
) -> Mapping[str, Completion]:
    """Return an engine's answers by case; those it fails to give are not among them.

    An engine that refuses logprobs is asked without. ``take`` says before each whether one more may be asked.
    """
    wanted = [case for case in prompts or cases() if take()]
    if not wanted:
        return {}
    first = _answer(adapter, wanted[0], logprobs=adapter.can.logprobs is not False)
    logprobs = first is not None and bool(first.logprobs)
    if first is None and take():
        first = _answer(adapter, wanted[0], logprobs=False)
    if first is None:
        return {}  # a server that hangs is not waited for a dozen times

    def one_more(case: Case) -> Completion | None:
        return _answer(adapter, case, logprobs=logprobs)

    if at_once == 1:
        answers = [one_more(case) for case in wanted[1:]]
    else:
        with ThreadPoolExecutor(at_once) as threads:
            answers = list(threads.map(one_more, wanted[1:]))
    given = {case.id: answer for case, answer in zip(wanted, [first, *answers], strict=True) if answer is not None}
    if not logprobs:
        given[wanted[0].id] = first
    return given


def _answer(adapter: Adapter, case: Case, *, logprobs: bool) -> Completion | None:
    try:
        wire = adapter.build(adapter.own(_request(case, logprobs=logprobs)), stream=False)
        reply = adapter.control.post(wire.path, wire.body, timeout_s=adapter.spec.request_timeout_s)
        return adapter.read(reply, case=case.id)
    except EngineError:  # a prompt it cannot be asked says nothing, whatever the reason
        return None


def _request(case: Case, *, logprobs: bool) -> Request:
    request = case.request(Sampling(max_tokens=TOKENS))
    return dataclasses.replace(request, top_logprobs=ALTERNATIVES if logprobs else None)
