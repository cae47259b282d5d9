"""What Ollama says about a model: which template is in force, what it samples with, how its weights are stored."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pytest_llmparity.core.errors import ParameterNotHonoured
from pytest_llmparity.core.identity import spelling
from pytest_llmparity.core.sample import NEUTRAL, Fact, JsonObject, Sampling
from pytest_llmparity.engines import daemons
from pytest_llmparity.engines.facts import files, serving, values
from pytest_llmparity.engines.facts.values import facts, mapping, mappings, string
from pytest_llmparity.engines.wire import build
from pytest_llmparity.settings.specification import Route

Show = Mapping[str, Any]
"""What ``/api/show`` answered; empty when nobody could ask."""

REPEAT_PENALTY_OFF: Final = (0, 32, 10)
"""Release whose default ``repeat_penalty`` is 1.0; earlier ones apply 1.1 to every answer (api/types.go)."""

UNSENT: Final = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"}
"""Sampling that ``/v1`` has no field for, our name to Ollama's (openai/openai.go, ``ChatCompletionRequest``)."""

_DEFAULTS: Final[Mapping[str, Any]] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "typical_p": 1.0,
    "repeat_last_n": 64,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""``DefaultOptions`` of api/types.go, without ``repeat_penalty``, which depends on the release."""

_SAMPLED: Final = (*_DEFAULTS, "repeat_penalty", "mirostat", "mirostat_tau", "mirostat_eta", "tfs_z", "seed", "stop")
_NO_TEMPLATE: Final = "{{ .Prompt }}"
"""What Ollama shows for a model without a template of its own."""


# ---- names ---------------------------------------------------------------------------------------------------------


def entry(listing: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    """Return a model's entry in the answer of ``/api/tags`` or ``/api/ps``; empty when it is not there."""
    wanted = daemons.full_name(model) if model else None
    for listed in mappings(listing.get("models")):
        if wanted in (daemons.full_name(listed.get("name")), daemons.full_name(listed.get("model"))):
            return listed
    return {}


def names(listing: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names in the answer of ``/api/tags`` or ``/api/ps``, in its order."""
    return tuple(values.names(listing, "models", "name"))


# ---- sampling ------------------------------------------------------------------------------------------------------


def parameters(show: Show) -> JsonObject:
    r"""Return the ``PARAMETER`` lines of the model's Modelfile; one that is given several times is a list.

    >>> parameters({"parameters": 'stop    "<|im_end|>"\nrepeat_penalty    1.3'})
    {'stop': ['<|im_end|>'], 'repeat_penalty': 1.3}
    """
    text = show.get("parameters")
    lines: JsonObject = {}
    for line in text.splitlines() if isinstance(text, str) else ():
        name, _, value_text = line.strip().partition(" ")
        try:
            value = json.loads(value_text)
        except ValueError:
            value = value_text.strip()
        if not name:
            continue
        if name == "stop" or name in lines:
            earlier = lines.get(name, [])
            value = [*(earlier if isinstance(earlier, list) else [earlier]), value]
        lines[name] = value
    return lines


def sampling_defaults(show: Show, version: str, route: Route) -> JsonObject:
    """Return what applies where a request does not say, by Ollama's names: the Modelfile over the release's defaults.

    ``/v1`` puts temperature and top_p to 1.0 over both. ``repeat_penalty`` is missing when neither the Modelfile nor a
    release number says it; everything is missing where ``show`` holds no Modelfile.
    """
    if not _text(show, "modelfile"):
        return {}
    defaults = dict(_DEFAULTS)
    release = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if release and (number := tuple(map(int, release.groups()))) != (0, 0, 0):  # 0.0.0 is a build by hand
        defaults["repeat_penalty"] = 1.0 if number >= REPEAT_PENALTY_OFF else 1.1
    defaults |= {name: value for name, value in parameters(show).items() if name in _SAMPLED}
    return defaults | ({"temperature": 1.0, "top_p": 1.0} if route != "native" else {})


def openai_sampling(
    sampling: Sampling,
    defaults: Mapping[str, Any],
    *,
    engine: str,
    case: str,
    fields: Mapping[str, str] = build.EVERY_SERVER,
) -> tuple[JsonObject, tuple[str, ...]]:
    """Return the sampling fields for ``/v1`` and the names left out, as ``building.sampling_fields`` does.

    ``fields`` is what its route has words for, our name to the wire's.

    What it has no field for is left out where the server's own default is the value that is asked for; that is as good
    as sent and not named. In a greedy request it is left out, and named, where the default cannot change the answer
    (``top_k``, ``min_p``) or nobody knows it. Otherwise the answer would be another one than asked for:
    ``ParameterNotHonoured``.
    """
    omitted = []
    for name, wire in UNSENT.items():
        wanted, there = getattr(sampling, name), defaults.get(wire)
        harmless = sampling.temperature == 0 and wanted == NEUTRAL[name]
        if there == wanted:
            continue
        if harmless and (there is None or name != "repetition_penalty"):
            omitted.append(name)
            continue
        raise ParameterNotHonoured(
            f"{engine}: Ollama's /v1 has no field for {name}, so {'its unknown default' if there is None else there} "
            f"applies instead of {wanted} (case {case!r}). Set route = 'native', which has one"
            + (", or serve the model without a repeat_penalty on Ollama 0.32.10 or later." if "pen" in name else "."),
            engine=engine,
            case=case,
        )
    sent, more = build.sampling_fields(
        sampling, {**fields, **{name: name for name in UNSENT}}, engine=engine, case=case
    )
    return {name: value for name, value in sent.items() if name not in UNSENT}, (*omitted, *more)


# ---- template ------------------------------------------------------------------------------------------------------


def template_path(show: Show) -> str:
    """Return who renders this model's prompts: ``jinja``, ``go-template`` or ``renderer:NAME``; empty when unknown.

    ``/api/show`` gives the template that is in force under the daemon's own settings (server/routes.go,
    ``selectedModelTemplate``), and the Modelfile beside it always holds the Go template: where the two differ, the
    GGUF's Jinja template is used, by the llama-server behind Ollama. A built-in renderer is named in the Modelfile. A
    model that shows no template of its own is not told apart. What cannot be seen: whether the loaded llama-server was
    started for another model over the same weights.
    """
    modelfile, template = _text(show, "modelfile"), _text(show, "template")
    renderer = _text(show, "renderer") or _directive(modelfile, "RENDERER")
    if renderer:
        return f"renderer:{renderer}"
    if not modelfile or template.strip() in ("", _NO_TEMPLATE):
        return ""
    return "go-template" if template in modelfile else "jinja"


def served_by_llama(show: Show) -> bool:
    """Tell whether the model's weights are a GGUF file, which llama-server serves; others go to the MLX runner."""
    return mapping(show.get("details")).get("format") == "gguf"


