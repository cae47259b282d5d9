"""What a person asked for on a command line or in the environment, before anything is looked up."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.errors import UsageError
from pytest_llmparity.core.prompts.portion import Portion
from pytest_llmparity.core.shards import Shard
from pytest_llmparity.settings.sources import ENGINES_VARIABLE, SOURCES
from pytest_llmparity.settings.specification import Mode, Resume, UpdateGolden
from pytest_llmparity.settings.variants import Variant, from_text


class Given:
    """What the person asked for on a command line or, failing that, in the environment.

    ``option`` returns the value of an option by its bare name (``baseline``), ``None`` where it was not given.
    ``prefix`` is what its name starts with as it is written on this command line.
    """

    def __init__(
        self, option: Callable[[str], Any], environ: Mapping[str, str], *, root: Path, cwd: Path, prefix: str
    ) -> None:
        self._option = option
        self.environ = environ
        self._prefix = prefix
        self.root = root
        self.cwd = cwd

    def spelt(self, option: str) -> str:
        """Return an option as it is written on this command line."""
        return self._prefix + option.replace("_", "-")

    def find(self, option: str) -> tuple[Any, str]:
        """Return a value and what named it (the option or the variable); ``(None, "")`` when nobody did."""
        value = self._option(option)
        if value is not None:
            return value, self.spelt(option)
        source = SOURCES[option]
        text = self.environ.get(source.variable, "").strip()
        if not text:
            return None, ""
        try:
            return source.read(text), source.variable
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{source.variable}: {error}") from None

    def value(self, option: str) -> Any:
        """Return a value, ``None`` when nobody named one."""
        return self.find(option)[0]

    @property
    def engines(self) -> tuple[list[str], str]:
        """The texts of ``--engines`` and what named them."""
        texts = self._option("engines")
        if texts:
            return texts, "--engines"
        text = self.environ.get(ENGINES_VARIABLE, "").strip()
        return ([text], ENGINES_VARIABLE) if text else ([], "")

    @property
    def mode(self) -> tuple[Mode, str | None]:
        """Live or replay, and the run to judge again (``None``: the newest)."""
        return self.value("mode") or ("live", None)

    @property
    def live(self) -> bool:
        """Whether engines are asked: not where a stored run is judged again."""
        return self.mode[0] == "live"

    @property
    def cases(self) -> list[str]:
        """Ids the run is restricted to."""
        return self._option("case") or []

    @property
    def update_golden(self) -> UpdateGolden | None:
        """Which golden answers are written, ``None`` for none."""
        given: UpdateGolden | None = self._option("update_golden")
        return given

    @property
    def portion(self) -> Portion:
        """Which of the prompts are asked."""
        tags: list[str] = self._option("tag") or []
        return Portion(tags=tuple(dict.fromkeys(tags)), most=self._option("sample"))

    @property
    def shard(self) -> Shard | None:
        """The share of the cases that is asked, ``None`` for all of them."""
        given: Shard | None = self._option("shard")
        return given

    @property
    def policy(self) -> str | None:
        """The file of the policy to decide by, ``None`` where nothing is decided."""
        file: str | None = self._option("policy")
        return file

    @property
    def decides(self) -> str:
        """What decides about this run as messages name it: a policy, or the command that started it; else empty."""
        if self.policy is not None:
            return self.spelt("policy")
        gated = self._option("gate_run") is not None and self._option("recorder") is None
        return "llmparity gate (or bisect)" if gated else ""

    @property
    def ci(self) -> str:
        """The variable that says that this is a job of a CI service.

        Empty elsewhere, and where the job was told to write what people have to look at.
        """
        if self._option("update_golden_in_ci"):
            return ""
        return next((name for name in _CI if self.environ.get(name, "").strip().lower() not in _NOT), "")

    @property
    def variants(self) -> list[Variant]:
        """Variants of configured engines that take part as if the file had them."""
        text = self._option("variants")
        return [] if text is None else from_text(text)

    @property
    def resume(self) -> Resume:
        """What becomes of an earlier run of the same plan."""
        options: dict[Resume, str] = {
            "resume": "resume",
            "fresh": "fresh",
            "retry": "retry_failed",
            "judged": "judged_too",
        }
        given = [(word, self.spelt(option)) for word, option in options.items() if self._option(option)]
        if len(given) > 1:
            names = " and ".join(option for _, option in given)
            raise UsageError(f"{names} contradict each other; give one of them")
        return given[0][0] if given else "auto"


_CI: Final = ("CI", "BUILD_NUMBER")
"""Variables by which pytest too knows a CI service."""
_NOT: Final = ("", "0", "false", "no", "off")
