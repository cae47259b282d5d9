"""What a model's ladder says beside a verdict: which margin a declared class has, which class a shift is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from pytest_llmparity.core.checks.arguments import HORIZON
from pytest_llmparity.core.checks.drift.floor import recorded_noise
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.identity.agreed import LOCK_FILE, Party, in_forks, in_nats
from pytest_llmparity.core.identity.canaries import blind_by, limit_of
from pytest_llmparity.core.identity.ladder import FINEST, LEAST_FORKS, Ladder, Rung, place
from pytest_llmparity.core.prompts import PromptSet, digest
from pytest_llmparity.core.sample import Sampling
from pytest_llmparity.core.words import explain

OF_LLAMA_CPP: Final = frozenset({"llamacpp", "llamacpp-python", "ollama"})
"""Kinds that compute as the server does which a ladder is measured with."""
MOST_FORKS: Final = 0.5
"""Forks per token above which nobody takes a margin from a ladder: answers without a word in common would be near."""
_ACTING: Final = ("repetition_penalty", "presence_penalty", "frequency_penalty", "stop")
"""Parameters of sampling that change greedy answers."""


def party_of(engine: EngineEvidence) -> Party:
    """Return an engine as far as margins depend on it."""
    return Party.of(engine.kind, engine.identity, engine.quantization)


def ladder_of(evidence: Evidence) -> Ladder | None:
    """Return the ladder of the model that the baseline serves, known by its weights; ``None`` where there is none."""
    return evidence.agreed.ladder(evidence.engines[evidence.baseline].identity)


def about(evidence: Evidence, shift: float) -> str:
    """Return the class that a shift is about, empty without a ladder of this model."""
    ladder = ladder_of(evidence)
    if ladder is None:
        return ""
    where = place(shift, ladder.rungs, [explain.nats(rung.shift) for rung in ladder.rungs])
    return f"{where}: the ladder of {explain.plain(ladder.model, 60)} in {LOCK_FILE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What a pair is held against, in nats; ``None`` where ``refused`` says why there is nothing.

    ``word`` says what it is: a shift that somebody ``accepted``, or one that is ``allowed`` without, and for what;
    ``others`` whether that is of engines that are known to differ in what a margin belongs to.
    """

    nats: float | None = None
    word: str = "accepted"
    others: bool = False
    source: str = ""
    notes: tuple[str, ...] = ()
    refused: str = ""


def limit(
    evidence: Evidence, candidate: EngineEvidence, *, given: float | None, words: str, ties: bool = False
) -> Limit:
    """Return the accepted shift of a pair, and where that comes from; ``words`` is how a check is given a number.

    A number that is given, else what the lock holds for the pair, else the candidate's declared class on the ladder.
    Golden answers of the very engine they are held against take what was recorded of it, widened by what the baseline
    differed from itself then, and others that without all of these, which is told where they are of another engine.

    For ``ties``, what forks are near-ties by, a declared class is no reason: a 4-bit copy that says so parts at other
    tokens all the same. There it is the ladder's 8-bit copy, whatever is declared, and recordings do not widen.
    """
    if given is not None:
        return Limit(nats=given)
    baseline = evidence.engines[evidence.baseline]
    names = baseline.golden or baseline.name, candidate.golden or candidate.name
    noise = recorded_noise(evidence, candidate)
    recorded = None if noise is None else _recorded(names[0], 0.0 if ties else noise)
    if recorded is not None and names[0] == names[1]:
        return recorded
    accepted = evidence.agreed.margin(*names)
    run = f"run: llmparity calibrate {' '.join(names)}"
    of_ladder = (_of_finest if ties else _of_class)(evidence, candidate)
    if accepted is None and of_ladder is not None and of_ladder.nats is not None:
        return of_ladder
    parties = [party_of(engine) for engine in (baseline, candidate)]
    others = _known_to_differ(*parties)
    if accepted is None and recorded is not None and others:
        nobody = (
            f"nobody accepted a shift for this pair, whose engines differ ({'; '.join(others)}); {run}, or give {words}"
        )
        return dataclasses.replace(recorded, others=True, notes=(*recorded.notes, nobody))
    if accepted is None and recorded is not None:
        return recorded
    if accepted is None:
        why = "" if of_ladder is None else f", and {of_ladder.refused}"
        return Limit(refused=f"{LOCK_FILE} has no margin for this pair{why}; {run}, or give {words}")
    if differing := accepted.differs(*parties):
        of_others = f"the margin in {LOCK_FILE} was accepted for other engines ({'; '.join(differing)})"
        return Limit(refused=f"{of_others}; if that is meant, {run}")
    upgraded = accepted.upgraded(*parties)
    return Limit(
        nats=accepted.shift,
        source=f"accepted {accepted.date} in {LOCK_FILE}",
        notes=(f"since the margin was accepted: version of {', of '.join(upgraded)}",) if upgraded else (),
    )


