"""What was gathered stays: through a killed process, two at once, a resume, a replay; and no key is ever on disk."""

from __future__ import annotations

import math
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import StoreError
from pytest_llmparity.core.sample import (
    Completion,
    Fact,
    Failure,
    Identity,
    Phase,
    Sample,
    Timing,
    TokenLogprob,
    ToolCall,
)
from pytest_llmparity.core.verdict import Outcome
from pytest_llmparity.store.database import Database, row_of, sample_from
from pytest_llmparity.store.folder import file_system_of
from pytest_llmparity.store.ownership import KEPT
from pytest_llmparity.store.packing import Whole, pack_tokens
from pytest_llmparity.store.runs import GATHERED, JUDGED, Key, RunHandle, Store, key_of

KEY = "sk-live-3f9a1Q7z"
HOUR = 3600.0


class Clock:
    """Seconds since the epoch, moved by hand."""

    def __init__(self) -> None:
        self.at = 1_795_232_701.0  # 2026-11-21 03:45:01 UTC

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[Store]:
    with Store.open(tmp_path / ".llmparity", now=clock, secrets={"VLLM_API_KEY": KEY}) as opened:
        yield opened


def begin(store: Store, session: str = "s1", plan: str = "plan", version: str = "1.0", **more: object) -> RunHandle:
    return store.begin(plan_hash=plan, session=session, version=version, **more)  # type: ignore[arg-type]


def sample(case: str = "c1", phase: Phase = Phase.MAIN, *, text: str = "answer", **more: object) -> Sample:
    return Sample(
        engine="f16",
        case=case,
        phase=phase,
        request_sha256=f"sha-{case}",
        **{"completion": Completion(text=text), **more},  # type: ignore[arg-type]
    )


def identity(source: str = "reported", **facts: str | int) -> Identity:
    values = facts or {"model": "tiny", "context_length": 2048}
    return Identity(facts={name: Fact(value=v, source=source) for name, v in values.items()})  # type: ignore[arg-type]


def let_go(store: Store, run: str) -> None:
    """Pretend that the processes which held the run are gone."""
    with sqlite3.connect(store.path) as db:
        db.execute("UPDATE holders SET born = 1.0 WHERE run = ?", (run,))
    db.close()


# -- the folder -------------------------------------------------------------------------------------------------------


def test_the_folder_is_made_and_kept_out_of_git(store: Store) -> None:
    assert (store.path.parent / ".gitignore").read_text() == "*\n"
    assert store.path.name == "samples.sqlite"


def test_a_gitignore_that_is_there_is_kept(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("mine\n")

    Store.open(tmp_path).close()

    assert (tmp_path / ".gitignore").read_text() == "mine\n"


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "9p", "fuse.sshfs"])
def test_a_network_file_system_is_refused_with_the_way_out(tmp_path: Path, kind: str) -> None:
    with pytest.raises(StoreError, match=rf"network file system \({kind}\).*local disk") as caught:
        Store.open(tmp_path / "store", file_system=lambda folder: kind)

    assert str(tmp_path / "store") in str(caught.value)
    assert not (tmp_path / "store" / "samples.sqlite").exists()


def test_the_file_system_of_a_folder_is_the_mount_it_lies_on(tmp_path: Path) -> None:
    assert file_system_of(tmp_path) != ""
    if sys.platform == "linux":
        assert file_system_of(Path("/proc")) == "proc"
        (tmp_path / "link").symlink_to("/proc")
        assert file_system_of(tmp_path / "link") == "proc"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="needs a folder it can write"):
        Store.open(tmp_path / "file" / "store")


def test_another_format_is_refused_and_left_alone(store: Store, tmp_path: Path) -> None:
    store.close()
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    with pytest.raises(StoreError, match=r"format 99, this version reads format 4; delete .*\.llmparity"):
        Store.open(tmp_path / ".llmparity")


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "samples.sqlite").write_bytes(b"not a database, but long enough to be read as one" * 40)

    with pytest.raises(StoreError, match=r"samples.sqlite is damaged or no database"):
        Store.open(tmp_path)


def test_somebody_elses_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "samples.sqlite") as db:
        db.execute("CREATE TABLE other (x)")
    db.close()

    with pytest.raises(StoreError, match="format 0"):
        Store.open(tmp_path)


def test_a_file_that_cannot_share_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SQLite's databases in memory have no WAL, like file systems without shared memory. The lock file goes beside it.
    monkeypatch.chdir(tmp_path)

    with pytest.raises(StoreError, match="cannot hold a shared database"):
        Database(Path(":memory:"), schema="", format=1)


