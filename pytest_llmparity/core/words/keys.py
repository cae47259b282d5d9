"""What looks like a key, and what is called like one: such a text is never echoed."""

from __future__ import annotations

import re
from collections.abc import Mapping

_KEY_SHAPE = re.compile(
    r"(?:^|[^A-Za-z0-9])(?:sk[-_][A-Za-z0-9]|sk-(?:proj|ant|or)-|(?:hf|ghp|gsk|gho|r8|pat)_[A-Za-z0-9]{6}"
    r"|github_pat_|glpat-|nvapi-|xai-[A-Za-z0-9]{8}|AIza[A-Za-z0-9]|AKIA[A-Z0-9]{8})|^\s*(?:bearer|basic)\s+\S",
    re.IGNORECASE,
)
"""How the keys of common services start, and the authorisation schemes that carry one."""


def looks_secret(text: str) -> bool:
    """Tell whether a text has the shape of a key or an authorisation header; such a text is never echoed."""
    return _KEY_SHAPE.search(text) is not None


_SECRET_BY_ITSELF = frozenset({"apikey", "passwd", "password", "passphrase", "secret"})
_SECRET_BESIDE: Mapping[str, frozenset[str]] = {
    "key": frozenset({"access", "admin", "api", "auth", "license", "master", "private", "secret", "signing"}),
    "token": frozenset(
        {"access", "admin", "api", "auth", "bearer", "gh", "github", "hf", "hub", "huggingface", "refresh", "secret"}
    ),
}
"""Words that make a name one of a secret: ``--api-key`` and ``HF_TOKEN``, but not ``--ssl-key`` or ``--eos-token``."""


def names_secret(name: str) -> bool:
    """Tell whether what an option or a variable is called says that its value is a key or a password.

    >>> [names_secret(name) for name in ("--api-key", "HF_TOKEN", "--max-tokens", "--ssl-keyfile", "TOKENIZERS")]
    [True, True, False, False, False]
    """
    *before, last = re.split(r"[-_.]+", name.lower().strip("-_.")) or [""]
    if last in _SECRET_BY_ITSELF or (last in _SECRET_BESIDE and not before):
        return True
    return bool(before) and before[-1] in _SECRET_BESIDE.get(last, ())
