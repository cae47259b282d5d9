"""What local model files say: GGUF headers and Hugging Face directories, read without loading weights."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, TypedDict

from pytest_llmparity.core.errors import LaunchError
from pytest_llmparity.core.identity.quantization import normalise, of_config, packed_bits
from pytest_llmparity.core.identity.spelling import sampling_defaults, tensor_types
from pytest_llmparity.core.sample import Fact
from pytest_llmparity.engines.facts import digests, safetensors
from pytest_llmparity.engines.facts.digests import sha256
from pytest_llmparity.engines.facts.gguf import Header, NotWhole, Tensor, read_header
from pytest_llmparity.engines.facts.values import decoded, facts, mapping, mappings, sequence

__all__ = ["gguf_facts", "gguf_header", "hf_facts", "hf_sampling", "sha256", "text_sha256"]

_PART: Final = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
_SNAPSHOT: Final = re.compile(r"[0-9a-f]{40}")


# GGUF -----------------------------------------------------------------------------------------------------------------


def gguf_facts(path: Path) -> dict[str, Fact]:
    """Return what a GGUF file says of its model; of a split one all parts are read.

    ``digest`` is the sha256 of the file, of a split one that of the list ``sha256sum`` prints. Beside it: format,
    quantisation, tensor types, bits per weight, hashes of template and vocabulary. ``LaunchError`` when it is no GGUF.
    """
    header, parts = gguf_header(path), _parts(path)
    template = text_sha256(header["template"]) if "template" in header else ""
    plain = {name: header.get(name) for name in ("tensor_types", "bits_per_weight", "tokenizer_sha256")}
    return (
        facts({"digest": digests.of_files(parts)}, source="file", raw=path.name if len(parts) > 1 else "")
        | facts({"quantization": header.get("quantization")}, source="file", raw=header.get("quantization_raw", ""))
        | facts({"format": "gguf", "template_sha256": template, **plain}, source="file")
    )


def changed_since(moment: float, paths: Iterable[Path]) -> bool:
    """Whether one of these, each a file (a split model's with its parts) or a folder, is newer than a moment.

    It is in seconds since the epoch. A link that was made to point elsewhere is newer too; what cannot be looked at
    counts as changed.
    """
    try:
        files = [part for path in paths for part in (path.rglob("*") if path.is_dir() else _parts(path))]
        stats = [status for file in files for status in (file.stat(), file.lstat())]
        return any(max(status.st_mtime, status.st_ctime) > moment for status in stats)
    except OSError:
        return True


class GgufHeader(TypedDict, total=False):
    """What the header of a GGUF file says, as far as it does.

    ``context_length`` is the trained one, ``template`` its text, ``sampling`` what ``general.sampling.*`` says as the
    identity spells it.
    """

    quantization: str
    quantization_raw: str
    context_length: int
    template: str
    sampling: str
    tensor_types: str
    bits_per_weight: float
    tokenizer_sha256: str


def gguf_header(path: Path) -> GgufHeader:
    """Return what the header says, as far as it does; of a split file the tensors of all parts."""
    stat = path.stat()
    return _gguf_header(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)
def _gguf_header(path: Path, _size: int, _mtime_ns: int) -> GgufHeader:
    from gguf import LlamaFileType

    headers = [_whole(part) for part in _parts(path)]
    value = headers[0].metadata.get
    header = _tensor_facts([tensor for part in headers for tensor in part.tensors])
    file_type = value("general.file_type")
    if isinstance(file_type, int) and file_type in set(LlamaFileType):
        raw = LlamaFileType(file_type).name
        header["quantization"] = normalise(raw.replace("MOSTLY_", "").replace("ALL_", ""))
        header["quantization_raw"] = raw
    context = value(f"{value('general.architecture')}.context_length")
    if isinstance(context, int):
        header["context_length"] = context
    template = value("tokenizer.chat_template")
    if isinstance(template, str):
        header["template"] = template
    asked = {n.rpartition(".")[2]: v for n, v in headers[0].metadata.items() if n.startswith("general.sampling.")}
    if defaults := sampling_defaults(asked):
        header["sampling"] = defaults
    tokens = value("tokenizer.ggml.tokens")
    if isinstance(tokens, list) and tokens:
        # The converter fills holes in a vocabulary up to its size (convert_hf_to_gguf.py, get_vocab_base).
        named = ((place, str(token)) for place, token in enumerate(tokens) if token != f"[PAD{place}]")
        header["tokenizer_sha256"] = _vocabulary_sha256(named)
    return header


def _parts(path: Path) -> list[Path]:
    """Return every file of a split GGUF of which one is named; a whole file is its only part."""
    split = _PART.search(path.name)
    if split is None:
        return [path]
    stem, count = path.name[: split.start()], split[2]
    return [path.with_name(f"{stem}-{number:05}-of-{count}.gguf") for number in range(1, int(count) + 1)]


def _whole(path: Path) -> Header:
    try:
        header = read_header(path)
    except OSError as exc:
        raise LaunchError(f"{str(path)!r} cannot be read ({exc.strerror}); give a file this account may read.") from exc
    except NotWhole as exc:
        raise LaunchError(_damaged(path)) from exc
    if any(header.data_at + tensor.offset + _bytes(tensor) > header.size for tensor in header.tensors):
        raise LaunchError(_damaged(path))
    return header


def _damaged(path: Path) -> str:
    return f"{str(path)!r} is no whole GGUF file (it ends early or is damaged); download or convert it again."


@functools.cache
def _kinds() -> Mapping[int, tuple[str, int, int]]:
    """Return ggml's tensor types by number: name, weights in a block, bytes of a block."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    return {kind.value: (kind.name, *GGML_QUANT_SIZES[kind]) for kind in GGMLQuantizationType}


def _bytes(tensor: Tensor) -> int:
    """Return what a tensor takes in the file, 0 for a type the gguf package does not know."""
    _, block, size = _kinds().get(tensor.kind, ("", 1, 0))
    return tensor.elements // block * size


def _tensor_facts(tensors: list[Tensor]) -> GgufHeader:
    """Return the tensors' types and the bits of a weight, these only where every type is known."""
    if not tensors:
        return {}
    names = (_kinds()[tensor.kind][0] if tensor.kind in _kinds() else f"type-{tensor.kind}" for tensor in tensors)
    known: GgufHeader = {"tensor_types": tensor_types(names)}
    if all(tensor.kind in _kinds() for tensor in tensors):
        elements = sum(tensor.elements for tensor in tensors)
        known["bits_per_weight"] = round(8 * sum(map(_bytes, tensors)) / elements, 3)
    return known


# Hugging Face ---------------------------------------------------------------------------------------------------------


def hf_facts(folder: Path) -> dict[str, Fact]:
    """Return what a Hugging Face model directory says of its model.

    ``digest`` is the sha256 of the only safetensors file, else that of the list ``sha256sum`` prints for those the
    index names. ``quantization`` is that of ``config.json`` (method and bits, else the weights' type), ``format``
    ``mlx`` for what MLX wrote. Beside them: revision (of a snapshot in the hub's cache), tensor types, bits per weight,
    hashes of template and vocabulary. What cannot be read is left out.
    """
    config, files, template = _config(folder), _weights(folder), _template(folder)
    name, raw = of_config(config)
    known: dict[str, object] = {"revision": _revision(folder), "tokenizer_sha256": _tokenizer(folder)}
    if template is not None:
        known["template_sha256"] = text_sha256(template)
    if files:
        known["format"] = "mlx" if _by_mlx(files[0], config) else "safetensors"
        known |= _stored(files, config)
    weights = facts({"digest": digests.of_files(files)}, source="file", raw=_named(files)) if files else {}
    return facts({"quantization": name}, source="file", raw=raw) | weights | facts(known, source="file")


def hf_sampling(folder: Path) -> str:
    """Return the sampling that ``generation_config.json`` asks for, as the identity spells it; empty for none.

    Whether a server follows it is the server's business: vLLM does unless started with ``--generation-config vllm``.
    """
    return sampling_defaults(_json(folder / "generation_config.json"))


def hf_trained(folder: Path) -> int | None:
    """Return the tokens of the longest text that ``config.json`` says the model was trained for, else ``None``.

    A model that also sees or hears keeps it in its ``text_config``.
    """
    config = _config(folder)
    text = config.get("text_config")
    longest = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return longest if isinstance(longest, int) else None


def _config(folder: Path) -> Mapping[str, Any]:
    """Return ``config.json``; modelopt writes what it did to the weights into a file of its own."""
    config, beside = _json(folder / "config.json"), _json(folder / "hf_quant_config.json").get("quantization")
    if isinstance(beside, dict) and "quantization_config" not in config:
        return {**config, "quantization_config": {"quant_method": "modelopt", **beside}}
    return config


def _weights(folder: Path) -> list[Path]:
    """Return the weights' files: those the index names, all of them there, else the only safetensors file."""
    index = _json(folder / "model.safetensors.index.json").get("weight_map")
    if isinstance(index, dict) and index:
        files = [folder / name for name in sorted({str(name) for name in index.values()})]
        return files if all(file.is_file() for file in files) else []
    single = sorted(folder.glob("*.safetensors"))
    return single if len(single) == 1 else []


def _named(files: list[Path]) -> str:
    return files[0].name if len(files) == 1 else f"list of {len(files)} files"


def _by_mlx(file: Path, config: Mapping[str, Any]) -> bool:
    header = safetensors.read_header(file)
    return "quantization" in config or (header is not None and header.metadata.get("format") == "mlx")


def _stored(files: list[Path], config: Mapping[str, Any]) -> dict[str, str | float | None]:
    headers = [safetensors.read_header(file) for file in files]
    tensors = tuple(tensor for header in headers if header is not None for tensor in header.tensors)
    if not tensors or None in headers:
        return {}
    bits = safetensors.bits_per_weight(tensors, functools.partial(packed_bits, config))
    return {"tensor_types": tensor_types(tensor.type for tensor in tensors), "bits_per_weight": bits}


def _revision(folder: Path) -> str:
    """Return the commit of a snapshot in the hub's cache (``models--ORG--NAME/snapshots/COMMIT``), else nothing."""
    return folder.name if folder.parent.name == "snapshots" and _SNAPSHOT.fullmatch(folder.name) else ""


def _template(folder: Path) -> str | None:
    own = folder / "chat_template.jinja"
    if own.is_file():
        return own.read_text("utf-8", "replace")
    text = _json(folder / "tokenizer_config.json").get("chat_template")
    if isinstance(text, list):  # several named ones; without a name the default is used
        text = next((entry.get("template") for entry in mappings(text) if entry.get("name") == "default"), "")
    return text if isinstance(text, str) and text else None


def _tokenizer(folder: Path) -> str:
    """Return the vocabulary's sha256 from ``tokenizer.json``; other files of tokenizers are not read."""
    content = _json(folder / "tokenizer.json")
    vocabulary = mapping(content.get("model")).get("vocab")
    ids: dict[int, str] = {place: token for token, place in mapping(vocabulary).items() if isinstance(place, int)}
    for place, piece in enumerate(sequence(vocabulary)):  # Unigram: pieces with their scores, in order
        if isinstance(piece, list) and piece:
            ids[place] = str(piece[0])
    for token in mappings(content.get("added_tokens")):
        if isinstance(token.get("id"), int):
            ids[token["id"]] = str(token.get("content"))
    return _vocabulary_sha256(sorted(ids.items())) if ids else ""


def _vocabulary_sha256(tokens: Iterable[tuple[int, str]]) -> str:
    """Return the sha256 over ids and spellings, in order of ids.

    A vocabulary of byte-level BPE is spelt alike in ``tokenizer.json`` and GGUF, so one model's two files agree. The
    converter to GGUF rewrites some tokens of other kinds (WordPiece's ``##``), and then they do not.
    """
    digest = hashlib.sha256()
    for place, token in tokens:
        spelt = token.encode("utf-8", "surrogatepass")
        digest.update(b"%d %d " % (place, len(spelt)) + spelt)
    return digest.hexdigest()


def _json(path: Path) -> Mapping[str, Any]:
    try:
        return mapping(decoded(path.read_bytes()))
    except OSError:
        return {}


def text_sha256(text: str) -> str:
    """Return the hex sha256 of a text, a chat template say, without its trailing newlines (loaders differ in those)."""
    return hashlib.sha256(text.rstrip("\n").encode("utf-8", "replace")).hexdigest()
