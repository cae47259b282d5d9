"""What options of a run forbid each other, what makes no sense with its engines, and answers that have no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.core.errors import ConfigError, EngineSelectionError, UsageError
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.settings.given import Given
from pytest_llmparity.settings.selection import Kind
from pytest_llmparity.settings.specification import GOLDEN, LOCAL, EngineSpec

if TYPE_CHECKING:
    from pytest_llmparity.core.gate.policy import Policy


def policy_of(given: Given, engines: Sequence[EngineSpec]) -> Policy | None:
    """Return the policy to decide by; raises ``UsageError`` where there will be nothing to decide."""
    file, named_by = given.policy, given.decides
    if not named_by:
        return None
    policy = None if file is None else read_policy(given.cwd / file, source=file, named_by=named_by)
    partly = {
        "case": given.cases,
        "update_golden": given.update_golden,
        "shard": given.shard,
        "tag": given.portion.tags,
        "sample": given.portion.most,
    }
    if option := next((given.spelt(name) for name, value in partly.items() if value), ""):
        raise UsageError(f"{named_by} decides about whole runs, and {option} makes none; leave one out")
    if policy is not None and len(engines) == 1:
        raise UsageError(
            f"{named_by} decides whether a candidate may replace a baseline, and only {engines[0].name} is selected; "
            "select both: --engines golden:NAME,CANDIDATE"
        )
    return policy


def read_policy(path: Path, *, source: str, named_by: str) -> Policy:
    """Return a policy; ``ConfigError`` says what is wrong with it. ``source`` is its file as messages name it."""
    from pytest_llmparity.core.gate.policy import parse_policy

    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{named_by}: {source} cannot be read: {error.strerror}") from None
    return parse_policy(content, source=source)


def check_update(given: Given, engines: Sequence[EngineSpec], *, frozen: bool) -> None:
    """Refuse to write golden answers where nobody would see it, or where they would not be whole."""
    option = given.spelt("update_golden")
    if given.update_golden is None:
        return
    if not given.live:
        raise UsageError(
            f"{option} writes what live engines answer, and {given.spelt('mode')} replay asks none; a stored run "
            "becomes golden by: llmparity golden from RUN"
        )
    if frozen:
        raise UsageError(_frozen(option, f"{given.spelt('frozen')} (or its setting)"))
    if given.cases:
        raise UsageError(f"{option} needs whole runs, and {given.spelt('case')} asks single cases; leave one out")
    if engines and all(spec.launch == "golden" or spec.recording is not None for spec in engines):
        raise UsageError(
            f"{option} writes what live engines answer, and only golden answers (or recordings) are selected"
        )
    if given.ci:
        raise UsageError(_unseen(option, given, allowed=given.spelt("update_golden_in_ci")))


def check_golden_verb(given: Given, verb: str, *, frozen: bool, allowed: str) -> None:
    """Refuse a command that changes golden answers where they may not change, or where nobody would see it.

    ``verb`` is the command as messages name it, ``allowed`` its option for a job that proposes the change.
    """
    if frozen:
        raise UsageError(_frozen(verb, "the setting frozen (or LLMPARITY_FROZEN)"))
    if given.ci:
        raise UsageError(_unseen(verb, given, allowed=allowed))


def _frozen(asked: str, forbids: str) -> str:
    return f"{asked} changes golden answers, and {forbids} forbids that; leave one out"


def _unseen(asked: str, given: Given, *, allowed: str) -> str:
    return (
        f"{asked} is refused where the variable {given.ci} is set: nobody would look at what it writes. Do it on a "
        f"machine of yours, or give {allowed} in a job that proposes the change"
    )


def check_shard(given: Given, *, sequential: bool) -> None:
    """Refuse what takes the whole of a run, of which a shard has a share."""
    if given.shard is None:
        return
    option = given.spelt("shard")
    if not given.live:
        raise UsageError(
            f"{option} asks a share of the cases, and {given.spelt('mode')} replay asks none; the shards of a run are "
            "judged by: llmparity merge"
        )
    if sequential:
        raise UsageError(
            f"{option} asks a share of the cases, and {given.spelt('sequential')} (or its setting) stops when all "
            "together settle something, which no shard can know; leave one out"
        )
    if given.cases:
        raise UsageError(f"{option} deals out all cases, and {given.spelt('case')} names some; leave one out")
    if given.update_golden is not None:
        raise UsageError(
            f"{given.spelt('update_golden')} writes whole sets, and {option} asks a share of each; leave it out, and "
            "after llmparity merge make the merged run golden: llmparity golden from RUN"
        )


def check_turns(engines: Sequence[EngineSpec], kinds: Mapping[str, Kind]) -> None:
    """Refuse servers that run elsewhere and cannot be told to unload, where one engine at a time may be in memory."""
    staying = [s for s in engines if s.launch == "attach" and not (s.kind is not None and kinds[s.kind].unloads)]
    if not staying or len(engines) < 2:
        return
    shown = ", ".join(f"{spec.name} ({spec.kind or 'of a kind that is not named'})" for spec in staying)
    raise UsageError(
        f"residency = 'one-at-a-time' keeps one engine in memory, and {shown} "
        f"{'runs' if len(staying) == 1 else 'run'} elsewhere and cannot be told to unload. Only these kinds can: "
        f"{', '.join(sorted(name for name, kind in kinds.items() if kind.unloads))} (a URL alone does not say which it "
        "is: write KIND:MODEL@URL). Leave base_url out so that it is started by us, or use residency = 'together'"
    )


def check_portion(given: Given) -> None:
    """Refuse what takes every prompt of a set, or names its prompts itself."""
    if not given.portion:
        return
    option = given.spelt("tag" if given.portion.tags else "sample")
    if given.cases:
        raise UsageError(
            f"{option} chooses prompts to be judged, and {given.spelt('case')} names some to be shown; leave one out"
        )
    if given.update_golden is not None:
        raise UsageError(
            f"{given.spelt('update_golden')} writes whole sets, and {option} asks a part of each; leave one out"
        )


def check_placed(engines: Sequence[EngineSpec], *, executor: str, residency: str) -> None:
    """Refuse engines in memory one at a time where they are started several times, or on machines of their own.

    And containers on a cluster whose GPUs are named for one machine: all on a node would take the same ones.
    """
    for spec in engines if executor != LOCAL else ():
        named = any("--gpus" in word or "nvidia.com/gpu" in word for word in spec.run_args)
        if spec.launched and (named or (spec.gpus is not None and not spec.num_gpus)):
            raise UsageError(
                f"[engines.{spec.name}] names the GPUs of its container by {'run_args' if named else 'gpus'}, and "
                f"executor = {executor!r} gives each replica its own; write num_gpus = 1, and its container sees those"
            )
    several = [spec.name for spec in engines if spec.replicas > 1]
    if residency != "one-at-a-time" or (executor == LOCAL and not several):
        return
    why = f"executor = {executor!r} gives each resources of its own" if executor != LOCAL else ""
    why = why or f"{', '.join(several)} {'has' if len(several) == 1 else 'have'} replicas, which run together"
    raise UsageError(
        f"residency = 'one-at-a-time' keeps one engine in the memory of this machine, and {why}; use residency = "
        "'together'"
    )


def check_recordable(spec: EngineSpec, *, executor: str = LOCAL) -> None:
    """Refuse to record an engine whose answers come in several places: they are noted as they come in, in one."""
    why = f"is started {spec.replicas} times (replicas)" if spec.replicas > 1 else ""
    if executor != LOCAL and spec.launched:
        why = why or f"would run on a cluster (executor = {executor!r})"
    if why:
        raise UsageError(
            f"llmparity record notes what one engine of this machine answers, and {spec.name} {why}; record it with "
            "replicas = 1 and --parity-executor local"
        )


def refuse_unknown_goldens(engines: Sequence[EngineSpec], root: Path) -> None:
    """Raise ``EngineSelectionError`` for a golden of which no file is there."""
    folder = root / GOLDEN
    for spec in engines:
        if spec.golden is None or any(folder.glob(f"*/{spec.golden}.jsonl")):
            continue
        paths = sorted(folder.glob("*/*.jsonl"))
        known = dict.fromkeys(path.stem for path in paths if not path.stem.endswith(".logprobs"))
        there = f"; there are those of: {', '.join(known)}" if known else ""
        raise EngineSelectionError(
            f"--engines: there are no golden answers of {spec.golden!r} in {folder}"
            f"{nearest(spec.golden, known)}{there}. Record them: "
            f"pytest --engines {spec.golden} --parity-update-golden missing"
        )


def refuse_unknown_recordings(engines: Sequence[EngineSpec]) -> None:
    """Raise ``EngineSelectionError`` for a recording of which no file is there."""
    for spec in engines:
        if spec.recording is None or spec.recording.is_file():
            continue
        folder, name = spec.recording.parent, spec.recording.stem
        known = [path.stem for path in sorted(folder.glob("*.jsonl"))]
        there = f"; there are: {', '.join(known)}" if known else ""
        raise EngineSelectionError(
            f"--engines: there is no recording {name!r} in {folder}{nearest(name, known)}{there}. "
            f"Record it: llmparity record ENGINE -o {folder.name}/{name}.jsonl"
        )
