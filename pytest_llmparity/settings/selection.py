"""The grammar of ``--engines``: text to entries, nothing looked up.

    VALUE  = ENTRY *("," ENTRY)                a comma inside a URL is written %2C
    ENTRY  = [NAME "="] SPEC
    SPEC   = URL ["#" MODEL]                   http:// or https://; its server is asked what it is
           / "golden:" NAME
           / "replay:" NAME ["@" PACE]         a recording, played as fast as recorded, 10x or max
           / NAME                              configured in llmparity.toml
           / KIND ":" MODEL ["@" URL]          the URL starts at the last @http

Tried in this order, so configured names beat kinds.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pytest_llmparity.core.errors import EngineSelectionError
from pytest_llmparity.core.words.printable import elide, printable
from pytest_llmparity.settings.specification import Route

NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
"""What an engine may be called: it is part of node ids, file names and report columns."""

_OPTION = "--engines: "
_URL = re.compile(r"https?://", re.IGNORECASE)
_LAST_URL = re.compile(r"@(?=http)", re.IGNORECASE)
_CREDENTIALS = re.compile(r"://.*@")
_ROUTE = re.compile(r"/(chat/)?completions$")
"""A route of OpenAI's API that was pasted with its base."""
_LISTED_ROUTE = re.compile(r"(?<=/v\d)/(models(/.*)?|chat|embeddings|responses|messages)$|(?<=/openai)/models$")
"""Routes whose names may be anybody's folder, so that they count behind a version only."""
_OLLAMA_ROUTE = re.compile(r"^/api/(chat|generate|tags|show|ps|version)$")
_VERSION = re.compile(r"/v\d{1,2}([a-z]{2,6}\d{0,2})?$")
_OPENAI_BELOW = re.compile(r"/v\d{1,2}[a-z0-9]*(/[^/]+)*/openai$")
_BARE_ADDRESS = re.compile(
    r"(?:localhost|\[[0-9a-fA-F:.]+\]|(?:[A-Za-z0-9-]+\.)+[A-Za-z0-9-]+)(?::\d{1,5})?(?:[/#]\S*)?"
    r"|[A-Za-z0-9_-]+:\d{2,5}(?:[/#]\S*)?",
    re.IGNORECASE,
)
"""``host:port`` and the like, as people write it without a scheme; never with credentials."""
_MODEL_AT_ADDRESS = re.compile(r"(?P<model>.*)@(?P<address>[^@/]+:\d{2,5}(?:/[^@]*)?)")
_NO_PORT = re.compile(r"://[^/?#\[]*:(?!\d*(?:[/?#]|$)).*")
"""A host followed by what is no port: most likely the first half of ``user:password@host``."""


CHATS: tuple[Route, ...] = ("openai", "completions")
"""Routes of every server with OpenAI's API."""
HOST_AND_PORT: tuple[str, ...] = ("--host", "--port")
"""The options of most servers for where they listen."""
ANSWERS: tuple[Route, ...] = ("openai", "responses", "completions")
"""The same of those that have OpenAI's newer one, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What the core must know of a kind before its adapter is loaded.

    ``starts``: we can start it, not only attach. ``local_model``: its model may be a local file or folder.
    ``routes`` are the ways to ask it. ``unloads``: a running one can give its memory back.
    ``daemon``: people have one server of it running that holds all their models, and a model's name means that one.
    ``listens`` are the options, or variables, by which we tell a server that we start its address and port, and those
    by which it would listen elsewhere, or otherwise than by HTTP.
    """

    starts: bool
    local_model: bool
    routes: tuple[Route, ...] = CHATS
    unloads: bool = False
    daemon: bool = False
    listens: tuple[str, ...] = ()

    def addressing(self, args: Iterable[str], env: Iterable[str]) -> str:
        """Return the first of these arguments and variables that tells the server its address; empty where none does.

        With the key of the configuration it stands under: ``args with --port``.
        """
        given = [*(("args", self._option(word)) for word in args), *(("env", name) for name in env)]
        return next((f"{key} with {name}" for key, name in given if name in self.listens), "")

    def _option(self, word: str) -> str:
        """Return the option in a word of ``args``: ``--port`` of ``--port=1`` and ``--port 1``, ``-p`` of ``-p1``."""
        short = word[:2]
        return short if short != "--" and short in self.listens else re.split(r"[=\s]", word, maxsplit=1)[0]


