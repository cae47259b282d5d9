"""``llmparity init``: a first configuration from what is found here, with prompts and a test to try it on."""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shlex
import shutil
import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_llmparity import extras
from pytest_llmparity.cli.verbs import add_rootdir, complain, root_of
from pytest_llmparity.core.words.exits import OK, REFUSED
from pytest_llmparity.core.words.printable import printable, printable_lines
from pytest_llmparity.settings.sources import FILE

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from pytest_llmparity.cli.verbs import Commands
    from pytest_llmparity.engines.daemons import Running
    from pytest_llmparity.settings.selection import Server

PATIENCE_S = 10.0
"""How long servers have to say what they are: who asks for this wants them found, on a busy machine too."""
PROMPTS = "prompts/sample.jsonl"
TEST = "test_parity.py"
MOST_OF_A_KIND = 4
"""Models of one server, or files, that become engines; a person adds others."""
RUN_AT_ONCE = 2
"""Engines in the gate that is shown, which share the cores; more of them wait for each other."""

TEST_TEXT = f'''"""One gate: the same prompts on every engine, and how far the answers may differ."""

import pytest
from pytest_llmparity import check


@pytest.mark.parity(
    "{PROMPTS}",
    check.prompts(),  # the engines saw the same prompts, uncut
    check.text(margin=0.12),  # greedy answers part at fewer than 12 % of tokens
    max_tokens=32,
)
def test_answers_stay_close(parity_run):
    """Put prompts of your own into {PROMPTS}: a verdict speaks for prompts like those.

    12 % is a start. Measure what honest copies of your model do on your prompts: llmparity calibrate --help
    """
'''

NOTHING = f"""\
# No engine was found when this was written. Name yours, without the "# ", and run: llmparity doctor
#
# baseline = "prod"                      # the others are compared with this one
#
# [engines.prod]
# kind = "openai"                         # or vllm, sglang, ollama, llamacpp, mlx, ...
# base_url = "http://127.0.0.1:8000"      # with a URL: a server that runs already
#
# [engines.dev]
# kind = "llamacpp"                       # needs: {extras.plain_command("llamacpp")}, or llama-server in PATH
# model = "models/model-q4_k_m.gguf"      # without a URL: started by us, and stopped
"""


class ConfiguredEngine(NamedTuple):
    """One engine of the configuration to write: its name, the keys of its table, and its threads where it shares."""

    name: str
    keys: dict[str, str]
    threads: int | None = None

    @property
    def started(self) -> bool:
        """Whether it is started by us."""
        return "base_url" not in self.keys


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = f"Write a first {FILE} from the engines and models found on this machine, sample prompts and a test."
    parser = commands.add_parser(
        "init", help=does, description=f"{does} It overwrites nothing but its own untouched example."
    )
    add_rootdir(parser)
    parser.set_defaults(command=_init, name="init")


def _init(asked: argparse.Namespace) -> int:
    root = root_of(asked)
    from pytest_llmparity.engines import daemons
    from pytest_llmparity.settings.root import marked_root

    if not asked.rootdir and root != Path.cwd():
        why = f"the folder of {marked_root(Path.cwd()).mark}: pytest's root from here (--rootdir names another)"
        print(printable(f"writing to {root}, {why}"))
    servers = daemons.listening(os.environ, total_s=PATIENCE_S)
    engines, left_out = _engines(root, servers)
    if left_out:
        files = ", ".join(path.name for path in left_out[:6]) + (" …" if len(left_out) > 6 else "")
        print(printable(f"left out, {MOST_OF_A_KIND} files are enough to begin with: {files}"))
    configured = _place(
        root / FILE,
        _configuration(_sharing(engines)),
        contents=", ".join(engine.name for engine in engines) or "no engine, an example",
    )
    sample = resources.files("pytest_llmparity").joinpath(PROMPTS).read_text("utf-8")
    _place(root / PROMPTS, sample, contents=f"{len(sample.splitlines())} prompts of several kinds")
    test = _test_of(root)
    _place(test, TEST_TEXT, contents="a test that compares the answers")
    print()
    if configured:
        print(*map(printable, _next_steps(engines, servers, root, test, asked.rootdir)), sep="\n")
        return OK
    return _beside(engines, root, test, asked.rootdir)


