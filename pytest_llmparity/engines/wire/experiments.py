"""What experiments ask of an adapter: the words with which its kind is made to do one thing otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pytest_llmparity.core.sample import Request


class Experimental:
    """A part of every adapter; what a kind has no words for is empty, and no experiment asks it."""

    unpenalised: ClassVar[Mapping[str, Any]] = {}
    """Fields with which no repetition penalty acts, whatever its value; none where there are no such words."""
    other_samplers: ClassVar[bool] = True
    """Whether samplers may be on by default that no gate sends anything of and that change greedy answers."""
    unsampled: ClassVar[Mapping[str, Any]] = {}
    """Fields that turn these samplers off; none where there are no such samplers, or no such words."""
    unreasoning: ClassVar[Mapping[str, Any]] = {}
    """Fields that turn reasoning off."""
    call_flags: ClassVar[tuple[str, ...]] = ()
    """Flags with which its server takes tool calls out of the text of answers; none where there are no such words."""
    cache_off: ClassVar[tuple[str, ...]] = ()
    """Flags with which its server has no prompt cache; none where there are no such words."""

    def uncached(self) -> Mapping[str, Any]:
        """Return fields with which nothing of a prompt is taken from the prompt cache, none where there are none.

        They are good for one request.
        """
        return {}

    schema_field: ClassVar[str] = ""
    """A field of its own that takes a JSON Schema, also beside a raw prompt; empty where there is none."""

    renderings: ClassVar[int] = 0
    """How many requests, none of which generates, :meth:`rendered` takes; 0 for kinds that do not tell."""

    def rendered(self, request: Request) -> str | None:
        """Return a chat as the server's template renders it, ``None`` where it does not tell.

        Sent as a raw prompt the text makes the same tokens as the chat, so a token that the server puts in front of
        raw prompts by itself is not in it.
        """
        return None

    template_flag: ClassVar[str] = "--chat-template"
    """What its server takes a file with a chat template by."""
    template_place: ClassVar[str] = "the chat_template of its model's tokenizer"
    """Where the text of its template is found."""

    def tokens(self, prompt: str) -> list[int] | None:
        """Return the tokens that a raw prompt is to the server, ``None`` where it does not tell or takes none back."""
        return None

    def bos(self) -> str:
        """Return the text of the token that the server puts in front of a prompt, empty where it does not tell."""
        return ""

    def eos(self) -> str:
        """Return the text of the token that ends an answer, empty where the server does not tell."""
        return ""
