"""Shards become one run, or a sentence says which of them do not fit."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_llmparity import check
from pytest_llmparity.core.errors import GoldenError, ShardError, StoreError
from pytest_llmparity.core.identity.record import EngineRecord
from pytest_llmparity.core.sample import Completion, Identity, Phase, Sample, to_json
from pytest_llmparity.core.shards import Shard
from pytest_llmparity.core.verdict import Outcome, Verdict
from pytest_llmparity.run.judge.recorded import stored
from pytest_llmparity.run.ledger import RunState, read_state, write_state
from pytest_llmparity.run.recording.writing import recordings
from pytest_llmparity.run.session import Session
from pytest_llmparity.run.shards.dealing import SHARD, ShardDocument
from pytest_llmparity.run.shards.merging import merge
from pytest_llmparity.store.runs import Store

if TYPE_CHECKING:
    from tests.run.conftest import Project

TEXT = check.text(margin=0.2, horizon=8)
NESTED = b"[" * 100_000
"""Lists in lists, deeper than anybody reads."""


def shard(project: Project, index: int, of: int, *specs: Any, checks: Sequence[Any] = (TEXT,)) -> Path:
    """Gather a shard as a machine of its own, and return the folder with its store."""
    session = project.session(*specs, token=f"{index}", shard=Shard(index, of))
    project.declare(session, *checks)
    session.gather()
    session.conclude([])
    session.close()
    place = project.path / f"machine-{index}"
    shutil.move(project.path / ".llmparity", place)
    return place


def judged(session: Session) -> list[Verdict]:
    verdicts = session.settle("t", session.parity_run("t", reproduce="again"))
    return [dataclasses.replace(verdict, where="") for verdict in verdicts]


@pytest.mark.slow
def test_shards_of_other_days_are_merged_only_where_their_runs_are_named(project: Project) -> None:
    project.prompts(24)
    specs = [project.attached("a", project.engine()), project.attached("b", project.engine())]
    places = [shard(project, index, 2, *specs) for index in (1, 2)]
    with contextlib.closing(sqlite3.connect(places[0] / "samples.sqlite")) as database, database:
        database.execute("update runs set started = started - 7 * 3600")

    told = r"shard 1 of 2 .* began .* and shard 2 of 2 .*, 7 hours later"
    with Store.open(project.path / ".llmparity") as store, pytest.raises(ShardError, match=told):
        merge(store, [str(place) for place in places], cwd=project.path)


@pytest.mark.slow
def test_what_shards_gathered_is_judged_as_one_run(project: Project) -> None:
    project.prompts(24)
    specs = [project.attached("a", project.engine()), project.attached("b", project.engine(drift=0.02))]
    live = project.session(*specs, token="whole")
    project.declare(live, TEXT, check.latency(ttft_p95=9, n=60))
    live.gather()
    whole = judged(live)
    live.close()
    shutil.move(project.path / ".llmparity", project.path / "whole")
    checks = (TEXT, check.latency(ttft_p95=9, n=60))
    places = [str(shard(project, index, 2, *specs, checks=checks)) for index in (2, 1)]

    with Store.open(project.path / ".llmparity") as store:
        run = merge(store, places, cwd=project.path)
        phases = {phase: len(store.get(run, "a", phases=[phase])) for phase in Phase}
    replay = project.session(mode="replay", replay_run=run)
    project.declare(replay, *checks)
    replay.gather()

    verdicts = judged(replay)
    assert [v for v in verdicts if v.unit != "s"] == [v for v in whole if v.unit != "s"]
    assert [(v.kind, v.engine, v.n, v.outcome) for v in verdicts] == [(v.kind, v.engine, v.n, v.outcome) for v in whole]
    assert phases[Phase.MAIN] == 24
    assert phases[Phase.TIMED] == 60
    assert {phases[phase] for phase in (Phase.COLD, Phase.WARM, Phase.PARALLEL)} == {16}
    replay.conclude(verdicts)
    told = stored(replay.store(), run, root=project.path)
    assert told.record.verdicts
    assert "put together of 2 shards" in told.record.notes[0]


@pytest.mark.slow
def test_a_merged_run_that_fails_says_how_its_cause_is_looked_for(project: Project) -> None:
    project.prompts(24)
    specs = [project.attached("a", project.engine()), project.attached("b", project.engine(drift=0.5))]
    places = [str(shard(project, index, 2, *specs, checks=(TEXT,))) for index in (1, 2)]
    with Store.open(project.path / ".llmparity") as store:
        run = merge(store, places, cwd=project.path)
    replay = project.session(mode="replay", replay_run=run)
    project.declare(replay, TEXT)
    replay.gather()

    (failed,) = (verdict for verdict in judged(replay) if verdict.kind == "text")

    assert failed.outcome is Outcome.FAIL
    assert failed.explanation is not None
    assert "this run was put together of them; on one machine, pytest " in failed.explanation.note
    assert failed.explanation.note.endswith("--engines a,b --parity-explain looks for it")


def test_another_engine_on_one_machine_is_named_with_what_differs(project: Project) -> None:
    places = [
        shard(
            project,
            index,
            2,
            project.attached("a", project.engine(poses_as="llamacpp", quantization=quantization)),
            checks=(),
        )
        for index, quantization in ((1, "F16"), (2, "Q8_0"))
    ]

    with (
        Store.open(project.path / ".llmparity") as store,
        pytest.raises(ShardError, match=r"a is another engine in shard 1 of 2 than in shard 2 of 2 \(.*F16 -> Q8_0.*"),
    ):
        merge(store, list(map(str, places)), cwd=project.path)


def test_a_shard_is_no_run_to_judge_report_or_record(project: Project) -> None:
    session = project.session(project.attached("a", project.engine()), shard=Shard(1, 2))
    project.declare(session)
    session.gather()
    session.conclude([])
    assert session.run is not None

    with pytest.raises(StoreError, match="is shard 1 of 2; llmparity merge"):
        stored(session.store(), session.run, root=project.path)
    with pytest.raises(GoldenError, match="it is shard 1 of 2"):
        list(recordings(session.store(), session.run))
    for named in (session.run, None):
        replay = project.session(mode="replay", replay_run=named)
        project.declare(replay)
        with pytest.raises(
            StoreError, match=r"is shard 1 of 2; llmparity merge|only shards are stored .*: llmparity merge"
        ):
            replay.gather()


def test_a_shard_that_was_gathered_is_asked_again_and_one_that_was_interrupted_is_gone_on_with(
    project: Project,
) -> None:
    engine = project.engine()

    def gather(token: str, *, conclude: bool, of: int = 2) -> Session:
        session = project.session(project.attached("a", engine), token=token, shard=Shard(1, of))
        project.declare(session)
        session.gather()
        if conclude:
            session.conclude([])
        session.store().release(session.run or "")
        return session

    first, second = gather("1", conclude=False), gather("2", conclude=True)
    third, other = gather("3", conclude=True), gather("4", conclude=True, of=3)

    assert first.run == second.run
    assert len({second.run, third.run, other.run}) == 3


# which of them do not fit: stores made by hand ------------------------------------------------------------------------


def made(
    store: Store,
    index: int,
    of: int = 3,
    *,
    plan: str = "p",
    version: str = "1",
    own: Mapping[str, tuple[str, ...]] | None = None,
    **state: Any,
) -> str:
    """Put a shard that gathered nothing into a store."""
    begun = store.begin(plan_hash=f"{index}", session=f"{index} {len(store.runs())}", version=version, resume="fresh")
    note = ShardDocument(index=index, of=of, plan=plan, own=own or {}, floors={})
    store.put_document(begun.id, SHARD, to_json(note))
    write_state(store, begun.id, RunState(shard=str(note.shard), **state))
    return begun.id


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([{"index": 2}], "of 3 shards 3 is missing; there are 1, 2"),
        ([], "of 3 shards 2, 3 are missing; there is 1"),
        ([{"index": 2}, {"index": 2}], r"a shard is there twice: shard 2 of 3 \(run .*\) and shard 2 of 3"),
        ([{"index": 2, "of": 4}], r"two divisions: shard 1 of 3 .* and shard 2 of 4"),
        ([{"index": 2, "plan": "q"}], "asked other prompts, or in another way; gather all of one commit"),
        ([{"index": 2, "version": "2"}], "were gathered by pytest-llmparity 1 and 2"),
        ([{"index": 2, "baseline": "b"}], "have other baselines: None and b"),
        ([{"index": 2, "guard": "x"}], "held against other locks"),
        ([{"index": 9}], r"calls itself shard 9 of 3"),
        ([{"index": 2, "of": 10**9}], r"calls itself shard 2 of 1000000000"),
    ],
)
def test_shards_that_are_not_those_of_one_run_are_named(
    tmp_path: Path, others: Sequence[dict[str, Any]], words: str
) -> None:
    with Store.open(tmp_path) as store:
        runs = [made(store, 1), *(made(store, **other) for other in others)]

        with pytest.raises(ShardError, match=words):
            merge(store, runs, cwd=tmp_path)


def test_what_is_no_shard_is_named(tmp_path: Path) -> None:
    with Store.open(tmp_path / "own") as store:
        whole = store.begin(plan_hash="p", session="s", version="1").id
        cut = store.begin(plan_hash="q", session="t", version="1").id
        store.put_document(cut, SHARD, to_json(ShardDocument(index=1, of=2, plan="p", own={}, floors={})))
        damaged = store.begin(plan_hash="r", session="u", version="1").id
        store.put_document(damaged, SHARD, {"index": "1", "of": [2]})

        for place, words in (
            (whole, "is no shard"),
            (cut, "was interrupted while gathering; run it again"),
            (damaged, "cannot be read"),
            ("elsewhere", "neither a run of .* nor a folder with samples.sqlite"),
        ):
            with pytest.raises(ShardError, match=words):
                merge(store, [place], cwd=tmp_path)


def test_the_newest_shards_of_a_store_count(tmp_path: Path) -> None:
    with Store.open(tmp_path / "other" / ".llmparity") as other:
        made(other, 1, 2, plan="of yesterday")
        cut = other.begin(plan_hash="1", session="cut off", version="1", resume="fresh").id
        other.put_document(cut, SHARD, to_json(ShardDocument(index=1, of=2, plan="p", own={}, floors={})))
        made(other, 1, 2)
        made(other, 2, 2)
        made(other, 1, 2, notes=("again",))
    with Store.open(tmp_path / "own") as store:
        run = merge(store, ["other"], cwd=tmp_path)

        assert any("again" in note for note in (store.raw_document(run, "gathered") or {})["notes"])


def test_the_store_of_a_stranger_writes_nothing_but_answers(tmp_path: Path) -> None:
    """A run that is not there and values of other types end in a sentence, whichever document they stand in."""
    with Store.open(tmp_path) as store:
        runs = [made(store, index, 2) for index in (1, 2)]
        store.put_document(runs[0], "asked", {"unit": {"prompt_set": [], "concurrency": "x", "cases": 3}})
        store.put_document(runs[0], "timed//unit", {"first": "x"})
        store.put_document(runs[1], "locked", {"engines": 3})

        with pytest.raises(ShardError, match="cannot be read"):
            merge(store, runs, cwd=tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (SHARD, NESTED),
        ("gathered", NESTED),
        ("asked", NESTED),
        ("asked", {"unit": 3}),
        ("asked", {"unit": {"prompt_set": ["x"], "concurrency": 1}}),
        ("timed/a/u", {"first": "x"}),
        ("timed/a/u", {"first": 0, "count": "x"}),
        ("wires/a/u", {"c0": 5}),
        ("wires/a/u", {"c9": "sha"}),
    ],
)
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("plan", ["p", "q"])
def test_a_damaged_document_ends_in_a_sentence(
    tmp_path: Path, name: str, content: dict[str, Any] | bytes, named: bool, plan: str
) -> None:
    unit = {"u": {"tests": ["t"], "prompt_set": "s", "concurrency": 1, "cases": {"c0": {}, "c1": {}}}}
    with Store.open(tmp_path) as store:
        runs = [
            made(store, index, 2, plan="p" if index == 2 else plan, own={"u": (case,)}, engines={"a": record()})
            for index, case in ((1, "c0"), (2, "c1"))
        ]
        for run in runs:
            store.put_document(run, "asked", unit)
        store.put_document(runs[0], name, content if isinstance(content, dict) else {})
        if isinstance(content, bytes):
            with contextlib.closing(sqlite3.connect(store.path)) as file, file:
                file.execute("UPDATE notes SET content = ? WHERE run = ? AND name = ?", (content, runs[0], name))

        with pytest.raises(ShardError, match=r"cannot be read|cases of other shards|other prompts|missing"):
            merge(store, runs if named else [], cwd=tmp_path)


def test_a_damaged_answer_ends_in_a_sentence_and_the_reading_with_it(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        runs = [made(store, index, 2, engines={"a": record()}) for index in (1, 2)]
        store.put_engine(runs[0], "a", "spec", Identity())
        answers = [
            Sample(engine="a", case=case, phase=Phase.MAIN, request_sha256="s", completion=Completion(text="x"))
            for case in ("c0", "c1")
        ]
        store.put(runs[0], answers)
        with contextlib.closing(sqlite3.connect(store.path)) as file, file:
            file.execute("UPDATE samples SET completion = x'c1'")

        with pytest.raises(ShardError, match="the answers of a shard cannot be read"):
            merge(store, runs, cwd=tmp_path)


@pytest.mark.slow
def test_a_noise_floor_that_grows_is_cut_where_a_single_run_would_have_stopped(project: Project) -> None:
    """Answers of two tokens say so little that 16 prompts do not show how an engine repeats itself."""
    project.prompts(60)
    repeated = check.text(margin=0.15, horizon=8)
    specs = [project.attached(name, project.engine("one two three four")) for name in "ab"]

    def repeats(store: Store, run: str) -> dict[Phase, set[str]]:
        phases = (Phase.COLD, Phase.WARM, Phase.PARALLEL)
        return {phase: {sample.case for sample in store.get(run, "a", phases=[phase])} for phase in phases}

    live = project.session(*specs, token="whole")
    project.declare(live, repeated, max_tokens=2)
    live.gather()
    whole = repeats(live.store(), live.run or "")
    live.close()
    shutil.move(project.path / ".llmparity", project.path / "whole")
    for index in (1, 2):
        session = project.session(*specs, token=f"{index}", shard=Shard(index, 2))
        project.declare(session, repeated, max_tokens=2)
        session.gather()
        session.conclude([])
        session.close()
    with Store.open(project.path / ".llmparity") as store:
        run = merge(store, [], cwd=project.path)

        assert repeats(store, run) == whole
        assert {len(cases) for cases in whole.values()} == {32}


def record(**keys: Any) -> EngineRecord:
    return EngineRecord(name="a", kind="vllm", **keys)


@pytest.mark.parametrize(
    ("first", "second", "left_out", "refused", "unasked"),
    [
        ({"left_out": {"u": "no schema"}}, {"left_out": {"u": "no schema"}}, {"u": "no schema"}, {}, {}),
        ({"left_out": {"u": "no schema"}}, {"refused": {"u": "no seed"}}, {}, {"u": "no seed"}, {}),
        ({"left_out": {"u": "no schema"}}, {}, {}, {}, {"u": {"c1": "no schema", "c2": "no schema"}}),
        (
            {"left_out": {"u": "no schema"}},
            {"unasked": {"u": {"c3": "no seed"}}},
            {},
            {},
            {"u": {"c1": "no schema", "c2": "no schema", "c3": "no seed"}},
        ),
    ],
)
def test_what_only_some_shards_could_not_ask_is_left_out_case_by_case(
    tmp_path: Path, first: Any, second: Any, left_out: Any, refused: Any, unasked: Any
) -> None:
    with Store.open(tmp_path) as store:
        runs = [
            made(store, index, 2, own={"u": cases}, engines={"a": record(**keys)})
            for index, cases, keys in ((1, ("c1", "c2"), first), (2, ("c3", "c4"), second))
        ]
        state = read_state(store, merge(store, runs, cwd=tmp_path))

    assert state is not None
    engine = state.engines["a"]
    assert (engine.left_out, engine.refused, engine.unasked) == (left_out, refused, unasked)


def test_an_engine_that_one_machine_could_not_ask_is_named_with_the_reason(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        runs = [
            made(store, index, 2, engines={"a": record(error=error)}) for index, error in ((1, None), (2, "a: no key"))
        ]

        with pytest.raises(ShardError, match=r"a could not be asked in shard 2 of 2 .*: a: no key; gather that shard"):
            merge(store, runs, cwd=tmp_path)


def test_what_a_hard_stop_left_out_on_one_machine_is_missing_in_the_whole(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        runs = [made(store, 1, 2, incomplete="stopped after 9 requests"), made(store, 2, 2, notes=("slow",))]
        state = read_state(store, merge(store, runs, cwd=tmp_path))

    assert state is not None
    assert state.incomplete == "shard 1 of 2: stopped after 9 requests"
    assert state.notes[1:] == ("shard 2 of 2: slow",)
