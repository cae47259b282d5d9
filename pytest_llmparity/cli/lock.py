"""``llmparity lock``: write down what the engines are, or hold them against what is written."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import add_verb, complain, selected, serving
from pytest_llmparity.core.words.exits import OK, WRONG
from pytest_llmparity.core.words.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pytest_llmparity.cli.verbs import Commands
    from pytest_llmparity.core.identity.canaries import Seen
    from pytest_llmparity.core.identity.lock import Difference, Locked
    from pytest_llmparity.run.session import Session


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Start or attach to the engines and write down in llmparity.lock what they are."
    parser = add_verb(commands, "lock", does=does)
    parser.add_argument(
        "--check",
        action="store_true",
        help="Write nothing; exit with 1 when an engine is not in the lock, or not as it stands there",
    )
    parser.set_defaults(command=_lock, name="lock")


def _lock(asked: argparse.Namespace) -> int:
    from pytest_llmparity import lockfile
    from pytest_llmparity.core.identity import lock
    from pytest_llmparity.core.identity.canaries import Change

    with serving(selected(asked)) as session:
        path = session.root / lock.NAME
        before, agreed = lockfile.read(path) or {}, lockfile.agreed(path)
        seen, birds = _seen(session, before, record=not asked.check)
        names = [spec.name for spec in session.settings.engines]
        gone = before.keys() - set(names) if _every_engine(asked) else set()
    after = lock.renewed({name: locked for name, locked in before.items() if name not in gone}, seen)
    touched = {*seen, *gone}
    unheard = {name for name, heard in birds.items() if heard.change is Change.UNKNOWN}
    stale = {name for name, heard in birds.items() if heard.change is not Change.UNCHANGED} - unheard
    for name, differences in lock.changes(before, after).items():
        if name in touched:
            if differences is None or any(difference.fails for difference in differences):
                stale.add(name)
            entering = _entering(asked, name, session.settings.selection) if asked.check else ""
            _tell(name, before.get(name), after.get(name), differences, birds.get(name), entering=entering)
    for name, locked in seen.items():
        asked_canaries = not asked.check or name in before  # who has not been asked for any may have some
        if asked_canaries and (blind := lock.unseen(locked)):
            print(printable(f"{name} {blind}"))
    for sentence in lock.twins(seen):
        print(printable(sentence))
    if not asked.check and after != before:
        lockfile.write(path, after, agreed.without(gone))
        print(f"wrote {path}")
    if asked.check and stale:
        complain(printable(_what_next(sorted(stale), before, after)), WRONG)
    if asked.check and unheard:
        complain(printable(_unheard(sorted(unheard))), WRONG)
    return WRONG if len(seen) < len(names) or (asked.check and (stale or unheard)) else OK


def _seen(session: Session, before: Mapping[str, Locked], *, record: bool) -> tuple[dict[str, Locked], dict[str, Seen]]:
    """Return what the lock keeps of every engine that is there, and how it answers its canaries by now.

    Of the others the reason is told. Canaries that do not answer as they did, and those of an engine that had none, are
    recorded anew where that is asked for.
    """
    from pytest_llmparity.core.errors import LLMParityError
    from pytest_llmparity.core.identity import lock
    from pytest_llmparity.core.words import explain
    from pytest_llmparity.engines.wire.control import secrets_of
    from pytest_llmparity.run import locking

    seen, birds = {}, {}
    variables = secrets_of(session.settings.engines, os.environ)
    for spec in session.settings.engines:
        try:
            adapter, identity = session.available(spec.name)
            locked = locking.entry(spec, identity, kind=adapter.kind, plugin=session.version, root=str(session.root))
            lock.refuse_private(spec.name, locked, session.mask, variables)
            kept = before[spec.name].canaries if spec.name in before else None
            canaries, heard = locking.canaries_of(adapter, kept, record=record, plugin=session.version)
            if canaries is not None:
                canaries, left_out = lock.without_private(canaries, session.mask, variables)
                if left_out:
                    names = explain.first_names(left_out)
                    print(
                        f"{spec.name}: canaries that are not kept, because their answer holds a key or a path: {names}"
                    )
        except LLMParityError as error:
            complain(str(error), WRONG)
        else:
            seen[spec.name] = dataclasses.replace(locked, canaries=canaries)
            if heard is not None:
                birds[spec.name] = heard
    return seen, birds


def _what_next(stale: Sequence[str], before: Mapping[str, Locked], after: Mapping[str, Locked]) -> str:
    """Return what to do about a lock that is old: where what these engines became is meant, and where it is not."""
    from pytest_llmparity.core.identity import lock

    if not before:
        return f"{lock.NAME} has no engine yet: run the same command without --check and commit the file"
    new = [name for name in stale if name not in before]
    gone = [name for name in stale if name not in after]
    changed = [name for name in stale if name in before and name in after]
    why = [f"{' and '.join(changed)} changed"] if changed else []
    why += [f"it has no {' and no '.join(new)}"] if new else []
    why += [f"{' and '.join(gone)} {'is' if len(gone) == 1 else 'are'} not configured any more"] if gone else []
    back = f"; if not, give {' and '.join(changed)} back the version, weights and settings that stand there"
    return (
        f"{lock.NAME} is old: {'; '.join(why)}. If that is meant, run the same command without --check and commit the "
        f"file{back if changed else ''}"
    )


def _unheard(names: Sequence[str]) -> str:
    """Return what to do about engines whose canaries cannot be compared: whether they changed is not known."""
    from pytest_llmparity.core.identity import lock

    return (
        f"what {lock.NAME} has of {' and '.join(names)} could not all be compared: the canaries above say why. Let all "
        "of them be answered, with logprobs where they were kept with them (llmparity doctor says what an engine gives "
        "now); if it is to answer as it does now, run the same command without --check and commit the file"
    )


def _every_engine(asked: argparse.Namespace) -> bool:
    """Tell whether the command speaks of all the project has, so that what else stands in the lock is left over."""
    narrowed = [asked.engines, asked.more, asked.profile]
    return not any(narrowed) and not any(os.environ.get(f"LLMPARITY_{name}") for name in ("ENGINES", "PROFILE"))


def _entering(asked: argparse.Namespace, name: str, selection: Sequence[str]) -> str:
    """Return the command that enters one engine into the same lock."""
    from pytest_llmparity.settings.selection import parse_engines

    given = {"--profile": asked.profile, "--config": asked.config, "--rootdir": asked.rootdir}
    options = [word for option, value in given.items() if value for word in (option, value)]
    written = {entry.name: entry.text for entry in parse_engines(selection)}
    return shlex.join(["llmparity", "lock", *options, written.get(name, name)])


def _tell(
    name: str,
    before: Locked | None,
    after: Locked | None,
    differences: list[Difference] | None,
    heard: Seen | None,
    *,
    entering: str = "",
) -> None:
    """Print how an engine stands to its entry; ``entering`` is the command that makes one, where none is made now."""
    from pytest_llmparity.core.identity import lock
    from pytest_llmparity.core.identity.canaries import Change

    absent = before is None and bool(entering)
    state = "removed" if after is None else "new" if before is None else "changed" if differences else "unchanged"
    if differences and all(difference.untold for difference in differences):
        state = "tells less than it did"
    moved = heard.change if heard is not None and heard.change is not Change.UNCHANGED else None
    if state == "unchanged" and moved is not None:
        state = str(moved) if moved is Change.UNKNOWN else "changed"
    if absent:
        state = f"not in {lock.NAME}; {entering} enters it"
    print(printable(f"{name}: {state}" + (f" ({heard.numbers})" if heard is not None and state == "unchanged" else "")))
    if before is None and after is not None:
        for field, fact in after.identity.items():
            print(printable(f"  {field}: {fact.value} ({fact.source})"))
    for difference in differences or ():
        print(printable(f"  {difference}"))
    if moved is not None:
        print(printable(f"  canaries: {heard}"))
    if after is not None and not absent:  # canaries are asked when an entry is made of them, or held against one
        canaries = after.canaries
        if canaries is None:
            print("  canaries: none, it answered without text or not at all, or without logprobs and never alike")
        elif moved is None or before is None or before.canaries != canaries:
            print(f"  canaries: {canaries}" + (f"; it {canaries.blind}" if canaries.blind else ""))
