"""What the documentation shows is true: examples run, tables equal the code, links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import openai  # noqa: F401 - see below
import pytest
import yaml

# pytester forgets modules that a run inside this process imported, and numpy cannot be imported twice.
import pytest_llmparity.plugin.door  # noqa: F401 - see above
from pytest_llmparity import check, cli, lockfile
from pytest_llmparity.core import errors
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.gate.policy import parse_policy
from pytest_llmparity.core.golden.records import Line
from pytest_llmparity.core.prompts import entries
from pytest_llmparity.core.prompts.reading import parse_prompts
from pytest_llmparity.core.recording import Exchanged
from pytest_llmparity.core.sample import IDENTITY
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.start import environments
from pytest_llmparity.settings import file as settings_file
from pytest_llmparity.settings import sources
from pytest_llmparity.settings.configuration import parse_config
from pytest_llmparity.testing.script import babble, prompt_of
from tests.doubles.posing import PosingEngine
from tests.plugin.warm_pytest import leave_out

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(?P<info>[^\n]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?P<target>[^)\s]+)\)")


def blocks(info: str) -> Sequence[object]:
    params = []
    for page in PAGES:
        for number, match in enumerate(FENCE.finditer(page.read_text("utf-8"))):
            if match["info"] == info:
                params.append(pytest.param(match["body"], id=f"{page.stem}-{number}"))
    assert params, f"no page has a block marked {info!r}"
    return params


def between(page: str, marker: str) -> str:
    text = (ROOT / page).read_text("utf-8")
    return text.partition(f"<!-- {marker} -->")[2].partition(f"<!-- /{marker.partition(':')[0]} -->")[0]


def names_in(table: str) -> set[str]:
    rows = [re.split(r"(?<!\\)\|", line)[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files the examples name, two engines called prod and dev; gives the command line."""
    monkeypatch.setenv("LLMPARITY_EMBEDDING_MODEL", "none")
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    (pytester.path / "prompts").mkdir()
    (pytester.path / "schemas").mkdir()
    rows = [{"id": f"c{i}", "messages": [{"role": "user", "content": f"ticket {i}"}]} for i in range(64)]
    (pytester.path / "prompts/tickets.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    kinds = [row | {"tags": [("prose", "code")[i % 2]]} for i, row in enumerate(rows)]
    (pytester.path / "prompts/kinds.jsonl").write_text("\n".join(json.dumps(row) for row in kinds))
    sums = [row | {"expect": {"answer": "1"}} for row in rows]
    (pytester.path / "prompts/sums.jsonl").write_text("\n".join(json.dumps(row) for row in sums))
    (pytester.path / "schemas/ticket.json").write_text('{"type": "object"}')
    with PosingEngine('{"queue": 1}') as prod, PosingEngine('{"queue": 1}') as dev:
        yield ["-p", "no:cacheprovider", *leave_out(), f"--engines=prod={prod.base_url},dev={dev.base_url}"]


@pytest.mark.slow
@pytest.mark.parametrize("body", blocks("python test"))
def test_examples_run(pytester: pytest.Pytester, project: list[str], body: str) -> None:
    pytester.makepyfile(body)

    result = pytester.runpytest_inprocess(*project)

    counts = result.parseoutcomes()
    assert counts.get("passed", 0) + counts.get("inconclusive", 0) >= 1
    assert not {"failed", "errors", "error", "skipped"} & set(counts), counts


@pytest.mark.slow
def test_hooks_run(pytester: pytest.Pytester, project: list[str]) -> None:
    (hooks,) = (block.values[0] for block in blocks("python conftest"))  # type: ignore[attr-defined]
    (first, *_) = (block.values[0] for block in blocks("python test"))  # type: ignore[attr-defined]
    pytester.makeconftest(hooks)
    pytester.makepyfile(first)

    result = pytester.runpytest_inprocess("-s", *project)

    result.stdout.fnmatch_lines(["*prompts PASS*"])


@pytest.mark.parametrize("body", blocks("toml llmparity"))
def test_configurations_are_valid(body: str) -> None:
    assert parse_config(body, source="llmparity.toml") is not None


@pytest.mark.parametrize("body", blocks("toml pyproject"))
def test_pyproject_configurations_are_valid(body: str) -> None:
    assert parse_config(body, source="pyproject.toml", table=("tool", "llmparity")) is not None


@pytest.mark.parametrize("body", blocks("toml policy"))
def test_policies_are_valid(body: str) -> None:
    assert parse_policy(body.encode(), source="release.toml").rules


@pytest.mark.parametrize("verb", ["gate", "bisect"])
def test_options_of_the_gate_that_are_shown_exist(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / f"docs/{verb}.md").read_text("utf-8")
    with pytest.raises(SystemExit):
        cli.main([verb, "--help"])

    known = set(re.findall(r"--[a-z]+", capsys.readouterr().out))

    shown = re.findall(rf"llmparity {verb} [^`\n]*", text)
    assert {option for line in shown for option in re.findall(r"--[a-z]+", line)} <= known


@pytest.mark.parametrize("body", blocks("toml lock"))
def test_locks_are_as_they_are_written(body: str, tmp_path: Path) -> None:
    (tmp_path / "llmparity.lock").write_text(body)

    locked, agreed = lockfile.read(tmp_path / "llmparity.lock"), lockfile.agreed(tmp_path / "llmparity.lock")

    assert locked or agreed.margins
    assert lockfile.dumps(locked or {}, agreed) == body


@pytest.mark.parametrize("body", blocks("jsonl golden"))
def test_golden_lines_are_as_they_are_written(body: str) -> None:
    for line in body.splitlines():
        read = msgspec.json.decode(line, type=Line)

        assert json.loads(line) == json.loads(msgspec.json.encode(read)), "nothing that a reader would pass over"


@pytest.mark.parametrize("body", blocks("jsonl recording"))
def test_lines_of_recordings_are_as_they_are_written(body: str) -> None:
    for line in body.splitlines():
        read = msgspec.json.decode(line, type=Exchanged)

        assert json.loads(line) == json.loads(msgspec.json.encode(read)), "nothing that a reader would pass over"


@pytest.mark.parametrize("body", blocks("jsonl prompts"))
def test_prompt_lines_are_valid(body: str) -> None:
    assert parse_prompts(body, source="p.jsonl", name="p").cases


@pytest.mark.parametrize("body", blocks("yaml prompts"))
def test_prompt_documents_are_valid(body: str) -> None:
    assert parse_prompts(body, source="p.yaml", name="p").cases


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for match in LINK.finditer(page.read_text("utf-8")):
        target, _, anchor = match["target"].partition("#")
        if target.startswith("http"):
            continue
        there = (page.parent / target).resolve() if target else page
        assert there.exists(), match["target"]
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, match["target"]


def test_every_option_is_in_the_table_and_no_other(pytester: pytest.Pytester) -> None:
    shown = names_in(between("docs/configuration.md", "options"))

    text = pytester.runpytest_inprocess("--help").stdout.str()

    known = set(re.findall(r"--(?:engines|parity-[a-z-]+)", text.partition("LLM parity:")[2].partition("\n\n")[0]))
    assert {name.split()[0] for name in shown if name.startswith("--")} == known


def test_every_environment_variable_is_explained_and_no_other() -> None:
    text = (ROOT / "docs/configuration.md").read_text("utf-8")
    known = {sources.ENGINES_VARIABLE, *(source.variable for source in sources.SOURCES.values())}

    rows = [line for line in between("docs/configuration.md", "options").splitlines() if line.startswith("| `--")]

    in_table = {name for row in rows for name in re.findall(r"`(LLMPARITY_[A-Z_]+)`", row)}
    assert in_table == known
    assert set(re.findall(r"LLMPARITY_[A-Z_]+", text)) - known == {
        "LLMPARITY_EMBEDDING_MODEL",
        environments.FOLDER_VARIABLE,
    }


def test_the_packages_an_engine_may_require_are_those_its_version_is_read_from() -> None:
    rows = [line.split("|")[1:3] for line in between("docs/engines.md", "requires").splitlines()[3:]]

    listed = {kind.strip(" `"): set(re.findall(r"`([a-z-]+)[^`]*`", packages)) for kind, packages in rows}
    named = {kind: set(adapter.distributions) for kind, adapter in registry.kinds().items() if adapter.distributions}
    assert listed.keys() == named.keys()
    assert {kind: listed[kind] & packages for kind, packages in named.items()} == named


def test_every_option_that_is_named_exists(pytester: pytest.Pytester) -> None:
    known = set(re.findall(r"--parity-[a-z-]+", pytester.runpytest_inprocess("--help").stdout.str()))

    named = {page.stem: set(re.findall(r"--parity-[a-z-]+[a-z]", page.read_text("utf-8"))) for page in PAGES}

    assert known
    assert {page: options - known for page, options in named.items() if not options <= known} == {}


@pytest.mark.parametrize("body", blocks("yaml"))
def test_workflow_steps_are_yaml(body: str) -> None:
    steps = yaml.safe_load(body)

    assert all({"run", "uses"} & step.keys() for step in steps)


@pytest.mark.slow
def test_the_output_in_the_readme_has_the_form_of_the_real_one(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo, played by doubles: one that drifts little, one that drifts much; numbers and models' words differ.

    Two prompts of three are enough for its form.
    """
    monkeypatch.setenv("LLMPARITY_EMBEDDING_MODEL", "none")
    tests = (ROOT / "fixtures/demo/test_demo.py").read_text("utf-8").replace('"../', f'"{ROOT}/fixtures/')
    for name in ("mixed", "extraction"):
        lines = (ROOT / f"fixtures/prompts/{name}.jsonl").read_text("utf-8").splitlines()
        fewer = [line for number, line in enumerate(lines) if number % 3]
        pytester.path.joinpath(f"{name}.jsonl").write_text("\n".join(fewer), "utf-8")
        tests = tests.replace(f"{ROOT}/fixtures/prompts/{name}.jsonl", f"{name}.jsonl")
    pytester.path.joinpath("test_demo.py").write_text(tests, "utf-8")
    with ExitStack() as stack:
        quantisations = (("F16", 0.0), ("Q8_0", 0.003), ("Q4_0", 0.3))
        engines = {
            name.lower(): stack.enter_context(Renders(plays(drift), poses_as="llamacpp", quantization=name))
            for name, drift in quantisations
        }
        chosen = ",".join(f"{name}={engine.base_url}" for name, engine in engines.items())
        for _ in range(3):  # beside other work blocks may differ so much that they settle no latency
            options = ("-p", "no:cacheprovider", f"--engines={chosen}", "--parity-fresh")
            result = pytester.runpytest_inprocess(*options)
            if not any(re.match(r"\s+latency .*inconcl", line) for line in result.outlines):
                break

    lines = [form(line) for line in result.outlines]
    shown = [line for block in blocks("text output") for line in block.values[0].splitlines()]  # type: ignore[attr-defined]
    assert len(shown) > 20
    for line in shown:
        if line.strip() and not line.lstrip().startswith(VARIES):
            # A cell of the grid breaks where its numbers are too long for the column, so its parts are looked for.
            parts = re.split(r"\s{2,}", re.sub(r", count as \d+", "", line.strip()))
            printed = lines if len(parts) == 1 and not line.startswith(" " * 8) else " ".join(lines)
            assert all(form(part) in printed for part in parts), line
    result.stdout.re_match_lines([r"reproduce: pytest test_demo\.py::test_answers_stay_close --engines \S+"])


RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")


@pytest.mark.usefixtures("warm_commands")
@pytest.mark.slow
def test_the_decision_in_the_page_about_gates_is_what_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for folder in ("golden", "fixtures/gate"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "fixtures/models").symlink_to(ROOT / "fixtures/models")
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider -p no:asyncio\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    (shown,) = (block.values[0] for block in blocks("text gate"))  # type: ignore[attr-defined]
    command = re.search(r"`llmparity (gate --config [^`]+)`", (ROOT / "docs/gate.md").read_text("utf-8"))
    assert command is not None

    code = cli.main(shlex.split(command[1]))

    out = capfd.readouterr().out
    assert code == 1
    assert RUN.sub("RUN", out[out.index("HOLD: ") :].rstrip()) == RUN.sub("RUN", shown.rstrip())


def test_the_golden_answers_in_the_page_about_them_are_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = (block.values[0] for block in blocks("text golden"))  # type: ignore[attr-defined]

    cli.main(["golden", "show", "--rootdir", str(ROOT)])

    assert capsys.readouterr().out == shown


class Renders(PosingEngine):
    """A llama.cpp that tells how it renders a chat, as a real one does."""

    def asked(self, path: str, body: Mapping[str, Any]) -> object | None:
        return {"prompt": prompt_of(body)} if path == "/apply-template" else super().asked(path, body)


BY_FILE = (
    *(
        "cause: the weights of q4_0",
        "served as f16 is",
        "paste: serve q4_0 the weights of f16",
        "check.text()",
        "4 experi",
    ),
    *("with the candidate", "baseline: the drift stays", "groups, p 1, 16", "the drift is gone, 36.36", "1.5e-05)"),
)
"""What an engine shows that is started with the other's file, as no double is (``tests/live/test_same_file.py``)."""
VARIES = (
    *(
        "most by tag",
        "shift",
        "forks by grade",
        "near-ties",
        "first fork",
        "f16  '",
        "q4_0 '",
        "reproduce",
        "latency  pass",
    ),
    *BY_FILE,
)
"""Lines that hold a model's own words, where and with what pytest was started, or how busy this machine is."""


def form(line: str) -> str:
    """Return a line without its numbers; doubles drift so far that their shift is no more than a bound."""
    line = line.replace("q8_0", "qA").replace("q4_0", "qB").replace(" nats or more", " nats")
    return re.sub(r"\s+", " ", re.sub(r"\d+(?:\.\d+)?", "N", line)).strip()


def plays(drift: float) -> Callable[[Mapping[str, Any]], str]:
    person = '{"name": "Vera Larsen", "age": 41}'

    def answer(request: Mapping[str, Any]) -> str:
        prompt = prompt_of(request)
        return person if "JSON" in prompt else "".join(babble(prompt, length=32, drift=drift, seed=1))

    return answer


@pytest.mark.parametrize("model", ["ConfigTable", "EngineTable", "Pin", "ProfileTable"])
def test_every_configuration_key_is_in_its_table(model: str) -> None:
    fields = getattr(settings_file, model).model_fields

    shown = names_in(between("docs/configuration.md", f"keys: {model}"))

    assert shown == {field.alias or name for name, field in fields.items()}


def test_the_table_of_engine_keys_says_what_their_declarations_say() -> None:
    table = between("docs/configuration.md", "keys: EngineTable")

    shown = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.MULTILINE))
    assert shown == {name: key.meaning for name, key in settings_file.KEYS.items()}


