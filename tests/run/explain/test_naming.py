"""What a removal that takes drift away is called, and what is not said because it was not shown."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_llmparity.core.diagnosis import removals
from pytest_llmparity.core.sample import Completion, Fact, Identity, Phase, Sample
from pytest_llmparity.core.verdict import Cause
from pytest_llmparity.engines.registry import adapter_for
from pytest_llmparity.run.explain import remedies
from pytest_llmparity.run.explain.asking import Spent
from pytest_llmparity.run.explain.naming import Naming
from pytest_llmparity.run.explain.remedies import roomy, started
from pytest_llmparity.settings.specification import EngineSpec

Said = Mapping[str, Completion]


def counted(**prompt_tokens: int) -> Said:
    """Answers to prompts of so many tokens."""
    return {
        case: Completion(text=case, finish_reason="stop", prompt_tokens=count) for case, count in prompt_tokens.items()
    }


def ended(*texts: str) -> Said:
    return {f"c{at}": Completion(text=text, finish_reason="stop") for at, text in enumerate(texts)}


def named(
    name: str,
    ours: Said,
    theirs: Said,
    *,
    when_short: tuple[Said, Said] | None = None,
    stop: tuple[str, ...] = (),
    roles: Mapping[str, str | None] = {},
    words: Mapping[str, Mapping[str, Any]] = {},
    spent: bool = False,
    other_samplers: bool = True,
    told: str = "",
) -> tuple[Cause, ...]:
    """Return the causes of a pair, a and b, whose answers these are, unchanged and when prompts are short.

    ``words`` are the fields that one of them has for penalties and samplers; ``spent``: no request is left for these.
    ``other_samplers``: they may have some that no gate names; ``told`` are the sampling defaults that both tell.
    """
    engines = [
        SimpleNamespace(
            name=name,
            unpenalised=words.get(name, {}),
            unreasoning={},
            unsampled=words.get(name, {}),
            other_samplers=other_samplers,
            cache_off=(),
            schema_field="",
            eos=lambda: "</s>",
            spec=EngineSpec(name=name),
        )
        for name in ("a", "b")
    ]

    def answers(removed: Collection[str]) -> Mapping[str, Mapping[str, Sample]]:
        if spent and removals.DEFAULTS in removed:
            raise Spent("no more requests may be sent")
        sides = when_short if when_short is not None and removals.LENGTH in removed else (ours, theirs)
        return {
            engine.name: {case: sample(case, s) for case, s in side.items()}
            for engine, side in zip(engines, sides, strict=True)
        }

    pair: Any = SimpleNamespace(
        baseline=engines[0],
        candidate=engines[1],
        adapters=engines,
        answers=answers,
        cases=[SimpleNamespace(id=case, messages=role and [{"role": role}]) for case, role in roles.items()],
        rendered=lambda *_: None,
        requests=dict.fromkeys(
            ours, SimpleNamespace(sampling=SimpleNamespace(temperature=0.0, stop=stop), messages=None)
        ),
    )
    identity = Identity(facts={"sampling_defaults": Fact(value=told, source="reported")} if told else {})
    evidence: Any = SimpleNamespace(engines=dict.fromkeys("ab", SimpleNamespace(identity=identity)))
    return Naming(pair, evidence, lambda *_: False).named([name])


def sample(case: str, answer: Completion) -> Sample:
    return Sample(
        engine="e", case=case, phase=Phase.MAIN, repeat=0, concurrency=1, request_sha256="0" * 64, completion=answer
    )


def test_reasoning_is_said_to_be_left_in_the_text_only_where_it_stands_there() -> None:
    plain = ended("Paris", "Rome")
    thought = {case: Completion(text="Lyon", finish_reason="stop", reasoning="hmm") for case in plain}

    (aloud,) = named(removals.REASONING, plain, ended("<think>hmm</think>Paris", "<think>hm</think>Rome"))
    (apart,) = named(removals.REASONING, plain, thought)

    assert aloud.text == "b leaves its reasoning in the text of its answers"
    assert apart.text == "b thinks before it answers where the other engine does not"


def test_what_top_k_takes_away_is_no_temperature_where_a_default_was_not_told_from_it() -> None:
    words = {"b": {"xtc_probability": 0}}

    (told_apart,) = named(removals.SAMPLING, ended("Paris"), ended("Rome"), words=words)
    (left_open,) = named(removals.SAMPLING, ended("Paris"), ended("Rome"), words=words, spent=True)

    assert (told_apart.layer, left_open.layer) == ("temperature", "temperature or sampler default")
    assert left_open.text.endswith("no request was left to tell them apart")


def test_what_top_k_takes_away_is_no_temperature_where_nothing_turns_such_a_default_off() -> None:
    ours, theirs, all_off = ended("Paris"), ended("Rome"), '{"repetition_penalty": 1, "top_k": 40}'

    (left_open,) = named(removals.SAMPLING, ours, theirs)
    others = named(removals.SAMPLING, ours, theirs, words={"a": {"xtc_probability": 0}})
    (has_none,) = named(removals.SAMPLING, ours, theirs, other_samplers=False)
    (tells,) = named(removals.SAMPLING, ours, theirs, told=all_off)

    assert left_open.layer == "temperature or sampler default"
    assert left_open.text.endswith("nothing that is sent to b turns such a default off")
    assert others == (left_open,), "the words of the other engine say nothing of this one"
    assert (has_none.layer, tells.layer) == ("temperature", "temperature")


UNTOLD, OFF = "", '{"repetition_penalty": 1, "top_k": 40}'


@pytest.mark.parametrize(
    ("kind", "told", "left"),
    [
        ("llamacpp", UNTOLD, False),
        ("llamacpp-python", UNTOLD, False),
        ("mlx", UNTOLD, False),
        ("sglang", UNTOLD, False),
        ("transformers", UNTOLD, False),
        ("vllm", UNTOLD, False),
        ("litellm", UNTOLD, True),
        ("lmstudio", UNTOLD, True),
        ("ollama", UNTOLD, True),
        ("openai", UNTOLD, True),
        ("tgi", UNTOLD, True),
        ("ollama", OFF, False),
        ("ollama", OFF.replace("}", ', "typical_p": 0.5}'), True),
        ("ollama", '{"top_k": 40}', True),
    ],
)
def test_whose_samplers_stay_when_all_else_is_equal(kind: str, told: str, left: bool) -> None:
    """Ollama tells those of a Modelfile; of a build by hand it does not tell the repetition penalty."""
    adapter: Any = SimpleNamespace(name="b")
    for name in ("fields", "unsampled", "other_samplers"):
        setattr(adapter, name, getattr(adapter_for(kind), name))
    identity = Identity(facts={"sampling_defaults": Fact(value=told, source="reported")} if told else {})
    evidence: Any = SimpleNamespace(engines={"b": SimpleNamespace(identity=identity)})
    pair: Any = SimpleNamespace(adapters=[adapter])

    assert Naming(pair, evidence, lambda *_: False).samplers_left() == (("b",) if left else ())


@pytest.mark.parametrize("name", [removals.PENALTIES, removals.DEFAULTS])
def test_who_has_no_words_for_what_was_taken_away_did_not_do_it(name: str) -> None:
    """It was asked as before; where neither answers otherwise the candidate was named, with nothing to paste."""
    (cause,) = named(name, ended("Paris"), ended("Rome"), words={"a": {"dry_multiplier": 0}})

    assert cause.text.startswith("a applies ")
    assert cause.remedy == 'in your requests: extra_body={"dry_multiplier": 0}'


def test_two_engines_that_both_think_are_counted() -> None:
    plain = ended("Paris", "Rome", "Oslo")
    thought = {case: Completion(text="Lyon", finish_reason="stop", reasoning="hmm") for case in plain}

    (once,) = named(removals.REASONING, {**thought, "c0": plain["c0"]}, thought)

    assert once.text == "b thinks before 3 answers, a before 2"


def test_a_cut_is_named_for_the_engine_that_counts_less_of_a_long_prompt() -> None:
    short = counted(short=20, long=30)

    (by_candidate,) = named(
        removals.LENGTH, counted(short=20, long=900), counted(short=20, long=512), when_short=(short, short)
    )
    (by_baseline,) = named(
        removals.LENGTH, counted(short=20, long=512), counted(short=25, long=905), when_short=(short, counted(long=35))
    )

    assert by_candidate.text == "b cuts long prompts: long has 900 tokens on a and 512 there"
    assert by_baseline.text == "a cuts long prompts: long has 905 tokens on b and 512 there"


def test_tokens_that_are_counted_otherwise_however_short_a_prompt_is_are_no_cut() -> None:
    """A tokeniser that makes one token in ten more is another one, and cuts nothing."""
    causes = named(
        removals.LENGTH,
        counted(short=20, long=900),
        counted(short=22, long=990),
        when_short=(counted(short=20, long=30), counted(short=22, long=33)),
    )

    assert causes == ()


def test_a_stop_token_is_missing_only_where_nothing_ends_as_on_the_other_engine() -> None:
    (missing,) = named(removals.STOP, ended("Paris", "Rome"), ended("Paris, France", "Rome is"))
    (sometimes,) = named(removals.STOP, ended("Paris", "Rome"), ended("Paris, France", "Rome"))

    assert missing.text == "b goes on where the other engine ends its answers: a stop token is missing"
    assert not missing.by_exclusion
    assert missing.remedy == "in the parity marker: sampling={'stop': [\"</s>\"]}"
    assert "ends others where that does" in sometimes.text
    assert sometimes.by_exclusion


def test_a_line_to_paste_says_into_which_table_of_which_file_or_who_has_to_start_the_server() -> None:
    ours = SimpleNamespace(
        name="dev", spec=EngineSpec(name="dev", kind="llamacpp", launch="process", args=("--threads", "1"))
    )
    theirs = SimpleNamespace(name="prod", spec=EngineSpec(name="prod", kind="llamacpp", base_url="http://h:1"))

    assert started(ours, "--chat-template-file", "prod.jinja") == (  # type: ignore[arg-type]  # what it reads
        'llmparity.toml, [engines.dev]: args = ["--threads", "1", "--chat-template-file", "prod.jinja"]'
    )
    assert started(theirs, "--x", "a b") == "start the server of prod with: --x 'a b'"  # type: ignore[arg-type]
    assert roomy(ours, 900) == "llmparity.toml, [engines.dev]: context_length = 2048"  # type: ignore[arg-type]
    assert roomy(theirs, 900).endswith("prod with a context of 2048 tokens for each request")  # type: ignore[arg-type]


def test_a_stop_string_that_is_left_in_the_answers_is_no_missing_stop_token() -> None:
    without, with_it = ended("The capital", "The river"), ended("The capital is", "The river is")

    (by_candidate,) = named(removals.STOP, without, with_it, stop=(" is",))
    (by_baseline,) = named(removals.STOP, with_it, without, stop=(" is",))
    (goes_on,) = named(removals.STOP, without, ended("The capital is", "The river runs"), stop=(" is",))

    assert by_candidate.text == "b leaves the stop string at the end of its answers"
    assert by_baseline.text == "a leaves the stop string at the end of its answers"
    assert goes_on.layer == "stop token"


def test_a_system_prompt_is_named_where_the_chats_without_one_alone_are_longer() -> None:
    roles = {"one": "user", "two": "user", "own": "system"}
    ours = counted(one=20, two=30, own=40)

    (of_candidate,) = named(removals.PROMPT, ours, counted(one=51, two=61, own=40), roles=roles)
    (of_baseline,) = named(removals.PROMPT, counted(one=51, two=61, own=40), ours, roles=roles)
    (other,) = named(removals.PROMPT, ours, counted(one=51, two=61, own=41), roles=roles)

    assert of_candidate.text == "b gives chats without a system message one of its own, of 31 tokens"
    assert of_baseline.text == "a gives chats without a system message one of its own, of 31 tokens"
    assert other.layer == "rendered prompt"


def test_beside_raw_prompts_alone_chats_that_are_longer_show_no_system_prompt() -> None:
    """Their template or its BOS token does the same: raw prompts have neither."""
    ours, theirs = counted(one=20, two=30, raw=40), counted(one=25, two=35, raw=40)

    (cause,) = named(removals.PROMPT, ours, theirs, roles={"one": "user", "two": "user", "raw": None})

    assert cause.layer == "rendered prompt"


@pytest.mark.parametrize(
    ("spec", "spelt"),
    [
        (EngineSpec(name="a", model="m", origins={"model": "llmparity.toml: engines.a.model"}), "a"),
        (
            EngineSpec(
                name="a",
                kind="vllm",
                model="m",
                base_url="http://h:1",
                origins={"model": "--engines", "base_url": "--engines"},
            ),
            "a=vllm:m@http://h:1",
        ),
        (EngineSpec(name="a", base_url="http://h:1", origins={"base_url": "LLMPARITY_ENGINES"}), "a=http://h:1"),
    ],
)
def test_an_engine_of_the_command_line_is_spelt_in_full_in_what_is_to_paste(spec: EngineSpec, spelt: str) -> None:
    assert remedies.spelt(spec) == spelt
