from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity.core.prompts import Case, Expect
from pytest_llmparity.core.prompts.reading import parse_prompts

if TYPE_CHECKING:
    from tests.cli.conftest import Ended, Shell


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def imported(shell: Shell, kind: str, text: str, *more: str) -> tuple[list[Case], Ended]:
    (shell.path / "given").write_text(text, "utf-8")
    ended = shell.run("import", kind, "given", "-o", "made.jsonl", *more)
    assert ended.code == 0, ended
    made = (shell.path / "made.jsonl").read_text("utf-8")
    return list(parse_prompts(made, source="made.jsonl", name="made").cases), ended


def test_requests_of_a_batch(shell: Shell) -> None:
    body = {
        "model": "m",
        "messages": [{"role": "user", "content": "é?"}],
        "max_completion_tokens": 9,
        "temperature": 0.5,
        "seed": 3,
        "n": 2,
        "reasoning_effort": "low",
        "stream": True,
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    (case, raw), ended = imported(
        shell,
        "openai-batch",
        lines(
            {"custom_id": "a", "url": "/v1/chat/completions", "body": body},
            {"custom_id": "b", "url": "/v1/completions", "body": {"prompt": "Once"}},
            {"custom_id": "c", "url": "/v1/embeddings", "body": {"input": "x"}},
            {"custom_id": "d"},
        ),
    )

    assert (case.id, case.messages) == ("a", ({"role": "user", "content": "é?"},))
    assert case.sampling == {"max_tokens": 9, "temperature": 0.5, "seed": 3}
    assert case.extra_body == {"reasoning_effort": "low"}
    assert (case.n, raw.n) == (2, 0)
    assert raw.prompt == "Once"
    assert ended.out.splitlines() == [
        "left out: c: it asks /v1/embeddings and has neither messages nor one prompt",
        "left out: d: it has no body",
        "made.jsonl: 2 cases in 2 groups",
    ]


def test_function_calls_of_the_leaderboard(shell: Shell) -> None:
    function = {
        "name": "math.area",
        "description": "Area.",
        "parameters": {"type": "dict", "properties": {"a": {"type": "float"}, "b": {"type": "any"}}, "required": ["a"]},
    }
    (shell.path / "answers").write_text(lines({"id": "simple_0", "ground_truth": [{"math.area": {"a": [2.0]}}]}))
    cases, ended = imported(
        shell,
        "bfcl",
        lines(
            {"id": "simple_0", "question": [[{"role": "user", "content": "Area?"}]], "function": [function]},
            {"id": "irrelevance_7", "question": [[{"role": "user", "content": "Hi"}]], "function": function},
            {
                "id": "multi_turn_1",
                "question": [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]],
            },
        ),
        "--answers",
        "answers",
    )

    called, silent = cases
    assert called.tools is not None
    assert called.tools[0]["function"] == {
        "name": "math_area",
        "description": "Area.",
        "parameters": {"type": "object", "properties": {"a": {"type": "number"}, "b": {}}, "required": ["a"]},
    }
    assert (called.expect, silent.expect) == (Expect(tool="math_area"), Expect(tool="none"))
    assert (called.tags, silent.tags) == (("simple",), ("irrelevance",))
    assert "left out: multi_turn_1: it has several turns" in ended.out
    assert "not expressed: arguments that are right" in ended.out


def test_instructions_and_later_turns_are_told(shell: Shell) -> None:
    (asked,), told = imported(
        shell,
        "ifeval",
        lines({"key": 7, "prompt": "Write.", "instruction_id_list": ["length:words", "length:sentences"]}),
    )
    (first,), after = imported(
        shell,
        "mtbench",
        lines({"question_id": 81, "category": "writing", "turns": ["One.", "Two."], "reference": ["x"]}),
        "--force",
    )

    assert (asked.id, asked.tags) == ("7", ("length",))
    assert "not expressed: instruction length:words (1 times)" in told.out
    assert (first.id, first.tags, first.messages) == ("81", ("writing",), ({"role": "user", "content": "One."},))
    assert "not expressed: turns behind the first answer (1 times)" in after.out
    assert "not expressed: references (1 times)" in after.out


