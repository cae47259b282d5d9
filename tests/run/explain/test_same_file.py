"""The candidate's file on the baseline's engine: weights or engine, how often that is started, and when it is not."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.evidence import Check
from pytest_llmparity.core.verdict import Experiment, Explanation, Outcome
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.start import memory
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.run.explain.same_file import SameFile
from pytest_llmparity.run.explain.search import SAME_ENGINE, SAME_FILE
from pytest_llmparity.run.fleet import Fleet
from pytest_llmparity.run.records import Engaged, record_of
from pytest_llmparity.settings.specification import EngineSpec
from tests.run.conftest import ROOT, Project
from tests.run.explain.test_next_tokens import Renders

if TYPE_CHECKING:
    from tests.run.explain.conftest import Planted

PROMPTS = 12
TEXT = check.text(margin=0.05, horizon=8)
MODELS = ROOT / "fixtures/models/tiny"
SERVER = (
    f"import sys\nsys.path.append({str(ROOT)!r})"
    + """
import argparse, hashlib, os, signal
from pathlib import Path
from tests.doubles.posing import PosingEngine
from tests.doubles.rendering import rendered
parser = argparse.ArgumentParser()
for name in ("--alias", "--port", "--model"):
    parser.add_argument(name)
flags, _ = parser.parse_known_args()
events = Path(os.environ["EVENTS"])
def note(what):
    with events.open("a") as out:
        out.write(f"{Path(flags.model).name} {what}\\n")
note("starts")
if os.environ.get("BROKEN_BY") == Path(flags.model).name:
    sys.exit("these weights are not for me")
def answer(request):
    prompt = request["prompt"] if "prompt" in request else rendered(request["messages"])
    weights = flags.model if os.environ["BY"] == "weights" else ""
    seed = hashlib.sha256(f"{prompt}{weights}{os.environ['ENGINE']}".encode()).hexdigest()
    return " ".join(f"w{seed[2 * i : 2 * i + 2]}" for i in range(8))
class Renderer(PosingEngine):
    def asked(self, path, body):
        return {"prompt": rendered(body["messages"])} if path == "/apply-template" else None
def stop(*_):
    note("stops")
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
with Renderer(answer, model=flags.alias, poses_as="llamacpp", port=int(flags.port)):
    while True:
        signal.pause()
