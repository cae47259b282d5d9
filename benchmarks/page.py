"""How large the page of a run is, and how long it takes to make, to open and to scroll, by the number of cases.

    python benchmarks/page.py [100 1000 10000]

Needs the dependency group ``browser`` and a Chromium (``LLMPARITY_CHROMIUM``, else one in ``PATH``). A third of the
cases differ on one engine, a fifth on another; answers have 32 tokens. *making* is processor time of this process,
*open* the time from asking for the file until the rows of the first screen are drawn, and before it the processor time
of the page's thread until then; *search*, *wheel* and *jump* are processor times of that thread too: of a search
through every prompt and answer, and of a frame in which the list is scrolled by 200 pixels, or to another place, so
that every row is drawn anew.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from pytest_llmparity.report.html.page import page
from tests.report.html.made import large

SCROLL = """
async (pixels) => {
  const list = document.querySelector("#matrix .rows");
  document.querySelector(".show input[value=all]").click();
  const top = list.getBoundingClientRect().top + scrollY;
  for (let step = 1; step <= 100; step += 1) {
    scrollTo(0, top + ((step * pixels) % list.offsetHeight));
    await new Promise(requestAnimationFrame);
  }
  return document.querySelectorAll("#matrix .row").length;
}
"""
SEARCH = """
() => {
  const find = document.getElementById("find");
  find.value = "quartz jetty";
  find.form.dispatchEvent(new Event("change"));
}
"""
DRAWN = """
new Promise((resolve) => requestAnimationFrame(() => setTimeout(() => resolve(performance.now()))))
"""


def spent(session: Any) -> float:
    """Return the milliseconds of processor time that the page's thread has had."""
    metrics = session.send("Performance.getMetrics")["metrics"]
    return 1000 * float(next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration"))


def main(sizes: list[int]) -> None:
    """Print a row for each number of cases."""
    from playwright.sync_api import sync_playwright

    program = os.environ.get("LLMPARITY_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    print("cases       size   making    open  (processor)   search    wheel     jump rows")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for cases in sizes:
            made = large(cases, words=32)
            began = time.process_time()
            text = page(made.record, made.samples, origin=made.origin)
            making = time.process_time() - began
            path = Path(folder) / "report.html"
            path.write_text(text, encoding="utf-8")
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            session = tab.context.new_cdp_session(tab)
            session.send("Performance.enable", {"timeDomain": "threadTicks"})
            tab.goto(path.as_uri())
            opened = tab.evaluate(DRAWN)
            at_open = spent(session)
            tab.evaluate(SCROLL, 200)
            wheeled = spent(session)
            rows = tab.evaluate(SCROLL, 2900)
            jumped = spent(session)
            tab.evaluate(SEARCH)
            sought = spent(session)
            print(
                f"{cases:>5} {len(text.encode()) / 1e6:>7.2f} MB {making:>6.2f} s {opened:>5.0f} ms {at_open:>6.0f} ms"
                f" {sought - jumped:>11.0f} ms {(wheeled - at_open) / 100:>5.1f} ms {(jumped - wheeled) / 100:>5.1f} ms"
                f" {rows:>4}"
            )
            tab.close()
        browser.close()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [100, 1_000, 10_000])
