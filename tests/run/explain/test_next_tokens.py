"""Next tokens behind the same text: where they are asked for, what they speak for, and when they say nothing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.identity.ladder import Ladder, Rung
from pytest_llmparity.core.sample import Completion, TokenLogprob
from pytest_llmparity.core.verdict import Explanation, Outcome
from pytest_llmparity.run.explain.next_tokens import Read, begun
from pytest_llmparity.settings.specification import EngineSpec
from tests.doubles.abilities import Abilities
from tests.doubles.posing import PosingEngine
from tests.doubles.rendering import rendered
from tests.run.explain.conftest import WORDS, answer

if TYPE_CHECKING:
    from tests.run.explain.conftest import Planted

PROMPTS = 12
RUNG = Rung(quantization="Q8_0", shift=0.036, lower=0.03, upper=0.04, forks=0.01, most_forks=0.02)
LADDER = Ladder(
    digest="sha256:0",
    model="m.gguf",
    date="2026-11-29",
    server="s",
    made_by="g",
    prompts=32,
    groups=32,
    prompt_set="p",
    plugin="1",
    rungs=(RUNG, dataclasses.replace(RUNG, quantization="Q4_0", shift=0.3)),
)


def test_beginnings_end_at_tokens_where_these_spell_the_answer() -> None:
    tokens = tuple(TokenLogprob(token=t.encode(), logprob=0.0) for t in ("Par", "is is", " nice", ", really", "."))

    assert begun(Completion(text="Paris is nice, really.", logprobs=tokens)) == [
        "",
        "Par",
        "Paris is nice",
        "Paris is nice, really",
    ]
    assert begun(Completion(text="a b c d", logprobs=tokens)) == ["", "a", "a b", "a b c"]
    assert begun(Completion(text="Paris.")) == []
    assert begun(Completion(text="")) == []


@pytest.mark.parametrize(
    ("nats", "layer"), [(0.0, "arithmetic"), (0.005, "arithmetic"), (0.01, ""), (0.03, ""), (0.4, "")]
)
def test_next_tokens_that_hardly_move_speak_for_arithmetic_and_no_others_for_weights(nats: float, layer: str) -> None:
    read = Read(nats=nats, early=nats, late=nats, prompts=6)

    assert read.layer(LADDER) == layer
    assert read.layer(None) == ""


@pytest.mark.parametrize(("prompts", "layer"), [(1, ""), (3, ""), (4, "arithmetic")])
def test_next_tokens_of_few_prompts_speak_for_nothing(prompts: int, layer: str) -> None:
    assert Read(nats=0.0, early=0.0, late=0.0, prompts=prompts).layer(LADDER) == layer


class Renders(PosingEngine):
    """Answers by the rendered prompt and the weights it has, with logprobs where it is able to."""

    def __init__(self, weights: str, abilities: Abilities | None = None) -> None:
        super().__init__(self._answer, poses_as="llamacpp", abilities=abilities)
        self._weights = weights

    def asked(self, path: str, body: Mapping[str, Any]) -> object | None:
        return {"prompt": rendered(body["messages"])} if path == "/apply-template" else super().asked(path, body)

    def _answer(self, request: Mapping[str, Any]) -> str:
        return answer({**request, "logit_bias": self._weights})


@pytest.fixture
def explained(planted: Planted) -> Callable[..., tuple[Explanation, Renders]]:
    """Explain the text verdict on engines of other weights; return that and the candidate."""

    def explain(abilities: Abilities | None = None, **settings: Any) -> tuple[Explanation, Renders]:
        planted.project.prompts(PROMPTS)
        stack = planted._stack
        ours, theirs = stack.enter_context(Renders("one")), stack.enter_context(Renders("other", abilities))
        specs = [
            EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=engine.base_url)
            for name, engine in (("a", ours), ("b", theirs))
        ]
        session = planted.project.session(*specs, **settings)
        planted.project.declare(session, check.text(margin=0.05, horizon=WORDS))
        session.gather()
        verdicts = session.settle("t", session.parity_run("t", reproduce=""))
        verdict = next(v for v in verdicts if v.kind == "text")
        assert verdict.outcome is Outcome.FAIL
        assert verdict.explanation is not None
        return verdict.explanation, theirs

    return explain


@pytest.mark.slow
def test_tokens_without_alternatives_show_nothing(explained: Callable[..., tuple[Explanation, Renders]]) -> None:
    """Both name the token they chose behind a raw prompt and no other, so there is no lead that could have moved."""
    explanation, _ = explained()

    read = explanation.experiments[-1]
    assert (read.outcome, read.why) == ("not tried", "there are no next tokens to compare")
    assert read.requests == 2 * 6 * 4
    (cause,) = explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("weights or arithmetic", True)


def test_an_engine_without_logprobs_is_not_asked_for_next_tokens(
    explained: Callable[..., tuple[Explanation, Renders]],
) -> None:
    explanation, _ = explained(Abilities(logprobs="dropped"))

    assert (explanation.experiments[-1].outcome, explanation.experiments[-1].requests) == ("not tried", 0)
    assert explanation.experiments[-1].why == "b gives no logprobs"
    assert [cause.layer for cause in explanation.causes] == ["weights or arithmetic"]


@pytest.mark.slow
def test_next_tokens_are_not_asked_for_in_part(explained: Callable[..., tuple[Explanation, Renders]]) -> None:
    explanation, _ = explained(explain_requests=7 * PROMPTS)

    assert explanation.requests <= 7 * PROMPTS
    assert explanation.experiments[-1].outcome == "not tried"
    assert "--parity-explain-requests" in explanation.experiments[-1].why
    assert [cause.by_exclusion for cause in explanation.causes] == [True]
