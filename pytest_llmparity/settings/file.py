"""What ``llmparity.toml`` may hold. The published JSON Schema of the file is made from these models."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationInfo,
    WithJsonSchema,
    create_model,
    model_validator,
)

from pytest_llmparity.core.errors import EngineSelectionError
from pytest_llmparity.core.identity.spelling import SAMPLING, sampling_defaults
from pytest_llmparity.core.sample import IDENTITY
from pytest_llmparity.core.words.keys import looks_secret, names_secret
from pytest_llmparity.core.words.nearest import nearest
from pytest_llmparity.core.words.printable import printable
from pytest_llmparity.core.words.problems import Strict, given, listed
from pytest_llmparity.settings import containers
from pytest_llmparity.settings.selection import KINDS, LETTERS, NAME, Kind, parse_engines, root_of
from pytest_llmparity.settings.sources import executor
from pytest_llmparity.settings.specification import (
    EngineSpec,
    EnvRef,
    GatherMode,
    Inconclusive,
    Key,
    Residency,
    Route,
    seconds,
)

_SECRET_HEADERS = re.compile(r"authori[sz]ation|cookie|key|token|secret|password", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: token
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = "holds a value that looks like a key (not shown); a key stays in an environment variable: {}"  # noqa: S105


def _text(value: str) -> str:
    if looks_secret(value):
        raise ValueError(_SECRET.format("name that in api_key_env, or in headers as {env = …}"))
    if not value.strip():
        raise ValueError("is empty")
    if printable(value) != value:
        raise ValueError(f"is {given(value)}, which holds characters that cannot be printed")
    return value


def _argument(value: str) -> str:
    if looks_secret(value):
        raise ValueError(_SECRET.format("name that in api_key_env"))
    return _word(value)


def _word(value: str) -> str:
    if "\0" in value:
        raise ValueError("holds a NUL, which no program can be given")
    return value


_OPTION = re.compile(r"-{1,2}([A-Za-z][\w.-]*)(?:=(.*))?", re.DOTALL)
_IN_THE_OPEN = (
    "holds the value of {} as literal text (not shown), which everybody on the machine can read; an engine that we "
    "start listens on loopback and needs no key: leave it out, or hand it over in the environment, "
    'env = {{ NAME = {{ env = "VARIABLE" }} }}, and name VARIABLE as api_key_env too'
)


def _arguments(value: list[str]) -> list[str]:
    """Refuse an option whose name says that its value is a secret, where the value stands beside it."""
    for place, word in enumerate(value):
        option = _OPTION.fullmatch(word)
        if option is None or not names_secret(option[1]):
            continue
        given_here = option[2] if option[2] is not None else next(iter(value[place + 1 :]), "")
        if given_here and not (option[2] is None and given_here.startswith("--")):
            raise ValueError(_IN_THE_OPEN.format(word.partition("=")[0]))
    return value


def _words(value: object) -> object:
    """Take a command that is written as in a shell apart; nothing in it is expanded."""
    if not isinstance(value, str):
        return value
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"cannot be taken apart as a shell would: {str(error).lower()}; or write a list") from None


def _variable_value(value: object) -> object:
    if isinstance(value, str):
        return _argument(value)
    return _header(value)


def _environment(value: dict[str, Any]) -> dict[str, Any]:
    for name, content in value.items():
        if isinstance(content, str) and content and names_secret(name):
            raise ValueError(f'has {name} as literal text (not shown); write {name} = {{ env = "VARIABLE" }}')
    return value


def _budget(value: object) -> float:
    if isinstance(value, str):
        try:
            return seconds(value)
        except ValueError as error:
            raise ValueError(f"cannot be used: {error}") from None
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0:
        return float(value)
    raise ValueError(f"is {given(value)}; expected seconds above 0, or text such as '15m' or '1h30m'")


def _switch(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if value in ("on", "off"):
        return str(value)
    raise ValueError(f"is {given(value)}; expected true, false, 'on' or 'off'")


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"is {given(value)}; {LETTERS}")
    return value


def _name_key(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError(f"cannot be a name; {LETTERS}")
    return value


def _variable(value: str) -> str:
    if looks_secret(value) or not _VARIABLE.fullmatch(value):
        shown = "a value that looks like a key (not shown)" if looks_secret(value) else given(value)
        raise ValueError(f"is {shown}; expected the name of an environment variable, such as VLLM_API_KEY")
    return value


def _kind(value: str, info: ValidationInfo) -> str:
    kinds = (info.context or {}).get("kinds", KINDS)
    if value not in kinds:
        raise ValueError(f"is {given(value)}; known kinds: {', '.join(sorted(kinds))}{nearest(value, kinds)}")
    return value


def _header(value: object) -> object:
    if isinstance(value, str):
        if looks_secret(value):
            raise ValueError(_SECRET.format('write {env = "VARIABLE"}'))
        if not value.isascii() or not value.isprintable():
            raise ValueError("holds characters that have no place in a header")
        return value
    if isinstance(value, dict) and list(value) == ["env"] and isinstance(value["env"], str):
        return EnvRef(_variable(value["env"]))
    raise ValueError('is neither text nor {env = "VARIABLE"}')


def _sampling_defaults(value: object) -> str:
    """Return a pinned table, or the same as JSON text, the way an identity spells it."""
    try:
        table = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        table = None
    if not isinstance(table, dict) or not table:
        raise ValueError(f"is {given(value)}; expected a table such as {{ temperature = 0.6, top_k = 20 }}")
    for name, item in table.items():
        if not sampling_defaults({name: item}):
            if name in SAMPLING:
                raise ValueError(f"has {given(name)} with {given(item)}, which is no number")
            known = ", ".join(sorted(set(SAMPLING.values())))
            raise ValueError(f"has {given(name)}, no sampling parameter{nearest(name, SAMPLING)}; known here: {known}")
    return sampling_defaults(table)


def _headers(value: dict[str, Any]) -> dict[str, Any]:
    for name, content in value.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"has {given(name)}, which is not the name of a header")
        if isinstance(content, str) and _SECRET_HEADERS.search(name):
            raise ValueError(f'has {given(name)} as literal text (not shown); write {name} = {{env = "VARIABLE"}}')
    return value


def _executor(value: str) -> str:
    try:
        return executor(value)
    except argparse.ArgumentTypeError as error:
        raise ValueError(f"cannot be used: {error}") from None


def _index(value: str) -> str:
    root_of(value)  # raises where it is none
    return value


def _entries(value: list[str]) -> list[str]:
    if not value:
        raise ValueError("is empty; name at least one engine")
    try:
        parse_engines(value)
    except EngineSelectionError as error:
        raise ValueError(f"cannot be used: {str(error).removeprefix('--engines: ')}") from None
    return value


Text = Annotated[str, AfterValidator(_text)]
Argument = Annotated[str, AfterValidator(_argument)]
Name = Annotated[str, AfterValidator(_name)]
NameKey = Annotated[str, AfterValidator(_name_key)]
Variable = Annotated[str, AfterValidator(_variable)]
Address = Annotated[str, AfterValidator(_index)]
Url = Annotated[str, AfterValidator(root_of)]
Executor = Annotated[str, AfterValidator(_executor)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Budget = Annotated[
    Any,
    AfterValidator(_budget),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string"}]}),
]
Switch = Annotated[
    Any, BeforeValidator(_switch), WithJsonSchema({"anyOf": [{"type": "boolean"}, {"enum": ["on", "off"]}]})
]
SamplingDefaults = Annotated[
    str, BeforeValidator(_sampling_defaults), WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}]})
]
_TEXT_OR_VARIABLE = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"env": {"type": "string"}},
                "required": ["env"],
                "additionalProperties": False,
            },
        ]
    }
)
_GPUS = WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string"}]})
Header = Annotated[Any, BeforeValidator(_header), _TEXT_OR_VARIABLE]
VariableValue = Annotated[Any, BeforeValidator(_variable_value), _TEXT_OR_VARIABLE]
Command = Annotated[
    list[Text],
    Field(min_length=1),
    BeforeValidator(_words),
    AfterValidator(_arguments),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]}),
]


KEYS: Mapping[str, Key] = {
    name: declared
    for name, hint in get_type_hints(EngineSpec, include_extras=True).items()
    for declared in getattr(hint, "__metadata__", ())
}
"""The keys of ``[engines.NAME]`` by name, as the specification declares them."""

ALWAYS: Mapping[str, object] = {
    field.name: field.default
    for field in dataclasses.fields(EngineSpec)
    if field.name in KEYS and field.name != "launch" and isinstance(field.default, (str, bool, float))
}
"""The keys that are in force whether or not anybody sets them, with their defaults; ``launch`` follows from others."""


_PINS: Mapping[str, Any] = {
    "bits_per_weight": Annotated[float, Field(gt=0)],
    "context_length": Count,
    "slots": Count,
    "tensor_parallel": Count,
    "pipeline_parallel": Count,
    "prefix_cache": Switch,
    "chunked_prefill": Switch,
    "sampling_defaults": SamplingDefaults,
}
"""How those fields of an identity are pinned that are no text."""
_PIN: dict[str, Any] = {
    name: (_PINS.get(name, Text) | None, None) for name in IDENTITY if name not in ("kind", "recognised")
}
Pin = create_model(
    "Pin",
    __base__=Strict,
    __doc__="What the live server must report: any field of an identity; ``context_length`` is what one request gets.",
    **_PIN,
)


class EngineKeys(Strict, defer_build=True):
    """One engine. With ``base_url`` we attach to it, without it we start it. Times are seconds, lengths tokens.

    Of a kind with a daemon a model's name means the one that is running, if it has the model; ``launch`` decides.
    """

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """The keys are declared in ``settings.specification``."""

    def given(self, *only: str) -> dict[str, Any]:
        """Return what the table sets, by key in their order; with ``only`` what such engines alone can use."""
        keys = (name for name in type(self).model_fields if name in self.model_fields_set)
        return {name: getattr(self, name) for name in keys if not only or KEYS[name].only in only}

    @model_validator(mode="after")
    def _whole(self, info: ValidationInfo) -> EngineKeys:
        kinds = (info.context or {}).get("kinds", KINDS)
        if self.route not in (None, "openai"):
            self._has_route(self.route, kinds)
        if self.requires is None and (useless := self.given("install")):
            raise ValueError(f"has {' and '.join(useless)}, which only say how requires is installed, and no requires")
        if self.image is None and (useless := self.given("container")):
            raise ValueError(f"has {' and '.join(useless)}, which only say how an image is run, and no image")
        if self.base_url is None:
            self._can_start(kinds)
            return self
        if self.launch in ("process", "container"):
            raise ValueError(
                f"has launch {self.launch!r}, which starts an engine, and a base_url, which attaches to one"
            )
        if useless := self.given("start", "process", "install", "container"):
            raise ValueError(f"has {' and '.join(useless)}, which only an engine we start can use, and a base_url")
        return self

    def _has_route(self, route: str, kinds: Mapping[str, Kind]) -> None:
        able = sorted(name for name, kind in kinds.items() if route in kind.routes)
        if self.kind is None:
            raise ValueError(f"has route {route!r} and no kind; these kinds have that route: {', '.join(able)}")
        if self.kind not in able:
            own = ", ".join(repr(name) for name in kinds[self.kind].routes)
            raise ValueError(
                f"has route {route!r}, which only these kinds have: {', '.join(able)}; the routes of kind "
                f"{self.kind!r} are {own}"
            )

    def _can_start(self, kinds: Mapping[str, Kind]) -> None:
        if self.kind is None:
            raise ValueError(f"has neither kind nor base_url; known kinds: {', '.join(sorted(kinds))}")
        kind, own = kinds[self.kind], self.given("process")
        if self.launch == "attach":
            if not kind.daemon:
                raise ValueError(f"has launch 'attach' and no base_url; where is the {self.kind} it is attached to?")
            if own:
                raise ValueError(f"has {' and '.join(own)}, which only an engine we start can use, and launch 'attach'")
        if own and not kind.starts:
            raise ValueError(f"has {' and '.join(own)}; an engine of kind {self.kind!r} is attached to, never started")
        if not kind.starts and self.launch in ("process", "container"):
            raise ValueError(
                f"has launch {self.launch!r}; an engine of kind {self.kind!r} is attached to, never started"
            )
        if not (kind.starts or kind.daemon):
            raise ValueError(f"has no base_url; an engine of kind {self.kind!r} is attached to, never started")
        if self.model is None:
            raise ValueError(f"has no model; an engine of kind {self.kind!r} without base_url is started with one")
        if addressing := kind.addressing(self.args or (), self.env or ()):
            raise ValueError(
                f"has {addressing}; an engine that we start listens by HTTP on loopback at a free port, which we tell "
                'it: leave that out, or start it yourself and write base_url = "http://HOST:PORT" in place of args, '
                "env and the like"
            )
        ways = [key for key in ("python", "requires", "command") if getattr(self, key) is not None]
        if len(ways) > 1:
            raise ValueError(f"has {' and '.join(ways)}; one of them says what is started")
        self._contained(ways)

    def _contained(self, ways: Sequence[str]) -> None:
        if self.image is None:
            if self.launch == "container":
                raise ValueError("has launch 'container' and no image; which one is it started from?")
            return
        if self.launch == "process":
            raise ValueError(
                "has launch 'process' and an image, which is started in a container; leave one of them out"
            )
        if other := [way for way in ways if way != "command"]:
            raise ValueError(
                f"has {other[0]} and image; {other[0]} runs the engine with a Python of this machine, and an image "
                "brings its own: leave one of them out"
            )

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Names of the environment variables that hold what is this engine's secret."""
        values = [*(self.headers or {}).values(), *(self.env or {}).values()]
        named = [value.env for value in values if isinstance(value, EnvRef)]
        return tuple(dict.fromkeys([*([self.api_key_env] if self.api_key_env else []), *named]))

    @property
    def means_daemon(self) -> bool:
        """Whether a running daemon is meant, if its kind has one: nothing says that a process of ours is."""
        started = self.launch in ("process", "container")
        return self.base_url is None and not started and not self.given("process")


