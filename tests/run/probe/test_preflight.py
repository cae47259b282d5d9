"""Before the first prompt: what matters to the tests is probed, remembered, and held against what was promised."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import MissingSample, ParameterNotHonoured
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.identity.routes import CASES
from pytest_llmparity.core.sample import Request, Sampling, WireRequest
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.kinds.llamacpp import LlamaCppAdapter
from pytest_llmparity.engines.wire import build
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.run.probe import slots
from pytest_llmparity.run.probe.media import red_image, silence
from pytest_llmparity.run.probe.preflight import ALWAYS, PROBES, learn, most_requests, wanted
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import Route
from pytest_llmparity.store.runs import Store
from pytest_llmparity.testing import Fault, LoopbackEngine, Reply
from pytest_llmparity.testing.script import prompt_of
from tests.doubles.abilities import Abilities

if TYPE_CHECKING:
    from tests.run.conftest import Project

FORCED = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "properties": {}}}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
TEXT = check.text(margin=0.5)


def asking(media: bytes, kind: str) -> list[dict[str, Any]]:
    """Return a prompt with an image or sound beside its text."""
    encoded = base64.b64encode(media).decode()
    part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}
    if kind == "audio":
        part = {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}
    return [{"role": "user", "content": [{"type": "text", "text": "question"}, part]}]


def gathered(project: Project, *engines: LoopbackEngine, judge: Any = TEXT, **more: Any) -> Session:
    kind = more.pop("kind", "llamacpp")
    keywords = {name: more.pop(name) for name in ("max_tokens", "sampling") if name in more}
    specs = [project.attached(name, engine, kind=kind) for name, engine in zip("abc", engines, strict=False)]
    session = project.session(*specs, **more)
    project.declare(session, *([judge] if judge is not None else []), **keywords)
    session.gather()
    return session


def verdicts(session: Session) -> list[Verdict]:
    return session.settle("t", session.parity_run("t", reproduce=""))


def known(session: Session, name: str) -> EngineRecord:
    return next(engine for engine in session.record([]).engines if engine.name == name)


def probed(engine: LoopbackEngine, since: int = 0) -> list[Mapping[str, Any]]:
    """What was asked of an engine that is neither a warm-up nor one of the prompts."""
    asked = [received.json for received in engine.requests[since:]]
    return [request for request in asked if not any(text in prompt_of(request) for text in ("question", ": Hi"))]


# what is asked --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "keywords", "judge", "more"),
    [
        ({}, {}, check.prompts(), ()),
        ({}, {}, TEXT, ("logprobs",)),
        ({"response_format": FORCED}, {}, check.prompts(), ("schema",)),
        ({"response_format": {"type": "json_object"}}, {}, check.prompts(), ()),
        ({"tools": TOOLS}, {}, check.prompts(), ("tools",)),
        ({"messages": asking(red_image(), "image")}, {}, check.prompts(), ("images",)),
        ({"messages": asking(silence(), "audio")}, {}, check.prompts(), ("audio",)),
        ({"sampling": {"temperature": 0.5}}, {}, check.prompts(), ("seed",)),
        ({}, {"sampling": {"temperature": 0.5}}, check.prompts(), ("seed",)),
        ({}, {"max_tokens": 5000}, check.prompts(), ("context", "overflow")),
    ],
)
def test_a_run_asks_what_its_tests_make_matter(
    project: Project, row: dict[str, Any], keywords: dict[str, Any], judge: Any, more: tuple[str, ...]
) -> None:
    project.prompts(16, **row)
    session = project.session(project.attached("a", project.engine()), project.attached("b", project.engine()))
    project.declare(session, judge, **keywords)

    names = wanted(session.gates.plan().units, context=4096)

    assert set(names) == {*ALWAYS, *more}
    assert list(names) == [name for name in PROBES if name in names]
    assert most_requests(session.gates.plan().units, [4096, 4096]) == sum(PROBES[name].requests for name in names)


@pytest.mark.parametrize(("concurrency", "more"), [(1, 0), (4, 2 * slots.TRIES)])
def test_the_most_requests_count_those_that_find_out_how_many_are_answered_at_once(
    project: Project, concurrency: int, more: int
) -> None:
    session = project.session(project.attached("a", project.engine()))
    project.declare(session, check.latency(success_rate=0.9, n=32), concurrency=concurrency)

    assert most_requests(session.gates.plan().units, [4096]) == sum(PROBES[name].requests for name in ALWAYS) + more


def test_a_raw_prompt_makes_the_raw_route_matter(project: Project) -> None:
    (project.path / "prompts.jsonl").write_text("\n".join(json.dumps({"id": f"c{i}", "prompt": "q"}) for i in range(9)))
    session = project.session(project.attached("a", project.engine()), project.attached("b", project.engine()))
    project.declare(session, check.prompts())

    assert set(wanted(session.gates.plan().units, context=4096)) == {*ALWAYS, "raw prompt"}


@pytest.mark.parametrize(("context", "matters"), [(4096, False), (2048, True), (None, True)])
def test_long_prompts_make_the_context_matter(project: Project, context: int | None, matters: bool) -> None:
    row = {"id": "c0", "messages": [{"role": "user", "content": "word " * 500}]}
    (project.path / "prompts.jsonl").write_text(json.dumps(row))
    session = project.session(project.attached("a", project.engine()), project.attached("b", project.engine()))
    project.declare(session, check.prompts())

    assert ("overflow" in wanted(session.gates.plan().units, context=context)) is matters


def test_nothing_is_probed_where_nothing_is_judged(project: Project) -> None:
    rows_only, some_cases = project.engine(), project.engine()
    gathered(project, rows_only, judge=None)
    gathered(project, some_cases, project.engine(), token="two", cases=("c3",))

    assert rows_only.count == 1 + 12
    assert some_cases.count == 1 + 1


# what is remembered ---------------------------------------------------------------------------------------------------


def test_what_was_found_out_is_kept_for_the_next_run(project: Project) -> None:
    engine = project.engine(poses_as="llamacpp")
    spec = project.attached("a", engine)
    adapter = registry.adapter_of(spec)(spec, engine.base_url, {})
    identity = adapter.identity()
    with Store.open(project.path / ".llmparity") as store:
        first, second, fresh = (
            learn(adapter, identity, names=ALWAYS, store=store, version="1", fresh=fresh)
            for fresh in (False, False, True)
        )

    assert (first.requests > 0, second.requests, fresh.requests) == (True, 0, first.requests)
    assert first.probed.values == second.probed.values
    assert first.probed.settled == second.probed.settled == list(ALWAYS)


@pytest.mark.slow
def test_a_second_run_on_the_same_server_asks_nothing_and_knows_the_same(project: Project) -> None:
    engines = [project.engine(poses_as="llamacpp"), project.engine(poses_as="llamacpp")]
    first = gathered(project, *engines)
    before = [engine.count for engine in engines]
    second = gathered(project, *engines, token="two")

    assert [len(probed(engine, since)) for engine, since in zip(engines, before, strict=True)] == [0, 0]
    assert known(first, "a").capabilities == known(second, "a").capabilities
    assert {"logprobs", "stream_equal", "unknown_fields"} <= set(known(second, "a").capabilities.probed)


@pytest.mark.slow
def test_a_fresh_run_asks_again(project: Project) -> None:
    engine = project.engine(poses_as="llamacpp")
    gathered(project, engine, project.engine())
    before = engine.count
    gathered(project, engine, project.engine(), token="two", resume="fresh")

    assert len(probed(engine, before)) == 4


@pytest.mark.slow
def test_another_server_is_asked_anew(project: Project) -> None:
    engine = project.engine(poses_as="llamacpp")
    gathered(project, engine, project.engine())
    before = engine.count
    engine.quantization = "Q8_0"
    gathered(project, engine, project.engine(), token="two")

    assert len(probed(engine, before)) == 4


@pytest.mark.slow
def test_a_server_that_does_not_say_what_it_is_is_asked_every_time(project: Project) -> None:
    project.prompts(16, response_format=FORCED)
    engine = project.engine(abilities=Abilities(schema="forced"))
    before = gathered(project, engine, project.engine(), kind="openai")
    engine.abilities = Abilities(schema="sorted")
    after = gathered(project, engine, project.engine(), kind="openai", token="two")

    assert known(before, "a").capabilities.schema_order is True
    assert known(after, "a").capabilities.schema_order is False


@pytest.mark.slow
def test_a_server_that_says_something_else_of_what_it_can_do_is_asked_anew(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = project.engine(poses_as="llamacpp")
    gathered(project, engine, project.engine())
    before = engine.count
    monkeypatch.setattr(LlamaCppAdapter, "declares", dataclasses.replace(LlamaCppAdapter.declares, overflow=None))
    gathered(project, engine, project.engine(), token="two")

    assert len(probed(engine, before)) == 4


@pytest.mark.parametrize("limit", [2, 3])
def test_probes_are_part_of_what_may_be_sent(project: Project, limit: int) -> None:
    engines = [project.engine(poses_as="llamacpp"), project.engine()]
    session = gathered(project, *engines, max_requests=limit)

    assert sum(engine.count - 1 for engine in engines) == limit, "warm-ups apart; whoever comes first takes them"
    assert session.record([]).requests == limit
    assert f"incomplete: stopped after {limit} requests (--parity-max-requests)" in session.record([]).notes
    assert not [note for note in session.record([]).notes if "the probe of" in note]
    assert {v.outcome for v in verdicts(session)} == {Outcome.INCONCLUSIVE}


@pytest.mark.slow
def test_a_probe_that_was_not_asked_before_is_asked_beside_what_is_remembered(project: Project) -> None:
    engine = project.engine(poses_as="llamacpp", abilities=Abilities(schema="forced"))
    gathered(project, engine, project.engine(), judge=check.prompts())
    before = engine.count
    project.prompts(12, response_format=FORCED)
    session = gathered(project, engine, project.engine(), token="two")

    assert [("logprobs" in asked, "response_format" in asked) for asked in probed(engine, before)] == [
        (True, False),
        (False, True),
    ]
    assert {"stream_equal", "json_schema"} <= set(known(session, "a").capabilities.probed)


@pytest.mark.slow
def test_a_no_that_keeps_a_check_from_being_judged_is_asked_again(project: Project) -> None:
    project.prompts(16, tools=TOOLS)
    engine = project.engine(poses_as="llamacpp")
    before_repair = gathered(project, engine, project.engine())
    before = engine.count
    engine.abilities = Abilities(tools="taken")
    after_repair = gathered(project, engine, project.engine(), token="two")

    assert known(before_repair, "a").capabilities.tools is False
    assert known(after_repair, "a").capabilities.tools is True
    assert len(probed(engine, before)) == 2, "the same question without and with a function"


@pytest.mark.slow
def test_a_probe_that_failed_is_told_and_asked_again(project: Project) -> None:
    failing = Fault.refuse(500)
    engine = project.engine(lambda request: failing if "harbour" in prompt_of(request) else "well", poses_as="llamacpp")
    session = gathered(project, engine, project.engine())

    told = [note for note in session.record([]).notes if "the probe of" in note]
    assert [note.partition(", so only what its kind declares is known: ")[0] for note in told] == [
        "a: the probe of streaming failed",
        "a: the probe of logprobs failed",
    ]
    assert known(session, "a").capabilities.logprobs is True, "declared"
    before = engine.count
    engine.script = "well"
    after = gathered(project, engine, project.engine(), token="two")
    assert len(probed(engine, before)) == 3, "streaming and logprobs, but not unknown fields"
    assert not [note for note in after.record([]).notes if "the probe of" in note and note.startswith("a:")]


def test_probes_keep_no_key(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPARITY_TEST_KEY", "a value of some length")
    engine = project.engine(Fault.echo_key())
    session = project.session(project.attached("a", engine, api_key_env="LLMPARITY_TEST_KEY"), token="one")
    project.declare(session, check.similarity(at_least=0.5))
    session.gather()
    session.close()

    assert b"a value of some length" not in (project.path / ".llmparity/samples.sqlite").read_bytes()


# what follows ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_probes_decide_whether_logprobs_are_asked_for(project: Project) -> None:
    gives, refuses = project.engine(), project.engine(abilities=Abilities(logprobs="refused"))
    project.prompts(16)
    session = gathered(project, gives, refuses, kind="openai")

    def asked(engine: LoopbackEngine) -> set[bool]:
        return {"logprobs" in received.json for received in engine.requests if "question" in prompt_of(received.json)}

    assert (asked(gives), asked(refuses)) == ({True}, {False})
    assert {v.outcome for v in verdicts(session)} == {Outcome.PASS}


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside text"])
def test_odd_logprobs_are_refused_before_the_prompts_are_asked(project: Project, beside: bool) -> None:
    """The verdict is the same one; a check beside it that reads answers has them asked."""
    filtered = project.engine(Reply(text="all is well", lead=-1.0))
    project.prompts(16)
    session = project.session(project.attached("a", project.engine("all is well")), project.attached("b", filtered))
    project.declare(session, check.logprobs(shift=0.06), *([TEXT] if beside else []))
    session.gather()

    (verdict,) = [v for v in verdicts(session) if v.kind == "logprobs"]
    assert (verdict.outcome, verdict.blocked_by) == (Outcome.INCOMPARABLE, "b")
    assert verdict.reason is not None
    assert ("in answers to a probe the logprobs of b do not have the chosen token as the best" in verdict.reason) is (
        not beside
    )
    assert verdict.reason.endswith("; check.text() compares the answers without them")
    questions = sum("question" in prompt_of(received.json) for received in filtered.requests)
    assert (questions > 0) is beside


def test_what_an_engine_cannot_do_is_skipped_with_the_reason(project: Project) -> None:
    project.prompts(16, response_format=FORCED)
    able, unable = project.engine(abilities=Abilities(schema="forced")), project.engine('{"queue": 1}')
    judge = check.schema({"type": "object"}, rate=0.5, gap=0.5)
    session = gathered(project, able, unable, judge=judge, kind="openai")

    by_key = {(v.kind, v.engine): v for v in verdicts(session)}
    assert {key: v.outcome for key, v in by_key.items()} == {
        ("schema.rate", "a"): Outcome.PASS,
        ("schema.rate", "b"): Outcome.SKIPPED,
        ("schema.gap", "b"): Outcome.SKIPPED,
    }
    assert by_key["schema.gap", "b"].reason == "b does not enforce response_format (probed)"
    assert not [received for received in unable.requests if "question" in prompt_of(received.json)]
    row = session.parity_run("t", reproduce="")["b"]["c3"]
    with pytest.raises(MissingSample, match="not asked, every check is skipped: b does not enforce response_format"):
        _ = row.text


def test_what_an_engine_cannot_be_judged_by_is_asked_where_a_test_reads_the_answers(project: Project) -> None:
    project.prompts(16, response_format=FORCED)
    able, unable = project.engine(abilities=Abilities(schema="forced")), project.engine('{"queue": 1}')
    session = project.session(*(project.attached(n, e, kind="openai") for n, e in (("a", able), ("b", unable))))
    project.declare(session, check.schema({"type": "object"}, rate=0.5))
    project.declare(session, test="reads")
    session.gather()

    assert session.parity_run("reads", reproduce="")["b"]["c3"].text == '{"queue": 1}'
    assert {v.engine: v.outcome for v in verdicts(session)}["b"] is Outcome.SKIPPED


def test_what_was_required_is_an_error_with_the_same_reason(project: Project) -> None:
    project.prompts(16, tools=TOOLS)
    engines = project.engine(abilities=Abilities(tools="taken")), project.engine(abilities=Abilities(tools="refused"))
    session = gathered(project, *engines, judge=check.prompts(), kind="openai", required=True)

    (verdict,) = verdicts(session)
    assert verdict.outcome is Outcome.ERROR
    assert verdict.reason == "b does not take tools (probed), and --parity-required asks for a verdict"


def test_a_promise_that_is_not_kept_is_judged_and_told(project: Project) -> None:
    project.prompts(16, response_format=FORCED)
    honest = project.engine(poses_as="llamacpp", abilities=Abilities(schema="forced"))
    liar = project.engine("no JSON", poses_as="llamacpp")
    session = gathered(project, honest, liar, judge=check.schema({"type": "object"}, rate=0.5))

    by_engine = {v.engine: v for v in verdicts(session)}
    assert by_engine["b"].outcome is Outcome.FAIL
    layer = "structured output: b does not enforce response_format (probed, declared otherwise)"
    assert layer in by_engine["b"].differs
    told = "b does not enforce response_format (found by a probe; its kind enforces response_format)"
    assert told in session.record([]).notes


def test_a_replay_knows_what_was_probed(project: Project) -> None:
    project.prompts(16, tools=TOOLS)
    engine = project.engine(poses_as="llamacpp", abilities=Abilities(tools="taken"))
    live = gathered(project, engine, project.engine(), judge=check.prompts(), kind="openai")
    live.close()
    asked = engine.count
    replay = gathered(
        project, engine, project.engine(), judge=check.prompts(), kind="openai", token="two", mode="replay"
    )

    assert known(replay, "a").capabilities.tools is True
    assert engine.count == asked


class NoSchemas(Adapter):
    """A kind whose servers ignore response_format, so that nothing that has one is sent."""

    kind: ClassVar[str] = "no-schemas"
    health_path: ClassVar[str] = "/v1/models"
    declares: ClassVar[Capabilities] = Capabilities(json_schema=False)

    def build(self, request: Request, *, stream: bool = True) -> WireRequest:
        if request.response_format is not None:
            raise ParameterNotHonoured(f"{self.name} ignores response_format", engine=self.name)
        return super().build(request, stream=stream)


def test_what_a_kind_has_no_word_for_is_skipped_where_the_check_needs_it_and_incomparable_elsewhere(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_added", {**registry._added, "no-schemas": NoSchemas})
    project.prompts(16, response_format=FORCED)
    engine = project.engine("no JSON")
    able = project.attached("a", project.engine(abilities=Abilities(schema="forced")))
    session = project.session(able, project.attached("b", engine, kind="no-schemas"))
    project.declare(session, check.schema({"type": "object"}, rate=0.5), check.text(margin=0.5))
    session.gather()

    by_kind = {v.kind: v for v in verdicts(session) if v.engine == "b"}
    assert by_kind["schema.rate"].outcome is Outcome.SKIPPED
    assert by_kind["schema.rate"].reason == "b does not enforce response_format (declared)"
    assert by_kind["text"].outcome is Outcome.INCOMPARABLE
    assert by_kind["text"].reason == "b ignores response_format"
    assert engine.count == 1, "the warm-up"


# routes ---------------------------------------------------------------------------------------------------------------


class TwoRoutes(Adapter):
    """A kind whose native route has a field of its own for top_k and answers in OpenAI's shape."""

    kind: ClassVar[str] = "two-routes"
    routes: ClassVar[tuple[Route, ...]] = ("openai", "native")
    health_path: ClassVar[str] = "/v1/models"
    system: ClassVar[str] = ""
    wordless: ClassVar[str] = ""
    known: ClassVar[set[Capabilities]] = set()

    def build(self, request: Request, *, stream: bool = True) -> WireRequest:
        wire = super().build(request, stream=stream)
        if self.spec.route == "openai":
            self.known.add(self.can)
            if self.wordless and self.wordless in str(request.messages):
                raise ParameterNotHonoured("there is no word for it")
            return wire
        body = json.loads(wire.body)
        if self.system:
            body["messages"].insert(0, {"role": "system", "content": self.system})
        return build.wire(wire.path, body | {"native": True}, ())


