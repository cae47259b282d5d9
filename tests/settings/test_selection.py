from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.errors import EngineSelectionError
from pytest_llmparity.core.words.printable import printable
from pytest_llmparity.settings.selection import (
    NAME,
    Address,
    Entry,
    address_of,
    derive,
    is_path,
    parse_engines,
    root_of,
)

NAMES = st.from_regex(NAME, fullmatch=True)
MODELS = st.text(string.ascii_letters + string.digits + "-_./:", min_size=1, max_size=20).filter(
    lambda text: "://" not in text
)
ROOTS = st.builds(
    lambda scheme, host, port, path: f"{scheme}://{host}{port}{path}",
    st.sampled_from(["http", "https"]),
    st.sampled_from(["127.0.0.1", "gpu-1.example.org", "[::1]"]),
    st.integers(1, 65535).map(lambda port: f":{port}") | st.just(""),
    st.sampled_from(["", "/proxy/a", "/a%2Cb"]),
)


def entry_of(text: str) -> Entry:
    (entry,) = parse_engines([text])
    return entry


def complaint(*values: str) -> str:
    with pytest.raises(EngineSelectionError) as caught:
        parse_engines(values)
    return str(caught.value)


# -- forms


def test_a_name_is_looked_up_later() -> None:
    assert entry_of("vllm") == Entry(text="vllm", name="vllm", configured="vllm")


def test_a_configured_engine_can_be_given_another_name() -> None:
    assert entry_of("prod=vllm") == Entry(text="prod=vllm", name="prod", configured="vllm")


def test_kind_and_model() -> None:
    assert entry_of("ollama:qwen3:8b") == Entry(
        text="ollama:qwen3:8b", name="ollama-qwen3-8b", kind="ollama", model="qwen3:8b"
    )


def test_the_url_of_a_kind_starts_at_the_last_http_sign() -> None:
    entry = entry_of("vllm:team@http/m@https://gpu:8000/v1/")

    assert (entry.kind, entry.model, entry.base_url) == ("vllm", "team@http/m", "https://gpu:8000")


def test_kind_with_url_needs_no_model() -> None:
    assert entry_of("vllm:@http://gpu:8000").model is None


def test_url_with_model() -> None:
    entry = entry_of("http://127.0.0.1:11434/v1#qwen3:8b")

    assert (entry.kind, entry.model, entry.base_url) == (None, "qwen3:8b", "http://127.0.0.1:11434")


def test_an_equals_sign_behind_a_colon_belongs_to_the_model() -> None:
    assert entry_of("openai:a=b").model == "a=b"
    assert entry_of("http://h#a=b").model == "a=b"


@pytest.mark.parametrize(("written", "pace"), [("", 1.0), ("@max", 0.0), ("@10x", 10.0), ("@0.5x", 0.5)])
def test_recordings(written: str, pace: float) -> None:
    text = f"replay:prod{written}"

    assert entry_of(text) == Entry(text=text, name="replay-prod", recording="prod", pace=pace)
    assert entry_of(f"prod={text}").name == "prod"


def test_golden() -> None:
    assert entry_of("golden:vllm") == Entry(text="golden:vllm", name="golden-vllm", golden="vllm")


def test_values_repeat_and_split_at_commas_and_blanks_do_no_harm() -> None:
    entries = parse_engines(["vllm, x=http://h:1 ", "ollama:q"])

    assert [entry.name for entry in entries] == ["vllm", "x", "ollama-q"]


def test_a_comma_inside_a_url_is_written_percent_encoded() -> None:
    entry = entry_of("http://h/a%2Cb#m%2Cn")

    assert (entry.base_url, entry.model) == ("http://h/a%2Cb", "m,n")


