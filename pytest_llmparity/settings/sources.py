"""The options of a run, and how their text is read: the same for the command line and for environment variables.

Imported in every run of everybody who has the plugin installed, so the module level imports only stdlib.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

SIGNATURE: Final = (
    "parity(prompts, *checks, max_tokens=64, sampling=None, concurrency=None, repeats=1, extra_body=None, "
    "reasoning_effort=None, chat_template_kwargs=None)"
)
"""The marker as users write it: registered with pytest and quoted in every error about it."""

MARKER: Final = f"{SIGNATURE}: ask the prompts on every selected engine and hold the answers against the checks"
"""What pytest is told of the marker."""

FORMATS = ("json", "html", "md")
"""Formats of reports."""

FILE = "llmparity.toml"
OUT = ".llmparity/report"
_TRUE = ("1", "true", "yes", "on")
_FALSE = ("0", "false", "no", "off")


def budget(text: str) -> float:
    """Read ``--parity-budget``: ``900`` (seconds), ``90s``, ``15m``, ``1h30m``; returns seconds."""
    from pytest_llmparity.settings.specification import seconds

    try:
        return seconds(text.strip())
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive(text: str) -> int:
    """Read a whole number above zero."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) < 10 and int(digits) > 0):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number above zero")
    return int(digits)


def whole(text: str) -> int:
    """Read a whole number, 0 included."""
    digits = text.strip()
    return 0 if digits == "0" else positive(digits)


def formats(text: str) -> tuple[str, ...]:
    """Read ``--parity-report``: formats separated by commas, each once, in order."""
    names = [name.strip() for name in text.split(",")]
    if not set(names) <= set(FORMATS):
        wrong = next(name for name in names if name not in FORMATS)
        raise _not_allowed(text, f"one of: {', '.join(FORMATS)}", wrong=wrong)
    return tuple(dict.fromkeys(names))


def mode(text: str) -> tuple[str, str | None]:
    """Read ``--parity-mode``: ``("live", None)``, ``("replay", None)`` for the newest run, ``("replay", RUN)``.

    The word ``newest`` names the newest run.
    """
    word, equals, run = text.strip().partition("=")
    if (word == "live" and not equals) or (word == "replay" and (run or not equals)):
        return word, None if run == "newest" else run or None
    raise _not_allowed(text, "live, replay or replay=RUN")


def inconclusive(text: str) -> str:
    """Read ``--parity-inconclusive``."""
    if text not in ("show", "fail", "skip"):
        raise _not_allowed(text, "show, fail or skip")
    return text


def executor(text: str) -> str:
    """Read ``--parity-executor``: ``local``, ``ray`` or ``ray=ADDRESS``."""
    word, equals, address = text.strip().partition("=")
    if (word == "local" and not equals) or (word == "ray" and (address or not equals)):
        return text.strip()
    raise _not_allowed(text, "local, ray or ray=ADDRESS", wrong=word)


def update_golden(text: str) -> str:
    """Read ``--parity-update-golden``."""
    if text not in ("missing", "changed", "all"):
        raise _not_allowed(text, "missing, changed or all")
    return text


