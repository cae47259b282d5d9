from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable

import pytest

from pytest_llmparity.settings.sources import budget, formats, inconclusive, mode, positive, switch
from tests.plugin.warm_pytest import IDLE, UNSEEN, leave_out

pytestmark = pytest.mark.usefixtures("clean")

CONFTEST = """
import json, sys
from pytest_llmparity.plugin import hookspecs, options
from pytest_llmparity.core.sample import to_json

def pytest_addhooks(pluginmanager):
    pluginmanager.add_hookspecs(hookspecs)

def pytest_addoption(parser):
    options.add_options(parser)

def pytest_configure(config):
    asked = options.requested(config)
    if asked:
        from pytest_llmparity.plugin.options import resolve
        settings = resolve(config)
    else:
        from pytest_llmparity.settings.specification import Settings
        from pytest_llmparity.settings.sources import OUT
        settings = Settings(out=config.rootpath / OUT)
    heavy = [name for name in ("pydantic", "httpx", "openai", "numpy", "yaml") if name in sys.modules]
    resolved = {**to_json(settings), "asked": asked, "heavy": heavy, "out": str(settings.out)}
    resolved["engines"] = [[s.name, s.launch, s.model_path and str(s.model_path)] for s in settings.engines]
    (config.rootpath / "settings.json").write_text(json.dumps(resolved, default=str))
"""
TWO = ("--engines", "a=http://h:1,b=http://h:2")
OURS = '[engines.a]\nkind = "vllm"\nmodel = "m"\n'
FILE = """
baseline = "b"
gather = "side-by-side"
concurrency = 2
[engines.a]
kind = "vllm"
model = "m"
[engines.b]
kind = "vllm"
model = "m"
[profiles.ci]
engines = ["b", "a"]
baseline = "a"
concurrency = 8
residency = "one-at-a-time"
gather = "in-turn"
timed_changes = 6
inconclusive = "fail"
max_requests = 9
budget = "15m"
[profiles.strict]
required = true
"""

ALONE = leave_out(("llmparity", "asyncio", *UNSEEN, *IDLE))

Resolved = dict[str, object]
Resolve = Callable[..., Resolved]
Refuse = Callable[..., str]


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    """The suite itself may run under variables of ours; plugins of others have no part in our options."""
    for name in ("ENGINES", "BASELINE", "PROFILE", "CONFIG", "REQUIRED", "MODE", "INCONCLUSIVE", "BUDGET", "OUT"):
        monkeypatch.delenv(f"LLMPARITY_{name}", raising=False)
    pytester.makeini(f"[pytest]\naddopts = {' '.join(leave_out())}\n")


@pytest.fixture
def resolve(pytester: pytest.Pytester) -> Resolve:
    """Run pytest with the options; returns the settings they came to."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("def test_a(): pass")

    def run(*options: str, process: bool = False) -> Resolved:
        start = pytester.runpytest_subprocess if process else pytester.runpytest_inprocess
        result = start(*ALONE, *options)
        assert result.ret == 0, result.stdout.str() + result.stderr.str()
        settings: Resolved = json.loads((pytester.path / "settings.json").read_text())
        return settings

    return run


@pytest.fixture
def refuse(pytester: pytest.Pytester) -> Refuse:
    """Run pytest with the options; returns the complaint after checking that it ends with exit 4 before collection."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile("raise AssertionError('collected')")

    def run(*options: str) -> str:
        result = pytester.runpytest_inprocess(*ALONE, *options)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stdout.no_fnmatch_line("*INTERNALERROR*")
        return result.stderr.str()

    return run


# -- parsers


@pytest.mark.parametrize(("text", "value"), [("900", 900.0), (" 15m", 900.0), ("1h30m", 5400.0)])
def test_budget(text: str, value: float) -> None:
    assert budget(text) == value


def test_formats_come_once_each() -> None:
    assert formats("json, json") == ("json",)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("live", ("live", None)),
        ("replay", ("replay", None)),
        ("replay=r1", ("replay", "r1")),
        ("replay=newest", ("replay", None)),
    ],
)
def test_mode(text: str, value: tuple[str, str | None]) -> None:
    assert mode(text) == value


def test_positive() -> None:
    assert positive("12") == 12


def test_switch() -> None:
    assert switch("Yes")
    assert not switch("0")