# -- runs -------------------------------------------------------------------------------------------------------------


def test_an_id_is_short_readable_and_sorts_by_time(store: Store, clock: Clock) -> None:
    first = begin(store, "s1", resume="fresh").id
    clock.at += 1
    second = begin(store, "s2", resume="fresh").id

    assert re.fullmatch(r"20261121-034501-[0-9a-f]{4}", first)
    assert first < second
    assert [run.id for run in store.runs()] == [first, second]


def test_workers_of_one_session_share_its_run(store: Store, tmp_path: Path) -> None:
    first = begin(store, "s1")
    with Store.open(tmp_path / ".llmparity") as other:
        second = begin(other, "s1")

    assert second == first
    assert not first.resumed


def test_an_interrupted_run_goes_on_without_timings_timed_samples_and_failures(store: Store, clock: Clock) -> None:
    run = begin(store, "s1").id
    timing = Timing(ttfb_s=0.1, ttft_s=0.2, e2e_s=0.3)
    timed = sample("c2", Phase.TIMED, timing=timing)
    failed = sample("c3", completion=None, failure=Failure(kind="Timeout", message="too late"))
    store.put(run, [sample("c1", timing=timing), timed, failed])
    store.put_document(run, "gathered", {"requests": 3})
    let_go(store, run)
    clock.at += HOUR

    resumed = begin(store, "s2")

    assert resumed == RunHandle(id=run, resumed=True)
    assert begin(store, "s2") == resumed
    assert store.get(run, "f16") == [sample("c1")]
    assert store.raw_document(run, "gathered") is None


def test_timed_answers_are_kept_of_a_run_that_was_gathered_to_its_end(store: Store) -> None:
    """Else whoever goes on with it times all of them again."""
    run = begin(store, "s1").id
    store.put(run, [sample("c1", Phase.TIMED)])
    store.put_document(run, GATHERED, {})

    unfinished = store.answered("s1"), store.times_again(run)
    store.finish(run)
    finished = store.answered("s1"), store.times_again(run)
    store.put(run, [sample("c2", Phase.TIMED, completion=None, failure=Failure(kind="Timeout", message="too late"))])

    assert unfinished == ({}, True)
    assert finished == ({"f16": run}, False)
    assert store.times_again(run), "where one failed"


def test_answers_that_are_not_timed_are_kept_of_any_run(store: Store) -> None:
    run = begin(store, "s1").id
    store.put(run, [sample("c1")])

    assert store.answered("s1") == {"f16": run}
    assert not store.times_again(run)


def test_kept_notes_outlive_a_resumption(store: Store) -> None:
    run = begin(store, "s1").id
    store.put_document(run, f"{KEPT}one", {"asked": 16, "said": KEY})
    store.put_document(run, "other", {"asked": 16})
    let_go(store, run)

    assert begin(store, "s2") == RunHandle(id=run, resumed=True)
    assert store.kept_documents(run, dict[str, object]) == {"one": {"asked": 16, "said": "«VLLM_API_KEY»"}}
    assert store.raw_document(run, "other") is None
    assert store.kept_documents("nobody's run", dict[str, object]) == {}


def test_a_run_that_a_living_process_holds_is_not_resumed(store: Store) -> None:
    run = begin(store, "s1").id

    assert begin(store, "s2").id != run
    with pytest.raises(StoreError, match="none of this plan"):
        begin(store, "s3", resume="resume")


@pytest.mark.parametrize("change", ["plan", "version", "age", "finished", "host", "fresh"])
def test_what_is_not_resumed(store: Store, clock: Clock, change: str) -> None:
    run = begin(store, "s1").id
    let_go(store, run)
    if change == "age":
        clock.at += 6 * HOUR
    if change == "finished":
        store.finish(run)
        store.put_document(run, JUDGED, {})
    if change == "host":
        with sqlite3.connect(store.path) as db:
            db.execute("UPDATE runs SET host = 'elsewhere'")
        db.close()

    again = begin(
        store,
        "s2",
        plan="other" if change == "plan" else "plan",
        version="2.0" if change == "version" else "1.0",
        resume="fresh" if change == "fresh" else "auto",
    )

    assert again.id != run
    assert not again.resumed


def test_asking_to_resume_takes_an_unfinished_run_however_old(store: Store, clock: Clock) -> None:
    run = begin(store, "s1").id
    let_go(store, run)
    clock.at += 1000 * HOUR

    assert begin(store, "s2", resume="resume") == RunHandle(id=run, resumed=True)