"""
)
Explained = Callable[..., Explanation]


@pytest.fixture
def events(tmp_path: Path) -> Path:
    """Return the file in which engines note their start and stop."""
    return tmp_path / "events"


@pytest.fixture
def explained(tmp_path: Path, events: Path) -> Iterator[Explained]:
    """Explain the first verdict on a candidate with weights of its own against a baseline; both are processes."""
    with ExitStack() as stack:
        project = Project(tmp_path, stack)
        project.prompts(PROMPTS)
        script = tmp_path / "engine.py"
        script.write_text(SERVER)

        def spec(name: str, file: str, **env: str) -> EngineSpec:
            path = MODELS / f"tiny-{file}.gguf"
            return EngineSpec(
                name=name,
                kind="llamacpp",
                launch="process",
                model=path.name,
                model_path=path,
                command=(sys.executable, str(script)),
                context_length=512,
                env={"EVENTS": str(events), "BY": "weights", "ENGINE": "", **env},
            )

        def explain(
            ours: dict[str, str], theirs: dict[str, str], *checks: Check, change: Any = None, **settings: Any
        ) -> Explanation:
            specs = (spec("a", "F16", **ours), spec("b", "Q4_0", **theirs))
            session = project.session(*(change(*specs) if change else specs), **settings)
            project.declare(session, *(checks or (TEXT,)))
            session.gather()
            verdicts = session.settle("t", session.parity_run("t", reproduce=""))
            failed = [verdict for verdict in verdicts if verdict.outcome is Outcome.FAIL]
            assert failed
            assert all(verdict.explanation is not None for verdict in failed)
            return next(verdict.explanation for verdict in failed if verdict.explanation is not None)

        yield explain


def not_started(name: str, file: Path | None, **keys: Any) -> Adapter:
    """Return an engine as if it had been started from here with a file of weights."""
    spec = EngineSpec(name=name, **{"kind": "llamacpp", "launch": "process", "model": "m", "model_path": file, **keys})
    return registry.make(spec, "http://127.0.0.1:9", environ={})


def test_where_the_candidates_file_cannot_be_served_as_the_baseline_is_it_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    f16, q4 = (MODELS / f"tiny-{of}.gguf" for of in ("F16", "Q4_0"))
    baseline, candidate = not_started("a", f16), not_started("b", q4)
    pairs = {
        (baseline, candidate): "",
        (not_started("a", f16, launch="attach"), candidate): "a was not started from here, so nothing is started as it",
        (baseline, not_started("b", None)): "the file of b's weights is not known on this machine",
        (not_started("a", tmp_path), candidate): "llamacpp as a was started does not serve tiny-Q4_0.gguf",
        (baseline, not_started("b", f16)): "both serve tiny-F16.gguf",
    }
    fleet = Fleet({}, keeper=lambda: Keeper.spawn(tmp_path), workdir=tmp_path)

    for pair, why in pairs.items():
        assert SameFile(fleet, pair).why[: len(why) or None] == why
    monkeypatch.setattr(memory, "available", lambda: 10)
    assert SameFile(fleet, (baseline, candidate)).why.endswith(" and 0 MiB of memory are free")


@pytest.mark.parametrize(
    ("weights", "layer"), [("other", "weights"), ("one", "engine")], ids=["as the candidate", "as the baseline"]
)
def test_what_the_baselines_engine_answers_with_the_candidates_file_tells_weights_from_engine(
    planted: Planted, monkeypatch: pytest.MonkeyPatch, weights: str, layer: str
) -> None:
    """Engines are in this process; that one is started for it is held by the tests that start processes."""
    project = planted.project
    project.prompts(PROMPTS)
    engines = {name: planted.enter(Renders(of)) for name, of in (("a", "one"), ("b", "other"), ("a+b", weights))}
    begun: list[str] = []

    @contextmanager
    def beside(fleet: Fleet, spec: EngineSpec) -> Iterator[Engaged]:
        begun.append(spec.name)
        attached = project.attached(spec.name, engines[spec.name])
        yield Engaged(record=record_of(attached), adapter=registry.make(attached, attached.base_url or "", environ={}))

    monkeypatch.setattr(Fleet, "beside", beside)
    monkeypatch.setattr(SameFile, "_refused", lambda same: "")
    files = {"a": MODELS / "tiny-F16.gguf", "b": MODELS / "tiny-Q4_0.gguf"}
    session = project.session(*(project.attached(name, engines[name], model_path=path) for name, path in files.items()))
    project.declare(session, TEXT)
    session.gather()

    verdict, *_ = session.settle("t", session.parity_run("t", reproduce=""))

    assert verdict.explanation is not None
    (cause,) = verdict.explanation.causes
    assert cause.layer == layer
    assert ("; to accept them raise the margin of check.text()" in cause.remedy) is (layer == "weights")
    assert begun == ["a+b"]


@pytest.mark.slow  # it starts two or three engines as processes
def test_weights_are_the_cause_where_the_baselines_engine_answers_so_with_them(
    explained: Explained, events: Path
) -> None:
    explanation = explained({}, {})

    (cause,) = explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("weights", False)
    assert cause.text == "the weights of b: tiny-Q4_0.gguf, served as a is, answers as b does"
    assert cause.remedy == "serve b the weights of a; to accept them raise the margin of check.text()"
    of_weights, of_engine = explanation.experiments[-2:]
    assert (of_weights.removed, of_weights.outcome) == (SAME_ENGINE, "stays")
    assert (of_engine.removed, of_engine.outcome, of_engine.after) == (SAME_FILE, "gone", 0.0)
    assert of_weights.requests + of_engine.requests == PROMPTS
    assert events.read_text().splitlines().count("tiny-Q4_0.gguf stops") == 1, "the run goes on with its own"


@pytest.mark.slow  # it starts two or three engines as processes
def test_the_engine_is_the_cause_where_the_baselines_does_otherwise_with_the_same_file(explained: Explained) -> None:
    by_engine = {"BY": "engine"}

    explanation = explained({**by_engine, "ENGINE": "one"}, {**by_engine, "ENGINE": "other"})

    (cause,) = explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("engine", False)
    assert cause.text.startswith("b's engine or its settings, not its weights: tiny-Q4_0.gguf, served as a is,")


@pytest.mark.slow  # it starts two or three engines as processes
def test_neither_is_named_where_both_differ(explained: Explained) -> None:
    explanation = explained({"ENGINE": "one"}, {"ENGINE": "other"})

    (cause,) = explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("weights or arithmetic", True)
    of_file = {
        each.removed: each.outcome for each in explanation.experiments if each.removed in (SAME_ENGINE, SAME_FILE)
    }
    assert of_file == {SAME_ENGINE: "stays", SAME_FILE: "stays"}


@pytest.mark.slow  # it starts two or three engines as processes
def test_two_checks_of_a_pair_take_one_start(explained: Explained, events: Path) -> None:
    explained({}, {}, TEXT, check.text(margin=0.06, horizon=8))

    assert events.read_text().splitlines().count("tiny-Q4_0.gguf starts") == 2


def of_file(explanation: Explanation) -> Experiment:
    """Return the experiment with the candidate's own file; next tokens are asked for after it."""
    return next(each for each in explanation.experiments if each.removed == SAME_FILE)


