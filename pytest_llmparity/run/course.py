"""The order in which a sequential run asks one unit, fixed before its first request, and how far it has come. Pure."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pytest_llmparity.core.prompts import Case, digest
from pytest_llmparity.core.prompts.arms import declared_id
from pytest_llmparity.run.plan import Unit

WAVE = 16
"""Cases every engine is asked before it is looked whether anything is still open."""
FIRST = 32
"""Cases of the first look where the noise floor is measured, and it took no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One unit of a sequential run.

    ``series`` is what the unit keeps when prompts are added to it. ``order`` pairs case ids with hashes of their
    content. ``asked`` counts, by engine, the cases of whole waves. ``continued``: the order begins with what an earlier
    gathering of this run had asked before prompts were added. ``cut``: a hard stop ended it while something was open.
    """

    series: str
    order: tuple[tuple[str, str], ...]
    asked: Mapping[str, int] = field(default_factory=dict)
    continued: bool = False
    cut: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of all cases in the order they are asked."""
        return tuple(case for case, _ in self.order)


def course_of(unit: Unit, earlier: Mapping[str, Course]) -> Course:
    """Return the course of a unit, nothing asked yet.

    ``earlier`` has the courses of a resumed run by the keys of their units. One that this unit extends (every case it
    had asked is there, unchanged) is gone on with: its order so far is the beginning of this one.
    """
    order = tuple((case.id, digest([case])) for case in in_rounds(unit.prompts.cases))
    same = earlier.get(unit.key)
    if same is not None:
        return dataclasses.replace(same, asked={}, cut=False)
    begun = [_asked(course) for course in earlier.values() if course.series == unit.series]
    longest = max((done for done in begun if set(done) <= set(order)), key=len, default=())
    if not longest:
        return Course(series=unit.series, order=order)
    ids = {case for case, _ in longest}
    had = {_prompt(unit.prompts.by_id[case]): unit.prompts.by_id[case].group for case in ids}
    groups = Counter(had.values())
    rest = in_rounds([case for case in unit.prompts.cases if case.id not in ids], begun=groups)
    return Course(series=unit.series, order=(*longest, *((case.id, digest([case])) for case in rest)), continued=True)


def _asked(course: Course) -> tuple[tuple[str, str], ...]:
    return course.order[: max(course.asked.values(), default=0)]


def in_rounds(cases: Iterable[Case], *, begun: Mapping[str, int] | None = None) -> list[Case]:
    """Return the cases in an order that depends on nothing but their ids and groups: one of each group in turn.

    So the first cases are as different from each other as the set allows. Both arms of a prompt follow one another,
    for either says something only beside the other. ``begun`` counts the prompts that were asked of a group before: it
    has had its turn so often.
    """
    members: dict[str, dict[str, list[Case]]] = defaultdict(lambda: defaultdict(list))
    for case in sorted(cases, key=lambda case: (_draw(_prompt(case)), case.id)):
        members[case.group][_prompt(case)].append(case)
    had = begun or {}
    turns = [
        (had.get(group, 0) + place, _draw(group), arms)
        for group, of_group in members.items()
        for place, arms in enumerate(of_group.values())
    ]
    return [case for _, _, arms in sorted(turns, key=lambda turn: turn[:2]) for case in arms]


def _prompt(case: Case) -> str:
    """Return what a case was declared as: an arm is no prompt of its own."""
    return declared_id(case.id) if case.arm else case.id


def _draw(text: str) -> str:
    """Return the text's lot: as good as random, the same in every run."""
    return hashlib.sha256(f"pytest-llmparity sequential 1/{text}".encode()).hexdigest()


def waves(unit: Unit, measured: int = 0) -> Iterator[int]:
    """Yield after how many cases it is looked: the first time when all that ``measured`` the noise floor were asked."""
    total = len(unit.prompts.cases)
    place = min(total, max(measured, FIRST) if unit.needs.floor else WAVE)
    yield place
    while place < total:
        place = min(total, place + WAVE)
        yield place


def cases_of(unit: Unit, course: Course, begin: int, end: int | None) -> Sequence[Case]:
    """Return the cases from one place of the order to another, ``None`` for its end."""
    return [unit.prompts.by_id[case] for case in course.ids[begin:end]]
