"""No piece of a key is in what is printed or written, wherever somebody shortened the words that held it."""

from __future__ import annotations

import base64
import json
import re
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.reported.conftest import project
from tests.plugin.reported.wire import Answer, Json, document, events, plain, serving

__all__ = ["project"]

KEY = 'sk-live/"=+' + "".join(chr(97 + (7 * i * i + i // 3) % 26) + str(i % 7) for i in range(75))
"""Longer than what is shown of a body's end, so that a piece without beginning or end would be shown."""
FORMS: dict[str, Callable[[str], str]] = {
    "raw": lambda text: text,
    "json": lambda text: json.dumps(text)[1:-1],
    "url": lambda text: urllib.parse.quote(text, safe=""),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
}


def pieces(printed: str) -> list[str]:
    """Return what is left of the key, in any of its forms, in pieces of eight characters."""
    whole = [form(KEY) for form in FORMS.values()]
    return [text[i : i + 8] for text in whole for i in range(len(text) - 9) if text[i : i + 8] in printed]


@pytest.mark.slow
def test_a_refusal_that_is_shortened_leaks_nothing(project: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIDDEN_KEY", KEY)
    monkeypatch.setattr("pytest_llmparity.run.sending.sender.BACKOFF_S", (0.01, 0.01, 0.01))
    asked = iter(range(10_000))

    def careless(body: Json) -> Answer:
        if "question" not in str(body):  # a warm-up or a probe: an engine that fails there is not asked
            return plain("fine")(body)
        place = next(asked)
        form = list(FORMS.values())[place % 4]
        words = "x" * (80 + 13 * (place % 24)) + " you sent " + form(KEY) + " which is wrong " + "y" * 400
        shapes = [
            document({"error": {"message": words, "code": 400}}, status=400),
            Answer([words.encode()], "text/plain", 401),
            Answer([b'{"choices": 1, "note": ' + json.dumps(words).encode() + b"}"], "application/json"),
            events(b'data: {"error": {"message": ' + json.dumps(words).encode() + b"}}\n\n", done=False),
            Answer([b'{"half": ' + json.dumps(words[: place % 60 - 460]).encode()[:-1]], "application/json"),
        ]
        return shapes[place % len(shapes)]

    with serving(careless) as bad, serving(plain("One ordinary answer.")) as good:
        project.write(
            "llmparity.toml",
            f'[engines.base]\nkind = "openai"\nbase_url = "http://127.0.0.1:{good.port}"\n'
            f'[engines.cand]\nkind = "openai"\nbase_url = "http://127.0.0.1:{bad.port}"\n'
            'api_key_env = "HIDDEN_KEY"\nreconnect_s = 0\n',
        )
        rows = [{"id": f"q{i}", "messages": [{"role": "user", "content": f"question {i}"}]} for i in range(20)]
        project.prompts(rows)
        project.gate("check.text(margin=0.05), check.prompts()")
        project._engines = ["--engines=base,cand"]
        reports = "--parity-report=json,html,md"
        result = project.run("-vv", "--junitxml=junit.xml", "--parity-max-requests=400", reports)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert "«HIDDEN_KEY»" in json.dumps(project.report()["failures"], ensure_ascii=False)
    assert "«HIDDEN_KEY»" in (project.pytester.path / "out" / "report.html").read_text("utf-8")
    written = [path for path in Path(project.pytester.path).rglob("*") if path.is_file() and path.suffix != ".toml"]
    seen = result.stdout.str() + result.stderr.str()
    seen += "".join(path.read_bytes().decode("utf-8", "replace") for path in written)
    assert pieces(re.sub(r"\\\\", r"\\", seen)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="engines are not started on Windows")
def test_what_is_kept_of_a_run_is_nobody_elses(project: Any) -> None:
    project.engine("base", plain("One ordinary answer."))
    project.prompts([{"id": "q", "messages": [{"role": "user", "content": "question"}]}])
    project.gate("check.prompts()")
    kept = project.pytester.path / ".llmparity"
    kept.mkdir(mode=0o755)

    project.run()

    paths = [kept, project.pytester.path / "out", *kept.rglob("*"), *(project.pytester.path / "out").iterdir()]
    open_to_others = [path.name for path in paths if path.stat().st_mode & 0o077 and path.name != ".gitignore"]
    assert open_to_others == []
