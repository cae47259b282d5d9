"""Which engines are asked at the same time and which in turn, and why: known before anybody is asked. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from pytest_llmparity.run.started.residency import is_loopback
from pytest_llmparity.settings.specification import EngineSpec, Settings

HERE: Final = "on this machine"
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Lane:
    """Engines that are asked in turn, in this order, while those of other lanes are asked.

    ``why`` says what keeps them from being asked at the same time; empty where it is one engine alone.
    """

    names: tuple[str, ...]
    why: str = ""


def lanes_of(settings: Settings, *, apart: Collection[str] = ()) -> list[Lane]:
    """Return the lanes of a run, the baseline first in its own.

    Without ``gather`` those are the addresses of attached engines, and this machine for those that are started on it. A
    recording has its own, and so has an engine that is placed on a cluster. One engine in memory at a time means one
    lane. ``apart`` names engines that one server cannot keep in memory beside another one of them: those are asked in
    turn whatever ``gather`` says.
    """
    lanes: dict[str, Lane] = {}
    starts = any(spec.base_url is None and spec not in settings.placed for spec in settings.recordable)
    for spec in settings.in_turn():
        key, why = _lane_of(spec, settings, apart, starts=starts)
        before = lanes.get(key)
        lanes[key] = Lane((spec.name,)) if before is None else Lane((*before.names, spec.name), why)
    return list(lanes.values())


def _lane_of(spec: EngineSpec, settings: Settings, apart: Collection[str], *, starts: bool) -> tuple[str, str]:
    """Return the name of an engine's lane and why it is not asked beside the others of that lane.

    ``starts``: another engine is started on this machine, so one at a loopback address most likely shares its device.
    """
    if settings.residency == "one-at-a-time":
        return "memory", "one in memory at a time"
    if settings.gather == "in-turn":
        return "gather", 'gather = "in-turn"'
    apart_anyway = spec.recording is not None or spec in settings.placed
    if apart_anyway or (settings.gather == "side-by-side" and spec.name not in apart):
        return f"engine {spec.name}", ""
    if spec.base_url is None or (starts and is_loopback(spec.base_url)):
        return "here", HERE
    address = netloc_of(spec.base_url)
    return address, f"both at {address}"


def netloc_of(url: str) -> str:
    """Return host and port of a URL, the same for every name of this machine.

    >>> netloc_of("http://localhost:11434/v1"), netloc_of("https://llm.example")
    ('127.0.0.1:11434', 'llm.example:443')
    """
    parts = urlsplit(url)
    host = LOOPBACK if is_loopback(url) else parts.hostname or ""
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def describe(lanes: Sequence[Lane], settings: Settings) -> str:
    """Return for the plan what is asked at the same time and what in turn, and why.

    >>> there = dict(kind="vllm", launch="attach")
    >>> specs = (EngineSpec(name="a", base_url="http://h", **there), EngineSpec(name="b", base_url="http://i", **there))
    >>> settings = Settings(engines=specs, baseline="a")
    >>> describe(lanes_of(settings), settings)
    'asked side by side (at different addresses)'
    >>> settings = Settings(engines=specs, baseline="a", gather="in-turn")
    >>> describe(lanes_of(settings), settings)
    'asked in turn (gather = "in-turn")'
    """
    shared = [lane for lane in lanes if len(lane.names) > 1]
    if len(lanes) == 1:
        return f"asked in turn ({lanes[0].why})"
    why = 'gather = "side-by-side"' if settings.gather == "side-by-side" else "at different addresses"
    why = "each on what Ray keeps for it" if len(settings.placed) == len(settings.asked) else why
    turns = [f"{' and '.join(lane.names)} in turn ({lane.why})" for lane in shared]
    return f"asked side by side ({why}){', but ' if turns else ''}{' and '.join(turns)}"
