"""What a person running pytest sees: outcomes, exit codes, headlines, the grid."""

from __future__ import annotations

import itertools
import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_llmparity.testing import Fault, LoopbackEngine
from tests.doubles.abilities import Abilities

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

OK, FAILED, USAGE = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR


def test_equal_engines_pass(bench: Bench) -> None:
    bench.gate("check.prompts(), check.text(margin=0.05)")

    result = bench.run(engines=[bench.engine(), bench.engine()])

    assert result.ret == OK
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["a *loopback*attach, baseline", "b *loopback*attach", "*text *pass 0 %*"])


def test_a_drifting_engine_is_caught_with_headline_details_and_command(bench: Bench) -> None:
    bench.gate()
    bench.by_address = True

    result = bench.run(engines=[bench.engine(), bench.engine(drift=0.15)])

    assert result.ret == FAILED
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "FAIL text, b against a: * margin 5 %*8 prompts*",
            "*first fork*",
            "*check: text(margin=0.05) at test_gate.py:4",
            "reproduce: pytest test_gate.py::test_gate --engines a=http://127.0.0.1:* --engines b=*",
            "FAILED test_gate.py::test_gate - * % > 5 % (at least *",
        ]
    )
    assert "Traceback" not in result.stdout.str()


def test_one_bad_engine_stops_no_other(bench: Bench) -> None:
    bench.gate()

    result = bench.run(engines=[bench.engine(), bench.engine(), bench.engine(drift=0.2)])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*text*pass 0 %*FAIL*"])


def test_too_little_to_tell_is_an_outcome_of_its_own(bench: Bench) -> None:
    bench.gate()

    result = bench.run(engines=[bench.engine(), bench.engine(drift=0.05)])

    assert result.ret == OK
    result.stdout.fnmatch_lines(
        ["*inconclusive*", "*8 prompts are too few to say how many would settle it*", "*1 inconclusive in *"]
    )


@pytest.mark.parametrize(("policy", "code", "outcome"), [("fail", FAILED, "failed"), ("skip", OK, "skipped")])
def test_the_policy_for_inconclusive(bench: Bench, policy: str, code: int, outcome: str) -> None:
    bench.gate("check.prompts()")
    uncounted = bench.engine(abilities=Abilities(usage=False))

    result = bench.run(f"--parity-inconclusive={policy}", engines=[bench.engine(), uncounted])

    assert result.ret == code
    result.assert_outcomes(**{outcome: 1})


