"""What experiments on drift showed, in lines for a person: what became of it, and where two rendered chats part."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from typing import Final

from pytest_llmparity.core.verdict import Experiment
from pytest_llmparity.core.words import explain

BEFORE: Final = 15
"""Characters that are shown before the place at which two renderings part."""
COMPARED: Final = 200
"""Lines of each rendering, from the first one that differs, that are compared line by line."""
SHOWN: Final = 24
"""Lines that are shown of a comparison line by line."""
TELLING: Final = "llama.cpp and vLLM tell it"
"""Who says how it renders a chat."""
_BECAME: Final = {
    "gone": "the drift is gone",
    "less": "there is less drift",
    "stays": "the drift stays",
    "back": "the drift is back",
    "stays away": "the drift does not come back",
    "not tried": "not tried",
    "measured": "measured",
}


def experiment_line(tried: Experiment, unit: str) -> str:
    """Return an experiment on one line: what was done, what became of the drift, its numbers, what that cost."""
    done = explain.plain(tried.removed, 1000)
    if tried.before is not None:
        done = f"with {'everything but ' if tried.outcome in ('back', 'stays away') else ''}{done}"
    other = tried.outcome == "stays" and tried.before is not None and tried.after != tried.before
    words = f"{done}: {'less drift is not shown' if other else _BECAME[tried.outcome]}"
    if tried.after is not None:
        was = "" if tried.before is None else f"{explain.number(tried.before, unit)} before, "
        words += f", {was}{explain.number(tried.after, unit)}" + (" now" if was else "")
    small = []
    if tried.n:
        in_groups = f" in {explain.count(tried.groups, 'group')}" if tried.groups else ""
        small.append(explain.count(tried.n, "prompt") + in_groups)
    if tried.p is not None:
        small.append(f"p {tried.p:.2g}")
    if tried.requests:
        small.append(explain.count(tried.requests, "request"))
    why = f", {explain.plain(tried.why)}" if tried.why else ""
    return words + why + (f" ({', '.join(small)})" if small else "")


def rendered_apart(case: str, names: Sequence[str], texts: Sequence[str | None]) -> list[str]:
    """Return where two renderings of one chat part, three short lines; one line where an engine does not tell.

    >>> rendered_apart("c1", ["prod", "dev"], ["<user> Hi </s>", "<user>Hi </s>"])
    ['rendered prompts of c1 part after 6 characters', "  prod: '<user> Hi </s>'", "  dev: '<user>Hi </s>'"]
    >>> rendered_apart("c1", ["prod", "dev"], ["<user> Hi </s>", None])
    ['how dev renders c1 is not known (llama.cpp and vLLM tell it)']
    """
    shown = explain.plain(case, 40)
    untold = [explain.plain(name, 40) for name, text in zip(names, texts, strict=True) if text is None]
    ours, theirs = texts
    if ours is None or theirs is None:
        render = "renders" if len(untold) == 1 else "render"
        return [f"how {' and '.join(untold)} {render} {shown} is not known ({TELLING})"]
    if ours == theirs:
        return [f"both render {shown} alike: what differs is added or cut behind the template"]
    at = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    begin = max(0, at - BEFORE)
    parts = [explain.quote(("…" if begin else "") + text[begin:]) for text in (ours, theirs)]
    lines = [f"  {explain.plain(name, 40)}: {part}" for name, part in zip(names, parts, strict=True)]
    return [f"rendered prompts of {shown} part after {at} characters", *lines]


def rendered_lines(names: Sequence[str], texts: Sequence[str | None]) -> list[str]:
    r"""Return two renderings held against each other line by line; nothing where they are one line each, or alike.

    >>> for line in rendered_lines(["prod", "dev"], ["Be brief.\nHi\n", "Be brief.\nToday is Monday.\nHi\n"]):
    ...     print(line)
    line by line, - is prod and + is dev:
        'Be brief.'
      + 'Today is Monday.'
        'Hi'
    """
    ours, theirs = ((text or "").splitlines() for text in texts)
    if ours == theirs or None in texts or len(ours) == len(theirs) == 1:
        return []
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False)))
    begin = max(0, alike - 1)
    window = slice(begin, begin + COMPARED)
    # Its first two lines name files, and others say where they go on.
    changed = [
        line
        for line in list(difflib.unified_diff(ours[window], theirs[window], n=1, lineterm=""))[2:]
        if line[0] != "@"
    ]
    lines = [f"  {line[0]} {explain.quote(line[1:])}" for line in changed[:SHOWN]]
    if (more := len(changed) - SHOWN) > 0:
        lines.append(f"  … {explain.count(more, 'more line')}")
    mine, other = (explain.plain(name, 40) for name in names)
    return [f"line by line, - is {mine} and + is {other}:", *lines]
