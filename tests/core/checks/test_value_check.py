"""Values of an application, compared between engines: what agrees, what does not, and what is no evidence at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity import check
from pytest_llmparity.core.checks.value import ValueCheck
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.sample import ApplicationCall, Completion, Failure, Phase
from pytest_llmparity.core.values import outcome_of, raised, returned
from pytest_llmparity.core.verdict import Outcome, Verdict

if TYPE_CHECKING:
    from tests.core.conftest import Factory

N = 64
BILLING = {"queue": "billing", "score": 0.5}
RAISED = raised(ValueError("no queue"))
GONE = Failure(kind="Unreachable", message="nobody is there")
EVERY = ("rate", "gap", "agree", "drift")


def answer(value: Any) -> Completion | Failure:
    return value if isinstance(value, (Completion, Failure)) else returned(value)


def judge(
    make: Factory,
    checked: ValueCheck,
    theirs: Sequence[Any],
    ours: Sequence[Any] | None = None,
    again: Sequence[Any] | None = None,
    **more: Any,
) -> dict[tuple[str, str], Verdict]:
    """Return the verdicts; the baseline came to ``ours`` and run again to ``again``, the same if not given."""
    first = [answer(value) for value in (theirs if ours is None else ours)]
    second = first if again is None else [answer(value) for value in again]
    baseline, candidate = make.engine("base", first), make.engine("cand", [answer(value) for value in theirs])
    main = baseline.samples[Phase.MAIN]
    for place, value in enumerate(second):
        sample = msgspec.structs.replace(make.sample("base", f"c{place}", Phase.MAIN, value), repeat=1)
        main[f"c{place}"].append(sample)  # type: ignore[attr-defined]  # the factory's lists
    cases = [make.case(place, **more) for place in range(len(theirs))]
    evidence = make.evidence(baseline, candidate, cases=cases)
    return {(verdict.kind, verdict.engine): verdict for verdict in checked.judge(evidence)}


def every(**more: Any) -> ValueCheck:
    return check.value(rate=0.9, gap=0.1, agree=0.9, drift=0.1, **more)


def limits(name: str) -> dict[str, Any]:
    """Return one limit that a perfect run passes with these inputs."""
    return {name: 0.2 if name in ("gap", "drift") else 0.9}


def test_equal_values_pass_every_limit(make: Factory) -> None:
    verdicts = judge(make, every(), [BILLING] * N)

    assert [verdict.kind for verdict in verdicts.values()] == [
        "value.rate",
        "value.rate",
        "value.gap",
        "value.agree",
        "value.drift",
    ]
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.PASS}
    assert verdicts["value.agree", "cand"].remarks == ("every value is the same, whatever the input",)


@pytest.mark.parametrize("nothing", [None, "", {}, []])
@pytest.mark.parametrize("limit", EVERY)
def test_nothing_returned_on_both_engines_is_never_a_pass(make: Factory, nothing: object, limit: str) -> None:
    for verdict in judge(make, check.value(**limits(limit)), [nothing] * N).values():
        assert verdict.outcome is Outcome.INCONCLUSIVE
        assert verdict.estimate is None
        assert "does the test return what it computes?" in verdict.message


@pytest.mark.parametrize("limit", EVERY)
@pytest.mark.parametrize("exceptions", [False, True])
def test_raising_on_both_engines_is_never_a_pass(make: Factory, limit: str, exceptions: bool) -> None:
    checked = check.value(**limits(limit), exceptions=exceptions)

    outcomes = {verdict.outcome for verdict in judge(make, checked, [RAISED] * N).values()}

    open_ = limit == "gap" or (exceptions and limit in ("agree", "drift"))
    assert outcomes == {Outcome.INCONCLUSIVE if open_ else Outcome.FAIL}


def test_a_gap_between_engines_on_which_next_to_no_input_returns_shows_nothing(make: Factory) -> None:
    gap = judge(make, check.value(gap=0.1), [BILLING] + [RAISED] * (N - 1))["value.gap", "cand"]

    assert gap.outcome is Outcome.INCONCLUSIVE
    assert "inputs return on either engine, fewer than the margin of 10 %" in gap.message


@pytest.mark.parametrize("limit", EVERY)
def test_engines_that_were_not_there_are_an_error(make: Factory, limit: str) -> None:
    checked = check.value(**limits(limit))

    assert {verdict.outcome for verdict in judge(make, checked, [GONE] * N).values()} == {Outcome.ERROR}


def test_exceptions_of_one_type_agree_where_the_user_says_so(make: Factory) -> None:
    theirs = [BILLING] * 40 + [RAISED] * 24

    assert judge(make, check.value(agree=0.9), theirs)["value.agree", "cand"].outcome is Outcome.FAIL
    agreed = judge(make, check.value(agree=0.9, exceptions=True), theirs)["value.agree", "cand"]
    assert agreed.outcome is Outcome.PASS
    other = [BILLING] * 40 + [raised(KeyError("queue"))] * 24
    failed = judge(make, check.value(agree=0.9, exceptions=True), other, theirs)["value.agree", "cand"]
    assert failed.outcome is Outcome.FAIL
    assert failed.details[0] == "raised ValueError and KeyError: 24 of 64, equal in at least 51.48 %"


def test_both_raising_always_the_same_is_no_noise_that_drift_forgives(make: Factory) -> None:
    assert judge(make, check.value(drift=0.1), [BILLING] * 32 + [RAISED] * 32)["value.drift", "cand"].outcome is (
        Outcome.FAIL
    )


def test_drift_forgives_what_the_application_differs_by_itself(make: Factory) -> None:
    ours, again = [{"n": n} for n in range(N)], [{"n": -n} for n in range(N)]
    theirs = [{"n": n + 1000} for n in range(N)]

    drift = judge(make, check.value(drift=0.1), theirs, ours, again)["value.drift", "cand"]
    assert drift.outcome is Outcome.PASS
    assert (
        drift.details[0] == "64 of 64 values differ between the engines, 63 when the application is run again on base"
    )
    steady = judge(make, check.value(drift=0.1), theirs, ours)["value.drift", "cand"]
    assert steady.outcome is Outcome.FAIL


def test_fields_are_named_worst_first_with_bounds(make: Factory) -> None:
    ours = [{"queue": "a", "score": n, "items": [{"price": 1}]} for n in range(N)]
    theirs = [{"queue": "b" if n < 20 else "a", "score": n, "items": [{"price": 1 if n > 4 else 2}]} for n in range(N)]

    verdict = judge(make, check.value(agree=0.9), theirs, ours)["value.agree", "cand"]

    assert verdict.outcome is Outcome.FAIL
    assert verdict.details == (
        "$.queue differs in 20 of 64, equal in at least 57.91 %",
        "$.items[].price differs in 5 of 64, equal in at least 84.27 %",
        "first: c0: $.queue",
        '  base "a"',
        '  cand "b"',
    )
    assert verdict.differing[0].what == "$.items[].price, $.queue"


@pytest.mark.parametrize(
    ("given_", "outcome"),
    [
        ({"tolerance": 0.1}, Outcome.PASS),
        ({"tolerance": 0.001}, Outcome.FAIL),
        ({"tolerance": {"$.score": 0.1}}, Outcome.PASS),
        ({"fields": ["$.queue"]}, Outcome.PASS),
        ({"fields": ["$.score"]}, Outcome.FAIL),
        ({"key": lambda value: value["queue"]}, Outcome.PASS),
        ({"key": lambda value: int(value["score"])}, Outcome.PASS),
        ({"key": lambda value: value["score"]}, Outcome.FAIL),
    ],
)
def test_what_is_compared_of_a_value(make: Factory, given_: dict[str, Any], outcome: Outcome) -> None:
    theirs = [{**BILLING, "score": 0.55}] * N

    assert (
        judge(make, check.value(agree=0.9, **given_), theirs, [BILLING] * N)["value.agree", "cand"].outcome is outcome
    )


@pytest.mark.parametrize(
    ("given_", "says"),
    [
        ({"fields": ["$.que"]}, "no value has $.que"),
        ({"key": lambda value: value.get("que")}, "the application returned None in all 128 runs"),
        (
            {"key": lambda value: value["que"]},
            "nothing could be compared in 128 runs; first: key= raised KeyError: 'que'",
        ),
        ({"key": lambda value: {1, 2}}, "key= returned no JSON: $ is a set"),
    ],
)
def test_a_key_or_path_that_leads_nowhere_settles_nothing_or_fails(
    make: Factory, given_: dict[str, Any], says: str
) -> None:
    verdict = judge(make, check.value(agree=0.9, **given_), [BILLING] * N)["value.agree", "cand"]

    assert verdict.outcome in (Outcome.INCONCLUSIVE, Outcome.FAIL)
    assert says in "\n".join([verdict.message, *verdict.details]) or verdict.outcome is Outcome.FAIL


ASKED = (ApplicationCall(path="/v1/chat/completions", request="{}", status=200, answer="billing"),)


def came(value: Any, calls: tuple[ApplicationCall, ...] | None) -> Completion:
    """What a run came to, and what it asked: nothing where there are no calls, not known where ``None``."""
    return msgspec.structs.replace(value if isinstance(value, Completion) else returned(value), calls=calls)


@pytest.mark.parametrize("limit", ["gap", "agree", "drift"])
@pytest.mark.parametrize(
    "baseline", [pytest.param((), id="live"), pytest.param(None, id="golden: its calls are not known")]
)
@pytest.mark.parametrize("asks", [0, 1])
def test_inputs_for_which_no_engine_was_asked_are_no_agreement(
    make: Factory, limit: str, baseline: tuple[ApplicationCall, ...] | None, asks: int
) -> None:
    ours = [came(BILLING, ASKED if baseline is not None else None)] * asks + [came(BILLING, baseline)] * (N - asks)
    theirs = [came(BILLING, ASKED)] * asks + [came(BILLING, ())] * (N - asks)

    verdict = judge(make, check.value(**limits(limit)), theirs, ours)[f"value.{limit}", "cand"]

    assert verdict.outcome is Outcome.INCONCLUSIVE
    if asks:
        assert "neither engine was asked anything for 63 inputs: leave out what your code" in verdict.reason
    else:
        assert f"asked its engine nothing in all {N if baseline is None else 2 * N} runs" in verdict.reason


@pytest.mark.parametrize(("limit", "outcome"), [("agree", Outcome.FAIL), ("gap", Outcome.INCONCLUSIVE)])
def test_raising_before_anything_is_asked_is_never_a_pass(make: Factory, limit: str, outcome: Outcome) -> None:
    runs = [came(RAISED, ())] * (N - 1) + [came(BILLING, ASKED)]

    assert judge(make, check.value(**limits(limit)), runs)[f"value.{limit}", "cand"].outcome is outcome
    same = check.value(**limits(limit), exceptions=True)
    assert judge(make, same, runs)[f"value.{limit}", "cand"].outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize("limit", ["gap", "agree", "drift"])
@pytest.mark.parametrize("nothing", [None, ""])
def test_nothing_with_most_inputs_is_no_agreement(make: Factory, limit: str, nothing: object) -> None:
    runs = [came(BILLING, ASKED)] + [came(nothing, ASKED)] * (N - 1)

    verdict = judge(make, check.value(**limits(limit)), runs)[f"value.{limit}", "cand"]

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "None or no text on both engines for 63 inputs" in verdict.reason


@pytest.mark.parametrize("limit", ["agree", "drift"])
def test_empty_lists_are_values_and_counted_in_a_remark(make: Factory, limit: str) -> None:
    runs = [came([place] if place < 3 else [], ASKED) for place in range(N)]

    verdict = judge(make, check.value(**limits(limit)), runs)[f"value.{limit}", "cand"]

    assert verdict.outcome is Outcome.PASS
    assert verdict.remarks == ("empty on both engines: the values of 61 of 64 inputs",)


def test_a_rate_says_how_many_runs_asked_nothing_or_came_to_nothing(make: Factory) -> None:
    runs = [came(BILLING, ASKED)] + [came(None, ())] * (N - 1)

    verdict = judge(make, check.value(rate=0.9), runs)["value.rate", "cand"]

    assert verdict.remarks == (
        "63 of 64 runs asked the engine nothing",
        "63 of 64 runs returned None or something empty",
    )


@pytest.mark.parametrize("limit", ["agree", "drift"])
def test_each_path_must_lead_somewhere(make: Factory, limit: str) -> None:
    """Another path that is there does not hide one that is misspelt."""
    checked = check.value(**limits(limit), fields=["$.queue", "$.prioritee"])
    theirs, ours = ([{"queue": "billing", "priority": name}] * N for name in "ab")

    verdict = judge(make, checked, theirs, ours)[f"value.{limit}", "cand"]

    assert (verdict.outcome, verdict.reason) == (Outcome.INCONCLUSIVE, "no value has $.prioritee")


@pytest.mark.parametrize("limit", ["agree", "drift"])
def test_inputs_whose_values_have_no_path_that_is_read_are_left_out(make: Factory, limit: str) -> None:
    ours, theirs = ([{"queue": "a"}] + [{"q": n}] * (N - 1) for n in (1, 2))

    verdict = judge(make, check.value(**limits(limit), fields=["$.queue"]), theirs, ours)[f"value.{limit}", "cand"]

    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no path of fields= leads anywhere in the values of 63 inputs on either engine" in verdict.message
    assert "there to be compared: $.queue in 2 of 128 values" in verdict.remarks


def test_a_path_that_few_values_have_is_told_beside_a_pass(make: Factory) -> None:
    values = [{"queue": "a", "note": "b"}] * 4 + [{"queue": "a"}] * (N - 4)

    verdict = judge(make, check.value(agree=0.9, fields=["$.queue", "$.note"]), values)["value.agree", "cand"]
    gone = judge(make, check.value(agree=0.9, fields=["$.queue"]), [{}] * N, [{"queue": "a"}] * N)[
        "value.agree", "cand"
    ]

    assert verdict.outcome is Outcome.PASS
    assert "there to be compared: $.note in 8, $.queue in 128 of 128 values" in verdict.details
    assert "there to be compared: $.note in 8 of 128 values" in verdict.remarks
    assert gone.outcome is Outcome.FAIL


@pytest.mark.parametrize("leaves", [pytest.fail, pytest.skip, lambda words: sys.exit(1)], ids=["fail", "skip", "exit"])
def test_a_key_that_leaves_the_test_is_a_value_nobody_could_read(
    make: Factory, leaves: Callable[[str], object]
) -> None:
    checked = check.value(agree=0.9, key=lambda value: leaves("not today"))

    verdict = judge(make, checked, [BILLING] * N)["value.agree", "cand"]

    assert verdict.outcome is Outcome.FAIL
    assert "key= raised" in verdict.details[0]


def test_tags_are_judged_by_themselves(make: Factory) -> None:
    baseline = make.engine("base", [returned(BILLING)] * 2 * N)
    theirs = [returned(BILLING)] * N + [returned({**BILLING, "queue": "x"})] * N
    cases = [make.case(place, tags=("mail",) if place < N else ("chat",)) for place in range(2 * N)]
    evidence = make.evidence(baseline, make.engine("cand", theirs), cases=cases)

    outcomes = {v.kind: v.outcome for v in check.value(agree=0.9, by="tag").judge(evidence)}

    assert outcomes == {
        "value.agree": Outcome.FAIL,
        "value.agree[mail]": Outcome.PASS,
        "value.agree[chat]": Outcome.FAIL,
    }


def test_a_baseline_that_failed_here_and_there_leaves_these_inputs_out(make: Factory) -> None:
    verdict = judge(make, check.value(agree=0.9), [BILLING] * N, [BILLING] * (N - 1) + [GONE])["value.agree", "cand"]

    assert (verdict.outcome, verdict.n) == (Outcome.PASS, N - 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"agree": 2},
        {"gap": 1.0},
        {"drift": 1.0},
        {"agree": 0.9, "exceptions": "yes"},
        {"agree": 0.9, "key": "queue"},
        {"agree": 0.9, "fields": "$.queue"},
        {"agree": 0.9, "fields": ["queue"]},
        {"agree": 0.9, "fields": ["$.a"], "key": len},
        {"agree": 0.9, "tolerance": "a"},
        {"agree": 0.9, "tolerance": 0.1, "unordered": ["$.a"]},
        {"rate": 0.9, "fields": ["$.a"]},
        {"agree": 0.9, "by": "engine"},
        {"agree": 0.9, "side": "left"},
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DesignError):
        check.value(**wrong)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_a_value_comes_back_as_it_was_returned(value: object) -> None:
    assert outcome_of(returned(value)).value == value