def _test_of(root: Path) -> Path:
    """Return where the test is, or goes: below what ``testpaths`` names, so that pytest runs it without arguments."""
    from pytest_llmparity.settings.root import folders_of_tests

    within = [folder for folder in folders_of_tests(root) if folder.is_relative_to(root)]
    places = [folder / TEST for folder in (*within, root)]
    return next((place for place in places if place.exists()), places[0])


def _pytest_of(test: Path, root: Path, rootdir: str | None) -> list[str]:
    """Return the command that runs pytest from here, with the test where it would not find that by itself."""
    from pytest_llmparity.settings.root import collects

    here = Path.cwd()
    collected = test.is_relative_to(here) if rootdir or root != here else collects(root, test)
    return ["pytest", *(["--rootdir", rootdir] if rootdir else []), *([] if collected else [os.path.relpath(test)])]


def _beside(engines: Sequence[ConfiguredEngine], root: Path, test: Path, rootdir: str | None) -> int:
    """Say what to do with a configuration that is there already, and what of this machine it does not have.

    Returns the exit code: something is left for a person to write, or nothing is.
    """
    from pytest_llmparity.settings.root import as_typed

    in_pyproject = _configured_in_pyproject(root) is not None
    path = root / ("pyproject.toml" if in_pyproject else FILE)
    place = as_typed(path, Path.cwd())
    configured = _configured(path)
    doctor = shlex.join(["llmparity", "doctor", *(["--rootdir", rootdir] if rootdir else [])])
    gate = shlex.join([*_pytest_of(test, root, rootdir), "--engines"])
    print(printable(f"Next: {_next(list(configured)[:2], place, doctor, gate)}"))
    missing = _renamed([engine for engine in engines if not _has(configured, engine, root)], configured)
    if not missing:
        if engines:
            print(printable(f"Every engine that was found here is configured in {place}."))
        return OK
    print(f"To use what was found here, take what you need of this into {place}:\n")
    text = _tables(_sharing(missing, beside=sum(map(_is_here, configured.values()))))
    print(printable_lines(_within_pyproject(text) if in_pyproject else text))
    names = ", ".join(engine.name for engine in missing)
    return complain(printable(f"{place} is yours and stays as it is: add what you need of {names} to it"), REFUSED)


def _place(path: Path, text: str, *, contents: str) -> bool:
    """Write a file that is not there, say what became of it, and tell whether it is now as wanted."""
    from pytest_llmparity.core.errors import LLMParityError
    from pytest_llmparity.settings.root import as_typed

    shown = as_typed(path, Path.cwd())
    if path.name == FILE and (place := _configured_in_pyproject(path.parent)):
        print(
            printable(f"kept {as_typed(place, Path.cwd())}: it has [tool.llmparity], and one configuration is enough")
        )
        return False
    try:
        before = path.read_text("utf-8") if path.exists() else None
        if before == text:
            print(printable(f"kept {shown}: it is as it would be written"))
            return True
        if before is not None and before != NOTHING:
            print(printable(f"kept {shown}: it is there already; move it away to have a new one written"))
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x" if before is None else "w", encoding="utf-8") as file:
            file.write(text)
    except (OSError, UnicodeDecodeError) as error:
        raise LLMParityError(
            f"{shown} cannot be written: {error}; make the folder writable or use --rootdir"
        ) from error
    print(printable(f"wrote {shown}: {contents}"))
    return True


def _configured_in_pyproject(root: Path) -> Path | None:
    path = root / "pyproject.toml"
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return path if "llmparity" in table.get("tool", {}) else None


def _next(names: Sequence[str], place: str, doctor: str, gate: str) -> str:
    """Return what to do with a configuration that was there already, by the engines it has."""
    if len(names) == 2:
        return f"{doctor} {' '.join(names)}; then {gate} {','.join(names)}"
    if names:
        return f"{doctor} {names[0]}; then, with a second engine in {place}, {gate} {names[0]},OTHER"
    return f"name two engines in {place}; then {doctor} NAME OTHER, and {gate} NAME,OTHER"


