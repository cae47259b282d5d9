"""Rows of OpenAI's batches, of BFCL, IFEval, MT-Bench, and of data sets with a question and an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pytest_llmparity.core.errors import PromptSetError
from pytest_llmparity.core.prompts import NO_TOOL
from pytest_llmparity.core.prompts.entries import NEWER_LIMIT, SamplingEntry
from pytest_llmparity.core.prompts.foreign import Fields, Imported, PromptRow, listed, messages, objects, user
from pytest_llmparity.core.words import explain
from pytest_llmparity.core.words.nearest import nearest

_SAMPLING: Final = frozenset(SamplingEntry.model_fields) - {NEWER_LIMIT}
_ASIDE: Final = frozenset(
    {"model", "stream", "stream_options", "user", "metadata", "store", "service_tier", "logprobs", "top_logprobs"}
)
"""Fields of a request that say nothing of the prompt; docs/prompts.md lists them."""
_OF_A_ROW: Final = ("tools", "tool_choice", "response_format", "parallel_tool_calls", "logit_bias", "n")


def openai_batch(text: str, source: str) -> Imported:
    """Return the requests of a batch file (``custom_id``, ``url``, ``body``): chats and completions.

    ``model``, ``stream`` and what else says nothing of the prompt is left to the test and its engines;
    ``max_completion_tokens``, OpenAI's newer name, is ``max_tokens``. Format:
    https://platform.openai.com/docs/guides/batch.
    """
    imported = Imported()
    for number, request in objects(text, source):
        name, body = request.get("custom_id") or number, request.get("body")
        if not isinstance(body, Mapping):
            imported.leave(name, "it has no body")
            continue
        row: PromptRow = {"id": name}
        if isinstance(body.get("prompt"), str):
            row["prompt"] = body["prompt"]
        elif (turns := messages(body.get("messages"), imported)) is not None:
            row["messages"] = turns
        else:
            imported.leave(
                name, f"it asks {request.get('url') or 'for something'} and has neither messages nor one prompt"
            )
            continue
        sampling = {key: body[key] for key in body if key in _SAMPLING and body[key] is not None}
        if (limit := body.get(NEWER_LIMIT)) is not None and sampling.setdefault("max_tokens", limit) != limit:
            imported.lost[f"{NEWER_LIMIT}: there is a max_tokens too, and it is another"] += 1
        row |= {"sampling": sampling} if sampling else {}
        row |= {key: body[key] for key in _OF_A_ROW if body.get(key) is not None}
        known = {*row, *_SAMPLING, *_ASIDE, "messages", "prompt", NEWER_LIMIT}
        extra = {key: value for key, value in body.items() if key not in known and value is not None}
        row |= {"extra_body": extra} if extra else {}
        imported.lose(request, ("custom_id", "method", "url", "body"), "{} of a request")
        imported.add(row)
    return imported


_TYPES: Final = {"dict": "object", "float": "number", "tuple": "array", "any": None}
"""Types of BFCL's parameters that JSON Schema calls otherwise; ``any`` says nothing."""


def bfcl(text: str, source: str, answers: str = "") -> Imported:
    """Return the rows of the Berkeley Function-Calling Leaderboard (``question``, ``function``).

    ``answers`` is the text of the file beside it under ``possible_answer``: of each case its first function is the tool
    that is to be called; its arguments, of which several may be right, are not expressed. Rows of the categories of
    irrelevance expect no call. Dots in names of functions become ``_``, as the leaderboard's own runner does for
    OpenAI's interface. Format: https://github.com/ShishirPatil/gorilla/tree/main/berkeley-function-call-leaderboard.
    """
    truths = {str(row.get("id")): row.get("ground_truth") for _, row in objects(answers, source)} if answers else {}
    imported = Imported()
    for number, row in objects(text, source):
        name = str(row.get("id") or number)
        turns = row.get("question")
        if isinstance(turns, Sequence) and turns and isinstance(turns[0], Sequence) and not isinstance(turns[0], str):
            if len(turns) > 1:
                imported.leave(name, "it has several turns, each of which needs the answer to the one before")
                continue
            turns = turns[0]
        shaped = user(turns) if isinstance(turns, str) else messages(turns, imported)
        functions = listed(row.get("function"))
        if shaped is None or not functions or not all(isinstance(function, Mapping) for function in functions):
            imported.leave(name, "it has no question or no function")
            continue
        case: PromptRow = {
            "id": name,
            "tags": [re.sub(r"_\d.*\Z", "", name)],
            "messages": shaped,
            "tools": [_tool(f) for f in functions],
        }
        calls = listed(truths.get(name))
        tool = NO_TOOL if "irrelevance" in name else _function(calls)
        if tool:
            case["expect"] = {"tool": tool}
        else:
            imported.lost["which function is right: there is no answer for it"] += 1
        if tool and tool != NO_TOOL:
            imported.lost["arguments that are right, of which there may be several"] += 1
            if len(calls) > 1:
                imported.lost["calls behind the first, and that there are several"] += 1
        for function in functions:
            imported.lose(function, ("name", "description", "parameters"), "{} of a function")
        imported.lose(row, ("id", "question", "function"), "column {}")
        imported.add(case)
    return imported


def _tool(function: Mapping[str, Any]) -> PromptRow:
    kept = {key: function[key] for key in ("description",) if key in function}
    parameters = _schema(function.get("parameters") or {"type": "object", "properties": {}})
    return {"type": "function", "function": {"name": _name(function.get("name")), **kept, "parameters": parameters}}


def _name(name: object) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", str(name))