def test_only_the_newest_free_run_of_a_plan_is_looked_at(store: Store, clock: Clock) -> None:
    crashed = begin(store, "s1").id
    let_go(store, crashed)
    clock.at += 1
    held = begin(store, "s2", resume="fresh").id
    clock.at += 1

    assert begin(store, "s3").id == crashed

    store.finish(held)
    store.put_document(held, JUDGED, {})
    let_go(store, crashed)
    let_go(store, held)
    assert begin(store, "s4").id not in (crashed, held)


def test_asking_to_resume_nothing_says_what_was_looked_for(store: Store) -> None:
    with pytest.raises(StoreError, match=r"unfinished and free; run again without --parity-resume"):
        begin(store, resume="resume")

    assert store.runs() == []


def test_a_run_whose_process_is_gone_goes_on(store: Store) -> None:
    run = begin(store, "s1").id
    with sqlite3.connect(store.path) as db:
        # Higher than any process id the system hands out.
        db.execute("UPDATE holders SET pid = 2147483000 WHERE run = ?", (run,))
    db.close()

    assert begin(store, "s2").id == run


def test_the_latest_run_is_the_newest_finished_one(store: Store, clock: Clock) -> None:
    assert store.latest() is None
    ids = []
    for number, plan in enumerate(["a", "b", "a", "a"]):
        ids.append(begin(store, f"s{number}", plan=plan, resume="fresh").id)
        clock.at += 1
    unfinished = store.latest()
    store.finish(ids[1])
    store.finish(ids[2])

    assert unfinished is not None
    assert unfinished.id == ids[3]
    assert [run and run.id for run in (store.latest(), store.latest("a"), store.latest("b"))] == [
        ids[2],
        ids[2],
        ids[1],
    ]
    assert store.latest("c") is None
    ended = store.latest(ended=ids[3:])
    assert ended is not None
    assert ended.id == ids[3]
    finished = store.latest()
    assert finished is not None
    assert (finished.plan_hash, finished.version, finished.finished) == ("a", "1.0", clock.at)


# -- engines and notes ------------------------------------------------------------------------------------------------


def test_an_engine_of_an_unknown_run_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="FOREIGN KEY"):
        store.put_engine("20200101-000000-0000", "f16", "spec", identity())


@pytest.mark.parametrize(
    ("spec", "now", "dropped"),
    [("spec", identity(), False), ("other", identity(), True), ("spec", identity(model="tiny", build="b2"), True)],
)
def test_a_resumed_run_drops_samples_of_an_engine_that_changed(
    store: Store, spec: str, now: Identity, dropped: bool
) -> None:
    run = begin(store, "s1").id
    assert store.put_engine(run, "f16", "spec", identity()) is False
    names = ("f16", "f16@1", "f16@2", "f16b", "F16@1")
    store.put(run, [msgspec.structs.replace(sample(), engine=name) for name in names])
    let_go(store, run)
    begin(store, "s2")

    assert store.put_engine(run, "f16", spec, now) is dropped

    left = [name for name in names if store.get(run, name)]
    assert left == (["f16b", "F16@1"] if dropped else list(names)), "with what each replica answered for itself"
    # Only the first word after the resume is held against the old one; workers repeat it.
    assert store.put_engine(run, "f16", "third", identity(model="x")) is False


def test_a_note_is_replaced_and_masked(store: Store) -> None:
    run = begin(store).id
    store.put_document(run, "state", {"old": 1})

    store.put_document(run, "state", {"errors": [f"bad {KEY}"], "n": None})

    assert store.raw_document(run, "state") == {"errors": ["bad «VLLM_API_KEY»"], "n": None}
    assert store.raw_document(run, "other") is None


# -- samples ----------------------------------------------------------------------------------------------------------

