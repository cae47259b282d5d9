"""Planted causes on a fault proxy in front of a real llama.cpp: what is named is right, and nothing else is named."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pytest_llmparity import check, lockfile
from pytest_llmparity.core.evidence import Check, EngineEvidence, Evidence
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.identity.ladder import Ladder, Rung
from pytest_llmparity.core.prompts import PromptSet
from pytest_llmparity.core.sample import Fact, Identity, Phase, Sample, Sampling
from pytest_llmparity.core.verdict import Explanation, Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.engines.registry import adapter_for
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.declare.prompts import load_prompts
from pytest_llmparity.run.explain import KINDS
from pytest_llmparity.run.explain.asking import Pair, Requests
from pytest_llmparity.run.explain.explaining import CASES
from pytest_llmparity.run.explain.search import Search
from pytest_llmparity.run.ledger import Allowance
from pytest_llmparity.run.loop import LoopThread
from pytest_llmparity.settings.specification import DEFAULT_EXPLAIN_REQUESTS, EngineSpec
from pytest_llmparity.testing import FaultProxy, proxy
from tests.engines.live import running

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("llamacpp")]

Changed = Callable[[dict[str, Any]], dict[str, Any] | None]
PROMPTS = 12
"""Prompts that are asked: what 12 show, 16 do, as many as experiments take of a gate."""
FEWER = 8
"""Prompts where two causes are planted: experiments ask each up to ten times."""
BY_MORE = ("template", "template, penalty", "constraint, reasoning", "dry")
"""What is not shown by fewer prompts: beginnings of stories that part late, two causes of which one leaves little, and
what acts only where an answer repeats itself.
"""
TICKETS = 10
"""Prompts whose answers are tickets, the longest there are."""
STORY = 16
"""Tokens of a story, which has no end: what 16 show, 32 do. Other answers end by themselves before 32."""
LIGHTER = "Q8_0"
"""The weights of both engines where a cause is planted: a token of them takes two thirds of the time of one of F16."""
TEXT, NATS = check.text(margin=0.05), check.logprobs(shift=0.02)
FINE = check.logprobs(shift=0.003)
"""A token before the prompt moves this model little: an engine against itself shifts by 0.0000."""
CROWDED = proxy.crowded(0.1, logit_bias=[[" the", -100]])
"""A request waits a tenth of a second for another: on a busy machine each was often answered before the next came, and
where fewer than four of five are changed, 16 prompts show too little to fail.
"""
SMALL = check.text(margin=0.02)
"""For what leaves little: where requests overlap 8 % of tokens part, with a lower bound of 16 prompts on either side of
5 %. And for what acts only where an answer repeats itself.
"""
PIRATE = proxy.hidden_system(
    "You are a pirate who answers in rhymes about the sea, and never says more than ten words."
)
BEHIND = proxy.words_behind("Answer in capitals only, in at most ten words, and in rhymes about the sea.")
HOT, PENALISED = proxy.overridden(temperature=1.5), proxy.overridden(repeat_penalty=1.8)
DRY = proxy.defaulting(dry_multiplier=8.0, dry_allowed_length=1, dry_sequence_breakers=["@"])
ALOUD = proxy.thinking_aloud("hm", opening="<scratchpad>", closing="</scratchpad>")


def other_template(messages: Sequence[Mapping[str, Any]]) -> str:
    turns = [f"<|im_start|>{message['role']}: {message['content']}<|im_end|>\n" for message in messages]
    return "".join(turns) + "<|im_start|>assistant:\n"


def cached(kind: str, **known: str) -> Identity:
    return Identity(
        facts={name: Fact(value=value, source="reported") for name, value in {"kv_cache": kind, **known}.items()}
    )


OF_OWN = {"digest": "sha256:of the weights of F16"}
OWN = Agreed().measuring(
    Ladder(
        digest=OF_OWN["digest"],
        model="tiny-F16.gguf",
        date="2026-11-29",
        server="llamacpp",
        made_by="llama-quantize",
        prompts=144,
        groups=45,
        prompt_set="mixed",
        plugin="0",
        rungs=(
            Rung(quantization="Q8_0", shift=0.036, lower=0.03, upper=0.04, forks=0.02, most_forks=0.03),
            Rung(quantization="Q4_0", shift=0.336, lower=0.28, upper=0.39, forks=0.1, most_forks=0.13),
        ),
    )
)
"""Two rungs of the tiny model's ladder, as they were measured with these prompts."""
LADDER = lockfile.agreed(Path(__file__).parents[2] / "fixtures/demo/llmparity.lock").ladders[0]
FULL = Agreed().measuring(dataclasses.replace(LADDER, digest=OF_OWN["digest"]))
"""All rungs, as the demo has them."""


