"""How a model is served: adapters on it, a draft model beside it, GPUs it is split over, caches and their use.

What a server says of that itself its adapter reads; of a server that we start, what its flags ask for is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

from pytest_llmparity.core.sample import Fact
from pytest_llmparity.engines.facts import gguf
from pytest_llmparity.engines.facts.values import count, decoded, facts, mapping, string

NONE: Final = "none"
"""The value of ``adapters`` where a server has none on the model."""
OFF: Final = "off"
ON: Final = "on"
_CONFIGURED_ELSEWHERE: Final = ("--config", "--config-file")
"""Options that name a file in which every other option may stand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraAdapter:
    """One LoRA adapter: its name, its rank where that is known, and what it is multiplied by."""

    name: str
    rank: int | None = None
    scale: float = 1.0

    def __str__(self) -> str:
        rank = "" if self.rank is None else f" rank {self.rank}"
        return f"{self.name}{rank}" + ("" if self.scale == 1.0 else f" x {self.scale:g}")


def listed(adapters: Iterable[LoraAdapter]) -> str:
    """Return adapters as the fact ``adapters`` has them, in the order of their names.

    >>> listed([LoraAdapter(name="sql", rank=8), LoraAdapter(name="tone", scale=0.5)])
    'sql rank 8, tone x 0.5'
    >>> listed([])
    'none'
    """
    return ", ".join(sorted(map(str, adapters))) or NONE


def switched(on: object) -> str:
    """Return ``on`` or ``off``; empty for what is neither true nor false."""
    return (ON if on else OFF) if isinstance(on, bool) else ""


def rank_of(place: Path) -> int | None:
    """Return the rank of an adapter's folder (PEFT's) or GGUF file; ``None`` where there is none to be read."""
    try:
        if place.is_dir():
            return count(mapping(decoded((place / "adapter_config.json").read_bytes())).get("r"))
        halves = [tensor for tensor in gguf.read_header(place).tensors if tensor.name.endswith(".lora_a")]
    except (OSError, gguf.NotWhole):
        return None
    return max((tensor.shape[1] for tensor in halves if len(tensor.shape) == 2), default=None)


def adapter_at(place: str, *, name: str = "", scale: float = 1.0) -> LoraAdapter:
    """Return the adapter of a path as a server or a flag names it, its rank where the files are on this machine."""
    path = Path(place)
    return LoraAdapter(name=name or path.name, rank=rank_of(path), scale=scale)


def paths(words: Sequence[str]) -> str:
    """Read adapters from values of a flag that are paths, or ``NAME=PATH``, also several with commas between them."""
    given = [part for word in words for part in word.split(",") if part]
    pairs = [word.partition("=") for word in given]
    return listed(adapter_at(path if equals else name, name=name if equals else "") for name, equals, path in pairs)


def scaled_paths(words: Sequence[str]) -> str:
    """Read adapters from values that are ``PATH:SCALE``, several with commas between them (llama.cpp)."""
    adapters = []
    for part in (part for word in words for part in word.split(",") if part):
        path, _, scale = part.rpartition(":")
        try:
            adapters.append(adapter_at(path, scale=float(scale)))
        except ValueError:
            adapters.append(adapter_at(part))
    return listed(adapters)


def last(words: Sequence[str]) -> str:
    """Return the last value of a flag."""
    return words[-1] if words else ""


def whole_number(words: Sequence[str]) -> str | int:
    """Return the last value of a flag as a number where it is one."""
    text = last(words)
    return int(text) if text.isdecimal() else text


def truth(words: Sequence[str]) -> str:
    """Return ``on`` or ``off`` for a word that means it, else empty."""
    return {"on": ON, "1": ON, "true": ON, "off": OFF, "0": OFF, "false": OFF}.get(last(words).lower(), "")


def flash(words: Sequence[str]) -> str:
    """Return what a flag says of flash attention, empty for ``auto``."""
    return {ON: "flash", OFF: "plain"}.get(truth(words), "")


def draft_model(words: Sequence[str]) -> str:
    """Return the last part of the path or name of a draft model."""
    return Path(last(words)).name


def drafting(words: Sequence[str]) -> str:
    """Return what vLLM's ``--speculative-config`` asks for; as it stands where it is no JSON object."""
    text = last(words)
    return drafted(mapping(decoded(text))) or text


def drafted(config: Mapping[str, object]) -> str:
    """Return a speculative configuration as ``METHOD MODEL xN``: who drafts how many tokens; empty for none.

    >>> drafted({"method": "ngram", "num_speculative_tokens": 4})
    'ngram x4'
    """
    method, model = string(config.get("method")), string(config.get("model"))
    tokens = count(config.get("num_speculative_tokens"))
    named = [method, Path(model).name if model and model != method else "", f"x{tokens}" if tokens else ""]
    return " ".join(filter(None, named))


@dataclass(frozen=True, slots=True, kw_only=True)
class Flag:
    """Where the flags of a kind say something: ``options`` with values, or switches that need none.

    ``variables`` are environment variables that mean the same. ``default`` is what the kind does where nothing says
    otherwise, ``None`` where that is not known.
    """

    options: Collection[str] = ()
    turned_on_by: Collection[str] = ()
    turned_off_by: Collection[str] = ()
    variables: Collection[str] = ()
    default: str | int | None = None
    read: Callable[[Sequence[str]], str | int] = last

    def asked(self, args: Sequence[str], env: Mapping[str, str]) -> str | int | None:
        """Return what a command line and variables ask for; ``None`` where they say nothing."""
        answer: str | int | None = None
        for name in self.variables:
            if env.get(name):
                answer = self.read([env[name]])
        for place, word in enumerate(args):
            name, equals, value = word.partition("=")
            if name in self.options:
                answer = self.read([value] if equals else _values(args[place + 1 :]))
            elif name in self.turned_on_by:
                answer = ON
            elif name in self.turned_off_by:
                answer = OFF
        return answer


def declared(
    flags: Mapping[str, Flag],
    args: Sequence[str],
    env: Mapping[str, str],
    *,
    inherited: Mapping[str, str],
    scrub: Collection[str],
) -> dict[str, Fact]:
    """Return what the flags of a server that we start say of these fields, else what its kind does unasked.

    It has the variables of ``env`` and those ``inherited`` whose name no pattern of ``scrub`` fits. Where a file of
    options is named only what stands on the command line is known.
    """
    ours = {name: text for name, text in inherited.items() if not any(fnmatch(name, each) for each in scrub)}
    env = {**ours, **env}
    elsewhere = any(word.partition("=")[0] in _CONFIGURED_ELSEWHERE for word in args)
    known: dict[str, object] = {}
    for field, flag in flags.items():
        asked = flag.asked(args, env)
        known[field] = flag.default if asked is None and not elsewhere else asked
    return facts(known, source="declared")


def _values(words: Sequence[str]) -> list[str]:
    """Return the words that are values: those before the next option."""
    values = []
    for word in words:
        if word.startswith("-") and not _is_number(word):
            break
        values.append(word)
    return values


def _is_number(word: str) -> bool:
    try:
        return isinstance(json.loads(word), (int, float))
    except ValueError:
        return False
