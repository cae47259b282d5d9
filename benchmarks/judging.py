"""Measure what it takes to judge a stored run again, and to open a store that holds many.

    python -m benchmarks.judging [--samples 1000 10000 100000] [--runs 50]

Every size is one run in a store of its own: two engines, half of its prompts answered in text of 64 tokens with the
logprobs of five alternatives each, as vLLM sends them, the others in JSON, and the noise floors of both engines. It is
replayed in a fresh process by the session that ``--parity-mode replay`` uses: text and similarity on the one half,
schema on the other, and what the summary says of the run. A thousand different answers of each engine are made with a
seed and repeat under other ids; nothing is remembered by text, so repeated ones cost what fresh ones do. Three texts of
five differ, behind a fork whose place is drawn; of the tickets one of fifty has another value, one of a hundred is cut.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pytest_llmparity import check
from pytest_llmparity.core.evidence import FLOOR_STAGES
from pytest_llmparity.core.sample import Completion, Fact, Identity, Phase, Sample, TokenLogprob, to_json
from pytest_llmparity.keeper.client import Keeper
from pytest_llmparity.report.progress import Silent
from pytest_llmparity.run.judge.asked import ASKED, asked_by
from pytest_llmparity.run.plan import floor_order, unit_of, wires_name
from pytest_llmparity.run.records import record_of
from pytest_llmparity.run.session import Session
from pytest_llmparity.settings.specification import EngineSpec, Settings
from pytest_llmparity.store.runs import GATHERED, Store

ENGINES: Final = {"prod": "F16", "laptop": "Q4_K_M"}
SETS: Final = ("texts", "tickets")
CONCURRENCY: Final = 8
TOKENS: Final = 64
DIFFERENT: Final = 1000
"""Answers of each engine and sort that are made; others repeat them."""
SCHEMA: Final = {
    "type": "object",
    "properties": {
        "category": {"enum": ["billing", "shipping", "technical"]},
        "priority": {"type": "integer", "minimum": 1, "maximum": 5},
        "summary": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "due": {"anyOf": [{"type": "null"}, {"type": "object", "properties": {"days": {"type": "integer"}}}]},
    },
    "required": ["category", "priority", "summary", "tags", "due"],
    "additionalProperties": False,
}
_TEXT: Final = """The customer wrote on Monday that her parcel had arrived with a broken lid and asked whether we could
send another one before the weekend. I looked up the order in the system and saw that it was packed by our partner in
Hamburg and handed to the carrier the same afternoon. Please tell her that we are sorry, that a new parcel leaves the
warehouse this evening and that she may keep the old one. A refund is possible as well if she would rather have the
money back, which takes up to 14 days with most banks. She does not have to send anything back. If the carrier asks for
photos of the damage she can reply to this message and attach them there, and support will pass them on."""
_WORDS: Final = _TEXT.split()


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row per size: seconds to read the prompts, to read the run, to judge it; the peak of memory.

    ``waits`` are seconds in which the process could have run and other processes had the processors (Linux).
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", nargs="*", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=50, help="runs in the store that is opened")
    parser.add_argument("--judge", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.judge:
        print(json.dumps(judged(options.judge)))
        return
    columns = ("prompts", "read", "judge", "all", "CPU", "waits", "peak", "store")
    print(f"{'samples':>8} {' '.join(f'{column:>9}' for column in columns)}")
    for size in options.samples:
        with tempfile.TemporaryDirectory(prefix="judging-") as folder:
            root = Path(folder)
            stored = gather(root, size)
            command = [sys.executable, "-m", "benchmarks.judging", "--judge", folder]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            seconds = " ".join(f"{row[name]:>7.2f} s" for name in ("prompts", "read", "judge", "all", "cpu", "waits"))
            megabytes = (root / ".llmparity" / "samples.sqlite").stat().st_size / 1e6
            print(f"{stored:>8,} {seconds} {row['peak_mb']:>6.0f} MB {megabytes:>6.0f} MB", flush=True)
    with tempfile.TemporaryDirectory(prefix="judging-") as folder:
        print(f"opening a store of {options.runs} runs: {opened(Path(folder), options.runs) * 1e3:.1f} ms")
        print(f"opening an empty one: {opened(Path(folder) / 'empty', 0) * 1e3:.1f} ms")


def gather(root: Path, size: int) -> int:
    """Write a run of about so many samples as a gathering would; return how many there are."""
    with Store.open(root / ".llmparity") as store:
        session = declared(root, max(40, (size - 2 * 3 * 32) // (2 * len(SETS))))
        run = store.begin(plan_hash="judging", session="judging", version="0").id
        specs = [EngineSpec(name=name, kind="vllm", base_url="http://127.0.0.1:9") for name in ENGINES]
        records: dict[str, Any] = {}
        stored = 0
        for spec in specs:
            identity = Identity(facts={"quantization": Fact(value=ENGINES[spec.name], source="reported")})
            store.put_engine(run, spec.name, spec.spec_hash, identity)
            records[spec.name] = to_json(record_of(spec, identity=identity))
            for declaration in session.gates.declarations():
                make = _text if declaration.test == SETS[0] else _ticket
                cases = {case.id: number for number, case in enumerate(declaration.prompts.cases)}
                answers = [make(spec.name, number) for number in range(min(DIFFERENT, len(cases)))]
                phases = {Phase.MAIN: list(cases)}
                for phase in sorted(declaration.needs().phases - {Phase.MAIN}):
                    phases[phase] = [case.id for case in floor_order(declaration.prompts)[: FLOOR_STAGES[0]]]
                store.put_document(
                    run, wires_name(spec.name, unit_of(declaration).key), {case: _sha(case) for case in cases}
                )
                samples = [
                    Sample(
                        engine=spec.name,
                        case=case,
                        phase=phase,
                        concurrency=1 if phase in (Phase.COLD, Phase.WARM) else CONCURRENCY,
                        request_sha256=_sha(case),
                        completion=answers[cases[case] % DIFFERENT],
                    )
                    for phase, ids in phases.items()
                    for case in ids
                ]
                _put(store, run, samples)
                stored += len(samples)
        store.put_document(run, ASKED, asked_by(session.gates.declarations()))
        store.put_document(run, GATHERED, {"engines": records, "baseline": "prod", "requests": stored})
        store.finish(run)
    return stored


def _put(store: Store, run: str, samples: Sequence[Sample]) -> None:
    """Write the first samples of a list as a run does, and copies of their rows for those that repeat an answer."""
    store.put(run, samples[:DIFFERENT])
    key = "run, engine, request_sha256, case_id, phase, repeat, concurrency"
    content = "completion, ends, spelled, failure, timing, attempts, omitted, prefix"
    ((last,),) = store._file.read("SELECT max(number) FROM samples")
    first = last + 1 - min(DIFFERENT, len(samples))
    with store._file.write() as db:
        for number, sample in enumerate(samples[DIFFERENT:]):
            original = first + number % DIFFERENT
            copy = db.execute(
                f"INSERT INTO samples ({key}, {content}) SELECT run, engine, ?, ?, ?, 0, ?, {content} FROM samples"
                " WHERE number = ?",
                (sample.request_sha256, sample.case, sample.phase, sample.concurrency, original),
            ).lastrowid
            db.execute("INSERT INTO tokens SELECT ?, content FROM tokens WHERE number = ?", (copy, original))


def judged(root: Path) -> dict[str, float]:
    """Replay the run in a folder; seconds of each step, and the most memory the process had."""
    begun, cpu, waited = time.perf_counter(), time.process_time(), _waited()
    session = declared(root)
    prompts = time.perf_counter()
    session.gather()
    read = time.perf_counter()
    verdicts = [v for test in SETS for v in session.settle(test, session.parity_run(test, reproduce=""))]
    session.record(verdicts)
    ended = time.perf_counter()
    session.close()
    assert len(verdicts) == 7, [verdict.message for verdict in verdicts]
    return {
        "prompts": prompts - begun,
        "read": read - prompts,
        "judge": ended - read,
        "all": ended - begun,
        "cpu": time.process_time() - cpu,
        "waits": _waited() - waited,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3),
    }


def _waited() -> float:
    """Return the seconds this process has waited for a processor, 0 where the system does not say."""
    schedule = Path("/proc/self/schedstat")
    return int(schedule.read_text().split()[1]) / 1e9 if schedule.exists() else 0.0


def declared(root: Path, prompts: int = 0) -> Session:
    """Return a session that has the two tests, with prompt files of so many rows where they are to be written."""
    root.mkdir(exist_ok=True)
    for name in SETS if prompts else ():
        rows = ({"id": f"{name}-{n}", "prompt": f"Answer question {n} of a customer."} for n in range(prompts))
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    session = Session(
        Settings(mode="replay", concurrency=CONCURRENCY),
        root=root,
        token="judging",
        keeper=_no_keeper,
        version="0",
        progress=Silent(),
    )
    checks = {
        "texts": (check.text(margin=0.05), check.similarity(at_least=0.5)),
        "tickets": (check.schema(SCHEMA, rate=0.5, gap=0.1, agree=0.5),),
    }
    for name in SETS:
        session.gates.declare(name, (f"{name}.jsonl", *checks[name]), {"max_tokens": TOKENS}, folder=root)
    return session


def _no_keeper() -> Keeper:
    raise AssertionError("a replay starts nothing")


def opened(folder: Path, runs: int) -> float:
    """Return the seconds it takes to open a store with so many runs and find the newest, at the median of 20."""
    with Store.open(folder) as store:
        for number in range(runs):
            run = store.begin(plan_hash="judging", session=f"{number}", version="0", resume="fresh").id
            store.put(run, [_sample(number, case) for case in range(40)])
            store.put_document(run, GATHERED, {"engines": {}, "baseline": None})
            store.finish(run)
    return _median(lambda: _newest(folder))


def _newest(folder: Path) -> None:
    with Store.open(folder) as store:
        store.latest()


def _median(work: Callable[[], None], times: int = 20) -> float:
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[times // 2]


def _sample(run: int, case: int) -> Sample:
    sha = _sha(f"{run}/{case}")
    return Sample(engine="prod", case=f"{case}", phase=Phase.MAIN, request_sha256=sha, completion=_text("prod", case))


def _sha(case: str) -> str:
    return f"{random.Random(case).getrandbits(256):064x}"


def _text(engine: str, number: int) -> Completion:
    """Return the same text for both engines up to a fork, and other words behind it; two answers of five have none."""
    rng = random.Random(number)
    tokens = [_token(rng) for _ in range(TOKENS)]
    fork = rng.randrange(TOKENS) if rng.random() < 0.6 else TOKENS
    if engine != "prod" and fork < TOKENS:
        first = tokens[fork]
        (second, lead), chosen = first.top[1], first.top[0]
        tokens[fork] = TokenLogprob(
            token=second, logprob=lead + 0.1, top=((second, lead + 0.1), chosen, *first.top[2:])
        )
        tokens[fork + 1 :] = [_token(rng) for _ in tokens[fork + 1 :]]
    return Completion(
        text=b"".join(token.token for token in tokens).decode(),
        finish_reason="length",
        prompt_tokens=20 + number % 50,
        completion_tokens=TOKENS,
        logprobs=tuple(tokens),
        model="Qwen/Qwen3-8B",
        max_tokens=TOKENS,
    )


def _token(rng: random.Random) -> TokenLogprob:
    logprobs = sorted((_single(-3 * rng.expovariate(1)) for _ in range(5)), reverse=True)
    top = tuple(zip((f" {word}".encode() for word in rng.sample(_WORDS, 5)), logprobs, strict=True))
    return TokenLogprob(token=top[0][0], logprob=logprobs[0], top=top)


def _single(value: float) -> float:
    """Return a number as a 32-bit float has it, which is what servers send."""
    (rounded,) = struct.unpack("f", struct.pack("f", value))
    return float(rounded)


def _ticket(engine: str, number: int) -> Completion:
    """Return a ticket as JSON: one of fifty with another value on the second engine, one of a hundred cut."""
    rng = random.Random(number)
    answer: dict[str, Any] = {
        "category": rng.choice(["billing", "shipping", "technical"]),
        "priority": rng.randint(1, 5),
        "summary": " ".join(rng.choices(_WORDS, k=12)),
        "tags": rng.sample(_WORDS, 3),
        "due": {"days": rng.randint(1, 30)} if rng.random() < 0.5 else None,
    }
    draw = rng.random()
    if engine != "prod" and draw < 0.02:
        answer["priority"] = answer["priority"] % 5 + 1
    text = json.dumps(answer)
    cut = engine != "prod" and 0.02 <= draw < 0.03
    return Completion(
        text=text[:-9] if cut else text,
        finish_reason="length" if cut else "stop",
        prompt_tokens=60 + number % 20,
        completion_tokens=TOKENS if cut else 48,
        model="Qwen/Qwen3-8B",
        max_tokens=TOKENS,
    )


if __name__ == "__main__":
    main()
