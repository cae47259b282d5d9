"""A server we attach to that restarts is waited for (seen: an Ollama back after 3 s, 144 of 144 prompts given up)."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.testing import LoopbackEngine

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

OK, FAILED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
REPORT = ("--parity-report=json", "--parity-out=out")
AWAY_S = 0.3
"""Long beside a request, and enough for several to find nobody."""


class Restarting:
    """An engine that stops after so many prompts and, unless ``after`` is ``None``, is another process a little later.

    ``after`` is what the engine is made with then; ``phase`` counts only prompts asked that way: ``timed`` ones carry a
    number before their text.
    """

    def __init__(self, bench: Bench, at: int, after: dict[str, Any] | None, **first: Any) -> None:
        self.bench = bench
        self.before = bench.engine(**first)
        self.port = int(self.before.base_url.rpartition(":")[2])
        self.later: LoopbackEngine | None = None
        self._at = at
        self._after = None if after is None else first | after
        self._thread = threading.Thread(target=self._restart, daemon=True)

    def __enter__(self) -> Restarting:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._at = 0
        self._thread.join(10)

    def _restart(self) -> None:
        pause = threading.Event()
        while len(self.bench.asked(self.before)) < self._at:
            pause.wait(0.005)
        self.before.stop()
        if self._after is not None:
            pause.wait(AWAY_S)
            self.later = self.bench.engine(port=self.port, **self._after)

    def configure(self, kind: str = "openai", reconnect_s: float = 20.0) -> None:
        self.bench.configure(
            f'[engines.b]\nkind = "{kind}"\nmodel = "loopback"\nbase_url = "{self.before.base_url}"\n'
            f"reconnect_s = {reconnect_s}\n"
        )


@pytest.mark.slow
def test_a_server_that_restarts_is_waited_for_and_no_answer_is_lost(bench: Bench) -> None:
    bench.prompts(16)
    bench.gate("check.text(margin=0.05), check.schema({}, gap=0.5)")
    with Restarting(bench, 24, {}, token_delay_s=0.001) as b:
        b.configure()

        result = bench.run("--engines=b", *REPORT, engines=[bench.engine()])

    assert result.ret == OK, result.stdout.str()
    assert bench.report()["failures"] == []
    printed = " ".join(result.stdout.str().split())
    assert "b restarted while it was asked: it was away" in printed
    assert b.later is not None
    twice = len(bench.asked(b.before)) + len(bench.asked(b.later)) - (16 + 3 * 16)
    assert 0 <= twice <= 4, "only what was under way is asked again"


@pytest.mark.slow
def test_a_server_that_does_not_come_back_is_an_error_and_the_rest_is_not_asked(bench: Bench) -> None:
    bench.prompts(16)
    bench.gate("check.text(margin=0.05), check.schema({}, rate=0.5)")
    with Restarting(bench, 24, None, token_delay_s=0.001) as b:
        b.configure(reconnect_s=AWAY_S)

        result = bench.run("--engines=b", *REPORT, engines=[bench.engine()])

    assert result.ret == FAILED
    outcomes = {(v["kind"], v["engine"]): v["outcome"] for v in bench.report()["verdicts"]}
    assert outcomes["text", "b"] == outcomes["schema.rate", "b"] == "ERROR"
    kinds = Counter(failure["kind"] for failure in bench.report()["failures"])
    assert kinds["NotAsked"] >= 64 - 24 - 4
    assert kinds.total() - kinds["NotAsked"] <= 4, "what was under way"
    printed = " ".join(result.stdout.str().split())
    assert f"{kinds['NotAsked']} prompts not asked" in printed
    assert f"b went away while it was asked and could not be used again within {AWAY_S:g} s" in printed
    assert "were not asked: b went away" in printed


@pytest.mark.slow
def test_a_server_that_comes_back_as_another_is_not_compared(bench: Bench) -> None:
    bench.prompts(16)
    bench.gate("check.text(margin=0.05)")
    with Restarting(
        bench, 24, {"quantization": "Q8_0"}, poses_as="llamacpp", quantization="Q4_0", token_delay_s=0.001
    ) as b:
        b.configure(kind="llamacpp")

        result = bench.run("--engines=b", *REPORT, engines=[bench.engine()])

    assert result.ret == FAILED
    assert {v["outcome"] for v in bench.report()["verdicts"] if v["engine"] == "b"} == {"INCOMPARABLE"}
    printed = " ".join(result.stdout.str().split())
    assert "came back as another engine" in printed
    assert "quantization was Q4_0 and is Q8_0" in printed
    assert b.later is not None
    assert bench.asked(b.later) == [], "no prompt before it was known who it is"


@pytest.mark.slow
def test_a_timed_phase_that_met_a_restart_is_measured_again(bench: Bench) -> None:
    bench.gate('check.latency(e2e_p50="30s", success_rate=0.9, n=48), concurrency=2')
    with Restarting(bench, 8 + 20, {}, token_delay_s=0.002) as b:
        b.configure()

        result = bench.run("--engines=b", *REPORT, engines=[bench.engine()])

    printed = " ".join(result.stdout.str().split())
    assert "b restarted while prompts" in printed, printed
    assert "was timed: it was measured again" in printed
    assert bench.report()["failures"] == []
    assert result.ret == OK