def _schema(value: Any) -> Any:
    if isinstance(value, list):
        return [_schema(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    made = {key: _schema(inner) for key, inner in value.items()}
    if isinstance(kind := value.get("type"), str):
        kind = _TYPES.get(kind.lower(), kind.lower())
        made.pop("type")
        made |= {"type": kind} if kind is not None else {}
    return made


def _function(calls: Sequence[object]) -> str:
    first = calls[0] if calls else None
    return _name(next(iter(first))) if isinstance(first, Mapping) and first else ""


def ifeval(text: str, source: str) -> Imported:
    """Return the prompts of IFEval (``key``, ``prompt``, ``instruction_id_list``), tagged by their instructions.

    What an instruction asks (so many words, no commas, …) is checked by programs of IFEval's own and not expressed.
    Format: https://github.com/google-research/google-research/tree/master/instruction_following_eval.
    """
    imported = Imported()
    for number, row in objects(text, source):
        name = row.get("key") or number
        if not isinstance(row.get("prompt"), str):
            imported.leave(name, "it has no prompt")
            continue
        instructions = [str(item) for item in listed(row.get("instruction_id_list"))]
        imported.lost.update(f"instruction {item}" for item in instructions)
        imported.lose(row, ("key", "prompt", "instruction_id_list", "kwargs"), "column {}")
        tags = list(dict.fromkeys(item.partition(":")[0] for item in instructions))
        imported.add({"id": name, "messages": user(row["prompt"]), **({"tags": tags} if tags else {})})
    return imported


def mtbench(text: str, source: str) -> Imported:
    """Return the first turns of MT-Bench (``question_id``, ``category``, ``turns``), tagged by their category.

    Later turns follow an answer, so they are no prompts; a reference is an essay and not what an answer is held
    against. Format: https://github.com/lm-sys/FastChat/tree/main/fastchat/llm_judge.
    """
    imported = Imported()
    for number, row in objects(text, source):
        turns, name = row.get("turns"), row.get("question_id") or number
        if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns or not isinstance(turns[0], str):
            imported.leave(name, "it has no turns")
            continue
        if len(turns) > 1:
            imported.lost["turns behind the first answer"] += len(turns) - 1
        if row.get("reference"):
            imported.lost["references"] += 1
        imported.lose(row, ("question_id", "category", "turns", "reference"), "column {}")
        tags = {"tags": [str(row["category"])]} if row.get("category") else {}
        imported.add({"id": name, "messages": user(turns[0]), **tags})
    return imported


PROMPT_FIELDS: Final = (
    "messages",
    "conversations",
    "conversation",
    "prompt",
    "question",
    "instruction",
    "input",
    "text",
)
ANSWER_FIELDS: Final = ("answer", "target", "label")


def data_set(text: str, source: str, fields: Fields) -> Imported:
    """Return rows of a data set, such as ``datasets`` writes with ``to_json``.

    A prompt is what ``fields["prompt"]`` names, else the first of :data:`PROMPT_FIELDS` that a row has; turns in
    OpenAI's or ShareGPT's shape are a conversation, whose last turn is left out where it is the assistant's.
    ``answer``, ``id``, ``tag`` and ``group`` likewise (only an answer is looked for without being named). Other columns
    are not expressed.
    """
    imported = Imported()
    rows = list(objects(text, source))
    columns = dict.fromkeys(key for _, row in rows for key in row)
    for field, column in fields.items():
        if rows and column not in columns:
            known = ", ".join(explain.plain(name, 40) for name in list(columns)[:12])
            raise PromptSetError(
                f"{source}: no column {column} for {field}{nearest(column, columns)}; there are {known}"
            )
    for number, row in rows:
        at = {field: _at(row, fields.get(field), known) for field, known in _KNOWN.items()}
        name = row.get(at["id"] or "") or number
        value = row.get(at["prompt"] or "")
        turns = user(value) if isinstance(value, str) and value.strip() else messages(value, imported)
        if turns is None:
            wanted = fields.get("prompt") or "any of " + ", ".join(PROMPT_FIELDS)
            imported.leave(name, f"it has no prompt in {wanted}")
            continue
        if len(turns) > 1 and turns[-1]["role"] == "assistant":
            imported.lost["the assistant's last turn"] += 1
            turns = turns[:-1]
        case: PromptRow = {"id": name, "messages": turns}
        if at["prompt"] == "instruction" and isinstance(row.get("input"), str) and row["input"].strip():
            turns[0]["content"] += f"\n\n{row['input']}"
            at["input"] = "input"
        answer = row.get(at["answer"] or "")
        if isinstance(answer, (str, int, float)) and not isinstance(answer, bool) and str(answer).strip():
            case["expect"] = {"answer": str(answer)}
        elif at["answer"] is not None and answer is not None and not isinstance(answer, str):
            kind = "true or false" if isinstance(answer, bool) else "a list" if isinstance(answer, list) else "a table"
            imported.lost[f"answer in column {at['answer']} that is {kind}"] += 1
        for field, key in (("tag", "tags"), ("group", "group")):
            if row.get(at[field] or "") is not None:
                case[key] = [str(row[at[field] or ""])] if field == "tag" else str(row[at[field] or ""])
        imported.lose(row, [column for column in at.values() if column is not None], "column {}")
        imported.add(case)
    return imported


_KNOWN: Final[Mapping[str, Sequence[str]]] = {
    "prompt": PROMPT_FIELDS,
    "answer": ANSWER_FIELDS,
    "id": ("id",),
    "tag": (),
    "group": (),
}


def _at(row: Mapping[str, Any], named: str | None, known: Sequence[str]) -> str | None:
    if named is not None:
        return named
    return next((name for name in known if row.get(name) not in (None, "")), None)
