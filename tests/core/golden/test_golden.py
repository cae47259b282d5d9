from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import GoldenError
from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.golden import records, updating
from pytest_llmparity.core.golden.folding import Folded, fold, unfold
from pytest_llmparity.core.golden.private import refuse_private
from pytest_llmparity.core.golden.records import Golden, Provenance, Told, Wanted, Way
from pytest_llmparity.core.golden.updating import Update
from pytest_llmparity.core.identity.lock import Locked
from pytest_llmparity.core.sample import (
    Completion,
    Fact,
    Failure,
    Phase,
    Request,
    Sample,
    Sampling,
    Stopped,
    TokenLogprob,
    ToolCall,
)
from pytest_llmparity.core.words.masking import Mask

ASKED = Wanted(prompt="1" * 12, sampling="2" * 12)


def sample(text: str, phase: Phase = Phase.MAIN, repeat: int = 0, **fields: Any) -> Sample:
    completion = Completion(text=text, finish_reason="stop", **fields)
    return Sample(engine="prod", case="c", phase=phase, repeat=repeat, completion=completion)


def folded(case: str, text: str, *, asked: Wanted = ASKED, phases: Sequence[Phase] = (Phase.MAIN,)) -> Folded:
    made = fold(case, asked, [sample(text, phase) for phase in phases], lock="0" * 12)
    assert made is not None
    return made


def provenance(version: str = "1", ways: int = 1, **facts: str) -> Provenance:
    way = [Way(n=1, concurrency=4, sampling={"max_tokens": 8 * (number + 1)}) for number in range(ways)]
    identity = {"version": version, **facts}
    return Provenance(
        format=1,
        engine="prod",
        kind="vllm",
        version=version,
        lock=records.short([version]),
        recorded="2026-11-28",
        asked=tuple(way),
        plugin="0",
        identity={name: Told(value=value, source="reported") for name, value in identity.items()},
        launch={"launch": "attach"},
    )


def golden(*lines: Folded, of: Provenance | None = None) -> Golden:
    renewed = updating.renew(None, of or provenance(), lines, update=Update.MISSING)
    assert renewed.golden is not None
    return renewed.golden


# one case -------------------------------------------------------------------------------------------------------------


def test_a_line_has_each_distinct_answer_once_with_its_counts() -> None:
    given = [
        sample("a"),
        sample("b", repeat=1),
        sample("a", Phase.COLD),
        sample("a", Phase.WARM),
        sample("c", Phase.PARALLEL),
    ]

    made = fold("c", ASKED, given, lock="0" * 12)

    assert made is not None
    shown = [(answer.text, answer.main, answer.cold, answer.warm, answer.parallel) for answer in made.line.answers]
    assert shown == [("a", 1, 1, 1, 0), ("b", 1, 0, 0, 0), ("c", 0, 0, 0, 1)]


def test_a_case_whose_first_question_has_no_answer_has_no_line() -> None:
    failed = Sample(engine="prod", case="c", phase=Phase.MAIN, failure=Failure(kind="Timeout", message="late"))

    assert fold("c", ASKED, [failed, sample("a", Phase.COLD)], lock="0" * 12) is None
    assert fold("c", ASKED, [sample("a", Phase.COLD)], lock="0" * 12) is None


TEXTS = st.sampled_from(["a", "b", "tä\n"])
TOKENS = st.lists(
    st.builds(
        TokenLogprob,
        token=st.binary(max_size=4),
        logprob=st.none() | st.floats(-30, 0),
        top=st.lists(st.tuples(st.binary(max_size=4), st.floats(-30, 0)), max_size=2).map(tuple),
    ),
    max_size=3,
).map(tuple)


