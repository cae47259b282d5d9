"""Which lines of a golden a new recording rewrites, and which are left over."""

from __future__ import annotations

import enum
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from pytest_llmparity.core.golden.folding import PHASES, Folded
from pytest_llmparity.core.golden.records import Golden, Key, Line, LogprobsLine, Provenance, Way
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
    lacking: tuple[str, ...] = ()
    """Cases whose line stays without the noise floor or the logprobs that were recorded now."""
    refused: str = ""

    @property
    def wrote(self) -> bool:
        """Whether it differs from what was there."""
        return bool(self.added or self.changed or self.dropped)


def apart(before: Locked, now: Locked) -> list[Difference]:
    """Return in what an engine is another one than before.

    The machine is no difference, and neither is a fact that only one of the two tells. What it tells and what it was
    started with in the same words are one.
    """
    differing = [
        difference
        for difference in lock.differences(before, now)
        if difference.fails and not (difference.locked is None and difference.field in IDENTITY)
    ]
    return list({str(difference): difference for difference in differing}.values())


def renew(
    before: Golden | None, now: Provenance, recorded: Sequence[Folded], *, update: Update, partly: bool = False
) -> Renewed:
    """Return a golden with what was recorded, as far as ``update`` lets it write.

    A line that answers as it did keeps all it has; so does one of a case that was not recorded. ``changed`` adds the
    noise floor and the logprobs that such a line lacks, where its first answer is the same. Where the set was asked
    in one way only, then and now, a line with other sampling is replaced, unless ``missing`` rewrites nothing or only
    some tests were run (``partly``): another one may ask for it. Another engine than before is recorded by ``all``
    alone.
    """
    if before is None:
        return _anew(now, recorded)
    another = apart(before.provenance.locked, now.locked)
    if another and update is not Update.ALL:
        return Renewed(golden=before, refused="; ".join(map(str, another)))
    if not another:
        now = _together(before.provenance, now)
    lines, logprobs = dict(before.lines), dict(before.logprobs)
    replaces = update is not Update.MISSING and not partly and _one_way(before.provenance, now)
    by_id = {line.id: line for line in lines.values()} if replaces else {}
    added: list[str] = []
    changed: list[str] = []
    lacking: list[str] = []
    for folded in recorded:
        line, tokens = _under(folded, now.lock)
        old = lines.get(line.key) or by_id.get(line.id)
        if old is not None and not _rewrites(old, line, update):
            floor, nats = _more(old, line), tokens is not None and old.key not in logprobs
            if not (floor or nats) or old.prompt != line.prompt:
                continue
            if update is Update.MISSING or not _answered_first(old, line):
                lacking.append(line.id)
                continue
            if floor:
                lines[old.key] = line
            if tokens is not None:
                logprobs[old.key] = tokens
            changed.append(line.id)
            continue
        if old is not None:
            del lines[old.key]
            logprobs.pop(old.key, None)
        lines[line.key] = line
        if tokens is not None:
            logprobs[line.key] = tokens
        (added if old is None else changed).append(line.id)
    wrote = len(added) + len(changed)
    if not wrote:
        return Renewed(golden=before, lacking=tuple(lacking))
    if left := len(lines) - wrote:
        asked = _ways(before.provenance, now, left=left, wrote=wrote)
        recorded_on = min(before.provenance.recorded, now.recorded)  # so old are the oldest of its lines
        now = msgspec.structs.replace(now, asked=asked, recorded=recorded_on)
    golden = Golden(provenance=now, lines=lines, logprobs=logprobs)
    return Renewed(golden=golden, added=tuple(added), changed=tuple(changed), lacking=tuple(lacking))


def _together(before: Provenance, now: Provenance) -> Provenance:
    """Return an engine that is as it was with all that was told of it, then or now, under the hash it had."""
    return msgspec.structs.replace(
        now,
        lock=before.lock,
        version=now.version or before.version,
        identity=dict(sorted({**before.identity, **now.identity}.items())),
        capabilities={**before.capabilities, **now.capabilities},
    )


def _ways(before: Provenance, now: Provenance, *, left: int, wrote: int) -> tuple[Way, ...]:
    """Return how the lines of a golden were asked, of which so many are ``left`` from before and so many new.

    A way of before stays beside the one of now where it had another concurrency, which is what its noise floor is of.
    """
    fresh, already = ({(_sampling(way), way.concurrency) for way in of.asked} for of in (now, before))
    earlier = [way for way in before.asked if (_sampling(way), way.concurrency) not in fresh]
    if len(before.asked) == 1:
        earlier = [msgspec.structs.replace(way, n=left) for way in earlier]
    newer = [
        way if (_sampling(way), way.concurrency) in already else msgspec.structs.replace(way, n=min(way.n, wrote))
        for way in now.asked
    ]
    return (*earlier, *newer)


def _sampling(way: Way) -> str:
    """Return the sampling of a way as its file has it, in which lists and tuples are one."""
    return json.dumps(msgspec.to_builtins(way.sampling), sort_keys=True)


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
    """Whether the set was sampled in one way then, and in one now, whatever the concurrency."""
    return all(len({_sampling(way) for way in of.asked}) == 1 for of in (before, now))


def _rewrites(old: Line, new: Line, update: Update) -> bool:
    """Whether a recording takes the place of a line: as ``changed``, where it was asked or answered otherwise."""
    if update is Update.MISSING or old == new:
        return False
    if update is Update.ALL or (old.lock, old.prompt, old.sampling) != (new.lock, new.prompt, new.sampling):
        return True
    first = new.answers[0]
    same = next((answer for answer in old.answers if answer.words == first.words), None)
    return same is None or same.valid != first.valid  # the schema of a case is no part of its prompt


def _more(old: Line, new: Line) -> bool:
    """Whether a recording has all the phases that a line has, and others that the line lacks."""
    had, has = (
        {phase for phase in PHASES for answer in line.answers if getattr(answer, phase.value)} for line in (old, new)
    )
    return had < has


def _answered_first(old: Line, new: Line) -> bool:
    """Whether the answer that is judged is the same in both, so that what was measured of the one is of the other."""
    return old.answers[0].words == new.answers[0].words


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
