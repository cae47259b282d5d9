from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.prompts.arms import CONSTRAINED, FREE, constrained, described, free, in_both, of_arm, other
from pytest_llmparity.core.sample import Sampling

SCHEMA = {"type": "object", "properties": {"queue": {"enum": ["ä", "b"]}, "age": {"type": "integer"}}}
USER = {"role": "user", "content": "Where does it go?"}


def chat(*messages: dict[str, Any], **given: Any) -> Case:
    return Case(id="a", messages=messages, **given)


def test_a_schema_stands_behind_what_the_user_says_last_in_its_own_order_and_letters() -> None:
    system, answer, last = (
        {"role": "system", "content": "Be kind."},
        {"role": "assistant", "content": "Hm."},
        {"role": "user", "content": "Again?"},
    )

    asked = described(chat(system, USER, answer, last), SCHEMA)

    assert asked.messages is not None
    assert asked.messages[:3] == (system, USER, answer)
    words, _, schema = asked.messages[3]["content"].rpartition("\n")
    assert words.startswith("Again?\n\nAnswer with one JSON value and nothing else")
    assert schema == json.dumps(SCHEMA, ensure_ascii=False)
    assert last["content"] == "Again?"  # the case as it was is still that


def test_parts_get_a_part_and_a_chat_without_a_user_a_message_of_the_system() -> None:
    parts = chat({"role": "user", "content": [{"type": "text", "text": "Look"}]})
    nobody = chat({"role": "system", "content": "Say something."})

    described_parts, described_nobody = described(parts, SCHEMA).messages, described(nobody, SCHEMA).messages

    assert described_parts is not None
    assert described_nobody is not None
    assert [part["text"].splitlines()[-1][:8] for part in described_parts[0]["content"]] == ["Look", '{"type":']
    assert [message["role"] for message in described_nobody] == ["system", "system"]
    assert "JSON Schema" in described_nobody[0]["content"]


def test_what_is_forced_is_what_the_case_has_itself_and_a_free_arm_forces_nothing() -> None:
    own = {"type": "json_schema", "json_schema": {"name": "own", "schema": {"type": "object"}}}

    with_own, without = chat(USER, response_format=own), chat(USER)

    forced = constrained(without, SCHEMA).response_format
    assert forced is not None
    assert forced["json_schema"]["schema"] == SCHEMA
    assert constrained(with_own, SCHEMA).response_format == own
    assert free(with_own, SCHEMA).response_format is None
    assert described(with_own, SCHEMA).response_format is None


def test_the_arms_of_a_case_are_two_cases_of_one_group() -> None:
    prompts = in_both(PromptSet(name="p", cases=(chat(USER), Case(id="b", prompt="2+2=", group="g"))), lambda _: SCHEMA)

    assert [(case.id, case.arm, case.group) for case in prompts.cases] == [
        ("a", CONSTRAINED, "a"),
        ("a@free", FREE, "a"),
        ("b", CONSTRAINED, "g"),
        ("b@free", FREE, "g"),
    ]
    assert [case.id for case in of_arm(prompts, "free").cases] == ["a@free", "b@free"]
    assert [case.id for case in of_arm(prompts, "constrained").cases] == ["a", "b"]
    assert {other(case.id) for case in of_arm(prompts, "free").cases} == {"a", "b"}
    requests = [case.request(Sampling()) for case in prompts.cases]
    assert [request.response_format is None for request in requests] == [False, True, False, True]


def test_a_set_that_is_not_asked_in_arms_is_all_constrained_and_is_the_set_it_was() -> None:
    prompts = PromptSet(name="p", cases=(chat(USER),))

    assert of_arm(prompts, "constrained") is prompts
    assert not of_arm(prompts, "free").cases
    assert prompts.digest == PromptSet(name="p", cases=(chat(USER),)).digest
    assert prompts.digest != PromptSet(name="p", cases=(constrained(chat(USER), SCHEMA),)).digest


def test_an_id_that_a_free_arm_would_get_is_refused() -> None:
    prompts = PromptSet(name="p", cases=(chat(USER), Case(id="a@free", prompt="x")))

    with pytest.raises(DesignError, match="a@free has the id that the free arm of a gets"):
        in_both(prompts, lambda _: SCHEMA)


@given(st.text(min_size=1), st.text())
def test_every_text_of_a_prompt_is_still_in_it(id: str, text: str) -> None:
    raw = described(Case(id=id, prompt=text or " "), SCHEMA)

    assert raw.id == id
    assert (raw.prompt or "").endswith(text)
    assert other(other(id)) == id
