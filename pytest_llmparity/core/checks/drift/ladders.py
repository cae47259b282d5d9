"""What a model's ladder says beside a verdict: which margin a declared class has, which class a shift is about."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.checks.arguments import HORIZON
from pytest_llmparity.core.checks.drift.floor import recorded_noise
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.identity.agreed import FACTOR, LOCK_FILE, Party, proposed
from pytest_llmparity.core.identity.canaries import blind_by, limit_of
from pytest_llmparity.core.identity.ladder import FINEST, LEAST_FORKS, Ladder, Rung, place
from pytest_llmparity.core.words import explain

OF_LLAMA_CPP: Final = frozenset({"llamacpp", "llamacpp-python", "ollama"})
"""Kinds that compute as the server does which a ladder is measured with."""
MOST_FORKS: Final = 0.5
"""Forks per token above which nobody takes a margin from a ladder: answers without a word in common would be near."""


def party_of(engine: EngineEvidence) -> Party:
    """Return an engine as far as margins depend on it."""
    return Party.of(engine.kind, engine.identity, engine.quantization)


def ladder_of(evidence: Evidence) -> Ladder | None:
    """Return the ladder of the model that the baseline serves, known by its weights; ``None`` where there is none."""
    return evidence.agreed.ladder(party_of(evidence.engines[evidence.baseline]))


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
    if accepted is None and of_ladder is not None:
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
        return Limit(refused=f"{LOCK_FILE} has no margin for this pair; {run}, or give {words}")
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
    return Limit(nats=proposed(rung.upper), word="allowed for its class", source=_on(ladder, rung))


def _of_finest(evidence: Evidence, candidate: EngineEvidence) -> Limit | None:
    """Return the margin in nats of the 8-bit copy on the ladder, which no coarser class widens."""
    ladder = ladder_of(evidence)
    rung = None if ladder is None else ladder.rung(FINEST)
    if ladder is None or rung is None:
        return None
    own = ladder.rung(candidate.quantization) is rung
    word = "allowed for its class" if own else "allowed for 8-bit copies"
    return Limit(nats=proposed(rung.upper), word=word, source=_on(ladder, rung))


def _on(ladder: Ladder, rung: Rung) -> str:
    return f"{rung.quantization} on the ladder of {ladder.date} in {LOCK_FILE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMargin:
    """The forks per token that a pair is held against, and their source; ``refused`` says why there are none."""

    share: float = 0.0
    source: str = ""
    refused: str = ""


def text_margin(evidence: Evidence, candidate: EngineEvidence) -> TextMargin:
    """Return what a pair's text is held against where no margin is given.

    How often answers part depends on the prompts more than on the weights, so a class of the ladder has a margin for
    the prompts it was measured on and for no others, and for engines that compute as its server did. Golden answers
    are held against their own engine by *nothing may have changed*.
    """
    give = "give check.text(margin=…)"
    baseline = evidence.engines[evidence.baseline]
    names = baseline.golden or baseline.name, candidate.golden or candidate.name
    if recorded_noise(evidence, candidate) is not None and names[0] == names[1]:
        since = "nothing may have changed since the golden was recorded"
        return TextMargin(share=LEAST_FORKS, source=f"margin {explain.percent(LEAST_FORKS)}, {since}")
    ladder = ladder_of(evidence)
    if ladder is None:
        none = f"{LOCK_FILE} has no ladder of the weights that {explain.plain(baseline.name, 40)} serves"
        return TextMargin(refused=f"no margin: {none}; run: llmparity calibrate --ladder, or {give}")
    of, prompts = f"the ladder of {explain.plain(ladder.model, 60)}", explain.plain(evidence.prompts.name, 60)
    if ladder.prompt_set != evidence.prompts.name:
        other = (
            f"{of} was measured on {explain.plain(ladder.prompt_set, 60)}, and other prompts part more or less often"
        )
        again = f"measure it on these (llmparity calibrate --ladder, with --prompts and the file of {prompts})"
        return TextMargin(refused=f"no margin: {other}; {again}, or {give}")
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
    share = max(LEAST_FORKS, FACTOR * rung.most_forks)
    if share > MOST_FORKS:
        most = f"copies of class {rung.quantization} part at up to {explain.percent(rung.most_forks)} of tokens there"
        return TextMargin(refused=f"no margin: {most}, which text hardly tells from noise; judge by check.logprobs()")
    source = f"{rung.quantization} on {of}, {ladder.date}, in {LOCK_FILE}, over {HORIZON} tokens"
    return TextMargin(share=share, source=f"margin {explain.percent(share)}, {source}")