TYPES: Mapping[str, Any] = {
    "kind": Annotated[str, AfterValidator(_kind)],
    "text": Text,
    "address": Address,
    "launch": Literal["attach", "process", "container"],
    "route": Route,
    "program": Text,
    "requires": Annotated[list[Text], Field(min_length=1), BeforeValidator(listed)],
    "addresses": list[Address],
    "file": Text,
    "command": Command,
    "arguments": Annotated[list[Argument], AfterValidator(_arguments)],
    "image": Annotated[Text, AfterValidator(containers.image)],
    "run arguments": Annotated[
        list[Annotated[str, AfterValidator(_word)]],
        AfterValidator(containers.run_arguments),
        AfterValidator(_arguments),
    ],
    "volumes": list[Annotated[Text, AfterValidator(containers.volume)]],
    "gpus": Annotated[Any, AfterValidator(containers.gpus), _GPUS],
    "size": Annotated[Text, AfterValidator(containers.size)],
    "variables": Annotated[dict[Variable, VariableValue], AfterValidator(_environment)],
    "headers": Annotated[dict[str, Header], AfterValidator(_headers)],
    "variable": Variable,
    "pin": Pin,
    "yes or no": bool,
    "count": Count,
    "amount": Annotated[float, Field(ge=0)],
    "amounts": dict[Text, Annotated[float, Field(gt=0)]],
    "proxy": Url,
    "seconds": Seconds,
    "seconds or 0": Annotated[float, Field(ge=0)],
}
"""How a key is written in a file, by the name its declaration uses."""


