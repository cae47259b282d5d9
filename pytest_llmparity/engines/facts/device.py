"""What this machine computes with: its GPUs by NVML, its CPU by what the kernel says of it.

Only for engines that we start here. A server on a loopback address may be the end of a tunnel or of a container's
port, so of it nothing is claimed.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

_VECTORS: Final = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16", "asimd", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2", "sme"),
)
"""Extensions for which llama.cpp, oneDNN and PyTorch have kernels of their own: another one gives other sums."""


def describe(environ: Mapping[str, str]) -> str:
    """Return the GPUs a process with this environment sees, and the CPU; empty when nothing is known.

    ``NVIDIA H200 (driver 570.86.15); AMD EPYC 7763 64-Core Processor (avx avx2 fma f16c)``. NVIDIA's are seen where
    the package ``nvidia-ml-py`` is installed.
    """
    return "; ".join(part for part in (_gpus(environ), _cpu()) if part)


def cpu_of(cpuinfo: str) -> str:
    """Return model and vector extensions from the text of ``/proc/cpuinfo`` or ``lscpu``; empty for no model."""
    first = cpuinfo.partition("\n\n")[0]  # one block per core
    entries = {key.lower(): value for key, value in re.findall(r"^([^\t:\n]+)\s*:[ \t]*(.*)$", first, re.MULTILINE)}
    model = entries.get("model name") or entries.get("model")
    if not model and "cpu part" in entries:
        model = f"ARM implementer {entries.get('cpu implementer', '?')} part {entries['cpu part']}"
    flags = set((entries.get("flags") or entries.get("features") or "").split())
    known = " ".join(name for name in _VECTORS if name in flags)
    return " ".join(part for part in (model, known and f"({known})") if part) if model else ""


def cores(*, topology: Path = Path("/sys/devices/system/cpu"), cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many cores a process started now may use; threads that share one count once where Linux tells.

    A container's share of the CPU (``docker run --cpus 1.5``) counts as the cores it fills, the last one in part.
    """
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    usable = os.sched_getaffinity(0)
    own = len({_line(topology / f"cpu{number}/topology/thread_siblings_list") or str(number) for number in usable})
    return min(own, _quota(cgroup) or own)


def _quota(cgroup: Path) -> int | None:
    """Return the cores that a share of the CPU's time comes to, rounded up; ``None`` where all of it may be used."""
    share, _, period = _line(cgroup / "cpu.max").partition(" ")  # cgroup v2: "150000 100000", or "max 100000"
    if not share:
        first = cgroup / "cpu"
        share, period = _line(first / "cpu.cfs_quota_us"), _line(first / "cpu.cfs_period_us")  # v1, -1 for all of it
    if not (share.isdecimal() and period.isdecimal() and int(share) and int(period)):
        return None
    return -(-int(share) // int(period))


def _line(file: Path) -> str:
    try:
        return file.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _cpu() -> str:
    try:
        if sys.platform == "darwin":
            asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
        return cpu_of(Path("/proc/cpuinfo").read_text("utf-8", "replace")) or platform.processor()
    except (OSError, subprocess.SubprocessError):
        return platform.processor()


def _gpus(environ: Mapping[str, str]) -> str:
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    try:
        import pynvml
    except ImportError:
        return ""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, no GPU
        return ""
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(place) for place in range(pynvml.nvmlDeviceGetCount())]
        names = [
            _text(pynvml.nvmlDeviceGetName(handle)) for handle in chosen(handles, visible, pynvml.nvmlDeviceGetUUID)
        ]
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
    except pynvml.NVMLError:
        return ""
    finally:
        pynvml.nvmlShutdown()
    return _listed(names, driver)


def _listed(names: list[str], driver: str) -> str:
    kinds = [f"{names.count(name)} x {name}" if names.count(name) > 1 else name for name in dict.fromkeys(names)]
    return f"{', '.join(kinds)} (driver {driver})" if kinds else ""


def reported(gpus: str, driver: str, cpu: str) -> str:
    """Return the same of what PyTorch's ``collect_env`` says: lines of ``GPU 0: NAME``, and the text of ``lscpu``."""
    names = re.findall(r"^GPU \d+: (.+?)(?: \(UUID.*\))?$", gpus, re.MULTILINE)
    return "; ".join(part for part in (_listed(names, driver), cpu_of(cpu)) if part)


def chosen(handles: list[Any], visible: str | None, uuid_of: Any) -> list[Any]:
    """Return those of the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves: numbers or UUIDs up to the first wrong one.

    Numbers are taken in NVML's order, which is CUDA's where ``CUDA_DEVICE_ORDER=PCI_BUS_ID`` or all GPUs are alike.
    """
    if visible is None:
        return handles
    left = []
    for word in (part.strip() for part in visible.split(",")):
        if word.isdecimal() and int(word) < len(handles):
            left.append(handles[int(word)])
        elif matching := [handle for handle in handles if word and _text(uuid_of(handle)).startswith(word)]:
            left.append(matching[0])
        else:
            break
    return left


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
