"""Runs every finding on real engines and writes docs/findings.md.

    python docs/findings.py             # all of them
    python docs/findings.py kv-cache    # some; what the others printed stays as it is on the page
    python docs/findings.py page        # none: the page anew, with what was printed and what is said of it now

llama.cpp is the package ``xllamacpp``. Ollama is the program of ``LLMPARITY_OLLAMA``, else of ``PATH``; the others run
by the interpreters that ``LLMPARITY_VLLM_PYTHON``, ``LLMPARITY_TRANSFORMERS_PYTHON`` and ``LLMPARITY_MLX_PYTHON`` name,
as the live tests have them. What a finding's table says is held by ``tests/live/test_findings.py`` for those that do
not need vLLM.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import urllib.request
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/findings.md"
SUITE = "fixtures/findings"
PYTHONS = {
    "mlx": "LLMPARITY_MLX_PYTHON",
    "transformers": "LLMPARITY_TRANSFORMERS_PYTHON",
    "vllm": "LLMPARITY_VLLM_PYTHON",
}
LIMIT_S = 1500
"""Longest time one finding may take, engines started and experiments made."""
GATES, APPLICATIONS = "test_gates.py", "test_applications.py"
WIDTH = 160
"""Characters of a line of prose."""
ALL = "all"
"""The engine of a test that takes all of a run together."""
HEAD = ["check", "engine", "verdict", "cause"]

BEFORE = """# Findings

Differences between current engines that this tool found, each with the command that shows it. Engines are asked on a CPU with the tiny model of this
repository, the same weights everywhere, so what differs is the engine. **What the tool printed is shown as it was printed** and made by
`python docs/findings.py`, which names engine versions and the day under each; those on llama.cpp alone are run again in every CI run, those without vLLM where
its engines are there (`tests/live/test_findings.py`). It fails when a verdict or a cause is no longer the one in the table.

Commands are those of the folder `fixtures/findings`: its `llmparity.toml` has the engines, `test_gates.py` the gates and `test_applications.py` what an application
asks through OpenAI's client. llama.cpp comes with the extra `llamacpp`, Ollama has to be in `PATH`, and `engines/vllm`, `engines/transformers` and `engines/mlx` are
virtual environments that have these (`.ci/environments.sh` says which packages).

*Cause* is what [experiments](diagnosis.md) showed by taking it away; *by exclusion* is what remains when nothing that could be taken away took the drift away.
*Not shown*: no experiment is about it, and what is said below the table was read from the engine's answers, source or documentation.

"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One difference: the engines (baseline first) that show it in one test, what to know and what to configure.

    ``models`` are made on a daemon of Ollama from ``Modelfile.NAME``. ``at_once`` says that the test takes all engines of
    a run at once, so that other engines in it would be judged too. Nothing measured stands in ``told``.
    """

    name: str
    title: str
    engines: tuple[str, ...]
    test: str
    module: str = GATES
    models: tuple[str, ...] = ()
    at_once: bool = False
    told: str
    configure: str

    @property
    def beside(self) -> frozenset[str]:
        """The kinds of engine that it takes beside llama.cpp."""
        kinds = {engine.split("-")[0] for engine in self.engines}
        return frozenset({"ollama", *PYTHONS} & (kinds | ({"ollama"} if self.models else set())))

    @property
    def shared(self) -> tuple[str, ...]:
        """What findings have in common that one run shows: the test of a gate, the engines that answer an application.

        Models of the same weights are not compared in one run: one process of Ollama would answer for all of them.
        """
        if self.name in JOINED:
            return JOINED[self.name]
        if self.module == GATES:
            return (self.test, *self.models)
        return self.engines if self.at_once else FOUR

    @property
    def quick(self) -> bool:
        """Whether it is shown within a minute or two: vLLM takes longer to start."""
        return "vllm" not in self.beside


@dataclass(frozen=True)
class Row:
    """What the table says of one verdict."""

    check: str
    engine: str
    verdict: str
    cause: str

    def cells(self) -> list[str]:
        """Return the row's cells, as they stand in the table."""
        return [self.check, self.engine, self.verdict, self.cause.replace("|", "\\|")]


@dataclass(frozen=True)
class Ran:
    """A finding that was run: its rows, the lines to show, and the versions of its engines with the day."""

    rows: list[Row]
    shown: str
    made: str