def _known_to_differ(baseline: Party, candidate: Party) -> list[str]:
    """Return in what matters two engines are not the same; that a server calls its model otherwise is no such thing."""
    return [words for words in baseline.differs(candidate) if not words.startswith("model ")]


def _recorded(baseline: str, noise: float) -> Limit:
    nats = limit_of(noise)
    return Limit(
        nats=nats,
        word="allowed",
        source="nothing may have changed since the golden was recorded",
        notes=(f"as it was recorded, {explain.plain(baseline, 40)} {blind}",) if (blind := blind_by(noise)) else (),
    )


def _of_class(evidence: Evidence, candidate: EngineEvidence) -> Limit | None:
    """Return the margin in nats of a candidate's declared class, ``None`` where it has no copy on a ladder."""
    ladder = ladder_of(evidence)
    rung = None if ladder is None else ladder.rung(candidate.quantization)
    if ladder is None or rung is None:
        return None
    return _limit_of(ladder, rung, "allowed for its class")


def _of_finest(evidence: Evidence, candidate: EngineEvidence) -> Limit | None:
    """Return the margin in nats of the 8-bit copy on the ladder, which no coarser class widens."""
    ladder = ladder_of(evidence)
    rung = None if ladder is None else ladder.rung(FINEST)
    if ladder is None or rung is None:
        return None
    own = ladder.rung(candidate.quantization) is rung
    word = "allowed for its class" if own else "allowed for 8-bit copies"
    return _limit_of(ladder, rung, word)


def _limit_of(ladder: Ladder, rung: Rung, word: str) -> Limit:
    held = in_nats(ladder, rung)
    source = f"{rung.quantization} on the ladder of {ladder.date} in {LOCK_FILE}"
    if held.margin is None:
        return Limit(
            refused=f"the ladder of {ladder.date} in {LOCK_FILE} cannot tell {_listed(held.alike)} from "
            f"{rung.quantization}, whose copy may shift by {explain.nats(held.most)} where {held.alike[0]} shifts by "
            f"{explain.nats(held.least)} or more"
        )
    return Limit(nats=held.margin, word=word, source=f"{source}, below {held.below}" if held.below else source)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMargin:
    """The forks per token that a pair is held against, and their source; ``refused`` says why there are none."""

    share: float = 0.0
    source: str = ""
    refused: str = ""


def text_margin(evidence: Evidence, candidate: EngineEvidence, *, tag: str = "") -> TextMargin:
    """Return what a pair's text is held against where no margin is given, on all prompts or on those of a tag.

    How often answers part depends on the prompts more than on the weights, so a class of the ladder has a margin for
    the prompts it was measured on and for no others, and for engines that compute as its server did. It has none where
    a coarser class would keep it too. Golden answers are held against their own engine by *nothing may have changed*.
    """
    give = "give check.text(margin=…)"
    baseline, prompts = evidence.engines[evidence.baseline], evidence.prompts
    names = baseline.golden or baseline.name, candidate.golden or candidate.name
    if recorded_noise(evidence, candidate) is not None and names[0] == names[1]:
        since = "nothing may have changed since the golden was recorded"
        return TextMargin(share=LEAST_FORKS, source=f"margin {explain.percent(LEAST_FORKS)}, {since}")
    ladder = ladder_of(evidence)
    if ladder is None:
        none = f"{LOCK_FILE} has no ladder of the weights that {explain.plain(baseline.name, 40)} serves"
        return TextMargin(refused=f"no margin: {none}; run: llmparity calibrate --ladder, or {give}")
    of = _named(ladder)
    if other := unmeasured(ladder, prompts, evidence.sampling):
        return TextMargin(refused=f"no margin: {other}, or {give}")
    tag = tag or _tag_of(prompts, ladder)
    if prompts.rest and (not tag or any(tag in case.tags for case in prompts.rest)):
        some = f"{len(prompts.cases)} of {len(prompts.cases) + len(prompts.rest)} prompts"
        part = f"this run asks {some}, and {of} was measured on all of them; run without --parity-tag, --parity-sample"
        return TextMargin(refused=f"no margin: {part}, or {give}")
    if candidate.kind not in OF_LLAMA_CPP:
        unlike = f"{explain.plain(candidate.name, 40)} is of kind {explain.plain(candidate.kind, 40)}"
        return TextMargin(
            refused=f"no margin: {unlike}, and {of} was measured on llama.cpp: other arithmetic alone can "
            f"part text more often than 8-bit weights do; {give}, or judge by check.logprobs()"
        )
    rung = ladder.rung(candidate.quantization)
    if rung is None:
        declared = f"declares {candidate.quantization}" if candidate.quantization else "does not say its quantisation"
        pin = "" if candidate.quantization else "pin it, or "
        name = explain.plain(candidate.name, 40)
        return TextMargin(refused=f"no margin: {name} {declared}, and {of} has no such class; {pin}{give}")
    return _of_forks(ladder, rung, tag, give)


