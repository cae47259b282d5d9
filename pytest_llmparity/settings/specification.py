"""What options and files come down to: one specification per selected engine, one for the whole run.

A key of ``[engines.NAME]`` is declared here and nowhere else: ``settings.file`` makes the table that validates it, the
published schema and the documentation take its meaning. Plain dataclasses without pydantic, so that an unused plugin
can name them at no cost.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.prompts.portion import ALL, Portion
from pytest_llmparity.core.shards import Shard

if TYPE_CHECKING:
    from pytest_llmparity.core.gate.policy import Policy

LaunchMode = Literal["attach", "process", "container", "golden"]
Route = Literal["openai", "native", "responses", "completions"]
Residency = Literal["together", "one-at-a-time"]
GatherMode = Literal["side-by-side", "in-turn"]
Inconclusive = Literal["show", "fail", "skip"]
Mode = Literal["live", "replay"]
UpdateGolden = Literal["missing", "changed", "all"]
Resume = Literal["auto", "resume", "fresh", "retry", "judged"]

HOURS_S: Final = 6 * 3600.0
"""How old an unfinished run may be that is gone on with, in seconds."""
DEFAULT_KEEP_RUNS = 20
"""Runs the store keeps when nobody says otherwise."""
DEFAULT_TIMED_CHANGES = 4
"""Two engines are loaded five times between them, after which what they hold of time is known to t(3) at best."""
DEFAULT_EXPLAIN_REQUESTS = 400
"""Requests that experiments on one pair of engines may take when nobody says otherwise."""
LOCAL: Final = "local"
"""The executor that starts engines on this machine."""
DEFAULT_CONCURRENCY = 4
"""Requests in flight per engine when neither marker, profile nor file says otherwise."""


_DURATION = re.compile(r"(?=\d)(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9})s?)?", re.ASCII)


def seconds(text: str) -> float:
    """Read a duration: ``900`` (seconds), ``90s``, ``15m``, ``2h``, ``1h30m``. ``ValueError`` unless it is above zero.

    >>> seconds("1h30m")
    5400.0
    """
    match = _DURATION.fullmatch(text)
    hours, minutes, left = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    total = hours * 3600 + minutes * 60 + left
    if total == 0:
        raise ValueError(f"{text[:40]!r} is no time above zero; write 900 (seconds), 90s, 15m or 1h30m")
    return float(total)


@dataclass(frozen=True, slots=True)
class EnvRef:
    """A value that is read from the environment variable ``env`` when it is needed, and never stored."""

    env: str


GOLDEN: Final = "golden"
"""The folder of a project that has golden answers."""
RECORDINGS: Final = "recordings"
"""The folder of a project that has recordings of streams."""
DEFAULT: Final = "default"
"""The origin of a value that nobody gave."""


@dataclass(frozen=True, slots=True)
class Key:
    """How a person writes a field of a specification: the name of its type in ``settings.file``, and what it means.

    ``only`` says which engines have a use for it: ``start`` those that we start; ``process`` those too, and it says
    that a process of our own is meant, whatever is running; ``install`` those with ``requires``; ``container`` those
    with ``image``.
    """

    written: str
    meaning: str
    only: Literal["", "start", "process", "install", "container"] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSpec:
    """One selected engine, everything known before it is touched.

    ``kind`` is ``None`` for a bare URL, whose server is asked what it is. ``base_url`` is the root, without a trailing
    ``/`` or ``/v1``; with it we attach, without it ``launch`` is ``process``, or ``container`` where an ``image`` is
    named, and we start the engine. ``model`` is the name as written. ``env`` is laid over the environment of a process
    of ours, and so is ``env_from``, whose values are names of variables to read. Times are seconds; ``start_timeout_s``
    ``None`` leaves the deadline to the kind.

    What follows from the keys: ``api`` is what OpenAI's routes start with below the root, ``None`` where nobody said
    so: ``/v1``, or nothing. ``daemon`` means the server of this kind that is running already, if it has the model
    (``engines.daemons`` finds out; then ``base_url`` is its address). ``golden`` names the golden answers that take
    part in place of an engine, ``recording`` the file of a recording that is played in its place, ``pace`` times as
    fast as it was recorded (0: at once); ``recorded_as`` is a hash of that file. ``recorder`` is a file that its
    answers are noted in as they come. ``model_path`` is the absolute local file or folder the model stands for, if it
    is one. ``origins`` says by key what set it: file and key, an option, a variable, a profile; a key that is not there
    has its default.
    """

    name: str
    kind: Annotated[
        str | None,
        Key(
            "kind",
            "one of the kinds in [engines.md](engines.md); may be left out with `base_url`, then the server is asked",
        ),
    ] = None
    model: Annotated[
        str | None, Key("text", "what to serve or to ask for: a path, or a name. Needed to start an engine")
    ] = None
    base_url: Annotated[str | None, Key("address", "[address](#addresses) of a running server")] = None
    launch: Annotated[
        LaunchMode,
        Key(
            "launch",
            '`"process"`: start our own whatever is running; `"container"`: start `image`, which says so by itself; '
            '`"attach"`: only what is running. Needed for `ollama` and `lmstudio` without `base_url` at most',
        ),
    ] = "attach"
    image: Annotated[
        str | None,
        Key(
            "image",
            "image that the engine runs from in a container, by tag or digest: "
            '`"vllm/vllm-openai:v0.33.0"`. See [containers](containers.md)',
            only="process",
        ),
    ] = None
    runtime: Annotated[
        str | None,
        Key(
            "program",
            '`"docker"`, `"podman"`, the path of one, or `"auto"` (default): whichever answers, docker first',
            only="container",
        ),
    ] = None
    runtime_args: Annotated[
        tuple[str, ...], Key("arguments", "arguments of the runtime before its command, a list", only="container")
    ] = ()
    run_args: Annotated[
        tuple[str, ...],
        Key("run arguments", "arguments of the runtime's `run` before the image, a list", only="container"),
    ] = ()
    volumes: Annotated[
        tuple[str, ...],
        Key("volumes", 'what else is mounted, a list of `"FOLDER:PLACE"` or `"FOLDER:PLACE:ro"`', only="container"),
    ] = ()
    gpus: Annotated[
        str | int | None,
        Key("gpus", '`"all"`, how many GPUs, or their numbers: `"0,1"` (default: none)', only="container"),
    ] = None
    shm_size: Annotated[
        str | None,
        Key("size", 'shared memory of the container: `"8g"` (default: what its kind needs)', only="container"),
    ] = None
    revision: Annotated[str | None, Key("text", "revision of a model from the hub, for vLLM")] = None
    route: Annotated[
        Route,
        Key(
            "route",
            '`"openai"` (default): `/v1/chat/completions`; `"responses"`: `/v1/responses`; `"completions"`: '
            '`/v1/completions`, for cases that are a `prompt`; `"native"` for kinds with an interface of their own. '
            "See [routes](engines.md#routes)",
        ),
    ] = "openai"
    python: Annotated[
        str | None, Key("program", "interpreter that has the engine (vLLM, or xllamacpp)", only="process")
    ] = None
    requires: Annotated[
        tuple[str, ...],
        Key(
            "requires",
            "packages of an environment of its own that the engine runs from, text or a list: "
            '`"vllm==0.33.0"`. See [engine versions and '
            "environments](engines.md#engine-versions-and-environments)",
            only="process",
        ),
    ] = ()
    extra_index_urls: Annotated[
        tuple[str, ...],
        Key("addresses", "further package indexes for `requires`, asked before the default one", only="install"),
    ] = ()
    constraints: Annotated[
        Path | None,
        Key("file", "file of version limits for `requires`, as `uv pip install --constraint` takes it", only="install"),
    ] = None
    overrides: Annotated[
        Path | None,
        Key(
            "file",
            "file of versions for `requires` whatever packages ask for, as `uv pip install --override` takes it",
            only="install",
        ),
    ] = None
    command: Annotated[
        tuple[str, ...],
        Key(
            "command",
            "program to start instead: a list, or text that is taken apart as a shell would (nothing is "
            "expanded); our arguments follow it. One of `python`, `requires` and `command`; beside `image` it is "
            "a program in that image",
            only="process",
        ),
    ] = ()
    args: Annotated[
        tuple[str, ...],
        Key(
            "arguments",
            "further arguments, a list. Refused are a key (`--api-key sk-…`: see `env`) and an address (`--port`, TLS)",
            only="process",
        ),
    ] = ()
    env: Annotated[
        Mapping[str, str],
        Key(
            "variables",
            'further environment variables of the process: text, or `{ env = "VARIABLE" }`. Variables that '
            "other engines name for their keys are taken out of the process's environment; `OPENAI_API_KEY = "
            '{ env = "OPENAI_API_KEY" }` keeps one',
            only="process",
        ),
    ] = field(default_factory=dict)
    headers: Annotated[
        Mapping[str, str | EnvRef],
        Key(
            "headers",
            'request headers: text, or `{ env = "VARIABLE" }`. What looks like a key must come from a variable',
        ),
    ] = field(default_factory=dict)
    api_key_env: Annotated[str | None, Key("variable", "variable that holds the key, sent as a bearer token")] = None
    pin: Annotated[Mapping[str, str | int | float], Key("pin", "what the server must report, see below")] = field(
        default_factory=dict
    )
    strict_pins: Annotated[
        bool, Key("yes or no", "also count a pin the server says nothing about as contradicted (default false)")
    ] = False
    context_length: Annotated[int | None, Key("count", "tokens one request gets; an engine we start is started so")] = (
        None
    )
    slots: Annotated[int | None, Key("count", "requests the engine works on at once")] = None
    ca_bundle: Annotated[Path | None, Key("file", "file of certificates to trust")] = None
    proxy: Annotated[str | None, Key("proxy", "`http://` proxy, used by CONNECT")] = None
    download: Annotated[bool, Key("yes or no", "let the engine download its model (default false)", only="start")] = (
        False
    )
    record: Annotated[bool, Key("yes or no", "keep what [plain tests](application-values.md) send it (false)")] = field(
        default=False, compare=False
    )
    start_timeout_s: Annotated[
        float | None, Key("seconds", "seconds to become ready (defaults: [engines](engines.md))", only="start")
    ] = None
    request_timeout_s: Annotated[float, Key("seconds", "seconds for one answer (300)")] = 300.0
    idle_timeout_s: Annotated[float, Key("seconds", "longest gap within an answer (120)")] = 120.0
    connect_timeout_s: Annotated[float, Key("seconds", "seconds to connect (10)")] = 10.0
    reconnect_s: Annotated[
        float,
        Key(
            "seconds or 0",
            "how long a server we attach to may be away while it is asked, before it is given up (30; 0: not "
            "at all), [below](#a-server-that-restarts)",
        ),
    ] = 30.0
    replicas: Annotated[
        int,
        Key(
            "count",
            "how often the engine is started; its prompts are split among them by group (1), "
            "[clusters](clusters.md#replicas)",
            only="process",
        ),
    ] = field(default=1, compare=False)
    num_cpus: Annotated[
        float | None,
        Key("amount", "CPUs that Ray keeps for each replica (1), [clusters](clusters.md)", only="process"),
    ] = field(default=None, compare=False)
    num_gpus: Annotated[
        float | None,
        Key("amount", "GPUs that Ray keeps for each replica (0); below 1 it shares one", only="process"),
    ] = field(default=None, compare=False)
    resources: Annotated[
        Mapping[str, float],
        Key("amounts", "custom resources of Ray that each replica needs, such as `{ h200 = 1 }`", only="process"),
    ] = field(default_factory=dict, compare=False)
    api: str | None = None
    daemon: bool = False
    env_from: Mapping[str, str] = field(default_factory=dict)
    model_path: Path | None = None
    golden: str | None = None
    recording: Path | None = None
    pace: float = 1.0
    recorded_as: str = ""
    recorder: Path | None = field(default=None, compare=False)
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def launched(self) -> bool:
        """Whether we start it, as a process or in a container."""
        return self.launch in ("process", "container")

    @property
    def spec_hash(self) -> str:
        """Hex sha256 of every value: two engines with the same hash were configured the same, whatever they are called.

        Secrets are not in it, because a spec holds only the names of their variables.
        """
        values = [f.name for f in dataclasses.fields(self) if f.compare and f.name != "name"]
        content = {name: getattr(self, name) for name in values}
        text = json.dumps(content, sort_keys=True, default=_plain)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def each(self) -> tuple[EngineSpec, ...]:
        """The engine as often as it is started: the first replica has its name, the others a number behind it."""
        further = (dataclasses.replace(self, name=f"{self.name}@{k}", replicas=1) for k in range(2, self.replicas + 1))
        return (self, *further)

    @property
    def secret_variables(self) -> tuple[str, ...]:
        """Names of the environment variables whose values must never be written down."""
        names = [self.api_key_env] if self.api_key_env else []
        names += [value.env for value in self.headers.values() if isinstance(value, EnvRef)]
        names += self.env_from.values()
        return tuple(dict.fromkeys(names))

    def launch_error(self, words: str) -> LaunchError:
        """Return the error that this engine cannot be started or used as it is configured; ``words`` say why."""
        return LaunchError(f"{self.name}: {words}", engine=self.name)

    def found_running(self, base_url: str, pin: Mapping[str, str | int | float]) -> EngineSpec:
        """Return this engine attached to the daemon at an address, which has to be what ``pin`` says, too."""
        further = {f"pin.{name}": self.origins.get(name, DEFAULT) for name in pin if name not in self.pin}
        origins = {
            **self.origins,
            **further,
            "base_url": "found running",
            "launch": f"the {self.kind} that is running has the model",
        }
        pins = {**pin, **self.pin}
        return dataclasses.replace(self, base_url=base_url, launch="attach", pin=pins, origins=origins)


def bundle_of(spec: EngineSpec) -> dict[str, float]:
    """Return what Ray keeps for one replica: a CPU where nothing else is said.

    >>> bundle_of(EngineSpec(name="a", num_gpus=0.5)), bundle_of(EngineSpec(name="a", num_cpus=0, resources={"b": 1}))
    ({'CPU': 1.0, 'GPU': 0.5}, {'b': 1})
    """
    bundle = {"CPU": 1.0 if spec.num_cpus is None else spec.num_cpus, "GPU": spec.num_gpus or 0.0, **spec.resources}
    return {name: amount for name, amount in bundle.items() if amount} or {"CPU": 0.001}


def _plain(value: object) -> object:
    if isinstance(value, EnvRef):
        return {"env": value.env}
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every option of a run, resolved once: command line, environment, profile, file, default (in this order).

    ``engines`` are in the order selected, by the entries of ``selection``; ``baseline`` is the name of one of them and
    ``baseline_source`` says which setting named it. ``concurrency`` is what a marker may still override.
    ``max_requests`` and ``budget_s`` (seconds) are hard stops, ``None`` for none. ``sequential`` stops asking when
    nothing is open. ``cases`` restricts the run to rows with these ids and forbids verdicts. ``frozen`` refuses engines
    that are not as the lock file says. ``replay_run`` is the run to judge again in mode ``replay``, ``None`` for the
    newest. ``out`` is absolute, and so is ``history``, the file that what the run came to is added to.
    ``key_variables`` are the names of every configured engine's secrets, selected or not: an engine's process gets its
    own only. ``gather`` says whether engines are asked at the same time; ``None`` leaves it to their addresses.
    ``timed_changes`` is how often the engine in memory may change while latencies of two are held against each other.
    ``keep_runs`` is how many of the newest runs the store keeps. ``explain`` makes experiments on verdicts that do not
    fail too, ``explain_requests`` is the most that they may take on one pair of engines, 0 for none. ``update_golden``
    says which golden answers are written from what the engines answer, ``policy`` by what is decided about them.
    ``shard`` is the share of the cases that is asked, ``None`` for all of them; ``portion`` says which of each prompt
    set are asked at all. ``executor`` is ``local``, ``ray`` or ``ray=ADDRESS``: where engines that we start run.
    ``origins`` says by setting what set it.
    """

    engines: tuple[EngineSpec, ...] = ()
    selection: tuple[str, ...] = ()
    baseline: str | None = None
    baseline_source: str = ""
    required: bool = False
    mode: Mode = "live"
    replay_run: str | None = None
    resume: Resume = "auto"
    inconclusive: Inconclusive = "show"
    max_requests: int | None = None
    budget_s: float | None = None
    sequential: bool = False
    cases: tuple[str, ...] = ()
    reports: tuple[str, ...] = ()
    out: Path = field(default_factory=lambda: Path(".llmparity/report"))
    history: Path | None = None
    concurrency: int = DEFAULT_CONCURRENCY
    residency: Residency = "together"
    gather: GatherMode | None = None
    timed_changes: int = DEFAULT_TIMED_CHANGES
    key_variables: tuple[str, ...] = ()
    frozen: bool = False
    keep_runs: int = DEFAULT_KEEP_RUNS
    explain: bool = False
    explain_requests: int = DEFAULT_EXPLAIN_REQUESTS
    update_golden: UpdateGolden | None = None
    shard: Shard | None = None
    portion: Portion = ALL
    policy: Policy | None = None
    executor: str = LOCAL
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def placed(self) -> tuple[EngineSpec, ...]:
        """The engines that Ray places: none where engines run on this machine, and none that is running already."""
        ours = (spec for spec in self.recordable if spec.launched)
        return () if self.executor == LOCAL or self.mode != "live" else tuple(ours)

    @property
    def asked(self) -> tuple[EngineSpec, ...]:
        """The engines that are live; the others are golden answers, and nobody is asked for them."""
        return tuple(spec for spec in self.engines if spec.launch != "golden")

    @property
    def recordable(self) -> tuple[EngineSpec, ...]:
        """The engines whose answers are new: neither golden answers nor played from a recording."""
        return tuple(spec for spec in self.asked if spec.recording is None)

    @property
    def recorded(self) -> bool:
        """Whether answers are noted as they come, for a recording."""
        return any(spec.recorder is not None for spec in self.engines)

    @property
    def answers_hold_s(self) -> float:
        """How long answers of an earlier run may stand for those of now, in seconds.

        A few hours, in which a server that runs elsewhere may be taken for the same one. Engines that we start are what
        their specification says, so theirs hold as long as they are stored where answers that were judged may be taken;
        not those whose program or interpreter is somebody's own, of which no file tells all that it runs, nor those of
        an image without a digest.
        """
        known = all(
            "@sha256:" in (spec.image or "@sha256:") and not spec.command and not spec.python for spec in self.asked
        )
        ours = known and all(spec.launched for spec in self.asked)
        return math.inf if self.resume == "judged" and ours else HOURS_S

    @property
    def goldens(self) -> tuple[EngineSpec, ...]:
        """The engines that are golden answers."""
        return tuple(spec for spec in self.engines if spec.launch == "golden")

    @property
    def company(self) -> int:
        """How many engines the plan is made for: what is recorded is so as if another one was beside it."""
        return max(2, len(self.engines)) if self.update_golden or self.recorded else len(self.engines)

    @property
    def holds_pairs(self) -> bool:
        """Whether a live run is there to hold engines against each other, not to record them."""
        return self.mode == "live" and len(self.engines) > 1 and self.update_golden is None

    @property
    def in_waves(self) -> bool:
        """Whether asking stops when nothing is open; rows of single cases are asked for as they are."""
        return self.sequential and not self.cases

    def in_turn(self) -> list[EngineSpec]:
        """Return the engines in the order they are asked: the baseline first, then as selected."""
        return sorted(self.asked, key=lambda spec: spec.name != self.baseline)

    @property
    def loads_in_turn(self) -> bool:
        """Whether a live run has several engines of which one is in memory at a time."""
        return self.mode == "live" and len(self.asked) > 1 and self.residency == "one-at-a-time"

    @property
    def engines_and_changes(self) -> tuple[int, int] | None:
        """How many engines are loaded in turn and how often the one in memory may change; ``None`` where none are."""
        return (len(self.asked), self.timed_changes) if self.loads_in_turn else None

    def engine(self, name: str) -> EngineSpec:
        """Return the selected engine with this name; ``KeyError`` if it is not selected."""
        by_name = {spec.name: spec for spec in self.engines}
        return by_name[name]
