"""What local model files say: GGUF headers and Hugging Face directories, read without loading weights."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.quantization import normalise
from pytest_llmparity.core.sample import Fact


def gguf_facts(path: Path) -> dict[str, Fact]:
    """Return digest (sha256 of the file), quantization, format and template hash of a GGUF file.

    Raises ``LaunchError`` when the file is no GGUF.
    """
    header = gguf_header(path)
    facts = {
        "digest": Fact(value="sha256:" + sha256(path), source="file"),
        "format": Fact(value="gguf", source="file"),
    }
    if "quantization" in header:
        facts["quantization"] = Fact(value=header["quantization"], source="file", raw=header["quantization_raw"])
    if "template" in header:
        facts["template_sha256"] = Fact(value=text_sha256(header["template"]), source="file")
    return facts


def gguf_header(path: Path) -> Mapping[str, Any]:
    """Return what a GGUF file's metadata says of ``quantization``, ``context_length`` (trained) and ``template``."""
    stat = path.stat()
    return _gguf_header(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _gguf_header(path: Path, _size: int, _mtime_ns: int) -> Mapping[str, Any]:
    from gguf import GGUFReader, LlamaFileType

    try:
        fields = GGUFReader(path).fields
    except OSError as exc:
        raise LaunchError(f"{str(path)!r} cannot be read ({exc.strerror}); give a file this account may read.") from exc
    except (ValueError, IndexError, KeyError, OverflowError) as exc:  # their texts are numpy's, about arrays
        message = f"{str(path)!r} is no whole GGUF file (it ends early or is damaged); download or convert it again."
        raise LaunchError(message) from exc

    def value(key: str) -> Any:
        return fields[key].contents() if key in fields else None

    found: dict[str, Any] = {}
    file_type = value("general.file_type")
    if isinstance(file_type, int) and file_type in set(LlamaFileType):
        raw = LlamaFileType(file_type).name
        found |= {"quantization": normalise(raw.replace("MOSTLY_", "").replace("ALL_", "")), "quantization_raw": raw}
    context = value(f"{value('general.architecture')}.context_length")
    if isinstance(context, int):
        found["context_length"] = context
    template = value("tokenizer.chat_template")
    if isinstance(template, str):
        found["template"] = template
    return found


def hf_facts(folder: Path) -> dict[str, Fact]:
    """Return digest, quantization, format and template hash of a Hugging Face model directory.

    ``digest`` is the sha256 of the weights' index, else of the only safetensors file. ``quantization`` is the method of
    ``quantization_config``, else the weights' type.
    """
    facts: dict[str, Fact] = {}
    config = _json(folder / "config.json")
    quantised = config.get("quantization_config")
    raw = (
        quantised.get("quant_method") if isinstance(quantised, dict) else config.get("dtype", config.get("torch_dtype"))
    )
    if isinstance(raw, str):
        facts["quantization"] = Fact(value=normalise(raw), source="file", raw=raw)
    weights = _weights(folder)
    if weights is not None:
        facts["format"] = Fact(value="safetensors", source="file")
        facts["digest"] = Fact(value="sha256:" + sha256(weights), source="file", raw=weights.name)
    template = folder / "chat_template.jinja"
    text = (
        template.read_text("utf-8")
        if template.is_file()
        else _json(folder / "tokenizer_config.json").get("chat_template")
    )
    if isinstance(text, str):
        facts["template_sha256"] = Fact(value=text_sha256(text), source="file")
    return facts


def _weights(folder: Path) -> Path | None:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return index
    single = sorted(folder.glob("*.safetensors"))
    return single[0] if len(single) == 1 else None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def sha256(path: Path) -> str:
    """Return the hex sha256 of a file; asked again for an unchanged file it is not read again."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_sha256(text: str) -> str:
    """Return the hex sha256 of a text, a chat template say, without its trailing newlines (loaders differ in those)."""
    return hashlib.sha256(text.rstrip("\n").encode()).hexdigest()
