"""What a kind says of how its server is started."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pytest_llmparity.keeper.client import Removal


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How one engine process is started and stopped.

    ``env`` is laid over the inherited environment after every variable that matches a pattern of ``scrub``
    (``fnmatch``) was taken out of it. ``deadline_s`` is the time to become ready; ``stop_signal`` is followed by
    SIGKILL to the whole tree after ``grace_s``.

    Of an engine in a container ``argv`` begins with its program in the image and is meant inside of it, until
    ``start.container.contained`` has made a command line of the runtime of it. ``reads`` are the files and folders that
    it names, ``caches`` folders of models by their place inside, written to where ``download`` is set; ``beside_model``
    says that it runs in the folder its model is in. ``removal`` is there where a container has to be removed.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    scrub: tuple[str, ...] = ()
    cwd: Path
    deadline_s: float
    stop_signal: int = signal.SIGTERM
    grace_s: float = 10.0
    reads: tuple[Path, ...] = ()
    caches: Mapping[str, Path] = field(default_factory=dict)
    beside_model: bool = False
    removal: Removal | None = None
