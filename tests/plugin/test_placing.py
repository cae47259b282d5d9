"""What keeps a run from a cluster is told before anything is collected, also where Ray is not installed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_llmparity.plugin.placing import why_no_ray
from tests.doubles.installed import installed_from

HERE = Path(__file__).parent
RAY = "ray/_private/services.py"
ENGINE = """
[engines.a]
kind = "llamacpp"
model = "m.gguf"
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a folder with these files and a version of Ray in its metadata the only place that Python imports from."""

    def only(*files: str, version: str | None = None) -> Path:
        for file in files:
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / file).touch()
        if version is not None:
            (tmp_path / f"ray-{version}.dist-info").mkdir()
            (tmp_path / f"ray-{version}.dist-info/METADATA").write_text(f"Name: ray\nVersion: {version}\n")
        monkeypatch.setattr(sys, "path", [str(tmp_path)])
        monkeypatch.setattr(sys, "path_importer_cache", {})
        monkeypatch.delitem(sys.modules, "ray", raising=False)
        return tmp_path

    return only


@pytest.mark.parametrize(
    ("files", "version", "why"),
    [
        ((), None, "which is not installed: pip install {install} here and on every node"),
        (("ray/session_latest",), None, "which is not installed ({}/ray is a folder of that name without it): pip"),
        (("ray/__init__.py",), None, "and {}/ray, which comes first on sys.path, is not Ray: rename it or run"),
        (("ray/__init__.py",), "2.60.0", "and {}/ray, which comes first on sys.path, is not Ray: rename it or run"),
        (("ray.py",), "2.60.0", "and {}/ray.py, which comes first on sys.path, is not Ray: rename it or run"),
        (("ray/__init__.py", RAY), "2.9.3", "and 2.9.3 is installed: pip install {install}"),
    ],
)
def test_why_there_is_no_ray_is_said_and_what_to_do(
    files: tuple[str, ...], version: str | None, why: str, path: Callable[..., Path]
) -> None:
    folder = path(*files, version=version)

    told = why_no_ray() or ""

    assert told.startswith(why.format(folder, install='"pytest-llmparity[ray]"'))
    assert ("pip install" in told) is (version != "2.60.0")


@pytest.mark.parametrize(
    ("origin", "install"),
    [
        (
            {"url": HERE.as_uri(), "dir_info": {"editable": True}},
            f'pip install -e "{HERE}[ray]" here, and Ray (the same extra) in the environment of every node',
        ),
        (
            {"url": "https://host/x.git", "vcs_info": {"vcs": "git", "commit_id": "1f2e"}},
            'pip install "pytest-llmparity[ray] @ git+https://host/x.git@1f2e" here and on every node of the cluster',
        ),
    ],
)
def test_no_folder_of_this_machine_is_named_for_the_nodes(
    origin: dict[str, object],
    install: str,
    path: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed_from(origin, tmp_path, monkeypatch)  # before path: monkeypatch gives back the sys.path that this found
    path()

    assert why_no_ray() == f"which is not installed: {install}"


@pytest.mark.parametrize("version", ["2.60.0", "3.0.0", None])
def test_ray_is_taken_as_it_is_found(version: str | None, path: Callable[..., Path]) -> None:
    path("ray/__init__.py", RAY, version=version)

    assert why_no_ray() is None


@pytest.mark.slow
def test_a_folder_that_hides_ray_ends_the_run_before_anything_is_collected(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pytester.path / "beside/ray").mkdir(parents=True)
    (pytester.path / "beside/ray/__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(pytester.path / "beside"))
    pytester.makefile(".toml", llmparity=ENGINE)
    (pytester.path / "m.gguf").touch()
    pytester.makepyfile("raise AssertionError('collected')")

    result = pytester.runpytest_subprocess("--engines=a", "--parity-executor=ray=127.0.0.1:9")

    assert result.ret == 4
    result.stderr.fnmatch_lines("*ray=127.0.0.1:9 needs Ray 2.60 or later, and *beside/ray, which comes first on *")
    assert "collected" not in result.stdout.str()
