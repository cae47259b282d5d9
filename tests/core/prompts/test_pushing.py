from __future__ import annotations

import pytest

from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.compare.order import KeyOrders
from pytest_llmparity.core.prompts.pushing import Canary, canaries
from pytest_llmparity.core.sample import Completion


@pytest.mark.parametrize("canary", canaries(), ids=lambda canary: canary.name)
def test_what_a_canary_asks_for_breaks_its_schema(canary: Canary) -> None:
    reading = Contract(canary.schema, canary.name).hold(Completion(text=canary.text))

    assert reading.problem is not None or KeyOrders().moved(reading.value, canary.schema)
    assert canary.case.messages is not None
    assert canary.text in canary.case.messages[0]["content"]


def test_canaries_have_names_of_their_own() -> None:
    assert len({canary.name for canary in canaries()}) == len(canaries()) >= 15