# -- names


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("ollama:qwen3:8b", "ollama-qwen3-8b"),
        ("vllm:Qwen/Qwen3-8B", "vllm-qwen-qwen3-8b"),
        ("llamacpp:fixtures/models/tiny/tiny-Q4_0.gguf", "llamacpp-tiny-q4_0"),
        ("llamacpp:./models/dir/", "llamacpp-dir"),
        ("vllm:m@http://gpu:8000/v1", "vllm-m-gpu-8000-v1"),
        ("http://127.0.0.1:8080", "127.0.0.1-8080"),
        ("https://[::1]:8080#M X", "1-8080-m-x"),
        ("http://h/", "h"),
        ("openai:模型", "openai"),
    ],
)
def test_a_name_comes_from_the_text_alone(spec: str, name: str) -> None:
    assert derive(spec) == name


@given(st.text(max_size=40))
def test_a_derived_name_is_always_a_name(spec: str) -> None:
    assert NAME.fullmatch(derive(spec))


@pytest.mark.parametrize(
    ("model", "path"), [("./a", True), ("../a", True), ("/a", True), ("~/a", True), ("a/b.GGUF", True), ("a/b", False)]
)
def test_what_is_written_as_a_path(model: str, path: bool) -> None:
    assert is_path(model) is path


@given(NAMES, MODELS, ROOTS, NAMES)
def test_what_is_written_is_what_is_read(name: str, model: str, root: str, kind: str) -> None:
    if kind == "golden":
        kind = "vllm"

    assert entry_of(f"{name}={root}#{model}") == Entry(
        text=f"{name}={root}#{model}", name=name, base_url=root, model=model
    )
    full = entry_of(f"{name}={kind}:{model}@{root}")
    assert (full.name, full.kind, full.model, full.base_url) == (name, kind, model, root)
    bare = entry_of(f"{kind}:{model}")
    assert (bare.kind, bare.model, bare.name) == (kind, model, derive(f"{kind}:{model}"))


@given(st.lists(st.text(max_size=30) | st.text("ab:/@#=,.http ", max_size=30), max_size=3))
def test_any_text_gives_entries_or_a_selection_error(values: list[str]) -> None:
    try:
        names = [entry.name for entry in parse_engines(values)]
    except EngineSelectionError as error:
        message = str(error)
    else:
        assert all(NAME.fullmatch(name) for name in names)
        assert len(set(names)) == len(names)
        return
    assert message.startswith("--engines: ")
    assert message == printable(message)


# -- refused


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "'' has an empty entry"),
        ("a,,b", "'a,,b' has an empty entry; write names separated by one comma"),
        ("a,", "has an empty entry"),
        ("a\x1b[31m", "'a\\x1b[31m' holds characters that cannot be printed"),
        ("a\ud800", "cannot be printed"),
        ("A", "'A' is no engine: write NAME"),
        ("A=vllm", "'A' in 'A=vllm' cannot be a name; names consist of a-z"),
        ("=vllm", "cannot be a name"),
        ("a=", "'a=' names nothing behind the '='"),
        ("Vllm:m", "'Vllm:m' does not start with a kind"),
        ("vllm:", "'vllm:' names no model"),
        ("golden:", "names no golden; write golden:NAME"),
        ("golden:A", "names no golden"),
        ("replay:", "names no recording; write replay:NAME"),
        ("replay:../a", "names no recording"),
        ("replay:a@0x", "write replay:a@10x for ten times as fast as recorded, or replay:a@max"),
        ("replay:a@", "says how fast it is played by ''"),
        ("vllm:m@http://h#n", "names a model twice"),
        ("[::1]:8000", "if that is an address, write http://[::1]:8000"),
        ("localhost/v1", "if that is an address, write http://localhost/v1"),
        ("GPU.example.org:8000", "if that is an address, write http://GPU.example.org:8000"),
        ("vllm:m@httpx", "the URL of 'vllm:m@httpx' does not start with http:// or https://"),
        ("http://", "has no host"),
        ("http://h:0", "has port 0"),
        ("http://h:99999", "cannot be read"),
        ("http://[::1", "cannot be read"),
        ("http://h?a=b", "has a part behind '?' or '#'"),
        ("http://h/a b", "holds a space"),
        ("http://h/x,y z", "'y z' is no engine: write NAME"),
        ("http://h/x,Y", "a comma inside a URL is written %2C"),
        ("a,b,a", "'a' and 'a' are both named 'a'"),
        (
            "vllm:m,vllm:M",
            "'vllm:m' and 'vllm:M' are both named 'vllm-m'; put another name before one of them: NAME=vllm:M",
        ),
        ("v=http://h:1,v=http://h:2", "put another name before one of them: NAME=http://h:2"),
    ],
)
def test_a_wrong_entry_says_what_is_wrong_and_what_to_write(value: str, expected: str) -> None:
    assert expected in complaint(value)


