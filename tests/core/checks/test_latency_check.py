from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.designs import MORE_PROMPTS, ONE_BLOCK
from pytest_llmparity.core.checks.latency import LatencyCheck, parse_budget
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.sample import Fact, Identity, Phase, Sample, Timing
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words.explain import size

if TYPE_CHECKING:
    from tests.core.conftest import Factory


def spread(around: float, n: int = 128, *, seed: int = 1) -> list[float]:
    rng = random.Random(seed)
    return [around * rng.lognormvariate(0, 0.1) for _ in range(n)]


def only(checked: LatencyCheck, evidence: Evidence) -> Verdict:
    (verdict,) = checked.judge(evidence)
    return verdict


def test_an_absolute_budget_that_every_request_keeps_passes(make: Factory) -> None:
    verdict = only(check.latency(e2e_p95="2s"), make.evidence(make.timed("base", spread(1.0))))

    assert (verdict.kind, verdict.outcome, verdict.baseline) == ("latency.e2e_p95", Outcome.PASS, None)
    assert (verdict.estimate, verdict.margin, verdict.unit, verdict.n) == (0.0, 0.05, "share", 128)
    assert verdict.message == (
        "PASS latency.e2e_p95, base: 0 % of requests took over 2 s end to end, at most 2.58 %, margin 5 %, 128 "
        "requests, which count as 114 (those of a block are slow together)"
    )
    assert verdict.details[0].startswith("base end to end: p50 ")
    assert verdict.details[0].endswith("; 128 requests in 8 blocks")


def test_an_absolute_budget_is_judged_for_every_engine(make: Factory) -> None:
    evidence = make.evidence(make.timed("base", spread(1.0)), make.timed("cand", spread(3.0)))
    outcomes = {verdict.engine: verdict.outcome for verdict in check.latency(ttft_p50="1s").judge(evidence)}

    assert outcomes == {"base": Outcome.PASS, "cand": Outcome.FAIL}


def test_near_the_budget_it_says_how_many_requests_would_settle_it(make: Factory) -> None:
    slow = [1.0] * 124 + [3.0] * 4
    verdict = only(check.latency(e2e_p95=2.0), make.evidence(make.timed("base", slow)))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.needed is not None
    assert verdict.message.endswith(
        f"a run of about {verdict.needed} requests in all would settle it, {(verdict.needed or 0) - verdict.n} more"
    )


def test_requests_that_met_a_load_do_not_count(make: Factory) -> None:
    engine = make.timed("base", [0.1] * 112 + [9.0] * 16)
    samples = {
        case: [
            msgspec.structs.replace(s, timing=dataclasses.replace(s.timing, met_load=True))
            if s.repeat >= 112 and s.timing
            else s
            for s in timed
        ]
        for case, timed in engine.samples[Phase.TIMED].items()
    }
    verdict = only(
        check.latency(e2e_p95="1s"), make.evidence(dataclasses.replace(engine, samples={Phase.TIMED: samples}))
    )

    assert (verdict.estimate, verdict.n) == (0.0, 112)
    assert any("16 requests that may have waited for it do not count" in line for line in verdict.remarks)


@pytest.mark.parametrize(("slots", "told"), [(1, True), (8, False), ("2 or more", False)])
def test_a_queue_is_named(make: Factory, slots: int | str, told: bool) -> None:
    engine = make.timed("base", spread(1.0))
    busy = {
        case: [msgspec.structs.replace(s, concurrency=4) for s in timed]
        for case, timed in engine.samples[Phase.TIMED].items()
    }
    identity = Identity(facts={"slots": Fact(value=slots, source="probed")})
    engine = dataclasses.replace(engine, samples={Phase.TIMED: busy}, identity=identity)
    verdict = only(check.latency(e2e_p95="5s"), make.evidence(engine))

    queue = "base answers 1 request at a time (probed) and 4 were under way: its times hold the wait in its queue"
    assert (queue in verdict.remarks) == told