@pytest.fixture
def two_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_added", {**registry._added, "two-routes": TwoRoutes})


def over_both(
    project: Project, answer: Any, route: Route = "native", **settings: Any
) -> tuple[Session, LoopbackEngine]:
    project.prompts(20)
    engine = project.engine(answer)
    session = project.session(project.attached("a", engine, kind="two-routes", route=route), **settings)
    project.declare(session, check.similarity(at_least=0.5))
    session.gather()
    return session, engine


@pytest.mark.usefixtures("two_routes")
def test_a_few_cases_are_asked_over_the_route_that_applications_use(project: Project) -> None:
    def answer(request: Mapping[str, Any]) -> str:
        return "one way" if request.get("native") or "question 1" in prompt_of(request) else "another"

    session, engine = over_both(project, answer)

    compared = known(session, "a").route_check
    assert compared is not None
    assert (compared.measured, compared.other, compared.cases) == ("native", "openai", CASES)
    assert 0 < compared.texts < CASES
    assert (compared.prompts, compared.finishes, compared.failed) == (0, 0, 0)
    assert compared.dropped == ("top_k", "min_p", "repetition_penalty")
    prompts = [received for received in engine.requests if "question" in prompt_of(received.json)]
    assert len(prompts) == 20 + 2 * CASES
    assert [bool(received.json.get("native")) for received in prompts] == [False] * CASES + [True] * (20 + CASES)
    assert session.record([]).requests == 20 + 2 * CASES, "no probe where one engine is compared with nobody"
    assert any(note == compared.sentence("a") for note in session.record([]).notes)
    assert session.record([]).engines[0].route_check == compared


