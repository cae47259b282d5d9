"""The page in a real browser: filters, differences, links, keys, hostile answers, access, ten thousand cases."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable
from typing import Any

import pytest

from pytest_llmparity.core.verdict import Outcome
from tests.report.html.made import HOSTILE, TEST, WORDS, Made, answer, decided, large, turning, varied, verdict

pytestmark = pytest.mark.live

Open = Callable[..., Any]
OPENED_S = 5.0
"""Seconds of a processor that 10,000 cases may take to open; 0.6 were measured on a busy machine, 2 are promised."""


def rows(page: Any) -> list[str]:
    """Return the ids of the cases in view."""
    ids: list[str] = page.locator("#matrix .rows a").all_inner_texts()
    return ids


def choose(page: Any, name: str, value: str) -> None:
    page.locator(f"select[name={name}]").select_option(value)


def show(page: Any, which: str) -> None:
    page.locator(f".show label:has(input[value={which}])").click()


def test_what_differs_is_shown_first_and_filters_narrow_it(opened: Open) -> None:
    page = opened(varied())

    assert rows(page) == ["fork-2", "hostile-3", "json-4", "silent-6", "odd/8 &?#", "call-5"]
    assert page.locator("#count").inner_text() == "6 of 8 cases"
    show(page, "all")
    assert rows(page)[-1] == "plain-1"
    assert page.locator("#count").inner_text() == "8 cases"
    show(page, "failures")
    assert rows(page) == ["fork-2", "hostile-3", "wrong-7", "silent-6"]
    choose(page, "check", "schema.rate")
    assert rows(page) == ["wrong-7"]
    choose(page, "check", "")
    choose(page, "outcome", "FAIL")
    assert rows(page) == ["fork-2", "hostile-3"]
    choose(page, "tag", "story")
    assert rows(page) == ["hostile-3"]
    choose(page, "outcome", "INCONCLUSIVE")
    assert page.locator("#matrix .none").inner_text() == "No case is left by these filters."
    page.locator("#reset").click()
    assert len(rows(page)) == 6
    choose(page, "cause", "template")
    assert rows(page) == ["fork-2", "hostile-3", "odd/8 &?#"]


def test_filters_stand_in_the_address_and_the_back_button_takes_them_back(opened: Open) -> None:
    page = opened(varied())

    show(page, "failures")
    choose(page, "check", "schema.rate")
    assert page.evaluate("location.hash") == "#cases?show=failures&check=schema.rate"
    page.locator("#matrix a", has_text="wrong-7").click()
    assert page.evaluate("location.hash") == "#case-wrong-7?show=failures&check=schema.rate"
    page.reload()
    assert page.locator("#case-title").inner_text() == "wrong-7"
    page.keyboard.press("Escape")
    assert rows(page) == ["wrong-7"]
    page.go_back()
    page.locator("#case-title", has_text="wrong-7").wait_for()
    page.go_back()
    assert page.locator("dialog[open]").count() == 0
    page.go_back()
    assert rows(page) == ["fork-2", "hostile-3", "wrong-7", "silent-6"]
    page.go_back()
    assert page.locator("#count").inner_text() == "6 of 8 cases"


def test_tests_are_chosen_by_their_own_names(opened: Open) -> None:
    parametrised = "tests/test_gate.py::TestGate::test_tickets[a::b]"
    verdicts = [verdict("text", "dev", Outcome.PASS, test=test) for test in (TEST, parametrised)]
    page = opened(Made([answer(name, "one", "amber") for name in ("prod", "dev")], verdicts))

    assert page.locator("select[name=test] option").all_inner_texts() == ["any", "test_tickets", "test_tickets[a::b]"]
    choose(page, "test", "test_tickets")
    show(page, "all")
    assert rows(page) == ["one"]
    choose(page, "test", "test_tickets[a::b]")
    assert rows(page) == []


@pytest.mark.parametrize(
    "link",
    [
        "#cases?show=<img src=x onerror=alert(1)>&check=javascript:alert(1)",
        "#cases?show=everything&engine=nobody&__proto__=1&constructor=2",
        "#?%E0%A4%A",
        "#case-%E0%A4%A?show",
    ],
)
def test_hostile_values_in_the_address_are_passed_over(opened: Open, link: str) -> None:
    page = opened(varied(), link=link)

    assert page.locator("#count").inner_text() == "6 of 8 cases"
    assert page.locator("dialog[open]").count() == 0


def test_cases_that_turned_are_shown_by_themselves(opened: Open) -> None:
    page = opened(turning())

    show(page, "flips")

    assert rows(page) == ["wrong-7", "silent-6"]
    assert page.locator("#n-flips").inner_text() == "2"
    assert "right before" in page.locator("#matrix .rows .row", has_text="wrong-7").inner_text()


def test_where_nothing_says_what_is_right_there_is_no_filter_for_what_turned(opened: Open) -> None:
    page = opened(large(6), link="#cases?show=flips")

    assert not page.locator(".show label:has(input[value=flips])").is_visible()
    assert page.locator("#count").inner_text() == "3 of 6 cases"


def test_cases_are_found_by_what_they_say(opened: Open) -> None:
    page = opened(varied())

    show(page, "all")
    page.keyboard.press("/")
    page.keyboard.type("BOB")
    page.locator("#matrix .rows .row:only-child").wait_for()

    assert rows(page) == ["json-4"]
    page.keyboard.press("Escape")
    assert len(rows(page)) == 8


def test_a_verdict_leads_to_its_cases(opened: Open) -> None:
    page = opened(varied())

    page.locator("tr.v", has_text="schema.agree").locator("xpath=following-sibling::tr[1]").locator("summary").click()
    page.get_by_role("link", name="1 case", exact=True).nth(-1).click()

    assert rows(page) == ["json-4"]


def test_two_texts_stand_beside_each_other_with_the_fork(opened: Open) -> None:
    page = opened(varied(), link="#case-fork-2")
    sides = page.locator("dialog .pair .side pre")

    assert page.locator("#case-title").inner_text() == "fork-2"
    assert sides.all_inner_texts() == ["amber birchfork cedar delta", "amber birchfork jetty ember fjord"]
    assert page.locator("dialog .gone").all_inner_texts() == [" cedar delta"]
    assert page.locator("dialog .come").all_inner_texts() == [" jetty ember fjord"]
    assert "leads the other engine's token by 0.5 nats" in page.locator("dialog .forks").inner_text()
    assert "answered otherwise itself: parallel" in page.locator("dialog").inner_text()
    page.get_by_role("button", name="characters").click()
    assert "".join(page.locator("dialog .come").all_inner_texts()) != " jetty ember fjord"


def test_json_and_calls_are_compared_by_field(opened: Open) -> None:
    page = opened(varied(), link="#case-json-4")

    assert page.locator("dialog table tbody tr").all_inner_texts() == ['$.name\t"Ann"\t"Bob"', '$.tags[1]\tabsent\t"b"']
    page.evaluate("location.hash = '#case-call-5'")
    page.locator("#case-title", has_text="call-5").wait_for()
    assert page.locator("dialog table tbody tr").all_inner_texts() == ["call 1, refund $.days\t30\t14"]
    assert '"order": 7' in page.locator("dialog .calls").first.inner_text()


def test_a_link_opens_a_case_of_any_id(opened: Open) -> None:
    page = opened(varied())

    page.locator("#matrix a", has_text="odd/8 &?#").click()
    link = page.evaluate("location.hash")
    page.reload()

    assert link == "#case-odd%2F8%20%26%3F%23"
    assert page.locator("#case-title").inner_text() == "odd/8 &?#"
    page.get_by_role("button", name="Close").click()
    assert page.evaluate("location.hash") == ""
    page.go_back()
    page.wait_for_selector("dialog[open]")
    page.evaluate("location.hash = '#case-%E0%A4%A'")  # no link of ours
    page.wait_for_selector("dialog:not([open])", state="attached")


def test_keys_go_from_case_to_case(opened: Open) -> None:
    page = opened(varied())

    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.innerText") == "hostile-3"
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")
    page.keyboard.press("j")
    assert page.locator("#case-title").inner_text() == "json-4"
    assert page.evaluate("location.hash") == "#case-json-4"
    page.keyboard.press("k")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")
    assert page.evaluate("document.activeElement.innerText") == "hostile-3"
    page.keyboard.press("/")
    page.keyboard.type("jk")
    assert page.locator("#find").input_value() == "jk"


def test_what_a_model_wrote_is_text(opened: Open) -> None:
    page = opened(varied(), link="#case-hostile-3")
    shown = page.locator("dialog .side pre").nth(1).inner_text()

    assert page.evaluate("window.owned") is None
    assert "</script><script>window.owned = 1</script><!--<script><img src=x" in shown
    assert "U+202Egnirts" in shown
    assert "\\x1b[31mred" in shown
    assert "{{ 7*7 }}" in shown
    assert page.locator("img, iframe, script[src], dialog svg").count() == 0
    assert "\u202e" not in page.locator("body").inner_text()
    page.evaluate("location.hash = '#case-silent-6'")
    page.locator("#case-title", has_text="silent-6").wait_for()
    assert "no answer in time: </script>" in page.locator("dialog").inner_text()


def test_the_policy_refuses_what_it_did_not_make(opened: Open) -> None:
    page = opened(varied(), attacked=True)

    page.evaluate("""() => {
        const script = document.createElement("script");
        try { script.textContent = "window.owned = 4"; } catch {}
        document.body.append(script);
        try { document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.owned = 5'>"); } catch {}
        const image = new Image();
        image.src = "https://example.org/x.png";
    }""")
    page.locator("html[data-refused*=img-src]").wait_for()

    assert page.evaluate("window.owned") is None
    assert {"img-src"} < set(page.evaluate("window.refused"))


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False)])
def test_axe_has_nothing_to_say(opened: Open, width: int, dark: bool) -> None:
    folder = pytest.importorskip("axe_playwright_python")
    axe = importlib.resources.files(folder).joinpath("axe.min.js").read_text("utf-8")
    for link in ("", "#case-fork-2", "#case-json-4"):
        page = opened(decided(), link=link, width=width, dark=dark)
        for details in page.locator("details").all():
            details.evaluate("element => element.open = true")
        # From outside the page's world: its policy lets no script in that it was not made with.
        session = page.context.new_cdp_session(page)
        frame = session.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
        world = session.send("Page.createIsolatedWorld", {"frameId": frame, "worldName": "axe"})["executionContextId"]
        session.send("Runtime.evaluate", {"expression": axe, "contextId": world})
        told = session.send(
            "Runtime.evaluate",
            {
                "expression": "axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify("
                "r.violations.map(v => [v.id, v.nodes.slice(0, 3).map(n => n.html + ' ' + n.failureSummary)])))",
                "contextId": world,
                "awaitPromise": True,
            },
        )

        assert told["result"].get("value") == "[]", link


def test_nothing_is_wider_than_a_phone(opened: Open) -> None:
    page = opened(decided(), width=360)

    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("#matrix .rows a").first.click()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= 360


def processor_seconds(page: Any) -> float:
    """Return what the page's process has taken of a processor since it began: what others do meanwhile adds little."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    metrics = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return float(metrics["ProcessTime"])


def test_ten_thousand_cases_are_drawn_as_they_come_into_view(opened: Open) -> None:
    page = opened(large(10_000, words=12))

    assert page.locator("#count").inner_text() == "4,667 of 10,000 cases"
    assert processor_seconds(page) < OPENED_S, "of the page's own process, from its start until the cases stand there"
    show(page, "all")
    assert len(rows(page)) < 60
    assert page.locator("#matrix").get_attribute("aria-rowcount") == "10001"
    last = page.locator("#matrix .rows").evaluate("element => element.getBoundingClientRect().bottom + scrollY")
    page.evaluate(f"scrollTo(0, {last})")
    page.wait_for_selector("#matrix [aria-rowindex='10001']")
    assert len(rows(page)) < 60
    page.evaluate("location.hash = '#case-case-7777'")
    page.wait_for_selector("dialog[open]")
    assert page.locator("#case-title").inner_text() == "case-7777"


def test_a_printed_page_has_its_rows(opened: Open) -> None:
    page = opened(large(120))

    page.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert len(rows(page)) == 56
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(rows(page)) < 56


def test_pictures_are_there_and_say_what_they_show(opened: Open) -> None:
    page = opened(varied())
    labels = [image.get_attribute("aria-label") for image in page.locator("svg[role=img]").all()]

    assert "dev 0.2 nats" in str(page.locator("svg.ladder").get_attribute("aria-label"))
    assert any(re.match(r"e2e: prod: p50 .*; dev: p50 ", str(words)) for words in labels)
    assert any("noise floor 2 %" in str(words) for words in labels)
    assert "budget: p95 at most 2s" in page.locator("#latency").inner_text()
    assert page.locator("section#cases .row.heads").inner_text().split() == ["case", "prod", "baseline", "dev"]


def test_a_run_of_one_engine_or_of_nothing_is_a_page_too(opened: Open) -> None:
    alone = opened(Made([answer("prod", "c", f"{WORDS[0]} {HOSTILE}")], []))
    assert rows(alone) == ["c"]

    nothing = opened(Made([], []))
    assert nothing.locator(".sentence").inner_text() == "Nothing was judged."
    assert TEST not in nothing.content()
