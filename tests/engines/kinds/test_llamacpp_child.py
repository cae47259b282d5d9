from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pytest_llmparity.engines.kinds.llamacpp.child import main

FLAGS = ["--alias", "x", "--port", "1", "--ctx-size", "64", "--parallel", "1"]


def test_missing_package_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)

    assert main(["--model", "x.gguf", *FLAGS]) == 1
    assert "has no usable xllamacpp" in capsys.readouterr().err


def test_unknown_flag_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--model", "x.gguf", *FLAGS, "--rope-scaling", "yarn"])

    assert caught.value.code == 2
    assert "--rope-scaling" in capsys.readouterr().err


def test_a_template_that_cannot_be_read_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--model", "x.gguf", *FLAGS, "--chat-template-file", "none.jinja"])

    assert caught.value.code == 2
    assert "argument --chat-template-file: none.jinja cannot be read" in capsys.readouterr().err


def test_model_that_cannot_be_read_ends_the_process_with_its_name(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    child = Path(main.__code__.co_filename)
    flags = [*FLAGS, "--threads", "1", "--n-gpu-layers", "0", "--batch-size", "32", "--ubatch-size", "32"]
    flags += ["-ctk", "q4_0", "--cache-type-v", "q8_0"]

    done = subprocess.run(
        [sys.executable, "-P", child, "--model", "none.gguf", *flags],
        cwd=tmp_path,
        capture_output=True,
        timeout=50,
        check=False,
    )

    assert done.returncode == 1
    assert b"llama.cpp could not serve none.gguf" in done.stderr
