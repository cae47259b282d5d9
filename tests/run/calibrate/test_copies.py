"""Copies of a GGUF file: what is in them, and what cannot be made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_llmparity.core.errors import DesignError, NotMeasured
from pytest_llmparity.engines.facts import files
from pytest_llmparity.run.calibrate import copies, ladder

MODELS = Path(__file__).parents[3] / "fixtures/models/tiny"
SOURCE = MODELS / "tiny-F16.gguf"


@pytest.mark.parametrize(("quantization", "types"), [("Q8_0", "F32:9 Q8_0:29"), ("Q4_0", "F32:9 Q4_0:28 Q8_0:1")])
def test_the_gguf_package_rounds_matrices_and_keeps_the_rest(tmp_path: Path, quantization: str, types: str) -> None:
    target = tmp_path / "copy.gguf"

    copies.copy(SOURCE, target, quantization, None)

    made, source = files.gguf_header(target), files.gguf_header(SOURCE)
    assert (made["quantization"], made["tensor_types"]) == (quantization, types)
    assert (made["template"], made["tokenizer_sha256"]) == (source["template"], source["tokenizer_sha256"])
    assert made["context_length"] == source["context_length"]


@pytest.mark.slow
def test_8_bits_hold_the_weights_of_the_committed_copy(tmp_path: Path) -> None:
    import gguf

    copies.copy(SOURCE, tmp_path / "copy.gguf", "Q8_0", None)

    ours, theirs = (gguf.GGUFReader(path).tensors for path in (tmp_path / "copy.gguf", MODELS / "tiny-Q8_0.gguf"))
    assert {t.name: t.data.tobytes() for t in ours} == {t.name: t.data.tobytes() for t in theirs}


def program(tmp_path: Path, body: str) -> str:
    path = tmp_path / "quantize"
    path.write_text(f"#!{sys.executable}\nimport shutil, sys\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_program_makes_every_class(tmp_path: Path) -> None:
    told: list[str] = []
    quantize = program(tmp_path, "shutil.copy(sys.argv[1], sys.argv[2]); assert sys.argv[3] in ('Q4_K_M', 'Q2_K')")

    made = copies.make(SOURCE, tmp_path, ["Q4_K_M", "Q2_K"], copies.quantizer(quantize), say=told.append)

    assert [path.name for path in made.values()] == ["tiny-F16-Q4_K_M.gguf", "tiny-F16-Q2_K.gguf"]
    assert all(path.is_file() for path in made.values())
    assert told == ["making Q4_K_M of tiny-F16.gguf", "making Q2_K of tiny-F16.gguf"]


def test_a_program_that_fails_is_quoted(tmp_path: Path) -> None:
    quantize = program(tmp_path, "sys.exit('no such type')")

    with pytest.raises(NotMeasured, match=r"quantize could not make Q9 of tiny-F16.gguf \(exit code 1\): no such type"):
        copies.copy(SOURCE, tmp_path / "copy.gguf", "Q9", quantize)


def test_a_program_that_is_not_there_is_said() -> None:
    with pytest.raises(NotMeasured, match="there is no program nowhere-quantize"):
        copies.quantizer("nowhere-quantize")


@pytest.mark.parametrize(
    ("types", "with_program", "classes"),
    [
        (None, False, ["Q8_0", "Q4_0"]),
        (None, True, list(copies.CLASSES)),
        ("q4_k_m, Q8_0,q8_0", True, ["Q4_K_M", "Q8_0"]),
    ],
)
def test_classes_are_those_that_can_be_made(types: str | None, with_program: bool, classes: list[str]) -> None:
    assert copies.classes_of(types, "quantize" if with_program else None) == classes


@pytest.mark.parametrize(("types", "named"), [("Q4_K_M", "Q4_K_M"), ("F16", "F16"), (",", "nothing")])
def test_what_cannot_be_made_is_named(types: str, named: str) -> None:
    with pytest.raises(DesignError, match=f"no copy can be made as {named}; the gguf package makes Q8_0 and Q4_0"):
        copies.classes_of(types, None)


def test_a_ladder_begins_with_unquantised_weights(tmp_path: Path) -> None:
    assert ladder.digest_of(SOURCE).startswith("sha256:4210e926d44a")
    with pytest.raises(NotMeasured, match=r"the weights of tiny-Q8_0\.gguf are Q8_0; a ladder is measured from"):
        ladder.digest_of(MODELS / "tiny-Q8_0.gguf")
    with pytest.raises(NotMeasured, match="there is no file"):
        ladder.digest_of(tmp_path / "none.gguf")