@pytest.mark.usefixtures("two_routes")
def test_answers_on_one_route_only_and_other_ends_are_counted(project: Project) -> None:
    def answer(request: Mapping[str, Any]) -> str | Fault:
        if "question" not in prompt_of(request):
            return "the warm-up"
        number = int(prompt_of(request).split()[-1])
        if number % 3 == 0:
            return Fault.refuse(400)
        if request.get("native"):
            return "a long answer " * 40
        return Fault.refuse(400) if number % 3 == 1 else "short"

    session, engine = over_both(project, answer)

    compared = known(session, "a").route_check
    assert compared is not None
    asked = [int(prompt_of(r.json).split()[-1]) for r in engine.requests if "question" in prompt_of(r.json)][
        : 2 * CASES
    ]
    assert compared.failed == len({number for number in asked if number % 3 == 1}) > 0
    assert compared.finishes == compared.texts == len({number for number in asked if number % 3 == 2}) > 0


@pytest.mark.usefixtures("two_routes")
def test_a_template_of_the_other_route_shows_in_the_counts(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoRoutes, "system", "be kind")

    session, _ = over_both(project, "well")

    compared = known(session, "a").route_check
    assert compared is not None
    assert (compared.texts, compared.prompts, compared.tokens) == (0, CASES, -3)


