"""What the checks decide on real engines when chance draws the prompts: answers kept in ``fixtures/draws``.

``tests/live/test_draws.py`` holds that an engine of today still answers so, ``docs/statistics.md`` has all tables.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from benchmarks.draws import COARSE, HIDDEN, HONEST, MARGIN, OF_MLX, Drawn, Pair, ladder, named, outcomes, remembered
from benchmarks.record_draws import DRAWS
from benchmarks.recordings import Recorded, read, write
from fixtures.draws import make_instruct, make_structured
from pytest_llmparity import check
from pytest_llmparity.core.identity.agreed import FACTOR, in_nats
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Completion, Fact, Identity, Phase, TokenLogprob
from pytest_llmparity.core.verdict import Outcome, Verdict

SHIFT = check.logprobs(shift=MARGIN)
TIMES = 100
"""So many draws of each pair, the first of the 200 that ``docs/statistics.md`` tells of: always the same."""
CLASSES = ("Q8_0", "Q6_K", "Q4_K_M", "Q4_0")


@pytest.fixture(scope="module")
def tiny() -> Iterator[Drawn]:
    """Return what engines answered with the tiny model."""
    with remembered():
        yield Drawn.of("tiny")


def told(pair: Pair) -> str:
    """Name a pair in a test's id."""
    return f"{pair.candidate} against {pair.baseline}, {pair.prompts}"


@pytest.mark.slow
@pytest.mark.parametrize("pair", HONEST, ids=told)
def test_honest_pairs_pass_with_16_prompts(tiny: Drawn, pair: Pair) -> None:
    drawn = outcomes(tiny, pair, [SHIFT], size=16, draws=TIMES)

    assert drawn.share("PASS") >= 0.99
    assert drawn.share("FAIL") <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize("pair", OF_MLX, ids=told)
def test_mlx_passes_with_24_prompts_and_never_fails(tiny: Drawn, pair: Pair) -> None:
    few, more = (outcomes(tiny, pair, [SHIFT], size=size, draws=TIMES) for size in (16, 24))

    assert more.share("PASS") >= 0.99
    assert few.share("PASS") >= 0.95
    assert few.share("FAIL") == more.share("FAIL") == 0


@pytest.mark.slow
@pytest.mark.parametrize("pair", COARSE, ids=told)
def test_weights_of_four_bits_fail_with_16_prompts_and_surely_with_24(tiny: Drawn, pair: Pair) -> None:
    few, more = (outcomes(tiny, pair, [SHIFT], size=size, draws=TIMES) for size in (16, 24))

    assert few.share("FAIL") >= 0.90
    assert more.share("FAIL") >= 0.98
    assert few.share("PASS") == more.share("PASS") == 0


@pytest.mark.slow
@pytest.mark.parametrize("pair", HIDDEN, ids=told)
def test_what_acts_on_some_prompts_never_passes_and_fails_with_64(tiny: Drawn, pair: Pair) -> None:
    few, many = (outcomes(tiny, pair, [SHIFT], size=size, draws=TIMES) for size in (16, 64))

    assert few.share("PASS") == many.share("PASS") == 0
    assert many.share("FAIL") >= 0.80


@pytest.mark.slow
def test_a_verdict_names_the_class_by_a_ladder_of_other_prompts(tiny: Drawn) -> None:
    counts = named(tiny, CLASSES, [name.lower() for name in CLASSES], name="pool", size=24, draws=40)

    for name in CLASSES:
        assert counts[name.lower()][name] >= 38, counts


