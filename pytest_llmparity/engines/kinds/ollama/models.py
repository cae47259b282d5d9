"""What an Ollama daemon holds: models made from a file, pulled, loaded and let go of."""

from __future__ import annotations

import functools
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.errors import LaunchError, ModelMissing, ProtocolError, Timeout, Unreachable
from pytest_llmparity.engines.facts import files
from pytest_llmparity.engines.facts.values import decoded, mapping
from pytest_llmparity.engines.kinds.ollama import about
from pytest_llmparity.engines.start.readiness import POLL_S
from pytest_llmparity.engines.wire.control import CALL_TIMEOUT_S, Control, Reply, upload_s
from pytest_llmparity.engines.wire.refusals import read_refusal, refused, shown

MADE_FROM: Final = "made by pytest-llmparity from "
"""How the licence text of a model begins that was made from a file; the file's ``sha256:…`` follows.

``/api/create`` may rewrite a file (ollama/ollama issue 17554), so the stored weights do not tell which file they came
from. The licence does: it is kept with the model, shown again, and plays no part in answering.
"""
LOAD_TRIES: Final = 5
"""How often a model is loaded until it is seen in memory, beside others who use the daemon."""
UNLOAD_S: Final = 30.0
"""How long a model may take to leave the memory; Ollama waits for its runner to end."""

_LOADING: Final[dict[str, threading.Lock]] = {}
"""One lock per daemon: engines that are engaged at once must not evict each other between a load and a look at it."""


def body(model: str, **fields: object) -> bytes:
    """Return the JSON body of a control call about a model."""
    return json.dumps({"model": model, **fields}).encode()


def show(control: Control, model: str) -> Mapping[str, Any]:
    """Return the answer of ``/api/show``; empty when the model is not there or nobody answers."""
    try:
        return control.post("/api/show", body(model), timeout_s=CALL_TIMEOUT_S).json()
    except (Unreachable, Timeout, ProtocolError):
        return {}


# ---- getting a model in --------------------------------------------------------------------------------------------


def name_for(path: Path, engine: str) -> str:
    """Return the name a file's model gets, the engine's name as its tag.

    >>> name_for(Path("/models/Tiny Q4_K_M.gguf"), "ollama")
    'tiny-q4_k_m:ollama'
    """
    plain = re.sub(r"[^a-z0-9._-]+", "-", path.name.lower().removesuffix(".gguf")).strip("._-")
    return f"{plain[:80] or 'model'}:{engine[:80]}"


def make(control: Control, model: str, path: Path, *, timeout_s: float) -> None:
    """Make a model from a GGUF file: upload it where it is not there yet, then ``/api/create``.

    A model that was made from the same bytes before is left as it is. ``timeout_s`` is for each pause of the daemon;
    the whole may take as long as the file is large.
    ``LaunchError`` repeats what Ollama says.
    """
    digest = f"sha256:{files.sha256(path)}"
    if show(control, model).get("license") == MADE_FROM + digest:
        return
    blob = f"/api/blobs/{digest}"
    if control.head(blob).status != 200:
        sent = control.upload(blob, path, timeout_s=timeout_s)
        if sent.status not in (200, 201):
            raise _failed(control, f"did not take {path.name!r}", sent)
    asked = body(model, files={path.name: digest}, license=MADE_FROM + digest)
    made = control.post("/api/create", asked, timeout_s=timeout_s, total_s=upload_s(path, timeout_s))
    _succeeded(control, made, f"could not make {model!r} from {path.name!r}")


def pull(control: Control, model: str, *, timeout_s: float) -> None:
    """Download a model; ``LaunchError`` repeats what Ollama says, ``Timeout`` when it takes longer."""
    pulled = control.post("/api/pull", body(model, stream=False), timeout_s=timeout_s)
    _succeeded(control, pulled, f"could not pull {model!r}")


def missing(engine: str, model: str) -> ModelMissing:
    """Return the error of a model that is not on this daemon."""
    return ModelMissing(
        f"{engine}: Ollama has no model {model!r}. Fetch it with: ollama pull {model} (or set download = true).",
        engine=engine,
        status=404,
    )