@given(
    main=st.lists(st.tuples(TEXTS, TOKENS), min_size=1, max_size=3),
    floor=st.dictionaries(st.sampled_from([Phase.COLD, Phase.WARM, Phase.PARALLEL]), st.tuples(TEXTS, TOKENS)),
)
def test_what_was_folded_unfolds_to_the_same_answers(
    main: list[tuple[str, Any]], floor: dict[Phase, tuple[str, Any]]
) -> None:
    samples = [sample(text, repeat=n, logprobs=tokens) for n, (text, tokens) in enumerate(main)]
    samples += [sample(text, phase, logprobs=tokens) for phase, (text, tokens) in floor.items()]
    made = fold("c", ASKED, samples, lock="0" * 12)
    assert made is not None
    line = msgspec.json.decode(msgspec.json.encode(made.line), type=type(made.line))

    again = list(unfold(line, made.logprobs, engine="golden", sha256="s", concurrency=4, max_tokens=8))

    def content(given: Sequence[Sample]) -> list[tuple[object, ...]]:
        return sorted(
            (one_of.phase.value, answer.text, repr(records.written(answer.logprobs)))
            for one_of in given
            if (answer := one_of.completion) is not None
        )

    assert content(again) == content(samples)
    first = next(one_of.completion for one_of in again if one_of.phase is Phase.MAIN and one_of.repeat == 0)
    assert first is not None
    assert first.text == main[0][0], "the first answer stays the first"
    assert {(one_of.engine, one_of.concurrency, one_of.request_sha256) for one_of in again} == {("golden", 4, "s")}


def test_logprobs_of_another_recording_are_none_of_a_line() -> None:
    tokens = (TokenLogprob(token=b"a", logprob=-0.1),)
    made = fold("c", ASKED, [sample("a", logprobs=tokens)], lock="0" * 12)
    assert made is not None
    other = msgspec.structs.replace(made.line, prompt="3" * 12)

    (again,) = unfold(other, made.logprobs, engine="g", sha256="s", concurrency=1, max_tokens=8)

    assert again.completion is not None
    assert again.completion.logprobs == ()


def test_logprobs_of_another_answer_are_none_of_a_line() -> None:
    """A merge takes the text of one side and the logprobs of the other; both are of one prompt, engine and sampling."""
    monday, tuesday = (
        fold("c", ASKED, [sample(text, logprobs=(TokenLogprob(token=text.encode(), logprob=-0.1),))], lock="0" * 12)
        for text in ("Monday", "Tuesday")
    )
    assert monday is not None
    assert tuesday is not None

    (mixed,) = unfold(tuesday.line, monday.logprobs, engine="g", sha256="s", concurrency=1, max_tokens=8)
    (whole,) = unfold(tuesday.line, tuesday.logprobs, engine="g", sha256="s", concurrency=1, max_tokens=8)

    assert mixed.completion is not None
    assert (mixed.completion.text, mixed.completion.logprobs) == ("Tuesday", ())
    assert whole.completion is not None
    assert whole.completion.logprobs[0].token == b"Tuesday"


def test_answers_of_the_same_tokens_are_told_apart_by_their_words() -> None:
    tokens = (TokenLogprob(token=b"a", logprob=-0.1),)
    given = [sample("a", logprobs=tokens), sample("a ", Phase.COLD, logprobs=tokens)]
    made = fold("c", ASKED, given, lock="0" * 12)
    assert made is not None

    again = unfold(made.line, made.logprobs, engine="g", sha256="s", concurrency=1, max_tokens=8)

    assert [answer.logprobs != () for one_of in again if (answer := one_of.completion) is not None] == [True, True]


@given(st.binary())
def test_every_token_is_spelt_as_text_and_read_again(token: bytes) -> None:
    assert records.unspell(records.spell(token)) == token


def test_an_answer_keeps_calls_reasoning_and_token_counts() -> None:
    calls = (ToolCall(name="send", arguments='{"to": 1}', id="random"),)
    made = fold("c", ASKED, [sample("", tool_calls=calls, reasoning="so", prompt_tokens=3)], lock="0" * 12)
    assert made is not None

    (again,) = unfold(made.line, None, engine="g", sha256="s", concurrency=1, max_tokens=8)

    assert again.completion is not None
    assert again.completion.reasoning == "so"
    assert again.completion.prompt_tokens == 3
    assert again.completion.max_tokens == 8
    assert again.completion.tool_calls == (ToolCall(name="send", arguments='{"to": 1}'),)


