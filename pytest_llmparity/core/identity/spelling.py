"""One spelling for facts made of several parts, so that two sources of the same fact compare equal."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pytest_llmparity.core.sample import UNSENT, Identity

_OURS: Final = (
    *("do_sample", "dry_multiplier", "dynatemp_range", "frequency_penalty", "min_p", "mirostat", "presence_penalty"),
    *("repeat_last_n", "repetition_penalty", "temperature", "top_k", "top_n_sigma", "top_p", "typical_p"),
    "xtc_probability",
)
SAMPLING: Final[Mapping[str, str]] = {
    **{name: name for name in _OURS},
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repetition_penalty",
    "repeat_penalty": "repetition_penalty",
    "temp": "temperature",
    "typ_p": "typical_p",
}
"""What engines call the parameters that change which token is drawn, and our name for each."""


def sampling_defaults(values: Mapping[str, Any]) -> str:
    """Return the sampling parameters among ``values`` under our names, as JSON with sorted keys; empty for none.

    Numbers are rounded to six digits, as single precision holds them. Every spelling of "off" becomes one: ``top_k``
    below 1 is 0 (vLLM says -1), a negative ``top_n_sigma`` is -1.

    >>> sampling_defaults({"repeat_penalty": 1.1, "temp": 0.800000011920929, "top_k": -1, "stream": False})
    '{"repetition_penalty": 1.1, "temperature": 0.8, "top_k": 0}'
    """
    parameters: dict[str, float | bool] = {}
    for name, value in values.items():
        if name in SAMPLING and isinstance(value, (int, float)) and math.isfinite(value):
            parameters[SAMPLING[name]] = value if isinstance(value, bool) else _plain(SAMPLING[name], value)
    return json.dumps(parameters, sort_keys=True) if parameters else ""


def none_acts(identity: Identity) -> bool:
    """Whether a server tells its sampling defaults, a repetition penalty among them, and none is :func:`acting`.

    >>> from pytest_llmparity.core.sample import Fact
    >>> told = (
    ...     '{"repetition_penalty": 1, "top_k": 40}',
    ...     '{"repetition_penalty": 1, "typical_p": 0.5}',
    ...     '{"top_k": 40}',
    ... )
    >>> [none_acts(Identity(facts={"sampling_defaults": Fact(value=text, source="reported")})) for text in told]
    [True, False, False]
    >>> none_acts(Identity())
    False
    """
    return "repetition_penalty" in _told(identity) and not acting(identity)


def acting(identity: Identity) -> tuple[str, ...]:
    """Return which of a server's sampling defaults act in requests that say every parameter a gate has a word for.

    >>> from pytest_llmparity.core.sample import Fact
    >>> told = '{"dry_multiplier": 0.8, "temperature": 0.8, "typical_p": 1}'
    >>> acting(Identity(facts={"sampling_defaults": Fact(value=told, source="reported")})), acting(Identity())
    (('dry_multiplier 0.8',), ())
    """
    told = _told(identity)  # a lock or golden answers edited by hand may say anything there
    numbers = {name: value for name, value in told.items() if name in UNSENT and isinstance(value, int | float)}
    return tuple(f"{name} {value:g}" for name, value in numbers.items() if value != UNSENT[name])


def _told(identity: Identity) -> Mapping[str, Any]:
    text = identity.get("sampling_defaults")
    try:
        known = json.loads(text) if isinstance(text, str) else {}
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}


def _plain(name: str, value: float) -> float:
    if name == "top_k":
        value = max(value, 0)
    if name == "top_n_sigma" and value < 0:
        value = -1
    rounded = float(f"{value:.6g}")
    return int(rounded) if rounded.is_integer() else rounded


def tensor_types(types: Iterable[str]) -> str:
    """Return how many tensors there are of which type: what is left of a quantised file when its bytes are rewritten.

    >>> tensor_types(["Q4_K", "F32", "Q4_K"])
    'F32:1 Q4_K:2'
    """
    return " ".join(f"{name}:{number}" for name, number in sorted(Counter(types).items()))
