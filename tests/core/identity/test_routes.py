from __future__ import annotations

from pytest_llmparity.core.identity.routes import RouteCheck


def test_routes_that_answer_alike_have_nothing_to_say() -> None:
    alike = RouteCheck(measured="native", other="openai", cases=8)

    assert not alike.differs
    assert alike.sentence("ollama") == ""


def test_everything_that_differs_is_in_the_sentence() -> None:
    checked = RouteCheck(
        measured="native",
        other="openai",
        cases=8,
        texts=3,
        prompts=8,
        finishes=1,
        failed=2,
        tokens=-10,
        dropped=("top_k", "min_p"),
        unasked=1,
        why="ollama has no field for seed",
    )

    assert checked.sentence("ollama") == (
        "ollama is measured over its native route, engine.openai() uses openai: 3 of 8 answers differ; "
        "the prompt's tokens on 8 of 8, by 10 tokens; the finish reason on 1 of 8; "
        "2 of 8 answered on one of them only; top_k, min_p not sent there; "
        "1 of 8 cannot be asked over openai: ollama has no field for seed"
    )


def test_a_parameter_that_is_not_sent_is_no_difference_of_its_own() -> None:
    checked = RouteCheck(measured="native", other="openai", cases=8, dropped=("top_k",))

    assert not checked.differs
    assert checked.sentence("ollama") == ""
