from __future__ import annotations

import pytest

from pytest_llmparity.core.thinking import split


@pytest.mark.parametrize(
    ("text", "answer", "reasoning", "tag"),
    [
        ("<think>2+2</think>\n\n4", "4", "2+2", "<think>"),
        ("\n<think>\n\n</think>\n\n4", "4", "\n\n", "<think>"),
        ("<think>cut here", "", "cut here", "<think>"),
        ("2+2\n</think>\n\n4", "4", "2+2\n", "</think>"),
        ('it says "four"</think>4', "4", 'it says "four"', "</think>"),
        ("</think>4", "4", "", "</think>"),
        ("a</think>b<think>c</think>d", "bd", "a\nc", "</think>"),
        ("<think>a</think>\n<think>b</think>x <think>c</think>y", "x y", "a\nb\nc", "<think>"),
        ("<think>a</think>4 <think>half", "4 <think>half", "a", "<think>"),
        ("<Thinking>a</thinking>4", "4", "a", "<Thinking>"),
        ("<thought>a</thought>4", "4", "a", "<thought>"),
        ("[THINK]a[/THINK]4", "4", "a", "[THINK]"),
        ("<|begin_of_thought|>a<|end_of_thought|>\n4", "4", "a", "<|begin_of_thought|>"),
        ("<longcat_think>a</longcat_think>4", "4", "a", "<longcat_think>"),
        ("<unused94>thought\na<unused95>4", "4", "a", "<unused94>thought"),
        ("◁think▷a◁/think▷4", "4", "a", "◁think▷"),
        ("<seed:think>a</seed:think>4", "4", "a", "<seed:think>"),
        ("<|START_THINKING|>a<|END_THINKING|>4", "4", "a", "<|START_THINKING|>"),
        (
            "<|channel|>analysis<|message|>a b<|end|><|start|>assistant<|channel|>final<|message|>4 5<|return|>",
            "4 5",
            "a b",
            "<|channel|>",
        ),
        ("<|channel|>analysis<|message|>cut", "", "cut", "<|channel|>"),
        ("<|channel|>final<|message|>4 5", "4 5", "", "<|channel|>"),
        ("<|channel>thought\na<channel|>4 5", "4 5", "a", "<|channel|>"),
    ],
)
def test_reasoning_between_a_model_s_own_tags_is_told_from_the_answer(
    text: str, answer: str, reasoning: str, tag: str
) -> None:
    assert split(text) == (answer, reasoning, tag)


@pytest.mark.parametrize(
    "text",
    [
        "4 <think>no</think>",
        "The tag `</think>` ends it.",
        '{"tag": "</think>"}',
        '{"answer": "Write </think> behind it."}',
        "x < think > y",
        "<thinks>4</thinks>",
        "",
    ],
)
def test_text_about_tags_is_text(text: str) -> None:
    assert split(text) == (text, "", "")