def test_a_relative_budget_compares_quantiles_of_paired_blocks(make: Factory) -> None:
    for factor, outcome in ((1.05, Outcome.PASS), (1.6, Outcome.FAIL)):
        evidence = make.evidence(make.timed("base", spread(1.0)), make.timed("cand", spread(factor, seed=2)))
        verdict = only(check.latency(ttft_p50="x1.25"), evidence)
        assert verdict.outcome is outcome
        assert (verdict.engine, verdict.baseline, verdict.unit, verdict.margin) == ("cand", "base", "ratio", 1.25)
        assert verdict.estimate == pytest.approx(factor, rel=0.05)
        assert "of base's p50 to the first token" in verdict.message
        assert len(verdict.details) == 2


def test_failed_requests_count_as_over_and_the_first_is_named(make: Factory) -> None:
    values = [None if index % 5 == 0 else value for index, value in enumerate(spread(1.0))]
    verdict = only(check.latency(tpot_p95="1s"), make.evidence(make.timed("base", values)))

    assert verdict.outcome is Outcome.FAIL
    assert verdict.estimate == 26 / 128
    assert "p99 never" in verdict.details[0]
    assert verdict.details[0].endswith("128 requests in 8 blocks")
    assert verdict.details[1] == (
        "26 failed requests, counted as over; first: base on c0: Timeout: no first byte within 60 s"
    )


def test_an_engine_that_dies_half_way_keeps_its_blocks_and_fails(make: Factory) -> None:
    dead = [*spread(1.0, 64), *[None] * 64]
    evidence = make.evidence(make.timed("base", spread(1.0)), make.timed("cand", dead))
    ours, theirs = check.latency(e2e_p50="2s").judge(evidence)
    assert ours.outcome is Outcome.PASS
    assert theirs.details[0].endswith("128 requests in 8 blocks")
    ratio = only(check.latency(e2e_p95="x1.25"), evidence)
    assert ratio.outcome is not Outcome.PASS
    assert ratio.estimate is None
    assert ratio.message.endswith("cand's p95 is a request that failed")

    never = make.evidence(make.timed("base", [None] * 128))
    verdict = only(check.latency(e2e_p50="2s"), never)
    assert (verdict.outcome, verdict.estimate) == (Outcome.FAIL, 1.0)


def test_the_share_that_succeeds_is_judged_exactly(make: Factory) -> None:
    fine = make.timed("base", spread(1.0))
    bad = make.timed("cand", [None if place % 5 == 0 else 1.0 + place / 1000 for place in range(128)])
    ours, theirs = check.latency(success_rate=0.95).judge(make.evidence(fine, bad))

    assert (ours.kind, ours.outcome) == ("latency.success_rate", Outcome.PASS)
    assert ours.remarks == (
        "no request failed in 8 blocks: outages as long as a block may take up to 31.23 % of the time",
    )
    assert theirs.outcome is Outcome.FAIL
    assert theirs.message.startswith("FAIL latency.success_rate, cand: 79.69 % of requests succeeded, at most ")


def test_few_prompts_timed_again_and_again_count_as_few(make: Factory) -> None:
    """One prompt of eight is slow each time: 16 requests of 128, and one prompt."""
    slow = make.timed("base", [3.0 if place % 8 == 0 else 1.0 for place in range(128)])
    verdict = only(check.latency(e2e_p95="2s"), make.evidence(slow))

    assert (verdict.outcome, verdict.effective, verdict.needed) == (Outcome.INCONCLUSIVE, 8, None)
    assert "128 requests of 8 prompts, which count as 8 (those of a prompt are slow together)" in verdict.message
    assert verdict.message.endswith(MORE_PROMPTS)
    quick = only(check.latency(e2e_p95="2s"), make.evidence(make.timed("base", spread(1.0))))
    assert quick.outcome is Outcome.PASS
    assert quick.remarks[0] == "no request of 8 prompts was over: up to 31.23 % of prompts like these may always be"