@pytest.mark.parametrize(
    ("parser", "text", "expected"),
    [
        (budget, "0", "'0' is no time above zero"),
        (budget, "-5", "'-5' is no time above zero; write 900 (seconds), 90s, 15m or 1h30m"),
        (formats, "json,pdf", "'json,pdf' is not allowed; expected one of: json"),
        (formats, "json,hmtl", "'json,hmtl' is not allowed (did you mean 'html'?); expected one of: json"),
        (formats, "", "'' is not allowed"),
        (mode, "repaly", "'repaly' is not allowed (did you mean 'replay'?); expected live"),
        (mode, "replay=", "expected live, replay or replay=RUN"),
        (mode, "live=x", "'live=x' is not allowed"),
        (positive, "0", "'0' is no whole number above zero"),
        (positive, "1.5", "'1.5' is no whole number"),
        (positive, "\u0663", "is no whole number"),
        (positive, "9" * 5000, "is no whole number"),
        (inconclusive, "hide", "expected show, fail or skip"),
        (switch, "maybe", "expected one of: 1, true, yes, on, 0, false, no, off"),
    ],
)
def test_parsers_say_what_was_given_and_what_is_allowed(
    parser: Callable[[str], object], text: str, expected: str
) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        parser(text)

    assert expected in str(caught.value)


# -- what is resolved


