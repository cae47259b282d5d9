"""What ``llmparity.lock`` keeps of an engine, and how it differs from the engine that is there now."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pytest_llmparity.core.errors import LockError
from pytest_llmparity.core.identity.agreed import LOCK_FILE
from pytest_llmparity.core.identity.canaries import Canaries
from pytest_llmparity.core.sample import IDENTITY, Fact
from pytest_llmparity.core.words.keys import looks_secret
from pytest_llmparity.core.words.masking import Mask

NAME: Final = LOCK_FILE

Value = str | int | float | bool
Setting = str | int | tuple[str, ...]

_ABSOLUTE: Final = re.compile(r"(?<![\w.:/}~-])(?:~?(?:/[\w.@%+-]+){2,}|~/\S|[A-Za-z]:\\)|file://")
"""A path of this machine: two folders at least, so that ``--api-prefix /v1`` is none."""
_MACHINE: Final = frozenset({"device"})
"""Facts of the machine. CI lends another one each time, so they are told and fail nothing; a pin makes them fail."""
_OWN_NAME: Final = frozenset({"model", "recognised", "configuration"}) | _MACHINE
"""Facts that may differ between two engines that are otherwise the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Locked:
    """One engine as it was seen.

    ``plugin`` is the version of this package that saw it. ``identity`` holds its facts, ``launch`` what it was started
    or attached to with. Nothing in it belongs to this machine: paths are relative to the project or are names, of
    environment variables only the names are kept, addresses not at all. ``launch["spec"]`` is a hash of everything in
    ``launch`` and of what is not shown there, the values of the variables above all. ``canaries`` are what it answered.
    """

    kind: str
    plugin: str
    identity: Mapping[str, Fact] = field(default_factory=dict)
    launch: Mapping[str, Setting] = field(default_factory=dict)
    canaries: Canaries | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field that is not what the lock says; ``None`` where it is not known.

    ``machine`` and ``untold`` ones fail nothing. ``untold`` is a fact that the lock holds and nobody tells now, as the
    context of a model that is not loaded: it is neither equal nor different.
    """

    field: str
    locked: str | None
    live: str | None
    machine: bool = False
    untold: bool = False

    @property
    def fails(self) -> bool:
        """Whether a frozen run may not use an engine because of it."""
        return not (self.machine or self.untold)

    def __str__(self) -> str:
        live = "not told now" if self.untold else _shown(self.live)
        return f"{self.field}: {_shown(self.locked)} -> {live}"


def refuse_private(name: str, locked: Locked, mask: Mask, variables: Iterable[str]) -> None:
    """Raise ``LockError``, naming the field, when a lock would hold a secret or a path of this machine.

    ``variables`` are the names under which ``mask`` knows secrets: a text it has been at before holds them.
    """
    refuse_private_texts(((f"engines.{name}.{place}", text) for place, text in _texts(locked)), mask, variables)


def refuse_private_texts(texts: Iterable[tuple[str, str]], mask: Mask, variables: Iterable[str]) -> None:
    """Raise ``LockError`` for the first of these texts, each behind its place, that the lock must not hold."""
    known = list(variables)
    for where, text in texts:
        if holds_secret(text, mask, known):
            raise LockError(f"{where} holds the value of a key variable, so {NAME} is not written.")
        if looks_secret(text):
            raise LockError(f"{where} looks like a key (not shown), so {NAME} is not written; keys stay in variables.")
        if holds_path(text):
            raise LockError(
                f"{where} holds a path of this machine, {text!r}, so {NAME} is not written. Give it below the project "
                "(engines are started in .llmparity there), or by a variable in env, whose value is not kept."
            )


def holds_secret(text: str, mask: Mask, variables: Iterable[str]) -> bool:
    """Whether a text has the value of a secret in it, in any encoding, or a placeholder that ``mask`` left for one."""
    return mask.text(text) != text or any(f"«{variable}»" in text for variable in variables)


def holds_path(text: str) -> bool:
    """Whether a text has an absolute path in it."""
    return _ABSOLUTE.search(text) is not None


def without_private(canaries: Canaries, mask: Mask, variables: Iterable[str]) -> tuple[Canaries | None, list[str]]:
    """Return canaries without the answers that hold what the lock must not, and the cases of these.

    A model may say anything. ``None`` where no answer is left.
    """
    kept, left_out = {}, []
    for case, canary in canaries.answers.items():
        try:
            refuse_private_texts([(case, canary.text), (case, "".join(canary.tokens))], mask, variables)
        except LockError:
            left_out.append(case)
            continue
        kept[case] = canary
    return dataclasses.replace(canaries, answers=kept) if kept else None, left_out


def differences(locked: Locked, live: Locked) -> list[Difference]:
    """Return every field that is not as locked, identity first. The plugin's version is none of them.

    Of an engine that tells nothing at all of what it told when it was locked every fact differs: nothing is held.
    """
    changed = []
    silent = _tells_nothing(locked, live)
    if locked.kind != live.kind:
        changed.append(Difference(field="kind", locked=locked.kind, live=live.kind))
    for name in [*IDENTITY, *sorted(locked.identity.keys() - IDENTITY.keys())]:
        before, now = locked.identity.get(name), live.identity.get(name)
        values = (None if before is None else before.value, None if now is None else now.value)
        if before is not None and before.source == "probed" and now is None:
            continue  # a run asks for it only where it matters, and two requests do not always tell
        if values[0] != values[1]:
            changed.append(
                Difference(
                    field=name,
                    locked=_text(values[0]),
                    live=_text(values[1]),
                    machine=name in _MACHINE,
                    untold=now is None and not silent,
                )
            )
    return changed + settings_apart(locked, live)


def settings_apart(first: Locked, second: Locked) -> list[Difference]:
    """Return in what two engines are started or attached to differently.

    ``spec`` is among it only when nothing that is shown differs: then it is the value of a variable, or such a thing.
    """
    differing = [
        Difference(field=name, locked=_setting(first.launch.get(name)), live=_setting(second.launch.get(name)))
        for name in dict.fromkeys((*first.launch, *second.launch))
        if first.launch.get(name) != second.launch.get(name)
    ]
    shown = [difference for difference in differing if difference.field != "spec"]
    return shown or differing


def changes(before: Mapping[str, Locked], after: Mapping[str, Locked]) -> dict[str, list[Difference] | None]:
    """Return how every engine of two locks changed, by name: ``None`` for one that only one of them has."""
    return {
        name: differences(before[name], after[name]) if name in before and name in after else None
        for name in sorted({*before, *after})
    }


def renewed(before: Mapping[str, Locked], seen: Mapping[str, Locked]) -> dict[str, Locked]:
    """Return the lock with what was seen now; an engine that is as it was keeps the version that saw it first."""
    lock = dict(before)
    for name, locked in seen.items():
        old = before.get(name)
        same = old is not None and dataclasses.replace(locked, plugin=old.plugin) == old
        lock[name] = old if same and old is not None else locked
    return lock


def twins(engines: Mapping[str, Locked]) -> list[str]:
    """Return a sentence for every two engines that cannot be told apart by what they say but by how they are set up.

    They run the same: kind, and every fact but the model's name and the machine. At least weights or version must be
    known, else nothing is.
    """
    sentences = []
    names = list(engines)
    for place, name in enumerate(names):
        for other_name in names[place + 1 :]:
            engine, other = engines[name], engines[other_name]
            if engine.kind == other.kind and _proof(engine) == _proof(other) and _PROVES & _proof(engine).keys():
                apart = "; ".join(_between(difference) for difference in settings_apart(engine, other))
                if apart:
                    sentences.append(f"{name} and {other_name} say the same of themselves; they differ in {apart}")
    return sentences


def unseen(locked: Locked) -> str:
    """Return what a lock of this engine cannot see, as the end of a sentence about it; empty where it sees weights.

    What only our configuration says of them proves nothing.
    """
    canaries = locked.canaries
    facts = [locked.identity.get(name) for name in ("digest", "revision")]
    if any(fact is not None and fact.source != "declared" for fact in facts):
        return ""
    words = "does not say which weights it serves: if they are swapped under the same name, "
    if canaries is None or canaries.restless:
        words += "the lock does not see it"
    elif canaries.logprobs:
        words += f"the lock sees it by its canaries alone, from {canaries.limit:.3g} nats on"
        words += f" (it {canaries.blind})" if canaries.blind else ""
    else:
        words += (
            "the lock sees it by its canaries alone, and without logprobs only where "
            f"{canaries.may_part + 1} or more of {len(canaries.answers)} answers part"
        )
    if "configuration" in locked.identity:
        words += " (its fingerprint is of the settings and the model's path, not of what lies there)"
    return words


_PROVES: Final = frozenset({"digest", "version", "build"})


def _proof(locked: Locked) -> dict[str, object]:
    return {name: fact.value for name, fact in locked.identity.items() if name not in _OWN_NAME}


def _between(difference: Difference) -> str:
    if difference.field == "spec":
        return "the value of a variable in env, or in what their packages are installed with"
    return f"{difference.field} ({difference.locked or 'none'} and {difference.live or 'none'})"


def _tells_nothing(locked: Locked, live: Locked) -> bool:
    by_server = {name for name, fact in locked.identity.items() if fact.source != "declared" and name not in _MACHINE}
    return bool(by_server) and not by_server & live.identity.keys()


def _texts(locked: Locked) -> Iterator[tuple[str, str]]:
    """Yield every text of a lock with its place."""
    for name, fact in locked.identity.items():
        yield f"identity.{name}", str(fact.value)
    for name, value in locked.launch.items():
        if isinstance(value, tuple):
            yield from ((f"launch.{name}[{place}]", item) for place, item in enumerate(value))
        else:
            yield f"launch.{name}", str(value)


def _text(value: Value | None) -> str | None:
    return None if value is None else str(value)


def _setting(value: Setting | None) -> str | None:
    return " ".join(value) if isinstance(value, tuple) else _text(value)


def _shown(text: str | None) -> str:
    return "nothing" if text is None else text
