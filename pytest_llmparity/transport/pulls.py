"""The comments of a pull request on GitHub: one of ours is changed, not repeated. Nothing else is asked of GitHub."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, Final, NamedTuple
from urllib.parse import urlsplit

from pytest_llmparity.core.errors import LLMParityError, UsageError

TOKEN: Final = "GITHUB_TOKEN"  # noqa: S105 - the name of a variable
API: Final = "https://api.github.com"
MOST_BYTES: Final = 16 * 2**20
"""Bytes of an answer that are read."""
TIMEOUT_S: Final = 30
FORBIDDEN: Final = (401, 403, 404)
"""What GitHub answers a token that may not write comments, as that of a fork's pull request."""
_PAGE: Final = 100
_PAGES: Final = 50


class Pull(NamedTuple):
    """Where a comment goes: the API of a repository, the number of the pull request, and the token."""

    api: str
    number: int
    token: str


class Refused(LLMParityError):
    """GitHub answered otherwise than hoped; its status, 0 where there was no answer."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def pull_of(environ: Mapping[str, str]) -> Pull | None:
    """Return the pull request that a job's variables tell of, ``None`` where they tell of none or there is no token."""
    token, repository = environ.get(TOKEN, ""), environ.get("GITHUB_REPOSITORY", "")
    number = _number(environ.get("GITHUB_EVENT_PATH"))
    if not token or not repository or number is None:
        return None
    base = environ.get("GITHUB_API_URL") or API
    parts = urlsplit(base)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
        raise UsageError(f"GITHUB_API_URL is {base!r}; a token is sent over https only")
    return Pull(f"{base.rstrip('/')}/repos/{repository}", number, token)


def _number(path: str | None) -> int | None:
    """Return the number of the pull request that an event is about."""
    try:
        event: Any = json.loads(Path(path or "").read_text("utf-8"))
        pull = event.get("pull_request") or (event["issue"] if event["issue"].get("pull_request") else {})
        return int(pull["number"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def link_of(environ: Mapping[str, str]) -> str:
    """Return the address of the workflow's run, empty where it is not known."""
    server, repository = environ.get("GITHUB_SERVER_URL", ""), environ.get("GITHUB_REPOSITORY", "")
    run = environ.get("GITHUB_RUN_ID", "")
    return f"{server}/{repository}/actions/runs/{run}" if server and repository and run.isdigit() else ""


def put(pull: Pull, mark: str, text: str) -> str:
    """Change the comment that begins with a mark, or write the first; return what was done. Raises ``Refused``."""
    ours = next(_ours(pull, mark), None)
    if ours is not None:
        try:
            _asked(pull, f"{pull.api}/issues/comments/{ours}", "PATCH", text)
        except Refused as refused:
            if refused.status not in (404, 410):  # somebody deleted it meanwhile
                raise
        else:
            return f"the comment in pull request {pull.number} is up to date"
    _asked(pull, f"{pull.api}/issues/{pull.number}/comments", "POST", text)
    return f"commented in pull request {pull.number}"


def _ours(pull: Pull, mark: str) -> Iterator[int]:
    """Yield the comments that begin with a mark and are the token's own: anybody may write such a line."""
    login = _login(pull)
    for page in range(1, _PAGES + 1):
        comments = _asked(pull, f"{pull.api}/issues/{pull.number}/comments?per_page={_PAGE}&page={page}")
        if not isinstance(comments, list):
            return
        for comment in comments:
            author = comment.get("user") or {}
            own = author.get("login") == login if login else author.get("type") == "Bot"
            if own and str(comment.get("body") or "").partition("\n")[0].strip() == mark:
                yield int(comment["id"])
        if len(comments) < _PAGE:
            return


def _login(pull: Pull) -> str:
    """Return who a person's token belongs to; empty for that of a workflow, which may not ask."""
    try:
        user = _asked(pull, f"{pull.api.partition('/repos/')[0]}/user")
    except Refused:
        return ""
    return str(user.get("login") or "") if isinstance(user, dict) else ""


class _Straight(urllib.request.HTTPRedirectHandler):
    """Follows nowhere: the token is for the address it was meant for."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> None:
        return None


def _asked(pull: Pull, url: str, method: str = "GET", text: str | None = None) -> Any:
    """Return what GitHub answers; ``Refused`` where it is no success."""
    request = urllib.request.Request(  # noqa: S310 - https, or this machine: see pull_of
        url,
        method=method,
        data=None if text is None else json.dumps({"body": text}).encode(),
        headers={
            "Authorization": f"Bearer {pull.token}",
            "Accept": "application/vnd.github+json",
            "X-GitHub-Api-Version": "2022-11-28",
            "User-Agent": "pytest-llmparity",
        },
    )
    try:
        with urllib.request.build_opener(_Straight).open(request, timeout=TIMEOUT_S) as answer:
            return json.loads(answer.read(MOST_BYTES))
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(error.code, f"{method} {urlsplit(url).path}: {error.code} {error.reason}") from None
    except (OSError, ValueError) as error:
        raise Refused(0, f"{method} {urlsplit(url).path}: {error}") from None