def test_without_engines_gates_are_skipped_with_one_line(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        import pytest
        @pytest.mark.parity("prompts.jsonl")
        def test_gate(): ...
        def test_app(engine): ...
        def test_all(engines): ...
        def test_plain(): ...
        """
    )

    result = bench.run()

    result.assert_outcomes(passed=1, skipped=3)
    result.stdout.fnmatch_lines(["llmparity: 3 tests skipped, needs engines: pytest --engines NAME,NAME *"])
    result.stdout.no_fnmatch_line("*LLM parity*")


def test_required_engines_that_are_missing_are_a_usage_error(bench: Bench) -> None:
    bench.gate()

    result = bench.run("--parity-required")

    assert result.ret == USAGE


def test_engines_from_the_environment(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.gate("check.prompts()")
    engines = [bench.engine(), bench.engine()]
    monkeypatch.setenv("LLMPARITY_ENGINES", ",".join(f"{n}={e.base_url}" for n, e in zip("xy", engines, strict=True)))

    result = bench.run()

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*x *baseline*"])


def test_a_pairwise_check_with_one_engine_is_skipped_with_its_reason(bench: Bench) -> None:
    bench.gate()

    result = bench.run("-rs", engines=[bench.engine()])

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        [
            "nothing to compare: only a is selected, so the check is skipped; name a second",
            "with --engines. The prompts are asked all the same, for tests that read answers",
            "and for reports",
            "plan: * requests; *",
            "skipped:",
            "  it compares engines and only a is selected: text of test_gate",
            "SKIPPED*text compares engines and only a is selected*",
        ]
    )


def test_where_a_verdict_is_required_the_half_of_a_check_that_compares_wants_a_second_engine(bench: Bench) -> None:
    bench.gate("check.prompts(), check.schema({'type': 'object'}, rate=0.5, gap=0.5)")
    wanted = ("--parity-required", "--parity-report=json", "--parity-out=out")

    result = bench.run(*wanted, engines=[bench.engine('{"a": 1}')])

    assert result.ret == FAILED
    outcomes = {verdict["kind"]: verdict["outcome"] for verdict in bench.report()["verdicts"]}
    assert outcomes == {"prompts": "ERROR", "schema.rate": "PASS", "schema.gap": "ERROR"}
    assert "only a is selected, and --parity-required asks for a verdict" in result.stdout.str()


def test_absolute_checks_work_with_one_engine(bench: Bench) -> None:
    bench.gate('check.schema({"type": "object"}, rate=0.5, gap=0.5)')

    result = bench.run(engines=[bench.engine('{"a": 1}')])

    result.assert_outcomes(passed=1)


def test_rows_are_read_by_engine_and_case(bench: Bench) -> None:
    bench.gate(
        "check.prompts()",
        "assert parity_run['b']['case-3'].text == parity_run['a']['case-3'].text == 'yes'\n"
        "    assert list(parity_run) == ['a', 'b'] and len(parity_run['a']) == 8",
    )

    bench.run(engines=[bench.engine("yes"), bench.engine("yes")]).assert_outcomes(passed=1)


def test_a_body_that_raises_wins_and_carries_the_verdicts(bench: Bench) -> None:
    bench.gate(body="assert parity_run['a']['case-0'].text == 'nothing like it'")

    result = bench.run(engines=[bench.engine(), bench.engine(drift=0.2)])

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *AssertionError*", "*FAIL text, b against a*"])


def test_a_check_in_the_body_uses_what_was_gathered(bench: Bench) -> None:
    bench.gate("check.text(margin=0.5)", "parity_run.check(check.text(margin=0.05))")

    result = bench.run(engines=[bench.engine(), bench.engine(drift=0.15)])

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["FAIL text, b against a*margin 5 %*"])


def test_hard_raises_at_once(bench: Bench) -> None:
    bench.gate(
        "check.text(margin=0.9)",
        "with parity_run.hard():\n        parity_run.check(check.text(margin=0.05))\n    print('never' 'there')",
    )

    result = bench.run(engines=[bench.engine(), bench.engine(drift=0.2)])

    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*neverthere*")


def test_a_body_check_that_needs_undeclared_samples_names_the_marker_line(bench: Bench) -> None:
    bench.gate("check.prompts()", "parity_run.check(check.latency(ttft_p50='1s'))")

    result = bench.run(engines=[bench.engine(), bench.engine()])

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*needs samples that nobody declared*timed requests per engine*add check.latency*"])


def test_a_gate_that_judges_and_reads_nothing_fails(bench: Bench) -> None:
    bench.gate("*[]")

    result = bench.run(engines=[bench.engine()])

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*judged nothing and read no answer*"])


def test_parity_run_without_a_marker_says_what_is_missing(bench: Bench) -> None:
    bench.pytester.makepyfile("def test_it(parity_run): ...")

    result = bench.run(engines=[bench.engine()])

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*parity_run needs a marker*"])


def test_a_design_that_cannot_pass_is_its_own_error_before_any_request(bench: Bench) -> None:
    bench.prompts(30)
    bench.pytester.makepyfile(
        """
        import pytest
        from pytest_llmparity import check
        @pytest.mark.parity("prompts.jsonl", check.schema({}, gap=0.05))
        def test_hopeless(): ...
        def test_other(): ...
        """
    )
    engine = bench.engine("{}")

    result = bench.run(engines=[engine, bench.engine("{}")])

    result.assert_outcomes(errors=1, passed=1)
    result.stdout.fnmatch_lines(
        ["*gap=0.05 takes at least 59 prompts even if *there are 30: schema({…}, gap=0.05) at test_*"]
    )
    assert engine.count == 0


def test_bad_markers_and_prompt_files_are_set_up_errors_of_their_test_only(bench: Bench) -> None:
    path = bench.pytester.path
    (path / "broken.jsonl").write_text('{"id": "a", "prompt": "x"}\n{"id": oops}\n')
    (path / "twice.jsonl").write_text('{"id": "same", "prompt": "x"}\n{"id": "same", "prompt": "y"}\n')
    (path / "empty.jsonl").write_text("\n")
    (path / "vars.jsonl").write_text('{"id": "a", "prompt": "hi {name}", "vars": {"other": 1}}\n')
    cases = [
        ("'prompts.jsonl', max_token=3", "*no argument 'max_token' (did you mean 'max_tokens'?)*"),
        ("'nowhere.jsonl'", "*no prompt file 'nowhere.jsonl'*"),
        ("'broken.jsonl'", "*broken.jsonl:2*"),
        ("'twice.jsonl'", "*twice.jsonl:2*same*"),
        ("'empty.jsonl'", "*empty.jsonl*no cases*"),
        ("'vars.jsonl'", "*vars.jsonl:1*name*"),
    ]
    gates = [f"@pytest.mark.parity({marker})\ndef test_{place}(): ..." for place, (marker, _) in enumerate(cases)]
    bench.pytester.makepyfile("\n".join(["import pytest", *gates, "def test_b(): ..."]))

    result = bench.run(engines=[bench.engine()])

    result.assert_outcomes(errors=len(cases), passed=1)
    expected = [(f"*ERROR at setup of test_{place} *", message) for place, (_, message) in enumerate(cases)]
    result.stdout.fnmatch_lines([line for lines in expected for line in lines])


def test_engine_runs_application_code_once_per_engine(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        def test_app(engine):
            with engine.openai() as client:
                assert client.max_retries == 0
                hello = [{"role": "user", "content": "hi"}]
                answer = client.chat.completions.create(model=engine.model, messages=hello)
            assert answer.choices[0].message.content == engine.name
        async def test_async_app(engine):
            async with engine.async_openai() as client:
                hello = [{"role": "user", "content": "hi"}]
                answer = await client.chat.completions.create(model=engine.model, messages=hello)
            assert answer.choices[0].message.content == engine.name
        def test_all(engines):
            assert list(engines) == ["a", "b"]
            assert engines["a"].base_url.endswith("/v1") and engines["a"].api_key == "EMPTY"
        """
    )

    result = bench.run("-v", "-o", "asyncio_mode=auto", engines=[bench.engine("a"), bench.engine("b")])

    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(["*test_app[[]a[]] PASSED*", "*test_app[[]b[]] PASSED*"])


