"""Which verdicts are explained, what that costs, and what is kept of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check, lockfile
from pytest_llmparity.core.identity import lock
from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.verdict import Cause, Explanation, Outcome, Verdict
from pytest_llmparity.core.words.explain import explained
from pytest_llmparity.report.progress import Bars
from pytest_llmparity.run.declare.prompts import load_prompts
from pytest_llmparity.run.explain import untried
from pytest_llmparity.run.explain.explaining import CASES, NOT_STORED, SPENT, with_explanation
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.testing import FaultProxy, Reply, proxy
from tests.core.identity.test_ladder import LADDER
from tests.doubles.abilities import Abilities
from tests.doubles.posing import PosingEngine
from tests.doubles.rendering import rendered
from tests.run.explain.conftest import answer

if TYPE_CHECKING:
    from pytest_llmparity.core.evidence import Check
    from tests.run.explain.conftest import Planted

TEXT = check.text(margin=0.05, horizon=8)
PROMPTS = 12


def gated(
    planted: Planted,
    *changed: FaultProxy,
    kind: str = "llamacpp",
    prompts: int = PROMPTS,
    judged_by: Check = TEXT,
    **settings: Any,
) -> tuple[Session, Verdict]:
    """Gather one text gate of an engine against changed copies; return the session and the verdict on the first."""
    planted.project.prompts(prompts)
    specs = tuple(
        EngineSpec(name=name, kind=kind if name == "b" else "llamacpp", model="loopback", base_url=url)
        for name, url in zip("abcd", (planted.engine.base_url, *(each.base_url for each in changed)), strict=False)
    )
    session = planted.project.session(*specs, **settings)
    planted.project.declare(session, judged_by)
    session.gather()
    return session, judged(session)


class AroundEverything(proxy.Change):
    """Puts a system prompt before every chat, and the same and a chat around every raw prompt."""

    def asked(self, body: dict[str, Any], *, chat: bool, post: proxy.Post) -> dict[str, Any]:
        hidden = {"role": "system", "content": "Rhyme in every line."}
        if chat:
            return {**body, "messages": [hidden, *body["messages"]]}
        return {**body, "prompt": rendered([hidden, {"role": "user", "content": body["prompt"]}])}


def judged(session: Session) -> Verdict:
    return next(v for v in session.settle("t", session.parity_run("t", reproduce="")) if v.kind == "text")


def test_a_hidden_system_prompt_is_the_cause_and_what_shows_it_is_told(planted: Planted) -> None:
    _, verdict = gated(planted, planted.behind(proxy.hidden_system("Rhyme in every line.")))

    assert verdict.outcome is Outcome.FAIL
    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == ["hidden text"]
    assert verdict.cause is not None
    assert "b puts 5 tokens more into every chat" in verdict.cause
    raw = verdict.explanation.experiments[-1]
    assert (raw.removed, raw.outcome, raw.after) == ("the same rendered prompt sent raw to both", "gone", 0.0)
    assert raw.requests == 2 * PROMPTS
    assert verdict.explanation.experiments[0].requests == 2 * PROMPTS, "the same prompts asked again"
    renderings = verdict.explanation.requests - sum(
        experiment.requests for experiment in verdict.explanation.experiments
    )
    assert 0 <= renderings <= PROMPTS


@pytest.mark.slow
def test_a_margin_from_the_ladder_holds_for_the_experiments_too(planted: Planted) -> None:
    """The ladder has one for its own prompts only, and experiments ask a few of these."""
    planted.project.prompts(CASES + 4)
    prompts = load_prompts("prompts.jsonl", [planted.project.path])
    ladder = dataclasses.replace(LADDER, digest=f"sha256:{'0' * 64}", prompt_sha256=prompts.digest)
    lockfile.write(planted.project.path / lock.NAME, {}, Agreed().measuring(ladder))
    ours, theirs = (
        planted.project.engine(
            lambda request, bias=bias: answer({**request, "logit_bias": bias if request.get("stream") else ""}),
            poses_as="ollama",
        )
        for bias in ("", "streamed")
    )
    session = planted.project.session(
        planted.project.attached("a", ours, kind="ollama"), planted.project.attached("b", theirs, kind="ollama")
    )
    planted.project.declare(session, check.text(), max_tokens=LADDER.max_tokens)
    session.gather()

    verdict = judged(session)

    assert verdict.outcome is Outcome.FAIL
    assert any("Q8_0 on the ladder of tiny-F16.gguf" in line for line in verdict.details)
    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == ["streaming"]


@pytest.mark.slow
def test_words_behind_every_chat_are_not_called_a_system_prompt_in_front_of_it(planted: Planted) -> None:
    _, verdict = gated(planted, planted.behind(proxy.words_behind("/no_think be brief")))

    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == ["hidden text"]
    assert verdict.cause == (
        "b puts 3 tokens more into every chat that its own template does not show: hidden text, such as a system prompt"
    )


@pytest.mark.parametrize("default", [{"xtc_probability": 0.5}, {"dry_multiplier": 0.8}], ids=["xtc", "dry"])
def test_a_default_of_a_sampler_that_no_request_names_is_not_called_a_temperature(
    planted: Planted, default: dict[str, float]
) -> None:
    """``top_k`` 1 takes away what XTC does as well."""
    _, verdict = gated(planted, planted.behind(proxy.defaulting(**default)))

    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == ["sampler default"]
    assert verdict.cause is not None
    assert verdict.cause.startswith("b applies a default of its own to a sampler that no request speaks of")
    assert "extra_body=" in verdict.explanation.causes[0].remedy


@pytest.mark.parametrize(
    ("kind", "layer"),
    [("lmstudio", "temperature or sampler default"), ("vllm", "temperature")],
    ids=["may", "has-none"],
)
def test_a_default_that_nothing_turns_off_is_called_a_temperature_only_of_kinds_that_have_no_such_sampler(
    planted: Planted, kind: str, layer: str
) -> None:
    _, verdict = gated(planted, planted.behind(proxy.defaulting(xtc_probability=0.5)), kind=kind)

    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == [layer]


@pytest.mark.parametrize("kind", ["openai", "tgi", "lmstudio"])
def test_samplers_that_nothing_takes_away_are_not_said_to_be_excluded(planted: Planted, kind: str) -> None:
    _, verdict = gated(planted, planted.behind(proxy.defaulting(dry_multiplier=0.8)), kind=kind)

    assert verdict.explanation is not None
    (cause,) = verdict.explanation.causes
    assert cause.by_exclusion
    assert cause.text.endswith("equal but the samplers of b, which could not be taken away"), cause.text


def test_a_temperature_that_is_lost_is_no_default_of_such_a_sampler(planted: Planted) -> None:
    _, verdict = gated(planted, planted.behind(proxy.without("temperature"), proxy.defaulting(temperature=0.8)))

    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == ["temperature"]


@pytest.mark.slow
def test_who_does_not_tell_its_template_is_not_said_to_hide_a_system_prompt(planted: Planted) -> None:
    _, verdict = gated(planted, planted.behind(proxy.hidden_system("Rhyme in every line.")), kind="openai")

    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == ["rendered prompt"]
    assert verdict.cause == (
        "b and a make different prompts of the same chat (5 tokens more on b, on every one): template, BOS token or "
        "hidden text, such as a system prompt"
    )


@pytest.mark.parametrize("kind", [pytest.param("openai"), pytest.param("llamacpp", marks=pytest.mark.slow)])
def test_an_engine_that_puts_a_chat_around_raw_prompts_too_is_not_said_to_have_other_weights(
    planted: Planted, kind: str
) -> None:
    _, verdict = gated(planted, planted.behind(AroundEverything()), kind=kind)

    assert verdict.outcome is Outcome.FAIL
    assert verdict.explanation is not None
    assert verdict.explanation.causes == ()
    assert "b counts another number of tokens than a in 12 of 12 raw prompts" in verdict.explanation.note


@pytest.mark.slow
def test_what_was_shown_stands_where_no_request_is_left_to_find_out_what_of_it(planted: Planted) -> None:
    """Asked again, everything and the prompt taken away, one rendering of each chat: seven times the prompts."""
    rude = planted.behind(proxy.hidden_system("Rhyme in every line."))

    _, verdict = gated(planted, rude, explain_requests=7 * PROMPTS)

    assert verdict.explanation is not None
    assert verdict.explanation.requests == 7 * PROMPTS
    assert [cause.layer for cause in verdict.explanation.causes] == ["rendered prompt"]


@pytest.mark.slow
def test_experiments_on_all_pairs_keep_to_the_requests_of_the_run(planted: Planted) -> None:
    hot = [planted.behind(proxy.overridden(temperature=1.0)) for _ in range(3)]
    free, _ = gated(planted, *hot, explain_requests=0)
    asked = free.record([]).requests
    free.close()

    session, _ = gated(planted, *hot, max_requests=asked + 5 * PROMPTS, resume="fresh")
    verdicts = session.settle("t", session.parity_run("t", reproduce=""))

    explanations = [v.explanation for v in verdicts if v.explanation is not None]
    assert len(explanations) == 3
    assert sum(each.requests for each in explanations) <= 5 * PROMPTS
    assert explanations[-1].note.endswith("left (--parity-max-requests)")


def test_where_no_request_is_left_no_experiment_is_announced(planted: Planted) -> None:
    session, _ = gated(planted, planted.behind(proxy.overridden(temperature=1.0)), explain_requests=0)
    sent = session.record([]).requests
    session.settings = dataclasses.replace(session.settings, explain_requests=100, max_requests=sent)
    session._progress = Bars(shown := io.StringIO(), contextlib.nullcontext)

    verdict = judged(session)

    assert shown.getvalue() == "b against a: no experiments, no request is left of those of --parity-max-requests\n"
    assert verdict.explanation is not None
    assert verdict.explanation.note.endswith("0 are left (--parity-max-requests)")


@pytest.mark.slow
def test_a_temperature_that_is_not_honoured_is_named_for_the_engine_that_does_not(planted: Planted) -> None:
    _, verdict = gated(planted, planted.behind(proxy.overridden(temperature=1.0)))

    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == ["temperature"]
    assert verdict.cause is not None
    assert verdict.cause.startswith("b does not honour temperature 0")


def stale_cache(*, honoured: Sequence[str] = ("cache_prompt", "cache_salt")) -> proxy.Change:
    return proxy.stale_cache(honoured=honoured, logit_bias=[[" the", -100]])


@pytest.mark.slow
def test_a_prompt_cache_that_changes_answers_is_named_by_the_field_that_leaves_it_out(planted: Planted) -> None:
    _, verdict = gated(planted, planted.behind(stale_cache()), kind="vllm")

    assert verdict.outcome is Outcome.FAIL
    assert verdict.explanation is not None
    (cause,) = verdict.explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("prompt cache", False)
    assert cause.text == "b answers otherwise where its prompt cache holds a part of the prompt"
    assert cause.remedy == "start the server of b with: --no-enable-prefix-caching"


@pytest.mark.slow
def test_a_prompt_cache_that_no_field_leaves_out_is_named_where_asking_again_brings_the_drift(planted: Planted) -> None:
    changed = planted.behind(stale_cache(honoured=()))

    _, verdict = gated(planted, changed)

    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == ["prompt cache"]
    shown = verdict.explanation.experiments[-1]
    assert (shown.outcome, shown.after, shown.requests) == ("gone", 0.0, 4 * PROMPTS)
    numbered = [body["messages"][0]["content"] for body in changed.received[-2 * PROMPTS :]]
    assert sorted(numbered[:PROMPTS]) == sorted(numbered[PROMPTS:])


@pytest.mark.slow
def test_a_prompt_cache_that_does_not_act_behind_numbers_is_left_open(planted: Planted) -> None:
    class OfQuestions(proxy.stale_cache):
        def asked(self, body: proxy.Body, *, chat: bool, post: proxy.Post) -> proxy.Body:
            numbered = re.search(r"\d{12}", str(body))
            return body if numbered else super().asked(body, chat=chat, post=post)

    changed = planted.behind(OfQuestions(honoured=(), logit_bias=[[" the", -100]]))

    _, verdict = gated(planted, changed)

    assert verdict.explanation is not None
    (cause,) = verdict.explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("weights or arithmetic", True)
    assert cause.text.endswith("but the prompt cache of b, which could not be taken away")


@pytest.mark.slow
def test_a_prompt_cache_that_requests_leave_out_makes_no_drift(planted: Planted) -> None:
    """Requests to llama.cpp always do."""
    _, verdict = gated(planted, planted.behind(stale_cache()))

    assert verdict.outcome is Outcome.PASS


@pytest.mark.slow
def test_calls_that_are_left_in_the_text_are_named_and_cost_no_request(planted: Planted) -> None:
    def asked(request: Mapping[str, Any]) -> str:
        return json.dumps({"name": "find", "arguments": {"what": request["messages"][-1]["content"]}})

    def calls(request: Mapping[str, Any]) -> Reply:
        return Reply(tool_calls=[("find", json.dumps(json.loads(asked(request))["arguments"]))])

    def leaves(request: Mapping[str, Any]) -> Reply:
        return Reply(text=f"<tool_call>\n{asked(request)}\n</tool_call>")

    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
    planted.project.prompts(PROMPTS, tools=[tool])
    able = Abilities(tools="taken")
    with (
        PosingEngine(calls, poses_as="llamacpp", abilities=able) as ours,
        PosingEngine(leaves, poses_as="mlx", abilities=able) as theirs,
    ):
        session = planted.project.session(
            EngineSpec(name="a", kind="llamacpp", model="loopback", base_url=ours.base_url),
            EngineSpec(name="b", kind="mlx", model="loopback", base_url=theirs.base_url),
        )
        planted.project.declare(session, TEXT)
        session.gather()
        verdict = judged(session)

    assert verdict.outcome is Outcome.FAIL
    assert verdict.explanation is not None
    (cause,) = verdict.explanation.causes
    assert (cause.layer, cause.text) == ("tool calls", "b leaves its tool calls in the text of its answers")
    assert cause.remedy.startswith("read the calls out of the text of b")
    assert verdict.explanation.requests == 2 * PROMPTS, "the same prompts asked again"


@pytest.mark.slow
def test_tools_that_are_called_otherwise_have_a_cause(planted: Planted) -> None:
    def calls(request: Mapping[str, Any]) -> Reply:
        hot = request.get("temperature", 0) > 0 and request.get("top_k") != 1
        return Reply(tool_calls=[("find", json.dumps({"what": "storms" if hot else "tides"}))])

    tool = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
    planted.project.prompts(PROMPTS, tools=[tool])
    with (
        PosingEngine(calls, poses_as="llamacpp", abilities=Abilities(tools="taken")) as ours,
        FaultProxy(ours.base_url, proxy.overridden(temperature=1.0)) as theirs,
    ):
        session = planted.project.session(
            *(
                EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=each.base_url)
                for name, each in (("a", ours), ("b", theirs))
            )
        )
        planted.project.declare(session, check.tools(agree=0.5))
        session.gather()
        (verdict,) = session.settle("t", session.parity_run("t", reproduce=""))

    assert (verdict.kind, verdict.outcome) == ("tools.agree", Outcome.FAIL)
    assert verdict.explanation is not None
    assert [cause.layer for cause in verdict.explanation.causes] == ["temperature"]


@pytest.mark.parametrize(
    ("kind", "baseline", "why"),
    [
        ("similarity", "a", "experiments count answers that part; put check.text() beside check.similarity()"),
        ("value.drift", "a", "experiments ask engines, and not what an application makes of their answers"),
        ("text.repeat", "a", "experiments make two engines alike, and this is one engine against itself"),
        ("answers.rate", None, "experiments make two engines alike, and this verdict is about b alone"),
        ("schema.arms", "a", "no experiment is made for schema.arms"),
    ],
)
def test_why_no_experiment_was_made_is_said_where_all_are_asked_for(
    planted: Planted, kind: str, baseline: str | None, why: str
) -> None:
    settings = planted.project.session(explain=True).settings
    failed = Verdict(test="t", check="c", kind=kind, engine="b", baseline=baseline, outcome=Outcome.FAIL)

    assert untried(failed, settings) == Explanation(note=why)
    assert untried(dataclasses.replace(failed, outcome=Outcome.PASS), settings) is None
    assert untried(failed, dataclasses.replace(settings, explain=False)) is None
    assert untried(failed, dataclasses.replace(settings, explain_requests=0)) is None
    assert untried(dataclasses.replace(failed, kind="text"), settings) is None


def test_a_similarity_that_fails_alone_says_so_too(planted: Planted) -> None:
    planted.project.prompts(32)
    session = planted.project.session(
        *(
            EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=each.base_url)
            for name, each in (("a", planted.engine), ("b", planted.behind(proxy.overridden(temperature=1.0))))
        ),
        explain=True,
    )
    planted.project.declare(session, check.similarity(at_least=0.9))
    session.gather()

    (verdict,) = session.settle("t", session.parity_run("t", reproduce=""))

    assert verdict.outcome is Outcome.FAIL
    (told,) = explained(verdict)
    assert told.endswith("experiments count answers that part; put check.text() beside check.similarity()")


def test_prompts_that_fail_alone_say_what_would_show_a_cause(planted: Planted) -> None:
    planted.project.prompts(PROMPTS)
    changed = planted.behind(proxy.another_template(last_alone))
    session = planted.project.session(
        *(
            EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=each.base_url)
            for name, each in (("a", planted.engine), ("b", changed))
        ),
        explain=True,
    )
    planted.project.declare(session, check.prompts())
    session.gather()

    (verdict,) = session.settle("t", session.parity_run("t", reproduce=""))

    assert verdict.outcome is Outcome.FAIL
    assert explained(verdict) == [
        "no cause is shown: experiments compare answers; put check.text() beside check.prompts()"
    ]


@pytest.mark.slow
def test_two_faults_are_both_named(planted: Planted) -> None:
    changed = planted.behind(proxy.hidden_system("Rhyme."), proxy.overridden(temperature=1.0))

    _, verdict = gated(planted, changed)

    assert verdict.explanation is not None
    assert {cause.layer for cause in verdict.explanation.causes} == {"hidden text", "temperature"}


@pytest.mark.slow
def test_what_nothing_takes_away_remains_by_exclusion_and_is_no_cause(planted: Planted) -> None:
    class Quantised(proxy.Change):
        def spoken(self, text: str, body: proxy.Body, *, first: bool, last: bool) -> str:
            return text.replace("w", "v")

    _, verdict = gated(planted, planted.behind(Quantised()))

    assert verdict.outcome is Outcome.FAIL
    assert verdict.cause is None
    assert verdict.explanation is not None
    (remaining,) = verdict.explanation.causes
    assert (remaining.layer, remaining.by_exclusion) == ("weights or arithmetic", True)


@pytest.mark.slow
def test_nothing_is_asked_where_nothing_drifts_or_nobody_wants_to_know(planted: Planted) -> None:
    same = planted.behind()
    session, verdict = gated(planted, same)
    before = len(same.received)

    assert verdict.outcome is Outcome.PASS
    assert judged(session).explanation is None
    assert len(same.received) == before


@pytest.mark.slow
def test_no_experiments_are_made_where_none_are_allowed(planted: Planted) -> None:
    _, verdict = gated(planted, planted.behind(proxy.overridden(temperature=1.0)), explain_requests=0)

    assert (verdict.outcome, verdict.explanation, verdict.cause) == (Outcome.FAIL, None, None)


def test_where_nothing_differs_there_is_nothing_to_explain(planted: Planted) -> None:
    same = planted.behind()
    _, verdict = gated(planted, same, explain=True)

    assert verdict.outcome is Outcome.PASS
    assert verdict.explanation == Explanation(note="nothing differs, so that there is nothing to explain")


class Apart(proxy.Change):
    """Answers to the first prompts part at once, those to others behind the first word."""

    def __init__(self, early: int) -> None:
        self._at_once = tuple(f"question {i}" for i in range(early))

    def spoken(self, text: str, body: proxy.Body, *, first: bool, last: bool) -> str:
        if body["messages"][-1]["content"] in self._at_once:
            return "x" + text[1:] if first else text
        return text if first else text.upper()


@pytest.mark.slow
def test_experiments_take_what_counts_before_what_differs_and_does_not(planted: Planted) -> None:
    """Of 24 answers 18 differ beyond the horizon only, which is more than experiments ask."""
    planted.project.prompts(24)
    changed = planted.behind(Apart(6))
    session = planted.project.session(
        *(
            EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=each.base_url)
            for name, each in (("a", planted.engine), ("b", changed))
        ),
        explain=True,
    )
    planted.project.declare(session, check.text(margin=0.2, horizon=1))
    session.gather()
    before = len(changed.received)

    verdict = judged(session)

    assert verdict.estimate is not None
    assert verdict.estimate > 0.2
    assert (len(verdict.differing), sum(each.counted for each in verdict.differing)) == (24, 6)
    asked = {body["messages"][-1]["content"] for body in changed.received[before:] if "messages" in body}
    assert len(asked) == 16
    assert asked >= {f"question {i}" for i in range(6)}


class Hot(proxy.Change):
    """A temperature that is not honoured, on prompts about the first twelve questions."""

    def asked(self, body: proxy.Body, *, chat: bool, post: proxy.Post) -> proxy.Body:
        about = json.dumps(body.get("messages") or body.get("prompt"))
        first = any(f"question {i} " in f"{about} " or f'question {i}"' in about for i in range(PROMPTS))
        return {**body, "temperature": 1.0} if first else body


def test_drift_within_the_margin_is_explained_where_that_is_asked_for(planted: Planted) -> None:
    """It cannot go below a margin that it does not exceed: it has to go altogether."""
    wide = check.text(margin=0.5, horizon=8)

    _, verdict = gated(planted, planted.behind(Hot()), prompts=48, judged_by=wide, explain=True)

    assert verdict.outcome is Outcome.PASS
    assert verdict.explanation is not None
    again, *others = verdict.explanation.experiments
    assert again.outcome == "stays"
    assert "gone" in {experiment.outcome for experiment in others}
    assert [cause.layer for cause in verdict.explanation.causes] == ["temperature"]


def tagged(planted: Planted, changed: FaultProxy, *, of_tag: str = "hot", **settings: Any) -> list[Verdict]:
    """Return the verdicts on text where 12 of 48 prompts have a tag of their own."""
    rows = [
        {
            "id": f"c{i}",
            "messages": [{"role": "user", "content": f"question {i}"}],
            "tags": [of_tag if i < PROMPTS else "cool"],
        }
        for i in range(4 * PROMPTS)
    ]
    (planted.project.path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    session = planted.project.session(
        *(
            EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=each.base_url)
            for name, each in (("a", planted.engine), ("b", changed))
        ),
        **settings,
    )
    planted.project.declare(session, check.text(margin=0.05, horizon=8, by="tag"))
    session.gather()
    return [v for v in session.settle("t", session.parity_run("t", reproduce="")) if v.kind.startswith("text")]


@pytest.mark.slow
def test_a_tag_that_fails_alone_is_explained_by_experiments_on_its_prompts(planted: Planted) -> None:
    changed, tag = planted.behind(Hot()), "hot [x]"

    verdicts = {v.kind: v for v in tagged(planted, changed, of_tag=tag)}

    failed = verdicts[f"text[{tag}]"]
    assert verdicts["text"].outcome is not Outcome.FAIL
    assert failed.outcome is Outcome.FAIL
    assert verdicts["text"].explanation is None
    assert failed.explanation is not None
    assert [cause.layer for cause in failed.explanation.causes] == ["temperature"]
    assert failed.explanation.experiments[0].n == PROMPTS


@pytest.mark.slow
def test_a_tag_that_fails_with_all_prompts_has_the_cause_of_these(planted: Planted) -> None:
    verdicts = {v.kind: v for v in tagged(planted, planted.behind(proxy.overridden(temperature=1.0)))}

    assert {v.outcome for kind, v in verdicts.items() if kind != "text.repeat"} == {Outcome.FAIL}
    assert verdicts["text"].explanation is not None
    assert verdicts["text[hot]"].explanation is None


@pytest.mark.slow
def test_experiments_end_where_their_requests_do(planted: Planted) -> None:
    changed = planted.behind(proxy.overridden(temperature=1.0))

    _, verdict = gated(planted, changed, explain_requests=3 * PROMPTS)

    assert verdict.cause is None
    assert verdict.explanation is not None
    assert verdict.explanation.note.startswith("experiments ended before a cause was shown: ")
    assert verdict.explanation.note.endswith("left (--parity-explain-requests)")
    assert verdict.explanation.requests <= 3 * PROMPTS


@pytest.mark.slow
def test_what_was_found_is_kept_for_the_next_look_and_for_replays(planted: Planted) -> None:
    changed = planted.behind(proxy.overridden(temperature=1.0))
    live, verdict = gated(planted, changed)
    asked = len(changed.received)

    assert judged(live) == verdict
    live.close()
    replay = planted.project.session(mode="replay")
    planted.project.declare(replay, TEXT)
    replay.gather()

    assert judged(replay) == verdict
    assert len(changed.received) == asked


@pytest.mark.slow
def test_a_replay_of_a_run_without_experiments_says_so(planted: Planted) -> None:
    live, _ = gated(planted, planted.behind(proxy.overridden(temperature=1.0)), explain_requests=0)
    live.close()
    replay = planted.project.session(mode="replay")
    planted.project.declare(replay, TEXT)
    replay.gather()

    explanation = judged(replay).explanation

    assert explanation is not None
    assert explanation.note == NOT_STORED


@pytest.mark.slow
def test_a_replay_with_another_margin_says_whose_experiments_are(planted: Planted) -> None:
    live, _ = gated(planted, planted.behind(proxy.overridden(temperature=1.0)))
    live.close()
    replay = planted.project.session(mode="replay")
    planted.project.declare(replay, check.text(margin=0.04, horizon=8))
    replay.gather()

    explanation = judged(replay).explanation

    assert explanation is not None
    assert explanation.note.startswith("experiments belong to the live run, and that made none for this check")
    assert "--parity-explain" in explanation.note


@pytest.mark.slow
def test_a_check_of_the_body_is_explained_as_one_of_the_marker(planted: Planted) -> None:
    planted.project.prompts(PROMPTS)
    hot = planted.behind(proxy.overridden(temperature=1.0))
    session = planted.project.session(
        *(
            EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=each.base_url)
            for name, each in (("a", planted.engine), ("b", hot))
        )
    )
    planted.project.declare(session, check.text(margin=0.9, horizon=8))
    session.gather()
    run = session.parity_run("t", reproduce="")
    run.check(check.text(margin=0.06, horizon=8))

    verdicts = [v for v in session.settle("t", run) if v.kind == "text"]

    (failed,) = [v for v in verdicts if v.outcome is Outcome.FAIL]
    assert failed.check == "text(margin=0.06, horizon=8)"
    assert failed.explanation is not None
    assert [cause.layer for cause in failed.explanation.causes] == ["temperature"]


@pytest.mark.slow
def test_experiments_keep_to_the_time_that_gathering_and_other_pairs_left_of_the_run(planted: Planted) -> None:
    """A budget is of the run: with none of it left nothing is asked, whatever pair it is."""
    session, _ = gated(planted, planted.behind(proxy.overridden(temperature=1.0)), explain_requests=0)
    session.settings = dataclasses.replace(session.settings, explain_requests=400, budget_s=1000.0)
    state = session._state
    assert state.seconds > 0
    session._state = dataclasses.replace(state, seconds=1000.0)

    explanation = judged(session).explanation

    assert explanation is not None
    assert explanation.requests == 0
    assert "stopped after 1000 s (--parity-budget)" in explanation.note


def spoken(turns: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [
        {"role": roles[turn % 2], "content": f"we went on about the sea and number {turn}"} for turn in range(turns)
    ]


def last_alone(messages: Sequence[Mapping[str, Any]]) -> str:
    """A template that forgets everything but the last message."""
    return f"Q: {messages[-1]['content']} A:"


@pytest.mark.slow
def test_counts_accuse_nobody_of_a_cut_where_the_template_was_shown(planted: Planted) -> None:
    rows = [
        {"id": f"c{turns}", "messages": [*spoken(2 * turns), {"role": "user", "content": f"And {turns}?"}]}
        for turns in range(1, PROMPTS + 1)
    ]
    (planted.project.path / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    changed = planted.behind(proxy.another_template(last_alone))
    session = planted.project.session(
        *(
            EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=each.base_url)
            for name, each in (("a", planted.engine), ("b", changed))
        )
    )
    planted.project.declare(session, check.prompts(), TEXT)
    session.gather()

    verdicts = {v.kind: v for v in session.settle("t", session.parity_run("t", reproduce=""))}

    explanation = verdicts["text"].explanation
    assert explanation is not None
    (cause,) = explanation.causes
    assert cause.layer == "chat template"
    assert cause.remedy == (
        "start the server of b with: --chat-template-file a.jinja, with what GET /props calls chat_template on a in "
        "a.jinja"
    )
    told = [*verdicts["prompts"].details, *verdicts["prompts"].differs, *verdicts["text"].differs]
    assert not any("cut" in line for line in [verdicts["prompts"].message, *told])
    assert verdicts["prompts"].reason == "b counts other numbers of tokens than a in 12 of 12 prompts"
    assert verdicts["prompts"].cause == cause.text
    assert verdicts["prompts"].details[:3] == (
        "rendered prompts of c1 part after 0 characters",
        "  a: '<user> we went on about the sea and number 0 </s>\\n<assista…",
        "  b: 'Q: And 1? A:'",
    )


def test_a_prompt_that_is_rendered_otherwise_is_shown_without_any_other_check_and_in_a_replay(planted: Planted) -> None:
    planted.project.prompts(PROMPTS)
    changed = planted.behind(proxy.another_template(last_alone))
    session = planted.project.session(
        *(
            EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=each.base_url)
            for name, each in (("a", planted.engine), ("b", changed))
        )
    )
    planted.project.declare(session, check.prompts())
    session.gather()
    (live,) = session.settle("t", session.parity_run("t", reproduce=""))
    session.close()
    replay = planted.project.session(mode="replay")
    planted.project.declare(replay, check.prompts())
    replay.gather()
    (again,) = replay.settle("t", replay.parity_run("t", reproduce=""))

    assert live.details[:3] == (
        "rendered prompts of c0 part after 0 characters",
        "  a: '<user> question 0 </s>\\n<assistant>'",
        "  b: 'Q: question 0 A:'",
    )
    at = live.details.index("line by line, - is a and + is b:")
    assert live.details[at + 1 :] == ("  - '<user> question 0 </s>'", "  - '<assistant>'", "  + 'Q: question 0 A:'")
    assert again.details == live.details


def test_that_an_engine_does_not_tell_how_it_renders_is_said_and_nothing_asked(planted: Planted) -> None:
    planted.project.prompts(PROMPTS)
    changed = planted.behind(proxy.another_template(last_alone))
    session = planted.project.session(
        EngineSpec(name="a", kind="llamacpp", model="loopback", base_url=planted.engine.base_url),
        EngineSpec(name="b", kind="openai", model="loopback", base_url=changed.base_url),
    )
    planted.project.declare(session, check.prompts())
    session.gather()

    (verdict,) = session.settle("t", session.parity_run("t", reproduce=""))

    assert verdict.details[0] == "how b renders c0 is not known (llama.cpp and vLLM tell it)"
    assert session._judging is not None
    assert session.store().raw_document(session._judging.run, SPENT) is None


@pytest.mark.parametrize(("left", "asked"), [(None, 2), (2, 2), (1, 0)])
def test_renderings_that_are_shown_count_among_the_requests_of_the_run(
    planted: Planted, left: int | None, asked: int
) -> None:
    planted.project.prompts(PROMPTS)
    changed = planted.behind(proxy.another_template(last_alone))
    session = planted.project.session(
        *(
            EngineSpec(name=name, kind="llamacpp", model="loopback", base_url=each.base_url)
            for name, each in (("a", planted.engine), ("b", changed))
        )
    )
    planted.project.declare(session, check.prompts())
    session.gather()
    most = None if left is None else session._state.requests + left
    session.settings = dataclasses.replace(session.settings, max_requests=most)

    (verdict,) = session.settle("t", session.parity_run("t", reproduce=""))

    assert session._judging is not None
    assert (session.store().raw_document(session._judging.run, SPENT) or {}).get("requests", 0) == asked
    assert any("rendered prompts of c0 part" in line for line in verdict.details) == bool(asked)


@pytest.mark.slow
def test_an_engine_that_has_gone_ends_experiments_and_no_verdict(planted: Planted) -> None:
    changed = planted.behind(proxy.overridden(temperature=1.0))
    session, verdict = gated(planted, changed, explain_requests=0)
    changed.stop()
    session.settings = dataclasses.replace(session.settings, explain_requests=100)

    again = judged(session)

    assert again.outcome is verdict.outcome is Outcome.FAIL
    assert again.explanation is not None
    assert again.explanation.note


def test_weights_that_were_shown_are_not_listed_as_not_shown() -> None:
    layers = ("weights: F16 and Q4_0", "engine: llamacpp 1 and llamacpp 2")
    verdict = Verdict(
        test="t", check="text()", kind="text", engine="b", baseline="a", outcome=Outcome.FAIL, differs=layers
    )
    shown = Cause(layer="weights", text="the weights of b")

    assert with_explanation(verdict, Explanation(causes=(shown,))).differs == layers[1:]
    left = dataclasses.replace(shown, by_exclusion=True)
    assert with_explanation(verdict, Explanation(causes=(left,))).differs == layers