FOUR = ("llamacpp", "ollama", "mlx", "transformers")
"""The engines that applications are tried on."""
JOINED: Mapping[str, tuple[str, ...]] = {
    "property-order": ("llamacpp", "ollama"),
    "context": ("test_capitals", "stern"),
    "stop": FOUR,
    "space": ("llamacpp", "mlx"),
    "tools": ("llamacpp", "mlx"),
}
"""The run of a gate that has its engines up anyway, by its finding: a start of transformers takes as long as all that
MLX and Ollama are asked besides.
"""

FINDINGS: tuple[Finding, ...] = (
    Finding(
        name="property-order",
        title="Ollama forces a schema's properties in alphabetical order",
        engines=("llamacpp", "ollama"),
        test="test_tickets",
        told="Both force the same schema with the same weights, and both answer valid JSON. On the path that most models imported from a GGUF take (their own "
        "Jinja template) Ollama sorts the schema's keys before llama.cpp makes a grammar of it, so the model has to name the department before it "
        "wrote down the order, and gets both wrong.",
        configure="Declare properties in alphabetical order, for every engine; or give the Modelfile a Go `TEMPLATE`, with which the declared order holds.",
    ),
    Finding(
        name="conversation",
        title="A conversation that does not fit: Ollama drops its oldest turns, llama.cpp refuses it",
        engines=("llamacpp", "ollama-512", "llamacpp-512"),
        test="test_conversations",
        told="The same conversation, the same context. Ollama's `/v1` answers 200 without the turn in which the user said a name; llama.cpp answers 400. vLLM refuses too, "
        "MLX and transformers answer beyond what the model was trained for.",
        configure="`OLLAMA_CONTEXT_LENGTH` (or `num_ctx` in the Modelfile) for your longest conversation, `context_length` and a pin on it for the engine, and "
        "`check.prompts()` in every gate. On the native route `truncate: false, shift: false` makes Ollama refuse.",
    ),
    Finding(
        name="system-prompt",
        title="A system prompt in the Modelfile answers for every application",
        engines=("llamacpp", "house"),
        models=("house",),
        test="test_capitals",
        told="`ollama create house -f Modelfile.house` with a line `SYSTEM You are a pirate …`: applications do not see it, the model does.",
        configure="Leave `SYSTEM` out of Modelfiles that are compared or deployed, and send the system prompt with the request.",
    ),
    Finding(
        name="penalty",
        title="A repetition penalty in the Modelfile cannot be turned off over `/v1`",
        engines=("llamacpp", "stern"),
        models=("stern",),
        test="test_capitals",
        told="`PARAMETER repeat_penalty 1.3`, as many a Modelfile has it, also acts on greedy requests. OpenAI's API has no field for it, so the gate's neutral "
        "sampling cannot be had on this route, and nothing is judged.",
        configure='`route = "native"` for a gate, which sends every parameter; for applications a model without that line.',
    ),
    Finding(
        name="kv-cache",
        title="A KV cache in 4 bits, which text does not see",
        engines=("llamacpp", "kv4"),
        test="test_recall",
        told="Nothing a server reports tells the type of its cache. Text passes; what the model thinks of the next token has moved far.",
        configure="`--cache-type-k` and `--cache-type-v` (Ollama: `OLLAMA_KV_CACHE_TYPE`, vLLM: `--kv-cache-dtype`) alike on both sides, and `check.logprobs(shift=)` beside "
        "`check.text()`: long prompts and hard questions are where it will show.",
    ),
    Finding(
        name="rope",
        title="RoPE scaled by 3 %, which text does not see",
        engines=("llamacpp", "rope"),
        test="test_recall",
        told="Positions a little off, as another converter, a `--rope-freq-scale` left in a start script or a wrong `rope_scaling` make them. It grows with the "
        "length of the prompt.",
        configure="No `--rope-…` of your own beside a file that has the right values; `check.logprobs(shift=)` with prompts as long as yours.",
    ),
    Finding(
        name="context",
        title="llama.cpp rounds a context up to a multiple of 256",
        engines=("llamacpp", "llamacpp-1000"),
        test="test_capitals",
        told="What was asked for and pinned is not what a request gets. What fits one engine does not fit the other, and nobody reads that in a start log.",
        configure="Multiples of 256 as `context_length` of every engine, and a pin on it.",
    ),
    Finding(
        name="bf16",
        title="vLLM in BF16 parts from F16, and is the same model",
        engines=("llamacpp", "vllm", "vllm-f32"),
        test="test_same_weights",
        told="The weights are exactly the same (they were trained in BF16, and F16 holds them). vLLM calculates in BF16 by default, which rounds logits to steps as large as the "
        "lead of many a best token; with `--dtype float32` the same server gives the text of llama.cpp. The shift tells it from a "
        "smaller copy of the weights ([what copies have](verdicts.md#the-shift)).",
        configure="Judge with `check.logprobs(shift=)` and a margin from `llmparity calibrate`, or give `check.text()` a larger margin; `--dtype float32` (or SGLang's "
        "`--enable-fp32-lm-head`) where answers have to be equal.",
    ),
    Finding(
        name="multiple-of",
        title="`multipleOf` is enforced by vLLM, and ignored without a word by llama.cpp and Ollama",
        engines=("llamacpp", "ollama", "vllm"),
        test="test_hundreds",
        told="llama.cpp makes a grammar of what it knows of a schema and skips the rest: `multipleOf`, `uniqueItems`, `patternProperties`, bounds of numbers that are no integers. "
        "vLLM hands such a schema to another backend, which knows it.",
        configure="Keep schemas to what all engines enforce (`enum`, `minimum` and `maximum` of integers, `pattern` with `^…$`), and validate on the client: "
        "`check.schema(rate=)` does in a gate.",
    ),
    Finding(
        name="stop",
        title="transformers leaves the stop string in the answer",
        engines=("llamacpp", "transformers"),
        test="test_stopped",
        told="OpenAI's API promises answers without it; vLLM, Ollama, MLX and llama.cpp keep that promise.",
        configure="`answer.removesuffix(stop)` in the application, where transformers may be behind it.",
    ),
    Finding(
        name="space",
        title="MLX drops a space at the beginning of an answer",
        engines=("llamacpp", "mlx"),
        test="test_begun",
        told="Raw prompts that end within a sentence, as code completion and prefilled answers do: the pieces no longer fit together.",
        configure="Compare such answers stripped, and put a prompt's last space where the engine cannot lose it: into the prompt.",
    ),
    Finding(
        name="tools",
        title="MLX leaves tool calls in the text where it does not know the template",
        engines=("llamacpp", "mlx"),
        test="test_tools",
        told="The model writes the same call on both. llama.cpp reads `<tool_call>` by its own rules; `mlx_lm.server` decides by the template whether a model calls tools, does not "
        "see it here, and the application gets text.",
        configure="A model whose template mlx-lm knows, or parse the text; `check.text()` compares calls as calls and tells.",
    ),
    Finding(
        name="max-completion-tokens",
        title="`max_completion_tokens` is dropped by Ollama and transformers",
        engines=("llamacpp", "ollama", "transformers"),
        module=APPLICATIONS,
        test="test_no_more_tokens_than_asked_for",
        told="OpenAI's own documentation calls `max_tokens` deprecated. With the new name these two answer until they are done.",
        configure="Send `max_tokens`.",
    ),
    Finding(
        name="choices",
        title="`n = 2` gives one answer on Ollama, MLX and transformers",
        engines=FOUR,
        module=APPLICATIONS,
        test="test_two_choices",
        told="No error, no word: the field is dropped.",
        configure="Send as many requests as you want answers.",
    ),
    Finding(
        name="cut-call",
        title="A tool call that the token limit cuts is a 500 on Ollama",
        engines=("llamacpp", "ollama"),
        module=APPLICATIONS,
        test="test_a_call_that_the_limit_cuts",
        told="Others answer `finish_reason: length`. A client takes a 500 for a dead server and asks again, with the same end; gates of this plugin read it as the cut answer it is.",
        configure="`max_tokens` with room for the longest call, and no retry on a 500 whose text is *invalid tool call arguments*.",
    ),
    Finding(
        name="raw",
        title="`/v1/completions` is not raw on Ollama",
        engines=("llamacpp", "ollama"),
        module=APPLICATIONS,
        test="test_a_raw_prompt_has_the_same_tokens",
        at_once=True,
        told="It puts the chat template around the prompt, so a completion becomes an answer. Gates of this plugin send raw prompts to `/api/generate` instead.",
        configure="`/api/generate` with `raw: true`.",
    ),
    Finding(
        name="sampling",
        title="An application that says nothing about sampling is greedy on MLX and samples elsewhere",
        engines=("llamacpp", "ollama", "mlx"),
        module=APPLICATIONS,
        test="test_the_same_answer_again",
        told="The same request four times. llama.cpp and Ollama sample, each by defaults of its own, MLX takes the best token. `llmparity doctor` shows what each engine "
        "does to those who say nothing.",
        configure="Send every parameter you depend on, `temperature` first. Gates of this plugin do.",
    ),
    Finding(
        name="response-format",
        title="MLX and transformers ignore `response_format`",
        engines=("llamacpp", "mlx", "transformers"),
        module=APPLICATIONS,
        test="test_json_as_the_schema_says",
        told="A 200 and a story instead of JSON. In a gate `check.schema()` is SKIPPED on them with the reason (with `--parity-required` an ERROR), as their kinds declare it.",
        configure="Another engine where JSON has to be forced, or a prompt that asks for it and a client that validates.",
    ),
    Finding(
        name="parts",
        title="A question in two parts has other token counts on each engine",
        engines=FOUR,
        module=APPLICATIONS,
        test="test_a_question_in_two_parts_has_the_same_tokens",
        at_once=True,
        told="A message's content as a list of two texts. Ollama makes a message of each, with the template's tokens between them; by the counts MLX joins them, and llama.cpp and "
        "transformers put one token between them. So models read three different questions, and what is billed by tokens differs.",
        configure="Send text as one string; keep lists for pictures. `check.prompts()` holds the counts of a gate's prompts against each other.",
    ),
    Finding(
        name="begun",
        title="An answer that was begun is gone on with by llama.cpp and Ollama, and answered anew by MLX and transformers",
        engines=FOUR,
        module=APPLICATIONS,
        test="test_a_begun_answer_has_the_same_tokens",
        at_once=True,
        told="A conversation that ends with the assistant's own words. The first two leave the turn open, and what comes back begins with those words; the other two close it and "
        "open another one, which the token counts show.",
        configure="Do not rely on it: force the form of an answer by a schema, or send the rendered prompt to `/v1/completions` (not on Ollama, [see above](#v1completions-is-not-raw-on-ollama)).",
    ),
    Finding(
        name="logprob-names",
        title="The tokens beside MLX's logprobs are not those of the answer",
        engines=("llamacpp", "ollama", "mlx"),
        module=APPLICATIONS,
        test="test_logprobs_belong_to_the_tokens_of_the_answer",
        told="What stands in `logprobs.content[…].token` does not spell the answer, so confidence is read off the wrong token. Gates of this plugin put each logprob back to its token, and a probe "
        "refuses engines where that cannot be done.",
        configure="Do not read `logprobs` of MLX by their tokens; another engine where they decide something.",
    ),
)


