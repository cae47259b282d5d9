"""Whether a verdict is about the same engines as an earlier one: a fact that is not told is no difference."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import Fact, Identity
from pytest_llmparity.run.judge.questions import completed, question_of


def question(name: str = "b", kind: str = "vllm", **facts: str) -> str:
    identity = Identity(facts={field: Fact(value=value, source="reported") for field, value in facts.items()})
    return question_of([EngineRecord(name="a", kind="vllm"), EngineRecord(name=name, kind=kind, identity=identity)])


def looks_of(**counts: int) -> dict[str, int]:
    return {question(digest=digest): count for digest, count in counts.items()}


def test_what_is_not_told_now_or_was_not_told_then_begins_no_new_question() -> None:
    whole, less = question(digest="x", version="1"), question(version="1")

    assert completed(less, [whole], lambda _: 0) == (whole, whole), "told then, not now"
    assert completed(whole, [less], lambda _: 0) == (less, whole), "not told then, told now"
    assert completed(whole, [], lambda _: 0) == (whole, whole)


def test_other_weights_another_name_or_kind_and_what_an_older_version_wrote_are_other_questions() -> None:
    now = question(digest="x")

    others = [question(digest="y"), question(name="c", digest="x"), question(kind="sglang", digest="x"), "b 0123|a 45"]
    assert completed(now, [*others, question_of([EngineRecord(name="b", kind="vllm")])], lambda _: 0) == (now, now)


def test_of_two_that_it_may_be_the_one_with_more_looks_counts() -> None:
    earlier = looks_of(x=1, y=3, z=2)

    known, _ = completed(question(version="1"), earlier, lambda text: earlier[text])

    assert known == question(digest="y")


@given(st.dictionaries(st.sampled_from(["digest", "version", "model"]), st.sampled_from("ab")), st.data())
def test_leaving_facts_out_never_begins_anew(facts: dict[str, str], data: st.DataObject) -> None:
    told = data.draw(st.lists(st.sampled_from(sorted(facts)), unique=True)) if facts else []
    whole, part = question(**facts), question(**{field: facts[field] for field in told})

    assert completed(part, [whole], lambda _: 0) == (whole, whole)
    assert completed(whole, [part], lambda _: 0) == (part, whole)
