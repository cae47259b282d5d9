"""Writes the tables of README.md and docs/engines.md that say what every kind can do and how that was verified.

    python docs/support.py

Nothing in them is written by hand. What a kind can do is read from its adapter, how it was verified from what is there:
tests on the live engine, recordings of it, the contract suite. The tests in ``tests/docs`` fail when a piece of
evidence is gone or a table is not the one this file makes.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pytest_llmparity.core.errors import ParameterNotHonoured
from pytest_llmparity.core.sample import Request, Sampling
from pytest_llmparity.engines.registry import facts, kinds
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.specification import EngineSpec, Route

ROOT = Path(__file__).parents[1]
ENGINES = ROOT / "tests/engines"
WIRE = ROOT / "fixtures/wire"
PAGES = {"README.md": "support", "docs/engines.md": "capabilities"}
"""Pages with a table, and the name of the markers around it."""

LIVE, ONCE, RECORDED, WRITTEN = "live", "live once", "recorded", "documented"
PROBED = "asked by a probe"
"""What is said of a capability that a kind declares nothing of."""
FOLDERS = {"ollama": ("ollama", "ollama-paths")}
"""Folders of recordings of kinds that have not just the one of their own name."""


@dataclass(frozen=True, kw_only=True)
class Capability:
    """One row: what a kind says of it, the test on live engines, recordings (any of them counts), the contract's test.

    ``read`` rows are verified also where a kind declares nothing, because what comes back is read all the same.
    ``generic``: the live test is also asked of a server that is attached to as ``openai``.
    """

    says: Callable[[type[Adapter]], str]
    live: str
    contract: str
    recordings: tuple[str, ...] = ()
    read: bool = False
    generic: bool = False


def declared(name: str, words: Mapping[object, str] | None = None) -> Callable[[type[Adapter]], str]:
    """Return what reads one declared capability of a kind and says it in words."""
    labels = {None: PROBED, True: "yes", False: "no", **(words or {})}
    return lambda adapter: labels.get(getattr(adapter.declares, name), str(getattr(adapter.declares, name)))


def order(adapter: type[Adapter]) -> str:
    """Return whether a schema's properties are forced in the order they are declared in."""
    return "no schema" if adapter.declares.json_schema is False else declared("schema_order")(adapter)


def route(name: Route) -> Callable[[type[Adapter]], str]:
    """Return what reads whether a kind has a route of a name."""
    return lambda adapter: "yes" if name in adapter.routes else "no"


def always(adapter: type[Adapter]) -> str:
    """Say that every kind can."""
    return "yes"


def parameters(adapter: type[Adapter]) -> str:
    """Return which sampling parameters a request may set, by route where they differ."""
    refused = {route: _refused(adapter, route) for route in adapter.routes}
    words = {route: f"all but {', '.join(names)}" if names else "all" for route, names in refused.items()}
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{route}: {each}" for route, each in words.items())


def _refused(adapter: type[Adapter], route: Route) -> list[str]:
    spec = EngineSpec(name="x", kind=adapter.kind, model="m", route=route)
    made = adapter(spec, "http://127.0.0.1:9", {})
    refused = []
    for name, value in {
        "top_k": 41,
        "top_p": 0.9,
        "min_p": 0.05,
        "repetition_penalty": 1.2,
        "presence_penalty": 0.4,
        "frequency_penalty": 0.6,
        "seed": 7,
        "stop": ("END",),
    }.items():
        request = Request(case="c", messages=(), sampling=Sampling(**{name: value}))  # type: ignore[arg-type]
        try:
            made.build(made.own(request))
        except ParameterNotHonoured:
            refused.append(f"`{name}`")
    return refused