@pytest.fixture(scope="module")
def smollm2() -> Iterator[Drawn]:
    """Return what llama.cpp answered with a real instruct model and its copies."""
    with remembered():
        yield Drawn.of("smollm2")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("copy", "outcome"),
    [("bf16", "PASS"), ("vllm-bf16", "PASS"), ("vllm-f32", "PASS"), ("q4_k_m", "FAIL"), ("q4_0", "FAIL")],
)
def test_copies_of_a_real_model_are_judged_by_the_margin_of_its_own_8_bits(
    smollm2: Drawn, copy: str, outcome: str
) -> None:
    prompts = PromptSet(name="instruct", cases=tuple(smollm2.sets["instruct"]))
    own = ladder(smollm2, CLASSES, prompts)
    margin = in_nats(own, own.rungs[0]).margin
    pair = Pair(baseline="f16", candidate=copy, prompts="instruct")

    drawn = outcomes(smollm2, pair, [check.logprobs(shift=margin)], size=24, draws=40)

    assert drawn.share(outcome) >= 0.95, drawn.outcomes


@pytest.mark.slow
def test_a_verdict_names_the_class_of_a_real_models_copy(smollm2: Drawn) -> None:
    counts = named(smollm2, CLASSES, [name.lower() for name in CLASSES], name="instruct", size=24, draws=40)

    for name in CLASSES:
        assert counts[name.lower()][name] >= 38, counts


STORIES = "stories"
EXACT = ("ollama-f16", "transformers")
"""Engines that compute as the baseline does."""


def of_kind(drawn: Drawn, tag: str) -> list[Case]:
    """Return the recorded prompts of one kind, of all sets."""
    every = {case.id: case for cases in drawn.sets.values() for case in cases}
    return [case for case in every.values() if tag in case.tags]


def forks(drawn: Drawn, candidate: str, cases: Sequence[Case], margin: float) -> Verdict:
    """Return the verdict on a candidate's text against F16."""
    prompts = PromptSet(name="some", cases=tuple(cases))
    pair = Pair(baseline="f16", candidate=candidate, prompts="")
    return drawn.verdicts(pair, prompts, [check.text(margin=margin)])[0]


@pytest.mark.slow
def test_no_margin_of_text_is_kept_by_honest_engines_and_broken_by_four_bits_on_two_models(
    tiny: Drawn, smollm2: Drawn
) -> None:
    """Why text has no preset: honest BF16 parts on the one model more often than 4 bits do on the other."""
    honest = forks(tiny, "vllm-bf16", of_kind(tiny, STORIES), 0.05)
    coarse = forks(smollm2, "q4_k_m", smollm2.sets["instruct"], 0.05)
    fine = forks(tiny, "q8_0", of_kind(tiny, STORIES), 0.05)

    assert (honest.lower or 0.0) > (coarse.upper or 1.0)
    assert (fine.lower or 0.0) > 0.05
    assert fine.outcome is Outcome.FAIL, "which a margin of 5 % for 8 bits would say of an honest copy"


@pytest.mark.slow
def test_a_ladder_of_stories_passes_honest_copies_on_stories_and_fails_four_bits(tiny: Drawn) -> None:
    """40 times: a ladder of 28 stories, a gate of the 29 others. Of 5 % false alarms 7 come in 1 of 300 cases."""
    stories, outcomes_of = of_kind(tiny, STORIES), defaultdict[str, Counter[Outcome]](Counter)
    for number in range(40):
        mixed = Random(f"stories {number}").sample(stories, len(stories))
        (rung,) = ladder(tiny, ("Q8_0",), PromptSet(name=STORIES, cases=tuple(mixed[:28]))).rungs
        for name in ("q8_0", "q4_k_m", "q4_0", "ollama-q4_0", *EXACT):
            verdict = forks(tiny, name, mixed[28:], FACTOR * rung.most_forks)
            outcomes_of[name][verdict.outcome] += 1

    for name in EXACT:
        assert outcomes_of[name] == {Outcome.PASS: 40}
    assert outcomes_of["q8_0"][Outcome.PASS] >= 36
    assert outcomes_of["q8_0"][Outcome.FAIL] == 0
    for name in ("q4_k_m", "q4_0", "ollama-q4_0"):
        assert outcomes_of[name][Outcome.FAIL] >= 39