@pytest.mark.usefixtures("two_routes")
def test_what_the_other_route_has_no_words_for_is_told(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoRoutes, "wordless", "question 1")

    session, _ = over_both(project, "well")

    compared = known(session, "a").route_check
    assert compared is not None
    assert (compared.failed, compared.why) == (0, "there is no word for it")
    assert 0 < compared.unasked < CASES
    assert "cannot be asked over openai: there is no word for it" in compared.sentence("a")


@pytest.mark.usefixtures("two_routes")
def test_the_other_route_knows_what_was_found_out(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoRoutes, "known", set())

    session, _ = over_both(project, "well")

    assert TwoRoutes.known == {known(session, "a").capabilities}


@pytest.mark.usefixtures("two_routes")
def test_routes_are_not_compared_beyond_what_may_be_sent(project: Project) -> None:
    session, engine = over_both(project, "well", max_requests=3 + CASES + 1)

    assert known(session, "a").route_check is None
    assert engine.count == 1 + 3 + CASES + 1
    assert session.record([]).requests == 3 + CASES + 1


@pytest.mark.usefixtures("two_routes")
def test_one_route_alone_is_held_against_nothing(project: Project) -> None:
    session, engine = over_both(project, "well", route="openai")

    assert known(session, "a").route_check is None
    assert len([r for r in engine.requests if "question" in prompt_of(r.json)]) == 20


@pytest.mark.usefixtures("two_routes")
def test_routes_that_answer_alike_are_told_too(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TwoRoutes, "fields", {name: name for name in Sampling.__dataclass_fields__})

    session, _ = over_both(project, "well")

    assert "a: its native and openai routes answer 8 cases alike" in session.record([]).notes


def test_responses_and_chats_of_one_server_are_held_against_each_other(project: Project) -> None:
    engine = project.engine("well", poses_as="llamacpp")
    session = project.session(project.attached("a", engine, route="responses"))
    project.declare(session, check.similarity(at_least=0.5))
    session.gather()

    asked = Counter(received.path for received in engine.requests if "question" in str(received.json))
    assert asked == {"/v1/chat/completions": CASES, "/v1/responses": CASES + 12}
    assert "a: its responses and openai routes answer 8 cases alike" in session.record([]).notes
    assert session.record([]).engines[0].route == "responses"