def test_every_pin_means_the_field_of_the_identity_and_its_example_can_be_written() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| (.+?) \| `(.+?)` \|", between("docs/configuration.md", "keys: Pin"), re.MULTILINE
    )

    assert {name: meaning for name, meaning, _ in rows}.items() <= IDENTITY.items()
    pins = "\n".join(f"{name} = {example}" for name, _, example in rows)
    text = f'[engines.a]\nbase_url = "http://127.0.0.1:1"\n[engines.a.pin]\n{pins}\n'
    assert parse_config(text, source="docs").engines["a"].pin is not None


def test_every_prompt_key_is_in_its_table() -> None:
    fields = entries.PromptEntry.model_fields

    shown = names_in(between("docs/prompts.md", "keys: PromptEntry"))

    assert shown == {field.alias or name for name, field in fields.items()}


CHECKS: dict[str, Check] = {
    "text(margin=0.02)": check.text(margin=0.02),
    "text(margin=0.05)": check.text(margin=0.05),
    "schema(rate=0.9)": check.schema({}, rate=0.9),
    "schema(rate=0.95)": check.schema({}, rate=0.95),
    "schema(rate=0.98)": check.schema({}, rate=0.98),
    "schema(rate=0.99)": check.schema({}, rate=0.99),
    "schema(gap=0.1)": check.schema({}, gap=0.1),
    "schema(gap=0.05)": check.schema({}, gap=0.05),
    "schema(gap=0.02)": check.schema({}, gap=0.02),
    "schema(agree=0.95)": check.schema({}, agree=0.95),
    "answers(rate=0.9)": check.answers(rate=0.9),
    "answers(gap=0.05)": check.answers(gap=0.05),
    "answers(flips=0.05)": check.answers(flips=0.05),
    "similarity(at_least=0.8)": check.similarity(at_least=0.8),
}


