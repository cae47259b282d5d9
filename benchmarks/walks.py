"""Walks a checkout's house for real: which files of the package a value enters on its way.

    python benchmarks/walks.py [CHECKOUT] [PAGE]

Runs one gate against two loopback engines and one against an engine that is started as a process, with every call of
a function of the package recorded, in all threads of pytest and of its keeper. Of each walk in PAGE (the checkout's
docs/architecture.md) it prints whether its functions were entered in the order the page says, and how many files were
entered at all between its first and its last one: that counts what only looks on, too, such as masking and words, and
what happens for other values at the same time.
"""

from __future__ import annotations

import bisect
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pytest_llmparity.testing import LoopbackEngine

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "pytest_llmparity"
LIMIT_S = 900.0

RECORDER = """
import atexit, os, subprocess, sys, threading, time
PACKAGE, OUT = %(package)r, %(out)r
_events, _last, _names, _lock = [], {}, {}, threading.Lock()

def _seen(frame, event, argument):
    if event != "call":
        return
    code = frame.f_code
    name = _names.get(code)
    if name is None:
        file = code.co_filename
        # What a class is made of and comprehensions are no functions.
        inside = file.startswith(PACKAGE) and code.co_flags & 1 and "<" not in code.co_qualname.rpartition(".")[2]
        name = _names[code] = f"{file[len(PACKAGE):]}:{code.co_qualname.replace('.<locals>', '')}" if inside else ""
    if name and _last.get(threading.get_ident()) != name:
        _last[threading.get_ident()] = name
        _events.append((time.monotonic_ns(), name))
        if len(_events) > 500:
            _flush()

def _flush():
    with _lock:
        written = _events[:]
        del _events[:len(written)]
        with open(f"{OUT}/{os.getpid()}.trace", "a") as out:
            out.writelines(f"{at} {name}\\n" for at, name in written)

def begin():
    atexit.register(_flush)
    threading.setprofile(_seen)
    sys.setprofile(_seen)
    begun = subprocess.Popen.__init__

    def start(self, args, *more, **keys):
        # The keeper runs isolated: it is begun by this recorder.
        if isinstance(args, list) and args[1:3] == ["-I", "-c"]:
            args = [args[0], "-I", __file__, args[3]]
        begun(self, args, *more, **keys)

    subprocess.Popen.__init__ = start

if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(PACKAGE.rstrip(os.sep)))  # isolated, it would take an installed package
    begin()
    exec(sys.argv[1])
elif sys.argv[0] == "-m":  # pytest itself, and nothing that it starts
    begin()
"""

SUITE = """
import pytest
from pytest_llmparity import check

@pytest.mark.parity("prompts.jsonl", check.text(margin=0.05))
def test_gate(): ...
"""


def house() -> ModuleType:
    """Return docs/house.py, which reads pages."""
    spec = importlib.util.spec_from_file_location("house", ROOT / "docs/house.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def project(folder: Path) -> None:
    """Write a gate, its prompts, and an engine that is a process of its own."""
    rows = [{"id": f"c{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(40)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "test_gate.py").write_text(SUITE)
    (folder / "pytest.ini").write_text("[pytest]\n")
    table: dict[str, Any] = {
        "kind": "llamacpp",
        "model": str(ROOT / "fixtures/models/tiny/tiny-Q4_0.gguf"),
        "command": [sys.executable, str(ROOT / "tests/plugin/fake_engine.py")],
        "context_length": 512,
    }
    lines = [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    env = {"FAKE_STARTS": str(folder / "starts"), "FAKE_BEHAVIOUR": "drift", "PYTHONPATH": str(ROOT)}
    lines += ["[engines.started.env]", *(f"{key} = {json.dumps(value)}" for key, value in env.items())]
    (folder / "llmparity.toml").write_text("\n".join(["[engines.started]", *lines]) + "\n")


def record(checkout: Path) -> list[str]:
    """Run the gate with the package of a checkout; return every function that was entered, in order."""
    with tempfile.TemporaryDirectory() as name, LoopbackEngine() as prod, LoopbackEngine(drift=0.2, seed=1) as dev:
        folder = Path(name)
        project(folder)
        (folder / "recorder").mkdir()
        text = RECORDER % {"package": f"{checkout / PACKAGE}{os.sep}", "out": name}
        (folder / "recorder/sitecustomize.py").write_text(text)
        env = {**os.environ, "PYTHONPATH": f"{folder / 'recorder'}{os.pathsep}{checkout}"}
        env |= {"LLMPARITY_EMBEDDING_MODEL": "none"}
        env.pop("LLMPARITY_ENGINES", None)
        engines = f"--engines=prod={prod.base_url},dev={dev.base_url},started"
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", engines]
        done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode != 1:  # the two that drift fail their gate
            raise SystemExit(f"the gate ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-2000:]}")
        entered = [
            (int(at), called)
            for file in folder.glob("*.trace")
            for at, called in (line.split(" ", 1) for line in file.read_text().splitlines())
        ]
    return [called for _, called in sorted(entered)]


def follow(walk: Sequence[Any], entered: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the hops of a walk that were not entered in its order, and the files entered while it was walked.

    The walk taken is the last one: from its last function back, each hop as late as it can be. Classes without an
    ``__init__`` of their own have nothing to enter.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, called in enumerate(entered):
        places[called].append(place)
    missing, reached, last = [], len(entered), None
    for hop in reversed(walk):
        name = str(hop)
        if hop.name[0].isupper() and f"{name}.__init__" not in places:
            continue
        at = places.get(name) or places.get(f"{name}.__init__") or []
        index = bisect.bisect_left(at, reached)
        if not index:
            missing.append(name)
            continue
        reached = at[index - 1]
        last = reached if last is None else last
    between = entered[reached : (last or reached) + 1]
    return missing[::-1], list(dict.fromkeys(called.partition(":")[0] for called in between))


def main(words: Sequence[str]) -> int:
    """Print what was found of each walk; 1 where one was not walked as the page says."""
    checkout = Path(words[0] if words else ROOT).resolve()
    page = Path(words[1]) if len(words) > 1 else checkout / "docs/architecture.md"
    entered = record(checkout)
    if os.environ.get("WALKS_TRACE"):
        Path(os.environ["WALKS_TRACE"]).write_text("\n".join(entered))
    print(f"{len(set(entered))} functions of {len({name.partition(':')[0] for name in entered})} files entered")
    wrong = False
    for title, walk in house().walks(page.read_text("utf-8")).items():
        missing, files = follow(walk, entered)
        print(f"{title}: {len({hop.file for hop in walk})} files on the walk, {len(files)} entered meanwhile")
        for name in missing:
            wrong = True
            print(f"  not entered in this order: {name}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
