"""What a cluster will never have is said before anything is reserved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.run.gather.cluster.resources import refuse_unplaceable
from pytest_llmparity.settings.specification import EngineSpec


def nodes(*resources: Mapping[str, float], alive: bool = True) -> list[Mapping[str, Any]]:
    return [{"Alive": alive, "Resources": each} for each in resources]


def engine(name: str = "a", **keys: Any) -> EngineSpec:
    return EngineSpec(name=name, kind="llamacpp", model="m", **keys)


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([engine(num_gpus=1)], "a needs 1 CPU and 1 GPU on one node, and no node has that; 2 nodes: 3 CPU; 3 CPU"),
        ([engine(num_cpus=4)], "a needs 4 CPU on one node"),
        ([engine(replicas=7)], "all engines together (a 7 times) need 7 CPU where the cluster has 6"),
        ([engine(replicas=3, num_cpus=2)], "there is no place for 1 replica of a (2 CPU each) when the others have"),
        (
            [engine(num_cpus=2, replicas=2), engine("b", num_cpus=1.5)],
            "there may be no place for 1 replica of b (1.5 CPU each) when the others have theirs",
        ),
    ],
)
def test_what_never_finds_a_place_is_refused(specs: Sequence[EngineSpec], words: str) -> None:
    with pytest.raises(UsageError) as error:
        refuse_unplaceable(specs, [*nodes({"CPU": 3.0}, {"CPU": 3.0}), *nodes({"CPU": 64.0}, alive=False)])

    assert words in str(error.value)


@pytest.mark.parametrize(
    "specs",
    [
        [engine(replicas=6)],
        [engine(num_cpus=1), engine("b", num_cpus=2, replicas=2), engine("c", num_cpus=1)],
        [engine(num_gpus=0.1, num_cpus=0, replicas=10), engine("b", resources={"one": 1})],
    ],
)
def test_what_finds_one_is_not(specs: Sequence[EngineSpec]) -> None:
    refuse_unplaceable(specs, nodes({"CPU": 3.0, "GPU": 1.0}, {"CPU": 3.0, "one": 1.0}))


@given(st.lists(st.integers(0, 8), min_size=1, max_size=4), st.integers(1, 4), st.integers(1, 12))
def test_of_replicas_that_need_the_same_the_answer_is_exact(cpus: list[int], need: int, replicas: int) -> None:
    there = nodes(*({"CPU": float(cpu)} for cpu in cpus))
    spec = engine(num_cpus=need, replicas=replicas)

    fits = sum(cpu // need for cpu in cpus) >= replicas
    if fits:
        refuse_unplaceable([spec], there)
        return
    with pytest.raises(UsageError):
        refuse_unplaceable([spec], there)