KINDS: Mapping[str, Kind] = {
    "litellm": Kind(
        starts=True,
        local_model=False,
        routes=ANSWERS,
        listens=(*HOST_AND_PORT, "--ssl_keyfile_path", "--ssl_certfile_path"),
    ),
    "llamacpp": Kind(
        starts=True,
        local_model=True,
        routes=ANSWERS,
        listens=(*HOST_AND_PORT, "--ssl-key-file", "--ssl-cert-file"),
    ),
    "llamacpp-python": Kind(
        starts=True, local_model=True, listens=(*HOST_AND_PORT, "HOST", "PORT", "--config_file", "CONFIG_FILE")
    ),
    "lmstudio": Kind(starts=False, local_model=False, routes=ANSWERS, unloads=True, daemon=True),
    "mlx": Kind(starts=True, local_model=True, listens=HOST_AND_PORT),
    "ollama": Kind(
        starts=True, local_model=True, routes=(*ANSWERS, "native"), unloads=True, daemon=True, listens=("OLLAMA_HOST",)
    ),
    "openai": Kind(starts=False, local_model=False, routes=ANSWERS),
    "sglang": Kind(starts=True, local_model=True, routes=ANSWERS, listens=HOST_AND_PORT),
    "tgi": Kind(starts=True, local_model=True, listens=("--hostname", "--port", "-p")),
    "transformers": Kind(starts=True, local_model=True, routes=ANSWERS, listens=HOST_AND_PORT),
    "vllm": Kind(
        starts=True,
        local_model=True,
        routes=ANSWERS,
        unloads=True,
        listens=(*HOST_AND_PORT, "--uds", "--grpc", "--headless", "--ssl-keyfile", "--ssl-certfile"),
    ),
}
"""The kinds that come with the package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One engine as it was asked for. ``url``, ``golden``, ``recording``, ``configured`` or ``kind`` leads it.

    ``name`` is what ``NAME=`` says, else derived from the text alone. ``base_url`` and ``api`` (for URLs and
    ``KIND:MODEL@URL``) are what :class:`Address` says. ``pace`` is how fast a recording is played, 0 at once. ``text``
    is the entry as written.
    """

    text: str
    name: str
    configured: str | None = None
    kind: str | None = None
    model: str | None = None
    base_url: str | None = None
    api: str | None = None
    golden: str | None = None
    recording: str | None = None
    pace: float = 1.0


class Server(NamedTuple):
    """Whom an address reaches, the same however it is written: ``host`` is ``localhost`` for each name of loopback."""

    scheme: str
    host: str
    port: int
    folder: str


class Address(NamedTuple):
    """Where a server is: its root, and what the routes of OpenAI's API start with below it.

    ``api`` is ``/v1``, ``/v3`` or the like, empty where they follow the root itself, ``None`` where the text does not
    say; it holds at most one step of the path.
    """

    root: str
    api: str | None


@contextlib.contextmanager
def told_of(named_by: str) -> Iterator[None]:
    """Let an error about selected engines name what gave them, such as an environment variable."""
    try:
        yield
    except EngineSelectionError as error:
        lines = str(error).split("\n")
        lines_of_option = [
            f"{named_by}: {line.removeprefix(_OPTION)}" if line.startswith(_OPTION) else line for line in lines
        ]
        raise EngineSelectionError("\n".join(lines_of_option)) from None


def parse_engines(values: Sequence[str]) -> list[Entry]:
    """Return the entries of every ``--engines`` value, in order.

    Raises ``EngineSelectionError`` for an entry that is empty or fits no form, a name with other characters than
    ``a-z 0-9 . _ -``, a URL that carries credentials, a query or no host, and two entries with one name.

    >>> [entry.name for entry in parse_engines(["vllm,ollama:qwen3:8b", "http://127.0.0.1:8080"])]
    ['vllm', 'ollama-qwen3-8b', '127.0.0.1-8080']
    """
    entries: dict[str, Entry] = {}
    for value in values:
        for text in value.split(","):
            entry = _entry(text.strip(), value)
            if entry.name in entries:
                first = entries[entry.name]
                raise EngineSelectionError(
                    f"--engines: {_show(first.text)} and {_show(entry.text)} are both named {entry.name!r}; "
                    f"put another name before one of them: NAME={_show(without_name(entry.text), quoted=False)}"
                )
            entries[entry.name] = entry
    return list(entries.values())


def without_name(text: str) -> str:
    """Return an entry of ``--engines`` without the name that stands before its ``=``.

    >>> without_name("v=http://h:1"), without_name("vllm:org/model")
    ('http://h:1', 'vllm:org/model')
    """
    return _named(text)[1]