def test_a_conversation_is_kept_with_what_its_tools_returned() -> None:
    calls = (ToolCall(name="f", arguments="{}"),)
    turns = (Completion(text="", tool_calls=calls, results=("1",), finish_reason="tool_calls", max_tokens=8),)
    stopped = Stopped(kind="no end", words="it still calls f after 2 turns")
    answers = [sample("x", turns=turns), sample("", Phase.WARM, turns=turns, tool_calls=calls, stopped=stopped)]
    made = fold("c", ASKED, answers, lock="0" * 12)
    assert made is not None
    line = msgspec.json.decode(msgspec.json.encode(made.line), type=type(made.line))

    again = [each.completion for each in unfold(line, None, engine="g", sha256="s", concurrency=1, max_tokens=8)]

    assert [each and (each.text, each.turns, each.stopped) for each in again] == [
        ("x", turns, None),
        ("", turns, stopped),
    ]


def test_every_choice_of_an_answer_is_kept_and_tells_answers_apart() -> None:
    choices = (Completion(text="y", finish_reason="stop", max_tokens=8),)
    answers = [sample("x", choices=choices, counted=9), sample("x", Phase.WARM)]
    made = fold("c", ASKED, answers, lock="0" * 12)
    assert made is not None
    line = msgspec.json.decode(msgspec.json.encode(made.line), type=type(made.line))

    again = [each.completion for each in unfold(line, None, engine="g", sha256="s", concurrency=1, max_tokens=8)]

    assert [each and (each.text, each.choices, each.counted) for each in again] == [("x", choices, 9), ("x", (), None)]
    assert line.answers[0].words != line.answers[1].words
    several = Request(case="c", prompt="?", n=2)
    assert records.wanted(several) != records.wanted(dataclasses.replace(several, n=0))


def test_hashes_tell_prompt_and_sampling_apart_and_leave_logprobs_out() -> None:
    messages = ({"role": "user", "content": "hi"},)
    request = Request(case="c", messages=messages)

    same = records.wanted(Request(case="other", messages=messages, top_logprobs=5))
    longer = records.wanted(Request(case="c", messages=messages, sampling=Sampling(max_tokens=7)))
    tools = records.wanted(Request(case="c", messages=messages, tools=({"type": "function"},)))

    assert records.wanted(request) == same
    assert longer.prompt == same.prompt
    assert longer.sampling != same.sampling
    assert tools.prompt != same.prompt


# what is written ------------------------------------------------------------------------------------------------------


def test_missing_adds_cases_and_touches_no_line() -> None:
    before = golden(folded("a", "old"))

    renewed = updating.renew(before, provenance(), [folded("a", "new"), folded("b", "new")], update=Update.MISSING)

    assert (renewed.added, renewed.changed) == (("b",), ())
    assert renewed.golden is not None
    assert {line.id: line.answers[0].text for line in renewed.golden.lines.values()} == {"a": "old", "b": "new"}


def test_changed_keeps_a_line_that_holds_the_new_first_answer() -> None:
    both = fold("a", ASKED, [sample("x"), sample("y", Phase.PARALLEL)], lock="0" * 12)
    assert both is not None
    before = golden(both)

    kept = updating.renew(before, provenance(), [folded("a", "y")], update=Update.CHANGED)
    other = updating.renew(before, provenance(), [folded("a", "z")], update=Update.CHANGED)

    assert not kept.wrote
    assert kept.golden == before
    assert other.changed == ("a",)


def tokens_of(line: Folded) -> Folded:
    """Return a recording whose answer came with the logprobs of one token."""
    answer = sample(line.line.answers[0].text, logprobs=(TokenLogprob(token=b"x", logprob=-0.5),))
    phases = [sample(line.line.answers[0].text, phase) for phase in FLOOR_PHASES if line.line.answers[0].cold]
    made = fold(line.line.id, ASKED, [answer, *phases], lock="0" * 12)
    assert made is not None
    return made


