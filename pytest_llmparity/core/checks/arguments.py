"""What a user may write as arguments of a check, what stands where nothing is, and where it was written.

Plain values and functions of the errors alone: a test file that imports ``check`` imports this and no check.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, ParamSpec, TypeVar, cast

from pytest_llmparity.core.errors import DesignError

if TYPE_CHECKING:
    from pytest_llmparity.core.checks.base import BaseCheck
    from pytest_llmparity.core.checks.tags import By
    from pytest_llmparity.core.stats.paired import Side

P = ParamSpec("P")
C = TypeVar("C", bound="BaseCheck")

HORIZON: Final = 32
"""Tokens of an answer that are compared; the margins that are built in belong to this horizon."""
REPEATS: Final = 10
"""Answers to each prompt that a check of sampled text asks for."""
REQUESTS: Final = 128
"""Requests per engine in the timed phase."""
SAME: Final = 0.95
"""Share of prompts whose answer is the same streamed and unstreamed, where nothing is written."""
KEPT: Final = 0.95
"""Share of an engine's answers that reason as wanted, where nothing is written."""
PARTS: Final = ("content", "calls", "finish", "usage")
"""What of an answer is compared streamed and unstreamed."""


def share(function: str, name: str, value: object) -> float:
    """Return a share above 0 and at most 1; ``DesignError`` for anything else, with a hint where it is a percentage."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DesignError(f"{function}({name}={value!r}): {name} is a share, a number above 0 and at most 1")
    if not 0.0 < value <= 1.0:
        hint = f": {value / 100:g} is {value:g} %" if 1 < value <= 100 else ", above 0 and at most 1"
        raise DesignError(f"{function}({name}={value!r}): {name} is a share{hint}")
    return float(value)


def limits_of(
    function: str, limits: Mapping[str, object], *, example: str, gaps: Collection[str] = (), word: str = ""
) -> dict[str, float]:
    """Return the limits that are given, as shares; ``DesignError`` for none, and for one of ``gaps`` that is 1.

    ``example`` shows limits, ``word`` is what a gap is called, empty where it is called by its name.
    """
    given = {name: share(function, name, value) for name, value in limits.items() if value is not None}
    if not given:
        raise DesignError(f"{function}() needs at least one limit: {example}")
    for name in gaps:
        if given.get(name) == 1.0:
            raise DesignError(f"{function}({name}=1.0): {word or name} of 100 % accepts everything; 0.05 is 5 points")
    return given


def nats(function: str, name: str, value: object) -> float:
    """Return a finite number of nats above 0; ``DesignError`` for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.0 < value < math.inf:
        raise DesignError(f"{function}({name}={value!r}): {name} is a number of nats above 0, such as 0.06")
    return float(value)


def chosen_side(function: str, side: Side) -> Side:
    """Return which deviations count; ``DesignError`` for another word."""
    if side not in ("either", "worse"):
        raise DesignError(f'{function}(side={side!r}): side is "either" or "worse"')
    return side


def by_tag(function: str, by: object) -> By | None:
    """Return what prompts are judged by beside all together, ``None`` for nothing; ``DesignError`` for another word."""
    if by is None or by == "tag":
        return by
    raise DesignError(
        f'{function}(by={by!r}): by must be "tag", which judges the prompts of each tag by themselves too'
    )


def whole(value: object) -> bool:
    """Whether it is a whole number from 1 up."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def caller() -> str:
    """Return ``file:line`` of the line that called a function of ``check``."""
    frame = user_frame()
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def user_frame() -> types.FrameType:
    """Return the frame that called a function of ``check``: the first outside it and this file."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "pytest_llmparity.check"):
        frame = frame.f_back
    assert frame is not None
    return frame


def told_later(make: Callable[P, C], *, collecting: Callable[[], bool]) -> Callable[P, C]:
    """Return the function as pytest may import it: a test file is not lost for one wrong argument in it.

    What is wrong is then told by every test that uses the check, when it is set up. In a function, and outside pytest,
    it is raised at once: ``collecting`` says whether this is pytest.
    """

    @functools.wraps(make)
    def made(*args: P.args, **kwargs: P.kwargs) -> C:
        try:
            return make(*args, **kwargs)
        except (DesignError, TypeError) as error:
            call = error.__traceback__.tb_next if error.__traceback__ is not None else None
            if isinstance(error, TypeError) and call is not None:
                raise  # not of how it was called
            takes = inspect.signature(make).parameters
            if isinstance(error, TypeError) and (unknown := [name for name in kwargs if name not in takes]):
                error.args = (f"{error}{nearest_of(unknown[0], takes)}; it takes {', '.join(takes)}",)
            imported = not user_frame().f_code.co_flags & inspect.CO_OPTIMIZED
            if not imported or not collecting():
                raise
            from pytest_llmparity.core.checks.base import Misused

            return cast("C", Misused(misuse=str(error), where=caller()))

    return made


def nearest_of(word: str, known: Iterable[str]) -> str:
    """Return an offer of the most similar known word, empty where none is similar."""
    from pytest_llmparity.core.words.nearest import nearest

    return nearest(word, known)
