"""How far an image has come, read from what Docker 20.10 (client 28.2) and podman 4.3.1 wrote to a terminal."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_llmparity.core.ports import Layers
from pytest_llmparity.engines.start import pulling

DOCKER = (
    "v1: Pulling from t\r\n\r\n\x1b[1A\x1b[2K\rcd52c7054e83: Pulling fs layer \r\x1b[1B\x1b[1A\x1b[2K\r"
    "ab52c7054e83: Already exists \r\x1b[1B\x1b[1A\x1b[2K\rcd52c7054e83: Downloading  25.32MB/61.04MB\r\x1b[1B"
)
DOCKER_LATER = (
    "\x1b[1A\x1b[2K\rcd52c7054e83: Verifying Checksum \r\x1b[1B"
    "\x1b[1A\x1b[2K\rcd52c7054e83: Download complete \r\x1b[1B"
    "\x1b[1A\x1b[2K\rcd52c7054e83: Extracting  557.1kB/61.04MB\r\x1b[1B"
)
DOCKER_AT_LAST = (
    "\x1b[1A\x1b[2K\rcd52c7054e83: Pull complete \r\x1b[1BDigest: sha256:401198a1\r\nStatus: Downloaded newer image\r\n"
)
PODMAN = (
    "Trying to pull 127.0.0.1:5055/t:v1...\r\nGetting image source signatures\r\n"
    "Copying blob cd52c7054e83 [=======>------------------------------] 11.5MiB / 58.2MiB\r\n"
    "Copying blob 12345c7054e8 skipped: already exists  \r\n\x1b[1A\x1b[J"
)
PODMAN_AT_LAST = (
    "Copying blob cd52c7054e83 done  \r\nCopying config a02041fa30 [======] 895.0b / 895.0b\r\n\x1b[1A\x1b[J"
    "Copying config a02041fa30 done  \r\nWriting manifest to image destination\r\n"
)
MIB = 1024 * 1024
WRITES = "import sys; [(sys.stdout.write(text), sys.stdout.flush()) for text in {texts!r}]; sys.exit({code})"


def shown(*texts: str, code: int = 0) -> tuple[int, list[str]]:
    """Return exit code and lines of a program that writes these to a terminal."""
    lines: list[str] = []
    argv = [sys.executable, "-c", WRITES.format(texts=texts, code=code)]
    return pulling.run(argv, lines.append, every_s=0.0), lines


@pytest.mark.parametrize(
    ("texts", "layers"),
    [
        ((DOCKER,), Layers(1, 2, 25_320_000, 61_040_000)),
        ((DOCKER, DOCKER_LATER), Layers(1, 2, 61_040_000, 61_040_000)),
        ((DOCKER, DOCKER_LATER, DOCKER_AT_LAST), Layers(2, 2, 61_040_000, 61_040_000)),
        ((PODMAN,), Layers(1, 2, round(11.5 * MIB), round(58.2 * MIB))),
        ((PODMAN, PODMAN_AT_LAST), Layers(2, 2, round(58.2 * MIB), round(58.2 * MIB))),
    ],
)
def test_layers_and_bytes_are_told_as_they_come(texts: tuple[str, ...], layers: Layers, tmp_path: Path) -> None:
    code, lines = shown(*texts)
    log = tmp_path / "pull.log"
    log.write_text("\n".join(lines) + "\n")

    assert code == 0
    assert pulling.how_far(log) == layers
    assert not any("\x1b" in line or "\r" in line for line in lines)


def test_the_clients_own_words_and_exit_code_are_kept_without_what_it_drew() -> None:
    words = "Error response from daemon: manifest unknown"

    code, lines = shown(DOCKER, f"{words}\r\n", code=125)

    assert code == 125
    assert pulling.client_words("\n".join(lines)) == f"v1: Pulling from t\n{words}"


def test_a_client_that_is_not_there_is_told_and_ends_as_a_shell_has_it() -> None:
    lines: list[str] = []

    assert pulling.run(["/nowhere/docker", "pull"], lines.append) == 127
    assert lines == ["[Errno 2] No such file or directory"]


def test_nothing_is_known_of_a_log_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "pull.log").write_text("Trying to pull t...\n")

    assert pulling.how_far(tmp_path / "pull.log") is None
    assert pulling.how_far(tmp_path / "none.log") is None


def test_a_client_that_asks_a_question_has_nobody_to_answer_and_still_draws_at_a_terminal() -> None:
    asks = "import sys; print([sys.stdin.isatty(), sys.stdin.read(), sys.stdout.isatty(), sys.stderr.isatty()])"
    lines: list[str] = []

    assert pulling.run([sys.executable, "-c", asks], lines.append) == 0
    assert lines == ["[False, '', True, True]"]


@pytest.mark.parametrize("sizes", ["1.2.3MB/4MB", ".MB/4MB", "4MB/1.2.3MB", "./.B", "MB/MB"])
def test_sizes_that_are_no_numbers_are_none(sizes: str) -> None:
    pull = pulling.Pull()

    assert pull.take(f"cd52c7054e83: Downloading {sizes}")
    assert pull.layers == Layers(0, 1, 0, 0)


@given(st.lists(st.text(alphabet="0123456789abcdef :/.kMGiB[=>]Downloadingcomplete", max_size=60)))
def test_no_line_makes_more_come_than_there_is_in_layers(lines: list[str]) -> None:
    pull = pulling.Pull()
    for line in lines:
        pull.take(line)

    assert 0 <= pull.layers.done <= pull.layers.of
    assert min(pull.layers) >= 0
