"""Plants causes on a proxy in front of real llama.cpp, as tests/live/test_causes.py does, and counts what is named.

    python -m benchmarks.causes            # the whole matrix into docs/statistics.md; ten minutes of an idle core
    python -m benchmarks.causes NAME...    # some rows, the others stay as they are

A diagnosis is right where it names what was planted and nothing else (nothing, where nothing was), wrong where it names
anything else, none where it names nothing of what was planted.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from pytest_llmparity import check
from pytest_llmparity.core.verdict import Explanation, Outcome, Verdict
from pytest_llmparity.testing import proxy
from tests.live import test_causes as planted
from tests.live.test_causes import FEWER, FINE, LIGHTER, NATS, TEXT, Bench, as_it_is

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs/statistics.md"
MARK: Final = "<!-- causes: made by benchmarks/causes.py -->"
END: Final = "<!-- /causes -->"
HEAD: Final = ["| planted | right is | named | right | wrong | none | requests |", "|---|---|---|--:|--:|--:|--:|"]
LEFT: Final = "weights or arithmetic"
NOTHING: Final = "nothing"
Explained = list[tuple[Verdict, Explanation | None]]


class Row(NamedTuple):
    """One planted cause: its name, the causes that are right, and how the verdicts on it are come to.

    ``settled`` is false where verdicts are to stay open: then right is what they say that differs.
    """

    name: str
    right: frozenset[str]
    judged: Callable[[Bench], Explained]
    settled: bool = True


def rows() -> Iterator[Row]:
    """Yield every row of the matrix."""
    light: dict[str, Any] = {"quantization": LIGHTER, "baseline": LIGHTER}
    for name, (prompts, change, changes, how, layer) in planted.ONE.items():
        yield _row(name, {layer}, prompts, change, changes, {**light, **how})
    for name, (changes, layer) in planted.DEFAULTS.items():
        yield _row(f"{name} lost", {layer}, "mixed", as_it_is, changes, light)
    for number, cache in enumerate(
        (proxy.stale_cache(**planted.ASTRAY), proxy.stale_cache(honoured=(), **planted.ASTRAY))
    ):
        how = {**light, "checks": (TEXT,), "kind": ("vllm", "llamacpp")[number], "caches": True}
        yield _row(
            ("prompt cache, with a salt", "prompt cache")[number], {"prompt cache"}, "stories", as_it_is, (cache,), how
        )
    yield _row("early", {planted.EARLY}, "stories", as_it_is, (planted.CUT,), light)._replace(settled=False)
    how = {"checks": (planted.SMALL,), "quantization": "F16"}
    yield _row("batch", {"concurrency"}, "stories", as_it_is, (planted.CROWDED,), how, of="F16")
    cache_of_4 = ("-ctk", "q4_0", "-ctv", "q4_0")
    yield _row(
        "KV cache Q4_0", {LEFT}, "mixed", as_it_is, (), {"checks": (FINE,), "kv_cache": "q4_0"}, cache_of_4, of="F16"
    )
    for weights in ("Q4_0", "Q4_K_M"):
        yield _row(
            f"weights {weights}",
            {LEFT},
            "mixed",
            as_it_is,
            (),
            {"checks": (NATS,), "quantization": weights},
            of=weights,
        )
    for name, (prompts, change, changes, how, layers) in planted.TWO.items():
        yield _row(name, layers, prompts, change, changes, {**light, "checks": (TEXT,), **how}, count=FEWER)
    for name, weights, changes in (
        ("nothing: F16", "F16", ()),
        ("nothing: top_k", "F16", (proxy.overridden(top_k=5),)),
        ("nothing: a cache", "F16", (proxy.overridden(cache_prompt=True),)),
        ("nothing: Q8_0 within the margin", "Q8_0", ()),
    ):
        how = {"checks": (TEXT, check.logprobs(shift=0.06)), "quantization": weights}
        yield _row(name, set(), "mixed", as_it_is, changes, how, of=weights)


def _row(
    name: str,
    right: set[str],
    prompts: str,
    change: planted.Changed,
    changes: Sequence[proxy.Change],
    how: dict[str, Any],
    args: Sequence[str] = (),
    *,
    of: str = LIGHTER,
    count: int = planted.PROMPTS,
) -> Row:
    def judged(bench: Bench) -> Explained:
        return bench.verdicts(bench.prompts(prompts, change, count), bench.engine(of, *args), *changes, **how)

    return Row(name, frozenset(right), judged)


def cells(row: Row, bench: Bench) -> list[str]:
    """Measure a row and return its cells: how often its diagnoses were right, wrong and none, and their requests."""
    if not row.settled:
        return _open(row, bench)
    failed = [(v, e) for v, e in row.judged(bench) if v.outcome is Outcome.FAIL and e is not None]
    counts, told = Counter[str](), []
    for verdict, explanation in failed:
        named = {cause.layer for cause in explanation.causes}
        counts["right" if named == row.right else "wrong" if named - row.right else "none"] += 1
        told.append(f"{verdict.kind}: {', '.join(sorted(named)) or NOTHING}")
    if not failed:
        counts["none" if row.right else "right"] += 1
        told.append("no verdict fails")
    shown = "the same" if counts.keys() == {"right"} and failed else "; ".join(told)
    requests = " and ".join(str(explanation.requests) for _, explanation in failed) or "0"
    wanted = ", ".join(sorted(row.right)) or NOTHING
    return [row.name, wanted, shown, *(str(counts[word]) for word in ("right", "wrong", "none")), requests]


def _open(row: Row, bench: Bench) -> list[str]:
    """Return the cells of a row whose verdicts are to stay open; one that is settled all the same is wrong."""
    counts, told = Counter[str](), []
    for verdict, _ in row.judged(bench):
        named = {line.partition(":")[0] for line in verdict.differs}
        is_open = verdict.outcome is Outcome.INCONCLUSIVE
        counts["right" if is_open and named == row.right else "none" if is_open and named < row.right else "wrong"] += 1
        told.append(f"{verdict.kind} {verdict.outcome}, differs: {', '.join(sorted(named)) or NOTHING}")
    wanted = f"INCONCLUSIVE, by {', '.join(sorted(row.right))}"
    shown = "the same" if counts.keys() == {"right"} else "; ".join(told)
    return [row.name, wanted, shown, *(str(counts[word]) for word in ("right", "wrong", "none")), "0"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what is named and write it into the page."""
    names = list(sys.argv[1:] if argv is None else argv)
    text = PAGE.read_text("utf-8")
    begin, end = text.index(MARK), text.index(END)
    lines = {line.split(" | ")[0]: line for line in text[begin:end].splitlines() if line.startswith("| ")}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = Bench(ROOT / "fixtures/models/tiny", ROOT / "fixtures/prompts", folder, stack)
        for row in rows():
            if not names or row.name in names:
                lines[f"| {row.name}"] = f"| {' | '.join(cells(row, bench))} |"
                print(lines[f"| {row.name}"], flush=True)
    told = [lines[key] for row in rows() if (key := f"| {row.name}") in lines]
    split = [line.strip("| ").split(" | ") for line in told]
    counts = [str(sum(int(each[column]) for each in split)) for column in (3, 4, 5)]
    spent = [int(number) for each in split for number in each[6].split(" and ") if each[1] != NOTHING]
    told.append(f"| {len(told)} rows | | | **{'** | **'.join(counts)}** | {min(spent)} to {max(spent)} |")
    text = PAGE.read_text("utf-8")  # as it is by now
    begin, end = text.index(MARK), text.index(END)
    PAGE.write_text(text[:begin] + "\n".join([MARK, *HEAD, *told, ""]) + text[end:], "utf-8")
    print(told[-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
