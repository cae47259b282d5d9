"""What is in force, each value with what set it, as the doctor shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pytest_llmparity.core.identity.examination import Setting
from pytest_llmparity.settings.file import ALWAYS, KEYS
from pytest_llmparity.settings.specification import DEFAULT, EngineSpec, EnvRef, Settings


def of_engine(spec: EngineSpec, *, environ: Mapping[str, str]) -> Iterator[Setting]:
    """Yield the values of one engine in force: those that were set, and those that always have a value.

    Of keys and variables only names are told.
    """
    from_variables = {name: EnvRef(variable) for name, variable in spec.env_from.items()}
    for key in [*(key for key in KEYS if key not in (*ALWAYS, "pin", "launch")), *ALWAYS]:
        text = _text({**spec.env, **from_variables} if key == "env" else getattr(spec, key))
        if not text:
            continue
        if key == "api_key_env" and not environ.get(text, "").strip():
            text += " (not set)"
        yield Setting(key=key, value=text, origin=spec.origins.get(key, DEFAULT))
    for key, value in [*((f"pin.{field}", value) for field, value in spec.pin.items()), ("launch", spec.launch)]:
        yield Setting(key=key, value=str(value), origin=spec.origins.get(key, DEFAULT))


def of_run(settings: Settings) -> Iterator[Setting]:
    """Yield what concerns all engines."""
    values = {
        "engines": ", ".join(spec.name for spec in settings.engines),
        "baseline": settings.baseline or "",
        "concurrency": settings.concurrency,
        "residency": settings.residency,
        "gather": settings.gather,
        "timed_changes": settings.timed_changes if settings.residency == "one-at-a-time" else None,
        "inconclusive": settings.inconclusive,
        "max_requests": settings.max_requests,
        "budget": settings.budget_s,
        "keep_runs": settings.keep_runs,
    }
    for key, value in values.items():
        if value is not None:
            yield Setting(key=key, value=_text(value), origin=settings.origins.get(key, DEFAULT))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, EnvRef):
        return f"${value.env}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={_text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(_text, value))
    return "" if value is None else str(value)
