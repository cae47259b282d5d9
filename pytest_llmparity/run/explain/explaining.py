"""After judging: which verdicts are explained by experiments, on which prompts, and what is kept of that."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

from pytest_llmparity.core.checks.base import worded
from pytest_llmparity.core.checks.drift.floor import own_shift
from pytest_llmparity.core.checks.drift.logprobs import LogprobsCheck
from pytest_llmparity.core.checks.drift.text import TextCheck
from pytest_llmparity.core.compare.answers import parted
from pytest_llmparity.core.diagnosis import layers
from pytest_llmparity.core.diagnosis.effects import NOTHING, noise_of
from pytest_llmparity.core.errors import EngineError
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.ports import Progress
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.prompts.arms import as_declared
from pytest_llmparity.core.sample import Request, to_json
from pytest_llmparity.core.verdict import Explanation, Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.experiments import rendered_apart, rendered_lines
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.explain import due, quantity_of, remedies, rendering_due, untried
from pytest_llmparity.run.explain.asking import Pair
from pytest_llmparity.run.explain.same_file import SameFile
from pytest_llmparity.run.explain.search import Search
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.judge.judging import Judging
from pytest_llmparity.run.ledger import MERGED, Allowance, RunState
from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.run.plan import Declaration, floor_order, unit_of
from pytest_llmparity.settings.specification import Settings
from pytest_llmparity.store.runs import Store

CASES: Final = 16
"""Prompts of every experiment: with so many the paired sign test shows that drift is less where nine of ten agree."""
NOT_STORED: Final = (
    "experiments belong to the live run, and that made none for this check as it is written now; run it live again "
    "(with --parity-explain also where it passes)"
)
NOT_UP: Final = "experiments take both engines, and they are not both up any more"
GOLDEN: Final = "experiments ask both engines, and one of these has golden or recorded answers only"
NO_DRIFT: Final = "nothing differs, so that there is nothing to explain"
LATER: Final = "experiments ask first turns, and no conversation that differs parts in its first"
LEAST: Final = 1e-9
"""A margin for drift within its margin that no measured noise says: a check takes none of 0."""
IN_TURN: Final = 'experiments ask both engines side by side, which residency "one-at-a-time" rules out'
RENDERED: Final = {"chat template", "BOS", "hidden text", "system prompt", "rendered prompt"}
"""Causes that change how many tokens a prompt has."""
CUT: Final = {"cut", "oldest turns"}
SPENT: Final = "explained"
"""Name of the document that says how many requests and seconds experiments of the run have taken by now."""


@dataclass(frozen=True)
class Explaining:
    """Explains verdicts of one run. ``alone`` gives a block in which no other process of the run makes experiments."""

    settings: Settings
    judging: Judging
    state: RunState
    store: Store
    fleet: Fleet
    loop: LoopThread
    progress: Progress
    alone: Callable[[], AbstractContextManager[None]]

    def explained(
        self, declaration: Declaration, verdicts: Sequence[Verdict], of_body: Mapping[str, Check]
    ) -> list[Verdict]:
        """Return the verdicts of one test, those that fail with what experiments say of their cause.

        ``of_body`` are the checks that are not in its marker.
        """
        checks = {**of_body, **{str(check): check for check in declaration.checks}}
        of_pairs: dict[str, list[Verdict]] = {}
        for verdict in due(verdicts, self.settings):
            of_pairs.setdefault(verdict.engine, []).append(verdict)
        known: dict[int, Explanation] = {}
        for candidate, of_pair in of_pairs.items():
            explanations = self._of_pair(declaration, checks, candidate, of_pair)
            known |= {id(v): explanations[_key(v)] for v in of_pair if _key(v) in explanations}
        explained = [with_explanation(verdict, known.get(id(verdict))) for verdict in verdicts]
        explained = [self._without_guesses(declaration, verdict, explained) for verdict in explained]
        explained = [
            self._with_renderings(declaration, v) if rendering_due([v], self.settings) else v for v in explained
        ]
        return [v if v.cause or v.explanation else with_explanation(v, untried(v, self.settings)) for v in explained]

    def _with_renderings(self, declaration: Declaration, verdict: Verdict) -> Verdict:
        """Return a verdict on prompts with the place at which both engines render the first one that differs apart."""
        name = f"rendered/{self.judging.baseline}|{verdict.engine}/{unit_of(declaration).key}"
        with self.alone():
            kept = self.store.document(self.judging.run, name, dict[str, tuple[str, ...]])
            if kept is None and self.settings.mode != "replay":
                self.store.put_document(self.judging.run, name, self._rendered_apart(declaration, verdict))
                # Read again: without keys that an engine repeats.
                kept = self.store.document(self.judging.run, name, dict[str, tuple[str, ...]])
        known = kept or {}
        details = (*known.get("lines", ()), *verdict.details, *known.get("whole", ()))
        return dataclasses.replace(verdict, details=details)

    def _rendered_apart(self, declaration: Declaration, verdict: Verdict) -> dict[str, list[str]]:
        """Ask both engines how they render the first case on which they differ; say so where one does not tell.

        ``lines`` say where the renderings part, ``whole`` holds them against each other line by line.
        """
        case = next((declaration.prompts.by_id[difference.case] for difference in verdict.differing), None)
        adapters = self._adapters(verdict.engine)
        if case is None or case.messages is None or case.tools or adapters is None:
            return {}
        names = [adapter.name for adapter in adapters]
        if not all(adapter.renderings for adapter in adapters):
            untold = [None if adapter.renderings == 0 else "" for adapter in adapters]
            return {"lines": rendered_apart(case.id, names, untold)}
        spent, passed = self._spent()
        allowance = self._allowance(spent, passed)
        if not allowance.take(sum(adapter.renderings for adapter in adapters), purpose="the rendered prompts"):
            return {}
        try:
            texts = [adapter.rendered(case.request(declaration.sampling)) for adapter in adapters]
        except EngineError:
            return {}
        finally:
            self._put_spent(spent, passed, allowance)
        return {"lines": rendered_apart(case.id, names, texts), "whole": rendered_lines(names, texts)}

    def _without_guesses(self, declaration: Declaration, verdict: Verdict, all_of_test: Sequence[Verdict]) -> Verdict:
        """Return a verdict without what token counts let one think of its pair, where experiments showed what it is.

        ``check.prompts()`` fails all the same, by the counts, and carries the cause.
        """
        of_pair = [v for v in all_of_test if (v.engine, v.baseline) == (verdict.engine, verdict.baseline)]
        causes = {c.layer: c.text for v in of_pair if v.explanation for c in v.explanation.causes if not c.by_exclusion}
        shown = [text for layer, text in causes.items() if layer in RENDERED]
        if not shown or causes.keys() & CUT:
            return verdict
        evidence = self.judging.evidence(declaration, declaration.checks[0])
        guesses = layers.count_lines(evidence, evidence.engines[verdict.engine])
        verdict = dataclasses.replace(verdict, differs=tuple(line for line in verdict.differs if line not in guesses))
        if verdict.kind != "prompts" or verdict.reason not in guesses:
            return verdict
        differing = f"{len(verdict.differing)} of {explain.count(verdict.n, 'prompt')}"
        reason = f"{verdict.engine} counts other numbers of tokens than {verdict.baseline} in {differing}"
        details = tuple(line for line in verdict.details if line not in guesses)
        return worded(dataclasses.replace(verdict, reason=reason, details=details, cause="; ".join(shown)))

    def _of_pair(
        self, declaration: Declaration, checks: Mapping[str, Check], candidate: str, verdicts: Sequence[Verdict]
    ) -> dict[str, Explanation]:
        """Return what is known by verdict: what was stored, and of the others what experiments say now."""
        unit = unit_of(declaration)
        name = f"explained/{self.judging.baseline}|{candidate}/{unit.key}"
        if self.settings.mode == "replay":
            stored = self._stored(name)
            why = NOT_STORED
            if self.store.raw_document(self.judging.run, MERGED) is not None:
                names = f"{self.judging.baseline},{candidate}"
                why = (
                    "shards make no experiments, and this run was put together of them; on one machine, "
                    f"pytest {declaration.test} --engines {names} --parity-explain looks for it"
                )
            return {_key(v): stored.get(_key(v), Explanation(note=why)) for v in verdicts}
        with self.alone():  # and each pair once
            stored = self._stored(name)
            missing = [verdict for verdict in verdicts if _key(verdict) not in stored]
            if missing:
                stored |= self._asked(declaration, checks, candidate, missing)
                self.store.put_document(self.judging.run, name, {key: to_json(e) for key, e in stored.items()})
                stored = self._stored(name)  # as a replay reads it: without keys that an engine repeats
        return stored

    def _stored(self, name: str) -> dict[str, Explanation]:
        return self.store.document(self.judging.run, name, dict[str, Explanation]) or {}

    def _asked(
        self, declaration: Declaration, checks: Mapping[str, Check], candidate: str, verdicts: Sequence[Verdict]
    ) -> dict[str, Explanation]:
        """Make the experiments on one pair; what goes wrong is said, and is no error of the verdicts."""
        if self._golden(candidate):
            return {_key(verdict): Explanation(note=GOLDEN) for verdict in verdicts}
        adapters = self._adapters(candidate)
        if adapters is None:
            note = IN_TURN if self.settings.residency == "one-at-a-time" else NOT_UP
            return {_key(verdict): Explanation(note=note) for verdict in verdicts}
        names = f"{candidate} against {self.judging.baseline}"
        spent, passed = self._spent()
        allowance = self._allowance(spent, passed)
        most = self._most(spent)
        tell = functools.partial(self.progress.experiments, names, most=most)
        if most == 0:
            self.progress.say(f"{names}: no experiments, no request is left of those of --parity-max-requests")
        else:
            self.progress.say(f"{names}: experiments that show a cause")
            tell(0)
        explanations: dict[str, Explanation] = {}
        same = SameFile(self.fleet, adapters)
        try:
            for tag in dict.fromkeys(verdict.tag for verdict in verdicts):
                of_tag = [verdict for verdict in verdicts if verdict.tag == tag]
                pair = self._pair(declaration, adapters, of_tag, allowance, tag, tell)
                if not pair.cases:
                    explanations |= {_key(verdict): Explanation(note=LATER) for verdict in of_tag}
                    continue
                for verdict in of_tag:
                    if verdict.outcome is Outcome.PASS and not verdict.differing and not _moved(verdict):
                        explanations[_key(verdict)] = Explanation(note=NO_DRIFT)
                        continue
                    explanations[_key(verdict)] = self._search(declaration, pair, checks[verdict.check], verdict, same)
        finally:
            self.progress.end()
            self._put_spent(spent, passed, allowance)
        return explanations

    def _search(
        self, declaration: Declaration, pair: Pair, check: Check, verdict: Verdict, same: SameFile
    ) -> Explanation:
        evidence = self.judging.evidence(declaration, check, alpha=verdict.alpha)
        noise = noise_of(evidence, verdict, functools.partial(own_shift, evidence.prompts.by_id))
        search = Search(
            pair=pair,
            check=held_against(check, verdict, noise=noise),
            kind=quantity_of(verdict),
            evidence=evidence,
            noise=noise,
            within=verdict.outcome is not Outcome.FAIL,
            accepting=remedies.accepting(
                verdict.outcome, check, declaration.checks, *(adapter.spec for adapter in pair.adapters)
            ),
            same_file=same,
        )
        return search.explain()

    def _spent(self) -> tuple[int, float]:
        """Return how many requests and seconds experiments of this run have taken, on whichever pairs."""
        sums = self.store.document(self.judging.run, SPENT, dict[str, float]) or {}
        return int(sums.get("requests", 0)), float(sums.get("seconds", 0.0))

    def _put_spent(self, spent: int, passed_s: float, allowance: Allowance) -> None:
        """Add what was sent within an allowance to what experiments of this run had taken before."""
        sums = {"requests": spent + allowance.sent, "seconds": passed_s + allowance.passed_s}
        self.store.put_document(self.judging.run, SPENT, sums)

    def _most(self, spent: int) -> int:
        """Return how many requests experiments on one pair may send: their own number, within what the run has left."""
        own, of_run = self.settings.explain_requests, self.settings.max_requests
        return own if of_run is None else min(own, max(0, of_run - self.state.requests - spent))

    def _allowance(self, spent: int, passed_s: float) -> Allowance:
        """Return what experiments on one pair may still use: requests, and the time that all before left of the run's.

        Its sentence names the option that set the number.
        """
        most, seconds, used_s = self._most(spent), self.settings.budget_s, self.state.seconds + passed_s
        if most < self.settings.explain_requests:
            return Allowance(requests=most, seconds=seconds, used_s=used_s)
        return Allowance(requests=most, seconds=seconds, used_s=used_s, option="--parity-explain-requests")

    def _golden(self, candidate: str) -> bool:
        """Whether one engine of a pair is golden answers or a recording, of which nobody can ask anything new."""
        records = [self.judging.records[name] for name in (self.judging.baseline, candidate)]
        return any(record.golden is not None or record.recording for record in records)

    def _adapters(self, candidate: str) -> tuple[Adapter, Adapter] | None:
        """Return both engines, ``None`` where they are not both up: nothing is started or loaded for an experiment."""
        if not self.state.requests or self.settings.residency == "one-at-a-time" or self._golden(candidate):
            return None
        adapters = []
        for name in (self.judging.baseline, candidate):
            if self.fleet.gone(name) is not None:
                return None
            adapter = self.fleet.engage(name).adapter
            if adapter is None:
                return None
            # Another process of the run may have asked what it can do, or an earlier one.
            adapter.learnt(self.judging.records[name].capabilities)
            adapters.append(adapter)
        return adapters[0], adapters[1]

    def _pair(
        self,
        declaration: Declaration,
        adapters: tuple[Adapter, Adapter],
        verdicts: Sequence[Verdict],
        allowance: Allowance,
        tag: str,
        tell: Callable[[int], None],
    ) -> Pair:
        """Return the engines with the prompts of the experiments, those with a tag where one is given."""
        cases = self._cases(declaration, adapters[1].name, verdicts, tag)
        wanted = declaration.needs().top_logprobs if all(adapter.can.logprobs for adapter in adapters) else None
        horizons = [verdict.horizon for verdict in verdicts]
        requests: dict[str, Request] = {}
        for case in cases:
            request = case.request(declaration.sampling, top_logprobs=None if case.tools else wanted)
            request = dataclasses.replace(request, tool_results={}, max_turns=0, n=0)  # see _cases
            if all(quantity_of(v) in ("text", "logprobs") for v in verdicts) and (
                most := max(h or 0 for h in horizons)
            ):
                sampling = dataclasses.replace(
                    request.sampling, max_tokens=min(request.sampling.max_tokens, most)
                )  # what lies beyond counts for nothing
                request = dataclasses.replace(request, sampling=sampling)
            requests[case.id] = request
        return Pair(
            adapters,
            cases,
            requests,
            concurrency=declaration.concurrency,
            loop=self.loop,
            allowance=allowance,
            gone=self.fleet.gone,
            tell=tell,
        )

    def _cases(self, declaration: Declaration, candidate: str, verdicts: Sequence[Verdict], tag: str) -> list[Case]:
        """Return the prompts of the experiments: those that differ first, spread over groups, the same in every run.

        What differs and is not counted, such as near-ties that are left aside, comes behind what is. An experiment asks
        the first turn of a conversation; one that parts later, or in none, would seem to be healed by it.
        """
        differences = [difference for verdict in verdicts for difference in verdict.differing]
        counted = {difference.case for difference in differences if difference.counted}
        differing = {difference.case for difference in differences}
        evidence = self.judging.evidence(declaration, declaration.checks[0])
        answered = [evidence.engines[name].answers() for name in (self.judging.baseline, candidate)]
        prompts = as_declared(declaration.prompts)
        prompts = prompts.of_tag(tag) if tag else prompts
        cases = [
            case
            for case in floor_order(prompts)
            if all(case.id in by_case for by_case in answered)
            and not (case.tool_results and parted(*(by_case[case.id] for by_case in answered)) != 1)
        ]
        groups: Counter[str] = Counter()
        rank: dict[str, int] = {}
        for case in cases:
            if case.id in counted:
                rank[case.id] = groups[case.group]
                groups[case.group] += 1
        order = {case.id: (case.id not in counted, case.id not in differing, rank.get(case.id, 0)) for case in cases}
        return sorted(cases, key=lambda case: order[case.id])[:CASES]


def held_against(check: Check, verdict: Verdict, *, noise: float) -> Check:
    """Return a check that holds experiments against the margin of its verdict, or ``noise`` where it does not fail.

    Drift that is within its margin cannot go away by that margin: it has where no more is left than engines differ from
    themselves by. A ladder has a margin of text for all the prompts it was measured on, or for those of a tag; an
    experiment asks a few of them, whose answers it would leave unjudged.
    """
    within = verdict.outcome is not Outcome.FAIL
    if isinstance(check, TextCheck) and (within or check.margin is None):
        return dataclasses.replace(check, margin=max(noise, LEAST) if within else verdict.margin)
    if isinstance(check, LogprobsCheck) and within:
        return dataclasses.replace(check, shift=max(noise, LEAST))
    return check


def _moved(verdict: Verdict) -> bool:
    """Whether a verdict's drift is one that no single case shows, as a shift is."""
    return verdict.kind == "logprobs" and (verdict.estimate or 0.0) > NOTHING


def with_explanation(verdict: Verdict, explanation: Explanation | None) -> Verdict:
    """Return a verdict with what experiments say; only what was shown is called its cause."""
    if explanation is None:
        return verdict
    shown = [cause.text for cause in explanation.causes if not cause.by_exclusion]
    weights = any(cause.layer == "weights" and not cause.by_exclusion for cause in explanation.causes)
    differs = tuple(line for line in verdict.differs if not (weights and line.startswith("weights: ")))
    return dataclasses.replace(verdict, explanation=explanation, cause="; ".join(shown) or None, differs=differs)


def _key(verdict: Verdict) -> str:
    return f"{verdict.check}\n{verdict.kind}"