def _in_the_file(name: str, key: Key) -> tuple[Any, Any]:
    """Return type and default of a key in the file: what is left out is ``None`` unless a value is always in force."""
    default, meaning = ALWAYS.get(name), re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", key.meaning)
    kind = TYPES[key.written]
    return (kind if default is not None else kind | None), Field(default, description=meaning)


if TYPE_CHECKING:
    EngineTable = EngineKeys
else:
    EngineTable = create_model(
        "EngineTable",
        __base__=EngineKeys,
        __doc__=EngineKeys.__doc__,
        **{name: _in_the_file(name, key) for name, key in KEYS.items()},
    )


class ProfileTable(Strict, defer_build=True):
    """Settings chosen together by ``--parity-profile``; they win over the top level of the file."""

    engines: Annotated[list[Text], AfterValidator(_entries)] | None = None
    baseline: Name | None = None
    concurrency: Count | None = None
    residency: Residency | None = None
    gather: GatherMode | None = None
    timed_changes: Count | None = None
    inconclusive: Inconclusive | None = None
    required: bool | None = None
    frozen: bool | None = None
    max_requests: Count | None = None
    budget: Budget = None
    sequential: bool | None = None
    keep_runs: Count | None = None
    explain: bool | None = None
    explain_requests: Whole | None = None
    executor: Executor | None = None


class ConfigTable(Strict, defer_build=True):
    """The whole file."""

    baseline: Name | None = None
    concurrency: Count | None = None
    residency: Residency | None = None
    gather: GatherMode | None = None
    timed_changes: Count | None = None
    keep_runs: Count | None = None
    explain: bool | None = None
    explain_requests: Whole | None = None
    executor: Executor | None = None
    engines: dict[NameKey, EngineTable] = Field(default_factory=dict)
    profiles: dict[NameKey, ProfileTable] = Field(default_factory=dict)
