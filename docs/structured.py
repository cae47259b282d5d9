"""Asks engines what they make of a JSON Schema and writes docs/structured-output.md.

    python docs/structured.py llamacpp ollama    # these, one at a time; what was seen of the others stays
    python docs/structured.py page               # none: the page anew from what was seen

Engines are found as by ``docs/findings.py``: llama.cpp is the package ``xllamacpp``, Ollama the program of
``LLMPARITY_OLLAMA``, the others run by the interpreters of ``LLMPARITY_VLLM_PYTHON``, ``LLMPARITY_TRANSFORMERS_PYTHON``
``LLMPARITY_MLX_PYTHON`` and ``LLMPARITY_LITELLM_PYTHON``; LiteLLM is a proxy before a llama.cpp. All serve the tiny
model of this repository. What was seen is kept beside the page, in ``docs/structured-output.json``, and
``tests/docs/test_structured.py`` holds the page against it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs/structured-output.md"
SEEN: Final = ROOT / "docs/structured-output.json"
MODELS: Final = ROOT / "fixtures/models/tiny"
GGUF: Final = MODELS / "tiny-F16.gguf"
LIMIT_S: Final = 3600
NAMES: Final = ("llamacpp", "ollama", "vllm", "litellm", "transformers", "mlx")

BEFORE: Final = """# Structured output, engine by engine

What engines make of each thing that a JSON Schema can ask, seen by `llmparity doctor --schema` on a CPU with the tiny
model of this repository. `python docs/structured.py` writes this page and keeps what it saw in
`docs/structured-output.json`. Ask your own engines: `llmparity doctor --schema ENGINE…`.

Each row is one prompt that pushes against its schema: it asks for an answer that breaks it, and the schema is narrow,
so that a model that is not forced seldom keeps it by luck. One prompt is a look and no measurement: *violated* is shown
by the one answer, *enforced* says that this answer kept the schema and that without it the same prompt did not. In a
gate, [`check.schema(arms=…)`](writing-tests.md#both-arms-of-a-schema) holds your own schema on your own prompts.

- **enforced**: the answer keeps the schema; without it the same prompt breaks it.
- **violated**: the request was taken and the answer breaks the schema. Nothing but the answer tells: it *fails open*.
- **refused**: an error for this schema, where the prompt without it is answered.
- **not shown**: kept with the schema and without it (words round the JSON aside), or cut by the token limit where
  what is there may still become an
  answer that fits. A beginning that nothing mends (another type, a key twice) is *violated*.
- **no constraint**: this kind of engine has no field for a schema, so such prompts are not sent to it.

"""


def configuration(name: str) -> str:
    """Return the engine's table of ``llmparity.toml``."""
    keys: dict[str, Any] = {"kind": name, "model": str(MODELS)}
    if name == "litellm":
        keys |= {"model": "tiny", "args": ["--config", "litellm.yaml"]}
    elif name not in ("mlx", "transformers"):  # their servers have no limit of context to be told
        keys["context_length"] = 1024
    if name in ("llamacpp", "ollama"):
        keys["model"] = str(GGUF)
    if python := os.environ.get(f"LLMPARITY_{name.upper()}_PYTHON"):
        keys["python"] = python
    if name == "vllm":
        keys |= {"slots": 8, "args": ["--dtype", "bfloat16", "--enforce-eager", "--num-gpu-blocks-override", "128"]}
        keys["env"] = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    env = keys.pop("env", {})
    lines = [f"[engines.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    return "\n".join([*lines, f"[engines.{name}.env]", *(f"{key} = {json.dumps(value)}" for key, value in env.items())])


def look(name: str) -> dict[str, Any]:
    """Start one engine, ask it every canary, and return what became of them; ends with what the command said."""
    with tempfile.TemporaryDirectory() as folder, behind(name, Path(folder)):
        (Path(folder) / "llmparity.toml").write_text(configuration(name))
        ollama = Path(os.environ.get("LLMPARITY_OLLAMA", "ollama"))
        path = os.pathsep.join([str(ollama.absolute().parent), os.environ["PATH"]])
        command = [sys.executable, "-m", "pytest_llmparity", "doctor", "--schema", "--json", name]
        ended = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    engines = json.loads(ended.stdout)["engines"] if ended.stdout else []
    if not engines:
        raise SystemExit(f"{name}: {ended.stdout}{ended.stderr}")
    engine: dict[str, Any] = engines[0]
    return {**engine, "day": datetime.datetime.now(tz=datetime.UTC).date().isoformat()}


@contextlib.contextmanager
def behind(name: str, folder: Path) -> Iterator[None]:
    """Serve llama.cpp for as long as a proxy before it is asked, and write the proxy's configuration; else nothing."""
    if name != "litellm":
        yield
        return
    served = folder / "behind"
    served.mkdir()
    (served / "llmparity.toml").write_text(configuration("llamacpp"))
    command = [sys.executable, "-m", "pytest_llmparity", "serve", "llamacpp"]
    with subprocess.Popen(command, cwd=served, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = (line for line in process.stdout if "base URL for clients of openai: " in line)
            url = next(told).rpartition(" ")[2].strip()
            params = {"model": f"openai/{GGUF.name}", "api_base": url, "api_key": "none"}
            listed = [{"model_name": "tiny", "litellm_params": params}]
            (folder / "litellm.yaml").write_text(json.dumps({"model_list": listed}))
            yield
        finally:
            process.terminate()


def page(seen: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page: the matrix, and below it the answers that broke their schemas or show nothing."""
    names = [name for name in NAMES if name in seen]
    heads = [f"{name} {seen[name]['version'] or ''}".strip() for name in names]
    rows = list(dict.fromkeys(each["canary"] for name in names for each in seen[name]["canaries"]))
    by_name = {name: {each["canary"]: each for each in seen[name]["canaries"]} for name in names}
    lines = [f"| schema | {' | '.join(heads)} |", "|---" * (len(names) + 1) + "|"]
    lines.append(f"| *seen on* | {' | '.join(seen[name]['day'] for name in names)} |")
    for row in rows:
        outcomes = [by_name[name].get(row, {}).get("outcome", "not asked") for name in names]
        shown = [f"**{outcome}**" if outcome in ("violated", "refused") else outcome for outcome in outcomes]
        lines.append(f"| {row} | {' | '.join(shown)} |")
    for name in names:
        broken = [each for each in seen[name]["canaries"] if each["outcome"] in ("violated", "refused", "not shown")]
        if broken:
            lines += ["", f"## {name}", "", "| schema | | why | answer |", "|---|---|---|---|"]
            lines += [
                f"| {each['canary']} | {each['outcome']} | {_cell(each['why'])} | {_cell(each['answered'])} |"
                for each in broken
            ]
    missing = [name for name in NAMES if name not in seen]
    if missing:
        lines += ["", f"Not asked yet: {', '.join(missing)}."]
    return BEFORE + "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    shown = text if len(text) <= 160 else text[:159] + "…"
    return f"`{shown.replace('`', chr(39)).replace('|', chr(92) + '|')}`" if shown else ""


def main(names: Iterable[str]) -> None:
    """Ask the engines named, and write what was seen and the page."""
    seen: dict[str, Any] = json.loads(SEEN.read_text("utf-8")) if SEEN.exists() else {}
    for name in names:
        if name != "page":
            seen[name] = look(name)
            SEEN.write_text(json.dumps(seen, indent=1, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(page(seen), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