def _directive(modelfile: str, name: str) -> str:
    line = re.search(rf'^{name}[ \t]+"?([^"\s]+)"?[ \t]*$', modelfile, re.MULTILINE)
    return line[1] if line else ""


# ---- weights -------------------------------------------------------------------------------------------------------


def weights(show: Show) -> str:
    """Return the ``sha256:…`` of the weights' blob, which the Modelfile names; empty when it does not."""
    line = re.search(r"^FROM .*sha256-([0-9a-f]{64})\s*$", _text(show, "modelfile"), re.MULTILINE)
    return f"sha256:{line[1]}" if line else ""


def blob(show: Show) -> Path | None:
    """Return where the Modelfile says that the weights' blob lies; ``None`` when it does not."""
    line = re.search(r"^FROM (.*sha256-[0-9a-f]{64})\s*$", _text(show, "modelfile"), re.MULTILINE)
    return Path(line[1]) if line else None


def adapters(show: Show) -> str:
    """Return the LoRA adapters that the Modelfile names, by the digests of their blobs; empty where there is none.

    Its rank is known where the daemon's store is on this machine.
    """
    modelfile = _text(show, "modelfile")
    if not modelfile:
        return ""
    places = re.findall(r'^ADAPTER[ \t]+"?([^"\n]+?)"?[ \t]*$', modelfile, re.MULTILINE)
    return serving.listed(serving.adapter_at(place, name=_short(Path(place).name)) for place in places)


def _short(name: str) -> str:
    """Return the name of a blob as Ollama shows it: twelve digits of its digest."""
    return name[:19].replace("sha256-", "sha256:") if name.startswith("sha256-") else name


def bits_per_weight(show: Show) -> float | None:
    """Return the bits stored per weight over all tensors, scales counted; ``None`` when a type's size is not known."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    bits = elements = 0
    for tensor in _tensors(show):
        kind, shape = str(tensor.get("type")), tensor.get("shape")
        if kind not in GGMLQuantizationType.__members__ or not isinstance(shape, list):
            return None
        if not all(isinstance(side, int) for side in shape):
            return None
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
        count = math.prod(shape)
        elements += count
        bits += 8 * size * count // block
    return round(bits / elements, 3) if elements else None


def _tensors(show: Show) -> list[Mapping[str, Any]]:
    return mappings(show.get("tensors"))


# ---- facts ---------------------------------------------------------------------------------------------------------


def model_facts(show: Show, *, version: str, route: Route) -> dict[str, Fact]:
    """Return what ``/api/show`` says, as identity fields."""
    details, path = mapping(show.get("details")), template_path(show)
    level = string(details.get("quantization_level"))
    # The same name, another engine: safetensors are served by Ollama's MLX runner, GGUF by llama-server.
    runner = "llama-server" if served_by_llama(show) else "MLX runner"
    template = files.text_sha256(_text(show, "template")) if path in ("jinja", "go-template") else ""
    known = {
        "template_sha256": template,
        "tensor_types": spelling.tensor_types(str(tensor.get("type")) for tensor in _tensors(show)),
        "bits_per_weight": bits_per_weight(show),
        "template_path": path,
        "sampling_defaults": spelling.sampling_defaults(sampling_defaults(show, version, route)),
    }
    return (
        values.quantization("" if level.lower() == "unknown" else level)
        | facts({"format": str(details.get("format") or "")}, raw=runner)
        | facts(known)
    )


def _text(show: Show, name: str) -> str:
    return string(show.get(name))
