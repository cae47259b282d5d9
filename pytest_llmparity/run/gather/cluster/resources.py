"""Whether a cluster has the resources that the engines of a run need, seen before any of them is reserved."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.words.explain import count
from pytest_llmparity.settings.specification import EngineSpec, bundle_of


def refuse_unplaceable(specs: Sequence[EngineSpec], nodes: Sequence[Mapping[str, Any]]) -> None:
    """Raise ``UsageError`` where the cluster will never have what engines need, whoever else uses it.

    Everything has to find a place at the same time, each replica on one node. Of replicas that all need the same this
    is exact; of several kinds some ways to lay them out are tried, and where none does a better one may be there.
    """
    there = [dict(node["Resources"]) for node in nodes if node["Alive"]]
    wanted: Counter[str] = Counter()
    for spec in specs:
        bundle = bundle_of(spec)
        if not any(all(node.get(resource, 0.0) >= amount for resource, amount in bundle.items()) for node in there):
            raise UsageError(
                f"--parity-executor ray: {spec.name} needs {amounts(bundle)} on one node, and no node has that; "
                f"{_has(there)}. Change num_cpus, num_gpus or resources of [engines.{spec.name}]"
            )
        for resource, amount in bundle.items():
            wanted[resource] += amount * spec.replicas  # type: ignore[assignment]  # a counter of fractions
    total = {resource: sum(node.get(resource, 0.0) for node in there) for resource in wanted}
    short = [resource for resource in wanted if wanted[resource] > total[resource] + 1e-9]
    if short:
        who = ", ".join(f"{spec.name}{f' {spec.replicas} times' if spec.replicas > 1 else ''}" for spec in specs)
        missing = " and ".join(
            f"{wanted[resource]:g} {resource} where the cluster has {total[resource]:g}" for resource in short
        )
        raise UsageError(
            f"--parity-executor ray: all engines together ({who}) need {missing}; take fewer replicas or engines, or "
            "let each have less"
        )
    left = min((_left_over(specs, there, order) for order in _orders(wanted)), key=len)
    if left:
        wanting = Counter(left)
        who = " and ".join(
            f"{count(wanting[spec.name], 'replica')} of {spec.name} ({amounts(bundle_of(spec))} each)"
            for spec in specs
            if wanting[spec.name]
        )
        alike = len({tuple(sorted(bundle_of(spec).items())) for spec in specs}) == 1
        raise UsageError(
            f"--parity-executor ray: {'there is' if alike else 'there may be'} no place for {who} when the others have "
            f"theirs, as each needs all of it on one node; {_has(there)}. Take fewer replicas or engines, or let each "
            "have less"
        )


Order = Callable[[Mapping[str, float]], float]


def _orders(wanted: Mapping[str, float]) -> list[Order]:
    """Return in which orders bundles are laid out: as they come, and those first that need most of something."""
    return [lambda bundle: 0.0, *(functools.partial(_need, resource) for resource in sorted(wanted))]


def _need(resource: str, bundle: Mapping[str, float]) -> float:
    return -bundle.get(resource, 0.0)


def _left_over(specs: Sequence[EngineSpec], nodes: Sequence[Mapping[str, float]], order: Order) -> list[str]:
    """Return the engines of the bundles that find no place where each takes the fullest node that has one for it."""
    free = [dict(node) for node in nodes]
    bundles = [(spec.name, bundle_of(spec)) for spec in specs for _ in range(spec.replicas)]
    left = []
    for name, bundle in sorted(bundles, key=lambda of: order(of[1])):
        fits = [
            node
            for node in free
            if all(node.get(resource, 0.0) + 1e-9 >= amount for resource, amount in bundle.items())
        ]
        if not fits:
            left.append(name)
            continue
        node = min(fits, key=lambda node: sum(node.get(resource, 0.0) - amount for resource, amount in bundle.items()))
        for resource, amount in bundle.items():
            node[resource] -= amount
    return left


def amounts(bundle: Mapping[str, float]) -> str:
    """Return resources in words.

    >>> amounts({"CPU": 1.0, "GPU": 0.5})
    '1 CPU and 0.5 GPU'
    """
    return " and ".join(f"{amount:g} {resource}" for resource, amount in bundle.items())


def _has(there: Sequence[Mapping[str, float]]) -> str:
    shown = []
    for node in there:
        of_node = {
            resource: amount for resource, amount in node.items() if resource in ("CPU", "GPU") or not _own(resource)
        }
        shown.append(amounts(dict(sorted(of_node.items()))) or "nothing")
    return f"{count(len(there), 'node')}: {'; '.join(shown)}"


def _own(resource: str) -> bool:
    """Tell whether Ray itself made up a resource."""
    return resource in ("memory", "object_store_memory") or resource.startswith(("node:", "accelerator_type:"))
