"""Answers of real engines with their logprobs, written small: what ``benchmarks/record_draws.py`` keeps in fixtures.

A recording is JSON Lines, compressed with LZMA. Its first line says what it is: the command that made it and when, the
prompts, the engines with what each said of itself, and the spelling of every token. Every other line is one answer;
the repeats of an engine that were equal to its first answer have no line of their own. Logprobs are in thousandths of a
nat; a logprob that was not finite is ``null``. A candidate's answer ends with the token in which it parts from the last
of the baselines that it follows, because nothing reads what comes behind.
"""

from __future__ import annotations

import json
import lzma
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.evidence import FLOOR_PHASES
from pytest_llmparity.core.sample import Completion, Fact, Identity, Phase, Sample, TokenLogprob

FORMAT: Final = 1
UNIT: Final = 1000
"""Logprobs are kept in parts of a nat of this size."""
FACTS: Final = ("kind", "version", "quantization", "digest", "kv_cache", "template_sha256")
"""What is kept of an engine's identity; nothing of the machine."""
ALL_PHASES: Final = (Phase.MAIN, *FLOOR_PHASES)

Answers = Mapping[Phase, Mapping[str, Completion]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One engine's answers by phase and case, and what it was."""

    name: str
    kind: str
    quantization: str | None
    identity: Identity
    answers: Answers

    def samples(self, cases: Iterable[str], phase: Phase = Phase.MAIN) -> dict[str, list[Sample]]:
        """Return the answers to some of the cases as a run has them; cases without one are left out."""
        there = self.answers.get(phase, {})
        return {
            case: [Sample(engine=self.name, case=case, phase=phase, completion=there[case])]
            for case in cases
            if case in there
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A whole recording: what was asked, by which command and when, and every engine's answers."""

    about: Mapping[str, Any]
    engines: Mapping[str, Recorded]


def write(path: Path, *, about: Mapping[str, Any], engines: Sequence[Recorded], baselines: Sequence[str]) -> None:
    """Write a recording; the answers of ``baselines`` are kept whole."""
    tokens = _Tokens()
    against = [engine.answers[Phase.MAIN] for engine in engines if engine.name in baselines]
    lines = []
    for engine in engines:
        main = engine.answers[Phase.MAIN]
        for phase in ALL_PHASES:
            for case, answer in engine.answers.get(phase, {}).items():
                whole = engine.name in baselines
                row = _row(answer, tokens, _kept(answer, [] if whole else [other[case] for other in against]))
                if phase is Phase.MAIN or row != _row(main[case], tokens, len(row["t"])):
                    lines.append({"e": engine.name, "c": case, **({} if phase is Phase.MAIN else {"p": phase}), **row})
    head = {
        "format": FORMAT,
        **about,
        "engines": {engine.name: _about(engine) for engine in engines},
        "tokens": [token.decode("latin-1") for token in tokens.known],
    }
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in (head, *lines))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def read(path: Path) -> Recording:
    """Read a recording."""
    first, *lines = lzma.decompress(path.read_bytes()).decode().splitlines()
    head = json.loads(first)
    tokens = [token.encode("latin-1") for token in head.pop("tokens")]
    answers: dict[str, dict[Phase, dict[str, Completion]]] = {name: {Phase.MAIN: {}} for name in head["engines"]}
    limit = int(head["max_tokens"])
    for line in lines:
        row = json.loads(line)
        phase = Phase(row.get("p", Phase.MAIN))
        answers[row["e"]].setdefault(phase, {})[row["c"]] = _completion(row, tokens, limit)
    engines = {}
    for name, told in head["engines"].items():
        main = answers[name][Phase.MAIN]
        for phase in told["repeated"]:
            differing = answers[name].get(Phase(phase), {})
            answers[name][Phase(phase)] = {case: differing.get(case, answer) for case, answer in main.items()}
        facts = {key: Fact(value=value, source="reported") for key, value in told["identity"].items()}
        engines[name] = Recorded(
            name=name,
            kind=told["kind"],
            quantization=told["quantization"],
            identity=Identity(facts=facts),
            answers=answers[name],
        )
    return Recording(about=head, engines=engines)


class _Tokens:
    """Numbers of spellings, in the order in which they come."""

    def __init__(self) -> None:
        self.known: dict[bytes, int] = {}

    def number(self, token: bytes) -> int:
        return self.known.setdefault(token, len(self.known))


def _about(engine: Recorded) -> dict[str, Any]:
    kept = {name: fact.value for name, fact in sorted(engine.identity.facts.items()) if name in FACTS}
    repeated = [phase for phase in FLOOR_PHASES if engine.answers.get(phase)]
    return {"kind": engine.kind, "quantization": engine.quantization, "identity": kept, "repeated": repeated}


def _kept(answer: Completion, others: Sequence[Completion]) -> int:
    """Return how many tokens of an answer some comparison with one of the others can read."""
    if not others:
        return len(answer.logprobs)
    ours = [entry.token for entry in answer.logprobs]
    longest = 0
    for other in others:
        theirs = [entry.token for entry in other.logprobs]
        same = next((at for at, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), None)
        longest = max(longest, len(ours) if same is None else same + 1)
    return longest


def _row(answer: Completion, tokens: _Tokens, kept: int) -> dict[str, Any]:
    """Return one answer: text, finish reason, tokens, and of each kept token the alternatives and their logprobs."""
    entries, text, finish = answer.logprobs[:kept], answer.text, answer.finish_reason
    if len(entries) < len(answer.logprobs):
        text, finish = b"".join(entry.token for entry in entries).decode("utf-8", "ignore"), "length"
    row: dict[str, Any] = {
        "x": text,
        "f": finish,
        "n": answer.completion_tokens,
        "t": [tokens.number(entry.token) for entry in entries],
        "a": [[tokens.number(token) for token, _ in entry.top] for entry in entries],
        "l": [[_milli(logprob) for _, logprob in entry.top] for entry in entries],
    }
    if any(entry.token not in dict(entry.top) for entry in entries):
        row["o"] = [_milli(entry.logprob) for entry in entries]
    return row


def _milli(logprob: float | None) -> int | None:
    return None if logprob is None or not math.isfinite(logprob) else round(logprob * UNIT)


def _nats(milli: int | None) -> float:
    return -math.inf if milli is None else milli / UNIT


def _completion(row: Mapping[str, Any], tokens: Sequence[bytes], limit: int) -> Completion:
    entries = []
    for at, (token, names, values) in enumerate(zip(row["t"], row["a"], row["l"], strict=True)):
        top = tuple((tokens[name], _nats(value)) for name, value in zip(names, values, strict=True))
        own = _nats(row["o"][at]) if "o" in row else dict(top).get(tokens[token])
        entries.append(TokenLogprob(token=tokens[token], logprob=own, top=top))
    return Completion(
        text=row["x"],
        finish_reason=row["f"],
        completion_tokens=row["n"],
        logprobs=tuple(entries),
        max_tokens=limit,
    )
