"""What a ladder is written from: as many of the prompts as a gate's verdict rests on."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmparity.core.errors import NotMeasured
from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.identity.ladder import Ladder
from pytest_llmparity.core.prompts import Case
from pytest_llmparity.core.sample import Completion, Identity, Phase, Sample, Sampling, TokenLogprob
from pytest_llmparity.run.calibrate import ladder
from pytest_llmparity.run.calibrate.pair import TEST
from pytest_llmparity.run.declare.prompts import load_prompts

PROMPTS = 40
TOKENS = 32
Says = Callable[[int], bool]


def answer(lead: float, *, logprobs: bool = True, text: str = "a") -> Completion:
    """Return an answer as long as it may be, whose every token leads by so much."""
    entry = TokenLogprob(token=b"a", logprob=-0.1, top=((b"a", -0.1), (b"b", -0.1 - lead)))
    entries = (entry,) * TOKENS if logprobs and text else ()
    return Completion(
        text=text * TOKENS, finish_reason="length", logprobs=entries, completion_tokens=TOKENS, max_tokens=TOKENS
    )


def engine(name: str, cases: tuple[Case, ...], answered: Callable[[int], Completion]) -> EngineEvidence:
    samples = {
        case.id: [Sample(engine=name, case=case.id, phase=Phase.MAIN, completion=answered(at))]
        for at, case in enumerate(cases)
    }
    return EngineEvidence(
        name=name, kind="llamacpp", identity=Identity(facts={}), quantization=None, samples={Phase.MAIN: samples}
    )


@pytest.fixture
def measured(tmp_path: Path) -> Callable[..., Ladder]:
    """Return the ladder of one copy, given which of its answers have logprobs and which say anything."""
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"id": f"c{at}", "prompt": f"{at}", "tags": ["few" if at < PROMPTS // 4 else "many"]} for at in range(PROMPTS)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    prompts = load_prompts(str(path), ())

    def measure(*, logprobs: Says = lambda at: True, speaks: Says = lambda at: True) -> Ladder:
        evidence = Evidence(
            test=TEST,
            prompts=prompts,
            sampling=Sampling(max_tokens=TOKENS),
            concurrency=1,
            baseline=ladder.SOURCE,
            engines={
                ladder.SOURCE: engine(ladder.SOURCE, prompts.cases, lambda at: answer(1.0)),
                "q8_0": engine(
                    "q8_0",
                    prompts.cases,
                    lambda at: answer(1.03, logprobs=logprobs(at), text="a" if speaks(at) else ""),
                ),
            },
            alpha=0.05,
        )
        session: Any = SimpleNamespace(
            settings=SimpleNamespace(goldens=()),
            root=tmp_path,
            gates=SimpleNamespace(declare=lambda *_, **__: None),
            gather=lambda: None,
            evidence=lambda *_: evidence,
            version="1.0",
        )
        return ladder.measure(
            session,
            source=Path("tiny-F16.gguf"),
            digest="sha256:0",
            classes=("Q8_0",),
            prompts=path,
            made_by="gguf",
            today=datetime.date(2026, 11, 29),
        )

    return measure


def test_a_rung_has_the_shift_and_the_forks_of_a_copy(measured: Callable[..., Ladder]) -> None:
    made = measured()

    (rung,) = made.rungs
    assert (rung.shift, rung.upper, rung.forks) == (0.03, 0.03, 0.0)
    assert (made.prompts, made.groups) == (PROMPTS, PROMPTS)
    assert sorted(rung.tags) == ["few", "many"]


def test_a_part_of_the_logprobs_makes_no_rung(measured: Callable[..., Ladder]) -> None:
    with pytest.raises(
        NotMeasured,
        match=r"^Q8_0: it rests on 10 of 40 prompts: no logprobs to compare in the answers to 30 prompts$",
    ):
        measured(logprobs=lambda at: at < 10)


def test_answers_that_say_nothing_make_no_rung(measured: Callable[..., Ladder]) -> None:
    with pytest.raises(NotMeasured, match=r"^Q8_0: it rests on 30 of 40 prompts: "):
        measured(speaks=lambda at: at >= 10)


def test_a_tag_of_which_much_says_nothing_is_left_out(measured: Callable[..., Ladder]) -> None:
    """One prompt in twenty may be missing of all, which is one in five of a tag."""
    (rung,) = measured(speaks=lambda at: at not in (0, 1)).rungs

    assert sorted(rung.tags) == ["many"]