words = st.text(st.characters(), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
tokens = st.builds(
    TokenLogprob,
    token=st.binary(max_size=4),
    logprob=st.none() | finite,
    top=st.lists(st.tuples(st.binary(max_size=4), finite | st.just(-math.inf)), max_size=2).map(tuple),
    id=st.none() | st.integers(0, 2**31),
)
completions = st.builds(
    Completion,
    text=words,
    reasoning=words,
    tool_calls=st.lists(st.builds(ToolCall, name=words, arguments=words, id=words), max_size=2).map(tuple),
    finish_reason=words,
    prompt_tokens=st.none() | st.integers(0, 10**9),
    logprobs=st.lists(tokens, max_size=3).map(tuple),
    server=st.dictionaries(words, finite, max_size=2),
    normalised=st.lists(words, max_size=2).map(tuple),
)
timings = st.builds(
    Timing,
    ttfb_s=finite,
    ttft_s=st.none() | finite,
    e2e_s=finite | st.just(math.inf),
    gaps_s=st.lists(finite, max_size=3).map(tuple),
    block=st.integers(-1, 10),
)


@example(completion=Completion(text=""), timing=None, omitted=("\ud800",))
@given(completion=completions, timing=st.none() | timings, omitted=st.lists(words, max_size=2).map(tuple))
def test_a_sample_comes_back_as_it_was(completion: Completion, timing: Timing | None, omitted: tuple[str, ...]) -> None:
    stored = msgspec.structs.replace(sample(), completion=completion, timing=timing, omitted=omitted)

    row = (7, *row_of("run", stored)[1:])
    content = {7: pack_tokens(completion.logprobs)}
    assert sample_from(row, lambda number, use: use(Whole(content[number]))) == stored


def test_hostile_text_comes_back_as_it_was(store: Store) -> None:
    run = begin(store).id
    texts = [
        "\x00\x1b[2J",
        "\ud83d\ude00 as two halves: \ud83d" + "\ude00",
        "\ud800",
        "x" * 5_000_000,
        "'; DROP TABLE samples",
    ]
    samples = [sample(f"c{number}", text=text) for number, text in enumerate(texts)]

    store.put(run, samples)

    assert store.get(run, "f16") == samples


@pytest.mark.parametrize("text", ["answer", ',"logprobs":[[1', 'said ,"token_ends":[],"logprobs":[', "\ud800"])
def test_token_records_come_back_when_they_are_asked_for(store: Store, text: str) -> None:
    tokens = (
        TokenLogprob(token=b"an", logprob=-0.1, top=((b"an", -0.1), (b"\xff", -2.0))),
        TokenLogprob(token=b"swer", logprob=None),
    )
    run = begin(store).id
    kept = [sample("a", text=text), sample("b", text=text)]
    kept[1] = msgspec.structs.replace(kept[1], completion=Completion(text=text, finish_reason="stop", logprobs=tokens))
    store.put(run, kept)
    plain, told = (stored.completion for stored in store.get(run, "f16"))

    assert plain is not None
    assert told is not None
    assert not plain.logprobs
    assert len(told.logprobs) == 2
    assert told.logprobs[1] == tokens[1]
    assert tuple(told.logprobs) == tokens
    assert msgspec.structs.replace(told, logprobs=()) == Completion(text=text, finish_reason="stop")


def told(*logprobs: float) -> Sample:
    """Return a sample whose answer has a token with each of these probabilities."""
    records = tuple(TokenLogprob(token=b"t", logprob=value) for value in logprobs)
    return sample(completion=Completion(text="t" * len(records), logprobs=records))


def test_token_records_of_an_answer_that_was_replaced_are_the_new_ones(store: Store) -> None:
    run = begin(store).id
    store.put(run, [told(-1.0)])
    (before,) = store.get(run, "f16")

    store.put(run, [told(-2.0)])

    assert before.completion is not None
    assert before.completion.logprobs[0].logprob == -2.0
    assert store.get(run, "f16") == [told(-2.0)]
    store.put(run, [sample()])
    assert store.get(run, "f16") == [sample()], "it has none"
    assert before.completion.logprobs
    with pytest.raises(StoreError, match="was removed"):
        _ = before.completion.logprobs[0]


@pytest.mark.parametrize(
    "pieces", [[b"t"], [b"t"] * 2, [b"t"] * 4, [b"t"] * 90, [b"longer", b"t", b"tokens"], [b"t", b"tokens", b"t"]]
)
def test_token_records_of_another_answer_than_the_one_that_is_judged_are_refused(
    store: Store, pieces: list[bytes]
) -> None:
    """Another process goes on with the run meanwhile and replaces the answer by one of other tokens."""
    run = begin(store).id
    store.put(run, [told(-1.0, -1.0, -1.0)])
    (before,) = store.get(run, "f16")
    records = tuple(TokenLogprob(token=piece, logprob=-2.0) for piece in pieces)
    text = b"".join(pieces).decode()

    store.put(run, [sample(completion=Completion(text=text, logprobs=records))])

    assert before.completion is not None
    with pytest.raises(StoreError, match=r"was replaced by another one while it was judged.*judge it again"):
        _ = before.completion.logprobs[:]
    with pytest.raises(StoreError, match="was replaced by another one"):
        _ = before.completion.logprobs[1], before.completion.logprobs[0]
    (now,) = store.get(run, "f16")
    assert now.completion is not None
    assert tuple(now.completion.logprobs) == records


def test_token_records_go_with_their_answer_and_whoever_asks_for_them_is_told(store: Store, tmp_path: Path) -> None:
    run = begin(store).id
    store.put(run, [told(-1.0)])
    (before,) = store.get(run, "f16")
    store.finish(run)
    store.put_document(run, JUDGED, {})
    store.release(run)

    assert store.prune(0) == [run]

    assert before.completion is not None
    with pytest.raises(StoreError, match=rf"an answer of run {run} was removed from .* while it was judged"):
        before.completion.logprobs[0]
    other = begin(store, "s2").id
    store.put(other, [told(-3.0)])
    with pytest.raises(StoreError, match="was removed"):
        before.completion.logprobs[0]
    with sqlite3.connect(tmp_path / ".llmparity" / "samples.sqlite") as db:
        assert db.execute("SELECT count(*) FROM tokens").fetchone() == (1,)
    db.close()


def test_samples_come_sorted_and_by_phase(store: Store) -> None:
    run = begin(store).id
    repeats = [sample("b", repeat=1), sample("b", repeat=0), sample("a"), sample("a", Phase.COLD)]

    store.put(run, repeats)

    assert store.get(run, "f16") == [repeats[3], repeats[2], repeats[1], repeats[0]]
    assert store.get(run, "f16", phases=[Phase.COLD, Phase.WARM]) == [repeats[3]]
    assert store.get(run, "f16", phases=[]) == []
    assert store.get(run, "q4") == []


def test_a_run_reads_no_other_run(store: Store) -> None:
    first, second = begin(store, "s1").id, begin(store, "s2", resume="fresh").id
    store.put(first, [sample()])

    assert store.get(second, "f16") == []
    assert store.have(second, "f16") == set()


def test_the_same_key_is_replaced_and_any_other_part_of_it_is_kept_apart(store: Store) -> None:
    run = begin(store).id
    store.put(run, [sample(completion=None, failure=Failure(kind="Timeout", message="late"))])
    again = sample(attempts=2)
    others = [
        sample(repeat=1),
        sample(concurrency=8),
        sample(phase=Phase.WARM),
        msgspec.structs.replace(again, request_sha256="x"),
    ]

    store.put(run, [again, *others])

    assert store.have(run, "f16") == {key_of(stored) for stored in (again, *others)}
    assert Key("sha-c1", "c1", Phase.MAIN, 0, 1) in store.have(run, "f16")
    assert again in store.get(run, "f16")
    assert all(stored.failure is None for stored in store.get(run, "f16"))


def test_a_failure_is_kept_without_the_key_it_echoes(store: Store) -> None:
    run = begin(store).id
    failure = Failure(kind="Overloaded", message=f"busy, key {KEY}", status=429)
    store.put(run, [sample("c2", completion=None, failure=failure)])

    (kept,) = store.get(run, "f16")

    assert kept.failure == Failure(kind="Overloaded", message="busy, key «VLLM_API_KEY»", status=429)


def test_a_key_echoed_by_a_server_is_in_no_file(store: Store) -> None:
    run = begin(store).id
    store.put(run, [sample(text=f"your key is {KEY}")])
    store.put_engine(run, "f16", "spec", identity(model=f"m {KEY}"))

    kept = {path.name: path.read_bytes() for path in store.path.parent.iterdir()}

    assert any("«VLLM_API_KEY»".encode() in content for content in kept.values())
    assert not [name for name, content in kept.items() if KEY.encode() in content]


def test_a_block_that_raises_writes_nothing(store: Store) -> None:
    run = begin(store).id
    broken = sample("c2", attempts=object())

    with pytest.raises(StoreError, match="cannot be used"):
        store.put(run, [sample("c1"), broken])

    assert store.get(run, "f16") == []
    store.put(run, [sample("c1")])
    assert store.get(run, "f16") == [sample("c1")]


def test_a_closed_store_says_so_and_closes_twice(store: Store) -> None:
    store.close()
    store.close()

    with pytest.raises(StoreError, match="closed database"):
        store.runs()


# -- several at once --------------------------------------------------------------------------------------------------

WRITER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from pytest_llmparity.core.sample import Completion, Phase, Sample
    from pytest_llmparity.store.runs import Store

    folder, session, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    store = Store.open(folder)
    run = store.begin(plan_hash="plan", session=session, version="1.0").id
    print(run, flush=True)
    for number in range(count):
        answer = Completion(text=f"{session} {number}")
        store.put(run, [Sample(engine="f16", case=str(number), phase=Phase.MAIN, completion=answer)])
        print(number, flush=True)
    store.finish(run)
    store.put_document(run, "judged", {})
    """
)


def writer(folder: Path, session: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), session, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_a_probe_that_saw_less_this_time_makes_no_other_engine(store: Store) -> None:
    told = Fact(value="sha256:1", source="reported")
    run = begin(store, "s1").id
    store.put_engine(run, "f16", "spec", Identity(facts={"digest": told, "slots": Fact(value=4, source="probed")}))
    let_go(store, run)
    begin(store, "s2")

    again = Identity(facts={"digest": told, "slots": Fact(value=1, source="probed")})

    assert not store.put_engine(run, "f16", "spec", again)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_what_a_killed_process_had_put_is_there_and_its_run_goes_on(tmp_path: Path) -> None:
    with writer(tmp_path, "s1", 1_000_000) as process:
        assert process.stdout is not None
        run = process.stdout.readline().strip()
        seen = [int(process.stdout.readline()) for _ in range(20)]
        process.send_signal(signal.SIGKILL)
        seen += [int(line) for line in process.stdout if line.endswith("\n")]

    with Store.open(tmp_path) as store:
        resumed = begin(store, "s2", resume="resume")
        cases = {stored.case for stored in store.get(run, "f16")}

    assert process.returncode == -signal.SIGKILL
    assert resumed == RunHandle(id=run, resumed=True)
    assert {str(number) for number in seen} <= cases


@pytest.mark.slow
def test_two_processes_write_at_once_to_runs_of_their_own(tmp_path: Path) -> None:
    # Neither folder nor file is there when both start.
    with writer(tmp_path / "new", "s1", 50) as first, writer(tmp_path / "new", "s2", 50) as second:
        outputs = [process.communicate()[0].split() for process in (first, second)]

    with Store.open(tmp_path / "new") as store:
        texts = [[s.completion.text for s in store.get(out[0], "f16") if s.completion] for out in outputs]

    assert (first.returncode, second.returncode) == (0, 0)
    assert sorted(texts[0]) == sorted(f"s1 {number}" for number in range(50))
    assert sorted(texts[1]) == sorted(f"s2 {number}" for number in range(50))


def test_threads_share_one_store(store: Store) -> None:
    run = begin(store).id

    def work(name: str) -> None:
        for number in range(30):
            store.put(run, [sample(f"{name}-{number}")])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(store.have(run, "f16")) == 120


def test_a_file_that_stays_locked_is_an_error_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    first = Database(path, schema="CREATE TABLE t (x);", format=1)
    second = Database(path, schema="", format=1, busy_s=0.05)
    with first.write() as db:
        db.execute("INSERT INTO t VALUES (1)")

        with pytest.raises(StoreError, match=r"has held .*x\.sqlite for 0\.05 s"), second.write():
            pass
        assert second.read("SELECT * FROM t") == []

    assert second.read("SELECT * FROM t") == [(1,)]
    first.close()
    second.close()


def test_opening_waits_for_whoever_is_opening(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    ready, go = threading.Event(), threading.Event()

    def hold() -> None:
        import filelock

        with filelock.FileLock(path.with_suffix(".lock")):
            ready.set()
            go.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    ready.wait()
    with pytest.raises(StoreError, match=r"has been opening .*x\.sqlite for 0\.05 s"):
        Database(path, schema="", format=1, busy_s=0.05)
    go.set()
    holder.join()


# -- the noise floor --------------------------------------------------------------------------------------------------


def measure_floor(
    store: Store, session: str = "s1", *, known: Identity | None = None, cases: str = "ab"
) -> list[Sample]:
    run = begin(store, session, resume="fresh").id
    store.put_engine(run, "old-name", "spec", known or identity())
    floor = [
        msgspec.structs.replace(sample(case, phase, concurrency=8), engine="old-name")
        for phase in (Phase.COLD, Phase.PARALLEL, Phase.WARM)
        for case in cases
    ]
    others = [
        sample("a", concurrency=8),
        sample("a", Phase.WARM),
        sample("z", Phase.WARM, completion=None, concurrency=8),
    ]
    failed = msgspec.structs.replace(others[2], failure=Failure(kind="Timeout", message="late"))
    store.put(run, [*floor, *(msgspec.structs.replace(copied, engine="old-name") for copied in (*others[:2], failed))])
    return floor


def reuse(store: Store, **change: object) -> list[Sample]:
    asked = {"spec_hash": "spec", "identity": identity(), "concurrency": 8, "version": "1.0", **change}
    return store.reusable_floor(**asked)  # type: ignore[arg-type]


def test_a_floor_of_the_very_same_engine_is_reused(store: Store) -> None:
    floor = measure_floor(store)

    assert reuse(store) == floor


@pytest.mark.parametrize(
    "change",
    [
        {"spec_hash": "other"},
        {"concurrency": 4},
        {"version": "2.0"},
        {"identity": identity(model="tiny", context_length=4096)},
        {"identity": identity("declared")},
        {"identity": Identity()},
    ],
    ids=["spec", "concurrency", "version", "identity", "not reported", "nothing known"],
)
def test_a_floor_of_anything_else_is_not(store: Store, change: dict[str, object]) -> None:
    measure_floor(store)

    assert reuse(store, **change) == []


def test_a_floor_measured_on_an_identity_that_was_only_declared_is_not_reused(store: Store) -> None:
    measure_floor(store, known=identity("declared"))

    assert reuse(store) == []
    assert reuse(store, identity=identity("declared")) == []


def test_the_newest_run_that_has_everything_wanted_is_taken(store: Store, clock: Clock) -> None:
    older = measure_floor(store, "s1", cases="ab")
    clock.at += 1
    newer = measure_floor(store, "s2", cases="a")

    assert reuse(store) == newer
    assert reuse(store, wanted={key_of(stored): 0 for stored in older}) == older
    assert reuse(store, wanted={key_of(newer[0]): 0}) == newer[:1]
    assert reuse(store, wanted={Key("sha", "q", Phase.COLD, 0, 8): 0}) == []


def test_a_floor_whose_answers_were_cut_sooner_than_they_are_read_is_not_reused(store: Store) -> None:
    run = begin(store, "s1", resume="fresh").id
    store.put_engine(run, "old-name", "spec", identity())
    cut = Completion(text="x", finish_reason="length", completion_tokens=32, max_tokens=32)
    ended = Completion(text="x", finish_reason="stop", completion_tokens=3, max_tokens=32)
    floor = [
        msgspec.structs.replace(sample(case, Phase.COLD, concurrency=8), engine="old-name", completion=completion)
        for case, completion in (("a", cut), ("b", ended))
    ]
    store.put(run, floor)
    keys = [key_of(stored) for stored in floor]

    assert reuse(store, wanted=dict.fromkeys(keys, 32)) == floor
    assert reuse(store, wanted=dict.fromkeys(keys, 48)) == []
    assert reuse(store, wanted={keys[1]: 48}) == floor[1:]


def test_a_run_without_a_floor_is_passed_over(store: Store, clock: Clock) -> None:
    floor = measure_floor(store)
    clock.at += 1
    run = begin(store, "s2", resume="fresh").id
    store.put_engine(run, "f16", "spec", identity())

    assert reuse(store) == floor


# -- looks ------------------------------------------------------------------------------------------------------------


def judged(store: Store, *looks: tuple[str, Outcome]) -> None:
    for digest, outcome in looks:
        store.look("t", "text()", "f16|q4", digest, outcome)


@pytest.mark.parametrize(
    ("looks", "expected"),
    [
        ([], 0),
        ([("64", Outcome.INCONCLUSIVE)], 1),
        ([("128", Outcome.INCONCLUSIVE)], 0),
        ([("64", Outcome.INCONCLUSIVE), ("96", Outcome.INCONCLUSIVE)], 2),
        ([("64", Outcome.INCONCLUSIVE), ("64", Outcome.INCONCLUSIVE)], 1),
        ([("64", Outcome.INCONCLUSIVE), ("128", Outcome.INCONCLUSIVE)], 1),
        ([("64", Outcome.INCONCLUSIVE), ("96", Outcome.PASS)], 0),
        ([("64", Outcome.INCONCLUSIVE), ("96", Outcome.FAIL)], 0),
        ([("64", Outcome.INCONCLUSIVE), ("96", Outcome.ERROR)], 1),
        ([("64", Outcome.INCOMPARABLE)], 0),
    ],
)
def test_only_more_prompts_after_an_open_verdict_count_as_a_look(
    store: Store, looks: list[tuple[str, Outcome]], expected: int
) -> None:
    judged(store, *looks)

    assert store.looks("t", "text()", "f16|q4", "128") == expected


def test_evidence_that_is_continued_is_no_new_look(store: Store) -> None:
    question = ("t", "text()", "f16|q4")
    judged(store, ("64", Outcome.INCONCLUSIVE), ("96", Outcome.INCONCLUSIVE))

    assert store.looks(*question, "128", continued=True) == 1
    store.look(*question, "128", Outcome.INCONCLUSIVE, continued=True)
    assert store.looks(*question, "128") == 1
    assert store.looks(*question, "160") == 2


def test_looks_are_counted_for_each_test_check_and_pair(store: Store) -> None:
    judged(store, ("64", Outcome.INCONCLUSIVE))

    assert store.looks("t", "text()", "f16|q8", "128") == 0
    assert store.looks("t", "schema()", "f16|q4", "128") == 0
    assert store.looks("u", "text()", "f16|q4", "128") == 0


def damaged(way: str, path: Path) -> None:
    """Damage a store's file as an editor, a full disk, a copy that broke off or another program does."""
    content = path.read_bytes()
    page = 4096
    if way == "a folder in its place":
        path.unlink()
        path.mkdir()
        return
    path.write_bytes(
        {
            "text in its place": b"this is no database\n" * 500,
            "header overwritten": b"\0" * 100 + content[100:],
            "cut in the middle of a page": content[: page + page // 2],
            "only its first page": content[:page],
            "zeros after the first page": content[:page] + b"\0" * (len(content) - page),
            "noise after the first page": content[:page] + b"\x5a\xa5" * ((len(content) - page) // 2),
            "pages of two files mixed": content[:page] + content[2 * page :] + content[page : 2 * page],
        }[way]
    )


@pytest.mark.parametrize(
    "way",
    [
        *("a folder in its place", "text in its place", "header overwritten", "cut in the middle of a page"),
        *("only its first page", "zeros after the first page", "noise after the first page"),
        "pages of two files mixed",
    ],
)
def test_a_damaged_file_is_told_with_its_name_and_gives_no_wrong_answer(tmp_path: Path, way: str) -> None:
    with Store.open(tmp_path / "s") as store:
        run = begin(store).id
        answers = [sample(f"c{number}", text="an answer " * 40) for number in range(60)]
        store.put(run, answers)
        path = store.path
    for beside in path.parent.glob("samples.sqlite-*"):
        beside.unlink()
    damaged(way, path)

    kept: list[Sample] = []
    told = "samples.sqlite"
    try:
        with Store.open(tmp_path / "s") as store:
            kept = store.get(run, "f16")
    except StoreError as error:
        told = str(error)

    assert "samples.sqlite" in told
    assert kept in ([], answers), "all of it or nothing, where the damage does not show"


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes cannot be limited there")
def test_a_full_disk_loses_nothing_that_was_there(tmp_path: Path) -> None:
    import resource

    with Store.open(tmp_path / "s") as store:
        run = begin(store).id
        store.put(run, [sample("before")])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        largest = max(file.stat().st_size for file in store.path.parent.iterdir())
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 4096, hard))
        try:
            with pytest.raises(StoreError, match=r"samples\.sqlite"):
                store.put(run, [sample(f"c{number}", text="x" * 5000) for number in range(200)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        store.put(run, [sample("after")])

    with Store.open(tmp_path / "s") as store:
        assert [stored.case for stored in store.get(run, "f16")] == ["after", "before"]


@pytest.mark.parametrize(
    ("whole", "failed", "age", "kept"),
    [(True, False, 0, True), (False, False, 0, False), (True, True, 0, False), (True, False, 7 * 3600, False)],
)
def test_a_run_that_was_judged_is_judged_again_where_nothing_is_missing(
    tmp_path: Path, *, whole: bool, failed: bool, age: float, kept: bool
) -> None:
    moment = [1000.0]
    with Store.open(tmp_path, now=lambda: moment[0]) as store:
        first = begin(store)
        late = sample(completion=None, failure=Failure(kind="Timeout", message="no answer"))
        store.put(first.id, [late if failed else sample()])
        store.put_document(first.id, GATHERED, {"requests": 1})
        store.finish(first.id)
        store.put_document(first.id, JUDGED, {"worst": "PASS"})
        moment[0] += age
        seen: list[float] = []

        def complete(state: object, began: float) -> bool:
            seen.append(began)
            return whole

        again = begin(store, session="s2", resume="judged", whole=complete)

        assert (again.id == first.id, again.kept) == (kept, kept)
        assert seen in ([], [1000.0]), "when it began is told"
        assert len(store.get(first.id, "f16")) == 1, "of a run that is not taken nothing goes"
        assert begin(store, session="s3", resume="auto").id not in {first.id}