def _entry(text: str, value: str) -> Entry:
    if not text:
        raise EngineSelectionError(f"--engines: {_show(value)} has an empty entry; write names separated by one comma")
    if printable(text) != text:
        raise EngineSelectionError(f"--engines: {_show(text)} holds characters that cannot be printed")
    name, spec = _named(text)
    if _URL.match(spec):
        url, _, fragment = spec.partition("#")
        root, api = _address(url, text)
        meant = urllib.parse.unquote(fragment)
        return Entry(text=text, name=name or derive(spec), base_url=root, api=api, model=meant or None)
    head, colon, tail = spec.partition(":")
    if not colon:
        if not NAME.fullmatch(spec):
            raise EngineSelectionError(f"--engines: {_show(text)} is no engine: {FORMS}{_hint(spec)}{_comma(value)}")
        return Entry(text=text, name=name or spec, configured=spec)
    if head == "golden":
        if not NAME.fullmatch(tail):
            raise EngineSelectionError(f"--engines: {_show(text)} names no golden; write golden:NAME, {LETTERS}")
        return Entry(text=text, name=name or f"golden-{tail}", golden=tail)
    if head == "replay":
        recording, pace = _played(tail, text)
        return Entry(text=text, name=name or f"replay-{recording}", recording=recording, pace=pace)
    if not NAME.fullmatch(head):
        raise EngineSelectionError(
            f"--engines: {_show(text)} does not start with a kind: {FORMS}{_hint(spec)}{_comma(value)}"
        )
    model, at = _model_at(tail, text)
    return Entry(
        text=text,
        name=name or derive(spec),
        kind=head,
        model=model or None,
        base_url=at.root if at is not None else None,
        api=at.api if at is not None else None,
    )


LETTERS = "names consist of a-z, 0-9, '.', '_' and '-' and start with a letter or digit"
FORMS = (
    "write NAME (from llmparity.toml), KIND:MODEL, KIND:MODEL@URL or URL[#MODEL], each with NAME= before it if you like"
)


def _played(written: str, text: str) -> tuple[str, float]:
    """Return the name of a recording and how fast it is played."""
    name, at, pace = written.partition("@")
    if not NAME.fullmatch(name):
        raise EngineSelectionError(f"--engines: {_show(text)} names no recording; write replay:NAME, {LETTERS}")
    if not at:
        return name, 1.0
    times = re.fullmatch(r"(\d{1,4}(?:\.\d{1,3})?)x", pace)
    if pace != "max" and (times is None or float(times[1]) == 0):
        raise EngineSelectionError(
            f"--engines: {_show(text)} says how fast it is played by {_show(pace)}; write replay:{name}@10x for ten "
            f"times as fast as recorded, or replay:{name}@max for as fast as it goes"
        )
    return name, 0.0 if times is None else float(times[1])


def _named(text: str) -> tuple[str | None, str]:
    """Split ``NAME=`` off. An ``=`` behind a colon, slash or ``#`` belongs to a model or URL."""
    head, equals, tail = text.partition("=")
    if not equals or re.search(r"[:/#@]", head):
        return None, text
    name, spec = head.strip(), tail.strip()
    if not NAME.fullmatch(name):
        raise EngineSelectionError(f"--engines: {_show(name)} in {_show(text)} cannot be a name; {LETTERS}")
    if not spec:
        raise EngineSelectionError(f"--engines: {_show(text)} names nothing behind the '='")
    return name, spec


def _model_at(written: str, text: str) -> tuple[str, Address | None]:
    cuts = [match.start() for match in _LAST_URL.finditer(written)]
    if not cuts:
        if _CREDENTIALS.search(written):
            _address(written, text)  # says that credentials are not allowed
        if not written:
            raise EngineSelectionError(f"--engines: {_show(text)} names no model; write KIND:MODEL or KIND:MODEL@URL")
        return written, None
    model, url = written[: cuts[-1]], written[cuts[-1] + 1 :]
    if "#" in url:
        raise EngineSelectionError(f"--engines: {_show(text)} names a model twice; with KIND:MODEL@URL leave #… out")
    return model, _address(url, text)


def _comma(value: str) -> str:
    return "; a comma inside a URL is written %2C" if "://" in value and "," in value else ""


def _hint(spec: str) -> str:
    """Return what to write where an address lacks its scheme; empty where it looks like none."""
    return f"; if that is an address, write http://{spec}" if is_bare_address(spec) else ""


def is_bare_address(text: str) -> bool:
    """Tell whether a text looks like ``HOST:PORT``, an IP address or a host's full name, without ``http://``."""
    return len(text) < 120 and _BARE_ADDRESS.fullmatch(text) is not None


def address_behind(model: str) -> tuple[str, str] | None:
    """Take ``MODEL@HOST:PORT`` apart, whose address lacks its scheme; ``None`` for any other model."""
    parts = _MODEL_AT_ADDRESS.fullmatch(model)
    return (parts["model"], parts["address"]) if parts and is_bare_address(parts["address"]) else None


def _address(url: str, text: str) -> Address:
    try:
        return address_of(url)
    except ValueError as error:
        raise EngineSelectionError(f"--engines: the URL of {_show(text)} {error}") from None