def test_somebody_elses_fixture_of_the_same_name_is_left_alone(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        import pytest
        @pytest.fixture(params=["sqlite", "postgres"])
        def engine(request):
            return request.param
        def test_database(engine):
            assert engine in ("sqlite", "postgres")
        """
    )

    bench.run().assert_outcomes(passed=2)
    bench.run(engines=[bench.engine()]).assert_outcomes(passed=2)


def test_ask_is_an_assertion_on_one_pair(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        from pytest_llmparity import check
        def test_same(parity):
            asked = parity.ask("How long does a refund take?", max_tokens=16)
            assert asked["a"].text.startswith("30 days")
            asked.check(check.similarity(at_least=0.85))
        def test_other(parity):
            parity.ask("How long does a refund take?").check(check.similarity(at_least=0.85))
        async def test_async(parity):
            (await parity.aask([{"role": "user", "content": "hi"}])).check(check.text(margin=0.05))
        def test_unknown(parity):
            parity.ask("hi", temprature=1)
        """
    )
    answers = iter(["30 days", "60 days", "30 days", "30 days"])
    other = bench.engine(lambda request: next(answers) if request["max_tokens"] != 16 else "30 days")

    result = bench.run("-o", "asyncio_mode=auto", engines=[bench.engine("30 days"), other])

    result.stdout.fnmatch_lines(["*ask has no parameter ?temprature? (did you mean ?temperature??)*"])
    result.assert_outcomes(passed=2, failed=2)


def test_the_json_report_and_its_samples(bench: Bench) -> None:
    bench.gate("check.prompts(), check.text(margin=0.05)")

    result = bench.run("--parity-report=json", "--parity-out=out", engines=[bench.engine(), bench.engine(drift=0.15)])

    assert result.ret == FAILED
    run = json.loads(Path("out/run.json").read_text())
    assert run["schema"] == 1
    assert [e["name"] for e in run["engines"]] == ["a", "b"]
    assert {(v["kind"], v["engine"], v["outcome"]) for v in run["verdicts"]} == {
        ("prompts", "b", "PASS"),
        ("text", "b", "FAIL"),
        ("text.repeat", "b", "PASS"),
    }
    samples = [json.loads(line) for line in Path("out/samples.jsonl").read_text().splitlines()]
    assert len(samples) == 2 * (8 + 3 * 8)
    assert "127.0.0.1" not in json.dumps(samples)


def test_junit_properties(bench: Bench) -> None:
    bench.gate()

    bench.run("--junitxml=junit.xml", engines=[bench.engine(), bench.engine()])

    properties = {p.get("name"): p.get("value") for p in ET.parse("junit.xml").iter("property")}
    assert properties["llmparity.text.b.outcome"] == "PASS"
    assert properties["llmparity.outcome"] == "PASS"
    assert float(str(properties["llmparity.text.b.margin"])) == 0.05


