"""The picture at the top of the README is of the output that is kept beside it, and tells nothing of a machine."""

from __future__ import annotations

import html
import re
import unicodedata
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRINTED = (ROOT / "docs/terminal.txt").read_text("utf-8")
PICTURE = (ROOT / "docs/terminal.svg").read_text("utf-8")


def letters(text: str) -> str:
    """Return a text without its colours and blanks: a picture places its words by coordinates."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text)
    return "".join(char for char in plain if not unicodedata.category(char).startswith(("Z", "C")))


def test_the_picture_shows_the_output_that_is_kept() -> None:
    words = re.findall(r"<text[^>]*>([^<]*)</text>", PICTURE.partition('-matrix">')[2])
    drawn = letters(html.unescape("".join(words)))

    assert drawn == "$pytest--enginesollama,vllm" + letters(PRINTED)


def test_it_is_of_both_engines_and_asks_nobody_for_anything() -> None:
    for words in ("ollama 0.", "vllm 0.", "against ollama", "margin 5 %"):
        assert words in PRINTED
    assert "url(" not in re.sub(r"url\(#", "", PICTURE)
    assert not re.search(r"(?<!\w)/(root|home|work|tmp|Users)/", PRINTED)


def test_the_readme_opens_with_it() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")

    assert readme.index("docs/terminal.svg") < readme.index("docs/report.webp") < readme.index("## Try it")
