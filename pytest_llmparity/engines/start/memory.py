"""What is in memory on this machine: on NVIDIA GPUs as their driver says (NVML), in RAM as the system says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from pytest_llmparity.extras import plain_command

MISSING_NVML: Final = (
    "this machine has an NVIDIA GPU, and nobody looked whether its memory came back between engines: "
    f"{plain_command('gpu')}"
)
_DEVICE: Final = Path("/dev/nvidiactl")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuMemory:
    """One GPU's memory in bytes. ``holders`` are its processes with what each has, ``None`` where nobody says.

    Inside a container the driver names processes by the host's numbers, or none at all.
    """

    total: int
    used: int
    holders: Mapping[int, int | None] = field(default_factory=dict)


class Gpus(Protocol):
    """Every GPU whose memory can be read."""

    def read(self) -> Mapping[str, GpuMemory]:
        """Return what is in use now, by a name that people know the GPU by."""


class Nvml:
    """NVIDIA GPUs through ``nvidia-ml-py``, whose module is handed in. Satisfies :class:`Gpus`.

    Tested against a stand-in for that module with the same functions; never run on a GPU by us.
    """

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def read(self) -> Mapping[str, GpuMemory]:
        """Return each GPU's memory; one that cannot be read (parts of one, MIG) is left out."""
        gpus = {}
        with contextlib.suppress(self._nvml.NVMLError):
            for index in range(self._nvml.nvmlDeviceGetCount()):
                with contextlib.suppress(self._nvml.NVMLError):
                    device = self._nvml.nvmlDeviceGetHandleByIndex(index)
                    memory = self._nvml.nvmlDeviceGetMemoryInfo(device)
                    name = self._nvml.nvmlDeviceGetName(device)
                    gpus[f"GPU {index} ({name})"] = GpuMemory(
                        total=memory.total, used=memory.used, holders=self._holders(device)
                    )
        return gpus

    def _holders(self, device: object) -> dict[int, int | None]:
        try:
            listed = self._nvml.nvmlDeviceGetComputeRunningProcesses(device)
        except self._nvml.NVMLError:
            return {}
        return {process.pid: process.usedGpuMemory for process in listed}


def nvidia(load: Any = __import__, device: Path = _DEVICE) -> tuple[Gpus | None, str | None]:
    """Return a reader of the memory of NVIDIA GPUs, ``None`` without GPU or package; then perhaps a note on that.

    ``load`` imports a module by name.
    """
    try:
        nvml = load("pynvml")
    except ImportError:
        return None, MISSING_NVML if device.exists() else None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None, None
    return Nvml(nvml), None


def resident(pids: Iterable[int]) -> dict[int, tuple[str, int]]:
    """Return name and resident bytes of those processes that are there; one that has ended holds nothing."""
    import psutil

    processes = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            if process.status() != psutil.STATUS_ZOMBIE:
                processes[pid] = (process.name(), process.memory_info().rss)
    return processes


def listening(pid: int) -> set[int]:
    """Return the TCP ports that a process or one below it listens on; none of what may not be looked into."""
    import psutil

    ports: set[int] = set()
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                ask = getattr(member, "net_connections", None) or member.connections  # its name before psutil 6
                ports |= {each.laddr.port for each in ask("tcp") if each.status == psutil.CONN_LISTEN}
    return ports


def available() -> int:
    """Return how many bytes of RAM a new process can have without anything being swapped out."""
    import psutil

    return int(psutil.virtual_memory().available)


def shown(size: int) -> str:
    """Return a number of bytes as people read it.

    >>> shown(3_435_973_837), shown(40_000_000)
    ('3.2 GiB', '38 MiB')
    """
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
