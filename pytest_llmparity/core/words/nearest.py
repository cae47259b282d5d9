"""The known name that a person may have meant by another one: one rule and one wording for the whole package.

It imports nothing heavy: a run that does not use the plugin asks it about the variables of its environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

NEAR: Final = 0.65
"""How alike two names are of which one may be a slip for the other: of three letters one may be wrong, or two swapped.

``difflib`` gives 0.6 for *nope* and *openai*.
"""


def nearest_name(word: str, known: Iterable[str], *, cutoff: float = NEAR) -> str:
    """Return the known name that a word is most like, an empty text where it is near none. Case does not count.

    >>> nearest_name("olama", ["vllm", "ollama", "openai"]), nearest_name("dve", ["Dev"])
    ('ollama', 'Dev')
    >>> nearest_name("nope", ["vllm", "ollama", "openai"]), nearest_name("test_gone", ["test_chat"])
    ('', '')
    """
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=cutoff)
    return names[near[0]] if near else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the name that :func:`nearest_name` finds, an empty text where it is none."""
    return offered(nearest_name(word, known))


def offered(name: str) -> str:
    """Return `` (did you mean 'x'?)`` for what a person may have meant, an empty text for an empty one."""
    return f" (did you mean {name!r}?)" if name else ""
