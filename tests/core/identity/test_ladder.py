"""Where a shift stands on a model's ladder, and which copy a declared class is held against."""

from __future__ import annotations

import dataclasses

import pytest

from pytest_llmparity.core.identity.agreed import Agreed
from pytest_llmparity.core.identity.ladder import Forks, Ladder, Rung, place
from pytest_llmparity.core.sample import Fact, Identity

SHIFTS = {"Q8_0": 0.036, "Q6_K": 0.087, "Q4_K_M": 0.161, "Q4_0": 0.336, "Q2_K": 0.586}
RUNGS = tuple(
    Rung(
        quantization=name,
        shift=shift,
        lower=0.9 * shift,
        upper=1.1 * shift,
        forks=shift / 4,
        least_forks=shift / 4.1,
        most_forks=shift / 3,
        tags={"stories": Forks(forks=shift / 3, least_forks=shift / 3.1, most_forks=shift / 2.8)},
    )
    for name, shift in SHIFTS.items()
)
LADDER = Ladder(
    digest="sha256:" + "4210e926d44a" + "0" * 52,
    model="tiny-F16.gguf",
    date="2026-11-28",
    server="llamacpp b10566",
    made_by="llama-quantize",
    prompts=32,
    groups=32,
    prompt_set="calibration",
    plugin="1.0",
    rungs=RUNGS,
    prompt_sha256="d",  # that of ``make.evidence``
    max_tokens=32,
)


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        (0.0, "less than Q8_0 (0.036), the finest copy"),
        (0.02, "less than Q8_0 (0.036), the finest copy"),
        (0.030, "about Q8_0 (0.036), next to Q6_K (0.087)"),
        (0.09, "about Q6_K (0.087), between Q8_0 (0.036) and Q4_K_M (0.161)"),
        (0.16, "about Q4_K_M (0.161), between Q6_K (0.087) and Q4_0 (0.336)"),
        (0.7, "about Q2_K (0.586), next to Q4_0 (0.336)"),
        (3.0, "more than Q2_K (0.586), the coarsest copy"),
    ],
)
def test_a_shift_is_named_by_the_nearest_class_and_its_neighbours(shift: float, words: str) -> None:
    shown = [f"{rung.shift:g}" for rung in RUNGS]

    assert place(shift, RUNGS, shown) == words
    assert place(shift, RUNGS[::-1], shown[::-1]) == words


def test_a_ladder_of_one_rung_has_no_neighbours() -> None:
    assert place(0.04, RUNGS[:1], ["0.036"]) == "about Q8_0 (0.036)"


@pytest.mark.parametrize(
    ("declared", "rung"), [("Q4_K_M", "Q4_K_M"), ("BF16", "Q8_0"), ("F16", "Q8_0"), ("AWQ", None), (None, None)]
)
def test_a_class_is_held_against_its_own_copy(declared: str | None, rung: str | None) -> None:
    found_rung = LADDER.rung(declared)

    assert (found_rung and found_rung.quantization) == rung


def test_a_ladder_is_of_one_model_known_by_its_weights() -> None:
    agreed = Agreed().measuring(LADDER).measuring(dataclasses.replace(LADDER, date="2026-12-01"))
    other = dataclasses.replace(LADDER, digest="sha256:" + "f" * 64)

    assert [ladder.date for ladder in agreed.ladders] == ["2026-12-01"]
    assert len(agreed.measuring(other).ladders) == 2
    assert agreed.ladder(told(LADDER.digest)) is not None
    assert agreed.ladder(told(other.digest, model=LADDER.model)) is None
    assert agreed.ladder(Identity(facts={"model": Fact(value=LADDER.model, source="reported")})) is None


def test_ollamas_blob_of_the_file_is_the_file_and_its_adapters_make_it_another_one() -> None:
    """Its digest is of the manifest, which has the template in it too; a blob that it rewrote is another file."""
    agreed, manifest = Agreed().measuring(LADDER), f"sha256:{'9' * 64}"

    assert agreed.ladder(told(manifest, raw=LADDER.digest)) is LADDER
    assert agreed.ladder(told(manifest, raw=f"sha256:{'8' * 64}")) is None
    assert agreed.ladder(told(LADDER.digest, raw="model-00001-of-00002.gguf", adapters="none")) is LADDER
    assert agreed.ladder(told(manifest, raw=LADDER.digest, adapters="sql rank 8")) is None


def told(digest: str, *, raw: str = "", **facts: str) -> Identity:
    known = {name: Fact(value=value, source="reported") for name, value in facts.items()}
    return Identity(facts={"digest": Fact(value=digest, source="reported", raw=raw), **known})