def test_hooks_observe_verdicts_and_the_record(bench: Bench) -> None:
    bench.gate("check.prompts()")
    bench.pytester.makeconftest(
        """
        def pytest_llmparity_check_finished(item, verdict):
            print("HOOK", item.name, verdict.kind, verdict.outcome)
        def pytest_llmparity_report(config, record):
            print("RECORD", len(record.verdicts), [e.name for e in record.engines])
        """
    )

    result = bench.run("-s", engines=[bench.engine(), bench.engine()])

    result.stdout.fnmatch_lines(["*HOOK test_gate prompts PASS*", "*RECORD 1 ?'a', 'b'?*"])


def test_collect_only_shows_the_plan_and_asks_nobody(bench: Bench) -> None:
    bench.gate()
    engine = bench.engine()

    result = bench.run("--collect-only", "--parity-explain-requests=400", engines=[engine, bench.engine()])

    assert result.ret == OK
    result.stdout.fnmatch_lines(
        [
            "plan: 32 requests to each of 2 engines, 64 in all; *",
            "experiments: where a check fails, up to 400 requests more to explain it (--parity-explain-requests)",
            "*test_gate.py::test_gate: 8 cases in 8 groups*",
            "    noise floor: 8 prompts, 3 more times on each engine (cold before *, warm and parallel after them)",
            "      where no answer of 12 tokens changes, 8 show it for margins above *",
        ]
    )
    assert engine.count == 0


def test_collect_only_names_a_gate_that_cannot_run(bench: Bench) -> None:
    bench.gate("check.schema({'type': 'object'}, rate=0.999)")

    result = bench.run("--collect-only", engines=[bench.engine(), bench.engine()])

    result.stdout.fnmatch_lines(["*test_gate.py::test_gate cannot run: rate=0.999 takes at least *"])


def test_the_plan_says_what_a_relative_limit_settles_on_engines_in_turn(bench: Bench) -> None:
    bench.configure('residency = "one-at-a-time"\ntimed_changes = 6\n' + bench.process("one") + bench.process("two"))
    bench.gate("check.latency(e2e_p50='x1.25')")

    result = bench.run("--collect-only", "--engines=one,two")

    result.stdout.fnmatch_lines(
        ["    e2e_p50=x1.25: with 6 changes of the engine in memory an engine as fast as the baseline passes in *"]
    )


@pytest.mark.slow
def test_latency_is_judged_on_timed_requests_only_and_no_time_to_a_first_token_that_was_not_seen(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        import pytest
        from pytest_llmparity import check
        @pytest.mark.parity("prompts.jsonl", check.latency(e2e_p50='20s', success_rate=0.7, n=16), max_tokens=12)
        def test_whole(): ...
        @pytest.mark.parity("prompts.jsonl", check.latency(ttft_p50='20s', n=16), max_tokens=12)
        def test_first(): ...
        """
    )

    result = bench.run("-v", engines=[bench.engine("one two three"), bench.engine("one two three")])

    result.stdout.fnmatch_lines(["*latency*pass*pass*", "*e2e*", "timed phase: at 4 streams our client saw *"])
    result.stdout.fnmatch_lines(["*::test_whole PASSED*"])
    result.stdout.fnmatch_lines(["*arrived together with*", "*1 inconclusive in *"])


def test_a_case_filter_gathers_rows_and_gives_no_verdict(bench: Bench) -> None:
    bench.gate(body="assert parity_run['a']['case-7'].text")
    engine = bench.engine()

    result = bench.run("--parity-case=case-7", engines=[engine, bench.engine(drift=0.5)])

    result.assert_outcomes(passed=1)
    assert engine.count - 1 == 1, "one request beside the warm-up"
    result.stdout.fnmatch_lines(["case-7", "  a: *", "  b: *"])


def test_a_hard_stop_makes_verdicts_inconclusive(bench: Bench) -> None:
    bench.gate()

    result = bench.run("--parity-max-requests=25", engines=[bench.engine(), bench.engine()])

    assert result.ret == OK
    result.stdout.fnmatch_lines(["*--parity-max-requests*"])
    result.stdout.fnmatch_lines(["*1 inconclusive in *"])


def test_an_engine_that_nobody_answers_for_is_an_error_of_its_pairs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_llmparity.engines.wire.base.ATTACH_DEADLINE_S", 0.2)
    bench.gate()
    with LoopbackEngine() as gone:
        address = gone.base_url
    bench.pytester.makefile(".toml", llmparity=f'[engines.dead]\nkind = "openai"\nbase_url = "{address}"\n')

    result = bench.run("--engines=dead", engines=[bench.engine()])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*ERROR text, dead against a: *nothing listens at*"])


def test_a_contradicted_pin_is_incomparable_and_no_prompt_is_sent(bench: Bench) -> None:
    engine = bench.engine(poses_as="llamacpp", quantization="Q4_K - Medium")
    bench.pytester.makefile(
        ".toml",
        llmparity=f'[engines.dev]\nkind = "llamacpp"\nbase_url = "{engine.base_url}"\n'
        '[engines.dev.pin]\nquantization = "Q8_0"\n',
    )
    bench.gate()

    result = bench.run("--engines=dev", engines=[bench.engine()])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*INCOMPARABLE text, dev against a: *quantization*Q8_0*Q4_K_M*"])
    result.stdout.fnmatch_lines(["dev *loopback, Q4_K_M, context*"])
    assert engine.count == 1, "the warm-up is all it was asked"


def test_xfail_is_respected(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        import pytest
        from pytest_llmparity import check
        @pytest.mark.xfail(strict=True)
        @pytest.mark.parity("prompts.jsonl", check.schema({"type": "object"}, rate=0.5))
        def test_raises():
            raise KeyError("boom")
        @pytest.mark.xfail(strict=True)
        @pytest.mark.parity("prompts.jsonl", check.schema({"type": "object"}, rate=0.5))
        def test_verdict(): ...
        """
    )

    bench.run(engines=[bench.engine(), bench.engine()]).assert_outcomes(xfailed=2)


