from __future__ import annotations

import dataclasses

from pytest_llmparity.core.checks.latency import unknown
from pytest_llmparity.core.sample import Completion, Phase, Sample, Timing
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.judge.recorded import latency_quantiles, unknown_latency

PLAIN = Timing(ttfb_s=0.1, ttft_s=0.2, e2e_s=1.2, tpot_s=0.1, token_events=10, tokens=11)


def timed(*timings: Timing) -> dict[str, list[Sample]]:
    answer = Completion(text="x")
    samples = [Sample(engine="a", case="c", phase=Phase.TIMED, completion=answer, timing=timing) for timing in timings]
    return {"a": samples}


def limit(name: str) -> Verdict:
    kind = f"latency.{name}"
    return Verdict(test="t", check="latency", kind=kind, outcome=Outcome.INCONCLUSIVE, engine="a", baseline=None)


def test_a_metric_that_is_not_known_has_no_row_but_a_sentence() -> None:
    apart = dataclasses.replace(PLAIN, tpot_s=None, tokens=110)
    samples = timed(PLAIN, apart, dataclasses.replace(PLAIN, merged_first=True))

    assert [row.metric for row in latency_quantiles(samples)] == ["e2e"]
    first, second = unknown_latency(samples, [limit("ttft_p50"), limit("tpot_p95")], asked=True)
    assert first.startswith("no ttft of a is shown: 1 of 3 first tokens of a arrived together with later ones")
    assert second.startswith("no tpot of a is shown: 1 of 3 answers of a came in other numbers of events than")


def test_times_that_no_limit_asks_for_are_told_apart() -> None:
    samples = timed(dataclasses.replace(PLAIN, tpot_s=None, tokens=110, merged_first=True))
    limits = [limit("e2e_p95"), limit("ttft_p50")]

    assert [line.partition(" of ")[0] for line in unknown_latency(samples, limits, asked=True)] == ["no ttft"]
    assert [line.partition(" of ")[0] for line in unknown_latency(samples, limits, asked=False)] == ["no tpot"]
    assert unknown_latency(samples, [], asked=True) == []


def test_answers_that_arrive_whole_have_no_time_per_token_and_neither_have_the_few_that_do_not() -> None:
    samples = timed(*[dataclasses.replace(PLAIN, tpot_s=None)] * 9, PLAIN)

    assert [row.metric for row in latency_quantiles(samples)] == ["ttft", "e2e"]
    assert unknown_latency(samples, [limit("tpot_p50")], asked=True)[0].startswith(
        "no tpot of a is shown: 9 of 10 answers of a arrived whole in one read"
    )
    short = dataclasses.replace(PLAIN, tpot_s=None, token_events=1, tokens=1)
    assert [row.n for row in latency_quantiles(timed(*[short] * 9, PLAIN)) if row.metric == "tpot"] == [1]


def test_what_a_verdict_says_is_not_said_twice() -> None:
    samples = timed(dataclasses.replace(PLAIN, tpot_s=None, tokens=110))
    why = unknown("a", "tpot", [sample.timing for sample in samples["a"] if sample.timing])
    verdict = dataclasses.replace(limit("tpot_p50"), reason=why)

    assert unknown_latency(samples, [verdict], asked=True) == []


def test_requests_that_met_a_load_are_in_no_row() -> None:
    rows = latency_quantiles(timed(PLAIN, PLAIN, dataclasses.replace(PLAIN, e2e_s=9.0, met_load=True)))

    assert {(row.metric, row.n, row.p99) for row in rows if row.metric == "e2e"} == {("e2e", 2, 1.2)}
