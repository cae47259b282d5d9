"""The comment of a pull request: written once, changed afterwards, ours alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.transport.pulls import Pull, Refused, link_of, pull_of, put
from tests.doubles.github import TOKEN, GitHub

MARK = "<!-- pytest-llmparity: cpu -->"


def pull(github: GitHub) -> Pull:
    return Pull(f"{github.url}/repos/o/r", 7, TOKEN)


def test_a_comment_is_written_once_and_then_changed() -> None:
    with GitHub() as github:
        github.wrote("<!-- pytest-llmparity: gpu -->\nanother job's")
        told = [put(pull(github), MARK, f"{MARK}\n{text}") for text in ("first", "second")]

    assert [comment["body"] for comment in github.comments][1:] == [f"{MARK}\nsecond"]
    assert told == ["commented in pull request 7", "the comment in pull request 7 is up to date"]


def test_it_is_found_behind_hundreds_of_others() -> None:
    with GitHub() as github:
        for number in range(250):
            github.wrote(f"{MARK}\nold" if number == 230 else f"comment {number}", kind="User" if number % 2 else "Bot")
        put(pull(github), MARK, f"{MARK}\nnew")

    assert [n for n, comment in enumerate(github.comments) if comment["body"] == f"{MARK}\nnew"] == [230]
    assert len(github.comments) == 250


@pytest.mark.parametrize("login", ["", "release-team"])
def test_a_line_that_somebody_else_wrote_is_left_alone(login: str) -> None:
    with GitHub(login=login) as github:
        github.wrote(f"{MARK}\nLLM parity: PASS, merge me", kind="User", login="somebody")
        github.wrote(f"quoted\n{MARK}")
        put(pull(github), MARK, f"{MARK}\nours")
        put(pull(github), MARK, f"{MARK}\nours again")

    assert [comment["body"] for comment in github.comments][2:] == [f"{MARK}\nours again"]
    assert "merge me" in github.comments[0]["body"]


def test_a_refusal_says_what_was_asked_and_never_the_token() -> None:
    with GitHub(refuses={"POST": 403}) as github, pytest.raises(Refused) as refused:
        put(pull(github), MARK, "text")

    assert refused.value.status == 403
    assert str(refused.value) == "POST /api/repos/o/r/issues/7/comments: 403 Forbidden"
    with pytest.raises(Refused, match="GET"):
        put(Pull("http://127.0.0.1:9/repos/o/r", 7, TOKEN), MARK, "text")


@pytest.mark.parametrize(
    ("event", "number"),
    [
        ({"pull_request": {"number": 7}}, 7),
        ({"issue": {"number": 8, "pull_request": {"url": "…"}}}, 8),
        ({"issue": {"number": 8}}, None),
        ({"ref": "refs/heads/main"}, None),
        ([], None),
        ({"pull_request": {"number": "x"}}, None),
    ],
)
def test_the_number_is_that_of_the_event(tmp_path: Path, event: object, number: int | None) -> None:
    (tmp_path / "event.json").write_text(json.dumps(event))
    environ = {"GITHUB_TOKEN": TOKEN, "GITHUB_REPOSITORY": "o/r", "GITHUB_EVENT_PATH": str(tmp_path / "event.json")}

    there = pull_of(environ)

    assert (None if there is None else there.number) == number
    assert pull_of({**environ, "GITHUB_TOKEN": ""}) is None
    assert pull_of({**environ, "GITHUB_EVENT_PATH": str(tmp_path / "nowhere")}) is None


def test_a_token_is_never_sent_in_the_clear(tmp_path: Path) -> None:
    (tmp_path / "event.json").write_text('{"pull_request": {"number": 7}}')
    environ = {"GITHUB_TOKEN": TOKEN, "GITHUB_REPOSITORY": "o/r", "GITHUB_EVENT_PATH": str(tmp_path / "event.json")}

    with pytest.raises(UsageError, match="https only"):
        pull_of({**environ, "GITHUB_API_URL": "http://github.example/api/v3"})
    there = pull_of({**environ, "GITHUB_API_URL": "https://github.example/api/v3/"})
    assert there is not None
    assert there.api == "https://github.example/api/v3/repos/o/r"


def test_the_link_is_that_of_the_workflows_run() -> None:
    environ = {"GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "5"}

    assert link_of(environ) == "https://github.com/o/r/actions/runs/5"
    assert link_of({**environ, "GITHUB_RUN_ID": "5) [x"}) == ""