def test_async_gates_work(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        import pytest
        from pytest_llmparity import check
        @pytest.mark.parity("prompts.jsonl", check.prompts())
        async def test_gate(parity_run):
            assert parity_run["a"]["case-1"].text
        """
    )

    bench.run("-o", "asyncio_mode=auto", engines=[bench.engine(), bench.engine()]).assert_outcomes(passed=1)


def test_selection_and_last_failed(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        import pytest
        from pytest_llmparity import check
        @pytest.mark.parity("prompts.jsonl", check.prompts())
        def test_one(): ...
        @pytest.mark.parity("prompts.jsonl", check.prompts(), max_tokens=8)
        def test_two(): ...
        """
    )
    engine = bench.engine()

    bench.run("-k", "two", engines=[engine, bench.engine()]).assert_outcomes(passed=1, deselected=1)

    assert {request["max_tokens"] for request in bench.asked(engine)} == {8}


def test_every_answer_failing_is_an_error_that_names_the_first(bench: Bench) -> None:
    bench.gate()
    failing = bench.engine(lambda request: "fine" if request["max_tokens"] == 1 else Fault.html())
    # Nobody looks whether it restarts: that takes half a second for each of the first eight.
    bench.configure(f'[engines.b]\nkind = "openai"\nbase_url = "{failing.base_url}"\nreconnect_s = 0\n')

    result = bench.run("--engines=b", engines=[bench.engine()])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*ERROR text, b against a*"])


def test_failed_rows_raise_their_typed_error(bench: Bench) -> None:
    bench.gate("check.prompts()", "parity_run['b']['case-0'].text")

    refusing = bench.engine(lambda request: "fine" if request["max_tokens"] == 1 else Fault.refuse(400))

    result = bench.run(engines=[bench.engine(), refusing])

    result.stdout.fnmatch_lines(["E *BadRequest*b, case-0*"])


KEY = "sk-live-0123456789abcdef"


def keyed(bench: Bench, monkeypatch: pytest.MonkeyPatch, engine: LoopbackEngine) -> None:
    """Configure an engine ``k`` whose key is in the environment."""
    monkeypatch.setenv("GATES_API_KEY", KEY)
    bench.configure(f'[engines.k]\nkind = "openai"\nbase_url = "{engine.base_url}"\napi_key_env = "GATES_API_KEY"\n')