def test_one_prompt_is_refused_because_nothing_settles_it(make: Factory) -> None:
    """All 128 requests of it are over: p95 stays open, since they are one prompt."""
    asked = check.latency(e2e_p95="2s", success_rate=0.95, ttft_p50="x1.25")
    reason = (
        "e2e_p95 and success_rate cannot be settled on one prompt: however often it is timed it counts as one request"
    )

    assert str(asked.problem(cases=1, groups=1, engines=2)).startswith(reason)
    assert "settled on 40 prompts of one group" in str(asked.problem(cases=40, groups=1, engines=2))
    assert check.latency(ttft_p50="x1.25").problem(cases=1, groups=1, engines=2) is None
    late = make.timed("base", spread(9.0))
    (timed,) = late.samples.values()
    together = {"c0": sorted((sample for each in timed.values() for sample in each), key=lambda sample: sample.repeat)}
    same = [msgspec.structs.replace(sample, case="c0") for sample in together["c0"]]
    evidence = make.evidence(dataclasses.replace(late, samples={Phase.TIMED: {"c0": same}}))
    assert [verdict.outcome for verdict in check.latency(e2e_p95="2s", e2e_p50="2s").judge(evidence)] == [
        Outcome.INCONCLUSIVE
    ] * 2


def test_prompts_of_one_group_are_late_together(make: Factory) -> None:
    """Eight prompts of four templates, one of which is late each time, in both of its prompts."""
    cases = [make.case(index, group=f"template {index % 4}") for index in range(8)]
    slow = make.timed("base", [3.0 if place % 4 == 0 else 1.0 for place in range(128)])
    verdict = only(check.latency(e2e_p95="2s"), make.evidence(slow, cases=cases))
    alone = only(check.latency(e2e_p95="2s"), make.evidence(slow))

    assert (verdict.effective, verdict.groups, alone.effective, alone.groups) == (4, 4, 8, 8)
    assert "128 requests of 4 groups, which count as 4 (those of a group are slow together)" in verdict.message
    assert "n 128, count as 4" in size(verdict)
    quick = only(check.latency(e2e_p95="2s"), make.evidence(make.timed("base", spread(1.0)), cases=cases))
    assert quick.remarks[0] == "no request of 4 groups was over: up to 52.71 % of groups like these may always be"


def test_an_outage_is_one_piece_of_evidence_however_many_requests_it_takes(make: Factory) -> None:
    """28 requests of 128 fail, all of them at the end."""
    down = make.timed("base", [*spread(1.0, 100), *[None] * 28])
    (verdict,) = check.latency(success_rate=0.95).judge(make.evidence(down))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "(those of a block fail together)" in verdict.message
    (one_block,) = check.latency(success_rate=0.95).judge(make.evidence(make.timed("base", [1.0] * 128, per_block=128)))
    assert (one_block.outcome, one_block.reason) == (Outcome.INCONCLUSIVE, ONE_BLOCK)


def test_first_tokens_that_came_with_later_ones_make_ttft_unknown(make: Factory) -> None:
    engine = make.timed("base", spread(1.0))
    samples = {
        case: [
            msgspec.structs.replace(sample, timing=dataclasses.replace(sample.timing, merged_first=case == "c0"))
            for sample in rows
            if sample.timing is not None
        ]
        for case, rows in engine.samples[Phase.TIMED].items()
    }
    merged = dataclasses.replace(engine, samples={Phase.TIMED: samples})
    first, whole = check.latency(ttft_p50="2s", e2e_p50="2s").judge(make.evidence(merged))

    assert first.outcome is Outcome.INCONCLUSIVE
    assert first.reason.startswith("16 of 128 first tokens of base arrived together with later ones")
    assert whole.outcome is Outcome.PASS


@pytest.mark.parametrize(
    ("events", "tokens", "why"),
    [(10, 110, "hidden reasoning"), (1, 30, "a parser that holds them back"), (90, 10, "cuts tokens into pieces")],
)
def test_time_per_token_of_tokens_nobody_sent_is_not_known(make: Factory, events: int, tokens: int, why: str) -> None:
    engine = make.timed("base", spread(1.0))
    apart = {
        case: [
            msgspec.structs.replace(s, timing=dataclasses.replace(s.timing, token_events=events, tokens=tokens))
            for s in rows
            if s.timing is not None
        ]
        for case, rows in engine.samples[Phase.TIMED].items()
    }
    evidence = make.evidence(dataclasses.replace(engine, samples={Phase.TIMED: apart}), make.timed("cand", spread(1.0)))
    ours, theirs = check.latency(tpot_p50="1s").judge(evidence)
    relative = only(check.latency(tpot_p50="x2"), evidence)
    whole, _ = check.latency(e2e_p50="2s").judge(evidence)

    reason = (
        f"128 of 128 answers of base came in other numbers of events than of tokens (the first: {tokens} tokens in "
    )
    for verdict in (ours, relative):
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.estimate is None
        assert verdict.reason.startswith(reason)
        assert why in verdict.reason
    assert (theirs.outcome, whole.outcome) == (Outcome.PASS, Outcome.PASS)