def _configured(path: Path) -> dict[str, dict[str, object]]:
    """Return the tables of engines that a configuration has, the baseline first; none where it cannot be read."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    table = table if path.name == FILE else table.get("tool", {}).get("llmparity", {})
    engines = table.get("engines", {})
    names = sorted(engines, key=lambda name: name != table.get("baseline")) if isinstance(engines, dict) else []
    return {name: engines[name] if isinstance(engines[name], dict) else {} for name in names}


def _has(configured: Mapping[str, Mapping[str, object]], engine: ConfiguredEngine, root: Path) -> bool:
    """Tell whether a configuration has an engine under any name: the server with that model, or the file."""
    return any(_same(keys, engine.keys, root) for keys in configured.values())


def _same(keys: Mapping[str, object], wanted: Mapping[str, str], root: Path) -> bool:
    model, url = keys.get("model"), keys.get("base_url")
    if "base_url" not in wanted:
        return isinstance(model, str) and url is None and (root / model).resolve() == (root / wanted["model"]).resolve()
    if isinstance(url, str):  # a server that has one model may be named without it
        return _server(url) == _server(wanted["base_url"]) and model in (None, wanted["model"])
    return keys.get("kind") == wanted["kind"] and model == wanted["model"]  # the daemon that runs


def _server(url: str) -> Server | str:
    """Return whom an address of a configuration reaches, or the text of one that is none."""
    from pytest_llmparity.settings.selection import server_of

    try:
        return server_of(url)
    except ValueError:
        return url


def _is_here(keys: Mapping[str, object]) -> bool:
    """Tell whether an engine computes on this machine: started by us, a daemon's, or behind an address of loopback."""
    url = keys.get("base_url")
    return not isinstance(url, str) or getattr(_server(url), "host", "") == "localhost"


def _renamed(engines: Sequence[ConfiguredEngine], taken: Collection[str]) -> Sequence[ConfiguredEngine]:
    """Return engines under names that are still free."""
    renamed: dict[str, ConfiguredEngine] = {}
    for engine in engines:
        name = _free(engine.name, {*taken, *renamed})
        renamed[name] = engine._replace(name=name)
    return tuple(renamed.values())


def _free(wanted: str, taken: Collection[str]) -> str:
    return next(name for number in range(1, 100) if (name := wanted + f"-{number}" * (number > 1)) not in taken)


def _within_pyproject(text: str) -> str:
    """Return a configuration as it stands in ``pyproject.toml``."""
    return re.sub(r"^\[", "[tool.llmparity.", text, flags=re.MULTILINE)


def _engines(root: Path, servers: Sequence[Running]) -> tuple[Sequence[ConfiguredEngine], Sequence[Path]]:
    """Return what is found here as engines, and the files that are left out.

    The ``servers`` that run come first, then GGUF files, each under a name of its own.
    """
    from pytest_llmparity.engines.local import caches, generates, gguf_files

    tables: list[tuple[str, dict[str, str]]] = []
    for server in sorted(servers, key=lambda server: server.kind == "ollama"):
        models = [model for model in server.models if generates(model)][:MOST_OF_A_KIND]
        for model in models:
            wanted = f"{server.kind}-{model}" if len(models) > 1 or server.kind == "ollama" else server.kind
            tables.append((wanted, {"kind": server.kind, "model": model, "base_url": server.base_url}))
    files = gguf_files([root]) or gguf_files(caches(os.environ, Path.home()))
    for path in files[:MOST_OF_A_KIND]:
        model = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
        tables.append((path.stem, {"kind": "llamacpp", "model": model}))
    engines: dict[str, ConfiguredEngine] = {}
    for wanted, keys in tables:
        base = re.sub(r"[^a-z0-9._-]+", "-", wanted.lower()).strip("-._")[:40].strip("-._") or keys["kind"]
        name = _free(base, engines)
        engines[name] = ConfiguredEngine(name, keys)
    return tuple(engines.values()), files[MOST_OF_A_KIND:]


def on_gpu() -> bool:
    """Tell whether engines that are started here will use a GPU, which llama.cpp does on every Mac with Apple's."""
    from pytest_llmparity.engines.start.program import gpu_visible

    return gpu_visible(os.environ) or (sys.platform, platform.machine()) == ("darwin", "arm64")


