"""Drift in nats: what passes, what fails, what the baseline's own shift excuses, and what cannot be measured."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.checks.drift.logprobs import told_apart
from pytest_llmparity.core.checks.family import settle, without_left_out
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import FLOOR_PHASES, Evidence
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion, Phase, Sampling, TokenLogprob
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.core.words import explain

if TYPE_CHECKING:
    from tests.core.conftest import Answer, Factory

TEXT = "ready"


def spoken(lead: float, *, text: str = TEXT, listed: str = "?") -> Completion:
    """An answer whose every token leads the second best one by so many nats."""
    top = [(letter.encode(), ((letter.encode(), -0.1), (listed.encode(), -0.1 - lead))) for letter in text]
    return Completion(
        text=text,
        finish_reason="stop",
        completion_tokens=len(text) + 1,
        prompt_tokens=20,
        logprobs=tuple(TokenLogprob(token=token, logprob=-0.1, top=both) for token, both in top),
    )


def evidence(
    make: Factory,
    leads: Sequence[float],
    *,
    own: float = 0.0,
    cases: Sequence[Case] | int | None = None,
    sequential: bool = False,
    single: bool = False,
    floor: bool = True,
) -> Evidence:
    """A baseline with a lead of 2 nats that shifts by ``own`` when asked again, and a candidate with ``leads``."""
    n = len(leads)
    again = [spoken(2.0 + own)] * n if floor else []
    return make.evidence(
        make.engine("base", [spoken(2.0)] * n, cold=again, warm=again, parallel=again),
        make.engine("cand", [spoken(lead) for lead in leads]),
        cases=n if cases is None else cases,
        sequential=sequential,
        single=single,
    )


def judge(of: Evidence, shift: float = 0.06) -> Verdict:
    (verdict,) = check.logprobs(shift=shift).judge(of)
    return verdict


def test_a_lead_that_hardly_moves_passes(make: Factory) -> None:
    verdict = judge(evidence(make, [2.03] * 16))

    assert verdict.outcome is Outcome.PASS
    assert verdict.message == (
        "PASS logprobs, cand against base: 0.03 nats of shift, at most 0.03 nats, margin 0.06 nats, 16 prompts"
    )
    assert verdict.details == ("80 common tokens of 16 prompts in 16 groups",)
    assert (verdict.unit, verdict.floor, verdict.requests) == ("nats", 0.0, 32)
    assert (verdict.groups, verdict.needed) == (16, None)


def test_where_the_shift_sits_stands_beside_it_here_and_with_text(make: Factory) -> None:
    leads = evidence(make, [2.3] * 16)
    verdict, text = judge(leads), check.text(margin=0.05).judge(leads)[0]

    assert verdict.shape is not None
    assert verdict.shape == text.shape
    assert verdict.shape.positions == 16 * len(TEXT)
    assert verdict.shape.quarters == pytest.approx((0.3, 0.3, 0.3, 0.3))
    assert verdict.shape.slope == pytest.approx(1.15)


def test_one_that_moves_far_fails_and_says_where_most(make: Factory) -> None:
    tags = ("copying", "stories", "stories", "capitals")
    cases = [make.case(index, tags=(tags[index % 4],)) for index in range(16)]
    leads = [1.5 if index % 4 == 0 else 1.8 for index in range(16)]

    verdict = judge(evidence(make, leads, cases=cases))

    assert verdict.outcome is Outcome.FAIL
    assert "0.2 nats of shift, at least 0.2 nats, margin 0.06 nats" in verdict.message
    assert verdict.details[-1] == "most by tag: copying 0.5 nats, capitals 0.2 nats, stories 0.2 nats"


def test_between_them_it_is_open_and_says_how_many_prompts_would_settle_it(make: Factory) -> None:
    verdict = judge(evidence(make, [2.01] * 11 + [2.09] * 5))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.needed is not None
    assert verdict.needed > 16
    assert f"a run of about {verdict.needed} prompts in all would settle it" in verdict.message


def test_at_the_margin_it_is_open_and_says_that_more_prompts_would_not_settle_it(make: Factory) -> None:
    verdict = judge(evidence(make, [2.01] * 8 + [2.09] * 8))

    assert (verdict.outcome, verdict.needed) == (Outcome.INCONCLUSIVE, None)
    words = "8 of 16 groups shift by less than the margin and 8 by more: more prompts like these would not settle it"
    assert words in verdict.message
    assert judge(evidence(make, [2.01] * 16)).advice == judge(evidence(make, [2.2] * 16)).advice == ""
    assert judge(evidence(make, [2.2] * 16, own=0.3)).advice == "", "another reason"


def test_a_baseline_that_shifts_as_much_itself_excuses_the_candidate_and_is_said(make: Factory) -> None:
    verdict = judge(evidence(make, [2.2] * 16, own=0.3))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == (
        "baseline too noisy at this concurrency: base shifts by 0.3 nats against itself at 8 in parallel, and this is "
        "not shown to be more"
    )
    assert verdict.floor == pytest.approx(0.3)


def test_a_baseline_that_shifts_less_does_not(make: Factory) -> None:
    verdict = judge(evidence(make, [2.2] * 16, own=0.1))

    assert verdict.outcome is Outcome.FAIL
    assert verdict.floor == pytest.approx(0.1)


def test_without_repeats_of_the_baseline_nothing_fails(make: Factory) -> None:
    verdict = judge(evidence(make, [2.2] * 16, floor=False))

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason == "what base shifts against itself was not measured"
    assert judge(evidence(make, [2.01] * 16, floor=False)).outcome is Outcome.PASS
    assert not judge(evidence(make, [2.2] * 16, floor=False, sequential=True)).open  # nor by further prompts


def test_a_token_that_is_not_listed_never_passes_and_fails_by_what_is_known(make: Factory) -> None:
    base = evidence(make, [2.0] * 16).engines["base"]
    near = make.engine("near", [spoken(2.0, listed="!")] * 16)  # "?" may lead by 2, too
    far = make.engine("far", [spoken(9.0, listed="!")] * 16)  # by 9 or more

    open_, failed = check.logprobs(shift=0.06).judge(make.evidence(base, near, far, cases=16))

    assert open_.outcome is Outcome.INCONCLUSIVE
    assert open_.upper is None
    assert "base: 0 nats of shift or more, margin 0.06 nats" in open_.message
    assert explain.cell(open_, "inconcl.")[0] == "inconcl. 0 nats or more,"
    assert failed.outcome is Outcome.FAIL
    assert failed.estimate == pytest.approx(7.0)
    assert "in 80 of them one of the baseline's two best is not among the candidate's alternatives" in failed.details


def test_groups_count_once(make: Factory) -> None:
    def of(groups: int) -> list[Case]:
        return [make.case(index, group=f"g{index % groups}") for index in range(40)]

    assert judge(evidence(make, [2.01] * 40, cases=of(4))).outcome is Outcome.INCONCLUSIVE
    verdict = judge(evidence(make, [2.01] * 40, cases=of(5)))
    assert (verdict.outcome, verdict.groups, verdict.n) == (Outcome.PASS, 5, 40)
    assert "for this mix of prompts (5 groups)" in verdict.message


def test_as_prompts_come_the_first_of_each_group_counts(make: Factory) -> None:
    cases = [make.case(index, group=f"g{index // 2}") for index in range(32)]
    leads = [2.01 if index % 2 == 0 else 9.0 for index in range(32)]

    verdict = judge(evidence(make, leads, cases=cases, sequential=True))

    assert verdict.outcome is Outcome.PASS
    assert (verdict.n, verdict.per_group, verdict.open) == (16, True, True)
    turn = "one prompt of each group counts in a sequential run, and all 16 groups have had their turn"
    assert verdict.remarks == (turn,)

    failed = judge(evidence(make, [9.0] * 16, sequential=True))
    assert failed.outcome is Outcome.FAIL
    assert judge(evidence(make, [9.0] * 16, own=8.0, sequential=True)).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(("lead", "outcome"), [(2.01, Outcome.PASS), (9.0, Outcome.FAIL)])
def test_one_question_asked_on_the_spot(make: Factory, lead: float, outcome: Outcome) -> None:
    verdict = judge(evidence(make, [lead], single=True))

    assert (verdict.outcome, verdict.reason) == (outcome, "single")


def test_missing_answers_leave_it_open_unless_it_fails_without_them(make: Factory) -> None:
    def with_lost(lead: float, lost: int) -> Verdict:
        whole = evidence(make, [lead] * 16)
        wordless: list[Answer] = [Completion(text=TEXT, prompt_tokens=20)] * lost
        cand = make.engine("cand", [*wordless, *([spoken(lead)] * (16 - lost))])
        return judge(dataclasses.replace(whole, engines={"base": whole.engines["base"], "cand": cand}))

    verdict = with_lost(2.01, 3)
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "it rests on 13 of 16 prompts: no logprobs to compare in the answers to 3 prompts" in verdict.reason
    assert with_lost(9.0, 3).outcome is Outcome.FAIL
    assert with_lost(9.0, 9).outcome is Outcome.INCONCLUSIVE

    nothing = with_lost(2.01, 16)
    assert nothing.outcome is Outcome.INCONCLUSIVE
    assert nothing.reason == "nothing was compared: no logprobs to compare in the answers to 16 prompts"


@pytest.mark.parametrize(("lead", "outcome"), [(9.0, Outcome.FAIL), (2.01, Outcome.INCONCLUSIVE)])
def test_what_cannot_be_asked_is_missing_too_and_is_named_once(make: Factory, lead: float, outcome: Outcome) -> None:
    whole = evidence(make, [lead] * 16)
    why = "cand gives no logprobs beside tools"
    answers: list[Answer] = [*[None] * 3, *[spoken(lead)] * 13]
    cand = make.engine("cand", answers, left_out={f"c{index}": why for index in range(3)})
    of = dataclasses.replace(whole, engines={"base": whole.engines["base"], "cand": cand})

    verdict = without_left_out(judge(of), of)

    assert verdict.outcome is outcome  # a FAIL stands, as it is one if these three do not shift at all
    if outcome is not Outcome.FAIL:
        assert verdict.reason == f"it rests on 13 of 16 prompts: 3 prompts left out: {why}"


def test_logprobs_of_other_tokens_are_incomparable_and_say_whose(make: Factory) -> None:
    whole = evidence(make, [2.0] * 16)
    wrong = msgspec.structs.replace(spoken(2.0), text="other")
    cand = make.engine("cand", [wrong] * 16)

    verdict = judge(dataclasses.replace(whole, engines={"base": whole.engines["base"], "cand": cand}))

    assert (verdict.outcome, verdict.blocked_by) == (Outcome.INCOMPARABLE, "cand")
    assert verdict.reason == (
        "logprobs of cand name other tokens than the text is made of in 16 of 16 answers; check.text() compares the "
        "answers without them"
    )


def test_sampled_answers_are_no_evidence(make: Factory) -> None:
    whole = dataclasses.replace(evidence(make, [2.0] * 16), sampling=Sampling(temperature=0.7))

    verdict = judge(whole)

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert verdict.reason.startswith("a shift is measured between greedy answers and 16 prompts (c0, …) ask for")


def test_what_it_needs_and_says_of_itself() -> None:
    gate = check.logprobs(shift=0.06)

    assert str(gate) == "logprobs(shift=0.06)"
    assert gate.needs().phases == {Phase.MAIN, *FLOOR_PHASES}
    assert gate.needs().capabilities == {"logprobs"}
    assert gate.where.partition(":")[0] == __file__
    assert gate.problem(cases=64, groups=5, engines=2) is None
    refused = gate.problem(cases=64, groups=4, engines=2, sequential=True)
    assert refused == "4 groups of prompts can never settle a median in a sequential run; it takes 5"
    assert gate.problem(cases=4, groups=4, engines=2) == "4 groups of prompts can never settle a median; it takes 5"
    assert gate.power(cases=64, groups=12) == (
        "logprobs(shift=0.06): the median of 12 groups; 5 that agree pass it, a FAIL beside other verdicts takes more"
    )


@pytest.mark.parametrize("shift", [0, -1, math.inf, math.nan, True, "0.06"])
def test_a_shift_is_a_number_of_nats(shift: float) -> None:
    with pytest.raises(DesignError, match=r"logprobs\(shift=.*\): shift is a number of nats above 0, such as 0\.06"):
        check.logprobs(shift=shift)


def test_text_shows_it_beside_its_forks(make: Factory) -> None:
    lines = {
        n: [line for line in check.text(margin=0.1).judge(evidence(make, [2.03] * n))[0].details if "shift" in line]
        for n in (4, 16, 200)
    }

    assert lines == {
        4: ["shift 0.03 nats, 4 prompts in 4 groups"],
        16: ["shift 0.03 nats, between 0.03 nats and 0.03 nats, 16 prompts in 16 groups"],
        200: ["shift 0.03 nats, between 0.03 nats and 0.03 nats, 67 prompts in 67 groups"],
    }
    passed = check.text(margin=0.2).judge(evidence(make, [2.03] * 16))[0]
    assert passed.outcome is Outcome.PASS
    assert passed.message.endswith("margin 20 %, 16 prompts, shift 0.03 nats")
    without = make.evidence(make.engine("a", [TEXT] * 16), make.engine("b", [TEXT] * 16), cases=16)
    assert not any("shift" in line for line in check.text(margin=0.1).judge(without)[0].details)


def test_text_shows_no_shift_that_the_check_itself_would_refuse(make: Factory) -> None:
    wrong: list[Answer] = [msgspec.structs.replace(spoken(2.0), text="other")] * 16
    whole = make.evidence(make.engine("a", [spoken(2.0)] * 16), make.engine("b", wrong), cases=16)

    assert not any("shift" in line for line in check.text(margin=0.1).judge(whole)[0].details)


def test_text_says_where_the_shift_may_be_any_larger(make: Factory) -> None:
    far = make.engine("b", [spoken(2.0, listed="!")] * 16)

    details = (
        check.text(margin=0.1).judge(make.evidence(make.engine("a", [spoken(2.0)] * 16), far, cases=16))[0].details
    )

    assert "shift 0 nats or more, 16 prompts in 16 groups" in details


@pytest.mark.parametrize(("groups", "outcome"), [(5, Outcome.INCONCLUSIVE), (6, Outcome.FAIL)])
def test_beside_text_it_takes_six_groups_to_fail(make: Factory, groups: int, outcome: Outcome) -> None:
    whole = evidence(make, [9.0] * groups)
    again = [spoken(9.0)] * groups
    cand = make.engine("cand", again, cold=again, warm=again, parallel=again)
    of = dataclasses.replace(whole, engines={"base": whole.engines["base"], "cand": cand})

    family = [*check.logprobs(shift=0.06).judge(of), *check.text(margin=0.2).judge(of)]

    assert [verdict.kind for verdict in family] == ["logprobs", "text", "text.repeat"]
    assert family[0].outcome is Outcome.FAIL
    assert settle(family, 0.05)[0].outcome is outcome


def held_against_golden(make: Factory, lead: float, *, recorded: float = 0.0, now: float = 0.0) -> Evidence:
    """The same engine live and as it was recorded, which shifted by these nats when it was asked again."""
    again, others = [spoken(2.0 + recorded)] * 16, [spoken(lead + now)] * 16
    return make.evidence(
        make.engine("golden-prod", [spoken(2.0)] * 16, cold=again, warm=again, parallel=again, golden="prod"),
        make.engine("prod", [spoken(lead)] * 16, cold=others, warm=others, parallel=others),
        cases=16,
    )


@pytest.mark.parametrize(("noise", "margin"), [(0.0, 0.005), (0.004, 0.012), (0.013, 0.02), (0.04, 0.06)])
def test_the_noise_that_was_recorded_widens_nothing_may_have_changed_as_far_as_it_widens_canaries(
    make: Factory, noise: float, margin: float
) -> None:
    (verdict,) = check.logprobs().judge(held_against_golden(make, 2.0, recorded=noise))

    assert verdict.margin == pytest.approx(margin)
    blind = [
        remark for remark in verdict.remarks if "so that weights in 8 bits in place of 16 may not be seen" in remark
    ]
    assert bool(blind) is (noise == 0.04)


def test_weights_in_8_bits_are_seen_in_spite_of_a_noisy_recording(make: Factory) -> None:
    (verdict,) = check.logprobs().judge(held_against_golden(make, 2.036, recorded=0.013))

    assert verdict.outcome is Outcome.FAIL


def test_what_a_golden_candidate_differs_from_itself_by_excuses_nothing(make: Factory) -> None:
    made = held_against_golden(make, 2.0, recorded=0.02)
    golden, live = made.engines.values()
    turned = make.evidence(live, golden, cases=16)

    (verdict,) = check.logprobs().judge(turned)

    assert verdict.margin == pytest.approx(0.005)


def test_a_recording_whose_noise_has_no_bound_is_no_licence(make: Factory) -> None:
    again = [spoken(2.0, listed="!")] * 16
    golden = make.engine("golden-prod", [spoken(2.0)] * 16, cold=again, warm=again, parallel=again, golden="prod")

    (verdict,) = check.logprobs().judge(make.evidence(golden, make.engine("prod", [spoken(2.2)] * 16), cases=16))

    assert verdict.margin == pytest.approx(0.005)
    assert verdict.outcome is not Outcome.PASS


def test_near_ties_of_golden_answers_do_not_grow_with_the_noise_of_their_recording(make: Factory) -> None:
    text, *_ = check.text(margin=0.05, ignore="near-ties").judge(held_against_golden(make, 2.0, recorded=0.013))

    assert "the allowed shift (0.005 nats, nothing may have changed" in text.remarks[0]


@pytest.mark.parametrize("turned", [False, True])
def test_golden_answers_of_other_weights_say_that_nobody_accepted_their_margin(make: Factory, turned: bool) -> None:
    was, now = [spoken(2.0)] * 16, [spoken(2.5)] * 16
    engines = [
        make.engine("golden-prod", was, cold=was, warm=was, parallel=was, golden="prod", quantization="F16"),
        make.engine("dev", now, cold=now, warm=now, parallel=now, quantization="Q4_0"),
    ]

    (verdict,) = check.logprobs().judge(make.evidence(*(reversed(engines) if turned else engines), cases=16))

    quantizations, names = ("Q4_0 -> F16", "dev prod") if turned else ("F16 -> Q4_0", "prod dev")
    assert (verdict.outcome, verdict.margin) == (Outcome.FAIL, 0.005)
    assert (
        "nobody accepted a shift for this pair, whose engines differ "
        f"(quantization {quantizations}); run: llmparity calibrate {names}, or give check.logprobs(shift=…)"
    ) in verdict.remarks


def test_forks_of_golden_answers_of_other_weights_are_graded_as_those_of_live_engines(make: Factory) -> None:
    def lines(golden: str | None = None) -> list[str]:
        answers = [spoken(2.0)] * 16
        base = make.engine(
            "base", answers, cold=answers, warm=answers, parallel=answers, quantization="F16", golden=golden
        )
        other = make.engine("dev", [spoken(1.99, text="b")] * 16, quantization="Q4_0")
        text, *_ = check.text(margin=0.05).judge(make.evidence(base, other, cases=16))
        return [*text.details, *text.remarks]

    assert lines(golden="prod") == lines()


SCHEMA = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}}


def of_two_kinds(make: Factory, forced: int, *, kind: str = "vllm", cases: int = 16) -> Evidence:
    """Engines whose leads are 8 nats apart where a schema forbids tokens on one side, and alike elsewhere."""
    asked = [make.case(at, response_format=SCHEMA if at < forced else None) for at in range(cases)]
    base, cand = [spoken(2.0)] * cases, [spoken(10.0 if at < forced else 2.0) for at in range(cases)]
    return make.evidence(
        make.engine("base", base, kind="llamacpp", cold=base, warm=base, parallel=base),
        make.engine("cand", cand, kind=kind),
        cases=asked,
    )


def test_logprobs_under_a_schema_are_not_compared_between_kinds_that_tell_them_before_it_and_after(
    make: Factory,
) -> None:
    verdict = judge(of_two_kinds(make, 16))

    assert verdict.outcome is Outcome.INCOMPARABLE
    assert "before it forbids tokens" in verdict.reason
    assert "check.text() compares the answers" in verdict.reason


def test_prompts_with_a_schema_are_left_out_beside_others_and_that_is_said(make: Factory) -> None:
    verdict = judge(of_two_kinds(make, 8))

    assert (verdict.outcome, verdict.n, verdict.estimate) == (Outcome.PASS, 8, 0.0)
    assert any(line.startswith("8 prompts left out: logprobs of answers to a schema") for line in verdict.remarks)


def test_engines_of_one_kind_are_held_together_under_a_schema_too(make: Factory) -> None:
    verdict = judge(of_two_kinds(make, 16, kind="llamacpp"))

    assert verdict.outcome is Outcome.FAIL
    assert verdict.estimate == pytest.approx(8.0)


@pytest.mark.parametrize("kind", ["openai", "litellm"])
def test_what_stands_behind_two_addresses_is_not_known(make: Factory, kind: str) -> None:
    cases = [make.case(at, response_format=SCHEMA) for at in range(16)]
    base, cand = [spoken(2.0)] * 16, [spoken(10.0)] * 16
    evidence = make.evidence(
        make.engine("base", base, kind=kind, cold=base, warm=base, parallel=base),
        make.engine("cand", cand, kind=kind),
        cases=cases,
    )

    assert judge(evidence).outcome is Outcome.INCOMPARABLE


@pytest.mark.parametrize(
    ("how", "left_out"),
    [
        ({"extra_body": {"guided_json": {"type": "object"}}}, True),
        ({"extra_body": {"grammar": "root ::= [a-z]+"}}, True),
        ({"extra_body": {"cache_salt": "x"}}, False),
        ({"tools": ({"type": "function", "function": {"name": "f"}},), "tool_choice": "required"}, True),
        ({"tools": ({"type": "function", "function": {"name": "f"}},), "tool_choice": "auto"}, False),
        ({"response_format": {"type": "text"}}, False),
    ],
)
def test_whatever_forbids_tokens_counts(make: Factory, how: dict[str, Any], left_out: bool) -> None:
    evidence = of_two_kinds(make, 0)
    case = make.case(0, **how)

    assert told_apart(case, evidence, evidence.engines["cand"]) == left_out


def test_text_shows_no_shift_between_such_kinds(make: Factory) -> None:
    verdict = check.text(margin=0.5).judge(of_two_kinds(make, 16))[0]

    assert verdict.outcome is Outcome.PASS
    assert verdict.shape is None
    assert not any("shift" in line for line in verdict.details)