def root_of(url: str) -> str:
    """Return a server's root: :func:`address_of` without the version. Raises as it does."""
    return address_of(url).root


def server_of(url: str) -> Server:
    """Return whom an address reaches. Raises as :func:`address_of` does.

    >>> server_of("http://127.0.0.1:80/v1/") == server_of("HTTP://LocalHost") == server_of("http://[::1]/v3")
    True
    """
    parts = urllib.parse.urlsplit(root_of(url))
    own = {"http": 80, "https": 443}[parts.scheme]
    host = parts.hostname or ""
    return Server(parts.scheme, "localhost" if _is_loopback(host) else host, parts.port or own, parts.path)


def _is_loopback(host: str) -> bool:
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return ip.is_loopback or ip.is_unspecified


def address_of(url: str) -> Address:
    """Read a server's address as people write it, scheme and host in lower case.

    The path may be any: a folder a gateway serves the API in (``/llm``), what clients of ``openai`` take as their base
    (``/v1``, ``/api/paas/v4``, ``/v1beta/openai``), or a whole route (``/v1/chat/completions``), which is cut off.
    Raises ``ValueError`` with the end of a sentence about the URL, which never repeats credentials.

    >>> address_of("http://h:80/v3/"), address_of("http://h/chat/completions"), address_of("http://h/llm")
    (Address(root='http://h:80', api='/v3'), Address(root='http://h', api=''), Address(root='http://h/llm', api=None))
    """
    if not _URL.match(url):
        write = f"; write http://{url}" if is_bare_address(url) else ""
        raise ValueError(f"does not start with http:// or https://{write}")
    if printable(url) != url or " " in url:
        raise ValueError("holds a space or a character that cannot be printed; write it as %20 or the like")
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # its text may repeat a piece of a password
        raise ValueError("cannot be read; expected http(s)://HOST[:PORT]") from None
    if "@" in parts.netloc:
        raise ValueError(
            "carries credentials, which would end up in logs; put the key into a variable and name it as "
            "api_key_env (or headers = {…}) of an engine in llmparity.toml"
        )
    if not host:
        raise ValueError("has no host")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("has a part behind '?' or '#'; expected the server's root, such as http://127.0.0.1:8000")
    if port == 0:
        raise ValueError("has port 0, which nothing can listen on")
    folder, api = _below(re.sub(r"/+$", "", parts.path))
    shown = f"[{host}]" if ":" in host else host
    return Address(f"{parts.scheme.lower()}://{shown}{'' if port is None else f':{port}'}{folder}", api)


def _below(path: str) -> tuple[str, str | None]:
    """Return the folder a server's routes are in, and what OpenAI's start with there."""
    if _OLLAMA_ROUTE.match(path):
        return "", None
    base = re.sub(r"/+$", "", _LISTED_ROUTE.sub("", _ROUTE.sub("", path)))
    if version := _VERSION.search(base):
        return re.sub(r"/+$", "", base[: version.start()]), version[0]
    return base, "" if base != path or _OPENAI_BELOW.search(base) else None


def derive(spec: str) -> str:
    """Return the name an entry gets from its text alone: lower case, other characters as ``-``, no scheme.

    Of a model that is a path only the file's name counts, without ``.gguf``: names go into node ids, which should not
    hold a folder of one machine.

    >>> derive("ollama:qwen3:8b"), derive("llamacpp:./models/tiny-Q4_0.gguf")
    ('ollama-qwen3-8b', 'llamacpp-tiny-q4_0')
    """
    kind, colon, tail = spec.partition(":")
    if colon and not _URL.match(spec):
        cut = [match.start() for match in _LAST_URL.finditer(tail)]
        model, url = (tail[: cut[-1]], tail[cut[-1] + 1 :]) if cut else (tail, "")
        if is_path(model):
            model = re.sub(r"\.gguf$", "", model.rstrip("/").rpartition("/")[2], flags=re.IGNORECASE)
        spec = f"{kind}:{model}" + (f"@{_URL.sub('', url, count=1)}" if url else "")
    plain = re.sub(r"[^a-z0-9._-]+", "-", _URL.sub("", spec, count=1).lower())
    return plain.lstrip("._-").rstrip("-") or "engine"


def is_path(model: str) -> bool:
    """Tell whether a model is written as a path: it starts with ``/``, ``./``, ``../`` or ``~/``, or is a GGUF file."""
    return model.startswith(("/", "./", "../", "~/")) or model.lower().endswith(".gguf")


def _show(text: str, *, quoted: bool = True) -> str:
    """Return a piece of the command line as a message may repeat it: one line, cut, without credentials."""
    shown = elide(printable(_NO_PORT.sub("://…", _CREDENTIALS.sub("://…@", text))), 120)
    return f"'{shown}'" if quoted else shown