def test_a_data_set_is_read_by_its_columns(shell: Shell) -> None:
    rows = json.dumps(
        [
            {"question": "2+2?", "answer": 4, "level": "easy"},
            {"question": " "},
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
            {"instruction": "Translate.", "input": "Haus", "output": "house"},
        ]
    )
    cases, ended = imported(shell, "hf-jsonl", rows)
    named, _ = imported(
        shell,
        "hf-jsonl",
        lines({"q": "2+2?", "a": "4", "kind": "sum", "n": "x"}),
        *("--force", "--field", "prompt=q", "--field", "answer=a", "--field", "tag=kind", "--field", "id=n"),
    )

    assert [case.messages for case in cases] == [
        ({"role": "user", "content": "2+2?"},),
        ({"role": "user", "content": "Hi"},),
        ({"role": "user", "content": "Translate.\n\nHaus"},),
    ]
    assert cases[0].expect == Expect(answer="4")
    assert "left out: 2: it has no prompt in any of messages" in ended.out
    assert "not expressed: column level (1 times)" in ended.out
    assert "not expressed: column output (1 times)" in ended.out
    assert (named[0].id, named[0].tags, named[0].expect) == ("x", ("sum",), Expect(answer="4"))


PROMPTFOO = """
prompts:
  - "Say {{word}}."
  - file://chat.json
  - file://made.py
  - "{% if a %}x{% endif %}"
providers: [openai:gpt-4]
defaultTest:
  assert:
    - type: llm-rubric
      value: is polite
tests:
  - description: one
    vars: {word: "yes"}
    assert:
      - {type: equals, value: "yes"}
      - {type: contains-all, value: [y, s]}
      - {type: javascript, value: output.length < 9}
  - vars: {word: file://word.txt}
    assert:
      - {type: is-json, value: {type: object}}
  - vars: {other: x}
  - vars: {word: [a, b]}
"""


def test_a_configuration_of_promptfoo(shell: Shell) -> None:
    (shell.path / "chat.json").write_text(
        '[{"role": "system", "content": "s"}, {"role": "user", "content": "{{word}}"}]'
    )
    (shell.path / "word.txt").write_text("no\n")
    cases, ended = imported(shell, "promptfoo", PROMPTFOO)

    assert [(case.id, case.group) for case in cases] == [
        ("one/prompt", "one"),
        ("one/chat", "one"),
        ("test-2/prompt", "test-2"),
        ("test-2/chat", "test-2"),
    ]
    assert cases[0].messages == ({"role": "user", "content": "Say yes."},)
    assert cases[3].messages == ({"role": "system", "content": "s"}, {"role": "user", "content": "no"})
    assert cases[0].expect == Expect(answer="yes", contains=("y", "s"))
    assert cases[2].expect == Expect(schema={"type": "object"})
    for told in (
        "not expressed: assertion llm-rubric (3 times)",
        "not expressed: assertion javascript (1 times)",
        "left out: made.py: a prompt that a script makes is not read",
        "test-3/prompt, test-3/chat: no variable word",
        "its template does more than fill in variables",
        "left out: test-4: a variable is a list",
    ):
        assert told in ended.out


HARD = """
prompts:
  - '[{"role": "user", "content": "{{lang}} {{t}} {{v}} {{quoted}}"}]'
tests:
  - vars: {lang: no, t: 12:30, v: 3.10, quoted: 'say "hi"'}
    assert:
      - {type: contains, value: ""}
      - {type: equals, value: x, transform: output.trim()}
      - {type: is-json, value: {type: object, maxProperties: 3, additionalProperties: false}}
  - vars: {lang: "{{t}}", t: a, v: b, quoted: c}
  - vars: file://rows.csv
scenarios: [{config: []}]
"""