@pytest.mark.parametrize(
    "value",
    [
        "http://me:hunter2@h",
        "http://hunter2@h:80/v1#m",
        "x=https://me:hun/hunter2@h",
        "http://me:hunter2,b@h",
        "vllm:m@http://me:hunter2@h",
        "vllm:http://me:hunter2@h",
        "http://me:hunter2@h,,b",
        "http://me:hunter2",
        "a,a=http://me:hunter2@h",
    ],
)
def test_credentials_are_refused_and_never_repeated(value: str) -> None:
    message = complaint(value)

    assert "hunter2" not in message


def test_credentials_are_named_as_the_reason() -> None:
    assert "carries credentials" in complaint("http://me:pw@h")


@pytest.mark.parametrize("url", ["HTTP://H:80/v1", "http://h:80/", "http://h:80/v1/", "http://h:80"])
def test_the_root_of_a_server_has_no_version_and_no_slash(url: str) -> None:
    assert root_of(url) == "http://h:80"


@pytest.mark.parametrize(
    ("path", "below", "api"),
    [
        ("", "", None),
        ("/llm/chat/", "/llm/chat", None),
        ("/openai", "/openai", None),
        ("/v1", "", "/v1"),
        ("/llm/v1/", "/llm", "/v1"),
        ("/v3", "", "/v3"),
        ("/api/paas/v4/", "/api/paas", "/v4"),
        ("/v1beta", "", "/v1beta"),
        ("/v1beta/openai/", "/v1beta/openai", ""),
        ("/v1/openai", "/v1/openai", ""),
        ("/v1/chat/completions", "", "/v1"),
        ("/v1/chat/completions/", "", "/v1"),
        ("/v1/chat", "", "/v1"),
        ("/v1/completions", "", "/v1"),
        ("/v1/models", "", "/v1"),
        ("/v1/models/org/name", "", "/v1"),
        ("/api/paas/v4/chat/completions", "/api/paas", "/v4"),
        ("/v1beta/openai/chat/completions", "/v1beta/openai", ""),
        ("/chat/completions", "", ""),
        ("/inference/chat/completions", "/inference", ""),
        ("/models", "/models", None),
        ("/api/chat", "", None),
    ],
)
def test_an_address_is_read_as_people_write_it(path: str, below: str, api: str | None) -> None:
    assert address_of(f"http://h:80{path}") == Address(root=f"http://h:80{below}", api=api)


@given(ROOTS)
def test_whatever_of_a_route_is_pasted_the_base_is_the_same(root: str) -> None:
    bases = {address_of(root + route) for route in ("/v1", "/v1/", "/v1/chat/completions", "/v1/models", "/v1//")}

    assert bases == {Address(root=root, api="/v1")}
    assert address_of(root).root == root


def test_the_root_refuses_what_is_no_url_and_a_fragment() -> None:
    for url in ("ftp://h", "h:80", "me:hunter2@h"):
        with pytest.raises(ValueError, match=re.escape("does not start with http:// or https://")):
            root_of(url)
    with pytest.raises(ValueError, match="has a part behind"):
        root_of("http://h#m")