@pytest.mark.slow
def test_a_ladder_of_a_real_model_passes_honest_copies_and_never_four_bits(smollm2: Drawn) -> None:
    """25 times: a ladder of 32 prompts of eight kinds, a gate of the 32 others."""
    every, outcomes_of = smollm2.sets["instruct"], defaultdict[str, Counter[Outcome]](Counter)
    for number in range(25):
        mixed = Random(f"instruct {number}").sample(every, len(every))
        (rung,) = ladder(smollm2, ("Q8_0",), PromptSet(name="instruct", cases=tuple(mixed[:32]))).rungs
        for name in ("bf16", "q8_0", "q4_k_m", "q4_0"):
            outcomes_of[name][forks(smollm2, name, mixed[32:], FACTOR * rung.most_forks).outcome] += 1

    assert outcomes_of["bf16"] == {Outcome.PASS: 25}
    assert outcomes_of["q8_0"][Outcome.PASS] >= 20
    assert outcomes_of["q8_0"][Outcome.FAIL] == 0
    assert outcomes_of["q4_k_m"][Outcome.PASS] == outcomes_of["q4_0"][Outcome.PASS] == 0
    assert outcomes_of["q4_0"][Outcome.FAIL] >= 24


def test_engines_that_repeat_themselves_are_kept_so(tiny: Drawn) -> None:
    """The baseline's floor on real engines, to a thousandth of a nat: no answer and no lead moved."""
    for name in ("f16", "ollama-f16", "vllm-bf16"):
        answers = tiny.engines[name].answers
        assert len(answers) > 1
        for phase, again in answers.items():
            moved = sum(again[case].text != answer.text for case, answer in answers[Phase.MAIN].items())
            assert moved == 0, (name, phase)


@pytest.mark.slow
def test_a_recording_says_what_it_is(tiny: Drawn) -> None:
    about = read(DRAWS / "tiny.jsonl.xz").about

    assert about["made_by"] == "python -m benchmarks.record_draws tiny"
    assert about["date"] >= "2026-11-28"
    assert {name: engine["kind"] for name, engine in about["engines"].items()}["vllm-bf16"] == "vllm"
    assert all(engine.identity.get("version") or name == "rope" for name, engine in tiny.engines.items())


def answer(*tokens: str, lead: float = 1.25, finish: str = "stop") -> Completion:
    """Return an answer whose every token leads by so much."""
    top = [(((token.encode(), -0.5), (b"other", -0.5 - lead), (b"never", -math.inf))) for token in tokens]
    return Completion(
        text="".join(tokens),
        finish_reason=finish,
        completion_tokens=len(tokens),
        logprobs=tuple(TokenLogprob(token=entry[0][0], logprob=-0.5, top=entry) for entry in top),
        max_tokens=8,
    )


def test_what_is_written_is_read_and_a_candidate_ends_where_it_parts(tmp_path: Path) -> None:
    whole, parts = answer("It ", "is ", "é"), answer("It ", "was ", "so", lead=1.5)
    engines = [
        Recorded(
            name=name,
            kind="llamacpp",
            quantization="F16",
            identity=Identity(facts={"version": Fact(value="1", source="reported")}),
            answers={Phase.MAIN: {"c": first}, Phase.WARM: {"c": again}},
        )
        for name, first, again in (("base", whole, answer("It ", "is ", "o")), ("cand", parts, parts))
    ]
    path = tmp_path / "two.jsonl.xz"

    write(path, about={"max_tokens": 8}, engines=engines, baselines=["base"])
    seen = read(path).engines

    assert seen["base"].answers == engines[0].answers
    kept = seen["cand"].answers[Phase.MAIN]["c"]
    assert (kept.text, kept.finish_reason, kept.completion_tokens) == ("It was ", "length", 3)
    assert kept.logprobs == parts.logprobs[:2]
    assert seen["cand"].answers[Phase.WARM] == seen["cand"].answers[Phase.MAIN]
    assert seen["cand"].identity == engines[1].identity


def test_the_prompts_of_the_instruct_model_are_what_the_script_makes() -> None:
    assert (make_instruct.HERE / make_instruct.NAME).read_text("utf-8") == make_instruct.lines()
    assert (make_structured.HERE / make_structured.NAME).read_text("utf-8") == make_structured.lines()
