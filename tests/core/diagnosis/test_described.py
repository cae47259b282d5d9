"""A schema in words, in place of one that is forced."""

from __future__ import annotations

from typing import Any

from pytest_llmparity.core.diagnosis.removals import ASKED_FOR, described
from pytest_llmparity.core.sample import Request

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"wer": {"type": "string", "title": "Größe"}}}
WORDS = f'{ASKED_FOR}{{"type": "object", "properties": {{"wer": {{"type": "string", "title": "Größe"}}}}}}'


def asked(*contents: Any, prompt: str | None = None) -> Request:
    messages = tuple({"role": "user", "content": content} for content in contents)
    return Request(case="c", messages=None if prompt else messages, prompt=prompt, response_format={"type": "x"})


def test_the_last_message_says_the_schema_and_nothing_forces_it() -> None:
    free = described(asked("Hello.", "Who?"), SCHEMA)

    assert free is not None
    assert free.messages is not None
    assert [message["content"] for message in free.messages] == ["Hello.", f"Who?\n\n{WORDS}"]
    assert free.response_format is None


def test_a_raw_prompt_and_content_in_parts_say_it_too() -> None:
    raw, parts = described(asked(prompt="Who?"), SCHEMA), described(asked([{"type": "image_url"}]), SCHEMA)

    assert raw is not None
    assert (raw.prompt, raw.response_format) == (f"Who?\n\n{WORDS}", None)
    assert parts is not None
    assert parts.messages is not None
    assert parts.messages[0]["content"] == [{"type": "image_url"}, {"type": "text", "text": WORDS}]


def test_what_has_no_text_to_say_it_behind_is_not_asked() -> None:
    assert described(asked(None), SCHEMA) is None
    assert described(asked(), SCHEMA) is None
