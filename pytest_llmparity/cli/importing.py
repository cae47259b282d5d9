"""``llmparity import``: a prompt file from what other tools keep their prompts in."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_llmparity.cli.verbs import complain
from pytest_llmparity.core.words.exits import OK, REFUSED
from pytest_llmparity.core.words.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_llmparity.cli.verbs import Commands
    from pytest_llmparity.core.prompts.foreign import Imported

FORMATS = ("promptfoo", "openai-batch", "bfcl", "ifeval", "mtbench", "hf-jsonl")
FIELDS = ("prompt", "answer", "id", "tag", "group")


def add(commands: Commands) -> None:
    """Add the verb to the command line."""
    does = "Make a prompt file of what another tool keeps its prompts in; what has no place there is listed."
    parser = commands.add_parser("import", help=does, description=does)
    parser.add_argument("format", choices=FORMATS, help="what wrote the file")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("-o", "--output", type=Path, default=Path("prompts.jsonl"), help="default: %(default)s")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="bfcl: the file beside it with possible answers")
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="WHAT=COLUMN",
        help=f"hf-jsonl: the column of {', '.join(FIELDS)}; may be repeated",
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    parser.set_defaults(command=_import, name="import")


def _import(asked: argparse.Namespace) -> int:
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.core.prompts.foreign import told
    from pytest_llmparity.core.prompts.reading import prompts_of
    from pytest_llmparity.store import whole

    if asked.output.exists() and not asked.force:
        raise UsageError(f"{asked.output} is there already; name another with -o, or write over it with --force")
    imported = _imported(asked)
    for line in told(imported):
        print(printable(line))
    if not imported.rows:
        return complain(f"{asked.file}: no case could be made of it, nothing was written", REFUSED)
    prompts = prompts_of(imported.rows, source=str(asked.file), name=asked.output.stem)
    lines = (json.dumps(row, ensure_ascii=False) for row in imported.rows)
    try:
        whole.replace(asked.output, (f"{line}\n" for line in lines), shared=True)
    except OSError as error:
        return complain(f"{asked.output}: cannot be written: {error.strerror}", REFUSED)
    expecting = sum(case.expect is not None for case in prompts.cases)
    says = f", {expecting} of them say what is right" if expecting else ""
    print(printable(f"{asked.output}: {len(prompts.cases)} cases in {prompts.groups} groups{says}"))
    return OK


def _imported(asked: argparse.Namespace) -> Imported:
    from pytest_llmparity.core.errors import UsageError
    from pytest_llmparity.core.prompts.foreign import jsonl
    from pytest_llmparity.core.prompts.foreign.promptfoo import promptfoo
    from pytest_llmparity.run.declare.prompts import text_of

    fields = _fields(asked.field)
    if fields and asked.format != "hf-jsonl":
        raise UsageError(f"--field is for hf-jsonl; {asked.format} has columns of its own")
    if asked.answers and asked.format != "bfcl":
        raise UsageError("--answers is for bfcl")
    source, text = str(asked.file), text_of(asked.file, asked.file)
    if asked.format == "promptfoo":
        return promptfoo(text, source, lambda path: text_of(asked.file.parent / path, path))
    if asked.format == "bfcl":
        return jsonl.bfcl(text, source, text_of(asked.answers, asked.answers) if asked.answers else "")
    if asked.format == "hf-jsonl":
        return jsonl.data_set(text, source, fields)
    return {"openai-batch": jsonl.openai_batch, "ifeval": jsonl.ifeval, "mtbench": jsonl.mtbench}[asked.format](
        text, source
    )


def _fields(given: list[str]) -> Mapping[str, str]:
    from pytest_llmparity.core.errors import UsageError

    fields = {}
    for item in given:
        field, equals, column = item.partition("=")
        if field not in FIELDS or not equals or not column:
            expected = f"one of {', '.join(FIELDS)}, = and a column, such as prompt=question"
            raise UsageError(f"--field {item}: expected {expected}")
        fields[field] = column
    return fields
