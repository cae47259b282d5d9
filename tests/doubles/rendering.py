"""How engines that tell it render a chat; apart from pytest, as engines that are processes import it too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def rendered(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return a chat as the prompt that a model reads."""
    return "".join(f"<{message['role']}> {message['content']} </s>\n" for message in messages) + "<assistant>"
