"""What verdicts say with a ladder of the baseline's model in the lock."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.evidence import Evidence
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.sample import Fact, Identity
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
    quantization: str = "Q4_K_M",
    digest: str = LADDER.digest,
    agreed: Agreed | None = None,
) -> Evidence:
    """A baseline that serves these weights and a candidate of a declared class whose lead is another one."""
    same = [spoken(2.0)] * 32
    candidate = [spoken(lead)] * 32
    made = make.evidence(
        make.engine("base", same, cold=same, warm=same, parallel=same, quantization="F16"),
        make.engine("cand", candidate, cold=candidate, warm=candidate, parallel=candidate, quantization=quantization),
        cases=32,
    )
    identity = Identity(facts={"digest": Fact(value=digest, source="file")})
    engines = {**made.engines, "base": dataclasses.replace(made.engines["base"], identity=identity)}
    return dataclasses.replace(made, engines=engines, agreed=agreed or Agreed().measuring(LADDER))


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

    assert text.margin == repeat.margin == pytest.approx(0.161 / 3)
    assert any(
        "margin 5.37 %, Q4_K_M on the ladder of tiny-F16.gguf, 2026-11-28, in llmparity.lock, over 32 tokens" in line
        for line in text.details
    )
    assert any(line.startswith("shift 0.15 nats") and ABOUT in line for line in text.details)


def test_a_fine_class_is_never_held_to_less_than_honest_engines_do(make: Factory) -> None:
    text, _ = check.text().judge(evidence(make, 2.01, quantization="BF16"))

    assert text.margin == 0.02


def test_text_of_another_model_keeps_its_preset_and_a_given_margin_stays(make: Factory) -> None:
    other, _ = check.text().judge(evidence(make, 2.15, digest="sha256:" + "f" * 64))
    given, _ = check.text(margin=0.3).judge(evidence(make, 2.15))

    assert (other.margin, given.margin) == (0.12, 0.3)
    assert not any("ladder" in line for line in other.details)
