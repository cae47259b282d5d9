"""How a person writes the keys of an engine that runs in a container.

Each function raises ``ValueError`` with the end of a sentence about the key.
"""

from __future__ import annotations

import re
from typing import Final

from pytest_llmparity.core.words.problems import given, names_secret

_IMAGE = re.compile(r"[a-zA-Z0-9][\w.-]*(:\d+)?(/[\w.-]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?")
"""``[HOST[:PORT]/]NAME[:TAG][@DIGEST]`` (distribution/reference, reference.go), names in any case."""
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{12,64}")
_GPUS = re.compile(r"all|(\d+|(GPU|MIG)-[\w-]+)(,(\d+|(GPU|MIG)-[\w-]+))*")
_SIZE = re.compile(r"\d+[bkmgBKMG]?")
_SHORT = re.compile(r"-[a-zA-Z]")
_OWN: Final = {
    **dict.fromkeys(("-p", "--publish", "-P", "--publish-all"), "its port is published by us, on loopback only"),
    **dict.fromkeys(("--name", "--cidfile"), "we name it, so that it can be removed"),
    **dict.fromkeys(("-d", "--detach"), "what it prints goes to the engine's log"),
    **dict.fromkeys(("-t", "--tty", "-i", "--interactive", "-it", "-ti"), "nobody sits at it"),
    **dict.fromkeys(("--rm",), "we remove it, after we have read how it ended"),
    **dict.fromkeys(("--restart",), "an engine that ended is told, not started again"),
    **dict.fromkeys(("--entrypoint",), "what is started in the image is said by command"),
}
"""Options of ``run`` that are ours, and why."""
_LETTERS = "an image is written NAME:TAG or NAME@sha256:…, such as 'vllm/vllm-openai:v0.33.0'"


def image(value: str) -> str:
    """Return an image by tag, digest or id."""
    if not (_IMAGE.fullmatch(value) or _DIGEST.fullmatch(value)):
        raise ValueError(f"is {given(value)}; {_LETTERS}")
    return value


def run_arguments(value: list[str]) -> list[str]:
    """Return arguments of ``run`` that leave to us what is ours, and have no key in the open."""
    for place, word in enumerate(value):
        name = word.partition("=")[0]
        short = word[:2] if _SHORT.match(word) else name
        why = _OWN.get(name) or (_OWN.get(short) if short in ("-p", "-P") else None)
        if why:
            raise ValueError(f"has {name}, which has no place there: {why}")
        if short not in ("-e", "--env"):
            continue
        inline = word[len(short) :].removeprefix("=")
        variable, equals, content = (inline or next(iter(value[place + 1 :]), "")).partition("=")
        if equals and content and names_secret(variable):
            raise ValueError(
                f"has {variable} as literal text (not shown), which everybody on the machine can read; write "
                f'env = {{ {variable} = {{ env = "VARIABLE" }} }}'
            )
    return value


def volume(value: str) -> str:
    """Return a volume: a folder, file or named volume, where it is mounted, and perhaps options."""
    parts = value.split(":")
    if not 2 <= len(parts) <= 3 or not parts[0] or not parts[1].startswith("/"):
        raise ValueError(f"has {given(value)}; a volume is written FOLDER:/PLACE or FOLDER:/PLACE:ro, one by one")
    return value


def is_folder(source: str) -> bool:
    """Tell whether the first part of a volume is a path of this machine; anything else is a named volume."""
    return "/" in source or source.startswith((".", "~"))


def gpus(value: object) -> object:
    """Return which GPUs a container sees: ``all``, a number of them, or their names."""
    whole = isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if whole or (isinstance(value, str) and _GPUS.fullmatch(value)):
        return value
    raise ValueError(f"is {given(value)}; write 'all', how many (2), or which ones ('0,1')")


def size(value: str) -> str:
    """Return a number of bytes as a runtime reads it."""
    if not _SIZE.fullmatch(value):
        raise ValueError(f"is {given(value)}; write a size such as '8g' or '512m'")
    return value