def test_changed_adds_the_floor_and_the_logprobs_that_a_line_lacks() -> None:
    """What was recorded for a check without a floor serves one with it later; ``missing`` says what would write it."""
    before = golden(folded("a", "x"))
    full = tokens_of(folded("a", "x", phases=(Phase.MAIN, *FLOOR_PHASES)))

    left = updating.renew(before, provenance(), [full], update=Update.MISSING)
    filled = updating.renew(before, provenance(), [full], update=Update.CHANGED)
    again = updating.renew(filled.golden, provenance(), [folded("a", "x")], update=Update.CHANGED)

    assert (left.golden, left.lacking) == (before, ("a",))
    assert filled.changed == ("a",)
    assert filled.golden == golden(full)
    assert not again.wrote, "a recording that has less takes nothing away"
    assert again.lacking == ()


def test_logprobs_come_beside_a_line_whose_floor_was_not_measured_again() -> None:
    before = golden(folded("a", "x", phases=(Phase.MAIN, *FLOOR_PHASES)))

    renewed = updating.renew(before, provenance(), [tokens_of(folded("a", "x"))], update=Update.CHANGED)

    assert renewed.golden is not None
    assert renewed.golden.lines == before.lines
    (line,) = renewed.golden.lines.values()
    samples = unfold(line, renewed.golden.logprobs[line.key], engine="e", sha256="0", concurrency=1, max_tokens=8)
    with_tokens = {sample.phase for sample in samples if sample.completion and sample.completion.logprobs}
    assert with_tokens == {Phase.MAIN}


def test_what_was_measured_of_another_first_answer_is_told_and_not_added() -> None:
    both = fold("a", ASKED, [sample("x"), sample("y", Phase.COLD)], lock="0" * 12)
    assert both is not None

    renewed = updating.renew(golden(both), provenance(), [tokens_of(folded("a", "y"))], update=Update.CHANGED)

    assert not renewed.wrote
    assert renewed.lacking == ("a",)


def test_changed_rewrites_a_line_that_fits_another_schema_now() -> None:
    fits = fold("a", ASKED, [sample("x")], lock="0" * 12, valid=lambda _: True)
    fits_not = fold("a", ASKED, [sample("x")], lock="0" * 12, valid=lambda _: False)
    assert fits is not None
    assert fits_not is not None

    renewed = updating.renew(golden(fits), provenance(), [fits_not], update=Update.CHANGED)

    assert renewed.changed == ("a",)


def test_changed_rewrites_a_line_of_another_prompt_or_sampling() -> None:
    before = golden(folded("a", "x"))
    prompt = Wanted(prompt="3" * 12, sampling=ASKED.sampling)
    sampling = Wanted(prompt=ASKED.prompt, sampling="3" * 12)

    for asked in (prompt, sampling):
        renewed = updating.renew(before, provenance(), [folded("a", "x", asked=asked)], update=Update.CHANGED)
        assert renewed.changed == ("a",)
        assert renewed.golden is not None
        assert len(renewed.golden.lines) == 1, "asked in one way, so the old one is replaced"


def test_a_set_that_is_asked_in_two_ways_has_a_line_for_each() -> None:
    before = golden(folded("a", "x"), of=provenance(ways=2))
    sampling = Wanted(prompt=ASKED.prompt, sampling="3" * 12)

    renewed = updating.renew(before, provenance(), [folded("a", "x", asked=sampling)], update=Update.CHANGED)

    assert renewed.added == ("a",)
    assert renewed.golden is not None
    assert len(renewed.golden.lines) == 2
    assert len(renewed.golden.provenance.asked) == 2


@pytest.mark.parametrize(("update", "partly"), [(Update.MISSING, False), (Update.CHANGED, True), (Update.ALL, True)])
def test_other_sampling_is_recorded_beside_a_line_that_another_test_may_ask_for(update: Update, partly: bool) -> None:
    before = golden(folded("a", "x"))
    other = folded("a", "x", asked=Wanted(prompt=ASKED.prompt, sampling="3" * 12))

    renewed = updating.renew(before, provenance(), [other], update=update, partly=partly)

    assert (renewed.added, renewed.changed) == (("a",), ())
    assert renewed.golden is not None
    assert {line.sampling for line in renewed.golden.lines.values()} == {ASKED.sampling, "3" * 12}
    assert renewed.golden.size == "2 lines of 1 case"
    assert before.size == "1 case"


