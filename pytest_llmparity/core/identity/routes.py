"""Two routes to one server, held against each other: what an application would get that is not what is measured."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_llmparity.core.words import explain

CASES = 8
"""How many cases are sent over both routes: enough to see that they differ, too few to say by how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteCheck:
    """How many of ``cases``, asked over the measured route and over the one ``engine.openai()`` uses, differ in what.

    ``failed`` counts cases that only one of them answered, ``unasked`` those the other route has no words for, the
    first of them because of ``why``. ``tokens`` is the difference in prompt tokens where it is the same on every case,
    else 0. ``dropped`` names the sampling parameters that were not sent over the other route because it has no field
    for them: what may explain a difference, and is none.
    """

    measured: str
    other: str
    cases: int
    texts: int = 0
    prompts: int = 0
    finishes: int = 0
    failed: int = 0
    tokens: int = 0
    dropped: tuple[str, ...] = ()
    unasked: int = 0
    why: str = ""

    @property
    def differs(self) -> bool:
        """Whether the two routes are not the same to an application."""
        return bool(self.texts or self.prompts or self.finishes or self.failed or self.unasked)

    def sentence(self, engine: str) -> str:
        """Return what differs as one sentence, empty where nothing does."""
        if not self.differs:
            return ""
        of = f"of {self.cases}"
        by = f", by {explain.count(abs(self.tokens), 'token')}" if self.tokens else ""
        parts = [
            f"{self.texts} {of} answers differ" if self.texts else "",
            f"the prompt's tokens on {self.prompts} {of}{by}" if self.prompts else "",
            f"the finish reason on {self.finishes} {of}" if self.finishes else "",
            f"{self.failed} {of} answered on one of them only" if self.failed else "",
            f"{', '.join(self.dropped)} not sent there" if self.dropped else "",
            f"{self.unasked} {of} cannot be asked over {self.other}: {self.why}" if self.unasked else "",
        ]
        differing = "; ".join(part for part in parts if part)
        return f"{engine} is measured over its {self.measured} route, engine.openai() uses {self.other}: {differing}"
