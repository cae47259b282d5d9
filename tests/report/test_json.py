"""The files for programs: exactly the published keys, valid by the shipped schema, whole or not there."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.identity.capabilities import Capabilities
from pytest_llmparity.core.identity.record import (
    EngineRecord,
    FailureRecord,
    LatencyQuantiles,
    RunRecord,
    SampleOrigin,
)
from pytest_llmparity.core.identity.routes import RouteCheck
from pytest_llmparity.core.sample import (
    Completion,
    Fact,
    Failure,
    Identity,
    Phase,
    Sample,
    Timing,
    TokenLogprob,
    ToolCall,
)
from pytest_llmparity.core.verdict import Difference, Outcome, Verdict
from pytest_llmparity.report import json as json_report
from tests.report.html.made import decision, varied

PUBLISHED = json.loads(resources.files("pytest_llmparity").joinpath("schemas/run.schema.json").read_text("utf-8"))
RUN = jsonschema_rs.Draft202012Validator(PUBLISHED)
SAMPLE = jsonschema_rs.Draft202012Validator({**{"$ref": "#/$defs/sample"}, "$defs": PUBLISHED["$defs"]})

RECORD = RunRecord(
    run="20261121-034501-ab12",
    version="1.0",
    engines=(
        EngineRecord(
            name="f16",
            kind="llamacpp",
            model="/home/somebody/models/tiny-F16.gguf",
            baseline=True,
            identity=Identity(
                facts={
                    "model": Fact(value="/home/somebody/models/tiny-F16.gguf", source="reported", raw="/home/x"),
                    "context_length": Fact(value=2048, source="reported"),
                    "revision": Fact(value="C:\\models\\tiny", source="declared"),
                }
            ),
        ),
        EngineRecord(name="q4_0", kind="vllm", model="Qwen/Qwen3-8B", context_length=2048),
    ),
    verdicts=(
        Verdict(
            test="t.py::test",
            check="text()",
            kind="text",
            engine="q4_0",
            baseline="f16",
            outcome=Outcome.FAIL,
            estimate=0.08,
            upper=math.inf,
            lower=math.nan,
            differs=("template",),
            differing=(Difference(case="c", what="text", baseline_sha256="ab" * 32, token=3.5, grade="near-tie"),),
            horizon=32,
            message="FAIL \ud800 text",
            details=("not published",),
            where="/home/somebody/test.py:3",
        ),
    ),
    latency=(LatencyQuantiles(engine="f16", metric="ttft", p50=0.1, p95=0.2, p99=math.inf, n=128),),
    failures=(FailureRecord(engine="f16", case="c", phase="main", kind="Timeout", message="late"),),
    notes=("a note",),
)
ANSWER = Sample(
    engine="f16",
    case="c1",
    phase=Phase.TIMED,
    request_sha256="ab",
    completion=Completion(
        text="half a character: \ud83d",
        tool_calls=(ToolCall(name="f", arguments="{}"),),
        finish_reason="stop",
        completion_tokens=3,
        logprobs=(TokenLogprob(token=b"h", logprob=-0.1),),
    ),
    timing=Timing(ttfb_s=0.1, ttft_s=None, e2e_s=math.inf, gaps_s=(0.1,), block=1),
)
MISSING = Sample(engine="f16", case="c2", phase=Phase.MAIN, failure=Failure(kind="Timeout", message="late", status=504))


def test_the_schema_is_itself_valid() -> None:
    jsonschema_rs.meta.validate(PUBLISHED)


def test_a_run_has_exactly_the_published_keys() -> None:
    content = json_report.to_json(RECORD)

    RUN.validate(content)
    assert set(content) == {
        "schema",
        "run",
        "version",
        "engines",
        "verdicts",
        "latency",
        "failures",
        "errors",
        "decisions",
        "requests",
        "retries",
        "replayed",
        "notes",
        "reproduce",
        "ladder",
    }
    assert list(content["engines"][0]) == (
        [
            "name",
            "kind",
            "version",
            "model",
            "quantization",
            "context_length",
            "launch",
            "recording",
            "pace",
            "route",
            "baseline",
            "identity",
            "capabilities",
            "route_check",
            "notes",
        ]
    )
    assert list(content["verdicts"][0]) == [
        "test",
        "check",
        "kind",
        "tag",
        "engine",
        "baseline",
        "outcome",
        "estimate",
        "lower",
        "upper",
        "margin",
        "unit",
        "side",
        "n",
        "groups",
        "effective",
        "horizon",
        "requests",
        "looks",
        "alpha",
        "p_pass",
        "p_fail",
        "p_family",
        "family",
        "floor",
        "apart",
        "shape",
        "differs",
        "cause",
        "message",
        "arm",
        "constraint",
        "explanation",
        "differing",
        "left_out",
        "lenience",
        "remarks",
        "margin_from",
    ]
    assert list(content["latency"][0]) == ["engine", "metric", "p50", "p95", "p99", "n", "unit"]


def test_outcomes_are_in_capitals_numbers_finite_and_texts_unicode() -> None:
    content = json_report.to_json(RECORD)

    (verdict,) = content["verdicts"]
    assert (verdict["outcome"], verdict["estimate"], verdict["upper"], verdict["lower"]) == ("FAIL", 0.08, None, None)
    assert verdict["message"] == "FAIL \ufffd text"
    assert content["latency"][0]["p99"] is None


def test_no_absolute_path_is_published() -> None:
    content = json_report.to_json(RECORD)

    assert content["engines"][0]["model"] == "tiny-F16.gguf"
    assert content["engines"][0]["identity"] == {
        "model": {"value": "tiny-F16.gguf", "source": "reported"},
        "context_length": {"value": 2048, "source": "reported"},
        "revision": {"value": "tiny", "source": "declared"},
    }
    assert content["engines"][1]["model"] == "Qwen/Qwen3-8B"
    assert "somebody" not in json.dumps(content)


def test_folders_of_this_machine_are_left_out_of_sentences_but_not_of_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("USERPROFILE", "/home/somebody")
    root = Path("/home/somebody/project")
    told = "'/home/somebody/project/x.gguf' cannot be read, nor /home/somebody/.cache, nor /data/m/y.gguf"
    (verdict,) = RECORD.verdicts
    record = dataclasses.replace(
        RECORD,
        engines=(EngineRecord(name="f16", kind="llamacpp", model="/data/m/y.gguf"),),
        verdicts=(dataclasses.replace(verdict, message=told, check="schema('s.json')", cause=told, differs=(told,)),),
        failures=(FailureRecord(engine="f16", case="c", phase="main", kind="EngineDied", message=told),),
    )
    missing = msgspec.structs.replace(MISSING, failure=Failure(kind="EngineDied", message=told))
    answered = msgspec.structs.replace(ANSWER, completion=Completion(text=told))

    json_report.write(record, [missing, answered], tmp_path, root=root)

    short = "'x.gguf' cannot be read, nor ~/.cache, nor y.gguf"
    content = json.loads((tmp_path / "run.json").read_bytes())
    (published,) = content["verdicts"]
    assert (published["message"], published["cause"], published["differs"]) == (short, short, [short])
    assert content["failures"][0]["message"] == short
    lost, line = map(json.loads, (tmp_path / "samples.jsonl").read_text("ascii").splitlines())
    assert (lost["failure"]["message"], line["text"]) == (short, told)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("verdicts", 0, "outcome"), "fail"),
        (("schema",), 2),
        (("verdicts", 0, "details"), []),
        (("engines", 0, "name"), "A"),
    ],
)
def test_the_schema_refuses_what_is_not_published(path: tuple[Any, ...], value: object) -> None:
    content = json_report.to_json(RECORD)
    place: Any = content
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value

    with pytest.raises(jsonschema_rs.ValidationError):
        RUN.validate(content)


def test_a_sample_is_one_valid_line() -> None:
    lines = [json_report.sample_to_json("r", sample) for sample in (ANSWER, MISSING)]

    for line in lines:
        SAMPLE.validate(line)
    assert lines[0]["text"] == "half a character: \ufffd"
    assert lines[0]["usage"] == {
        "prompt_tokens": None,
        "completion_tokens": 3,
        "reasoning_tokens": None,
        "cached_tokens": None,
    }
    assert lines[0]["logprobs"] == [{"token": "h", "logprob": -0.1, "top": []}]
    assert (lines[0]["tags"], lines[0]["group"], lines[0]["expect"]) == ([], None, {})
    assert lines[0]["timing"]["e2e_s"] is None
    assert lines[0]["failure"] is None
    assert (lines[1]["text"], lines[1]["usage"], lines[1]["timing"]) == (None, None, None)
    assert lines[1]["failure"] == {"kind": "Timeout", "message": "late", "status": 504}


def test_an_empty_answer_is_not_a_missing_one() -> None:
    empty = Sample(engine="e", case="c", phase=Phase.MAIN, completion=Completion(text=""))

    line = json_report.sample_to_json("r", empty)

    SAMPLE.validate(line)
    assert (line["text"], line["tool_calls"]) == ("", [])


@given(text=st.text(st.characters(), max_size=30), number=st.floats())
def test_whatever_a_model_says_the_files_are_json_for_everyone(text: str, number: float) -> None:
    completion = Completion(text=text, reasoning=text, tool_calls=(ToolCall(name=text, arguments=text),), model=text)
    sample = Sample(
        engine="e",
        case="c",
        phase=Phase.MAIN,
        completion=completion,
        timing=Timing(ttfb_s=number, ttft_s=0.0, e2e_s=1.0),
    )
    verdict = Verdict(
        test="t", check="c", kind="k", engine="e", baseline=None, outcome=Outcome.PASS, estimate=number, message=text
    )

    line = json.dumps(json_report.sample_to_json("r", sample), allow_nan=False)
    run = json.dumps(json_report.to_json(RunRecord(run="r", version="1", verdicts=(verdict,))), allow_nan=False)

    SAMPLE.validate(json.loads(line))
    RUN.validate(json.loads(run))
    json.loads(run)["verdicts"][0]["message"].encode("utf-8")
    assert "\n" not in line


def test_both_files_are_written_into_a_new_folder(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "report"

    json_report.write(RECORD, [ANSWER, MISSING], folder)

    assert sorted(path.name for path in folder.iterdir()) == ["run.json", "samples.jsonl"]
    assert json.loads((folder / "run.json").read_bytes()) == json_report.to_json(RECORD)
    lines = (folder / "samples.jsonl").read_text("ascii").splitlines()
    assert [json.loads(line)["case"] for line in lines] == ["c1", "c2"]


def test_a_report_that_breaks_off_leaves_the_old_one(tmp_path: Path) -> None:
    json_report.write(RECORD, [ANSWER], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def breaking() -> Any:
        yield MISSING
        raise RuntimeError("the store went away")

    with pytest.raises(RuntimeError, match="went away"):
        json_report.write(RECORD, breaking(), tmp_path)

    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(UsageError, match=r"report cannot be written .*choose another --parity-out"):
        json_report.write(RECORD, [], tmp_path / "file" / "report")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_only_the_user_may_read_the_report(tmp_path: Path) -> None:
    json_report.write(RECORD, [], tmp_path / "new")

    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in [tmp_path / "new", *(tmp_path / "new").iterdir()]}
    assert modes == {"new": "0o700", "run.json": "0o600", "samples.jsonl": "0o600"}


def test_what_an_engine_can_do_is_published_with_what_was_promised() -> None:
    declares = Capabilities(json_schema=True, overflow="refused")
    can = declares.corrected({"json_schema": False, "context_length": 885})
    routes = RouteCheck(measured="native", other="openai", cases=8, texts=2)
    engine = dataclasses.replace(RECORD.engines[0], declares=declares, capabilities=can, route_check=routes)

    content = json_report.to_json(dataclasses.replace(RECORD, engines=(engine,)))

    RUN.validate(content)
    assert content["engines"][0]["capabilities"] == {
        "json_schema": {"value": False, "declared": True, "probed": True},
        "overflow": {"value": "refused", "declared": "refused", "probed": False},
        "context_length": {"value": 885, "declared": None, "probed": True},
    }
    assert content["engines"][0]["route_check"]["differs"] is True
    assert content["engines"][0]["route_check"]["sentence"].endswith("2 of 8 answers differ")


def test_a_decision_is_published_with_its_grounds_what_changed_and_which_cases_turned() -> None:
    old = dataclasses.replace(decision(), flips=None, verdicts=(), changed=(), regressions=(), changed_cases=())

    content = json_report.to_json(dataclasses.replace(RECORD, decisions=(decision(), old)))

    RUN.validate(content)
    new, of_old = content["decisions"]
    assert (new["outcome"], new["policy"], new["same"]) == ("HOLD", "release.toml", ["kind", "version"])
    args = next(change for change in new["changed"] if change["field"] == "args")
    assert (args["baseline"], args["candidate"][:15]) == ("--ctx-size 4096", "--ctx-size 2048")
    assert new["flips"]["regressions"] == 8
    assert [case["case"] for case in new["regressions"][:2]] == ["silent-6", "odd/8 &?#"]
    assert {ground["alone"] for ground in new["verdicts"]} == {"HOLD", "SHIP"}
    assert of_old["flips"] is None


def test_what_the_summary_tells_of_a_run_is_published_too() -> None:
    made = varied()
    (first, *others) = made.record.engines
    known = dataclasses.replace(first, notes=("golden answers of prod, recorded 2026-11-29",))
    unshown = ("no tpot of dev is shown: it is not known",)
    record = dataclasses.replace(made.record, engines=(known, *others), retries=3, replayed=True, unshown=unshown)

    content = json_report.to_json(record)

    RUN.validate(content)
    assert (content["requests"], content["retries"], content["replayed"]) == (145, 3, True)
    assert content["engines"][0]["notes"] == ["golden answers of prod, recorded 2026-11-29"]
    assert content["notes"][0].startswith("a note ")
    assert content["notes"][1:] == [*unshown]
    command = "pytest tests/test_gate.py::test_tickets --engines prod,dev"
    assert content["reproduce"] == [{"test": "tests/test_gate.py::test_tickets", "command": command}]
    assert [rung["quantization"] for rung in content["ladder"]["rungs"]] == ["Q8_0", "Q6_K", "Q4_K_M", "Q3_K_S"]


def test_a_sample_says_what_was_expected_and_how_sure_the_engine_was() -> None:
    tokens = (TokenLogprob(token=b"\xe2\\", logprob=None, top=((b"\xe2\\", -0.5), (b"no", -math.inf))),)
    completion = Completion(text="x", completion_tokens=7, reasoning_tokens=5, logprobs=tokens)
    sample = Sample(engine="e", case="c", phase=Phase.MAIN, completion=completion)
    origin = SampleOrigin(tags=("poem",), group="g", expect={"contains": ["x"]})

    line = json.loads(json.dumps(json_report.sample_to_json("r", sample, origin=origin), allow_nan=False))

    SAMPLE.validate(line)
    assert line["usage"]["reasoning_tokens"] == 5
    assert (line["tags"], line["group"], line["expect"]) == (["poem"], "g", {"contains": ["x"]})
    assert line["logprobs"] == [{"token": "\\xe2\\\\", "logprob": None, "top": [["\\xe2\\\\", -0.5], ["no", None]]}]
