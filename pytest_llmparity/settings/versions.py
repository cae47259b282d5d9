"""Versions of an engine as a person lists them: on the command line, or in a file; each becomes a variant."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError

from pytest_llmparity.core.errors import ConfigError, UsageError
from pytest_llmparity.core.words.problems import describe, given
from pytest_llmparity.settings import containers
from pytest_llmparity.settings.configuration import HINTS
from pytest_llmparity.settings.file import KEYS, EngineTable
from pytest_llmparity.settings.selection import KINDS, Kind
from pytest_llmparity.settings.variants import Variant


def named(engine: str, values: Mapping[str, Mapping[str, Any]], taken: Collection[str]) -> list[Variant]:
    """Return a variant of an engine for each label, with a name that is not ``taken``."""
    variants: list[Variant] = []
    used = set(taken)
    for label, keys in values.items():
        plain = re.sub(r"[^a-z0-9._-]+", "-", label.lower()).strip("-") or "variant"
        name, number = f"{engine}-{plain}"[:60], 2
        while name in used:
            name, number = f"{engine}-{plain}"[:60] + f"-{number}", number + 1
        used.add(name)
        variants.append(Variant(name=name, label=label, of=engine, keys=keys))
    return variants


def of_versions(
    versions: Sequence[str], requires: Sequence[str] | None, *, engine: str, packages: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return by version what the engine's ``requires`` is with it: of the package that brings the engine.

    ``packages`` are those that may. Raises ``UsageError`` for a version that can be none, one that is named twice, and
    an engine without such a package.
    """
    place = _pinned(requires, packages)
    if requires is None or place is None:
        brings = " or ".join(packages) or "the package that brings it"
        has = f"its requires is {' '.join(map(repr, requires))}" if requires else "it has no requires"
        raise UsageError(
            f'--versions: {engine} is not installed from {brings}: {has}. Write requires = "{_example(packages)}" in '
            f"[engines.{engine}], or give --models, --revisions or --versions-from"
        )
    package = Requirement(requires[place])
    extras = f"[{','.join(sorted(package.extras))}]" if package.extras else ""
    marker = f" ; {package.marker}" if package.marker else ""
    read: dict[Version, str] = {}
    for text in versions:
        try:
            version = Version(text)
        except InvalidVersion:
            raise UsageError(f"--versions: {given(text)} is no version of {package.name}, such as 0.31.0") from None
        if version in read:
            raise UsageError(f"--versions: {read[version]} and {text} are the same version; name each once")
        read[version] = text
    return {
        text: {"requires": [*requires[:place], f"{package.name}{extras}=={text}{marker}", *requires[place + 1 :]]}
        for text in read.values()
    }


def of_images(texts: Sequence[str], image: str | None, *, engine: str) -> dict[str, dict[str, Any]]:
    """Return by version the image that the engine runs from: a tag or digest is one of its configured ``image``.

    Raises ``UsageError`` for an engine without an image, and for what can be none.
    """
    if image is None:
        raise UsageError(
            f'--images: {engine} does not run from an image. Write image = "NAME:TAG" in [engines.{engine}], or give '
            "--versions, --models, --revisions or --versions-from"
        )
    repository = re.sub(r":[^:/]+$", "", image.partition("@")[0])
    images = {}
    for text in texts:
        whole = re.search(r"[/@]|:(?![0-9a-f]{64}$)", text) is not None
        joined = text if whole else f"{repository}{'@' if text.startswith('sha256:') else ':'}{text}"
        try:
            images[text] = {"image": containers.image(joined)}
        except ValueError as error:
            raise UsageError(f"--images: {text!r} {error}") from None
    return images


def _pinned(requires: Sequence[str] | None, packages: Sequence[str]) -> int | None:
    """Return which of what is required brings the engine; where only one package is required, it does."""
    names = []
    for text in requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            names.append("")
            continue
        names.append("" if requirement.url else canonicalize_name(requirement.name))
    wanted = [canonicalize_name(name) for name in packages]
    known = [place for place, name in enumerate(names) if name in wanted]
    if known:
        return known[0]
    return 0 if len(names) == 1 and names[0] and not wanted else None


def _example(packages: Sequence[str]) -> str:
    return f"{packages[0] if packages else 'PACKAGE'}==VERSION"


def read_versions(
    content: bytes, base: Mapping[str, Any], *, engine: str, source: str, kinds: Mapping[str, Kind] = KINDS
) -> dict[str, dict[str, Any]]:
    """Read a file of ``name = spec`` lines: by name, in their order, the keys that are other ones than the engine's.

    A spec is a table of keys as ``[engines.NAME]`` takes them. ``base`` is the engine's own table, as it is written.
    Raises ``ConfigError`` with every problem at once, each naming file, name and key.
    """
    try:
        text = content.decode("utf-8-sig")
        value = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{source}: not TOML: {error}") from None
    problems = []
    for name, keys in value.items():
        if not isinstance(keys, dict):
            problems.append(
                f"{name} is {given(keys)}; expected a table of keys of {engine}, such as "
                '{ requires = "PACKAGE==1.2" }'
            )
        elif keys and _dotted(text, name) and not set(keys) & set(KEYS):
            problems.append(f'{name} is cut at a dot: a name with a dot stands in quotes, such as "{name}.1" = {{ … }}')
        elif not keys:
            problems.append(f"{name} is empty; name at least one key that is another one than {engine}'s")
        else:
            variant = Variant(name=name, label=name, of=engine, keys=keys)
            try:
                EngineTable.model_validate(variant.applied(base), context={"kinds": kinds})
            except ValidationError as error:
                problems += describe(error, EngineTable, prefix=(name,), hints=HINTS)
    if problems:
        raise ConfigError("\n".join(f"{source}: {sentence}" for sentence in problems))
    return value


def _dotted(text: str, name: str) -> bool:
    """Whether a name was written with a dot behind it and without quotes, which TOML takes apart."""
    return re.search(rf"^\s*(?:\[\s*)?{re.escape(name)}\s*\.", text, re.MULTILINE) is not None
