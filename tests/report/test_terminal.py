"""What a person reads at the end: it fits, it says who passed and who did not; no foreign byte steers it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.compare.shift import Shape
from pytest_llmparity.core.identity.record import EngineRecord, FailureRecord, LatencyQuantiles, RunRecord
from pytest_llmparity.core.sample import Completion, Fact, Failure, Identity, Phase, Sample, Source, ToolCall
from pytest_llmparity.core.verdict import Apart, Explanation, Outcome, Verdict
from pytest_llmparity.core.words.printable import cells
from pytest_llmparity.report import overview, terminal
from pytest_llmparity.report.terminal import ahead
from pytest_llmparity.report.terminal.troubles import troubles


def verdict(engine: str, outcome: Outcome, kind: str = "text", **more: Any) -> Verdict:
    given = {"test": "tests/test_demo.py::test_tickets", "check": f"{kind.partition('.')[0]}()", "n": 64, **more}
    return Verdict(kind=kind, engine=engine, baseline="f16", outcome=outcome, **given)


def engine(name: str, **more: Any) -> EngineRecord:
    told = {"digest": "sha256:0123456789abcdef", "version": more.pop("version", "b7001")}
    known = {
        "model": f"fixtures/models/tiny/tiny-{name}.gguf",
        "quantization": name.upper(),
        "context_length": 2048,
        "launch": "process",
        "identity": Identity(facts={key: Fact(value=value, source="file") for key, value in told.items()}),
        **more,
    }
    return EngineRecord(name=name, kind="llamacpp", **known)


PASSING = verdict("q8_0", Outcome.PASS, estimate=0.0031, lower=0.0, upper=0.01, margin=0.05, unit="forks/token")
CAUGHT = verdict("q4_0", Outcome.FAIL, estimate=0.081, lower=0.06, upper=0.1, margin=0.05, unit="forks/token")
OPEN = verdict(
    "q8_0",
    Outcome.INCONCLUSIVE,
    "schema.gap",
    estimate=0.02,
    lower=-0.01,
    upper=0.06,
    margin=0.05,
    unit="share",
    needed=310,
)
DEMO = RunRecord(
    run="20261121-034501-ab12",
    version="1.0",
    engines=(engine("f16", baseline=True), engine("q8_0"), engine("q4_0")),
    verdicts=(
        verdict("q8_0", Outcome.PASS, "prompts"),
        verdict("q4_0", Outcome.PASS, "prompts"),
        PASSING,
        CAUGHT,
    ),
    requests=600,
)


def test_one_line_per_engine_says_what_it_is() -> None:
    assert ahead.engine_lines(DEMO.engines) == [
        "f16   llamacpp b7001, tiny-f16, F16, 01234567, context 2048, process, baseline",
        "q8_0  llamacpp b7001, tiny-q8_0, Q8_0, 01234567, context 2048, process",
        "q4_0  llamacpp b7001, tiny-q4_0, Q4_0, 01234567, context 2048, process",
    ]


def test_what_is_not_known_yet_is_left_out_and_the_baseline_is_explained() -> None:
    known = [EngineRecord(name="vllm", kind="unknown", baseline=True), EngineRecord(name="o", kind="ollama")]
    unasked = {"vllm": "http://127.0.0.1:8000"}

    assert ahead.engine_lines(known, why="first of --engines", unasked=unasked) == [
        "vllm  http://127.0.0.1:8000, kind asked at start, attach, baseline",
        "o     ollama, attach",
        "baseline: vllm, first of --engines",
    ]


def test_a_long_model_name_makes_room_for_the_rest() -> None:
    (line,) = ahead.engine_lines([engine("f16", model="Organisation/" + "long-" * 20 + "8B", baseline=True)])

    assert cells(line) == 80
    assert line.startswith("f16  llamacpp b7001, Org")
    assert line.endswith("8B, F16, context 2048, process, baseline")


def test_the_digest_goes_before_the_quantisation_when_a_line_is_full() -> None:
    (line,) = ahead.engine_lines([engine("f16", model="tiny-F16.gguf", version="2026.10.11549", baseline=True)])

    assert line == "f16  llamacpp 2026.10.11549, tiny-F16, F16, context 2048, process, baseline"


def test_slots_are_shown_where_they_had_to_be_found_out() -> None:
    sources: tuple[tuple[Source, bool], ...] = (("probed", True), ("reported", False))
    for source, shown in sources:
        record = dataclasses.replace(engine("f16"), identity=Identity(facts={"slots": Fact(value=1, source=source)}))
        (line,) = ahead.engine_lines([record])
        assert ("slots 1 (probed)" in line) == shown


def test_no_engines_are_no_lines() -> None:
    assert ahead.engine_lines([]) == []


def test_the_plan_is_one_line() -> None:
    many: dict[str, Any] = {"requests": (64, 64), "tokens": 4096, "engines": ["prod", "dev"]}

    assert (
        ahead.plan_line(**many, residency="one-at-a-time", asked="asked in turn (one in memory at a time)")
        == "plan: 64 requests to each of 2 engines, 128 in all; at most 4096 tokens of each; 2 engines one at a time: "
        "prod, then dev"
    )
    assert (
        ahead.plan_line(**many, residency="together", asked="asked side by side (at different addresses)")
        == "plan: 64 requests to each of 2 engines, 128 in all; at most 4096 tokens of each; 2 engines together, asked "
        "side by side (at different addresses)"
    )
    assert (
        ahead.plan_line(**many, residency="together", asked="asked in turn (on this machine)", wave=16)
        == "plan: at most 64 requests to each of 2 engines, 128 in all, in waves of 16; at most 4096 tokens of each; "
        "2 engines together, asked in turn (on this machine)"
    )
    assert (
        ahead.plan_line(requests=(1, 1), tokens=64, engines=["dev"], residency="one-at-a-time")
        == "plan: 1 request; at most 64 tokens"
    )
    assert (
        ahead.plan_line(requests=(112, 256), tokens=64, engines=["dev"], residency="one-at-a-time")
        == "plan: 112 to 256 requests; at most 64 tokens"
    )
    assert (
        ahead.plan_line(requests=(14, 14), tokens=0, engines=["a", "b"], residency="together", asked="asked in turn")
        == "plan: 14 requests to each of 2 engines, 28 in all; 2 engines together, asked in turn"
    )


def test_the_demo_says_in_words_who_passes_and_who_is_caught() -> None:
    lines = terminal.summary(DEMO)

    assert lines[4:] == [
        "check      f16  q8_0                             q4_0",
        "tests/test_demo.py::test_tickets",
        "  prompts  -    pass                             pass",
        "  text     -    pass 0.31 % < 5 %                FAIL 8.1 % > 5 %",
        "                (at most 1 %), n 64              (at least 6 %), n 64",
        "",
        "q8_0: passes  2 verdicts",
        "q4_0: FAIL  text  8.1 %/token, margin 5 %  (test_tickets)",
        "",
        "run 20261121-034501-ab12: 600 requests sent in all, probes included",
    ]


def test_times_that_nobody_asked_for_are_missed_only_where_all_is_told() -> None:
    record = dataclasses.replace(DEMO, unshown=("no ttft of q4_0 is shown: it is not known",))

    assert terminal.summary(record) == terminal.summary(DEMO)
    assert record.unshown[0] in terminal.summary(record, verbose=True)


def test_verdicts_on_few_groups_say_so_wherever_they_are_told() -> None:
    of_one, of_four = (verdict("q8_0", Outcome.PASS, "text", n=64, groups=n) for n in (1, 4))
    apart = verdict("f8", Outcome.PASS, "text", n=4, groups=4)
    bad = verdict("q4_0", Outcome.FAIL, "text", estimate=0.08, unit="forks/token", n=64, groups=4)

    lines = terminal.conclusions([of_four, of_one, apart, bad], [], verbose=False, width=120)

    assert lines == [
        "q8_0: passes  2 verdicts, for this mix of prompts (1 group)",
        "f8: passes  1 verdict",
        f"q4_0: FAIL  text  8 %/token, for this mix of prompts (4 groups)  ({bad.test.rpartition('::')[2]})",
    ]


def test_nothing_settled_counts_what_is_open_alone() -> None:
    left_open = verdict("a", Outcome.INCONCLUSIVE, "text")

    assert terminal.conclusions([left_open], ["a"], verbose=False) == ["a: not settled  1 inconclusive"]


def test_one_row_per_check_holds_the_worst_and_verbose_gives_each_quantity_its_own() -> None:
    rate = verdict("q8_0", Outcome.PASS, "schema.rate", estimate=0.99, unit="share")

    short = terminal.grid([rate, OPEN], ["f16", "q8_0"], verbose=False)
    long = terminal.grid([rate, OPEN], ["f16", "q8_0"], verbose=True)

    assert [line.split()[:5] for line in short[2:]] == [["schema", "-", "inconcl.", "2", "%"]]
    assert [line.split()[:5] for line in long[2:]] == [
        ["schema.rate", "-", "pass", "99", "%,"],
        ["schema.gap", "-", "inconcl.", "2", "%"],
    ]


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (Outcome.PASS, "pass"),
        (Outcome.FAIL, "FAIL"),
        (Outcome.INCONCLUSIVE, "inconcl."),
        (Outcome.INCOMPARABLE, "incomp."),
        (Outcome.ERROR, "ERROR"),
        (Outcome.SKIPPED, "skip"),
    ],
)
def test_every_outcome_has_its_word(outcome: Outcome, word: str) -> None:
    assert terminal.grid([verdict("q4_0", outcome)], ["q4_0"], verbose=False)[-1].split() == ["text", word]


def test_two_checks_of_one_kind_are_told_apart_by_how_they_were_written() -> None:
    both = [verdict("q4", Outcome.PASS, check=f"text(horizon={n})") for n in (16, 32)]

    rows = terminal.grid(both, ["q4"], verbose=False)[2:]

    assert [row.split()[1] for row in rows] == ["text(horizon=16)", "text(horizon=32)"]


def test_engines_that_do_not_fit_get_a_grid_of_their_own() -> None:
    names = [f"engine-number-{n}" for n in range(7)]
    lines = terminal.grid([verdict(name, Outcome.PASS) for name in names], names, verbose=False)

    assert lines.count("tests/test_demo.py::test_tickets") == 2
    assert all(any(name in line for line in lines) for name in names)
    assert max(map(cells, lines)) <= 80


def test_a_cause_stands_below_its_failure() -> None:
    lines = terminal.conclusions([dataclasses.replace(CAUGHT, cause="weights, about Q4_K_M")], [], verbose=False)

    assert lines == [
        "q4_0: FAIL  text  8.1 %/token, margin 5 %  (test_tickets)",
        "    cause: weights, about Q4_K_M",
    ]


def test_one_sentence_for_an_engine_whose_every_check_failed_for_the_same_reason() -> None:
    refused = [
        verdict("q4", Outcome.INCOMPARABLE, reason="the pin says Q4_K_M, the server Q4_0", test="t::a")
        for _ in range(2)
    ]

    assert terminal.conclusions(refused, [], verbose=False) == [
        "q4: incomp.  text  the pin says Q4_K_M, the server Q4_0  (a)"
    ]


def test_the_worst_comes_first_and_verbose_shows_what_passed() -> None:
    error = verdict("q4_0", Outcome.ERROR, "latency", message="it died")
    passed = verdict("q4_0", Outcome.PASS, "schema.rate", estimate=0.99, margin=0.95, unit="share", side="at_least")

    short = terminal.conclusions([CAUGHT, passed, error], [], verbose=False)
    long = terminal.conclusions([CAUGHT, passed, error], [], verbose=True)

    assert short == [
        "q4_0: ERROR  latency  it died  (test_tickets)",
        "q4_0: FAIL  text  8.1 %/token, margin 5 %  (test_tickets)",
    ]
    assert "q4_0: pass  schema.rate  99 %, at least 95 % asked  (test_tickets)" in long


def test_a_test_keeps_its_parameters_whatever_they_hold() -> None:
    test = "tests/test_demo.py::TestDemo::test_tickets[a::b]"
    caught = dataclasses.replace(CAUGHT, test=test)
    skipped = verdict("mlx", Outcome.SKIPPED, "schema.gap", reason="it has none", test=test)
    blocked = [verdict("q4", Outcome.ERROR, reason="it died", blocked_by="q4", test=test) for _ in range(2)]

    assert terminal.conclusions([caught], [], verbose=False)[0].endswith("margin 5 %  (test_tickets[a::b])")
    assert terminal.unjudged([skipped]) == ["skipped:", "  it has none: schema.gap of test_tickets[a::b]"]
    assert "text of test_tickets[a::b]" in " ".join(troubles(blocked, [], width=200))


def test_tests_of_one_name_are_told_apart_wherever_the_summary_names_them() -> None:
    tests = ("t.py::TestA::test_x", "t.py::TestB::test_x")
    caught, left_open, skipped = (
        [dataclasses.replace(template, test=test) for test in tests]
        for template in (CAUGHT, OPEN, verdict("q8_0", Outcome.SKIPPED, "schema.gap", reason="it has none"))
    )

    failures = terminal.conclusions(caught, [], verbose=False)
    questions = [line for line in terminal.open_questions(left_open, width=200) if "test_x" in line]

    assert [line.rpartition("  ")[2] for line in failures] == ["(TestA::test_x)", "(TestB::test_x)"]
    assert [line.rpartition("  ")[2] for line in questions] == ["(TestA::test_x)", "(TestB::test_x)"]
    assert terminal.unjudged([skipped[0], caught[1]])[1] == "  it has none: schema.gap of TestA::test_x"
    blocked = verdict("q4", Outcome.ERROR, reason="it died", blocked_by="q4", test=tests[0])
    assert "text of TestA::test_x" in " ".join(troubles([blocked, caught[1]], [], width=200))


def test_what_was_explained_is_told_of_a_pass_too() -> None:
    """Somebody asked for it: ``--parity-explain``."""
    explanation = Explanation(note="nothing differs, so that there is nothing to explain")
    passed = dataclasses.replace(verdict("q8_0", Outcome.PASS), explanation=explanation)

    lines = terminal.conclusions([passed], [], verbose=False)

    assert "    no cause is shown: nothing differs, so that there is nothing to explain" in lines
    assert lines[-1].startswith("q8_0: passes")


def test_verdicts_that_share_a_row_are_named_below_the_grid_unless_each_has_its_own() -> None:
    kinds = ("prompts", "text", "text.repeat", "schema.rate", "schema.gap", "schema.agree")
    record = dataclasses.replace(DEMO, verdicts=tuple(verdict("q8_0", Outcome.PASS, kind) for kind in kinds))

    lines = terminal.summary(record, width=200)
    each = terminal.summary(record, verbose=True, width=200)

    assert lines[lines.index("q8_0: passes  6 verdicts") - 2] == (
        "of several verdicts in a row the worst is shown, -v shows each: text and text.repeat; schema.rate, schema.gap "
        "and schema.agree"
    )
    assert [line.split()[0] for line in each if line.startswith("  ")] == list(kinds)
    assert not any(line.startswith("of several") for line in each)
    assert terminal.shared_rows([PASSING]) == []


def test_an_engine_with_an_open_question_does_not_pass() -> None:
    assert terminal.conclusions([PASSING, OPEN], [], verbose=False) == [
        "q8_0: not settled  1 verdict passed, 1 inconclusive"
    ]


def test_an_engine_that_was_only_skipped_is_not_mentioned() -> None:
    assert terminal.conclusions([verdict("q4", Outcome.SKIPPED)], ["f16"], verbose=False) == []


def test_what_stayed_open_says_how_many_prompts_would_settle_it() -> None:
    reason = dataclasses.replace(OPEN, needed=None, reason="baseline too noisy", margin=None, lower=None)

    tagged = dataclasses.replace(OPEN, tag="fact", differs=("weights: F16 and Q4_0",))
    far = dataclasses.replace(OPEN, needed=1_000_000)

    assert "    a run of about 310 prompts of the tag fact in all would settle it, 246 more" in terminal.open_questions(
        [tagged], width=200
    )
    assert "    differs, not shown to be the cause: weights: F16 and Q4_0" in [
        line.replace("      ", "    ") for line in terminal.open_questions([tagged])
    ]
    assert "    more of the same cannot settle it: it would take about 1000000 prompts in all" in (
        terminal.open_questions([far], width=200)
    )
    assert terminal.open_questions([PASSING, OPEN, reason]) == [
        "inconclusive:",
        "  q8_0: schema.gap  2 %, between -1 % and 6 %, margin 5 %  (test_tickets)",
        "    a run of about 310 prompts in all would settle it, 246 more",
        "  q8_0: schema.gap  2 %, baseline too noisy  (test_tickets)",
    ]


def test_what_stayed_open_at_a_later_look_says_what_the_earlier_ones_cost() -> None:
    (*_, last) = terminal.open_questions([dataclasses.replace(OPEN, alpha=0.0125)])

    assert last == "    look 3 at this question, so judged at 1.25 % instead of 5 %"


def test_a_reason_of_many_lines_gives_its_first() -> None:
    gone = verdict("q4", Outcome.ERROR, reason="q4 ended with exit code 2\nusage: x\n  error: y")

    (line, *_) = [line for line in terminal.conclusions([gone], ["q4"], verbose=False) if "exit code" in line]

    assert "exit code 2 …" in line
    assert "usage" not in line


def test_rows_show_answers_calls_and_why_there_is_none() -> None:
    call = ToolCall(name="get_weather", arguments='{"city": "Lisbon"}')
    samples = [
        Sample(
            engine="a", case="c1", phase=Phase.MAIN, completion=Completion(text="30\x1b days", finish_reason="stop")
        ),
        Sample(engine="a", case="c1", phase=Phase.WARM, completion=Completion(text="not this one")),
        Sample(engine="b", case="c1", phase=Phase.MAIN, completion=Completion(text="", tool_calls=(call,))),
        Sample(engine="c", case="c1", phase=Phase.MAIN, failure=Failure(kind="Timeout", message="no answer in 5 s")),
    ]

    assert terminal.answer_lines(samples) == [
        "c1",
        "  a: 30\\x1b days  (stop)",
        '  b: get_weather({"city": "Lisbon"})  (no finish reason)',
        "  c: no answer in 5 s",
    ]


def test_latency_is_a_table() -> None:
    rows = [LatencyQuantiles(engine="f16", metric="ttft", p50=0.05, p95=1.5, p99=math.inf, n=128)]

    header, row = overview.latency(rows, width=80)

    assert header.split() == ["latency", "metric", "p50", "p95", "p99", "n"]
    assert row.split() == ["f16", "ttft", "50", "ms", "1.5", "s", "never", "128"]
    assert len(header) == len(row)


def test_a_note_is_broken_at_line_feeds_alone_and_other_separators_are_shown() -> None:
    lines = terminal.summary(dataclasses.replace(DEMO, notes=("one\u2028two\nthree\x85four",)))

    assert [line for line in lines if "one" in line and "two" in line] == ["one\\u2028two"]
    assert "three\\x85four" in lines


def test_what_experiments_asked_stands_beside_what_the_run_did() -> None:
    explained = dataclasses.replace(DEMO.verdicts[-1], explanation=Explanation(requests=160))
    lines = terminal.summary(dataclasses.replace(DEMO, verdicts=(*DEMO.verdicts[:-1], explained)))

    assert " ".join(lines[-2:]).endswith("600 requests sent in all, probes included; experiments took 160 more")


def test_missing_answers_retries_and_notes_end_the_summary() -> None:
    failures = [FailureRecord(engine="q4", case=str(n), phase="main", kind=k, message="m") for n, k in enumerate("TTO")]
    record = RunRecord(
        run="r",
        version="1",
        failures=(
            *failures,
            *(dataclasses.replace(failures[0], phase=phase) for phase in ("cold", "warm", "warm", "timed")),
        ),
        requests=5,
        retries=1,
        notes=("2 cases left out: --parity-budget",),
    )

    assert terminal.summary(record) == [
        "q4: 3 answers missing (T 2, O 1), 3 answers of the noise floor missing (T 3), 1",
        "    answer of timed requests missing (T 1)",
        "",
        "2 cases left out: --parity-budget",
        "run r: 5 requests sent in all, probes and 1 retry included",
    ]


def test_a_replay_says_that_nobody_was_asked() -> None:
    (*_, last) = terminal.summary(dataclasses.replace(DEMO, replayed=True), width=200)

    assert last == "run 20261121-034501-ab12: nobody was asked, the answers are those that were stored"


def test_nothing_that_ran_is_nothing_to_read() -> None:
    assert terminal.summary(RunRecord(run="", version="1")) == []


foreign = st.text(st.characters(), max_size=120)


@given(text=foreign, verbose=st.booleans())
def test_no_text_of_an_engine_steers_the_terminal_or_breaks_the_width(text: str, verbose: bool) -> None:
    facts = Identity(facts={name: Fact(value=text, source="reported") for name in ("digest", "version")})
    hostile = [
        verdict("q4", Outcome.ERROR, reason=text, test=f"t.py::{text}"),
        verdict("q4", Outcome.FAIL, message=text, cause=text, check=text),
        verdict("q4", Outcome.INCONCLUSIVE, reason=text, estimate=0.1, unit="share", check=text),
    ]
    record = RunRecord(
        run="r",
        version="1",
        engines=(EngineRecord(name="q4", kind=text, model=text, quantization=text, identity=facts),),
        verdicts=tuple(hostile),
        failures=(FailureRecord(engine="q4", case=text, phase="main", kind=text, message=text),),
        notes=(text,),
    )

    lines = terminal.summary(record, verbose=verbose)

    assert all(cells(line) <= 80 for line in lines)
    assert not [c for line in lines for c in line if ord(c) < 32 or 127 <= ord(c) < 160 or 0xD800 <= ord(c) < 0xE000]


@pytest.mark.parametrize(
    ("kind", "more", "cell"),
    [
        ("prompts", {"estimate": 0.0, "unit": "prompts"}, "pass 0 differ"),
        ("latency.e2e_p95", {"estimate": 0.02, "unit": "share"}, "pass 2 % over"),
        ("latency.ttft_p50", {"estimate": 1.1, "unit": "ratio"}, "pass x1.10"),
        ("latency.success_rate", {"estimate": 1.0, "unit": "share"}, "pass 100 %"),
        ("schema.rate", {"estimate": 0.98, "unit": "share"}, "pass 98 %"),
    ],
)
def test_a_number_whose_direction_is_not_plain_says_what_it_counts(kind: str, more: dict[str, Any], cell: str) -> None:
    lines = terminal.grid([verdict("q8_0", Outcome.PASS, kind, **more)], ["q8_0"], verbose=False)

    assert lines[2].partition(cell)[2][:1] in (",", "")
    assert cell in lines[2]


PASSED = {"estimate": 0.0845, "upper": 0.109, "unit": "forks/token", "n": 144, "margin": 0.15}


def test_a_cell_shows_the_bound_and_what_it_rests_on_in_one_line_where_there_is_room() -> None:
    lines = terminal.grid([verdict("q8_0", Outcome.PASS, "text", **PASSED)], ["f16", "q8_0"], verbose=False, width=80)

    assert lines[2:] == ["  text  -    pass 8.45 % < 15 % (at most 10.9 %), n 144"]


def test_a_pass_on_text_shows_how_many_prompts_part_and_the_shift() -> None:
    apart = Apart(prompts=34 / 64, shift=0.292)
    passed = verdict("b", Outcome.PASS, "text", **PASSED, apart=apart)
    least = verdict("c", Outcome.PASS, "text", **PASSED, apart=Apart(prompts=0.0, shift=0.3, or_more=True))

    lines = terminal.grid([passed, least], ["b", "c"], verbose=False, width=72)
    assert [" ".join(line.split()) for line in lines[2:]] == [
        "text pass 8.45 % < 15 % pass 8.45 % < 15 %",
        "(at most 10.9 %), 53.12 % part, (at most 10.9 %),",
        "shift 0.292 nats, n 144 shift 0.3 nats or more, n 144",
    ]
    sentence = " ".join(" ".join(terminal.conclusions([passed], [], verbose=True)).split())
    assert "8.45 %/token, margin 15 %, 53.12 % of prompts part, shift 0.292 nats" in sentence


def test_cells_take_more_lines_where_engines_are_many_and_no_number_is_cut() -> None:
    names = ["f16", "q8_0", "q6_k", "q4_0"]
    verdicts = [verdict(name, Outcome.PASS, "text", **PASSED) for name in names[1:]]

    lines = terminal.grid(verdicts, names, verbose=False, width=80)

    assert max(map(len, lines)) <= 80
    assert "\n".join(lines).count("pass 8.45 %") == 3
    assert "…" not in "".join(lines)


@pytest.mark.parametrize("width", [60, 80, 100, 140])
@pytest.mark.parametrize("engines", [1, 2, 3, 7])
def test_a_grid_keeps_to_its_width_with_every_number_in_it(width: int, engines: int) -> None:
    names = [f"engine-{number}" for number in range(engines)]
    open_one = {"estimate": 0.1023, "lower": 0.0412, "upper": 0.2456, "unit": "s", "n": 12345, "margin": 0.1}
    verdicts = [verdict(name, Outcome.INCONCLUSIVE, "latency.ttft_p50", **open_one) for name in names]

    lines = terminal.grid(verdicts, names, verbose=True, width=width)

    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert all(text.count(number) == engines for number in ("102.3", "41.2", "245.6", "12345"))


def test_what_was_skipped_says_why_once_with_every_check_it_concerns() -> None:
    lacks = "mlx does not enforce response_format (declared)"
    skipped = [
        dataclasses.replace(verdict("mlx", Outcome.SKIPPED), kind=kind, reason=lacks, test=f"t.py::{test}")
        for kind, test in (("schema.rate", "test_a"), ("schema.gap", "test_a"), ("schema.gap", "test_b"))
    ]

    lines = terminal.unjudged([PASSING, *skipped, verdict("q4", Outcome.SKIPPED)])

    assert lines[0] == "skipped:"
    assert " ".join(" ".join(lines[1:]).split()) == (
        f"{lacks}: schema.rate of test_a, schema.gap of test_a, schema.gap of test_b"
    )
    assert terminal.unjudged([PASSING]) == []


def test_probes_are_part_of_the_plan() -> None:
    assert ahead.probe_line(4, 2) == "probes: at most 4 short requests to each of 2 engines, 8 in all"
    assert ahead.probe_line(1, 1) == "probes: at most 1 short request"


def test_the_line_about_routes_counts_whole_prompts() -> None:
    assert (
        ahead.route_line(16, ["o", "l"])
        == "routes: at most 16 requests more with whole prompts to each of o, l, 32 in all; half over each route"
    )
    assert (
        ahead.route_line(16, ["o"]) == "routes: at most 16 requests more with whole prompts to o; half over each route"
    )


def test_a_narrow_cache_is_seen_and_a_usual_one_is_not() -> None:
    def line(kv_cache: str) -> str:
        return ahead.engine_lines([engine("a", identity=identity_of(kv_cache=kv_cache))])[0]

    assert "KV q8_0" in line("q8_0")
    assert all("KV" not in line(usual) for usual in ("auto", "f16", "bfloat16"))


def test_verbose_tells_every_fact_and_who_says_so() -> None:
    known = identity_of(version="b1", device="NVIDIA \x1b[31mH200")
    record = dataclasses.replace(DEMO, engines=(engine("a", identity=known), engine("b", identity=Identity())))

    lines = terminal.summary(record, verbose=True)

    assert r"a is: device NVIDIA \x1b[31mH200 (reported), version b1 (reported)" in lines
    assert not any(line.startswith("b is:") for line in lines)
    sung = dataclasses.replace(DEMO, engines=(engine("b", identity=Identity(), canaries="unchanged (0.0002 nats)"),))
    assert "b is: by its canaries unchanged (0.0002 nats)" in terminal.summary(sung, verbose=True)
    assert not any(line.startswith("a is:") for line in terminal.summary(record))


def identity_of(**values: str) -> Identity:
    return Identity(facts={name: Fact(value=value, source="reported") for name, value in values.items()})


def test_where_a_shift_sits_is_shown_to_who_asks_for_more() -> None:
    quarters = (0.271, 0.061, 0.082, 0.008)
    shape = Shape(positions=900, quarters=quarters, seen=0.1, unseen=0.2, slope=0.8, missing=("a", "\x1b[31m"))
    drifting = verdict("q4", Outcome.FAIL, "logprobs", estimate=0.2, unit="nats", shape=shape)

    short, long = (terminal.conclusions([drifting], [], verbose=verbose, width=200) for verbose in (False, True))

    assert not any("shape" in line for line in short)
    assert long[1] == (
        "    shape of the shift: by quarter of the answer 0.271, 0.061, 0.082, 0.008 nats; tokens seen before 0.1, "
        "others 0.2; leads 0.8 times as large; never listed 'a', '\\x1b[31m'"
    )