# ---- running ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def project() -> Iterator[Path]:
    """Copy the suite into a folder of its own, with the engines of this machine beside it."""
    with tempfile.TemporaryDirectory(prefix="findings-") as folder:
        root = Path(folder)
        shutil.copytree(
            ROOT / SUITE, root / "findings", ignore=shutil.ignore_patterns(".llmparity", "__pycache__", "engines")
        )
        for name in ("models", "prompts", "schemas"):
            (root / name).symlink_to(ROOT / "fixtures" / name)
        (root / "findings/engines").mkdir()
        for name, variable in PYTHONS.items():
            if python := os.environ.get(variable):
                (root / "findings/engines" / name).symlink_to(Path(python).parents[1])
        yield root / "findings"


def environment() -> dict[str, str]:
    """Return the environment of a user: nothing that tests are told, an Ollama in ``PATH``."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LLMPARITY_", "OLLAMA_"))}
    env.pop("CI", None)
    if ollama := os.environ.get("LLMPARITY_OLLAMA"):
        env["PATH"] = f"{Path(ollama).parent}{os.pathsep}{env['PATH']}"
    return env


@contextlib.contextmanager
def daemon(models: Sequence[str], folder: Path, env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Make models on a daemon of Ollama from ``Modelfile.NAME``; yield the environment that finds it."""
    if not models:
        yield dict(env)
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    env = {
        **env,
        **{"OLLAMA_HOST": host, "OLLAMA_MODELS": str(folder / "store"), "OLLAMA_NO_CLOUD": "1"},
        **{"OLLAMA_CONTEXT_LENGTH": "1024", "LLAMA_ARG_THREADS": "1", "HOME": str(folder)},
    }
    with subprocess.Popen(
        ["ollama", "serve"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as serving:
        try:
            for _ in range(100):
                with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{host}/api/version", timeout=5):
                    break
                with contextlib.suppress(subprocess.TimeoutExpired):
                    serving.wait(0.1)
            for name in models:
                subprocess.run(
                    ["ollama", "create", name, "-f", f"Modelfile.{name}"],
                    cwd=folder,
                    env=env,
                    check=True,
                    capture_output=True,
                )
            yield env
        finally:
            serving.terminate()


@dataclass(frozen=True)
class Told:
    """What a run of pytest wrote: its standard output, ``run.json``, and the cases of ``junit.xml``."""

    output: str
    report: Mapping[str, Any]
    cases: list[ElementTree.Element]


def run(finding: Finding) -> Ran:
    """Run a finding's command as a user would, and return what came of it."""
    told = told_by([finding])
    rows = rows_of_run(finding, told)
    shown = gate_lines(told.output) if finding.module == GATES else test_lines(told.output)
    versions = dict.fromkeys(
        f"{each['kind']} {each['version'] or seen(each['kind'])}" for each in told.report["engines"]
    )
    today = datetime.datetime.now(datetime.UTC)
    return Ran(rows, shown, f"{', '.join(versions)}; {today.day} {today:%B %Y}")


def rows_together(findings: Sequence[Finding]) -> dict[str, list[Row]]:
    """Run findings that share a run, every engine of theirs started once; return the rows of each by its name.

    What a test says of an engine does not depend on the others that are held against the same baseline.
    """
    told = told_by(findings)
    return {finding.name: rows_of_run(finding, told) for finding in findings}


def told_by(findings: Sequence[Finding]) -> Told:
    """Run the command that shows these findings of one module, and return what it told."""
    models = {model for finding in findings for model in finding.models}
    with project() as folder, daemon(sorted(models), folder, environment()) as env:
        env["COLUMNS"] = "120" if findings[0].module == GATES else "240"
        reports = ("--parity-report=json", "--junitxml=junit.xml", "-p", "no:cacheprovider")
        done = subprocess.run(
            [sys.executable, "-m", *command(findings), *reports],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        report = folder / ".llmparity/report/run.json"
        if done.returncode not in (0, 1) or not report.exists():
            names = ", ".join(finding.name for finding in findings)
            raise SystemExit(f"{names}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
        cases = list(ElementTree.parse(folder / "junit.xml").iter("testcase"))  # noqa: S314  # pytest wrote it just now
        return Told(done.stdout, json.loads(report.read_text("utf-8")), cases)


def command(findings: Sequence[Finding]) -> list[str]:
    """Return the command that runs the tests of findings on all of their engines, the baseline first."""
    tests = dict.fromkeys(f"{finding.module}::{finding.test}" for finding in findings)
    engines = dict.fromkeys(
        f"{name}=ollama:{name}" if name in finding.models else name for finding in findings for name in finding.engines
    )
    return ["pytest", *tests, "--engines", ",".join(engines)]


def seen(kind: str) -> str:
    """Return the version of an engine that another finding saw: where no gate asks, none is read."""
    for ran in on_the_page().values():
        if match := re.search(rf"\b{kind} (\d[^,;]*)[,;]", ran.made):
            return match[1]
    return "of unknown version"


def rows_of_run(finding: Finding, told: Told) -> list[Row]:
    """Return what a run says of a finding's test on its engines."""
    rows = gate_rows(finding, told.report) if finding.module == GATES else test_rows(finding, told.cases)
    if not rows:
        raise SystemExit(f"{finding.name}: nothing was judged\n{told.output}")
    return rows


def gate_rows(finding: Finding, report: Mapping[str, Any]) -> list[Row]:
    """Return one row per verdict of ``run.json``; that an engine repeats itself is left out."""
    return [
        Row(f"`{verdict['kind']}`", verdict["engine"], verdict["outcome"], cause(verdict))
        for verdict in report["verdicts"]
        if verdict["test"].endswith(f"::{finding.test}")
        and verdict["engine"] in finding.engines
        and verdict["kind"] != "text.repeat"
    ]


def cause(verdict: Mapping[str, Any]) -> str:
    """Return what an experiment showed to be the cause, or that none did."""
    shown = (verdict["explanation"] or {}).get("causes", ())
    if shown:
        return "; ".join(
            f"by exclusion: {each['text'].removeprefix('by exclusion ')}" if each["by_exclusion"] else each["text"]
            for each in shown
        )
    return verdict["cause"] or ("not shown" if verdict["outcome"] == "FAIL" else "")


def test_rows(finding: Finding, cases: Sequence[ElementTree.Element]) -> list[Row]:
    """Return one row per engine that a test ran on, as the finding names them, or one for all at once."""
    rows = []
    for case in cases:
        name, _, engine = case.attrib["name"].partition("[")
        engine = engine.rstrip("]") or ALL
        if name == finding.test and engine in (*finding.engines, ALL):
            outcome = "failed" if {"failure", "error"} & {child.tag for child in case} else "passed"
            rows.append(Row(f"`{name}`", engine, outcome, "not shown" if outcome == "failed" else ""))
    order = (*finding.engines, ALL)
    return sorted(rows, key=lambda row: order.index(row.engine))


def gate_lines(output: str) -> str:
    """Return how the failed gate reads, or the grid where none failed."""
    failed = re.search(
        r"^_+ test_\w+ _+\n(.*?)^(?:reproduce: .*\n)?=+ LLM parity =+$", output, re.MULTILINE | re.DOTALL
    )
    if failed:
        return re.sub(r"^reproduce: .*\n", "", failed[1], flags=re.MULTILINE).rstrip()
    grid = re.search(r"^(check  .*?)^(?:run \d|=)", output, re.MULTILINE | re.DOTALL)
    return grid[1].rstrip() if grid else ""


def test_lines(output: str) -> str:
    """Return what pytest's short summary says of the tests."""
    return "\n".join(line for line in output.splitlines() if line.startswith("FAILED "))


# ---- the page --------------------------------------------------------------------------------------------------------


def section(finding: Finding, ran: Ran) -> str:
    """Return a finding's part of the page."""
    made = [f"ollama create {name} -f Modelfile.{name}" for name in finding.models]
    commands = "\n".join(f"$ {line}" for line in [*made, " ".join(command([finding]))])
    table = [HEAD, ["---"] * len(HEAD), *(row.cells() for row in ran.rows)]
    lines = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return (
        f"<!-- finding: {finding.name} -->\n## {finding.title}\n\n```console\n{commands}\n```\n\n{lines}\n\n"
        f"{wrapped(finding.told)}\n\n```text\n{ran.shown}\n```\n\n{wrapped(f'**Configure:** {finding.configure}')}\n\n"
        f"*{ran.made}*\n<!-- /finding -->\n"
    )


def wrapped(sentences: str) -> str:
    """Return sentences in lines as long as those of the other pages."""
    return textwrap.fill(sentences, WIDTH, break_long_words=False, break_on_hyphens=False)


def on_the_page() -> dict[str, Ran]:
    """Return what came of the findings as the page has it, by name."""
    text = PAGE.read_text("utf-8") if PAGE.exists() else ""
    marked = re.finditer(r"^<!-- finding: ([\w-]+) -->\n(.*?)^<!-- /finding -->\n", text, re.MULTILINE | re.DOTALL)
    return {match[1]: ran_of(match[2]) for match in marked}


def ran_of(text: str) -> Ran:
    """Return what came of a finding, read from its section."""
    shown = re.search(r"^```text\n(.*?)\n```$", text, re.MULTILINE | re.DOTALL)
    *_, made = re.findall(r"^\*([^*\n]+)\*$", text, re.MULTILINE)
    return Ran(rows_of(text), shown[1] if shown else "", made)


def rows_of(text: str) -> list[Row]:
    """Return the rows of a section's table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [Row(*each) for each in cells]


def page(ran: Mapping[str, Ran]) -> str:
    """Return the whole page: what to know, the list, the sections in the order of ``FINDINGS``."""
    there = [finding for finding in FINDINGS if finding.name in ran]
    listed = "".join(f"{number}. [{each.title}](#{anchor(each.title)})\n" for number, each in enumerate(there, 1))
    return BEFORE + listed + "\n" + "\n".join(section(each, ran[each.name]) for each in there)


def anchor(title: str) -> str:
    """Return the anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def main(names: Sequence[str]) -> None:
    """Run findings and write the page after each, so that what was made stays when a later one breaks."""
    known = [finding.name for finding in FINDINGS]
    if unknown := set(names) - {*known, "page"}:
        raise SystemExit(f"no finding is called {', '.join(sorted(unknown))}: {', '.join(known)}")
    PAGE.write_text(page(on_the_page()), "utf-8")
    for finding in FINDINGS:
        if names and finding.name not in names:
            continue
        ran = run(finding)
        PAGE.write_text(page({**on_the_page(), finding.name: ran}), "utf-8")
        for row in ran.rows:
            print(finding.name, *row.cells(), sep="  ", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
