"""docs/structured-output.md: what the script writes of what was seen, every canary in it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from pytest_llmparity.core.prompts.pushing import canaries
from pytest_llmparity.run.probe.enforcing import OUTCOMES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_what_the_script_writes_of_what_was_seen() -> None:
    spec = importlib.util.spec_from_file_location("structured", DOCS / "structured.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    seen = json.loads((DOCS / "structured-output.json").read_text("utf-8"))

    assert (DOCS / "structured-output.md").read_text("utf-8") == script.page(seen)
    for engine in seen.values():
        assert [each["canary"] for each in engine["canaries"]] == [canary.name for canary in canaries()]
        assert {each["outcome"] for each in engine["canaries"]} <= set(OUTCOMES)
