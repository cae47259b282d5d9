"""A run as the page is given it, made without engines: as many cases as wanted, and answers that attack readers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.core.identity.ladder import Forks, Ladder, Rung
from pytest_llmparity.core.identity.record import (
    Broken,
    Change,
    Counts,
    DecisionRecord,
    EngineRecord,
    FailureRecord,
    Ground,
    LatencyQuantiles,
    RunRecord,
    SampleOrigin,
    Turned,
)
from pytest_llmparity.core.sample import (
    Completion,
    Fact,
    Failure,
    Identity,
    Phase,
    Sample,
    Timing,
    TokenLogprob,
    ToolCall,
)
from pytest_llmparity.core.verdict import Cause, Difference, Experiment, Explanation, Outcome, Verdict

TEST: Final = "tests/test_gate.py::test_tickets"
HOSTILE: Final = (
    "</script><script>window.owned = 1</script><!--<script><img src=x onerror='window.owned = 2'>"
    '"><svg onload=window.owned=3>&lt;b&gt; {{ 7*7 }} \u202egnirts\u202c \x1b[31mred\x1b[0m \u2028\u2029\ufeff ]]> '
)
WORDS: Final = ("amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty")


def engine(name: str, quantization: str, *, baseline: bool = False, version: str = "1.2") -> EngineRecord:
    """Return an engine with an identity."""
    facts = {
        "version": Fact(value=version, source="reported"),
        "digest": Fact(value=f"sha256:{name[0] * 64}", source="file"),
        "template_sha256": Fact(value="ab" * 32, source="reported"),
    }
    return EngineRecord(
        name=name,
        kind="llamacpp",
        model=f"/srv/models/{name}.gguf",
        quantization=quantization,
        context_length=2048,
        baseline=baseline,
        identity=Identity(facts=facts),
    )


def tokens(text: str, lead: float = 0.5) -> tuple[TokenLogprob, ...]:
    """Return a text as a token for each word, each leading another word by so many nats."""
    pieces = [word if place == 0 else f" {word}" for place, word in enumerate(text.split(" "))]
    spelled = [piece.encode("utf-8", "surrogatepass") for piece in pieces]
    return tuple(
        TokenLogprob(token=word, logprob=-0.4, top=((word, -0.4), (b" jetty", -0.4 - lead), (b" q", -3.0)))
        for word in spelled
    )


def answer(name: str, case: str, text: str, **more: Any) -> Sample:
    """Return one judged answer."""
    completion = Completion(
        text=text, finish_reason="stop", completion_tokens=len(text.split()), logprobs=tokens(text), **more
    )
    return Sample(engine=name, case=case, phase=Phase.MAIN, request_sha256=case, completion=completion)


def verdict(kind: str, name: str, outcome: Outcome, **more: Any) -> Verdict:
    """Return a verdict of the one test there is."""
    numbers: dict[str, Any] = {"estimate": 0.1, "lower": 0.08, "upper": 0.12, "margin": 0.05, "unit": "forks/token"}
    values: dict[str, Any] = {
        **{"test": TEST, "check": f"{kind}()", "kind": kind, "engine": name, "baseline": "prod", "outcome": outcome},
        **{"n": 144, "groups": 40, "p_pass": 0.5, "p_fail": 0.01, "measures": "of tokens fork", **numbers},
    }
    return Verdict(**{**values, "where": "tests/test_gate.py:9", "message": "", **more})


class Made:
    """A run: its record, samples, and what says whose question an answer is."""

    def __init__(self, samples: Sequence[Sample], verdicts: Sequence[Verdict], **more: Any) -> None:
        names = dict.fromkeys(sample.engine for sample in samples)
        classes = {"prod": "F16", "dev": "Q4_K_M", "lab": "Q8_0"}
        self.samples = list(samples)
        self.tags: Mapping[str, tuple[str, ...]] = {}
        self.record = RunRecord(
            run="20261128-101500-ab12",
            version="1.0",
            engines=tuple(engine(name, classes[name], baseline=name == "prod") for name in names),
            verdicts=tuple(verdicts),
            requests=len(samples),
            reproduce={TEST: "pytest tests/test_gate.py::test_tickets --engines prod,dev"},
            **more,
        )

    @property
    def origin(self) -> Callable[[Sample], SampleOrigin]:
        """Say whose question an answer is: that of the one test."""
        return lambda sample: SampleOrigin(
            tests=(TEST,),
            prompt_sets=("tickets",),
            messages=({"role": "user", "content": f"Tell me of {sample.case}"},),
            tags=self.tags.get(sample.case, ("story" if sample.case.endswith("3") else "ticket",)),
            judged=True,
        )


def large(cases: int, *, words: int = 24) -> Made:
    """Return a run of so many cases, of which dev answers every third one otherwise and lab every fifth."""
    samples: list[Sample] = []
    differing: list[Difference] = []
    for number in range(cases):
        case = f"case-{number}"
        text = [WORDS[(number * 7 + place * place) % 10] for place in range(words)]
        samples.append(answer("prod", case, " ".join(text)))
        for name, every in (("dev", 3), ("lab", 5)):
            at = number % (words - 1)
            other = text if number % every else [*text[:at], "quartz", *text[at + 1 :]]
            samples.append(answer(name, case, " ".join(other)))
            if name == "dev" and number % every == 0:
                grade = ("near-tie", "rank shift", "outside top-k")[number % 3]
                differing.append(Difference(case=case, what="text", byte=0, char=0, token=float(at), grade=grade))
    verdicts = [
        verdict("text", "dev", Outcome.FAIL, differing=tuple(differing), floor=0.01),
        verdict("text", "lab", Outcome.PASS, estimate=0.02, lower=0.01, upper=0.03),
    ]
    return Made(samples, verdicts)


def varied() -> Made:
    """Return a small run in which everything there is to show occurs once, hostile answers among it."""
    call = {"name": "refund", "arguments": '{"order": 7, "days": 30}'}
    samples = [
        answer("prod", "plain-1", "amber birch cedar"),
        answer("dev", "plain-1", "amber birch cedar"),
        answer("prod", "fork-2", "amber birch cedar delta"),
        answer("dev", "fork-2", "amber birch jetty ember fjord"),
        answer("prod", "hostile-3", f"amber {HOSTILE}"),
        answer("dev", "hostile-3", f"amber birch {HOSTILE}"),
        answer("prod", "json-4", '{"name": "Ann", "age": 3, "tags": ["a"]}'),
        answer("dev", "json-4", '{"name": "Bob", "age": 3, "tags": ["a", "b"]}'),
        answer("prod", "call-5", "", tool_calls=(ToolCall(**call),)),
        answer("dev", "call-5", "", tool_calls=(ToolCall(name="refund", arguments='{"order": 7, "days": 14}'),)),
        answer("prod", "silent-6", "amber"),
        Sample(
            engine="dev",
            case="silent-6",
            phase=Phase.MAIN,
            failure=Failure(kind="EngineTimeout", message=f"no answer in time: {HOSTILE}", status=504),
        ),
        answer("prod", "wrong-7", '{"age": "three"}'),
        answer("dev", "wrong-7", '{"age": "three"}'),
        answer("prod", "odd/8 &?#", "é😀 amber \ud83d x"),
        answer("dev", "odd/8 &?#", "é😀 birch \ud83d x"),
    ]
    again = answer("prod", "fork-2", "amber birch delta")
    samples.append(
        Sample(engine="prod", case="fork-2", phase=Phase.PARALLEL, request_sha256="fork-2", completion=again.completion)
    )
    samples += [
        Sample(
            engine=name,
            case="plain-1",
            phase=Phase.TIMED,
            repeat=number,
            completion=Completion(text="amber"),
            timing=Timing(ttfb_s=0.01, ttft_s=0.05 + 0.001 * number * slower, e2e_s=0.3 + 0.002 * number * slower),
        )
        for name, slower in (("prod", 1), ("dev", 2))
        for number in range(64)
    ]
    forks = (
        Difference(case="fork-2", what="text", byte=12, char=12, token=2.0, grade="rank shift"),
        Difference(case="hostile-3", what="text", byte=6, char=6, token=1.0, grade="near-tie"),
        Difference(case="odd/8 &?#", what="text", byte=7, char=3, token=1.0, counted=False),
    )
    explanation = Explanation(
        experiments=(Experiment(removed="the same rendered prompt", outcome="gone", before=0.1, after=0.0, n=16),),
        causes=(Cause(layer="template", text=f"the chat templates differ {HOSTILE}", remedy="template = 'x'"),),
        requests=64,
    )
    verdicts = [
        verdict(
            "text",
            "dev",
            Outcome.FAIL,
            differing=forks,
            floor=0.02,
            cause=f"the chat templates differ {HOSTILE}",
            explanation=explanation,
            differs=("template",),
            details=(f"first fork: {HOSTILE}",),
        ),
        verdict(
            "schema.rate",
            "dev",
            Outcome.INCONCLUSIVE,
            baseline=None,
            estimate=0.9,
            lower=0.8,
            upper=0.95,
            margin=0.9,
            unit="share",
            side="at_least",
            needed=300,
            measures="of answers fit the schema",
            differing=(Difference(case="wrong-7", what="$.age: not an integer"),),
        ),
        verdict(
            "schema.agree",
            "dev",
            Outcome.PASS,
            estimate=0.98,
            lower=0.95,
            upper=1.0,
            margin=0.9,
            unit="share",
            side="at_least",
            differing=(Difference(case="json-4", what="$.name, $.tags[]"),),
        ),
        verdict("logprobs", "dev", Outcome.PASS, estimate=0.2, lower=0.15, upper=0.26, margin=0.3, unit="nats"),
        verdict(
            "latency.e2e_p95",
            "dev",
            Outcome.PASS,
            check="latency(e2e_p95=2s, ttft_p50=x1.25)",
            baseline=None,
            estimate=0.0,
            lower=0.0,
            upper=0.03,
            margin=0.05,
            unit="share",
            measures="of requests took over 2 s",
        ),
        verdict(
            "latency.ttft_p50",
            "dev",
            Outcome.PASS,
            check="latency(e2e_p95=2s, ttft_p50=x1.25)",
            estimate=1.1,
            lower=1.0,
            upper=1.2,
            margin=1.25,
            unit="ratio",
        ),
    ]
    rungs = [("Q8_0", 0.02), ("Q6_K", 0.05), ("Q4_K_M", 0.19), ("Q3_K_S", 0.6)]
    ladder = Ladder(
        digest=f"sha256:{'p' * 64}", model="tiny", date="2026-11-01", server="llama.cpp", made_by="llama-quantize",
        prompts=32, groups=32, prompt_set="mixed", plugin="1.0",
        rungs=tuple(
            Rung(
                quantization=name, shift=s, lower=s * 0.8, upper=s * 1.2, forks=s / 5, most_forks=s / 4,
                least_forks=s / 6, tags={"poem": Forks(forks=s / 5, least_forks=s / 6, most_forks=s / 4)},
            )
            for name, s in rungs
        ),
        prompt_sha256="5" * 64, max_tokens=32,
    )  # fmt: skip
    latency = [
        LatencyQuantiles(engine=name, metric=metric, p50=0.1, p95=0.2, p99=0.3, n=64)
        for name in ("prod", "dev")
        for metric in ("ttft", "e2e")
    ]
    return Made(samples, verdicts, ladder=ladder, latency=tuple(latency), notes=(f"a note {HOSTILE}",))


def turning() -> Made:
    """Return the varied run where the baseline was judged too, and the answer that did not come is noted."""
    made = varied()
    given = next(verdict for verdict in made.record.verdicts if verdict.kind == "schema.rate")
    ours = dataclasses.replace(given, engine="prod", outcome=Outcome.PASS, differing=())
    silent = FailureRecord(engine="dev", case="silent-6", phase="main", kind="EngineTimeout", message="no answer")
    made.record = dataclasses.replace(made.record, verdicts=(*made.record.verdicts, ours), failures=(silent,))
    return made


def decision(outcome: str = "HOLD", **more: Any) -> DecisionRecord:
    """Return a decision about dev in place of prod in which everything there is to show occurs."""
    known: dict[str, Any] = {
        "outcome": outcome,
        "baseline": "prod",
        "candidate": "dev",
        "advice": "dev should not replace prod. 1 of 2 required verdicts speaks against it.",
        "policy": "release.toml",
        "sha256": "ab" * 32,
        "verdicts": (
            Ground(
                test=TEST,
                kind="text",
                outcome="FAIL",
                level="required",
                alone="HOLD",
                says="FAIL text, dev against prod: 10 % of tokens fork, at least 8 %, margin 5 %",
                cause=f"the chat templates differ {HOSTILE}",
            ),
            Ground(
                test=TEST,
                kind="schema.agree",
                outcome="PASS",
                level="required",
                alone="SHIP",
                says="PASS schema.agree: 98 %",
                remarks=("too few prompts for a verdict of their own: ode 2",),
            ),
        ),
        "broken": (Broken(test="tests/test_app.py::test_app", why="assert 1 == 2", level="advisory", alone="HOLD"),),
        "changed": (
            Change(field="template_sha256", baseline="ab" * 32, candidate="cd" * 32),
            Change(field="context_length", baseline="4096", candidate="2048"),
            Change(field="args", baseline="--ctx-size 4096", candidate=f"--ctx-size 2048 {HOSTILE}"),
            Change(field="device", baseline="A", candidate="B", machine=True),
            Change(field="digest", baseline="ab" * 32, candidate=None),
        ),
        "same": ("kind", "version"),
        "flips": Counts(regressions=8, improvements=1, changed=60, changed_right=2, wrong_on_both=1),
        "regressions": (
            Turned(test="", case="silent-6", what="no answer (EngineTimeout)"),
            Turned(test=TEST, case="odd/8 &?#", what="text", token=1.0, char=3, grade="rank shift"),
            *(Turned(test=TEST, case=f"gone-{number}", what=HOSTILE) for number in range(6)),
        ),
        "improvements": (Turned(test=TEST, case="wrong-7", what="$.age: not an integer", checks=("schema.rate",)),),
        "changed_cases": tuple(
            Turned(test=TEST, case=f"case-{number}", what="text", token=2.0, char=12, counted=False)
            for number in range(50)
        ),
    }
    return DecisionRecord(**(known | more))


def decided(outcome: str = "HOLD", **more: Any) -> Made:
    """Return the run that has one turned case each way, with a decision."""
    made = turning()
    made.record = dataclasses.replace(made.record, decisions=(decision(outcome, **more),))
    return made
