"""Writes the table in README.md that says what was verified on which kind of engine, and how.

    python docs/support.py

Every cell rests on evidence that exists: a test on the live engine, a recording of it, or a test with a double. The
tests in ``tests/docs`` fail when the evidence is gone or the table is not the one this file makes.
"""

from __future__ import annotations

from pathlib import Path

from pytest_llmparity.core.selection import KINDS
from pytest_llmparity.engines.registry import kinds

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- support: made by docs/support.py -->\n"
END = "<!-- /support -->"
LIVE = ROOT / "tests/engines/test_live.py"
WIRE = ROOT / "fixtures/wire"

CAPABILITIES: dict[str, tuple[str, str, str]] = {
    "chat, streamed and not": ("test_chat_with_logprobs", "v1_chat_stream", "test_adapters"),
    "raw prompts": ("test_raw_prompt_is_the_rendered_chat", "v1_completions_raw", "test_building"),
    "JSON schema enforced": ("test_schema_is_forced", "v1_chat_schema", ""),
    "tool calls": ("test_tool_is_called", "v1_chat_tools", "test_adapters"),
    "logprobs": ("test_chosen_token_alone", "v1_chat_logprobs", ""),
    "every sampling parameter taken": ("test_every_sampling_parameter_is_taken", "", ""),
    "prompt too long is refused": ("test_prompt_too_long_is_refused", "v1_chat_too_long", "test_refusals"),
    "identity read from the server": ("test_identity", "v1_models", "test_adapters"),
    "broken model ends the start": ("test_model_that_is_broken_ends_the_start_with_the_log", "", ""),
}
"""Capability: a test on live engines, a recording, and a test module that uses a double."""
LIVE_KINDS = ("llamacpp", "vllm")
ONLY_LLAMACPP = ("test_model_that_is_broken_ends_the_start_with_the_log",)


def cell(kind: str, capability: str) -> str:
    """Return how one capability of one kind was verified."""
    live, recording, double = CAPABILITIES[capability]
    ways = []
    if kind in LIVE_KINDS and (kind == "llamacpp" or live not in ONLY_LLAMACPP):
        ways.append("live")
    if recording and (WIRE / kind / f"{recording}.json").is_file():
        ways.append("recording")
    if not ways and double:
        ways.append("double")
    return ", ".join(ways) or "not verified"


def table() -> str:
    """Return the table as Markdown."""
    names = sorted(kinds(), key=[*LIVE_KINDS, "openai"].index)
    rows = [
        ["", *(f"`{name}`" for name in names)],
        ["---"] * (len(names) + 1),
        ["start it", *("yes" if KINDS[name].starts else "no, attach only" for name in names)],
        ["asked for logprobs", *("yes" if kinds()[name].declares.logprobs else "no" for name in names)],
        *([capability, *(cell(name, capability) for name in names)] for capability in CAPABILITIES),
    ]
    words = (
        "\n*live*: tested on the real engine in CI (llama.cpp as xllamacpp, vLLM on the CPU, both with the tiny model "
        "in this repository).\n*recording*: read from answers the real engine gave, kept in `fixtures/wire`. *double*: "
        "tested against our own loopback\nserver only. *not verified*: written after documentation.\n"
    )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n" + words


def main() -> None:
    """Write the table into README.md."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(before + BEGIN + table() + END + after, "utf-8")


if __name__ == "__main__":
    main()
