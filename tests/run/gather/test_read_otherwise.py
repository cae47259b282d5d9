from __future__ import annotations

from pytest_llmparity.core.sample import Completion, Phase, Sample
from pytest_llmparity.run.judge.recorded import read_otherwise


def test_what_the_reader_guessed_is_said_of_judged_answers_with_how_often() -> None:
    notes = ("taken once", "moved"), ("moved",), ()
    answers = [Completion(text="x", normalised=guesses) for guesses in notes]
    samples = [Sample(engine="a", case="c", phase=Phase.MAIN, completion=answer) for answer in answers]
    samples.append(Sample(engine="a", case="c", phase=Phase.WARM, completion=answers[0]))

    assert read_otherwise({"a": samples}) == ["a: taken once (1 of 3 answers)", "a: moved (2 of 3 answers)"]
