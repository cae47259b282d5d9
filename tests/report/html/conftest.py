"""A real browser for the page: Chromium, driven by Playwright; tests of it are skipped where either is missing."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_llmparity.core.history.entries import entry_of
from pytest_llmparity.report.html.page import page as make_page
from tests.report.html.made import Made
from tests.unavailable import unavailable

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LIMIT_MS = 90_000
"""Longest wait for the browser or something in the page: it ends what hangs, engines may keep the cores meanwhile."""

WATCH = """
window.refused = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.refused.push(event.violatedDirective);
  document.documentElement.dataset.refused = window.refused.join(" ");
});
"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """Give the browser, one for all tests of a process."""
    if importlib.util.find_spec("playwright") is None:
        unavailable("chromium", "playwright is not installed (dependency group browser)")
    named = os.environ.get("LLMPARITY_CHROMIUM")
    program = named or next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        unavailable("chromium", "there is no Chromium in PATH and LLMPARITY_CHROMIUM names none")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox wants rights that root and containers do not have; it opens pages made here, from files.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"], timeout=LIMIT_MS)
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Give what opens the page of a run; whatever goes wrong in it fails the test at its end."""
    contexts: list[Any] = []
    errors: list[str] = []
    asked: list[str] = []
    provoked: list[Any] = []

    def open_page(made: Made, *, link: str = "", width: int = 1280, dark: bool = False, attacked: bool = False) -> Any:
        path = tmp_path / "report.html"
        earlier = entry_of(dataclasses.replace(made.record, run="20261101-101500-ab12"))
        history = (earlier, entry_of(made.record))
        text = make_page(made.record, made.samples, origin=made.origin, history=history)
        path.write_text(text, encoding="utf-8")
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        if attacked:
            provoked.append(page)
        page.set_default_timeout(LIMIT_MS)
        page.add_init_script(WATCH)
        page.on("pageerror", lambda error: errors.append(str(error)))
        if not attacked:
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{path.as_uri()}{link}")
        return page

    yield open_page
    pages = [page for context in contexts for page in context.pages if page not in provoked]
    refused = [page.evaluate("window.refused") for page in pages]
    for context in contexts:
        context.close()
    assert errors == []
    assert [directive for directives in refused for directive in directives] == [], "the page broke its own policy"
    assert all(url.startswith(("file:", "data:")) for url in asked), asked