def shard(text: str) -> Any:
    """Read ``--parity-shard``: ``2/5`` is the second of five; returns a ``core.shards.Shard``."""
    from pytest_llmparity.core.shards import parse_shard

    try:
        return parse_shard(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def tag(text: str) -> str:
    """Read ``--parity-tag``."""
    if not text.strip():
        raise argparse.ArgumentTypeError("a tag has a name, and none is given")
    return text


def switch(text: str) -> bool:
    """Read a yes or no from the environment."""
    word = text.strip().lower()
    if word not in (*_TRUE, *_FALSE):
        raise _not_allowed(text, f"one of: {', '.join((*_TRUE, *_FALSE))}")
    return word in _TRUE


def _not_allowed(text: str, expected: str, *, wrong: str = "") -> argparse.ArgumentTypeError:
    """Return what to raise for a text that is none of the ``expected`` ones; the nearest to it is offered."""
    from pytest_llmparity.core.words.nearest import nearest

    allowed = re.findall(r"[a-z]+", expected.removeprefix("one of: "))
    return argparse.ArgumentTypeError(
        f"{text[:40]!r} is not allowed{nearest(wrong or text, allowed)}; expected {expected}"
    )


class Option(NamedTuple):
    """An option of a run: ``--parity-NAME`` and, unless it is about one run only, the variable ``LLMPARITY_NAME``.

    ``metavar`` says which values follow it, a switch has none. ``read`` reads the text of a value, wherever it is from.
    """

    name: str
    help: str
    metavar: str = ""
    read: Callable[[str], Any] = str
    of_one_run: bool = False
    repeated: bool = False

    @property
    def flag(self) -> str:
        """The option as pytest's command line has it."""
        return f"--parity-{self.name.replace('_', '-')}"

    @property
    def variable(self) -> str:
        """The environment variable that is read where the option is not given."""
        return f"LLMPARITY_{self.name.upper()}"


OPTIONS = (
    Option("baseline", "Engine the others are compared with (default: from the configuration, else the first)", "NAME"),
    Option("profile", "Profile of the configuration to use (default: none)", "NAME"),
    Option(
        "config", f"Configuration file (default: {FILE}, or [tool.llmparity] in pyproject.toml, in rootdir)", "FILE"
    ),
    Option(
        "required",
        "Make it an error when no engines are selected, when an engine lacks what a check needs, or when nothing "
        "is judged, of one gate or in the whole run (default: off)",
        read=switch,
    ),
    Option(
        "frozen",
        "Refuse to judge an engine that is not in llmparity.lock, or not as it stands there (default: off, a "
        "difference is told)",
        read=switch,
    ),
    Option(
        "mode",
        "live asks the engines, replay judges a stored run again without engines (default: live; RUN: the newest that "
        "asked what the selected tests ask, and has the engines that are named)",
        "live|replay[=RUN]",
        mode,
    ),
    Option(
        "resume",
        "Resume the newest unfinished run of the same plan, however old; fail if there is none (default: resume "
        "it if under 6 hours old, else start anew; one that was gathered and not judged is judged without asking)",
        of_one_run=True,
    ),
    Option(
        "fresh",
        "Start a new run even if an unfinished one could be resumed, and probe the engines again",
        of_one_run=True,
    ),
    Option(
        "retry_failed",
        "Ask only what failed or is missing in the newest run of the same plan, finished or not, and judge that "
        "run as a whole; fail if there is none (default: off)",
        of_one_run=True,
    ),
    Option(
        "executor",
        "Where engines that we start run: local is this machine; ray places each on a cluster of Ray, the one at "
        "ADDRESS, else the one this machine belongs to (RAY_ADDRESS, `ray start`), else one started here (default: "
        "local)",
        "local|ray[=ADDRESS]",
        executor,
    ),
    Option(
        "policy",
        "Decide by this policy whether each candidate may replace the baseline: SHIP, HOLD or INCONCLUSIVE, which is "
        "the exit code too (0, 1, 2); what it holds checks to counts in place of their arguments (default: none)",
        "FILE",
        of_one_run=True,
    ),
    Option(
        "inconclusive",
        "What becomes of tests that could not be decided: shown as an outcome of their own, failed or skipped "
        "(default: show)",
        "show|fail|skip",
        inconclusive,
    ),
    Option(
        "max_requests",
        "Stop after N requests in all, to every engine and with probes; what is missing becomes inconclusive "
        "(default: no limit)",
        "N",
        positive,
    ),
    Option(
        "budget",
        "Stop gathering after this time, such as 900 (seconds), 15m or 1h30m; what is missing becomes "
        "inconclusive (default: no limit)",
        "TIME",
        budget,
    ),
    Option(
        "sequential",
        "Ask in waves and stop as soon as every check is settled, by a test that stays valid whenever one stops; "
        "a run that ends inconclusive is continued when prompts were added (default: off)",
        read=switch,
    ),
    Option(
        "explain",
        "Make the experiments that show a cause also for drift that does not fail (default: off)",
        read=switch,
    ),
    Option(
        "explain_requests",
        "Show the cause of drift that fails by experiments of at most N requests for each pair of engines, 0 for none "
        "(default: 400)",
        "N",
        whole,
    ),
    Option(
        "keep_runs",
        "Keep the newest N runs of the store and remove older ones, never one that a process still uses or that "
        "you told `llmparity runs` to keep (default: 20)",
        "N",
        positive,
    ),
    Option(
        "update_golden",
        "Write what the live engines answer into golden/: cases that have no answer there (missing), those that answer "
        "otherwise as well (changed), or all; a run that wrote something fails, so that somebody looks (default: "
        "nothing is written)",
        "missing|changed|all",
        update_golden,
        of_one_run=True,
    ),
    Option(
        "update_golden_in_ci",
        "Let golden answers be written where the variable CI is set, by a job that proposes the change (default: it is "
        "refused there)",
        of_one_run=True,
    ),
    Option(
        "shard",
        "Gather the Nth of M shares of the cases and judge nothing: `llmparity merge` puts the shares of all machines "
        "together and judges them (default: all cases)",
        "N/M",
        shard,
        of_one_run=True,
    ),
    Option(
        "tag",
        "Ask only prompts that have this tag, or one of these where it is repeated, and judge them (default: all "
        "prompts)",
        "TAG",
        tag,
        of_one_run=True,
        repeated=True,
    ),
    Option(
        "sample",
        "Ask N prompts of each prompt set and judge these: the same N every time, of each tag by its share and of as "
        "many groups as there can be (default: all prompts)",
        "N",
        positive,
        of_one_run=True,
    ),
    Option(
        "case",
        "Gather only the case with this id and show its rows, never a verdict; may be repeated",
        "ID",
        of_one_run=True,
        repeated=True,
    ),
    Option("report", f"Write reports; formats: {', '.join(FORMATS)} (default: none)", "FORMAT[,FORMAT...]", formats),
    Option("out", f"Folder for reports (default: {OUT} in rootdir)", "DIR"),
    Option("history", "Add what the run came to, a line without answers, to FILE (default: nothing is kept)", "FILE"),
)
"""The options of a run beside ``--engines``, each declared here alone, in the order ``--help`` shows them."""

SOURCES = {option.name: option for option in OPTIONS if not option.of_one_run}
"""The options that a variable may stand for, by name."""
ENGINES_VARIABLE = "LLMPARITY_ENGINES"

_VARIABLES: Final = (
    ENGINES_VARIABLE,
    *(option.variable for option in SOURCES.values()),
    *("LLMPARITY_EMBEDDING_MODEL", "LLMPARITY_ENVIRONMENTS"),
)
"""Every variable that is read."""
_PREFIX: Final = "LLMPARITY_"
_NEAR: Final = 0.85
"""How alike the names are behind the prefix: more than where a name must be wrong, for it may be a project's own."""


def unread_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that looks like one of ours and is not read, with the nearest that is.

    >>> unread_variables({"LLMPARITY_ENGINE": "prod,dev", "LLMPARITY_PROD_KEY": "…"})
    ["the environment variable LLMPARITY_ENGINE is not read (did you mean 'LLMPARITY_ENGINES'?)"]
    >>> unread_variables({"LLMPARITY_SHARD": "1/2"})
    ['the environment variable LLMPARITY_SHARD is not read: it is about one run, so give --parity-shard 1/2']
    """
    sentences = []
    of_one_run = {option.variable: option for option in OPTIONS if option.of_one_run}
    for name in sorted(name for name in environ if name.startswith(_PREFIX) and name not in _VARIABLES):
        text = f"the environment variable {name} is not read"
        if name in of_one_run and environ[name].strip():
            option = of_one_run[name]
            given = f" {environ[name].strip()[:40]}" if option.metavar else ""
            sentences.append(f"{text}: it is about one run, so give {option.flag}{given}")
            continue
        from pytest_llmparity.core.words.nearest import nearest_name, offered

        bare = [known.removeprefix(_PREFIX) for known in _VARIABLES]
        if near := nearest_name(name.removeprefix(_PREFIX), bare, cutoff=_NEAR):
            sentences.append(f"{text}{offered(_PREFIX + near)}")
    return sentences
