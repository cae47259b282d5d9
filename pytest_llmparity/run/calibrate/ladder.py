"""A model's own ladder: its copies served beside its unquantised file, each asked the same prompts."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from pytest_llmparity.core.checks.base import BaseCheck
from pytest_llmparity.core.checks.drift.logprobs import ALTERNATIVES
from pytest_llmparity.core.checks.drift.text import TextCheck
from pytest_llmparity.core.checks.missing import Missing
from pytest_llmparity.core.checks.tags import within
from pytest_llmparity.core.errors import NotMeasured
from pytest_llmparity.core.evidence import Evidence, Needs, Tokens
from pytest_llmparity.core.identity.ladder import Forks, Ladder, Rung
from pytest_llmparity.core.identity.quantization import PLAIN
from pytest_llmparity.core.verdict import Verdict
from pytest_llmparity.engines.facts import files
from pytest_llmparity.run.calibrate.pair import ANY, TEST, declared
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec, Settings

SOURCE: Final = "source"
"""Name of the engine that serves the unquantised file."""
_ANY_TEXT: Final = TextCheck(margin=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Copies(BaseCheck):
    """Asks for answers with logprobs and nothing else: a copy has no noise floor of its own."""

    kind: ClassVar[str] = "ladder"

    def needs(self) -> Needs:
        return Needs(top_logprobs=ALTERNATIVES, capabilities=frozenset({"logprobs"}))

    def problem(
        self, *, cases: int, groups: int, engines: int, sequential: bool = False, tokens: Tokens = ()
    ) -> str | None:
        return None

    def power(self, *, cases: int, groups: int, sequential: bool = False, tokens: Tokens = ()) -> str:
        return str(self)

    def verdicts(self, evidence: object) -> Iterable[Verdict]:
        return ()


def digest_of(source: Path) -> str:
    """Return the digest of an unquantised GGUF file; ``NotMeasured`` where it is none, ``LaunchError`` where broken."""
    if not source.is_file():
        raise NotMeasured(f"there is no file {source}; --ladder takes an unquantised GGUF file, F16, BF16 or F32")
    facts = files.gguf_facts(source)
    quantization = facts["quantization"].value if "quantization" in facts else "unknown"
    if quantization not in PLAIN:
        raise NotMeasured(
            f"the weights of {source.name} are {quantization}; a ladder is measured from unquantised ones, F16, BF16 "
            "or F32"
        )
    return str(facts["digest"].value)


def settings_for(source: Path, copies: Mapping[str, Path]) -> Settings:
    """Return the settings under which the file and its copies, by class, are asked one after the other."""
    names = {SOURCE: source} | {quantization.lower(): path for quantization, path in copies.items()}
    specs = [
        EngineSpec(name=name, kind="llamacpp", model=str(path), model_path=path, launch="process")
        for name, path in names.items()
    ]
    return Settings(
        engines=tuple(specs),
        baseline=SOURCE,
        baseline_source="the file",
        residency="one-at-a-time",
        resume="fresh",
    )


def measure(
    session: Session,
    *,
    source: Path,
    digest: str,
    classes: Sequence[str],
    prompts: Path,
    made_by: str,
    today: datetime.date,
) -> Ladder:
    """Ask the file and its copies and return the ladder; ``NotMeasured`` where one of them cannot be asked."""
    declared(session, prompts, _Copies())
    session.gather()
    evidence = session.evidence(TEST, ANY)
    assert evidence is not None
    shifts, forks = {verdict.engine: verdict for verdict in ANY.judge(evidence)}, _forks(evidence)
    of_tags = {tag: _forks(within(evidence, tag)) for tag in evidence.prompts.tag_sizes}
    rungs = []
    for quantization in classes:
        name = quantization.lower()
        of_tag = {
            tag: of_copy
            for tag, by_engine in of_tags.items()
            if _whole(by_engine[name], within(evidence, tag)) and (of_copy := _bounded(by_engine[name])) is not None
        }
        for verdict in (shifts[name], forks[name]):
            if not _whole(verdict, evidence):
                raise NotMeasured(f"{quantization}: {verdict.reason or verdict.message}")
        rungs.append(_rung(quantization, shifts[name], forks[name], of_tag))
    first = shifts[classes[0].lower()]
    identity = evidence.engines[SOURCE].identity
    return Ladder(
        digest=digest,
        model=source.name,
        date=today.isoformat(),
        server=f"llamacpp {identity.get('version') or identity.get('build') or ''}".strip(),
        made_by=made_by,
        prompts=first.n,
        groups=first.groups,
        prompt_set=prompts.stem,
        plugin=session.version,
        prompt_sha256=evidence.prompts.digest,
        max_tokens=evidence.sampling.max_tokens,
        rungs=tuple(sorted(rungs, key=lambda rung: rung.shift)),
    )


def _whole(verdict: Verdict, evidence: Evidence) -> bool:
    """Whether a verdict rests on as many of the prompts as a gate's must, those aside that the engines cannot take."""
    left_out = evidence.engines[evidence.baseline].left_out.keys() | evidence.engines[verdict.engine].left_out.keys()
    return Missing(of=len(evidence.prompts.by_id.keys() - left_out), used=verdict.n).enough


def _forks(evidence: Evidence) -> dict[str, Verdict]:
    return {verdict.engine: verdict for verdict in _ANY_TEXT.judge(evidence) if verdict.kind == "text"}


def _bounded(verdict: Verdict) -> Forks | None:
    numbers = (verdict.estimate, verdict.lower, verdict.upper)
    if any(number is None for number in numbers):
        return None
    estimate, least, most = (round(number, 6) for number in numbers if number is not None)
    return Forks(forks=estimate, least_forks=least, most_forks=most)


def _rung(quantization: str, shift: Verdict, verdict: Verdict, of_tags: Mapping[str, Forks]) -> Rung:
    numbers, forks = (shift.estimate, shift.lower, shift.upper), _bounded(verdict)
    if forks is None or any(number is None for number in numbers):
        raise NotMeasured(f"{quantization}: {shift.reason or verdict.reason or shift.message}")
    estimate, lower, upper = (round(number, 6) for number in numbers if number is not None)
    return Rung(
        quantization=quantization,
        shift=estimate,
        lower=lower,
        upper=upper,
        forks=forks.forks,
        least_forks=forks.least_forks,
        most_forks=forks.most_forks,
        tags=of_tags,
    )
