"""Programs that install what an engine needs, run by the keeper: they end with pytest, however it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.words.hiding import TextMask
from pytest_llmparity.keeper.client import Keeper, log_tail

GRACE_S = 5.0
"""What an installer that is interrupted gets to end by itself."""
LOOK_S = 0.5
"""How often it is looked whether the run was interrupted."""


class KeptRunner:
    """Runs one program at a time under the keeper, for one engine. Satisfies ``engines.start.environments.Runner``.

    The values of ``secrets`` are hidden in its log. When ``stop`` returns a reason the program is ended and
    ``LaunchError`` says why.
    """

    def __init__(
        self,
        engine: str,
        keeper: Callable[[], Keeper],
        stop: Callable[[], str | None],
        secrets: Mapping[str, str] | None = None,
    ) -> None:
        self._engine = engine
        self._name = f"{engine} installer"
        self._keeper = keeper
        self._stop = stop
        self._secrets = dict(secrets or {})

    def __call__(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> tuple[int | None, str]:
        """Run to the end with all output in ``log``; return exit code (``None``: not started) and the last lines."""
        keeper = self._keeper()
        keeper.stop(self._name)  # a name is started anew only after it was stopped
        state = keeper.start(
            self._name,
            argv=argv,
            env=env,
            cwd=cwd,
            log=log,
            stop_signal=signal.SIGTERM,
            grace_s=GRACE_S,
            secrets=self._secrets,
        )
        while state.state == "starting":
            why = self._stop()
            if why is not None:
                keeper.stop(self._name)
                raise LaunchError(f"{self._engine} was not started: {why}", engine=self._engine)
            state = keeper.wait(self._name, timeout_s=LOOK_S)
        keeper.stop(self._name)
        return state.returncode, log_tail(log, mask=TextMask(self._secrets)) or (state.reason or "")
