"""Takes the pictures of the page that the documentation shows: of a run of the demo, in a real Chromium.

pytest fixtures/demo -c fixtures/demo/pytest.toml --engines f16,q8_0,q4_0 --parity-report html
python docs/shots.py fixtures/demo/.llmparity/report/report.html
"""

from __future__ import annotations

import base64
import os
import shutil
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SIZE = (1180, 820)


def taken(page: Any) -> bytes:
    """Return what is in view, as WebP."""
    session = page.context.new_cdp_session(page)
    return base64.b64decode(session.send("Page.captureScreenshot", {"format": "webp", "quality": 82})["data"])


def main(report: Path) -> None:
    """Write ``report.webp``, the verdicts, and ``report-case.webp``, the worst case."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("LLMPARITY_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        page.goto(report.absolute().as_uri())
        (HERE / "report.webp").write_bytes(taken(page))
        page.locator("#matrix .rows a").first.click()
        page.locator("dialog .forks").first.wait_for()
        (HERE / "report-case.webp").write_bytes(taken(page))
        browser.close()
    for name in ("report.webp", "report-case.webp"):
        print(f"{name}: {(HERE / name).stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
