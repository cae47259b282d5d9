"""Makes the tables and the picture of docs/statistics.md from the recordings in ``fixtures/draws``.

    python docs/measured.py            # all of them; ten minutes on busy cores
    python docs/measured.py NAME...    # some tables, by their names in TABLES, or picture

Every table stands between two marks of the page that name it.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.draws import (  # noqa: E402  # the checkout
    COARSE,
    DRAWS,
    HIDDEN,
    HONEST,
    MARGIN,
    OF_MLX,
    SIZES,
    Drawn,
    Pair,
    Tally,
    ladder,
    named,
    outcomes,
    remembered,
)
from pytest_llmparity import check  # noqa: E402
from pytest_llmparity.core.evidence import Check  # noqa: E402
from pytest_llmparity.core.identity.agreed import in_nats  # noqa: E402
from pytest_llmparity.core.prompts import Case, PromptSet  # noqa: E402
from pytest_llmparity.core.sample import Phase  # noqa: E402
from pytest_llmparity.core.verdict import Verdict  # noqa: E402

PAGE: Final = ROOT / "docs/statistics.md"
PICTURE: Final = ROOT / "docs/statistics.svg"
CLASSES: Final = ("Q8_0", "Q6_K", "Q4_K_M", "Q4_0")
BETWEEN: Final = (
    Pair(baseline="f16", candidate="q6_k", prompts="pool"),
    Pair(baseline="f16", candidate="q4_k_m", prompts="mixed"),
    Pair(baseline="vllm-bf16", candidate="mlx", prompts="mixed"),
    Pair(baseline="vllm-bf16", candidate="mlx", prompts="pool"),
)
"""What lies so near the margin on these prompts that more of them are needed."""
STRUCTURED: Final = ("extraction", "invoices", "tickets", "json")
"""Tags of prompts that are answered in JSON."""
NAMES: Final = {
    "f16": "llama.cpp F16",
    "ollama-f16": "Ollama F16",
    "ollama-q4_0": "Ollama Q4_0",
    "vllm-bf16": "vLLM BF16",
    "vllm-f32": "vLLM F32",
    "kv-q4_0": "KV cache Q4_0",
    "rope": "RoPE scaled by 0.97",
    "hidden": "a hidden system prompt",
    "mlx": "MLX BF16",
    "transformers": "transformers F32",
}
Row = Sequence[str]


def name_of(engine: str) -> str:
    """Return what an engine is called on the page."""
    return NAMES.get(engine, engine.upper())


def table(head: Row, rows: Iterable[Row]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share in words."""
    return "" if share is None else f"{100 * share:.{digits}f} %"


def counted(tally: Tally) -> str:
    """Return how often a draw passed, failed and stayed open."""
    return " / ".join(f"{100 * tally.share(outcome):.0f}" for outcome in ("PASS", "FAIL", "INCONCLUSIVE"))


def pick(drawn: Drawn, tags: Sequence[str]) -> list[Case]:
    """Return the prompts of some kinds, of all sets."""
    every = {case.id: case for cases in drawn.sets.values() for case in cases}
    return [case for case in every.values() if set(tags) & set(case.tags)]


def forks(drawn: Drawn, candidate: str, cases: Sequence[Case]) -> str:
    """Return forks per token of a candidate against F16 on these prompts, with both bounds."""
    prompts = PromptSet(name="some", cases=tuple(cases))
    verdict = drawn.verdicts(Pair(baseline="f16", candidate=candidate, prompts=""), prompts, [check.text(margin=0.05)])
    estimate, lower, upper = verdict[0].estimate, verdict[0].lower, verdict[0].upper
    return f"{percent(estimate)} ({100 * (lower or 0):.1f} to {100 * (upper or 0):.1f})"


def shift(drawn: Drawn, pair: Pair) -> str:
    """Return the shift of a pair over a whole set, empty where an engine gives no logprobs."""
    prompts = PromptSet(name=pair.prompts, cases=tuple(drawn.sets[pair.prompts]))
    (verdict,) = drawn.verdicts(pair, prompts, [check.logprobs(shift=MARGIN)])
    return "" if verdict.estimate is None else f"{verdict.estimate:.3f}"


def whole() -> str:
    """Return shift and forks per token of every engine against llama.cpp F16, over whole sets."""
    drawn, rows = Drawn.of("tiny"), []
    for name, engine in drawn.engines.items():
        if name == "f16":
            continue
        row = [name_of(name)]
        for prompts in ("mixed", "pool"):
            there = len(engine.answers[Phase.MAIN]) > len(drawn.sets["mixed"]) or prompts == "mixed"
            pair = Pair(baseline="f16", candidate=name, prompts=prompts)
            row += [shift(drawn, pair), forks(drawn, name, drawn.sets[prompts])] if there else ["", ""]
        rows.append(row)
    return table(["against llama.cpp F16", "shift, 144 mixed", "forks", "shift, 240 of the pool", "forks"], rows)