def test_all_rewrites_what_is_not_equal_to_the_byte() -> None:
    before = golden(folded("a", "x"), folded("b", "x", phases=(Phase.MAIN, Phase.COLD)))

    renewed = updating.renew(before, provenance(), [folded("a", "x"), folded("b", "x")], update=Update.ALL)

    assert renewed.changed == ("b",)


@pytest.mark.parametrize("update", [Update.MISSING, Update.CHANGED])
def test_another_engine_is_recorded_by_all_alone(update: Update) -> None:
    before = golden(folded("a", "x"))

    refused = updating.renew(before, provenance("2"), [folded("a", "y")], update=update)
    renewed = updating.renew(before, provenance("2"), [folded("a", "y")], update=Update.ALL)

    assert (refused.wrote, refused.refused) == (False, "version: 1 -> 2")
    assert renewed.changed == ("a",)
    assert renewed.golden is not None
    assert {line.lock for line in renewed.golden.lines.values()} == {renewed.golden.provenance.lock}


def test_a_fact_that_a_later_recording_does_not_tell_is_kept_and_holds_the_next() -> None:
    """Else lines of two engines would stand under one hash: the first forgotten, the second never held against it."""
    first = golden(folded("a", "x"), of=provenance(digest="A"))

    silent = updating.renew(first, provenance(), [folded("b", "x")], update=Update.MISSING).golden
    assert silent is not None
    other = updating.renew(silent, provenance(digest="B"), [folded("c", "x")], update=Update.MISSING)
    same = updating.renew(silent, provenance(digest="A"), [folded("c", "x")], update=Update.MISSING)

    assert silent.provenance.identity["digest"].value == "A"
    assert (other.wrote, other.refused) == (False, "digest: A -> B")
    assert same.added == ("c",)
    assert same.golden is not None
    assert {line.lock for line in same.golden.lines.values()} == {first.provenance.lock}


def test_lines_that_stay_keep_the_concurrency_and_the_day_of_their_recording() -> None:
    def of(concurrency: int, day: str) -> Provenance:
        (way,) = provenance().asked
        asked = (msgspec.structs.replace(way, n=2, concurrency=concurrency),)
        return msgspec.structs.replace(provenance(), asked=asked, recorded=day)

    before = golden(folded("a", "x"), of=of(1, "2026-01-01"))
    both = [folded("a", "y"), folded("b", "y")]

    added = updating.renew(before, of(32, "2026-02-02"), both, update=Update.MISSING).golden
    anew = updating.renew(before, of(32, "2026-02-02"), both, update=Update.ALL).golden

    assert added is not None
    assert [(way.n, way.concurrency) for way in added.provenance.asked] == [(1, 1), (1, 32)]
    assert added.provenance.recorded == "2026-01-01"
    assert anew is not None
    assert [(way.n, way.concurrency) for way in anew.provenance.asked] == [(2, 32)]
    assert anew.provenance.recorded == "2026-02-02"


def test_a_difference_that_is_told_twice_is_one() -> None:
    of = [
        Locked(
            kind="llamacpp",
            plugin="1",
            identity={"model": Fact(value=model, source="reported")},
            launch={"model": model},
        )
        for model in ("tiny-F16.gguf", "tiny-Q4_0.gguf")
    ]

    assert [str(difference) for difference in updating.apart(*of)] == ["model: tiny-F16.gguf -> tiny-Q4_0.gguf"]


def test_another_machine_is_the_same_engine_and_keeps_every_byte() -> None:
    before = golden(folded("a", "x"), of=provenance(device="A"))

    for update in Update:
        assert updating.renew(before, provenance(device="B"), [folded("a", "x")], update=update).golden == before


