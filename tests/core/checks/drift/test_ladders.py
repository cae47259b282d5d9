"""What verdicts say with a ladder of the baseline's model in the lock."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import msgspec
import pytest

from pytest_llmparity import check
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.prompts.portion import Portion
from pytest_llmparity.core.sample import Fact, Identity, Sampling
from pytest_llmparity.core.verdict import Outcome
from tests.core.checks.drift.test_logprobs_check import spoken
from tests.core.identity.test_agreed import ACCEPTED
from tests.core.identity.test_ladder import LADDER

if TYPE_CHECKING:
    from tests.core.conftest import Factory


def evidence(
    make: Factory,
    lead: float,
    *,
    quantization: str | None = "Q4_K_M",
    digest: str = LADDER.digest,
    agreed: Agreed | None = None,
    kind: str = "llamacpp",
) -> Evidence:
    """A baseline that serves these weights and a candidate of a declared class whose lead is another one."""
    same = [spoken(2.0)] * 32
    candidate = [spoken(lead)] * 32
    made = make.evidence(
        make.engine("base", same, cold=same, warm=same, parallel=same, quantization="F16"),
        make.engine("cand", candidate, cold=candidate, warm=candidate, parallel=candidate, quantization=quantization),
        cases=32,
    )
    prompts = dataclasses.replace(made.prompts, name=LADDER.prompt_set)
    identity = Identity(facts={"digest": Fact(value=digest, source="file")})
    engines = {
        "base": dataclasses.replace(made.engines["base"], identity=identity),
        "cand": dataclasses.replace(made.engines["cand"], kind=kind),
    }
    return dataclasses.replace(made, prompts=prompts, engines=engines, agreed=agreed or Agreed().measuring(LADDER))


ABOUT = "about Q4_K_M (0.161 nats), between Q6_K (0.087 nats) and Q4_0 (0.336 nats)"


def test_a_verdict_in_nats_names_the_class_and_takes_its_margin(make: Factory) -> None:
    (verdict,) = check.logprobs().judge(evidence(make, 2.15))

    assert (verdict.outcome, verdict.margin) == (Outcome.PASS, 0.27)
    assert verdict.details[0] == f"{ABOUT}: the ladder of tiny-F16.gguf in llmparity.lock"
    assert "margin 0.27 nats, Q4_K_M on the ladder of 2026-11-28 in llmparity.lock" in verdict.message


def test_a_class_that_is_coarser_than_declared_fails(make: Factory) -> None:
    (verdict,) = check.logprobs().judge(evidence(make, 2.34, quantization="Q8_0"))

    assert (verdict.outcome, verdict.margin) == (Outcome.FAIL, 0.06)
    assert verdict.details[0].startswith("about Q4_0 (0.336 nats), between Q4_K_M")


def test_a_margin_of_the_pair_comes_before_the_ladder(make: Factory) -> None:
    judged = evidence(make, 2.15)
    accepted = dataclasses.replace(
        ACCEPTED,
        baseline="base",
        candidate="cand",
        of_baseline=dataclasses.replace(ACCEPTED.of_baseline, kind=judged.engines["base"].kind, facts={}),
        of_candidate=dataclasses.replace(ACCEPTED.of_candidate, kind=judged.engines["cand"].kind, facts={}),
    )

    (verdict,) = check.logprobs().judge(dataclasses.replace(judged, agreed=judged.agreed.accepting(accepted)))

    assert verdict.margin == accepted.shift
    assert verdict.details[0].startswith(ABOUT)


@pytest.mark.parametrize("changed", [{"digest": "sha256:" + "f" * 64}, {"quantization": "AWQ"}])
def test_another_model_and_a_class_that_was_not_measured_have_no_margin(make: Factory, changed: dict[str, str]) -> None:
    (verdict,) = check.logprobs().judge(evidence(make, 2.15, **changed))  # type: ignore[arg-type]

    assert verdict.outcome is Outcome.INCOMPARABLE
    assert verdict.reason.endswith("run: llmparity calibrate base cand, or give check.logprobs(shift=…)")


def test_text_takes_its_margin_from_the_ladder_and_names_the_class(make: Factory) -> None:
    text, repeat = check.text().judge(evidence(make, 2.15))

    assert text.margin == repeat.margin == pytest.approx(1.5 * 0.161 / 3)
    assert any(
        "margin 8.05 %, Q4_K_M on the ladder of tiny-F16.gguf, 2026-11-28, in llmparity.lock, over 32 tokens" in line
        for line in text.details
    )
    assert any(line.startswith("shift 0.15 nats") and ABOUT in line for line in text.details)


def test_a_fine_class_is_never_held_to_less_than_honest_engines_do(make: Factory) -> None:
    text, _ = check.text().judge(evidence(make, 2.01, quantization="BF16"))

    assert text.margin == 0.02


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"digest": "sha256:" + "f" * 64}, "llmparity.lock has no ladder of the weights that base serves; run:"),
        ({"kind": "vllm"}, "cand is of kind vllm, and the ladder of tiny-F16.gguf was measured on llama.cpp: other"),
        ({"quantization": "AWQ"}, "cand declares AWQ, and the ladder of tiny-F16.gguf has no such class; give check"),
        ({"quantization": None}, "cand does not say its quantisation, and the ladder of tiny-F16.gguf has no such"),
    ],
)
def test_text_without_a_class_on_the_ladder_has_no_margin_but_one_that_is_given(
    make: Factory, changed: dict[str, str], reason: str
) -> None:
    judged = evidence(make, 2.15, **changed)  # type: ignore[arg-type]

    (other,) = check.text().judge(judged)
    given, _ = check.text(margin=0.3).judge(judged)

    assert (other.outcome, given.margin) == (Outcome.INCOMPARABLE, 0.3)
    assert other.reason.startswith(f"no margin: {reason}")


@pytest.mark.parametrize("declared", ["Q8_0", "BF16", "Q4_0", "AWQ", None])
def test_near_ties_are_those_of_an_8_bit_copy_whatever_class_is_declared(make: Factory, declared: str | None) -> None:
    """A copy of 4 bits is known to move further: that would make all of its forks near-ties."""
    judged = evidence(make, 2.15, quantization=declared)

    text = check.text(margin=0.05, ignore="near-ties").judge(judged)[0]

    allowed = "its class" if declared in ("Q8_0", "BF16") else "8-bit copies"
    assert text.remarks[0] == (
        "0 of 0 forks near-ties and not counted: the lead moved by at most 0.218 nats there, 3.63 times the shift "
        f"allowed for {allowed} (0.06 nats, Q8_0 on the ladder of 2026-11-28 in llmparity.lock)"
    )
    assert (text.outcome, text.needed) == (Outcome.INCONCLUSIVE, None)  # by its shift
    assert text.message.endswith(f"near-ties of 0.06 nats were allowed for {allowed}: they do not explain its forks")


def test_a_ladder_without_a_copy_of_8_bits_does_not_say_which_forks_are_near_ties(make: Factory) -> None:
    coarse = Agreed().measuring(dataclasses.replace(LADDER, rungs=LADDER.rungs[1:]))
    judged = evidence(make, 2.0, quantization="Q4_0", agreed=coarse)

    (ignoring,) = check.text(margin=0.05, ignore="near-ties").judge(judged)

    assert ignoring.outcome is Outcome.INCOMPARABLE
    assert ignoring.reason.startswith("llmparity.lock has no margin for this pair; run: llmparity calibrate base cand")
    assert check.text(margin=0.05).judge(judged)[0].outcome is Outcome.PASS


RUN = "run: llmparity calibrate --ladder tiny-F16.gguf --prompts FILE (that of"


@pytest.mark.parametrize(
    ("name", "before"), [("stories", "calibration"), ("calibration", "calibration as it was then")]
)
def test_text_takes_no_margin_from_a_ladder_of_other_prompts(make: Factory, name: str, before: str) -> None:
    """The same 8-bit copy parts at 2 % of tokens of one set and at 7 % of another, whatever their files are called."""
    judged = evidence(make, 2.15)
    others = dataclasses.replace(judged, prompts=dataclasses.replace(judged.prompts, name=name, digest="e"))

    (text,) = check.text().judge(others)

    assert text.outcome is Outcome.INCOMPARABLE
    assert text.reason == (
        f"no margin: the ladder of tiny-F16.gguf was measured on {before}, and other prompts part more or less "
        f"often; {RUN} {name}), or give check.text(margin=…)"
    )


def test_a_ladder_of_an_earlier_version_has_no_margin_of_text_and_one_in_nats(make: Factory) -> None:
    rungs = tuple(dataclasses.replace(rung, least_forks=None, tags={}) for rung in LADDER.rungs)
    old = dataclasses.replace(LADDER, prompt_sha256="", max_tokens=0, rungs=rungs)
    judged = evidence(make, 2.15, agreed=Agreed().measuring(old))

    (text,), (nats,) = check.text().judge(judged), check.logprobs().judge(judged)

    assert (text.outcome, nats.outcome) == (Outcome.INCOMPARABLE, Outcome.PASS)
    assert text.reason == (
        "no margin: the ladder of tiny-F16.gguf is of an earlier version, which did not keep on what prompts text was "
        f"measured; {RUN} calibration), or give check.text(margin=…)"
    )


@pytest.mark.parametrize(
    ("sampling", "reason"),
    [
        (Sampling(max_tokens=8), "was measured on answers of at most 32 tokens, and shorter ones part more or less"),
        (Sampling(repetition_penalty=1.3), "was measured without repetition_penalty, which change how often answers"),
    ],
)
def test_text_takes_no_margin_from_a_ladder_that_was_asked_otherwise(
    make: Factory, sampling: Sampling, reason: str
) -> None:
    (text,) = check.text().judge(dataclasses.replace(evidence(make, 2.15), sampling=sampling))

    assert text.outcome is Outcome.INCOMPARABLE
    assert text.reason.startswith(f"no margin: the ladder of tiny-F16.gguf {reason}")


TAGGED = tuple(
    Case(id=f"c{at}", prompt="Say something.", tags=("stories" if at < 16 else "copying",)) for at in range(32)
)


def of_tags(judged: Evidence, *portions: Portion) -> list[Evidence]:
    """Return evidence on prompts with tags that the ladder was measured on, and on portions of them."""
    whole = PromptSet(name="calibration", cases=TAGGED)
    (ladder,) = judged.agreed.ladders
    agreed = Agreed().measuring(dataclasses.replace(ladder, prompt_sha256=whole.digest))
    tagged = dataclasses.replace(judged, prompts=whole, agreed=agreed)
    return [tagged, *(tagged.about(portion.of(whole)) for portion in portions)]


def test_verdicts_by_tag_take_the_margin_of_their_tag_or_are_left_to_that_on_all(make: Factory) -> None:
    tagged, *_ = of_tags(evidence(make, 2.15))

    whole, _, stories = check.text(by="tag").judge(tagged)

    assert [verdict.kind for verdict in (whole, stories)] == ["text", "text[stories]"]
    assert whole.outcome is stories.outcome is Outcome.PASS
    assert whole.margin == pytest.approx(1.5 * 0.161 / 3)
    assert stories.margin == pytest.approx(1.5 * 0.161 / 2.8)
    assert "over 32 tokens on prompts with the tag stories" in stories.details[0]
    assert whole.remarks[-1] == (
        "no margin for copying, which is left to the verdict on all: the ladder of tiny-F16.gguf has no forks on "
        "prompts with the tag copying: too few prompts, or measured before they had the tag; "
        f"{RUN} these prompts), or give check.text(margin=…)"
    )
    kinds = [verdict.kind for verdict in check.text(by="tag", margin=0.08).judge(tagged)]
    assert kinds == ["text", "text.repeat", "text[stories]", "text[copying]"]


def test_the_plan_says_that_some_tags_may_have_no_margin(make: Factory) -> None:
    prompts = PromptSet(name="calibration", cases=TAGGED)
    given, by_ladder = (check.text(by="tag", margin=margin).tag_line(prompts) for margin in (0.05, None))

    assert given.endswith("by tag copying 16, stories 16")
    assert by_ladder.endswith(
        "copying 16, stories 16; a tag without a margin of its own on the ladder is left to the verdict on all prompts"
    )


@pytest.mark.parametrize(
    ("sent", "fields"),
    [
        ({"thinking": {"chat_template_kwargs": {"enable_thinking": False}}}, "chat_template_kwargs"),
        ({"extra_body": {"guided_json": {}}}, "extra_body"),
        ({"thinking": {"reasoning_effort": "low"}, "extra_body": {"a": 1}}, "reasoning_effort and extra_body"),
    ],
)
def test_what_is_sent_with_every_prompt_is_told_from_other_prompts(
    make: Factory, sent: dict[str, dict[str, object]], fields: str
) -> None:
    """``calibrate`` reads no marker, so that measuring the same file again would not help."""
    tagged, part = of_tags(evidence(make, 2.15), Portion(most=20))
    asked = [
        dataclasses.replace(
            judged,
            prompts=PromptSet(
                name="calibration",
                cases=tuple(msgspec.structs.replace(case, **sent) for case in judged.prompts.cases),
                rest=tuple(msgspec.structs.replace(case, **sent) for case in judged.prompts.rest),
            ),
        )
        for judged in (tagged, part)
    ]
    first, *others = asked[0].prompts.cases
    edited = PromptSet(name="calibration", cases=(msgspec.structs.replace(first, prompt="Sing."), *others))

    for judged in asked:
        assert check.text().judge(judged)[0].reason == (
            f"no margin: the ladder of tiny-F16.gguf was measured on these prompts without {fields}, which every "
            f"request has here; calibrate reads no marker: write {fields} into every row of the file, and {RUN} "
            "calibration), or give check.text(margin=…)"
        )
    (other,) = check.text().judge(dataclasses.replace(asked[0], prompts=edited))
    assert "was measured on calibration as it was then" in other.reason


def test_a_part_of_the_prompts_takes_the_margin_of_its_tag_or_none(make: Factory) -> None:
    parts = of_tags(evidence(make, 2.15), Portion(tags=("stories",)), Portion(tags=("copying",)), Portion(most=20))

    (_, stories, copying, some) = (check.text().judge(part)[0] for part in parts)

    assert stories.margin == pytest.approx(1.5 * 0.161 / 2.8)
    assert copying.outcome is some.outcome is Outcome.INCOMPARABLE
    assert some.reason == (
        "no margin: this run asks 20 of 32 prompts, and the ladder of tiny-F16.gguf was measured on all of them; run "
        "without --parity-tag, --parity-sample, or give check.text(margin=…)"
    )


def test_a_class_that_cannot_be_told_from_a_coarser_one_has_no_margin(make: Factory) -> None:
    """Q4_0 parts, and shifts, as little as Q4_K_M may: whatever an honest copy of that keeps, it keeps too."""
    rungs = tuple(
        dataclasses.replace(rung, lower=0.17, least_forks=0.05) if rung.quantization == "Q4_0" else rung
        for rung in LADDER.rungs
    )
    judged = evidence(make, 2.15, agreed=Agreed().measuring(dataclasses.replace(LADDER, rungs=rungs)))

    (text,), (nats,) = check.text().judge(judged), check.logprobs().judge(judged)

    assert text.outcome is nats.outcome is Outcome.INCOMPARABLE
    assert text.reason == (
        "no margin: copies of class Q4_K_M part at up to 5.37 % of tokens there, and at 5 % or more by Q4_0: text "
        "cannot tell Q4_0 from it; judge by check.logprobs(), or give check.text(margin=…)"
    )
    assert nats.reason == (
        "llmparity.lock has no margin for this pair, and the ladder of 2026-11-28 in llmparity.lock cannot tell Q4_0 "
        "from Q4_K_M, whose copy may shift by 0.177 nats where Q4_0 shifts by 0.17 nats or more; run: llmparity "
        "calibrate base cand, or give check.logprobs(shift=…)"
    )


def test_a_margin_ends_where_a_coarser_class_begins(make: Factory) -> None:
    rungs = tuple(
        dataclasses.replace(rung, lower=0.2, least_forks=0.06) if rung.quantization == "Q4_0" else rung
        for rung in LADDER.rungs
    )
    judged = evidence(make, 2.15, agreed=Agreed().measuring(dataclasses.replace(LADDER, rungs=rungs)))

    text, (nats,) = check.text().judge(judged)[0], check.logprobs().judge(judged)

    assert (text.outcome, text.margin) == (Outcome.PASS, 0.06)
    assert "over 32 tokens, below Q4_0" in text.details[0]
    assert (nats.outcome, nats.margin) == (Outcome.PASS, 0.2)
    assert "Q4_K_M on the ladder of 2026-11-28 in llmparity.lock, below Q4_0" in nats.message


def test_text_takes_no_margin_from_a_class_that_parts_nearly_everywhere(make: Factory) -> None:
    rungs = tuple(dataclasses.replace(rung, most_forks=0.4) for rung in LADDER.rungs if rung.quantization == "Q4_K_M")
    agreed = Agreed().measuring(dataclasses.replace(LADDER, rungs=rungs))

    (text,) = check.text().judge(evidence(make, 2.15, agreed=agreed))

    assert text.outcome is Outcome.INCOMPARABLE
    assert text.reason == (
        "no margin: copies of class Q4_K_M part at up to 40 % of tokens there, which text hardly tells from noise; "
        "judge by check.logprobs()"
    )


@pytest.mark.parametrize(("recorded", "margin"), [("cand", 0.02), ("prod", None)])
def test_golden_text_is_held_against_its_own_engine_by_nothing_may_have_changed(
    make: Factory, recorded: str, margin: float | None
) -> None:
    judged = evidence(make, 2.0, agreed=Agreed())
    golden = dataclasses.replace(judged.engines["base"], golden=recorded)

    text = check.text().judge(dataclasses.replace(judged, engines={**judged.engines, "base": golden}))[0]

    assert text.margin == margin
    if margin is None:
        assert text.outcome is Outcome.INCOMPARABLE
    else:
        assert text.outcome is Outcome.PASS
        assert "margin 2 %, nothing may have changed since the golden was recorded" in text.details[0]