@pytest.mark.slow
def test_an_unused_plugin_reads_nothing_and_imports_nothing(resolve: Resolve, pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("llmparity.toml").write_text("broken")

    settings = resolve(process=True)

    assert (settings["asked"], settings["engines"], settings["heavy"]) == (False, [], [])
    assert settings["out"] == str(pytester.path / ".llmparity/report")


def test_the_first_engine_is_the_baseline(resolve: Resolve) -> None:
    settings = resolve(*TWO)

    assert settings["engines"] == [["a", "attach", None], ["b", "attach", None]]
    assert (settings["baseline"], settings["baseline_source"]) == ("a", "first of --engines")
    assert (settings["concurrency"], settings["residency"], settings["inconclusive"], settings["mode"]) == (
        4,
        "together",
        "show",
        "live",
    )


def test_every_option_arrives(resolve: Resolve, pytester: pytest.Pytester) -> None:
    settings = resolve(
        "--engines=a=http://h:1",
        "--engines=b=http://h:2",
        "--parity-baseline=b",
        "--parity-required",
        "--parity-sequential",
        "--parity-fresh",
        "--parity-inconclusive=skip",
        "--parity-max-requests=7",
        "--parity-budget=15m",
        "--parity-keep-runs=3",
        "--parity-case=x,y",
        "--parity-case=z",
        "--parity-report=json",
        "--parity-out=there",
    )

    assert (settings["baseline"], settings["baseline_source"]) == ("b", "--parity-baseline")
    assert (settings["required"], settings["resume"], settings["inconclusive"]) == (True, "fresh", "skip")
    assert settings["sequential"] is True
    assert (settings["max_requests"], settings["budget_s"], settings["keep_runs"]) == (7, 900.0, 3)
    assert settings["cases"] == ["x,y", "z"]
    assert (settings["reports"], settings["out"]) == (["json"], str(pytester.path / "there"))


def test_the_file_in_rootdir_is_read(resolve: Resolve, pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("llmparity.toml").write_text(FILE)

    settings = resolve("--engines=a,b")

    assert (settings["baseline"], settings["baseline_source"], settings["concurrency"]) == (
        "b",
        "llmparity.toml: baseline",
        2,
    )


def test_a_baseline_of_the_file_that_is_not_selected_gives_way_aloud(
    resolve: Resolve, pytester: pytest.Pytester
) -> None:
    pytester.path.joinpath("llmparity.toml").write_text(FILE)

    settings = resolve("--engines=a")

    assert settings["baseline"] == "a"
    assert settings["baseline_source"] == "first of --engines; b (llmparity.toml: baseline) is not selected"


@pytest.mark.parametrize("engines", ["golden:b,a", "golden:b,b", "b,golden:b", "a,golden:b,b"])
def test_golden_answers_of_the_baseline_of_the_file_stand_in_for_it(
    resolve: Resolve, pytester: pytest.Pytester, engines: str
) -> None:
    pytester.path.joinpath("llmparity.toml").write_text(FILE)
    pytester.path.joinpath("golden/prompts").mkdir(parents=True)
    pytester.path.joinpath("golden/prompts/b.jsonl").touch()

    settings = resolve(f"--engines={engines}")
    asked = resolve(f"--engines={engines},c=http://h:3", "--parity-baseline=c")

    assert settings["baseline"] == "golden-b"
    assert settings["baseline_source"] == "golden answers of b (llmparity.toml: baseline)"
    assert asked["baseline"] == "c"


def test_a_baseline_of_the_profile_that_is_not_selected_is_told_as_the_profiles(
    resolve: Resolve, pytester: pytest.Pytester
) -> None:
    pytester.path.joinpath("llmparity.toml").write_text(FILE)

    settings = resolve("--engines=b", "--parity-profile=ci")

    assert (settings["baseline"], settings["baseline_source"]) == (
        "b",
        "first of --engines; a (profile ci) is not selected",
    )


def test_a_profile_wins_over_the_file_and_loses_to_environment_and_options(
    resolve: Resolve, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.path.joinpath("pyproject.toml").write_text(
        FILE.replace("[engines", "[tool.llmparity.engines")
        .replace("[profiles", "[tool.llmparity.profiles")
        .replace('\nbaseline = "b"', '[tool.llmparity]\nbaseline = "b"', 1)
    )
    monkeypatch.setenv("LLMPARITY_MAX_REQUESTS", "5")
    monkeypatch.setenv("LLMPARITY_INCONCLUSIVE", "skip")
    monkeypatch.setenv("LLMPARITY_OUT", "")

    settings = resolve("--parity-profile=ci", "--parity-inconclusive=show")

    assert [name for name, *_ in settings["engines"]] == ["b", "a"]  # type: ignore[attr-defined]
    assert (settings["baseline"], settings["baseline_source"]) == ("a", "profile ci")
    assert (settings["concurrency"], settings["residency"], settings["budget_s"]) == (8, "one-at-a-time", 900.0)
    assert (settings["gather"], settings["timed_changes"]) == ("in-turn", 6)
    assert (settings["max_requests"], settings["inconclusive"]) == (5, "show")
    assert settings["origins"]["baseline"] == "profile ci"  # type: ignore[index]


@pytest.mark.parametrize(
    "engines",
    ["a=ollama:m@http://h:1,b=vllm:m@http://h:2,c=lmstudio:m@http://h:3", "a=http://h:1"],
    ids=["told to unload", "alone"],
)
def test_engines_take_turns_where_they_can_be_told_to_unload(
    resolve: Resolve, pytester: pytest.Pytester, engines: str
) -> None:
    pytester.path.joinpath("llmparity.toml").write_text('residency = "one-at-a-time"')

    assert resolve(f"--engines={engines}")["residency"] == "one-at-a-time"


def test_the_environment_selects_engines(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPARITY_ENGINES", "a=http://h:1,b=http://h:2")
    monkeypatch.setenv("LLMPARITY_BASELINE", "b")

    settings = resolve()

    assert (settings["asked"], settings["baseline"], settings["baseline_source"]) == (True, "b", "LLMPARITY_BASELINE")


def test_replay_needs_neither_engines_nor_their_files(resolve: Resolve) -> None:
    assert resolve("--parity-mode=replay=r1", "--parity-required")["replay_run"] == "r1"
    assert resolve("--parity-mode=replay", "--engines=llamacpp:gone.gguf")["mode"] == "replay"


def test_models_are_found_from_the_folder_pytest_was_started_in(resolve: Resolve, pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("m.gguf").write_bytes(b"")

    assert resolve("--engines=llamacpp:m.gguf")["engines"] == [["llamacpp-m", "process", str(pytester.path / "m.gguf")]]


def test_a_file_named_by_option_is_the_place_its_paths_start_from(resolve: Resolve, pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("sub")
    folder.joinpath("m.gguf").write_bytes(b"")
    folder.joinpath("p.toml").write_text('[engines.a]\nkind = "llamacpp"\nmodel = "m.gguf"\n')

    settings = resolve("--parity-config=sub/p.toml", "--engines=a")

    assert settings["engines"] == [["a", "process", str(folder / "m.gguf")]]


# -- what is refused


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--engines=a,,b"], "--engines: 'a,,b' has an empty entry"),
        (["--engines=nobody"], "--engines: unknown engine 'nobody'"),
        (["--engines=http://me:hunter2@h"], "carries credentials"),
        (["--engines=golden:a"], "there are no golden answers of 'a' in "),
        (["--engines=llamacpp:" + "a" * 5000 + ".gguf"], "is not there"),
        ([*TWO, "--parity-baseline=c"], "--parity-baseline is 'c', which is not selected"),
        (["--parity-required"], "no engines are selected, and --parity-required makes that an error"),
        (["--parity-profile=ci"], "--parity-profile is 'ci', but there is no configuration"),
        (["--parity-config=gone.toml"], "--parity-config: there is no file"),
        ([*TWO, "--parity-resume", "--parity-fresh"], "contradict each other"),
        (["--parity-mode=replay", "--parity-fresh"], "--parity-fresh is for live runs"),
        (["--parity-budget=soon"], "'soon' is no time above zero"),
        (["--parity-max-requests=0"], "'0' is no whole number above zero"),
        (["--parity-report=pdf"], "'pdf' is not allowed; expected one of: json"),
        (["--parity-mode=dry"], "'dry' is not allowed; expected live, replay or replay=RUN"),
        (["--parity-inconclusive=no"], "'no' is not allowed; expected show, fail or skip"),
    ],
    ids=lambda value: value[0][:40] if isinstance(value, list) and len(value) == 1 else None,
)
def test_misuse_is_a_sentence_and_exit_4(refuse: Refuse, options: list[str], expected: str) -> None:
    message = refuse(*options)

    assert expected in " ".join(message.split())
    assert "hunter2" not in message.replace("--engines=http://me:hunter2@h", "")


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        ({"llmparity.toml": "concurrency = 0"}, TWO, "llmparity.toml: concurrency is 0"),
        ({"llmparity.toml": b"\xff"}, TWO, "not UTF-8 at byte 0"),
        ({"llmparity.toml": FILE}, ["--parity-profile=cii"], "no profile \"cii\" (did you mean 'ci'?)"),
        ({"llmparity.toml": FILE}, ["--parity-profile=strict"], "and the profile makes that an error"),
        (
            {"llmparity.toml": 'residency = "one-at-a-time"'},
            ["--engines=a=http://h:1,b=llamacpp:m@http://h:2,c=ollama:m@http://h:3"],
            "a (of a kind that is not named), b (llamacpp) run elsewhere and cannot be told to unload. Only these "
            "kinds can: lmstudio, ollama, vllm (a URL alone",
        ),
        (
            {"llmparity.toml": 'residency = "one-at-a-time"\ngather = "side-by-side"'},
            TWO,
            "and gather = 'side-by-side' asks all of them at the same time; leave gather out",
        ),
        (
            {"llmparity.toml": 'residency = "one-at-a-time"\nexecutor = "ray"\n' + OURS},
            ["--engines=a"],
            "and executor = 'ray' gives each resources of its own; use residency = 'together'",
        ),
        (
            {"llmparity.toml": 'residency = "one-at-a-time"\n' + OURS + "replicas = 2"},
            ["--engines=a"],
            "and a has replicas, which run together",
        ),
        (
            {"llmparity.toml": 'executor = "rai"'},
            TWO,
            "executor cannot be used: 'rai' is not allowed (did you mean 'ray'",
        ),
        ({"llmparity.toml": "", "pyproject.toml": "[tool.llmparity]"}, TWO, "keep one of them"),
    ],
    ids=[
        *("value", "encoding", "profile", "required", "one-at-a-time", "one and all", "placed", "replicas", "executor"),
        "two-files",
    ],
)
def test_a_wrong_configuration_is_exit_4(
    refuse: Refuse, pytester: pytest.Pytester, files: dict[str, str | bytes], options: list[str], expected: str
) -> None:
    for name, content in files.items():
        pytester.path.joinpath(name).write_bytes(content if isinstance(content, bytes) else content.encode())

    assert expected in refuse(*options)


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/mem is a file that even root cannot read")
def test_a_configuration_that_cannot_be_read(refuse: Refuse, pytester: pytest.Pytester) -> None:
    pytester.path.joinpath("llmparity.toml").symlink_to("/proc/self/mem")

    assert "llmparity.toml: cannot be read: " in refuse(*TWO)


def test_an_unknown_engine_is_told_of_what_named_it(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPARITY_ENGINES", "nobody")

    refused = refuse()

    assert "LLMPARITY_ENGINES: unknown engine 'nobody'" in refused
    assert "--engines:" not in refused


def test_a_wrong_variable_is_named(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMPARITY_REQUIRED", "maybe")

    assert "LLMPARITY_REQUIRED: 'maybe' is not allowed" in refuse(*TWO)


def test_help_states_every_default(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)

    text = " ".join(pytester.runpytest_inprocess(*ALONE, "--help").stdout.str().split())

    section = text.partition("LLM parity:")[2].partition("[pytest]")[0]
    assert section.count(" --parity-") >= 13
    ours = [option for option in section.split(" --")[1:] if option.startswith(("parity-", "engines"))]
    for option in ours:
        assert "default" in option or option.startswith(("parity-fresh", "parity-case")), option


def test_a_variable_that_is_nearly_one_of_ours_is_warned_about_without_engines_too(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMPARITY_ENGINE", "prod,dev")
    monkeypatch.setenv("LLMPARITY_SHARD", "1/2")
    pytester.makepyfile("def test_a(): ...")

    result = pytester.runpytest_inprocess(*leave_out(("asyncio", *UNSEEN)))

    result.assert_outcomes(passed=1, warnings=2)
    result.stdout.fnmatch_lines(
        [
            "*the environment variable LLMPARITY_ENGINE is not read (did you mean 'LLMPARITY_ENGINES'?)*",
            "*LLMPARITY_SHARD is not read: it is about one run, so give --parity-shard 1/2*",
        ]
    )