CAPABILITIES: Mapping[str, Capability] = {
    "chat, streamed and whole alike": Capability(
        says=always,
        live="test_chat_is_answered",
        contract="test_an_answer_is_the_same_streamed_or_whole",
        recordings=("v1_chat_stream",),
        read=True,
        generic=True,
    ),
    "route `responses`": Capability(
        says=route("responses"),
        live="test_responses_answer_as_the_chat_does",
        contract="test_an_answer_is_the_same_streamed_or_whole",
        recordings=("v1_responses",),
    ),
    "route `completions`": Capability(
        says=route("completions"),
        live="test_completions_take_the_raw_prompt",
        contract="test_a_raw_prompt_is_answered",
        recordings=("v1_completions_stream",),
    ),
    "raw prompts": Capability(
        says=declared("raw_prompt"),
        live="test_raw_prompt_is_the_rendered_chat",
        contract="test_a_raw_prompt_is_answered",
        recordings=("v1_completions_raw", "generate_raw"),
        read=True,
        generic=True,
    ),
    "JSON schema enforced": Capability(
        says=declared("json_schema", {False: "no, such cases are not sent"}),
        live="test_schema_is_forced",
        contract="test_a_declared_schema_was_enforced",
        recordings=("v1_chat_schema",),
    ),
    "its properties in declared order": Capability(
        says=order,
        live="test_schema_is_forced_in_the_order_it_declares",
        contract="test_a_declared_schema_was_enforced",
        recordings=("v1_chat_schema",),
    ),
    "tool calls": Capability(
        says=declared("tools"),
        live="test_tool_is_called",
        contract="test_tool_calls_arrive_streamed_or_whole",
        recordings=("v1_chat_tools",),
        read=True,
    ),
    "images in prompts": Capability(
        says=declared(
            "images", {None: "as the server says, else asked by a probe", False: "no, such cases are not sent"}
        ),
        live="test_a_model_of_text_is_found_to_read_nothing_else",
        contract="test_every_field_of_a_request_is_sent_or_refused_as_reviewed",
        recordings=("v1_chat_image",),
        read=True,
    ),
    "logprobs": Capability(
        says=declared("logprobs"),
        live="test_chat_with_logprobs",
        contract="test_logprobs_are_bytes_with_alternatives_best_first",
        recordings=("v1_chat_logprobs",),
        read=True,
    ),
    "ids of generated tokens": Capability(
        says=declared("token_ids"),
        live="test_chat_with_logprobs",
        contract="test_declared_logprobs_were_seen",
        recordings=("v1_chat_logprobs",),
    ),
    "sampling parameters a case may set": Capability(
        says=parameters,
        live="test_every_sampling_parameter_is_taken",
        contract="test_every_field_of_a_request_is_sent_or_refused_as_reviewed",
        recordings=("v1_chat_top_k",),
    ),
    "a seed repeats what was sampled": Capability(
        says=declared("seed"),
        live="test_seed_repeats_what_was_sampled",
        contract="test_every_field_of_a_request_is_sent_or_refused_as_reviewed",
        recordings=("v1_chat_seed_a",),
    ),
    "a prompt that does not fit": Capability(
        says=declared("overflow"),
        live="test_prompt_too_long_is_refused",
        contract="test_a_prompt_beyond_the_context_is_told_as_such",
        recordings=("v1_chat_too_long",),
    ),
    "a field the server does not know": Capability(
        says=declared("unknown_fields"),
        live="test_field_nobody_knows_is_dropped_or_refused_as_declared",
        contract="test_an_unknown_field_was_treated_as_declared",
        recordings=("v1_chat_unknown_field",),
    ),
    "identity read from the server": Capability(
        says=always,
        live="test_identity",
        contract="test_an_identity_names_known_fields_with_legal_sources_and_plain_values",
        recordings=("props", "version", "server_info", "show", "v1_models"),
        read=True,
        generic=True,
    ),
    "errors are typed": Capability(
        says=always,
        live="test_prompt_too_long_is_refused",
        contract="test_a_fault_is_the_same_typed_error",
        recordings=("v1_chat_bad_json",),
    ),
}
"""The rows of the table in docs/engines.md."""


@functools.cache
def live_kinds() -> tuple[str, ...]:
    """Return the kinds that ``tests/engines/live.py`` starts, by the keys of its ``STARTS``."""
    for node in ast.parse((ENGINES / "live.py").read_text("utf-8")).body:
        if (
            isinstance(node, ast.AnnAssign)
            and ast.unparse(node.target) == "STARTS"
            and isinstance(node.value, ast.Dict)
        ):
            return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    raise LookupError("tests/engines/live.py has no STARTS")


@functools.cache
def required_kinds() -> tuple[str, ...]:
    """Return the kinds without which a CI run fails, as ``.ci/run`` says: some only where the machine has them."""
    lists = re.findall(r'LLMPARITY_REQUIRE_LIVE="([^"]+)"', (ROOT / ".ci/run").read_text("utf-8"))
    return tuple(name for name in ",".join(lists).split(",") if name in kinds())