def test_prune_removes_what_nobody_asks() -> None:
    before = golden(folded("a", "x"), folded("b", "x"))

    pruned = updating.prune(before, {("a", ASKED.sampling)})
    empty = updating.prune(before, set())

    assert pruned.dropped == ("b",)
    assert pruned.golden is not None
    assert [line.id for line in pruned.golden.lines.values()] == ["a"]
    assert pruned.golden.provenance.asked[0].n == 1
    assert (empty.golden, empty.dropped) == (None, ("a", "b"))


# what has no place in it ----------------------------------------------------------------------------------------------

SECRET = "hunter2-and-more/ä"
FORMS = {
    "raw": SECRET,
    "json": "hunter2-and-more\\/\\u00e4",
    "url": "hunter2-and-more%2F%C3%A4",
    "base64": "aHVudGVyMi1hbmQtbW9yZS/DpA==",
    "placeholder": "«PROD_KEY»",
}


def refuse(made: Golden, *folders: str) -> str:
    mask = Mask({"PROD_KEY": SECRET})
    with pytest.raises(GoldenError) as refused:
        refuse_private(made, where="golden/t/prod.jsonl", mask=mask, variables=["PROD_KEY"], folders=folders)
    assert SECRET not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_key_in_an_answer_is_refused_in_every_encoding_with_its_place(form: str) -> None:
    assert refuse(golden(folded("a", f"it is {form}."))).startswith(
        "golden/t/prod.jsonl is not written: case a: its text holds the value of a key variable"
    )


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_key_is_refused_wherever_it_stands(form: str) -> None:
    tokens = (TokenLogprob(token=form.encode(), logprob=-0.1),)
    calls = (ToolCall(name="send", arguments=form),)
    places = {
        "its reasoning": sample("", reasoning=form),
        "a tool call": sample("", tool_calls=calls),
        "its tokens": sample("", logprobs=tokens),
        "the alternatives of its tokens": sample(
            "", logprobs=(TokenLogprob(token=b"a", logprob=-0.1, top=((form.encode(), -1.0),)),)
        ),
        "what its reader changed": sample("", normalised=(form,)),
        "its text": sample("", turns=(Completion(text=form),)),
        "what a tool returned": sample("", turns=(Completion(text="", results=("x", form)),)),
    }
    for place, answer in places.items():
        made = fold("a", ASKED, [answer], lock="0" * 12)
        assert made is not None
        assert f"case a: {place} " in refuse(golden(made))
    assert "identity.model" in refuse(golden(folded("a", "x"), of=provenance(model=form)))


def test_what_looks_like_a_key_and_folders_of_this_machine_are_refused() -> None:
    assert "looks like a key" in refuse(golden(folded("a", "sk-proj-" + "a1B2" * 8)))
    assert "names a folder of this machine" in refuse(golden(folded("a", "see /home/me/x")), "/home/me")
    assert "identity.model holds a path" in refuse(golden(folded("a", "x"), of=provenance(model="/srv/models/x")))


@pytest.mark.parametrize(
    "text", ["see /srv/proj", "your home is /root", "in /srv/proj.", "`/root`, then", "file:///root/x"]
)
def test_a_folder_of_this_machine_is_refused_without_anything_below_it_too(text: str) -> None:
    assert "names a folder of this machine" in refuse(golden(folded("a", text)), "/srv/proj", "/root")


@pytest.mark.parametrize("text", ["/srv/project", "/srv/proj-2/x", "/srv/proj.old", "src/root", "~/root", "../root/x"])
def test_another_folder_that_looks_like_one_of_this_machine_is_not(text: str) -> None:
    made = golden(folded("a", text))

    refuse_private(made, where="g", mask=Mask({}), variables=(), folders=("/srv/proj", "/root"))


def test_a_path_that_a_model_made_up_is_its_answer() -> None:
    made = golden(folded("a", "#!/usr/bin/env python"))

    refuse_private(made, where="g", mask=Mask({}), variables=(), folders=("/home/me",))
