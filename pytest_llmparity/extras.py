"""How one of this package's extras is installed, from where the package itself came: it may come from no registry.

What stays on this machine, the output of a command, may name a folder of it; what leaves it, a report, never does.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from importlib import metadata
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit, urlunsplit

PACKAGE: Final = "pytest-llmparity"
_SPECIAL: Final = set('"$`!')
"""What a shell reads within double quotes."""
_COMMAND: Final = re.compile(r"""(pip install (?:-e )?(?:"[^"]*"|'[^']*'(?:"'"'[^']*')*))""")
"""Any command of this module, with ``shlex``'s quotation of a quotation mark."""
_PLAIN: Final = re.compile(rf'pip install "{PACKAGE}\[(\w+)\]"')


class Origin(NamedTuple):
    """Where a package came from, as its installer wrote it down (``direct_url.json``, PEP 610); a registry is none.

    ``url`` has neither the user nor the password of the address nor what is behind ``;``, ``?`` or ``#`` in it: they
    may be secret. Its path stays, in which nothing secret belongs.
    """

    url: str = ""
    editable: bool = False
    vcs: str = ""
    commit: str = ""
    subdirectory: str = ""

    @property
    def path(self) -> Path | None:
        """The folder or file of this machine that it is, if it is one."""
        if not self.url.startswith("file:"):
            return None
        from urllib.request import url2pathname  # a fifth of what else this file imports

        return Path(url2pathname(urlsplit(self.url).path))


def origin_of(text: str) -> Origin:
    """Return the origin that the text of a ``direct_url.json`` names; of one that is damaged, what can be read.

    >>> origin_of('{"url": "https://me:secret@host/x.git", "vcs_info": {"vcs": "git", "commit_id": "1f2e"}}')
    Origin(url='https://host/x.git', editable=False, vcs='git', commit='1f2e', subdirectory='')
    """
    try:
        told = json.loads(text)
    except ValueError:
        return Origin()
    if not isinstance(told, dict):
        return Origin()
    folder, vcs = (info if isinstance(info := told.get(key), dict) else {} for key in ("dir_info", "vcs_info"))
    return Origin(
        url=_bare(str(told.get("url", ""))),
        editable=folder.get("editable") is True,
        vcs=str(vcs.get("vcs", "")),
        commit=str(vcs.get("commit_id") or vcs.get("requested_revision") or ""),
        subdirectory=str(told.get("subdirectory") or ""),
    )


def plain_command(extra: str, *, version: str = "") -> str:
    """Return the command that installs an extra from a registry, for what may leave this machine.

    >>> plain_command("llamacpp"), plain_command("ray", version="1.0")
    ('pip install "pytest-llmparity[llamacpp]"', 'pip install "pytest-llmparity[ray]==1.0"')
    """
    exactly = f"=={version}" if version else ""
    return f'pip install "{PACKAGE}[{extra}]{exactly}"'


def command(extra: str) -> str:
    """Return the command that installs an extra here, from where this package came."""
    return command_from(_own_origin(), extra) or plain_command(extra)


def is_local() -> bool:
    """Whether this package came from a folder or file of this machine: no other machine can install it from there."""
    return _own_origin().path is not None


def step_elsewhere(extra: str, *, version: str) -> str:
    """Return what brings an extra of this very version to another machine: a command, or what to install in words.

    Words are for what came from a folder of this machine: no index has such a version, no other machine the folder.
    """
    if is_local():
        return f"install the same commit of {PACKAGE} with its extra {extra}"
    return command_from(_own_origin(), extra) or plain_command(extra, version=version)


def localised(text: str) -> str:
    """Return a text for this machine's terminal: what is a :func:`plain_command` in it becomes the :func:`command`."""
    return _PLAIN.sub(lambda plain: command(plain[1]), text)


def parted(text: str) -> list[str]:
    """Return a text cut at its commands, which are every second part: prose may be broken into lines, they may not.

    >>> parted('with: pip install "pytest-llmparity[ray]"  (or: pip install uv)')
    ['with: ', 'pip install "pytest-llmparity[ray]"', '  (or: pip install uv)']
    """
    return _COMMAND.split(text)


def command_from(origin: Origin, extra: str) -> str:
    """Return the command that installs an extra from an origin, empty where that is none or a folder that is gone.

    >>> command_from(Origin(url="https://host/x.git", vcs="git", commit="1f2e"), "ray")
    'pip install "pytest-llmparity[ray] @ git+https://host/x.git@1f2e"'
    """
    if not origin.url or (origin.path and not os.path.exists(origin.path)):  # Path.exists raises where it may not look
        return ""
    if origin.path and origin.editable:
        return f"pip install -e {_quoted(f'{origin.path}[{extra}]')}"
    source = f"{origin.vcs}+{origin.url}" if origin.vcs else origin.url
    commit = f"@{origin.commit}" if origin.vcs and origin.commit else ""
    inside = f"#subdirectory={origin.subdirectory}" if origin.subdirectory else ""
    return f"pip install {_quoted(f'{PACKAGE}[{extra}] @ {source}{commit}{inside}')}"


def _own_origin() -> Origin:
    """Return where this package came from."""
    try:
        return origin_of(metadata.distribution(PACKAGE).read_text("direct_url.json") or "")
    except (metadata.PackageNotFoundError, OSError, UnicodeDecodeError):
        return Origin()


def _bare(url: str) -> str:
    """Return an address without what may be secret in it, empty where it is no address."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    user, at, host = parts.netloc.rpartition("@")
    kept = f"{user}{at}{host}" if (parts.scheme, user) == ("ssh", "git") else host  # the one name that everybody has
    path = parts.path if parts.scheme == "file" else parts.path.partition(";")[0]  # a folder may have one in its name
    return urlunsplit((parts.scheme, kept, path, "", "")) if parts.scheme else ""


def _quoted(text: str) -> str:
    """Return a text as one word of a command line: in double quotes where they are enough, as any shell has them."""
    return shlex.quote(text) if _SPECIAL & set(text) else f'"{text}"'