def test_the_least_numbers_of_prompts_are_those_the_checks_ask_for() -> None:
    rows = re.findall(r"^\| `(.+?)` \| (\d+) prompts \|$", between("docs/writing-tests.md", "sizes"), re.MULTILINE)

    assert {name for name, _ in rows} == set(CHECKS)
    for name, least in rows:
        enough, short = int(least), int(least) - 1
        assert CHECKS[name].problem(cases=enough, groups=enough, engines=2) is None, name
        assert CHECKS[name].problem(cases=short, groups=short, engines=2), name


def test_the_least_numbers_of_requests_are_those_the_checks_ask_for() -> None:
    rows = re.findall(
        r"^\| `latency\((\w+)=(.+?)\)` \| (\d+) requests \|$", between("docs/writing-tests.md", "sizes"), re.MULTILINE
    )

    assert len(rows) == 5
    for name, budget, least in rows:
        enough = check.latency(**{name: budget}, n=int(least))
        short = check.latency(**{name: budget}, n=int(least) - 1)
        assert enough.problem(cases=64, groups=64, engines=2) is None, name
        assert short.problem(cases=64, groups=64, engines=2), name


def test_every_error_a_user_may_meet_is_explained() -> None:
    shown = names_in((ROOT / "docs/troubleshooting.md").read_text("utf-8"))
    abstract = {"LLMParityError", "UsageError", "EngineError", "AnswerError"}

    made = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    known = made - abstract

    assert shown == known
