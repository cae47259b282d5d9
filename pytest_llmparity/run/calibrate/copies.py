"""Quantised copies of a GGUF file: by ``llama-quantize`` where it is at hand, else by the ``gguf`` package."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from pytest_llmparity.core.errors import DesignError, NotMeasured
from pytest_llmparity.core.identity.quantization import PLAIN, normalise

CLASSES: Final = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0", "Q3_K_M", "Q2_K")
"""What ``llama-quantize`` is asked for where nobody names classes, the finest first."""
BY_GGUF: Final = ("Q8_0", "Q4_0")
"""What the ``gguf`` package can round to."""
PROGRAM: Final = "llama-quantize"


def quantizer(named: str | None) -> str | None:
    """Return the program that makes copies, ``None`` for the package ``gguf``; ``NotMeasured``: none is so named."""
    program = shutil.which(named or PROGRAM)
    if named and program is None:
        raise NotMeasured(f"there is no program {named}; --quantize names {PROGRAM} of llama.cpp")
    return program


def classes_of(types: str | None, program: str | None) -> list[str]:
    """Return the classes of the copies, one spelling each; ``DesignError`` for what cannot be made."""
    if types is None:
        return list(BY_GGUF if program is None else CLASSES)
    classes = list(dict.fromkeys(normalise(name) for name in types.split(",") if name.strip()))
    wrong = [name for name in classes if name in PLAIN or (program is None and name not in BY_GGUF)]
    if wrong or not classes:
        able = f"the gguf package makes {' and '.join(BY_GGUF)}, llama-quantize (on PATH, or --quantize) all others"
        raise DesignError(f"--types {types}: no copy can be made as {', '.join(wrong) or 'nothing'}; {able}")
    return classes


def make(
    source: Path, folder: Path, classes: Sequence[str], program: str | None, *, say: Callable[[str], None]
) -> dict[str, Path]:
    """Make a copy of every class and return where it lies; ``say`` is told before each."""
    refuse_full_disk(folder, source, len(classes))
    made = {}
    for quantization in classes:
        say(f"making {quantization} of {source.name}")
        made[quantization] = folder / f"{source.stem}-{quantization}.gguf"
        copy(source, made[quantization], quantization, program)
    return made


def copy(source: Path, target: Path, quantization: str, program: str | None) -> None:
    """Write one copy; ``NotMeasured`` says why it cannot be made."""
    if program is None:
        _by_gguf(source, target, quantization)
        return
    argv = [program, str(source), str(target), quantization]
    done = subprocess.run(argv, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0 or not target.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise NotMeasured(
            f"{Path(program).name} could not make {quantization} of {source.name} (exit code {done.returncode}): "
            f"{lines[-1] if lines else 'it said nothing'}"
        )


def refuse_full_disk(folder: Path, source: Path, classes: int) -> None:
    """Raise ``NotMeasured`` where copies of so many classes would not fit: Q8_0 of F16 is the largest, 34 for 64."""
    needed, free = source.stat().st_size * classes * 34 // 64, shutil.disk_usage(folder).free
    if needed > free:
        gigabytes = (f"{size / 1e9:.1f} GB" for size in (needed, free))
        raise NotMeasured(
            "{} may be needed for the copies and {} are free in {}; name another folder with --copies, or fewer "
            "classes with --types".format(*gigabytes, folder)
        )


def _by_gguf(source: Path, target: Path, quantization: str) -> None:
    """Round every matrix, the output head to 8 bits, as llama.cpp leaves it finer; vectors and metadata stay."""
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name not in ("general.architecture", "general.file_type"):
            inner = field.types[-1] if field.types[0] is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{quantization}"])
    names = {tensor.name for tensor in reader.tensors}
    head = "output.weight" if "output.weight" in names else "token_embd.weight"  # tied where it is not there
    kinds = {}
    for tensor in reader.tensors:
        columns = int(tensor.shape[0])  # a row's length stands first
        fits = len(tensor.shape) > 1 and columns % 32 == 0 and tensor.name.endswith(".weight")
        wanted = "Q8_0" if tensor.name == head else quantization
        kinds[tensor.name] = gguf.GGMLQuantizationType[wanted] if fits else tensor.tensor_type
    for tensor in reader.tensors:
        kind, values = kinds[tensor.name], tensor.data
        if kind is tensor.tensor_type:
            writer.add_tensor_info(tensor.name, values.shape, values.dtype, values.nbytes, kind)
        else:
            stored = gguf.quant_shape_to_byte_shape([int(size) for size in reversed(tensor.shape)], kind)
            writer.add_tensor_info(tensor.name, stored, np.dtype(np.uint8), math.prod(map(int, stored)), kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in reader.tensors:  # one after the other: a large model is never held whole
        kind, values = kinds[tensor.name], tensor.data
        if kind is not tensor.tensor_type:
            values = gguf.quants.quantize(gguf.quants.dequantize(values, tensor.tensor_type), kind)
        writer.write_tensor_data(values)
    writer.close()
