from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from pytest_llmparity.engines.facts import device
from pytest_llmparity.engines.wire.base import Adapter
from pytest_llmparity.settings.specification import EngineSpec

X86 = """processor\t: 0
model name\t: AMD EPYC 7763 64-Core Processor
flags\t\t: fpu sse2 avx fma f16c avx2 sha_ni

processor\t: 1
model name\t: another
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (X86, "AMD EPYC 7763 64-Core Processor (avx avx2 fma f16c)"),
        (ARM, "ARM implementer 0x41 part 0xd40 (asimd asimddp sve)"),
        ("Model\t: Raspberry Pi 5\n", "Raspberry Pi 5"),
        ("processor\t: 0\n", ""),
        ("", ""),
    ],
)
def test_a_cpu_is_its_model_and_the_extensions_kernels_are_written_for(text: str, expected: str) -> None:
    assert device.cpu_of(text) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_this_machine_has_one() -> None:
    assert device.describe({})


class Nvml(ModuleType):
    """``pynvml``, as far as it is asked, with two GPUs of one kind and one of another."""

    class NVMLError(Exception):
        pass

    def __init__(self, broken: str = "") -> None:
        super().__init__("pynvml")
        self.broken = broken
        self.open = 0

    def nvmlInit(self) -> None:  # noqa: N802 - NVML's names
        self._may("init")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802
        return b"NVIDIA L4" if handle == 2 else "NVIDIA H200"

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802
        return f"GPU-{handle}{handle}-x"

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        self._may("driver")
        return "570.1"

    def _may(self, call: str) -> None:
        if self.broken == call:
            raise self.NVMLError


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, "2 x NVIDIA H200, NVIDIA L4 (driver 570.1)"),
        ("0", "NVIDIA H200 (driver 570.1)"),
        ("2, 1", "NVIDIA L4, NVIDIA H200 (driver 570.1)"),
        ("GPU-22", "NVIDIA L4 (driver 570.1)"),
        ("0,7,1", "NVIDIA H200 (driver 570.1)"),
        ("", ""),
        ("-1", ""),
    ],
)
def test_gpus_are_those_the_engine_sees(monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: str) -> None:
    nvml = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}

    told = device.describe(environ)

    assert told.partition("; ")[0] == (expected or device.describe({"CUDA_VISIBLE_DEVICES": ""}))
    assert nvml.open == 0


@pytest.mark.parametrize("broken", ["init", "driver"])
def test_a_machine_without_a_driver_has_only_its_cpu(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Nvml(broken))

    assert "NVIDIA" not in device.describe({})


def test_what_cannot_be_asked_is_left_to_the_platform_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("platform.processor", lambda: "arm")
    monkeypatch.setitem(sys.modules, "pynvml", None)

    assert device.describe(os.environ) == "arm"


def test_only_of_an_engine_that_we_start_the_machine_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "describe", lambda environ: f"seen with {environ['GPUS']}")
    started = EngineSpec(name="e", kind="vllm", launch="process", model="m", env={"GPUS": "two"})

    facts = Adapter(started, "http://127.0.0.1:1", {}).identity().facts

    assert (facts["device"].value, facts["device"].source) == ("seen with two", "file")
    assert "device" not in Adapter(EngineSpec(name="e", model="m"), "http://127.0.0.1:1", {}).identity().facts


def test_threads_of_one_core_count_once_and_cores_of_which_nobody_tells_count_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3, 7}, raising=False)
    for number, siblings in {0: "0,4", 1: "1,3", 2: "2", 3: "1,3"}.items():
        (folder := tmp_path / f"cpu{number}/topology").mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")

    assert device.cores(topology=tmp_path, cgroup=tmp_path) == 4
    assert device.cores(topology=tmp_path / "nowhere", cgroup=tmp_path) == 5


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "900000 100000\n"}, 4),
        ({"cpu.max": "max 100000\n"}, 4),
        ({"cpu.max": "what is this\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "250000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "0\n"}, 4),
    ],
)
def test_a_containers_share_of_the_cpu_counts_as_the_cores_it_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1, 2, 3}, raising=False)
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    assert device.cores(topology=tmp_path / "nowhere", cgroup=tmp_path) == expected
