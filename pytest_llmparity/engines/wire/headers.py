"""What is read from variables for an engine, its request headers above all: secrets, never written down."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pytest_llmparity.core.errors import ConfigError
from pytest_llmparity.settings.specification import EngineSpec, EnvRef


def resolve_headers(spec: EngineSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """Return a spec's request headers in lower case, variables read; ``ConfigError`` names one that is not set."""
    headers: dict[str, str] = {}
    if spec.api_key_env:
        headers["authorization"] = f"Bearer {_variable(spec, 'api_key_env', spec.api_key_env, environ)}"
    for name, value in spec.headers.items():
        if isinstance(value, EnvRef):
            value = _variable(spec, f"headers.{name}", value.env, environ)
        headers[name.lower()] = value
    return headers


def secrets_of(specs: Iterable[EngineSpec], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the values that must never be written down, as they are sent, by the name of their variable."""
    names = [name for spec in specs for name in spec.secret_variables]
    return {name: value for name in names if (value := environ.get(name, "").strip())}


def sent_secrets(spec: EngineSpec, headers: Mapping[str, str]) -> dict[str, str]:
    """Return the secrets among headers that :func:`resolve_headers` made, by the name of their variable."""
    found = {
        value.env: headers.get(name.lower(), "") for name, value in spec.headers.items() if isinstance(value, EnvRef)
    }
    if spec.api_key_env and spec.api_key_env not in found:
        found[spec.api_key_env] = headers.get("authorization", "").removeprefix("Bearer ")
    return found


def resolve_env(spec: EngineSpec, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a spec's process that are read from others; ``ConfigError`` names one that is not set."""
    return {name: _variable(spec, f"env.{name}", source, environ) for name, source in spec.env_from.items()}


def _variable(spec: EngineSpec, key: str, variable: str, environ: Mapping[str, str]) -> str:
    value = environ.get(variable, "").strip()
    if not value:
        raise ConfigError(
            f"engine {spec.name!r}: {key} names the environment variable {variable}, which is not set. Export it "
            "before starting pytest."
        )
    if not value.isascii() or not value.isprintable():
        raise ConfigError(
            f"engine {spec.name!r}: the value of {variable} ({key}) holds characters no HTTP header can carry."
        )
    return value
