"""How often a question was judged before: part of the store that outlives its runs."""

from __future__ import annotations

from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.store.database import Database


class Looks:
    """What a store says of earlier judgements. Whoever inherits opens the file."""

    _file: Database

    def looks(self, test: str, check: str, pair: str, prompt_digest: str, *, continued: bool = False) -> int:
        """Return how many earlier looks this judgement has to pay for; k means bounds at alpha / 2**k.

        Judging more prompts because fewer were INCONCLUSIVE is another look. Judging the same prompts again is the
        same look, and so is sequential evidence that is ``continued`` with more of them. After PASS or FAIL the count
        starts anew.
        """
        query = "SELECT prompt_digest, outcome, earlier FROM looks WHERE test = ? AND check_name = ? AND pair = ?"
        for digest, outcome, earlier in self._file.read(query, (test, check, pair)):
            if outcome == Outcome.INCONCLUSIVE:
                return int(earlier) if continued or digest == prompt_digest else int(earlier) + 1
        return 0

    def questions(self, test: str, check: str) -> list[str]:
        """Return the pairs about which a check of a test was judged."""
        query = "SELECT pair FROM looks WHERE test = ? AND check_name = ?"
        return [pair for (pair,) in self._file.read(query, (test, check))]

    def same_question(self, test: str, check: str, pair: str, now: str) -> None:
        """Take note that a pair is known by another text now."""
        with self._file.write() as db:
            named = "UPDATE OR REPLACE looks SET pair = ? WHERE test = ? AND check_name = ? AND pair = ?"
            db.execute(named, (now, test, check, pair))

    def look(
        self, test: str, check: str, pair: str, prompt_digest: str, outcome: Outcome, *, continued: bool = False
    ) -> None:
        """Record a judgement for :meth:`looks`; outcomes that judged no drift (ERROR, …) leave the count as it is."""
        if outcome not in (Outcome.PASS, Outcome.FAIL, Outcome.INCONCLUSIVE):
            return
        with self._file.write() as db:
            earlier = self.looks(test, check, pair, prompt_digest, continued=continued)
            db.execute(
                "INSERT OR REPLACE INTO looks (test, check_name, pair, prompt_digest, outcome, earlier)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (test, check, pair, prompt_digest, str(outcome), earlier),
            )