def test_an_answer_too_short_for_a_metric_is_left_out(make: Factory) -> None:
    timing = Timing(ttfb_s=0.1, ttft_s=0.1, e2e_s=0.2, tpot_s=None, block=0)
    samples: list[Sample] = [make.sample("base", "c0", Phase.TIMED, "x", timing)] * 128
    engine = EngineEvidence(name="base", kind="fake", samples={Phase.TIMED: {"c0": samples}})
    absolute = only(check.latency(tpot_p50="1s"), make.evidence(engine))
    assert (absolute.outcome, absolute.reason) == (
        Outcome.INCONCLUSIVE,
        "no answer of base has a time per output token",
    )
    other = make.timed("cand", spread(1.0))
    relative = only(check.latency(tpot_p50="x2"), make.evidence(engine, other))
    assert relative.reason == "no answer of base has a time per output token"


def test_blocks_that_do_not_pair_are_not_compared(make: Factory) -> None:
    evidence = make.evidence(make.timed("base", spread(1.0)), make.timed("cand", spread(1.0), per_block=32))
    verdict = only(check.latency(e2e_p50="x1.25"), evidence)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == "base was timed in 8 blocks and cand in 4: they cannot be paired"


def test_too_few_answers_to_bound_a_quantile_are_said_to_be(make: Factory) -> None:
    evidence = make.evidence(make.timed("base", spread(1.0, 32)), make.timed("cand", spread(1.0, 32)))
    verdict = only(check.latency(e2e_p95="x1.25", n=32), evidence)

    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "too few answers to bound p95")


def test_a_phase_cut_short_settles_nothing(make: Factory) -> None:
    short = make.evidence(make.timed("base", spread(1.0, 100)), incomplete="out of time")
    for verdict in check.latency(e2e_p50="2s", success_rate=0.9).judge(short):
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.reason == "it rests on 100 of 128 requests: 28 requests of base: out of time"

    none = make.evidence(make.engine("base"), incomplete="out of time")
    assert only(check.latency(e2e_p50="2s"), none).outcome is Outcome.INCONCLUSIVE
    assert only(check.latency(e2e_p50="2s"), make.evidence(make.engine("base"))).outcome is Outcome.ERROR


def test_engines_that_cannot_be_judged_and_engines_alone(make: Factory) -> None:
    base = make.timed("base", spread(1.0))
    broken = make.engine("cand", error="it never started")
    asked = check.latency(e2e_p50="x1.25", e2e_p95="2s", success_rate=0.9)
    judged = [(v.kind, v.engine, v.outcome) for v in asked.judge(make.evidence(base, broken))]
    assert judged == [
        ("latency.e2e_p50", "cand", Outcome.ERROR),
        ("latency.e2e_p95", "base", Outcome.PASS),
        ("latency.e2e_p95", "cand", Outcome.ERROR),
        ("latency.success_rate", "base", Outcome.PASS),
        ("latency.success_rate", "cand", Outcome.ERROR),
    ]
    assert only(check.latency(e2e_p50="x1.25"), make.evidence(base)).outcome is Outcome.SKIPPED
    assert only(check.latency(e2e_p50="2s"), make.evidence(base, single=True)).outcome is Outcome.SKIPPED


@pytest.mark.parametrize(
    ("value", "limit", "relative"),
    [
        ("x1.25", 1.25, True),
        ("X 2", 2.0, True),
        ("250ms", 0.25, False),
        ("2 s", 2.0, False),
        (0.5, 0.5, False),
        (2, 2.0, False),
    ],
)
def test_budgets_are_read(value: Any, limit: float, relative: bool) -> None:
    budget = parse_budget("ttft_p95", value)

    assert (budget.limit, budget.relative) == (limit, relative)
    assert (budget.metric, budget.rank, budget.name, budget.quantile) == ("ttft", "p95", "ttft_p95", 0.95)


