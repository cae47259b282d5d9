"""What goes wrong between an adapter and its server, whatever the kind; what depends on it is in test_contract.py."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from pytest_llmparity.core import errors
from pytest_llmparity.core.sample import Request
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.testing import Fault, LoopbackEngine, Reply
from pytest_llmparity.transport.exchange import Exchange

Attach = Callable[..., Adapter]
Send = Callable[..., Exchange]
Start = Callable[..., LoopbackEngine]

REQUEST = Request(case="refund-3", messages=({"role": "user", "content": "When?"},), top_logprobs=1)


@pytest.mark.parametrize("fault", [Fault.half_stream(), Fault.close()], ids=["half", "close"])
def test_connection_that_breaks_is_told_by_the_transport(
    fault: Fault, start: Start, attach: Attach, send: Send
) -> None:
    with pytest.raises(errors.ProtocolError):
        send(attach(start(fault).base_url), REQUEST)


def test_server_that_hangs_up_at_once_is_no_answer(start: Start, attach: Attach, send: Send) -> None:
    engine = start("x")
    engine.accepting = False

    with pytest.raises(errors.EngineError):
        send(attach(engine.base_url), REQUEST)


def test_busy_server_answers_the_same_request_later(start: Start, attach: Attach, send: Send) -> None:
    engine = start(Fault.busy(2, status=503, retry_after=None, then=Reply(text="at last")))
    adapter = attach(engine.base_url)

    statuses = [send(adapter, REQUEST).status for _ in range(3)]

    assert statuses == [503, 503, 200]
    assert adapter.read(send(adapter, REQUEST), case="c").text == "at last"


def test_logprob_that_is_no_number_is_unknown(start: Start, attach: Attach, send: Send) -> None:
    adapter = attach(start(Reply(text="a", logprob=math.nan)).base_url)

    (token,) = adapter.read(send(adapter, REQUEST), case="c").logprobs

    assert (token.token, token.logprob) == (b"a", None)


def test_key_is_sent_and_an_echo_of_it_is_only_text(start: Start, attach: Attach, send: Send) -> None:
    engine = start(Fault.echo_key(), api_key="sk-test-0123456789")
    adapter = attach(engine.base_url, api_key_env="KEY")

    assert adapter.read(send(adapter, REQUEST), case="c").text == "you sent Bearer sk-test-0123456789"
    assert adapter.api_key == "sk-test-0123456789"
    refused = send(attach(engine.base_url), REQUEST)
    assert refused.status == 401
