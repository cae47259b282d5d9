"""Answers that take part in place of an engine: whether the files that are named are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytest_llmparity.core.errors import EngineSelectionError
from pytest_llmparity.core.words.problems import nearest
from pytest_llmparity.settings.specification import GOLDEN, EngineSpec


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