def test_a_failing_engine_test_does_not_print_the_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    keyed(bench, monkeypatch, bench.engine(api_key=KEY))
    bench.pytester.makepyfile(
        """
        def test_app(engine):
            assert engine.model == "another"
        def test_all(engines):
            assert list(engines.values()) == []
        """
    )

    result = bench.run("--engines=k", "-vv", "-l")

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*EngineHandle(name='k'*"])
    assert KEY not in result.stdout.str() + result.stderr.str()


def test_a_key_that_a_server_repeats_is_masked_in_answers_and_errors_of_the_spot(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyed(bench, monkeypatch, bench.engine(Fault.echo_key(), api_key=KEY))
    bench.pytester.makepyfile(
        """
        def test_ask(parity):
            assert parity.ask("hi")["k"].text == "x"
        async def test_aask(parity):
            assert (await parity.aask("hi"))["k"].text == "x"
        """
    )

    result = bench.run("--engines=k", "-vv", "-l", "-o", "asyncio_mode=auto")

    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*you sent Bearer «GATES_API_KEY»*"] * 2)
    assert KEY not in result.stdout.str() + result.stderr.str()


def test_a_key_in_the_reason_why_an_engine_is_not_there_is_masked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = Fault.refuse(400, json.dumps({"error": {"message": f"bad request with Bearer {KEY}"}}).encode())
    keyed(bench, monkeypatch, bench.engine(refused, api_key=KEY))
    bench.gate(body="assert parity_run['k']['case-7'].text")
    bench.pytester.makepyfile(
        test_app="""
        def test_app(engine): ...
        def test_ask(parity):
            parity.ask("hi")
        """
    )

    result = bench.run("--engines=k", "-vv", "-l", engines=[bench.engine()])

    assert result.ret == FAILED
    printed = result.stdout.str() + result.stderr.str()
    assert printed.count("bad request with Bearer «GATES_API_KEY»") >= 3
    assert KEY not in printed


def test_a_fixture_asked_for_in_the_body_is_skipped_without_engines(bench: Bench) -> None:
    names = ("parity", "parity_run", "engines", "engine")
    bench.pytester.makepyfile(
        "\n".join(f"def test_{name}(request):\n    request.getfixturevalue({name!r})\n" for name in names)
    )

    result = bench.run("-v")

    result.stdout.fnmatch_lines([f"*::test_{name} SKIPPED *" for name in names])
    result.assert_outcomes(skipped=4)
    result.stdout.fnmatch_lines(["llmparity: 4 tests skipped, needs engines: pytest --engines NAME,NAME *"])


def test_a_gate_that_is_marked_skip_is_not_gathered(bench: Bench) -> None:
    head = "import pytest\nfrom pytest_llmparity import check\n"
    gate = '@pytest.mark.parity("prompts.jsonl", check.prompts())\ndef test_gate(): ...\n'
    bench.pytester.makepyfile(
        test_itself=f"{head}@pytest.mark.skip(reason='not now')\n{gate}",
        test_module=f"{head}pytestmark = pytest.mark.skip('not now')\n{gate}",
    )
    engine = bench.engine()

    bench.run(engines=[engine, bench.engine()]).assert_outcomes(skipped=2)

    assert engine.count == 0


def test_the_command_to_reproduce_names_what_the_environment_and_options_chose(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bench.engine(), bench.engine(drift=0.3)
    (bench.pytester.path / "other.toml").write_text(
        f'[engines.x]\nbase_url = "{first.base_url}"\n[engines.y]\nbase_url = "{second.base_url}"\n[profiles.p]\n'
    )
    monkeypatch.setenv("LLMPARITY_ENGINES", "x,y")
    monkeypatch.setenv("LLMPARITY_CONFIG", "other.toml")
    monkeypatch.setenv("LLMPARITY_PROFILE", "p")
    bench.gate()

    live = bench.run("--parity-baseline=y")
    for name in ("ENGINES", "CONFIG", "PROFILE"):
        monkeypatch.delenv(f"LLMPARITY_{name}")
    replay = bench.run("--parity-mode=replay", "-v")

    command = "reproduce: pytest test_gate.py::test_gate"
    chosen = "--engines x,y --parity-baseline y --parity-config other.toml --parity-profile p"
    live.stdout.fnmatch_lines([f"{command} {chosen}"])
    replay.stdout.fnmatch_lines(
        [
            "replay of the newest run that asked what is selected: nothing is asked",
            "  test_gate.py::test_gate: 8 cases in 8 groups",
            f"{command} --parity-mode replay=2*",
            "run 2*: nobody was asked, the answers are those that were*",
        ]
    )
    assert "requests sent" in live.stdout.str()
    replay.stdout.no_fnmatch_line("*requests sent*")


def test_the_command_that_repeats_a_test_names_the_file_and_the_folder_that_pytest_was_given(bench: Bench) -> None:
    """Without them it has other settings, and in another folder than that of its run it finds no configuration."""
    folder = bench.pytester.mkdir("ci")
    (folder / "other.ini").write_text("[pytest]\n")
    bench.gate()
    bench.by_address = True

    run = bench.run(
        "-c", str(folder / "other.ini"), "--rootdir", ".", engines=[bench.engine(), bench.engine(drift=0.3)]
    )

    run.stdout.fnmatch_lines(["reproduce: pytest test_gate.py::test_gate -c ci/other.ini --rootdir . --engines a=*"])


def test_the_arguments_of_other_peoples_exceptions_are_left_alone(bench: Bench) -> None:
    bench.gate("check.prompts()", "raise ValueError('a\x1bb', 3)")
    bench.pytester.makeconftest(
        """
        import pytest
        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_runtest_call(item):
            try:
                return (yield)
            except ValueError as error:
                assert error.args == ("a\x1bb", 3), error.args
        """
    )

    bench.run(engines=[bench.engine(), bench.engine()]).assert_outcomes(passed=1)


def test_the_plan_counts_one_group_as_one(bench: Bench) -> None:
    bench.prompts(group="the same")
    bench.gate("check.prompts()")

    result = bench.run("--collect-only", engines=[bench.engine(), bench.engine()])

    result.stdout.fnmatch_lines(["*test_gate.py::test_gate: 8 cases in 1 group"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            [],
            "power: *test_gate.py::test_gate: text(margin=0.05): with 4 groups 8 % drift is caught in 9 of 100 runs, *",
        ),
        (["--collect-only"], "    text(margin=0.05): with 4 groups 8 % drift is caught in 9 of 100 runs, *"),
    ],
)
def test_the_plan_says_what_few_groups_cannot_see(bench: Bench, options: list[str], line: str) -> None:
    rows = [
        {"id": f"case-{i}", "group": f"g{i % 4}", "messages": [{"role": "user", "content": f"question {i}"}]}
        for i in range(32)
    ]
    (bench.pytester.path / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    bench.gate(tokens=32)

    result = bench.run(*options, engines=[bench.engine("one two three"), bench.engine("one two three")])

    result.stdout.fnmatch_lines([line])


def test_a_check_of_pairs_on_the_spot_fails_at_the_line_that_asked(bench: Bench) -> None:
    bench.pytester.makepyfile(
        """
        from pytest_llmparity import check
        def test_ask(parity):
            parity.ask("hi").check(check.similarity(at_least=0.5))
        """
    )

    result = bench.run(engines=[bench.engine("hi")])

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E *similarity compares engines and only a is selected; give --engines A,B", "*test_*.py:3: ParityFailure"]
    )


def test_the_header_says_where_an_engine_of_unknown_kind_is(bench: Bench) -> None:
    bench.gate("check.prompts()")
    bench.by_address = True
    engine = bench.engine()

    result = bench.run(engines=[engine, bench.engine()])

    result.stdout.fnmatch_lines([f"a  {engine.base_url}, kind asked at start, attach, baseline"])


def test_the_marker_is_listed_as_errors_quote_it(bench: Bench) -> None:
    bench.pytester.makepyfile("import pytest\n@pytest.mark.parity()\ndef test_it(): ...\n")

    listed = bench.run("--markers")
    refused = bench.run(engines=[bench.engine()])

    signature = (
        "parity(prompts, [*]checks, max_tokens=64, sampling=None, concurrency=None, repeats=1, extra_body=None, "
        "reasoning_effort=None, chat_template_kwargs=None)"
    )
    listed.stdout.fnmatch_lines([f"@pytest.mark.{signature}: ask the prompts *"])
    refused.stdout.fnmatch_lines([f"*names no prompt file; write {signature}"])


OFFERED = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


def test_a_gate_whose_engine_lacks_what_it_needs_is_skipped_with_the_reason(bench: Bench) -> None:
    bench.gate("check.prompts()")
    bench.prompts(tools=OFFERED)
    engines = [bench.engine(abilities=Abilities(tools="taken")), bench.engine(abilities=Abilities(tools="refused"))]

    result = bench.run("-rs", engines=engines)

    assert result.ret == OK
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        [
            "probes: at most 9 short requests to each of 2 engines, 18 in all",
            "skipped:",
            "  b does not take tools (probed): prompts of test_gate",
            "*SKIPPED*prompts, b against a: b does not take tools (probed)*",
        ]
    )


def test_a_gate_that_was_required_fails_where_its_engine_lacks_what_it_needs(bench: Bench) -> None:
    bench.gate("check.prompts()")
    bench.prompts(tools=OFFERED)
    engines = [bench.engine(abilities=Abilities(tools="taken")), bench.engine()]

    result = bench.run("--parity-required", engines=engines)

    assert result.ret == FAILED
    result.assert_outcomes(failed=1)
    assert "b does not take tools (probed), and --parity-required asks for a verdict" in result.stdout.str()


def test_a_gate_is_judged_on_the_engines_that_have_what_it_needs(bench: Bench) -> None:
    bench.gate("check.prompts()")
    bench.prompts(tools=OFFERED)
    taken = Abilities(tools="taken")

    result = bench.run(engines=[bench.engine(abilities=taken), bench.engine(), bench.engine(abilities=taken)])

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*prompts*skip*pass 0 differ*", "*b does not take tools (probed)*"])


def test_the_plan_names_the_prompts_that_go_over_both_routes(bench: Bench) -> None:
    bench.gate("check.prompts()")
    table = '[engines.{0}]\nkind = "ollama"\nmodel = "m"\nbase_url = "http://127.0.0.1:9"\nroute = "{1}"\n'
    bench.configure(table.format("a", "openai") + table.format("b", "native"))

    result = bench.run("--engines=a,b", "--collect-only")

    result.stdout.fnmatch_lines(["routes: at most 16 requests more with whole prompts to b; half over each route"])


@pytest.mark.slow
def test_tags_are_judged_beside_all_prompts_and_stand_everywhere(bench: Bench) -> None:
    def row(number: int) -> dict[str, object]:
        question = {"role": "user", "content": f"question {number}"}
        return {"id": f"case-{number}", "tags": ["poem" if number % 2 else "json"], "messages": [question]}

    prompts = bench.pytester.path / "prompts.jsonl"
    prompts.write_text("\n".join(json.dumps(row(number)) for number in range(20)))
    bench.gate('check.text(margin=0.07, by="tag")')
    ends = ("--parity-report=json", "--parity-out=out", "--junitxml=out/junit.xml", "-v")

    result = bench.run(*ends, engines=[bench.engine(), bench.engine(drift=0.9)])

    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["FAIL text[[]poem[]], b against a: *10 prompts*"])
    result.stdout.fnmatch_lines(["  text[[]json[]]*FAIL*"])
    by_kind = {verdict["kind"]: verdict for verdict in bench.report()["verdicts"]}
    assert {kind: verdict["tag"] for kind, verdict in by_kind.items()} == {
        "text": "",
        "text.repeat": "",
        "text[poem]": "poem",
        "text[json]": "json",
    }
    assert {verdict["family"] for verdict in by_kind.values()} == {4}
    properties = {element.get("name") for element in ET.parse(bench.pytester.path / "out/junit.xml").iter("property")}
    assert "llmparity.text[poem].b.outcome" in properties

    again = bench.run("--parity-mode=replay", engines=[bench.engine(), bench.engine(drift=0.9)])
    assert again.ret == FAILED
    again.stdout.fnmatch_lines(["FAIL text[[]poem[]], b against a: *10 prompts*"])
    assert "text, text.repeat and text by tag" in " ".join(again.stdout.str().split())


