"""Which lines of a golden a new recording rewrites, and which are left over."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from pytest_llmparity.core.golden.folding import Folded
from pytest_llmparity.core.golden.records import Golden, Key, Line, LogprobsLine, Provenance
from pytest_llmparity.core.identity import lock
from pytest_llmparity.core.identity.lock import Difference, Locked
from pytest_llmparity.core.sample import IDENTITY


class Update(enum.StrEnum):
    """What a recording may write: cases that have no line, those that answer otherwise as well, or every one."""

    MISSING = "missing"
    CHANGED = "changed"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """A golden as it is to be written, and what of it is new, by case id.

    ``golden`` is ``None`` where there is nothing to write to. ``refused`` says why nothing may be written.
    """

    golden: Golden | None
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    refused: str = ""

    @property
    def wrote(self) -> bool:
        """Whether it differs from what was there."""
        return bool(self.added or self.changed or self.dropped)


def apart(before: Locked, now: Locked) -> list[Difference]:
    """Return in what an engine is another one than before.

    The machine is no difference, and neither is a fact that only one of the two tells.
    """
    return [
        difference
        for difference in lock.differences(before, now)
        if difference.fails and not (difference.locked is None and difference.field in IDENTITY)
    ]


def renew(before: Golden | None, now: Provenance, recorded: Sequence[Folded], *, update: Update) -> Renewed:
    """Return a golden with what was recorded, as far as ``update`` lets it write.

    A line that answers as it did keeps all it has; so does one of a case that was not recorded. Where the set was asked
    in one way only, then and now, a line with other sampling is replaced. Another engine than before is recorded by
    ``all`` alone.
    """
    if before is None:
        return _anew(now, recorded)
    another = apart(before.provenance.locked, now.locked)
    if another and update is not Update.ALL:
        return Renewed(golden=before, refused="; ".join(map(str, another)))
    if not another:
        now = msgspec.structs.replace(now, lock=before.provenance.lock)
    lines, logprobs = dict(before.lines), dict(before.logprobs)
    by_id = {line.id: line for line in lines.values()} if _one_way(before.provenance, now) else {}
    added: list[str] = []
    changed: list[str] = []
    for folded in recorded:
        line, tokens = _under(folded, now.lock)
        old = lines.get(line.key) or by_id.get(line.id)
        if old is not None and not _rewrites(old, line, update):
            continue
        if old is not None:
            del lines[old.key]
            logprobs.pop(old.key, None)
        lines[line.key] = line
        if tokens is not None:
            logprobs[line.key] = tokens
        (added if old is None else changed).append(line.id)
    if not (added or changed):
        return Renewed(golden=before)
    asked = now.asked
    if not _one_way(before.provenance, now):
        mine = [way.sampling for way in asked]
        asked = (*(way for way in before.provenance.asked if way.sampling not in mine), *asked)
    golden = Golden(provenance=msgspec.structs.replace(now, asked=asked), lines=lines, logprobs=logprobs)
    return Renewed(golden=golden, added=tuple(added), changed=tuple(changed))


def _anew(now: Provenance, recorded: Sequence[Folded]) -> Renewed:
    if not recorded:
        return Renewed(golden=None)
    pairs = [_under(folded, now.lock) for folded in recorded]
    lines = {line.key: line for line, _ in pairs}
    logprobs = {tokens.key: tokens for _, tokens in pairs if tokens is not None}
    return Renewed(
        golden=Golden(provenance=now, lines=lines, logprobs=logprobs), added=tuple(line.id for line in lines.values())
    )


def _under(folded: Folded, lock_hash: str) -> tuple[Line, LogprobsLine | None]:
    """Return a recording under the hash of an engine: of one that is as it was, the hash it had."""
    tokens = folded.logprobs
    return (
        msgspec.structs.replace(folded.line, lock=lock_hash),
        None if tokens is None else msgspec.structs.replace(tokens, lock=lock_hash),
    )


def _one_way(before: Provenance, now: Provenance) -> bool:
    return len(before.asked) == 1 == len(now.asked)


def _rewrites(old: Line, new: Line, update: Update) -> bool:
    """Whether a recording takes the place of a line: as ``changed``, where it was asked or answered otherwise."""
    if update is Update.MISSING or old == new:
        return False
    if update is Update.ALL or (old.lock, old.prompt, old.sampling) != (new.lock, new.prompt, new.sampling):
        return True
    return new.answers[0].words not in {answer.words for answer in old.answers}


def prune(golden: Golden, asked: Collection[Key]) -> Renewed:
    """Return a golden without the lines that nobody asks for any more, ``None`` in place of one without a line."""
    left = [key for key in golden.lines if key not in asked]
    if not left:
        return Renewed(golden=golden)
    lines = {key: line for key, line in golden.lines.items() if key not in left}
    dropped = tuple(dict.fromkeys(case for case, _ in left))
    if not lines:
        return Renewed(golden=None, dropped=dropped)
    kept = {key: tokens for key, tokens in golden.logprobs.items() if key in lines}
    ways = golden.provenance.asked
    if len(ways) == 1:
        ways = (msgspec.structs.replace(ways[0], n=len(lines)),)
    provenance = msgspec.structs.replace(golden.provenance, asked=ways)
    return Renewed(golden=Golden(provenance=provenance, lines=lines, logprobs=kept), dropped=dropped)