def kinds() -> str:
    """Return forks per token by kind of prompts and type of weights, on both models."""
    rows = []
    models = {"tiny": Drawn.of("tiny"), "smollm2": Drawn.of("smollm2")}
    json = tuple(pick(models["tiny"], STRUCTURED)), tuple(pick(models["smollm2"], STRUCTURED))
    plain = [case for case in models["smollm2"].sets["instruct"] if "json" not in case.tags]
    columns = (
        *(("tiny", pick(models["tiny"], tags)) for tags in (("stories",), ("copying",), ("arithmetic",))),
        *(("tiny", json[0]), ("smollm2", plain), ("smollm2", json[1])),
    )
    for name in ("vllm-bf16", "mlx", "bf16", "q8_0", "q6_k", "q4_k_m", "q4_0"):
        cells = [forks(models[of], name, cases) if name in models[of].engines else "" for of, cases in columns]
        rows.append([name_of(name), *cells])
    head = ["against llama.cpp F16", *(f"tiny, {kind}" for kind in ("stories", "copying", "arithmetic", "JSON"))]
    return table([*head, "SmolLM2, free text", "SmolLM2, JSON"], rows)


def shift_outcomes() -> str:
    """Return how often draws pass, fail and stay open by the shift."""
    drawn, rows = Drawn.of("tiny"), []
    for pair in (*HONEST, *OF_MLX, *BETWEEN, *COARSE, *HIDDEN):
        cells = [counted(outcomes(drawn, pair, [check.logprobs(shift=MARGIN)], size=size)) for size in SIZES]
        rows.append([f"{name_of(pair.candidate)} against {name_of(pair.baseline)}", pair.prompts, *cells])
    return table(["pair", "prompts", *(f"{size} prompts, {2 * (size + 48)} requests" for size in SIZES)], rows)


def groups() -> str:
    """Return how often draws of the mixed set pass, fail and stay open by the shift with the groups of the file."""
    drawn, rows = Drawn.of("tiny", grouped=True), []
    weights = (Pair(baseline="f16", candidate=name, prompts="mixed") for name in ("q8_0", "q4_k_m", "q4_0"))
    for pair in (*weights, *HIDDEN):
        tallies = [outcomes(drawn, pair, [check.logprobs(shift=MARGIN)], size=size) for size in SIZES]
        rows.append([name_of(pair.candidate), *(f"{counted(of)} ({statistics.median(of.groups):g})" for of in tallies)])
    return table(["against llama.cpp F16", *(f"{size} prompts (groups)" for size in SIZES)], rows)


def text_outcomes() -> str:
    """Return how often draws of 64 pass, fail and stay open by text, with the requests of such a run."""
    drawn, rows = Drawn.of("tiny"), []
    for candidate, prompts in (
        *(("transformers", "mixed"), ("ollama-f16", "mixed"), ("q8_0", "mixed"), ("q8_0", "pool")),
        *(("vllm-bf16", "mixed"), ("mlx", "mixed"), ("q4_0", "mixed"), ("q4_0", "pool"), ("kv-q4_0", "mixed")),
    ):
        pair = Pair(baseline="f16", candidate=candidate, prompts=prompts)
        checks: list[Check] = [check.text(margin=0.05)]
        tally = outcomes(drawn, pair, checks, size=64)
        rows.append(
            [
                name_of(candidate),
                prompts,
                counted(tally),
                percent(statistics.fmean(tally.estimates)),
                str(2 * (64 + 48)),
            ]
        )
    return table(["against llama.cpp F16", "prompts", "PASS / FAIL / open", "mean forks", "requests"], rows)


