"""How a person writes the keys of an engine that runs in a container.

Each function raises ``ValueError`` with the end of a sentence about the key.
"""

from __future__ import annotations

import re
from typing import Final

from pytest_llmparity.core.words.keys import looks_secret, names_secret
from pytest_llmparity.core.words.problems import given

_IMAGE = re.compile(r"[a-zA-Z0-9][\w.-]*(:\d+)?(/[\w.-]+)*(:[\w][\w.-]{0,127})?(@sha256:[0-9a-f]{64})?")
"""``[HOST[:PORT]/]NAME[:TAG][@DIGEST]`` (distribution/reference, reference.go), names in any case."""
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{12,64}")
_GPUS = re.compile(r"all|(\d+|(GPU|MIG)-[\w-]+)(,(\d+|(GPU|MIG)-[\w-]+))*")
_SIZE = re.compile(r"\d+[bkmgBKMG]?")
_SHORT = re.compile(r"-[a-zA-Z]+")
_VALUED: Final = frozenset("acehlmpuvw")
"""Short options of ``run`` that take a value, of Docker 28.2 and podman 4.3.1: what follows one in a word is its."""
_PASTA = re.compile(r"(^|[:,=])(-[tuTU]|--(tcp|udp)-(ports|ns))")
_OWN: Final = {
    **dict.fromkeys(("-p", "--publish", "-P", "--publish-all"), "its port is published by us, on loopback only"),
    **dict.fromkeys(("--name", "--cidfile"), "we name it, so that it can be removed"),
    **dict.fromkeys(("-d", "--detach"), "what it prints goes to the engine's log"),
    **dict.fromkeys(("-t", "--tty", "-i", "--interactive"), "nobody sits at it"),
    **dict.fromkeys(("--pod", "--pod-id-file"), "a pod has ports of its own, and is not ours to remove"),
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
        after = next(iter(value[place + 1 :]), "")
        options = _options(word, after)
        for name, content in options:
            if name in _OWN:
                raise ValueError(f"has {name}, which has no place there: {_OWN[name]}")
            if name in ("--network", "--net") and content.startswith("pasta") and _PASTA.search(content):
                raise ValueError(f"has {name} with ports, which has no place there: {_OWN['--publish']}")
            variable, _, held = content.partition("=")
            if name in ("-e", "--env") and held and (names_secret(variable) or looks_secret(held)):
                raise ValueError(
                    f"has {variable} as literal text (not shown), which everybody on the machine can read; write "
                    f'env = {{ {variable} = {{ env = "VARIABLE" }} }}'
                )
        if looks_secret(word):
            raise ValueError(
                "holds what looks like a key (not shown), which everybody on the machine can read; hand it over in the "
                'environment: env = { NAME = { env = "VARIABLE" } }'
            )
    return value


def _options(word: str, after: str) -> list[tuple[str, str]]:
    """Return the options that a word stands for, each with its value; ``after`` is the word behind it.

    One-letter options may stand together, and the last of them may have its value in the same word (pflag, which both
    runtimes read their command lines with).

    >>> _options("-dp", "80:80"), _options("-eA=b", ""), _options("--env=A=b", "")
    ([('-d', ''), ('-p', '80:80')], [('-e', 'A=b')], [('--env', 'A=b')])
    """
    if not _SHORT.match(word):
        name, equals, content = word.partition("=")
        return [(name, content if equals else after)]
    options: list[tuple[str, str]] = []
    for place, letter in enumerate(word[1:], start=1):
        rest = word[place + 1 :]
        if letter in _VALUED or rest.startswith("="):
            return [*options, (f"-{letter}", rest.removeprefix("=") or after)]
        options.append((f"-{letter}", ""))
    return options


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
