"""Reasoning that a server left in the text, between the model's own tags, told from the answer."""

from __future__ import annotations

import json
import re
from typing import Final, NamedTuple

_PAIRS: Final = (
    (r"<think>", r"</think>"),  # DeepSeek-R1, Qwen3, QwQ and most others
    (r"<thinking>", r"</thinking>"),
    (r"<thought>", r"</thought>"),
    (r"<reasoning>", r"</reasoning>"),
    (r"<seed:think>", r"</seed:think>"),  # Seed-OSS
    (r"\[THINK\]", r"\[/THINK\]"),  # Magistral
    (r"◁think▷", r"◁/think▷"),  # Kimi-VL
    (r"<\|START_THINKING\|>", r"<\|END_THINKING\|>"),  # Command A
    (r"<\|inner_prefix\|>", r"<\|inner_suffix\|>"),  # Apertus
    (r"<\|begin_of_thought\|>", r"<\|end_of_thought\|>"),  # Sky-T1, OpenThinker
    (r"<longcat_think>", r"</longcat_think>"),  # LongCat-Flash
    (r"<unused94>thought\s", r"<unused95>"),  # MedGemma
    # gpt-oss: channels of messages, the last of which is the answer; Gemma 4's spelling of the same.
    (
        r"(?:<\|start\|>assistant)?<\|channel\|?>(?:analysis|commentary|thought)\s*(?:<\|message\|>|\n)",
        r"<\|end\|>|<channel\|>|(?=<\|channel\|?>final)",
    ),
)
_MARK: Final = re.compile(r"[<\[◁]")
"""What every tag begins with: most answers have none."""
_FINAL: Final = r"\s*(?:<\|start\|>assistant)?<\|channel\|?>final\s*(?:<\|message\|>|\n)"
_HARMONY: Final = re.compile(rf"{_FINAL}|<\|start\|>assistant\s*\Z|(?:<\|return\|>|<\|end\|>)\s*\Z")
"""What frames gpt-oss's answer behind its reasoning."""
_QUOTED: Final = "`'\"\u201c\u201d\u2018\u2019"


class Split(NamedTuple):
    """Text and reasoning apart; ``tag`` is the one they were told by, empty where there was none."""

    text: str
    reasoning: str = ""
    tag: str = ""


def split(text: str) -> Split:
    """Return what a text says without the reasoning in it.

    Reasoning stands at the beginning: one or more blocks, the last of which may lack its end (the answer was cut in it)
    and the first its beginning (many chat templates write it into the prompt). Once an answer has begun with one, later
    whole blocks are reasoning too. Tags in quotes, and blocks in the middle of an answer that began without one, are
    text: somebody may have asked about them.
    """
    if _MARK.search(text) is None:
        return Split(text)
    for opening, closing in _PAIRS:
        parts = _split(text, opening, closing)
        if parts.tag:
            return parts
    return Split(text)


def _split(text: str, opening: str, closing: str) -> Split:
    first = re.match(rf"\s*{opening}", text, re.IGNORECASE)
    orphan = None if first else _orphan(text, opening, closing)
    if first is None and orphan is None:
        framed = "channel" in opening and re.match(_FINAL, text) is not None
        return Split(_HARMONY.sub("", text), "", "<|channel|>") if framed else Split(text)
    thoughts: list[str] = []
    if orphan is not None:
        thoughts.append(text[: orphan.start()])
        tag, remaining = orphan[0], text[orphan.end() :]
    else:
        assert first is not None
        tag, remaining = first[0].strip(), text[first.start() :]
    answer_parts: list[str] = []
    while (begin := re.search(opening, remaining, re.IGNORECASE)) is not None:
        leading = not "".join(answer_parts).strip() and not remaining[: begin.start()].strip()
        end = re.compile(closing, re.IGNORECASE).search(remaining, begin.end())
        if end is None and not leading:
            break
        answer_parts.append(remaining[: begin.start()])
        thoughts.append(remaining[begin.end() : len(remaining) if end is None else end.start()])
        remaining = "" if end is None else remaining[end.end() :]
    answer = "".join((*answer_parts, remaining))
    if "channel" in opening:
        answer = _HARMONY.sub("", answer)
    return Split(answer.lstrip("\n"), "\n".join(thoughts) if len(thoughts) > 1 else thoughts[0], _named(tag))


def _orphan(text: str, opening: str, closing: str) -> re.Match[str] | None:
    """Return an end of reasoning whose beginning is not in the text; a lookahead alone is none."""
    if "channel" in opening:
        return None
    end = re.search(closing, text, re.IGNORECASE)
    if end is None or re.search(opening, text[: end.start()], re.IGNORECASE) or _is_json(text):
        return None
    around = text[max(0, end.start() - 1) : end.start()], text[end.end() : end.end() + 1]
    return None if all(side and side in _QUOTED for side in around) else end


def _is_json(text: str) -> bool:
    """Tell whether a text is JSON as it stands: a tag in it is in one of its strings."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _named(tag: str) -> str:
    return "<|channel|>" if "channel" in tag else tag