def test_too_few_prompts_of_a_tag_are_an_error_before_anything_is_asked(bench: Bench) -> None:
    bench.prompts(tags=["poem"])
    bench.gate('check.text(margin=0.12, by="tag")')
    engines = [bench.engine(), bench.engine()]

    result = bench.run(engines=engines)

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(['*by="tag" judges the prompts of each tag beside all of them, and every prompt has*'])
    assert not any(bench.asked(engine) for engine in engines)


@pytest.mark.parametrize(("speaking", "told"), [(True, "advice, not judged"), (False, "EmptyAnswer")])
def test_advice_rests_on_answers_and_does_not_fail_a_run_that_requires_verdicts(
    bench: Bench, speaking: bool, told: str
) -> None:
    """Unless there were none to compare: who says nothing fails it."""
    drawn = itertools.count()

    def speaks(_: object) -> str:
        return f"{next(drawn) % 7} is what I draw" if speaking else ""

    bench.pytester.makepyfile(
        test_gate="""
        import pytest
        from pytest_llmparity import check

        DRAWN = {"temperature": 0.8, "seed": None}

        @pytest.mark.parity("prompts.jsonl", check.distribution(repeats=3), max_tokens=8, sampling=DRAWN)
        def test_drawn(parity_run): ...
        """
    )

    result = bench.run(
        "--parity-required", "-rs", engines=[bench.engine(speaks, poses_as="llamacpp") for _ in range(2)]
    )

    assert told in result.stdout.str()
    assert result.ret == (0 if speaking else FAILED)