@pytest.mark.slow  # it starts two or three engines as processes
def test_a_start_that_fails_is_told_and_what_remains_stands(explained: Explained) -> None:
    explanation = explained({"BROKEN_BY": "tiny-Q4_0.gguf"}, {})

    (cause,) = explanation.causes
    assert (cause.layer, cause.by_exclusion) == ("weights or arithmetic", True)
    tried = of_file(explanation)
    assert tried.outcome == "not tried"
    assert "exit code 1" in tried.why


@pytest.mark.slow  # it starts two or three engines as processes
def test_nothing_is_started_where_the_file_does_not_fit(
    explained: Explained, events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 10)

    explanation = explained({}, {})

    assert of_file(explanation).why.startswith("tiny-Q4_0.gguf takes ")
    assert of_file(explanation).why.endswith(" and 0 MiB of memory are free")
    assert events.read_text().splitlines().count("tiny-Q4_0.gguf starts") == 1


@pytest.mark.slow  # it starts two or three engines as processes
def test_nothing_is_started_without_requests_for_it(explained: Explained, events: Path) -> None:
    """The prompts asked again, everything taken away, and a rendering of each: five times the prompts."""
    explanation = explained({}, {}, explain_requests=5 * PROMPTS)

    assert explanation.requests <= 5 * PROMPTS
    assert [cause.by_exclusion for cause in explanation.causes] == [True]
    assert "--parity-explain-requests" in of_file(explanation).why
    assert events.read_text().splitlines().count("tiny-Q4_0.gguf starts") == 1


@pytest.mark.slow  # it starts two or three engines as processes
def test_two_engines_of_one_file_are_not_started_again(explained: Explained, events: Path) -> None:
    def one_file(ours: EngineSpec, theirs: EngineSpec) -> tuple[EngineSpec, EngineSpec]:
        return ours, dataclasses.replace(theirs, model=ours.model, model_path=ours.model_path)

    explanation = explained({"ENGINE": "one"}, {"ENGINE": "other"}, change=one_file)

    assert of_file(explanation).why == "both serve tiny-F16.gguf"
    assert events.read_text().splitlines().count("tiny-F16.gguf starts") == 2