def _of_forks(ladder: Ladder, rung: Rung, tag: str, give: str) -> TextMargin:
    of, held, there = _named(ladder), in_forks(ladder, rung, tag=tag), _where(tag)
    if held is None:
        none = f"{of} has no forks {there}: too few prompts, or measured before they had the tag"
        return TextMargin(refused=f"no margin: {none}; {_again(ladder, 'these prompts')}, or {give}")
    if held.margin is None:
        alike = (
            f"copies of class {rung.quantization} part at up to {explain.percent(held.most)} of tokens {there}, and at "
            f"{explain.percent(held.least)} or more by {held.alike[0]}: text cannot tell {_listed(held.alike)} from it"
        )
        return TextMargin(refused=f"no margin: {alike}; judge by check.logprobs(), or {give}")
    if held.margin > MOST_FORKS:
        most = f"copies of class {rung.quantization} part at up to {explain.percent(held.most)} of tokens {there}"
        return TextMargin(refused=f"no margin: {most}, which text hardly tells from noise; judge by check.logprobs()")
    source = f"{rung.quantization} on {of}, {ladder.date}, in {LOCK_FILE}, over {HORIZON} tokens"
    source += f" {there}" if tag else ""
    source += f", below {held.below}" if held.below else ""
    return TextMargin(share=held.margin, source=f"margin {explain.percent(held.margin)}, {source}")


def unmeasured(ladder: Ladder, prompts: PromptSet, sampling: Sampling) -> str:
    """Say why a ladder has no margin of text for what a test asks, and what to do; empty where it was measured on that.

    A part of the prompts that it was measured on is no reason here: some tags have margins of their own.
    """
    of, name = _named(ladder), explain.plain(prompts.name, 60)
    again = _again(ladder, name)
    if not ladder.prompt_sha256:
        return f"{of} is of an earlier version, which did not keep on what prompts text was measured; {again}"
    whole = digest((*prompts.cases, *prompts.rest)) if prompts.rest else prompts.digest
    if ladder.prompt_sha256 != whole and (names := _sent_beside(prompts, ladder)):
        fields = " and ".join(names)
        return (
            f"{of} was measured on these prompts without {fields}, which every request has here; calibrate reads no "
            f"marker: write {fields} into every row of the file, and {again}"
        )
    if ladder.prompt_sha256 != whole:
        before = explain.plain(ladder.prompt_set, 60)
        were = f"{before} as it was then" if ladder.prompt_set == prompts.name else before
        return f"{of} was measured on {were}, and other prompts part more or less often; {again}"
    if sampling.max_tokens < ladder.max_tokens:
        shorter = f"answers of at most {ladder.max_tokens} tokens, and shorter ones part more or less often"
        return f"{of} was measured on {shorter}; ask for so many (max_tokens={ladder.max_tokens})"
    if acting := [name for name in _ACTING if getattr(sampling, name) != getattr(Sampling(), name)]:
        return f"{of} was measured without {' and '.join(acting)}, which change how often answers part; leave them out"
    return ""


def _sent_beside(prompts: PromptSet, ladder: Ladder) -> list[str]:
    """Return the fields that all prompts are sent with and that alone make them others than those of a ladder.

    A marker's ``extra_body`` and what it says of reasoning are such fields; empty where something else differs.
    """
    cases = (*prompts.cases, *prompts.rest)
    body, thinking = (_shared([getattr(case, name) for case in cases]) for name in ("extra_body", "thinking"))
    bare = [
        msgspec.structs.replace(
            case,
            extra_body={name: value for name, value in case.extra_body.items() if name not in body},
            thinking={name: value for name, value in case.thinking.items() if name not in thinking},
        )
        for case in cases
    ]
    return [*thinking, *(["extra_body"] if body else [])] if digest(bare) == ladder.prompt_sha256 else []


def _shared(given: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names that all of these have, with the same value."""
    first = given[0] if given else {}
    return [name for name, value in first.items() if all(name in fields and fields[name] == value for fields in given)]


def _again(ladder: Ladder, prompts: str) -> str:
    return f"run: llmparity calibrate --ladder {explain.plain(ladder.model, 60)} --prompts FILE (that of {prompts})"


def _tag_of(prompts: PromptSet, ladder: Ladder) -> str:
    """Return the tag whose prompts are asked, all of them and no others, where the ladder knows how those part."""
    if not prompts.rest:
        return ""
    measured = {tag for rung in ladder.rungs for tag in rung.tags}
    left = {tag for case in prompts.rest for tag in case.tags}
    shared = set.intersection(*(set(case.tags) for case in prompts.cases))
    return min(shared & measured - left, default="")


def _named(ladder: Ladder) -> str:
    return f"the ladder of {explain.plain(ladder.model, 60)}"


def _where(tag: str) -> str:
    return f"on prompts with the tag {explain.plain(tag, 40)}" if tag else "there"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
