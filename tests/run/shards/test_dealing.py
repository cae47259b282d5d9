"""What each shard asks: its own groups, its share of the noise floor, one of them the timed phase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import DesignError
from pytest_llmparity.core.evidence import FLOOR_STAGES, Check
from pytest_llmparity.core.sample import Phase
from pytest_llmparity.core.shards import Shard
from pytest_llmparity.run.declare.gates import declare
from pytest_llmparity.run.plan import Plan, floor_order, make_plan, rounds
from pytest_llmparity.run.shards.dealing import of_shard, refuse_empty

OF = 3


def planned(folder: Path, *checks: Check, cases: int = 90, groups: int = 30, concurrency: int = 4) -> Plan:
    rows = [{"id": f"c{i}", "prompt": f"question {i}", "group": f"g{i % groups}"} for i in range(cases)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    arguments = ["prompts.jsonl", *checks]
    declared = declare("t", arguments, {"max_tokens": 16}, folders=(folder,), concurrency=concurrency, engines=2)
    return make_plan([declared])


def test_every_case_is_asked_by_one_shard_and_no_group_is_parted(tmp_path: Path) -> None:
    whole = planned(tmp_path, check.text(margin=0.05))
    parts = [of_shard(whole, Shard(index, OF)) for index in range(1, OF + 1)]

    cases = [[case for unit in part.units for case in unit.prompts.cases] for part in parts]
    assert sorted(case.id for of_part in cases for case in of_part) == sorted(
        c.id for c in whole.units[0].prompts.cases
    )
    groups = [{case.group for case in of_part} for of_part in cases]
    assert sum(map(len, groups)) == len(set().union(*groups)) == 30
    assert {part.units[0].key for part in parts} == {whole.units[0].key}


def test_the_cases_of_the_noise_floor_are_those_of_the_whole(tmp_path: Path) -> None:
    whole = planned(tmp_path, check.text(margin=0.05))
    order = [case.id for case in floor_order(whole.units[0].prompts)]
    units = [of_shard(whole, Shard(index, OF)).units[0] for index in range(1, OF + 1)]

    asked = [[case.id for case in unit.repeated] for unit in units]

    assert sorted(case for of_part in asked for case in of_part) == sorted(order[: FLOOR_STAGES[-1]])
    assert all(of_part == sorted(of_part, key=order.index) for of_part in asked)
    steps = rounds(units[0], units[0].repeated)
    assert [step.phase for step in steps[0]] == [Phase.COLD, Phase.MAIN, Phase.WARM, Phase.PARALLEL]
    assert len(steps) == 1


def test_a_shard_repeats_as_many_prompts_as_are_asked_at_once(tmp_path: Path) -> None:
    whole = planned(tmp_path, check.text(margin=0.05), cases=300, groups=300, concurrency=40)

    units = [of_shard(whole, Shard(index, 10)).units[0] for index in range(1, 11)]

    assert {len(unit.repeated) for unit in units} == {30}  # all that it has, of which more than 40 would be enough


def test_one_shard_alone_measures_latency(tmp_path: Path) -> None:
    whole = planned(tmp_path, check.latency(ttft_p95=9, n=60))
    parts = [of_shard(whole, Shard(index, OF)) for index in range(1, OF + 1)]

    assert [len(part.timed) for part in parts] == [1, 0, 0]
    assert [part.requests for part in parts] == [(30 + 60, 30 + 60), (30, 30), (30, 30)]
    # The requests are built alike everywhere: whether answers are streamed is part of what they are.
    assert {part.units[0].needs.timed for part in parts} == {60}


def test_more_shards_than_groups_are_refused_with_the_number_that_can_be(tmp_path: Path) -> None:
    whole = planned(tmp_path, check.similarity(at_least=0.5), cases=40, groups=20)

    refuse_empty(of_shard(whole, Shard(1, 20)))
    with pytest.raises(DesignError, match="20 groups, and there are 21 shards: use 20 of them at most"):
        refuse_empty(of_shard(whole, Shard(1, 21)))


def test_a_shard_is_another_gathering_than_the_whole_and_than_its_neighbour(tmp_path: Path) -> None:
    whole = planned(tmp_path, check.text(margin=0.05))

    plans = [whole, *(of_shard(whole, Shard(index, of)) for index, of in ((1, 1), (1, 2), (2, 2), (1, 3)))]

    assert len({plan.digest(["spec"]) for plan in plans}) == 5
