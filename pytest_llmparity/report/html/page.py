"""The run as one self-contained HTML page: verdicts and pictures as markup, the cases as data its script draws.

The page loads nothing, and its policy (``Content-Security-Policy``) lets nothing run but the one script it was made
with: whatever a model wrote is text. It holds no request headers and no folders of this machine, as the JSON report.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pytest_llmparity.core.history.entries import Entry
from pytest_llmparity.core.identity.record import EngineRecord, RunRecord, SampleOrigin
from pytest_llmparity.core.sample import Sample
from pytest_llmparity.core.verdict import SEVERITY, Outcome, Verdict
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.experiments import experiment_line
from pytest_llmparity.core.words.printable import printable_lines
from pytest_llmparity.report import json as json_report
from pytest_llmparity.report import overview
from pytest_llmparity.report.html import charts, decisions
from pytest_llmparity.report.html import history as past
from pytest_llmparity.report.html.cases import matrix

if TYPE_CHECKING:
    from jinja2 import Template

FILE: Final = "report.html"
_FOLDER: Final = "pytest_llmparity.report.html"
_HEADS: Final = ("kind", "version", "model", "quantization", "context_length", "launch", "route")
_UNDER_WAY: Final = re.compile(r"[<>&\u2028\u2029]")
_DIGEST: Final = re.compile(r"(?:sha256:)?[0-9a-f]{32,}")

Origin = Callable[[Sample], SampleOrigin | None]


def write(
    record: RunRecord,
    samples: Iterable[Sample],
    folder: Path,
    *,
    root: Path | None = None,
    origin: Origin = lambda sample: None,
    history: Sequence[Entry] = (),
) -> Path:
    """Write the page into ``folder``, which is made when it is not there; return where it is.

    It appears whole or not at all. ``root`` is the project's folder, left out of paths; ``origin`` tells who asked what
    a sample answers; ``history`` has the runs up to this one. Raises ``UsageError`` when it cannot be written.
    """
    places = json_report.here(root, json_report.files_of(record))
    text = page(record, list(samples), origin=origin, places=places, history=history)
    json_report.put(folder, {FILE: [text]})
    return folder / FILE


def page(
    record: RunRecord,
    samples: Sequence[Sample],
    *,
    origin: Origin = lambda sample: None,
    places: json_report.Places | None = None,
    history: Sequence[Entry] = (),
) -> str:
    """Return the page of a run, with the ``history`` up to it.

    ``places`` are shortened in every text but those of prompts and answers.
    """
    style, script = _text("style.css"), _text("script.js")
    cases = matrix(record, samples, origin)
    content = {
        "style": style,
        "script": script,
        "policy": policy(style, script),
        "run": record.run,
        "began": began(record.run),
        "version": record.version,
        "requests": record.requests,
        "replayed": record.replayed,
        "outcome": overview.worst(record.verdicts, record.errors).value,
        "sentence": overview.sentence(record.verdicts, record.errors, strict=record.strict),
        "decisions": decisions.of_record(record.decisions, cases),
        "tally": [(outcome.value, count) for outcome, count in overview.tally(record.verdicts, record.errors).items()],
        "engines": [engine.name for engine in record.engines],
        "baseline": next((engine.name for engine in record.engines if engine.baseline), None),
        "troubles": [(e.name, e.unusable) for e in record.engines if e.unusable],
        "facts": facts(record.engines),
        "engine_notes": [(e.name, note) for e in record.engines for note in e.notes],
        "tests": _tests(record),
        "notes": list(record.notes),
        "unshown": list(record.unshown),
        "gauge_width": charts.GAUGE,
        "plot": charts.PLOT,
    }
    shortened = _shown(content if places is None else places.shorten(content))
    over_runs = past.pictures(history)
    if places is not None:
        cases["verdicts"] = places.shorten(cases["verdicts"])
        for case in cases["cases"]:
            for answer in case["answers"]:
                if answer is not None and "why" in answer:
                    answer["why"] = places.shorten(answer["why"])
    return _template().render(
        **shortened,
        gauges=[charts.gauge(verdict) for verdict in record.verdicts],
        latency=charts.latency(record, samples),
        rungs=charts.ladder(record.ladder, record.verdicts),
        history=over_runs[: past.MOST],
        more_history=max(0, len(over_runs) - past.MOST),
        history_size=past.SIZE,
        cases=len(cases["cases"]),
        data=embedded(cases),
    )


def embedded(value: object) -> str:
    """Return JSON that can stand in a script element: no character of it can end that element or begin markup.

    >>> "<" in embedded(["</script><!--"])
    False
    """
    text = json.dumps(json_report.clean(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNDER_WAY.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def policy(style: str, script: str) -> str:
    """Return the page's policy: this style, this script, nothing else, and no text that becomes markup."""

    def allowed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return "; ".join(
        (
            "default-src 'none'",
            f"style-src {allowed(style)}",
            f"script-src {allowed(script)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def began(run: str) -> str:
    """Return when a run began, as its id says it, empty where that is no id of ours.

    >>> began("20261121-034501-ab12"), began("")
    ('2026-11-21 03:45 UTC', '')
    """
    match = re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)", run)
    return f"{match[1]}-{match[2]}-{match[3]} {match[4]}:{match[5]} UTC" if match else ""


def facts(engines: Sequence[EngineRecord]) -> list[dict[str, Any]]:
    """Return what is known of the engines, a row for each fact; ``differs`` where two are known to differ in it."""
    named = [_facts(engine) for engine in engines]
    names = dict.fromkeys([*_HEADS, *(name for known in named for name in known)])
    rows = []
    for name in names:
        values = [known.get(name) for known in named]
        known_values = {value["text"] for value in values if value is not None}
        if known_values:
            differs = len(known_values) > 1
            rows.append({"name": name.replace("_", " "), "values": values, "differs": differs, "head": name in _HEADS})
    return rows


def _facts(engine: EngineRecord) -> dict[str, dict[str, Any]]:
    """Return the facts of one engine by their names: text, what is shown of it, and who says so."""
    own: Mapping[str, Any] = {
        "kind": engine.kind,
        "version": engine.version,
        "model": engine.model,
        "quantization": engine.quantization,
        "context_length": engine.context_length,
        "launch": engine.launch,
        "route": engine.route,
    }
    stated = {name: (value, "") for name, value in own.items() if value is not None}
    stated |= {name: (fact.value, fact.source) for name, fact in engine.identity.facts.items() if name != "kind"}
    return {
        name: {"text": text, "short": _shortened(text), "source": source}
        for name, (value, source) in stated.items()
        if (text := str(json_report.without_folder(value)))
    }


def _shortened(text: str) -> str:
    """Return a digest as people compare it, and the beginning of anything that is as long."""
    if _DIGEST.fullmatch(text):
        kind, colon, digits = text.rpartition(":")
        return f"{kind}{colon}{digits[:12]}…"
    return text if len(text) <= 120 else text[:119] + "…"


def _tests(record: RunRecord) -> list[dict[str, Any]]:
    """Return the tests with their verdicts and the command that runs each again; the worst test first.

    So are the verdicts of each; tests that are as bad stay in their order, those first that failed where no verdict
    says so, each with its ``error``.
    """
    numbers = {id(verdict): number for number, verdict in enumerate(record.verdicts)}
    tests: dict[str, list[Verdict]] = {test: [] for test in record.errors}
    for verdict in record.verdicts:
        tests.setdefault(verdict.test, []).append(verdict)
    worst = {name: overview.worst(of_test, [name] if name in record.errors else ()) for name, of_test in tests.items()}
    in_order = sorted(tests.items(), key=lambda test: SEVERITY.index(worst[test[0]]), reverse=True)
    return [
        {
            "name": name,
            "outcome": worst[name].value,
            "error": record.errors.get(name, ""),
            "reproduce": record.reproduce.get(name, ""),
            "verdicts": [_verdict(verdict, numbers[id(verdict)]) for verdict in overview.in_order(verdicts)],
        }
        for name, verdicts in in_order
    ]


def _verdict(verdict: Verdict, number: int) -> dict[str, Any]:
    numberless = verdict.estimate is None or verdict.outcome in (Outcome.INCOMPARABLE, Outcome.ERROR, Outcome.SKIPPED)
    explanation = verdict.explanation
    experiments = () if explanation is None else explanation.experiments
    return {
        "number": number,
        "outcome": verdict.outcome.value,
        "open": verdict.outcome not in (Outcome.PASS, Outcome.SKIPPED) or bool(explain.hidden(verdict)),
        "kind": verdict.kind,
        "engine": verdict.engine,
        "baseline": verdict.baseline,
        "estimate": "" if numberless else explain.number(verdict.estimate or 0.0, verdict.unit),
        "measures": verdict.measures,
        "bounds": "" if numberless else explain.bounds(verdict),
        "margin": explain.limit(verdict).removeprefix("margin "),
        "floor": explain.floor(verdict),
        "n": explain.size(verdict).removeprefix("n "),
        "check": verdict.check,
        "where": verdict.where,
        "message": (verdict.message or explain.headline(verdict)).removeprefix(f"{verdict.outcome} "),
        "details": list(verdict.details),
        "remarks": explain.remarks(verdict),
        "causes": [line.strip() for line in explain.explained(verdict)],
        "differs": list(verdict.differs),
        "experiments": [experiment_line(experiment, verdict.unit) for experiment in experiments],
        "differing": len(verdict.differing),
    }


def _shown(value: Any) -> Any:
    """Return what the template is given with every control and direction mark of its texts visible."""
    if isinstance(value, str):
        return printable_lines(value)
    if isinstance(value, Mapping):
        return {key: item if key in ("style", "script", "policy") else _shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return value


@functools.cache
def _text(name: str) -> str:
    return resources.files(_FOLDER).joinpath(name).read_text("utf-8")


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined  # only who wants a page waits for it

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_text("page.html.jinja"))