def test_variables_of_promptfoo_are_text_as_written(shell: Shell) -> None:
    (case,), ended = imported(shell, "promptfoo", HARD)

    assert case.messages == ({"role": "user", "content": 'no 12:30 3.10 say "hi"'},)
    assert case.expect == Expect(schema={"type": "object", "maxProperties": 3, "additionalProperties": False})
    for told in (
        "not expressed: assertion contains (1 times)",
        "not expressed: assertion equals with transform (1 times)",
        "not expressed: scenarios (1 times)",
        "left out: test-2: a variable is a template of its own",
        "left out: test-3: its variables come from a file, or are no mapping",
    ):
        assert told in ended.out


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: *a\nprompts: [p]",
        "prompts: " + "[" * 1000,  # deeper than Python goes
        "prompts: [p]\ndefaultTest: {vars: file://x}\ntests: [{vars: [1]}]",
    ],
)
def test_configurations_that_cannot_be_read_are_told(shell: Shell, text: str) -> None:
    (shell.path / "given").write_text(text)

    ended = shell.run("import", "promptfoo", "given", "-o", "made.jsonl")

    assert ended.code == 4
    assert "llmparity: given: " in ended.err


def test_a_row_that_cannot_be_a_case_is_left_out_and_the_others_stay(shell: Shell) -> None:
    asked = {"messages": [{"role": "user", "content": "Hi"}]}
    image = {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}
    cases, ended = imported(
        shell,
        "openai-batch",
        lines(
            {"custom_id": "a", "body": asked},
            {"custom_id": "a", "body": asked},
            {"custom_id": "b", "body": image},
            {"custom_id": "c", "body": asked | {"tools": []}},
            {"custom_id": "d", "body": asked | {"max_tokens": 0}},
            {"custom_id": "e", "body": asked | {"repeat_penalty": 1}},
        ),
    )
    bad, _ = imported(
        shell,
        "bfcl",
        lines(
            {"id": "simple_1", "question": "Hi", "function": ["f"]},
            {"id": "simple_2", "question": "Hi", "function": {"name": "f", "parameters": {"type": "dict"}}},
        ),
        "--force",
    )

    assert [case.id for case in cases] == ["a", "a-2"]
    for told in ("left out: b: ", "left out: c: ", "left out: d: ", "left out: e: "):
        assert told in ended.out
    assert [case.id for case in bad] == ["simple_2"]


def test_nothing_is_written_over_and_mistakes_are_told(shell: Shell) -> None:
    (shell.path / "given").write_text('{"key": 1}\n')
    (shell.path / "broken").write_text('{"key": 1}\n{"key"\n')
    (shell.path / "there.jsonl").write_text("mine")

    assert "no case could be made of it" in shell.run("import", "ifeval", "given", "-o", "x.jsonl").err
    assert "is there already" in shell.run("import", "ifeval", "given", "-o", "there.jsonl").err
    assert "broken:2: not JSON" in shell.run("import", "ifeval", "broken", "-o", "x.jsonl").err
    assert "cannot be read" in shell.run("import", "ifeval", "nowhere").err
    mistyped = shell.run("import", "hf-jsonl", "given", "--field", "prompt=kee", "-o", "x.jsonl").err
    assert "no column kee for prompt (did you mean 'key'?); there are key" in mistyped
    assert "--field is for hf-jsonl" in shell.run("import", "ifeval", "given", "--field", "id=x").err
    assert "expected one of prompt" in shell.run("import", "hf-jsonl", "given", "--field", "x=y").err
    assert "--answers is for bfcl" in shell.run("import", "ifeval", "given", "--answers", "x").err
    assert (shell.path / "there.jsonl").read_text() == "mine"
    assert not (shell.path / "x.jsonl").exists()


@pytest.mark.parametrize("text", ["[", "just words", "prompts: []", "prompts: {a: [b"])
def test_what_is_no_configuration_is_told(shell: Shell, text: str) -> None:
    Path(shell.path / "given").write_text(text)
    ended = shell.run("import", "promptfoo", "given")

    assert ended.code == 4
    assert ended.err.startswith("llmparity: given: ")