class Remembering(Pair):
    """Asks the baseline the same but once in this file: it answers alike each time, and what that costs is counted."""

    memory: ClassVar[dict[str, Mapping[str, Sample]]] = {}

    def ask(self, adapter: Adapter, requests: Requests) -> dict[str, Sample]:
        if adapter is not self.baseline:
            return super().ask(adapter, requests)
        key = adapter.base_url + repr(
            [(case, asked.request, asked.schema, sorted(asked.names)) for case, asked in requests.items()]
        )
        if key in self.memory:
            self._allowance.take(len(self.memory[key]))
        else:
            self.memory[key] = super().ask(adapter, requests)
        return dict(self.memory[key])


class Bench:
    """Real engines on the tiny model, started when they are first needed, and one pair's verdicts explained."""

    def __init__(self, models: Path, prompts: Path, folder: Path, stack: contextlib.ExitStack) -> None:
        self._models, self._prompts, self._folder, self._stack = models, prompts, folder, stack
        self._urls: dict[tuple[str, ...], str] = {}
        self._loop = LoopThread()
        stack.callback(self._loop.close)

    def engine(self, quantization: str = "F16", *args: str) -> str:
        """Return the address of a llama.cpp that serves these weights."""
        key = (quantization, *args)
        if key not in self._urls:
            path = self._models / f"tiny-{quantization}.gguf"
            spec = EngineSpec(
                name=f"e{len(self._urls)}",
                kind="llamacpp",
                launch="process",
                model=path.name,
                model_path=path,
                context_length=1024,
                slots=4,
                args=("--threads", "1", *args),
            )
            self._urls[key] = self._stack.enter_context(running(spec, self._folder)).base_url
        return self._urls[key]

    def prompts(
        self,
        name: str,
        change: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda row: row,
        count: int = PROMPTS,
    ) -> PromptSet:
        """Return so many prompts of a set, from all over it, changed; ``None`` leaves one out."""
        rows = [change(json.loads(line)) for line in (self._prompts / f"{name}.jsonl").read_text("utf-8").splitlines()]
        left = [row for row in rows if row is not None]
        path = self._folder / "prompts.jsonl"
        path.write_text("\n".join(json.dumps(left[at * len(left) // count]) for at in range(count)), "utf-8")
        return load_prompts(str(path), (self._folder,))

    def verdicts(
        self,
        prompts: PromptSet,
        candidate: str,
        *changes: proxy.Change,
        checks: Sequence[Check] = (TEXT, NATS),
        quantization: str = "F16",
        kv_cache: str = "f16",
        tokens: int = 32,
        kind: str = "llamacpp",
        caches: bool = False,
        baseline: str = "F16",
        agreed: Agreed = Agreed(),  # noqa: B008 - nothing changes it
    ) -> list[tuple[Verdict, Explanation | None]]:
        """Judge a candidate behind a proxy with these changes against the weights of a baseline; explain what fails.

        An engine of this room repeats itself on a CPU, so its answers stand for its noise floor too, but for those of
        one that ``caches``: it is asked everything twice. (40 prompts, four at once and one by one: Q8_0, Q6_K and Q4_0
        to the bit, F16 within 0.0004 nats, of Q4_K_M another text in one.) ``kind`` is what the candidate is taken for.
        """
        sampling = Sampling(max_tokens=tokens)
        with FaultProxy(candidate, *changes) as changed:
            adapters = tuple(
                adapter_for(of)(EngineSpec(name=name, kind=of, model="tiny", base_url=url), url, {})
                for name, of, url in (("base", "llamacpp", self.engine(baseline)), ("cand", kind, changed.base_url))
            )
            colder, pair = (
                Remembering(
                    (adapters[0], adapters[1]),
                    prompts.cases,
                    {case.id: case.request(sampling, top_logprobs=5) for case in prompts.cases},
                    concurrency=4,
                    loop=self._loop,
                    allowance=Allowance(requests=DEFAULT_EXPLAIN_REQUESTS, seconds=None),
                    gone=lambda name: None,
                )
                for _ in range(2)
            )
            cold = colder.answers(()) if caches else {}
            answers = pair.answers(())
            in_phase = dict.fromkeys(Phase, answers) | {Phase.COLD: cold or answers}
            engines = {
                name: EngineEvidence(
                    name=name,
                    kind=kind if name == "cand" else "llamacpp",
                    quantization=quantization if name == "cand" else baseline,
                    identity=cached(kv_cache) if name == "cand" else cached("f16", **OF_OWN),
                    samples={
                        phase: {case: [sample] for case, sample in of_phase[name].items()}
                        for phase, of_phase in in_phase.items()
                    },
                )
                for name in ("base", "cand")
            }
            evidence = Evidence(
                test="t",
                prompts=prompts,
                sampling=sampling,
                concurrency=4,
                baseline="base",
                engines=engines,
                agreed=agreed,
            )
            return [
                (
                    verdict,
                    Search(pair=pair, check=each, kind=verdict.kind, evidence=evidence).explain()
                    if verdict.outcome is Outcome.FAIL
                    else None,
                )
                for each in checks
                for verdict in each.judge(evidence)
                if verdict.kind in KINDS
            ]

    def named(self, prompts: PromptSet, candidate: str, *changes: proxy.Change, **how: Any) -> list[set[str]]:
        """Return what is named as the cause of each verdict that fails."""
        explained = [explanation for _, explanation in self.verdicts(prompts, candidate, *changes, **how)]
        return [{cause.layer for cause in explanation.causes} for explanation in explained if explanation is not None]


@pytest.fixture(scope="module")
def bench(models: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """Return the engines of this file."""
    with contextlib.ExitStack() as stack:
        yield Bench(models, prompts, tmp_path_factory.mktemp("causes"), stack)


def begun(row: dict[str, Any]) -> dict[str, Any]:
    """Return a prompt as the rendered beginning of its answer, which goes on with a space."""
    first = " ".join(row["expect"]["answer"].split(" ")[:2])
    question = row["messages"][-1]["content"]
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{first}"
    return {"id": row["id"], "group": row["group"], "prompt": prompt}


def backwards(row: dict[str, Any]) -> dict[str, Any]:
    """Return a prompt whose schema declares its properties from the last to the first: nobody writes them so."""
    schema = row["response_format"]["json_schema"]["schema"]
    schema["properties"] = dict(reversed(schema["properties"].items()))
    return row


def long_chat(row: dict[str, Any]) -> dict[str, Any] | None:
    return row if len(row["messages"]) > 3 else None


def as_it_is(row: dict[str, Any]) -> dict[str, Any]:
    return row


TICKET: dict[str, Any] = json.loads((Path(__file__).parents[2] / "fixtures/schemas/ticket.json").read_text("utf-8"))
AGREES = check.schema(TICKET, agree=0.8)


def short_names(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that ends customers' names early: answers fit the one asked for, and are wrong."""
    return {**schema, "properties": {**schema["properties"], "customer": {"type": "string", "maxLength": 4}}}


ONE: Mapping[str, tuple[str, Changed, tuple[proxy.Change, ...], dict[str, Any], str]] = {
    "template": ("stories", as_it_is, (proxy.another_template(other_template),), {"tokens": STORY}, "chat template"),
    "bos": ("stories", as_it_is, (proxy.doubled_bos(")"),), {"checks": (FINE,), "tokens": STORY}, "BOS"),
    "system": ("stories", as_it_is, (PIRATE,), {"tokens": STORY}, "hidden text"),
    "suffix": ("stories", as_it_is, (BEHIND,), {"tokens": STORY}, "hidden text"),
    "turns": ("recall", long_chat, (proxy.oldest_dropped(1),), {}, "oldest turns"),
    "middle": ("needle", as_it_is, (proxy.middle_cut(150),), {}, "cut"),
    "order": ("tickets_constrained", as_it_is, (proxy.reordered_properties(),), {"tokens": 64}, "property order"),
    "temperature": ("mixed", as_it_is, (HOT,), {}, "temperature"),
    "penalty": ("mixed", as_it_is, (PENALISED,), {}, "repetition penalty"),
    "stop": ("capitals", as_it_is, (proxy.overridden(ignore_eos=True),), {}, "stop token"),
    "reasoning": ("mixed", as_it_is, (ALOUD,), {}, "reasoning"),
    "schema": (
        "tickets_constrained",
        backwards,
        (proxy.without("response_format"),),
        {"tokens": 64},
        "structured output",
    ),
    "constraint": (
        "tickets_constrained",
        as_it_is,
        (proxy.another_schema(short_names),),
        {"tokens": 64, "checks": (TEXT, AGREES)},
        "constraint",
    ),
    "xtc": ("mixed", as_it_is, (proxy.defaulting(xtc_probability=1.0, xtc_threshold=0.02),), {}, "sampler default"),
    "dry": ("mixed", as_it_is, (DRY,), {"checks": (SMALL,)}, "sampler default"),
    "tokeniser": (
        "stories",
        as_it_is,
        (proxy.another_tokenizer(),),
        {"checks": (TEXT,), "tokens": STORY},
        "tokeniser",
    ),
    "spaces": ("capitals", begun, (proxy.stripped(),), {}, "white space"),
}


QUICK = ("template", "system", "turns", "temperature", "spaces")
"""One of each kind: what is made of a prompt, put before it, cut from it, sampled, and left out of it."""


@pytest.mark.parametrize(
    "planted", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ONE]
)
def test_the_planted_cause_is_named_and_no_other(bench: Bench, planted: str) -> None:
    name, change, changes, how, layer = ONE[planted]

    count = CASES if planted in BY_MORE else TICKETS if name == "tickets_constrained" else PROMPTS
    prompts = bench.prompts(name, change, count)
    named = bench.named(prompts, bench.engine(LIGHTER), *changes, quantization=LIGHTER, baseline=LIGHTER, **how)

    assert named
    assert all(layers == {layer} for layers in named), named


DEFAULTS: Mapping[str, tuple[tuple[proxy.Change, ...], str]] = {
    "temperature": ((proxy.without("temperature"),), "temperature"),
    "repeat_penalty": (
        (proxy.without("repeat_penalty"), proxy.defaulting(repeat_penalty=1.8)),
        "repetition penalty",
    ),
}
"""A parameter that is lost on its way to an engine, and the cause: the default temperature is llama.cpp's own."""


@pytest.mark.slow
@pytest.mark.parametrize("lost", DEFAULTS)
def test_a_default_that_acts_in_place_of_what_was_sent_is_named(bench: Bench, lost: str) -> None:
    changes, layer = DEFAULTS[lost]

    how: Any = {"quantization": LIGHTER, "baseline": LIGHTER}
    named = bench.named(bench.prompts("mixed"), bench.engine(LIGHTER), *changes, **how)

    assert named
    assert all(layers == {layer} for layers in named), named


CUT = proxy.capped(4)
EARLY = "answers end early"


def test_answers_that_end_early_settle_nothing_and_that_is_what_differs(bench: Bench) -> None:
    """A full context, or a cap on the way: what is not said agrees with nothing, and no experiment names a cause."""
    how: Any = {"quantization": LIGHTER, "baseline": LIGHTER}

    explained = bench.verdicts(bench.prompts("stories"), bench.engine(LIGHTER), CUT, **how)

    assert [verdict.kind for verdict, _ in explained] == ["text", "logprobs"]
    for verdict, explanation in explained:
        assert (verdict.outcome, explanation) == (Outcome.INCONCLUSIVE, None)
        assert f"{PROMPTS} answers of cand end after 4 of 32 tokens" in verdict.reason
        assert [line.partition(":")[0] for line in verdict.differs] == [EARLY]


TWO: Mapping[str, tuple[str, Changed, tuple[proxy.Change, ...], dict[str, Any], set[str]]] = {
    "system, temperature": ("stories", as_it_is, (PIRATE, HOT), {"tokens": STORY}, {"hidden text", "temperature"}),
    "template, temperature": (
        "stories",
        as_it_is,
        (proxy.another_template(other_template), HOT),
        {"tokens": STORY},
        {"chat template", "temperature"},
    ),
    "template, penalty": (
        "mixed",
        as_it_is,
        (proxy.another_template(other_template), PENALISED),
        {},
        {"chat template", "repetition penalty"},
    ),
    "stop, reasoning": (
        "capitals",
        as_it_is,
        (proxy.overridden(ignore_eos=True), ALOUD),
        {},
        {"stop token", "reasoning"},
    ),
    "system, reasoning": ("stories", as_it_is, (PIRATE, ALOUD), {"tokens": STORY}, {"hidden text", "reasoning"}),
    "reasoning, penalty": ("mixed", as_it_is, (ALOUD, PENALISED), {}, {"reasoning", "repetition penalty"}),
    "reasoning, temperature": ("mixed", as_it_is, (ALOUD, HOT), {}, {"reasoning", "temperature"}),
    "temperature, penalty": ("mixed", as_it_is, (HOT, PENALISED), {}, {"temperature", "repetition penalty"}),
    "order, reasoning": (
        "tickets_constrained",
        as_it_is,
        (proxy.reordered_properties(), ALOUD),
        {"tokens": 64},
        {"property order", "reasoning"},
    ),
    "constraint, reasoning": (
        "tickets_constrained",
        as_it_is,
        (proxy.another_schema(short_names), ALOUD),
        {"tokens": 64},
        {"constraint", "reasoning"},
    ),
    "template, reasoning": (
        "stories",
        as_it_is,
        (proxy.another_template(other_template), ALOUD),
        {"tokens": STORY},
        {"chat template", "reasoning"},
    ),
}


@pytest.mark.slow
def test_an_engine_that_answers_otherwise_beside_others_is_named_for_that(bench: Bench) -> None:
    """What it does then no other removal takes away: one token is never chosen."""
    how: Any = {"checks": (SMALL,), "tokens": 2 * STORY, "quantization": LIGHTER, "baseline": LIGHTER}
    named = bench.named(bench.prompts("stories", count=CASES), bench.engine(LIGHTER), CROWDED, **how)

    assert named == [{"concurrency"}]


ASTRAY: Any = {"logit_bias": [[300, 100]]}
"""One token, whatever was asked."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "cache"),
    [
        ("vllm", proxy.stale_cache(**ASTRAY)),
        ("llamacpp", proxy.stale_cache(honoured=(), **ASTRAY)),
        ("llamacpp", proxy.stale_cache(60, honoured=(), **ASTRAY)),
    ],
    ids=["that a salt keeps out", "that nothing keeps out", "of beginnings"],
)
def test_a_prompt_cache_that_changes_answers_is_named(bench: Bench, kind: str, cache: proxy.Change) -> None:
    how: Any = {"quantization": LIGHTER, "baseline": LIGHTER, "tokens": STORY}
    how |= {"checks": (TEXT,), "kind": kind, "caches": True}
    named = bench.named(bench.prompts("stories"), bench.engine(LIGHTER), cache, **how)

    assert named == [{"prompt cache"}]


class SaltedOut(proxy.Change):
    """llama.cpp's own prompt cache, left out by requests with a salt as vLLM's is."""

    def asked(self, body: proxy.Body, *, chat: bool, post: proxy.Post) -> proxy.Body:
        return {**body, "cache_prompt": "cache_salt" not in body}


@pytest.mark.slow
def test_a_real_prompt_cache_is_no_cause_of_what_other_weights_do(bench: Bench) -> None:
    named = bench.named(
        bench.prompts("mixed"),
        bench.engine("Q4_0"),
        SaltedOut(),
        checks=(NATS,),
        quantization="Q4_0",
        kind="vllm",
        caches=True,
    )

    assert named == [{"weights or arithmetic"}]


@pytest.mark.slow
def test_a_cache_of_four_bits_is_what_is_left(bench: Bench) -> None:
    quantised = bench.engine("F16", "-ctk", "q4_0", "-ctv", "q4_0")

    ((verdict, explanation),) = bench.verdicts(bench.prompts("mixed"), quantised, checks=(FINE,), kv_cache="q4_0")

    assert verdict.outcome is Outcome.FAIL
    assert explanation is not None
    (cause,) = explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("weights or arithmetic", True)
    assert "(KV cache: f16 and q4_0)" in cause.text


@pytest.mark.slow
@pytest.mark.parametrize("planted", TWO)
def test_two_planted_causes_are_both_named_and_no_other(bench: Bench, planted: str) -> None:
    name, change, changes, how, layers = TWO[planted]

    prompts, engine = bench.prompts(name, change, PROMPTS if planted in BY_MORE else FEWER), bench.engine(LIGHTER)
    named = bench.named(prompts, engine, *changes, checks=(TEXT,), quantization=LIGHTER, baseline=LIGHTER, **how)

    assert named == [layers]


def test_weights_remain_by_exclusion(bench: Bench) -> None:
    verdicts = bench.verdicts(bench.prompts("mixed"), bench.engine("Q4_0"), checks=(NATS,), quantization="Q4_0")

    ((verdict, explanation),) = verdicts
    assert verdict.outcome is Outcome.FAIL
    assert explanation is not None
    (cause,) = explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("weights or arithmetic", True)
    assert "weights: F16 and Q4_0" in cause.text
    assert explanation.requests <= 2 * 3 * CASES
    read = explanation.experiments[-1]
    assert (read.outcome, read.n, read.requests) == ("measured", 6, 2 * 6 * 4)
    assert read.why.startswith("0.1")


CACHE_OF_4 = ("-ctk", "q4_0", "-ctv", "q4_0")
LEFT = "weights or arithmetic"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantization", "args", "name", "layer", "about"),
    [
        ("Q4_0", (), "mixed", LEFT, "about Q4_0 (0.336 nats)"),
        ("F16", CACHE_OF_4, "mixed", "arithmetic", "about Q8_0 (0.036 nats)"),
        ("F16", CACHE_OF_4, "recall", LEFT, "about Q4_0 (0.336 nats)"),
    ],
    ids=["weights of 4 bits", "a cache of 4 bits", "a cache of 4 bits on prompts that it moves far"],
)
def test_next_tokens_that_hardly_move_are_arithmetic_and_far_ones_are_not_called_weights(
    bench: Bench, quantization: str, args: tuple[str, ...], name: str, layer: str, about: str
) -> None:
    ((verdict, explanation),) = bench.verdicts(
        bench.prompts(name, count=CASES),
        bench.engine(quantization, *args),
        checks=(FINE,),
        quantization=quantization,
        agreed=OWN,
    )

    assert verdict.outcome is Outcome.FAIL
    assert explanation is not None
    (cause,) = explanation.causes
    assert (cause.layer, cause.by_exclusion) == (layer, True)
    assert cause.text.startswith(layer)
    assert about in explanation.experiments[-1].why
    assert "the ladder of tiny-F16.gguf" in explanation.experiments[-1].why


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["Q8_0", "Q4_K_M", "Q4_0"])
def test_the_class_is_that_of_whole_answers_and_not_of_next_tokens(bench: Bench, quantization: str) -> None:
    """These may move several times less, by which Q4_0 was called Q4_K_M, and Q8_0 less than any copy."""
    ((verdict, explanation),) = bench.verdicts(
        bench.prompts("mixed"), bench.engine(quantization), checks=(FINE,), quantization=quantization, agreed=FULL
    )

    assert verdict.outcome is Outcome.FAIL
    assert explanation is not None
    assert f"; whole answers shift by {explain.nats(verdict.estimate or 0.0)}, about {quantization} (" in (
        explanation.experiments[-1].why
    )


@pytest.mark.slow
def test_weights_that_show_with_a_constraint_alone_are_no_constraint(bench: Bench) -> None:
    """In an order that nobody writes both engines are forced to answers that they would not give."""
    tickets = bench.prompts("tickets_constrained", backwards, TICKETS)

    ((verdict, explanation),) = bench.verdicts(
        tickets, bench.engine("Q4_0"), checks=(AGREES,), quantization="Q4_0", tokens=64
    )

    assert verdict.outcome is Outcome.FAIL
    assert explanation is not None
    (cause,) = explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("weights or arithmetic", True)
    assert "which show with the schema's constraint alone" in cause.text


@pytest.mark.parametrize(
    ("quantization", "changes"),
    [("F16", ()), ("F16", (proxy.overridden(top_k=5),)), ("F16", (proxy.overridden(cache_prompt=True),)), ("Q8_0", ())],
    ids=["itself", "top_k", "prompt cache", "Q8_0 within the margin"],
)
def test_nothing_is_named_where_nothing_drifts_beyond_the_margin(
    bench: Bench, quantization: str, changes: tuple[proxy.Change, ...]
) -> None:
    checks = (TEXT, check.logprobs(shift=0.06))

    named = bench.named(
        bench.prompts("mixed"), bench.engine(quantization), *changes, checks=checks, quantization=quantization
    )

    assert named == []
