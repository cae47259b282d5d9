"""Applications on LiteLLM and on LangChain: what they ask through their own clients is recorded, streamed or not."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sqlite3
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.plugin.test_applications import application

if TYPE_CHECKING:
    from tests.plugin.conftest import Bench

LITELLM = """import litellm
    reply = litellm.completion(
        model="openai/" + engine.model, messages=[{"role": "user", "content": case["mail"]}], max_tokens=16,
        api_base=engine.base_url, api_key=engine.api_key, stream=STREAM,
    )
    answer = (
        "".join(part.choices[0].delta.content or "" for part in reply) if STREAM else reply.choices[0].message.content
    )
    """
LANGCHAIN = """import langchain_openai
    chat = langchain_openai.ChatOpenAI(
        model=engine.model, base_url=engine.base_url, api_key=engine.api_key, max_tokens=16, temperature=0
    )
    parts = chat.stream(case["mail"]) if STREAM else [chat.invoke(case["mail"])]
    answer = "".join(part.content for part in parts)
    """
INPUTS = 30

# What these packages warn about while they are imported is theirs.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", autouse=True)
def imported() -> Iterator[None]:
    """Import them once, and before pytester remembers ``sys.meta_path``.

    The last takes the place of the finder of importlib.metadata there, and a run that ends takes it out again.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it fetches its list of prices at import otherwise
        for name in ("litellm", "langchain_openai", "importlib_metadata"):
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        yield


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("package", "asks"), [("litellm", LITELLM), ("langchain_openai", LANGCHAIN)], ids=["litellm", "langchain"]
)
def test_what_a_framework_asks_is_recorded(bench: Bench, package: str, asks: str, stream: bool) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}: tox run -e frameworks")
    application(
        bench, "check.value(agree=0.9)", "return answer", asks=asks.replace("STREAM", str(stream)), inputs=INPUTS
    )

    def other(request: dict[str, Any]) -> str:
        return "shipping" if request["messages"][-1]["content"][-1] in "13579" else "billing"

    result = bench.run("-W", "ignore", engines=[bench.engine("billing"), bench.engine(other)])

    result.stdout.fnmatch_lines(
        [
            "  first: mail-1: $",
            '    a "billing"',
            '    b "shipping"',
            "  where it began: the answer of call 1 of 1 differs",
            "    a billing",
            "    b shipping",
        ]
    )
    with sqlite3.connect(next((bench.pytester.path / ".llmparity").rglob("*.sqlite*"))) as store:
        rows = store.execute("select completion from samples where completion is not null").fetchall()
    store.close()
    answers = [json.loads(row) for (row,) in rows]
    assert len(answers) == 2 * INPUTS
    for answer in answers:
        (call,) = answer["calls"]
        assert (call["status"], call["path"]) == (200, "/v1/chat/completions")
        assert call["answer"] == json.loads(answer["text"])
        assert json.loads(call["request"]).get("stream", False) is stream
