"""What one shard asks of a plan, and what it writes down so that the whole can be put together. Pure."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import FLOOR_STAGES
from pytest_llmparity.core.sample import JsonObject, to_json
from pytest_llmparity.core.shards import Shard, dealt
from pytest_llmparity.core.words import explain
from pytest_llmparity.run.plan import Part, Plan, Unit, floor_order, narrowed

SHARD: Final = "shard"
"""Name of a run's document that says of which whole it is a shard."""


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """How the noise floor of one unit is measured in the whole run.

    ``order`` are the ids and groups of the cases that may measure it, of ``cases`` in all. It is of ``least`` cases,
    and where it ``grows`` of more, until it lies below each margin of ``held``.
    """

    order: tuple[tuple[str, str], ...]
    cases: int
    concurrency: int
    least: int
    grows: bool
    held: tuple[tuple[float, int], ...]


class ShardDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What a shard says of itself.

    ``plan`` is the hash of what all shards ask together, ``own`` has the shard's cases by the key of their unit,
    ``floors`` how the noise floor is measured where it is.
    """

    index: int
    of: int
    plan: str
    own: Mapping[str, tuple[str, ...]]
    floors: Mapping[str, Floor]

    @property
    def shard(self) -> Shard:
        """Which share of the whole it is."""
        return Shard(self.index, self.of)


def of_shard(plan: Plan, shard: Shard) -> Plan:
    """Return what one shard asks of a plan.

    Groups stay together, and one that several units ask is the same shard's in all of them.
    """
    shards = dealt(_sizes(plan), shard.of)
    parts = [_part(unit, shards, shard.index) for unit in plan.units]
    return dataclasses.replace(
        plan, units=tuple(unit for unit in parts if unit.prompts.cases), shard=shard, whole=plan.units
    )


def refuse_empty(plan: Plan) -> None:
    """Raise ``DesignError`` where there are more shards than groups of prompts: some would have nothing to ask."""
    groups = {case.group for unit in plan.whole for case in unit.prompts.cases}
    if plan.shard is not None and groups and len(groups) < plan.shard.of:
        raise DesignError(
            f"--parity-shard deals out whole groups of prompts, the selected tests have "
            f"{explain.count(len(groups), 'group')}, and there are {plan.shard.of} shards: "
            f"use {len(groups)} of them at most"
        )


def part_lines(plan: Plan, whole: Unit) -> list[str]:
    """Return what the plan says of a shard's part of one test's prompts."""
    part = next((unit for unit in plan.units if unit.key == whole.key), None)
    total = explain.count(len(whole.prompts.cases), "case")
    if part is None or part.part is None:
        return [f"{plan.shard}: none of the {total}"]
    lines = [f"{plan.shard}: {len(part.prompts.cases)} of {total}"]
    if part.part.floor:
        lines[0] += f", {len(part.part.floor)} of them 3 more times on each engine (noise floor)"
    if part.needs.timed and not part.part.timed:
        lines.append("latency is measured by another shard")
    return lines


def document_of(plan: Plan) -> JsonObject:
    """Return what is written down of a shard's plan."""
    assert plan.shard is not None
    floors = {
        unit.key: Floor(
            order=tuple((case.id, case.group) for case in floor_order(unit.prompts)[: FLOOR_STAGES[-1]]),
            cases=len(unit.prompts.cases),
            concurrency=unit.concurrency,
            least=unit.needs.floor_cases,
            grows=unit.floor_grows,
            held=tuple(sorted(unit.needs.floor_held)),
        )
        for unit in plan.whole
        if unit.needs.floor
    }
    whole = dataclasses.replace(plan, units=plan.whole, shard=None, whole=())
    document: JsonObject = to_json(
        ShardDocument(
            index=plan.shard.index,
            of=plan.shard.of,
            plan=whole.digest([]),
            own={unit.key: tuple(case.id for case in unit.prompts.cases) for unit in plan.units},
            floors=floors,
        )
    )
    return document


def _sizes(plan: Plan) -> Counter[str]:
    """Return how many answers each group of prompts takes of an engine."""
    sizes = Counter[str]()
    for unit in plan.units:
        groups = Counter(case.group for case in unit.prompts.cases)
        sizes.update({group: unit.repeats * count for group, count in groups.items()})
    return sizes


def _part(unit: Unit, shards: Mapping[str, int], index: int) -> Unit:
    """Return a unit as one of its shards asks it.

    Which of its cases measure the noise floor is chosen over all of them. How many of these an engine needs is seen
    from the answers to all, so each shard asks those of its own that may be needed, and no fewer than are asked at
    once.
    """
    order = floor_order(unit.prompts)
    own = [case.id for case in order if shards[case.group] == index]
    needed = sum(shards[case.group] == index for case in order[: FLOOR_STAGES[-1]])
    first = min((shards[case.group] for case in order), default=index)
    floor = own[: max(needed, unit.concurrency)] if unit.needs.floor else []
    mine = frozenset(own)
    part = Part(floor=tuple(floor), timed=first == index)
    return dataclasses.replace(narrowed(unit, (case for case in unit.prompts.cases if case.id in mine)), part=part)
