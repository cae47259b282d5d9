"""The first version that no longer passes: which version is gated next, and what is known when nothing is left.

Versions stand in their order, the oldest first. Of each is known, once it was gated, how it :class:`Stands`. Pure: the
gates are made elsewhere.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_llmparity.core.gate.deciding import Decision
from pytest_llmparity.core.gate.policy import Ruled
from pytest_llmparity.core.verdict import Outcome


class Stands(enum.StrEnum):
    """What a gate said of one version. Of an ``OPEN`` and an ``UNUSABLE`` one nothing is known: it is searched around.

    ``UNUSABLE`` ones could not be installed, started or asked.
    """

    GOOD = "good"
    BAD = "bad"
    OPEN = "open"
    UNUSABLE = "unusable"

    @property
    def tells(self) -> bool:
        """Whether it says on which side of the first bad version this one is."""
        return self in (Stands.GOOD, Stands.BAD)


def stands(decision: Decision) -> Stands:
    """Return how the candidate of a decision stands.

    One is unusable where every verdict against it is an ERROR of its own; a test that failed beside those says no more.
    """
    if decision.outcome is Ruled.SHIP:
        return Stands.GOOD
    if decision.outcome is Ruled.INCONCLUSIVE:
        return Stands.OPEN
    against = [ruling.verdict for ruling in decision.of(Ruled.HOLD)]
    broken = [v for v in against if v.outcome is Outcome.ERROR and v.blocked_by == decision.candidate]
    return Stands.UNUSABLE if against and len(broken) == len(against) else Stands.BAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """How far a search among ``count`` versions has come: how those stand that were gated or told, by their place."""

    count: int
    known: Mapping[int, Stands]

    @property
    def good(self) -> int | None:
        """The last version that is known to pass and has none before it that does not."""
        bad = min(self._all(Stands.BAD), default=self.count)
        return max((place for place in self._all(Stands.GOOD) if place < bad), default=None)

    @property
    def bad(self) -> int | None:
        """The first version that is known not to pass."""
        return min(self._all(Stands.BAD), default=None)

    @property
    def late(self) -> int | None:
        """A version that passes although one before it does not, ``None`` where there is none."""
        bad = self.bad
        return None if bad is None else max((p for p in self._all(Stands.GOOD) if p > bad), default=None)

    @property
    def next(self) -> int | None:
        """The version to gate now, ``None`` when another gate would say nothing new.

        First the ends, each the outermost that tells something; then what is nearest to the middle of what is left.
        """
        places = range(self.count)
        if not self._end(places):
            return self._first_unknown(places)
        if not self._end(places[::-1]):
            return self._first_unknown(places[::-1])
        good, bad = self.good, self.bad
        if good is None or bad is None:
            return None
        left = [place for place in range(good + 1, bad) if place not in self.known]
        return min(left, key=lambda place: abs(2 * place - good - bad), default=None)

    @property
    def among(self) -> range:
        """Where the first version that does not pass may be; more than one where versions between could not tell."""
        good, bad = self.good, self.bad
        if bad is None:
            return range(0)
        return range(0 if good is None else good + 1, bad + 1)

    @property
    def most(self) -> int:
        """How many more gates it takes at most, if each says whether its version passes."""
        good, bad = self.good, self.bad
        ends = {0, self.count - 1} - self.known.keys()
        gates = len(ends) if good is None or bad is None else 0
        low, high = 0 if good is None else good, self.count - 1 if bad is None else bad
        return gates + math.ceil(math.log2(max(1, high - low)))

    def _end(self, places: Sequence[int]) -> bool:
        """Whether the outermost version from one side that was gated tells something, or nothing is left there."""
        for place in places:
            if place not in self.known:
                return False
            if self.known[place].tells:
                return True
        return True

    def _first_unknown(self, places: Sequence[int]) -> int | None:
        return next((place for place in places if place not in self.known), None)

    def _all(self, which: Stands) -> list[int]:
        return [place for place, how in self.known.items() if how is which]