@functools.cache
def recordings(kind: str) -> frozenset[str]:
    """Return the names of every recording of a kind."""
    return frozenset(file.stem for folder in FOLDERS.get(kind, (kind,)) for file in (WIRE / folder).glob("*.json"))


def ways(kind: str, capability: Capability | None = None) -> list[str]:
    """Return how a kind, or one capability of it, was verified: best evidence first."""
    evidence = []
    if kind in live_kinds() or (kind == "openai" and (capability is None or capability.generic)):
        evidence.append(LIVE if kind in (*required_kinds(), "openai") else ONCE)
    seen = recordings(kind)
    if capability is None and seen:
        evidence.append(f"{len(seen)} recordings")
    elif capability is not None and seen & set(capability.recordings):
        evidence.append(RECORDED)
    return evidence or [WRITTEN]


def cell(kind: str, capability: Capability) -> str:
    """Return one cell: what the kind says, and how that was verified."""
    statement = capability.says(kinds()[kind])
    evidence = ways(kind, capability)
    if statement == PROBED and (not capability.read or evidence == [WRITTEN]):
        return statement
    return f"{statement} ({', '.join(evidence)})"


def _rows(rows: list[list[str]]) -> str:
    rows.insert(1, ["---"] * len(rows[0]))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"


def support() -> str:
    """Return README's table and the sentences under it."""
    rows = [["kind", "started by us", "can be told to free its memory", "routes", "verified"]]
    for kind in ordered():
        adapter = kinds()[kind]
        told = facts(adapter)
        start, free = "yes" if told.starts else "no, attach only", "yes" if told.unloads else "no"
        rows.append([f"`{kind}`", start, free, ", ".join(adapter.routes), ", ".join(ways(kind))])
    best = {kind: ways(kind)[0] for kind in ordered() if kind != "openai"}
    groups = {way: [f"`{kind}`" for kind in best if best[kind] == way] for way in (LIVE, ONCE, WRITTEN)}
    replayed = [f"`{kind}`" for kind in best if best[kind] not in groups]
    sentences = [
        (
            "In every CI run, on a CPU, with the tiny model of this repository (`ollama` where the machine has one: no "
            "package index does)",
            groups[LIVE],
        ),
        ("Run by the same tests on a machine of ours, not in CI", groups[ONCE]),
        ("Not started by us; every recording of the real server is read by the tests", replayed),
        ("Never seen by us: written after documentation and source, tried against doubles", groups[WRITTEN]),
        ("Held against llama.cpp's server in CI, tried with no other", ["`openai`"]),
    ]
    lines = [f"- {how}: {_and(names)}." for how, names in sentences if names]
    return (
        _rows(rows)
        + "\n"
        + "\n".join(lines)
        + "\n\nEvery kind passes one contract suite, `tests/engines/test_contract.py`.\n"
    )


def capabilities() -> str:
    """Return the table of docs/engines.md: one row per capability, one column per kind."""
    rows = [["", *(f"`{kind}`" for kind in ordered())]]
    rows += [[name, *(cell(kind, each) for kind in ordered())] for name, each in CAPABILITIES.items()]
    return _rows(rows)


def ordered() -> list[str]:
    """Return the kinds, best verified first."""
    order = (LIVE, ONCE, RECORDED, WRITTEN)

    def rank(kind: str) -> tuple[int, str]:
        best = ways(kind)[0]
        return (order.index(best) if best in order else order.index(RECORDED), kind)

    return sorted(kinds(), key=rank)


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def table(page: str) -> str:
    """Return a page's table between its markers."""
    marker = PAGES[page]
    made = support() if marker == "support" else capabilities()
    return f"<!-- {marker}: made by docs/support.py -->\n{made}<!-- /{marker} -->"


def main() -> None:
    """Write the tables into their pages."""
    for page, marker in PAGES.items():
        file = ROOT / page
        text = file.read_text("utf-8")
        before, _, rest = text.partition(f"<!-- {marker}: made by docs/support.py -->\n")
        after = rest.partition(f"<!-- /{marker} -->")[2]
        file.write_text(before + table(page) + after, "utf-8")


if __name__ == "__main__":
    main()