def confusion(counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return which class was named how often for which copy."""
    seen = list(dict.fromkeys(named for of_copy in counts.values() for named in of_copy))
    rows = [[copy.upper(), *(str(of_copy.get(name, 0)) for name in seen)] for copy, of_copy in counts.items()]
    return table([f"copy, of {DRAWS} draws of 24", *(f"named {name}" for name in seen)], rows)


def classes() -> str:
    """Return the classes named on the tiny model."""
    copies = [name.lower() for name in CLASSES]
    return confusion(named(Drawn.of("tiny"), CLASSES, copies, name="pool", size=24))


def classes_in_groups() -> str:
    """Return the classes named on the mixed set of the tiny model with the groups of the file."""
    copies = [name.lower() for name in CLASSES]
    return confusion(named(Drawn.of("tiny", grouped=True), CLASSES, copies, name="mixed", size=24))


def smollm2() -> str:
    """Return outcomes and named classes of the real model, by its own ladder."""
    drawn = Drawn.of("smollm2")
    every = drawn.sets["instruct"]
    of_all = PromptSet(name="instruct", cases=tuple(every))
    own = ladder(drawn, CLASSES, of_all)
    margin = in_nats(own, own.rungs[0]).margin
    assert margin is not None
    rows = []
    for name, engine in drawn.engines.items():
        if name == "f16":
            continue
        pair = Pair(baseline="f16", candidate=name, prompts="instruct")
        nats: list[Check] = [check.logprobs(shift=margin)]
        told = any(answer.logprobs for answer in engine.answers[Phase.MAIN].values())
        cells = [counted(outcomes(drawn, pair, nats, size=size)) if told else "" for size in (16, 24)]
        cells.append(counted(outcomes(drawn, pair, [check.text(margin=0.05)], size=32)))
        rows.append([name_of(name), shift(drawn, pair) if told else "", forks(drawn, name, every), *cells])
    head = [
        *("against F16", "shift", "forks"),
        *(f"{size} prompts, {2 * (size + 48)} requests, margin {margin:g} nats" for size in (16, 24)),
        f"text, 32 prompts, {2 * (32 + 48)} requests, margin 5 %",
    ]
    copies = [name.lower() for name in CLASSES]
    return table(head, rows) + "\n" + confusion(named(drawn, CLASSES, ["bf16", *copies], name="instruct", size=24))


def structured() -> str:
    """Return what a schema that is enforced leaves of the drift of the real model, beside its free text."""
    free, forced = Drawn.of("smollm2"), Drawn.of("structured")
    cases = forced.sets["structured"]
    rows = []
    for name in forced.engines:
        if name == "f16":
            continue
        pair = Pair(baseline="f16", candidate=name, prompts="structured")
        plain = [case for case in free.sets["instruct"] if "json" not in case.tags]
        parted = sum(difference.counted for difference in _judged(forced, pair, cases).differing)
        row = [name_of(name), forks(free, name, plain) if name in free.engines else ""]
        rows.append([*row, forks(forced, name, cases), f"{parted} of {len(cases)}"])
    return table(["against F16", "forks, free text", "forks, schema enforced", "prompts that part"], rows)


def _judged(drawn: Drawn, pair: Pair, cases: Sequence[Case]) -> Verdict:
    """Return the verdict on the text of a pair on these prompts."""
    return drawn.verdicts(pair, PromptSet(name="some", cases=tuple(cases)), [check.text(margin=0.05)])[0]


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "whole": whole,
    "kinds": kinds,
    "shift": shift_outcomes,
    "groups": groups,
    "text": text_outcomes,
    "classes": classes,
    "classes-in-groups": classes_in_groups,
    "smollm2": smollm2,
    "structured": structured,
}


def section(name: str) -> str:
    """Return a table as it stands on the page."""
    match = re.search(_between(name), PAGE.read_text("utf-8"), re.DOTALL)
    if match is None:
        raise SystemExit(f"{PAGE.name} has no place for the table {name}")
    return match[2]


def _between(name: str) -> str:
    return rf"(<!-- {name}: made by docs/measured.py -->\n)(.*?)(<!-- /{name} -->)"


def write(name: str, made: str) -> None:
    """Put a table into the page."""
    section(name)
    text = PAGE.read_text("utf-8")
    PAGE.write_text(re.sub(_between(name), lambda at: at[1] + made + at[3], text, flags=re.DOTALL), "utf-8")


COLOURS: Final = {"PASS": "#2e7d32", "INCONCLUSIVE": "#bdbdbd", "FAIL": "#c62828"}


def picture() -> str:
    """Return the outcomes of the table ``shift`` as bars."""
    lines = [line.strip("| \n").split(" | ") for line in section("shift").splitlines()[2:]]
    left, wide, high = 330, 150, 22
    width, height = left + 3 * (wide + 14) + 10, 56 + high * len(lines)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>How often 200 draws pass, stay open and fail at a margin of {MARGIN} nats</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for at, size in enumerate(SIZES):
        parts.append(f'<text x="{left + at * (wide + 14)}" y="20">{size} prompts</text>')
    for row, (pair, prompts, *cells) in enumerate(lines):
        y = 32 + row * high
        parts.append(f'<text x="8" y="{y + 12}">{pair} ({prompts})</text>')
        for at, cell in enumerate(cells):
            x = float(left + at * (wide + 14))
            passed, failed, left_open = (int(part) for part in cell.split(" / "))
            for outcome, share in (("PASS", passed), ("INCONCLUSIVE", left_open), ("FAIL", failed)):
                length = wide * share / 100
                if share:
                    parts.append(
                        f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="15" fill="{COLOURS[outcome]}"/>'
                    )
                x += length
    x, y = 8, 40 + high * len(lines)
    for outcome, colour in COLOURS.items():
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="{y + 10}">{outcome}</text>')
        x += 120
    return "\n".join([*parts, "</svg>\n"])


def main(wanted: Sequence[str]) -> None:
    """Write the tables that were asked for, all without any."""
    with remembered():
        for name in TABLES:
            if not wanted or name in wanted:
                write(name, TABLES[name]())
                print(f"wrote {name}")
    if not wanted or {"picture", "shift"} & set(wanted):
        PICTURE.write_text(picture(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