def _sharing(engines: Sequence[ConfiguredEngine], *, beside: int = 0) -> Sequence[ConfiguredEngine]:
    """Return the engines with the threads that those get which would compute on the same cores at the same time.

    That is two of them, as in the commands that are shown. ``beside`` is how many others are configured here.
    """
    from pytest_llmparity.engines.facts import device

    cores = device.cores()
    here = sum(_is_here(engine.keys) for engine in engines) + beside
    threads = max(1, cores // max(1, min(RUN_AT_ONCE, here)))
    if threads >= cores or on_gpu():
        return engines
    return tuple(engine._replace(threads=threads) if engine.started else engine for engine in engines)


def _configuration(engines: Sequence[ConfiguredEngine]) -> str:
    """Return the text of a configuration with these engines."""
    import tomlkit

    if not engines:
        return NOTHING
    document = tomlkit.document()
    document.add("baseline", tomlkit.string(engines[0].name))
    document["baseline"].comment("the others are compared with this one: name what you serve with")
    return f"{tomlkit.dumps(document)}\n{_tables(engines)}"


def _tables(engines: Sequence[ConfiguredEngine]) -> str:
    """Return the tables of engines."""
    import tomlkit

    tables = tomlkit.table(is_super_table=True)
    for engine in engines:
        table = tomlkit.table()
        for key, value in engine.keys.items():
            table.add(key, value)
        if engine.started:
            table["model"].comment("started by us, and stopped")
        if engine.threads is not None:
            table.add("args", ["--threads", str(engine.threads)])
            table["args"].comment("engines share the cores: half for each of two; lower it where more run at once")
        tables.add(engine.name, table)
    document = tomlkit.document()
    document.add("engines", tables)
    return tomlkit.dumps(document)


def _next_steps(
    engines: Sequence[ConfiguredEngine], servers: Sequence[Running], root: Path, place: Path, rootdir: str | None
) -> Iterator[str]:
    """Yield what to do next, with commands as they are run from this folder."""
    config, test, prompts = (os.path.relpath(path) for path in (root / FILE, place, root / PROMPTS))
    chosen = ["--rootdir", rootdir] if rootdir else []
    serves_gguf = bool(shutil.which("llama-server") or importlib.util.find_spec("xllamacpp"))
    if any(engine.started for engine in engines) and not serves_gguf:
        install = extras.command("llamacpp")
        yield f"First: {install}, which starts GGUF files (or put llama-server into PATH)"
    if not engines:
        yield from _idle(servers)
        yield "No engine with a model answers on this machine and no GGUF file lies here. Any of these is enough:"
        yield "  a server with OpenAI's API that runs somewhere: name its base_url"
        yield f"  {_for_ollama(servers)}"
        yield "    ollama pull NAME:TAG for two models, such as one in two quantisations"
        starts = (
            "; llama.cpp, which starts them, is installed" if serves_gguf else f", and {extras.command('llamacpp')}"
        )
        yield f"  GGUF files in the project{starts}"
        yield f"Then run {shlex.join(['llmparity', 'init', *chosen])} again, or name the engines in {config}."
        return
    names = [engine.name for engine in engines[:2]]
    yield "Next:"
    yield f"  {shlex.join(['llmparity', 'doctor', *chosen, *names])}"
    yield "    says what they are, what they can do and what to change"
    gate = shlex.join(["pytest", *chosen, test, "--engines"])
    if len(names) == 2:
        yield f"  {gate} {','.join(names)}"
        yield "    asks both and judges; it means most between two engines that serve the same model"
        yield f"  {shlex.join(['llmparity', 'calibrate', *chosen, *names, '--prompts', prompts])}"
        yield "    where both are to be the same model: keeps how far apart they are, for check.logprobs()"
    else:
        yield f"A comparison needs a second engine: add it to {config} (another server, or another quantisation), then:"
        yield f"  {gate} {names[0]},NAME"


def _idle(servers: Sequence[Running]) -> Iterator[str]:
    """Yield a sentence for each server that runs here and has no model to answer with."""
    for server in servers:
        yield f"{server.kind} answers at {server.base_url} and lists no model that makes text."


def _for_ollama(servers: Sequence[Running]) -> str:
    """Return what is left to do until Ollama is an engine: it may be installed, and it may run."""
    from pytest_llmparity.engines import daemons

    start = daemons.HOW_TO_START["ollama"]
    if any(server.kind == "ollama" for server in servers):
        return "Ollama, which runs here without one:"
    if shutil.which("ollama"):
        return f"Ollama, which is installed and does not run: {start} in another terminal, and"
    return f"Ollama: install it and start it ({start}), and"
