"""``llmparity doctor``: what the engines are, what they can do, and what to change."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import add_verb, selected, serving
from pytest_llmparity.core.words.exits import OK, WRONG
from pytest_llmparity.core.words.printable import uncommanded, uncommanded_json
from pytest_llmparity.extras import localised

if TYPE_CHECKING:
    from pytest_llmparity.cli.verbs import Commands, Selection
    from pytest_llmparity.core.identity.examination import Examination
    from pytest_llmparity.core.sample import JsonObject


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Start or attach to the engines and say what they are, what they can do, and what to change."
    parser = add_verb(commands, "doctor", does=does)
    parser.add_argument(
        "--prompts", nargs="+", metavar="FILE", help="Prompt files to hold against the engines' context and words"
    )
    parser.add_argument(
        "--schema",
        action="store_true",
        help="Ask prompts that push against a JSON Schema instead, and print what each engine enforces",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="Print JSON, as schemas/doctor.schema.json describes it, of --schema the matrix",
    )
    parser.set_defaults(command=_doctor, name="doctor")


def _doctor(asked: argparse.Namespace) -> int:
    from pytest_llmparity.report import doctor as report
    from pytest_llmparity.run.declare.prompts import load_prompts
    from pytest_llmparity.run.doctor import examine
    from pytest_llmparity.settings import origins

    selection = selected(asked)
    if asked.schema:
        return _schema(selection, as_json=asked.json)
    folders = (selection.given.cwd, selection.given.root)
    prompts = [load_prompts(name, folders, beside="in this folder") for name in asked.prompts or ()]
    whole = list(origins.of_run(selection.settings))
    examined = []
    with serving(selection) as session:
        for spec in selection.settings.engines:
            origin_of_each = list(origins.of_engine(spec, environ=os.environ))
            compared = len(selection.settings.engines) > 1
            examination = examine(session, spec, settings=origin_of_each, prompts=prompts, compared=compared)
            examined.append(examination)
            if not asked.json:
                print(*map(uncommanded, report.engine_lines(_localised(examination))), "", sep="\n", flush=True)
        keys = session.mask.unsearched
        if asked.json:
            record = json.dumps(report.to_record(examined, whole, keys, version=session.version), indent=1)
            print(uncommanded_json(record))
        else:
            print(*map(uncommanded, report.ending_lines(examined, whole, keys)), sep="\n")
    return OK if all(examination.well for examination in examined) else WRONG


def _localised(examination: Examination) -> Examination:
    """Return what is shown here of an engine: what to install is named as it can be installed on this machine."""
    engine = examination.engine
    shown = engine if engine.error is None else dataclasses.replace(engine, error=localised(engine.error))
    return dataclasses.replace(examination, engine=shown)


def _schema(selection: Selection, *, as_json: bool) -> int:
    """Print what each engine makes of each thing that a schema can ask; an engine that cannot be asked is wrong."""
    from pytest_llmparity.core.sample import from_json, to_json
    from pytest_llmparity.report import structured
    from pytest_llmparity.run.probe.enforcing import Enforced, enforced

    by_engine: dict[str, list[Enforced]] = {}
    facts: dict[str, JsonObject] = {}
    missing: list[str] = []
    with serving(selection) as session:
        for spec in selection.settings.engines:
            engaged = session.engaged(spec.name)
            record = engaged.record
            if engaged.adapter is None:
                missing.append(f"{spec.name}: {record.error or record.incomparable or 'it cannot be asked'}")
                continue
            answers = [from_json(Enforced, session.mask.value(to_json(each))) for each in enforced(engaged.adapter)]
            by_engine[spec.name] = answers
            version = record.identity.get("version")
            facts[spec.name] = {"kind": record.kind, "version": None if version is None else str(version)}
        missing = [session.mask.text(line) for line in missing]
    if as_json:
        print(uncommanded_json(json.dumps(structured.record(by_engine, facts, missing), indent=1)))
    else:
        print(*map(uncommanded, (*structured.lines(by_engine), *map(localised, missing))), sep="\n")
    failed = [name for name, answers in by_engine.items() if all(each.outcome == "failed" for each in answers)]
    return WRONG if missing or failed else OK
