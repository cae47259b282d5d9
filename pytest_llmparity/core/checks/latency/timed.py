"""The timed phase of one engine: its seconds, the block and the prompt of each, and what is to be said of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from pytest_llmparity.core.checks.missing import Missing, describe
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.sample import Phase, Sample
from pytest_llmparity.core.stats import quantiles
from pytest_llmparity.core.words import explain

WORDS: Final = {"ttft": "to the first token", "tpot": "per output token", "e2e": "end to end"}


class Timed:
    """The timed phase of one engine, of which ``n`` requests were wanted."""

    def __init__(self, engine: EngineEvidence, n: int, evidence: Evidence) -> None:
        self.engine = engine
        self._group_of = {case.id: case.group for case in evidence.prompts.cases}
        self._wanted, self._incomplete = n, evidence.incomplete
        asked = sorted(
            (sample for samples in engine.samples.get(Phase.TIMED, {}).values() for sample in samples),
            key=lambda sample: sample.repeat,
        )
        self.samples: Sequence[Sample] = [s for s in asked if s.timing is None or not s.timing.met_load]
        self.loads = len(asked) - len(self.samples)
        self.timings = [sample.timing for sample in self.samples if sample.timing is not None]

    @property
    def blocks(self) -> list[int]:
        """The block of each sample."""
        return _blocks(self.samples)

    def missing(self, used: int, *, metric: str = "") -> Missing:
        """Return what a verdict on ``used`` of the requests wanted does not rest on."""
        name, there, reasons = self.engine.name, len(self.samples), list[str]()
        if short := there - used:
            reasons.append(f"{explain.count(short, 'answer')} of {name} too short to have a time {WORDS[metric]}")
        if self.loads:
            reasons.append(f"{explain.count(self.loads, 'request')} during which {name} loaded its model")
        if (absent := self._wanted - there - self.loads) > 0:
            stopped = self._incomplete or self.engine.untimed or "never asked"
            reasons.append(f"{explain.count(absent, 'request')} of {name}: {stopped}")
        return Missing(
            of=max(self._wanted, there),
            used=used,
            reasons=tuple(reasons),
            stopped=self._incomplete or "" if there < self._wanted else "",
            noun="request",
        )

    def values(self, metric: str) -> tuple[list[float], list[int]]:
        """Return seconds and blocks; a failed request takes for ever, an answer too short for the metric is left out.

        A failure has no stamps; its place among the engine's requests says which block it was in.
        """
        timed: list[tuple[float, int]] = []
        for sample, block in zip(self.samples, _blocks(self.samples), strict=True):
            timing = sample.timing
            if sample.completion is None:
                timed.append((math.inf, block))
            elif timing is not None and (value := getattr(timing, f"{metric}_s")) is not None:
                timed.append((value, block))
        return [value for value, _ in timed], [block for _, block in timed]

    def groups(self, metric: str = "") -> list[str]:
        """Return the group of prompts of each of the :meth:`values`, without a metric of each sample.

        Cases of one group are one piece of evidence: a template that is late is so in each of its prompts.
        """
        return [
            self._group_of.get(sample.case, sample.case)
            for sample in self.samples
            if not metric
            or sample.completion is None
            or (sample.timing is not None and getattr(sample.timing, f"{metric}_s") is not None)
        ]

    def load_of_each(self, metric: str) -> list[int] | None:
        """Return which load of the engine each of the :meth:`values` belongs to, ``None`` where it stayed in memory."""
        of_block = {s.timing.block: s.timing.load for s in self.samples if s.timing is not None}
        if all(load < 0 for load in of_block.values()):
            return None
        first = min(of_block)
        _, blocks = self.values(metric)
        # Of a block that only failed nothing is known but its place: it counts to the load of the block before.
        return [of_block[max((known for known in of_block if known <= block), default=first)] for block in blocks]

    @property
    def by_group(self) -> bool:
        """Whether some of the prompts that were timed are of one group, so that groups are counted, not prompts."""
        return len(set(self.groups())) < len({sample.case for sample in self.samples})

    @property
    def silent(self) -> bool:
        """Whether there is a block of which every request failed."""
        return not set(_blocks(self.samples)) <= {s.timing.block for s in self.samples if s.timing is not None}

    def lines(self, metric: str) -> list[str]:
        """Say the quantiles and what failed."""
        values, blocks = self.values(metric)
        p50, p95, p99 = (explain.seconds(value) for value in quantiles.describe(values))
        where = f"{explain.count(len(values), 'request')} in {explain.count(len(set(blocks)), 'block')}"
        line = f"{self.engine.name} {WORDS[metric]}: p50 {p50}, p95 {p95}, p99 {p99}; {where}"
        return [line, *self.failed_lines()]

    def provisos(self) -> list[str]:
        """Say what these times are of, where that is more, or less, than the engine's own."""
        name, lines = self.engine.name, []
        if self.engine.recording:
            lines.append(f"{name} is a recording: its times are those of the day it was recorded, and of no server now")
        if self.loads:
            count = explain.count(self.loads, "request")
            lines.append(f"{name} loaded its model meanwhile: {count} that may have waited for it do not count")
        slots, under_way = self.engine.identity.facts.get("slots"), max(s.concurrency for s in self.samples)
        if slots is not None and isinstance(slots.value, int) and slots.value < under_way:
            at_once = f"answers {explain.count(slots.value, 'request')} at a time ({slots.source})"
            lines.append(f"{name} {at_once} and {under_way} were under way: its times hold the wait in its queue")
        seen = sum(not sample.prefix for sample in self.samples)
        if seen:
            lines.append(f"{explain.count(seen, 'request')} of {name} as gathered: a prefix cache may have held them")
        return lines

    def failed_lines(self) -> list[str]:
        """Say how many requests failed, and the first of them; nothing when none did."""
        failed = [(sample.case, sample.failure) for sample in self.samples if sample.failure is not None]
        if not failed:
            return []
        case, failure = failed[0]
        first = describe(self.engine.name, case, failure)
        return [f"{explain.count(len(failed), 'failed request')}, counted as over; first: {first}"]


def _blocks(samples: Sequence[Sample]) -> list[int]:
    """Return the block of each sample, given in the order asked (``repeat``); blocks are numbered from 0.

    Where there is no stamp the block follows from the order and the blocks' size, between those of its neighbours; a
    block has at least as many requests as were under way.
    """
    spans: dict[int, tuple[int, int]] = {}
    for sample in samples:
        if sample.timing is not None:
            first, _ = spans.get(sample.timing.block, (sample.repeat, 0))
            spans[sample.timing.block] = (first, sample.repeat)
    size = max((last - first + 1 for first, last in spans.values()), default=samples[0].concurrency if samples else 1)
    blocks: list[int] = []
    for sample in samples:
        if sample.timing is not None:
            blocks.append(sample.timing.block)
            continue
        low = max((block for block, (first, _) in spans.items() if first < sample.repeat), default=0)
        high = min((block for block, (_, last) in spans.items() if last > sample.repeat), default=sample.repeat // size)
        blocks.append(min(max(sample.repeat // size, low), max(low, high)))
    return blocks