@pytest.mark.parametrize("value", ["fast", "1.2.3s", "x0", "0ms", -1.0, float("nan"), float("inf"), True, "2", ""])
def test_anything_else_is_refused_with_what_is_allowed(value: Any) -> None:
    with pytest.raises(DesignError, match=r'a budget is "x1\.25" \(times the baseline\), "250ms", "2s" or a number'):
        parse_budget("e2e_p50", value)


def test_a_design_that_cannot_settle_a_quantile_is_refused_with_the_number_that_could() -> None:
    asked = check.latency(ttft_p99="300ms")
    assert asked.problem(cases=64, groups=64, engines=2) == (
        "ttft_p99 takes at least 299 timed requests per engine to settle and there are 128; give n=299 or more"
    )
    assert check.latency(ttft_p99="300ms", n=299).problem(cases=64, groups=64, engines=2) is None
    assert "72 timed" in str(check.latency(e2e_p95="x1.25", n=64).problem(cases=64, groups=64, engines=2))
    assert "149 timed" in str(check.latency(success_rate=0.98).problem(cases=64, groups=64, engines=2))
    assert "no number of requests" in str(check.latency(success_rate=1.0).problem(cases=64, groups=64, engines=2))
    assert check.latency(success_rate=0.95, e2e_p95="2s").problem(cases=2, groups=2, engines=1) is None
    several = check.latency(ttft_p99="1s", e2e_p95="x2", success_rate=0.98, n=20)
    problem = str(several.problem(cases=64, groups=64, engines=2))
    assert [part.split(" ")[0] for part in problem.split("; ") if "takes at least" in part] == [
        "ttft_p99",
        "e2e_p95",
        "success_rate=0.98",
    ]


def test_what_it_needs_and_says() -> None:
    relative = check.latency(ttft_p50="x1.25", n=200)
    assert (relative.needs().timed, relative.needs().timed_relative, relative.pairwise) == (200, True, True)
    mixed = check.latency(ttft_p50="x1.25", e2e_p95="2s", success_rate=0.99)
    assert (mixed.needs().timed, mixed.pairwise, mixed.kind) == (128, False, "latency")
    assert str(mixed) == "latency(ttft_p50=x1.25, e2e_p95=2s, success_rate=0.99)"
    assert mixed.power(cases=16, groups=16).endswith(
        "128 timed requests per engine of 16 prompts, which may count as no more than 16; a PASS of e2e_p95 and "
        "success_rate tells little of other prompts then, and where some are late or fail each time it stays open: "
        "give more prompts"
    )
    assert "128 timed requests per engine of 160 prompts in 20 groups, which may count as no more than 20; a PASS" in (
        mixed.power(cases=160, groups=20)
    )
    assert relative.power(cases=8, groups=8) == "latency(ttft_p50=x1.25, n=200): 200 timed requests per engine"


@pytest.mark.parametrize(("short", "outcome"), [(6, Outcome.PASS), (7, Outcome.INCONCLUSIVE)])
def test_a_time_that_few_answers_have_is_no_time_of_all(make: Factory, short: int, outcome: Outcome) -> None:
    timed = make.timed("base", [1.0] * 128)
    samples = timed.samples[Phase.TIMED]
    cut = {
        case: [
            msgspec.structs.replace(sample, timing=sample.timing and dataclasses.replace(sample.timing, tpot_s=None))
            if sample.repeat < short
            else sample
            for sample in each
        ]
        for case, each in samples.items()
    }
    (verdict,) = check.latency(tpot_p50="1s").judge(
        make.evidence(dataclasses.replace(timed, samples={Phase.TIMED: cut}))
    )

    assert (verdict.outcome, verdict.n) == (outcome, 128 - short)
    if outcome is Outcome.INCONCLUSIVE:
        words = "it rests on 121 of 128 requests: 7 answers of base too short to have a time per output token"
        assert verdict.reason == words


def test_a_budget_broken_whatever_the_missing_answers_took_stays_broken(make: Factory) -> None:
    late = make.timed("base", [9.0] * 64)
    (verdict,) = check.latency(e2e_p95="1s").judge(make.evidence(late))
    assert verdict.outcome is Outcome.FAIL, "half of the requests were over"
    few = make.timed("base", [9.0] * 2)
    (verdict,) = check.latency(e2e_p95="1s").judge(make.evidence(few))
    assert verdict.outcome is Outcome.INCONCLUSIVE
