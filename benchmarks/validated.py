"""Seconds to hold 100,000 answers against a schema, ours beside ``jsonschema``, which Python programs use for it.

    python benchmarks/validated.py [ANSWERS]

Both get the same texts, half of which do not fit, and say of each whether it fits; ours says why as well. They are
asked in turns, so that a busy machine slows both, and CPU seconds are compared.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import jsonschema

from pytest_llmparity.core.checks.schema.contract import Contract
from pytest_llmparity.core.sample import Completion

ANSWERS: Final = 100_000
TURNS: Final = 10
SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "customer": {"type": "string", "minLength": 1},
        "order": {"type": "integer", "minimum": 1000, "maximum": 9999},
        "department": {"enum": ["billing", "shipping", "returns", "technical", "account"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 4},
    },
    "required": ["customer", "order", "department"],
    "additionalProperties": False,
}


def answers(count: int) -> list[str]:
    """Return texts of which each differs; every other one does not fit."""
    return [
        json.dumps({"customer": f"Customer {n}", "order": 1000 + n % 18_000, "department": "billing", "tags": ["a"]})
        if n % 2
        else json.dumps({"customer": f"Customer {n}", "order": "none", "department": "sales"})
        for n in range(count)
    ]


def ours(texts: Sequence[str]) -> int:
    """Return how many fit by our check."""
    contract = Contract(SCHEMA, "the schema")
    return sum(contract.hold(Completion(text=text)).problem is None for text in texts)


def theirs(texts: Sequence[str]) -> int:
    """Return how many fit by ``jsonschema``."""
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return sum(validator.is_valid(json.loads(text)) for text in texts)


def taken(judge: Callable[[Sequence[str]], int], texts: Sequence[str]) -> tuple[float, int]:
    """Return the CPU seconds of one turn, and how many fit."""
    begun = time.process_time()
    fit = judge(texts)
    return time.process_time() - begun, fit


def main(count: int) -> None:
    """Print both, the ratio of each turn's pair, and that both say the same."""
    texts = answers(count)
    share = count // TURNS
    pairs: list[tuple[float, float]] = []
    for turn in range(TURNS):
        part = texts[turn * share : (turn + 1) * share]
        (a, fit), (b, also) = taken(ours, part), taken(theirs, part)
        if fit != also:
            raise SystemExit(f"ours says {fit} fit, jsonschema {also}")
        pairs.append((a, b))
    ratios = sorted(b / a for a, b in pairs)
    print(
        f"{share * TURNS} answers: ours {sum(a for a, _ in pairs):.2f} s, jsonschema {sum(b for _, b in pairs):.2f} s"
    )
    print(
        f"jsonschema takes {statistics.median(ratios):.1f} times as long (turns: {ratios[0]:.1f} to {ratios[-1]:.1f})"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ANSWERS)
