"""What is in memory: the driver's words for GPUs (from a stand-in for its module), the system's for processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_llmparity.engines.start import memory
from pytest_llmparity.engines.start.memory import GpuMemory, nvidia

GIB = 2**30


class NVMLError(Exception):
    pass


class Driver:
    """The functions of ``pynvml`` that are used, for GPUs by number; one that is an error cannot be read."""

    NVMLError = NVMLError

    def __init__(self, gpus: Mapping[int, SimpleNamespace | None], *, broken: str = "") -> None:
        self._gpus = gpus
        self._broken = broken

    def __getattr__(self, name: str) -> object:
        answers = {
            "nvmlInit": lambda: None,
            "nvmlDeviceGetCount": lambda: len(self._gpus),
            "nvmlDeviceGetHandleByIndex": lambda index: self._gpus[index],
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetMemoryInfo": self._info,
            "nvmlDeviceGetComputeRunningProcesses": lambda gpu: gpu.processes,
        }

        def refuse(*_: object) -> object:
            raise NVMLError(name)

        return refuse if name == self._broken else answers[name]

    def _info(self, gpu: SimpleNamespace | None) -> SimpleNamespace:
        if gpu is None:
            raise NVMLError("parts of a GPU")
        return SimpleNamespace(total=gpu.total, used=gpu.used)


def gpu(used: int, *processes: tuple[int, int | None]) -> SimpleNamespace:
    listed = [SimpleNamespace(pid=pid, usedGpuMemory=size) for pid, size in processes]
    return SimpleNamespace(name="NVIDIA H200", total=141 * GIB, used=used, processes=listed)


def read(driver: Driver) -> Mapping[str, GpuMemory]:
    gpus, note = nvidia(lambda name: {"pynvml": driver}[name])
    assert gpus is not None
    assert note is None
    return gpus.read()


def test_each_gpu_is_read_with_who_uses_it() -> None:
    driver = Driver({0: gpu(3 * GIB, (11, 2 * GIB), (12, None)), 1: None, 2: gpu(0)})

    assert read(driver) == {
        "GPU 0 (NVIDIA H200)": GpuMemory(total=141 * GIB, used=3 * GIB, holders={11: 2 * GIB, 12: None}),
        "GPU 2 (NVIDIA H200)": GpuMemory(total=141 * GIB, used=0),
    }


def test_what_the_driver_does_not_say_is_left_out() -> None:
    assert read(Driver({0: gpu(GIB, (1, 1))}, broken="nvmlDeviceGetCount")) == {}
    (only,) = read(Driver({0: gpu(GIB, (1, 1))}, broken="nvmlDeviceGetComputeRunningProcesses")).values()
    assert only == GpuMemory(total=141 * GIB, used=GIB)


def test_without_a_gpu_or_the_package_nothing_is_read(tmp_path: Path) -> None:
    def missing(name: str) -> object:
        raise ImportError(name)

    device = tmp_path / "nvidiactl"
    assert nvidia(missing, device) == (None, None)
    device.touch()
    assert nvidia(missing, device) == (None, memory.MISSING_NVML)
    assert nvidia(lambda name: Driver({}, broken="nvmlInit"), device) == (None, None)


def test_processes_that_are_there_are_named_with_what_they_hold() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)

    processes = memory.resident([os.getpid(), ended.pid, 2**22 + 1])
    ended.wait()

    assert set(processes) == {os.getpid()}
    name, size = processes[os.getpid()]
    assert name
    assert size > 2**20


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 MiB"), (5 * 2**20, "5 MiB"), (GIB, "1.0 GiB"), (15 * GIB // 10, "1.5 GiB")]
)
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert memory.shown(size) == text
