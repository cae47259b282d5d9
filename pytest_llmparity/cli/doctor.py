"""``llmparity doctor``: what the engines are, what they can do, and what to change."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import add_verb, selected, serving
from pytest_llmparity.core.words.exits import OK, WRONG
from pytest_llmparity.core.words.printable import uncommanded, uncommanded_json

if TYPE_CHECKING:
    from pytest_llmparity.cli.verbs import Commands


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Start or attach to the engines and say what they are, what they can do, and what to change."
    parser = add_verb(commands, "doctor", does=does)
    parser.add_argument(
        "--prompts", nargs="+", metavar="FILE", help="Prompt files to hold against the engines' context and words"
    )
    parser.add_argument("--json", action="store_true", help="Print JSON, as schemas/doctor.schema.json describes it")
    parser.set_defaults(command=_doctor, name="doctor")


def _doctor(asked: argparse.Namespace) -> int:
    from pytest_llmparity.report import doctor as report
    from pytest_llmparity.run.declare.prompts import load_prompts
    from pytest_llmparity.run.doctor import examine
    from pytest_llmparity.settings import origins

    selection = selected(asked)
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
                print(*map(uncommanded, report.engine_lines(examination)), "", sep="\n", flush=True)
        keys = session.mask.unsearched
        if asked.json:
            record = json.dumps(report.to_record(examined, whole, keys, version=session.version), indent=1)
            print(uncommanded_json(record))
        else:
            print(*map(uncommanded, report.ending_lines(examined, whole, keys)), sep="\n")
    return OK if all(examination.well for examination in examined) else WRONG
