"""A gate is not green because nothing ran, and nobody is asked for what nothing can be compared with.

A new user's run with ``--parity-required``, one engine and checks that compare two sent 240 requests, skipped
everything and ended with exit code 0; a wrong key of one engine cost the other 160 requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.plugin.reported.wire import Answer, Json, WireServer, chunk, document, events, plain, question, usage

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

FAILED, OK = pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.OK
PAIRWISE = "check.prompts(), check.text(margin=0.05)"
ABSOLUTE = 'check.schema({"type": "object"}, rate=0.5), check.text(margin=0.05)'


def rows(project: Any, count: int = 8) -> None:
    project.prompts([{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(count)])


def prompts_of(server: WireServer) -> list[str]:
    """Return the cases a server was asked, neither warm-ups nor probes."""
    return [prompt for asked in server.asked if "question" in (prompt := question(asked.body))]


def posts(server: WireServer) -> int:
    return sum(asked.method == "POST" for asked in server.asked)


def refused(body: Json) -> Answer:
    return document({"error": {"message": "invalid api key", "code": 401}}, 401)


def test_required_with_one_engine_and_checks_of_pairs_is_an_error_and_nobody_is_asked(project: Any) -> None:
    rows(project)
    base = project.engine("base", plain("yes"))
    project.gate(PAIRWISE)

    result = project.run("--parity-required")

    assert result.ret == FAILED
    result.assert_outcomes(errors=1)
    assert "--parity-required asks for a verdict; select another engine" in " ".join(result.stdout.str().split())
    assert base.asked == []


def test_one_engine_is_asked_no_noise_floor_where_nothing_is_compared(project: Any) -> None:
    rows(project)
    base = project.engine("base", plain("yes"))
    project.gate(PAIRWISE, body="assert parity_run['base']['q3'].text == 'yes'")

    assert project.run().ret == OK
    assert len(prompts_of(base)) == 8


@pytest.mark.parametrize(
    ("gate", "args"),
    [
        ("@pytest.mark.skip\ndef test_it(): ...", ()),
        ("def test_it(): ...", ()),
        pytest.param(
            "@pytest.mark.parity('prompts.jsonl')\ndef test_it(): pytest.skip('today not')", (), marks=pytest.mark.slow
        ),
        ("@pytest.mark.parity('prompts.jsonl', check.prompts())\ndef test_it(): ...", ("-k", "test_plain")),
    ],
)
def test_a_required_run_that_judges_nothing_fails(project: Any, gate: str, args: tuple[str, ...]) -> None:
    rows(project, 4)
    project.engine("base", plain("yes"))
    project.engine("cand", plain("yes"))
    project.write("test_it.py", f"import pytest\nfrom pytest_llmparity import check\n{gate}\ndef test_plain(): ...\n")

    result = project.run("--parity-required", *args)

    assert result.ret == FAILED
    assert "nothing was judged in this run, and --parity-required asks for a verdict" in result.stdout.str()
    assert project.run(*args).ret == OK


@pytest.mark.parametrize(
    "gate",
    [
        "def test_app(engine): assert engine.openai().chat.completions.create(model='m', messages=[{'role': 'user', "
        "'content': 'hi'}]).choices[0].message.content == 'yes'",
        "@pytest.mark.parity('prompts.jsonl')\ndef test_rows(parity_run): "
        "assert parity_run['base']['q1'].text == 'yes'",
        "def test_ask(parity): parity.ask('hi')",
    ],
)
def test_a_required_run_of_tests_that_use_engines_is_no_error(project: Any, gate: str) -> None:
    rows(project, 4)
    project.engine("base", plain("yes"))
    project.write("test_it.py", f"import pytest\n{gate}\n")

    assert project.run("--parity-required").ret == OK


@pytest.mark.slow
def test_a_gate_that_is_expected_to_fail_was_judged(project: Any) -> None:
    rows(project)
    project.engine("base", plain("yes"))
    project.engine("cand", plain(question))
    gate = "@pytest.mark.xfail\n@pytest.mark.parity('prompts.jsonl', check.text(margin=0.05))\ndef test_it(): ..."
    project.write("test_it.py", f"import pytest\nfrom pytest_llmparity import check\n{gate}\n")

    result = project.run("--parity-required")

    assert result.ret == OK
    result.assert_outcomes(xfailed=1)
    assert "nothing was judged" not in result.stdout.str()


@pytest.mark.parametrize("broken", ["base", "cand"])
def test_who_has_nobody_to_be_compared_with_is_asked_no_prompt(project: Any, broken: str) -> None:
    rows(project)
    servers = {name: project.engine(name, refused if name == broken else plain("yes")) for name in ("base", "cand")}
    project.gate(PAIRWISE)

    result = project.run()

    assert result.ret == FAILED
    assert {v["outcome"] for v in project.report()["verdicts"]} == {"ERROR"}
    assert {name: posts(server) for name, server in servers.items()} == {"base": 1, "cand": 1}, "a warm-up each"


def test_a_contradicted_pin_of_the_only_candidate_spares_the_baseline(project: Any) -> None:
    rows(project)
    base, cand = project.engine("base", plain("yes")), project.engine("other", plain("yes"))
    project.write(
        "llmparity.toml",
        f'[engines.cand]\nkind = "openai"\nmodel = "m"\nbase_url = "http://127.0.0.1:{cand.port}"\nstrict_pins = true\n'
        '[engines.cand.pin]\nquantization = "Q8_0"\n',
    )
    project.gate(PAIRWISE)

    result = project.pytester.runpytest_inprocess(
        *("-p", "no:cacheprovider", f"--engines=base=http://127.0.0.1:{base.port}", "--engines=cand"),
        *("--parity-report=json", "--parity-out=out"),
    )

    assert result.ret == FAILED
    assert {v["outcome"] for v in project.report()["verdicts"]} == {"INCOMPARABLE"}
    assert (posts(base), posts(cand)) == (1, 1)


def test_engines_in_turn_are_held_against_pins_before_the_baseline_is_asked(bench: Bench) -> None:
    bench.gate(PAIRWISE)
    engines = {name: bench.engine(poses_as="ollama", quantization="Q4_K_M") for name in ("base", "cand")}
    tables = [
        f'[engines.{name}]\nkind = "ollama"\nmodel = "loopback"\nbase_url = "{engine.base_url}"\n'
        for name, engine in engines.items()
    ]
    pin = '[engines.cand.pin]\nquantization = "F16"\n'
    bench.configure("\n".join(['residency = "one-at-a-time"', *tables, pin]))

    result = bench.run("--engines=base,cand", "--parity-report=json", "--parity-out=out")

    assert result.ret == FAILED
    assert {v["outcome"] for v in bench.report()["verdicts"]} == {"INCOMPARABLE"}
    assert "quantization is pinned to F16 but the server has Q4_K_M" in " ".join(result.stdout.str().split())
    assert [len(bench.asked(engine)) for engine in engines.values()] == [0, 0]


@pytest.mark.parametrize("broken", ["base", "cand"])
def test_what_one_engine_alone_is_judged_by_is_asked_of_those_that_work(project: Any, broken: str) -> None:
    rows(project)
    servers = {
        name: project.engine(name, refused if name == broken else plain('{"a": 1}')) for name in ("base", "cand")
    }
    project.gate(ABSOLUTE)

    project.run()

    outcomes = {(v["kind"], v["engine"]): v["outcome"] for v in project.report()["verdicts"]}
    works = "cand" if broken == "base" else "base"
    assert outcomes == {
        ("schema.rate", works): "PASS",
        ("schema.rate", broken): "ERROR",
        ("text", "cand"): "ERROR",
    }
    assert len(prompts_of(servers[works])) == 8, "every prompt once: no noise floor, which only comparisons need"
    assert prompts_of(servers[broken]) == []


def test_rows_of_an_engine_that_was_spared_say_why(project: Any) -> None:
    rows(project)
    project.engine("base", refused)
    project.engine("cand", plain("yes"))
    project.gate(PAIRWISE, body="parity_run['cand']['q1'].text")

    result = project.run()

    printed = " ".join(result.stdout.str().split())
    assert "cand has no answer to 'q1': not asked: the baseline base cannot be used" in printed


def thinks_only(body: Json) -> Answer:
    """Answer with reasoning alone, up to the token limit."""
    return events(chunk({"reasoning_content": "hm " * 8}), chunk({}, "length"), usage(9, 64))


@pytest.mark.slow
def test_a_required_gate_over_answers_without_text_fails(project: Any) -> None:
    rows(project)
    project.engine("base", thinks_only)
    project.engine("cand", thinks_only)
    project.gate("check.text(margin=0.05)")

    assert project.run().ret == OK
    result = project.run("--parity-required", "--parity-fresh")

    assert result.ret == FAILED
    printed = " ".join(result.stdout.str().split())
    assert "nothing was judged, and --parity-required asks for a verdict" in printed
    assert "the token limit was reached in the reasoning" in printed


def test_a_case_that_no_selected_test_has_is_an_error_with_the_nearest(project: Any) -> None:
    rows(project)
    base = project.engine("base", plain("yes"))
    project.gate(PAIRWISE)

    result = project.run("--parity-case", "q66")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--parity-case q66: no selected test has a case of this id (did you mean 'q6'?)" in result.stderr.str()
    assert base.asked == []


@pytest.mark.slow
def test_a_server_that_is_compared_with_itself_is_named(project: Any) -> None:
    rows(project)
    base = project.engine("base", plain("yes"), models=("m",))
    address = f"http://127.0.0.1:{base.port}#m"
    project.gate("check.text(margin=0.05)")

    result = project.run(f"--engines=one={address},other={address}")

    assert "one and other are the same server and model" in " ".join(result.stdout.str().split())
