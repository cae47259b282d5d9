"""Engines that we start: their processes, told to the keeper and waited for until they answer."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatch
from pathlib import Path

from pytest_llmparity.core.errors import LaunchError, reason_of
from pytest_llmparity.core.ports import Layers
from pytest_llmparity.core.sample import to_json
from pytest_llmparity.core.words.hiding import TextMask
from pytest_llmparity.engines import registry
from pytest_llmparity.engines.start import environments
from pytest_llmparity.engines.start.environments import Environment, KeptRunner
from pytest_llmparity.engines.start.launch import Launch
from pytest_llmparity.engines.start.readiness import free_port, is_listened_to, port_was_taken, wait_ready
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.engines.wire.control import resolve_env
from pytest_llmparity.keeper.client import EngineState, Keeper, log_tail
from pytest_llmparity.run.started.containers import Containers, ending
from pytest_llmparity.settings.specification import EngineSpec
from pytest_llmparity.store.folder import refuse_link

PORT_TRIES = 3
"""A port can be taken between choosing and binding it; the start is repeated with another one."""

_SLICE_S = 0.5
"""Whoever waits for another process looks so often whether anybody still waits."""


class Starter:
    """Starts engines through the keeper; one that another process of this run starts is waited for.

    ``make`` returns the adapter of a server at an address, ``slots`` how many requests one must be able to answer at
    once where its own configuration does not say. ``stop`` says why nobody waits any longer, ``starts`` is told whose
    process is about to start. For the rest see :class:`~pytest_llmparity.run.fleet.Fleet`.
    """

    def __init__(
        self,
        *,
        keeper: Callable[[], Keeper],
        workdir: Path,
        environ: Mapping[str, str],
        secrets: Mapping[str, str],
        key_variables: Collection[str],
        make: Callable[[EngineSpec, str], Adapter],
        slots: Callable[[], int],
        stop: Callable[[], str | None],
        interrupted: threading.Event,
        starts: Callable[[str], None],
        say: Callable[[str], None],
        fetch: Callable[[str, Layers | None], None],
    ) -> None:
        self._keeper = keeper
        self._workdir = workdir
        self._environ = environ
        self._secrets = secrets
        self._mask = TextMask(secrets)
        self._key_variables = set(key_variables)
        self._make = make
        self._slots = slots
        self._stop = stop
        self._interrupted = interrupted
        self._starts = starts
        self._say = say
        self._fetch = fetch
        self.made: dict[str, str] = {}
        """The sentence about an environment that was made for an engine, by its name."""
        self.logged: set[str] = set()
        """Engines whose process was started here, so that there is a log to look into."""

    def start(self, spec: EngineSpec) -> Adapter:
        """Start an engine's process, wait until it answers, publish what it is; return its adapter."""
        state = self._keeper().state(spec.name)
        if state.state == "ready":
            return self._make(spec, str(state.info["base_url"]))
        kind = registry.adapter_of(spec)
        environment = self._provide(spec)
        containers = self._containers(spec) if spec.image else None
        environ = self._environ if environment is None else environment.environ(self._environ)
        installed = {} if environment is None else environment.versions(kind.distributions)
        for attempt in range(1, PORT_TRIES + 1):
            port = free_port()
            launch = kind.launch(self._prepared(spec, kind, environment), port, self._workdir, environ=environ)
            if containers is not None:
                launch = containers.launch(kind, launch, port=port, run=self._keeper().label)
            self._starts(spec.name)
            state = self._spawn(spec, launch, environ)
            if not state.first:
                return self._join(spec)
            adapter = self._make(spec, f"http://127.0.0.1:{port}")
            if containers is not None:
                adapter.image_env = containers.image.env
            try:
                wait_ready(
                    adapter,
                    alive=lambda: self._stop() or self.gone(spec),
                    deadline_s=spec.start_timeout_s or launch.deadline_s,
                )
                adapter.load()
                adapter.warm_up()
                identity = environments.with_version(adapter.identity(), installed)
                identity = identity if containers is None else containers.identity(identity)
            except Exception as error:
                if self._interrupted.is_set():
                    raise  # the keeper is about to end, and this engine with it
                if attempt < PORT_TRIES and self._port_was_taken(spec, port):
                    self._keeper().stop(spec.name)
                    continue
                if containers is not None and self.gone(spec) is None and (words := containers.listening(port)):
                    error = LaunchError(f"{error}{words}", engine=spec.name)
                self._keeper().fail(spec.name, reason_of(error, spec.name))
                raise error
            info = {"base_url": adapter.base_url, "identity": to_json(identity), "installed": installed}
            self._keeper().announce(spec.name, info)
            return adapter
        raise AssertionError("the last try returns or raises")  # pragma: no cover - see the loop

    def _provide(self, spec: EngineSpec) -> Environment | None:
        """Return the environment of an engine with ``requires``, made if nobody has made it before."""
        if not spec.requires:
            return None
        run = self._runner(spec)
        environment = environments.provide(spec, environ=self._environ, run=run, say=self._say, stop=self._stop)
        if environment.took_s is not None:
            shown = str(environment.folder.parent).replace(str(Path.home()), "~", 1)  # notes leave this machine
            self.made[spec.name] = (
                f"{spec.name}: requires was installed in {environment.took_s:.0f} s and is kept in {shown}"
            )
        return environment

    def _runner(self, spec: EngineSpec) -> KeptRunner:
        return KeptRunner(spec.name, self._keeper, self._stop, self._secrets)

    def _containers(self, spec: EngineSpec) -> Containers:
        """Return the containers of an engine's image; raises where there is no runtime or no image."""
        private = self._key_variables - set(spec.secret_variables)
        environ = {name: value for name, value in self._environ.items() if name not in private}
        log = self._workdir / "logs" / f"{spec.name}.pull.log"
        return Containers(
            spec,
            environ,
            log=log,
            runner=self._runner(spec),
            stop=self._stop,
            say=self._say,
            fetch=functools.partial(self._fetch, spec.name),
        )

    def _prepared(self, spec: EngineSpec, kind: type[Adapter], environment: Environment | None) -> EngineSpec:
        """Return the spec to start: with its environment's interpreter, and slots where there would be a queue.

        An engine that queues what finds no slot gets one for every request in flight. Only the launch sees it: the
        spec's own hash stays what the configuration says.
        """
        if environment is not None:
            spec = dataclasses.replace(spec, python=environment.python)
        if spec.slots is not None or not kind.queues_beyond_slots:
            return spec
        return dataclasses.replace(spec, slots=self._slots())

    def check(self, spec: EngineSpec) -> None:
        """Raise the error of a launch that is known before anything starts: program and files must be there."""
        kind = registry.adapter_of(spec)
        kind.launch(self._prepared(spec, kind, None), free_port(), self._workdir, environ=self._environ)
        if spec.image:
            self._containers(spec)

    def gone(self, spec: EngineSpec) -> str | None:
        """Say why an engine's process is no more, ``None`` while it runs."""
        state = self._keeper().state(spec.name)
        if state.state in ("ready", "starting"):
            return None
        tail = self._tail(spec.name)
        return f"{_ended(state)}{ending(spec, state, tail) if spec.image else ''}\n{tail}"

    def _spawn(self, spec: EngineSpec, launch: Launch, environ: Mapping[str, str]) -> EngineState:
        private = self._key_variables - set(spec.secret_variables)
        env = {
            name: value
            for name, value in environ.items()
            if name not in private and not any(fnmatch(name, pattern) for pattern in launch.scrub)
        }
        env |= launch.env
        env |= resolve_env(spec, self._environ)
        sockets = registry.adapter_of(spec).sockets_variable
        if sockets and sockets not in env and not spec.image and (folder := self._keeper().sockets()) is not None:
            env[sockets] = str(folder)
        log = self._log(spec.name)
        try:
            refuse_link(log)
            log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            text = f"{spec.name} cannot be started: no folder for its log, {log.parent}: {error.strerror}"
            raise LaunchError(text, engine=spec.name) from error
        state = self._keeper().start(
            spec.name,
            argv=list(launch.argv),
            env=env,
            cwd=str(launch.cwd),
            log=log,
            stop_signal=launch.stop_signal,
            grace_s=launch.grace_s,
            secrets=self._secrets,
            removal=launch.removal,
        )
        self.logged.add(spec.name)
        return state

    def _join(self, spec: EngineSpec) -> Adapter:
        """Wait for the process that another worker is starting; the keeper knows when that worker is gone."""
        while (state := self._keeper().wait(spec.name, timeout_s=_SLICE_S)).state == "starting":
            if (why := self._stop()) is not None:
                words = f"{spec.name} was not waited for while another process of this run started it: {why}"
                raise LaunchError(words, engine=spec.name)
        if state.state == "stopped" and not self._interrupted.is_set():
            return self.start(spec)  # the starter gave up a port that was taken and tries another
        if state.state != "ready":
            raise LaunchError(state.reason or _ended(state), engine=spec.name)
        return self._make(spec, str(state.info["base_url"]))

    def _log(self, name: str) -> Path:
        return self._workdir / "logs" / f"{name}.log"

    def _port_was_taken(self, spec: EngineSpec, port: int) -> bool:
        """Whether an engine ended because another process had its port; what it wrote last may not have come yet."""
        if port_was_taken(self._tail(spec.name)):
            return True
        return self._keeper().state(spec.name).state not in ("ready", "starting") and is_listened_to(port)

    def _tail(self, name: str) -> str:
        return log_tail(self._log(name), mask=self._mask)


def _ended(state: EngineState) -> str:
    if state.returncode is None:
        return f"{state.name}: {state.reason or state.state}"
    how = f"signal {-state.returncode}" if state.returncode < 0 else f"exit code {state.returncode}"
    return f"{state.name} ended with {how}"
