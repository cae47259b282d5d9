from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from pytest_llmparity.core.evidence import EngineEvidence, Evidence
from pytest_llmparity.core.ports import Embedder
from pytest_llmparity.core.prompts import Case, PromptSet
from pytest_llmparity.core.sample import Completion, Fact, Failure, Identity, Phase, Sample, Sampling, Timing

Answer = Completion | Failure | str | None
"""What an engine said to one case: an answer, its text, a failure, or nothing because it was never asked."""


class Factory:
    """Evidence by hand: cases ``c0``, ``c1`` …, and engines that said what the test says."""

    def completion(self, text: str, **fields: Any) -> Completion:
        """An answer of one token per character that ended by itself."""
        return Completion(
            **{"text": text, "finish_reason": "stop", "prompt_tokens": 20, "completion_tokens": len(text) + 1, **fields}
        )

    def cut(self, text: str, **fields: Any) -> Completion:
        """An answer of one token per character that ran into its length limit."""
        return self.completion(text, finish_reason="length", completion_tokens=len(text), **fields)

    def engine(
        self,
        name: str,
        answers: Sequence[Answer] = (),
        *,
        quantization: str | None = "F16",
        identity: Mapping[str, str | int] | None = None,
        kind: str = "fake",
        cold: Sequence[Answer] = (),
        warm: Sequence[Answer] = (),
        parallel: Sequence[Answer] = (),
        incomparable: str | None = None,
        error: str | None = None,
        **more: Any,
    ) -> EngineEvidence:
        """An engine that said ``answers`` in the main phase; the floor phases are empty unless given."""
        phases = {Phase.MAIN: answers, Phase.COLD: cold, Phase.WARM: warm, Phase.PARALLEL: parallel}
        samples = {
            phase: {
                f"c{index}": [self.sample(name, f"c{index}", phase, answer)]
                for index, answer in enumerate(of_phase)
                if answer is not None
            }
            for phase, of_phase in phases.items()
        }
        facts = {key: Fact(value=value, source="reported") for key, value in (identity or {}).items()}
        return EngineEvidence(
            name=name,
            kind=kind,
            identity=Identity(facts=facts),
            quantization=quantization,
            samples=samples,
            incomparable=incomparable,
            error=error,
            **more,
        )

    def sample(self, name: str, case: str, phase: Phase, answer: Answer, timing: Timing | None = None) -> Sample:
        """One sample of one case."""
        if isinstance(answer, str):
            answer = self.completion(answer)
        completion = answer if isinstance(answer, Completion) else None
        failure = answer if isinstance(answer, Failure) else None
        return Sample(engine=name, case=case, phase=phase, completion=completion, failure=failure, timing=timing)

    def timed(self, name: str, seconds: Sequence[float | None], *, per_block: int = 16) -> EngineEvidence:
        """An engine with a timed phase: end-to-end seconds in the order asked, ``None`` for a failed request."""
        samples: dict[str, list[Sample]] = {}
        for index, value in enumerate(seconds):
            case, timing, answer = f"c{index % 8}", None, self.failure() if value is None else "ok"
            if value is not None:
                block = index // per_block
                timing = Timing(ttfb_s=value / 4, ttft_s=value / 2, e2e_s=value, tpot_s=value / 100, block=block)
            sample = self.sample(name, case, Phase.TIMED, answer, timing)
            samples.setdefault(case, []).append(msgspec.structs.replace(sample, repeat=index, prefix=f"{index}\n"))
        return EngineEvidence(name=name, kind="fake", quantization="F16", samples={Phase.TIMED: samples})

    def failure(self, kind: str = "Timeout", message: str = "no first byte within 60 s") -> Failure:
        """Why there is no answer."""
        return Failure(kind=kind, message=message)

    def evidence(
        self,
        *engines: EngineEvidence,
        cases: Sequence[Case] | int = 64,
        alpha: float = 0.05,
        incomplete: str | None = None,
        embedder: Embedder | None = None,
        sampling: Sampling | None = None,
        single: bool = False,
        sequential: bool = False,
    ) -> Evidence:
        """Evidence of these engines, the first one the baseline."""
        if isinstance(cases, int):
            cases = [self.case(index) for index in range(cases)]
        return Evidence(
            test="test_it",
            prompts=PromptSet(name="set", cases=tuple(cases), digest="d"),
            sampling=sampling or Sampling(),
            concurrency=8,
            baseline=engines[0].name,
            engines={engine.name: engine for engine in engines},
            alpha=alpha,
            incomplete=incomplete,
            embedder=embedder,
            single=single,
            sequential=sequential,
        )

    def case(self, index: int, **fields: Any) -> Case:
        """The case ``c<index>``."""
        return Case(id=f"c{index}", prompt="Say something.", **fields)


@pytest.fixture
def make() -> Factory:
    return Factory()
