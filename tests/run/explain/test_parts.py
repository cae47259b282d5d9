"""What a cause is called that takes a part of the drift away, and that what remains is named beside it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmparity.core.verdict import Cause
from pytest_llmparity.run.explain import search
from pytest_llmparity.run.explain.constraint import Unconstrained
from pytest_llmparity.run.explain.naming import Naming
from pytest_llmparity.run.explain.search import Search
from pytest_llmparity.settings.specification import EngineSpec

ADAPTERS = tuple(
    SimpleNamespace(name=name, kind="llamacpp", fields=("top_k",), other_samplers=False, spec=EngineSpec(name=name))
    for name in "ab"
)
PAIR: Any = SimpleNamespace(
    adapters=ADAPTERS, baseline=ADAPTERS[0], candidate=ADAPTERS[1], answers=lambda _: {"a": {}, "b": {}}
)
EVIDENCE: Any = SimpleNamespace(engines={name: SimpleNamespace(quantization=None) for name in "ab"})
FILE: Any = SimpleNamespace(file=SimpleNamespace(name="tiny.gguf"), answers=lambda *_: {}, why="")
LEFT = Cause(layer="weights or arithmetic", text="what is left", by_exclusion=True)


class OfFile(Search):
    """A search that has answers to compare, whatever they are."""

    def _of(self, answers: Any) -> Any:
        return answers

    def _write_down(self, *_: Any, **__: Any) -> None:
        return None


def remaining(monkeypatch: pytest.MonkeyPatch, engine: str, weights: str) -> list[str]:
    """Return the causes where serving the file shows these two effects."""
    outcomes = iter((engine, weights))

    def effect(*_: Any) -> SimpleNamespace:
        outcome = next(outcomes)
        return SimpleNamespace(outcome=outcome, gone=outcome == "gone", less=outcome == "less")

    monkeypatch.setattr(search, "effect", effect)
    looking = OfFile(pair=PAIR, check=None, kind="text", evidence=EVIDENCE, same_file=FILE)  # type: ignore[arg-type]
    naming = Naming(PAIR, EVIDENCE, lambda *_: False)
    monkeypatch.setattr(naming, "remaining", lambda *_, **__: (LEFT,))
    everything: Any = None
    return [cause.text for cause in looking._remaining(naming, [], everything, known=True)]


def test_two_parts_of_a_drift_do_not_contradict_each_other_and_leave_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remaining(monkeypatch, engine="less", weights="less") == [
        "the weights of b are part of it: tiny.gguf, served as a is, differs less from b",
        "b's engine or its settings are part of it: tiny.gguf, served as a is, differs less from a",
        "what is left",
    ]


def test_weights_and_engine_that_each_leave_little_are_both_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remaining(monkeypatch, engine="gone", weights="gone") == [
        "the weights of b are part of it: tiny.gguf, served as a is, differs less from b",
        "b's engine or its settings are part of it: tiny.gguf, served as a is, differs less from a",
    ]


def test_what_takes_all_of_a_drift_away_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert remaining(monkeypatch, engine="stays", weights="gone") == [
        "the weights of b: tiny.gguf, served as a is, answers as b does"
    ]


def test_a_constraint_without_which_drift_is_less_is_not_said_to_take_it_away() -> None:
    constraint = Unconstrained(PAIR, ())

    assert "without it the drift is gone" in constraint.cause(gone=True).text
    assert "without it the drift is less" in constraint.cause(gone=False).text