def _succeeded(control: Control, reply: Reply, failure: str) -> None:
    """Raise unless the last line of an answer (one object, or a line per step) says success."""
    last = reply.body.strip().rpartition(b"\n")[2]
    if reply.status != 200 or mapping(decoded(last)).get("status") != "success":
        raise _failed(control, failure, Reply(status=reply.status, headers=reply.headers, body=last))


def _failed(control: Control, failure: str, reply: Reply) -> LaunchError:
    words = shown(read_refusal(reply.body).message) or "nothing more"
    return LaunchError(f"{control.engine}: Ollama {failure} ({reply.status}): {words}", engine=control.engine)


# ---- memory --------------------------------------------------------------------------------------------------------


def load(control: Control, model: str, fields: Mapping[str, Any], *, timeout_s: float) -> Mapping[str, Any]:
    """Load a model by an empty ``/api/generate``, see that it is the one that is loaded, return its ``/api/ps`` entry.

    Ollama keeps one process per weights, not per model, and does not start it anew for another template: a model whose
    weights are loaded under another name gets that one's process, which may not apply its Jinja template and then
    refuses tools (server/sched.go, ``schedulerModelKey``, ``needsReload``; seen with v0.33.0). ``/api/ps`` shows the
    first name, so where it shows another model of the same weights and not ours, the process is ended and started once
    more. A daemon without room for two may have let go of ours for another before it was asked: then it is loaded
    again. Empty for models that run in Ollama's cloud, which are never shown there. Raises as answers do.
    """
    asked = body(model, **fields)
    with _LOADING.setdefault(control.base_url, threading.Lock()):
        for _ in range(LOAD_TRIES):
            _answered(control, control.post("/api/generate", asked, timeout_s=timeout_s))
            loaded = control.ask("/api/ps")
            if (there := about.entry(loaded, model)) or not _weights(control, model):
                return there
            others = about.names(loaded)
            if any(one_process(control, model, other) for other in others):
                release(control, model, gone=functools.partial(_changed, others))
    return {}


def _changed(before: tuple[str, ...], now: Mapping[str, Any]) -> bool:
    return about.names(now) != before


def one_process(control: Control, model: str, other: str) -> bool:
    """Tell whether two names are of different models over the same weights, which Ollama serves with one process."""
    weights = "" if about.entry({"models": [{"name": other}]}, model) else _weights(control, model)
    return weights != "" and weights == _weights(control, other)


def _weights(control: Control, model: str) -> str:
    """Return what holds a model's weights; empty where that is not this machine, or nobody says."""
    answer = show(control, model)
    return "" if answer.get("remote_host") else about.weights(answer)


def _answered(control: Control, reply: Reply) -> None:
    if reply.status != 200:
        error = read_refusal(reply.body)
        raise refused(error, status=reply.status, headers=reply.headers, engine=control.engine, case="warm-up")


def unload(control: Control, model: str) -> None:
    """Make the daemon let go of a model and wait until ``/api/ps`` no longer lists it."""
    release(control, model, gone=lambda now: not about.entry(now, model))


def release(
    control: Control,
    model: str,
    *,
    gone: Callable[[Mapping[str, Any]], bool],
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Send ``keep_alive: 0`` and ask ``/api/ps`` until ``gone``; ``LaunchError`` when that takes too long."""
    reply = control.post("/api/generate", body(model, keep_alive=0), timeout_s=UNLOAD_S)
    if reply.status != 200:
        raise _failed(control, f"did not unload {model!r}", reply)
    until = clock() + UNLOAD_S
    while (listed := control.get("/api/ps")).status != 200 or not gone(listed.json()):
        if clock() >= until:
            raise LaunchError(
                f"{control.engine}: Ollama still holds {model!r} {UNLOAD_S:g} s after keep_alive 0 (a request of "
                f"somebody else may be running). End it, or run: ollama stop {model}",
                engine=control.engine,
            )
        pause(POLL_S)
